//! Why a host, a group, the server or the rollout is where it is, and what happens next.

use crate::kernel::Kernel;
use serde::{Deserialize, Serialize};

/// The answer of `explain`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExplainDocument {
    /// `rollout`, `server`, `group:<name>` or `host:<id>`; the same as in events, so that their last ones can be added.
    pub subject: String,
    /// Name for people.
    pub name: String,
    /// State.
    pub state: String,
    /// Since when.
    pub since_ms: u64,
    /// Who must act: `agent`, `coordinator`, `server_driver`, `pmm_server`, `operator`, `nobody`.
    pub owner: String,
    /// Why it is in this state.
    pub reason: String,
    /// What it waits for; empty when final.
    pub waits_for: Vec<String>,
    /// Rules and limits that bind now.
    pub rules: Vec<String>,
    /// When silence ends the state.
    pub deadline_ms: Option<u64>,
    /// When a person is reminded.
    pub reminder_ms: Option<u64>,
    /// What happens after that.
    pub then: String,
    /// What the operator can do.
    pub you_can: Vec<String>,
}

/// Explains `rollout`, `server`, a group's name, or a host's id or name. `None` when there is no such thing in the plan.
pub fn explain(kernel: &Kernel, subject: &str, now_ms: u64) -> Option<ExplainDocument> {
    let _ = (kernel, subject, now_ms);
    None
}
