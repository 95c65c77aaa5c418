//! The rules, looked at after every single output of the kernel. A violation is kept under the rule's name.

use super::hosts::SimHost;
use super::proof;
use super::run::operated::{self, Limits};
use fleet_common::ids::{Epoch, GroupName, HostId, LegId, OrderId, PlanId};
use fleet_common::order::Action;
use fleet_common::server::ServerOrder;
use fleet_common::verification::FleetSnapshot;
use rollout::kernel::{
    Command, FLEET_EVERY_MS, GroupPhase, HostOrder, HostPhase, HostRow, Input, Kernel, LegPhase,
    NODES_AT_ONCE, Output, RolloutPhase,
};
use rollout::plan::LegKind;
use std::collections::{BTreeMap, BTreeSet};

pub const DUTY: &str = "every open state has owner, reason, and deadline or reminder";
pub const SILENCE: &str = "silence past a deadline ends in a named state";
pub const SLOT_WITH_GRANT: &str = "a slot is taken in the commit that grants";
pub const SLOT_FREED: &str = "a slot is freed only by proof or by the operator";
pub const SLOT_MAX: &str = "no grant raises the slots above the maximum";
pub const THRESHOLD: &str = "N failures are tolerated and N + 1 stop the rollout";
pub const LOST: &str = "only hosts with a permit are lost";
pub const TURN: &str = "no host switches before its turn";
pub const LATE: &str = "no hop begins while a host of an earlier leg is under way";
pub const PAUSE: &str = "a pause stops new permits and hops at once";
pub const ABORT: &str = "after an abort no host begins later than its permit";
pub const EPOCH: &str = "no order of an older epoch takes effect";
pub const PLAN_ONLY: &str = "only hosts and legs of the plan are ordered";
pub const FOLLOW: &str = "clients follow the server's port after its publication and before their wave";
pub const NO_RETURN: &str = "after the first client permit no earlier server leg is ordered or taken back";
pub const GRANTED: &str = "hosts that were never granted hold no slot";
pub const EXHAUSTED: &str = "slots that are all held by settled failures pause the rollout";
pub const COUNTS: &str = "what counts for the threshold follows from how a host ended";
pub const RUNNING_WORK: &str = "a pause leaves running work alone";
pub const OLD_EVENTS: &str = "events of older epochs are accepted like new ones";
pub const REPORT: &str = "every host is in the report exactly once";
pub const RESTORE: &str = "the stored rows are the whole state";
pub const BASELINE: &str = "no host begins before the baseline has its client";
pub const RETURNED: &str = "a lost host that goes on holds a slot";
pub const SAMPLES: &str = "a host that needs n good views is not verified without n different samples";
pub const FLEET_LOOKS: &str = "the fleet is asked for at most once a minute, whatever happens";
pub const NODE_LOOKS: &str = "a host is asked for only while it verifies or the checks look at it";

/// What led to an output, as far as the rules must know.
#[derive(Clone, Copy, Debug, Default)]
pub struct Given {
    pub tick: bool,
    /// A person freed a slot.
    pub freed: bool,
    /// A person let a host pass.
    pub accepted: bool,
    /// A coordinator took over.
    pub started: bool,
}

#[derive(Debug, Default)]
pub struct Watcher {
    pub violations: BTreeMap<&'static str, Vec<String>>,
    /// States that were seen, by kind and name.
    pub seen: BTreeMap<String, u64>,
    rows: BTreeMap<(LegId, HostId), (HostPhase, bool)>,
    orders: BTreeSet<OrderId>,
    server_orders: BTreeSet<OrderId>,
    /// Client legs with a permit, and server legs before them.
    passed: BTreeSet<LegId>,
    no_return: BTreeSet<LegId>,
    /// Hosts that ever had a permit in a leg.
    granted: BTreeSet<(LegId, HostId)>,
    was_paused: bool,
    aborted_at: Option<u64>,
    fleet_asked_at: Option<u64>,
    permit_ms: u64,
    limits: Limits,
    pub samples: Samples,
    pub gates: super::gates::Gates,
    pub turns: super::turns::Turns,
    pub told: super::told::Told,
    permits: super::permits::Permits,
}

