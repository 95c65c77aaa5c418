//! Nodes and services come and go: `pmm-admin config`, `pmm-admin add`, `pmm-admin remove`, `pmm-admin unregister`.

use serde_json::{Value, json};

use super::{
    Managed,
    lists::{labels, service_json},
    model::{self, items, merge, text},
};
use crate::server::{grafana_push as push, http::Resp, ids, switches};

fn conflict(what: &str, name: &str) -> Resp {
    Resp::grpc(409, 6, &format!("{what} with name {name:?} already exists."))
}

/// Registers a node: the node, its client, the client's vmagent and node_exporter.
pub async fn node(state: &Managed, req: &Value) -> Result<Value, Resp> {
    let name = text(req, "node_name").to_owned();
    if name.is_empty() {
        return Err(Resp::grpc(
            400,
            3,
            "invalid RegisterNodeRequest.NodeName: value length must be at least 1 runes",
        ));
    }
    let kind = if text(req, "node_type").ends_with("CONTAINER_NODE") {
        "container"
    } else {
        "generic"
    };
    let v3 = state.v3;
    let push_metrics =
        text(req, "metrics_mode") != "PULL" && text(req, "metrics_mode") != "METRICS_MODE_PULL";
    state
        .change(|doc| {
            let old = items(doc, "nodes").find(|n| text(n, "node_name") == name).map(|n| text(n, "node_id").to_owned());
            if let Some(old) = old {
                if req["reregister"] != true {
                    return Err(conflict("Node", &name));
                }
                drop_node(doc, &old);
            }
            let (node_id, agent_id) = (ids::new("node", v3), ids::new("agent", v3));
            let mut node = json!({"node_id": node_id, "node_type": kind, "node_name": name, "custom_labels": labels(req)});
            for field in ["address", "machine_id", "distro", "node_model", "region", "az", "container_id", "container_name"] {
                node[field] = json!(text(req, field));
            }
            if !v3 && !text(&node, "machine_id").is_empty() && !text(&node, "machine_id").starts_with('/') {
                node["machine_id"] = json!(format!("/machine_id/{}", text(&node, "machine_id")));
            }
            let shown = json!({"node_id": node_id, "node_name": name, "machine_id": node["machine_id"], "distro": node["distro"], "address": node["address"], "custom_labels": labels(req)});
            push(doc, "nodes", node);
            push(doc, "agents", json!({"agent_id": agent_id, "agent_type": "pmm_agent", "runs_on_node_id": node_id}));
            for own in ["vmagent", "node_exporter"] {
                if own == "vmagent" && !push_metrics {
                    continue;
                }
                push(doc, "agents", child(own, &agent_id, v3, json!({"node_id": node_id, "push_metrics": push_metrics})));
            }
            Ok(json!({
                format!("{kind}_node"): shown,
                "pmm_agent": {"agent_id": agent_id, "runs_on_node_id": node_id, "custom_labels": {}, "connected": false},
                "token": "", "warning": "",
            }))
        })
        .await
}

fn child(kind: &str, pmm_agent_id: &str, v3: bool, more: Value) -> Value {
    let mut agent = json!({"agent_id": ids::new("agent", v3), "agent_type": kind, "pmm_agent_id": pmm_agent_id, "status": "", "listen_port": 0, "version": ""});
    merge(&mut agent, more);
    agent
}

fn drop_node(doc: &mut Value, id: &str) {
    let services: Vec<String> = items(doc, "services")
        .filter(|s| ids::same(text(s, "node_id"), id))
        .map(|s| text(s, "service_id").to_owned())
        .collect();
    let clients: Vec<String> = items(doc, "agents")
        .filter(|a| ids::same(text(a, "runs_on_node_id"), id))
        .map(|a| text(a, "agent_id").to_owned())
        .collect();
    retain(doc, "services", |s| {
        !services.iter().any(|i| i == text(s, "service_id"))
    });
    retain(doc, "agents", |a| {
        !(ids::same(text(a, "node_id"), id)
            || clients
                .iter()
                .any(|c| c == text(a, "agent_id") || c == text(a, "pmm_agent_id"))
            || services.iter().any(|s| s == text(a, "service_id")))
    });
    retain(doc, "nodes", |n| !ids::same(text(n, "node_id"), id));
}

