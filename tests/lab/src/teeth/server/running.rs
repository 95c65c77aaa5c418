//! A PMM Server that runs, or seems to: migrations that are slow or half done, answers that are not what they look like, PMM 2's update API.

use super::pmm::{Auth, Pmm};
use super::scene::{Scene, bites, hand_over};
use super::seed;
use crate::docker;
use crate::wait::{self, Probe};
use anyhow::{Result, ensure};
use serde_json::{Value, json};

fn migrate(scene: &Scene, switches: &str) -> Result<Pmm> {
    let volume = scene.volume("data", &seed::last()?)?;
    hand_over(&volume)?;
    scene.start("pmm", "3.7.1", &["--volume", &format!("{volume}:/srv")], switches)
}

/// Health is red while the database migrates; who restarts what is red interrupts it.
pub fn red_while_it_migrates() -> Result<()> {
    let scene = Scene::new("red-while-it-migrates")?;
    let pmm = migrate(&scene, "migration_seconds = 32")?;
    pmm.wait_health("unhealthy", 31)?;
    bites(
        pmm.log_of("pmm-managed")?
            .matches("Current database schema version")
            .count()
            == 1,
        "it is not the migration",
    )?;
    ensure!(pmm.readiness()? == 503, "there is no maintenance page");
    // What autoheal, Swarm or monit do.
    docker::docker(["kill", &pmm.name])?;
    pmm.put("/etc/standin/switches.toml", "migration_seconds = 1")?;
    docker::docker(["start", &pmm.name])?;
    pmm.wait_ready(60)?;
    bites(
        pmm.log_of("pmm-managed")?
            .matches("Current database schema version")
            .count()
            == 2,
        "the migration was not interrupted",
    )?;
    bites(
        pmm.log_of("postgresql14")?.contains("was not properly shut down"),
        "the database did not notice",
    )
}

/// Query Analytics can be broken while PMM is ready.
pub fn dirty_query_analytics() -> Result<()> {
    let scene = Scene::new("dirty-query-analytics")?;
    let pmm = migrate(&scene, "migration_seconds = 1\nfail_at = \"qan_dirty\"")?;
    pmm.wait_ready(60)?;
    pmm.wait_log("qan-api2", "Dirty database version", 2, 40)?;
    let body = seed::report_request("pmm-server-postgresql").to_string();
    let status = pmm
        .ask("POST", "/v1/qan/metrics:getReport", Some(&body), Auth::Admin)?
        .status;
    bites(status == 502, format!("the report was answered {status}"))?;
    bites(pmm.readiness()? == 200, "readiness knows")
}

/// Grafana's database fails, and nothing else tells.
pub fn grafana_database_fails() -> Result<()> {
    let scene = Scene::new("grafana-database-fails")?;
    let pmm = migrate(&scene, "migration_seconds = 1\nfail_at = \"grafana_db\"")?;
    pmm.wait_log("grafana", "migration failed", 2, 40)?;
    pmm.wait_health("unhealthy", 60)?;
    bites(pmm.readiness()? != 200, "PMM 3 is ready")
}

/// The address of Grafana's own database as one URL, which every 2.x took.
pub fn database_url_alone() -> Result<()> {
    let scene = Scene::new("database-url-alone")?;
    let volume = format!("{}:/srv", scene.volume("data", &seed::last()?)?);
    let env = [
        "--volume",
        &volume,
        "--env",
        "GF_DATABASE_URL=postgres://grafana:g@127.0.0.1:5432/grafana",
    ];
    let two = scene.start("pmm2", "2.44.1", &env, "")?;
    two.wait_ready(60)?;
    two.stop()?;
    hand_over(&scene.name("data"))?;
    let three = scene.start("pmm3", "3.7.1", &env, "migration_seconds = 1")?;
    three.wait_log("grafana", "failed to connect to database", 2, 40)?;
    three.wait_health("unhealthy", 40)?;
    bites(three.readiness()? != 200, "PMM 3 is ready")
}

/// Many clients at once: valid credentials are answered 401 and 500 for a while.
pub fn reconnect_storm() -> Result<()> {
    let scene = Scene::new("reconnect-storm")?;
    let pmm = migrate(&scene, "migration_seconds = 1\nreconnect_storm_seconds = 15")?;
    pmm.wait_ready(60)?;
    let mut seen = Vec::new();
    wait::until("the storm to be over", 40, || {
        seen.push(
            pmm.ask("GET", "/v1/inventory/services", None, Auth::Admin)?
                .status,
        );
        let calm = seen.iter().rev().take_while(|status| **status == 200).count();
        Ok(if calm >= 6 {
            Probe::Ready(())
        } else {
            Probe::NotYet(format!("{seen:?}"))
        })
    })?;
    bites(
        seen.contains(&401) && seen.contains(&500),
        format!("answers: {seen:?}"),
    )
}

