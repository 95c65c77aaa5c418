//! Two clients address the PMM Server's container itself, on port 443. PMM 3 listens on 8443 in there, so that they are blind from the cut on
//! until somebody moves them (facts server 5.1, client 3): one run by systemd, one by hand.

use super::expect;
use super::run::Road;
use crate::fleet;
use crate::pmm;
use crate::report::{Findings, Report};
use crate::verify::{Snapshot, host, server};
use crate::wait::{self, Probe};
use crate::{docker, names, output};
use anyhow::{Context, Result, bail};

/// The hosts, and the names of the container that they use. They are in the last group: it is a long way from the cut to their turn.
pub const HOSTS: [(&str, &str); 2] = [("rpm-b", names::PMM_ALIAS), ("tar-b", names::PMM)];

/// Looks between the cut and the turn of the two hosts whether they report.
pub fn drive(road: &mut Road) -> Result<i32> {
    road.start()?;
    road.until("the first clients to be let through", 900, |status| {
        let legs = status["legs"].as_array().cloned().unwrap_or_default();
        legs.iter()
            .any(|leg| leg["leg"] == "server-1" && leg["state"] == "settled")
    })?;
    for (name, container) in HOSTS {
        reports_again(name, container)?;
    }
    road.watch()
}

/// Still the PMM 2 client, at the new address, with fresh samples.
fn reports_again(name: &str, container: &str) -> Result<()> {
    let spec = fleet::host(name)?;
    let service = spec.services.first().context("a service of the host")?.1;
    let moved = wait::until(&format!("{name} to report to PMM 3"), 60, || {
        let state = host::look(spec)?;
        let address = state.config.get("server.address").cloned().unwrap_or_default();
        let age = server::sample_ages()?.get(service).copied();
        let fresh = age.is_some_and(|age| age <= 20.0);
        Ok(if address == format!("{container}:8443") && fresh {
            Probe::Ready(state.version)
        } else {
            Probe::NotYet(format!("server.address `{address}`, newest sample {age:?} s old"))
        })
    })?;
    if !moved.starts_with("2.") {
        bail!(
            "{name} has client {moved} already: the time between the cut and its turn was not put to the test"
        );
    }
    output::step(&format!(
        "{name} followed the server to {container}:8443 as a PMM {moved} client"
    ));
    Ok(())
}

/// Completed, and nobody is blind.
pub fn check(report: &Report, exit: i32, before: &Snapshot) -> Result<()> {
    expect::migrated(report, exit, &["2.44.1", "3.7.1", "3.9.1"], before)?;
    let mut findings = Findings::default();
    for (name, container) in HOSTS {
        let was = before.hosts.get(name).context("the host before")?;
        findings.equal(
            &format!("{name}: address before the migration"),
            &was.config.get("server.address").cloned().unwrap_or_default(),
            &format!("{container}:443"),
        );
    }
    findings.equal("major release", &pmm::major()?, &pmm::Major::Three);
    findings.finish("direct-address")
}

/// Sabotage: the first of the two gets its old address back.
pub fn put_back() -> Result<()> {
    let (name, container) = HOSTS[0];
    let config = "/usr/local/percona/pmm/config/pmm-agent.yaml";
    let edit = format!("s#{container}:8443#{container}:443#");
    docker::exec_must(&names::host(name), &["sed", "-i", &edit, config])?;
    docker::exec_must(&names::host(name), &["systemctl", "restart", "pmm-agent"]).map(drop)
}
