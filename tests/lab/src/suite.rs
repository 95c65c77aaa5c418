//! Suites: tables of cases. A case that did not run has failed.

use crate::scenario::{self, Options, Sabotage, Scenario};
use crate::{lock, maintenance, output, rollout_real, teeth};
use anyhow::{Context, Result, anyhow, bail};
use serde_json::json;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

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
    pub const fn new(name: &'static str, about: &'static str, run: fn() -> Result<()>) -> Self {
        Self { name, about, run }
    }
}

/// Cases that run one after the other, or a few beside each other if they share nothing.
pub struct Table {
    /// How many run at a time.
    pub jobs: usize,
    /// The cases, in order.
    pub cases: &'static [Case],
}

struct Suite {
    name: &'static str,
    about: &'static str,
    tables: &'static [Table],
}

impl Suite {
    fn cases(&self) -> impl Iterator<Item = &'static Case> {
        self.tables.iter().flat_map(|table| table.cases.iter())
    }
}

const SCENARIOS: [Case; 12] = [
    Case::new("plain", "the main job, checked from outside", || {
        demo(Scenario::Plain, None)
    }),
    Case::new(
        "broken-repo",
        "failing package scripts on two hosts of the second group",
        || demo(Scenario::BrokenRepo, None),
    ),
    Case::new("kill-coordinator", "three kills of the coordinator", || {
        demo(Scenario::KillCoordinator, None)
    }),
    Case::new("kill-agent", "a kill of an agent in a package script", || {
        demo(Scenario::KillAgent, None)
    }),
    Case::new("bad-volume", "PMM 3 on an empty volume", || {
        demo(Scenario::BadVolume, None)
    }),
    Case::new("bridge", "server, clients, server, clients", || {
        demo(Scenario::Bridge, None)
    }),
    Case::new(
        "direct-address",
        "two clients follow the server's container to its new port",
        || demo(Scenario::DirectAddress, None),
    ),
    Case::new("full-disk", "no space is left in the middle of a switch", || {
        demo(Scenario::FullDisk, None)
    }),
    Case::new(
        "reboot",
        "three hosts lose their power in a package transaction",
        || demo(Scenario::Reboot, None),
    ),
    Case::new("backup", "a host waits for the end of a database backup", || {
        demo(Scenario::Backup, None)
    }),
    Case::new(
        "adopt",
        "a late host goes with the plan that the running rollout adopts",
        || demo(Scenario::Adopt, None),
    ),
    Case::new(
        "update-api",
        "PMM 2 reaches its last release by its own update",
        || demo_with(Scenario::Plain, None, "api"),
    ),
];

const SABOTAGE: [Case; 10] = [
    Case::new("stop-client", "a client that is not connected is noticed", || {
        must_fail(
            Scenario::Plain,
            Sabotage::StopClient,
            "deb-a: the client says that it is not connected",
        )
    }),
    Case::new("lose-service", "a service that is gone is noticed", || {
        must_fail(
            Scenario::Plain,
            Sabotage::LoseService,
            "services in PMM's inventory",
        )
    }),
    Case::new("lie-in-report", "a report that does not fit is noticed", || {
        must_fail(Scenario::Plain, Sabotage::LieInReport, "hops: ")
    }),
    Case::new("no-kill", "a kill that did not happen is noticed", || {
        must_fail(Scenario::KillAgent, Sabotage::NoKill, "does not name the kill")
    }),
    Case::new("old-address", "a client at the old port is noticed", || {
        must_fail(
            Scenario::DirectAddress,
            Sabotage::OldAddress,
            "rpm-b: `server.address` in the configuration is not as it should be",
        )
    }),
    Case::new("room-left", "disks that never became full are noticed", || {
        must_fail(Scenario::FullDisk, Sabotage::RoomLeft, "never ran out of space")
    }),
    Case::new("no-reboot", "a reboot that did not happen is noticed", || {
        must_fail(
            Scenario::Reboot,
            Sabotage::NoKill,
            "does not name the reboot of deb-a",
        )
    }),
    Case::new("kill-client", "a backup that was lost is noticed", || {
        must_fail(Scenario::Backup, Sabotage::KillClient, "the backup is lost")
    }),
    Case::new("no-adopt", "a late host that was left behind is noticed", || {
        must_fail(
            Scenario::Adopt,
            Sabotage::NoAdopt,
            "host rpm-b is in the report 0 times",
        )
    }),
    Case::new(
        "toothless-server",
        "a stand-in server that takes what PMM 3 refuses is noticed",
        teeth::toothless,
    ),
];

