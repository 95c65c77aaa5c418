//! A database backup that PMM makes on a host, seen from outside: PMM's own list, the processes, the bucket.

use crate::build::Programs;
use crate::fleet::{self, Host};
use crate::pmm::{self, Major};
use crate::wait::{self, Probe};
use crate::{docker, hosts, names, output};
use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

/// The backup goes on as long as this file is there.
const HOLD: &str = "/etc/standin/backup-hold";
/// Where finished backups are.
const BUCKET: &str = "/var/lib/standin-bucket";
/// Name of the backup.
pub const NAME: &str = "before-the-migration";

/// Installs what PMM's MySQL backups need on a host: `xtrabackup`, `xbcloud`, `qpress`, and a bucket.
pub fn install_tools(host: &str, programs: &Programs) -> Result<()> {
    install_in(&names::host(host), programs)
}

/// The same by the container's name.
pub fn install_in(container: &str, programs: &Programs) -> Result<()> {
    let program = programs.standin_client.display().to_string();
    docker::docker(["cp", &program, &format!("{container}:/usr/bin/xtrabackup")])?;
    for name in ["xbcloud", "qpress"] {
        docker::exec_must(
            container,
            &["cp", "/usr/bin/xtrabackup", &format!("/usr/bin/{name}")],
        )?;
    }
    docker::exec_must(container, &["install", "-d", "-m", "1777", BUCKET]).map(drop)
}

/// Starts a backup that goes on until [`release`]; returns when its processes run.
pub fn start(host: &Host) -> Result<()> {
    hold(&names::host(host.name))?;
    let service = mysql_of(host)?;
    let id = pmm::services()?
        .get(&service)
        .context("the service to back up")?
        .id
        .clone();
    let location = pmm::call("/v1/management/backup/Locations/Add", Some(&location()))?;
    let request = json!({
        "service_id": format!("/service_id/{id}"), "location_id": location["location_id"], "name": NAME, "data_model": "PHYSICAL",
    });
    pmm::call("/v1/management/backup/Backups/Start", Some(&request))?;
    wait::until("the backup to run", 30, || {
        let (processes, status) = (hosts::pids(host, "xtrabackup")?, status()?);
        let runs = !processes.is_empty() && status == "BACKUP_STATUS_IN_PROGRESS";
        wait::check(runs, format!("{status}, processes {processes:?}"))
    })?;
    output::step(&format!("PMM backs up {service}"));
    Ok(())
}

/// Makes backups on a host go on until [`let_go`].
pub fn hold(container: &str) -> Result<()> {
    docker::write_file(container, HOLD, "644", b"")
}

/// Lets backups on a host come to their end.
pub fn let_go(container: &str) -> Result<()> {
    docker::exec_must(container, &["rm", "-f", HOLD]).map(drop)
}

/// A bucket, as PMM is told about it.
pub fn location() -> Value {
    json!({"name": "bucket", "s3_config": {"endpoint": "https://s3.lab", "access_key": "AKLAB", "secret_key": SECRET, "bucket_name": "backups"}})
}

/// The bucket's secret, which `xbcloud` has among its arguments.
pub const SECRET: &str = "s3-secret-of-the-lab";

/// The MySQL service of a host.
pub fn mysql_of(host: &Host) -> Result<String> {
    let found = host.services.iter().find(|(kind, _, _)| *kind == "mysql");
    Ok(found
        .with_context(|| format!("{} has no MySQL service", host.name))?
        .1
        .to_owned())
}

/// Lets the backup come to its end and waits until PMM knows.
pub fn release(host: &Host) -> Result<()> {
    let_go(&names::host(host.name))?;
    wait::until("the backup to complete", 60, || {
        let status = status()?;
        match status.as_str() {
            "BACKUP_STATUS_SUCCESS" => Ok(Probe::Ready(())),
            "BACKUP_STATUS_ERROR" => bail!("the backup is lost: PMM says {status}"),
            _ => Ok(Probe::NotYet(status)),
        }
    })?;
    output::step("the backup is complete");
    Ok(())
}

/// What PMM says of the backup.
pub fn status() -> Result<String> {
    let answer = match pmm::major()? {
        Major::Two => pmm::call("/v1/management/backup/Artifacts/List", Some(&json!({})))?,
        Major::Three => pmm::call("/v1/backups/artifacts", None)?,
    };
    let artifacts = answer["artifacts"].as_array().cloned().unwrap_or_default();
    let found = artifacts.iter().find(|row| row["name"] == NAME);
    Ok(found
        .and_then(|row| row["status"].as_str())
        .context("PMM does not list the backup")?
        .to_owned())
}

/// Whether a whole backup is in a host's bucket.
pub fn is_stored(container: &str, name: &str) -> Result<bool> {
    Ok(docker::exec(container, &["test", "-s", &format!("{BUCKET}/{name}")])?.ok())
}

/// The host of the fleet that PMM backs up.
pub fn host(name: Option<&str>) -> Result<&'static Host> {
    fleet::host(name.context("the scenario names no host to back up")?)
}