/// A host of a client leg before a new hop that something may change on.
pub fn late(kernel: &Kernel, order: &ServerOrder) -> Option<String> {
    let legs = kernel.plan().legs.iter().take_while(|leg| leg.id != order.leg);
    let mut clients = legs.filter(|leg| matches!(leg.kind, LegKind::Clients { .. }));
    clients.find_map(|leg| {
        let mut hosts = kernel.plan().hosts.iter();
        let late = |host: &HostId| {
            kernel
                .host(&leg.id, host)
                .is_some_and(|row| row.phase.in_flight())
        };
        let host = hosts.find(|planned| late(&planned.host))?;
        Some(format!(
            "{} while {} is under way in {}",
            order.order, host.host, leg.id
        ))
    })
}

/// The different samples of each host's node that PMM showed while it was verified.
#[derive(Debug, Default)]
pub struct Samples {
    seen: BTreeMap<HostId, BTreeSet<u64>>,
    plan: Option<PlanId>,
    /// Where the host of a node is in that plan.
    places: BTreeMap<String, usize>,
}

impl Samples {
    /// Before the kernel takes a view.
    pub fn shown(&mut self, kernel: &Kernel, view: &FleetSnapshot) {
        if self.plan.as_ref() != Some(kernel.plan_id()) {
            let hosts = kernel.plan().hosts.iter().enumerate();
            self.places = hosts.map(|(at, planned)| (planned.node_id.clone(), at)).collect();
            self.plan = Some(kernel.plan_id().clone());
        }
        for (node, sample) in &view.node_samples_ms {
            let Some(planned) = self.places.get(node).map(|at| &kernel.plan().hosts[*at]) else {
                continue;
            };
            let begun = kernel.legs().iter().filter(|leg| leg.phase != LegPhase::Waiting);
            let mut rows = begun.filter_map(|leg| kernel.host(&leg.leg, &planned.host));
            if rows.any(|row| row.phase == HostPhase::Verifying) {
                self.seen.entry(planned.host.clone()).or_default().insert(*sample);
            }
        }
    }

    /// After a host's row changed: what is wrong with its verification, if anything.
    pub fn look(
        &mut self,
        kernel: &Kernel,
        host: &HostId,
        before: HostPhase,
        now: &HostRow,
    ) -> Option<String> {
        let verified = (before, now.phase) == (HostPhase::Verifying, HostPhase::Settling);
        // Its rows in other legs say nothing of this.
        if (before == HostPhase::Verifying) == (now.phase == HostPhase::Verifying) {
            return None;
        }
        let seen = self.seen.remove(host).unwrap_or_default().len();
        if !verified {
            return None;
        }
        let planned = kernel.plan().hosts.iter().find(|planned| planned.host == *host)?;
        // Whoever has no samples at all is asked for nothing but its connection.
        kernel.baseline()?.node_samples_ms.get(&planned.node_id)?;
        let gate = kernel.plan().group(&planned.group)?.health.as_ref();
        let needed = gate.map_or(1, |gate| gate.good_views) as usize;
        (seen < needed).then(|| format!("{host}: {seen} samples, {needed} needed"))
    }
}

/// Whether a host begins without a baseline.
pub fn lacks_baseline(kernel: &Kernel, planned: &rollout::plan::PlanHost) -> bool {
    let baseline = kernel.baseline();
    baseline.is_none_or(|baseline| !baseline.clients.contains_key(&planned.agent_id))
}

impl Watcher {
    pub fn new(kernel: &Kernel) -> Self {
        Self {
            permit_ms: kernel.plan().timing.permit_ms,
            limits: operated::limits(kernel),
            gates: super::gates::Gates::of(kernel.plan()),
            turns: super::turns::Turns::of(kernel),
            told: super::told::Told::of(kernel),
            ..Self::default()
        }
    }

    /// From now on another plan's numbers count.
    pub fn adopted(&mut self, kernel: &Kernel) {
        self.permit_ms = kernel.plan().timing.permit_ms;
        self.gates.planned_by(kernel.plan());
        self.limits = operated::limits(kernel);
        self.turns.planned_by(kernel);
    }

