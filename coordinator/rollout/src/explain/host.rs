//! A host.

use super::choice::{self, Choice, force, free_slot, new_plan, pause, quoted, run, watch, work};
use super::{ExplainDocument, current_leg, document, then_of};
use crate::fleet::duration_text;
use crate::kernel::{Duty, HostPhase, HostRow, Kernel, LegPhase, Owner, RolloutPhase};
use crate::plan::{HostAction, PlanHost};
use fleet_common::ids::LegId;

pub(super) fn explain(kernel: &Kernel, planned: &PlanHost, now_ms: u64) -> ExplainDocument {
    let subject = format!("host:{}", planned.host);
    let Some((leg, row)) = leg_of(kernel, planned) else {
        let mut answer = document(
            now_ms,
            subject,
            planned.name.clone(),
            "not_in_a_leg".to_owned(),
            kernel.rollout().created_at_ms,
            None,
        );
        answer.reason = "the plan has nothing to do on it".to_owned();
        if let HostAction::Refuse { reason, hint, .. } = &planned.action {
            answer.reason = format!("the plan leaves it out: {reason}");
            answer.you_can = vec![work(hint.clone()), new_plan("after that: a plan with it")];
        }
        return answer;
    };
    let duty = kernel.host_duty(&leg, &planned.host, now_ms);
    let mut answer = document(
        now_ms,
        subject,
        planned.name.clone(),
        row.phase.as_str().to_owned(),
        row.since_ms,
        duty.clone(),
    );
    answer.reason = reason(planned, &leg, row);
    answer.rules = rules(kernel, planned, &leg, row, now_ms);
    answer.then = match &duty {
        Some(duty) if duty.code == "offline" => then_offline(kernel, &leg, duty),
        Some(duty) => then(kernel, row, duty, now_ms),
        None if row.is_awaited() && row.back_wanted.is_some() => {
            "when its agent returns it goes on, and then back to its old client".to_owned()
        }
        None if row.is_awaited() => "it goes on by itself when its agent returns".to_owned(),
        None if row.phase == HostPhase::Lost => {
            "nothing more is asked of it: whether its client works is to be seen on the host".to_owned()
        }
        None => String::new(),
    };
    answer.you_can = match &duty {
        Some(duty) => open_choices(kernel, planned, row, duty),
        None => final_choices(kernel, planned, row),
    };
    answer
}

/// The leg in which it matters now: the survey, the server leg that its client follows, or a client leg.
fn leg_of<'a>(kernel: &'a Kernel, planned: &PlanHost) -> Option<(LegId, &'a HostRow)> {
    let surveying = kernel
        .legs()
        .first()
        .filter(|leg| leg.phase == LegPhase::Running)
        .filter(|leg| {
            kernel
                .host(&leg.leg, &planned.host)
                .is_some_and(|row| !row.phase.is_final() || row.counts)
        })
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
    let leg = surveying.or(following).or_else(|| current_leg(kernel))?;
    let row = kernel.host(&leg, &planned.host)?;
    Some((leg, row))
}

fn reason(planned: &PlanHost, leg: &LegId, row: &HostRow) -> String {
    if let HostAction::Refuse { reason, .. } = &planned.action {
        return format!("the plan leaves it out: {reason}");
    }
    let group = &planned.group;
    let tried = if row.attempt > 1 {
        format!(", attempt {}", row.attempt)
    } else {
        String::new()
    };
    let place = format!("{leg}, group {group}{tried}");
    if let Some(why) = row
        .back_wanted
        .as_ref()
        .filter(|_| row.phase == HostPhase::Settling)
    {
        return format!("its new client is verified and works, and it is to go back: {why}; {place}");
    }
    if row.reason.is_empty() {
        return format!("{}; {place}", plain_reason(row.phase));
    }
    let step = if row.failed_step.is_empty() || row.reason.contains(&row.failed_step) {
        String::new()
    } else {
        format!("step {}: ", row.failed_step)
    };
    let code = if row.code.is_empty() || row.reason == row.code {
        String::new()
    } else {
        format!(" ({})", row.code)
    };
    format!("{step}{}{code}; {place}", row.reason)
}

