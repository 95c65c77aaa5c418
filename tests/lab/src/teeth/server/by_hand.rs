//! One migration by hand, as the guide has it, with the environment carried over as it was. Many cases read what was seen before and after.

use super::pmm::{Auth, Pmm};
use super::scene::{self, Scene, bites};
use super::seed::{self, ALERTMANAGER, KEY, SERVICES, VIEWER};
use crate::docker;
use anyhow::{Result, anyhow, ensure};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::sync::OnceLock;

/// What a client's attempt to connect is answered, by credential.
struct Connects {
    nobody: u16,
    wrong: u16,
    viewer: u16,
    key: u16,
}

struct Recording {
    services: (Value, Value),
    agents: (Value, Value),
    settings: (Value, Value),
    connects: (Connects, Connects),
    rules: Value,
    channels: Value,
    empty_list: Value,
    /// Status of paths of PMM 2 on PMM 3.
    old_paths: Vec<u16>,
    /// Readiness while it migrated, without repetitions.
    readiness: Vec<u16>,
    managed_log: String,
    grafana_log: String,
    keys: Value,
    new_key: u16,
    conversion: Vec<Value>,
    key_after: u16,
    versions: Value,
    report_of_nothing: Value,
    ports: (bool, bool),
    plugins: Value,
    /// PMM 3's update: started, and its status asked for without a credential.
    update: (u16, Value),
    /// Status for a viewer where an administrator is needed, by release.
    refusal: (u16, u16),
}

fn recording() -> Result<&'static Recording> {
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

