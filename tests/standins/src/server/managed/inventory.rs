//! Agents of the inventory and of the management lists, in the shape of each major, and the clients' versions.

use serde_json::{Map, Value, json};

use super::{
    Managed,
    lists::{labels, service_json},
    model::{self, KINDS, asks_for, items, text},
};
use crate::server::{
    http::Resp,
    ids,
    switches::{self, Switches},
    version::Version,
};

/// Whether a client is shown as connected; the switch makes it a lie.
fn shown_connected(state: &Managed, doc: &Value, agent: &Value) -> bool {
    let id = text(agent, "agent_id");
    let node = model::find(doc, "nodes", "node_id", text(agent, "runs_on_node_id"))
        .map_or("", |n| text(n, "node_name"));
    state.connected(id) && !switches::names(&Switches::now().connected_lie, &[id, ids::bare(id), node])
}

/// The bare status word of an agent.
fn status(state: &Managed, doc: &Value, agent: &Value) -> String {
    let parent = model::find(doc, "agents", "agent_id", text(agent, "pmm_agent_id"));
    if !parent.is_some_and(|p| shown_connected(state, doc, p)) {
        return "UNKNOWN".to_owned();
    }
    if agent["disabled"] == true {
        return "DONE".to_owned();
    }
    match text(agent, "status") {
        "" => "STARTING".to_owned(),
        word => word.to_owned(),
    }
}

fn agent_json(state: &Managed, doc: &Value, agent: &Value) -> Value {
    let mut out = json!({"agent_id": agent["agent_id"], "custom_labels": labels(agent)});
    if text(agent, "agent_type") == "pmm_agent" {
        out["runs_on_node_id"] = json!(text(agent, "runs_on_node_id"));
        out["connected"] = json!(shown_connected(state, doc, agent));
        out["process_exec_path"] = json!(text(agent, "process_exec_path"));
        return out;
    }
    for field in [
        "pmm_agent_id",
        "service_id",
        "node_id",
        "username",
        "process_exec_path",
    ] {
        out[field] = json!(text(agent, field));
    }
    out["disabled"] = json!(agent["disabled"] == true);
    out["listen_port"] = json!(agent["listen_port"].as_u64().unwrap_or(0));
    out["push_metrics_enabled"] = json!(agent["push_metrics"] == true);
    // External exporters have no status before the newer 3.x.
    if text(agent, "agent_type") != "external_exporter" || state.version >= Version::new(3, 7, 0) {
        out["status"] = json!(model::spelled(
            "AGENT_STATUS_",
            &status(state, doc, agent),
            state.v3
        ));
    }
    if state.v3 {
        out["log_level"] = json!("LOG_LEVEL_UNSPECIFIED");
    }
    out
}

/// Agents by type.
pub fn agents(state: &Managed, req: &Value) -> Result<Value, Resp> {
    let filters = ["pmm_agent_id", "node_id", "service_id"];
    if filters.iter().filter(|f| !text(req, f).is_empty()).count() > 1 {
        return Err(Resp::grpc(
            400,
            3,
            "expected at most one param: pmm_agent_id, node_id or service_id",
        ));
    }
    let doc = state.doc();
    let mut out = Map::new();
    for kind in KINDS.iter().filter(|k| state.v3 || !k.v3_only) {
        let wanted = asks_for(text(req, "agent_type"), "AGENT_TYPE_", &kind.list.to_uppercase());
        let list = items(&doc, "agents")
            .filter(|a| wanted && text(a, "agent_type") == kind.stored)
            .filter(|a| {
                filters
                    .iter()
                    .all(|f| text(req, f).is_empty() || ids::same(text(req, f), text(a, f)))
            })
            .map(|a| agent_json(state, &doc, a))
            .collect();
        out.insert(kind.list.to_owned(), Value::Array(list));
    }
    Ok(Value::Object(out))
}

/// One agent.
pub fn agent(state: &Managed, id: &str) -> Result<Value, Resp> {
    let doc = state.doc();
    let agent = model::find(&doc, "agents", "agent_id", id)
        .ok_or_else(|| Resp::grpc(404, 5, &format!("Agent with ID \"{id}\" not found.")))?;
    let list = KINDS
        .iter()
        .find(|k| k.stored == text(agent, "agent_type"))
        .map_or("pmm_agent", |k| k.list);
    Ok(json!({list: agent_json(state, &doc, agent)}))
}

fn management_agent(state: &Managed, doc: &Value, agent: &Value) -> Value {
    let stored = text(agent, "agent_type");
    let client = stored == "pmm_agent";
    let parent = model::find(doc, "agents", "agent_id", text(agent, "pmm_agent_id"));
    let connected = if client {
        shown_connected(state, doc, agent)
    } else {
        parent.is_some_and(|p| shown_connected(state, doc, p))
    };
    let status = if client {
        String::new()
    } else {
        model::spelled("AGENT_STATUS_", &status(state, doc, agent), state.v3)
    };
    json!({
        "agent_id": agent["agent_id"],
        "agent_type": KINDS.iter().find(|k| k.stored == stored).map_or(stored, |k| k.model),
        "custom_labels": labels(agent),
        "disabled": agent["disabled"] == true,
        "is_connected": client && connected,
        "listen_port": agent["listen_port"].as_u64().unwrap_or(0),
        "node_id": text(agent, "node_id"),
        "runs_on_node_id": text(agent, "runs_on_node_id"),
        "pmm_agent_id": text(agent, "pmm_agent_id"),
        "service_id": text(agent, "service_id"),
        "process_exec_path": text(agent, "process_exec_path"),
        "push_metrics": agent["push_metrics"] == true,
        "status": status,
        "username": text(agent, "username"),
        "version": text(agent, "version"),
    })
}

