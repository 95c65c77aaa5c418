//! Orders and what hosts answer. Actions are a closed set: no shell, no free path, no free URL.

use crate::codes::Code;
use serde::{Deserialize, Serialize};

/// What an agent can be told to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// Detect again and send the inventory.
    Probe,
    /// Check everything the switch depends on; changes nothing that runs. Detail: [`crate::survey::HostSurvey`].
    Preflight,
    /// Download and verify the new package or tarball, keep the old one for the way back. Changes nothing that runs.
    Stage,
    /// Save, install, carry the configuration over, start, verify; goes back by itself when that fails. Needs a permit.
    Switch,
    /// Check the running client again.
    Verify,
    /// Make the upgrade final: remove what was saved for the way back.
    Keep,
    /// Go back to the saved version.
    Rollback,
    /// Change the PMM Server's address in the client's configuration as [`crate::plan_entry::Repoint`] says, and restart the client. Goes
    /// back to the old address by itself when the client does not connect.
    Repoint,
    /// Restart the client as it is.
    RestartClient,
    /// Collect what a person needs to find a fault, without secrets, into a file on the host.
    CollectBundle,
    /// Replace the agent's own certificate and key.
    Renew,
    /// Replace the agent's own program by [`crate::agent_release::AgentRelease`].
    SelfUpdate,
}

impl Action {
    /// The word on the wire and on screens.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Probe => "probe",
            Self::Preflight => "preflight",
            Self::Stage => "stage",
            Self::Switch => "switch",
            Self::Verify => "verify",
            Self::Keep => "keep",
            Self::Rollback => "rollback",
            Self::Repoint => "repoint",
            Self::RestartClient => "restart_client",
            Self::CollectBundle => "collect_bundle",
            Self::Renew => "renew",
            Self::SelfUpdate => "self_update",
        }
    }
    /// Whether the action may change what runs on the host and therefore needs a permit or a running leg.
    pub fn changes_host(self) -> bool {
        matches!(
            self,
            Self::Switch | Self::Rollback | Self::Repoint | Self::RestartClient
        )
    }
}

/// How an order ended on the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// Done, now or already before.
    Done,
    /// Not begun: policy, hold, unexpected state, stale epoch. Nothing changed.
    Refused,
    /// The permit's time to start was over. Nothing changed.
    Expired,
    /// Failed before anything changed that runs.
    FailedNothingChanged,
    /// Failed; the host is back on its old version and that was verified.
    RolledBack,
    /// Failed; neither the new nor the old version could be verified. Needs a person.
    Inconsistent,
}

/// The result of one order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OrderResult {
    /// How it ended.
    pub outcome: Outcome,
    /// The step that decided, empty when none was begun.
    pub step: String,
    /// One of [`crate::codes`]; empty when done.
    pub code: Code,
    /// What happened, for people. Never holds secrets.
    pub message: String,
    /// Milliseconds from accepting to finishing.
    pub took_ms: u64,
    /// For `preflight` the [`crate::survey::HostSurvey`], for `switch` and `rollback` a [`SwitchDetail`], else null.
    pub detail: serde_json::Value,
}

/// What a switch or a rollback found at its end.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SwitchDetail {
    /// PMM release before.
    pub from: String,
    /// PMM release that runs now.
    pub to: String,
    /// Milliseconds between stopping the old client and the new one being connected.
    pub client_gap_ms: u64,
    /// Milliseconds of the package transaction alone.
    pub transaction_ms: u64,
}

/// Something that happened on a host; numbered in its outbox and never lost.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum HostEvent {
    /// The inventory is new. The bytes are kept by the store; here they are parsed.
    InventoryChanged {
        /// SHA-256 over the bytes as sent.
        digest: String,
    },
    /// The order was taken into the agent's journal.
    Accepted,
    /// A step began.
    StepStarted {
        /// Name of the step, such as `install`.
        step: String,
        /// Position, from 1.
        index: u32,
        /// Number of steps.
        of: u32,
        /// Milliseconds until the step is given up.
        deadline_for_ms: u64,
    },
    /// A step ended.
    StepFinished {
        /// Name of the step.
        step: String,
        /// Whether it did what it should.
        ok: bool,
        /// Milliseconds it took.
        took_ms: u64,
    },
    /// The agent came back and found an order half done in its journal.
    Resumed {
        /// The step that was hit.
        step: String,
        /// What the journal decided: `repeat`, `continue`, `undo`.
        decision: String,
    },
    /// The order ended.
    Finished(OrderResult),
    /// A person set or lifted the local hold.
    HoldChanged {
        /// The reason; `None` when lifted.
        held: Option<String>,
    },
}
