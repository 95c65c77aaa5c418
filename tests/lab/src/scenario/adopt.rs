//! A host joins while the rollout runs. A plan made then follows the running one, is shown as waiting, and is adopted while the second group
//! works: the host goes with its group, which has not had its turn.

use super::run::{self, Road};
use super::{Sabotage, expect, kill_coordinator};
use crate::report::{Findings, Report};
use crate::verify::{Snapshot, host};
use crate::{fleet, output};
use anyhow::{Context, Result, bail};
use serde_json::Value;

/// The host that is late: rpm, of the last group.
pub const TARGET: &str = "rpm-b";
/// The group that works when the plan is adopted.
const MEANWHILE: &str = "staging";

/// Begins without the host, lets it join, makes a plan and adopts it.
pub fn drive(road: &mut Road, sabotage: Option<Sabotage>) -> Result<i32> {
    let late = fleet::host(TARGET)?;
    let coordinator = &road.coordinator;
    if coordinator.run(&["start"])?.ok() {
        bail!("the rollout began although PMM has a client without our agent");
    }
    let done = coordinator.show(&["start", "--accept-unmatched", TARGET])?;
    if !done.ok() {
        bail!("`start` ended with {}", done.code);
    }
    road.until(&format!("group {MEANWHILE} to work"), 900, |status| {
        group(status, MEANWHILE).is_some_and(|group| group["counts"]["in_flight"].as_u64() > Some(0))
    })?;
    run::join(coordinator, &[late])?;
    let path = run::fleet_path()?.display().to_string();
    let made = coordinator.show(&["plan", "-f", &path])?;
    if !made.ok() {
        bail!("`plan` ended with {}", made.code);
    }
    let status = coordinator.json(&["status"])?;
    let plan = status["waiting_plan"]["plan"]
        .as_str()
        .with_context(|| format!("the status shows no plan that waits: {status}"))?
        .to_owned();
    let command = format!("pmm-coordinator adopt {plan}");
    for screen in [vec!["status"], vec!["explain", "rollout"]] {
        let text = coordinator.show(&screen)?.stdout;
        if !text.contains(&command) {
            bail!("`{}` does not name `{command}`", screen.join(" "));
        }
    }
    untouched_so_far(late)?;
    if sabotage != Some(Sabotage::NoAdopt) {
        let adopted = coordinator.show(&["adopt", &plan])?;
        if !adopted.ok() {
            bail!("`adopt` ended with {}", adopted.code);
        }
        let status = coordinator.json(&["status"])?;
        let working = group(&status, MEANWHILE).context("the group that worked")?;
        if status["plan"] != plan || working["state"] == "done" {
            bail!("the plan was not adopted while group {MEANWHILE} worked: {status}");
        }
        output::step(&format!("{plan} was adopted while group {MEANWHILE} works"));
    }
    road.watch()
}

/// The whole fleet is upgraded, the late host with it, and each package was installed once.
pub fn check(report: &Report, exit: i32, before: &Snapshot) -> Result<()> {
    expect::migrated(report, exit, &["2.44.1", "3.7.1", "3.9.1"], before)?;
    let mut findings = Findings::default();
    kill_coordinator::lasting_effects(report, &mut findings)?;
    findings.equal("disturbances", &report.disturbances(), &Vec::new());
    findings.finish("adopt")
}

/// By its package database, its process and its files: a plan that only waits does nothing.
fn untouched_so_far(late: &fleet::Host) -> Result<()> {
    let before = Snapshot::load()?;
    let was = before.host(late).context("the late host in the snapshot")?;
    let mut findings = Findings::default();
    host::unchanged(late, &was, &host::look(late)?, &mut findings);
    findings.finish("a plan that waits for `adopt`")
}

fn group<'a>(status: &'a Value, name: &str) -> Option<&'a Value> {
    status["groups"]
        .as_array()?
        .iter()
        .find(|group| group["name"] == name)
}
