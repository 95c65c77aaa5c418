//! The steps that look, and the ones that only rename; the others have files of their own.

use super::context::Hop;
use super::{api_update, create, data, migration, publish, stop};
use crate::baseline;
use crate::error::DriverError;
use crate::inspect::gather;
use crate::preflight;
use fleet_common::codes;
use fleet_common::server::Pmm2Update;
use fleet_common::survey::Verdict;
use serde_json::Value;
use server_upgrade::names::Phase;
use server_upgrade::steps::{Step, StepId};
use std::time::{Duration, Instant};

/// How long refusals of a PMM that an earlier hop has just published are taken as busyness.
const PATIENCE: Duration = Duration::from_secs(60);

/// Does a step. Each one first looks at what is there, so that a repetition finds its own work.
pub async fn act(hop: &mut Hop<'_>, id: StepId, limit: Duration) -> Result<(), DriverError> {
    let phase = id.phase;
    match id.step {
        Step::Inspect => inspect(hop).await,
        Step::Baseline => take_baseline(hop, limit).await,
        Step::Preflight => check(hop).await,
        Step::RestorePoint => data::first_pass(hop, phase, limit).await,
        Step::Pull => create::pull(hop, phase).await,
        Step::Disarm => disarm(hop, phase).await,
        Step::StopServices => {
            hop.note_once(phase, "down_at_ms", &crate::clock::now_ms())?;
            stop::stop_old(hop, phase, limit).await
        }
        Step::RestorePointFinal => data::second_pass(hop, phase, limit).await,
        Step::StartServices => api_update::start(hop, phase, limit).await,
        Step::ApiUpdate => api_update::update(hop, phase, limit).await,
        Step::StopAgain => stop::stop_old(hop, phase, limit).await,
        Step::Ownership => data::ownership(hop, phase, limit).await,
        Step::Retire => retire(hop, phase).await,
        Step::Create => create::create(hop, phase).await,
        Step::DarkStart => create::dark_start(hop, phase, limit).await,
        Step::Migration => migration::wait(hop, phase, limit).await,
        Step::Compare => publish::compare(hop, phase, limit).await,
        Step::Publish => publish::publish(hop, phase, limit).await,
        Step::ServiceAccounts => publish::service_accounts(hop, limit).await,
        Step::Settle => publish::settle(hop, phase, limit).await,
    }
}

async fn inspect(hop: &mut Hop<'_>) -> Result<(), DriverError> {
    let pmm = hop.tools.pmm.patient(PATIENCE);
    let gathered = gather(&hop.docker, &pmm, hop.tools.config).await?;
    let facts = &gathered.facts;
    if facts.version != hop.order.from {
        return Err(DriverError::State {
            code: codes::UNEXPECTED_STATE,
            message: format!("the order expects {}, but {} runs", hop.order.from, facts.version),
            hints: vec!["plan again: the server has changed since the plan was made".to_owned()],
        });
    }
    // PMM 2's own update changes the running container, so its way back needs the image of the running release, too.
    let needs_image = hop.order.to.major >= 3 || hop.order.pmm2_update == Pmm2Update::Api;
    let rehome = needs_image && !facts.image_matches_data();
    hop.journal.note("rehome", &rehome)?;
    hop.journal.note("facts", facts)?;
    remember(
        hop,
        if rehome { Phase::Rehome } else { Phase::Main },
        &gathered.container,
    )
}

/// What is known of a container only while it runs and is untouched.
pub fn remember(hop: &mut Hop<'_>, phase: Phase, container: &Value) -> Result<(), DriverError> {
    hop.note_once(phase, "old_id", &container["Id"])?;
    hop.note_once(phase, "old_image_id", &container["Image"])?;
    // The container of the first phase is ours; the operator's word is what stood on the one before it.
    let policy = hop
        .get(Phase::Rehome, "old_policy")
        .unwrap_or_else(|| container["HostConfig"]["RestartPolicy"].clone());
    hop.note_once(phase, "old_policy", &policy)?;
    hop.note_once(phase, "old_ports", &container["NetworkSettings"]["Ports"])?;
    hop.note_once(phase, "old_networks", &container["NetworkSettings"]["Networks"])
}

async fn take_baseline(hop: &mut Hop<'_>, limit: Duration) -> Result<(), DriverError> {
    let started = Instant::now();
    // Right after an earlier hop a fleet that reconnects may be answered 401 and 5xx for a while.
    let baseline = loop {
        match baseline::before(
            &hop.tools.pmm.patient(limit / 2),
            &hop.docker,
            &hop.tools.config.container,
        )
        .await
        {
            Err(error) if error.inconclusive() && started.elapsed() + Duration::from_secs(5) < limit => {
                hop.pause().await
            }
            other => break other?,
        }
    };
    hop.journal.note("clients", &baseline.fleet.clients.len())?;
    hop.journal.note("baseline", &baseline)
}

async fn check(hop: &mut Hop<'_>) -> Result<(), DriverError> {
    let path = [hop.order.to];
    let tools = &hop.tools;
    let pmm = tools.pmm.patient(PATIENCE);
    let report = preflight::run(
        &hop.docker,
        &pmm,
        tools.config,
        &tools.program,
        &path,
        hop.order.pmm2_update,
    )
    .await?;
    hop.journal.note("data_bytes", &report.data_bytes)?;
    let failed: Vec<_> = report
        .findings
        .iter()
        .filter(|one| one.verdict == Verdict::Fail)
        .collect();
    if failed.is_empty() {
        return Ok(());
    }
    let lines: Vec<String> = failed
        .iter()
        .map(|one| format!("{}: {}", one.check, one.message))
        .collect();
    Err(DriverError::State {
        code: codes::PREFLIGHT,
        message: lines.join("; "),
        hints: failed
            .iter()
            .map(|one| one.hint.clone())
            .filter(|hint| !hint.is_empty())
            .collect(),
    })
}

/// A stopped container with the policy `always` comes back when the engine or the machine restarts, and would run the old release on the
/// new data.
async fn disarm(hop: &mut Hop<'_>, phase: Phase) -> Result<(), DriverError> {
    let id: String = hop.need(phase, "old_id")?;
    hop.docker
        .set_restart_policy(&id, &serde_json::json!({"Name": "no"}))
        .await
}

async fn retire(hop: &mut Hop<'_>, phase: Phase) -> Result<(), DriverError> {
    let id: String = hop.need(phase, "old_id")?;
    hop.docker
        .rename_container(&id, &hop.names(phase).retired())
        .await
}
