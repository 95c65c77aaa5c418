//! The way back: the old package or tree, then every saved file, then the client as before.

use super::carry;
use super::engine::Run;
use super::error::{StepError, StepResult};
use super::install::{carry_through, quiet};
use super::saved::Saved;
use super::{save, start, stop};
use crate::config::Paths;
use crate::detect;
use crate::host::command::Tool;
use crate::host::transaction::{Command, Transaction};
use crate::host::{files, systemd};
use client_upgrade::carry::{package_base, rebase, target_base};
use client_upgrade::facts::PackageState;
use client_upgrade::journal::Transaction as State;
use client_upgrade::procedure::StepId;
use client_upgrade::source::package;
use fleet_common::codes;
use fleet_common::inventory::Method;
use fs_err as fs;
use std::path::Path;
use std::time::Duration;

/// What an ordered way back needs before anything is stopped: the old package or tree, and room for the journal and the files.
pub fn prepare(run: &Run<'_>, saved: &Saved) -> StepResult<()> {
    commands(saved, run.entry.to.major).map_err(|error| {
        StepError::refused(
            codes::UNEXPECTED_STATE,
            format!("there is no way back: {}", error.message),
        )
    })?;
    save::reserve(&run.shared.paths, saved)
}

/// Stops what runs now.
pub fn stop(run: &Run<'_>, limit: Duration) -> StepResult<()> {
    stop::stop(run, limit)
}

/// Puts the old package or tree back, unless it never went away.
pub fn install(run: &Run<'_>, limit: Duration) -> StepResult<()> {
    let saved = run.saved()?;
    if saved.nothing_older(run.entry.to) {
        return Ok(());
    }
    // A transaction of the way forward that still runs must end first: two at once would fight for the package database.
    let forward = Transaction::new(
        &run.shared.paths.transactions(),
        &run.order.order_id,
        StepId::Install.as_str(),
    );
    if forward.state() == State::Running {
        forward.kill();
        forward.wait(Duration::from_secs(60));
        if forward.state() == State::Running {
            return Err(StepError::new(
                codes::INSTALL_FAILED,
                "the transaction of the way forward still runs and can't be ended; a second one is not begun beside it",
            ));
        }
    }
    let transaction = Transaction::new(
        &run.shared.paths.transactions(),
        &run.order.order_id,
        StepId::BackInstall.as_str(),
    );
    let commands = commands(&saved, run.entry.to.major)?;
    if commands.is_empty() && transaction.state() == State::None {
        return Ok(());
    }
    if transaction.state() == State::None {
        quiet(&saved, limit)?;
    }
    carry_through(run, &transaction, &commands, limit, StepId::BackInstall).map(drop)
}

fn commands(saved: &Saved, target_major: u32) -> StepResult<Vec<Command>> {
    match saved.installation.method {
        Method::Deb => deb(saved, target_major),
        Method::Rpm => rpm(saved, target_major),
        Method::Tarball => tree(saved),
    }
}

fn kept(saved: &Saved) -> StepResult<String> {
    let file = saved.package_file.as_ref().filter(|path| path.exists());
    file.map(|path| path.display().to_string()).ok_or_else(|| {
        StepError::new(
            codes::INSTALL_FAILED,
            "the package of the old release is not kept on this host",
        )
    })
}

fn command(argv: &[&str]) -> Command {
    Command {
        argv: argv.iter().map(|part| (*part).to_owned()).collect(),
        waits_for_lock: true,
        ..Command::default()
    }
}

