//! Data of PMM 2 Servers that were used for a while: made once per image, kept as archives, unpacked into a volume per case.

use super::pmm::{PASSWORD, Pmm};
use super::scene::{self, Scene};
use crate::wait::{self, Probe};
use crate::{build, docker, images};
use anyhow::{Context, Result, anyhow};
use serde_json::{Value, json};
use std::path::PathBuf;
use std::sync::{Mutex, OnceLock, PoisonError};

/// Data at rest, and what was put into them.
#[derive(Clone)]
pub struct Seed {
    archive: PathBuf,
    /// `agent`: id of a client, `node`: id of its node, `key`: an administrator's API key.
    pub facts: Value,
}

/// Services that the seeds hold.
pub const SERVICES: [&str; 3] = ["db1-mongodb", "db1-mysql", "db1-postgresql"];
/// A user who may only look.
pub const VIEWER: (&str, &str) = ("viewer", "only-looks");
/// Name of the API key.
pub const KEY: &str = "automation";
/// External Alertmanager in the settings.
pub const ALERTMANAGER: &str = "http://alertmanager.example:9093";

/// Data of the last 2.x.
pub fn last() -> Result<Seed> {
    static MADE: OnceLock<Result<Seed, String>> = OnceLock::new();
    once(&MADE, "2.44.1")
}

/// Data of a 2.x that PMM 3 does not take.
pub fn older() -> Result<Seed> {
    static MADE: OnceLock<Result<Seed, String>> = OnceLock::new();
    once(&MADE, "2.41.2")
}

fn once(cell: &OnceLock<Result<Seed, String>>, release: &str) -> Result<Seed> {
    cell.get_or_init(|| make(release).map_err(|error| format!("{error:#}")))
        .clone()
        .map_err(|error| anyhow!("data of PMM {release}: {error}"))
}

/// Fills an empty volume.
pub fn unpack(seed: &Seed, volume: &str) -> Result<()> {
    let directory = seed.archive.parent().context("the archive has a directory")?;
    let file = seed
        .archive
        .file_name()
        .context("the archive has a name")?
        .to_string_lossy()
        .into_owned();
    let (data, archive) = (
        format!("{volume}:/srv"),
        format!("{}:/seed:ro", directory.display()),
    );
    let image = scene::image("2.44.1")?;
    let inside = format!("/seed/{file}");
    docker::docker([
        "run",
        "--rm",
        "--volume",
        &data,
        "--volume",
        &archive,
        &image,
        "tar",
        "--numeric-owner",
        "-C",
        "/srv",
        "-xpf",
        &inside,
    ])
    .map(drop)
}

fn make(release: &str) -> Result<Seed> {
    static ONE: Mutex<()> = Mutex::new(());
    let _one = ONE.lock().unwrap_or_else(PoisonError::into_inner);
    let image = docker::inspect("image", &scene::image(release)?)?.context("the image")?;
    let recipe = images::text_hash(concat!(include_str!("seed.rs"), include_str!("pmm.rs")));
    let hash = images::text_hash(&format!("{}{recipe}", image["Id"]));
    let directory = build::state_dir()?.join("teeth");
    fs_err::create_dir_all(&directory)?;
    let archive = directory.join(format!("seed-{release}-{}.tar", &hash[..16]));
    let notes = archive.with_extension("json");
    if let Ok(text) = fs_err::read_to_string(&notes) {
        return Ok(Seed {
            archive,
            facts: serde_json::from_str(&text)?,
        });
    }
    for entry in fs_err::read_dir(&directory)? {
        let entry = entry?;
        if entry
            .file_name()
            .to_string_lossy()
            .starts_with(&format!("seed-{release}-"))
        {
            fs_err::remove_file(entry.path())?;
        }
    }
    let scene = Scene::new(&format!("seed-{release}"))?;
    let volume = scene.empty_volume("data")?;
    let mount = format!("{volume}:/srv");
    let pmm = scene.start("pmm", release, &["--volume", &mount], "")?;
    pmm.wait_ready(90)?;
    let facts = furnish(&pmm)?;
    settle(&pmm)?;
    pmm.stop()?;
    let (out, target) = (
        format!("{}:/out", directory.display()),
        format!(
            "/out/{}",
            archive.file_name().unwrap_or_default().to_string_lossy()
        ),
    );
    docker::docker([
        "run",
        "--rm",
        "--volume",
        &mount,
        "--volume",
        &out,
        &scene::image("2.44.1")?,
        "tar",
        "--numeric-owner",
        "-C",
        "/srv",
        "-cf",
        &target,
        ".",
    ])?;
    fs_err::write(&notes, facts.to_string())?;
    Ok(Seed { archive, facts })
}

