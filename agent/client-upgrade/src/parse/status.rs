//! Answers of the client: `/local/Status` and `pmm-admin status --json`, of both majors. Read tolerantly: what is absent has its default.

use fleet_common::ids::without_pmm_prefix;
use fleet_common::inventory::ExporterState;
use fleet_common::version::PmmVersion;
use serde_json::Value;
use std::collections::BTreeMap;

/// What the client says of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClientStatus {
    /// Agent id, prefix removed.
    pub agent_id: String,
    /// Node id, prefix removed; empty while not connected.
    pub node_id: String,
    /// Whether it is connected to its server.
    pub connected: bool,
    /// Release of the running process.
    pub version: Option<PmmVersion>,
    /// Release of `pmm-admin`; only in `pmm-admin status`.
    pub admin_version: Option<PmmVersion>,
    /// The configuration file in use; only in `/local/Status`.
    pub config_file: String,
    /// Children by id, prefix removed.
    pub exporters: BTreeMap<String, ExporterState>,
    /// Executables of the children; only in `/local/Status`.
    pub executables: Vec<String>,
}

/// Reads `GET /local/Status`.
pub fn local(text: &str) -> Option<ClientStatus> {
    let document: Value = serde_json::from_str(text).ok()?;
    document.as_object()?;
    let agents = document.get("agents_info").and_then(Value::as_array);
    Some(ClientStatus {
        agent_id: id(&document, "agent_id"),
        node_id: id(&document, "runs_on_node_id"),
        connected: document
            .pointer("/server_info/connected")
            .and_then(Value::as_bool)
            .unwrap_or_default(),
        version: version(&document, "agent_version"),
        admin_version: None,
        config_file: text_of(&document, "config_filepath"),
        exporters: agents
            .map(|list| list.iter().filter_map(exporter).collect())
            .unwrap_or_default(),
        executables: agents
            .map(|list| {
                list.iter()
                    .map(|agent| text_of(agent, "process_exec_path"))
                    .filter(|path| !path.is_empty())
                    .collect()
            })
            .unwrap_or_default(),
    })
}

/// Reads `pmm-admin status --json`. There is no top-level agent version; it stands below `pmm_agent_status`.
pub fn admin(text: &str) -> Option<ClientStatus> {
    let document: Value = serde_json::from_str(text).ok()?;
    let status = document.get("pmm_agent_status")?;
    Some(ClientStatus {
        agent_id: id(status, "agent_id"),
        node_id: id(status, "node_id"),
        connected: status
            .get("connected")
            .and_then(Value::as_bool)
            .unwrap_or_default(),
        version: version(status, "agent_version"),
        admin_version: version(&document, "pmm_admin_version"),
        config_file: String::new(),
        exporters: status
            .get("agents")
            .and_then(Value::as_array)
            .map(|list| list.iter().filter_map(exporter).collect())
            .unwrap_or_default(),
        executables: Vec::new(),
    })
}

fn text_of(value: &Value, key: &str) -> String {
    value
        .get(key)
        .and_then(Value::as_str)
        .unwrap_or_default()
        .to_owned()
}

fn id(value: &Value, key: &str) -> String {
    without_pmm_prefix(&text_of(value, key)).to_owned()
}

fn version(value: &Value, key: &str) -> Option<PmmVersion> {
    PmmVersion::from_package_version(&text_of(value, key)).ok()
}

fn exporter(value: &Value) -> Option<(String, ExporterState)> {
    let id = id(value, "agent_id");
    let state = ExporterState {
        exporter_type: plain(&text_of(value, "agent_type"), "agent_type_"),
        status: plain(&text_of(value, "status"), "agent_status_"),
    };
    (!id.is_empty()).then_some((id, state))
}

/// Enum spellings without prefix and in lower case: PMM 3 writes `AGENT_STATUS_RUNNING` where PMM 2 writes `RUNNING`.
pub fn plain(text: &str, prefix: &str) -> String {
    let lower = text.to_ascii_lowercase();
    lower.strip_prefix(prefix).unwrap_or(&lower).to_owned()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn both_majors_give_the_same() {
        let old = r#"{"agent_id":"/agent_id/a","runs_on_node_id":"/node_id/n","server_info":{"url":"https://x/","connected":true,"version":"2.41.2"},
            "agents_info":[{"agent_id":"/agent_id/e","agent_type":"NODE_EXPORTER","status":"RUNNING","process_exec_path":"/p/pmm2/e"}],
            "config_filepath":"/c","agent_version":"2.41.2"}"#;
        let new = r#"{"agent_id":"a","runs_on_node_id":"n","node_name":"h","server_info":{"connected":true},
            "agents_info":[{"agent_id":"e","agent_type":"AGENT_TYPE_NODE_EXPORTER","status":"AGENT_STATUS_RUNNING"}],"agent_version":"3.9.1"}"#;
        let (old, new) = (local(old).unwrap(), local(new).unwrap());
        assert_eq!(old.exporters, new.exporters);
        assert_eq!(
            (old.agent_id, old.node_id, old.connected),
            (new.agent_id, new.node_id, new.connected)
        );
        assert_eq!(new.version.unwrap(), PmmVersion::new(3, 9, 1));
    }

    #[test]
    fn admin_status_has_the_version_below() {
        let text = r#"{"pmm_agent_status":{"agent_id":"a","node_id":"","agent_version":"3.9.1","agents":null,"connected":false},"pmm_admin_version":"3.9.1"}"#;
        let status = admin(text).unwrap();
        assert_eq!(status.version, status.admin_version);
        assert!(!status.connected);
    }

    #[test]
    fn nonsense_is_none() {
        assert_eq!(local("<html>"), None);
        assert_eq!(local("[]"), None);
        assert_eq!(admin("{}"), None);
    }
}
