//! Why a host, a group, the server or the rollout is where it is, and what happens next.

use crate::kernel::{
    Duty, GroupPhase, GroupRow, HostPhase, HostRow, Kernel, LegPhase, LegRow, Owner, RolloutPhase, Tally,
};
use crate::plan::{HostAction, PlanGroup, PlanHost};
use crate::progress::{client_legs, failure_hint, outcome};
use fleet_common::ids::{GroupName, LegId};
use serde::{Deserialize, Serialize};

/// The answer of `explain`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExplainDocument {
    /// `rollout`, `server`, `group:<name>` or `host:<id>`; the same as in events, so that their last ones can be added.
    pub subject: String,
    /// Name for people.
    pub name: String,
    /// State.
    pub state: String,
    /// Since when.
    pub since_ms: u64,
    /// Who must act: `agent`, `coordinator`, `server_driver`, `pmm_server`, `operator`, `nobody`.
    pub owner: String,
    /// Why it is in this state.
    pub reason: String,
    /// What it waits for; empty when final.
    pub waits_for: Vec<String>,
    /// Rules and limits that bind now.
    pub rules: Vec<String>,
    /// When silence ends the state.
    pub deadline_ms: Option<u64>,
    /// When a person is reminded.
    pub reminder_ms: Option<u64>,
    /// What happens after that.
    pub then: String,
    /// What the operator can do.
    pub you_can: Vec<String>,
}

/// Explains `rollout`, `server`, a group's name, or a host's id or name. `None` when there is no such thing in the plan.
pub fn explain(kernel: &Kernel, subject: &str, now_ms: u64) -> Option<ExplainDocument> {
    match subject {
        "rollout" | "" => return Some(rollout(kernel, now_ms)),
        "server" => return Some(server(kernel, now_ms)),
        _ => {}
    }
    if let Some(group) = kernel
        .plan
        .group(&GroupName::new(subject.strip_prefix("group:").unwrap_or(subject)))
    {
        return group_document(kernel, group, now_ms);
    }
    let planned = kernel
        .plan
        .find_host(subject.strip_prefix("host:").unwrap_or(subject))?;
    Some(host(kernel, planned, now_ms))
}

fn word<T: Serialize>(state: T) -> String {
    serde_json::to_value(state)
        .ok()
        .and_then(|value| value.as_str().map(str::to_owned))
        .unwrap_or_default()
}

fn document(
    subject: String,
    name: String,
    state: String,
    since_ms: u64,
    duty: Option<Duty>,
) -> ExplainDocument {
    ExplainDocument {
        subject,
        name,
        state,
        since_ms,
        owner: duty
            .as_ref()
            .map_or("nobody", |duty| duty.owner.as_str())
            .to_owned(),
        reason: String::new(),
        deadline_ms: duty.as_ref().and_then(|duty| duty.deadline_ms),
        reminder_ms: duty.as_ref().and_then(|duty| duty.reminder_ms),
        waits_for: duty.map(|duty| duty.text).into_iter().collect(),
        rules: Vec::new(),
        then: String::new(),
        you_can: Vec::new(),
    }
}

fn strings(texts: &[&str]) -> Vec<String> {
    texts.iter().map(|text| (*text).to_owned()).collect()
}

fn rollout(kernel: &Kernel, now_ms: u64) -> ExplainDocument {
    let row = kernel.rollout();
    let mut answer = document(
        "rollout".to_owned(),
        row.id.to_string(),
        outcome(kernel),
        row.since_ms,
        kernel.rollout_duty(now_ms),
    );
    match row.phase {
        RolloutPhase::Planned => {
            answer.reason = "the plan is stored and nothing was started".to_owned();
            answer.rules.extend(
                kernel
                    .plan
                    .blockers
                    .iter()
                    .map(|finding| format!("blocked by {}: {}", finding.check, finding.message)),
            );
            answer.rules.extend(
                kernel
                    .plan
                    .unmatched
                    .iter()
                    .map(|client| format!("PMM client `{}` has no agent of ours", client.name)),
            );
            answer.you_can = strings(&["plan show", "start"]);
        }
        RolloutPhase::Paused => {
            if let Some(pause) = &row.pause {
                answer.reason = format!("paused by {}: {}", pause.by, pause.text);
                answer.then = "nothing begins before a person says so; what is under way goes on".to_owned();
                answer.you_can = vec![pause.hint.clone()];
            }
        }
        RolloutPhase::Running => {
            answer.reason = kernel
                .legs()
                .iter()
                .find(|leg| leg.phase == LegPhase::Running)
                .map_or_else(String::new, |leg| format!("leg {} is under way", leg.leg));
            answer.rules = strings(&["a leg begins when all earlier ones are settled"]);
            answer.you_can = strings(&["pause", "abort"]);
        }
        RolloutPhase::Checking => {
            answer.reason = "every leg is settled; the PMM Server is asked for the three checks".to_owned();
            answer.then = "at the deadline the rollout ends with what the checks say then".to_owned();
        }
        RolloutPhase::RollingBack => {
            answer.reason = row.going_back.as_ref().map_or_else(String::new, |back| {
                format!("its clients are taken back by {}: {}", back.by, back.reason)
            });
            answer.rules =
                strings(&["groups go back in reverse, each with at most max_unavailable hosts at once"]);
            answer.then = "it ends when every host that can is back".to_owned();
            answer.you_can = strings(&["abort (those that did not go back yet stay upgraded)"]);
        }
        RolloutPhase::Aborting => {
            answer.reason = row.abort.as_ref().map_or_else(String::new, |abort| {
                format!("aborted by {}: {}", abort.by, abort.reason)
            });
            answer.then = "it is aborted when nothing is under way any more".to_owned();
            answer.you_can = strings(&["abort --force"]);
        }
        _ => {
            answer.reason = "it has ended".to_owned();
            answer.you_can = strings(&["report"]);
        }
    }
    answer
}

