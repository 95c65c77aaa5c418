//! The executor's thread: resumes what the journal holds, then takes one piece of work after another.

use super::engine::Run;
use super::error::StepError;
use super::orders::{Shared, Taken, Work, refusal};
use super::saved::Saved;
use super::{renew, rescue};
use crate::config::AgentConfig;
use crate::detect::{address, look};
use crate::host::transaction::Transaction;
use crate::host::{clock, os};
use crate::journal::Journal;
use client_upgrade::journal::{
    Doubt, Folded, JournalOrder, OnDisk, Reality, Record, Resume, Transaction as State, on_disk, resume,
};
use client_upgrade::policy::{Policy, stopped_by_hold};
use client_upgrade::procedure::StepId;
use fleet_common::codes::{self, Code};
use fleet_common::inventory::{Inventory, Method};
use fleet_common::order::{Action, HostEvent, OrderResult, Outcome};
use fleet_common::plan_entry::PlanEntry;
use std::sync::Arc;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::{Duration, Instant};

/// The executor.
pub struct Worker {
    shared: Arc<Shared>,
    config: AgentConfig,
    journal: Journal,
    /// Since when something waits for room on the disk, and how often that was said.
    unsettled: Option<Instant>,
    reminders: u32,
}

/// Between two attempts to write what a full disk kept in memory.
const SETTLE_EVERY: Duration = Duration::from_secs(5);
/// Between two reminders of it in the log.
const REMIND_EVERY: Duration = Duration::from_secs(300);

impl Worker {
    /// With the journal as it is.
    pub fn new(shared: Arc<Shared>, config: AgentConfig) -> std::io::Result<Self> {
        super::save::tidy(&shared.paths)?;
        let journal = Journal::open(&shared.paths)?;
        let state = journal.state();
        if let (Some(order), None) = (&state.order, &state.finished) {
            shared.begin(&order.order_id);
        }
        Ok(Self {
            shared,
            config,
            journal,
            unsettled: None,
            reminders: 0,
        })
    }

