//! The report: every host of the plan once, the server, the three checks, and what the rollout went through.

use crate::kernel::{Disturbance, HopRow, HostPhase, HostRow, Kernel, LegPhase};
use crate::plan::{HostAction, PlanHost};
use crate::progress;
use fleet_common::codes;
use fleet_common::ids::LegId;
use fleet_common::server::HopOutcome;
use fleet_common::verification::Verification;
use serde::{Deserialize, Serialize};

/// The document behind `report --json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReportDocument {
    /// `planned`, `running`, `succeeded`, `finished_with_exceptions`, `finished_with_lost`, `paused`, `aborting`, `aborted`, `rolling_back`, `rolled_back`,
    /// `server_restored`,
    /// `server_refused`, `server_needs_operator`.
    pub outcome: String,
    /// Why, for people; empty when it succeeded.
    pub reason: String,
    /// When this report was taken.
    pub taken_at_ms: u64,
    /// The rollout.
    pub rollout: String,
    /// The plan.
    pub plan: String,
    /// When it was started.
    pub started_at_ms: Option<u64>,
    /// When it ended.
    pub ended_at_ms: Option<u64>,
    /// The PMM Server.
    pub server: ServerReport,
    /// Every host of the plan, once.
    pub hosts: Vec<HostReport>,
    /// PMM clients without our agent that were accepted.
    pub accepted_unmatched: Vec<String>,
    /// The three checks.
    pub verification: Verification,
    /// What the rollout went through.
    pub disturbances: Vec<Disturbance>,
}

/// The PMM Server's part.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServerReport {
    /// Name.
    pub name: String,
    /// Release before.
    pub from: String,
    /// Release now.
    pub to: String,
    /// Releases that were reached, in order.
    pub hops: Vec<String>,
    /// Names of the restore points, in order.
    pub restore_points: Vec<String>,
    /// Seconds that PMM did not serve its clients, over all hops.
    pub downtime_s: u64,
    /// `upgraded`, `already_current`, `not_started`, `running`, `restored`, `refused`, `needs_operator`.
    pub outcome: String,
    /// One of the stable codes; empty when upgraded.
    pub reason: String,
    /// What happened, for people.
    pub message: String,
    /// What the hops left undone without failing because of it, such as API keys that stay keys. A person should look at each.
    #[serde(default)]
    pub leftovers: Vec<String>,
}

/// One host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostReport {
    /// Host id.
    pub host: String,
    /// PMM node name.
    pub name: String,
    /// Group.
    pub group: String,
    /// Install method; empty if none.
    pub method: String,
    /// Release before; empty if unknown.
    pub from: String,
    /// Release now; empty if unknown.
    pub to: String,
    /// Each client leg.
    pub legs: Vec<HostLegReport>,
    /// How its client followed the server's port; `None` for hosts that come by a published one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub repoint: Option<RepointReport>,
    /// `upgraded`, `already_current`, `rolled_back`, `failed`, `inconsistent`, `refused`, `skipped`, `cancelled`, `lost`, `not_started`, or
    /// the state it is in while it is under way.
    pub outcome: String,
    /// Why; empty when upgraded.
    pub reason: String,
    /// Stable code; empty when upgraded.
    pub code: String,
    /// Seconds from the permit to the end, over all legs.
    pub took_s: u64,
}

/// A client that follows the server's port.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RepointReport {
    /// Address that the plan found.
    pub from: String,
    /// Address at PMM 3.
    pub to: String,
    /// `repointed`, `not_started`, `failed`, `refused`, `inconsistent`, `skipped`, `cancelled`, or the state it is in.
    pub outcome: String,
    /// Why; empty when it followed.
    pub reason: String,
    /// Attempts.
    pub attempts: u32,
}

/// One host in one leg.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostLegReport {
    /// The leg.
    pub leg: String,
    /// Release before; empty if unknown.
    pub from: String,
    /// Release wanted.
    pub to: String,
    /// As in [`HostReport::outcome`].
    pub outcome: String,
    /// Why.
    pub reason: String,
    /// Attempts that could begin: a permit that ran out before anything changed is none.
    pub attempts: u32,
    /// Seconds from the permit to the end.
    pub took_s: u64,
    /// Milliseconds without a connected client, as the host measured.
    pub client_gap_ms: u64,
}

impl ReportDocument {
    /// Exit status that goes with the outcome.
    pub fn exit_code(&self) -> i32 {
        crate::progress::exit_code(&self.outcome)
    }
}

