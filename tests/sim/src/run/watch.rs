//! The rules, looked at after every output of the kernel; only what changed is looked at, and everything now and then.

mod orders;

use super::agent::Agent;
use super::coordinator::{Given, Seen};
use super::cover::{Counts, Cover, count};
use super::operated::{self, Limits};
use crate::{proof, rules};
use fleet_common::ids::{Epoch, GroupName, HostId, LegId, OrderId};
use fleet_common::order::Action;
use fleet_common::version::PmmVersion;
use rollout::kernel::{
    Command, Duty, FLEET_EVERY_MS, GroupPhase, HostOrder, HostPhase, HostRow, Kernel, LegPhase, Output,
    RolloutPhase, Row,
};
use rollout::plan::LegKind;
use std::collections::{BTreeMap, BTreeSet, HashMap};

pub const ENDS: &str = "every rollout comes to an end with a patient operator";
pub const TRUTH: &str = "how a host ended agrees with what runs there";
pub const FORK: &str = "no order goes to a quarantined host";
pub const RESTORABLE: &str = "the store can be copied";
pub const LEGAL: &str = "what honest hosts say is never an illegal transition";

/// What is known of a host in a leg.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Known {
    phase: HostPhase,
    slot: bool,
    /// It was taken back by a person or by policy.
    back: bool,
    /// It is to be.
    wanted: bool,
    /// Its end counts as a failure.
    counts: bool,
    deadline: Option<u64>,
}

/// A group in a leg, counted along.
#[derive(Clone, Debug, Default)]
struct Count {
    slots: u32,
    stuck: u32,
    failed: BTreeSet<HostId>,
}

/// What the watcher looks with.
pub struct Eyes<'a> {
    pub watcher: &'a mut Watcher,
    pub machines: &'a BTreeMap<HostId, usize>,
    pub agents: &'a [Agent],
    pub now: u64,
}

impl Eyes<'_> {
    pub fn look(&mut self, kernel: &Kernel, given: &Given, out: &Output, wall_ms: u64) {
        let truth = |host: &HostId| self.machines.get(host).and_then(|at| self.agents.get(*at));
        self.watcher.look(kernel, given, out, &truth, self.now, wall_ms);
    }
}

type Truth<'a> = dyn Fn(&HostId) -> Option<&'a Agent> + 'a;

#[derive(Debug, Default)]
pub struct Watcher {
    pub violations: BTreeMap<&'static str, Vec<String>>,
    pub counts: Counts,
    cover: Cover,
    limits: Limits,
    planned: BTreeMap<HostId, (usize, GroupName)>,
    rows: HashMap<String, Known>,
    groups: BTreeMap<(LegId, GroupName), Count>,
    deadlines: BTreeSet<(u64, String)>,
    orders: BTreeSet<OrderId>,
    server_orders: BTreeSet<OrderId>,
    passed: BTreeSet<LegId>,
    no_return: BTreeSet<LegId>,
    granted: BTreeSet<(LegId, HostId)>,
    was_paused: bool,
    aborted_at: Option<u64>,
    /// By true time and by the coordinator's clock.
    fleet_asked_at: Option<(u64, u64)>,
    permit_ms: u64,
    looks: u64,
    illegal: u64,
    /// The output under way follows from `retry`.
    retried: bool,
    /// Hosts whose slot an operator freed: what follows is on the operator.
    vouched: BTreeSet<HostId>,
    /// The one that a person lets pass with the output under way.
    accepted: Option<HostId>,
    /// Some host says what it likes.
    pub liars: bool,
    pub samples: rules::Samples,
    gates: crate::gates::Gates,
    pub turns: crate::turns::Turns,
    pub told: crate::told::Told,
    permits: crate::permits::Permits,
}

impl Watcher {
    pub fn new(kernel: &Kernel) -> Self {
        let mut watcher = Self {
            turns: crate::turns::Turns::of(kernel),
            told: crate::told::Told::of(kernel),
            ..Self::default()
        };
        watcher.planned_by(kernel);
        Cover::begin(kernel, &mut watcher.counts);
        watcher
    }

