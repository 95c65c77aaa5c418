//! PMM 2's own update: check with force, start, follow, verify. It changes only the container's writable layer and the data, undoes
//! nothing when it fails (percona/pmm `docs/managed/update-process.md`), and leaves the tag old; so the container is re-created
//! afterwards.

use super::context::Hop;
use super::migration::marker_in;
use crate::error::DriverError;
use crate::pmm::updates::Running;
use fleet_common::codes;
use server_upgrade::names::Phase;
use std::time::{Duration, Instant};

/// How long PMM may still answer with the old release after it called its update done.
const AFTERMATH: Duration = Duration::from_secs(40);

/// Starts the old container again, for its own update.
pub async fn start(hop: &mut Hop<'_>, phase: Phase, limit: Duration) -> Result<(), DriverError> {
    let id: String = hop.need(phase, "old_id")?;
    hop.docker.start_container(&id).await?;
    let from = hop.versions(phase).0;
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
            return Ok(());
        }
        if started.elapsed() > limit {
            return Err(DriverError::Deadline {
                what: format!("PMM {from} to be ready again"),
                after_s: limit.as_secs(),
            });
        }
        hop.pause().await;
    }
}

/// Has PMM update itself and waits until it says the new release.
pub async fn update(hop: &mut Hop<'_>, phase: Phase, limit: Duration) -> Result<(), DriverError> {
    let id: String = hop.need(phase, "old_id")?;
    let to = hop.versions(phase).1;
    let started = Instant::now();
    let mut running = begin(hop, phase).await?;
    let mut last = String::new();
    let mut over: Option<Instant> = None;
    loop {
        if let Some(handle) = &mut running {
            // The answers come from inside of an update: 502, 503 and closed connections are part of it.
            if let Ok((lines, done)) = hop.tools.pmm.update_status(handle).await {
                if let Some(line) = lines.last() {
                    last.clone_from(line);
                }
                let gave_up = lines.iter().any(|line| line.contains("FATAL"));
                if (done || gave_up) && over.is_none() {
                    over = Some(Instant::now());
                }
            }
        }
        let ready = hop.tools.pmm.readiness().await.is_ok_and(|status| status == 200);
        let told = hop.tools.pmm.version().await.ok().map(|told| told.version);
        if ready && told == Some(to) && marker_in(hop, &id).await? == Some(to) {
            return hop.note(phase, "api_updated", &true);
        }
        let too_long_after = over.is_some_and(|over| over.elapsed() > AFTERMATH);
        if too_long_after && ready && told.is_some_and(|told| told != to) {
            return Err(ended(&format!("{} runs", told.unwrap_or(to)), &last));
        }
        if over.is_some_and(|over| over.elapsed() > hop.tools.config.deadlines.quick + AFTERMATH) {
            return Err(ended("PMM is not ready", &last));
        }
        if started.elapsed() > limit {
            return Err(DriverError::Deadline {
                what: format!("PMM's own update to {to}; its last line was `{last}`"),
                after_s: limit.as_secs(),
            });
        }
        hop.pause().await;
    }
}

fn ended(but: &str, last: &str) -> DriverError {
    DriverError::state(
        codes::MIGRATION_FAILED,
        format!("PMM's own update ended, but {but}; its last line was `{last}`"),
    )
}

/// Starts the update, once. In a second life without a handle the update may be running: then starting it again is refused by PMM, and
/// only the release tells.
async fn begin(hop: &mut Hop<'_>, phase: Phase) -> Result<Option<Running>, DriverError> {
    if let Some(handle) = hop.get::<Running>(phase, "update_handle") {
        return Ok(Some(handle));
    }
    let to = hop.versions(phase).1;
    let again = hop.get::<bool>(phase, "update_intent") == Some(true);
    if again && hop.tools.pmm.version().await.is_ok_and(|told| told.version == to) {
        return Ok(None);
    }
    if !again {
        let offer = hop.tools.pmm.check_updates().await?;
        if offer.latest != Some(to) || !offer.available {
            let latest = offer
                .latest
                .map_or_else(|| "nothing".to_owned(), |version| version.to_string());
            return Err(DriverError::State {
                code: codes::PREFLIGHT,
                message: format!("PMM's own update offers {latest}, not {to}"),
                hints: vec!["set pmm2_update = \"image\" in the fleet file".to_owned()],
            });
        }
        hop.note(phase, "update_intent", &true)?;
    }
    match hop.tools.pmm.start_update().await {
        Ok(handle) => {
            hop.note(phase, "update_handle", &handle)?;
            Ok(Some(handle))
        }
        Err(error) if again => {
            tracing::info!(%error, "the update is running already, it seems");
            Ok(None)
        }
        Err(error) => Err(error),
    }
}
