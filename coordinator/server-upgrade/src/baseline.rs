//! What a PMM Server holds, in a form that the two majors share: ids without prefixes, enum words without prefixes, settings with PMM 3's
//! names and sense.

use fleet_common::verification::{FleetSnapshot, PmmService};
use fleet_common::version::PmmVersion;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;

/// The id that the server's own node and client have in both majors.
pub const SERVER_ID: &str = "pmm-server";

/// Everything that is compared.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Baseline {
    /// Unix milliseconds.
    pub taken_at_ms: u64,
    /// Release.
    pub version: Option<PmmVersion>,
    /// Nodes by id, the server's own included.
    pub nodes: BTreeMap<String, Node>,
    /// Services by id, the server's own included.
    pub services: BTreeMap<String, PmmService>,
    /// What PMM calls agents, by id.
    pub agents: BTreeMap<String, Exporter>,
    /// Settings, flattened and with PMM 3's names.
    pub settings: BTreeMap<String, String>,
    /// Series that were there at moments before the cut.
    pub history: Vec<HistoryProbe>,
    /// Queries that were there in a window before the cut.
    pub qan: Vec<QanProbe>,
    /// How much people made in Grafana, by what it is; what could not be counted is absent.
    #[serde(default)]
    pub grafana: BTreeMap<String, u64>,
    /// SHA-256 of each of [`KEPT_FILES`] that is there.
    #[serde(default)]
    pub files: BTreeMap<String, String>,
    /// The fleet as the rollout sees it, for the clients that have to come back.
    pub fleet: FleetSnapshot,
}

/// A node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Node {
    /// Unique name.
    pub name: String,
    /// Lower-case type without suffix, such as `generic`.
    pub node_type: String,
    /// Address.
    pub address: String,
}

/// What PMM calls an agent.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exporter {
    /// Type as the inventory's list is called, such as `mysqld_exporter`.
    pub exporter_type: String,
    /// Service or node that it watches, without prefix.
    pub watches: String,
    /// Client that runs it, without prefix.
    pub client: String,
    /// Switched off by the operator.
    pub disabled: bool,
    /// Whether its status was RUNNING. Anything else at the baseline must not fail the gate.
    pub running: bool,
    /// Whether the client pushes its metrics; `None` in what an older coordinator wrote down.
    #[serde(default)]
    pub push: Option<bool>,
}

/// Files on the data volume that no release may change: the certificate that clients are served, the key of what is encrypted in PMM's
/// database, the operator's own scrape configuration.
pub const KEPT_FILES: &[&str] = &[
    "/srv/nginx/certificate.crt",
    "/srv/pmm-encryption.key",
    "/srv/prometheus/prometheus.base.yml",
];

/// How many series a query had at a moment before the cut.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HistoryProbe {
    /// Prometheus query whose instant value is a count.
    pub query: String,
    /// Unix milliseconds at which it is evaluated.
    pub at_ms: u64,
    /// The count.
    pub series: u64,
}

/// How many queries Query Analytics had in a window before the cut.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct QanProbe {
    /// Unix milliseconds.
    pub from_ms: u64,
    /// Unix milliseconds.
    pub to_ms: u64,
    /// `total_rows` of the report.
    pub rows: u64,
}

/// Moments before the baseline at which history is probed, milliseconds. The nearest one is far enough back for buffered samples.
pub const HISTORY_MOMENTS_MS: &[u64] = &[30_000, 300_000, 3_600_000, 86_400_000];

/// An enum word of either major as one lower-case word: `AGENT_STATUS_RUNNING` and `RUNNING` are `running`.
pub fn plain_word(word: &str, prefix: &str, suffix: &str) -> String {
    let upper = word.to_ascii_uppercase();
    let word = upper.strip_prefix(prefix).unwrap_or(&upper);
    let word = word.strip_suffix(suffix).unwrap_or(word);
    word.to_ascii_lowercase()
}

/// PMM 2's names of settings, PMM 3's, and whether the sense is inverted (percona/pmm `managed/models/database.go`, schema 103 and 104;
/// `api/serverpb/server.proto` and `api/server/v1/server.proto`).
const SETTINGS: &[(&str, &str, bool)] = &[
    ("updates_disabled", "updates_enabled", true),
    ("stt_enabled", "advisor_enabled", false),
    ("telemetry_enabled", "telemetry_enabled", false),
    ("alerting_enabled", "alerting_enabled", false),
    ("backup_management_enabled", "backup_management_enabled", false),
    ("azurediscover_enabled", "azurediscover_enabled", false),
    ("enable_access_control", "enable_access_control", false),
    ("data_retention", "data_retention", false),
    ("metrics_resolutions.hr", "metrics_resolutions.hr", false),
    ("metrics_resolutions.mr", "metrics_resolutions.mr", false),
    ("metrics_resolutions.lr", "metrics_resolutions.lr", false),
    ("pmm_public_address", "pmm_public_address", false),
    ("ssh_key", "ssh_key", false),
];

/// Settings of either major with PMM 3's names. PMM 2 leaves out what is false or empty, so a missing member is that.
pub fn settings(raw: &Value, major: u32) -> BTreeMap<String, String> {
    let mut out = BTreeMap::new();
    for (old, new, inverted) in SETTINGS {
        let name = if major >= 3 { new } else { old };
        let pointer = format!("/{}", name.replace('.', "/"));
        let found = raw.pointer(&pointer);
        let flag = new.ends_with("_enabled") || new.starts_with("enable_");
        let text = match found {
            Some(Value::Bool(on)) => (*on ^ (*inverted && major < 3)).to_string(),
            Some(Value::String(text)) => text.clone(),
            Some(other) if !other.is_null() => other.to_string(),
            _ if flag => (*inverted && major < 3).to_string(),
            _ => String::new(),
        };
        out.insert((*new).to_owned(), text);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn words_of_both_majors() {
        for word in ["RUNNING", "AGENT_STATUS_RUNNING", "running"] {
            assert_eq!(plain_word(word, "AGENT_STATUS_", ""), "running");
        }
        for word in ["MYSQL_SERVICE", "SERVICE_TYPE_MYSQL_SERVICE"] {
            assert_eq!(plain_word(word, "SERVICE_TYPE_", "_SERVICE"), "mysql");
        }
    }

    #[test]
    fn settings_of_both_majors_agree() {
        let two = json!({"updates_disabled": true, "data_retention": "2592000s", "metrics_resolutions": {"hr": "5s", "mr": "10s", "lr": "60s"}, "alerting_enabled": true});
        let three = json!({"updates_enabled": false, "advisor_enabled": false, "telemetry_enabled": false, "alerting_enabled": true,
            "backup_management_enabled": false, "azurediscover_enabled": false, "enable_access_control": false, "data_retention": "2592000s",
            "metrics_resolutions": {"hr": "5s", "mr": "10s", "lr": "60s"}, "pmm_public_address": "", "ssh_key": ""});
        assert_eq!(settings(&two, 2), settings(&three, 3));
        assert_eq!(settings(&json!({}), 2)["updates_enabled"], "true");
    }
}