/// The management list of agents: of a service or of a node.
pub fn management_agents(state: &Managed, req: &Value) -> Result<Value, Resp> {
    let doc = state.doc();
    let (service, node) = (text(req, "service_id"), text(req, "node_id"));
    let all: Vec<&Value> = match (service, node) {
        ("", "") => return Err(Resp::grpc(400, 3, "Either service_id or node_id is expected.")),
        ("", node) => {
            let mine = |a: &&Value| {
                ids::same(text(a, "node_id"), node) || ids::same(text(a, "runs_on_node_id"), node)
            };
            items(&doc, "agents").filter(mine).collect()
        }
        (service, "") => {
            let own: Vec<&Value> = items(&doc, "agents")
                .filter(|a| ids::same(text(a, "service_id"), service))
                .collect();
            let clients: Vec<&Value> = items(&doc, "agents")
                .filter(|c| {
                    text(c, "agent_type") == "pmm_agent"
                        && own
                            .iter()
                            .any(|a| ids::same(text(a, "pmm_agent_id"), text(c, "agent_id")))
                })
                .collect();
            own.into_iter().chain(clients).collect()
        }
        _ => {
            return Err(Resp::grpc(
                400,
                3,
                "Either service_id or node_id is expected, not both.",
            ));
        }
    };
    Ok(json!({"agents": all.into_iter().map(|a| management_agent(state, &doc, a)).collect::<Vec<_>>()}))
}

/// The management list of services.
pub fn management_services(state: &Managed) -> Value {
    let doc = state.doc();
    let list: Vec<Value> = items(&doc, "services")
        .map(|s| {
            let mut out = service_json(s, state.v3);
            let id = text(s, "service_id");
            out["service_type"] = json!(text(s, "service_type"));
            out["node_name"] = json!(
                model::find(&doc, "nodes", "node_id", text(s, "node_id"))
                    .map_or("", |n| text(n, "node_name"))
            );
            out["status"] = json!(if state.v3 { "STATUS_UP" } else { "UP" });
            out["agents"] = items(&doc, "agents")
                .filter(|a| text(a, "service_id") == id)
                .map(|a| management_agent(state, &doc, a))
                .collect();
            out
        })
        .collect();
    json!({"services": list})
}

/// The management list of nodes.
pub fn management_nodes(state: &Managed) -> Value {
    let doc = state.doc();
    let list: Vec<Value> = items(&doc, "nodes")
        .map(|n| {
            let id = text(n, "node_id");
            let agents: Vec<Value> = items(&doc, "agents")
                .filter(|a| text(a, "node_id") == id || text(a, "runs_on_node_id") == id)
                .map(|a| management_agent(state, &doc, a))
                .collect();
            let services: Vec<Value> = items(&doc, "services")
                .filter(|s| text(s, "node_id") == id)
                .map(|s| json!({"service_id": s["service_id"], "service_type": s["service_type"], "service_name": s["service_name"]}))
                .collect();
            json!({
                "node_id": id, "node_name": text(n, "node_name"), "node_type": text(n, "node_type"), "address": text(n, "address"),
                "machine_id": text(n, "machine_id"), "distro": text(n, "distro"), "custom_labels": labels(n),
                "status": if state.v3 { "STATUS_UP" } else { "UP" }, "agents": agents, "services": services,
            })
        })
        .collect();
    json!({"nodes": list})
}

/// The clients' versions with what is to be thought of each. Disabled agents, agents without a node and unreadable versions are left out.
pub fn versions(state: &Managed) -> Value {
    let doc = state.doc();
    let list: Vec<Value> = items(&doc, "agents")
        .filter(|a| text(a, "agent_type") == "pmm_agent" && a["disabled"] != true)
        .filter_map(|a| {
            let node = model::find(&doc, "nodes", "node_id", text(a, "runs_on_node_id"))?;
            let version: Version = text(a, "version").parse().ok()?;
            let severity = severity(version, state.version);
            Some(json!({"agent_id": a["agent_id"], "version": text(a, "version"), "node_name": text(node, "node_name"), "severity": severity}))
        })
        .collect();
    json!({"agent_versions": list})
}

fn severity(client: Version, server: Version) -> &'static str {
    if client > server {
        "UPDATE_SEVERITY_UNSUPPORTED"
    } else if client == server {
        "UPDATE_SEVERITY_UP_TO_DATE"
    } else if client.major == server.major {
        "UPDATE_SEVERITY_REQUIRED"
    } else {
        "UPDATE_SEVERITY_CRITICAL"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_older_major_is_critical() {
        let server = Version::new(3, 7, 1);
        assert_eq!(
            severity(Version::new(2, 44, 1), server),
            "UPDATE_SEVERITY_CRITICAL"
        );
        assert_eq!(
            severity(Version::new(3, 2, 0), server),
            "UPDATE_SEVERITY_REQUIRED"
        );
        assert_eq!(severity(server, server), "UPDATE_SEVERITY_UP_TO_DATE");
        assert_eq!(
            severity(Version::new(3, 9, 1), server),
            "UPDATE_SEVERITY_UNSUPPORTED"
        );
    }
}
