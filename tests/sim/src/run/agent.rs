//! One machine: what is on its disk, the agent's process, and the truth about its client.
//!
//! It answers as the real agent does (`agent/src/execute/orders.rs`, `engine.rs`, `worker.rs`): an order is carried out once, a repetition
//! gets the stored result, one of an older epoch is refused, and a change begins only within the permit's time, over the session that
//! brought it, under the highest epoch that was seen.

use super::world::Rng;
use crate::hosts::sample_at;
use crate::proof::Shown;
use fleet_common::codes::{self, Code};
use fleet_common::ids::{Epoch, HostId, OrderId};
use fleet_common::order::{Action, HostEvent, OrderResult, Outcome, SwitchDetail};
use fleet_common::plan_entry::PlanEntry;
use fleet_common::survey::Verdict;
use fleet_common::version::PmmVersion;
use rollout::kernel::HostOrder;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// How a host takes what it is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Nature {
    Good,
    Slow,
    /// Fails before anything changed.
    FailsBefore,
    RollsBack,
    Inconsistent,
    Unready,
    NoSamples,
    StaysBehind,
    /// Upgrades, and the way back fails.
    NoWayBack,
    /// Never answers a switch.
    Silent,
    /// Comes and goes in PMM's view while its way back is kept.
    Flaky,
    /// Says done and is not.
    Lies,
    /// Tells ends of orders that it makes up.
    MakesUp,
}

/// An event in the outbox.
#[derive(Clone, Debug)]
pub struct Stored {
    pub sequence: u64,
    pub order: OrderId,
    pub epoch: Epoch,
    /// `None` is something that nobody can read.
    pub event: Option<HostEvent>,
}

/// An order in the executor's hands. On disk from `journaled` on.
#[derive(Clone, Debug)]
pub struct Running {
    pub order: HostOrder,
    /// Session and moment in which it came.
    pub session: u64,
    pub received: u64,
    pub journaled: bool,
    /// Something was changed.
    pub begun: bool,
    /// Steps that are done.
    pub steps: u32,
    /// It must be told that the agent came back.
    pub resumed: bool,
    pub started: u64,
}

/// A waiting order.
#[derive(Clone, Debug)]
pub struct Waiting {
    pub order: HostOrder,
    pub session: u64,
    pub received: u64,
}

#[derive(Clone, Debug)]
pub struct Agent {
    pub host: HostId,
    pub nature: Nature,
    // On disk.
    pub session: u64,
    pub epoch: Epoch,
    pub quarantined: bool,
    pub outbox: String,
    pub kept: VecDeque<Stored>,
    pub last_sequence: u64,
    pub results: BTreeMap<OrderId, OrderResult>,
    pub held: Option<String>,
    pub running: Option<Running>,
    // The process.
    pub up: bool,
    /// Never comes back by itself.
    pub gone: bool,
    pub conn: Option<usize>,
    /// Over which session it is welcomed.
    pub live: Option<u64>,
    pub sent: u64,
    pub queue: VecDeque<Waiting>,
    pub open: BTreeSet<OrderId>,
    /// Wake-ups of an earlier process mean nothing.
    pub life: u32,
    pub dials: u32,
    // The client.
    pub version: Option<PmmVersion>,
    pub old: PmmVersion,
    pub changed: bool,
    pub samples: bool,
    /// The last sample that it delivered; PMM shows that one for a while longer.
    pub sampled_ms: u64,
    pub follows: bool,
    pub backup_until: u64,
    /// PMM begins a backup there when its first permit arrives; it is noticed after the first step.
    pub dumps: bool,
    /// What it says can't be compared with its truth any more.
    pub tainted: bool,
    pub shown: Shown,
    /// A deliberate fault: it goes back when it is told to keep.
    pub faithless: bool,
    /// A deliberate fault: no epoch is too old for it.
    pub deaf: bool,
}

/// What an agent did in a step and others must know.
#[derive(Debug)]
pub enum Deed {
    /// A change of the client begins under this order.
    Begins(HostOrder),
    /// Wake it again after so long.
    Wake(u64),
    /// It has something to send.
    Tell,
}

/// Steps of a switch, as far as they matter here.
const STEPS: [&str; 4] = ["check", "stop", "install", "verify"];

