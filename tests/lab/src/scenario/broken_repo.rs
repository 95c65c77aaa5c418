//! The new package fails after the old one is gone: on a deb host in its post-install script, on an rpm host in `%posttrans`.

use super::run::Road;
use crate::fleet::{HOSTS, Host, Kind};
use crate::report::{Findings, Report};
use crate::verify::container::{self, Hop};
use crate::verify::{Snapshot, host, server};
use crate::{docker, hosts, names, wait};
use anyhow::{Result, bail};

const BROKEN: [&str; 2] = ["deb-b", "rpm-a"];
const GROUP: &str = "staging";
/// What the failing script says (tests/lab/packages/lib/standin-mode.sh).
const SCRIPT: &str = "post-installation failed";

/// Breaks two hosts of the second group and runs.
pub fn drive(road: &mut Road) -> Result<i32> {
    for target in HOSTS.iter().filter(|host| BROKEN.contains(&host.name)) {
        hosts::script_mode(target, "fail")?;
    }
    let exit = road.start_and_watch()?;
    let paused = road.coordinator.json(&["status"])?["paused"].clone();
    if paused["code"] != "threshold" || !paused["text"].as_str().unwrap_or_default().contains(GROUP) {
        bail!("the rollout did not pause at the threshold of {GROUP}: {paused}");
    }
    Ok(exit)
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
            let reason = row["reason"].as_str().unwrap_or_default();
            findings.expect(
                reason.contains(SCRIPT),
                format!(
                    "{}: the reason does not say what the script said: `{reason}`",
                    spec.name
                ),
            );
            if let Some(log) = findings.take(spec.name, package_log(spec)) {
                broke(spec, &log, &mut findings);
            }
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
    server::compare(&before.server, before.taken_at, "3.9.1", &mut findings);
    if let Some(now) = findings.take("container", container::look()) {
        container::compare(&before.container, &now, Hop::ToPmm3, &mut findings);
    }
    findings.finish("broken-repo")
}

fn package_log(host: &Host) -> Result<String> {
    let script = match host.kind {
        Kind::Deb => "cat /var/log/dpkg.log",
        _ => "cat /var/log/dnf.rpm.log",
    };
    docker::exec_must(&names::host(host.name), &["sh", "-c", script])
}

/// By the package manager's own log the script failed when the old package was gone.
fn broke(host: &Host, log: &str, findings: &mut Findings) {
    let all: &[&[&str]] = match host.kind {
        Kind::Deb => &[
            &[" remove pmm2-client:"],
            &[" status half-configured pmm-client:"],
        ],
        _ => &[
            &["Installed: pmm-client-3."],
            &["Obsoleted: pmm2-client-2."],
            &["%posttrans(pmm-client-3.", "scriptlet failed"],
        ],
    };
    for parts in all {
        findings.expect(
            log.lines()
                .any(|line| parts.iter().all(|part| line.contains(part))),
            format!(
                "{}: the package manager's log has no line with {parts:?}",
                host.name
            ),
        );
    }
    // A configuration that works passes the state half-configured too.
    findings.expect(
        !log.contains(" status installed pmm-client:"),
        format!(
            "{}: dpkg finished the new package, so its script did not fail",
            host.name
        ),
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    const DPKG: &str = "\
2026-11-25 16:00:00 remove pmm2-client:amd64 2.41.2-6.bookworm <none>
2026-11-25 16:00:01 status unpacked pmm-client:amd64 3.9.1-7.bookworm
2026-11-25 16:00:01 status half-configured pmm-client:amd64 3.9.1-7.bookworm
";
    const INSTALLED: &str = "2026-11-25 16:00:02 status installed pmm-client:amd64 3.9.1-7.bookworm\n";

    fn judge(name: &str, log: &str) -> Result<()> {
        let mut findings = Findings::default();
        let host = HOSTS.iter().find(|host| host.name == name);
        broke(host.unwrap_or(&HOSTS[0]), log, &mut findings);
        findings.finish("log")
    }

    #[test]
    fn a_package_that_was_configured_did_not_break() {
        assert!(judge("deb-b", DPKG).is_ok());
        assert!(judge("deb-b", &format!("{DPKG}{INSTALLED}")).is_err());
        for line in ["remove pmm2-client", "half-configured"] {
            let rest: Vec<&str> = DPKG.lines().filter(|row| !row.contains(line)).collect();
            assert!(judge("deb-b", &rest.join("\n")).is_err(), "{line}");
        }
        assert!(judge("deb-b", "").is_err() && judge("rpm-a", "").is_err());
    }
}