/// A client is shown as not connected while its samples arrive.
pub fn connected_lies() -> Result<()> {
    let scene = Scene::new("connected-lies")?;
    let pmm = migrate(&scene, "migration_seconds = 1\nconnected_lie = [\"pmm-server\"]")?;
    pmm.wait_ready(60)?;
    fresh_samples(&pmm)?;
    let agents = pmm.get("/v1/inventory/agents")?;
    let own = own_client(&pmm)?;
    bites(own["connected"] == false, format!("it is shown as {own}"))?;
    bites(
        agents["node_exporter"]
            .as_array()
            .is_some_and(|list| list.iter().all(|agent| agent["status"] == "AGENT_STATUS_UNKNOWN")),
        "its agents are known",
    )
}

/// The server drops a connection silently; the client holds it and does not reconnect until it is restarted.
pub fn silent_drop() -> Result<()> {
    let scene = Scene::new("silent-drop")?;
    let pmm = migrate(&scene, "migration_seconds = 1\nsilent_drop = [\"pmm-server\"]")?;
    pmm.wait_ready(60)?;
    let connected = || Ok::<_, anyhow::Error>(own_client(&pmm)?["connected"] == true);
    bites(!connected()?, "it is shown as connected")?;
    // Nothing is wrong with the server any more.
    pmm.put("/etc/standin/switches.toml", "")?;
    let log = pmm.log_of("pmm-agent")?;
    let mut looks = 0;
    wait::until("a number of looks", 60, || {
        looks += 1;
        bites(!connected()?, "the client reconnected by itself")?;
        wait::check(looks >= 12, format!("{looks} looks"))
    })?;
    bites(pmm.log_of("pmm-agent")? == log, "the client noticed")?;
    pmm.exec(&["supervisorctl", "restart", "pmm-agent"])?;
    wait::until("the restarted client", 20, || {
        wait::check(connected()?, "not connected")
    })
}

fn own_client(pmm: &Pmm) -> Result<Value> {
    let agents = pmm.get("/v1/inventory/agents")?;
    let mut clients = agents["pmm_agent"].as_array().into_iter().flatten();
    Ok(clients
        .find(|agent| agent["agent_id"] == "pmm-server")
        .cloned()
        .unwrap_or_default())
}

fn fresh_samples(pmm: &Pmm) -> Result<()> {
    let query = "/prometheus/api/v1/query?query=timestamp(up%7Bnode_name%3D%22pmm-server%22%7D)%20%3E%20time()%20-%205";
    wait::until("fresh samples", 30, || {
        let rows = pmm.get(query)?["data"]["result"].clone();
        Ok(if rows.as_array().is_some_and(|rows| !rows.is_empty()) {
            Probe::Ready(())
        } else {
            Probe::NotYet(rows.to_string())
        })
    })
}

/// The start's playbook fails: the maintenance page stays for ever, over a server that is well.
pub fn page_over_a_failed_start() -> Result<()> {
    let scene = Scene::new("page-over-a-failed-start")?;
    let pmm = migrate(&scene, "migration_seconds = 1\nfail_at = \"init_crash\"")?;
    pmm.wait_log("pmm-init", "failed=1", 1, 40)?;
    wait::until("pmm-managed to be ready", 40, || {
        let inside = docker::exec(
            &pmm.name,
            &[
                "curl",
                "-sf",
                "--max-time",
                "5",
                "http://127.0.0.1:7772/v1/server/readyz",
            ],
        )?;
        wait::check(inside.ok(), inside.all())
    })?;
    bites(pmm.readiness()? == 503, "the page is gone")?;
    pmm.wait_health("unhealthy", 40)
}

/// PMM 2.41.2 on a volume of its own.
fn old(scene: &Scene, args: &[&str], switches: &str) -> Result<Pmm> {
    let volume = format!("{}:/srv", scene.volume("data", &seed::older()?)?);
    let mut all = vec!["--volume", &volume];
    all.extend(args);
    let pmm = scene.start("pmm", "2.41.2", &all, switches)?;
    pmm.wait_ready(60)?;
    Ok(pmm)
}