impl Agent {
    pub fn new(host: HostId, nature: Nature, version: PmmVersion) -> Self {
        Self {
            outbox: format!("outbox-{host}"),
            host,
            nature,
            session: 0,
            epoch: Epoch::default(),
            quarantined: false,
            kept: VecDeque::new(),
            last_sequence: 0,
            results: BTreeMap::new(),
            held: None,
            running: None,
            up: true,
            gone: false,
            conn: None,
            live: None,
            sent: 0,
            queue: VecDeque::new(),
            open: BTreeSet::new(),
            life: 0,
            dials: 0,
            version: Some(version),
            old: version,
            changed: false,
            samples: true,
            sampled_ms: 0,
            follows: false,
            backup_until: 0,
            dumps: false,
            tainted: false,
            shown: Shown::default(),
            faithless: false,
            deaf: false,
        }
    }

    fn say(&mut self, order: &OrderId, epoch: Epoch, event: HostEvent) {
        self.last_sequence += 1;
        self.kept.push_back(Stored {
            sequence: self.last_sequence,
            order: order.clone(),
            epoch,
            event: Some(event),
        });
    }

    /// Something that belongs to no order, or makes no sense.
    pub fn mutter(&mut self, order: OrderId, event: Option<HostEvent>) {
        self.last_sequence += 1;
        self.kept.push_back(Stored {
            sequence: self.last_sequence,
            order,
            epoch: self.epoch,
            event,
        });
    }

    fn holds_end_of(&self, order: &OrderId) -> bool {
        let is_end = |event: &Stored| matches!(event.event, Some(HostEvent::Finished(_)));
        self.kept
            .iter()
            .any(|event| event.order == *order && is_end(event))
    }

    /// Takes an order from a session.
    pub fn take(&mut self, order: HostOrder, session: u64, now: u64) -> Option<Deed> {
        if self.open.contains(&order.order) {
            return None;
        }
        if let Some(result) = self.results.get(&order.order).cloned() {
            if !self.holds_end_of(&order.order) {
                self.say(&order.order, order.epoch, HostEvent::Finished(result));
            }
            return Some(Deed::Tell);
        }
        // These refusals are told but not stored: the same order under a newer epoch is another matter.
        if self.quarantined {
            self.say(
                &order.order,
                order.epoch,
                HostEvent::Finished(refusal(codes::FORK)),
            );
            return Some(Deed::Tell);
        }
        if order.epoch < self.epoch && !self.deaf {
            let event = HostEvent::Finished(refusal(codes::STALE_EPOCH));
            self.say(&order.order, order.epoch, event);
            return Some(Deed::Tell);
        }
        if order.action == Action::Switch && self.dumps && self.backup_until == 0 {
            self.backup_until = now + 3_600_000;
        }
        self.epoch = self.epoch.max(order.epoch);
        self.open.insert(order.order.clone());
        self.queue.push_back(Waiting {
            order,
            session,
            received: now,
        });
        self.running.is_none().then_some(Deed::Wake(50))
    }

    /// The process is gone; with `reboot` for longer. What is on disk stays.
    pub fn die(&mut self) {
        self.up = false;
        self.conn = None;
        self.live = None;
        self.queue.clear();
        self.open.clear();
        self.life += 1;
        match &mut self.running {
            Some(running) if running.journaled => running.resumed = true,
            _ => self.running = None,
        }
    }

    pub fn start(&mut self) {
        self.up = true;
        if let Some(running) = &self.running {
            self.open.insert(running.order.order.clone());
        }
    }

    /// The executor goes on. Called when it was asked to be woken.
    pub fn work(&mut self, now: u64, rng: &mut Rng) -> Vec<Deed> {
        let mut deeds = Vec::new();
        if self.running.is_none() {
            let Some(next) = self.queue.pop_front() else {
                return deeds;
            };
            self.begin(next, now);
            deeds.push(Deed::Tell);
            if self.running.is_none() {
                if !self.queue.is_empty() {
                    deeds.push(Deed::Wake(50));
                }
                return deeds;
            }
        }
        let Some(mut running) = self.running.take() else {
            return deeds;
        };
        if running.resumed {
            running.resumed = false;
            let decision = if running.begun { "continue" } else { "nothing" };
            let event = HostEvent::Resumed {
                step: STEPS[(running.steps as usize).min(3)].to_owned(),
                decision: decision.to_owned(),
            };
            self.say(&running.order.order, running.order.epoch, event);
            if !running.begun && running.order.action.changes_host() {
                self.answer(&running, Outcome::Expired, codes::PERMIT_EXPIRED, "check");
                deeds.push(Deed::Tell);
                deeds.push(Deed::Wake(50));
                return deeds;
            }
        }
        self.step(running, now, rng, &mut deeds);
        deeds
    }

