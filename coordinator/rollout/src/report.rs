//! The report: every host of the plan once, the server, the three checks, and what the rollout went through.

use crate::kernel::{Disturbance, Kernel};
use fleet_common::verification::Verification;
use serde::{Deserialize, Serialize};

/// The document behind `report --json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReportDocument {
    /// `planned`, `running`, `succeeded`, `finished_with_exceptions`, `finished_with_lost`, `paused`, `aborting`, `aborted`, `server_restored`,
    /// `server_refused`, `server_needs_operator`.
    pub outcome: String,
    /// Why, for people; empty when it succeeded.
    pub reason: String,
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
    /// Attempts.
    pub attempts: u32,
    /// Seconds from the permit to the end.
    pub took_s: u64,
    /// Milliseconds without a connected client, as the host measured.
    pub client_gap_ms: u64,
}

impl ReportDocument {
    /// Exit status that goes with the outcome.
    pub fn exit_code(&self) -> i32 { crate::progress::exit_code(&self.outcome) }
}

/// The report as it stands now.
pub fn report(kernel: &Kernel, now_ms: u64) -> ReportDocument {
    let _ = now_ms;
    ReportDocument {
        outcome: String::new(),
        reason: String::new(),
        rollout: kernel.rollout.id.to_string(),
        plan: kernel.plan_id.to_string(),
        started_at_ms: None,
        ended_at_ms: None,
        server: ServerReport {
            name: String::new(),
            from: String::new(),
            to: String::new(),
            hops: Vec::new(),
            restore_points: Vec::new(),
            downtime_s: 0,
            outcome: String::new(),
            reason: String::new(),
            message: String::new(),
        },
        hosts: Vec::new(),
        accepted_unmatched: Vec::new(),
        verification: Verification::default(),
        disturbances: Vec::new(),
    }
}
