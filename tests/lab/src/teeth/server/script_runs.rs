//! Runs of the script that end badly, each in its own way.

use super::pmm::{Auth, Pmm};
use super::scene::{self, Scene, bites};
use super::script::Script;
use super::seed::{self, SERVICES};
use crate::docker;
use anyhow::{Result, ensure};

/// PMM 2 with data, an environment and nothing else.
fn old(scene: &Scene, args: &[&str], switches: &str) -> Result<Pmm> {
    let data = format!("{}:/srv", scene.volume("data", &seed::last()?)?);
    let mut all = vec!["--volume", &data];
    all.extend(args);
    let pmm = scene.start("pmm", "2.44.1", &all, switches)?;
    pmm.wait_ready(60)?;
    Ok(pmm)
}

fn running(name: &str) -> Result<bool> {
    Ok(Pmm::named(name).inspect()?["State"]["Running"] == true)
}

/// `DISABLE_UPDATES=true`, the form that the documentation uses, is no number.
pub fn disable_word_aborts() -> Result<()> {
    let scene = Scene::new("disable-word-aborts")?;
    let pmm = old(&scene, &["--env", "DISABLE_UPDATES=true"], "")?;
    let done = Script::new(&scene, "3.7.1").run()?;
    bites(
        !done.ok() && done.stderr.contains("unbound variable"),
        format!("the script ended with {}: {}", done.code, done.all()),
    )?;
    ensure!(
        scene.containers()? == [pmm.name.clone()],
        "containers: {:?}",
        scene.containers()?
    );
    bites(!running(&pmm.name)?, "PMM is running")
}

/// A quote in a value ends the command that runs PMM 3, after PMM 2 was stopped and renamed.
pub fn quote_breaks_the_command() -> Result<()> {
    let scene = Scene::new("quote-breaks-the-command")?;
    let pmm = old(&scene, &["--env", "GF_SMTP_PASSWORD=s3\"cret"], "")?;
    let done = Script::new(&scene, "3.7.1").run()?;
    bites(!done.ok(), "the script succeeded")?;
    let left = scene.containers()?;
    bites(
        !left.contains(&pmm.name) && left.len() == 1,
        format!("containers: {left:?}"),
    )?;
    bites(!running(&left[0])?, "PMM 2 is running")
}

/// The tag is split off at the first colon, so a registry's port hides it; the migration is skipped and PMM 3 meets data of PMM 2.
pub fn registry_port_hides_the_tag() -> Result<()> {
    skipped(
        "registry-port-hides-the-tag",
        "teeth.lab:5000/percona/pmm-server:2.44.1",
    )
}

/// A container of an image without a tag counts as `latest`.
pub fn untagged_image_is_skipped() -> Result<()> {
    skipped("untagged-image-is-skipped", "fleetlab/teeth-untagged")
}

fn skipped(case: &str, reference: &str) -> Result<()> {
    let scene = Scene::new(case)?;
    scene.tag("2.44.1", reference)?;
    let data = format!("{}:/srv", scene.volume("data", &seed::last()?)?);
    let pmm = Pmm::named(&scene.name("pmm"));
    docker::docker([
        "run", "--detach", "--name", &pmm.name, "--volume", &data, reference,
    ])?;
    pmm.wait_ready(60)?;
    let done = Script::new(&scene, "3.7.1").run()?;
    ensure!(done.ok(), "the script ended with {}: {}", done.code, done.all());
    bites(
        done.stdout.contains("No migration"),
        format!("the script saw PMM 2: {}", done.stdout),
    )?;
    pmm.wait_restarts(2, 30)?;
    let log = pmm.log()?;
    bites(log.contains("/srv is not writable"), format!("PMM 3 says: {log}"))
}

/// A digest counts as a version that is not 2.
pub fn digest_is_skipped() -> Result<()> {
    let scene = Scene::new("digest-is-skipped")?;
    let digest = docker::inspect("image", &scene::image("2.44.1")?)?
        .and_then(|image| image["Id"].as_str().map(str::to_owned))
        .unwrap_or_default();
    let data = format!("{}:/srv", scene.volume("data", &seed::last()?)?);
    let pmm = Pmm::named(&scene.name("pmm"));
    docker::docker(["run", "--detach", "--name", &pmm.name, "--volume", &data, &digest])?;
    pmm.wait_ready(60)?;
    let done = Script::new(&scene, "3.7.1").run()?;
    bites(
        done.ok() && done.stdout.contains("No migration"),
        format!("the script ended with {}: {}", done.code, done.all()),
    )?;
    pmm.wait_restarts(1, 30)?;
    bites(pmm.log()?.contains("/srv is not writable"), "PMM 3 took the data")
}

