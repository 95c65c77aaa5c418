//! The version and the update API. In PMM 2 it changes the running container: programs in its writable layer and data on `/srv`.

use std::{path::Path, process::Command};

use serde_json::{Value, json};

use super::Managed;
use crate::server::{http::Resp, switches::Switches, version::Version};

/// The log of the update program.
const LOG: &str = "/srv/logs/pmm-update-perform.log";
/// What the newest 3.x is called here.
const LATEST_V3: Version = Version::new(3, 9, 1);

/// The present time in the form of the API.
pub fn now() -> String {
    format!("{:.3}", jiff::Timestamp::now())
}

fn info(version: Version) -> Value {
    json!({"version": version.to_string(), "full_version": format!("{version}-60.2504241245.el9"), "timestamp": "2025-04-24T00:00:00Z"})
}

/// The version of the server.
pub fn version(state: &Managed) -> Value {
    let v = state.version.to_string();
    json!({
        "version": v,
        "server": info(state.version),
        "managed": {"version": v, "full_version": "5b1e2f7c0ffee", "timestamp": "2025-04-24T00:00:00Z"},
        "distribution_method": "DISTRIBUTION_METHOD_DOCKER",
    })
}

/// Checks for updates. Without `force` only what an earlier check found is known.
pub fn check_v2(state: &Managed, req: &Value) -> Value {
    let installed = info(state.version);
    if req["only_installed_version"] == true {
        return json!({"installed": installed});
    }
    let mut checked = state
        .update_checked
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner);
    if req["force"] == true {
        *checked = Some(now());
    }
    let Some(at) = checked.clone() else {
        return json!({"installed": installed});
    };
    let latest: Version = Switches::now()
        .latest_v2
        .parse()
        .unwrap_or(Version::new(2, 44, 1));
    json!({
        "installed": installed,
        "latest": info(latest),
        "update_available": latest > state.version,
        "latest_news_url": format!("https://per.co.na/pmm/{latest}"),
        "last_check": at,
    })
}

fn program_runs(name: &str) -> bool {
    let out = Command::new("supervisorctl").args(["status", name]).output();
    out.is_ok_and(|o| {
        let text = String::from_utf8_lossy(&o.stdout).into_owned();
        text.contains("RUNNING") || text.contains("STARTING") || text.contains("STOPPING")
    })
}

/// Starts the update program.
pub async fn start_v2(state: &Managed) -> Result<Value, Resp> {
    if state.env.values.get("updates_enabled") == Some(&json!(false)) {
        return Err(Resp::grpc(
            400,
            9,
            "Updates are disabled via DISABLE_UPDATES environment variable.",
        ));
    }
    if state.settings()["updates_disabled"] == true {
        return Err(Resp::grpc(400, 9, "Updates are disabled."));
    }
    if program_runs("pmm-update-perform") {
        return Err(Resp::grpc(400, 9, "Update is already in progress."));
    }
    let token = uuid::Uuid::new_v4().to_string();
    let offset = std::fs::metadata(LOG).map_or(0, |m| m.len());
    state
        .change(|doc| {
            doc["update_token"] = json!(token);
            Ok(())
        })
        .await?;
    let started = Command::new("supervisorctl")
        .args(["start", "pmm-update-perform"])
        .output();
    match started {
        Ok(out) if out.status.success() => Ok(json!({"auth_token": token, "log_offset": offset})),
        Ok(out) => Err(Resp::grpc(
            500,
            13,
            &format!("supervisorctl: {}", String::from_utf8_lossy(&out.stdout)),
        )),
        Err(e) => Err(Resp::grpc(500, 13, &format!("supervisorctl: {e}"))),
    }
}

/// Follows the update by its token: new lines of the log, and whether the program has ended.
pub fn status_v2(state: &Managed, req: &Value) -> Result<Value, Resp> {
    let token = state.doc()["update_token"].clone();
    if !token.is_string() || req["auth_token"] != token {
        return Err(Resp::grpc(403, 7, "Invalid authentication token."));
    }
    let running = program_runs("pmm-update-perform");
    let offset = req["log_offset"]
        .as_u64()
        .or_else(|| req["log_offset"].as_str().and_then(|t| t.parse().ok()))
        .unwrap_or(0);
    let text = std::fs::read(LOG).unwrap_or_default();
    let new = text
        .get(usize::try_from(offset).unwrap_or(usize::MAX)..)
        .unwrap_or_default();
    // Only whole lines count; the rest comes with the next question.
    let end = new.iter().rposition(|b| *b == b'\n').map_or(0, |at| at + 1);
    let lines: Vec<String> = String::from_utf8_lossy(&new[..end])
        .lines()
        .map(str::to_owned)
        .collect();
    Ok(json!({"log_lines": lines, "log_offset": offset + end as u64, "done": !running}))
}

/// What PMM 3 says about updates.
pub fn check_v3(state: &Managed) -> Value {
    let latest = state.version.max(LATEST_V3);
    json!({
        "installed": info(state.version),
        "latest": {"version": latest.to_string(), "tag": format!("docker.io/percona/pmm-server:{latest}"), "timestamp": "2026-07-01T00:00:00Z", "release_notes_url": "", "release_notes_text": ""},
        "update_available": latest > state.version,
        "latest_news_url": "",
        "last_check": now(),
    })
}

/// PMM 3 would ask a Watchtower to do it, and there is none.
pub fn start_v3(state: &Managed) -> Result<Value, Resp> {
    if state.settings()["updates_enabled"] == false {
        return Err(Resp::grpc(
            400,
            9,
            "Updates are disabled via PMM_ENABLE_UPDATES environment variable.",
        ));
    }
    debug_assert!(Path::new("/srv").exists(), "runs in the image");
    Err(Resp::grpc(
        400,
        9,
        "PMM_WATCHTOWER_TOKEN or PMM_WATCHTOWER_HOST is not set or Watchtower does not answer.",
    ))
}
