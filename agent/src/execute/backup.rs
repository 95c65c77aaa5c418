//! Whether PMM runs a database backup on this host. Every order that ends pmm-agent asks here first; which programs count is in
//! `client_upgrade::backup`.

use super::error::{StepError, StepResult};
use crate::detect::Looked;
use crate::host::{clock, processes};
use client_upgrade::backup::{Found, PBM_WATCH_MS, find};
use client_upgrade::survey::{pass, warn};
use fleet_common::codes;
use fleet_common::survey::Finding;
use std::path::Path;
use std::time::{Duration, Instant};

/// Between two looks: a call of `pbm` opens a connection to the database and takes longer.
const PAUSE: Duration = Duration::from_millis(50);
/// Where a `pbm` that pmm-agent would run lies.
const PROGRAM_DIRS: [&str; 5] = [
    "/usr/local/sbin",
    "/usr/local/bin",
    "/usr/sbin",
    "/usr/bin",
    "/bin",
];

/// Refuses when a backup or restore runs below one of the host's clients. Call it before the first change of anything that stops or
/// restarts pmm-agent. Takes [`PBM_WATCH_MS`] where MongoDB backups are possible, else milliseconds.
pub fn refuse(looked: &Looked, base_dir: &str) -> StepResult<()> {
    match running(looked, base_dir) {
        Some(found) => Err(StepError::refused(
            codes::BACKUP_RUNNING,
            format!("{found}; the client is not stopped before it ended"),
        )),
        None => Ok(()),
    }
}

/// The survey's word on it.
pub fn finding(looked: &Looked, base_dir: &str) -> Finding {
    match running(looked, base_dir) {
        Some(found) => warn(
            "backup",
            found.to_string(),
            "the switch waits for its end; schedule backups outside the rollout's window",
        ),
        None => pass("backup", "no database backup of PMM runs"),
    }
}

/// The job that runs, if one does.
pub fn running(looked: &Looked, base_dir: &str) -> Option<Found> {
    let clients: Vec<u32> = looked
        .clients
        .iter()
        .filter(|process| processes::of_host(process))
        .map(|process| process.pid)
        .collect();
    let pbm = PROGRAM_DIRS.iter().any(|dir| Path::new(dir).join("pbm").exists());
    let watch = Duration::from_millis(if pbm { PBM_WATCH_MS } else { 0 });
    among(&clients, base_dir, watch)
}

fn among(clients: &[u32], base: &str, watch: Duration) -> Option<Found> {
    if clients.is_empty() {
        return None;
    }
    let bases = [base.to_owned()];
    let until = Instant::now() + watch;
    loop {
        let found = find(&processes::rows(), clients, &bases);
        if found.is_some() || Instant::now() >= until {
            return found;
        }
        clock::pause(PAUSE);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::os::unix::process::CommandExt;
    use std::process::{Child, Command, Stdio};

    struct Job(Child);

    impl Drop for Job {
        fn drop(&mut self) {
            let _ = self.0.kill();
            let _ = self.0.wait();
        }
    }

    /// A child of this very process, which plays pmm-agent.
    fn job(name: &str) -> Job {
        Job(Command::new("sleep")
            .arg0(name)
            .arg("600")
            .stdin(Stdio::null())
            .spawn()
            .unwrap())
    }

    /// Other tests of this process may have children too; none of theirs is a backup tool.
    #[test]
    fn a_real_child_is_seen_and_its_end_too() {
        let me = [std::process::id()];
        let base = "/usr/local/percona/pmm2";
        assert_eq!(among(&me, base, Duration::ZERO), None);
        let backup = job("xtrabackup");
        let found = among(&me, base, Duration::from_secs(30)).unwrap();
        assert_eq!((found.program.name, found.pid), ("xtrabackup", backup.0.id()));
        assert_eq!(among(&[], base, Duration::ZERO), None);
        drop(backup);
        assert_eq!(among(&me, base, Duration::ZERO), None);
    }
}
