//! Stopping the client and every stray copy of it. A forgotten `pmm-agent` keeps port 7777: the new service crash-loops while `pmm-admin`
//! still talks to the old process. A process left under the account makes the RPM scripts delete links that belong to the new release.

use super::engine::Run;
use super::error::{StepError, StepResult};
use crate::detect::UNIT;
use crate::host::{processes, systemd};
use client_upgrade::carry::{PMM2_BASE, PMM3_BASE};
use fleet_common::codes;
use fleet_common::inventory::Method;
use std::collections::BTreeSet;
use std::time::Duration;

/// How long a client gets to end its exporters.
const PATIENCE: Duration = Duration::from_secs(20);

/// Stops what was saved.
pub fn stop(run: &Run<'_>, limit: Duration) -> StepResult<()> {
    let saved = run.saved()?;
    let unit = saved.unit.as_ref().map(|unit| unit.name.clone());
    everything(
        unit.as_deref(),
        &bases(saved.installation.method, &saved.installation.base_dir),
        limit,
    )
}

/// The directories that nothing may run from while programs are exchanged.
pub fn bases(method: Method, base: &str) -> Vec<String> {
    match method {
        Method::Tarball => vec![base.to_owned()],
        Method::Deb | Method::Rpm => vec![PMM2_BASE.to_owned(), PMM3_BASE.to_owned()],
    }
}

/// Stops a unit and ends every process of the host below the directories.
pub fn everything(unit: Option<&str>, bases: &[String], limit: Duration) -> StepResult<()> {
    if systemd::present() {
        for name in unit.into_iter().chain([UNIT]).collect::<BTreeSet<_>>() {
            match systemd::show(name) {
                Some(unit) if unit.active == "inactive" => {}
                Some(_) => drop(systemd::systemctl("stop", name, limit)?),
                // Not there, or not told in time: then it must not come back behind our back, and an error says nothing.
                None => drop(systemd::systemctl("stop", name, limit)),
            }
        }
    }
    // The clients first: they end their own exporters and would start them again.
    let clients = processes::clients().into_iter().filter(processes::of_host);
    let mine = |process: &processes::Process| {
        bases
            .iter()
            .any(|base| process.exe.starts_with(&format!("{base}/")))
    };
    let clients: Vec<u32> = clients.filter(mine).map(|process| process.pid).collect();
    processes::end(&clients, PATIENCE);
    let rest: Vec<u32> = bases
        .iter()
        .flat_map(|base| processes::below(base))
        .map(|process| process.pid)
        .collect();
    let left = processes::end(&rest, Duration::from_secs(5));
    if left.is_empty() {
        return Ok(());
    }
    Err(StepError::new(
        codes::INSTALL_FAILED,
        format!("processes that don't end: {left:?}"),
    ))
}
