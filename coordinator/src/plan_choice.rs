//! Which of several plans is kept, which may begin, and whom it leaves out. Store and kernel say how things are; here that becomes an answer.

use crate::clock;
use crate::problem::Problem;
use crate::store::{PlanRow, Startable};
use fleet_common::ids::PlanId;
use rollout::kernel::Kernel;
use rollout::plan::Plan;

/// The plan of a rollout that may begin.
pub fn to_start(wanted: &str, found: Startable) -> Result<PlanRow, Problem> {
    // The audit knows, unless somebody shortened it.
    let by = |what: &str, who: String, at_ms: u64| {
        if who.is_empty() {
            String::new()
        } else {
            format!("{what} by {who} at {}", clock::rfc3339(at_ms))
        }
    };
    Err(match found {
        Startable::Yes(row) => return Ok(*row),
        Startable::Unknown => no_plan(wanted),
        Startable::Replaced {
            plan,
            by: newest,
            who,
            at_ms,
        } => Problem::new(format!(
            "{plan} was replaced by {newest}{}",
            by(", which was made", who, at_ms)
        ))
        .hint(format!(
            "only the newest plan can be started: `pmm-coordinator plan diff {plan} {newest}` says what it does other; then `start {newest}`, or make a new plan"
        )),
        Startable::Started { plan, who, at_ms } => {
            Problem::new(format!("{plan} was started before{}", by("", who, at_ms))).hint(
                "`pmm-coordinator status` shows its rollout; `retry` tries again what failed; a new plan starts from what is there now",
            )
        }
    })
}

/// There is no plan of this id; without one, none at all.
pub fn no_plan(wanted: &str) -> Problem {
    let message = if wanted.is_empty() {
        "there is no plan yet".to_owned()
    } else {
        format!("there is no plan `{wanted}`")
    };
    Problem::new(message).hint("`pmm-coordinator plan -f fleet.toml` makes one")
}

/// Nothing was ever started; with the plan that can be, if there is one.
pub fn not_started(newest: Option<&PlanId>) -> Problem {
    match newest {
        Some(plan) => Problem::new(format!("no rollout was started yet; the newest plan is {plan}"))
            .hint("`pmm-coordinator plan show` prints it and what blocks it, if anything; then `pmm-coordinator start`"),
        None => Problem::new("there is no rollout yet")
            .hint("`pmm-coordinator plan -f fleet.toml`, then `pmm-coordinator start`"),
    }
}

/// A command to a rollout, and none is under way.
pub fn none_under_way() -> Problem {
    Problem::new("no rollout is under way").hint("`pmm-coordinator plan -f fleet.toml`, then `start`")
}

/// A plan that was made from what was the newest one, and came second.
pub fn not_kept() -> Problem {
    Problem::new("another plan was made at the same time, and this one was not kept")
        .hint("`pmm-coordinator plan show` prints the one that was kept; if yours is still wanted, make it again: it then follows that one")
}

/// A rollout is under way, and a plan should begin.
pub fn under_way(running: &PlanId, plan: &PlanRow) -> Problem {
    if plan.plan == *running {
        return Problem::new(format!("a rollout of {running} is under way already"))
            .hint("nothing is left to do: `pmm-coordinator watch` follows it");
    }
    let problem = Problem::new(format!("a rollout of {running} is under way; only one can be"));
    if plan.parent.as_ref() == Some(running) {
        problem.hint(format!(
            "`pmm-coordinator adopt {}` lets this plan, which follows it, take over; see `status`; `abort` ends the rollout",
            plan.plan
        ))
    } else {
        problem.hint("see `pmm-coordinator status`; a plan made now follows the running one and can be adopted; `abort` ends the rollout")
    }
}

/// The command that carries a plan out, if one does now: it waits for the rollout under way to adopt it, or it may begin one.
pub fn next(id: &PlanId, plan: &Plan, waits: bool, may_begin: bool) -> Option<String> {
    let blocked = !plan.blockers.is_empty() || !plan.unmatched.is_empty() || !plan.stranded.is_empty();
    if waits {
        Some(format!("adopt {id}"))
    } else {
        (may_begin && !blocked).then(|| format!("start {id}"))
    }
}

/// Nothing of this name is carried out.
pub fn not_explained(kernel: &Kernel, subject: &str) -> Problem {
    match rollout::explain::left_out(kernel, subject) {
        Some((text, hint)) => Problem::new(text).hint(hint),
        None => Problem::new(format!("the rollout knows no `{subject}`"))
            .hint("give `rollout`, `server`, a group's name, or a host's name or id"),
    }
}
