//! From the dark to the clients: comparison, publication, and what comes after it.

use super::context::Hop;
use super::create::specification;
use super::migration::dark_pmm;
use crate::baseline;
use crate::clock::now_ms;
use crate::error::DriverError;
use crate::pmm::Pmm;
use fleet_common::codes;
use server_upgrade::baseline::Baseline;
use server_upgrade::compare::{Difference, compare as differences, looks_fresh};
use server_upgrade::names::Phase;
use std::time::{Duration, Instant};

/// How long differences may take to go away: PMM is ready a little before its inventory is.
const PATIENCE: Duration = Duration::from_secs(30);
/// Note: not one client came back. PMM runs, but something between it and the fleet is wrong.
pub const NOBODY_BACK: &str = "nobody_back";
/// Between hops the clients get this long to deliver what they buffered; then the next hop begins without them.
const BETWEEN_HOPS: Duration = Duration::from_secs(90);
/// The note of what the publication could not confirm.
const UNCONFIRMED: &str = "unconfirmed";

/// Compares the new PMM with the baseline.
pub async fn compare(hop: &mut Hop<'_>, phase: Phase, limit: Duration) -> Result<(), DriverError> {
    let before = hop.baseline()?;
    let pmm = dark_pmm(hop, phase).await?;
    let pmm = pmm.patient(limit.saturating_sub(PATIENCE));
    let id: String = hop.need(phase, "new_id")?;
    let found = settle_differences(hop, &pmm, &id, &before, PATIENCE.min(limit)).await?;
    if found.is_empty() {
        Ok(())
    } else {
        Err(mismatch(&found))
    }
}

/// Reads and compares until nothing differs or patience ends. A fresh instance ends it at once.
pub async fn settle_differences(
    hop: &Hop<'_>,
    pmm: &Pmm,
    container: &str,
    before: &Baseline,
    patience: Duration,
) -> Result<Vec<Difference>, DriverError> {
    let started = Instant::now();
    loop {
        match baseline::after(pmm, &hop.docker, container, before).await {
            Ok(after) if looks_fresh(before, &after) => {
                return Err(DriverError::state(
                    codes::FRESH_INSTANCE,
                    format!(
                        "PMM {} is healthy and empty: none of {} nodes and {} services from before is there",
                        after
                            .version
                            .map(|version| version.to_string())
                            .unwrap_or_default(),
                        before.nodes.len(),
                        before.services.len()
                    ),
                ));
            }
            Ok(after) => {
                let found = differences(before, &after);
                if found.is_empty() || started.elapsed() > patience {
                    return Ok(found);
                }
            }
            Err(error) if error.inconclusive() && started.elapsed() < patience => {}
            Err(error) => return Err(error),
        }
        hop.pause().await;
    }
}

/// Differences as an error.
pub fn mismatch(found: &[Difference]) -> DriverError {
    let first: Vec<String> = found.iter().take(5).map(ToString::to_string).collect();
    let more = if found.len() > 5 {
        format!("; and {} more", found.len() - 5)
    } else {
        String::new()
    };
    DriverError::state(codes::BASELINE_MISMATCH, format!("{}{more}", first.join("; ")))
}

/// Gives the new container the old one's name, networks, ports and restart policy, without a restart: ports are published in the moment
/// in which the container joins a network that is not internal.
pub async fn publish(hop: &mut Hop<'_>, phase: Phase, limit: Duration) -> Result<(), DriverError> {
    let id: String = hop.need(phase, "new_id")?;
    let names = hop.names(phase);
    let made = specification(hop, phase).await?;
    hop.docker.rename_container(&id, names.container()).await?;
    for (network, endpoint) in &made.networks {
        hop.docker.join_network(network, &id, endpoint).await?;
    }
    // From here on clients deliver. Going back would lose what they send, so what is wrong now is told and left to a person; whether the
    // clients really come back is the last step's question.
    hop.note_once(phase, "published", &true)?;
    finish(hop, phase, &id, &made.restart_policy, limit).await?;
    hop.note_once(phase, "up_at_ms", &now_ms())
}

