//! PMM backs up a database on a host when the host's turn comes: stopping the client would lose the backup.

use super::run::Road;
use super::{Sabotage, expect};
use crate::fleet;
use crate::report::{Findings, Report};
use crate::verify::{Snapshot, host};
use crate::wait;
use crate::{backups, docker, hosts, names, output};
use anyhow::{Context, Result, bail};
use serde_json::Value;

/// The host: in the second group, with a MySQL service.
pub const TARGET: &str = "deb-b";

/// The backup runs since before the survey; it ends when the host waits for it and for nothing else.
pub fn drive(road: &mut Road, sabotage: Option<Sabotage>) -> Result<i32> {
    let spec = fleet::host(TARGET)?;
    let service = backups::mysql_of(spec)?;
    let named = |line: &str| {
        line.to_ascii_lowercase().contains("backup") && (line.contains(TARGET) || line.contains(&service))
    };
    if !road.foretold.lines().any(named) {
        bail!("neither survey nor preflight nor plan named the backup on {TARGET} before the cut");
    }
    let processes = (hosts::pids(spec, "pmm-agent")?, hosts::pids(spec, "xtrabackup")?);
    road.start()?;
    if sabotage == Some(Sabotage::KillClient) {
        return lose(road, spec);
    }
    road.until(
        &format!("{TARGET} to wait for the end of the backup"),
        900,
        |status| turn_came(status) && waits_for_backup(status),
    )?;
    let now = (hosts::pids(spec, "pmm-agent")?, hosts::pids(spec, "xtrabackup")?);
    if now != processes {
        bail!("the client or the backup of {TARGET} was disturbed: processes {processes:?}, now {now:?}");
    }
    output::step(&format!("{TARGET} waits for its backup"));
    backups::release(spec)?;
    road.watch()
}

/// Whether the groups before are done.
fn turn_came(status: &Value) -> bool {
    let groups = status["groups"].as_array().cloned().unwrap_or_default();
    groups
        .iter()
        .any(|group| group["name"] == "canary" && group["state"] == "done")
}

/// Whether the status says, somewhere, that the host or its group waits for a backup.
fn waits_for_backup(status: &Value) -> bool {
    ["waits", "in_flight", "groups"].iter().any(|part| {
        let rows = status[*part].as_array().cloned().unwrap_or_default();
        rows.iter()
            .any(|row| row.to_string().to_ascii_lowercase().contains("backup"))
    })
}

/// Sabotage: what a careless upgrade does.
fn lose(road: &mut Road, spec: &fleet::Host) -> Result<i32> {
    docker::exec_must(
        &names::host(TARGET),
        &["systemctl", "kill", "--signal=KILL", "pmm-agent"],
    )?;
    wait::until("the backup to be gone", 30, || {
        let left = hosts::pids(spec, "xtrabackup")?;
        wait::check(left.is_empty(), format!("{left:?}"))
    })?;
    backups::let_go(&names::host(TARGET))?;
    road.watch()
}

/// Completed, and so is the backup.
pub fn check(report: &Report, exit: i32, before: &Snapshot) -> Result<()> {
    let mut findings = Findings::default();
    findings.equal(
        "the backup, by PMM",
        &backups::status()?,
        &"BACKUP_STATUS_SUCCESS".to_owned(),
    );
    findings.expect(
        backups::is_stored(&names::host(TARGET), backups::NAME)?,
        "the backup is not whole in its bucket",
    );
    findings.finish("the backup is lost")?;
    expect::migrated(report, exit, &["2.44.1", "3.7.1", "3.9.1"], before)?;
    let spec = fleet::host(TARGET)?;
    let count = host::installations(spec)?.context("the log of the package manager")?;
    if count != 1 {
        bail!("{TARGET}: the client was installed {count} times");
    }
    Ok(())
}