fn server(kernel: &Kernel, now_ms: u64) -> ExplainDocument {
    let legs: Vec<&LegRow> = kernel.legs().iter().filter(|leg| !leg.hops.is_empty()).collect();
    let Some(leg) = legs
        .iter()
        .find(|leg| leg.phase != LegPhase::Settled)
        .or(legs.last())
    else {
        let mut answer = document(
            "server".to_owned(),
            kernel.plan.server.name.clone(),
            "already_current".to_owned(),
            kernel.rollout().since_ms,
            None,
        );
        answer.reason = format!("it ran {} when the plan was made", kernel.plan.server.from);
        return answer;
    };
    let mut answer = document(
        "server".to_owned(),
        kernel.plan.server.name.clone(),
        word(leg.phase),
        leg.since_ms,
        kernel.leg_duty(leg, now_ms),
    );
    let settled = leg
        .hops
        .iter()
        .filter(|hop| crate::progress::hop_state(hop) == "settled")
        .count();
    answer.reason = format!("{}: {settled} of {} hops settled", leg.leg, leg.hops.len());
    answer.rules.extend(following(kernel, leg));
    if let Some(result) = leg
        .hops
        .iter()
        .filter_map(|hop| hop.result.as_ref())
        .find(|result| result.outcome != fleet_common::server::HopOutcome::Settled)
    {
        answer.reason = format!("{} in step {}: {}", result.code, result.step, result.message);
        answer.you_can.extend(result.hints.iter().cloned());
    }
    for hop in &leg.hops {
        let left = hop.result.iter().flat_map(|result| &result.leftovers);
        answer
            .you_can
            .extend(left.map(|text| format!("look at what the hop to {} left undone: {text}", hop.to)));
    }
    match leg.phase {
        LegPhase::Restored | LegPhase::Refused | LegPhase::NeedsOperator => {
            answer
                .rules
                .extend(strings(&["no client switches before the server leg is settled"]));
            if let Some((at, position)) = kernel.waits_for_clients() {
                let hop = &kernel.legs()[at].hops[position];
                answer
                    .waits_for
                    .insert(0, format!("a first client that delivers to {} again", hop.to));
                answer.then = "nothing is done again: `retry --server` only waits and looks again, as long as a fleet of this size may take".to_owned();
                answer.you_can.push("resume --accept-server".to_owned());
            }
            answer.you_can.extend(strings(&["retry --server", "abort"]));
        }
        LegPhase::Running => {
            answer.then = "silence past the deadline stops here and asks a person".to_owned();
            answer.rules.extend(strings(&[
                "each hop starts from its own restore point and goes back to it when it fails",
            ]));
            answer.you_can.extend(strings(&[
                "pause (before the next hop)",
                "abort --force (back to where this hop started)",
            ]));
        }
        _ => {}
    }
    answer
}

/// How far the clients that address the container are.
fn following(kernel: &Kernel, leg: &LegRow) -> Option<String> {
    let rows = kernel.hosts.get(&leg.leg).filter(|rows| !rows.is_empty())?;
    let done = rows
        .values()
        .filter(|row| row.phase == HostPhase::Repointed)
        .count();
    let open: Vec<&str> = rows
        .iter()
        .filter(|(_, row)| row.phase != HostPhase::Repointed)
        .map(|(host, _)| kernel.name(host))
        .take(5)
        .collect();
    let still = if open.is_empty() {
        String::new()
    } else {
        format!("; not yet: {}", open.join(", "))
    };
    Some(format!(
        "{done} of {} clients that address its container follow its new port{still}",
        rows.len()
    ))
}

