//! The status document: what `status`, `watch` and their `--json` show.

use crate::kernel::{Disturbance, GroupPhase, LegPhase, RolloutPhase};
use serde::{Deserialize, Serialize};

/// A rollout at one moment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StatusDocument {
    /// When it was taken.
    pub now_ms: u64,
    /// The rollout.
    pub rollout: String,
    /// Its plan.
    pub plan: String,
    /// State.
    pub state: RolloutPhase,
    /// Since when.
    pub since_ms: u64,
    /// The rollout in one line.
    pub headline: String,
    /// `term.counter`.
    pub epoch: String,
    /// When it was started.
    pub started_at_ms: Option<u64>,
    /// When it ended.
    pub ended_at_ms: Option<u64>,
    /// While a person is waited for.
    pub paused: Option<PauseView>,
    /// All legs in order.
    pub legs: Vec<LegView>,
    /// The server legs in order.
    pub server: Vec<ServerView>,
    /// The groups of each client leg in order.
    pub groups: Vec<GroupView>,
    /// Hosts with an order under way.
    pub in_flight: Vec<InFlight>,
    /// Hosts that ended badly, newest first.
    pub failures: Vec<Failure>,
    /// Who waits for what, most hosts first.
    pub waits: Vec<Wait>,
    /// Hosts that ended, however they did, over all client legs.
    pub done: u32,
    /// Those of them that run the leg's release, verified now or before.
    #[serde(default)]
    pub upgraded: u32,
    /// Hosts with something to do, over all client legs.
    pub total: u32,
    /// When it may end, if enough is known.
    pub estimate: Option<Estimate>,
    /// What it went through.
    pub disturbances: Vec<Disturbance>,
    /// Whether `watch` ends here: it is final, or paused and nothing is under way. A group that waits for approval or its window is neither.
    pub at_rest: bool,
    /// Exit status for `watch` and `report`.
    pub exit_code: i32,
}

/// Why a person is waited for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PauseView {
    /// Stable name of the reason.
    pub code: String,
    /// For people.
    pub text: String,
    /// What to do next.
    pub hint: String,
    /// Who paused.
    pub by: String,
    /// Since when.
    pub since_ms: u64,
    /// Next reminder.
    pub remind_at_ms: u64,
    /// Since when what it is about is over; a person resumes all the same.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub over_since_ms: Option<u64>,
}

/// A leg.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LegView {
    /// Its id.
    pub leg: String,
    /// `survey`, `server`, `clients`.
    pub kind: String,
    /// State.
    pub state: LegPhase,
    /// Since when.
    pub since_ms: u64,
    /// What it does, in one line.
    pub text: String,
    /// Parts done: hosts or hops.
    pub done: u32,
    /// All parts.
    pub total: u32,
}

/// A server leg.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServerView {
    /// Name of the server.
    pub name: String,
    /// The leg.
    pub leg: String,
    /// State.
    pub state: LegPhase,
    /// Release before the leg.
    pub from: String,
    /// Release after it.
    pub to: String,
    /// Its hops.
    pub hops: Vec<HopView>,
    /// Clients that address its container themselves and must follow its port; `None` when there are none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub repoint: Option<RepointView>,
}

/// Clients that follow the server's port.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RepointView {
    /// Those that use the new one.
    pub done: u32,
    /// All.
    pub total: u32,
    /// Names of those that were told and did not answer yet.
    pub under_way: Vec<String>,
    /// Names of those that wait, with what for.
    pub waiting: Vec<String>,
    /// Names of those that did not follow, with why.
    pub failed: Vec<String>,
}

/// A hop.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HopView {
    /// Position in the plan.
    pub number: u32,
    /// Release before.
    pub from: String,
    /// Release after.
    pub to: String,
    /// `waiting`, `running`, `settled`, `restored`, `needs_operator`, `refused`.
    pub state: String,
    /// Attempt, from 1.
    pub attempt: u32,
    /// When it began.
    pub started_at_ms: Option<u64>,
    /// When it ended.
    pub ended_at_ms: Option<u64>,
    /// Why it did not settle; empty when it did.
    pub reason: String,
    /// What it left undone without failing because of it.
    #[serde(default)]
    pub leftovers: Vec<String>,
    /// Its steps so far.
    pub steps: Vec<StepView>,
}

