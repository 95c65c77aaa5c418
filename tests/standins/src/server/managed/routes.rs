//! Which path is answered by what, in both majors.

use std::sync::Arc;

use serde_json::{Value, json};

use super::{Managed, auth_request, backup, connect, inventory, lists, readyz, register, settings, updates};
use crate::{
    server::{
        http::{Req, Resp},
        shape, switches,
    },
    wire,
};

/// Answers a request.
pub async fn answer(state: Arc<Managed>, req: Req) -> Resp {
    match req.path.as_str() {
        "/auth_request" => return auth_request(&state, &req).await,
        wire::CONNECT_V2 => return connect::accept(&state, req),
        wire::CONNECT_V3 if state.v3 => return connect::accept(&state, req),
        _ => {}
    }
    let result = if state.v3 {
        v3(&state, &req).await
    } else {
        v2(&state, &req).await
    };
    let mut resp = match result {
        Some(Ok(value)) if state.v3 => Resp::json(200, &value),
        Some(Ok(mut value)) => {
            shape::omit_defaults(&mut value);
            Resp::json(200, &value)
        }
        Some(Err(resp)) => resp,
        None => Resp::grpc(404, 5, "Not Found"),
    };
    if switches::Switches::fails("api_500") && !req.path.ends_with("readyz") {
        resp = Resp::grpc(500, 13, "Internal server error.");
    }
    resp
}

/// A value or a refusal; nothing if the path is unknown.
type Routed = Option<Result<Value, Resp>>;

async fn common(state: &Managed, req: &Req, path: &str) -> Routed {
    match path {
        "readyz" => {
            let resp = readyz(state).await;
            Some(if resp.ok() { Ok(json!({})) } else { Err(resp) })
        }
        "leaderHealthCheck" => Some(Ok(json!({}))),
        "version" => Some(Ok(updates::version(state))),
        "logs.zip" => Some(Err(Resp::new(200, "application/zip", EMPTY_ZIP))),
        "settings" => Some(Ok(settings::show(&state.settings(), state.version))),
        "change" => {
            let body = match req.json() {
                Ok(body) => body,
                Err(resp) => return Some(Err(resp)),
            };
            let done = state
                .change(|doc| settings::change(&mut doc["settings"], &body, &state.env, state.version))
                .await;
            Some(done.map(|()| settings::show(&state.settings(), state.version)))
        }
        _ => None,
    }
}

/// The end record of an archive without entries.
const EMPTY_ZIP: &[u8] = &[
    0x50, 0x4b, 5, 6, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
];

async fn v2(state: &Managed, req: &Req) -> Routed {
    let body = match req.json() {
        Ok(body) => body,
        Err(resp) => return Some(Err(resp)),
    };
    let b = &body;
    match (req.method.as_str(), req.path.as_str()) {
        ("GET", "/v1/readyz") => common(state, req, "readyz").await,
        ("GET", "/v1/leaderHealthCheck") => common(state, req, "leaderHealthCheck").await,
        ("GET", "/v1/version") => common(state, req, "version").await,
        ("GET", "/logs.zip") => common(state, req, "logs.zip").await,
        ("POST", "/v1/Settings/Get") => common(state, req, "settings").await,
        ("POST", "/v1/Settings/Change") => common(state, req, "change").await,
        ("POST", "/v1/Updates/Check") => Some(Ok(updates::check_v2(state, b))),
        ("POST", "/v1/Updates/Start") => Some(updates::start_v2(state).await),
        ("POST", "/v1/Updates/Status") => Some(updates::status_v2(state, b)),
        ("POST", "/v1/inventory/Services/List") => Some(Ok(lists::services(state, b))),
        ("POST", "/v1/inventory/Services/ListTypes") => Some(Ok(lists::service_types(state))),
        ("POST", "/v1/inventory/Agents/List") => Some(inventory::agents(state, b)),
        ("POST", "/v1/inventory/Nodes/List") => Some(Ok(lists::nodes(state, b))),
        ("POST", "/v1/management/Agent/List") => Some(inventory::management_agents(state, b)),
        ("POST", "/v1/management/Service/List") => Some(Ok(inventory::management_services(state))),
        ("POST", "/v1/management/Node/List") => Some(Ok(inventory::management_nodes(state))),
        ("POST", "/v1/management/Node/Register") => Some(register::node(state, b).await),
        ("POST", "/v1/management/Node/Unregister") => Some(
            register::unregister(
                state,
                b["node_id"].as_str().unwrap_or_default(),
                b["force"] == true,
            )
            .await,
        ),
        ("POST", "/v1/management/MySQL/Add") => Some(register::service(state, "mysql", b).await),
        ("POST", "/v1/management/PostgreSQL/Add") => Some(register::service(state, "postgresql", b).await),
        ("POST", "/v1/management/MongoDB/Add") => Some(register::service(state, "mongodb", b).await),
        ("POST", "/v1/management/ProxySQL/Add") => Some(register::service(state, "proxysql", b).await),
        ("POST", "/v1/management/Service/Remove") => Some(register::remove_service(state, b).await),
        ("POST", path) if path.starts_with("/v1/management/backup/") => backup::v2(state, path, b).await,
        ("POST", "/v1/management/DBaaS/Kubernetes/List") => Some(Ok(
            json!({"kubernetes_clusters": state.doc()["kubernetes_clusters"]}),
        )),
        ("POST", "/v1/management/DBaaS/Kubernetes/Register") => Some(register::kubernetes(state, b).await),
        ("POST", "/v1/management/ia/Rules/List") => Some(Ok(json!({"rules": state.doc()["ia_rules"]}))),
        ("POST", "/v1/management/ia/Rules/Create") => {
            Some(backup::add(state, "ia_rules", "rule_id", b).await)
        }
        ("POST", "/v1/management/ia/Channels/List") => {
            Some(Ok(json!({"channels": state.doc()["ia_channels"]})))
        }
        ("POST", "/v1/management/ia/Channels/Add") => {
            Some(backup::add(state, "ia_channels", "channel_id", b).await)
        }
        _ => None,
    }
}

