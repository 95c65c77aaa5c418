//! One successful run of the script on a PMM 2 that was set up with care, and what is left of it. Many cases read this one recording.

use super::pmm::{Auth, FRESH, PASSWORD, Pmm};
use super::scene::Scene;
use super::script::Script;
use super::seed;
use crate::docker;
use crate::wait::{self, Probe};
use anyhow::{Context, Result, anyhow, ensure};
use serde_json::Value;
use std::sync::OnceLock;

/// A password with what shells change.
pub const SECRET: &str = r"pa$HOME\\end";

pub struct Recording {
    pub printed: String,
    /// Container before, container under the old name after, the renamed one after.
    pub before: Value,
    pub after: Value,
    pub kept: Value,
    /// pmm-managed's log in PMM 3.
    pub managed_log: String,
    /// Status for the password that the script prints, and for the one that was valid before.
    pub printed_password: u16,
    pub old_password: u16,
    pub ldap_after: String,
    /// Owner and group of what is on the volume.
    pub owners: String,
    pub process_group: String,
    /// The old container started again: running, ready, and its log.
    pub old_started: (bool, u16, String),
    /// Exit code and containers of a second run.
    pub again: (i32, Vec<String>, Value),
}

pub fn recording() -> Result<&'static Recording> {
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