    pub(super) fn broken(&mut self, rule: &'static str, what: String) {
        self.violations.entry(rule).or_default().push(what);
    }

    fn saw<T: serde::Serialize>(&mut self, kind: &str, state: T) {
        let name = serde_json::to_value(state).unwrap();
        *self
            .seen
            .entry(format!("{kind} {}", name.as_str().unwrap_or_default()))
            .or_default() += 1;
    }

    /// A new coordinator read the rows: what it holds must be what the last one held.
    pub fn restored(&mut self, kernel: &Kernel) {
        let now: BTreeMap<_, _> = each_host(kernel)
            .map(|(leg, host, row)| ((leg, host), (row.phase, row.slot)))
            .collect();
        if now != self.rows {
            self.broken(RESTORE, "a restored kernel differs".to_owned());
        }
    }

    pub fn switch_began(&mut self, host: &HostId, order: &HostOrder, highest: Epoch, now: u64) {
        if order.epoch < highest {
            self.broken(
                EPOCH,
                format!(
                    "{host} began {} under {} after {highest}",
                    order.order, order.epoch
                ),
            );
        }
        if let Some(what) = self.gates.began(host, order, now) {
            self.broken(super::gates::CLOSE, what);
        }
        // Two seconds on the way, and a permit's time after receipt.
        if self
            .aborted_at
            .is_some_and(|at| now > at + self.permit_ms + 2_000)
        {
            self.broken(ABORT, format!("{host} began {} too late", order.order));
        }
    }

    pub fn repoint_began(
        &mut self,
        host: &HostId,
        order: &HostOrder,
        server: fleet_common::version::PmmVersion,
    ) {
        let entry: fleet_common::plan_entry::PlanEntry = serde_json::from_slice(&order.entry).unwrap();
        let new = entry.repoint.is_some_and(|repoint| repoint.to.ends_with(":8443"));
        if new != (server.major >= 3) {
            self.broken(
                FOLLOW,
                format!("{host} began {} while the server is {server}", order.order),
            );
        }
    }

    pub fn look(
        &mut self,
        kernel: &Kernel,
        out: &Output,
        hosts: &BTreeMap<HostId, SimHost>,
        now: u64,
        given: Given,
    ) {
        let tick = given.tick;
        if self.aborted_at.is_none() && kernel.rollout().abort.is_some() {
            self.aborted_at = Some(now);
        }
        self.look_at_orders(kernel, out);
        if let Some(what) = self.permits.look(kernel, out, now) {
            self.broken(super::permits::LEFT, what);
        }
        if given.started
            && let Some(what) = super::permits::unheard(kernel, now)
        {
            self.broken(super::permits::HEARD, what);
        }
        if out.looks.as_ref().is_some_and(|looks| looks.fleet.is_some()) {
            let last = self.fleet_asked_at.replace(now);
            if last.is_some_and(|last| now < last + FLEET_EVERY_MS) {
                self.broken(FLEET_LOOKS, format!("at {now} after {last:?}"));
            }
        }
        if let Some(what) = strange_look(kernel, out) {
            self.broken(NODE_LOOKS, what);
        }
        let limits = operated::limits(kernel);
        if let Some(what) = operated::grown(&self.limits, &limits) {
            self.broken(operated::LIMIT, what);
        }
        self.limits = limits;
        let mut found = self.told.look(kernel, out, now);
        found.extend(self.gates.look(&self.told, kernel, out, now, tick));
        for (rule, what) in found.into_iter().chain(self.turns.look(kernel, out, now)) {
            self.broken(rule, what);
        }
        if let Some(what) = proof::stopped_too_early(&self.told, kernel, out) {
            self.broken(proof::TOLERATED, what);
        }
        self.look_at_slots(kernel, hosts, given);
        self.look_at_counts(kernel, out);
        if tick {
            self.look_at_states(kernel, now);
            self.look_at_report(kernel, now);
            self.look_at_exhaustion(kernel);
        }
        self.was_paused = kernel.phase() == RolloutPhase::Paused;
        self.rows = each_host(kernel)
            .map(|(leg, host, row)| ((leg, host), (row.phase, row.slot)))
            .collect();
    }