    /// From now on this plan counts.
    fn planned_by(&mut self, kernel: &Kernel) {
        let hosts = kernel.plan().hosts.iter().enumerate();
        self.planned = hosts
            .map(|(at, host)| (host.host.clone(), (at, host.group.clone())))
            .collect();
        self.permit_ms = kernel.plan().timing.permit_ms;
        self.gates.planned_by(kernel.plan());
        self.turns.planned_by(kernel);
        self.limits = operated::limits(kernel);
    }

    pub fn broken(&mut self, rule: &'static str, what: String) {
        let found = self.violations.entry(rule).or_default();
        if found.len() < 20 {
            found.push(what);
        }
    }

    pub fn count(&mut self, what: impl Into<String>) {
        *self.counts.entry(what.into()).or_default() += 1;
    }

    /// The earliest moment (the coordinator's clock) at which silence ends something.
    pub fn next_deadline(&self) -> Option<u64> {
        self.deadlines.first().map(|(at, _)| *at)
    }

    fn look(
        &mut self,
        kernel: &Kernel,
        given: &Given,
        out: &Output,
        truth: &Truth<'_>,
        now: u64,
        wall_ms: u64,
    ) {
        self.looks += 1;
        if self.aborted_at.is_none() && kernel.rollout().abort.is_some() {
            self.aborted_at = Some(now);
        }
        count(&mut self.counts, given.input);
        if let (Some(before), Some(answer)) = (&given.before, &out.answer) {
            self.commanded(&given.what, before, answer.is_ok(), kernel);
        }
        if out.plan.is_some() {
            self.planned_by(kernel);
        }
        let found = self.told.look(kernel, out, wall_ms);
        self.all_broken(found);
        self.cover.look(kernel, out, &mut self.counts);
        if let (Some(new), Seen::OldEvent(order)) = (&given.as_if_new, &given.what)
            && new.rows != out.rows
        {
            self.broken(rules::OLD_EVENTS, order.to_string());
        }
        let permits = out.orders.iter().filter(|order| order.action == Action::Switch);
        self.granted
            .extend(permits.map(|order| (order.leg.clone(), order.host.clone())));
        let freed = matches!(given.what, Seen::Operator(Command::FreeSlot { .. }));
        self.retried = matches!(given.what, Seen::Operator(Command::Retry { .. }));
        if let (Seen::Operator(Command::FreeSlot { host, .. } | Command::Accept { host, .. }), Some(Ok(_))) =
            (&given.what, &out.answer)
        {
            self.vouched.insert(HostId::from(host.as_str()));
        }
        self.accepted = match &given.what {
            Seen::Operator(Command::Accept { host, .. }) => Some(HostId::from(host.as_str())),
            _ => None,
        };
        // What a person lets go on may grant at once and be paused again for another reason in the same tick.
        if let (Seen::Operator(_), Some(Ok(_))) = (&given.what, &out.answer) {
            self.was_paused &= matches!(given.what, Seen::Operator(Command::Pause { .. }));
        }
        for row in &out.rows {
            self.look_at_row(kernel, row, truth, freed);
        }
        self.look_at_orders(kernel, out, wall_ms);
        if let Some(what) = self.permits.look(kernel, out, wall_ms) {
            self.broken(crate::permits::LEFT, what);
        }
        if given.what == Seen::Started {
            if let Some(what) = crate::permits::unheard(kernel, wall_ms) {
                self.broken(crate::permits::HEARD, what);
            }
            self.look_at_report(kernel, wall_ms);
        }
        if let Some(what) = proof::stopped_too_early(&self.told, kernel, out) {
            self.broken(proof::TOLERATED, what);
        }
        let found = self.turns.look(kernel, out, wall_ms);
        self.all_broken(found);
        if let Some(what) = rules::strange_look(kernel, out) {
            self.broken(rules::NODE_LOOKS, what);
        }
        if kernel.rollout().illegal > self.illegal {
            let more = kernel.rollout().illegal - self.illegal;
            *self.counts.entry("illegal transition".to_owned()).or_default() += more;
            self.illegal = kernel.rollout().illegal;
        }
        if given.what == Seen::Tick {
            self.look_at_time(kernel, wall_ms);
            let mut found = Vec::new();
            self.gates.look_at_rollout(&self.told, kernel, &mut found);
            self.all_broken(found);
            if self.looks.is_multiple_of(97) {
                self.look_at_all_duties(kernel, wall_ms);
            }
            // The report is the dearest of all, and it is looked at where it counts as well: at each start and at the end.
            if self.looks.is_multiple_of(397) {
                self.look_at_report(kernel, wall_ms);
            }
        }
        self.was_paused = kernel.phase() == RolloutPhase::Paused;
    }

