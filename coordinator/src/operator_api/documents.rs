//! Documents that the operator API answers with; the same JSON that `--json` prints.

use fleet_common::inventory::{Detection, Inventory, RunKind};
use fleet_common::survey::{Finding, HostSurvey};
use serde::{Deserialize, Serialize};

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
    pub labels: std::collections::BTreeMap<String, String>,
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