/// Waits until the server's own agents have left queries and samples.
fn settle(pmm: &Pmm) -> Result<()> {
    wait::until("samples and queries of the server itself", 60, || {
        let up = pmm.get("/prometheus/api/v1/query?query=pg_up")?;
        let seen = up["data"]["result"]
            .as_array()
            .is_some_and(|rows| !rows.is_empty());
        let report = pmm.post("/v0/qan/GetReport", &report_request("pmm-server-postgresql"))?;
        let queries = report["total_rows"].as_u64().unwrap_or(0) > 0;
        Ok(if seen && queries {
            Probe::Ready(())
        } else {
            Probe::NotYet(format!("samples: {seen}, queries: {queries}"))
        })
    })
}

/// A QAN report over everything that a service ever did.
pub fn report_request(service: &str) -> Value {
    json!({
        "period_start_from": "2026-01-01T00:00:00Z", "period_start_to": "2036-01-01T00:00:00Z", "group_by": "queryid",
        "labels": [{"key": "service_name", "value": [service]}], "columns": ["load", "num_queries", "query_time"],
        "order_by": "-query_time", "offset": 0, "limit": 10, "main_metric": "load",
    })
}

/// What years of use leave behind, by way of the API.
fn furnish(pmm: &Pmm) -> Result<Value> {
    let password = json!({"password": PASSWORD}).to_string();
    let changed = pmm.ask(
        "PUT",
        "/graph/api/admin/users/1/password",
        Some(&password),
        super::pmm::FRESH,
    )?;
    anyhow::ensure!(
        changed.status == 200,
        "the password was not changed: {} {}",
        changed.status,
        changed.json
    );
    let settings = json!({"metrics_resolutions": {"hr": "1s", "mr": "1s", "lr": "1s"}, "alert_manager_url": ALERTMANAGER, "alert_manager_rules": "groups: []"});
    wait::until("the new password to count", 10, || {
        let answer = pmm.ask(
            "POST",
            "/v1/Settings/Change",
            Some(&settings.to_string()),
            super::pmm::Auth::Admin,
        )?;
        Ok(if answer.status == 200 {
            Probe::Ready(())
        } else {
            Probe::NotYet(answer.json.to_string())
        })
    })?;
    let node = pmm.post("/v1/management/Node/Register", &json!({"node_name": "db1", "node_type": "GENERIC_NODE", "address": "192.0.2.7", "machine_id": "0f0f"}))?;
    let text = |pointer: &str| {
        node.pointer(pointer)
            .and_then(Value::as_str)
            .unwrap_or_default()
            .to_owned()
    };
    let (agent, node_id) = (text("/pmm_agent/agent_id"), text("/generic_node/node_id"));
    let service = |name: &str, port: u16, query: &str| {
        json!({"node_id": node_id, "pmm_agent_id": agent, "service_name": name, "address": "127.0.0.1", "port": port, "cluster": "c1",
               "username": "pmm", "password": "pmm", "skip_connection_check": true, query: true, "custom_labels": {"team": "dba"}})
    };
    let mysql = pmm.post(
        "/v1/management/MySQL/Add",
        &service(SERVICES[1], 3306, "qan_mysql_slowlog"),
    )?;
    pmm.post(
        "/v1/management/MongoDB/Add",
        &service(SERVICES[0], 27017, "qan_mongodb_profiler"),
    )?;
    pmm.post(
        "/v1/management/PostgreSQL/Add",
        &service(SERVICES[2], 5432, "qan_postgresql_pgstatements_agent"),
    )?;
    let bucket = json!({"name": "bucket", "s3_config": {"endpoint": "https://s3.lab", "access_key": "AK", "secret_key": "SK", "bucket_name": "backups"}});
    let location = pmm.post("/v1/management/backup/Locations/Add", &bucket)?;
    pmm.post("/v1/management/backup/Backups/Schedule", &json!({
        "service_id": mysql["service"]["service_id"], "location_id": location["location_id"], "name": "nightly", "cron_expression": "0 2 * * *", "enabled": true,
    }))?;
    pmm.post(
        "/v1/management/DBaaS/Kubernetes/Register",
        &json!({"kubernetes_cluster_name": "left-behind", "kube_auth": {"kubeconfig": "{}"}}),
    )?;
    pmm.post(
        "/v1/management/ia/Channels/Add",
        &json!({"summary": "on call", "email_config": {"to": ["dba@example.com"]}}),
    )?;
    pmm.post(
        "/v1/management/ia/Rules/Create",
        &json!({"name": "disk is full", "template_name": "pmm_node_low_free_disk"}),
    )?;
    pmm.post(
        "/graph/api/admin/users",
        &json!({"login": VIEWER.0, "password": VIEWER.1, "role": "Viewer"}),
    )?;
    let key = pmm.post("/graph/api/auth/keys", &json!({"name": KEY, "role": "Admin"}))?;
    pmm.post("/graph/api/dashboards/db", &json!({"dashboard": {"uid": "own-1", "title": "Own", "panels": [{"type": "graph", "title": "old"}]}}))?;
    Ok(json!({"agent": agent, "node": node_id, "key": key["key"]}))
}