    fn look_at_row(&mut self, kernel: &Kernel, row: &Row, truth: &Truth<'_>, freed: bool) {
        let mut parts = row.key.splitn(3, '/');
        match (parts.next(), parts.next(), parts.next()) {
            (Some("group"), ..) => {
                let now = operated::limits(kernel);
                if let Some(what) = operated::grown(&self.limits, &now) {
                    self.broken(operated::LIMIT, what);
                }
                self.limits = now;
            }
            (Some("host"), Some(leg), Some(host)) => {
                let (leg, host) = (LegId::from(leg), HostId::from(host));
                if let Some(found) = kernel.host(&leg, &host) {
                    let target = proof::target(kernel, &leg);
                    let known = self.rows.get(&row.key);
                    if let Some((before, wanted)) = known.map(|known| (known.phase, known.wanted)) {
                        self.look_at_return(kernel, &leg, &host, before, found);
                        if wanted && !self.retried && operated::is_forgotten(kernel, &leg, found) {
                            self.broken(operated::WORD, format!("{host} in {leg} is {:?}", found.phase));
                        }
                    }
                    self.look_at_proof(kernel, &row.key, &host, found, target, truth);
                    self.look_at_host(&row.key, (&leg, kernel), &host, found, truth, freed);
                }
            }
            _ => {}
        }
    }

    /// Who passes its verification truly delivers, unless a person lets it pass.
    fn look_at_proof(
        &mut self,
        kernel: &Kernel,
        key: &str,
        host: &HostId,
        row: &HostRow,
        target: Option<PmmVersion>,
        truth: &Truth<'_>,
    ) {
        let before = self.rows.get(key).map(|known| known.phase);
        let passes = before.is_some_and(|before| proof::passes(before, row.phase));
        if !passes || self.accepted.as_ref() == Some(host) {
            return;
        }
        let agent = truth(host).filter(|agent| !agent.tainted);
        if let Some(shown) = agent.map(|agent| agent.shown)
            && shown.proves(kernel, host) != target
        {
            self.broken(proof::VERIFIED, format!("{key} showed {shown:?}"));
        }
    }

    /// Whoever comes back holds its slot, and whoever passes has shown as many samples as its gate asks for.
    fn look_at_return(
        &mut self,
        kernel: &Kernel,
        leg: &LegId,
        host: &HostId,
        before: HostPhase,
        row: &HostRow,
    ) {
        if rules::returned_without_slot(kernel, leg, before, row) {
            self.broken(rules::RETURNED, format!("{host} in {leg} is {:?}", row.phase));
        }
        let what = self.samples.look(kernel, host, before, row);
        if let Some(what) = what.filter(|_| !self.vouched.contains(host)) {
            self.broken(rules::SAMPLES, what);
        }
    }