fn retain(doc: &mut Value, list: &str, keep: impl Fn(&Value) -> bool) {
    if let Some(all) = doc[list].as_array_mut() {
        all.retain(|i| keep(i));
    }
}

/// Removes a node with its client; with `force` also with services and agents.
pub async fn unregister(state: &Managed, id: &str, force: bool) -> Result<Value, Resp> {
    state
        .change(|doc| {
            if model::find(doc, "nodes", "node_id", id).is_none() {
                return Err(Resp::grpc(404, 5, &format!("Node with ID {id:?} not found.")));
            }
            if !force && items(doc, "services").any(|s| ids::same(text(s, "node_id"), id)) {
                return Err(Resp::grpc(400, 9, &format!("Node with ID {id:?} has services.")));
            }
            drop_node(doc, id);
            Ok(json!({"warning": ""}))
        })
        .await
}

/// Registers a Kubernetes cluster for DBaaS (percona/pmm api/managementpb/dbaas/kubernetes.proto); PMM 3 has no DBaaS (release notes 3.0.0).
pub async fn kubernetes(state: &Managed, req: &Value) -> Result<Value, Resp> {
    let name = text(req, "kubernetes_cluster_name").to_owned();
    state
        .change(|doc| {
            if name.is_empty() {
                return Err(Resp::grpc(
                    400,
                    3,
                    "invalid field KubernetesClusterName: must not be empty",
                ));
            }
            if items(doc, "kubernetes_clusters").any(|c| text(c, "kubernetes_cluster_name") == name) {
                return Err(conflict("Kubernetes Cluster", &name));
            }
            push(
                doc,
                "kubernetes_clusters",
                json!({"kubernetes_cluster_name": name, "status": "KUBERNETES_CLUSTER_STATUS_OK"}),
            );
            Ok(json!({}))
        })
        .await
}

/// The agents that a request for a service of a kind creates: type and request field (empty: always).
fn agents_of(kind: &str) -> &'static [(&'static str, &'static str)] {
    match kind {
        "mysql" => &[
            ("mysqld_exporter", ""),
            ("qan_mysql_slowlog_agent", "qan_mysql_slowlog"),
            ("qan_mysql_perfschema_agent", "qan_mysql_perfschema"),
        ],
        "mongodb" => &[
            ("mongodb_exporter", ""),
            ("qan_mongodb_profiler_agent", "qan_mongodb_profiler"),
            ("qan_mongodb_mongolog_agent", "qan_mongodb_mongolog"),
        ],
        "postgresql" => &[
            ("postgres_exporter", ""),
            (
                "qan_postgresql_pgstatements_agent",
                "qan_postgresql_pgstatements_agent",
            ),
            (
                "qan_postgresql_pgstatmonitor_agent",
                "qan_postgresql_pgstatmonitor_agent",
            ),
        ],
        _ => &[("proxysql_exporter", "")],
    }
}

