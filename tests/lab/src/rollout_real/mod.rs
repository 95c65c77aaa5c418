//! The suite `rollout-real`: the fleet migrated twice by the same fleet file, once undisturbed and once with ten kills of the coordinator and a
//! host that is cut off in mid-switch. Both reports must be the same except for times.

mod chance;
mod compare;
mod cut;
mod kills;

pub use chance::choose;

use crate::fleet::Wishes;
use crate::report::{Findings, Report};
use crate::scenario::run::{Road, Way};
use crate::scenario::{expect, kill_coordinator};
use crate::suite::Case;
use crate::verify::{self, Snapshot};
use crate::{build, hosts, lock, output, wait};
use anyhow::{Context, Result, bail, ensure};
use cut::Cut;
use kills::{Clock, Kills};
use serde_json::Value;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// Kills of the coordinator.
const KILLS: u32 = 10;
/// The part of the undisturbed run's length over which they are spread. The disturbed run takes longer, but an early end must not lose one.
const SPREAD: f64 = 0.85;
/// A disturbed run takes ten restarts and a lost host longer.
const LONGEST: Duration = Duration::from_secs(45 * 60);

/// The fleet file of both runs: a host is lost soon enough for a test.
const WISHES: Wishes = Wishes {
    timing: &[("lost_after", "20s")],
    ..Wishes::NONE
};

/// The cases.
pub const CASES: &[Case] = &[Case::new(
    "ten-kills-and-a-cut",
    "coordinator killed ten times, a host cut off in mid-switch: the report of an undisturbed run",
    || {
        let _lock = lock::hold("fleet")?;
        let result = run();
        if result.is_ok() {
            hosts::down()?;
        } else {
            hosts::down_after_failure()?;
        }
        result
    },
)];

fn run() -> Result<()> {
    let seed = chance::seed();
    output::step("the undisturbed run");
    let calm = undisturbed()?;
    let span = calm.lasted()?.mul_f64(SPREAD);
    let moments = chance::moments(seed, span, KILLS);
    let list: Vec<String> = moments
        .iter()
        .map(|at| format!("{:.1}", at.as_secs_f64()))
        .collect();
    output::step(&format!("the disturbed run; kills at {} s", list.join(", ")));
    let rough = disturbed(moments)?;
    let mut differences = compare::differences(&calm.0, &rough.0);
    if differences.is_empty() {
        output::line("the reports of both runs are the same except for times and disturbances");
        return Ok(());
    }
    differences.insert(
        0,
        format!("undisturbed / disturbed, both in {}", kept("")?.display()),
    );
    bail!(
        "the reports of the two runs differ:\n  - {}",
        differences.join("\n  - ")
    )
}

fn undisturbed() -> Result<Report> {
    let mut road = Road::prepare(&WISHES, Way::default())?;
    let exit = road.start_and_watch()?;
    let report = road.report(Some(&kept("undisturbed.json")?))?;
    migrated_once(&report, exit)?;
    Ok(report)
}

fn disturbed(moments: Vec<Duration>) -> Result<Report> {
    let mut road = Road::prepare(&WISHES, Way::default())?;
    let (mut kills, mut cut) = (Kills::new(moments), Cut::prepare()?);
    road.start()?;
    let exit = drive(&mut road, &mut kills, &mut cut)?;
    let report = road.report(Some(&kept("disturbed.json")?))?;
    let mut findings = Findings::default();
    kills.check(&report, &mut findings);
    cut.check(&report, &mut findings);
    findings.finish("the disturbances")?;
    migrated_once(&report, exit)?;
    Ok(report)
}

/// Kills and cuts while `watch` runs on this terminal; returns its exit status.
fn drive(road: &mut Road, kills: &mut Kills, cut: &mut Cut) -> Result<i32> {
    let mut watching = road.coordinator.spawn_shown(&["watch"])?;
    let end = Instant::now() + LONGEST;
    let mut clock = Clock::start();
    loop {
        if let Some(status) = watching.try_wait()? {
            let rests = road.coordinator.json(&["status"])?;
            ensure!(
                rests["at_rest"] == true,
                "`watch` ended with {status} although the rollout goes on"
            );
            return status.code().context("`watch` was killed by a signal");
        }
        if Instant::now() > end {
            watching.kill()?;
            bail!(
                "the rollout did not end within {} minutes; log: {}",
                LONGEST.as_secs() / 60,
                road.coordinator.log().display()
            );
        }
        let step = road.coordinator.json(&["status"]).and_then(|status| {
            cut.look(&status)?;
            clock.run(!cut.is_watched() && !waits_for_baseline(&status));
            kills.look(&mut road.coordinator, clock.now(), &status)
        });
        if let Err(error) = step {
            watching.kill()?;
            return Err(error);
        }
        wait::pause(Duration::from_millis(300));
    }
}

/// Whether all hosts of the survey answered and PMM did not yet. A coordinator that is killed then waits out the minute between two looks at
/// the fleet, and a clock that went on meanwhile would use up its kills where nothing is under way.
fn waits_for_baseline(status: &Value) -> bool {
    let legs = status["legs"].as_array().into_iter().flatten();
    let mut surveys = legs.filter(|leg| leg["kind"] == "survey" && leg["state"] == "running");
    surveys.any(|leg| leg["done"] == leg["total"])
}

/// Everything that must hold after each of the two runs, from the report and from outside.
fn migrated_once(report: &Report, exit: i32) -> Result<()> {
    let before = Snapshot::load()?;
    expect::migrated(report, exit, &["2.44.1", "3.7.1", "3.9.1"], &before)?;
    let mut findings = Findings::default();
    kill_coordinator::lasting_effects(report, &mut findings)?;
    findings.finish("lasting effects")?;
    verify::run()
}

/// Where the reports of both runs stay for whoever looks into a difference.
fn kept(file: &str) -> Result<PathBuf> {
    let directory = build::state_dir()?.join("rollout-real");
    fs_err::create_dir_all(&directory)?;
    Ok(directory.join(file))
}
