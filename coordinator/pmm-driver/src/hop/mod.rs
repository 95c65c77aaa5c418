//! One hop: the loop around the journal, and how it ends.

mod api_update;
mod context;
mod create;
mod data;
mod forward;
mod migration;
mod publish;
mod stop;
mod undo;

use crate::checkpoint;
use crate::clock::now_ms;
use crate::config::ServerConfig;
use crate::credential::Credential;
use crate::docker::Docker;
use crate::error::DriverError;
use crate::journal::Journal;
use crate::pmm::Pmm;
use context::Hop;
use fleet_common::codes::{self, Code};
use fleet_common::hint::{Hint, chain};
use fleet_common::ids::OrderId;
use fleet_common::server::{HopOutcome, HopResult, ServerEvent, ServerOrder};
use server_upgrade::journal::{Failure, Line, Next, Takeover};
use server_upgrade::names::Phase;
use server_upgrade::steps::{Step, StepId, Undo, steps};
use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Mutex;
use std::time::{Duration, Instant};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

/// What a hop is done with.
pub struct Tools<'a> {
    /// The server.
    pub config: &'a ServerConfig,
    /// Its credential.
    pub credential: &'a Credential,
    /// PMM at its public address.
    pub pmm: &'a Pmm,
    /// The volume helper.
    pub program: Vec<u8>,
    /// Where journals are.
    pub journal_dir: &'a Path,
    /// Orders that are to go back to where they started.
    pub given_up: &'a Mutex<BTreeSet<OrderId>>,
}

/// Carries out or continues one hop.
pub async fn run(
    tools: Tools<'_>,
    order: &ServerOrder,
    events: mpsc::Sender<ServerEvent>,
    cancel: CancellationToken,
) -> Result<HopResult, DriverError> {
    let journal = Journal::open(tools.journal_dir, order)?;
    if let Some(result) = journal.replay().finished.clone() {
        let _ = events.send(ServerEvent::Finished(result.clone())).await;
        return Ok(result);
    }
    let docker = tokio::select! {
        () = cancel.cancelled() => return Err(DriverError::Cancelled),
        docker = connect(&tools.config.docker_endpoint, tools.config.deadlines.quick) => docker?,
    };
    let mut hop = Hop::new(tools, docker, order.clone(), journal, events, cancel);
    hop.announce_resumption().await?;
    if published(&hop) {
        hop.send(ServerEvent::Published).await;
    }
    drive(&mut hop).await
}

/// Ends the hop of an older order, for a newer one: forward where clients deliver already, back to where it started otherwise. What was
/// decided is in the older journal before anything is done. Events of its steps are told; its end is not, for nobody waits for it.
pub async fn take_over(
    tools: Tools<'_>,
    older: &ServerOrder,
    newer: &OrderId,
    events: mpsc::Sender<ServerEvent>,
    cancel: CancellationToken,
) -> Result<HopResult, DriverError> {
    let journal = Journal::open(tools.journal_dir, older)?;
    let docker = tokio::select! {
        () = cancel.cancelled() => return Err(DriverError::Cancelled),
        docker = connect(&tools.config.docker_endpoint, tools.config.deadlines.quick) => docker?,
    };
    let mut hop = Hop::new(tools, docker, older.clone(), journal, events, cancel);
    hop.for_newer = true;
    let why = format!("order {newer} took over");
    loop {
        let all = steps(&hop.order, hop.journal.get("rehome").unwrap_or(false));
        match hop.journal.replay().takeover(&all) {
            Takeover::Forward(step) => {
                let index = all.iter().position(|one| *one == step).unwrap_or_default();
                forward(&mut hop, step, index, all.len()).await?;
            }
            Takeover::Keep => {
                tracing::warn!(order = %hop.order.order, why, "an older hop is closed as it stands");
                hop.leftover(&why)?;
                publish::confirm(&mut hop).await?;
                let result = settled(&hop);
                if result.open {
                    // The next hop would take what is half published for what the operator wanted.
                    return Ok(result);
                }
                return hop.finish(result).await;
            }
            Takeover::GiveUp(step) => {
                tracing::warn!(order = %hop.order.order, why, step, "an older hop is given up");
                give_up(&mut hop, step, &why)?;
            }
            Takeover::GoOnBack => return drive(&mut hop).await,
        }
    }
}

/// Turns the hop around by a decision, not by a failure.
fn give_up(hop: &mut Hop<'_>, step: String, why: &str) -> Result<(), DriverError> {
    hop.journal.append(Line::Failing(Failure {
        step,
        code: codes::GIVEN_UP.to_owned(),
        message: why.to_owned(),
        hints: Vec::new(),
        at_ms: now_ms(),
    }))
}

