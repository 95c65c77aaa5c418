//! The decision function of a rollout: what happened goes in, state changes and messages come out.
//!
//! ```text
//! Input --apply--> rows (marked dirty) --decide (ticks, commands, server)--> more rows, orders --> Output
//! ```
//!
//! Applying an event of a host is the same work in every fleet; deciding walks the active leg. Nothing in here panics on what others send:
//! what does not fit the state is counted ([`RolloutRow::illegal`]) or is a repetition and does nothing.
//!
//! Where to look:
//!
//! | question | file |
//! |---|---|
//! | what comes in and goes out; the rows and their states | `input`, `rows`, `host_map`, `leg_map`, `state` |
//! | what is decided each tick, and in which order | `decide` |
//! | whose turn it is, and how many may go | `groups`, `gates` (canaries, windows, widths), `ramp`, `spread` (sets and sites), `slots` (over all legs), `limits` |
//! | what keeps a single host | `offline`, `backup`, `baseline` (PMM's view of it from before), `unsurveyed` |
//! | permits and orders, and what hosts answer | `orders`, `hosts`, `timers` (silence), `attempts` and `retry` (trying again) |
//! | PMM's view: when it is asked, what it proves | `looks`, `health`, `keep` (until an upgrade is final) |
//! | the server's hops, the clients that follow to its port, and who misses the next server | `server`, `repoint`, `bridge`, `stranded` |
//! | commands | `commands`, `retry`, `rollback`, `adopt`, `limits` |
//! | why it is paused, whether the cause is gone, who is reminded of what | `pauses`, `cause`, `reminders` |
//! | what everything waits for, since when and until when | `waiting` (`waiting/not_begun` for hosts without a permit), `duties`, `next` (what ends next), `shown` (a group as people see it) |
//! | a start, and a store from a backup | `start`, `restored` |
//! | faults on purpose | `mutants` |

mod adopt;
mod attempts;
mod backup;
mod baseline;
mod bridge;
mod cause;
mod commands;
mod decide;
mod duties;
mod gates;
mod groups;
mod health;
mod host_map;
mod hosts;
mod input;
mod keep;
mod leg_map;
mod limits;
mod looks;
mod mutants;
mod next;
mod offline;
mod orders;
mod pauses;
mod ramp;
mod reminders;
mod repoint;
mod restored;
mod retry;
mod rollback;
mod rows;
mod server;
mod shown;
mod slots;
mod spread;
mod start;
mod state;
mod stranded;
mod timers;
mod unsurveyed;
mod waiting;

pub(crate) use groups::Tally;
pub use input::{
    Accepted, Command, FleetEvent, HostOrder, Input, Looks, Output, Refusal, RollbackTarget, Row, ViewRequest,
};
pub use looks::{FLEET_EVERY_MS, NODES_AT_ONCE, NODES_EVERY_MS};
#[cfg(not(feature = "mutants"))]
pub(crate) use mutants::Mutant;
#[cfg(feature = "mutants")]
pub use mutants::Mutant;
pub(crate) use ramp::width as ramp_width;
pub(crate) use waiting::Moment;
pub use waiting::{Duty, Owner};

pub use state::{
    Abort, Disturbance, GoingBack, GroupPhase, GroupRow, HopRow, HostPhase, HostRow, LegPhase, LegRow,
    Limits, Mark, OpenOrder, Pause, RestoredStore, RolloutPhase, RolloutRow, Side, StepRow,
};

use crate::plan::{Plan, PlanError, PlanHost};
use fleet_common::ids::{Epoch, GroupName, HostId, LegId, PlanId, RolloutId};
use fleet_common::verification::{FleetSnapshot, Verification};
use host_map::HostMap;
use leg_map::LegMap;
use rows::Key;
use state::Hold;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

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
    /// The rows belong to another plan.
    #[error("the stored rows belong to {rows} and not to {plan}")]
    OtherPlan {
        /// Of the rows.
        rows: PlanId,
        /// That was given.
        plan: PlanId,
    },
    /// There is no row `rollout`.
    #[error("the stored rows hold no rollout")]
    NoRollout,
}

/// A host's session. Not stored: after a start every host is away until it connects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Link {
    pub connected: bool,
    pub since_ms: u64,
}

/// One rollout.
#[derive(Clone, Debug)]
pub struct Kernel {
    pub(crate) plan: Arc<Plan>,
    pub(crate) plan_id: PlanId,
    /// What stays of earlier plans, once a child plan was adopted.
    pub(crate) adopted: Option<adopt::Adopted>,
    pub(crate) kept: BTreeMap<HostId, adopt::Kept>,
    pub(crate) rollout: RolloutRow,
    pub(crate) legs: Vec<LegRow>,
    pub(crate) groups: LegMap<BTreeMap<GroupName, GroupRow>>,
    pub(crate) hosts: LegMap<HostMap<HostRow>>,
    pub(crate) holds: BTreeMap<HostId, Hold>,
    pub(crate) baseline: Option<FleetSnapshot>,
    pub(crate) verification: Option<Verification>,
    /// What the looks at PMM found so far, the newest of each node. Not stored: the next one comes soon.
    pub(crate) last_view: Option<FleetSnapshot>,
    sights: looks::Sights,
    pub(crate) links: HostMap<Link>,
    /// Position of each host in the plan.
    index: Arc<HostMap<usize>>,
    /// Hosts that the baseline does not have.
    unlisted: BTreeSet<HostId>,
    /// Which hosts don't go together.
    spread: Arc<spread::Spread>,
    /// Absence before this moment does not count.
    absence_from_ms: u64,
    /// The rule that it breaks on purpose.
    #[cfg(feature = "mutants")]
    mutant: Option<Mutant>,
    dirty: BTreeSet<Key>,
    out: Output,
}