    fn look_at_orders(&mut self, kernel: &Kernel, out: &Output) {
        for order in &out.orders {
            if kernel.plan().hosts.iter().all(|host| host.host != order.host) || order.entry.is_empty() {
                self.broken(PLAN_ONLY, format!("order {}", order.order));
            }
            if order.action != Action::Switch || !self.orders.insert(order.order.clone()) {
                continue;
            }
            let row = kernel.host(&order.leg, &order.host).unwrap();
            let stored = out
                .rows
                .iter()
                .any(|row| row.key == format!("host/{}/{}", order.leg, order.host));
            if !row.slot || !stored || row.phase != HostPhase::Permitted {
                self.broken(SLOT_WITH_GRANT, order.order.to_string());
            }
            // A pause of the coordinator's own may follow permits of the same tick.
            let by_operator = kernel
                .rollout()
                .pause
                .as_ref()
                .is_some_and(|pause| pause.code == "operator");
            if kernel.phase() == RolloutPhase::Paused && (self.was_paused || by_operator) {
                self.broken(PAUSE, order.order.to_string());
            }
            let planned = kernel.plan().hosts.iter().find(|host| host.host == order.host);
            if planned.is_none_or(|planned| lacks_baseline(kernel, planned)) {
                self.broken(BASELINE, order.order.to_string());
            }
            self.look_at_turn(kernel, order);
            self.look_at_address(kernel, order);
            self.look_at_return(kernel, out, order);
        }
        for order in out
            .cancel_server
            .iter()
            .chain(out.server.iter().map(|order| &order.order))
        {
            let leg = kernel
                .legs()
                .iter()
                .find(|leg| order.as_str().contains(&format!("/{}/", leg.leg)));
            if leg.is_some_and(|leg| leg.no_return_since_ms.is_some()) {
                self.broken(NO_RETURN, order.to_string());
            }
        }
        for order in &out.server {
            if !self.server_orders.insert(order.order.clone()) {
                continue;
            }
            if kernel.phase() != RolloutPhase::Running {
                self.broken(PAUSE, order.order.to_string());
            }
            if let Some(late) = late(kernel, order) {
                self.broken(LATE, late);
            }
        }
    }

    /// Whoever addresses the container must have followed it before its client is replaced.
    fn look_at_address(&mut self, kernel: &Kernel, order: &HostOrder) {
        let planned = kernel
            .plan()
            .hosts
            .iter()
            .find(|host| host.host == order.host)
            .unwrap();
        if planned.repoint.is_none() {
            return;
        }
        let rows = kernel.legs().iter().filter(|leg| !leg.hops.is_empty());
        let followed = rows
            .filter_map(|leg| kernel.host(&leg.leg, &order.host))
            .all(|row| row.phase == HostPhase::Repointed);
        if !followed {
            self.broken(FOLLOW, format!("{} before its client followed", order.order));
        }
    }

    /// The point of no return is the commit of the first permit: what would take the server back looks at the same row.
    fn look_at_return(&mut self, kernel: &Kernel, out: &Output, order: &HostOrder) {
        let first = self.passed.insert(order.leg.clone());
        for leg in kernel
            .legs()
            .iter()
            .take_while(|leg| leg.leg != order.leg)
            .filter(|leg| !leg.hops.is_empty())
        {
            let stored = out.rows.iter().any(|row| row.key == format!("leg/{}", leg.leg));
            if leg.no_return_since_ms.is_none() || first && self.no_return.insert(leg.leg.clone()) && !stored
            {
                self.broken(NO_RETURN, format!("{} without {}", order.order, leg.leg));
            }
        }
    }

