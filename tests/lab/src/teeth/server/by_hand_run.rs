//! One migration by hand, as the guide has it, with the environment carried over as it was. Many cases read what was seen before and after.

use super::pmm::{Auth, Pmm};
use super::scene::{self, Scene};
use super::seed::{self, SERVICES, VIEWER};
use crate::docker;
use anyhow::{Result, anyhow, ensure};
use serde_json::{Value, json};
use std::sync::OnceLock;

/// What a client's attempt to connect is answered, by credential.
pub struct Connects {
    pub nobody: u16,
    pub wrong: u16,
    pub viewer: u16,
    pub key: u16,
}

pub struct Recording {
    pub services: (Value, Value),
    pub agents: (Value, Value),
    pub settings: (Value, Value),
    pub connects: (Connects, Connects),
    pub rules: Value,
    pub channels: Value,
    pub empty_list: Value,
    /// Kubernetes clusters of DBaaS before, and status and answer afterwards.
    pub clusters: (Value, u16),
    /// Status of paths of PMM 2 on PMM 3.
    pub old_paths: Vec<u16>,
    /// Readiness while it migrated, without repetitions.
    pub readiness: Vec<u16>,
    pub managed_log: String,
    pub grafana_log: String,
    pub keys: Value,
    pub new_key: u16,
    pub conversion: Vec<Value>,
    pub key_after: u16,
    pub versions: Value,
    pub report_of_nothing: Value,
    pub ports: (bool, bool),
    pub plugins: Value,
    /// PMM 3's update: started, and its status asked for without a credential.
    pub update: (u16, Value),
    /// Status for a viewer where an administrator is needed, by release.
    pub refusal: (u16, u16),
}

pub fn recording() -> Result<&'static Recording> {
    static RECORDED: OnceLock<Result<Recording, String>> = OnceLock::new();
    let made = RECORDED.get_or_init(|| record().map_err(|error| format!("{error:#}")));
    made.as_ref()
        .map_err(|error| anyhow!("the migration by hand could not be recorded: {error}"))
}

