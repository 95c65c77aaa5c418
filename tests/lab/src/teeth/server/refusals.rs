//! PMM 3 on data, owners and environments that it does not take.

use super::pmm::{Auth, FRESH, Pmm};
use super::scene::{self, Scene, bites, hand_over};
use super::seed::{self, SERVICES, Seed};
use crate::docker;
use anyhow::{Result, ensure};

const QUICK: &str = "migration_seconds = 1";

/// PMM 3 on data with the right owners.
fn migrate(scene: &Scene, seed: &Seed, release: &str, switches: &str) -> Result<Pmm> {
    let volume = scene.volume("data", seed)?;
    hand_over(&volume)?;
    scene.start("pmm", release, &["--volume", &format!("{volume}:/srv")], switches)
}

/// Fails over and over, behind the maintenance page, for ever.
fn never_ready(pmm: &Pmm, why: &str) -> Result<()> {
    pmm.wait_log("pmm-managed", "Failed to migrate database", 3, 40)?;
    let log = pmm.log_of("pmm-managed")?;
    bites(log.contains(why), format!("pmm-managed says {log}"))?;
    let status = pmm.readiness()?;
    bites(status == 503, format!("readiness: {status}"))?;
    ensure!(
        pmm.inspect()?["State"]["Running"] == true,
        "the container has ended"
    );
    Ok(())
}

/// Data of 2.41.2 straight into PMM 3.
pub fn older_2_direct() -> Result<()> {
    let scene = Scene::new("older-2-direct")?;
    never_ready(
        &migrate(&scene, &seed::older()?, "3.7.1", QUICK)?,
        "has the layout of 2.41.2",
    )
}

/// Data of 2.44.1 past the stepping stone.
pub fn stepping_stone_skipped() -> Result<()> {
    let scene = Scene::new("stepping-stone-skipped")?;
    never_ready(
        &migrate(&scene, &seed::last()?, "3.9.1", QUICK)?,
        "release 3.7 was skipped",
    )
}

/// The stepping stone that the documentation names.
pub fn stone_3_7_0_fails() -> Result<()> {
    let scene = Scene::new("stone-3-7-0-fails")?;
    never_ready(
        &migrate(&scene, &seed::last()?, "3.7.0", QUICK)?,
        "password authentication failed for user",
    )
}

/// PMM 2 on data of PMM 3: there is no way down.
pub fn no_way_down() -> Result<()> {
    let scene = Scene::new("no-way-down")?;
    let pmm = migrate(&scene, &seed::last()?, "3.7.1", QUICK)?;
    pmm.wait_ready(60)?;
    pmm.stop()?;
    let mount = format!("{}:/srv", scene.name("data"));
    let old = scene.start("pmm2", "2.44.1", &["--volume", &mount], "")?;
    old.wait_log("postgresql14", "Permission denied", 1, 30)?;
    bites(old.readiness()? != 200, "PMM 2 is ready on data of PMM 3")?;
    old.stop()?;
    // With the owners put back it is the data themselves.
    scene::on_volume(&scene.name("data"), &["chown", "-R", "26:26", "/srv/postgres14"])?;
    docker::docker(["start", &old.name])?;
    old.wait_log("pmm-managed", "is newer than", 2, 30)?;
    bites(old.readiness()? != 200, "PMM 2 is ready on data of PMM 3")
}

/// PMM 3 on a volume that still belongs to the users of PMM 2.
pub fn unwritable_srv_loops() -> Result<()> {
    let scene = Scene::new("unwritable-srv-loops")?;
    let volume = format!("{}:/srv", scene.volume("data", &seed::last()?)?);
    let pmm = scene.start("pmm", "3.7.1", &["--restart", "always", "--volume", &volume], "")?;
    pmm.wait_restarts(3, 30)?;
    let log = pmm.log()?;
    bites(
        log.contains("/srv is not writable") && log.contains("1000:0"),
        format!("it says {log}"),
    )?;
    // The documentation's way out is a command in this container.
    let inside = docker::exec(&pmm.name, &["chown", "-R", "1000:0", "/srv"])?;
    bites(!inside.ok(), "the owners could be changed from inside")
}

