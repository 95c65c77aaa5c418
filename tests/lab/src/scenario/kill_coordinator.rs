//! kill -9 of the coordinator in the ownership change, in the migration wait and in the middle of a group.

use super::run::Road;
use super::{Sabotage, expect};
use crate::fleet::{HOSTS, Kind};
use crate::proxy::Rule;
use crate::report::{Findings, Report};
use crate::verify::{Snapshot, host};
use crate::{docker, names, output};
use anyhow::Result;
use serde_json::Value;

/// Drives the rollout with three kills.
pub fn drive(road: &mut Road, sabotage: Option<Sabotage>) -> Result<i32> {
    if sabotage == Some(Sabotage::NoKill) {
        return road.start_and_watch();
    }
    // The helper that changes the ownership is started through the proxy; its answer never arrives.
    road.proxy.set(Some(Rule::HoldStart {
        text: "-own".to_owned(),
    }));
    road.start()?;
    let proxy = &road.proxy;
    road.until("the ownership change to be under way", 300, |_| proxy.hits() > 0)?;
    again(road)?;
    road.proxy.set(None);
    road.until("the migration wait", 300, |status| {
        server_step(status) == "migration"
    })?;
    again(road)?;
    road.until("a host of the second group to be switching", 600, |status| {
        hosts_in(status, "staging", "switching")
    })?;
    again(road)?;
    road.watch()
}

fn again(road: &mut Road) -> Result<()> {
    road.coordinator.kill()?;
    road.coordinator.serve()?;
    output::step("the coordinator serves again");
    Ok(())
}

/// The step under way of the running server hop in a status document; empty when there is none.
pub fn server_step(status: &Value) -> String {
    let rows = |value: &Value, key: &str| value[key].as_array().cloned().unwrap_or_default();
    let hops = rows(status, "server")
        .into_iter()
        .flat_map(|leg| rows(&leg, "hops"));
    let mut steps = hops
        .flat_map(|hop| rows(&hop, "steps"))
        .filter(|step| step["state"] == "running");
    steps.next().map_or_else(String::new, |step| {
        step["step"].as_str().unwrap_or_default().to_owned()
    })
}

/// Whether a group has a host in a state, in a status document.
pub fn hosts_in(status: &Value, group: &str, state: &str) -> bool {
    let rows = status["in_flight"].as_array().cloned().unwrap_or_default();
    rows.iter()
        .any(|row| row["group"] == group && row["state"] == state)
}

/// Completed; three disturbances with their steps; every lasting effect once.
pub fn check(report: &Report, exit: i32, before: &Snapshot) -> Result<()> {
    expect::migrated(report, exit, &["2.44.1", "3.7.1", "3.9.1"], before)?;
    let mut findings = Findings::default();
    let hits = report.disturbances();
    findings.expect(
        hits.len() >= 3,
        format!(
            "{} disturbances in the report, expected at least 3: {hits:?}",
            hits.len()
        ),
    );
    for step in ["ownership", "migration"] {
        findings.expect(
            hits.iter().any(|(_, hit)| hit.contains(step)),
            format!("no kill hit the step {step}: {hits:?}"),
        );
    }
    findings.expect(
        hits.iter().any(|(target, hit)| {
            target.contains("staging") || hit.contains("staging") || hit.contains("switch")
        }),
        format!("no kill hit a group: {hits:?}"),
    );
    lasting_effects(report, &mut findings)?;
    findings.finish("kill-coordinator")
}

/// One new container and one restore point per hop by Docker's own events; one package transaction per host by the package managers' logs.
pub fn lasting_effects(report: &Report, findings: &mut Findings) -> Result<()> {
    let created = crate::product::docker_events()?;
    let servers = created
        .iter()
        .filter(|event| event["Actor"]["Attributes"]["io.pmm-fleet.role"] == "server")
        .count();
    let hops = report.list("/server/hops").len();
    findings.equal("PMM Server containers created", &servers, &hops);
    // Docker reports a volume's creation again for every container that mounts it, so the volumes themselves are counted.
    let filter = format!("name={}-restore-", names::PMM);
    let listed = docker::docker(["volume", "ls", "--filter", &filter, "--format", "{{.Name}}"])?;
    let mut volumes: Vec<String> = listed.lines().map(str::to_owned).collect();
    let mut restore_points = report.list("/server/restore_points");
    volumes.sort();
    restore_points.sort();
    findings.equal("restore points", &volumes, &restore_points);
    for spec in &HOSTS {
        let Some(count) = host::installations(spec)? else {
            continue;
        };
        findings.equal(
            &format!("{}: times the client was installed", spec.name),
            &count,
            &1,
        );
        if spec.kind == Kind::Rpm {
            let text = docker::exec_must(&names::host(spec.name), &["rpm", "-q", "--last", "pmm-client"])?;
            findings.equal(
                &format!("{}: installed pmm-client packages", spec.name),
                &text.lines().count(),
                &1,
            );
        }
    }
    Ok(())
}