/// What a state means where no more is known.
fn plain_reason(phase: HostPhase) -> &'static str {
    match phase {
        HostPhase::Waiting => "nothing was ordered yet",
        HostPhase::Preparing => "it is checked and the new client is downloaded; its old client runs on",
        HostPhase::Ready => "checked and downloaded; its old client runs until it gets a permit",
        HostPhase::Permitted => "it has a permit and did not say yet that it began",
        HostPhase::Switching => "its client is being replaced",
        HostPhase::Verifying => "the host says that its new client runs; the PMM Server must see that",
        HostPhase::Settling => "its new client is verified and works; its way back is kept for now",
        HostPhase::RollingBack => "its old client is being put back",
        HostPhase::Repointing => "its client is told the server's new address",
        HostPhase::Surveyed => "it is ready",
        HostPhase::Repointed => "its client uses the server's new port",
        HostPhase::Upgraded => "its new client is verified and kept",
        HostPhase::AlreadyCurrent => "it was on the target before",
        HostPhase::RolledBack => "its old client is back and verified",
        HostPhase::Failed => "it failed before anything was changed",
        HostPhase::Inconsistent => "neither its old nor its new client could be verified",
        HostPhase::Refused => "a rule keeps it out",
        HostPhase::Skipped => "it was left out",
        HostPhase::Cancelled => "the rollout was aborted before it began",
        HostPhase::Lost => "it was given a permit and has been silent since",
    }
}

