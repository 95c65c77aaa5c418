//! The rollout.

use super::choice::{self, abort, force, out_of, pause, quoted, run, watch};
use super::{ExplainDocument, counted, document};
use crate::fleet::duration_text;
use crate::kernel::{GroupPhase, HostRow, Kernel, LegPhase, RolloutPhase};
use crate::names::some_of;
use crate::plan::PlanGroup;
use crate::progress::outcome;

/// Why a server leg that is due does not go on.
pub(super) const LATE: &str = "no hop begins while a host of an earlier leg is between two releases";

pub(super) fn explain(kernel: &Kernel, now_ms: u64) -> ExplainDocument {
    let row = kernel.rollout();
    let duty = kernel.rollout_duty(now_ms);
    let of_another = duty.as_ref().is_some_and(|duty| duty.next.is_some());
    let mut answer = document(
        now_ms,
        "rollout".to_owned(),
        row.id.to_string(),
        outcome(kernel),
        row.since_ms,
        duty,
    );
    match row.phase {
        RolloutPhase::Planned => planned(kernel, &mut answer),
        RolloutPhase::Paused => {
            if let Some(pause) = &row.pause {
                answer.reason = format!("paused by {}: {}", pause.by, pause.text);
                if let Some(over) = pause.over_since_ms {
                    let since = duration_text(now_ms.saturating_sub(over));
                    answer.reason = format!("{}; its cause has been gone for {since}", answer.reason);
                }
                if let Some(before) = &pause.before {
                    answer.reason =
                        format!("{}; before that by {}: {}", answer.reason, before.by, before.text);
                }
                if let Some(leg) = kernel.legs().iter().find(|leg| leg.phase == LegPhase::Running)
                    && pause.code == "threshold"
                {
                    let all = super::client_legs(kernel);
                    let over_all = kernel.rollout_breach_text().is_some();
                    let earlier = all.iter().take_while(|earlier| **earlier != leg.leg);
                    let legs = std::iter::once(&leg.leg).chain(earlier.filter(|_| over_all));
                    let failed = legs.flat_map(|leg| super::failed(kernel, leg, &kernel.plan.groups));
                    answer.rules.extend(failed.take(3));
                }
                answer.then =
                    "you are reminded; nothing begins before a person says so, what is under way goes on"
                        .to_owned();
                answer.rules.extend(hosts_under_way(kernel));
                answer.you_can = out_of(kernel, pause);
            }
        }
        RolloutPhase::Running => {
            answer.reason = under_way(kernel);
            answer
                .rules
                .push("a leg begins when all earlier ones are settled".to_owned());
            if !kernel.hop_waits_for().is_empty() {
                answer.rules.push(LATE.to_owned());
            }
            answer.rules.extend(hosts_under_way(kernel));
            match answer.reminder_ms {
                Some(_) => {
                    "you are reminded; nothing begins before a person says so".clone_into(&mut answer.then);
                }
                None if answer.code == "window" && !of_another => {
                    "then its hosts may begin".clone_into(&mut answer.then);
                }
                None => {}
            }
            answer.you_can = gated(kernel)
                .map(|name| run(format!("approve {}", quoted(&name)), "its hosts may begin"))
                .into_iter()
                .chain([pause(kernel), abort()])
                .collect();
        }
        RolloutPhase::Checking => {
            answer.reason = "every leg is settled; the PMM Server is asked for the three checks".to_owned();
            answer.rules.push(
                "all clients on the target, all services there, metrics and Query Analytics arriving"
                    .to_owned(),
            );
            answer.then = "then the rollout ends with what the checks say".to_owned();
            answer.you_can = vec![watch(), run("report", "what is missing, by name"), abort()];
        }
        RolloutPhase::RollingBack => {
            answer.reason = row.going_back.as_ref().map_or_else(String::new, |back| {
                format!("its clients are taken back by {}: {}", back.by, back.reason)
            });
            answer.rules.push(
                "groups go back in reverse, each with at most max_unavailable hosts at once".to_owned(),
            );
            answer.rules.extend(hosts_under_way(kernel));
            answer.then = format!("{}; it ends when every host that can is back", answer.then);
            answer.you_can = vec![
                watch(),
                run("abort", "those that did not go back yet stay upgraded"),
            ];
        }
        RolloutPhase::Aborting => {
            let forced = row.abort.as_ref().is_some_and(|abort| abort.force);
            answer.reason = row.abort.as_ref().map_or_else(String::new, |abort| {
                let how = if abort.force { " by force" } else { "" };
                format!("aborted{how} by {}: {}", abort.by, abort.reason)
            });
            answer.rules.extend(hosts_under_way(kernel));
            answer.then = format!(
                "{}; it is aborted when nothing is under way any more",
                answer.then
            );
            let undecided = kernel.undecided();
            answer.you_can = if undecided.is_empty() {
                vec![watch()]
            } else {
                "you are reminded; it is aborted when nothing is under way any more"
                    .clone_into(&mut answer.then);
                let names = undecided.iter().take(3).map(|host| kernel.name(host));
                choice::see_again()
                    .into_iter()
                    .chain(names.map(choice::accept))
                    .collect()
            };
            if !forced {
                answer.you_can.push(force());
            }
        }
        _ => {
            answer.reason = ended(kernel);
            answer.you_can = vec![run("report", "every host once, the server and the three checks")];
            if row.phase != RolloutPhase::Succeeded && row.phase != RolloutPhase::Aborted {
                answer
                    .you_can
                    .push(run("retry", "after the repair: what failed is tried again"));
                answer.you_can.extend(retry_left_out(kernel));
            }
            if row.phase != RolloutPhase::Succeeded {
                answer
                    .you_can
                    .push(choice::new_plan("a new plan starts from what is there now"));
            }
        }
    }
    answer
}