    fn look_at_turn(&mut self, kernel: &Kernel, order: &HostOrder) {
        let earlier = kernel.legs().iter().take_while(|leg| leg.leg != order.leg);
        if earlier.into_iter().any(|leg| leg.phase != LegPhase::Settled) {
            self.broken(TURN, format!("{} before an earlier leg", order.order));
        }
        let planned = kernel
            .plan()
            .hosts
            .iter()
            .find(|host| host.host == order.host)
            .unwrap();
        for group in &kernel.plan().groups {
            let row = kernel.group(&order.leg, &group.name).unwrap();
            if group.name == planned.group {
                if matches!(row.phase, GroupPhase::Pending | GroupPhase::Gated) {
                    self.broken(TURN, format!("{} in a group that waits", order.order));
                }
                if group.approval && row.approved_by.is_none() {
                    self.broken(TURN, format!("{} without approval", order.order));
                }
                break;
            }
            // An earlier group that was done goes on for hosts that are late or tried again; who began meanwhile goes on, too.
            let open = matches!(
                row.phase,
                GroupPhase::Pending | GroupPhase::Gated | GroupPhase::Canary
            );
            if open && !had_begun(kernel, order, &planned.group) {
                self.broken(TURN, format!("{} before group {}", order.order, group.name));
            }
        }
    }

    fn look_at_slots(&mut self, kernel: &Kernel, hosts: &BTreeMap<HostId, SimHost>, given: Given) {
        for (leg, host, row) in each_host(kernel) {
            let before = self.rows.get(&(leg.clone(), host.clone())).copied();
            let target = proof::target(kernel, &leg);
            let passes = before.is_some_and(|(phase, _)| proof::passes(phase, row.phase));
            if passes && !given.accepted && hosts[&host].shown.proves(kernel, &host) != target {
                let text = format!("{host} in {leg} showed {:?}", hosts[&host].shown);
                self.broken(proof::VERIFIED, text);
            }
            if before.is_some_and(|(_, slot)| slot) && !row.slot && !given.freed {
                let truth = &hosts[&host];
                let mut legs = kernel.legs().iter();
                let verified = legs.any(|leg| is_verified(kernel, &leg.leg, &host, truth.version));
                let unchanged = !truth.changed && truth.version == Some(truth.old);
                if !verified && !unchanged {
                    self.broken(
                        SLOT_FREED,
                        format!("{host} is {:?} with {:?}", row.phase, truth.version),
                    );
                }
            }
            if row.phase == HostPhase::Lost && row.permitted_at_ms.is_none() {
                self.broken(LOST, host.to_string());
            }
            let Some((phase, _)) = before else { continue };
            if returned_without_slot(kernel, &leg, phase, row) {
                self.broken(RETURNED, format!("{host} is {:?}", row.phase));
            }
            let accepted = row.phase == HostPhase::Settling && row.reason.contains("accepted");
            if phase != row.phase
                && let Some(what) = self.samples.look(kernel, &host, phase, row).filter(|_| !accepted)
            {
                self.broken(SAMPLES, what);
            }
        }
        for leg in &kernel.plan().legs {
            let LegKind::Clients { .. } = &leg.kind else {
                continue;
            };
            for group in &kernel.plan().groups {
                let slots = group
                    .hosts
                    .iter()
                    .filter(|host| holds_slot(kernel, &leg.id, host))
                    .count();
                // A limit may come below what is taken; then it only must not grow. What comes back in flight is no grant.
                let most = self.gates.most(kernel, &leg.id, group);
                let before = group.hosts.iter().filter(|host| {
                    let returns = kernel
                        .host(&leg.id, host)
                        .is_some_and(|row| row.phase.in_flight());
                    let row = |leg: &LegId| self.rows.get(&(leg.clone(), (*host).clone()));
                    row(&leg.id).is_some_and(|(phase, slot)| *slot || *phase == HostPhase::Lost && returns)
                        || clients_before(kernel, &leg.id).any(|leg| row(leg).is_some_and(|(_, slot)| *slot))
                });
                if slots > most as usize && slots > before.count() {
                    self.broken(SLOT_MAX, format!("{slots} of {most} in {}", group.name));
                }
            }
        }
    }