fn rules(kernel: &Kernel, planned: &PlanHost, leg: &LegId, row: &HostRow, now_ms: u64) -> Vec<String> {
    let mut rules = Vec::new();
    if let Some(group) = kernel
        .plan
        .group(&planned.group)
        .filter(|_| kernel.group(leg, &planned.group).is_some())
        .filter(|_| kernel.holds_slot(leg, &planned.host) || row.phase == HostPhase::Ready)
    {
        let tally = kernel.tally(leg, group, now_ms);
        let own = if kernel.holds_slot(leg, &planned.host) {
            ", it holds one of them"
        } else {
            ""
        };
        let width = kernel.width(leg, group, &tally);
        let slots = if width < kernel.max_unavailable(leg, group) {
            format!("slots of this step of group {}'s ramp", group.name)
        } else {
            format!("slots of group {}", group.name)
        };
        rules.push(format!("{} of {width} {slots} are taken{own}", tally.slots));
    }
    if !planned.sets.is_empty() && !row.phase.is_through() {
        let sets: Vec<&str> = planned.sets.iter().map(String::as_str).collect();
        let together = kernel
            .plan
            .group(&planned.group)
            .map_or(1, |group| group.together);
        rules.push(format!(
            "at most {together} of {} without a working client at once",
            sets.join(", ")
        ));
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
    let legs = crate::progress::client_legs(kernel);
    rules.extend(
        legs.iter()
            .find_map(|leg| kernel.stays_behind_others(leg, &planned.host)),
    );
    if row.phase == HostPhase::Permitted && kernel.rollout().phase == RolloutPhase::Aborting {
        rules.push(
            "the abort calls its permit back; if it began before that reaches it, it finishes".to_owned(),
        );
    }
    if row.phase == HostPhase::Permitted
        && row.is_called_back()
        && kernel.rollout().phase != RolloutPhase::Aborting
    {
        rules.push(
            "it was held, which calls its permit back; if it began before that reaches it, it finishes"
                .to_owned(),
        );
    }
    // A survey has no groups, and what failed there counts for none.
    if let Some(group) = kernel.group(leg, &planned.group).filter(|_| row.counts) {
        let accepted = group.forgiven.contains(&planned.host);
        rules.push(if accepted {
            "it failed, and that was accepted: it does not count for the failure threshold".to_owned()
        } else {
            format!("it counts for the failure threshold of group {}", planned.group)
        });
    }
    if !kernel.is_connected(&planned.host) && !row.phase.is_final() {
        let since = kernel.away_since(&planned.host).map_or_else(
            || "its agent has not connected yet".to_owned(),
            |since| {
                let since = duration_text(now_ms.saturating_sub(since));
                format!("its agent has not been connected for {since}")
            },
        );
        rules.push(if row.phase.in_flight() {
            format!("{since}; what it does there goes on")
        } else {
            format!("{since}; a permit is only given to a connected host")
        });
    }
    rules
}

/// What silence leads to.
fn then(kernel: &Kernel, row: &HostRow, duty: &Duty, now_ms: u64) -> String {
    let own = match row.phase {
        HostPhase::Preparing => "without an answer it is asked again, and left out after the third time",
        HostPhase::Permitted | HostPhase::Switching | HostPhase::RollingBack => {
            "without a word by then it is lost and keeps its slot; it goes on by itself when it returns"
        }
        HostPhase::Repointing => {
            "without an answer it is asked again; after the third time a person is asked"
        }
        HostPhase::Verifying if row.inconclusive => {
            "you are reminded; nothing is done to the host, and it passes by itself when PMM shows it at work"
        }
        HostPhase::Verifying if kernel.is_unseen(row, now_ms) => {
            "unless the PMM Server is seen before that a person is asked; nothing is done to the host"
        }
        HostPhase::Verifying => "without fresh samples by then its old client is put back",
        HostPhase::Settling if row.rests() && row.back_wanted.is_some() && duty.owner == Owner::Operator => {
            "you are reminded; it does not go back before a person says so"
        }
        HostPhase::Settling if row.rests() && row.back_wanted.is_some() => return then_of(duty),
        HostPhase::Settling if row.rests() => {
            "it works meanwhile; what was saved for its way back is removed at the end, not before"
        }
        HostPhase::Settling => "without an answer it counts as upgraded, with a note",
        _ if duty.code == "held" => {
            "you are reminded; it does not begin before a person says so, and is left out when the other hosts of its leg have ended"
        }
        _ if duty.owner == Owner::Operator => "you are reminded; it does not begin before a person says so",
        _ if matches!(duty.code, "backup" | "asked_later") => "then it is asked again",
        _ if duty.code == "retry" => "then it is tried again",
        _ if duty.code == "window" && duty.next.is_none() => "then it may begin",
        _ if duty.code == "canary_soak" => "then it may begin",
        _ => return then_of(duty),
    };
    own.to_owned()
}

/// What comes of a host that stays away. Its own end is its return, and nobody knows when that is.
fn then_offline(kernel: &Kernel, leg: &LegId, duty: &Duty) -> String {
    if duty.next.is_some() {
        return format!("{}; it may begin once it is back", then_of(duty));
    }
    let mut legs = kernel.legs().iter().filter(|row| row.leg == *leg);
    if legs.any(|row| row.offline_until_ms == duty.deadline_ms) {
        "then it is left out of this rollout unless it is back".to_owned()
    } else {
        "then a person is asked unless it is back".to_owned()
    }
}

fn open_choices(kernel: &Kernel, planned: &PlanHost, row: &HostRow, duty: &Duty) -> Vec<Choice> {
    let name = quoted(&planned.name);
    let rollout = kernel.rollout();
    let begins = row.phase.before_permit();
    let skip = run(format!("skip {name}"), "it is left out of this rollout");
    match duty.code {
        "held" => {
            let mut choices = Vec::new();
            let hold = kernel.holds.get(&planned.host);
            if let Some(hold) = hold.filter(|hold| hold.operator.is_some()) {
                let does = if hold.host.is_some() {
                    "lifts the operator's hold; it stays held on the host"
                } else {
                    "it may begin at its turn"
                };
                choices.push(run(format!("host unhold {name}"), does));
            }
            if hold.is_some_and(|hold| hold.host.is_some()) {
                choices.push(work(format!(
                    "on {}: `pmm-upgrade-agent unhold`, because it is held there",
                    planned.name
                )));
            }
            choices.push(skip);
            return choices;
        }
        "approval" => {
            return vec![
                run(
                    format!("approve {}", quoted(planned.group.as_str())),
                    "its group may begin",
                ),
                skip,
            ];
        }
        "start" | "blocked" => return vec![run("explain", "what stands before `start`")],
        _ => {}
    }
    if rollout.phase == RolloutPhase::Aborting {
        let undecided = row.phase == HostPhase::Verifying && row.inconclusive;
        let mut choices = if undecided {
            choice::see_again()
                .into_iter()
                .chain([choice::accept(&planned.name)])
                .collect()
        } else {
            vec![watch()]
        };
        choices.push(force());
        return choices;
    }
    if let (true, RolloutPhase::Paused, Some(pause)) = (begins, rollout.phase, &rollout.pause) {
        let mut choices = choice::out_of(kernel, pause);
        choices.push(skip);
        return choices;
    }
    let away = || {
        work(format!(
            "on {}: see why its agent is away (`systemctl status pmm-upgrade-agent`)",
            planned.name
        ))
    };
    let take_back = || {
        run(
            format!("rollback host {name} --reason '...'"),
            "its old client is put back",
        )
    };
    if !begins {
        let mut choices = vec![watch()];
        if row.phase == HostPhase::Settling {
            if let (RolloutPhase::Paused, Some(pause), None) = (
                rollout.phase,
                &rollout.pause,
                row.back_wanted.as_ref().filter(|_| duty.owner != Owner::Operator),
            ) {
                choices = choice::out_of(kernel, pause);
            }
            if row.rests() && row.back_wanted.is_none() {
                choices.push(take_back());
            }
            return choices;
        }
        if row.phase == HostPhase::Verifying && row.inconclusive {
            choices = vec![choice::accept(&planned.name), take_back()];
        }
        if !kernel.is_connected(&planned.host) {
            // A verdict is given without its agent.
            choices.retain(|choice| *choice != watch());
            choices.push(away());
        }
        match &rollout.pause {
            // What is asked of a person may be what this host waits for.
            Some(pause) if rollout.phase == RolloutPhase::Paused => {
                let ways = choice::out_of(kernel, pause);
                choices.extend(ways.into_iter().filter(|way| way.command != "abort"));
            }
            _ => choices.push(pause(kernel)),
        }
        choices.push(if row.phase == HostPhase::RollingBack {
            run(
                "abort",
                "ends the rollout; what goes back already, this host too, is finished",
            )
        } else {
            run(
                "abort --force",
                "ends the rollout; this host goes back unless it is verified by then",
            )
        });
        return choices;
    }
    let mut choices = Vec::new();
    if duty.code == "offline" {
        choices.push(away());
    }
    if duty.code == "slots" {
        let holders = kernel
            .plan
            .group(&planned.group)
            .into_iter()
            .flat_map(|group| &group.hosts);
        let idle = kernel.idle_holders();
        let idle = holders.filter(|host| idle.contains(host));
        choices.extend(idle.take(3).map(|host| free_slot(kernel.name(host))));
    }
    if duty.code == "earlier_group" {
        choices.push(run(
            format!("explain {}", quoted(planned.group.as_str())),
            "what its group waits for",
        ));
    }
    choices.push(run(
        format!("host hold {name}"),
        "it does not begin before `host unhold`",
    ));
    choices.push(skip);
    choices
}

fn final_choices(kernel: &Kernel, planned: &PlanHost, row: &HostRow) -> Vec<Choice> {
    let name = quoted(&planned.name);
    if let HostAction::Refuse { hint, .. } = &planned.action {
        return vec![work(hint.clone()), new_plan("after that: a plan with it")];
    }
    let retry = |does: &str| run(format!("retry {name}"), does);
    let bundle = run(
        format!("host collect-bundle {name}"),
        "its agent writes what is needed to find the fault",
    );
    let aborted = kernel.rollout().abort.is_some();
    let mut choices = match row.phase {
        HostPhase::RolledBack if row.taken_back => vec![retry("it is tried again after all")],
        HostPhase::RolledBack => vec![
            bundle,
            retry("after the repair: a new attempt; its old client works meanwhile"),
        ],
        HostPhase::Failed | HostPhase::Refused => {
            vec![
                bundle,
                retry("after the repair: a new attempt; nothing was changed so far"),
            ]
        }
        HostPhase::Lost if row.is_awaited() => vec![choice::bring_back(&planned.name)],
        HostPhase::Inconsistent | HostPhase::Lost => vec![
            work(format!(
                "on {}: look at its client (`pmm-admin status`); it may be blind",
                planned.name
            )),
            bundle,
            retry("after the repair: a new attempt"),
        ],
        HostPhase::Skipped => vec![retry("it is tried after all")],
        HostPhase::Cancelled => vec![new_plan("a new plan starts from what is there now")],
        _ => Vec::new(),
    };
    if aborted {
        choices.retain(|choice| !choice.command.starts_with("retry"));
        if !choices.is_empty() && row.phase != HostPhase::Cancelled {
            choices.push(new_plan("the rollout was aborted: a new plan tries it again"));
        }
    }
    if kernel.holds_any_slot(&planned.host) {
        choices.push(free_slot(&planned.name));
    }
    choices
}
