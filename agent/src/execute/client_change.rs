//! `repoint` and `restart_client`: the client keeps its release; its server's address changes, or it is only restarted.

use super::engine::{Progress, Run};
use super::error::{StepError, StepResult};
use super::saved::{KeptProcess, put};
use super::worker::doubt_text;
use super::{save, start, stop};
use crate::host::files::{self, Ownership};
use crate::host::{clock, processes};
use crate::verify;
use client_upgrade::client_change::way_back;
use client_upgrade::journal::{Record, Resume};
use client_upgrade::parse::config;
use client_upgrade::procedure::{StepId, procedure};
use client_upgrade::repoint::{self, Refused, Wanted};
use client_upgrade::verify::Expected;
use fleet_common::codes;
use fleet_common::inventory::{Installation, RunKind};
use fleet_common::order::{Action, OrderResult, Outcome};
use fleet_common::plan_entry::Repoint;
use fs_err as fs;
use serde::{Deserialize, Serialize};
use std::path::Path;
use std::time::Duration;

/// The client before the change; private to root, because the environment of a process may hold secrets.
#[derive(Debug, Serialize, Deserialize)]
struct Before {
    order_id: String,
    /// Process ids mean something in this boot only.
    boot_id: String,
    installation: Installation,
    process: Option<KeptProcess>,
}

impl Before {
    fn load(run: &Run<'_>) -> StepResult<Self> {
        files::read_json(&run.shared.paths.client_change())
            .filter(|before: &Self| before.order_id == run.order.order_id)
            .ok_or_else(|| {
                StepError::new(
                    codes::UNEXPECTED_STATE,
                    "how the client was run is not remembered",
                )
            })
    }
}

fn wanted<'a>(run: &'a Run<'_>) -> StepResult<&'a Repoint> {
    run.entry
        .repoint
        .as_ref()
        .ok_or_else(|| StepError::refused(codes::UNEXPECTED_STATE, "the order names no address to change"))
}

fn refused(reason: Refused) -> StepError {
    let code = match reason {
        Refused::Policy(_) => codes::POLICY,
        Refused::Another { .. } => codes::UNEXPECTED_STATE,
        Refused::Opaque | Refused::Address(_) | Refused::Overridden(_) => codes::REPOINT,
    };
    StepError::refused(code, reason.to_string())
}

/// systemd's own start limit is 90 s.
const START_PATIENCE: Duration = Duration::from_secs(120);

/// What these two actions ask beyond the order's expectation.
pub fn check(run: &Run<'_>) -> StepResult<Progress> {
    if let Some(reason) = run.policy.client_refusal() {
        return Err(StepError::refused(codes::POLICY, reason));
    }
    let looked = run.look();
    let installation = run.installation(&looked)?;
    if run.order.action == Action::RestartClient {
        return if installation.run == RunKind::Stopped {
            Err(StepError::refused(
                codes::UNEXPECTED_STATE,
                "the client does not run, so there is nothing to restart; start it on the host",
            ))
        } else {
            Ok(Progress::Next)
        };
    }
    let repoint = wanted(run)?;
    let config = looked
        .facts
        .configs
        .get(&installation.config_file)
        .and_then(Option::as_ref);
    let decided = repoint::decide(config, repoint, run.policy).map_err(refused)?;
    if let Some(process) = looked.main_process()
        && let Some(reason) = repoint::overridden(&process.argv, &processes::environment(process.pid))
    {
        return Err(refused(reason));
    }
    // A file that was changed by somebody who did not restart the client is not done yet.
    let in_use = installation.connected == Some(true) || installation.run == RunKind::Stopped;
    Ok(if decided == Wanted::AlreadyDone && in_use {
        Progress::AlreadyDone(format!("the client reports to {} already", repoint.to))
    } else {
        Progress::Next
    })
}

/// Remembers the client as it is run.
pub fn save(run: &Run<'_>) -> StepResult<()> {
    // What is remembered of this very order stays: the client may be stopped by now.
    if Before::load(run).is_ok() {
        return Ok(());
    }
    let looked = run.look();
    let before = Before {
        order_id: run.order.order_id.clone(),
        boot_id: clock::boot_id(),
        installation: run.installation(&looked)?,
        process: looked.main_process().map(save::process),
    };
    files::write_json(&run.shared.paths.client_change(), &before)?;
    Ok(())
}