/// What follows the publication, each part whatever became of the others. An engine that does not answer ends it: it is asked again. The
/// restart policy comes first: with the dark network's `no` PMM would stay down after a restart of the machine.
async fn finish(
    hop: &mut Hop<'_>,
    phase: Phase,
    id: &str,
    restart_policy: &serde_json::Value,
    limit: Duration,
) -> Result<(), DriverError> {
    let dark = hop.names(phase).dark_network();
    let policy = hop.docker.set_restart_policy(id, restart_policy).await;
    let mut open = refused(policy)?;
    let mut dark_left = refused(hop.docker.leave_network(&dark, id).await)?;
    dark_left.extend(refused(hop.docker.remove_network(&dark).await)?);
    for text in dark_left {
        hop.leftover(&format!("publish: {text}"))?;
    }
    open.extend(refused(reachable(hop, phase, limit / 2).await)?);
    hop.note(phase, UNCONFIRMED, &open)
}

/// An error as text, unless it is one that asks for a repetition.
fn refused(outcome: Result<(), DriverError>) -> Result<Vec<String>, DriverError> {
    match outcome {
        Ok(()) => Ok(Vec::new()),
        Err(error) if error.engine_unreachable() || matches!(error, DriverError::Cancelled) => Err(error),
        Err(error) => Ok(vec![fleet_common::hint::chain(&error)]),
    }
}

/// Whether the new container has what clients need, so that nothing is taken back any more.
pub fn is_published(hop: &Hop<'_>, phase: Phase) -> bool {
    hop.get(phase, "published") == Some(true)
}

/// A publication that was given up in its middle.
pub fn given_up(hop: &mut Hop<'_>, phase: Phase, error: &DriverError) -> Result<(), DriverError> {
    hop.note(phase, UNCONFIRMED, &[fleet_common::hint::chain(error)])?;
    hop.note_once(phase, "up_at_ms", &now_ms())
}

/// What of the publication is not confirmed.
pub fn unconfirmed(hop: &Hop<'_>) -> Vec<String> {
    hop.get(Phase::Main, UNCONFIRMED).unwrap_or_default()
}

/// Tries what was not confirmed once more before the hop ends.
pub async fn confirm(hop: &mut Hop<'_>) -> Result<(), DriverError> {
    if unconfirmed(hop).is_empty() {
        return Ok(());
    }
    let cancel = hop.cancel.clone();
    let limit = hop.tools.config.deadlines.quick;
    let again = async {
        let id: String = hop.need(Phase::Main, "new_id")?;
        let made = specification(hop, Phase::Main).await?;
        finish(hop, Phase::Main, &id, &made.restart_policy, limit).await
    };
    let outcome = tokio::select! {
        () = cancel.cancelled() => return Err(DriverError::Cancelled),
        outcome = tokio::time::timeout(limit, again) => outcome,
    };
    match outcome {
        Ok(Err(DriverError::Cancelled)) => Err(DriverError::Cancelled),
        Ok(Err(error)) => given_up(hop, Phase::Main, &error),
        Ok(Ok(())) | Err(_) => Ok(()),
    }
}

/// PMM answers with the new release at its public address.
async fn reachable(hop: &Hop<'_>, phase: Phase, limit: Duration) -> Result<(), DriverError> {
    let to = hop.versions(phase).1;
    let started = Instant::now();
    loop {
        let last = match hop.tools.pmm.readiness().await {
            Ok(200) => match hop.tools.pmm.version().await {
                Ok(told) if told.version == to => return Ok(()),
                Ok(told) => format!("{} answers", told.version),
                Err(error) => fleet_common::hint::chain(&error),
            },
            Ok(status) => format!("readiness answers {status}"),
            Err(error) => fleet_common::hint::chain(&error),
        };
        if started.elapsed() + hop.tools.config.deadlines.poll * 2 > limit {
            return Err(DriverError::Deadline {
                what: format!("PMM {to} to answer at {} ({last})", hop.tools.config.url),
                after_s: limit.as_secs(),
            });
        }
        hop.pause().await;
    }
}

