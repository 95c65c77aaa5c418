//! Stopping PMM: services first, each one confirmed, then the container.

use super::context::Hop;
use crate::docker::{containers, short};
use crate::error::DriverError;
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
    if !containers::running(&hop.docker.existing(id).await?) {
        return Ok(());
    }
    let started = Instant::now();
    // The answer comes when all have stopped; what counts is the status afterwards.
    let said = hop.docker.exec(id, &["supervisorctl", "stop", "all"], limit).await?;
    loop {
        let status = hop.docker.exec(id, &["supervisorctl", "status"], Duration::from_secs(60)).await?;
        let still = not_stopped(&status.text);
        // Without a single program in it the answer is no confirmation.
        if still.is_empty() && status.text.contains("STOPPED") {
            break;
        }
        if started.elapsed() > limit {
            let what = if still.is_empty() { short(&said.text, 200) } else { still.join(", ") };
            return Err(DriverError::Deadline { what: format!("services to stop: {what}"), after_s: limit.as_secs() });
        }
        hop.pause().await;
    }
    hop.docker.stop_container(id, GRACE_S).await
}
