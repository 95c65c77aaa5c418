//! The inventory as pmm-managed stores it: lists of nodes, services and agents in one document, ids in the form of the major.

use serde_json::{Value, json};

use crate::server::{ids, version::Version};

/// One kind of agent: the name it is stored and sent to clients under, its list in the inventory, its name in the management list.
pub struct Kind {
    /// As it is stored.
    pub stored: &'static str,
    /// Its list in the inventory; upper-cased it is the enum value.
    pub list: &'static str,
    /// In the management list.
    pub model: &'static str,
    /// Whether only PMM 3 has it.
    pub v3_only: bool,
}

const fn kind(stored: &'static str, list: &'static str, model: &'static str, v3_only: bool) -> Kind {
    Kind {
        stored,
        list,
        model,
        v3_only,
    }
}

/// Every kind of agent.
pub const KINDS: &[Kind] = &[
    kind("pmm_agent", "pmm_agent", "pmm-agent", false),
    kind("vmagent", "vm_agent", "vmagent", false),
    kind("node_exporter", "node_exporter", "node_exporter", false),
    kind("mysqld_exporter", "mysqld_exporter", "mysqld_exporter", false),
    kind("mongodb_exporter", "mongodb_exporter", "mongodb_exporter", false),
    kind(
        "postgres_exporter",
        "postgres_exporter",
        "postgres_exporter",
        false,
    ),
    kind(
        "proxysql_exporter",
        "proxysql_exporter",
        "proxysql_exporter",
        false,
    ),
    kind(
        "qan_mysql_perfschema_agent",
        "qan_mysql_perfschema_agent",
        "qan-mysql-perfschema-agent",
        false,
    ),
    kind(
        "qan_mysql_slowlog_agent",
        "qan_mysql_slowlog_agent",
        "qan-mysql-slowlog-agent",
        false,
    ),
    kind(
        "qan_mongodb_profiler_agent",
        "qan_mongodb_profiler_agent",
        "qan-mongodb-profiler-agent",
        false,
    ),
    kind(
        "qan_postgresql_pgstatements_agent",
        "qan_postgresql_pgstatements_agent",
        "qan-postgresql-pgstatements-agent",
        false,
    ),
    kind(
        "qan_postgresql_pgstatmonitor_agent",
        "qan_postgresql_pgstatmonitor_agent",
        "qan-postgresql-pgstatmonitor-agent",
        false,
    ),
    kind("rds_exporter", "rds_exporter", "rds_exporter", false),
    kind(
        "external_exporter",
        "external_exporter",
        "external-exporter",
        false,
    ),
    kind(
        "azure_database_exporter",
        "azure_database_exporter",
        "azure_database_exporter",
        false,
    ),
    kind("nomad_agent", "nomad_agent", "nomad-agent", true),
    kind("valkey_exporter", "valkey_exporter", "valkey_exporter", true),
    kind(
        "qan_mongodb_mongolog_agent",
        "qan_mongodb_mongolog_agent",
        "qan-mongodb-mongolog-agent",
        true,
    ),
    kind(
        "rta_mongodb_agent",
        "rta_mongodb_agent",
        "rta-mongodb-agent",
        true,
    ),
];

/// The service types, with their enum values in PMM 2.
pub const SERVICES: &[(&str, &str, bool)] = &[
    ("mysql", "MYSQL_SERVICE", false),
    ("mongodb", "MONGODB_SERVICE", false),
    ("postgresql", "POSTGRESQL_SERVICE", false),
    ("proxysql", "PROXYSQL_SERVICE", false),
    ("haproxy", "HAPROXY_SERVICE", false),
    ("external", "EXTERNAL_SERVICE", false),
    ("valkey", "VALKEY_SERVICE", true),
];

/// The node types, with their enum values in PMM 2.
pub const NODES: &[(&str, &str)] = &[
    ("generic", "GENERIC_NODE"),
    ("container", "CONTAINER_NODE"),
    ("remote", "REMOTE_NODE"),
    ("remote_rds", "REMOTE_RDS_NODE"),
    ("remote_azure_database", "REMOTE_AZURE_DATABASE_NODE"),
];

/// The items of a list.
pub fn items<'a>(doc: &'a Value, list: &str) -> impl Iterator<Item = &'a Value> + use<'a> {
    doc[list].as_array().into_iter().flatten()
}

/// The items of a list, to change.
pub fn items_mut<'a>(doc: &'a mut Value, list: &str) -> std::slice::IterMut<'a, Value> {
    doc[list].as_array_mut().map(|l| l.iter_mut()).unwrap_or_default()
}

/// A field as text.
pub fn text<'a>(item: &'a Value, field: &str) -> &'a str {
    item[field].as_str().unwrap_or_default()
}

/// The item whose id is the given one, in whatever form.
pub fn find<'a>(doc: &'a Value, list: &str, field: &str, id: &str) -> Option<&'a Value> {
    (!id.is_empty())
        .then(|| items(doc, list).find(|i| ids::same(text(i, field), id)))
        .flatten()
}

/// What a new installation has: the server's own node, client, database and agents.
pub fn fresh(version: Version) -> Value {
    let v3 = version.is_v3();
    let service = ids::new("service", v3);
    let agent = |kind: &str, more: Value| {
        let mut agent = json!({"agent_id": ids::new("agent", v3), "agent_type": kind, "pmm_agent_id": "pmm-server", "status": "", "listen_port": 0});
        merge(&mut agent, more);
        agent
    };
    let base = if v3 {
        "/usr/local/percona/pmm"
    } else {
        "/usr/local/percona/pmm2"
    };
    json!({
        "schema": {"version": version.schema(), "passed": [version.to_string()]},
        "nodes": [{"node_id": "pmm-server", "node_type": "generic", "node_name": "pmm-server", "address": "127.0.0.1"}],
        "services": [{"service_id": service, "service_type": "postgresql", "service_name": "pmm-server-postgresql", "node_id": "pmm-server", "address": "127.0.0.1", "port": 5432, "database_name": "postgres"}],
        "agents": [
            {"agent_id": "pmm-server", "agent_type": "pmm_agent", "runs_on_node_id": "pmm-server", "version": version.to_string(), "process_exec_path": format!("{base}/exporters/node_exporter")},
            agent("node_exporter", json!({"node_id": "pmm-server"})),
            agent("postgres_exporter", json!({"service_id": service, "username": "postgres"})),
            agent("qan_postgresql_pgstatements_agent", json!({"service_id": service, "username": "postgres"})),
        ],
        "settings": super::settings::fresh(version),
        "scheduled_backups": [],
        "backup_locations": [],
        "artifacts": [],
        "kubernetes_clusters": [],
        "ia_rules": [],
        "ia_channels": [],
        "encrypted": v3,
    })
}

/// Puts the fields of one object into another.
pub fn merge(into: &mut Value, from: Value) {
    if let (Value::Object(into), Value::Object(from)) = (into, from) {
        into.extend(from);
    }
}

/// The text of an enum's value on the wire of a major: `MYSQL_SERVICE` or `SERVICE_TYPE_MYSQL_SERVICE`.
pub fn spelled(prefix: &str, word: &str, v3: bool) -> String {
    if v3 {
        format!("{prefix}{word}")
    } else {
        word.to_owned()
    }
}

/// Whether a requested enum value means a word; empty and unspecified requests mean everything.
pub fn asks_for(requested: &str, prefix: &str, word: &str) -> bool {
    requested.is_empty()
        || requested.ends_with("_UNSPECIFIED")
        || requested.ends_with("_INVALID")
        || requested.strip_prefix(prefix).unwrap_or(requested) == word
}
