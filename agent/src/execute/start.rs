//! Starting the client as it was run before.

use super::engine::Run;
use super::error::{StepError, StepResult};
use super::install::quiet;
use super::saved::{KeptProcess, Saved};
use crate::config::Paths;
use crate::host::command::{Tool, clean};
use crate::host::reserve::Reserve;
use crate::host::{files, systemd};
use client_upgrade::carry::{rebase, source_base, target_base};
use client_upgrade::environment::rebased;
use fleet_common::codes;
use fleet_common::inventory::{Installation, RunKind};
use fs_err as fs;
use serde::{Deserialize, Serialize};
use std::io::{Seek, Write};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

/// Starts the new release.
pub fn start(run: &Run<'_>, limit: Duration) -> StepResult<()> {
    let saved = run.saved()?;
    let to = target_base(
        saved.installation.method,
        &saved.installation.base_dir,
        run.entry.to.major,
    );
    as_before(&run.shared.paths, &saved, &to, limit)
}

/// Starts what lives in a base directory the way the client was run before; a client that did not run stays stopped.
pub fn as_before(paths: &Paths, saved: &Saved, base: &str, limit: Duration) -> StepResult<()> {
    if matches!(saved.installation.run, RunKind::ByHand { .. }) && saved.process.is_some() {
        // One that runs already, from an attempt before or from somebody's boot script, would be a second client with the same identity.
        quiet(saved, limit)?;
    }
    as_run(paths, &saved.installation, saved.process.as_ref(), base, limit)
}

/// The same from what was detected and the process as it ran.
pub fn as_run(
    paths: &Paths,
    installation: &Installation,
    process: Option<&KeptProcess>,
    base: &str,
    limit: Duration,
) -> StepResult<()> {
    match (&installation.run, process) {
        (RunKind::Systemd { unit, .. }, _) => {
            if let Err(error) = systemd::daemon_reload() {
                // What systemd knows of the unit may do; not starting it surely does not.
                tracing::warn!(%error, "systemd could not read its units again");
            }
            // A unit that crash-looped meanwhile refuses to start until its counter is cleared.
            let _ = systemd::systemctl("reset-failed", unit, Duration::from_secs(20));
            systemd::systemctl("restart", unit, limit)?;
            Ok(())
        }
        (RunKind::ByHand { .. }, Some(process)) => {
            let found = installation;
            let from = source_base(found.method, &found.base_dir, &found.config_file);
            by_hand(paths, process, from, base)
        }
        (RunKind::ByHand { .. }, None) => Err(StepError::new(
            codes::VERIFY_FAILED,
            "how the client was run is not known",
        )),
        (RunKind::Stopped, _) => Ok(()),
    }
}

/// The same command line, environment, directory, account and log file, in a scope of its own so that it outlives the agent. The environment may
/// hold secrets: it goes to the standard input of `pmm-upgrade-agent launch`, never through an argument.
fn by_hand(paths: &Paths, process: &KeptProcess, from: &str, to: &str) -> StepResult<()> {
    let argv: Vec<String> = process
        .argv
        .iter()
        .map(|argument| rebase_argument(argument, from, to))
        .collect();
    if argv.is_empty() {
        return Err(StepError::new(
            codes::VERIFY_FAILED,
            "the client's command line is empty",
        ));
    }
    let launch = Launch {
        argv,
        environment: rebased(&process.environment, from, to),
        uid: process.uid,
        gid: process.gid,
    };
    let spec = in_memory(&serde_json::to_vec(&launch).map_err(std::io::Error::from)?).or_else(|_| {
        let path = paths.saved().join("launch.json");
        Reserve::of(paths).retry(|| files::write_json(&path, &launch))?;
        std::fs::File::open(path)
    })?;
    let mut command = clean("setsid");
    command.arg("--fork");
    if systemd::present() {
        command.args(["systemd-run", "--quiet", "--scope", "--collect", "--"]);
    }
    let exe = std::env::current_exe()?.display().to_string();
    command
        .arg(exe.strip_suffix(" (deleted)").unwrap_or(&exe))
        .arg("launch");
    let dir = if Path::new(&process.cwd).is_dir() {
        process.cwd.as_str()
    } else {
        "/"
    };
    let log = process
        .log
        .as_deref()
        .and_then(|path| fs::OpenOptions::new().append(true).open(path).ok());
    let (out, err) = match log {
        Some(file) => {
            let file = file.into_parts().0;
            (Stdio::from(file.try_clone()?), Stdio::from(file))
        }
        None => (Stdio::null(), Stdio::null()),
    };
    let status = command
        .current_dir(dir)
        .stdin(spec)
        .stdout(out)
        .stderr(err)
        .status()?;
    if status.success() {
        Ok(())
    } else {
        Err(StepError::new(
            codes::VERIFY_FAILED,
            "the client could not be started",
        ))
    }
}

/// A file without a place on a disk: a client can be started though the disk is full, and its secrets are written nowhere.
fn in_memory(bytes: &[u8]) -> std::io::Result<std::fs::File> {
    use rustix::fs::{MemfdFlags, memfd_create};
    let mut file = std::fs::File::from(memfd_create("launch", MemfdFlags::CLOEXEC)?);
    file.write_all(bytes)?;
    file.rewind()?;
    Ok(file)
}

/// What `pmm-upgrade-agent launch` turns itself into.
#[derive(Debug, Serialize, Deserialize)]
struct Launch {
    argv: Vec<String>,
    environment: Vec<String>,
    uid: u32,
    gid: u32,
}

/// Becomes the client: account and environment as saved. Returns only when that fails.
pub fn launch(spec: impl std::io::Read) -> std::io::Result<()> {
    let launch: Launch = serde_json::from_reader(spec)?;
    let (program, arguments) = launch.argv.split_first().ok_or(std::io::ErrorKind::InvalidData)?;
    let client = Tool::new(program).args(arguments).by_user(launch.uid, launch.gid);
    let setpriv = ["/usr/bin/setpriv", "/bin/setpriv"]
        .into_iter()
        .find(|path| Path::new(path).exists());
    let first = &client.argv()[0];
    let mut command = std::process::Command::new(if first == "setpriv" {
        setpriv.unwrap_or("setpriv")
    } else {
        first
    });
    command.args(&client.argv()[1..]).env_clear().stdin(Stdio::null());
    command.envs(launch.environment.iter().filter_map(|pair| pair.split_once('=')));
    Err(command.exec())
}

fn rebase_argument(argument: &str, from: &str, to: &str) -> String {
    match argument.split_once('=') {
        Some((flag, value)) => format!("{flag}={}", rebase(value, from, to)),
        None => rebase(argument, from, to),
    }
}
