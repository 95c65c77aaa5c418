//! SIGKILL of the coordinator at random moments, and a new start each time as the unit file says.

use crate::output;
use crate::product::Coordinator;
use crate::report::{Findings, Report};
use crate::wait;
use anyhow::Result;
use serde_json::Value;
use std::collections::VecDeque;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// `RestartSec` of the coordinator's unit.
const RESTART: Duration = Duration::from_secs(2);

/// A clock that can be made to stand still.
pub struct Clock {
    gone: Duration,
    since: Option<Instant>,
}

impl Clock {
    /// Starts now.
    pub fn start() -> Self {
        Self {
            gone: Duration::ZERO,
            since: Some(Instant::now()),
        }
    }

    /// Time that went by while it ran.
    pub fn now(&self) -> Duration {
        self.gone + self.since.map_or(Duration::ZERO, |since| since.elapsed())
    }

    /// Lets it run or stand.
    pub fn run(&mut self, run: bool) {
        self.gone = self.now();
        self.since = run.then(Instant::now);
    }
}

/// A kill that was done.
struct Kill {
    at_ms: u64,
    under_way: String,
}

/// The kills of a run.
pub struct Kills {
    ahead: VecDeque<Duration>,
    done: Vec<Kill>,
}

impl Kills {
    /// Kills at these moments of the clock, in order.
    pub fn new(moments: Vec<Duration>) -> Self {
        Self {
            ahead: moments.into(),
            done: Vec::new(),
        }
    }

    /// Kills and starts the coordinator if the next moment has come. `status` is the last that was seen of the rollout.
    pub fn look(&mut self, coordinator: &mut Coordinator, now: Duration, status: &Value) -> Result<()> {
        if self.ahead.front().is_none_or(|moment| *moment > now) {
            return Ok(());
        }
        self.ahead.pop_front();
        let under_way = under_way(status);
        let at_ms = unix_ms();
        coordinator.kill()?;
        output::step(&format!(
            "kill {} at {:.1} s; under way: {under_way}",
            self.done.len() + 1,
            now.as_secs_f64()
        ));
        self.done.push(Kill { at_ms, under_way });
        // What an init system does is to wait for a time.
        wait::pause(RESTART);
        coordinator.serve()
    }

    /// Each kill was done, and the report names each once, with a time between it and the next.
    pub fn check(&self, report: &Report, findings: &mut Findings) {
        findings.equal(
            "kills that the rollout did not live to see",
            &self.ahead.len(),
            &0,
        );
        let rows = report.0["disturbances"].as_array().cloned().unwrap_or_default();
        let mut starts: Vec<(u64, String)> = rows
            .iter()
            .filter(|row| row["target"] == "coordinator")
            .map(|row| {
                let step = row["step"].as_str().unwrap_or_default();
                (row["at"].as_u64().unwrap_or(0), step.to_owned())
            })
            .collect();
        starts.sort();
        findings.equal(
            "starts of the coordinator in the report's disturbances",
            &starts.len(),
            &self.done.len(),
        );
        for (index, kill) in self.done.iter().enumerate() {
            let next = self.done.get(index + 1).map_or(u64::MAX, |next| next.at_ms);
            let named: Vec<&str> = starts
                .iter()
                .filter(|(at, _)| (kill.at_ms..next).contains(at))
                .map(|(_, step)| step.as_str())
                .collect();
            output::line(&format!(
                "kill {:>2}: seen from outside: {}; the report says: {}",
                index + 1,
                kill.under_way,
                named.join(" | ")
            ));
            findings.equal(
                &format!("disturbances of the report that belong to kill {}", index + 1),
                &named.len(),
                &1,
            );
        }
        // Between two steps nothing is hit; a run in which that is the rule has shown nothing.
        let idle = starts.iter().filter(|(_, step)| step == "nothing").count();
        findings.expect(
            2 * idle < self.done.len(),
            format!("{idle} of {} kills hit nothing", self.done.len()),
        );
    }
}

/// What a status document says is under way.
fn under_way(status: &Value) -> String {
    let rows = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let mut found = Vec::new();
    for leg in rows(&status["server"]) {
        for hop in rows(&leg["hops"]).iter().filter(|hop| hop["state"] == "running") {
            let steps = rows(&hop["steps"]);
            let step = steps.iter().rfind(|step| step["state"] == "running");
            let step = step.map_or_else(|| "between two steps".to_owned(), |step| text(&step["step"]));
            found.push(format!("hop to {}: {step}", text(&hop["to"])));
        }
    }
    for host in rows(&status["in_flight"]) {
        let words = [&host["name"], &host["state"], &host["step"]].map(text);
        found.push(words.join(" ").trim_end().to_owned());
    }
    if found.is_empty() {
        found.push(text(&status["headline"]));
    }
    found.join(", ")
}

fn unix_ms() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}