/// The leg that matters now for hosts: the one under way, or the first to come, or the last.
fn current_leg(kernel: &Kernel) -> Option<LegId> {
    let legs = client_legs(kernel);
    let open = |leg: &&LegId| {
        kernel
            .legs()
            .iter()
            .any(|row| row.leg == **leg && row.phase != LegPhase::Settled)
    };
    legs.iter().find(open).or(legs.last()).cloned()
}

fn group_document(kernel: &Kernel, group: &PlanGroup, now_ms: u64) -> Option<ExplainDocument> {
    let leg = current_leg(kernel)?;
    let row = kernel.group(&leg, &group.name)?;
    let tally = kernel.tally(&leg, group, now_ms);
    let duty = kernel.group_duty(&leg, group, now_ms);
    let mut answer = document(
        format!("group:{}", group.name),
        group.name.to_string(),
        word(row.phase),
        row.since_ms,
        duty,
    );
    answer.reason = format!(
        "{leg}: {} upgraded, {} under way, {} to begin, {} held or away",
        tally.upgraded, tally.in_flight, tally.to_begin, tally.left_behind
    );
    answer.rules = vec![
        format!(
            "{} of {} slots taken",
            tally.slots,
            kernel.width(&leg, group, &tally)
        ),
        format!(
            "{} of {} tolerated failures",
            tally.failures,
            kernel.failure_threshold(&leg, group)
        ),
    ];
    answer
        .rules
        .extend(gates(kernel, &leg, group, row, &tally, now_ms));
    match row.phase {
        GroupPhase::Canary => answer.rules.push(format!(
            "{} of {} canaries succeeded; the others wait for them",
            tally.upgraded, group.canaries
        )),
        GroupPhase::Gated if group.approval && row.approved_by.is_none() => {
            answer.you_can = vec![format!("approve {}", group.name)];
        }
        GroupPhase::Breached => {
            answer.you_can = strings(&["retry", "resume (accepts the failures)", "abort"])
        }
        _ => {}
    }
    Some(answer)
}

/// What else binds a group now: windows, the step of its ramp, a limit, a deadline.
fn gates(
    kernel: &Kernel,
    leg: &LegId,
    group: &PlanGroup,
    row: &GroupRow,
    tally: &Tally,
    now_ms: u64,
) -> Vec<String> {
    let mut rules = Vec::new();
    rules.extend(kernel.door(group, now_ms).text(now_ms));
    let (width, full) = (
        kernel.width(leg, group, tally),
        kernel.max_unavailable(leg, group),
    );
    if width < full {
        rules.push(format!(
            "this step of its ramp lets {width} go at once; {full} follow"
        ));
    }
    if full < group.max_unavailable {
        let planned = group.max_unavailable;
        rules.push(format!("max_unavailable was limited from {planned} to {full}"));
    }
    let tolerated = kernel.failure_threshold(leg, group);
    if tolerated < group.failure_threshold {
        let planned = group.failure_threshold;
        rules.push(format!(
            "failure_threshold was limited from {planned} to {tolerated}"
        ));
    }
    if let Some(tolerated) = kernel.plan.failure_threshold {
        let failures = kernel.failures(leg, now_ms);
        rules.push(format!(
            "{failures} of {tolerated} tolerated failures over all groups"
        ));
    }
    if let Some(deadline) = row.deadline_ms.filter(|_| row.phase != GroupPhase::Done) {
        let left = crate::fleet::duration_text(deadline.saturating_sub(now_ms));
        rules.push(format!("a person is asked if it is not done in {left}"));
    }
    rules
}

fn host(kernel: &Kernel, planned: &PlanHost, now_ms: u64) -> ExplainDocument {
    let subject = format!("host:{}", planned.host);
    let surveying = kernel
        .legs()
        .first()
        .filter(|leg| leg.phase != LegPhase::Settled && kernel.host(&leg.leg, &planned.host).is_some());
    let surveying = surveying
        .filter(|leg| leg.phase == LegPhase::Running)
        .map(|leg| leg.leg.clone());
    let following = kernel
        .legs()
        .iter()
        .enumerate()
        .find(|(at, leg)| {
            leg.phase != LegPhase::Settled && !leg.hops.is_empty() && kernel.side(*at).is_some()
        })
        .map(|(_, leg)| leg.leg.clone())
        .filter(|leg| {
            kernel
                .host(leg, &planned.host)
                .is_some_and(|row| row.phase != HostPhase::Repointed)
        });
    let found = surveying
        .or(following)
        .or_else(|| current_leg(kernel))
        .and_then(|leg| Some((leg.clone(), kernel.host(&leg, &planned.host)?)));
    let Some((leg, row)) = found else {
        let mut answer = document(
            subject,
            planned.name.clone(),
            "not_in_a_leg".to_owned(),
            kernel.rollout().since_ms,
            None,
        );
        if let HostAction::Refuse { reason, hint, .. } = &planned.action {
            answer.reason.clone_from(reason);
            answer.you_can = vec![hint.clone()];
        }
        return answer;
    };
    let duty = kernel.host_duty(&leg, &planned.host, now_ms);
    let binding = duty.as_ref().map(|duty| (duty.owner, duty.code));
    let mut answer = document(
        subject,
        planned.name.clone(),
        row.phase.as_str().to_owned(),
        row.since_ms,
        duty,
    );
    answer.reason = match (&planned.action, row.reason.is_empty()) {
        (HostAction::Refuse { reason, .. }, _) => format!("the plan leaves it out: {reason}"),
        (_, false) => format!("{leg}: {}", row.reason),
        _ => format!("{leg}, group {}, attempt {}", planned.group, row.attempt),
    };
    if let HostAction::Refuse { hint, .. } = &planned.action {
        answer.you_can = vec![hint.clone()];
    }
    answer.rules = rules(kernel, planned, &leg, row, now_ms);
    answer.then = then(row.phase).to_owned();
    answer.you_can.extend(choices(row, binding, planned));
    answer
}