/// The report as it stands now.
pub fn report(kernel: &Kernel, now_ms: u64) -> ReportDocument {
    let outcome = progress::outcome(kernel);
    let legs = progress::client_legs(kernel);
    ReportDocument {
        taken_at_ms: now_ms,
        reason: reason(kernel, &outcome),
        rollout: kernel.rollout.id.to_string(),
        plan: kernel.plan_id.to_string(),
        started_at_ms: kernel.rollout.started_at_ms,
        ended_at_ms: kernel.rollout.ended_at_ms,
        server: server(kernel),
        hosts: kernel
            .plan
            .hosts
            .iter()
            .skip(usize::from(kernel.breaks(crate::kernel::Mutant::ReportForgets)))
            .map(|planned| host(kernel, planned, &legs))
            .collect(),
        accepted_unmatched: kernel.rollout.accepted_unmatched.iter().cloned().collect(),
        verification: kernel.checks(),
        disturbances: kernel.rollout.disturbances.clone(),
        outcome,
    }
}

fn reason(kernel: &Kernel, outcome: &str) -> String {
    if let Some(pause) = &kernel.rollout.pause {
        return pause.text.clone();
    }
    if let Some(abort) = &kernel.rollout.abort {
        return format!("aborted by {}: {}", abort.by, abort.reason);
    }
    if let Some(back) = &kernel.rollout.going_back {
        return format!("its clients were taken back by {}: {}", back.by, back.reason);
    }
    match outcome {
        "finished_with_lost" => "at least one host has been silent since its permit".to_owned(),
        "finished_with_exceptions" => "not every host is upgraded, or not every check holds".to_owned(),
        _ => String::new(),
    }
}

fn server(kernel: &Kernel) -> ServerReport {
    let plan = &kernel.plan.server;
    let hops: Vec<&HopRow> = kernel.legs().iter().flat_map(|leg| &leg.hops).collect();
    let settled: Vec<&&HopRow> = hops
        .iter()
        .filter(|hop| progress::hop_state(hop) == "settled")
        .collect();
    let results = || hops.iter().flat_map(|hop| hop.earlier.iter().chain(&hop.result));
    let stuck = hops.iter().find_map(|hop| {
        hop.result
            .as_ref()
            .filter(|result| result.outcome != HopOutcome::Settled)
    });
    let silent = kernel
        .legs()
        .iter()
        .any(|leg| leg.phase == LegPhase::NeedsOperator);
    let (outcome, reason, message) = match stuck {
        Some(result) => {
            let word = match result.outcome {
                HopOutcome::Restored => "restored",
                HopOutcome::Refused => "refused",
                HopOutcome::NeedsOperator | HopOutcome::Settled => "needs_operator",
            };
            (word, result.code.to_string(), result.message.clone())
        }
        None if hops.is_empty() => ("already_current", String::new(), String::new()),
        None if silent => (
            "needs_operator",
            codes::DEADLINE.to_owned(),
            "the server driver was silent for too long".to_owned(),
        ),
        None if settled.len() == hops.len() => ("upgraded", String::new(), String::new()),
        None if hops.iter().any(|hop| hop.attempt > 0) => ("running", String::new(), String::new()),
        None => ("not_started", String::new(), String::new()),
    };
    let running = results().filter_map(|result| result.running).next_back();
    ServerReport {
        name: plan.name.clone(),
        from: plan.from.to_string(),
        to: running
            .or_else(|| settled.last().map(|hop| hop.to))
            .unwrap_or(plan.from)
            .to_string(),
        hops: settled.iter().map(|hop| hop.to.to_string()).collect(),
        restore_points: results()
            .filter_map(|result| result.restore_point.clone())
            .collect(),
        downtime_s: results()
            .map(|result| result.downtime_ms)
            .sum::<u64>()
            .div_ceil(1_000),
        outcome: outcome.to_owned(),
        reason,
        message,
        leftovers: hops.iter().flat_map(|hop| leftovers(hop)).collect(),
    }
}

fn leftovers(hop: &HopRow) -> impl Iterator<Item = String> + '_ {
    let left = hop.result.iter().flat_map(|result| &result.leftovers);
    left.map(|text| format!("hop to {}: {text}", hop.to))
}

