//! The executor's thread: resumes what the journal holds, then takes one piece of work after another.

use super::engine::Run;
use super::error::StepError;
use super::orders::{Shared, Taken, Work, refusal};
use super::saved::Saved;
use crate::config::AgentConfig;
use crate::detect::{address, look};
use crate::host::transaction::Transaction;
use crate::host::{clock, os};
use crate::journal::Journal;
use client_upgrade::journal::{Doubt, JournalOrder, OnDisk, Reality, Record, Resume, on_disk, resume};
use client_upgrade::policy::Policy;
use client_upgrade::procedure::StepId;
use fleet_common::codes::{self, Code};
use fleet_common::inventory::Inventory;
use fleet_common::order::{Action, HostEvent, OrderResult, Outcome};
use fleet_common::plan_entry::PlanEntry;
use std::sync::{Arc, mpsc};

/// The executor.
pub struct Worker {
    shared: Arc<Shared>,
    config: AgentConfig,
    journal: Journal,
}

impl Worker {
    /// With the journal as it is.
    pub fn new(shared: Arc<Shared>, config: AgentConfig) -> std::io::Result<Self> {
        let journal = Journal::open(&shared.paths)?;
        let state = journal.state();
        if let (Some(order), None) = (&state.order, &state.finished) {
            shared.begin(&order.order_id);
        }
        Ok(Self {
            shared,
            config,
            journal,
        })
    }

    /// Works until told to stop.
    pub fn run(mut self, work: &mpsc::Receiver<Work>) {
        self.refresh();
        self.resume();
        while let Ok(work) = work.recv() {
            match work {
                Work::Order(taken) => self.order(&taken),
                Work::Refresh => self.refresh(),
                Work::Stop => return,
            }
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
        if matches!(
            taken.action,
            Action::Repoint
                | Action::RestartClient
                | Action::CollectBundle
                | Action::Renew
                | Action::SelfUpdate
        ) {
            return Err(refusal(
                codes::UNSUPPORTED,
                "this release does not carry it out yet",
            ));
        }
        if let (true, Some(reason)) = (taken.action.changes_host(), held(&self.shared.paths)) {
            return Err(refusal(codes::HELD, format!("held on the host: {reason}")));
        }
        let policy = crate::policy::load(&self.shared.paths)
            .map_err(|error| refusal(codes::POLICY, format!("{error:#}")))?;
        if taken.action == Action::Probe && taken.entry.is_empty() {
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

    fn carry_out(&mut self, taken: &Taken, policy: &Policy, entry: &PlanEntry) -> OrderResult {
        let order = JournalOrder {
            order_id: taken.order_id.clone(),
            epoch: taken.epoch,
            plan_id: taken.plan_id.clone(),
            action: taken.action,
            entry: String::from_utf8_lossy(&taken.entry).into_owned(),
            boot_id: clock::boot_id(),
            at_ms: clock::now_ms(),
            deadline_for_ms: u64::try_from(taken.deadline.as_millis()).unwrap_or(u64::MAX),
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
        if is_ours && let Err(error) = self.journal.add(Record::Finished(result.clone())) {
            tracing::error!(%error, "the journal can't be written");
        }
        self.refresh();
        if let Err(error) = self.shared.end(order_id, epoch, result) {
            tracing::error!(%error, "the result can't be stored");
        }
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
        let policy = crate::policy::load(&self.shared.paths).unwrap_or_default();
        let entry = serde_json::from_str(&order.entry).unwrap_or_else(|_| no_entry());
        let reality = self.reality(&order, state.open, &entry, &policy);
        let decision = resume(&state, reality);
        let hit = state
            .open
            .or(state.last.map(|(step, _)| step))
            .unwrap_or(StepId::Check);
        tracing::warn!(order = %order.order_id, step = hit.as_str(), ?reality, ?decision, "found an order half done");
        let event = HostEvent::Resumed {
            step: hit.as_str().to_owned(),
            decision: decision.word().to_owned(),
        };
        if let Err(error) = self.shared.outbox.add(&order.order_id, order.epoch, &event) {
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
        };
        let result = match decision {
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
            Resume::AskOperator(doubt) => run.result(
                Outcome::Inconsistent,
                hit,
                codes::UNEXPECTED_STATE,
                doubt_text(doubt),
            ),
        };
        self.finish(&order.order_id, order.epoch, &result);
    }

    fn finish_again(&self, order: &JournalOrder, result: &OrderResult) {
        if let Err(error) = self.shared.end(&order.order_id, order.epoch, result) {
            tracing::error!(%error, "the result can't be stored");
        }
    }

    fn reality(
        &self,
        order: &JournalOrder,
        open: Option<StepId>,
        entry: &PlanEntry,
        policy: &Policy,
    ) -> Reality {
        let step = open.unwrap_or(StepId::Install);
        let transaction = Transaction::new(&self.shared.paths.transactions(), &order.order_id, step.as_str());
        let found = look(policy.mixed.into(), &[]);
        let found = found
            .installation()
            .map(|installation| (installation.method, installation.version));
        let on_disk = match Saved::load(&self.shared.paths) {
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
        }
    }
}

fn doubt_text(doubt: Doubt) -> &'static str {
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
        agent_version: env!("CARGO_PKG_VERSION").to_owned(),
        labels: config.labels.clone(),
        held: held(paths),
        client: address::resolved(look(policy.mixed.into(), &[]).detection),
    }
}

/// Stands in where an order carries no plan entry (probe).
fn no_entry() -> PlanEntry {
    use fleet_common::inventory::Method;
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
