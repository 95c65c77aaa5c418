//! Saving: configuration, collectors, unit, account, links, and for tarballs the whole tree. Package scripts are never trusted to carry
//! anything over: RPM erases the configuration and edited collector files, the Debian migration hangs on a `.bak` file of unknown origin.

use super::engine::Run;
use super::error::{StepError, StepResult};
use super::saved::{Kept, KeptCollector, KeptProcess, KeptUnit, Saved};
use super::stage::Staged;
use crate::config::Paths;
use crate::detect::Looked;
use crate::host::command::Tool;
use crate::host::reserve::{Reserve, bytes_for};
use crate::host::{accounts, files, processes};
use client_upgrade::environment::Variables;
use client_upgrade::parse::{dpkg, rpm};
use fleet_common::codes;
use fleet_common::inventory::{Installation, Method};
use fs_err as fs;
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Archive of a tarball's tree in the saved set.
pub const TREE: &str = "tree.tar";
/// Directory of the kept package in the saved set.
const PACKAGE_DIR: &str = "package";
/// Where packages put their links.
const LINK_DIRS: [&str; 2] = ["/usr/bin", "/usr/sbin"];
/// The linked programs.
const LINKED: [&str; 2] = ["pmm-admin", "pmm-agent"];

/// Saves everything. A complete save of this very order is kept as it is: the host may already be changed. The set from before stays until
/// the new one is complete.
pub fn save(run: &Run<'_>) -> StepResult<()> {
    let complete = &run.shared.paths;
    if let Some(saved) = Saved::load(complete).filter(|saved| saved.order_id == run.order.order_id) {
        return reserve(complete, &saved);
    }
    let looked = run.look();
    let installation = run.installation(&looked)?;
    tidy(complete)?;
    let making = &complete.saving();
    fs::create_dir_all(making.saved())?;
    let saved = collect(run, &looked, installation, making)?;
    saved.store(making)?;
    files::swap_dir(&making.saved(), &complete.saved(), &complete.saved_before())?;
    reserve(complete, &saved)
}

/// Sets room aside for the way back of a saved set.
pub fn reserve(paths: &Paths, saved: &Saved) -> StepResult<()> {
    let put_back = saved
        .config
        .iter()
        .chain(saved.collectors.values().map(|collector| &collector.file))
        .chain(&saved.unit_files)
        .chain(&saved.package_unit)
        .filter_map(|kept| fs::metadata(kept.copy_path(paths)).ok())
        .map(|meta| meta.len());
    Reserve::of(paths)
        .make(bytes_for(put_back, state_bytes(paths)))
        .map_err(|error| {
            let message = format!(
                "no room can be set aside for the way back in {}: {error}; free some space there",
                paths.state().display()
            );
            StepError::new(codes::PREFLIGHT, message)
        })
}

/// Sizes of the state files that are written anew as a whole.
pub fn state_bytes(paths: &Paths) -> impl Iterator<Item = u64> {
    let files = [
        paths.journal(),
        paths.outbox(),
        paths.results(),
        paths.inventory(),
        paths.link(),
    ];
    files
        .into_iter()
        .filter_map(|path| fs::metadata(path).ok())
        .map(|meta| meta.len())
}

/// Removes half-made sets; called when the agent starts.
pub fn tidy(paths: &Paths) -> std::io::Result<()> {
    files::recover(&paths.saving().saved(), &paths.saved(), &paths.saved_before())
}