/// The new package is removed, never purged: its purge script deletes the account. Then the kept file goes in.
fn deb(saved: &Saved, target_major: u32) -> StepResult<Vec<Command>> {
    let (old_name, new_name) = names(saved, target_major);
    let now = detect::deb_packages()?;
    let is_there = |name: &str, state: PackageState| {
        now.iter()
            .any(|package| package.name == name && package.state == state)
    };
    let old_complete = now.iter().any(|package| {
        package.name == old_name
            && package.state == PackageState::Installed
            && Some(&package.version) == saved.installation.package_version.as_ref()
    });
    let new_there = new_name != old_name
        && (is_there(new_name, PackageState::Installed) || is_there(new_name, PackageState::Broken));
    if old_complete && !new_there {
        return Ok(Vec::new());
    }
    let file = kept(saved)?;
    let mut commands = Vec::new();
    if new_there {
        commands.push(command(&[
            "dpkg",
            "--force-remove-reinstreq",
            "--remove",
            new_name,
        ]));
    }
    commands.push(command(&[
        "dpkg",
        "--force-confdef",
        "--force-confold",
        "--force-downgrade",
        "--install",
        &file,
    ]));
    Ok(commands)
}

fn rpm(saved: &Saved, target_major: u32) -> StepResult<Vec<Command>> {
    let (old_name, new_name) = names(saved, target_major);
    let now = detect::rpm_packages()?;
    let new_there = new_name != old_name && now.iter().any(|package| package.name == new_name);
    let old_complete = now.iter().any(|package| {
        package.name == old_name && Some(&package.version) == saved.installation.package_version.as_ref()
    });
    if old_complete && !new_there {
        return Ok(Vec::new());
    }
    let file = kept(saved)?;
    let mut commands = Vec::new();
    if new_there {
        commands.push(command(&["rpm", "--erase", new_name]));
    }
    if !(old_complete && now.len() == 1) {
        // Never `-i`: it refuses for the packages' conflicts.
        commands.push(command(&[
            "rpm",
            "--upgrade",
            "--oldpackage",
            "--replacepkgs",
            &file,
        ]));
    }
    Ok(commands)
}

fn names(saved: &Saved, target_major: u32) -> (&str, &'static str) {
    (
        saved.installation.package.as_deref().unwrap_or_default(),
        package(target_major),
    )
}

/// Empties the program directories and unpacks the archive, which only root can change, over its standard input. Where nobody but root can
/// exchange the base directory this is done by root: installers leave trees of mixed ownership, and then every owner comes back. Elsewhere,
/// as in an ordinary user's home, a link in the wrong place could lead anywhere: there it is done by the tree's owner.
fn tree(saved: &Saved) -> StepResult<Vec<Command>> {
    let archive = saved.tree.as_ref().filter(|path| path.exists());
    let archive = archive.ok_or_else(|| StepError::new(codes::INSTALL_FAILED, "the saved tree is gone"))?;
    let base = &saved.installation.base_dir;
    let by_root = only_root_leads_to(Path::new(base));
    let (uid, gid) = if by_root { (0, 0) } else { saved.base_owner };
    let parts = ["bin", "exporters", "tools", "collectors"].map(|part| format!("{base}/{part}"));
    let empty = if by_root {
        Tool::new("rm")
            .args(["--recursive", "--force", "--"])
            .args(&parts)
    } else {
        let files_only = ["-mindepth", "1", "!", "-type", "d", "-delete"];
        Tool::new("find").args(&parts).args(files_only)
    };
    let mut options = vec![
        "--extract",
        "--file=-",
        "--preserve-permissions",
        "--numeric-owner",
    ];
    options.push(if by_root {
        "--same-owner"
    } else {
        "--no-overwrite-dir"
    });
    let unpack = Tool::new("tar")
        .args(options)
        .arg(format!("--directory={base}"))
        .by_user(uid, gid);
    let plain = |tool: Tool| Command {
        argv: tool.argv().to_vec(),
        ..Command::default()
    };
    Ok(vec![
        // A file that stays is overwritten or does no harm; whether all is well is for the verification to say.
        Command {
            may_fail: !by_root,
            ..plain(empty.by_user(uid, gid))
        },
        Command {
            stdin: Some(archive.display().to_string()),
            ..plain(unpack)
        },
    ])
}

