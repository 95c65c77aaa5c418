//! The last resort. When the way back ends before it could start the client, whatever client is on the disk is started once: a client of the
//! wrong release that reports is better than a host that nobody watches. Needs no room on the disk.

use super::engine::Run;
use super::saved::Saved;
use super::start;
use crate::detect::{Looked, UNIT};
use crate::host::transaction::Transaction;
use crate::host::{processes, systemd};
use client_upgrade::carry::target_base;
use client_upgrade::journal::Transaction as State;
use client_upgrade::procedure::StepId;
use std::path::Path;
use std::time::Duration;

/// systemd's own start limit is 90 s.
const START_PATIENCE: Duration = Duration::from_secs(120);

/// Starts the client that is there unless one runs, and says what came of it.
pub fn start_what_is_there(run: &Run<'_>) -> String {
    let transactions = run.shared.paths.transactions();
    let exchanging = [StepId::Install, StepId::BackInstall].iter().any(|step| {
        Transaction::new(&transactions, &run.order.order_id, step.as_str()).state() == State::Running
    });
    if exchanging {
        return "a package transaction still runs, so no client was started".to_owned();
    }
    let looked = run.look();
    if let Some(client) = looked.clients.iter().find(|process| processes::of_host(process)) {
        return format!("a client runs ({}, process {})", client.exe, client.pid);
    }
    let said = match Saved::load(&run.shared.paths) {
        Some(saved) if !saved.ran() => return "the client did not run before and was not started".to_owned(),
        Some(saved) => start_saved(run, &looked, &saved),
        None => start_unit(),
    };
    tracing::warn!(order = %run.order.order_id, "{said}");
    said
}

fn start_saved(run: &Run<'_>, looked: &Looked, saved: &Saved) -> String {
    let old = saved.installation.base_dir.clone();
    let new = target_base(saved.installation.method, &old, run.entry.to.major);
    let found = looked.installation().map(|found| found.base_dir.clone());
    let has_client = |base: &String| Path::new(base).join("bin/pmm-agent").exists();
    let Some(base) = found.into_iter().chain([old, new]).find(has_client) else {
        return "there is no client on the disk that could be started".to_owned();
    };
    match start::as_before(&run.shared.paths, saved, &base, START_PATIENCE) {
        Ok(()) => format!("the client in {base} was started as it is"),
        Err(error) => format!("the client in {base} could not be started: {error}"),
    }
}

/// Nothing tells how it ran; the packages' own unit is the only thing to try.
fn start_unit() -> String {
    let enabled = systemd::present() && systemd::show(UNIT).is_some_and(|unit| unit.enabled());
    if !enabled {
        return "how the client ran is not known, so it was not started".to_owned();
    }
    match systemd::systemctl("start", UNIT, START_PATIENCE) {
        Ok(_) => format!("{UNIT} was started as it is"),
        Err(error) => format!(
            "{UNIT} could not be started: {}",
            fleet_common::hint::chain(&error)
        ),
    }
}