/// Adds a service with its agents.
pub async fn service(state: &Managed, kind: &'static str, req: &Value) -> Result<Value, Resp> {
    let name = text(req, "service_name").to_owned();
    if name.is_empty() {
        return Err(Resp::grpc(
            400,
            3,
            "invalid AddServiceParams.ServiceName: value length must be at least 1 runes",
        ));
    }
    let v3 = state.v3;
    state
        .change(|doc| {
            if items(doc, "services").any(|s| text(s, "service_name") == name) {
                return Err(conflict("Service", &name));
            }
            let node_id = model::find(doc, "nodes", "node_id", text(req, "node_id")).map(|n| text(n, "node_id").to_owned());
            let Some(node_id) = node_id else {
                return Err(Resp::grpc(404, 5, &format!("Node with ID {:?} not found.", text(req, "node_id"))));
            };
            let agent = model::find(doc, "agents", "agent_id", text(req, "pmm_agent_id")).map(|a| text(a, "agent_id").to_owned());
            let Some(agent_id) = agent else {
                return Err(Resp::grpc(404, 5, &format!("Agent with ID {:?} not found.", text(req, "pmm_agent_id"))));
            };
            let service_id = ids::new("service", v3);
            let mut service = json!({"service_id": service_id, "service_type": kind, "service_name": name, "node_id": node_id, "custom_labels": labels(req), "port": req["port"].as_u64().unwrap_or(0)});
            for field in ["address", "socket", "environment", "cluster", "replication_set"] {
                service[field] = json!(text(req, field));
            }
            service["database_name"] = json!(text(req, "database"));
            let mut answer = json!({"service": service_json(&service, v3)});
            push(doc, "services", service);
            for (agent_type, field) in agents_of(kind) {
                let asked = field.is_empty() || req[*field] == true || req[field.trim_end_matches("_agent")] == true;
                if !asked || (agent_type.ends_with("mongolog_agent") && !v3) {
                    continue;
                }
                let push_metrics = !agent_type.starts_with("qan_");
                let agent = child(agent_type, &agent_id, v3, json!({"service_id": service_id, "username": text(req, "username"), "password": if v3 { encrypted(text(req, "password")) } else { text(req, "password").to_owned() }, "push_metrics": push_metrics}));
                let shown = if field.is_empty() { *agent_type } else { field.trim_end_matches("_agent") };
                answer[shown] = json!({"agent_id": agent["agent_id"], "pmm_agent_id": agent_id, "service_id": service_id});
                push(doc, "agents", agent);
            }
            Ok(answer)
        })
        .await
}

/// PMM 3 encrypts what it stores; here it is enough that it cannot be read by eye.
pub fn encrypted(text: &str) -> String {
    use base64::Engine;
    if text.is_empty() || text.starts_with("enc:") {
        return text.to_owned();
    }
    format!("enc:{}", base64::engine::general_purpose::STANDARD.encode(text))
}

/// The inverse of [`encrypted`].
pub fn decrypted(stored: &str) -> String {
    use base64::Engine;
    let Some(text) = stored.strip_prefix("enc:") else {
        return stored.to_owned();
    };
    let bytes = base64::engine::general_purpose::STANDARD
        .decode(text)
        .unwrap_or_default();
    String::from_utf8_lossy(&bytes).into_owned()
}

/// PMM 3 adds every kind of service at one address.
pub async fn service_v3(state: &Managed, req: &Value) -> Result<Value, Resp> {
    for kind in ["mysql", "mongodb", "postgresql", "proxysql"] {
        if req[kind].is_object() {
            return Ok(json!({kind: service(state, kind, &req[kind]).await?}));
        }
    }
    Err(Resp::grpc(400, 3, "invalid service type"))
}

/// Removes a service with its agents.
pub async fn remove_service(state: &Managed, req: &Value) -> Result<Value, Resp> {
    let (id, name) = (text(req, "service_id"), text(req, "service_name"));
    state
        .change(|doc| {
            let found = items(doc, "services")
                .find(|s| {
                    (!id.is_empty() && ids::same(text(s, "service_id"), id))
                        || (!name.is_empty() && text(s, "service_name") == name)
                        || text(s, "service_name") == id
                })
                .map(|s| text(s, "service_id").to_owned());
            let Some(found) = found else {
                return Err(Resp::grpc(404, 5, &format!("Service with ID {id:?} not found.")));
            };
            retain(doc, "agents", |a| text(a, "service_id") != found);
            retain(doc, "services", |s| text(s, "service_id") != found);
            Ok(json!({}))
        })
        .await
}

/// Drops the rows of clients that a broken migration loses.
pub fn lose(doc: &mut Value, names: &[String]) {
    let nodes: Vec<String> = items(doc, "nodes")
        .filter(|n| {
            switches::names(names, &[text(n, "node_id"), text(n, "node_name")])
                && text(n, "node_id") != "pmm-server"
        })
        .map(|n| text(n, "node_id").to_owned())
        .collect();
    for id in nodes {
        drop_node(doc, &id);
    }
}