/// Whether every directory above a path belongs to root and is writable for nobody else.
fn only_root_leads_to(base: &Path) -> bool {
    base.ancestors()
        .skip(1)
        .all(|dir| files::Ownership::of(dir).is_ok_and(|seen| seen.uid == 0 && seen.mode & 0o022 == 0))
}

/// Puts every saved file back where it was, with mode and owner.
pub fn restore(run: &Run<'_>) -> StepResult<()> {
    let saved = run.saved()?;
    let paths = &run.shared.paths;
    let old = saved.installation.base_dir.clone();
    let new = target_base(saved.installation.method, &old, run.entry.to.major);
    // The old package's scripts may have started it with an empty configuration.
    let unit = saved.unit.as_ref().map(|unit| unit.name.clone());
    stop::everything(
        unit.as_deref(),
        &stop::bases(saved.installation.method, &old),
        Duration::from_secs(90),
    )?;
    carry::account(&saved, &old)?;
    if let Some(config) = &saved.config {
        config.restore(paths)?;
        if new != old {
            remove_carried(&saved, &rebase(&config.path, &old, &new), &new)?;
        }
    }
    for kept in saved.collectors.values() {
        kept.file.restore(paths)?;
    }
    for file in &saved.unit_files {
        file.restore(paths)?;
    }
    package_unit(&saved, paths)?;
    for (path, target) in &saved.links {
        if std::fs::read_link(path).ok().as_deref() != Some(Path::new(target)) {
            files::remove(Path::new(path))?;
            std::os::unix::fs::symlink(target, path)?;
        }
    }
    carry::enablement(&saved)?;
    if systemd::present() {
        systemd::daemon_reload()?;
    }
    Ok(())
}

/// Puts the package's own unit file back where the package manager kept another one in its place, and takes away the copy that it laid
/// beside it.
fn package_unit(saved: &Saved, paths: &Paths) -> StepResult<()> {
    let Some(unit) = &saved.package_unit else {
        return Ok(());
    };
    let bytes = unit.bytes(paths)?;
    if fs::read(&unit.path).ok().as_deref() != Some(&bytes) {
        unit.restore(paths)?;
    }
    // rpm's and dpkg's names for a configuration file of the package that was not put in place.
    for suffix in [".rpmnew", ".dpkg-dist", ".dpkg-new"] {
        let beside = format!("{}{suffix}", unit.path);
        if fs::read(&beside).ok().as_deref() == Some(&bytes) {
            files::remove(Path::new(&beside))?;
        }
    }
    Ok(())
}

/// The carried configuration holds the client's credentials and must not stay behind in the new tree, nor may its copies, the carried
/// collectors, or what the new client wrote for its exporters.
fn remove_carried(saved: &Saved, config: &str, base: &str) -> StepResult<()> {
    // A tree that still has its programs is somebody's.
    if !config.starts_with(&format!("{base}/"))
        || base != package_base(3)
        || Path::new(base).join("bin").exists()
    {
        return Ok(());
    }
    for suffix in ["", ".bak", ".new"] {
        files::remove(Path::new(&format!("{config}{suffix}")))?;
    }
    let collectors = Path::new(base).join("collectors");
    for relative in saved.collectors.keys() {
        let path = collectors.join(relative);
        files::remove(&path)?;
        // Directories that are empty now go as well; others hold something that is not ours.
        for dir in path
            .ancestors()
            .skip(1)
            .take_while(|dir| dir.starts_with(&collectors))
        {
            let _ = fs::remove_dir(dir);
        }
    }
    files::remove(&Path::new(base).join("tmp"))?;
    for dir in ["config", "collectors", ""] {
        let _ = fs::remove_dir(Path::new(base).join(dir));
    }
    Ok(())
}

/// Starts the old client as it was run.
pub fn start(run: &Run<'_>, limit: Duration) -> StepResult<()> {
    let saved = run.saved()?;
    start::as_before(&run.shared.paths, &saved, &saved.installation.base_dir, limit)
}