    fn look_at_host(
        &mut self,
        key: &str,
        (leg, kernel): (&LegId, &Kernel),
        host: &HostId,
        row: &HostRow,
        truth: &Truth<'_>,
        freed: bool,
    ) {
        let Some((old, new)) = self.know(key, leg, host, row) else {
            return;
        };
        let before = old.as_ref().map(|old| old.phase);
        self.cover.row(key, before, row.phase, &mut self.counts);
        if old.as_ref().is_some_and(|old| old.back) && !new.back && !self.retried {
            self.broken(operated::CLOSED, format!("{host} in {leg} is {:?}", row.phase));
        }
        if new.slot && !self.granted.contains(&(leg.clone(), host.clone())) {
            self.broken(rules::GRANTED, format!("{host} in {leg} is {:?}", row.phase));
        }
        if row.phase == HostPhase::Lost && row.permitted_at_ms.is_none() {
            self.broken(rules::LOST, host.to_string());
        }
        if row.in_flight() && row.deadline_ms.is_none() {
            self.broken(rules::SILENCE, format!("{host} {:?} has no deadline", row.phase));
        }
        if let Some(what) = self.gates.too_often(host, row) {
            self.broken(crate::gates::ATTEMPTS, what);
        }
        let must = rules::must_count(row);
        if must.is_some_and(|must| must != row.counts) {
            let text = format!("{host} in {leg} is {:?} and counts: {}", row.phase, row.counts);
            self.broken(rules::COUNTS, text);
        }
        if old.is_some_and(|old| old.slot) && !new.slot && !freed && !self.vouched.contains(host) {
            let Some(agent) = truth(host).filter(|agent| !agent.tainted) else {
                return;
            };
            let mut legs = kernel.legs().iter();
            let verified = legs.any(|leg| rules::is_verified(kernel, &leg.leg, host, agent.version));
            let unchanged = !agent.changed && agent.version == Some(agent.old);
            if !verified && !unchanged {
                let text = format!("{host} is {:?} with {:?}", row.phase, agent.version);
                self.broken(rules::SLOT_FREED, text);
            }
        }
    }

    /// Remembers a row; what it was before and is now, if that is something else.
    fn know(
        &mut self,
        key: &str,
        leg: &LegId,
        host: &HostId,
        row: &HostRow,
    ) -> Option<(Option<Known>, Known)> {
        let new = Known {
            phase: row.phase,
            slot: row.slot,
            back: row.phase == HostPhase::RolledBack && row.taken_back,
            wanted: row.back_wanted.is_some(),
            counts: row.counts,
            deadline: row.deadline_ms.filter(|_| row.in_flight()),
        };
        let old = self.rows.insert(key.to_owned(), new.clone());
        if old.as_ref() == Some(&new) {
            return None;
        }
        if let Some(at) = old.as_ref().and_then(|old| old.deadline) {
            self.deadlines.remove(&(at, key.to_owned()));
        }
        if let Some(at) = new.deadline {
            self.deadlines.insert((at, key.to_owned()));
        }
        if let Some((_, group)) = self.planned.get(host) {
            let count = self.groups.entry((leg.clone(), group.clone())).or_default();
            if let Some(old) = &old {
                count.slots -= u32::from(old.slot);
                count.stuck -= u32::from(old.slot && old.phase.is_final());
            }
            if new.counts {
                count.failed.insert(host.clone());
            } else {
                count.failed.remove(host);
            }
            count.slots += u32::from(new.slot);
            count.stuck += u32::from(new.slot && new.phase.is_final());
        }
        Some((old, new))
    }