/// Only volumes are looked for at /srv: a directory of the host has no name, and the run fails after stop and rename.
pub fn bind_mount_at_srv() -> Result<()> {
    let scene = Scene::new("bind-mount-at-srv")?;
    let directory = scene.directory("srv")?;
    let data = format!("{}:/srv", directory.display());
    let pmm = scene.start("pmm", "2.44.1", &["--volume", &data], "")?;
    pmm.wait_ready(60)?;
    let done = Script::new(&scene, "3.7.1").run()?;
    bites(!done.ok(), "the script succeeded")?;
    let left = scene.containers()?;
    bites(
        !left.contains(&pmm.name),
        format!("the old container has its name still: {left:?}"),
    )?;
    for name in &left {
        bites(!running(name)?, format!("{name} is running"))?;
    }
    Ok(())
}

/// With the wrong name a new PMM 3 with nothing in it is started beside PMM 2.
pub fn wrong_name_starts_a_second() -> Result<()> {
    let scene = Scene::new("wrong-name-starts-a-second")?;
    let pmm = old(&scene, &[], "")?;
    let other = Pmm::named(&scene.name("pmm-server"));
    let done = Script::new(&scene, "3.7.1")
        .with("CONTAINER_NAME", &other.name)
        .run()?;
    bites(
        done.ok(),
        format!("the script ended with {}: {}", done.code, done.all()),
    )?;
    other.wait_ready(60)?;
    bites(
        other.services(super::pmm::FRESH)?.is_empty(),
        "the second PMM has services",
    )?;
    bites(
        running(&pmm.name)? && pmm.services(Auth::Admin)? == SERVICES,
        "PMM 2 does not go on beside it",
    )
}

/// Whatever has the name counts as the container: here a volume, and the script ends where it looks for mounts.
pub fn anything_by_that_name() -> Result<()> {
    let scene = Scene::new("anything-by-that-name")?;
    scene.empty_volume("pmm")?;
    let done = Script::new(&scene, "3.7.1").run()?;
    bites(
        !done.ok(),
        format!("the script took it for a new installation: {}", done.all()),
    )?;
    bites(scene.containers()?.is_empty(), "there is a container")
}

/// `docker stop` waits 10 s; the databases need longer. The backup is of data that were not stopped cleanly.
pub fn ten_seconds_are_not_enough() -> Result<()> {
    let scene = Scene::new("ten-seconds-are-not-enough")?;
    let pmm = old(&scene, &[], "slow_stop_seconds = 15")?;
    let helper = scene::image("2.44.1")?;
    let done = Script::new(&scene, "3.7.1")
        .with("BACKUP", "1")
        .with("HELPER_IMAGE", &helper)
        .with("STOP_AFTER", "backup")
        .run()?;
    ensure!(done.ok(), "the script ended with {}: {}", done.code, done.all());
    ensure!(
        pmm.inspect()?["State"]["ExitCode"] == 137,
        "PMM 2 ended with {}",
        pmm.inspect()?["State"]["ExitCode"]
    );
    let backup = backup_of(&done.stdout);
    let left = scene::on_volume(
        &backup,
        &["find", "/srv/postgres14/postmaster.pid", "/srv/clickhouse/status"],
    );
    bites(left.is_ok(), "the backup is of cleanly stopped databases")?;
    let control = scene::on_volume(&backup, &["cat", "/srv/postgres14/global/pg_control"])?;
    bites(
        control.contains("in production"),
        format!("pg_control says {control}"),
    )
}

fn backup_of(printed: &str) -> String {
    printed
        .lines()
        .find_map(|line| line.strip_prefix("Backup volume: "))
        .unwrap_or_default()
        .to_owned()
}

