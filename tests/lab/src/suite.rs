//! Suites: tables of cases. A case that did not run has failed.

use crate::scenario::{self, Options, Sabotage, Scenario};
use crate::{lock, output, teeth};
use anyhow::{Context, Result, bail};
use serde_json::json;

/// One case.
pub struct Case {
    /// Its name.
    pub name: &'static str,
    /// What it shows.
    pub about: &'static str,
    run: fn() -> Result<()>,
}

impl Case {
    /// A case of a table.
    pub const fn new(name: &'static str, about: &'static str, run: fn() -> Result<()>) -> Self { Self { name, about, run } }
}

struct Suite {
    name: &'static str,
    about: &'static str,
    cases: &'static [&'static [Case]],
}

impl Suite {
    fn cases(&self) -> impl Iterator<Item = &'static Case> { self.cases.iter().flat_map(|table| table.iter()) }
}

const SCENARIOS: [Case; 6] = [
    Case::new("plain", "the main job, checked from outside", || demo(Scenario::Plain, None)),
    Case::new("broken-repo", "failing package scripts on two hosts of the second group", || demo(Scenario::BrokenRepo, None)),
    Case::new("kill-coordinator", "three kills of the coordinator", || demo(Scenario::KillCoordinator, None)),
    Case::new("kill-agent", "a kill of an agent in a package script", || demo(Scenario::KillAgent, None)),
    Case::new("bad-volume", "PMM 3 on an empty volume", || demo(Scenario::BadVolume, None)),
    Case::new("bridge", "server, clients, server, clients", || demo(Scenario::Bridge, None)),
];

const SABOTAGE: [Case; 4] = [
    Case::new("stop-client", "a client that is not connected is noticed", || must_fail(Scenario::Plain, Sabotage::StopClient)),
    Case::new("lose-service", "a service that is gone is noticed", || must_fail(Scenario::Plain, Sabotage::LoseService)),
    Case::new("lie-in-report", "a report that does not fit is noticed", || must_fail(Scenario::Plain, Sabotage::LieInReport)),
    Case::new("no-kill", "a kill that did not happen is noticed", || must_fail(Scenario::KillAgent, Sabotage::NoKill)),
];

const SUITES: [Suite; 4] = [
    Suite { name: "short", about: "what `cargo test` runs: the main job", cases: &[SCENARIOS.split_at(1).0] },
    Suite { name: "scenarios", about: "the main job, plain and with everything that goes wrong", cases: &[&SCENARIOS] },
    Suite { name: "teeth", about: "the stand-ins fall into every known trap", cases: teeth::CASES },
    Suite { name: "sabotage", about: "the checks notice what is broken on purpose", cases: &[&SABOTAGE] },
];

fn demo(scenario: Scenario, sabotage: Option<Sabotage>) -> Result<()> {
    let _lock = lock::hold("fleet")?;
    scenario::run(&Options { keep: false, report: None, scenario, sabotage, pmm2_update: "image".to_owned() })
}

fn must_fail(scenario: Scenario, sabotage: Sabotage) -> Result<()> {
    match demo(scenario, Some(sabotage)) {
        Ok(()) => bail!("the sabotage {sabotage:?} was not noticed"),
        Err(error) => {
            output::step(&format!("noticed: {error:#}"));
            Ok(())
        }
    }
}

/// All suites and cases, as text or JSON.
pub fn list(as_json: bool) -> String {
    if as_json {
        let rows: Vec<_> = SUITES
            .iter()
            .map(|suite| {
                let cases: Vec<_> = suite.cases().map(|case| json!({"name": case.name, "about": case.about})).collect();
                json!({"suite": suite.name, "about": suite.about, "cases": cases})
            })
            .collect();
        return serde_json::Value::from(rows).to_string();
    }
    let rows = SUITES.iter().flat_map(|suite| {
        let head = format!("{}: {}", suite.name, suite.about);
        std::iter::once(head).chain(suite.cases().map(|case| format!("  {:<28} {}", case.name, case.about)))
    });
    rows.collect::<Vec<_>>().join("\n")
}

/// Runs a suite; every case must pass.
pub fn run(name: &str, only: Option<&str>) -> Result<()> {
    let suite = SUITES.iter().find(|suite| suite.name == name).with_context(|| format!("no suite `{name}`; `cargo lab suite --list` shows them"))?;
    let chosen: Vec<&Case> = suite.cases().filter(|case| only.is_none_or(|text| text.split(',').any(|part| case.name.contains(part)))).collect();
    if chosen.is_empty() {
        bail!("suite {name} has no case like `{}`", only.unwrap_or_default());
    }
    let mut failed = Vec::new();
    for case in &chosen {
        output::step(&format!("case {name}/{}", case.name));
        match (case.run)() {
            Ok(()) => output::line(&format!("ok   {name}/{}", case.name)),
            Err(error) => {
                output::line(&format!("FAIL {name}/{}: {error:#}", case.name));
                failed.push(case.name);
            }
        }
    }
    teeth::clear();
    output::line(&format!("suite {name}: {} of {} cases passed", chosen.len() - failed.len(), chosen.len()));
    if failed.is_empty() { Ok(()) } else { bail!("failed: {}", failed.join(", ")) }
}