    /// What must hold at each tick.
    fn look_at_time(&mut self, kernel: &Kernel, wall_ms: u64) {
        if !kernel.is_final()
            && !kernel.is_doubted()
            && let Some((at, key)) = self.deadlines.first()
            && at + 1_000 < wall_ms
        {
            let text = format!("{key} is past its deadline by {} ms", wall_ms - at);
            self.broken(rules::SILENCE, text);
        }
        if kernel.phase() != RolloutPhase::Running {
            return;
        }
        for leg in kernel.legs().iter().filter(|leg| leg.phase == LegPhase::Running) {
            for group in &kernel.plan().groups {
                let Some(state) = kernel.group(&leg.leg, &group.name) else {
                    continue;
                };
                let turn = !matches!(
                    state.phase,
                    // Nothing begins in a group that was taken back.
                    GroupPhase::Pending | GroupPhase::Gated | GroupPhase::Cancelled | GroupPhase::RolledBack
                );
                if !turn {
                    continue;
                }
                let key = (leg.leg.clone(), group.name.clone());
                let failed = self.groups.get(&key).map(|count| &count.failed);
                let failures = failed.map_or(0, |failed| self.told.unaccepted(&key, failed));
                let (most, tolerated) = self.limits.get(&key).copied().unwrap_or_default();
                if failures > tolerated as usize {
                    self.broken(rules::THRESHOLD, format!("{failures} failed in {}", group.name));
                }
                let stuck = self.groups.get(&key).map_or(0, |count| count.stuck);
                if state.phase == GroupPhase::Ramping && stuck >= most {
                    let duties = kernel.host_duties(&leg.leg, wall_ms);
                    let waits = duties.iter().any(|(host, duty)| {
                        group.hosts.contains(host) && duty.as_ref().is_some_and(|duty| duty.code == "slots")
                    });
                    if waits {
                        self.broken(rules::EXHAUSTED, format!("group {} in {}", group.name, leg.leg));
                    }
                }
            }
        }
    }

    /// What everything waits for, as it is too dear to look at each time.
    pub fn look_at_all_duties(&mut self, kernel: &Kernel, wall_ms: u64) {
        if kernel.is_final() {
            return;
        }
        if kernel
            .rollout_duty(wall_ms)
            .is_none_or(|duty| !complete(&duty, wall_ms))
        {
            self.broken(rules::DUTY, format!("rollout {:?}", kernel.phase()));
        }
        for leg in kernel.legs() {
            self.look_at_duties(kernel, leg, wall_ms);
        }
    }

    /// Every host is in the report, once and with its end so far.
    pub fn look_at_report(&mut self, kernel: &Kernel, wall_ms: u64) {
        let report = rollout::report::report(kernel, wall_ms);
        let listed: Vec<&str> = report.hosts.iter().map(|host| host.host.as_str()).collect();
        let planned: Vec<&str> = kernel
            .plan()
            .hosts
            .iter()
            .map(|host| host.host.as_str())
            .collect();
        let is_clients = |leg: &&rollout::plan::Leg| matches!(leg.kind, LegKind::Clients { .. });
        let legs = kernel.plan().legs.iter().filter(is_clients).count();
        let incomplete =
            |host: &rollout::report::HostReport| host.outcome.is_empty() || host.legs.len() != legs;
        if listed != planned || report.hosts.iter().any(incomplete) {
            self.broken(rules::REPORT, format!("{listed:?}"));
        }
    }

    fn look_at_duties(&mut self, kernel: &Kernel, leg: &rollout::kernel::LegRow, wall_ms: u64) {
        let open = !matches!(leg.phase, LegPhase::Settled | LegPhase::Cancelled);
        if open
            && kernel
                .leg_duty(leg, wall_ms)
                .is_none_or(|duty| !complete(&duty, wall_ms))
        {
            let text = format!("{} {:?}: {:?}", leg.leg, leg.phase, kernel.leg_duty(leg, wall_ms));
            self.broken(rules::DUTY, text);
        }
        for group in &kernel.plan().groups {
            let Some(row) = kernel.group(&leg.leg, &group.name) else {
                continue;
            };
            let open = !matches!(
                row.phase,
                GroupPhase::Done | GroupPhase::Cancelled | GroupPhase::RolledBack
            );
            let duty = kernel.group_duty(&leg.leg, group, wall_ms);
            if open && duty.is_none_or(|duty| !complete(&duty, wall_ms)) {
                self.broken(rules::DUTY, format!("group {} {:?}", group.name, row.phase));
            }
        }
        for (host, duty) in kernel.host_duties(&leg.leg, wall_ms) {
            if duty.as_ref().is_none_or(|duty| !complete(duty, wall_ms)) {
                let phase = kernel.host(&leg.leg, host).map(|row| row.phase);
                self.broken(
                    rules::DUTY,
                    format!("{host} in {} is {phase:?}: {duty:?}", leg.leg),
                );
            }
        }
    }