fn update(pmm: &Pmm) -> Result<Vec<String>> {
    let started = pmm.post("/v1/Updates/Start", &json!({}))?;
    let mut request = json!({"auth_token": started["auth_token"], "log_offset": started["log_offset"]});
    let mut lines = Vec::new();
    wait::until("the update to end", 90, || {
        // The maintenance page lets only this path through, and needs no credential.
        let answer = pmm.ask(
            "POST",
            "/v1/Updates/Status",
            Some(&request.to_string()),
            Auth::Nobody,
        )?;
        if answer.status != 200 {
            return Ok(Probe::NotYet(format!("status {}", answer.status)));
        }
        let new = answer.json["log_lines"].as_array().cloned().unwrap_or_default();
        lines.extend(new.iter().filter_map(Value::as_str).map(str::to_owned));
        if !answer.json["log_offset"].is_null() {
            request["log_offset"] = answer.json["log_offset"].clone();
        }
        Ok(if answer.json["done"] == true {
            Probe::Ready(())
        } else {
            Probe::NotYet(lines.last().cloned().unwrap_or_default())
        })
    })?;
    Ok(lines)
}

/// The update changes the container, not the image: the tag is that of years ago, and re-creating by tag goes back.
pub fn update_leaves_the_tag() -> Result<()> {
    let scene = Scene::new("update-leaves-the-tag")?;
    let pmm = old(&scene, &[], "update_seconds = 2")?;
    let image = pmm.inspect()?["Config"]["Image"].clone();
    update(&pmm)?;
    pmm.wait_ready(60)?;
    ensure!(
        pmm.version()? == "2.44.1",
        "the update came to {}",
        pmm.version()?
    );
    bites(
        pmm.inspect()?["Config"]["Image"] == image && image.as_str().unwrap_or_default().ends_with(":2.41.2"),
        "the tag tells the version",
    )?;
    pmm.stop()?;
    pmm.remove()?;
    let mount = format!("{}:/srv", scene.name("data"));
    let again = scene.start("pmm", "2.41.2", &["--volume", &mount], "")?;
    again.wait_log("pmm-managed", "is newer than", 2, 40)?;
    bites(
        again.readiness()? != 200,
        "the old release is ready on newer data",
    )
}

/// Without `force` the check knows only what an earlier one found: nothing.
pub fn update_check_needs_force() -> Result<()> {
    let scene = Scene::new("update-check-needs-force")?;
    let pmm = old(&scene, &[], "")?;
    let lazy = pmm.post("/v1/Updates/Check", &json!({}))?;
    let forced = pmm.post("/v1/Updates/Check", &json!({"force": true}))?;
    ensure!(
        forced["update_available"] == true && forced["latest"]["version"] == "2.44.1",
        "with force: {forced}"
    );
    bites(
        lazy.get("update_available").is_none() && lazy.get("latest").is_none(),
        format!("without force: {lazy}"),
    )
}

/// Updates that are disabled cannot be started by the API either.
pub fn disabled_updates_refuse() -> Result<()> {
    let scene = Scene::new("disabled-updates-refuse")?;
    let pmm = old(&scene, &["--env", "DISABLE_UPDATES=true"], "")?;
    let answer = pmm.ask("POST", "/v1/Updates/Start", Some("{}"), Auth::Admin)?;
    bites(
        answer.status == 400
            && answer.json["message"]
                .as_str()
                .unwrap_or_default()
                .contains("disabled"),
        format!("{} {}", answer.status, answer.json),
    )?;
    ensure!(pmm.version()? == "2.41.2", "it was updated to {}", pmm.version()?);
    Ok(())
}

/// An update that fails half-way undoes nothing.
pub fn failed_update_undoes_nothing() -> Result<()> {
    let scene = Scene::new("failed-update-undoes-nothing")?;
    let pmm = old(&scene, &[], "update_seconds = 1\nfail_at = \"update_halfway\"")?;
    let lines = update(&pmm)?;
    ensure!(
        lines.iter().any(|line| line.contains("FAILED")),
        "the update did not fail: {lines:?}"
    );
    bites(pmm.readiness()? == 503, "the maintenance page was taken away")?;
    let dashboards = pmm.exec(&["cat", "/usr/share/percona-dashboards/VERSION"])?;
    bites(
        dashboards == "2.44.1",
        format!("the programs are of {dashboards}"),
    )?;
    bites(
        pmm.inspect()?["State"]["Running"] == true,
        "the container has ended",
    )
}
