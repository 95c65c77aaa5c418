//! Backups of databases that PMM schedules, and other lists that are only kept.

use serde_json::{Value, json};

use super::{Managed, model::text};
use crate::server::{grafana_push as push, http::Resp, ids};

/// Adds an item with a new id to a list.
pub async fn add(state: &Managed, list: &str, id_field: &str, req: &Value) -> Result<Value, Resp> {
    let kind = if list == "scheduled_backups" {
        "scheduled_task"
    } else {
        id_field.trim_end_matches("_id")
    };
    let id = ids::new(kind, state.v3);
    let mut item = req.clone();
    item[id_field] = json!(id);
    state
        .change(|doc| {
            push(doc, list, item);
            Ok(json!({id_field: id}))
        })
        .await
}

async fn remove(state: &Managed, list: &str, id_field: &str, id: &str) -> Result<Value, Resp> {
    state
        .change(|doc| {
            if let Some(all) = doc[list].as_array_mut() {
                all.retain(|i| !ids::same(text(i, id_field), id));
            }
            Ok(json!({}))
        })
        .await
}

/// The backup API of PMM 2.
pub async fn v2(state: &Managed, path: &str, req: &Value) -> Option<Result<Value, Resp>> {
    Some(match path.trim_start_matches("/v1/management/backup/") {
        "Backups/ListScheduled" => Ok(json!({"scheduled_backups": state.doc()["scheduled_backups"]})),
        "Backups/Schedule" => add(state, "scheduled_backups", "scheduled_backup_id", req).await,
        "Backups/RemoveScheduled" => {
            remove(
                state,
                "scheduled_backups",
                "scheduled_backup_id",
                text(req, "scheduled_backup_id"),
            )
            .await
        }
        "Artifacts/List" => Ok(json!({"artifacts": state.doc()["artifacts"]})),
        "Backups/Start" => add(state, "artifacts", "artifact_id", req).await,
        "Locations/List" => Ok(json!({"locations": state.doc()["backup_locations"]})),
        "Locations/Add" => add(state, "backup_locations", "location_id", req).await,
        _ => return None,
    })
}

/// The backup API of PMM 3.
pub async fn v3(state: &Managed, method: &str, parts: &[&str], req: &Value) -> Option<Result<Value, Resp>> {
    Some(match (method, parts) {
        ("GET", ["scheduled"]) => Ok(json!({"scheduled_backups": state.doc()["scheduled_backups"]})),
        ("POST", ["scheduled"]) => add(state, "scheduled_backups", "scheduled_backup_id", req).await,
        ("DELETE", ["scheduled", id]) => remove(state, "scheduled_backups", "scheduled_backup_id", id).await,
        ("GET", ["artifacts"]) => Ok(json!({"artifacts": state.doc()["artifacts"]})),
        ("GET", ["locations"]) => Ok(json!({"locations": state.doc()["backup_locations"]})),
        ("POST", ["locations"]) => add(state, "backup_locations", "location_id", req).await,
        _ => return None,
    })
}