    /// After a person's wish whose effect is compared with what was before.
    fn commanded(&mut self, what: &Seen, before: &(Kernel, Kernel), accepted: bool, after: &Kernel) {
        let (was, ticked) = before;
        match what {
            Seen::Operator(Command::Pause { .. }) => self.paused(was, ticked, after),
            Seen::Child if accepted => self.all_broken(operated::adopted(was, ticked, after)),
            Seen::Operator(command) if accepted => self.all_broken(operated::commanded(command, was, after)),
            _ => {}
        }
    }

    fn all_broken(&mut self, found: Vec<(&'static str, String)>) {
        for (rule, what) in found {
            self.broken(rule, what);
        }
    }

    fn paused(&mut self, before: &Kernel, ticked: &Kernel, after: &Kernel) {
        for leg in before.legs() {
            for host in &before.plan().hosts {
                let Some(row) = before
                    .host(&leg.leg, &host.host)
                    .filter(|row| row.phase.in_flight())
                else {
                    continue;
                };
                // What was due anyway is not the pause's doing.
                if ticked.host(&leg.leg, &host.host) != Some(row) {
                    continue;
                }
                let same = after.host(&leg.leg, &host.host).is_some_and(|now| {
                    (now.phase, &now.order, now.deadline_ms) == (row.phase, &row.order, row.deadline_ms)
                });
                if !same {
                    let now = after.host(&leg.leg, &host.host).map(|now| now.phase);
                    let text = format!("{} in {}: {:?} -> {now:?}", host.name, leg.leg, row.phase);
                    self.broken(rules::RUNNING_WORK, text);
                }
            }
        }
    }

    /// Memory against what a start would read from the store.
    pub fn compare(&mut self, memory: &Kernel, read: &Kernel) {
        let differs = |leg: &LegId, host: &HostId| memory.host(leg, host) != read.host(leg, host);
        for leg in memory.legs() {
            for host in &memory.plan().hosts {
                if differs(&leg.leg, &host.host) {
                    self.broken(rules::RESTORE, format!("{} in {} differs", host.name, leg.leg));
                }
            }
            for group in &memory.plan().groups {
                if memory.group(&leg.leg, &group.name) != read.group(&leg.leg, &group.name) {
                    self.broken(
                        rules::RESTORE,
                        format!("group {} in {} differs", group.name, leg.leg),
                    );
                }
            }
        }
        for (what, differs) in [
            ("the rollout", memory.rollout() != read.rollout()),
            ("legs", memory.legs() != read.legs()),
            ("the baseline", memory.baseline() != read.baseline()),
            ("the verification", memory.verification() != read.verification()),
            (
                "the plan",
                memory.plan() != read.plan() || memory.plan_id() != read.plan_id(),
            ),
        ] {
            if differs {
                self.broken(rules::RESTORE, format!("{what} differs"));
            }
        }
    }

    /// A change of a client begins.
    pub fn begins(&mut self, agent: &Agent, order: &HostOrder, now: u64) {
        if order.epoch < agent.epoch {
            let text = format!("{} began {} after {}", agent.host, order.order, agent.epoch);
            self.broken(rules::EPOCH, text);
        }
        // Half a minute on the way at most, and a permit's time after receipt.
        if order.action == Action::Switch
            && self
                .aborted_at
                .is_some_and(|at| now > at + self.permit_ms + 30_000)
        {
            self.broken(
                rules::ABORT,
                format!("{} began {} too late", agent.host, order.order),
            );
        }
    }

    /// The end of a life.
    pub fn ended(&mut self, kernel: &Kernel, truth: &Truth<'_>) {
        self.all_broken(operated::ended(kernel));
        let last = kernel.plan().legs.iter().rev().find_map(|leg| match &leg.kind {
            LegKind::Clients { to, .. } => Some((&leg.id, *to)),
            LegKind::Survey | LegKind::Server { .. } => None,
        });
        let Some((leg, to)) = last else { return };
        for host in &kernel.plan().hosts {
            let (Some(row), Some(agent)) = (kernel.host(leg, &host.host), truth(&host.host)) else {
                continue;
            };
            if agent.tainted {
                continue;
            }
            let accepted = self.vouched.contains(&host.host);
            let agrees = match row.phase {
                HostPhase::Upgraded | HostPhase::Settling if accepted => true,
                HostPhase::Upgraded | HostPhase::Settling => agent.version == Some(to),
                HostPhase::RolledBack | HostPhase::Failed => {
                    agent.version.is_some_and(|version| version < to)
                }
                _ => true,
            };
            if !agrees {
                let text = format!("{} is {:?} and runs {:?}", host.name, row.phase, agent.version);
                self.broken(TRUTH, text);
            }
        }
    }

    /// The store is an older one: what was seen since has not happened.
    pub fn restored(&mut self, kernel: &Kernel) {
        let fresh = Self::new(kernel);
        let old = std::mem::replace(self, fresh);
        self.violations = old.violations;
        self.counts = old.counts;
        self.vouched = kernel.plan().hosts.iter().map(|host| host.host.clone()).collect();
        self.illegal = kernel.rollout().illegal;
        self.liars = true;
        self.orders = old.orders;
        self.server_orders = old.server_orders;
        self.cover.restored(kernel);
        self.permits.restored(kernel);
        for leg in kernel.legs() {
            self.passed.insert(leg.leg.clone());
            for host in &kernel.plan().hosts {
                if let Some(row) = kernel.host(&leg.leg, &host.host) {
                    // Whoever was upgraded may be taken back, with a slot.
                    if row.slot || row.upgraded() {
                        self.granted.insert((leg.leg.clone(), host.host.clone()));
                    }
                    let key = format!("host/{}/{}", leg.leg, host.host);
                    self.know(&key, &leg.leg, &host.host, row);
                }
            }
        }
    }

    /// PMM is asked for the whole fleet. Neither by true time nor by the coordinator's clock it was within the last minute.
    pub fn asks_for_the_fleet(&mut self, now: u64, wall_ms: u64) {
        let soon = |last: (u64, u64)| now < last.0 + FLEET_EVERY_MS && wall_ms < last.1 + FLEET_EVERY_MS;
        let last = self.fleet_asked_at.replace((now, wall_ms));
        if last.is_some_and(soon) {
            self.broken(rules::FLEET_LOOKS, format!("at {now} after {last:?}"));
        }
    }

    /// The coordinator's clock is set: nobody knows any more how long ago something was.
    pub fn clock_set(&mut self) {
        self.fleet_asked_at = None;
        self.turns.clock_set();
    }

    /// An order leaves for a host that two machines claim to be.
    pub fn forked(&mut self, host: &HostId, order: &OrderId) {
        self.broken(FORK, format!("{order} to {host}"));
    }

    /// The highest epoch that a coordinator has given so far; none may be lower later.
    pub fn epoch(&mut self, before: Epoch, now: Epoch) {
        if now < before {
            self.broken(rules::EPOCH, format!("{now} after {before}"));
        }
    }
}

fn complete(duty: &Duty, now: u64) -> bool {
    let until = duty.deadline_ms.or(duty.reminder_ms);
    !duty.text.is_empty() && !duty.code.is_empty() && until.is_some_and(|until| until + 1_000 >= now)
}
