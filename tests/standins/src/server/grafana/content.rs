//! Dashboards, folders, data sources, alert rules, contact points.

use serde_json::{Value, json};

use super::{Caller, Grafana, accounts::push, message, next_id};
use crate::server::{
    auth::Role,
    http::{Req, Resp},
};

/// Answers what concerns content.
pub async fn route(state: &Grafana, req: &Req, path: &str, caller: &Caller) -> Option<Resp> {
    let parts: Vec<&str> = path.trim_start_matches("/api/").split('/').collect();
    let body = req.json().unwrap_or(Value::Null);
    let editor = caller.role >= Role::Editor;
    Some(match (req.method.as_str(), parts.as_slice()) {
        ("GET", ["search"]) => state.read(|d| search(d, req)),
        ("GET", ["folders"]) => state.read(|d| Resp::json(200, &d["folders"])),
        ("GET", ["datasources"]) => state.read(|d| Resp::json(200, &d["datasources"])),
        ("GET", ["dashboards", "uid", uid]) => state.read(|d| {
            match d["dashboards"].as_array().into_iter().flatten().find(|b| b["uid"] == *uid) {
                Some(b) => {
                    let mut dashboard = b.get("dashboard").cloned().unwrap_or_else(|| json!({}));
                    for field in ["uid", "title", "version"] {
                        dashboard[field] = b[field].clone();
                    }
                    Resp::json(200, &json!({"dashboard": dashboard, "meta": {"provisioned": b["provisioned"] == true, "folderTitle": b["folderTitle"]}}))
                }
                None => message(404, "Dashboard not found"),
            }
        }),
        ("GET", ["ruler", "grafana", "api", "v1", "rules"]) => state.read(|d| Resp::json(200, &d["rules"])),
        ("GET", ["v1", "provisioning", "alert-rules"]) => state.read(|d| {
            let groups = d["rules"].as_object().into_iter().flat_map(|r| r.values()).filter_map(Value::as_array).flatten();
            Resp::json(200, &groups.filter_map(|g| g["rules"].as_array()).flatten().cloned().collect())
        }),
        ("GET", ["v1", "provisioning", "contact-points"]) => state.read(|d| Resp::json(200, &d["contact_points"])),
        _ if !editor => return None,
        ("POST", ["folders"]) => {
            state
                .change(|d| {
                    let id = next_id(d);
                    let uid = body["uid"].as_str().map_or_else(|| format!("f{id}"), str::to_owned);
                    let folder = json!({"id": id, "uid": uid, "title": body["title"]});
                    push(d, "folders", folder.clone());
                    Resp::json(200, &folder)
                })
                .await
        }
        ("POST", ["dashboards", "db"]) => state.change(|d| save_dashboard(d, &body)).await,
        ("DELETE", ["dashboards", "uid", uid]) => {
            let uid = (*uid).to_owned();
            state
                .change(|d| {
                    if let Some(list) = d["dashboards"].as_array_mut() {
                        list.retain(|b| b["uid"] != uid.as_str());
                    }
                    message(200, "Dashboard deleted")
                })
                .await
        }
        ("POST", ["ruler", "grafana", "api", "v1", "rules", folder]) => {
            let folder = (*folder).to_owned();
            state
                .change(|d| {
                    if !d["rules"].is_object() {
                        d["rules"] = json!({});
                    }
                    push(&mut d["rules"], &folder, body.clone());
                    message(202, "rule group updated successfully")
                })
                .await
        }
        ("POST", ["v1", "provisioning", "contact-points"]) => {
            state
                .change(|d| {
                    push(d, "contact_points", body.clone());
                    Resp::json(202, &body)
                })
                .await
        }
        _ => return None,
    })
}

fn search(doc: &Value, req: &Req) -> Resp {
    let kind = req.param("type");
    let words = req.param("query").to_lowercase();
    let hit = |title: &Value| title.as_str().unwrap_or_default().to_lowercase().contains(&words);
    let mut found: Vec<Value> = Vec::new();
    if kind != "dash-folder" {
        let boards = doc["dashboards"]
            .as_array()
            .into_iter()
            .flatten()
            .filter(|b| hit(&b["title"]));
        found.extend(boards.map(|b| json!({"uid": b["uid"], "title": b["title"], "type": "dash-db", "folderTitle": b["folderTitle"], "url": format!("/graph/d/{}", b["uid"].as_str().unwrap_or_default())})));
    }
    if kind != "dash-db" {
        let folders = doc["folders"]
            .as_array()
            .into_iter()
            .flatten()
            .filter(|f| hit(&f["title"]));
        found.extend(folders.map(|f| json!({"uid": f["uid"], "title": f["title"], "type": "dash-folder"})));
    }
    Resp::json(200, &json!(found))
}

/// Saves a dashboard. A panel of a type that needs Angular is noted, because the newer Grafana does not show it.
fn save_dashboard(doc: &mut Value, body: &Value) -> Resp {
    let board = &body["dashboard"];
    let id = next_id(doc);
    let uid = board["uid"]
        .as_str()
        .map_or_else(|| format!("d{id}"), str::to_owned);
    let folder = doc["folders"]
        .as_array()
        .into_iter()
        .flatten()
        .find(|f| f["uid"] == body["folderUid"])
        .map_or(Value::Null, |f| f["title"].clone());
    let angular = board["panels"]
        .as_array()
        .is_some_and(|p| p.iter().any(|p| p["type"] == "graph" || p["type"] == "table-old"));
    if let Some(list) = doc["dashboards"].as_array_mut() {
        list.retain(|b| b["uid"] != uid.as_str());
    }
    push(
        doc,
        "dashboards",
        json!({"uid": uid, "title": board["title"], "folderTitle": folder, "dashboard": board, "version": 1, "angular": angular}),
    );
    Resp::json(
        200,
        &json!({"id": id, "uid": uid, "status": "success", "version": 1, "url": format!("/graph/d/{uid}")}),
    )
}
