//! `self_update`: the agent's part. It checks the release against the host's policy, fetches it, keeps what runs, and hands over to the
//! guardian (`crate::guardian`), which replaces us. Whichever agent runs afterwards finds the order in the journal and tells how it went.

use super::engine::{Progress, Run};
use super::error::{StepError, StepResult};
use crate::guardian::{self, Ending, Spec};
use crate::host::clock;
use crate::link::artifact::{self, FetchError, Wanted};
use client_upgrade::procedure::StepId;
use client_upgrade::self_update::{comment_names, refusal};
use fleet_common::agent_release::AgentRelease;
use fleet_common::codes;
use fleet_common::hint::chain;
use fleet_common::order::Outcome;
use fs_err as fs;
use minisign_verify::{PublicKey, Signature};
use std::path::Path;
use std::time::{Duration, Instant};

/// A guardian that is started this often and never gets anywhere can't run here.
const MOST_STARTS: u32 = 10;

fn release(run: &Run<'_>) -> StepResult<AgentRelease> {
    serde_json::from_str(&run.order.release).map_err(|error| {
        StepError::refused(
            codes::UNEXPECTED_STATE,
            format!("the order's release can't be read: {error}"),
        )
    })
}

/// Whether the host wants this release. An update of this very order that is under way is not asked again: the agent that runs by now may
/// be the new one.
pub fn check(run: &Run<'_>) -> StepResult<Progress> {
    if Spec::load(&run.shared.paths.self_update()).is_some_and(|spec| spec.order_id == run.order.order_id) {
        return Ok(Progress::Next);
    }
    let installed_by = guardian::installed_by(Path::new(&guardian::own_program()?));
    match refusal(
        &release(run)?,
        run.policy,
        env!("CARGO_PKG_VERSION"),
        installed_by,
    ) {
        Some(reason) => Err(StepError::refused(codes::POLICY, reason)),
        None => Ok(Progress::Next),
    }
}

/// Downloads and verifies. A file whose signature is not of a listed key is removed.
pub fn fetch(run: &Run<'_>, limit: Duration) -> StepResult<()> {
    let paths = &run.shared.paths;
    if Spec::load(&paths.self_update()).is_some_and(|spec| spec.order_id == run.order.order_id) {
        return Ok(());
    }
    let release = release(run)?;
    let wanted = Wanted {
        sha256: release.sha256.clone(),
        length: release.length,
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let note = |here: u64| {
        let text = format!("{} of {} KB", here / 1024, release.length / 1024);
        run.note(StepId::Fetch, text);
    };
    let fetched = runtime.block_on(artifact::fetch(paths, &wanted, limit, note));
    let file = fetched.map_err(|error| match error {
        FetchError::Io(source) => StepError::from(source),
        other => StepError::new(codes::UPDATE_FAILED, chain(&other)),
    })?;
    if let Err(reason) = signed(&release, &run.policy.agent_keys, &fs::read(&file)?) {
        crate::host::files::remove(&file)?;
        return Err(StepError::refused(codes::POLICY, reason));
    }
    Ok(())
}

/// Whether a listed key signed these bytes under this name.
pub fn signed(release: &AgentRelease, keys: &[String], bytes: &[u8]) -> Result<(), String> {
    let signature = Signature::decode(&release.signature)
        .map_err(|error| format!("the release's signature can't be read: {error}"))?;
    let by_a_listed_key = keys.iter().any(|key| {
        PublicKey::from_base64(key.trim()).is_ok_and(|key| key.verify(bytes, &signature, false).is_ok())
    });
    if !by_a_listed_key {
        return Err("the release is not signed with a key of the policy's `agent_keys`".to_owned());
    }
    if !comment_names(signature.trusted_comment(), &release.file) {
        return Err(format!(
            "the signature's trusted comment does not name {}",
            release.file
        ));
    }
    Ok(())
}

/// Hands over and waits for the guardian's word. Usually we do not see it: the guardian restarts us.
pub fn replace(run: &Run<'_>, limit: Duration) -> StepResult<()> {
    let paths = &run.shared.paths;
    let dir = paths.self_update();
    let mine = |spec: &Spec| spec.order_id == run.order.order_id;
    if !Spec::load(&dir).is_some_and(|spec| mine(&spec)) {
        guardian::prepare(paths, run.order, &release(run)?)?;
    }
    let until = Instant::now() + limit;
    let mut started = 0u32;
    loop {
        started += u32::from(guardian::keep_running(&dir)?);
        if let Some(ending) = guardian::ending(&dir) {
            return told(ending);
        }
        if started > MOST_STARTS {
            return Err(StepError {
                outcome: guardian::touched(&dir).then_some(Outcome::Inconsistent),
                ..StepError::new(
                    codes::UPDATE_FAILED,
                    format!(
                        "the guardian {} does not run; may programs be run from there?",
                        dir.join("guardian").display()
                    ),
                )
            });
        }
        if Instant::now() >= until {
            return Err(StepError {
                outcome: Some(Outcome::Inconsistent),
                ..StepError::new(
                    codes::UPDATE_FAILED,
                    format!(
                        "the guardian did not end within {} s; see {}",
                        limit.as_secs(),
                        dir.display()
                    ),
                )
            });
        }
        run.note(StepId::Replace, "the guardian is at work");
        clock::pause(Duration::from_millis(500));
    }
}

fn told(ending: Ending) -> StepResult<()> {
    let failed = |outcome, message| {
        Err(StepError {
            outcome: Some(outcome),
            ..StepError::new(codes::UPDATE_FAILED, message)
        })
    };
    match ending {
        Ending::Kept => Ok(()),
        Ending::Back(why) => failed(
            Outcome::RolledBack,
            format!("{why}; the agent is back on its old release"),
        ),
        Ending::Failed(why) => failed(Outcome::Inconsistent, why),
    }
}

#[cfg(test)]
#[path = "self_update_tests.rs"]
mod tests;
