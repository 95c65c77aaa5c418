//! The new package fails after the old one is gone: on a deb host in its post-install script, on an rpm host in `%posttrans`.

use super::run::Road;
use crate::fleet::HOSTS;
use crate::report::{Findings, Report};
use crate::verify::{Snapshot, host, server};
use crate::{hosts, wait};
use anyhow::Result;

const BROKEN: [&str; 2] = ["deb-b", "rpm-a"];

/// Breaks two hosts of the second group and runs.
pub fn drive(road: &mut Road) -> Result<i32> {
    for target in HOSTS.iter().filter(|host| BROKEN.contains(&host.name)) {
        hosts::script_mode(target, "fail")?;
    }
    road.start_and_watch()
}

/// Both are back on PMM 2, the group paused, later hosts untouched.
pub fn check(report: &Report, exit: i32, before: &Snapshot) -> Result<()> {
    let mut findings = Findings::default();
    findings.expect(exit != 0, "watch ended with 0");
    findings.equal("outcome", &report.text("/outcome"), &"paused".to_owned());
    findings.equal("host rows", &report.hosts().len(), &HOSTS.len());
    for spec in &HOSTS {
        let Some(row) = findings.take(spec.name, report.host(spec.name)) else {
            continue;
        };
        let outcome = row["outcome"].as_str().unwrap_or_default().to_owned();
        let Some(was) = before.hosts.get(spec.name) else {
            continue;
        };
        if BROKEN.contains(&spec.name) {
            findings.equal(spec.name, &outcome, &"rolled_back".to_owned());
            findings.expect(
                !row["reason"].as_str().unwrap_or_default().is_empty(),
                format!("{}: no reason in the report", spec.name),
            );
            let settled = wait::until("the client to be back", 30, || {
                let now = host::look(spec)?;
                let back = now.connected && was.exporters.keys().all(|kind| now.exporters.contains_key(kind));
                Ok(if back {
                    wait::Probe::Ready(now)
                } else {
                    wait::Probe::NotYet("not connected, or exporters missing".into())
                })
            });
            if let Some(now) = findings.take(spec.name, settled) {
                host::unchanged(spec, was, &now, &mut findings);
                findings.expect(
                    now.processes != was.processes,
                    format!(
                        "{}: the client was never stopped, so nothing was tried",
                        spec.name
                    ),
                );
            }
        } else if let Some(now) = findings.take(spec.name, host::look(spec)) {
            if spec.group == "canary" {
                findings.equal(spec.name, &outcome, &"upgraded".to_owned());
                host::upgraded(spec, was, &now, "3.9.1", &mut findings);
            } else {
                findings.equal(spec.name, &outcome, &"not_started".to_owned());
                host::untouched(spec, was, &now, &mut findings);
            }
        }
    }
    server::fresh(&before.server.sampled, &mut findings);
    findings.finish("broken-repo")
}