/// The older revision copies the volume that `-vn` names, whatever the container uses: an empty one that the copy itself creates.
pub fn backup_of_the_wrong_volume() -> Result<()> {
    let scene = Scene::new("backup-of-the-wrong-volume")?;
    old(&scene, &[], "")?;
    let helper = scene::image("2.44.1")?;
    let script = Script::new(&scene, "3.7.1")
        .with("BACKUP", "1")
        .with("HELPER_IMAGE", &helper)
        .with("STOP_AFTER", "backup")
        .with("REVISION", "old");
    let done = script.run()?;
    bites(done.ok(), format!("the script noticed: {}", done.all()))?;
    let listed = scene::on_volume(&backup_of(&done.stdout), &["ls", "-A", "/srv"])?;
    bites(listed.is_empty(), format!("the backup holds {listed}"))
}

/// The helper image is pulled only when PMM is down already.
pub fn helper_is_pulled_too_late() -> Result<()> {
    let scene = Scene::new("helper-is-pulled-too-late")?;
    let pmm = old(&scene, &[], "")?;
    // Nobody listens there: what a host without access to a registry sees.
    let done = Script::new(&scene, "3.7.1")
        .with("BACKUP", "1")
        .with("HELPER_IMAGE", "127.0.0.1:9/alpine")
        .run()?;
    bites(!done.ok(), "the script succeeded")?;
    bites(!running(&pmm.name)?, "PMM is running")
}

/// It waits for seconds, not for a state: PMM 2 is stopped in the middle of its own update, and PMM 3 is put on what is left.
pub fn blind_pause() -> Result<()> {
    let scene = Scene::new("blind-pause")?;
    let data = format!("{}:/srv", scene.volume("data", &seed::older()?)?);
    // The last 2.x was started on older data a moment ago and needs a while for them.
    let pmm = scene.start("pmm", "2.44.1", &["--volume", &data], "migration_seconds = 30")?;
    pmm.wait_log("pmm-managed", "Current database schema version", 1, 30)?;
    let done = Script::new(&scene, "3.7.1").run()?;
    bites(done.ok(), format!("the script noticed: {}", done.all()))?;
    pmm.wait_log("pmm-managed", "has the layout of 2.41.2", 2, 60)?;
    bites(pmm.readiness()? != 200, "PMM 3 is ready")
}

/// The script says that all is well while PMM 3 does not even take the data.
pub fn success_means_nothing() -> Result<()> {
    let scene = Scene::new("success-means-nothing")?;
    let pmm = old(&scene, &[], "")?;
    let done = Script::new(&scene, "3.9.1").run()?;
    bites(
        done.ok() && done.stdout.contains("has been installed and started"),
        format!("the script noticed: {}", done.all()),
    )?;
    pmm.wait_log("pmm-managed", "Failed to migrate database", 2, 60)?;
    bites(pmm.readiness()? != 200, "PMM 3 is ready")
}

/// The way back of the documentation: the only backup itself, an older release than the one that wrote it, no environment.
pub fn rollback_in_prose() -> Result<()> {
    let scene = Scene::new("rollback-in-prose")?;
    let pmm = old(
        &scene,
        &["--env", "DATA_RETENTION=1440h", "--label", "com.example.team=dba"],
        "",
    )?;
    let helper = scene::image("2.44.1")?;
    let done = Script::new(&scene, "3.7.1")
        .with("BACKUP", "1")
        .with("HELPER_IMAGE", &helper)
        .with("STOP_AFTER", "backup")
        .run()?;
    ensure!(done.ok(), "the script ended with {}: {}", done.code, done.all());
    let backup = backup_of(&done.stdout);
    pmm.remove()?;
    let mount = format!("{backup}:/srv");
    let back = scene.start(
        "pmm",
        "2.44.0",
        &["--publish", "0:443", "--restart", "always", "--volume", &mount],
        "",
    )?;
    back.wait_ready(60)?;
    let marker = scene::on_volume(&backup, &["cat", "/srv/grafana/PERCONA_DASHBOARDS_VERSION"])?;
    bites(
        back.version()? == "2.44.0" && marker == "2.44.1",
        format!("release {}, data of {marker}", back.version()?),
    )?;
    let settings = back.post("/v1/Settings/Get", &serde_json::json!({}))?;
    bites(
        settings["settings"]["data_retention"] == "2592000s",
        "the environment was restored",
    )?;
    bites(
        back.inspect()?["Mounts"][0]["Name"] == backup.as_str(),
        "the backup was copied before it was used",
    )
}
