//! One successful run of the script on a PMM 2 that was set up with care, and what is left of it. Many cases read this one recording.

use super::pmm::{Auth, FRESH, PASSWORD, Pmm};
use super::scene::{self, Scene, bites};
use super::script::Script;
use super::seed;
use crate::docker;
use crate::wait::{self, Probe};
use anyhow::{Context, Result, anyhow, ensure};
use serde_json::Value;
use std::sync::OnceLock;

/// A password with what shells change.
const SECRET: &str = r"pa$HOME\\end";

struct Recording {
    printed: String,
    /// Container before, container under the old name after, the renamed one after.
    before: Value,
    after: Value,
    kept: Value,
    /// pmm-managed's log in PMM 3.
    managed_log: String,
    /// Status for the password that the script prints, and for the one that was valid before.
    printed_password: u16,
    old_password: u16,
    ldap_after: String,
    /// Owner and group of what is on the volume.
    owners: String,
    process_group: String,
    /// The old container started again: running, ready, and its log.
    old_started: (bool, u16, String),
    /// Exit code and containers of a second run.
    again: (i32, Vec<String>, Value),
}

fn recording() -> Result<&'static Recording> {
    static RECORDED: OnceLock<Result<Recording, String>> = OnceLock::new();
    let made = RECORDED.get_or_init(|| record().map_err(|error| format!("{error:#}")));
    made.as_ref()
        .map_err(|error| anyhow!("the script's run could not be recorded: {error}"))
}

fn record() -> Result<Recording> {
    let scene = Scene::new("script-run")?;
    let old = start_old(&scene)?;
    old.wait_ready(60)?;
    old.exec(&["dd", "if=/dev/null", "of=/etc/grafana/ldap.toml", "status=none"])?;
    let before = old.inspect()?;
    let script = Script::new(&scene, "3.7.1");
    let done = script.run()?;
    ensure!(done.ok(), "the script ended with {}: {}", done.code, done.all());
    let new = Pmm::named(&old.name);
    new.wait_ready(90)?;
    let after = new.inspect()?;
    let kept_name = scene
        .containers()?
        .into_iter()
        .find(|name| *name != new.name)
        .context("the renamed container")?;
    let kept = Pmm::named(&kept_name);
    let mut recording = Recording {
        printed: done.stdout,
        before,
        after,
        kept: kept.inspect()?,
        managed_log: new.log_of("pmm-managed")?,
        printed_password: new.ask("GET", "/v1/server/settings", None, FRESH)?.status,
        old_password: new
            .ask("GET", "/v1/server/settings", None, Auth::Basic("admin", PASSWORD))?
            .status,
        ldap_after: new.exec(&["find", "/etc/grafana", "-name", "ldap.toml"])?,
        owners: new.exec(&[
            "stat",
            "-c",
            "%u:%g",
            "/srv",
            "/srv/postgres14/PG_VERSION",
            "/srv/grafana/plugins",
        ])?,
        process_group: docker::exec_must(&new.name, &["id", "-g"])?,
        old_started: (false, 0, String::new()),
        again: (0, Vec::new(), Value::Null),
    };
    new.stop()?;
    recording.old_started = start_again(&kept)?;
    docker::docker(["start", &new.name])?;
    new.wait_ready(60)?;
    let again = script.run()?;
    recording.again = (again.code, scene.containers()?, new.inspect()?);
    Ok(recording)
}

/// PMM 2 with everything that an operator may have set.
fn start_old(scene: &Scene) -> Result<Pmm> {
    let data = scene.volume("data", &seed::last()?)?;
    let (net, other) = (scene.network("net")?, scene.network("other-net")?);
    let extra = scene.directory("extra")?;
    fs_err::write(extra.join("ca.pem"), "# mounted by the operator\n")?;
    let (data, extra) = (
        format!("{data}:/srv"),
        format!("{}:/opt/site:ro", extra.display()),
    );
    let password = format!("GF_SMTP_PASSWORD={SECRET}");
    let args = [
        "--restart",
        "always",
        "--hostname",
        "pmm-1",
        "--volume",
        &data,
        "--volume",
        &extra,
        "--network",
        &net,
        "--network-alias",
        "pmm",
        "--publish",
        "127.0.0.1:0:443",
        "--publish",
        "127.0.0.1:0:80",
        "--label",
        "com.example.team=dba",
        "--memory",
        "1g",
        "--ulimit",
        "nofile=8192:16384",
        "--log-opt",
        "max-size=20m",
        "--add-host",
        "ldap.lab:192.0.2.10",
        "--stop-timeout",
        "120",
        "--env",
        "DISABLE_TELEMETRY=1",
        "--env",
        "DATA_RETENTION=1440h",
        "--env",
        "ENABLE_VM_CACHE=1",
        "--env",
        "LESS_LOG_NOISE=1",
        "--env",
        "OAUTH_PMM_CLIENT_ID=abc",
        "--env",
        "PERCONA_TEST_VERSION_SERVICE_URL=https://check.example",
        "--env",
        &password,
    ];
    let pmm = scene.start("pmm", "2.44.1", &args, "")?;
    docker::docker(["network", "connect", "--alias", "pmm-second", &other, &pmm.name])?;
    Ok(pmm)
}

