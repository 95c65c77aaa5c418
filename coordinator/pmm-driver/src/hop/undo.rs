//! The way back to the release that the hop started from.

use super::context::Hop;
use super::publish::{mismatch, settle_differences};
use super::{data, stop};
use crate::clock::now_ms;
use crate::docker::{containers, networks};
use crate::error::DriverError;
use fleet_common::codes;
use serde_json::Value;
use server_upgrade::names::{LABEL_KEY, LABEL_ROLE, Phase};
use server_upgrade::recreate::{ContainerSpec, Source, spec};
use server_upgrade::steps::{Step, Undo};
use std::os::unix::fs::OpenOptionsExt;
use std::time::{Duration, Instant};

/// How long the old PMM's clients are waited for; they come back by themselves later too.
const CLIENTS: Duration = Duration::from_secs(60);

/// Does a step of the way back; each may be repeated.
pub async fn act(hop: &mut Hop<'_>, undo: Undo, phase: Phase, limit: Duration) -> Result<(), DriverError> {
    data::end_helpers(hop, phase, true).await?;
    match undo {
        Undo::New => new(hop, phase).await,
        Undo::Volume => volume(hop, phase, limit).await,
        Undo::Container => container(hop, phase, limit).await,
        Undo::Verify => verify(hop, phase, limit).await,
    }
}

/// Keeps the new container's last words, then removes it. Its data is thrown away with the restore, so it is not stopped gently.
async fn new(hop: &mut Hop<'_>, phase: Phase) -> Result<(), DriverError> {
    let names = hop.names(phase);
    let labels = [
        format!("{LABEL_KEY}={}", names.key()),
        format!("{LABEL_ROLE}=server"),
    ];
    let old: String = hop.need(phase, "old_id")?;
    for name in hop.docker.containers_with(&labels).await? {
        let there = hop.docker.existing(&name).await?;
        if there["Id"] == Value::String(old.clone()) {
            continue;
        }
        let output = hop.docker.output(&name, 0).await.unwrap_or_default();
        keep_words(hop, names.key(), &output)?;
        hop.docker.stop_container(&name, 10).await?;
        hop.docker.remove_container(&name).await?;
    }
    hop.docker.remove_network(&names.dark_network()).await
}

fn keep_words(hop: &Hop<'_>, key: &str, output: &str) -> Result<(), DriverError> {
    let path = hop.tools.journal_dir.join(format!("{key}-new-container.log"));
    let trouble = |source| DriverError::File {
        what: "can't write",
        path: path.clone(),
        source,
    };
    let mut file = std::fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&path)
        .map_err(trouble)?;
    std::io::Write::write_all(&mut file, output.as_bytes()).map_err(trouble)
}

async fn volume(hop: &mut Hop<'_>, phase: Phase, limit: Duration) -> Result<(), DriverError> {
    let old: String = hop.need(phase, "old_id")?;
    if containers::running(&hop.docker.existing(&old).await?) {
        if !hop.begun(phase, Step::ApiUpdate) {
            return Err(DriverError::State {
                code: codes::UNEXPECTED_STATE,
                message: "somebody started the old container again, so its data may be newer than the restore point; nothing was restored".to_owned(),
                hints: vec![
                    "look at what it holds; then stop it and restore by hand, or keep it as it is and plan again".to_owned(),
                ],
            });
        }
        // After a failed update of its own the old container still runs.
        if stop::stop(hop, &old, limit / 2).await.is_err() {
            hop.docker.stop_container(&old, 30).await?;
        }
    }
    data::restore(hop, phase, limit).await
}

/// The old container with its own name, networks and restart policy, running.
async fn container(hop: &mut Hop<'_>, phase: Phase, limit: Duration) -> Result<(), DriverError> {
    let names = hop.names(phase);
    let id = if hop.begun(phase, Step::ApiUpdate) {
        from_image(hop, phase).await?
    } else {
        hop.need(phase, "old_id")?
    };
    let made = original(hop, phase).await?;
    hop.docker.rename_container(&id, names.container()).await?;
    for (network, endpoint) in &made.networks {
        hop.docker.join_network(network, &id, endpoint).await?;
    }
    if hop.begun(phase, Step::StopServices) && !hop.begun_after_stop(phase) {
        // Some of its services may be stopped by now; a container that starts starts them all.
        hop.docker.stop_container(&id, 300).await?;
    }
    hop.docker.start_container(&id).await?;
    hop.docker.set_restart_policy(&id, &made.restart_policy).await?;
    let started = Instant::now();
    while !containers::running(&hop.docker.existing(&id).await?) {
        if started.elapsed() > limit {
            return Err(DriverError::Deadline {
                what: "the old container to run".to_owned(),
                after_s: limit.as_secs(),
            });
        }
        hop.pause().await;
    }
    Ok(())
}