fn planned(kernel: &Kernel, answer: &mut ExplainDocument) {
    answer.reason = "the plan is stored and nothing was started".to_owned();
    if !kernel.plan.blockers.is_empty() {
        answer.reason = "the plan is stored; what the server's preflight found blocks its start".to_owned();
    }
    answer.then = if kernel.plan.blockers.is_empty() {
        "you are reminded; nothing begins before `start`".to_owned()
    } else {
        "you are reminded; this plan can't be started".to_owned()
    };
    answer.rules.extend(
        kernel
            .plan
            .blockers
            .iter()
            .map(|finding| format!("blocked by {}: {}", finding.check, finding.message)),
    );
    let names = kernel.plan.unmatched.iter().map(|client| &client.name);
    let names: Vec<&String> = names
        .chain(kernel.plan.stranded.iter().map(|client| &client.name))
        .collect();
    answer.rules.extend(
        names
            .iter()
            .map(|name| format!("PMM client `{name}` would stay behind")),
    );
    answer
        .you_can
        .push(run("plan show", "what would be done with which host"));
    if kernel.plan.blockers.is_empty() {
        let accept: String = names
            .iter()
            .map(|name| format!(" --accept-unmatched {}", quoted(name)))
            .collect();
        answer.you_can.push(run(format!("start{accept}"), "begins it"));
    } else {
        answer
            .you_can
            .push(choice::new_plan("after the repair: a plan that nothing blocks"));
    }
}

/// Hosts that were left out, where nothing failed that a `retry` without names would take.
fn retry_left_out(kernel: &Kernel) -> Option<choice::Choice> {
    if kernel.retries_unnamed() {
        return None;
    }
    let lost = |host| {
        let mut rows = kernel.hosts.values().filter_map(|rows| rows.get(host));
        rows.any(HostRow::is_awaited)
    };
    let hosts = kernel.plan.hosts.iter();
    let hosts = hosts.filter(|planned| kernel.retries(&planned.host) && !lost(&planned.host));
    let names: String = hosts
        .take(5)
        .map(|planned| format!(" {}", quoted(&planned.name)))
        .collect();
    (!names.is_empty()).then(|| run(format!("retry{names}"), "what did not go is tried after all"))
}

/// The leg under way and its group.
fn under_way(kernel: &Kernel) -> String {
    let Some(leg) = kernel.legs().iter().find(|leg| leg.phase == LegPhase::Running) else {
        if kernel.hop_waits_for().is_empty() {
            return "it was started and no leg is under way yet".to_owned();
        }
        return "the next server leg is due but for hosts of an earlier leg".to_owned();
    };
    let working = |phase: GroupPhase| {
        !matches!(
            phase,
            GroupPhase::Pending | GroupPhase::Done | GroupPhase::Cancelled
        )
    };
    let groups: Vec<String> = kernel
        .plan
        .groups
        .iter()
        .filter_map(|group| Some((group, kernel.group(&leg.leg, &group.name)?)))
        .filter(|(_, row)| working(row.phase))
        .map(|(group, row)| {
            format!(
                "group {} is {}",
                group.name,
                super::word(row.phase).replace('_', " ")
            )
        })
        .collect();
    if groups.is_empty() {
        format!("leg {} is under way", leg.leg)
    } else {
        format!("leg {} is under way: {}", leg.leg, groups.join(", "))
    }
}

/// The group that waits for approval.
fn gated(kernel: &Kernel) -> Option<String> {
    let leg = kernel.legs().iter().find(|leg| leg.phase == LegPhase::Running)?;
    let waits = |group: &&PlanGroup| {
        let row = kernel.group(&leg.leg, &group.name);
        row.is_some_and(|row| row.phase == GroupPhase::Gated && group.approval && row.approved_by.is_none())
    };
    kernel
        .plan
        .groups
        .iter()
        .find(waits)
        .map(|group| group.name.to_string())
}

fn hosts_under_way(kernel: &Kernel) -> Option<String> {
    let rows = kernel.hosts.values().flat_map(|rows| rows.iter());
    let names: Vec<&str> = rows
        .filter(|(_, row)| row.in_flight())
        .map(|(host, _)| kernel.name(host))
        .collect();
    (!names.is_empty()).then(|| format!("{} under way: {}", counted(names.len(), "host"), some_of(names)))
}

fn ended(kernel: &Kernel) -> String {
    let row = kernel.rollout();
    match row.phase {
        RolloutPhase::Succeeded => "every host is upgraded and all three checks hold".to_owned(),
        RolloutPhase::FinishedWithLost => {
            let mut rows = kernel.hosts.values().flat_map(|rows| rows.values());
            let then = if rows.any(HostRow::is_awaited) {
                "it goes on when that host returns"
            } else {
                "nothing more is asked of that host"
            };
            format!("it ended while at least one host is silent since its permit; {then}")
        }
        RolloutPhase::Aborted => row.abort.as_ref().map_or_else(
            || "it was aborted".to_owned(),
            |abort| format!("aborted by {}: {}", abort.by, abort.reason),
        ),
        _ => "it ended, and not every host is upgraded or not every check holds".to_owned(),
    }
}
