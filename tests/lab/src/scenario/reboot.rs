//! Three hosts lose their power in the middle of a package transaction: a deb while its post-install script runs, an rpm in `%posttrans`, and
//! an rpm with the new package installed and the old one not yet erased.

use super::run::Road;
use super::{Sabotage, expect};
use crate::fleet::{self, HOSTS, Kind};
use crate::report::{Findings, Report};
use crate::verify::{Snapshot, host, server};
use crate::{docker, hosts, names};
use anyhow::Result;

/// One in each group, so that they come one after the other; and what holds their script.
const TARGETS: [(&str, &str); 3] = [("deb-a", "hold"), ("rpm-a", "hold"), ("rpm-b", "hold-between")];

/// Holds each script open and takes the power away.
pub fn drive(road: &mut Road, sabotage: Option<Sabotage>) -> Result<i32> {
    for (name, mode) in TARGETS {
        hosts::script_mode(fleet::host(name)?, mode)?;
    }
    road.start()?;
    for (name, _) in TARGETS {
        let spec = fleet::host(name)?;
        let mut seen = Ok(false);
        road.until(&format!("the held script of {name}"), 900, |_| {
            seen = hosts::script_is_held(spec);
            !matches!(seen, Ok(false))
        })?;
        seen?;
        if sabotage == Some(Sabotage::NoKill) {
            hosts::release_script(spec)?;
            continue;
        }
        // /run goes with the power, and with it what holds the script: it is not held a second time.
        hosts::reboot(spec)?;
    }
    road.watch()
}

/// Each host is whole, in one of the two good states, with its identity, by no more transactions than that takes.
pub fn check(report: &Report, before: &Snapshot) -> Result<()> {
    let mut findings = Findings::default();
    findings.equal("host rows", &report.hosts().len(), &HOSTS.len());
    let hits = report.disturbances();
    for spec in &HOSTS {
        let Some(row) = findings.take(spec.name, report.host(spec.name)) else {
            continue;
        };
        let outcome = row["outcome"].as_str().unwrap_or_default().to_owned();
        let target = TARGETS.iter().any(|(name, _)| *name == spec.name);
        findings.expect(
            outcome == "upgraded" || target && outcome == "rolled_back",
            format!("{}: {outcome}", spec.name),
        );
        if !target {
            continue;
        }
        let named = hits
            .iter()
            .any(|(host, step)| host.contains(spec.name) && step.contains("install"));
        findings.expect(
            named,
            format!(
                "the report does not name the reboot of {} in its install step: {hits:?}",
                spec.name
            ),
        );
        host::whole(spec, &mut findings);
        one_state(spec, &outcome, &mut findings);
    }
    server::fresh(&before.server.sampled, &mut findings);
    expect::services_and_clients(before, &mut findings);
    findings.finish("reboot")
}

/// The package that belongs to the outcome is installed once, and was not installed twice to get there.
fn one_state(spec: &fleet::Host, outcome: &str, findings: &mut Findings) {
    let (name, container) = (spec.name, names::host(spec.name));
    if let Some(Some(count)) = findings.take(name, host::installations(spec)) {
        // dnf writes its line when a package is done; a transaction that lost its power there leaves none.
        let most_one = count == 1 || count == 0 && spec.kind == Kind::Rpm;
        findings.expect(
            most_one,
            format!("{name}: the client was installed {count} times"),
        );
    }
    if spec.kind == Kind::Rpm {
        let wanted = if outcome == "upgraded" {
            "pmm-client"
        } else {
            "pmm2-client"
        };
        let argv = ["rpm", "-qa", "--qf", "%{NAME}\n", "pmm-client", "pmm2-client"];
        if let Some(listed) = findings.take(name, docker::exec_must(&container, &argv)) {
            findings.equal(&format!("{name}: installed clients"), &listed, &wanted.to_owned());
        }
    }
}