/// Starts the renamed container, as a restart of the Docker daemon does with this policy, and looks what it does.
fn start_again(kept: &Pmm) -> Result<(bool, u16, String)> {
    docker::docker(["start", &kept.name])?;
    wait::until("PMM 2 to touch the migrated data", 40, || {
        let log = kept.log_of("pmm-managed")? + &kept.log_of("postgresql14")?;
        let touched = log.contains("is newer than") || log.contains("Permission denied");
        Ok(if touched {
            Probe::Ready(())
        } else {
            Probe::NotYet(log.chars().rev().take(300).collect())
        })
    })?;
    let running = kept.inspect()?["State"]["Running"] == true;
    let seen = (
        running,
        kept.readiness()?,
        kept.log_of("pmm-managed")? + &kept.log_of("postgresql14")?,
    );
    kept.stop()?;
    Ok(seen)
}

fn env_of(container: &Value) -> Vec<String> {
    let list = container["Config"]["Env"].as_array().into_iter().flatten();
    list.filter_map(|pair| pair.as_str().map(str::to_owned)).collect()
}

fn has(container: &Value, pair: &str) -> bool {
    env_of(container).iter().any(|have| have == pair)
}

/// (PMM docs: get-pmm.sh, the drop list.)
pub fn drop_list_drops_nothing() -> Result<()> {
    let seen = recording()?;
    bites(
        has(&seen.after, "LESS_LOG_NOISE=1"),
        format!("LESS_LOG_NOISE was dropped: {:?}", env_of(&seen.after)),
    )?;
    bites(
        seen.managed_log.contains("LESS_LOG_NOISE"),
        "PMM 3 does not even warn about LESS_LOG_NOISE",
    )
}

/// The image's own variables of PMM 2 end up in PMM 3.
pub fn image_env_is_pushed() -> Result<()> {
    let seen = recording()?;
    let fresh = docker::inspect("image", &scene::image("3.7.1")?)?.context("the image of 3.7.1")?;
    ensure!(
        !has(&fresh, "GF_PLUGIN_DIR=/srv/grafana/plugins"),
        "the image of 3.7.1 has GF_PLUGIN_DIR itself"
    );
    bites(
        has(&seen.after, "GF_PLUGIN_DIR=/srv/grafana/plugins"),
        "GF_PLUGIN_DIR of the PMM 2 image did not get into PMM 3",
    )
}

/// Values go through `sh -c` in double quotes.
pub fn shell_changes_values() -> Result<()> {
    let seen = recording()?;
    ensure!(
        has(&seen.before, &format!("GF_SMTP_PASSWORD={SECRET}")),
        "the password was not set to begin with"
    );
    let after = env_of(&seen.after)
        .into_iter()
        .find(|pair| pair.starts_with("GF_SMTP_PASSWORD="))
        .unwrap_or_default();
    bites(
        !after.is_empty() && after != format!("GF_SMTP_PASSWORD={SECRET}"),
        format!("the password survived: {after}"),
    )
}

/// The real name of the old container has an extra `n`.
pub fn archive_name_is_wrong() -> Result<()> {
    let seen = recording()?;
    let line = seen
        .printed
        .lines()
        .find_map(|line| line.split("kept as ").nth(1))
        .context("the script names the old container")?;
    let real = seen.kept["Name"]
        .as_str()
        .unwrap_or_default()
        .trim_start_matches('/');
    bites(
        real == format!("{line}n"),
        format!("printed `{line}`, real `{real}`"),
    )
}

/// Published ports, networks, aliases, labels, mounts, limits, log options, hosts, hostname, stop timeout.
pub fn settings_are_lost() -> Result<()> {
    let seen = recording()?;
    let networks = |c: &Value| {
        c["NetworkSettings"]["Networks"]
            .as_object()
            .map_or(0, serde_json::Map::len)
    };
    ensure!(
        networks(&seen.before) == 2,
        "the old container was not on two networks"
    );
    bites(networks(&seen.after) == 1, "both networks were kept")?;
    let aliases = |c: &Value| c["NetworkSettings"]["Networks"].to_string();
    bites(
        aliases(&seen.before).contains("\"pmm\"") && !aliases(&seen.after).contains("\"pmm\""),
        "the alias was kept",
    )?;
    for pointer in [
        "/Config/Labels/com.example.team",
        "/HostConfig/Memory",
        "/HostConfig/Ulimits",
        "/HostConfig/LogConfig/Config/max-size",
        "/HostConfig/ExtraHosts",
        "/Config/Hostname",
        "/Config/StopTimeout",
        "/HostConfig/PortBindings/443~1tcp",
        "/HostConfig/PortBindings/80~1tcp",
    ] {
        let (old, new) = (seen.before.pointer(pointer), seen.after.pointer(pointer));
        ensure!(
            old.is_some_and(|value| !value.is_null()),
            "{pointer} was not set to begin with"
        );
        bites(old != new, format!("{pointer} was kept: {new:?}"))?;
    }
    let ports = seen.after["HostConfig"]["PortBindings"]
        .as_object()
        .cloned()
        .unwrap_or_default();
    bites(
        ports.len() == 1 && ports.contains_key("8443/tcp"),
        format!("ports after: {ports:?}"),
    )?;
    bites(
        ports["8443/tcp"][0]["HostIp"] == "",
        "the binding to one address was kept",
    )?;
    let mounts = |c: &Value| c["Mounts"].as_array().map_or(0, Vec::len);
    bites(
        mounts(&seen.before) == 2 && mounts(&seen.after) == 1,
        "the operator's mount was kept",
    )
}

