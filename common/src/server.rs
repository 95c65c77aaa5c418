//! The PMM Server leg as the kernel sees it: orders to the server driver and its answers. The driver keeps its own journal and talks to
//! the kernel only through these, so that it can later run in an agent on the PMM Server's host.

use crate::codes::Code;
use crate::ids::{LegId, OrderId};
use crate::version::PmmVersion;
use serde::{Deserialize, Serialize};

/// How a PMM 2 Server reaches the last PMM 2 release.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Pmm2Update {
    /// Re-create the container on the image of the release (default).
    #[default]
    Image,
    /// PMM 2's own update API (check with force, start, follow, verify), then re-create on the image of that release, because the
    /// update changes only the container's writable layer and leaves the tag old.
    Api,
}

/// An order to the server driver: one hop. Repeating an order with the same id continues it, never starts it anew.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServerOrder {
    /// Identity of the order.
    pub order: OrderId,
    /// The leg.
    pub leg: LegId,
    /// Attempt, from 1.
    pub attempt: u32,
    /// Position of the hop within the whole plan, from 1.
    pub hop: u32,
    /// The release that must be running.
    pub from: PmmVersion,
    /// The release to reach.
    pub to: PmmVersion,
    /// How, if `to` is a PMM 2 release.
    pub pmm2_update: Pmm2Update,
    /// True for the last hop of this leg: API keys are converted and clients waited for.
    pub last_of_leg: bool,
    /// A person accepted that no client came back: the hop settles without them. Set when a continued order is given again.
    #[serde(default)]
    pub accept_unsettled: bool,
}

/// What the driver reports.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum ServerEvent {
    /// A step began.
    StepStarted {
        /// Name of the step, such as `ownership`.
        step: String,
        /// Position, from 1.
        index: u32,
        /// Number of steps.
        of: u32,
        /// What the step waits for.
        waits_for: String,
        /// Milliseconds until the step is given up.
        deadline_for_ms: u64,
    },
    /// A step ended.
    StepFinished {
        /// Name of the step.
        step: String,
        /// Milliseconds it took.
        took_ms: u64,
    },
    /// The server serves its clients again, with the hop's release. Told again when the driver continues a hop that is past this point.
    Published,
    /// The driver came back and found a hop half done in its journal.
    Resumed {
        /// The step that was hit.
        step: String,
    },
    /// The hop ended.
    Finished(HopResult),
}

/// How a hop ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HopOutcome {
    /// The server runs the new release with all of its data.
    Settled,
    /// The hop failed; the server runs the release it started from, verified.
    Restored,
    /// The hop failed and the way back failed too, or cannot be decided.
    NeedsOperator,
    /// Refused before anything changed.
    Refused,
}

/// The result of one hop.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HopResult {
    /// How it ended.
    pub outcome: HopOutcome,
    /// Release before.
    pub from: PmmVersion,
    /// Release that runs now, as the API says.
    pub running: Option<PmmVersion>,
    /// One of [`crate::codes`]; empty when settled.
    pub code: Code,
    /// The step that decided.
    pub step: String,
    /// What happened, for people.
    pub message: String,
    /// What to do next.
    pub hints: Vec<String>,
    /// Name of the restore point (backup volume) of this hop.
    pub restore_point: Option<String>,
    /// Milliseconds that PMM did not serve its clients.
    pub downtime_ms: u64,
    /// The driver's journal is still open: the same order goes on where it stands, nothing that is done is done again.
    #[serde(default)]
    pub open: bool,
}