async fn v3(state: &Managed, req: &Req) -> Routed {
    let mut body = match req.json() {
        Ok(body) => body,
        Err(resp) => return Some(Err(resp)),
    };
    if req.method == "GET" || req.method == "DELETE" {
        body = json!(req.query);
    }
    let b = &body;
    let parts: Vec<&str> = req.path.trim_start_matches("/v1/").split('/').collect();
    match (req.method.as_str(), parts.as_slice()) {
        (
            "GET",
            [
                "server",
                what @ ("readyz" | "leaderHealthCheck" | "version" | "settings" | "logs.zip"),
            ],
        ) => common(state, req, what).await,
        ("GET", ["server", "settings", "readonly"]) => common(state, req, "settings").await,
        ("PUT", ["server", "settings"]) => common(state, req, "change").await,
        ("GET", ["server", "updates"]) => Some(Ok(updates::check_v3(state))),
        ("GET", ["server", "updates", "changelogs"]) => {
            Some(Ok(json!({"updates": [], "last_check": updates::now()})))
        }
        ("POST", ["server", "updates:start"]) => Some(updates::start_v3(state)),
        ("POST", ["server", "updates:getStatus"]) => Some(Ok(
            json!({"log_lines": [], "log_offset": 0, "done": !std::path::Path::new("/srv/pmm-update.json").exists()}),
        )),
        ("GET", ["inventory", "services"]) => Some(Ok(lists::services(state, b))),
        ("GET", ["inventory", "services", id]) => Some(lists::service(state, id)),
        ("POST", ["inventory", "services:getTypes"]) => Some(Ok(lists::service_types(state))),
        ("GET", ["inventory", "agents"]) => Some(inventory::agents(state, b)),
        ("GET", ["inventory", "agents", id]) => Some(inventory::agent(state, id)),
        ("GET", ["inventory", "nodes"]) => Some(Ok(lists::nodes(state, b))),
        ("GET", ["inventory", "nodes", id]) => Some(lists::node(state, id)),
        ("GET", ["management", "agents"]) => Some(inventory::management_agents(state, b)),
        ("GET", ["management", "agents", "versions"]) => Some(Ok(inventory::versions(state))),
        ("GET", ["management", "services"]) => Some(Ok(inventory::management_services(state))),
        ("GET", ["management", "nodes"]) => Some(Ok(inventory::management_nodes(state))),
        ("POST", ["management", "nodes"]) => Some(register::node(state, b).await),
        ("DELETE", ["management", "nodes", id]) => {
            Some(register::unregister(state, id, req.param("force") == "true").await)
        }
        ("POST", ["management", "services"]) => Some(register::service_v3(state, b).await),
        ("DELETE", ["management", "services", id]) => {
            Some(register::remove_service(state, &json!({"service_id": id})).await)
        }
        ("POST", ["backups:start"]) => Some(backup::start(state, b).await),
        ("POST", ["backups:schedule"]) => Some(backup::schedule(state, b).await),
        (_, ["backups", rest @ ..]) => backup::v3(state, &req.method, rest, b).await,
        _ => None,
    }
}