    /// Only a permit takes a slot, and how a host ended says whether it counts.
    fn look_at_counts(&mut self, kernel: &Kernel, out: &Output) {
        let permits = out.orders.iter().filter(|order| order.action == Action::Switch);
        self.granted
            .extend(permits.map(|order| (order.leg.clone(), order.host.clone())));
        for (leg, host, row) in each_host(kernel) {
            if row.slot && !self.granted.contains(&(leg.clone(), host.clone())) {
                self.broken(GRANTED, format!("{host} in {leg} is {:?}", row.phase));
            }
            let must = must_count(row);
            if must.is_some_and(|must| must != row.counts) {
                self.broken(
                    COUNTS,
                    format!("{host} in {leg} is {:?} and counts: {}", row.phase, row.counts),
                );
            }
        }
    }

    fn look_at_exhaustion(&mut self, kernel: &Kernel) {
        let running = kernel.phase() == RolloutPhase::Running;
        for leg in kernel
            .legs()
            .iter()
            .filter(|leg| running && leg.phase == LegPhase::Running)
        {
            for group in &kernel.plan().groups {
                let Some(state) = kernel.group(&leg.leg, &group.name) else {
                    continue;
                };
                let turn = matches!(state.phase, GroupPhase::Ramping);
                let rows = || group.hosts.iter().filter_map(|host| kernel.host(&leg.leg, host));
                let stuck = rows().filter(|row| row.slot && row.phase.is_final()).count();
                // One that is ready and has been so for a while is neither held nor away for the moment only.
                let ready = rows().any(|row| row.phase == HostPhase::Ready);
                let able = group.hosts.iter().any(|host| {
                    kernel
                        .host(&leg.leg, host)
                        .is_some_and(|row| row.phase == HostPhase::Ready)
                        && kernel
                            .host_duty(&leg.leg, host, 0)
                            .is_some_and(|duty| duty.code == "slots")
                });
                let most = self.gates.most(kernel, &leg.leg, group);
                if turn && ready && able && stuck >= most as usize {
                    self.broken(EXHAUSTED, format!("group {} in {}", group.name, leg.leg));
                }
            }
        }
    }

    /// What a person wanted was done, or refused; no wish is another plan.
    pub fn asked(&mut self, wish: Option<&Command>, well: bool, before: &Kernel, after: &Kernel, now: u64) {
        let found = match wish {
            Some(Command::Pause { .. }) => return self.paused(before, after),
            Some(command) if well => operated::commanded(command, before, after),
            None if well => {
                let mut ticked = before.clone();
                ticked.handle(Input::Tick, now);
                operated::adopted(before, &ticked, after)
            }
            _ => return,
        };
        for (rule, what) in found {
            self.broken(rule, what);
        }
    }

    /// What a pause did to hosts that were under way.
    fn paused(&mut self, before: &Kernel, after: &Kernel) {
        for (leg, host, row) in each_host(before).filter(|(_, _, row)| row.in_flight()) {
            let now = after.host(&leg, &host);
            if now.is_none_or(|now| {
                (now.phase, &now.order, now.deadline_ms) != (row.phase, &row.order, row.deadline_ms)
            }) {
                self.broken(
                    RUNNING_WORK,
                    format!(
                        "{host} in {leg}: {:?} -> {:?}",
                        row.phase,
                        now.map(|now| now.phase)
                    ),
                );
            }
        }
    }

    /// The same event under the newest epoch must change the same rows.
    pub fn old_event(&mut self, old: &Output, new: &Output, what: &OrderId) {
        if old.rows != new.rows {
            self.broken(OLD_EVENTS, what.to_string());
        }
    }