fn collect(run: &Run<'_>, looked: &Looked, installation: Installation, paths: &Paths) -> StepResult<Saved> {
    let base = Path::new(&installation.base_dir).to_owned();
    let base_owner = processes::owner_of(&base).unwrap_or((0, 0));
    let config_path = Path::new(&installation.config_file);
    // Names in the set are those it has once it is complete.
    let place = run.shared.paths.saved();
    Ok(Saved {
        order_id: run.order.order_id.clone(),
        config: config_path
            .exists()
            .then(|| Kept::save(paths, config_path))
            .transpose()?,
        collectors: collectors(paths, &installation)?,
        unit_files: unit_files(paths, looked)?,
        package_unit: package_unit(paths, looked, &installation)?,
        unit: unit(looked, &installation),
        account: accounts::find(&installation.user).filter(|account| account.uid != 0),
        links: links(),
        process: looked.main_process().map(process),
        base_owner,
        tree: (installation.method == Method::Tarball)
            .then(|| tree(paths, &base).map(|()| place.join(TREE)))
            .transpose()?,
        package_file: package(run, &installation, paths)?.map(|name| place.join(PACKAGE_DIR).join(name)),
        installation,
    })
}

/// The staged package of the installed release becomes part of the set: what is staged next must not take it away. Without it there is no
/// way back, so nothing is begun.
fn package(run: &Run<'_>, installation: &Installation, paths: &Paths) -> StepResult<Option<OsString>> {
    if installation.version == run.entry.to {
        return Ok(None);
    }
    let missing = |what: &str| StepError::new(codes::STAGE_FAILED, format!("{what} is not staged"));
    let staged = Staged::load_for(&run.shared.paths, run.entry, installation)
        .ok_or_else(|| missing("the new release"))?;
    if installation.method == Method::Tarball {
        return Ok(None);
    }
    let kept = staged
        .kept
        .ok_or_else(|| missing("the package of the installed release"))?;
    let name = kept.file_name().unwrap_or_default().to_owned();
    let dir = paths.saved().join(PACKAGE_DIR);
    fs::create_dir_all(&dir)?;
    let to = dir.join(&name);
    // Both lie in the state directory, so a second name costs nothing; where that can't be had a copy does.
    if std::fs::hard_link(&kept, &to).is_err() {
        fs::copy(&kept, &to)?;
    }
    fs::File::open(&to)?.sync_all()?;
    files::sync_dir(&dir)?;
    Ok(Some(name))
}

fn unit(looked: &Looked, installation: &Installation) -> Option<KeptUnit> {
    use fleet_common::inventory::RunKind;
    let name = match &installation.run {
        RunKind::Systemd { unit, .. } => unit.as_str(),
        _ => crate::detect::UNIT,
    };
    looked
        .facts
        .units
        .iter()
        .find(|unit| unit.name == name)
        .map(KeptUnit::from)
}

/// Unit files, drop-ins and environment files below `/etc`: the administrator's, not the package's.
fn unit_files(paths: &Paths, looked: &Looked) -> StepResult<Vec<Kept>> {
    let mut kept = Vec::new();
    for path in administrators_units(looked) {
        kept.push(Kept::save(paths, &path)?);
    }
    Ok(kept)
}

/// The unit file that the package brought, outside of `/etc`.
fn package_unit(paths: &Paths, looked: &Looked, installation: &Installation) -> StepResult<Option<Kept>> {
    if installation.package.is_none() {
        return Ok(None);
    }
    let units = looked.facts.units.iter();
    let file = units
        .filter(|unit| unit.name == crate::detect::UNIT && !unit.fragment.starts_with("/etc/"))
        .filter_map(|unit| fs::canonicalize(&unit.fragment).ok())
        .find(|path| path.is_file());
    Ok(file.map(|path| Kept::save(paths, &path)).transpose()?)
}

/// The administrator's unit files of the client and the environment files with its variables, links resolved.
pub fn administrators_units(looked: &Looked) -> Vec<PathBuf> {
    let all = looked.facts.units.iter().flat_map(|unit| {
        let files = unit.environment_files.iter().filter(|path| sets_variables(path));
        unit.drop_ins.iter().chain([&unit.fragment]).chain(files)
    });
    let own: BTreeSet<PathBuf> = all
        .filter(|path| path.starts_with("/etc/"))
        .filter_map(|path| fs::canonicalize(path).ok())
        .filter(|path| path.starts_with("/etc") && path.is_file())
        .collect();
    own.into_iter().collect()
}

