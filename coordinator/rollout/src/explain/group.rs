//! A group.

use super::choice::{self, Choice, abort, new_plan, pause, run, watch};
use super::{ExplainDocument, current_leg, document, word};
use crate::fleet::duration_text;
use crate::kernel::{GroupPhase, GroupRow, Kernel, Owner, RolloutPhase, Tally};
use crate::names::some_of;
use crate::plan::PlanGroup;
use fleet_common::ids::{HostId, LegId};

pub(super) fn explain(kernel: &Kernel, group: &PlanGroup, now_ms: u64) -> Option<ExplainDocument> {
    let leg = current_leg(kernel)?;
    let row = kernel.group(&leg, &group.name)?;
    let tally = kernel.tally(&leg, group, now_ms);
    let duty = kernel.group_duty(&leg, group, now_ms);
    let phase = kernel.shown_phase(&leg, group, row.phase);
    let going_back = match phase {
        GroupPhase::RolledBack => kernel.going_back(&leg, group),
        _ => 0,
    };
    let of_another = duty.as_ref().is_some_and(|duty| duty.next.is_some());
    let for_person = duty.as_ref().is_some_and(|duty| duty.owner == Owner::Operator);
    let mut answer = document(
        now_ms,
        format!("group:{}", group.name),
        group.name.to_string(),
        match going_back {
            0 => word(phase),
            _ => "rolling_back".to_owned(),
        },
        row.since_ms,
        duty,
    );
    answer.reason = match (phase, going_back) {
        (GroupPhase::RolledBack, 1..) => {
            format!("its hosts are being taken back; {}", counts(&leg, &tally))
        }
        (GroupPhase::Cancelled, _) if kernel.rollout().going_back.is_some() => {
            let why = "all clients are taken back, and none of its hosts begins any more";
            format!("{why}; {}", counts(&leg, &tally))
        }
        _ => reason(&leg, row, phase, group, &tally),
    };
    answer.rules = rules(kernel, &leg, row, group, &tally, now_ms);
    answer.then = if answer.code.is_empty() {
        String::new()
    } else if for_person {
        "you are reminded; no host of it begins before a person says so".to_owned()
    } else if answer.code == "window" && !of_another {
        "then its hosts may begin".to_owned()
    } else if answer.code == "canary_soak" {
        "then its other hosts may begin".to_owned()
    } else if answer.code == "offline" {
        "then a person is asked".to_owned()
    } else if row.phase == GroupPhase::Soaking {
        let next = match kernel.rollout().phase {
            RolloutPhase::Paused => "the next group begins only after `resume`",
            _ => "the next group may begin",
        };
        format!("then it is done and {next}")
    } else {
        answer.then
    };
    answer.you_can = choices(kernel, &leg, row.phase, group, &answer);
    Some(answer)
}

fn counts(leg: &LegId, tally: &Tally) -> String {
    let mut counts = format!(
        "{leg}: {} upgraded, {} under way, {} to begin, {} held or away",
        tally.upgraded,
        tally.in_flight,
        tally.to_begin,
        tally.left_behind - tally.later - tally.unheard - tally.retried
    );
    if tally.retried > 0 {
        counts.push_str(&format!(", {} to be tried again", tally.retried));
    }
    if tally.later > 0 {
        counts.push_str(&format!(", {} that can't be asked yet", tally.later));
    }
    if tally.unheard > 0 {
        counts.push_str(&format!(
            ", {} not connected since the coordinator started",
            tally.unheard
        ));
    }
    counts
}

fn reason(leg: &LegId, row: &GroupRow, phase: GroupPhase, group: &PlanGroup, tally: &Tally) -> String {
    let counts = counts(leg, tally);
    let why = match phase {
        GroupPhase::Pending => "its turn has not come",
        GroupPhase::Gated if !group.approval || row.approved_by.is_some() => {
            "its turn has come; its hosts may begin only in its window"
        }
        GroupPhase::Gated => "the fleet file wants a person's approval before it begins",
        GroupPhase::Canary => "the first hosts go alone; the others wait for them",
        GroupPhase::Ramping => "hosts are let through up to its width",
        GroupPhase::Draining => "no host is left to begin; those under way finish",
        GroupPhase::Soaking => {
            return format!(
                "every host is through, and it waits {} to see them work; {counts}",
                duration_text(group.soak_ms)
            );
        }
        GroupPhase::Breached => "more of its hosts failed than it tolerates",
        GroupPhase::Done => "every host of it has ended, or waits offline for the end of the leg",
        GroupPhase::Cancelled => "the rollout was aborted",
        GroupPhase::RolledBack => "its hosts were taken back",
    };
    format!("{why}; {counts}")
}

