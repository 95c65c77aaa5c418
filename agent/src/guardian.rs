//! The guardian of the agent's own update: a copy of the old program, in a unit outside of the agent's, that installs the new release, waits
//! until it was welcomed by the coordinator, and else puts the old one back. Which phase follows is decided in
//! `client_upgrade::self_update`; a phase is on disk before it is begun, and each may be begun again.
//!
//! ```text
//! <state>/self-update/  spec.json     what is to be done; its presence means that everything is prepared
//!                       phase.json    where the guardian is
//!                       healthy.json  the release that was welcomed last, written by the agent that was
//!                       guardian, old/, <package>
//! ```

use crate::config::Paths;
use crate::host::command::Tool;
use crate::host::files::{self, Ownership};
use crate::host::transaction::{Command, in_own_unit};
use crate::host::{clock, processes, systemd};
use client_upgrade::journal::JournalOrder;
use client_upgrade::self_update::{HEALTHY_MS, INSTALL_MS, Phase, Seen, next};
use fleet_common::agent_release::AgentRelease;
use fleet_common::digest::sha256_hex;
use fleet_common::inventory::Method;
use fs_err as fs;
use serde::{Deserialize, Serialize};
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

pub use crate::host::transaction::own_program;

/// Our own unit.
const UNIT: &str = "pmm-upgrade-agent.service";
/// Where packages and the tarball put it.
const UNIT_FILE: &str = "/usr/lib/systemd/system/pmm-upgrade-agent.service";
/// Where packages and the tarball put the program.
const PROGRAM: &str = "usr/bin/pmm-upgrade-agent";
/// systemd's own limits for stop and start together.
const RESTART: Duration = Duration::from_secs(200);

/// A file of the old release.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Kept {
    path: PathBuf,
    copy: PathBuf,
    ownership: Ownership,
}

/// What the guardian is to do.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Spec {
    /// The order.
    pub order_id: String,
    release: AgentRelease,
    method: Method,
    old_version: String,
    /// The agent's program.
    program: PathBuf,
    /// Our unit's file; `None` where the agent is not run by it.
    unit_file: Option<PathBuf>,
    package: PathBuf,
    kept: Vec<Kept>,
    /// The package of the old release, where an earlier update left it.
    old_package: Option<PathBuf>,
    /// Where the package of a release that stays is kept.
    package_dir: PathBuf,
    healthy_for_ms: u64,
}