impl Kernel {
    /// A rollout of this plan that waits for `start`. Its rows come with the first output.
    pub fn new(id: RolloutId, plan_bytes: &[u8], epoch: Epoch, now_ms: u64) -> Result<Self, KernelError> {
        Self::first(id, plan_bytes, epoch, now_ms)
    }

    /// A rollout from its stored rows. The first input must be [`Input::CoordinatorStarted`].
    pub fn restore(plan_bytes: &[u8], rows: &[Row]) -> Result<Self, KernelError> {
        Self::from_rows(plan_bytes, rows)
    }

    /// Takes one input. The rows of the output must be committed before anything else of it leaves.
    pub fn handle(&mut self, input: Input, now_ms: u64) -> Output {
        let is_tick = matches!(input, Input::Tick);
        match input {
            Input::Host { epoch, .. }
                if epoch < self.rollout.epoch && self.breaks(Mutant::OldEventsDropped) => {}
            Input::Host {
                host,
                order_id,
                event,
                ..
            } => self.host_event(&host, &order_id, event, now_ms),
            Input::Connected { host, .. } => self.connected(&host, now_ms),
            Input::Disconnected { host } => {
                self.links.insert(
                    host,
                    Link {
                        connected: false,
                        since_ms: now_ms,
                    },
                );
            }
            Input::Server { order, event } => {
                self.server_event(&order, event, now_ms);
                self.decide(now_ms);
            }
            // What is seen belongs to a state that may never have been.
            Input::ServerView(_) if self.is_doubted() => self.decide(now_ms),
            Input::ServerView(view) => {
                self.server_view(view, now_ms);
                self.decide(now_ms);
            }
            Input::Operator { by, command } => {
                let answer = self.command(&by, command, now_ms);
                self.out.answer = Some(answer);
                self.decide(now_ms);
            }
            Input::Adopt { by, bytes } => {
                let answer = self.adopt(&by, &bytes, now_ms);
                self.out.answer = Some(answer);
                self.decide(now_ms);
            }
            Input::Tick => self.decide(now_ms),
            Input::StoreRestored { text } => {
                self.store_restored(text, now_ms);
                self.decide(now_ms);
            }
            Input::StoreAdopted { term } => {
                self.store_adopted(term, now_ms);
                self.decide(now_ms);
            }
            Input::HostRuns { host, version } => self.host_runs(&host, version, now_ms),
            Input::CoordinatorStarted { term } => {
                self.coordinator_started(term, now_ms);
                self.decide(now_ms);
            }
        }
        if is_tick {
            self.out.looks = Some(self.looks(now_ms));
        }
        let rows = self.changed_rows();
        let mut out = std::mem::take(&mut self.out);
        out.rows = rows;
        out
    }

    /// The plan.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }
    /// The plan's id.
    pub fn plan_id(&self) -> &PlanId {
        &self.plan_id
    }
    /// The rollout's id.
    pub fn rollout_id(&self) -> &RolloutId {
        &self.rollout.id
    }
    /// The rollout's row.
    pub fn rollout(&self) -> &RolloutRow {
        &self.rollout
    }
    /// The rollout's state.
    pub fn phase(&self) -> RolloutPhase {
        self.rollout.phase
    }
    /// Epoch of new orders.
    pub fn epoch(&self) -> Epoch {
        self.rollout.epoch
    }
    /// Whether nothing follows any more, unless a lost host returns.
    pub fn is_final(&self) -> bool {
        self.rollout.phase.is_final()
    }
    /// PMM's view from before the first change, once it is known.
    pub fn baseline(&self) -> Option<&FleetSnapshot> {
        self.baseline.as_ref()
    }
    /// The three checks, once they were looked at.
    pub fn verification(&self) -> Option<&Verification> {
        self.verification.as_ref()
    }
    /// The legs in order.
    pub fn legs(&self) -> &[LegRow] {
        &self.legs
    }
    /// A host in a leg.
    pub fn host(&self, leg: &LegId, host: &HostId) -> Option<&HostRow> {
        self.hosts.get(leg)?.get(host)
    }
    /// A group in a client leg.
    pub fn group(&self, leg: &LegId, group: &GroupName) -> Option<&GroupRow> {
        self.groups.get(leg)?.get(group)
    }

    pub(crate) fn is_connected(&self, host: &HostId) -> bool {
        self.links.get(host).is_some_and(|link| link.connected)
    }

    /// PMM node name of a host, or its id.
    pub(crate) fn name<'a>(&'a self, host: &'a HostId) -> &'a str {
        self.planned(host).map_or(host.as_str(), |found| &found.name)
    }

    /// A host of the plan.
    pub(crate) fn planned(&self, host: &HostId) -> Option<&PlanHost> {
        self.plan.hosts.get(*self.index.get(host)?)
    }

    /// Why an operator holds a host of the plan; a hold that was set on the host itself is none.
    pub fn held_by_operator(&self, host: &HostId) -> Option<&str> {
        self.holds.get(host)?.operator.as_deref()
    }

    /// Why a host may not begin, if a person holds it.
    pub(crate) fn held(&self, host: &HostId) -> Option<&str> {
        let hold = self.holds.get(host)?;
        hold.operator.as_deref().or(hold.host.as_deref())
    }

    fn event(&mut self, now_ms: u64, subject: impl Into<String>, code: &str, text: impl Into<String>) {
        self.out.events.push(FleetEvent {
            at_ms: now_ms,
            subject: subject.into(),
            code: code.to_owned(),
            text: text.into(),
        });
    }

    fn illegal(&mut self, now_ms: u64, subject: String, text: String) {
        self.rollout.illegal += 1;
        self.dirty.insert(Key::Rollout);
        self.event(now_ms, subject, "illegal", text);
    }
}