fn rules(kernel: &Kernel, planned: &PlanHost, leg: &LegId, row: &HostRow, now_ms: u64) -> Vec<String> {
    let mut rules = Vec::new();
    if row.slot {
        rules.push(format!("it holds a slot of group {}", planned.group));
    }
    if let Some(group) = kernel
        .plan
        .group(&planned.group)
        .filter(|_| matches!(row.phase, HostPhase::Ready | HostPhase::Waiting))
    {
        let tally = kernel.tally(leg, group, now_ms);
        rules.push(format!(
            "{} of {} slots of its group are taken",
            tally.slots,
            kernel.width(leg, group, &tally)
        ));
        let beside: Vec<&str> = planned.sets.iter().map(String::as_str).collect();
        if !beside.is_empty() {
            rules.push(format!(
                "it does not go together with others of {}",
                beside.join(", ")
            ));
        }
    }
    if let Some(repoint) = &planned.repoint {
        let state = if kernel.followed(&planned.host) {
            "may begin"
        } else {
            "does not begin before that"
        };
        rules.push(format!(
            "its client addresses the server's container and is moved from {} to {} when the server is PMM 3; it {state}",
            repoint.from, repoint.to
        ));
    }
    if row.counts {
        rules.push("it counts for the failure threshold of its group".to_owned());
    }
    if !kernel.is_connected(&planned.host) && !row.phase.is_final() {
        rules.push("its agent is not connected; a permit is only given to a connected host".to_owned());
    }
    rules
}

/// What silence leads to.
fn then(phase: HostPhase) -> &'static str {
    match phase {
        HostPhase::Preparing => "without an answer it is asked again, and left out after the third time",
        HostPhase::Permitted | HostPhase::Switching | HostPhase::RollingBack => {
            "silence past the deadline makes it lost; it goes on when it returns"
        }
        HostPhase::Repointing => {
            "without an answer it is asked again; after the third time a person is asked"
        }
        HostPhase::Verifying => "without fresh samples by the deadline the way back is ordered",
        HostPhase::Settling => {
            "what was saved for its way back is removed; without an answer it counts as upgraded, with a note"
        }
        HostPhase::Lost => "it goes on by itself when its agent returns",
        _ => "",
    }
}

fn choices(row: &HostRow, binding: Option<(Owner, &'static str)>, planned: &PlanHost) -> Vec<String> {
    let name = &planned.name;
    match (row.phase, binding) {
        (_, Some((Owner::Operator, "held"))) => vec![format!("host unhold {name}")],
        (_, Some((Owner::Operator, "approval"))) => vec![format!("approve {}", planned.group)],
        (_, Some((Owner::Operator, "start"))) => strings(&["start"]),
        (HostPhase::Verifying, _) if row.inconclusive => vec![
            format!("accept {name}"),
            format!("rollback host {name}"),
            "resume (looks again as long as before)".to_owned(),
        ],
        (HostPhase::Settling, _) if row.rests() => vec![format!("rollback host {name}")],
        (_, Some((Owner::Operator, _))) => strings(&["resume", "abort"]),
        (HostPhase::Waiting | HostPhase::Preparing | HostPhase::Ready, _) => {
            vec![format!("host hold {name}"), format!("skip {name}")]
        }
        (HostPhase::RolledBack, _) if row.taken_back => vec![format!("retry {name}")],
        (HostPhase::Skipped, _) => vec![format!("retry {name}")],
        (phase, _) => Some(failure_hint(phase, row.slot))
            .filter(|hint| !hint.is_empty() && row.counts)
            .map(str::to_owned)
            .into_iter()
            .collect(),
    }
}