const SUITES: [Suite; 6] = [
    Suite {
        name: "short",
        about: "what `cargo test` runs: the main job",
        tables: &[Table {
            jobs: 1,
            cases: SCENARIOS.split_at(1).0,
        }],
    },
    Suite {
        name: "scenarios",
        about: "the main job, plain and with everything that goes wrong",
        tables: &[Table {
            jobs: 1,
            cases: &SCENARIOS,
        }],
    },
    Suite {
        name: "maintenance",
        about: "what is asked of single hosts outside of a rollout",
        tables: &[Table {
            jobs: 1,
            cases: maintenance::CASES,
        }],
    },
    Suite {
        name: "rollout-real",
        about: "a disturbed rollout ends with the report of an undisturbed one",
        tables: &[Table {
            jobs: 1,
            cases: rollout_real::CASES,
        }],
    },
    Suite {
        name: "teeth",
        about: "the stand-ins fall into every known trap",
        tables: teeth::TABLES,
    },
    Suite {
        name: "sabotage",
        about: "the checks notice what is broken on purpose",
        tables: &[Table {
            jobs: 1,
            cases: &SABOTAGE,
        }],
    },
];

fn demo(scenario: Scenario, sabotage: Option<Sabotage>) -> Result<()> {
    demo_with(scenario, sabotage, "image")
}

fn demo_with(scenario: Scenario, sabotage: Option<Sabotage>, pmm2_update: &str) -> Result<()> {
    let _lock = lock::hold("fleet")?;
    scenario::run(&Options {
        keep: false,
        report: None,
        scenario,
        sabotage,
        pmm2_update: pmm2_update.to_owned(),
    })
}

/// Red for the right reason: a run that broke on the way has noticed nothing.
fn must_fail(scenario: Scenario, sabotage: Sabotage, missed: &str) -> Result<()> {
    match demo(scenario, Some(sabotage)) {
        Ok(()) => bail!("the sabotage {sabotage:?} was not noticed"),
        Err(error) if format!("{error:#}").contains(missed) => {
            output::step(&format!("noticed: {error:#}"));
            Ok(())
        }
        Err(error) => Err(error.context("the case failed for another reason")),
    }
}

/// All suites and cases, as text or JSON.
pub fn list(as_json: bool) -> String {
    if as_json {
        let rows: Vec<_> = SUITES
            .iter()
            .map(|suite| {
                let cases: Vec<_> = suite
                    .cases()
                    .map(|case| json!({"name": case.name, "about": case.about}))
                    .collect();
                json!({"suite": suite.name, "about": suite.about, "cases": cases})
            })
            .collect();
        return serde_json::Value::from(rows).to_string();
    }
    let rows = SUITES.iter().flat_map(|suite| {
        let head = format!("{}: {}", suite.name, suite.about);
        std::iter::once(head).chain(
            suite
                .cases()
                .map(|case| format!("  {:<28} {}", case.name, case.about)),
        )
    });
    rows.collect::<Vec<_>>().join("\n")
}

/// Runs a suite, or those of its cases whose names contain one of some texts, separated by commas; every case must pass.
pub fn run(name: &str, only: Option<&str>) -> Result<()> {
    let suite = SUITES
        .iter()
        .find(|suite| suite.name == name)
        .with_context(|| format!("no suite `{name}`; `cargo lab suite --list` shows them"))?;
    let wanted = |case: &&Case| only.is_none_or(|text| text.split(',').any(|part| case.name.contains(part)));
    let mut failed = Vec::new();
    let mut ran = 0;
    for table in suite.tables {
        let chosen: Vec<&Case> = table.cases.iter().filter(wanted).collect();
        failed.extend(run_table(name, &chosen, table.jobs));
        ran += chosen.len();
    }
    teeth::clear();
    maintenance::clear();
    if ran == 0 {
        bail!("suite {name} has no case like `{}`", only.unwrap_or_default());
    }
    output::line(&format!(
        "suite {name}: {} of {ran} cases passed",
        ran - failed.len()
    ));
    if failed.is_empty() {
        Ok(())
    } else {
        bail!("failed: {}", failed.join(", "))
    }
}

/// Runs cases, so many at a time; returns the names of those that failed.
fn run_table(suite: &str, cases: &[&Case], jobs: usize) -> Vec<&'static str> {
    let next = AtomicUsize::new(0);
    let failed = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..jobs.min(cases.len()) {
            scope.spawn(|| {
                while let Some(case) = cases.get(next.fetch_add(1, Ordering::Relaxed)) {
                    if !run_case(suite, case) {
                        failed
                            .lock()
                            .unwrap_or_else(PoisonError::into_inner)
                            .push(case.name);
                    }
                }
            });
        }
    });
    failed.into_inner().unwrap_or_else(PoisonError::into_inner)
}

/// Runs one case; a panic is a failure like any other.
fn run_case(suite: &str, case: &Case) -> bool {
    output::step(&format!("case {suite}/{}", case.name));
    let result = std::panic::catch_unwind(case.run).unwrap_or_else(|_| Err(anyhow!("the case panicked")));
    match &result {
        Ok(()) => output::line(&format!("ok   {suite}/{}", case.name)),
        Err(error) => output::line(&format!("FAIL {suite}/{}: {error:#}", case.name)),
    }
    result.is_ok()
}
