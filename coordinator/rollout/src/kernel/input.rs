//! What goes into the kernel and what comes out.

use fleet_common::ids::{Epoch, HostId, LegId, OrderId, PlanId};
use fleet_common::order::{Action, HostEvent};
use fleet_common::server::{ServerEvent, ServerOrder};
use fleet_common::verification::FleetSnapshot;
use fleet_common::version::PmmVersion;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;

/// Something that happened.
#[derive(Clone, Debug)]
pub enum Input {
    /// An event of a host, already acknowledged by number: each is given once, or again after a crash, which is a no-op.
    Host {
        /// The host.
        host: HostId,
        /// The order it belongs to; empty when none.
        order_id: OrderId,
        /// Epoch of the order.
        epoch: Epoch,
        /// What happened.
        event: HostEvent,
    },
    /// A host's session is up. Its open orders are sent again.
    Connected {
        /// The host.
        host: HostId,
        /// The order that its journal holds unfinished; for the log.
        running_order: Option<OrderId>,
    },
    /// A host's session is gone.
    Disconnected {
        /// The host.
        host: HostId,
    },
    /// An event of the server driver.
    Server {
        /// The order it belongs to.
        order: OrderId,
        /// What happened.
        event: ServerEvent,
    },
    /// PMM's own view, of the fleet or of some nodes; asked for by [`Output::looks`].
    ServerView(FleetSnapshot),
    /// A person's command.
    Operator {
        /// Who.
        by: String,
        /// What.
        command: Command,
    },
    /// A person lets a child plan take over: its parent must be the plan that runs. Answered like a command.
    Adopt {
        /// Who.
        by: String,
        /// The plan as stored.
        bytes: Vec<u8>,
    },
    /// Time passed. Give one at least every second, and one after each batch of other inputs: decisions are made here.
    Tick,
    /// A coordinator took over; the first input after [`super::Kernel::restore`].
    CoordinatorStarted {
        /// The new term; higher than every earlier one.
        term: u64,
    },
    /// Hosts have seen what this store never gave: it was restored from a backup, or an older copy of it was started. Nothing begins
    /// before [`Input::StoreAdopted`].
    StoreRestored {
        /// Who showed what, for people.
        text: String,
    },
    /// A person takes the store as the truth.
    StoreAdopted {
        /// The new term; above everything that any host has seen.
        term: u64,
    },
    /// An inventory came in.
    HostRuns {
        /// The host.
        host: HostId,
        /// Release of its client, on disk and running.
        version: PmmVersion,
    },
}

/// Whom [`Command::Rollback`] takes back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RollbackTarget {
    /// One host, by id or name.
    Host(String),
    /// A group, by name.
    Group(String),
    /// Every host that the client leg under way upgraded; the rollout ends with that.
    Clients,
}

/// A person's command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// Begin.
    Start {
        /// PMM clients without our agent that are accepted, by node name.
        accept_unmatched: Vec<String>,
    },
    /// No new permits and no new hop; running work goes on.
    Pause {
        /// Why.
        reason: String,
    },
    /// Go on. Failures so far are accepted: the threshold counts anew.
    Resume {
        /// Why.
        reason: String,
        /// Go on although no client came back to the server.
        accept_server: bool,
    },
    /// End it. Hosts that did not begin are cancelled; those under way finish.
    Abort {
        /// Why.
        reason: String,
        /// Also take hosts back that are not verified yet, and stop the server hop.
        force: bool,
    },
    /// Try again as a new attempt.
    Retry {
        /// Hosts by id or name. Empty without `server`: everything that failed, including the server.
        hosts: Vec<String>,
        /// The server leg.
        server: bool,
    },
    /// Let a host not begin.
    Hold {
        /// Id or name.
        host: String,
        /// Why.
        reason: String,
    },
    /// Lift the hold.
    Unhold {
        /// Id or name.
        host: String,
    },
    /// Free the slot of a host that ended without a working client.
    FreeSlot {
        /// Id or name.
        host: String,
        /// Why.
        reason: String,
    },
    /// Let a group begin that needs approval.
    Approve {
        /// Name.
        group: String,
    },
    /// Reduce numbers of a group below the plan's. They can't be raised again; a new plan may.
    Limit {
        /// Name.
        group: String,
        /// Most hosts that may be without a working client at once.
        max_unavailable: Option<u32>,
        /// Tolerated failures.
        failure_threshold: Option<u32>,
        /// Why.
        reason: String,
    },
    /// Take hosts back that were upgraded and whose way back is kept.
    Rollback {
        /// Whom.
        target: RollbackTarget,
        /// Why.
        reason: String,
    },
    /// Let a host pass whose verification came to no verdict.
    Accept {
        /// Id or name.
        host: String,
        /// Why.
        reason: String,
    },
    /// Leave a host out that did not begin.
    Skip {
        /// Id or name.
        host: String,
        /// Why.
        reason: String,
    },
}

