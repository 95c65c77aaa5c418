//! Backups of databases that PMM makes: locations, schedules, artifacts, and the jobs that clients run for them.
//!
//! Shapes and paths: percona/pmm `api/managementpb/backup/{artifacts,backups,restores}.proto` (PMM 2) and `api/backup/v1/{backup,restores}.proto`
//! (PMM 3). Which client may be given a job, and what its result does: `managed/services/agents/jobs.go`. Two things are inferred: PMM 3 gives
//! no job to a PMM 2 client (metrics and Query Analytics are all that such a client gets there), and a client that comes back without its job
//! has lost it. Nothing runs by schedule here; a test starts what it needs.

use serde_json::{Value, json};

use super::{
    Managed,
    model::{self, items, items_mut, text},
    updates,
};
use crate::{
    server::{grafana_push as push, http::Resp, ids, log},
    wire::JobSpec,
};

const PENDING: &str = "BACKUP_STATUS_PENDING";
const RUNNING: &str = "BACKUP_STATUS_IN_PROGRESS";

/// Adds an item with a new id to a list.
pub async fn add(state: &Managed, list: &str, id_field: &str, req: &Value) -> Result<Value, Resp> {
    let id = ids::new(id_field.trim_end_matches("_id"), state.v3);
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
        "Backups/ListScheduled" => Ok(json!({"scheduled_backups": shown(state, "scheduled_backups")})),
        "Backups/Schedule" => schedule(state, req).await,
        "Backups/RemoveScheduled" => {
            remove(
                state,
                "scheduled_backups",
                "scheduled_backup_id",
                text(req, "scheduled_backup_id"),
            )
            .await
        }
        "Backups/Start" => start(state, req).await,
        "Artifacts/List" => Ok(json!({"artifacts": shown(state, "artifacts")})),
        "RestoreHistory/List" => Ok(json!({"items": []})),
        "Locations/List" => Ok(json!({"locations": state.doc()["backup_locations"]})),
        "Locations/Add" => add(state, "backup_locations", "location_id", req).await,
        _ => return None,
    })
}

/// The backup API of PMM 3 below `/v1/backups/`.
pub async fn v3(state: &Managed, method: &str, parts: &[&str], req: &Value) -> Option<Result<Value, Resp>> {
    Some(match (method, parts) {
        ("GET", ["scheduled"]) => Ok(json!({"scheduled_backups": shown(state, "scheduled_backups")})),
        ("GET", ["artifacts"]) => Ok(json!({"artifacts": shown(state, "artifacts")})),
        ("GET", ["restores"]) => Ok(json!({"items": []})),
        ("GET", ["locations"]) => Ok(json!({"locations": state.doc()["backup_locations"]})),
        ("POST", ["locations"]) => add(state, "backup_locations", "location_id", req).await,
        ("DELETE", [id]) => remove(state, "scheduled_backups", "scheduled_backup_id", id).await,
        _ => return None,
    })
}

/// A list as the API shows it: without what only the server needs, enum values in the spelling of the major.
fn shown(state: &Managed, list: &str) -> Value {
    let doc = state.doc();
    let rows = items(&doc, list).map(|row| {
        let mut row = row.clone();
        if let Some(fields) = row.as_object_mut() {
            fields.retain(|name, _| !matches!(name.as_str(), "job_id" | "pmm_agent_id"));
        }
        for (field, prefix, word) in [
            ("data_model", "DATA_MODEL_", "PHYSICAL"),
            ("mode", "BACKUP_MODE_", "SNAPSHOT"),
        ] {
            row[field] = json!(model::spelled(prefix, word, state.v3));
        }
        row
    });
    Value::Array(rows.collect())
}

/// What an artifact and a schedule say of their service and location, and the service's client.
fn subject(doc: &Value, req: &Value) -> Result<(Value, String), Resp> {
    let (service_id, location_id) = (text(req, "service_id"), text(req, "location_id"));
    let Some(service) = model::find(doc, "services", "service_id", service_id) else {
        return Err(Resp::grpc(
            404,
            5,
            &format!("Service with ID {service_id:?} not found."),
        ));
    };
    let Some(location) = model::find(doc, "backup_locations", "location_id", location_id) else {
        return Err(Resp::grpc(
            404,
            5,
            &format!("Backup location with ID {location_id:?} not found."),
        ));
    };
    let kind = text(service, "service_type");
    if !matches!(kind, "mysql" | "mongodb") {
        return Err(Resp::grpc(
            400,
            9,
            "Backups of this kind of service are not supported.",
        ));
    }
    let client = items(doc, "agents").find(|a| {
        ids::same(text(a, "service_id"), text(service, "service_id")) && !text(a, "pmm_agent_id").is_empty()
    });
    let client = client.map_or("", |a| text(a, "pmm_agent_id")).to_owned();
    let row = json!({
        "name": text(req, "name"), "vendor": kind, "location_id": location["location_id"], "location_name": text(location, "name"),
        "service_id": service["service_id"], "service_name": text(service, "service_name"), "folder": text(req, "folder"),
        "retries": req["retries"].as_u64().unwrap_or(0),
    });
    Ok((row, client))
}

