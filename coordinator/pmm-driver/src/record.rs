//! A hop as its journal tells it.

use fleet_common::server::{HopResult, ServerOrder};
use serde::{Deserialize, Serialize};

/// One hop, open or ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HopRecord {
    /// The order.
    pub order: ServerOrder,
    /// Unix milliseconds of the first journal line.
    pub started_at_ms: u64,
    /// Steps in the order in which they began.
    pub steps: Vec<StepRecord>,
    /// Name of the backup volume.
    pub restore_point: Option<String>,
    /// `repository@digest` that the hop installed.
    pub image: Option<String>,
    /// Step and Unix milliseconds of every resumption.
    pub disturbances: Vec<(String, u64)>,
    /// How it ended.
    pub result: Option<HopResult>,
}

/// One step of a hop.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StepRecord {
    /// Name.
    pub step: String,
    /// How often it was begun.
    pub attempts: u32,
    /// Milliseconds of the attempt that ended; `None` while open.
    pub took_ms: Option<u64>,
}