/// What the old container was: the release stays, so does everything else.
async fn original(hop: &Hop<'_>, phase: Phase) -> Result<ContainerSpec, DriverError> {
    let (from, _) = hop.versions(phase);
    let old = hop.old_container(phase).await?;
    let image = hop.old_image(phase).await?;
    let reference = old["Config"]["Image"].as_str().unwrap_or_default().to_owned();
    Ok(spec(
        Source {
            container: &old,
            image: &image,
            from,
            to: from,
        },
        &reference,
        &hop.names(phase),
    ))
}

/// PMM's own update has changed the old container's writable layer, so the release that it had comes from its image again.
async fn from_image(hop: &mut Hop<'_>, phase: Phase) -> Result<String, DriverError> {
    let names = hop.names(phase);
    let old: String = hop.need(phase, "old_id")?;
    hop.docker.rename_container(&old, &names.retired()).await?;
    let made = original(hop, phase).await?;
    let mut body = made.body;
    let image: String = hop.need(phase, "old_image_id")?;
    let reference = body["Image"].as_str().unwrap_or_default().to_owned();
    let same = hop
        .docker
        .image(&reference)
        .await?
        .is_some_and(|there| there["Id"] == Value::String(image.clone()));
    if !same {
        body["Image"] = Value::String(image);
    }
    body["Labels"][LABEL_ROLE] = Value::String("server-restored".to_owned());
    let id = hop.docker.create_container(names.container(), &body).await?;
    // Docker has put it on the network of its mode without aliases and addresses.
    let there = hop.docker.existing(&id).await?;
    if !containers::ever_started(&there) {
        for network in networks::names(&there) {
            hop.docker.leave_network(&network, &id).await?;
        }
    }
    Ok(id)
}

/// PMM answers with the old release and the baseline's data.
async fn verify(hop: &mut Hop<'_>, phase: Phase, limit: Duration) -> Result<(), DriverError> {
    let (from, _) = hop.versions(phase);
    let started = Instant::now();
    loop {
        let ready = hop.tools.pmm.readiness().await.is_ok_and(|status| status == 200);
        if ready
            && hop
                .tools
                .pmm
                .version()
                .await
                .is_ok_and(|told| told.version == from)
        {
            break;
        }
        if started.elapsed() > limit {
            hop.journal.note("not_running", &true)?;
            return Err(DriverError::Deadline {
                what: format!("PMM {from} to answer at {}", hop.tools.config.url),
                after_s: limit.as_secs(),
            });
        }
        hop.pause().await;
    }
    if hop.begun(phase, Step::StopServices) {
        hop.note_once(phase, "up_at_ms", &now_ms())?;
    }
    let before = hop.baseline()?;
    let pmm = hop.tools.pmm.patient(CLIENTS * 2);
    let found = settle_differences(
        hop,
        &pmm,
        &hop.tools.config.container,
        &before,
        Duration::from_secs(60),
    )
    .await?;
    if !found.is_empty() {
        return Err(mismatch(&found));
    }
    let up_at = hop.get::<u64>(phase, "up_at_ms").unwrap_or_default();
    let wanted = &before.fleet.service_samples_ms;
    let waiting = Instant::now();
    while waiting.elapsed() < CLIENTS {
        let fresh = hop
            .tools
            .pmm
            .newest_samples("service_id", None)
            .await
            .unwrap_or_default();
        if wanted
            .keys()
            .all(|id| fresh.get(id).is_some_and(|at| *at > up_at))
        {
            return Ok(());
        }
        hop.pause().await;
    }
    if wanted.is_empty() {
        Ok(())
    } else {
        hop.leftover("not every service has fresh samples yet")
    }
}

impl Hop<'_> {
    /// Whether the old container was stopped for good by a finished step.
    fn begun_after_stop(&self, phase: Phase) -> bool {
        let done = format!("{}{}", phase.prefix(), Step::StopServices.info().name);
        self.journal.replay().done.contains_key(&done) && !self.begun(phase, Step::StartServices)
    }
}
