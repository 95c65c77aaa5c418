//! Nodes and services of the inventory, in the shape of each major.

use serde_json::{Map, Value, json};

use super::{
    Managed,
    model::{self, NODES, SERVICES, asks_for, items, text},
};
use crate::server::{http::Resp, ids};

fn node_json(node: &Value, v3: bool) -> Value {
    let mut out = json!({});
    for field in [
        "node_id",
        "node_name",
        "address",
        "machine_id",
        "distro",
        "node_model",
        "region",
        "az",
        "container_id",
        "container_name",
    ] {
        out[field] = json!(text(node, field));
    }
    out["custom_labels"] = labels(node);
    if v3 {
        out["is_pmm_server_node"] = json!(text(node, "node_id") == "pmm-server");
        out["instance_id"] = json!(text(node, "instance_id"));
    }
    out
}

/// The custom labels of an item.
pub fn labels(item: &Value) -> Value {
    item.get("custom_labels")
        .filter(|l| l.is_object())
        .cloned()
        .unwrap_or_else(|| json!({}))
}

/// Nodes by type.
pub fn nodes(state: &Managed, req: &Value) -> Value {
    let doc = state.doc();
    let mut out = Map::new();
    for (kind, word) in NODES {
        let wanted = asks_for(text(req, "node_type"), "NODE_TYPE_", word);
        let list = items(&doc, "nodes")
            .filter(|n| wanted && text(n, "node_type") == *kind)
            .map(|n| node_json(n, state.v3))
            .collect();
        out.insert((*kind).to_owned(), Value::Array(list));
    }
    Value::Object(out)
}

/// One node.
pub fn node(state: &Managed, id: &str) -> Result<Value, Resp> {
    let doc = state.doc();
    let node = model::find(&doc, "nodes", "node_id", id)
        .ok_or_else(|| Resp::grpc(404, 5, &format!("Node with ID \"{id}\" not found.")))?;
    Ok(json!({text(node, "node_type"): node_json(node, state.v3)}))
}

/// A service as the inventory shows it.
pub fn service_json(service: &Value, v3: bool) -> Value {
    let mut out = json!({});
    for field in [
        "service_id",
        "service_name",
        "node_id",
        "address",
        "socket",
        "environment",
        "cluster",
        "replication_set",
    ] {
        out[field] = json!(text(service, field));
    }
    out["port"] = json!(service["port"].as_u64().unwrap_or(0));
    out["custom_labels"] = labels(service);
    match text(service, "service_type") {
        "postgresql" => {
            out["database_name"] = json!(text(service, "database_name"));
            out["auto_discovery_limit"] = json!(0);
        }
        "external" => out["group"] = json!(service["external_group"].as_str().unwrap_or("external")),
        _ => {}
    }
    if v3 {
        out["version"] = json!(text(service, "version"));
    }
    out
}

/// Services by type.
pub fn services(state: &Managed, req: &Value) -> Value {
    let doc = state.doc();
    let mut out = Map::new();
    let node = text(req, "node_id");
    for (kind, word, v3_only) in SERVICES {
        if *v3_only && !state.v3 {
            continue;
        }
        let wanted = asks_for(text(req, "service_type"), "SERVICE_TYPE_", word);
        let list = items(&doc, "services")
            .filter(|s| {
                wanted
                    && text(s, "service_type") == *kind
                    && (node.is_empty() || ids::same(node, text(s, "node_id")))
            })
            .map(|s| service_json(s, state.v3))
            .collect();
        out.insert((*kind).to_owned(), Value::Array(list));
    }
    Value::Object(out)
}

/// One service.
pub fn service(state: &Managed, id: &str) -> Result<Value, Resp> {
    let doc = state.doc();
    let service = model::find(&doc, "services", "service_id", id)
        .ok_or_else(|| Resp::grpc(404, 5, &format!("Service with ID \"{id}\" not found.")))?;
    Ok(json!({text(service, "service_type"): service_json(service, state.v3)}))
}

/// The types that occur.
pub fn service_types(state: &Managed) -> Value {
    let doc = state.doc();
    let types: Vec<String> = SERVICES
        .iter()
        .filter(|(kind, ..)| items(&doc, "services").any(|s| text(s, "service_type") == *kind))
        .map(|(_, word, _)| model::spelled("SERVICE_TYPE_", word, state.v3))
        .collect();
    json!({"service_types": types})
}
