//! Work on the data volume, done by the helper.

use super::context::Hop;
use crate::docker::containers;
use crate::docker::helper::Work;
use crate::error::DriverError;
use crate::inspect::data_binds;
use crate::preflight::leave;
use fleet_common::codes;
use serde::de::DeserializeOwned;
use serde_json::json;
use server_upgrade::names::{LABEL_KEY, LABEL_ROLE, Phase};
use server_upgrade::volume::{OwnReport, SyncReport, owner_for};
use std::time::Duration;

const COPY: &str = "/backup/data";
const MANIFEST: &str = "/backup/manifest";
const OWNERS: &str = "/backup/owners";

/// Backup volume, keeper, and the copy that is made while PMM runs.
pub async fn first_pass(hop: &mut Hop<'_>, phase: Phase, limit: Duration) -> Result<(), DriverError> {
    let container = hop.docker.existing(&hop.tools.config.container).await?;
    super::forward::remember(hop, phase, &container)?;
    let names = hop.names(phase);
    hop.docker
        .create_volume(&names.restore_point(), names.labels("restore-point"))
        .await?;
    let image: String = hop.need(phase, "old_image_id")?;
    let keeper = json!({
        "Image": image,
        "Entrypoint": ["/none"],
        "Cmd": [],
        "Labels": names.labels("keeper"),
        "Healthcheck": {"Test": ["NONE"]},
        // `/srv` as well, so that no anonymous volume is made for it.
        "HostConfig": {"Binds": [format!("{}:/backup", names.restore_point()), format!("{}:/srv", names.restore_point())],
            "NetworkMode": "none", "RestartPolicy": {"Name": "no"}},
    });
    hop.docker.create_container(&names.keeper(), &keeper).await?;
    hop.note(phase, "restore_point", &names.restore_point())?;
    if phase == Phase::Rehome {
        hop.journal.note("restore_point", &names.restore_point())?;
    }
    let report: SyncReport = work(hop, phase, "first", sync_args(true), Access::Read, limit).await?;
    hop.note(phase, "first_pass", &report)
}

/// What changed since, with nothing running any more.
pub async fn second_pass(hop: &mut Hop<'_>, phase: Phase, limit: Duration) -> Result<(), DriverError> {
    nothing_runs(hop, phase).await?;
    let report: SyncReport = work(hop, phase, "second", sync_args(false), Access::Read, limit).await?;
    let objections = report.objections();
    if !objections.is_empty() {
        return Err(DriverError::state(
            codes::UNEXPECTED_STATE,
            format!("the restore point is no way back: {}", objections.join("; ")),
        ));
    }
    hop.note(phase, "second_pass", &report)?;
    let logs = report.source.map(|look| look.logs).unwrap_or_default();
    hop.note(phase, "logs", &logs)
}

/// The data belongs to PMM 3's user afterwards.
pub async fn ownership(hop: &mut Hop<'_>, phase: Phase, limit: Duration) -> Result<(), DriverError> {
    nothing_runs(hop, phase).await?;
    let Some((uid, gid)) = owner_for(hop.versions(phase).1) else {
        return Ok(());
    };
    let args = vec![
        "own".to_owned(),
        "--root".to_owned(),
        "/srv".to_owned(),
        "--uid".to_owned(),
        uid.to_string(),
        "--gid".to_owned(),
        gid.to_string(),
        "--record".to_owned(),
        OWNERS.to_owned(),
    ];
    let report: OwnReport = work(hop, phase, "own", args, Access::Write, limit).await?;
    hop.note(phase, "owned", &report)
}

/// Ends what still works on the data for this hop: work that was given up by its step goes on in its container. A restore of an earlier
/// life may stay, `restore` waits for it.
pub async fn end_helpers(hop: &Hop<'_>, phase: Phase, spare_restore: bool) -> Result<(), DriverError> {
    let names = hop.names(phase);
    let labels = [
        format!("{LABEL_KEY}={}", names.key()),
        format!("{LABEL_ROLE}=helper"),
    ];
    for name in hop.docker.containers_with(&labels).await? {
        if !spare_restore || name != names.helper("restore") {
            hop.docker.remove_container(&name).await?;
        }
    }
    Ok(())
}

/// The data as it was when the restore point was finished.
pub async fn restore(hop: &mut Hop<'_>, phase: Phase, limit: Duration) -> Result<(), DriverError> {
    let args = ["restore", "--from", COPY, "--to", "/srv"]
        .map(str::to_owned)
        .to_vec();
    let _: serde_json::Value = work(hop, phase, "restore", args, Access::Write, limit).await?;
    Ok(())
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Access {
    Read,
    Write,
}

fn sync_args(live: bool) -> Vec<String> {
    let mut args = ["sync", "--from", "/srv", "--to", COPY, "--manifest", MANIFEST]
        .map(str::to_owned)
        .to_vec();
    if live {
        args.push("--live".to_owned());
    }
    args
}

async fn work<T: DeserializeOwned>(
    hop: &Hop<'_>,
    phase: Phase,
    name: &str,
    mut args: Vec<String>,
    access: Access,
    limit: Duration,
) -> Result<T, DriverError> {
    let names = hop.names(phase);
    let old: String = hop.need(phase, "old_id")?;
    let image: String = hop.need(phase, "old_image_id")?;
    let container = hop.docker.existing(&old).await?;
    args.extend(leave(&container));
    let mut binds = data_binds(&container, access == Access::Read);
    binds.push(format!("{}:/backup", names.restore_point()));
    hop.docker
        .help(&Work {
            name: names.helper(name),
            labels: names.labels("helper"),
            image: &image,
            program: &hop.tools.program,
            args,
            binds,
            limit,
            // A finished owner change or restore of an earlier life needs no second one.
            reuse: access == Access::Write,
        })
        .await
}

/// The copy and the owner change are worth nothing beside a running PMM.
async fn nothing_runs(hop: &Hop<'_>, phase: Phase) -> Result<(), DriverError> {
    let id: String = hop.need(phase, "old_id")?;
    if containers::running(&hop.docker.existing(&id).await?) {
        return Err(DriverError::State {
            code: codes::UNEXPECTED_STATE,
            message: "somebody started the old container again".to_owned(),
            hints: vec!["find out what starts it (systemd unit, compose, a person) and switch that off for the time of the upgrade".to_owned()],
        });
    }
    Ok(())
}