fn record() -> Result<Recording> {
    let scene = Scene::new("by-hand")?;
    let seed = seed::last()?;
    let volume = scene.volume("data", &seed)?;
    let mount = format!("{volume}:/srv");
    let env = [
        "--volume",
        &mount,
        "--env",
        "DATA_RETENTION=1440h",
        "--env",
        "DISABLE_UPDATES=true",
        "--env",
        "PERCONA_TEST_PLATFORM_INSECURE=1",
    ];
    let two = scene.start("pmm2", "2.44.1", &env, "")?;
    two.wait_ready(60)?;
    let key = seed.facts["key"].as_str().unwrap_or_default().to_owned();
    let id = seed.facts["agent"].as_str().unwrap_or_default().to_owned();
    let services = two.post("/v1/inventory/Services/List", &json!({}))?;
    let agents = two.post("/v1/inventory/Agents/List", &json!({}))?;
    let settings = two.post("/v1/Settings/Get", &json!({}))?["settings"].clone();
    let connects = try_connects(&two, "/agent.Agent/Connect", &id, &key)?;
    let empty_list = two.post(
        "/v1/inventory/Services/List",
        &json!({"service_type": "HAPROXY_SERVICE"}),
    )?;
    let clusters = two.post("/v1/management/DBaaS/Kubernetes/List", &json!({}))?;
    let old_ports = (reachable(&two, 443)?, reachable(&two, 8443)?);
    ensure!(old_ports == (true, false), "ports of PMM 2: {old_ports:?}");
    two.exec(&["supervisorctl", "stop", "all"])?;
    two.exec(&["chown", "-R", "1000:0", "/srv"])?;
    two.stop()?;
    two.remove()?;
    let three = scene.start("pmm3", "3.7.1", &env, "migration_seconds = 3")?;
    let readiness = watch_readiness(&three)?;
    three.wait_ready(60)?;
    let keys = three.get("/graph/api/auth/keys")?;
    let new_key = three
        .ask(
            "POST",
            "/graph/api/auth/keys",
            Some(r#"{"name":"late","role":"Admin"}"#),
            Auth::Admin,
        )?
        .status;
    let connects_after = try_connects(&three, "/agent.Agent/Connect", bare(&id), &key)?;
    let conversion = vec![
        three.post("/graph/api/serviceaccounts/migrate", &json!({}))?,
        three.post("/graph/api/serviceaccounts/migrate", &json!({}))?,
    ];
    let paths = [
        ("POST", "/v1/inventory/Services/List"),
        ("POST", "/v1/Settings/Get"),
        ("POST", "/v0/qan/GetReport"),
    ];
    let old_paths = paths
        .iter()
        .map(|(method, path)| Ok(three.ask(method, path, Some("{}"), Auth::Admin)?.status))
        .collect::<Result<_>>()?;
    let viewer = Auth::Basic(VIEWER.0, VIEWER.1);
    let mut recording = Recording {
        services: (services, three.get("/v1/inventory/services")?),
        agents: (agents, three.get("/v1/inventory/agents")?),
        settings: (settings, three.get("/v1/server/settings")?["settings"].clone()),
        connects: (connects, connects_after),
        rules: json!(
            three
                .ask("POST", "/v1/management/ia/Rules/List", Some("{}"), Auth::Admin)?
                .status
        ),
        channels: stored(&three, &volume)?,
        empty_list,
        clusters: (
            clusters,
            three
                .ask(
                    "POST",
                    "/v1/management/DBaaS/Kubernetes/List",
                    Some("{}"),
                    Auth::Admin,
                )?
                .status,
        ),
        old_paths,
        readiness,
        managed_log: three.log_of("pmm-managed")?,
        grafana_log: three.log_of("grafana")?,
        keys,
        new_key,
        conversion,
        key_after: three
            .ask("GET", "/v1/inventory/services", None, Auth::Bearer(&key))?
            .status,
        versions: three.get("/v1/management/agents/versions")?,
        report_of_nothing: three.post("/v1/qan/metrics:getReport", &seed::report_request(SERVICES[0]))?,
        ports: (reachable(&three, 443)?, reachable(&three, 8443)?),
        plugins: serde_json::from_str(&three.exec(&["cat", "/srv/grafana/plugins/pmm-app/plugin.json"])?)?,
        update: (
            three
                .ask("POST", "/v1/server/updates:start", Some("{}"), Auth::Admin)?
                .status,
            three
                .ask("POST", "/v1/server/updates:getStatus", Some("{}"), Auth::Nobody)?
                .json,
        ),
        refusal: (
            three.ask("GET", "/v1/inventory/services", None, viewer)?.status,
            0,
        ),
    };
    // The second step of the supported way, which must not bite.
    three.stop()?;
    three.remove()?;
    let newest = scene.start("pmm39", "3.9.1", &["--volume", &mount], "migration_seconds = 1")?;
    newest.wait_ready(60)?;
    ensure!(
        newest.version()? == "3.9.1" && newest.services(Auth::Admin)? == SERVICES,
        "3.9.1 has not got the data of 3.7.1"
    );
    recording.refusal.1 = newest.ask("GET", "/v1/inventory/services", None, viewer)?.status;
    Ok(recording)
}

/// What PostgreSQL holds of Integrated Alerting, read after the server has written it down.
fn stored(three: &Pmm, volume: &str) -> Result<Value> {
    three.exec(&["supervisorctl", "restart", "postgresql"])?;
    let text = scene::on_volume(volume, &["cat", "/srv/postgres14/base/pmm-managed/data.json"])?;
    three.wait_ready(60)?;
    let doc: Value = serde_json::from_str(&text)?;
    Ok(json!({"rules": doc["doc"]["ia_rules"], "channels": doc["doc"]["ia_channels"]}))
}

pub fn bare(id: &str) -> &str {
    id.rsplit('/').next().unwrap_or(id)
}

fn try_connects(pmm: &Pmm, path: &str, id: &str, key: &str) -> Result<Connects> {
    Ok(Connects {
        nobody: pmm.connect(path, id, Auth::Nobody)?,
        wrong: pmm.connect(path, id, Auth::Basic("admin", "years-ago"))?,
        viewer: pmm.connect(path, id, Auth::Basic(VIEWER.0, VIEWER.1))?,
        key: pmm.connect(path, id, Auth::Bearer(key))?,
    })
}

/// Whether a port answers inside the container, as it would on a shared network.
fn reachable(pmm: &Pmm, port: u16) -> Result<bool> {
    let url = format!("https://127.0.0.1:{port}/v1/readyz");
    Ok(docker::exec(&pmm.name, &["curl", "-sk", "--max-time", "5", &url])?.ok())
}

/// Asks for readiness many times a second from inside, until it was 200 for a while.
fn watch_readiness(pmm: &Pmm) -> Result<Vec<u16>> {
    let url = "http://127.0.0.1:8080/v1/readyz";
    let watch = format!(
        "good=0; last=; while [ $good -lt 40 ]; do now=$(curl -s -o /dev/null -w '%{{http_code}}' --max-time 5 {url}); \
         if [ \"$now\" != \"$last\" ]; then echo $now; last=$now; fi; if [ $now = 200 ]; then good=$((good + 1)); else good=0; fi; \
         i=$((${{i:-0}} + 1)); [ $i -lt 3000 ] || break; done"
    );
    let seen = docker::exec_must(&pmm.name, &["timeout", "90", "sh", "-c", &watch])?;
    Ok(seen
        .lines()
        .filter_map(|line| line.trim().parse().ok())
        .filter(|status| *status != 0)
        .collect())
}
