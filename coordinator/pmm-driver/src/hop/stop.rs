//! Stopping PMM: services first, each one confirmed, then the container.

use super::context::Hop;
use crate::docker::{containers, short};
use crate::error::DriverError;
use fleet_common::hint::chain;
use server_upgrade::fresh::not_stopped;
use server_upgrade::names::Phase;
use std::time::{Duration, Instant};

/// PMM's supervisor gives PostgreSQL and ClickHouse this long (percona/pmm `pmm.ini`: stopwaitsecs); Docker's default is 10 s.
const GRACE_S: i32 = 300;

/// Stops the old container of a phase.
pub async fn stop_old(hop: &mut Hop<'_>, phase: Phase, limit: Duration) -> Result<(), DriverError> {
    let id: String = hop.need(phase, "old_id")?;
    stop(hop, &id, limit).await
}

/// Stops all services, waits until each one says so, stops the container.
pub async fn stop(hop: &Hop<'_>, id: &str, limit: Duration) -> Result<(), DriverError> {
    let started = Instant::now();
    let mut asked = false;
    loop {
        if !containers::running(&hop.docker.existing(id).await?) {
            return Ok(());
        }
        let last = match confirm(hop, id, &mut asked, limit.saturating_sub(started.elapsed())).await {
            Ok(still) if still.is_empty() => break,
            Ok(still) => still,
            // A stop that an earlier life began goes on without us; the next look finds the container down.
            Err(error) if error.engine_refuses() => chain(&error),
            Err(error) => return Err(error),
        };
        if started.elapsed() > limit {
            return Err(DriverError::Deadline {
                what: format!("services to stop: {last}"),
                after_s: limit.as_secs(),
            });
        }
        hop.pause().await;
    }
    hop.docker.stop_container(id, GRACE_S).await
}

/// Asks once for all services to stop, then for their states: what has not stopped yet.
async fn confirm(hop: &Hop<'_>, id: &str, asked: &mut bool, left: Duration) -> Result<String, DriverError> {
    if !*asked {
        hop.docker
            .exec(id, &["supervisorctl", "stop", "all"], left)
            .await?;
        *asked = true;
    }
    let status = hop
        .docker
        .exec(
            id,
            &["supervisorctl", "status"],
            left.min(Duration::from_secs(60)),
        )
        .await?;
    let still = not_stopped(&status.text);
    // Without a single program in it the answer is no confirmation.
    if still.is_empty() && !status.text.contains("STOPPED") {
        return Ok(format!("supervisorctl says `{}`", short(&status.text, 200)));
    }
    Ok(still.join(", "))
}