/// Goes on until the end, step by step.
async fn drive(hop: &mut Hop<'_>) -> Result<HopResult, DriverError> {
    loop {
        let all = steps(&hop.order, hop.journal.get("rehome").unwrap_or(false));
        if hop.is_given_up()
            && let Takeover::GiveUp(step) = hop.journal.replay().takeover(&all)
        {
            tracing::warn!(step, "the hop is given up and turns around");
            give_up(hop, step, "the rollout was aborted by force")?;
        }
        match hop.journal.replay().next(&all) {
            Next::Step(step) => {
                let index = all.iter().position(|one| *one == step).unwrap_or_default();
                if let Some(result) = forward(hop, step, index, all.len()).await? {
                    return hand_over(hop, result).await;
                }
            }
            Next::Undo(undo, phase) => {
                if let Some(mut result) = back(hop, undo, phase).await? {
                    if hop.for_newer {
                        return hop.finish(result).await;
                    }
                    // The same order tries the way back again, once a person saw to its cause; a new one would not know of the restore point.
                    result.open = true;
                    return hand_over(hop, result).await;
                }
            }
            Next::Settled => {
                publish::confirm(hop).await?;
                let result = settled(hop);
                if result.open {
                    return hand_over(hop, result).await;
                }
                return hop.finish(result).await;
            }
            Next::GaveUp(phase) => {
                // A copy that was given up before anything needed undoing must not go on beside the next order's.
                let limit = hop.tools.config.deadlines.quick;
                if let Ok(Err(error)) =
                    tokio::time::timeout(limit, data::end_helpers(hop, phase, false)).await
                {
                    tracing::warn!(error = chain(&error), "a helper of the hop may still run");
                }
                let result = gave_up(hop);
                return hop.finish(result).await;
            }
            Next::Answer(result) => return Ok(*result),
        }
    }
}

/// Leaves the journal open: a person decides, and the same order goes on.
async fn hand_over(hop: &mut Hop<'_>, result: HopResult) -> Result<HopResult, DriverError> {
    hop.hand_over()?;
    hop.send(ServerEvent::Finished(result.clone())).await;
    Ok(result)
}

/// Whether the new release serves its clients.
fn published(hop: &Hop<'_>) -> bool {
    hop.journal.replay().is_past(StepId {
        phase: Phase::Main,
        step: Step::Publish,
    })
}

/// An engine that is being restarted comes back.
async fn connect(endpoint: &str, limit: Duration) -> Result<Docker, DriverError> {
    let started = Instant::now();
    loop {
        match Docker::connect(endpoint).await {
            Err(_) if started.elapsed() < limit => tokio::time::sleep(Duration::from_millis(500)).await,
            other => return other,
        }
    }
}

/// One step forward: intent, act, result. A failure is written down and turns the hop around. A result is returned when a person must say
/// how it goes on.
async fn forward(
    hop: &mut Hop<'_>,
    id: StepId,
    index: usize,
    of: usize,
) -> Result<Option<HopResult>, DriverError> {
    let name = id.name();
    let info = id.step.info();
    let limit = hop.limit(info.limit);
    hop.journal.append(Line::Intent {
        step: name.clone(),
        at_ms: now_ms(),
    })?;
    hop.send(ServerEvent::StepStarted {
        step: name.clone(),
        index: u32::try_from(index + 1).unwrap_or(u32::MAX),
        of: u32::try_from(of).unwrap_or(u32::MAX),
        waits_for: info.waits_for.to_owned(),
        deadline_for_ms: millis(limit),
    })
    .await;
    checkpoint::reached(&name, "intent");
    let started = Instant::now();
    let outcome = attempt(hop, limit, info.waits_for, |hop| {
        Box::pin(forward::act(hop, id, limit))
    })
    .await;
    checkpoint::reached(&name, "acted");
    match outcome {
        Ok(()) => {
            let took_ms = millis(started.elapsed());
            hop.journal.append(Line::Done {
                step: name.clone(),
                at_ms: now_ms(),
                took_ms,
            })?;
            checkpoint::reached(&name, "done");
            hop.send(ServerEvent::StepFinished { step: name, took_ms }).await;
            if id.phase == Phase::Main && id.step == Step::Publish {
                hop.send(ServerEvent::Published).await;
            }
            Ok(None)
        }
        Err(DriverError::Cancelled) => Err(DriverError::Cancelled),
        Err(error) if id.step == Step::Settle && nobody_back(hop) => Ok(Some(nobody_is_back(hop, &error))),
        // After the publication nothing is taken back: what clients have sent since would be lost.
        Err(error) if matches!(id.step, Step::ServiceAccounts | Step::Settle) => {
            hop.leftover(&format!("{name}: {}", chain(&error)))?;
            hop.journal.append(Line::Done {
                step: name,
                at_ms: now_ms(),
                took_ms: millis(started.elapsed()),
            })?;
            Ok(None)
        }
        Err(error) if id.step == Step::Publish && publish::is_published(hop, id.phase) => {
            publish::given_up(hop, id.phase, &error)?;
            hop.journal.append(Line::Done {
                step: name,
                at_ms: now_ms(),
                took_ms: millis(started.elapsed()),
            })?;
            if id.phase == Phase::Main {
                hop.send(ServerEvent::Published).await;
            }
            Ok(None)
        }
        Err(error) => {
            tracing::warn!(step = name, error = chain(&error), "the hop turns around");
            hop.journal.append(Line::Failing(Failure {
                step: name.clone(),
                code: error.code().0,
                message: chain(&error),
                hints: error.hints(),
                at_ms: now_ms(),
            }))?;
            checkpoint::reached(&name, "failing");
            Ok(None)
        }
    }
}