fn rules(
    kernel: &Kernel,
    leg: &LegId,
    row: &GroupRow,
    group: &PlanGroup,
    tally: &Tally,
    now_ms: u64,
) -> Vec<String> {
    let holders: Vec<String> = group
        .hosts
        .iter()
        .filter_map(|host| Some((host, kernel.holder(leg, host)?)))
        .map(|(host, row)| format!("{} ({})", kernel.name(host), row.phase.as_str().replace('_', " ")))
        .collect();
    let holders = if holders.is_empty() {
        String::new()
    } else {
        format!(": {}", some_of(holders.iter().map(String::as_str)))
    };
    let mut rules = vec![
        format!(
            "{} of {} slots taken{holders}",
            tally.slots,
            kernel.width(leg, group, tally)
        ),
        failures(
            tally.failures,
            kernel.failure_threshold(leg, group),
            may_stop(kernel, row.phase, tally),
        ),
    ];
    if row.phase == GroupPhase::Canary {
        rules.push(format!(
            "{} of {} canaries succeeded",
            tally.upgraded.min(group.canaries),
            group.canaries
        ));
    }
    if row.phase == GroupPhase::Breached {
        rules.extend(super::failed(kernel, leg, std::slice::from_ref(group)));
    }
    rules.extend(gates(kernel, leg, group, row, tally, now_ms));
    if let Some(by) = &row.approved_by {
        rules.push(format!("approved by {by}"));
    }
    rules
}

/// What else binds it now: the step of its ramp, a limit, a deadline.
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
        let verified = tally.upgraded.saturating_sub(group.canaries);
        let next = (verified..verified.saturating_add(width) + 1)
            .map(|verified| crate::kernel::ramp_width(&group.ramp, verified, full))
            .find(|next| *next != width);
        let then = match next {
            Some(next) if next < full => format!("then {next}, and {full} at the end"),
            _ => format!("then {full}"),
        };
        rules.push(format!("this step of its ramp lets {width} go at once; {then}"));
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
        let failures = kernel.failures();
        rules.push(format!(
            "over all groups {failures} failed; {tolerated} are tolerated"
        ));
    }
    if let Some(deadline) = row
        .deadline_ms
        .filter(|at| row.phase != GroupPhase::Done && *at > now_ms)
    {
        let left = duration_text(deadline.saturating_sub(now_ms));
        rules.push(format!("a person is asked if it is not done in {left}"));
    }
    rules
}

fn choices(
    kernel: &Kernel,
    leg: &LegId,
    phase: GroupPhase,
    group: &PlanGroup,
    answer: &ExplainDocument,
) -> Vec<Choice> {
    let rollout = kernel.rollout();
    if answer.code.is_empty() {
        return match phase {
            GroupPhase::Cancelled if !kernel.is_final() => vec![watch()],
            GroupPhase::Cancelled => vec![new_plan("a new plan starts from what is there now")],
            _ => Vec::new(),
        };
    }
    if let (RolloutPhase::Paused, Some(pause)) = (rollout.phase, &rollout.pause) {
        let mut choices = choice::out_of(kernel, pause);
        if answer.code == "approval" {
            choices.insert(0, approve(group));
        }
        return choices;
    }
    if rollout.phase == RolloutPhase::Planned {
        return vec![run("explain", "what stands before `start`")];
    }
    if rollout.phase == RolloutPhase::Aborting {
        return vec![watch(), choice::force()];
    }
    if answer.code == "offline" {
        let away = kernel.away(leg, group).into_iter().take(3);
        let skip = |host: HostId| {
            let command = format!("skip {}", choice::quoted(kernel.name(&host)));
            run(command, "it is left out, and not waited for any more")
        };
        return away.map(skip).chain([pause(kernel), abort()]).collect();
    }
    match phase {
        GroupPhase::Gated if answer.code == "approval" => vec![approve(group), abort()],
        GroupPhase::Pending if answer.code == "earlier_group" => {
            let earlier = kernel
                .plan
                .groups
                .iter()
                .take_while(|other| other.name != group.name)
                .find(|other| kernel.holds_up_others(leg, other));
            let mut choices: Vec<Choice> = earlier
                .map(|other| {
                    let command = format!("explain {}", choice::quoted(other.name.as_str()));
                    run(command, "what the group before it waits for")
                })
                .into_iter()
                .collect();
            choices.push(pause(kernel));
            choices
        }
        GroupPhase::Soaking => vec![
            run("pause", "the next group does not begin after the soak"),
            abort(),
        ],
        GroupPhase::Breached => vec![
            run("retry", "after the repair: the failed hosts are tried again"),
            run("resume", "the failures so far are accepted"),
            abort(),
        ],
        _ => vec![pause(kernel), abort()],
    }
}

fn approve(group: &PlanGroup) -> Choice {
    run(
        format!("approve {}", choice::quoted(group.name.as_str())),
        "its hosts may begin",
    )
}

/// Whether a failure can still stop it: one of its hosts may fail, and the rollout goes on.
fn may_stop(kernel: &Kernel, phase: GroupPhase, tally: &Tally) -> bool {
    let rollout = kernel.rollout();
    let closed = matches!(phase, GroupPhase::Cancelled | GroupPhase::RolledBack);
    let ends = kernel.is_final() || rollout.abort.is_some() || rollout.going_back.is_some();
    !closed && !ends && tally.in_flight + tally.to_begin + tally.left_behind > 0
}

/// How many failed, and how many more stop the group.
fn failures(failed: u32, tolerated: u32, may_stop: bool) -> String {
    let then = match (tolerated + 1).saturating_sub(failed) {
        1.. if !may_stop => return format!("{failed} failed, {tolerated} tolerated"),
        0 => "that is what stopped it".to_owned(),
        1 => "the next one stops it".to_owned(),
        more => format!("{more} more stop it"),
    };
    format!("{failed} failed, {tolerated} tolerated: {then}")
}