fn host(kernel: &Kernel, planned: &PlanHost, clients: &[LegId]) -> HostReport {
    let legs: Vec<HostLegReport> = clients
        .iter()
        .filter_map(|leg| Some(host_leg(kernel, planned, leg, kernel.host(leg, &planned.host)?)))
        .collect();
    // The leg that decided: the first in which it did not make it, or else the last.
    let well = |leg: &&HostLegReport| matches!(leg.outcome.as_str(), "upgraded" | "already_current");
    let last = legs.iter().find(|leg| !well(leg)).or(legs.last());
    let (mut outcome, mut reason) = last.map_or_else(
        || not_in_a_leg(planned),
        |leg| (leg.outcome.clone(), leg.reason.clone()),
    );
    if outcome == "already_current" && legs.iter().any(|leg| leg.outcome == "upgraded") {
        "upgraded".clone_into(&mut outcome);
        reason.clear();
    }
    let stays = clients
        .iter()
        .find_map(|leg| kernel.stays_behind_others(leg, &planned.host));
    if let Some(stays) = stays {
        reason = [reason, stays]
            .into_iter()
            .filter(|text| !text.is_empty())
            .collect::<Vec<_>>()
            .join("; ");
    }
    let leg_row = last.and_then(|leg| kernel.host(&leg.leg.as_str().into(), &planned.host));
    let from = planned
        .from
        .map(|version| version.to_string())
        .unwrap_or_default();
    HostReport {
        host: planned.host.to_string(),
        name: planned.name.clone(),
        group: planned.group.to_string(),
        method: planned
            .method
            .map(|method| method.to_string())
            .unwrap_or_default(),
        to: runs_now(kernel, planned, clients).unwrap_or_else(|| from.clone()),
        from,
        code: leg_row.map(|row| row.code.clone()).unwrap_or_default(),
        took_s: legs.iter().map(|leg| leg.took_s).sum(),
        repoint: repoint(kernel, planned),
        legs,
        outcome,
        reason,
    }
}

fn repoint(kernel: &Kernel, planned: &PlanHost) -> Option<RepointReport> {
    let wanted = planned.repoint.as_ref()?;
    let rows = kernel.legs().iter().filter(|leg| !leg.hops.is_empty());
    let row = rows
        .filter_map(|leg| kernel.host(&leg.leg, &planned.host))
        .next()?;
    let outcome = match row.phase {
        HostPhase::Waiting => "not_started",
        phase => phase.as_str(),
    };
    Some(RepointReport {
        from: wanted.from.clone(),
        to: wanted.to.clone(),
        outcome: outcome.to_owned(),
        reason: row.reason.clone(),
        attempts: row.attempt,
    })
}

fn not_in_a_leg(planned: &PlanHost) -> (String, String) {
    match &planned.action {
        HostAction::Refuse { reason, .. } => ("refused".to_owned(), reason.clone()),
        HostAction::AlreadyCurrent => ("already_current".to_owned(), String::new()),
        HostAction::Upgrade => ("not_started".to_owned(), String::new()),
    }
}

/// The release that the host runs, as far as it was heard of; `None` when nothing was changed.
fn runs_now(kernel: &Kernel, planned: &PlanHost, clients: &[LegId]) -> Option<String> {
    clients.iter().rev().find_map(|leg| {
        let row = kernel.host(leg, &planned.host)?;
        match row.phase {
            HostPhase::Upgraded | HostPhase::Settling => Some(row.running.clone().unwrap_or_else(|| {
                kernel
                    .leg_target(leg)
                    .map(|to| to.to_string())
                    .unwrap_or_default()
            })),
            HostPhase::Inconsistent | HostPhase::Lost => Some(row.running.clone().unwrap_or_default()),
            HostPhase::Verifying | HostPhase::RollingBack => row.running.clone(),
            _ => None,
        }
    })
}

fn host_leg(kernel: &Kernel, planned: &PlanHost, leg: &LegId, row: &HostRow) -> HostLegReport {
    let begins = row.phase.before_permit();
    HostLegReport {
        leg: leg.to_string(),
        from: (kernel.plan.highest_from(leg, &planned.host))
            .or(planned.from)
            .map(|version| version.to_string())
            .unwrap_or_default(),
        to: kernel
            .leg_target(leg)
            .map(|to| to.to_string())
            .unwrap_or_default(),
        outcome: if begins {
            "not_started".to_owned()
        } else if row.made_it() && row.phase != HostPhase::AlreadyCurrent {
            HostPhase::Upgraded.as_str().to_owned()
        } else {
            row.phase.as_str().to_owned()
        },
        reason: row.reason.clone(),
        attempts: row.attempt.saturating_sub(row.unused),
        took_s: row.took_ms().div_ceil(1_000),
        client_gap_ms: row.client_gap_ms,
    }
}