/// One step back. A result is returned when the way back fails too.
async fn back(hop: &mut Hop<'_>, undo: Undo, phase: Phase) -> Result<Option<HopResult>, DriverError> {
    let name = undo.name();
    let limit = hop.limit(undo.limit());
    hop.journal.append(Line::Intent {
        step: name.to_owned(),
        at_ms: now_ms(),
    })?;
    hop.send(ServerEvent::StepStarted {
        step: name.to_owned(),
        index: 1 + undo as u32,
        of: 4,
        waits_for: undo.waits_for().to_owned(),
        deadline_for_ms: millis(limit),
    })
    .await;
    checkpoint::reached(name, "intent");
    let started = Instant::now();
    let outcome = attempt(hop, limit, undo.waits_for(), |hop| {
        Box::pin(undo::act(hop, undo, phase, limit))
    })
    .await;
    checkpoint::reached(name, "acted");
    match outcome {
        Ok(()) => {
            let took_ms = millis(started.elapsed());
            hop.journal.append(Line::Done {
                step: name.to_owned(),
                at_ms: now_ms(),
                took_ms,
            })?;
            hop.send(ServerEvent::StepFinished {
                step: name.to_owned(),
                took_ms,
            })
            .await;
            Ok(None)
        }
        Err(DriverError::Cancelled) => Err(DriverError::Cancelled),
        Err(error) => {
            let mut result = gave_up(hop);
            result.outcome = HopOutcome::NeedsOperator;
            result.running = None;
            result.message = format!(
                "{}; and the way back failed in {name}: {}",
                result.message,
                chain(&error)
            );
            result.hints.extend(error.hints());
            let names = hop.names(phase);
            let ended = tokio::time::timeout(
                hop.tools.config.deadlines.quick,
                data::end_helpers(hop, phase, false),
            );
            if !matches!(ended.await, Ok(Ok(()))) {
                result.hints.push(format!(
                    "before anything else remove the containers whose name begins with {}: they may still change the data",
                    names.helper("")
                ));
            }
            result.hints.push(format!(
                "the data from before is whole in the volume {}, the old container is {} or {}",
                names.restore_point(),
                names.container(),
                names.retired()
            ));
            Ok(Some(result))
        }
    }
}

type Acting<'a> = std::pin::Pin<Box<dyn Future<Output = Result<(), DriverError>> + Send + 'a>>;