/// Writes the address of the step's direction. A file that has it already is left alone.
pub fn rewrite(run: &Run<'_>, step: StepId) -> StepResult<()> {
    let before = Before::load(run)?;
    let repoint = wanted(run)?;
    // The way back leads to what was found, which may be the new address already.
    let to = if step.is_back() {
        &before.installation.server_address
    } else {
        &repoint.to
    };
    let path = Path::new(&before.installation.config_file);
    if !fs::symlink_metadata(path)?.is_file() {
        return Err(StepError::new(
            codes::REPOINT,
            format!("{} is a link; its target is not written", path.display()),
        ));
    }
    let bytes = fs::read(path)?;
    let config = config::parse(&bytes).ok_or_else(|| refused(Refused::Opaque))?;
    if config.server_address == *to {
        return Ok(());
    }
    let from = if step.is_back() {
        &repoint.to
    } else {
        &repoint.from
    };
    let new = repoint::rewrite(&bytes, from, to).ok_or_else(|| {
        StepError::new(
            codes::REPOINT,
            format!("the address in {} can't be changed in place", path.display()),
        )
    })?;
    put(path, &new, Ownership::of(path)?)?;
    Ok(())
}

/// Stops the client with its strays and starts it as it was run.
pub fn restart(run: &Run<'_>, step: StepId, limit: Duration) -> StepResult<()> {
    let before = Before::load(run)?;
    let installation = &before.installation;
    if installation.run == RunKind::Stopped {
        return Ok(());
    }
    let same_boot = before.boot_id == clock::boot_id();
    let never_stopped = step.is_back()
        && same_boot
        && run
            .look()
            .main_process()
            .is_some_and(|now| before.process.as_ref().is_some_and(|then| then.pid == now.pid));
    if never_stopped {
        return Ok(());
    }
    let unit = match &installation.run {
        RunKind::Systemd { unit, .. } => Some(unit.as_str()),
        RunKind::ByHand { .. } | RunKind::Stopped => None,
    };
    stop::everything(
        unit,
        &stop::bases(installation.method, &installation.base_dir),
        limit / 2,
    )?;
    start::as_run(
        &run.shared.paths,
        installation,
        before.process.as_ref(),
        &installation.base_dir,
        limit / 2,
    )
}

/// Waits until the client is itself again and connected.
pub fn reconnect(run: &Run<'_>, step: StepId, limit: Duration) -> StepResult<()> {
    let before = Before::load(run)?;
    let then = &before.installation;
    verify::wait(run, step, limit, |_| Expected {
        version: then.version,
        agent_id: then.agent_id.clone(),
        node_id: then.node_id.clone(),
        exporters: then.exporters.clone(),
        forbidden_dir: None,
        old_pid: before
            .process
            .as_ref()
            .filter(|_| !step.is_back() && before.boot_id == clock::boot_id())
            .map(|process| process.pid),
        running: then.run != RunKind::Stopped,
        // On the way back a client that was not connected before need not be connected after.
        connected: then.configured && (!step.is_back() || then.connected == Some(true)),
    })
}

/// The last resort: a client that ran before and does not run now is started once as it was run. Says what came of it.
fn start_again(run: &Run<'_>) -> String {
    let Ok(before) = Before::load(run) else {
        return "how the client ran is not known, so it was not started".to_owned();
    };
    let looked = run.look();
    if let Some(client) = looked.clients.iter().find(|process| processes::of_host(process)) {
        return format!("a client runs (process {})", client.pid);
    }
    let installation = &before.installation;
    let said = match start::as_run(
        &run.shared.paths,
        installation,
        before.process.as_ref(),
        &installation.base_dir,
        START_PATIENCE,
    ) {
        Ok(()) => "the client was started as it is".to_owned(),
        Err(error) => format!("the client could not be started: {error}"),
    };
    tracing::warn!(order = %run.order.order_id, "{said}");
    said
}