impl Spec {
    /// Reads it.
    pub fn load(dir: &Path) -> Option<Self> {
        files::read_json(&dir.join("spec.json"))
    }
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct State {
    phase: Phase,
    /// What went wrong first.
    why: String,
}

impl State {
    fn load(dir: &Path) -> Self {
        files::read_json(&dir.join("phase.json")).unwrap_or(Self {
            phase: Phase::Prepared,
            why: String::new(),
        })
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Healthy {
    version: String,
}

/// How it ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ending {
    /// The new release stays.
    Kept,
    /// The old one is back; why.
    Back(String),
    /// Neither was welcomed; why.
    Failed(String),
}

/// How the guardian ended, if it did.
pub fn ending(dir: &Path) -> Option<Ending> {
    let state = State::load(dir);
    match state.phase {
        Phase::Kept => Some(Ending::Kept),
        Phase::Back => Some(Ending::Back(state.why)),
        Phase::Failed => Some(Ending::Failed(state.why)),
        _ => None,
    }
}

/// Whether the guardian may have changed anything.
pub fn touched(dir: &Path) -> bool {
    State::load(dir).phase != Phase::Prepared
}

/// How a program of ours was installed.
pub fn installed_by(program: &Path) -> Method {
    let owned = |tool: Tool| tool.run().is_ok_and(|output| output.ok());
    let path = program.display().to_string();
    if owned(Tool::new("dpkg").args(["-S", "--", &path])) {
        Method::Deb
    } else if owned(Tool::new("rpm").args(["-qf", "--", &path])) {
        Method::Rpm
    } else {
        Method::Tarball
    }
}

/// An agent was welcomed: the guardian, if there is one, wants to know of which release.
pub fn welcomed(paths: &Paths) {
    let dir = paths.self_update();
    if Spec::load(&dir).is_none() || ending(&dir).is_some() {
        return;
    }
    let healthy = Healthy {
        version: env!("CARGO_PKG_VERSION").to_owned(),
    };
    if let Err(error) = files::write_json(&dir.join("healthy.json"), &healthy) {
        tracing::error!(%error, "the guardian can't be told that this release works");
    }
}

/// Keeps what runs and writes down what is to be done. Nothing is changed yet.
pub fn prepare(paths: &Paths, order: &JournalOrder, release: &AgentRelease) -> io::Result<()> {
    let dir = paths.self_update();
    if Spec::load(&dir).is_some() && ending(&dir).is_none() && lock(&dir)?.is_none() {
        return Err(io::Error::other("another update of the agent is under way"));
    }
    files::remove(&dir)?;
    fs::create_dir_all(dir.join("old"))?;
    let program = PathBuf::from(own_program()?);
    let unit_file = PathBuf::from(UNIT_FILE);
    let packaged = program == Path::new("/").join(PROGRAM) && unit_file.exists();
    let unit_file = packaged.then_some(unit_file);
    let mut kept = Vec::new();
    for (number, path) in [Some(&program), unit_file.as_ref()]
        .into_iter()
        .flatten()
        .enumerate()
    {
        let copy = dir.join("old").join(number.to_string());
        files::replace(&copy, &fs::read(path)?, files::PRIVATE)?;
        kept.push(Kept {
            path: path.clone(),
            copy,
            ownership: Ownership::of(path)?,
        });
    }
    let runnable = Ownership {
        mode: 0o700,
        ..files::PRIVATE
    };
    files::replace(&dir.join("guardian"), &fs::read(&program)?, runnable)?;
    let package = dir.join(&release.file);
    fs::rename(paths.artifacts().join(&release.sha256), &package)?;
    let spec = Spec {
        order_id: order.order_id.clone(),
        release: release.clone(),
        method: installed_by(&program),
        old_version: env!("CARGO_PKG_VERSION").to_owned(),
        program,
        unit_file,
        package,
        kept,
        old_package: package_of(&paths.agent_package(), release, env!("CARGO_PKG_VERSION")),
        package_dir: paths.agent_package(),
        // An order with little time leaves little for each of the two waits.
        healthy_for_ms: HEALTHY_MS.min(order.deadline_for_ms / 4).max(1_000),
    };
    files::write_json(&dir.join("spec.json"), &spec)
}

/// The package of a release in a directory.
fn package_of(dir: &Path, like: &AgentRelease, version: &str) -> Option<PathBuf> {
    let wanted = like.kind().ok()?.0;
    fs::read_dir(dir)
        .ok()?
        .flatten()
        .map(|entry| entry.path())
        .find(|path| {
            let named = AgentRelease {
                file: path
                    .file_name()
                    .unwrap_or_default()
                    .to_string_lossy()
                    .into_owned(),
                ..like.clone()
            };
            named
                .kind()
                .is_ok_and(|(method, release)| method == wanted && release.to_string() == version)
        })
}

/// Starts the guardian unless it runs or has ended. Says whether it started one.
pub fn keep_running(dir: &Path) -> io::Result<bool> {
    let unit = format!(
        "pmm-upgrade-guardian-{}.service",
        &sha256_hex(dir.display().to_string().as_bytes())[..16]
    );
    let runs = || systemd::present() && systemd::is_active(&unit);
    if ending(dir).is_some() || lock(dir)?.is_none() || runs() {
        return Ok(false);
    }
    let argv = [
        dir.join("guardian").display().to_string(),
        "guardian".to_owned(),
        dir.display().to_string(),
    ];
    let log = fs::OpenOptions::new()
        .create(true)
        .append(true)
        .open(dir.join("guardian.log"))?;
    match in_own_unit(&unit, "PMM upgrade agent's own update", &argv, log.into_parts().0)? {
        Some(status) if !status.success() => Err(io::Error::other(format!(
            "the guardian could not be started: {status}"
        ))),
        _ => Ok(true),
    }
}

/// The guardian's lock; `None` while one holds it.
fn lock(dir: &Path) -> io::Result<Option<fs::File>> {
    let file = fs::OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .open(dir.join("lock"))?;
    match rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(Some(file)),
        Err(rustix::io::Errno::WOULDBLOCK) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// The inside of the unit: from the phase on disk to the end.
pub fn run(dir: &Path) -> anyhow::Result<()> {
    let Some(_lock) = lock(dir)? else { return Ok(()) };
    let spec = Spec::load(dir).ok_or_else(|| anyhow::anyhow!("there is nothing to do here"))?;
    loop {
        let state = State::load(dir);
        if state.phase.is_final() {
            tracing::info!(phase = ?state.phase, why = %state.why, "the guardian ends");
            return Ok(());
        }
        let (seen, why) = match act(&spec, dir, state.phase) {
            Ok(seen) if seen == Seen::TimeOver => (seen, over(&spec, state.phase)),
            Ok(seen) => (seen, String::new()),
            Err(error) => (Seen::Failed, format!("{:?}: {error:#}", state.phase)),
        };
        let following = next(state.phase, seen);
        tracing::info!(from = ?state.phase, ?seen, to = ?following, %why, "guardian");
        if following == Phase::Kept {
            keep_package(&spec);
        }
        let why = match (state.why.is_empty(), why.is_empty()) {
            (true, _) => why,
            (false, true) => state.why,
            (false, false) => format!("{}; then {why}", state.why),
        };
        files::write_json(
            &dir.join("phase.json"),
            &State {
                phase: following,
                why,
            },
        )?;
    }
}

fn over(spec: &Spec, phase: Phase) -> String {
    let version = match phase {
        Phase::WaitingBack => &spec.old_version,
        _ => &spec.release.version,
    };
    format!(
        "the coordinator welcomed no agent of release {version} within {} s",
        spec.healthy_for_ms / 1000
    )
}

fn act(spec: &Spec, dir: &Path, phase: Phase) -> anyhow::Result<Seen> {
    match phase {
        Phase::Prepared => {
            files::remove(&dir.join("healthy.json"))?;
            Ok(Seen::Done)
        }
        Phase::Installing => {
            install(spec, dir)?;
            Ok(Seen::Done)
        }
        Phase::Waiting => Ok(wait(spec, dir, &spec.release.version, Seen::NewWelcomed)),
        Phase::GoingBack => {
            files::remove(&dir.join("healthy.json"))?;
            put_back(spec, dir)?;
            Ok(Seen::Done)
        }
        Phase::WaitingBack => Ok(wait(spec, dir, &spec.old_version, Seen::OldWelcomed)),
        Phase::Kept | Phase::Back | Phase::Failed => Ok(Seen::Nothing),
    }
}

fn wait(spec: &Spec, dir: &Path, version: &str, then: Seen) -> Seen {
    let until = Instant::now() + Duration::from_millis(spec.healthy_for_ms);
    loop {
        let healthy: Option<Healthy> = files::read_json(&dir.join("healthy.json"));
        if healthy.is_some_and(|healthy| healthy.version == version) {
            return then;
        }
        if Instant::now() >= until {
            return Seen::TimeOver;
        }
        clock::pause(Duration::from_millis(100));
    }
}

fn install(spec: &Spec, dir: &Path) -> anyhow::Result<()> {
    let package = spec.package.display().to_string();
    match spec.method {
        // The packages' own scripts restart the agent.
        Method::Deb => transaction(dir, "install", &[dpkg(&[], &package)]),
        Method::Rpm => transaction(dir, "install", &[rpm(&[], &package)]),
        Method::Tarball => {
            unpack(spec, dir)?;
            restart(spec)
        }
    }
}

fn dpkg(more: &[&str], package: &str) -> Command {
    let mut argv = vec!["dpkg", "--force-confdef", "--force-confold"];
    argv.extend(more);
    argv.extend(["--install", package]);
    command(&argv)
}

fn rpm(more: &[&str], package: &str) -> Command {
    let mut argv = vec!["rpm", "--upgrade", "--replacepkgs"];
    argv.extend(more);
    argv.push(package);
    command(&argv)
}

fn command(argv: &[&str]) -> Command {
    Command {
        argv: argv.iter().map(|part| (*part).to_owned()).collect(),
        env: vec![("DEBIAN_FRONTEND".to_owned(), "noninteractive".to_owned())],
        waits_for_lock: true,
        ..Command::default()
    }
}

/// Commands in a process of their own, so that one that hangs is ended with its children.
fn transaction(dir: &Path, name: &str, commands: &[Command]) -> anyhow::Result<()> {
    let place = dir.join(name);
    fs::create_dir_all(&place)?;
    files::write_json(&place.join("spec.json"), &commands)?;
    Tool::new(dir.join("guardian"))
        .arg("transaction")
        .arg(&place)
        .timeout(Duration::from_millis(INSTALL_MS))
        .check()?;
    let ended: crate::host::transaction::Ended = files::read_json(&place.join("result.json"))
        .ok_or_else(|| anyhow::anyhow!("the transaction left no result"))?;
    anyhow::ensure!(ended.ok, "{}", ended.tail);
    Ok(())
}

/// Program and unit of the tarball, each replaced as a whole. The policy on the host stays.
fn unpack(spec: &Spec, dir: &Path) -> anyhow::Result<()> {
    let new = dir.join("new");
    files::remove(&new)?;
    fs::create_dir_all(&new)?;
    let limits = fleet_artifacts::Limits {
        entries: 100,
        bytes: 4 * fleet_common::agent_release::MOST_BYTES,
    };
    fleet_artifacts::unpack_tar_gz(&spec.package, &new, limits)?;
    let program = new.join(PROGRAM);
    anyhow::ensure!(
        fs::symlink_metadata(&program).is_ok_and(|meta| meta.is_file()),
        "the tarball holds no {PROGRAM}"
    );
    let runnable = Ownership {
        mode: 0o755,
        ..files::PRIVATE
    };
    if let Some(unit_file) = &spec.unit_file {
        let unit = new.join(UNIT_FILE.trim_start_matches('/'));
        if fs::symlink_metadata(&unit).is_ok_and(|meta| meta.is_file()) {
            let readable = Ownership {
                mode: 0o644,
                ..files::PRIVATE
            };
            files::replace(unit_file, &fs::read(&unit)?, readable)?;
        }
    }
    files::replace(&spec.program, &fs::read(&program)?, runnable)?;
    Ok(())
}

/// The old release: its package where there is one, its files in any case.
fn put_back(spec: &Spec, dir: &Path) -> anyhow::Result<()> {
    if let Some(package) = spec.old_package.as_ref().filter(|path| path.exists()) {
        let package = package.display().to_string();
        let commands = match spec.method {
            Method::Deb => vec![dpkg(&["--force-downgrade"], &package)],
            Method::Rpm => vec![rpm(&["--oldpackage"], &package)],
            Method::Tarball => Vec::new(),
        };
        if !commands.is_empty()
            && let Err(error) = transaction(dir, "back", &commands)
        {
            tracing::warn!(error = %format!("{error:#}"), "the old package can't be installed; putting its files back");
        }
    }
    for kept in &spec.kept {
        let old = fs::read(&kept.copy)?;
        if fs::read(&kept.path).is_ok_and(|now| now == old) {
            continue;
        }
        files::replace(&kept.path, &old, kept.ownership)?;
    }
    if spec.method == Method::Deb {
        // A script of the new package that failed leaves it half configured, which would stop every later transaction on the host.
        let mut configure = command(&["dpkg", "--configure", "pmm-upgrade-agent"]);
        configure.may_fail = true;
        transaction(dir, "configure", &[configure])?;
    }
    restart(spec)
}

/// Has the agent's program started anew: by its unit, or, where somebody else watches over it, by ending it.
fn restart(spec: &Spec) -> anyhow::Result<()> {
    if spec.unit_file.is_some() && systemd::present() {
        systemd::daemon_reload()?;
        // A unit that crash-looped meanwhile refuses to start until its counter is cleared.
        let _ = systemd::systemctl("reset-failed", UNIT, Duration::from_secs(20));
        systemd::systemctl("restart", UNIT, RESTART)?;
        return Ok(());
    }
    let program = spec.program.display().to_string();
    let running: Vec<u32> = processes::find(|exe| exe == program)
        .into_iter()
        .map(|process| process.pid)
        .collect();
    let left = processes::end(&running, Duration::from_secs(20));
    anyhow::ensure!(left.is_empty(), "processes that don't end: {left:?}");
    Ok(())
}

/// The package of what runs now, for the way back of the next update.
fn keep_package(spec: &Spec) {
    let keep = || -> io::Result<()> {
        files::remove(&spec.package_dir)?;
        fs::create_dir_all(&spec.package_dir)?;
        fs::rename(&spec.package, spec.package_dir.join(&spec.release.file))?;
        files::sync_dir(&spec.package_dir)
    };
    if let Err(error) = keep() {
        tracing::warn!(%error, "the package is not kept; the way back of the next update is by files");
    }
}
