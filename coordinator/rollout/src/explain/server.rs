//! The PMM Server.

use super::choice::{self, abort, force, pause, run, work};
use super::{ExplainDocument, document, word};
use crate::fleet::duration_text;
use crate::kernel::{HostPhase, Kernel, LegPhase, LegRow, RolloutPhase};
use crate::names::some_of;
use crate::progress::hop_state;
use fleet_common::server::HopOutcome;

pub(super) fn explain(kernel: &Kernel, now_ms: u64) -> ExplainDocument {
    let legs: Vec<&LegRow> = kernel.legs().iter().filter(|leg| !leg.hops.is_empty()).collect();
    let name = kernel.plan.server.name.clone();
    let Some(leg) = legs
        .iter()
        .find(|leg| leg.phase != LegPhase::Settled)
        .or(legs.last())
    else {
        let mut answer = document(
            now_ms,
            "server".to_owned(),
            name,
            "already_current".to_owned(),
            kernel.rollout().created_at_ms,
            None,
        );
        answer.reason = format!("it ran {} when the plan was made", kernel.plan.server.from);
        return answer;
    };
    let mut answer = document(
        now_ms,
        "server".to_owned(),
        name,
        word(leg.phase),
        leg.since_ms,
        kernel.leg_duty(leg, now_ms),
    );
    let settled = leg.hops.iter().filter(|hop| hop_state(hop) == "settled").count();
    answer.reason = format!("{}: {settled} of {} hops settled", leg.leg, leg.hops.len());
    answer.rules.extend(following(kernel, leg));
    if leg.no_return_since_ms.is_some() {
        answer
            .rules
            .push("a client was let through on it: it does not go back any more".to_owned());
    }
    failed_hop(leg, &mut answer);
    match leg.phase {
        LegPhase::Restored | LegPhase::Refused | LegPhase::NeedsOperator => {
            answer
                .rules
                .push("no client switches before the server leg is settled".to_owned());
            answer.then = "you are reminded; nothing is tried before a person says so".to_owned();
            if let Some((at, position)) = kernel.waits_for_clients() {
                let hop = &kernel.legs()[at].hops[position];
                answer
                    .waits_for
                    .insert(0, format!("a first client that delivers to {} again", hop.to));
            }
            answer.you_can.extend(choice::server(kernel));
            answer.you_can.push(abort());
        }
        LegPhase::Running
            if kernel.rollout().phase == RolloutPhase::Paused && kernel.open_hop().is_none() =>
        {
            paused(kernel, &mut answer);
        }
        LegPhase::Waiting | LegPhase::Running if !kernel.hop_waits_for().is_empty() => {
            answer.rules.push(super::rollout::LATE.to_owned());
            answer.you_can.extend([pause(kernel), abort()]);
        }
        LegPhase::Running => {
            answer.then =
                "without a word from the driver by then it stops here and a person is asked".to_owned();
            answer.rules.extend(step_end(leg, now_ms));
            answer.rules.push(
                "each hop starts from its own restore point and goes back to it when it fails".to_owned(),
            );
            answer
                .you_can
                .push(if kernel.rollout().phase == RolloutPhase::Paused {
                    run("resume", "the next hop begins when this one is settled")
                } else {
                    run("pause", "this hop finishes, the next one does not begin")
                });
            answer.you_can.push(run(
                "abort --force",
                "stops at the next safe point and goes back to where this hop started",
            ));
        }
        LegPhase::Waiting if kernel.rollout().phase == RolloutPhase::Paused => paused(kernel, &mut answer),
        LegPhase::Waiting => {
            answer.you_can.extend([pause(kernel), abort()]);
        }
        LegPhase::Settled | LegPhase::Cancelled => {}
    }
    if kernel.rollout().phase == RolloutPhase::Aborting && !answer.you_can.is_empty() {
        answer.you_can = vec![choice::watch(), force()];
    }
    answer
}

/// When the driver itself gives its step up; what is left until the hop counts as stuck is for its way back.
fn step_end(leg: &LegRow, now_ms: u64) -> Option<String> {
    let hop = leg.hops.iter().find(|hop| hop.order.is_some())?;
    let step = hop.steps.last().filter(|step| step.took_ms.is_none())?;
    let left = step.deadline_ms.checked_sub(now_ms)?;
    Some(format!(
        "the driver gives step {} up in {} and says so; until the hop counts as stuck there is time for that",
        step.step,
        duration_text(left)
    ))
}

fn paused(kernel: &Kernel, answer: &mut ExplainDocument) {
    if let Some(pause) = &kernel.rollout().pause {
        answer.then = "you are reminded; no hop begins before a person says so".to_owned();
        answer.you_can.extend(choice::out_of(kernel, pause));
    }
}

fn failed_hop(leg: &LegRow, answer: &mut ExplainDocument) {
    let failed = leg
        .hops
        .iter()
        .filter_map(|hop| hop.result.as_ref())
        .find(|result| result.outcome != HopOutcome::Settled);
    if let Some(result) = failed {
        answer.reason = format!("{} in step {}: {}", result.code, result.step, result.message);
        answer.you_can.extend(result.hints.iter().map(work));
    }
    for hop in &leg.hops {
        let left = hop.result.iter().flat_map(|result| &result.leftovers);
        answer
            .you_can
            .extend(left.map(|text| work(format!("look at what the hop to {} left undone: {text}", hop.to))));
    }
}

/// How far the clients that address the container are.
fn following(kernel: &Kernel, leg: &LegRow) -> Option<String> {
    let rows = kernel.hosts.get(&leg.leg).filter(|rows| !rows.is_empty())?;
    let open: Vec<&str> = rows
        .iter()
        .filter(|(_, row)| row.phase != HostPhase::Repointed)
        .map(|(host, _)| kernel.name(host))
        .collect();
    let still = if open.is_empty() {
        String::new()
    } else {
        format!("; not yet: {}", some_of(open.iter().copied()))
    };
    Some(format!(
        "{} of {} clients that address its container follow its new port{still}",
        rows.len() - open.len(),
        rows.len()
    ))
}