impl Run<'_> {
    /// Walks the steps of a change of the client from one of them.
    pub fn change_client(&mut self, from: Option<StepId>) -> OrderResult {
        let steps = procedure(
            self.order.action,
            Some(self.entry.expect.method),
            self.entry.verify_for_ms,
        );
        let first = from
            .and_then(|from| steps.iter().position(|step| step.id == from))
            .unwrap_or(0);
        for (index, step) in steps.iter().enumerate().skip(first) {
            match self.step(*step, index, steps.len()) {
                Ok(Progress::Next) => {}
                Ok(Progress::AlreadyDone(message)) => {
                    return self.result(Outcome::Done, step.id, "", message);
                }
                Err(error) if !self.changed() => {
                    let outcome = error.outcome.unwrap_or(Outcome::FailedNothingChanged);
                    return self.result(outcome, step.id, error.code, error.message);
                }
                Err(error) => return self.change_failed(step.id, &error),
            }
        }
        let message = match &self.entry.repoint {
            Some(repoint) if self.order.action == Action::Repoint => {
                format!("the client reports to {}", repoint.to)
            }
            _ => "the client was restarted and is connected".to_owned(),
        };
        self.result(Outcome::Done, StepId::Reconnect, "", message)
    }

    /// Goes on with a change of the client that was found half done.
    pub fn resume_change(
        &mut self,
        decision: Resume,
        going_back: Option<(StepId, String, String)>,
        hit: StepId,
    ) -> OrderResult {
        let interrupted = || (hit, codes::INTERNAL.to_owned(), "interrupted".to_owned());
        match decision {
            Resume::Nothing => self.result(
                Outcome::Expired,
                StepId::Check,
                codes::PERMIT_EXPIRED,
                "the agent was restarted before anything was changed",
            ),
            Resume::Repeat(step) | Resume::Continue(step) if step.is_back() => {
                self.change_back(Some(step), going_back.unwrap_or_else(interrupted))
            }
            Resume::Repeat(step) | Resume::Continue(step) => self.change_client(Some(step)),
            Resume::Finish => match going_back {
                Some(reason) => self.change_back(Some(StepId::BackReconnect), reason),
                None => self.change_client(Some(StepId::Reconnect)),
            },
            Resume::Undo(step) => {
                let message = format!("interrupted after {} had failed", step.as_str());
                self.change_failed(step, &StepError::new(codes::VERIFY_FAILED, message))
            }
            Resume::AskOperator(doubt) => {
                let message = format!("{}; {}", doubt_text(doubt), start_again(self));
                self.result(Outcome::Inconsistent, hit, codes::UNEXPECTED_STATE, message)
            }
        }
    }

    fn change_failed(&mut self, step: StepId, error: &StepError) -> OrderResult {
        if self.order.action == Action::RestartClient {
            let message = format!(
                "{}; {}; look at the client's own log on the host",
                error.message,
                start_again(self)
            );
            return self.result(Outcome::Inconsistent, step, error.code, message);
        }
        tracing::warn!(order = %self.order.order_id, step = step.as_str(), code = error.code, "going back: {}", error.message);
        let record = Record::GoingBack {
            step,
            code: error.code.to_owned(),
            message: error.message.clone(),
        };
        if let Err(error) = self.record(record) {
            return self.result(Outcome::FailedNothingChanged, step, error.code, error.message);
        }
        self.change_back(None, (step, error.code.to_owned(), error.message.clone()))
    }

    fn change_back(&mut self, from: Option<StepId>, reason: (StepId, String, String)) -> OrderResult {
        let (failed, code, message) = reason;
        let steps = way_back(self.order.action, self.entry.verify_for_ms);
        let first = from
            .and_then(|from| steps.iter().position(|step| step.id == from))
            .unwrap_or(0);
        for (index, step) in steps.iter().enumerate().skip(first) {
            if let Err(error) = self.step(*step, index, steps.len()) {
                let message = format!(
                    "{message}; then the way back failed in {}: {}; {}",
                    step.id.as_str(),
                    error.message,
                    start_again(self)
                );
                return self.result(Outcome::Inconsistent, step.id, &code, message);
            }
        }
        let message = format!("{message}; the client is back on its old address");
        self.result(Outcome::RolledBack, failed, &code, message)
    }
}