fn sets_variables(path: &str) -> bool {
    fs::read_to_string(path).is_ok_and(|text| !Variables::of_file(&text).is_empty())
}

fn links() -> BTreeMap<String, String> {
    LINK_DIRS
        .iter()
        .flat_map(|dir| LINKED.iter().map(move |name| format!("{dir}/{name}")))
        .filter_map(|path| {
            std::fs::read_link(&path)
                .ok()
                .map(|target| (path, target.display().to_string()))
        })
        .collect()
}

/// A process as it can be started again.
pub fn process(found: &processes::Process) -> KeptProcess {
    KeptProcess {
        pid: found.pid,
        argv: found.argv.clone(),
        environment: processes::environment(found.pid),
        cwd: found.cwd.clone(),
        uid: found.uid,
        gid: found.gid,
        log: processes::stream_file(found.pid, 2).or_else(|| processes::stream_file(found.pid, 1)),
    }
}

fn collectors(paths: &Paths, installation: &Installation) -> StepResult<BTreeMap<String, KeptCollector>> {
    let root = Path::new(&installation.base_dir).join("collectors");
    let known = Known::of(installation);
    let mut kept = BTreeMap::new();
    for relative in files::walk(&root) {
        let path = root.join(&relative);
        let digest = fleet_artifacts::file_sha256_hex(&path)
            .map_err(|error| std::io::Error::other(error.to_string()))?;
        let (edited, packaged) = known.of_file(&path);
        let modified_s = fs::metadata(&path)?.mtime();
        let collector = KeptCollector {
            file: Kept::save(paths, &path)?,
            digest,
            modified_s,
            edited,
            packaged,
        };
        kept.insert(relative.display().to_string(), collector);
    }
    Ok(kept)
}

/// What the package database knows of its files.
struct Known {
    edited: BTreeSet<String>,
    packaged: Option<BTreeSet<String>>,
}

impl Known {
    fn of(installation: &Installation) -> Self {
        let Some(package) = &installation.package else {
            return Self {
                edited: BTreeSet::new(),
                packaged: None,
            };
        };
        let slow = Duration::from_secs(120);
        let (verify, list) = match installation.method {
            Method::Deb => (
                Tool::new("dpkg").args(["--verify", package]),
                Tool::new("dpkg").args(["-L", package]),
            ),
            _ => (
                Tool::new("rpm").args(["-V", "--nodeps", "--noscripts", package]),
                Tool::new("rpm").args(["-ql", package]),
            ),
        };
        let said = verify
            .timeout(slow)
            .run()
            .map(|output| output.stdout)
            .unwrap_or_default();
        let edited = if installation.method == Method::Deb {
            dpkg::verify(&said)
        } else {
            rpm::verify(&said)
        };
        let packaged = list
            .timeout(slow)
            .run()
            .ok()
            .filter(|output| output.ok())
            .map(|output| output.stdout.lines().map(str::to_owned).collect());
        Self {
            edited: edited.into_iter().collect(),
            packaged,
        }
    }

    fn of_file(&self, path: &Path) -> (Option<bool>, Option<bool>) {
        let Some(packaged) = &self.packaged else {
            return (None, None);
        };
        let path = path.display().to_string();
        let is_packaged = packaged.contains(&path);
        (
            Some(self.edited.contains(&path) || !is_packaged),
            Some(is_packaged),
        )
    }
}

/// Archives a program tree. `tar` keeps modes, owners and times; the archive lies where only root can change it.
fn tree(paths: &Paths, base: &Path) -> StepResult<()> {
    let archive = paths.saved().join(TREE);
    let names = [
        "--create",
        "--one-file-system",
        "--numeric-owner",
        "--exclude=./tmp",
        "--exclude=./data",
    ];
    Tool::new("tar")
        .args(names)
        .arg(format!("--file={}", archive.display()))
        .arg(format!("--directory={}", base.display()))
        .arg(".")
        .timeout(Duration::from_secs(300))
        .check()?;
    fs::File::open(&archive)?.sync_all()?;
    Ok(())
}