/// A step.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StepView {
    /// Name.
    pub step: String,
    /// Position, from 1.
    pub index: u32,
    /// Number of steps.
    pub of: u32,
    /// `running`, `done`, `failed`.
    pub state: String,
    /// When it began.
    pub since_ms: u64,
    /// How long it took.
    pub took_ms: Option<u64>,
    /// What it waits for.
    pub waits_for: String,
    /// When it is given up.
    pub deadline_ms: u64,
}

/// Hosts of a group by what became of them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// Nothing ordered yet.
    pub waiting: u32,
    /// Preflight or stage.
    pub preparing: u32,
    /// Waits for a permit.
    pub ready: u32,
    /// Permitted, switching, verifying, rolling back.
    pub in_flight: u32,
    /// Upgraded, whether their way back is still kept or not.
    pub upgraded: u32,
    /// Was on the target before.
    pub already_current: u32,
    /// Rolled back.
    pub rolled_back: u32,
    /// Failed before anything changed.
    pub failed: u32,
    /// Neither version verified.
    pub inconsistent: u32,
    /// Silent after the permit.
    pub lost: u32,
    /// Refused.
    pub refused: u32,
    /// Skipped.
    pub skipped: u32,
    /// Cancelled.
    pub cancelled: u32,
}

/// A group in a leg. The bar is `counts` over `total`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupView {
    /// The leg.
    pub leg: String,
    /// Name.
    pub name: String,
    /// State.
    pub state: GroupPhase,
    /// Since when.
    pub since_ms: u64,
    /// What it waits for; empty when it works.
    pub waits_for: String,
    /// Its hosts.
    pub total: u32,
    /// Its hosts by state.
    pub counts: Counts,
    /// Canaries that must succeed first.
    pub canaries: u32,
    /// Occupied slots.
    pub slots_used: u32,
    /// All slots.
    pub slots_max: u32,
    /// Names of the hosts that hold a slot.
    pub slot_holders: Vec<String>,
    /// Failures that count.
    pub failures: u32,
    /// Tolerated failures.
    pub failure_threshold: u32,
    /// Hosts that go back or are to; with some its state is `rolled_back` and not over.
    #[serde(default)]
    pub going_back: u32,
}

/// A host with an order under way.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InFlight {
    /// Host id.
    pub host: String,
    /// PMM node name.
    pub name: String,
    /// Group.
    pub group: String,
    /// Leg.
    pub leg: String,
    /// State.
    pub state: String,
    /// Step under way; empty when there is none.
    pub step: String,
    /// Position of the step, 0 when unknown.
    pub index: u32,
    /// Number of steps, 0 when unknown.
    pub of: u32,
    /// Since when it is in this state.
    pub since_ms: u64,
    /// When silence ends the state.
    pub deadline_ms: Option<u64>,
    /// What it waits for.
    pub waits_for: String,
    /// Whether a person is asked for its verdict.
    #[serde(default)]
    pub asked: bool,
    /// Whether its session is up.
    pub connected: bool,
    /// Attempt.
    pub attempt: u32,
}

/// A host that ended badly.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// Host id.
    pub host: String,
    /// PMM node name.
    pub name: String,
    /// Group.
    pub group: String,
    /// Leg.
    pub leg: String,
    /// How it ended.
    pub outcome: String,
    /// The step that decided.
    pub step: String,
    /// Stable code.
    pub code: String,
    /// Why.
    pub reason: String,
    /// When.
    pub at_ms: u64,
    /// Whether it still holds a slot.
    pub slot_held: bool,
    /// What to do next.
    pub hint: String,
}

/// Hosts that wait for the same thing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wait {
    /// Stable name of the reason.
    pub code: String,
    /// For people.
    pub text: String,
    /// Who must act: `agent`, `coordinator`, `server_driver`, `pmm_server`, `operator`.
    pub owner: String,
    /// How many hosts.
    pub count: u32,
    /// Names of the first of them.
    pub hosts: Vec<String>,
}

/// When it may end.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Estimate {
    /// Milliseconds from now.
    pub remaining_ms: u64,
    /// What it rests on.
    pub basis: String,
    /// Where it ends before the rollout does because a person is waited for there: until what.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<String>,
}
