//! `renew`: a new certificate, then a session with it.

use super::error::{StepError, StepResult};
use super::orders::Shared;
use crate::host::clock;
use crate::link::{identity, renew};
use fleet_common::codes;
use fs_err as fs;
use std::time::{Duration, Instant};

/// Time for a renewal that nobody ordered: the request, then the longest wait between two sessions and its handshake.
const BY_AGE: Duration = Duration::from_secs(120);

fn failed(message: impl Into<String>) -> StepError {
    StepError::new(codes::RENEW_FAILED, message)
}

/// Asks for the certificate. Where an earlier candidate waits and the current one is refused, the candidate may be the accepted one: it
/// stays, and the next step finds out.
pub fn request(shared: &Shared, limit: Duration) -> StepResult<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let asked = runtime.block_on(async { tokio::time::timeout(limit, renew::request(&shared.paths)).await });
    match asked {
        Ok(Ok(())) => Ok(()),
        Ok(Err(error)) if shared.paths.candidate().exists() => {
            tracing::warn!(%error, "no further certificate; trying the one that waits");
            Ok(())
        }
        Ok(Err(error)) => Err(failed(format!("{error:#}"))),
        Err(_) => Err(failed("the coordinator does not answer")),
    }
}

/// Has the session start over with the new certificate, and waits until it was welcomed or refused.
pub fn wait_until_used(shared: &Shared, limit: Duration) -> StepResult<()> {
    let until = Instant::now() + limit;
    let candidate = shared.paths.candidate();
    let wanted = match fs::read(&candidate) {
        Ok(pem) => identity::key_of(&pem).map_err(|error| failed(error.to_string()))?,
        // Used already: the session was quicker.
        Err(_) => return Ok(()),
    };
    shared.reconnect.notify_one();
    while candidate.exists() {
        if Instant::now() >= until {
            return Err(failed(
                "no session with the new certificate in time; the old one goes on, and the new one stays in turn",
            ));
        }
        clock::pause(Duration::from_millis(50));
    }
    let now = identity::current_key(&shared.paths).map_err(|error| failed(error.to_string()))?;
    if now == wanted {
        Ok(())
    } else {
        Err(failed(
            "the coordinator did not accept the new certificate; the old one goes on",
        ))
    }
}

/// The whole renewal, because of the certificate's age.
pub fn now(shared: &Shared) -> Result<(), String> {
    request(shared, BY_AGE)
        .and_then(|()| wait_until_used(shared, BY_AGE))
        .map_err(|error| error.message)
}