/// Does it until it ends, its time is over or this process goes down. An engine that does not answer at all is asked again: it may be
/// restarting, and every step may be repeated.
async fn attempt<F>(hop: &mut Hop<'_>, limit: Duration, waits_for: &str, act: F) -> Result<(), DriverError>
where
    F: for<'h, 'b> Fn(&'h mut Hop<'b>) -> Acting<'h>,
{
    let cancel = hop.cancel.clone();
    let started = Instant::now();
    loop {
        let left = limit.saturating_sub(started.elapsed());
        let done = tokio::select! {
            () = cancel.cancelled() => Err(DriverError::Cancelled),
            done = tokio::time::timeout(left, act(hop)) => {
                done.unwrap_or_else(|_| Err(DriverError::Deadline { what: waits_for.to_owned(), after_s: limit.as_secs() }))
            }
        };
        match done {
            Err(error) if error.engine_unreachable() && started.elapsed() < limit => {
                tracing::warn!(error = chain(&error), "Docker does not answer; trying again");
                tokio::select! {
                    () = cancel.cancelled() => return Err(DriverError::Cancelled),
                    () = tokio::time::sleep(Duration::from_secs(1)) => {}
                }
            }
            other => return other,
        }
    }
}

fn settled(hop: &Hop<'_>) -> HopResult {
    let mut result = hop.result(HopOutcome::Settled);
    result.running = Some(hop.order.to);
    if !result.leftovers.is_empty() {
        result.message = format!("settled, but {}", result.leftovers.join("; "));
    }
    let open = publish::unconfirmed(hop);
    if !open.is_empty() {
        let policy = hop.get::<serde_json::Value>(Phase::Main, "old_policy");
        return half_published(result, &open, hop.tools.config, policy.as_ref());
    }
    result
}

fn nobody_back(hop: &Hop<'_>) -> bool {
    !hop.for_newer && hop.journal.get::<bool>(publish::NOBODY_BACK) == Some(true)
}

/// PMM runs, and not one client came back: only a person knows whether that is to be waited for.
fn nobody_is_back(hop: &Hop<'_>, error: &DriverError) -> HopResult {
    let mut result = hop.result(HopOutcome::NeedsOperator);
    result.running = Some(hop.order.to);
    result.code = error.code();
    "settle".clone_into(&mut result.step);
    result.message = chain(error);
    result.hints = [
        "check that clients reach PMM at its old address and that their credentials are accepted",
        "`retry --server` waits and looks again, `resume --accept-server` goes on without them",
    ]
    .map(str::to_owned)
    .to_vec();
    result.open = true;
    result
}

/// PMM runs with its data, but a person has to see to what clients or the next start of the machine depend on.
fn half_published(
    mut result: HopResult,
    open: &[String],
    config: &ServerConfig,
    policy: Option<&serde_json::Value>,
) -> HopResult {
    result.outcome = HopOutcome::NeedsOperator;
    result.code = Code::new(codes::UNEXPECTED_STATE);
    Step::Publish.info().name.clone_into(&mut result.step);
    result.message = format!(
        "PMM runs with all data, but is only half published: {}",
        open.join("; ")
    );
    let policy = policy.and_then(|policy| policy["Name"].as_str()).unwrap_or("no");
    result.hints.push(format!(
        "see that PMM answers at {} and that the container {} has the restart policy `{policy}`, then `retry --server`",
        config.url, config.container
    ));
    result.open = true;
    result
}

fn gave_up(hop: &Hop<'_>) -> HopResult {
    let touched = [Phase::Rehome, Phase::Main].into_iter().any(|phase| {
        hop.journal.replay().was_begun(StepId {
            phase,
            step: Step::Disarm,
        })
    });
    let mut result = hop.result(if touched {
        HopOutcome::Restored
    } else {
        HopOutcome::Refused
    });
    result.running = Some(hop.order.from);
    if let Some(failure) = &hop.journal.replay().failure {
        result.code = Code::new(&failure.code);
        result.step.clone_from(&failure.step);
        result.message.clone_from(&failure.message);
        result.hints.clone_from(&failure.hints);
    }
    if hop.journal.get::<bool>("not_running") == Some(true) {
        result.running = None;
    }
    result
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Deadlines, Trust};
    use fleet_common::version::PmmVersion;

    #[test]
    fn a_half_published_pmm_is_a_persons_and_nothing_is_forgotten() {
        let config = ServerConfig {
            name: "server".to_owned(),
            url: "https://pmm.example.com".to_owned(),
            credential_file: "credential".into(),
            trust: Trust::System,
            docker_endpoint: "unix:///none".to_owned(),
            container: "pmm-server".to_owned(),
            image_repository: "percona/pmm-server".to_owned(),
            helper: "helper".into(),
            deadlines: Deadlines::default(),
        };
        let settled = HopResult {
            outcome: HopOutcome::Settled,
            from: PmmVersion::new(2, 44, 1),
            running: Some(PmmVersion::new(3, 7, 1)),
            code: Code::new(""),
            step: String::new(),
            message: String::new(),
            hints: Vec::new(),
            restore_point: None,
            downtime_ms: 1,
            open: false,
            leftovers: vec!["service_accounts: one key".to_owned()],
        };
        let open = ["no answer".to_owned(), "policy refused".to_owned()];
        let policy = serde_json::json!({"Name": "unless-stopped"});
        let result = half_published(settled, &open, &config, Some(&policy));
        assert_eq!(result.outcome, HopOutcome::NeedsOperator);
        assert_eq!(
            (result.code.0.as_str(), result.step.as_str()),
            (codes::UNEXPECTED_STATE, "publish")
        );
        assert!(open.iter().all(|one| result.message.contains(one)));
        let hint = result.hints.concat();
        assert!(
            [&config.url, &config.container]
                .iter()
                .all(|word| hint.contains(*word))
        );
        assert!(hint.contains("`unless-stopped`"));
        assert_eq!(result.leftovers.len(), 1);
    }
}