/// ENABLE_VM_CACHE is in neither map.
pub fn vm_cache_is_ignored() -> Result<()> {
    let seen = recording()?;
    bites(
        has(&seen.after, "ENABLE_VM_CACHE=1") && !has(&seen.after, "PMM_ENABLE_VM_CACHE=1"),
        "ENABLE_VM_CACHE was translated",
    )?;
    bites(
        seen.managed_log
            .contains("unknown environment variable \\\"ENABLE_VM_CACHE")
            || seen.managed_log.contains("ENABLE_VM_CACHE"),
        "PMM 3 took it",
    )
}

/// The OAuth names are tested against the drop list before they are renamed.
pub fn oauth_is_not_dropped() -> Result<()> {
    bites(
        has(&recording()?.after, "PMM_DEV_OAUTH_CLIENT_ID=abc"),
        "the OAuth client was dropped",
    )
}

/// The script's map and the documentation's table disagree.
pub fn map_contradicts_docs() -> Result<()> {
    let seen = recording()?;
    bites(
        has(&seen.after, "PMM_PERCONA_PLATFORM_ADDRESS=https://check.example"),
        "the script's map was not used",
    )?;
    bites(
        !env_of(&seen.after)
            .iter()
            .any(|pair| pair.starts_with("PMM_DEV_VERSION_SERVICE_URL=")),
        "the documented name was used",
    )
}

/// A made-up token, which can be guessed from the time, ends up in the environment.
pub fn token_can_be_guessed() -> Result<()> {
    let env = env_of(&recording()?.after);
    bites(
        env.iter()
            .any(|pair| pair.starts_with("PMM_WATCHTOWER_TOKEN=random-2")),
        format!("no guessable token: {env:?}"),
    )
}

/// Owners become 1000:1000, where PMM 3 expects and runs with group 0.
pub fn group_is_wrong() -> Result<()> {
    let seen = recording()?;
    ensure!(
        seen.process_group == "0",
        "PMM 3 runs with group {}",
        seen.process_group
    );
    bites(
        seen.owners.lines().all(|line| line == "1000:1000"),
        format!("owners: {}", seen.owners),
    )
}

/// The script prints admin/admin, but the password is what it was.
pub fn printed_password_is_wrong() -> Result<()> {
    let seen = recording()?;
    ensure!(
        seen.printed.contains("password: admin"),
        "the script prints no password"
    );
    bites(
        seen.printed_password == 401 && seen.old_password == 200,
        format!("printed {}, old {}", seen.printed_password, seen.old_password),
    )
}

/// What was edited outside of /srv is gone.
pub fn edited_files_are_lost() -> Result<()> {
    bites(
        recording()?.ldap_after.is_empty(),
        "ldap.toml survived the re-creation",
    )
}

/// The renamed container keeps `always` and shares the migrated volume; started, PMM 2 runs on the data of PMM 3.
pub fn old_container_comes_back() -> Result<()> {
    let seen = recording()?;
    bites(
        seen.kept["HostConfig"]["RestartPolicy"]["Name"] == "always",
        "the old container's restart policy was changed",
    )?;
    bites(seen.old_started.0, "the old container does not start")
}

/// The renamed container is no backup: its data are the migrated ones.
pub fn old_container_is_no_backup() -> Result<()> {
    let seen = recording()?;
    let volume = |c: &Value| {
        c["Mounts"]
            .as_array()
            .into_iter()
            .flatten()
            .find(|m| m["Destination"] == "/srv")
            .map(|m| m["Name"].clone())
    };
    bites(
        volume(&seen.kept).is_some() && volume(&seen.kept) == volume(&seen.after),
        "the old container has data of its own",
    )?;
    bites(
        seen.old_started.1 != 200,
        format!(
            "PMM 2 is ready again on the migrated data: {}",
            seen.old_started.2
        ),
    )
}

/// A second run finds version 3, renames it and makes another one.
pub fn second_run_recreates() -> Result<()> {
    let seen = recording()?;
    ensure!(seen.again.0 == 0, "the second run ended with {}", seen.again.0);
    bites(
        seen.again.1.len() == 3,
        format!("containers after two runs: {:?}", seen.again.1),
    )?;
    bites(
        seen.again.2["Id"] != seen.after["Id"],
        "the second run left the container alone",
    )?;
    ensure!(
        has(&seen.after, "PMM_DATA_RETENTION=1440h"),
        "the first run lost the retention"
    );
    bites(
        !has(&seen.again.2, "PMM_DATA_RETENTION=1440h"),
        "the second run kept the environment",
    )
}