    fn look_at_states(&mut self, kernel: &Kernel, now: u64) {
        self.saw("rollout", kernel.phase());
        for leg in kernel.legs() {
            self.saw("leg", leg.phase);
            let open = !matches!(leg.phase, LegPhase::Settled | LegPhase::Cancelled) && !kernel.is_final();
            if open && kernel.leg_duty(leg, now).is_none_or(|duty| !complete(&duty, now)) {
                self.broken(
                    DUTY,
                    format!("{} {:?}: {:?}", leg.leg, leg.phase, kernel.leg_duty(leg, now)),
                );
            }
            for group in &kernel.plan().groups {
                let Some(row) = kernel.group(&leg.leg, &group.name) else {
                    continue;
                };
                self.saw("group", row.phase);
                let open = !matches!(
                    row.phase,
                    GroupPhase::Done | GroupPhase::Cancelled | GroupPhase::RolledBack
                ) && !kernel.is_final();
                if open
                    && kernel
                        .group_duty(&leg.leg, group, now)
                        .is_none_or(|duty| !complete(&duty, now))
                {
                    self.broken(DUTY, format!("group {} {:?}", group.name, row.phase));
                }
                let failures = self.told.failures(kernel, &leg.leg, group);
                let had_turn = !matches!(
                    row.phase,
                    GroupPhase::Pending | GroupPhase::Gated | GroupPhase::Cancelled | GroupPhase::RolledBack
                );
                if had_turn
                    && failures > super::gates::tolerated(kernel, &leg.leg, group) as usize
                    && matches!(kernel.phase(), RolloutPhase::Running)
                    && leg.phase == LegPhase::Running
                {
                    self.broken(THRESHOLD, format!("{failures} failed in {}", group.name));
                }
            }
        }
        if !kernel.is_final() && kernel.rollout_duty(now).is_none_or(|duty| !complete(&duty, now)) {
            self.broken(DUTY, format!("rollout {:?}", kernel.phase()));
        }
        let hosts: Vec<_> = each_host(kernel)
            .map(|(leg, host, row)| (leg, host, row.phase, row.deadline_ms, row.in_flight()))
            .collect();
        for (leg, host, phase, deadline, in_flight) in hosts {
            self.saw("host", phase);
            if phase.is_final() {
                continue;
            }
            if !kernel.is_final()
                && kernel
                    .host_duty(&leg, &host, now)
                    .is_none_or(|duty| !complete(&duty, now))
            {
                self.broken(
                    DUTY,
                    format!("{host} {phase:?}: {:?}", kernel.host_duty(&leg, &host, now)),
                );
            }
            if in_flight && deadline.is_none() {
                self.broken(SILENCE, format!("{host} {phase:?} has no deadline"));
            }
            if in_flight && deadline.is_some_and(|deadline| deadline + 1_000 < now) && !kernel.is_final() {
                self.broken(SILENCE, format!("{host} {phase:?} is past its deadline"));
            }
        }
    }

    fn look_at_report(&mut self, kernel: &Kernel, now: u64) {
        let report = rollout::report::report(kernel, now);
        let listed: Vec<&str> = report.hosts.iter().map(|host| host.host.as_str()).collect();
        let planned: Vec<&str> = kernel
            .plan()
            .hosts
            .iter()
            .map(|host| host.host.as_str())
            .collect();
        let legs = kernel
            .plan()
            .legs
            .iter()
            .filter(|leg| matches!(leg.kind, LegKind::Clients { .. }))
            .count();
        let incomplete =
            |host: &rollout::report::HostReport| host.outcome.is_empty() || host.legs.len() != legs;
        if listed != planned || report.hosts.iter().any(incomplete) {
            self.broken(REPORT, format!("{listed:?}"));
        }
    }
}

fn complete(duty: &rollout::kernel::Duty, now: u64) -> bool {
    let until = duty.deadline_ms.or(duty.reminder_ms);
    !duty.text.is_empty() && !duty.code.is_empty() && until.is_some_and(|until| until + 1_000 >= now)
}

/// Whether a group had permits before this one, whatever the clock did meanwhile.
pub fn had_begun(kernel: &Kernel, order: &HostOrder, group: &GroupName) -> bool {
    let first = kernel
        .group(&order.leg, group)
        .and_then(|row| row.first_permit_ms);
    let now = kernel
        .host(&order.leg, &order.host)
        .and_then(|row| row.permitted_at_ms);
    first.is_some_and(|first| now.is_some_and(|now| first != now))
}

/// Client legs before one that has begun.
fn clients_before<'a>(kernel: &'a Kernel, leg: &LegId) -> impl Iterator<Item = &'a LegId> {
    let legs = &kernel.plan().legs;
    let at = legs.iter().position(|found| found.id == *leg);
    let begun = |row: &&rollout::kernel::LegRow| row.leg == *leg && row.phase != LegPhase::Waiting;
    let begun = kernel.legs().iter().any(|row| begun(&row));
    let before = &legs[..at.filter(|_| begun).unwrap_or(0)];
    let clients = before
        .iter()
        .filter(|found| matches!(found.kind, LegKind::Clients { .. }));
    clients.map(|found| &found.id)
}