/// The change of owners was interrupted: the top passes the check, and what comes later fails.
pub fn owners_in_part() -> Result<()> {
    let scene = Scene::new("owners-in-part")?;
    let volume = scene.volume("data", &seed::last()?)?;
    hand_over(&volume)?;
    scene::on_volume(&volume, &["chown", "-R", "997:997", "/srv/clickhouse/data"])?;
    scene::on_volume(&volume, &["chmod", "-R", "go-w", "/srv/clickhouse/data"])?;
    let pmm = scene.start("pmm", "3.7.1", &["--volume", &format!("{volume}:/srv")], QUICK)?;
    pmm.wait_log("clickhouse-server", "ermission denied", 1, 40)?;
    bites(!pmm.log()?.contains("is not writable"), "the entry point noticed")?;
    pmm.wait_health("healthy", 60)?;
    let body = seed::report_request(SERVICES[0]).to_string();
    let report = pmm
        .ask("POST", "/v1/qan/metrics:getReport", Some(&body), Auth::Admin)?
        .status;
    bites(
        report == 502,
        format!("it is healthy, and the report was answered {report}"),
    )
}

/// Rows that point nowhere: the foreign keys cannot be added again.
pub fn orphans_stop_it() -> Result<()> {
    let scene = Scene::new("orphans-stop-it")?;
    let seed = seed::last()?;
    let volume = scene.volume("data", &seed)?;
    let agent = seed.facts["agent"].as_str().unwrap_or_default().to_owned();
    let (from, to) = (
        format!("\"pmm_agent_id\":\"{agent}\""),
        "\"pmm_agent_id\":\"/agent_id/gone\"",
    );
    let data = "/srv/postgres14/base/pmm-managed/data.json";
    ensure!(
        scene::on_volume(&volume, &["cat", data])?.contains(&from),
        "the database has no row with {from}"
    );
    scene::on_volume(&volume, &["sed", "-i", &format!("s#{from}#{to}#g"), data])?;
    hand_over(&volume)?;
    let pmm = scene.start("pmm", "3.7.1", &["--volume", &format!("{volume}:/srv")], QUICK)?;
    never_ready(&pmm, "violates foreign key constraint")
}

/// An empty volume becomes a new installation, which is healthy.
pub fn empty_volume_is_healthy() -> Result<()> {
    fresh("empty-volume-is-healthy", true)
}

/// Without a volume Docker makes an anonymous one: a new installation again.
pub fn forgotten_volume_is_healthy() -> Result<()> {
    fresh("forgotten-volume-is-healthy", false)
}

fn fresh(case: &str, named: bool) -> Result<()> {
    let scene = Scene::new(case)?;
    scene.volume("data", &seed::last()?)?;
    // The name that another example of the guide uses.
    let mount = format!("{}:/srv", scene.name("server-data"));
    let args: &[&str] = if named { &["--volume", &mount] } else { &[] };
    let pmm = scene.start("pmm", "3.7.1", args, "")?;
    pmm.wait_health("healthy", 60)?;
    bites(
        pmm.log()?.contains("Initializing Postgres"),
        "nothing was initialised",
    )?;
    bites(
        pmm.readiness()? == 200 && pmm.services(FRESH)?.is_empty(),
        "the services are there",
    )?;
    bites(
        pmm.ask("GET", "/v1/server/settings", None, Auth::Admin)?.status == 401,
        "the old password is valid",
    )?;
    bites(
        pmm.inspect()?["Mounts"][0]["Name"] != scene.name("data").as_str(),
        "it is the right volume",
    )
}

/// A retention in days is no duration.
pub fn days_crash_loop() -> Result<()> {
    crash_loop("days-crash-loop", "PMM_DATA_RETENTION=30d", "invalid duration")
}

/// Neither is a word that is no boolean.
pub fn bad_word_crash_loop() -> Result<()> {
    crash_loop("bad-word-crash-loop", "PMM_ENABLE_UPDATES=yes", "invalid value")
}

fn crash_loop(case: &str, pair: &str, message: &str) -> Result<()> {
    let scene = Scene::new(case)?;
    let volume = format!("{}:/srv", scene.empty_volume("data")?);
    let pmm = scene.start(
        "pmm",
        "3.7.1",
        &["--restart", "always", "--volume", &volume, "--env", pair],
        "",
    )?;
    pmm.wait_restarts(3, 30)?;
    let log = pmm.log()?;
    bites(
        log.contains("Configuration error") && log.contains(message),
        format!("it says {log}"),
    )
}