fn bare(id: &str) -> &str {
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

/// All values of a field in the lists of an answer.
fn field(answer: &Value, name: &str) -> BTreeSet<String> {
    let lists = answer
        .as_object()
        .into_iter()
        .flat_map(|lists| lists.values())
        .filter_map(Value::as_array)
        .flatten();
    lists
        .filter_map(|item| item[name].as_str().map(str::to_owned))
        .collect()
}

/// Ids lose their prefixes: compared as they are, everything is gone.
pub fn ids_change_form() -> Result<()> {
    let seen = recording()?;
    let (before, after) = (
        field(&seen.services.0, "service_id"),
        field(&seen.services.1, "service_id"),
    );
    ensure!(
        before.len() == 4 && before.iter().all(|id| id.starts_with("/service_id/")),
        "ids of PMM 2: {before:?}"
    );
    bites(
        before.intersection(&after).next().is_none(),
        "an id kept its form",
    )?;
    let bare: BTreeSet<String> = before.iter().map(|id| bare(id).to_owned()).collect();
    ensure!(
        bare == after,
        "without prefixes the ids are not the same: {bare:?} {after:?}"
    );
    Ok(())
}

/// Enum values are spelled otherwise, so that nothing is `RUNNING` by its old name.
pub fn statuses_change_spelling() -> Result<()> {
    let seen = recording()?;
    let (before, after) = (field(&seen.agents.0, "status"), field(&seen.agents.1, "status"));
    ensure!(
        before.iter().any(|word| word == "RUNNING"),
        "statuses of PMM 2: {before:?}"
    );
    bites(
        !after.contains("RUNNING") && after.contains("AGENT_STATUS_RUNNING"),
        format!("statuses of PMM 3: {after:?}"),
    )
}

/// The query agent of the server's own database is switched off: an inventory compared exactly shows a loss.
pub fn own_query_agent_is_disabled() -> Result<()> {
    let seen = recording()?;
    let of_server = |answer: &Value| {
        let list = answer["qan_postgresql_pgstatements_agent"]
            .as_array()
            .cloned()
            .unwrap_or_default();
        list.into_iter()
            .find(|agent| agent["pmm_agent_id"] == "pmm-server")
            .unwrap_or_default()
    };
    ensure!(
        of_server(&seen.agents.0)["disabled"] != true,
        "it was disabled before"
    );
    bites(
        of_server(&seen.agents.1)["disabled"] == true,
        "it is still enabled",
    )
}

/// PMM 2 leaves out what is empty.
pub fn empty_list_is_left_out() -> Result<()> {
    let seen = recording()?;
    bites(
        seen.empty_list == json!({}),
        format!("PMM 2 answered {}", seen.empty_list),
    )?;
    bites(
        seen.services.1["haproxy"] == json!([]),
        "PMM 3 leaves out empty lists",
    )
}

/// PMM 2 takes any client; PMM 3 demands a valid administrator's credential of the same client.
pub fn connect_needs_an_administrator() -> Result<()> {
    let (two, three) = (&recording()?.connects.0, &recording()?.connects.1);
    ensure!(
        (two.nobody, two.wrong, two.viewer, two.key) == (101, 101, 101, 101),
        "PMM 2 refuses clients: {}",
        two.nobody
    );
    bites(
        three.nobody == 401 && three.wrong == 401,
        format!("PMM 3 answered {} and {}", three.nobody, three.wrong),
    )?;
    bites(
        matches!(three.viewer, 401 | 403),
        format!("PMM 3 answered {} to a viewer", three.viewer),
    )?;
    ensure!(
        three.key == 101,
        "PMM 3 answered {} to an administrator's key",
        three.key
    );
    Ok(())
}

/// Settings that came by variables of PMM 2 are lost without an error.
pub fn old_variables_are_lost() -> Result<()> {
    let seen = recording()?;
    ensure!(
        seen.settings.0["data_retention"] == "5184000s",
        "retention of PMM 2: {}",
        seen.settings.0["data_retention"]
    );
    ensure!(
        seen.settings.0["updates_disabled"] == true,
        "updates of PMM 2: {}",
        seen.settings.0["updates_disabled"]
    );
    bites(
        seen.settings.1["data_retention"] == "2592000s",
        format!("retention of PMM 3: {}", seen.settings.1["data_retention"]),
    )?;
    bites(
        seen.settings.1["updates_enabled"] == true,
        "updates are still disabled",
    )?;
    bites(
        seen.managed_log.contains("unknown environment variable")
            && seen.managed_log.contains("DATA_RETENTION"),
        "no warning either",
    )?;
    bites(seen.managed_log.contains("NOT SUPPORTED"), "PERCONA_* was taken")
}

/// Rules and channels of Integrated Alerting are dropped.
pub fn alert_rules_are_dropped() -> Result<()> {
    let seen = recording()?;
    bites(
        seen.channels == json!({"rules": [], "channels": []}),
        format!("PMM 3 holds {}", seen.channels),
    )?;
    bites(seen.rules == 404, "the API of Integrated Alerting is there")
}

/// The external Alertmanager's address is deleted.
pub fn alertmanager_is_dropped() -> Result<()> {
    let seen = recording()?;
    ensure!(
        seen.settings.0["alert_manager_url"] == ALERTMANAGER,
        "PMM 2 had no Alertmanager"
    );
    bites(
        seen.settings.1.get("alert_manager_url").is_none(),
        "the address survived",
    )
}

/// Keys are not converted by themselves, new ones cannot be made, and a second conversion finds nothing.
pub fn keys_stay_keys() -> Result<()> {
    let seen = recording()?;
    let names = seen
        .keys
        .as_array()
        .into_iter()
        .flatten()
        .map(|key| key["name"].clone())
        .collect::<Vec<_>>();
    bites(
        names == [json!(KEY)],
        format!("keys after the migration: {names:?}"),
    )?;
    bites(
        seen.new_key == 410,
        format!("a new key was answered {}", seen.new_key),
    )?;
    ensure!(
        seen.conversion[0]["migrated"] == 1 && seen.key_after == 200,
        "the conversion: {} {}",
        seen.conversion[0],
        seen.key_after
    );
    bites(
        seen.conversion[1]["total"] == 0,
        format!("a second conversion: {}", seen.conversion[1]),
    )
}

/// A tool for PMM 2 finds nothing where it asks.
pub fn old_paths_are_gone() -> Result<()> {
    let seen = recording()?;
    bites(
        seen.old_paths.iter().all(|status| *status == 404),
        format!("answers: {:?}", seen.old_paths),
    )
}

/// 503, then 500, then 200: not everything that is no 503 is ready, and 500 is no end.
pub fn readiness_goes_through_500() -> Result<()> {
    let seen = recording()?;
    bites(
        seen.readiness.contains(&503),
        format!("no maintenance page: {:?}", seen.readiness),
    )?;
    let after = seen
        .readiness
        .iter()
        .skip_while(|status| **status != 503)
        .copied()
        .collect::<Vec<_>>();
    bites(
        after == [503, 500, 200],
        format!("readiness: {:?}", seen.readiness),
    )
}

/// PMM 3 says that an update is done which it refused to start.
pub fn update_is_done_by_nobody() -> Result<()> {
    let (started, status) = &recording()?.update;
    ensure!(*started == 400, "the update was answered {started}");
    bites(status["done"] == true, format!("its status: {status}"))
}

/// A role that is too low is answered 401 by one release and 403 by a later one.
pub fn refusal_changes_status() -> Result<()> {
    let seen = recording()?.refusal;
    bites(seen == (401, 403), format!("answers: {seen:?}"))
}

/// The list of clients' versions skips what never reported one.
pub fn versions_skip_unknown_clients() -> Result<()> {
    let seen = recording()?;
    let clients = field(&json!({"agents": seen.agents.1["pmm_agent"]}), "agent_id");
    ensure!(clients.len() == 2, "clients: {clients:?}");
    let listed = field(&seen.versions, "agent_id");
    bites(
        listed == BTreeSet::from(["pmm-server".to_owned()]),
        format!("listed: {listed:?}"),
    )
}

/// A report about nothing has a row all the same.
pub fn report_has_a_total_row() -> Result<()> {
    let report = &recording()?.report_of_nothing;
    ensure!(report["total_rows"] == 0, "the service has queries");
    bites(
        report["rows"].as_array().is_some_and(|rows| rows.len() == 1),
        format!("rows: {}", report["rows"]),
    )
}

/// Clients on the container's network that use port 443 find nobody there.
pub fn inner_port_moves() -> Result<()> {
    let (old, new) = recording()?.ports;
    ensure!(new, "nobody answers on 8443");
    bites(!old, "PMM 3 answers on 443")
}

/// Percona's plugins on the volume are replaced, and Angular panels of one's own dashboards break.
pub fn panels_and_plugins_change() -> Result<()> {
    let seen = recording()?;
    bites(
        seen.plugins["info"]["version"] == "3.7.1",
        format!("plugin: {}", seen.plugins),
    )?;
    bites(
        seen.grafana_log.contains("Angular"),
        "the Angular panel goes on working",
    )
}