/// Schedules backups.
pub async fn schedule(state: &Managed, req: &Value) -> Result<Value, Resp> {
    if text(req, "cron_expression").is_empty() {
        return Err(Resp::grpc(
            400,
            3,
            "invalid ScheduleBackupRequest.CronExpression: value length must be at least 1 runes",
        ));
    }
    let id = ids::new("scheduled_task", state.v3);
    state
        .change(|doc| {
            let (mut row, _) = subject(doc, req)?;
            row["scheduled_backup_id"] = json!(id);
            row["cron_expression"] = json!(text(req, "cron_expression"));
            row["enabled"] = json!(req["enabled"] == true);
            row["retention"] = json!(req["retention"].as_u64().unwrap_or(0));
            push(doc, "scheduled_backups", row);
            Ok(json!({"scheduled_backup_id": id}))
        })
        .await
}

/// Starts a backup now.
pub async fn start(state: &Managed, req: &Value) -> Result<Value, Resp> {
    let (id, job) = (ids::new("artifact", state.v3), ids::new("job", state.v3));
    let v3 = state.v3;
    state
        .change(|doc| {
            let (mut row, client) = subject(doc, req)?;
            if row["vendor"] != "mysql" {
                return Err(Resp::grpc(501, 12, "This stand-in backs up MySQL only."));
            }
            let version = model::find(doc, "agents", "agent_id", &client).map_or("", |a| text(a, "version"));
            if v3 && version.starts_with("2.") {
                return Err(Resp::grpc(
                    400,
                    9,
                    &format!("mysql backup is not supported on pmm-agent {client:?} version {version}"),
                ));
            }
            row["artifact_id"] = json!(id);
            row["job_id"] = json!(job);
            row["pmm_agent_id"] = json!(client);
            row["status"] = json!(PENDING);
            row["created_at"] = json!(updates::now());
            push(doc, "artifacts", row);
            Ok(json!({"artifact_id": id}))
        })
        .await
}

/// The jobs that a client has not been given yet; from now on they count as running.
pub async fn take_due(state: &Managed, client: &str) -> Vec<JobSpec> {
    let waits = |row: &Value| row["status"] == PENDING && ids::same(text(row, "pmm_agent_id"), client);
    if !items(&state.doc(), "artifacts").any(waits) {
        return Vec::new();
    }
    let taken = state
        .change(|doc| {
            let due: Vec<Value> = items(doc, "artifacts")
                .filter(|row| waits(row))
                .cloned()
                .collect();
            let jobs = due.iter().map(|row| job(doc, row)).collect();
            items_mut(doc, "artifacts")
                .filter(|row| waits(row))
                .for_each(|row| row["status"] = json!(RUNNING));
            Ok(jobs)
        })
        .await;
    taken.unwrap_or_default()
}

fn job(doc: &Value, artifact: &Value) -> JobSpec {
    let service = model::find(doc, "services", "service_id", text(artifact, "service_id"));
    let exporter = items(doc, "agents").find(|a| {
        ids::same(text(a, "service_id"), text(artifact, "service_id"))
            && text(a, "agent_type") == "mysqld_exporter"
    });
    let location = model::find(
        doc,
        "backup_locations",
        "location_id",
        text(artifact, "location_id"),
    );
    let of = |item: Option<&Value>, field: &str| item.map_or("", |i| text(i, field)).to_owned();
    let bucket = |field: &str| {
        let config = location.map(|l| &l["s3_config"]);
        config.map_or("", |c| text(c, field)).to_owned()
    };
    let (folder, name) = (text(artifact, "folder"), text(artifact, "name"));
    JobSpec {
        job_id: text(artifact, "job_id").to_owned(),
        artifact: if folder.is_empty() {
            name.to_owned()
        } else {
            format!("{folder}/{name}")
        },
        address: of(service, "address"),
        port: service.and_then(|s| s["port"].as_u64()).unwrap_or(0),
        user: of(exporter, "username"),
        password: super::register::decrypted(&of(exporter, "password")),
        endpoint: bucket("endpoint"),
        access_key: bucket("access_key"),
        secret_key: bucket("secret_key"),
        bucket: bucket("bucket_name"),
    }
}

/// A client came back with these jobs: every other one of its jobs is lost.
pub async fn came_with(state: &Managed, client: &str, jobs: &[String]) {
    settle(state, "ERROR", |row| {
        ids::same(text(row, "pmm_agent_id"), client)
            && !jobs.iter().any(|job| ids::same(job, text(row, "job_id")))
    })
    .await;
}

/// A client tells how a job ended.
pub async fn ended(state: &Managed, client: &str, job: &str, error: &str) {
    log::line(format!(
        "level=info msg=\"Job has ended\" job={job} error={error:?}"
    ));
    let word = if error.is_empty() { "SUCCESS" } else { "ERROR" };
    settle(state, word, |row| {
        ids::same(text(row, "pmm_agent_id"), client) && ids::same(text(row, "job_id"), job)
    })
    .await;
}

async fn settle(state: &Managed, word: &str, meant: impl Fn(&Value) -> bool) {
    let meant = |row: &Value| row["status"] == RUNNING && meant(row);
    if !items(&state.doc(), "artifacts").any(meant) {
        return;
    }
    let stored = state
        .change(|doc| {
            items_mut(doc, "artifacts")
                .filter(|row| meant(row))
                .for_each(|row| row["status"] = json!(format!("BACKUP_STATUS_{word}")));
            Ok(())
        })
        .await;
    if stored.is_err() {
        log::line("level=error msg=\"the state of a backup could not be stored\"");
    }
}