    /// Works until told to stop.
    pub fn run(mut self, work: &mpsc::Receiver<Work>) {
        self.refresh();
        self.resume();
        loop {
            let next = if self.settled() {
                work.recv().map_err(|_| RecvTimeoutError::Disconnected)
            } else {
                work.recv_timeout(SETTLE_EVERY)
            };
            match next {
                Ok(Work::Order(taken)) => self.order(&taken),
                Ok(Work::Refresh) => self.refresh(),
                Ok(Work::Renew(answer)) => {
                    // Whoever asked may be gone; the certificate is new all the same.
                    let _ = answer.send(renew::now(&self.shared));
                }
                Err(RecvTimeoutError::Timeout) => self.settle(),
                Ok(Work::Stop) | Err(RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    /// Whether everything that ended is on disk.
    fn settled(&self) -> bool {
        self.journal.complete() && self.shared.settled()
    }

    /// Tries again to write what a full disk kept in memory, and reminds of it.
    fn settle(&mut self) {
        if self.settled() {
            return;
        }
        let written = self.journal.flush().and_then(|()| self.shared.settle());
        let since = self.unsettled.get_or_insert_with(Instant::now).elapsed();
        match written {
            Ok(()) => {
                tracing::info!(
                    seconds = since.as_secs(),
                    "what could not be written is on disk now"
                );
                (self.unsettled, self.reminders) = (None, 0);
            }
            Err(error) if since >= REMIND_EVERY * self.reminders => {
                self.reminders += 1;
                tracing::error!(
                    %error,
                    seconds = since.as_secs(),
                    "the end of an order can't be written and is told only when it can; free some space in {}",
                    self.shared.paths.state().display()
                );
            }
            Err(_) => {}
        }
    }

    /// Detects and stores the inventory.
    pub fn refresh(&self) {
        let policy = crate::policy::load(&self.shared.paths).unwrap_or_default();
        let inventory = inventory(&self.shared.paths, &self.config, &policy);
        let stored = serde_json::to_vec(&inventory)
            .map_err(std::io::Error::from)
            .and_then(|bytes| self.shared.set_inventory(bytes));
        if let Err(error) = stored {
            tracing::error!(%error, "the inventory can't be stored");
        }
    }

    fn order(&mut self, taken: &Taken) {
        self.shared.begin(&taken.order_id);
        let result = match self.admit(taken) {
            Ok((policy, entry)) => self.carry_out(taken, &policy, &entry),
            Err(refused) => refused,
        };
        self.finish(&taken.order_id, taken.epoch, &result);
    }

    /// Whether hold and policy allow the order.
    fn admit(&self, taken: &Taken) -> Result<(Policy, PlanEntry), OrderResult> {
        let changes = self.holds(taken.action) || taken.action == Action::SelfUpdate;
        if let (true, Some(reason)) = (changes, held(&self.shared.paths)) {
            return Err(refusal(codes::HELD, format!("held on the host: {reason}")));
        }
        let policy = crate::policy::load(&self.shared.paths)
            .map_err(|error| refusal(codes::POLICY, format!("{error:#}")))?;
        let needs_none = matches!(
            taken.action,
            Action::Probe | Action::CollectBundle | Action::Renew | Action::SelfUpdate
        );
        if needs_none && taken.entry.is_empty() {
            return Ok((policy, no_entry()));
        }
        let entry: PlanEntry = serde_json::from_slice(&taken.entry).map_err(|error| {
            refusal(
                codes::UNEXPECTED_STATE,
                format!("the plan entry can't be read: {error}"),
            )
        })?;
        let asks = matches!(taken.action, Action::Preflight | Action::Stage | Action::Switch);
        match policy.refusal(&entry).filter(|_| asks) {
            Some(reason) => Err(refusal(codes::POLICY, reason)),
            None => Ok((policy, entry)),
        }
    }

    /// Whether a local hold stops an action. See [`client_upgrade::policy::stopped_by_hold`].
    fn holds(&self, action: Action) -> bool {
        let switch = Saved::load(&self.shared.paths).and_then(|saved| self.shared.result(&saved.order_id));
        stopped_by_hold(action, switch.map(|result| result.outcome))
    }

    fn carry_out(&mut self, taken: &Taken, policy: &Policy, entry: &PlanEntry) -> OrderResult {
        self.settle();
        if !self.settled() {
            let message = "the end of an earlier order could not be written yet; free some space on the host";
            return refusal(codes::INTERNAL, message);
        }
        let now = clock::reading();
        let order = JournalOrder {
            order_id: taken.order_id.clone(),
            epoch: taken.epoch,
            plan_id: taken.plan_id.clone(),
            action: taken.action,
            entry: String::from_utf8_lossy(&taken.entry).into_owned(),
            boot_id: now.boot_id,
            boot_ms: now.boot_ms,
            at_ms: clock::now_ms(),
            deadline_for_ms: u64::try_from(taken.deadline.as_millis()).unwrap_or(u64::MAX),
            release: String::from_utf8_lossy(&taken.release).into_owned(),
        };
        let begun = self.journal.begin(order.clone()).and_then(|()| {
            self.shared
                .outbox
                .add(&order.order_id, order.epoch, &HostEvent::Accepted)
                .map(drop)
        });
        if let Err(error) = begun {
            return refusal(codes::INTERNAL, format!("the journal can't be written: {error}"));
        }
        let permit = taken.action.changes_host().then_some(taken.permit);
        let shared = self.shared.clone();
        let detail = serde_json::Value::Null;
        Run {
            shared: &shared,
            policy,
            order: &order,
            entry,
            permit,
            journal: &mut self.journal,
            detail,
            unwritten: None,
        }
        .forward(None)
    }

    fn finish(&mut self, order_id: &str, epoch: fleet_common::ids::Epoch, result: &OrderResult) {
        tracing::info!(order = %order_id, outcome = ?result.outcome, code = %result.code, "order ended: {}", result.message);
        let is_ours = self
            .journal
            .state()
            .order
            .is_some_and(|order| order.order_id == order_id);
        if is_ours && let Err(error) = self.journal.add_anyway(Record::Finished(result.clone())) {
            tracing::error!(%error, "the journal can't be written");
        }
        self.refresh();
        if let Err(error) = self.shared.end(order_id, epoch, result) {
            tracing::error!(%error, "the result can't be stored yet");
        }
        self.settle();
    }

    /// Goes on with what the journal holds.
    fn resume(&mut self) {
        let state = self.journal.state();
        let Some(order) = state.order.clone() else { return };
        if let Some(result) = &state.finished {
            // The end was written, but perhaps not told.
            if self.shared.result(&order.order_id).is_none() {
                self.finish_again(&order, result);
            }
            return;
        }
        let policy = crate::policy::load(&self.shared.paths).unwrap_or_else(|error| {
            tracing::error!("the policy can't be read, going on with the default one: {error:#}");
            Policy::default()
        });
        let entry: Option<PlanEntry> = serde_json::from_str(&order.entry).ok();
        let unreadable = entry.is_none();
        let entry = entry.unwrap_or_else(no_entry);
        let reality = self.reality(&state, &order, &entry, &policy);
        let decision = resume(&state, reality);
        let came_back = Record::Resumed { at: clock::reading() };
        if let Err(error) = self.journal.add_anyway(came_back) {
            tracing::error!(%error, "the journal can't be written");
        }
        let hit = state
            .open
            .or(state.last.map(|(step, _)| step))
            .unwrap_or(StepId::Check);
        tracing::warn!(order = %order.order_id, step = hit.as_str(), ?reality, ?decision, "found an order half done");
        let event = HostEvent::Resumed {
            step: hit.as_str().to_owned(),
            decision: decision.word().to_owned(),
        };
        if let Err(error) = self.shared.outbox.keep(&order.order_id, order.epoch, &event) {
            tracing::error!(%error, "the outbox can't be written");
        }
        let shared = self.shared.clone();
        let going_back = state.going_back.clone();
        let mut run = Run {
            shared: &shared,
            policy: &policy,
            order: &order,
            entry: &entry,
            permit: None,
            journal: &mut self.journal,
            detail: serde_json::Value::Null,
            unwritten: None,
        };
        let result = match decision {
            // Without the plan entry neither way can be walked; the worst, a stopped client, can still be averted.
            _ if unreadable && state.changed => {
                let said = rescue::start_what_is_there(&run);
                let message = format!("the plan entry in the journal can't be read; {said}");
                run.result(Outcome::Inconsistent, hit, codes::INTERNAL, message)
            }
            decision if client_upgrade::client_change::handles(order.action) => {
                run.resume_change(decision, going_back, hit)
            }
            Resume::Nothing => OrderResult {
                outcome: Outcome::Expired,
                code: Code::new(codes::PERMIT_EXPIRED),
                ..refusal("", "the agent was restarted before anything was changed")
            },
            Resume::Repeat(step) | Resume::Continue(step)
                if step.is_back() && order.action == Action::Switch =>
            {
                let reason =
                    going_back.unwrap_or((step, codes::INTERNAL.to_owned(), "interrupted".to_owned()));
                run.walk_back(Some(step), reason)
            }
            Resume::Repeat(step) | Resume::Continue(step) => run.forward(Some(step)),
            Resume::Finish if going_back.is_some() => {
                let reason = going_back.unwrap_or((hit, String::new(), String::new()));
                run.walk_back(Some(StepId::BackVerify), reason)
            }
            Resume::Finish => run.forward(Some(hit)),
            Resume::Undo(step) => {
                let error = StepError::new(
                    codes::INSTALL_FAILED,
                    format!("interrupted in {} and not complete", step.as_str()),
                );
                run.go_back(step, &error)
            }
            Resume::AskOperator(doubt) => {
                let message = format!("{}; {}", doubt_text(doubt), rescue::start_what_is_there(&run));
                run.result(Outcome::Inconsistent, hit, codes::UNEXPECTED_STATE, message)
            }
        };
        self.finish(&order.order_id, order.epoch, &result);
    }

    fn finish_again(&self, order: &JournalOrder, result: &OrderResult) {
        if let Err(error) = self.shared.end(&order.order_id, order.epoch, result) {
            tracing::error!(%error, "the result can't be stored");
        }
    }

    fn reality(&self, state: &Folded, order: &JournalOrder, entry: &PlanEntry, policy: &Policy) -> Reality {
        let step = if state.is_back() {
            StepId::BackInstall
        } else {
            StepId::Install
        };
        let transaction = Transaction::new(&self.shared.paths.transactions(), &order.order_id, step.as_str());
        // A tarball that was started by hand and is stopped now is found only by its directory.
        let found = look(policy.mixed.into(), &[&entry.expect.base_dir]);
        let found = found
            .installation()
            .map(|installation| (installation.method, installation.version));
        let saved = Saved::load(&self.shared.paths);
        // A tree tells its release as soon as two of its programs are new: one whose installation was cut off is half of one.
        let cut_off = saved
            .as_ref()
            .is_some_and(|saved| saved.installation.method == Method::Tarball)
            && !state.is_back()
            && transaction.begun()
            && transaction.state() == State::None;
        let on_disk = match saved {
            Some(_) if cut_off => OnDisk::Broken,
            Some(saved) => on_disk(
                found,
                (saved.installation.method, saved.installation.version),
                entry.to,
            ),
            None => OnDisk::Old,
        };
        Reality {
            transaction: transaction.state(),
            on_disk,
            rebooted: state.rebooted(&clock::reading()),
        }
    }
}

/// What a doubt means, for people.
pub(super) fn doubt_text(doubt: Doubt) -> &'static str {
    match doubt {
        Doubt::InstalledButOld => {
            "the journal says the new release was installed, but the old one is here; somebody else was at work"
        }
        Doubt::RestoredButNew => {
            "the journal says the old release was put back, but the new one is here; somebody else was at work"
        }
        Doubt::BackFailed => "the way back had failed before the agent was restarted",
    }
}

/// The local hold's reason.
pub fn held(paths: &crate::config::Paths) -> Option<String> {
    fs_err::read_to_string(paths.hold())
        .ok()
        .map(|reason| reason.trim().to_owned())
}

/// The host as it is now.
pub fn inventory(paths: &crate::config::Paths, config: &AgentConfig, policy: &Policy) -> Inventory {
    let release = os::release();
    Inventory {
        hostname: os::hostname(),
        os_id: release.id,
        os_version: release.version,
        os_codename: release.codename,
        arch: os::arch(),
        pmm_server: crate::detect::pmm_server(),
        agent_version: env!("CARGO_PKG_VERSION").to_owned(),
        labels: config.labels.clone(),
        held: held(paths),
        client: address::resolved(look(policy.mixed.into(), &[]).detection),
    }
}

/// Stands in where an order carries no plan entry (probe).
fn no_entry() -> PlanEntry {
    use fleet_common::plan_entry::{ClientSource, Expect};
    use fleet_common::version::PmmVersion;
    let nothing = PmmVersion::new(0, 0, 0);
    PlanEntry {
        host: String::new(),
        name: String::new(),
        group: String::new(),
        leg: String::new(),
        expect: Expect {
            method: Method::Deb,
            from_min: nothing,
            from_max: nothing,
            base_dir: String::new(),
            agent_id: String::new(),
        },
        to: nothing,
        source: ClientSource {
            repository_url: String::new(),
            component: String::new(),
            tarball_url: String::new(),
            tarball_sha256: std::collections::BTreeMap::new(),
        },
        verify_for_ms: 0,
        repoint: None,
    }
}
