//! The walk through the steps of one order: intent into the journal, the step, result into the journal; the way back when a step fails
//! after the first change.

use super::error::{StepError, StepResult};
use super::orders::{Note, Permit, Shared};
use super::saved::Saved;
use super::{
    back, backup, bundle, carry, client_change, environment, install, keep, renew, rescue, save, self_update,
    stage, start, stop, survey,
};
use crate::detect::{Looked, look};
use crate::host::clock;
use crate::host::files;
use crate::journal::Journal;
use crate::verify;
use client_upgrade::journal::{JournalOrder, Record};
use client_upgrade::order_clock::left_ms;
use client_upgrade::policy::Policy;
use client_upgrade::procedure::{Step, StepId, procedure, way_back};
use fleet_common::codes::{self, Code};
use fleet_common::inventory::Installation;
use fleet_common::order::{Action, HostEvent, OrderResult, Outcome, SwitchDetail};
use fleet_common::plan_entry::PlanEntry;
use serde_json::Value;
use std::time::{Duration, Instant};

/// One order being carried out.
pub struct Run<'a> {
    /// Outbox, link, paths.
    pub shared: &'a Shared,
    /// The host's policy.
    pub policy: &'a Policy,
    /// The order.
    pub order: &'a JournalOrder,
    /// Its plan entry.
    pub entry: &'a PlanEntry,
    /// The permit; `None` once the first change was made.
    pub permit: Option<Permit>,
    /// The journal.
    pub journal: &'a mut Journal,
    /// Result document of the order.
    pub detail: Value,
    /// Why the journal could not be written after the first change.
    pub unwritten: Option<String>,
}

