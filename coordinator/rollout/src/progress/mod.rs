//! What is going on, as one document.

mod doc;
mod estimate;
mod parts;

pub use doc::{
    Counts, Estimate, Failure, GroupView, HopView, InFlight, LegView, PauseView, RepointView, ServerView,
    StatusDocument, StepView, Wait,
};

pub(crate) use parts::hop_state;

use crate::kernel::{Kernel, LegPhase, Owner, RolloutPhase};
use fleet_common::codes::exit;
use fleet_common::ids::{HostId, LegId};
use std::collections::{BTreeMap, BTreeSet};

/// Names shown per reason for waiting.
const NAMES: usize = 5;

/// The rollout at one moment. One pass over the hosts.
pub fn view(kernel: &Kernel, now_ms: u64) -> StatusDocument {
    let rollout = &kernel.rollout;
    let Progress {
        done,
        upgraded,
        total,
    } = progress(kernel);
    let in_flight = parts::in_flight(kernel, now_ms);
    let outcome = outcome(kernel);
    let driven = kernel.open_hop().is_some() && !stuck(kernel);
    let at_rest = kernel.is_final()
        || (rollout.phase == RolloutPhase::Paused && in_flight.iter().all(|host| host.asked) && !driven);
    StatusDocument {
        now_ms,
        rollout: rollout.id.to_string(),
        plan: kernel.plan_id.to_string(),
        state: rollout.phase,
        since_ms: rollout.since_ms,
        headline: headline(kernel, &done_text(done, upgraded, total), now_ms),
        epoch: rollout.epoch.to_string(),
        started_at_ms: rollout.started_at_ms,
        ended_at_ms: rollout.ended_at_ms,
        paused: rollout.pause.as_ref().map(|pause| PauseView {
            code: pause.code.clone(),
            text: pause.text.clone(),
            hint: pause.hint.clone(),
            by: pause.by.clone(),
            since_ms: pause.since_ms,
            remind_at_ms: pause.remind_at_ms,
            over_since_ms: pause.over_since_ms,
        }),
        legs: parts::legs(kernel),
        server: parts::servers(kernel, now_ms),
        groups: parts::groups(kernel, now_ms),
        waits: waits(kernel, &in_flight, now_ms),
        in_flight,
        failures: parts::failures(kernel),
        done,
        upgraded,
        total,
        estimate: estimate::estimate(kernel, now_ms),
        disturbances: rollout.disturbances.clone(),
        at_rest,
        exit_code: exit_code(&outcome),
    }
}

fn stuck(kernel: &Kernel) -> bool {
    kernel
        .legs()
        .iter()
        .any(|leg| leg.phase == LegPhase::NeedsOperator)
}

/// The client leg that is shown for a host: the one under way, or else the last.
pub(crate) fn client_legs(kernel: &Kernel) -> Vec<LegId> {
    kernel
        .legs()
        .iter()
        .map(|leg| leg.leg.clone())
        .filter(|leg| kernel.leg_target(leg).is_some())
        .collect()
}

/// Hosts over all client legs. What the plan leaves alone is not counted.
#[derive(Default)]
struct Progress {
    done: u32,
    upgraded: u32,
    total: u32,
}

fn progress(kernel: &Kernel) -> Progress {
    let mut all = Progress::default();
    for leg in client_legs(kernel) {
        for (host, row) in kernel.hosts.get(&leg).into_iter().flatten() {
            if kernel.plan.entry_text(&leg, host).is_some() {
                all.total += 1;
                all.done += u32::from(row.phase.is_through());
                all.upgraded += u32::from(row.made_it());
            }
        }
    }
    all
}

/// Done is who was upgraded; where others ended, too, both are said.
fn done_text(done: u32, upgraded: u32, total: u32) -> String {
    if done == upgraded {
        return format!("{done} of {total} hosts done");
    }
    format!("{done} of {total} hosts ended, {upgraded} upgraded")
}

