//! Documents that the operator API answers with; the same JSON that `--json` prints.

use crate::sessions::HostProgress;
use crate::store::WaitingPlan;
use fleet_common::inventory::{Detection, Inventory, RunKind};
use fleet_common::order::OrderResult;
use fleet_common::survey::{Finding, HostSurvey};
use rollout::explain::ExplainDocument;
use rollout::kernel::FleetEvent;
use rollout::plan::{Plan, PlanDiff};
use rollout::progress::StatusDocument;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// A new join token. The only place where the secret ever appears.
#[derive(Debug, Serialize, Deserialize)]
pub struct TokenDocument {
    /// `id.secret.sha256(CA key)`.
    pub token: String,
    /// Public part.
    pub token_id: String,
    /// Label.
    pub group: String,
    /// Machines that may join.
    pub uses: u32,
    /// RFC 3339.
    pub expires_at: String,
}

/// All hosts.
#[derive(Debug, Serialize, Deserialize)]
pub struct HostsDocument {
    /// By name.
    pub hosts: Vec<HostDocument>,
}

/// One host.
#[derive(Debug, Serialize, Deserialize)]
pub struct HostDocument {
    /// Identity.
    pub host: String,
    /// Name.
    pub name: String,
    /// Label of its join token.
    pub group_label: String,
    /// Has a session now.
    pub connected: bool,
    /// `ok`, `held`, `quarantined`, `revoked`.
    pub state: String,
    /// Why, where the state has a reason.
    pub reason: Option<String>,
    /// RFC 3339.
    pub enrolled_at: String,
    /// RFC 3339; empty when it never connected.
    pub last_seen: String,
    /// Release of the agent.
    pub agent_version: String,
    /// `deb`, `rpm`, `tarball`, or why there is none.
    pub method: String,
    /// PMM release of the client.
    pub client_version: String,
    /// `systemd`, `by hand`, `stopped`.
    pub run: String,
    /// Labels from the agent's configuration.
    pub labels: BTreeMap<String, String>,
    /// `ready`, `not ready`, or empty without a survey.
    pub survey: String,
    /// RFC 3339; empty without a survey.
    pub surveyed_at: String,
    /// Findings of the survey.
    pub findings: Vec<Finding>,
    /// The whole inventory; only in `host show`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub inventory: Option<Inventory>,
}

/// Short answer to a command that changed something.
#[derive(Debug, Serialize, Deserialize)]
pub struct DoneDocument {
    /// What was done.
    pub done: String,
}

/// How an action on one host ended.
#[derive(Debug, Serialize, Deserialize)]
pub struct HostActionDocument {
    /// Identity.
    pub host: String,
    /// Name.
    pub name: String,
    /// The action's word.
    pub action: String,
    /// The result, as the agent gave it.
    #[serde(flatten)]
    pub result: OrderResult,
}

/// A file that was taken in.
#[derive(Debug, Serialize, Deserialize)]
pub struct ArtifactDocument {
    /// Its name.
    pub file: String,
    /// SHA-256, lower-case hex.
    pub sha256: String,
    /// Bytes.
    pub length: u64,
}

/// A plan with its id.
#[derive(Debug, Serialize, Deserialize)]
pub struct PlanDocument {
    /// Digest of the stored bytes.
    pub plan_id: String,
    /// Whether a rollout of it was started.
    pub started: bool,
    /// The command that carries it out, if one does now: `start` or `adopt` with its id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
    /// What it does other than its parent, if that one was started: for a plan made while the parent runs, what it adds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub against_parent: Option<PlanDiff>,
    /// The plan.
    pub plan: Plan,
}

/// What is different between two plans.
#[derive(Debug, Serialize, Deserialize)]
pub struct PlanDiffDocument {
    /// The plan that is compared.
    pub from: String,
    /// The other plan; `now` for the fleet as it is.
    pub to: String,
    /// The differences.
    #[serde(flatten)]
    pub diff: PlanDiff,
}

/// The status with what hosts said last; the latter is never stored.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct LiveStatus {
    /// The rollout.
    #[serde(flatten)]
    pub status: StatusDocument,
    /// Latest progress by host id.
    pub progress: BTreeMap<String, HostProgress>,
    /// Agents have seen more than the store gave: nothing begins before an operator adopts it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub store_restored: Option<String>,
    /// A plan that follows the running one and waits for `adopt`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waiting_plan: Option<WaitingPlanDocument>,
}

/// A plan that was made while a rollout runs, and that it could adopt.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct WaitingPlanDocument {
    /// The plan.
    pub plan: String,
    /// The plan that runs.
    pub follows: String,
    /// When it was made.
    pub made_at_ms: u64,
}

impl From<WaitingPlan> for WaitingPlanDocument {
    fn from(waiting: WaitingPlan) -> Self {
        Self {
            plan: waiting.plan.to_string(),
            follows: waiting.follows.to_string(),
            made_at_ms: waiting.made_at_ms,
        }
    }
}

/// Events of the newest rollout.
#[derive(Debug, Serialize, Deserialize)]
pub struct EventsDocument {
    /// The rollout.
    pub rollout: String,
    /// In order.
    pub events: Vec<NumberedEvent>,
}

/// One event with its number.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct NumberedEvent {
    /// Number within the rollout, from 1.
    pub sequence: u64,
    /// What happened.
    #[serde(flatten)]
    pub event: FleetEvent,
}

/// Why something is where it is, with its last events.
#[derive(Debug, Serialize, Deserialize)]
pub struct ExplainedDocument {
    /// The explanation.
    #[serde(flatten)]
    pub explained: ExplainDocument,
    /// Its last events.
    pub events: Vec<NumberedEvent>,
}

/// Method, release and way of running in words.
pub fn client_words(inventory: Option<&Inventory>) -> (String, String, String) {
    match inventory.map(|inventory| &inventory.client) {
        None => ("unknown".to_owned(), String::new(), String::new()),
        Some(Detection::NotInstalled) => ("none".to_owned(), String::new(), String::new()),
        Some(Detection::Refused { code, .. }) => (format!("refused: {code}"), String::new(), String::new()),
        Some(Detection::Installed(found)) => {
            let run = match &found.run {
                RunKind::Systemd { .. } => "systemd".to_owned(),
                RunKind::ByHand { user } => format!("by hand ({user})"),
                RunKind::Stopped => "stopped".to_owned(),
            };
            (found.method.to_string(), found.version.to_string(), run)
        }
    }
}

/// A survey in one word.
pub fn survey_word(survey: Option<&HostSurvey>) -> String {
    match survey {
        None => String::new(),
        Some(survey) if survey.ready() => "ready".to_owned(),
        Some(_) => "not ready".to_owned(),
    }
}
