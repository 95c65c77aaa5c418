//! A host's disks become full while dpkg is about to unpack the new client, and have room again later.

use super::run::Road;
use super::{Sabotage, expect};
use crate::disks;
use crate::fleet::{self, HOSTS};
use crate::report::{Findings, Report};
use crate::verify::{Snapshot, host, server};
use crate::wait::{self, Probe};
use crate::{docker, hosts, names, output};
use anyhow::{Result, bail};

/// The host: deb, in the second group.
pub const TARGET: &str = "deb-b";

/// Fills the disks when the package manager has stopped the old client, frees them when it has failed.
pub fn drive(road: &mut Road, sabotage: Option<Sabotage>) -> Result<i32> {
    let spec = fleet::host(TARGET)?;
    hosts::script_mode(spec, "hold-unpack")?;
    road.start()?;
    let mut seen = Ok(false);
    road.until("dpkg to be about to unpack the new client", 900, |_| {
        seen = hosts::unpack_is_held(spec);
        !matches!(seen, Ok(false))
    })?;
    seen?;
    if sabotage != Some(Sabotage::RoomLeft) {
        disks::fill(spec)?;
    }
    hosts::release_script(spec)?;
    wait::until("the package transaction to end", 180, || {
        let busy = docker::exec(&names::host(TARGET), &["pgrep", "-l", "-x", "dpkg|apt-get"])?;
        wait::check(!busy.ok(), busy.all())
    })?;
    if !disks::ran_out(spec)? {
        bail!("{TARGET} never ran out of space, so nothing was put to the test");
    }
    output::step("dpkg ran out of space");
    // An operator sees a host without its client and makes room. The client itself needs no room to run again.
    wait::until(
        "the old client to run again although the disks are full",
        120,
        || {
            let running = hosts::pids(spec, "pmm-agent")?;
            wait::check(!running.is_empty(), "no pmm-agent")
        },
    )
    .or_else(|error| {
        disks::free(spec)?;
        Err(error)
    })?;
    disks::free(spec)?;
    road.watch()
}

/// The host is upgraded or back, whole, with its identity; everybody else is upgraded.
pub fn check(report: &Report, before: &Snapshot) -> Result<()> {
    let mut findings = Findings::default();
    findings.equal("host rows", &report.hosts().len(), &HOSTS.len());
    for spec in &HOSTS {
        let Some(row) = findings.take(spec.name, report.host(spec.name)) else {
            continue;
        };
        let outcome = row["outcome"].as_str().unwrap_or_default().to_owned();
        let wanted: &[&str] = if spec.name == TARGET {
            &["upgraded", "rolled_back"]
        } else {
            &["upgraded"]
        };
        findings.expect(
            wanted.contains(&outcome.as_str()),
            format!("{}: {outcome}, expected {wanted:?}", spec.name),
        );
        if spec.name == TARGET && outcome == "rolled_back" {
            let reason = row["reason"].as_str().unwrap_or_default();
            findings.expect(!reason.is_empty(), format!("{TARGET}: no reason in the report"));
        }
    }
    let spec = fleet::host(TARGET)?;
    let settled = wait::until("the client to report", 60, || {
        let now = host::look(spec)?;
        Ok(if now.connected {
            Probe::Ready(())
        } else {
            Probe::NotYet("not connected".into())
        })
    });
    findings.take(TARGET, settled);
    host::whole(spec, &mut findings);
    server::fresh(&before.server.sampled, &mut findings);
    expect::services_and_clients(before, &mut findings);
    findings.finish("full-disk")
}