/// What follows. Everything but `rows` may leave only after `rows` are committed.
#[derive(Clone, Debug, Default)]
pub struct Output {
    /// Changed state.
    pub rows: Vec<Row>,
    /// The plan that the rows belong to from now on, if that changed; must be committed with them.
    pub plan: Option<PlanId>,
    /// Orders to hosts. Sending one again is always safe.
    pub orders: Vec<HostOrder>,
    /// Orders to the server driver. Giving one again continues it.
    pub server: Vec<ServerOrder>,
    /// Server orders to stop at the next safe point; the driver then goes back to where the hop started.
    pub cancel_server: Vec<OrderId>,
    /// What the kernel wants to know from PMM. Comes with each tick and holds until the next one.
    pub looks: Option<Looks>,
    /// What happened, for the log. The store numbers them.
    pub events: Vec<FleetEvent>,
    /// Answer to [`Input::Operator`] and [`Input::Adopt`].
    pub answer: Option<Result<Accepted, Refusal>>,
}

/// Wishes for [`Input::ServerView`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Looks {
    /// One look at the whole fleet, to begin as soon as the rows are committed. It counts as asked from then on, whatever comes of it.
    pub fleet: Option<ViewRequest>,
    /// Looks at these nodes, one each [`super::NODES_EVERY_MS`] and never two at once; at most [`super::NODES_AT_ONCE`] nodes.
    pub nodes: Option<ViewRequest>,
}

/// One look at PMM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ViewRequest {
    /// The nodes (by id); `None` for the whole fleet.
    pub nodes: Option<BTreeSet<String>>,
    /// Start of the window for Query Analytics, Unix milliseconds; 0 when nothing is asked about queries.
    pub qan_from_ms: u64,
}

impl ViewRequest {
    /// The answer of a server that can only be asked for everything.
    pub fn answer_from(&self, whole: FleetSnapshot) -> FleetSnapshot {
        let whole = FleetSnapshot {
            qan_from_ms: self.qan_from_ms,
            ..whole
        };
        match &self.nodes {
            Some(nodes) => whole.of_nodes(nodes),
            None => whole,
        }
    }
}

/// One piece of state as it is stored. The newest row of a key counts; [`super::Kernel::restore`] takes all of them, in any order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Row {
    /// Unique within the rollout, such as `host/clients-1/h-1`.
    pub key: String,
    /// The state.
    pub json: String,
}

/// An order to one host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostOrder {
    /// The host.
    pub host: HostId,
    /// `<rollout>/<leg>/<host>/<attempt>/<action>`.
    pub order: OrderId,
    /// Orders below the highest epoch that an agent saw have no effect.
    pub epoch: Epoch,
    /// The plan.
    pub plan_id: PlanId,
    /// The leg.
    pub leg: LegId,
    /// This host's [`fleet_common::plan_entry::PlanEntry`], as stored.
    pub entry: Vec<u8>,
    /// What to do.
    pub action: Action,
    /// Milliseconds after receipt within which it must be finished.
    pub deadline_for_ms: u64,
    /// For switch and rollback: milliseconds after receipt within which the first change must begin. With 0 an agent that has not begun
    /// must not begin: it answers `expired`.
    pub start_within_ms: u64,
}

/// Something worth telling.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FleetEvent {
    /// When.
    pub at_ms: u64,
    /// `rollout`, `server`, `group:<name>` or `host:<id>`.
    pub subject: String,
    /// Stable name, such as `host_upgraded`.
    pub code: String,
    /// For people.
    pub text: String,
}

/// A command was taken.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Accepted {
    /// What follows from it, for people.
    pub text: String,
}

/// A command was refused; nothing changed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Refusal {
    /// Stable name, such as `not_paused`.
    pub code: String,
    /// Why.
    pub reason: String,
    /// What to do next; may be empty.
    pub hint: String,
}

impl std::fmt::Display for Refusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.reason)
    }
}

impl std::error::Error for Refusal {}