fn headline(kernel: &Kernel, hosts: &str, now_ms: u64) -> String {
    if kernel.rollout.pause.is_some() {
        // The pause stands below, with its hint.
        return format!("{hosts}; a person is waited for");
    }
    match kernel.rollout_duty(now_ms) {
        Some(duty) => format!("{hosts}; {}", duty.text),
        None => format!("{hosts}; ended"),
    }
}

/// Why hosts that did not begin are waiting, most hosts first. Whoever has an order is shown with that and not once more here.
fn waits(kernel: &Kernel, in_flight: &[InFlight], now_ms: u64) -> Vec<Wait> {
    let busy: BTreeSet<&str> = in_flight.iter().map(|host| host.host.as_str()).collect();
    let mut found: BTreeMap<(&'static str, String, Owner), (u32, Vec<String>)> = BTreeMap::new();
    let moment = kernel.moment(now_ms);
    // A server leg has hosts of its own only once they have to follow its port.
    let shown = kernel
        .legs()
        .iter()
        .enumerate()
        .find(|(_, leg)| leg.phase != LegPhase::Settled)
        .filter(|(at, leg)| leg.hops.is_empty() || kernel.side(*at).is_some())
        .map(|(_, leg)| leg.leg.clone());
    // Each host waits once: in the leg under way, or, while the server is worked on, in the first client leg to come.
    let leg = shown.filter(|leg| !kernel.hosts[leg].is_empty()).or_else(|| {
        client_legs(kernel)
            .into_iter()
            .find(|leg| kernel.hosts[leg].values().any(|row| !row.phase.is_through()))
    });
    let Some(leg) = leg else { return Vec::new() };
    let waiting = kernel.hosts[&leg]
        .iter()
        .filter(|(host, row)| !row.phase.is_through() && !busy.contains(host.as_str()));
    for (host, _) in waiting {
        let host: &HostId = host;
        if let Some(duty) = kernel.host_duty_at(&leg, host, &moment) {
            let entry = found.entry((duty.code, duty.text, duty.owner)).or_default();
            entry.0 += 1;
            if entry.1.len() < NAMES {
                entry.1.push(kernel.name(host).to_owned());
            }
        }
    }
    let mut waits: Vec<Wait> = found
        .into_iter()
        .map(|((code, text, owner), (count, hosts))| Wait {
            code: code.to_owned(),
            text,
            owner: owner.as_str().to_owned(),
            count,
            hosts,
        })
        .collect();
    waits.sort_by_key(|wait| std::cmp::Reverse(wait.count));
    waits
}

/// The rollout's outcome in one word, as in the report.
pub(crate) fn outcome(kernel: &Kernel) -> String {
    let server = |phase: LegPhase| kernel.legs().iter().any(|leg| leg.phase == phase);
    let word = match kernel.phase() {
        RolloutPhase::Planned => "planned",
        RolloutPhase::Succeeded => "succeeded",
        RolloutPhase::FinishedWithExceptions => "finished_with_exceptions",
        RolloutPhase::FinishedWithLost => "finished_with_lost",
        RolloutPhase::Paused if server(LegPhase::Restored) => "server_restored",
        RolloutPhase::Paused if server(LegPhase::Refused) => "server_refused",
        RolloutPhase::Paused if server(LegPhase::NeedsOperator) => "server_needs_operator",
        RolloutPhase::Paused => "paused",
        RolloutPhase::Aborting => "aborting",
        RolloutPhase::Aborted => "aborted",
        RolloutPhase::RollingBack => "rolling_back",
        RolloutPhase::RolledBack => "rolled_back",
        RolloutPhase::Running | RolloutPhase::Checking => "running",
    };
    word.to_owned()
}

/// Exit status that goes with a report's outcome.
pub(crate) fn exit_code(outcome: &str) -> i32 {
    match outcome {
        "succeeded" => exit::OK,
        "finished_with_exceptions" | "finished_with_lost" => exit::EXCEPTIONS,
        "aborted" | "aborting" => exit::ABORTED,
        "rolled_back" | "rolling_back" => exit::ROLLED_BACK,
        "server_restored" | "server_refused" | "server_needs_operator" => exit::SERVER_NOT_UPGRADED,
        "paused" => exit::PAUSED,
        _ => exit::FAILED,
    }
}