/// Turns API keys into service accounts. Keys that could not be converted stay valid; they are named, not fatal.
pub async fn service_accounts(hop: &mut Hop<'_>, limit: Duration) -> Result<(), DriverError> {
    let keys = hop.tools.pmm.patient(limit / 2).api_keys().await?;
    if keys.as_ref().is_some_and(Vec::is_empty) {
        return Ok(());
    }
    let started = Instant::now();
    let done = loop {
        match hop.tools.pmm.convert_api_keys().await {
            // Refused at the door: nothing was converted.
            Err(DriverError::Status {
                status: 401 | 403, ..
            }) if started.elapsed() < limit / 3 => hop.pause().await,
            other => break other?,
        }
    };
    hop.journal.note("service_accounts", &done.migrated)?;
    if done.failed.is_empty() {
        return Ok(());
    }
    Err(DriverError::state(
        codes::PMM_API,
        format!("API keys that stay keys: {}", done.failed.join(", ")),
    ))
}

/// Waits for fresh samples of what had samples before. A sample that is newer than the publication is proof; `connected` is a hint.
pub async fn settle(hop: &mut Hop<'_>, phase: Phase, limit: Duration) -> Result<(), DriverError> {
    let before = hop.baseline()?.fleet;
    let up_at: u64 = hop.need(phase, "up_at_ms")?;
    let last_of_leg = phase == Phase::Main && hop.order.last_of_leg;
    let patience = if hop.order.accept_unsettled {
        // A person has decided already; this only names who is missing.
        Duration::ZERO
    } else if last_of_leg {
        limit.saturating_sub(Duration::from_secs(10))
    } else {
        BETWEEN_HOPS.min(limit)
    };
    // Until a first sample proves the contrary. What an earlier look found does not count.
    hop.journal
        .note(NOBODY_BACK, &(last_of_leg && !hop.order.accept_unsettled))?;
    let wanted: Vec<&String> = before.service_samples_ms.keys().collect();
    let started = Instant::now();
    loop {
        let fresh = hop.tools.pmm.newest_samples("service_id", None).await;
        if let Ok(fresh) = &fresh {
            let missing: Vec<&str> = wanted
                .iter()
                .filter(|id| fresh.get(**id).is_none_or(|at| *at <= up_at))
                .map(|id| {
                    before
                        .services
                        .get(*id)
                        .map_or(id.as_str(), |service| service.name.as_str())
                })
                .collect();
            let somebody = missing.is_empty() || missing.len() < wanted.len();
            if somebody && hop.journal.get::<bool>(NOBODY_BACK) == Some(true) {
                hop.journal.note(NOBODY_BACK, &false)?;
            }
            if missing.is_empty() {
                return Ok(());
            }
            if started.elapsed() > patience {
                return not_back(last_of_leg, wanted.len(), &missing);
            }
        }
        if started.elapsed() > patience {
            return fresh.map(|_| ());
        }
        hop.pause().await;
    }
}

fn not_back(last_of_leg: bool, wanted: usize, missing: &[&str]) -> Result<(), DriverError> {
    if !last_of_leg {
        return Ok(());
    }
    let some: Vec<&str> = missing.iter().take(10).copied().collect();
    Err(DriverError::state(
        codes::DEADLINE,
        format!(
            "{} of {wanted} services have no fresh samples yet, among them {}",
            missing.len(),
            some.join(", ")
        ),
    ))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn only_an_engine_that_is_away_is_asked_again() {
        let away = DriverError::Docker {
            what: "can't set the restart policy of x".to_owned(),
            source: bollard::errors::Error::RequestTimeoutError,
        };
        assert!(refused(Err(away)).unwrap_err().engine_unreachable());
        assert!(matches!(
            refused(Err(DriverError::Cancelled)),
            Err(DriverError::Cancelled)
        ));
        let no = DriverError::Docker {
            what: "can't set the restart policy of x".to_owned(),
            source: bollard::errors::Error::DockerResponseServerError {
                status_code: 500,
                message: "no".to_owned(),
            },
        };
        assert_eq!(refused(Err(no)).unwrap().len(), 1);
        assert!(refused(Ok(())).unwrap().is_empty());
    }
}
