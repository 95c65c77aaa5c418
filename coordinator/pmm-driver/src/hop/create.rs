//! The new container: image by digest, created with everything kept, started where nothing but this machine reaches it.

use super::context::Hop;
use crate::clock::now_ms;
use crate::docker::{Resolved, containers, networks};
use crate::error::DriverError;
use crate::inspect::data_binds;
use fleet_common::codes;
use serde_json::Value;
use server_upgrade::names::{LABEL_IMAGE_DIGEST, Names, Phase};
use server_upgrade::recreate::{ContainerSpec, Source, spec};
use std::time::{Duration, Instant};

/// Pulls the image. The digest is resolved once: a tag that moves in between moves nothing here.
pub async fn pull(hop: &mut Hop<'_>, phase: Phase) -> Result<(), DriverError> {
    let repository = hop.tools.config.image_repository.clone();
    let to = hop.versions(phase).1;
    let resolved = match hop.get::<(String, bool)>(phase, "resolved") {
        Some((digest, from_registry)) => Resolved {
            digest,
            from_registry,
        },
        None => {
            let resolved = hop.docker.resolve(&repository, to).await?;
            hop.note(phase, "resolved", &(&resolved.digest, resolved.from_registry))?;
            resolved
        }
    };
    let id = hop.docker.pull(&repository, to, &resolved).await?;
    let probe = format!("{}-fleet-probe", hop.tools.config.container);
    let built_as = hop
        .docker
        .image_version(&id, &format!("{repository}:{to}"), &probe)
        .await?;
    if built_as != Some(to) {
        let built_as =
            built_as.map_or_else(|| "an unknown release".to_owned(), |version| version.to_string());
        return Err(DriverError::State {
            code: codes::UNEXPECTED_STATE,
            message: format!("the image {repository}:{to} holds {built_as}"),
            hints: vec!["check image_repository in the fleet file".to_owned()],
        });
    }
    hop.note(phase, "image_id", &id)?;
    hop.note(phase, "image", &format!("{repository}@{}", resolved.digest))
}

/// The specification of the new container of a phase.
pub async fn specification(hop: &Hop<'_>, phase: Phase) -> Result<ContainerSpec, DriverError> {
    let (from, to) = hop.versions(phase);
    let container = hop.old_container(phase).await?;
    let image = hop.old_image(phase).await?;
    let reference = format!("{}:{to}", hop.tools.config.image_repository);
    let mut made = spec(
        Source {
            container: &container,
            image: &image,
            from,
            to,
        },
        &reference,
        &hop.names(phase),
    );
    if let Some(image) = hop.get::<String>(phase, "image") {
        made.body["Labels"][LABEL_IMAGE_DIGEST] = Value::String(image);
    }
    Ok(made)
}

/// Creates the new container on the dark network only. Docker attaches a container to the network of its mode at creation, so it is
/// taken off there before it ever starts; on an internal network no port is published.
pub async fn create(hop: &mut Hop<'_>, phase: Phase) -> Result<(), DriverError> {
    let names = hop.names(phase);
    let made = specification(hop, phase).await?;
    hop.docker
        .create_internal_network(&names.dark_network(), names.labels("dark-network"))
        .await?;
    let image: String = hop.need(phase, "image_id")?;
    let reference = made.body["Image"].as_str().unwrap_or_default().to_owned();
    let there = hop.docker.image(&reference).await?.unwrap_or_default();
    if there["Id"] != Value::String(image) {
        return Err(DriverError::state(
            codes::UNEXPECTED_STATE,
            format!("the tag {reference} was moved since it was pulled"),
        ));
    }
    let id = hop
        .docker
        .create_container(&names.dark_container(), &made.body)
        .await?;
    isolate(hop, &id, &names).await?;
    hop.note(phase, "new_id", &id)
}

async fn isolate(hop: &Hop<'_>, id: &str, names: &Names) -> Result<(), DriverError> {
    let dark = names.dark_network();
    for network in networks::names(&hop.docker.existing(id).await?) {
        if network != dark {
            hop.docker.leave_network(&network, id).await?;
        }
    }
    hop.docker.join_network(&dark, id, &serde_json::json!({})).await
}

/// Starts the new container in the dark.
pub async fn dark_start(hop: &mut Hop<'_>, phase: Phase, limit: Duration) -> Result<(), DriverError> {
    let id: String = hop.need(phase, "new_id")?;
    let new = hop.docker.existing(&id).await?;
    let old = hop.old_container(phase).await?;
    let (wanted, found) = (data_binds(&old, false), data_binds(&new, false));
    if wanted != found {
        return Err(DriverError::State {
            code: codes::FRESH_INSTANCE,
            message: format!(
                "the new container would run on {} instead of {}",
                found.join(", "),
                wanted.join(", ")
            ),
            hints: vec!["something between us and Docker changes the mounts of new containers".to_owned()],
        });
    }
    if !containers::ever_started(&new) {
        hop.note_once(phase, "started_at_s", &(now_ms() / 1000))?;
        hop.docker.start_container(&id).await?;
    }
    let started = Instant::now();
    // A container that ends at once is judged by the next step, which reads its output.
    while !containers::ever_started(&hop.docker.existing(&id).await?) {
        if started.elapsed() > limit {
            return Err(DriverError::Deadline {
                what: "the new container to start".to_owned(),
                after_s: limit.as_secs(),
            });
        }
        hop.pause().await;
    }
    Ok(())
}