/// Whether a host holds a slot since an earlier client leg.
pub fn held_before(kernel: &Kernel, leg: &LegId, host: &HostId) -> bool {
    clients_before(kernel, leg).any(|leg| kernel.host(leg, host).is_some_and(|row| row.slot))
}

/// Whether a host is down in a leg: since its permit there, or since an earlier client leg.
pub fn holds_slot(kernel: &Kernel, leg: &LegId, host: &HostId) -> bool {
    kernel.host(leg, host).is_some_and(|row| row.slot) || held_before(kernel, leg, host)
}

/// Whether a leg has verified a host on its release, and that runs.
pub fn is_verified(
    kernel: &Kernel,
    leg: &LegId,
    host: &HostId,
    runs: Option<fleet_common::version::PmmVersion>,
) -> bool {
    let row = kernel.host(leg, host);
    row.is_some_and(|row| matches!(row.phase, HostPhase::Settling | HostPhase::Upgraded))
        && runs.is_some()
        && runs == proof::target(kernel, leg)
}

fn each_host(kernel: &Kernel) -> impl Iterator<Item = (LegId, HostId, &rollout::kernel::HostRow)> {
    kernel.legs().iter().flat_map(move |leg| {
        kernel.plan().hosts.iter().filter_map(move |host| {
            kernel
                .host(&leg.leg, &host.host)
                .map(|row| (leg.leg.clone(), host.host.clone(), row))
        })
    })
}

/// Whether how a host ended must count for its group's threshold; `None` where its state alone does not tell.
pub fn must_count(row: &HostRow) -> Option<bool> {
    match row.phase {
        // Whom the operator or its group's policy took back did not fail.
        HostPhase::RolledBack if row.taken_back => Some(false),
        HostPhase::RolledBack | HostPhase::Failed | HostPhase::Inconsistent | HostPhase::Lost => Some(true),
        // Refused by the plan or after the survey it does not count, refused at its turn it does: see `told`.
        HostPhase::Refused => None,
        _ => Some(false),
    }
}

/// Whether a host that was lost goes on in a client leg without a slot.
pub fn returned_without_slot(kernel: &Kernel, leg: &LegId, before: HostPhase, row: &HostRow) -> bool {
    let clients = kernel.plan().legs.iter().any(|found| {
        let is_clients = matches!(found.kind, LegKind::Clients { .. });
        found.id == *leg && is_clients
    });
    clients && before == HostPhase::Lost && row.phase.in_flight() && !row.slot
}

/// What is wrong with the nodes that are asked for, if anything.
pub fn strange_look(kernel: &Kernel, out: &Output) -> Option<String> {
    let nodes = out.looks.as_ref()?.nodes.as_ref()?.nodes.as_ref();
    let Some(nodes) = nodes.filter(|nodes| (1..=NODES_AT_ONCE).contains(&nodes.len())) else {
        return Some(format!("a look at {:?} nodes", nodes.map(BTreeSet::len)));
    };
    let row = kernel.rollout();
    if RolloutPhase::Checking
        == row
            .before_pause
            .filter(|_| row.pause.is_some())
            .unwrap_or(row.phase)
    {
        return None;
    }
    let verifies = |planned: &&rollout::plan::PlanHost| {
        let rows = kernel
            .legs()
            .iter()
            .filter_map(|leg| kernel.host(&leg.leg, &planned.host));
        rows.into_iter().any(|row| row.phase == HostPhase::Verifying)
    };
    let hosts = kernel
        .plan()
        .hosts
        .iter()
        .filter(|host| nodes.contains(&host.node_id));
    let verifying: BTreeSet<&str> = hosts.filter(verifies).map(|host| host.node_id.as_str()).collect();
    let strange = nodes.iter().find(|node| !verifying.contains(node.as_str()));
    strange.map(|node| format!("{node} does not verify"))
}