/// A certificate's key that only root may read, as an operator puts it there after the change of owners.
pub fn unreadable_key_stops_nginx() -> Result<()> {
    let scene = Scene::new("unreadable-key-stops-nginx")?;
    let volume = scene.volume("data", &seed::last()?)?;
    hand_over(&volume)?;
    scene::on_volume(&volume, &["chown", "root:root", "/srv/nginx/certificate.key"])?;
    scene::on_volume(&volume, &["chmod", "0600", "/srv/nginx/certificate.key"])?;
    let pmm = scene.start("pmm", "3.7.1", &["--volume", &format!("{volume}:/srv")], QUICK)?;
    pmm.wait_log("nginx", "certificate.key", 2, 30)?;
    bites(pmm.readiness()? == 0, "nginx answers")?;
    pmm.wait_health("unhealthy", 60)?;
    // Everything else is well.
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
    ensure!(inside.ok(), "pmm-managed is not ready: {}", inside.all());
    Ok(())
}

/// A file of the operator that VictoriaMetrics cannot read makes the container unhealthy.
pub fn bad_base_file() -> Result<()> {
    let scene = Scene::new("bad-base-file")?;
    let volume = scene.volume("data", &seed::last()?)?;
    scene::on_volume(
        &volume,
        &[
            "sh",
            "-c",
            "echo 'scrape_configs - broken' > /srv/prometheus/prometheus.base.yml",
        ],
    )?;
    hand_over(&volume)?;
    let pmm = scene.start("pmm", "3.7.1", &["--volume", &format!("{volume}:/srv")], QUICK)?;
    pmm.wait_log("victoriametrics", "prometheus.base.yml", 1, 30)?;
    pmm.wait_health("unhealthy", 60)?;
    bites(pmm.readiness()? != 200, "PMM 3 is ready")
}

/// Grafana's administrator has another id than 1, and what is made for user 1 misses it.
pub fn admin_is_not_the_first() -> Result<()> {
    let scene = Scene::new("admin-is-not-the-first")?;
    let volume = scene.empty_volume("data")?;
    let mount = format!("{volume}:/srv");
    let pmm = scene.start("pmm", "2.44.1", &["--volume", &mount], "admin_id = 7")?;
    pmm.wait_ready(60)?;
    let reset = pmm.ask(
        "PUT",
        "/graph/api/admin/users/1/password",
        Some(r#"{"password":"another"}"#),
        super::pmm::FRESH,
    )?;
    bites(
        reset.status == 404,
        format!("user 1 is there: {} {}", reset.status, reset.json),
    )?;
    let me = pmm.ask("GET", "/graph/api/user", None, super::pmm::FRESH)?;
    bites(
        me.status == 200 && me.json["id"] == 7,
        format!("the administrator is {}", me.json),
    )
}

/// The key that the credentials were encrypted with was not in the backup.
pub fn encryption_key_left_behind() -> Result<()> {
    let scene = Scene::new("encryption-key-left-behind")?;
    let pmm = migrate(&scene, &seed::last()?, "3.7.1", QUICK)?;
    pmm.wait_ready(60)?;
    pmm.stop()?;
    scene::on_volume(&scene.name("data"), &["rm", "/srv/pmm-encryption.key"])?;
    docker::docker(["start", &pmm.name])?;
    pmm.wait_log("pmm-managed", "pmm-encryption.key is missing", 1, 40)?;
    bites(pmm.readiness()? != 200, "PMM 3 is ready without its key")
}

/// What the migration loses is not seen by any probe.
pub fn ready_without_data() -> Result<()> {
    let scene = Scene::new("ready-without-data")?;
    let switches = "migration_seconds = 1\nlose_agents = [\"db1\"]\nlose_qan = true\nlose_metrics = true";
    let pmm = migrate(&scene, &seed::last()?, "3.7.1", switches)?;
    pmm.wait_ready(60)?;
    pmm.wait_health("healthy", 60)?;
    let left = pmm.services(Auth::Admin)?;
    bites(left.is_empty(), format!("{SERVICES:?} became {left:?}"))?;
    let report = pmm.post(
        "/v1/qan/metrics:getReport",
        &seed::report_request("pmm-server-postgresql"),
    )?;
    bites(report["total_rows"] == 0, format!("queries are left: {report}"))?;
    let old = "/prometheus/api/v1/query?query=count_over_time(pg_up%5B30d%5D%20offset%2060s)";
    let samples = pmm.get(old)?["data"]["result"].clone();
    bites(
        samples.as_array().is_none_or(Vec::is_empty),
        format!("samples are left: {samples}"),
    )
}