impl Run<'_> {
    /// Detects again under this host's policy.
    pub fn look(&self) -> Looked {
        look(self.policy.mixed.into(), &[&self.entry.expect.base_dir])
    }

    /// The installation that was found, or why the order can't be carried out on it.
    pub fn installation(&self, looked: &Looked) -> StepResult<Installation> {
        use fleet_common::inventory::Detection;
        match &looked.detection {
            Detection::Installed(installation) => Ok((**installation).clone()),
            Detection::NotInstalled => Err(StepError::refused(
                codes::NOT_INSTALLED,
                "there is no PMM client on this host",
            )),
            Detection::Refused { message, .. } => {
                Err(StepError::refused(codes::UNEXPECTED_STATE, message.clone()))
            }
        }
    }

    /// What was saved for the way back.
    pub fn saved(&self) -> StepResult<Saved> {
        Saved::load(&self.shared.paths)
            .ok_or_else(|| StepError::new(codes::UNEXPECTED_STATE, "nothing is saved for the way back"))
    }

    /// Shows what the current step waits for.
    pub fn note(&self, step: StepId, note: impl Into<String>) {
        let note = Note {
            order_id: self.order.order_id.clone(),
            step: step.as_str().to_owned(),
            note: note.into(),
        };
        self.shared.progress.send_replace(Some(note));
    }

    /// Tells an event of this order. After the first change a full disk is no reason to stop half-way: it is told later.
    pub fn tell(&self, event: &HostEvent) -> StepResult<()> {
        let (order, epoch) = (&self.order.order_id, self.order.epoch);
        if !self.changed() {
            self.shared.outbox.add(order, epoch, event)?;
        } else if let Err(error) = self.shared.outbox.keep(order, epoch, event) {
            tracing::error!(%error, "an event can't be stored; it is told later");
        }
        Ok(())
    }

    /// Writes a record. Before the first change nothing goes on without it; after it the order goes on, and the result says so.
    pub(super) fn record(&mut self, record: Record) -> StepResult<()> {
        if !self.changed() {
            self.journal.add(record)?;
        } else if let Err(error) = self.journal.add_anyway(record) {
            tracing::error!(order = %self.order.order_id, %error, "the journal can't be written; going on without it");
            self.unwritten = Some(error.to_string());
        }
        Ok(())
    }

    /// Walks the steps of the order from one of them.
    pub fn forward(&mut self, from: Option<StepId>) -> OrderResult {
        if self.order.action == Action::Rollback {
            return self.rollback(from);
        }
        if client_upgrade::client_change::handles(self.order.action) {
            return self.change_client(from);
        }
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
                Err(error) => return self.failed(step.id, error),
            }
        }
        let last = steps.last().map_or(StepId::Check, |step| step.id);
        let message = if self.order.action == Action::Switch {
            format!("the client runs release {}", self.entry.to)
        } else {
            self.told()
        };
        if self.order.action == Action::Switch {
            self.detail = self.switch_detail(&self.entry.to.to_string());
        }
        self.result(Outcome::Done, last, "", message)
    }

    /// Whether a step that changes the host was begun.
    pub(super) fn changed(&self) -> bool {
        self.journal.state().changed
    }

    /// What a person wants to know of an action that ended well.
    fn told(&self) -> String {
        match self.order.action {
            Action::CollectBundle => bundle::told(&self.detail),
            Action::Renew => "the agent uses its new certificate".to_owned(),
            Action::SelfUpdate => format!("the agent runs release {}", env!("CARGO_PKG_VERSION")),
            _ => String::new(),
        }
    }

    fn failed(&mut self, step: StepId, error: StepError) -> OrderResult {
        let switching = self.order.action == Action::Switch && step.changes_host();
        if !switching {
            let outcome = error.outcome.unwrap_or(Outcome::FailedNothingChanged);
            return self.result(outcome, step, error.code, error.message);
        }
        // Refused, expired or not recorded right before the first change: there is nothing to go back from, and the client runs.
        if !self.changed() {
            let outcome = error.outcome.unwrap_or(Outcome::FailedNothingChanged);
            return self.result(outcome, step, error.code, error.message);
        }
        self.go_back(step, &error)
    }

    /// Takes the way back because a step failed.
    pub fn go_back(&mut self, step: StepId, error: &StepError) -> OrderResult {
        tracing::warn!(order = %self.order.order_id, step = step.as_str(), code = error.code, "going back: {}", error.message);
        let record = Record::GoingBack {
            step,
            code: error.code.to_owned(),
            message: error.message.clone(),
        };
        if let Err(error) = self.record(record) {
            return self.result(Outcome::FailedNothingChanged, step, error.code, error.message);
        }
        self.walk_back(None, (step, error.code.to_owned(), error.message.clone()))
    }

    /// Walks the way back from one of its steps. The reason is what made us go back.
    pub fn walk_back(&mut self, from: Option<StepId>, reason: (StepId, String, String)) -> OrderResult {
        let (failed, code, message) = reason;
        match self.back_steps(from) {
            Ok(()) => {
                self.detail = self.saved().map_or(Value::Null, |saved| {
                    self.switch_detail(&saved.installation.version.to_string())
                });
                let (outcome, end) = self.way_back_ended();
                self.result(outcome, failed, &code, format!("{message}; {end}"))
            }
            Err((step, error)) => {
                let message = format!(
                    "{message}; then the way back failed in {}: {}; {}",
                    step.as_str(),
                    error.message,
                    rescue::start_what_is_there(self)
                );
                self.result(Outcome::Inconsistent, step, &code, message)
            }
        }
    }

    /// What the walk back has brought. Where the new release was on the disk before the order, there was no old one to go back to.
    fn way_back_ended(&self) -> (Outcome, String) {
        match self.saved() {
            Ok(saved) if saved.nothing_older(self.entry.to) => (
                Outcome::Inconsistent,
                format!(
                    "release {} was on the disk before and nothing older is kept: its client was started again as it was found",
                    self.entry.to
                ),
            ),
            _ => (
                Outcome::RolledBack,
                "the host is back on its old release".to_owned(),
            ),
        }
    }

    fn back_steps(&mut self, from: Option<StepId>) -> Result<(), (StepId, StepError)> {
        let steps = way_back(self.entry.verify_for_ms);
        let first = from
            .and_then(|from| steps.iter().position(|step| step.id == from))
            .unwrap_or(0);
        for (index, step) in steps.iter().enumerate().skip(first) {
            self.step(*step, index, steps.len())
                .map_err(|error| (step.id, error))?;
        }
        Ok(())
    }

    fn rollback(&mut self, from: Option<StepId>) -> OrderResult {
        let saved = match self.saved() {
            Ok(saved) if saved.nothing_older(self.entry.to) => {
                let message = format!(
                    "release {} was on the disk before the switch and nothing older is kept",
                    self.entry.to
                );
                return self.result(Outcome::Refused, StepId::Check, codes::UNEXPECTED_STATE, message);
            }
            Ok(saved) => saved,
            // It was made final: there is nothing to go back to, and nothing was changed.
            Err(error) => {
                return self.result(Outcome::Refused, StepId::Check, codes::TOO_LATE, error.message);
            }
        };
        if !self.changed()
            && let Err(error) = back::prepare(self, &saved)
        {
            let outcome = error.outcome.unwrap_or(Outcome::FailedNothingChanged);
            return self.result(outcome, StepId::Check, error.code, error.message);
        }
        match self.back_steps(from) {
            Ok(()) => {
                self.detail = self.switch_detail(&saved.installation.version.to_string());
                let message = format!("the host is back on release {}", saved.installation.version);
                self.result(Outcome::RolledBack, StepId::BackVerify, "", message)
            }
            Err((step, error)) if !self.changed() => {
                let outcome = error.outcome.unwrap_or(Outcome::FailedNothingChanged);
                self.result(outcome, step, error.code, error.message)
            }
            Err((step, error)) => {
                let message = format!("{}; {}", error.message, rescue::start_what_is_there(self));
                self.result(Outcome::Inconsistent, step, error.code, message)
            }
        }
    }

    pub(super) fn step(&mut self, step: Step, index: usize, of: usize) -> StepResult<Progress> {
        if step.id.changes_host() && step.id != StepId::Verify {
            self.before_first_change()?;
        }
        let begun = Instant::now();
        let number = |value: usize| u32::try_from(value).unwrap_or(u32::MAX);
        self.tell(&HostEvent::StepStarted {
            step: step.id.as_str().to_owned(),
            index: number(index + 1),
            of: number(of),
            deadline_for_ms: step.deadline_ms,
        })?;
        self.record(Record::Intent {
            step: step.id,
            at_ms: clock::now_ms(),
            spent_ms: self.spent_ms(),
        })?;
        tracing::info!(order = %self.order.order_id, step = step.id.as_str(), "step");
        let result = self
            .carry_out(step.id, self.limit(step))
            .map_err(|error| error.or_code(code_of(step.id)));
        self.record(Record::Result {
            step: step.id,
            ok: result.is_ok(),
            at_ms: clock::now_ms(),
            spent_ms: self.spent_ms(),
        })?;
        self.tell(&HostEvent::StepFinished {
            step: step.id.as_str().to_owned(),
            ok: result.is_ok(),
            took_ms: millis(begun),
        })?;
        result
    }

    /// Milliseconds of the order that have passed, on the clock that nobody can set.
    fn spent_ms(&self) -> u64 {
        self.journal.state().spent_ms(&clock::reading())
    }

    /// The step's time; before the first change no more than what is left of the order's.
    fn limit(&self, step: Step) -> Duration {
        let left = left_ms(self.order.deadline_for_ms, self.spent_ms()).max(1_000);
        // Once the guardian has it, an update of the agent runs its course like any other change.
        let runs_its_course = step.id.changes_host() || step.id == StepId::Replace;
        let bounded = !runs_its_course && self.order.deadline_for_ms > 0;
        Duration::from_millis(if bounded {
            step.deadline_ms.min(left)
        } else {
            step.deadline_ms
        })
    }

    /// What must hold right before the first change. A backup may have begun since the check; looking for it takes time, so the permit is
    /// looked at last.
    fn before_first_change(&mut self) -> StepResult<()> {
        if self.permit.is_some() {
            self.no_backup()?;
        }
        self.use_permit()
    }

    /// Refuses while PMM runs a database backup here.
    fn no_backup(&self) -> StepResult<()> {
        let looked = self.look();
        let base = looked
            .installation()
            .map_or(&self.entry.expect.base_dir, |found| &found.base_dir);
        backup::refuse(&looked, base)
    }

    /// Checks the permit, then it is used up.
    fn use_permit(&mut self) -> StepResult<()> {
        let Some(permit) = self.permit.take() else {
            return Ok(());
        };
        let expired = |message: String| {
            Err(StepError {
                outcome: Some(Outcome::Expired),
                ..StepError::new(codes::PERMIT_EXPIRED, message)
            })
        };
        if permit.over() {
            return expired(format!(
                "the permit was for {} ms",
                permit.start_within.as_millis()
            ));
        }
        if self.shared.link.live() != Some(permit.session) {
            return expired("the session that brought the permit is gone".to_owned());
        }
        // An abort raises the epoch: what was permitted before it and has changed nothing yet does not begin any more.
        let highest = self.shared.link.get().highest_epoch;
        if highest > self.order.epoch {
            let message = format!(
                "the order is of epoch {}, the coordinator is at {highest}",
                self.order.epoch
            );
            return Err(StepError::refused(codes::STALE_EPOCH, message));
        }
        Ok(())
    }

    fn carry_out(&mut self, step: StepId, limit: Duration) -> StepResult<Progress> {
        match step {
            StepId::Check => {
                return match self.order.action {
                    Action::SelfUpdate => self_update::check(self),
                    action if client_upgrade::client_change::handles(action) => {
                        self.check()?;
                        client_change::check(self)
                    }
                    _ => self.check(),
                };
            }
            StepId::Survey => self.detail = survey::survey(self)?,
            StepId::Stage => stage::stage(self, limit)?,
            StepId::Save => {
                environment::check(self)?;
                save::save(self)?;
            }
            StepId::Stop => stop::stop(self, limit)?,
            StepId::Install => install::install(self, limit)?,
            StepId::Carry => carry::carry(self)?,
            StepId::Start => start::start(self, limit)?,
            StepId::Verify => verify::verify(self, step, limit)?,
            StepId::BackStop => back::stop(self, limit)?,
            StepId::BackInstall => back::install(self, limit)?,
            StepId::BackRestore => back::restore(self)?,
            StepId::BackStart => back::start(self, limit)?,
            StepId::BackVerify => verify::verify(self, step, limit)?,
            StepId::Repository => keep::repository(self)?,
            StepId::Discard => keep::discard(self)?,
            StepId::SaveAddress => client_change::save(self)?,
            StepId::Rewrite | StepId::BackRewrite => client_change::rewrite(self, step)?,
            StepId::Restart | StepId::BackRestart => client_change::restart(self, step, limit)?,
            StepId::Reconnect | StepId::BackReconnect => client_change::reconnect(self, step, limit)?,
            StepId::Collect => self.detail = bundle::collect(self)?,
            StepId::RequestCertificate => renew::request(self.shared, limit)?,
            StepId::UseCertificate => renew::wait_until_used(self.shared, limit)?,
            StepId::Fetch => self_update::fetch(self, limit)?,
            StepId::Replace => self_update::replace(self, limit)?,
        }
        Ok(Progress::Next)
    }

    /// Compares what is here with what the order expects. If reality differs nothing is done.
    fn check(&mut self) -> StepResult<Progress> {
        if self.order.action == Action::Probe {
            return Ok(Progress::Next);
        }
        let looked = self.look();
        let found = self.installation(&looked)?;
        let expect = &self.entry.expect;
        let differs = |what: &str, expected: &str, found: &str| {
            Err(StepError::refused(
                codes::UNEXPECTED_STATE,
                format!("{what}: the order expects {expected}, here is {found}"),
            ))
        };
        if found.method != expect.method {
            return differs("method", expect.method.as_str(), found.method.as_str());
        }
        if !expect.agent_id.is_empty() && found.agent_id != expect.agent_id {
            return differs("agent id", &expect.agent_id, &found.agent_id);
        }
        if found.version == self.entry.to {
            let runs = found
                .running_version
                .is_none_or(|running| running == self.entry.to);
            let done = self.order.action == Action::Switch && runs;
            if self.order.action == Action::Switch && !runs {
                backup::refuse(&looked, &found.base_dir)?;
            }
            return Ok(if done {
                Progress::AlreadyDone(format!("release {} is already here", found.version))
            } else {
                Progress::Next
            });
        }
        if found.version < expect.from_min || found.version > expect.from_max {
            return differs(
                "release",
                &format!("{} to {}", expect.from_min, expect.from_max),
                &found.version.to_string(),
            );
        }
        if found.base_dir != expect.base_dir {
            return differs("directory", &expect.base_dir, &found.base_dir);
        }
        if self.order.action == Action::Switch {
            backup::refuse(&looked, &found.base_dir)?;
        }
        Ok(Progress::Next)
    }

    fn switch_detail(&self, to: &str) -> Value {
        let state = self.journal.state();
        let saved = Saved::load(&self.shared.paths);
        let detail = SwitchDetail {
            from: saved
                .as_ref()
                .map(|saved| saved.installation.version.to_string())
                .unwrap_or_default(),
            to: to.to_owned(),
            client_gap_ms: state.client_gap_ms(&clock::reading(), clock::now_ms()),
            transaction_ms: files::read_json(&self.shared.paths.saved().join("transaction_ms.json"))
                .unwrap_or_default(),
        };
        serde_json::to_value(detail).unwrap_or(Value::Null)
    }

    /// A result of this order.
    pub fn result(
        &self,
        outcome: Outcome,
        step: StepId,
        code: &str,
        message: impl Into<String>,
    ) -> OrderResult {
        OrderResult {
            outcome,
            step: step.as_str().to_owned(),
            code: Code::new(code),
            message: match &self.unwritten {
                None => message.into(),
                Some(why) => format!("{}; the journal could not be written: {why}", message.into()),
            },
            took_ms: self.spent_ms(),
            detail: self.detail.clone(),
        }
    }
}