    fn begin(&mut self, next: Waiting, now: u64) {
        let action = next.order.action;
        let running = Running {
            order: next.order,
            session: next.session,
            received: next.received,
            journaled: true,
            begun: false,
            steps: 0,
            resumed: false,
            started: now,
        };
        let stops = action.changes_host() && !(action == Action::Rollback && self.changed);
        if stops && self.held.is_some() {
            return self.answer(&running, Outcome::Refused, codes::HELD, "");
        }
        // Some look at once, some after their first step.
        let odd = self.last_sequence % 2 == 1;
        if action.changes_host() && odd && !self.dumps && now < self.backup_until {
            return self.answer(&running, Outcome::Refused, codes::BACKUP_RUNNING, "");
        }
        let strange = match action {
            Action::Switch => self.nature == Nature::FailsBefore,
            Action::Repoint => self.nature == Nature::Unready,
            _ => false,
        };
        if strange && odd {
            return self.answer(&running, Outcome::Refused, codes::UNEXPECTED_STATE, "");
        }
        self.say(&running.order.order, running.order.epoch, HostEvent::Accepted);
        self.running = Some(running);
    }

    fn step(&mut self, mut running: Running, now: u64, rng: &mut Rng, deeds: &mut Vec<Deed>) {
        deeds.push(Deed::Tell);
        let order = running.order.clone();
        let changes = order.action.changes_host();
        let steps = if changes { 4 } else { 1 };
        if running.steps >= steps {
            self.end(&running, now);
            deeds.push(Deed::Wake(50));
            return;
        }
        if self.nature == Nature::Silent && order.action == Action::Switch && running.steps > 1 {
            // It hangs: no word, and no further order either.
            self.running = Some(running);
            return;
        }
        // Right before the first change the permit is looked at.
        if changes && running.steps == 1 && !running.begun {
            let strange = self.nature == Nature::FailsBefore && self.last_sequence.is_multiple_of(3);
            if strange && order.action == Action::Switch {
                self.answer(&running, Outcome::Refused, codes::UNEXPECTED_STATE, "check");
                return deeds.push(Deed::Wake(50));
            }
            if now < self.backup_until {
                self.answer(&running, Outcome::Refused, codes::BACKUP_RUNNING, "check");
                return deeds.push(Deed::Wake(50));
            }
            if now > running.received + order.start_within_ms || self.live != Some(running.session) {
                self.answer(&running, Outcome::Expired, codes::PERMIT_EXPIRED, "check");
                return deeds.push(Deed::Wake(50));
            }
            if self.epoch > order.epoch && !self.deaf {
                self.answer(&running, Outcome::Refused, codes::STALE_EPOCH, "check");
                return deeds.push(Deed::Wake(50));
            }
            running.begun = true;
            if order.action == Action::Switch && self.nature != Nature::FailsBefore {
                self.changed = true;
            }
            deeds.push(Deed::Begins(order.clone()));
        }
        if changes {
            let event = HostEvent::StepStarted {
                step: STEPS[(running.steps as usize).min(3)].to_owned(),
                index: running.steps + 1,
                of: steps,
                deadline_for_ms: 60_000,
            };
            self.say(&order.order, order.epoch, event);
        }
        running.steps += 1;
        if changes && running.steps == 3 {
            let (step, ok, took_ms) = ("install".to_owned(), true, 1_000);
            self.say(
                &order.order,
                order.epoch,
                HostEvent::StepFinished { step, ok, took_ms },
            );
        }
        let slow = self.nature == Nature::Slow && rng.one_in(2);
        let pause = if slow { 90_000 } else { 4_000 };
        deeds.push(Deed::Wake(300 + rng.below(pause)));
        self.running = Some(running);
    }

    fn answer(&mut self, running: &Running, outcome: Outcome, code: &str, step: &str) {
        self.answer_with(running, outcome, code, step, serde_json::Value::Null);
    }

    fn answer_with(
        &mut self,
        running: &Running,
        outcome: Outcome,
        code: &str,
        step: &str,
        detail: serde_json::Value,
    ) {
        let result = OrderResult {
            outcome,
            step: step.to_owned(),
            code: Code::new(code),
            message: code.to_owned(),
            took_ms: 1_000,
            detail,
        };
        let order = &running.order;
        self.results.insert(order.order.clone(), result.clone());
        self.say(&order.order, order.epoch, HostEvent::Finished(result));
        self.open.remove(&order.order);
        self.running = None;
    }

