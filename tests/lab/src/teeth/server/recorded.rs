//! What a successful run of the script leaves behind, each read from the one recording.

use super::recorded_run::{SECRET, recording};
use super::scene::{self, bites};
use crate::docker;
use anyhow::{Context, Result, ensure};
use serde_json::Value;

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