/// How the walk goes on after a step.
pub enum Progress {
    /// With the next step.
    Next,
    /// Not at all: the order's goal is already reached.
    AlreadyDone(String),
}

fn code_of(step: StepId) -> &'static str {
    match step {
        StepId::Check | StepId::Save => codes::UNEXPECTED_STATE,
        StepId::Survey => codes::PREFLIGHT,
        StepId::Stage => codes::STAGE_FAILED,
        StepId::Stop
        | StepId::Install
        | StepId::Carry
        | StepId::BackStop
        | StepId::BackInstall
        | StepId::BackRestore => codes::INSTALL_FAILED,
        StepId::Start | StepId::Verify | StepId::BackStart | StepId::BackVerify => codes::VERIFY_FAILED,
        StepId::Repository | StepId::Discard | StepId::Collect => codes::INTERNAL,
        StepId::SaveAddress | StepId::Rewrite | StepId::BackRewrite => codes::REPOINT,
        StepId::Restart | StepId::Reconnect | StepId::BackRestart | StepId::BackReconnect => {
            codes::VERIFY_FAILED
        }
        StepId::RequestCertificate | StepId::UseCertificate => codes::RENEW_FAILED,
        StepId::Fetch | StepId::Replace => codes::UPDATE_FAILED,
    }
}

fn millis(since: Instant) -> u64 {
    u64::try_from(since.elapsed().as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
#[path = "engine_tests.rs"]
mod tests;