    fn end(&mut self, running: &Running, now: u64) {
        let late = now.saturating_sub(running.started) > running.order.deadline_for_ms;
        if matches!(running.order.action, Action::Switch | Action::Rollback) {
            self.shown = Shown::nothing_since(now);
            // The client that is replaced delivered to its end.
            if self.version.is_some() && self.samples {
                self.sampled_ms = sample_at(now);
            }
        }
        match running.order.action {
            Action::Preflight => {
                let bad = self.nature == Nature::Unready;
                let verdict = if bad { Verdict::Fail } else { Verdict::Pass };
                let survey = serde_json::to_value(crate::fixture::survey(verdict)).unwrap_or_default();
                self.answer_with(running, Outcome::Done, "", "", survey);
            }
            Action::Stage if late => {
                self.answer(running, Outcome::FailedNothingChanged, codes::DEADLINE, "stage")
            }
            Action::Repoint => self.end_repoint(running),
            Action::Switch => self.end_switch(running, late),
            Action::Rollback if self.nature == Nature::Flaky && self.last_sequence % 2 == 1 => {
                self.answer(
                    running,
                    Outcome::FailedNothingChanged,
                    codes::STAGE_FAILED,
                    "back",
                );
            }
            Action::Rollback if self.nature == Nature::NoWayBack => {
                self.version = None;
                self.answer(running, Outcome::Inconsistent, codes::INSTALL_FAILED, "back");
            }
            Action::Rollback => {
                (self.version, self.samples, self.changed) = (Some(self.old), true, false);
                self.answer_with(running, Outcome::RolledBack, "", "", detail(self.old));
            }
            Action::Keep if self.faithless => {
                (self.version, self.changed) = (Some(self.old), false);
                self.answer(running, Outcome::Done, "", "");
            }
            Action::Keep => {
                if let Some(version) = self.version {
                    (self.changed, self.old) = (false, version);
                }
                self.answer(running, Outcome::Done, "", "");
            }
            _ => self.answer(running, Outcome::Done, "", ""),
        }
    }

    fn end_repoint(&mut self, running: &Running) {
        if self.nature == Nature::StaysBehind && self.last_sequence % 4 == 1 {
            return self.answer(running, Outcome::Inconsistent, codes::VERIFY_FAILED, "reconnect");
        }
        if self.nature == Nature::StaysBehind && self.last_sequence % 4 == 3 {
            return self.answer(running, Outcome::Refused, codes::UNEXPECTED_STATE, "check");
        }
        if self.nature == Nature::StaysBehind {
            return self.answer(running, Outcome::RolledBack, codes::VERIFY_FAILED, "reconnect");
        }
        let entry: Option<PlanEntry> = serde_json::from_slice(&running.order.entry).ok();
        if let Some(wanted) = entry.and_then(|entry| entry.repoint) {
            self.follows = wanted.to.ends_with(":8443");
        }
        self.answer(running, Outcome::Done, "", "");
    }

    fn end_switch(&mut self, running: &Running, late: bool) {
        let Ok(entry) = serde_json::from_slice::<PlanEntry>(&running.order.entry) else {
            return self.answer(running, Outcome::Refused, codes::UNEXPECTED_STATE, "check");
        };
        match self.nature {
            Nature::FailsBefore => self.answer(
                running,
                Outcome::FailedNothingChanged,
                codes::STAGE_FAILED,
                "stage",
            ),
            Nature::Inconsistent => {
                self.version = None;
                self.answer(running, Outcome::Inconsistent, codes::INSTALL_FAILED, "install");
            }
            Nature::Lies => self.answer_with(running, Outcome::Done, "", "", detail(entry.to)),
            nature if late || nature == Nature::RollsBack => {
                (self.version, self.changed) = (Some(self.old), false);
                let code = if late {
                    codes::DEADLINE
                } else {
                    codes::INSTALL_FAILED
                };
                self.answer_with(running, Outcome::RolledBack, code, "install", detail(self.old));
            }
            nature => {
                self.version = Some(entry.to);
                let stuck = nature == Nature::NoWayBack && self.last_sequence % 2 == 1;
                self.samples = !stuck && nature != Nature::NoSamples;
                self.answer_with(running, Outcome::Done, "", "", detail(entry.to));
            }
        }
    }
}

fn detail(to: PmmVersion) -> serde_json::Value {
    let detail = SwitchDetail {
        to: to.to_string(),
        ..SwitchDetail::default()
    };
    serde_json::to_value(detail).unwrap_or_default()
}

/// A refusal that changed nothing.
fn refusal(code: &str) -> OrderResult {
    OrderResult {
        outcome: Outcome::Refused,
        step: String::new(),
        code: Code::new(code),
        message: code.to_owned(),
        took_ms: 0,
        detail: serde_json::Value::Null,
    }
}
