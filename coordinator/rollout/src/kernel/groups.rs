//! The groups of a client leg: turns, canaries, slots, thresholds.

use super::Kernel;
use super::repoint::asked_by;
use super::rows::Key;
use super::state::{GroupPhase, GroupRow, HostPhase, HostRow, LegPhase, RolloutPhase};
use crate::plan::PlanGroup;
use crate::policy::OnBreach;
use fleet_common::ids::{GroupName, HostId, LegId};
use fleet_common::order::Action;
use std::sync::Arc;

/// A group's hosts by what they need next.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    /// Slots that are taken.
    pub slots: u32,
    /// Slots that are taken by hosts that ended.
    pub stuck_slots: u32,
    /// Hosts with a permit that have not ended.
    pub in_flight: u32,
    /// Hosts that were upgraded by this leg.
    pub upgraded: u32,
    /// Failures that count and that nobody accepted.
    pub failures: u32,
    /// Hosts that could begin or are being prepared.
    pub to_begin: u32,
    /// Hosts that can't begin: held or away.
    pub left_behind: u32,
}

impl Kernel {
    pub(crate) fn tally(&self, leg: &LegId, group: &PlanGroup, now_ms: u64) -> Tally {
        let mut tally = Tally::default();
        let forgiven = self.group(leg, &group.name).map(|row| &row.forgiven);
        for host in &group.hosts {
            let Some(row) = self.host(leg, host) else { continue };
            tally.slots += u32::from(row.slot);
            tally.stuck_slots += u32::from(row.slot && row.phase.is_final());
            tally.in_flight += u32::from(row.in_flight() && !row.upgraded());
            tally.upgraded += u32::from(row.upgraded());
            tally.failures +=
                u32::from(row.counts && !forgiven.is_some_and(|forgiven| forgiven.contains(host)));
            let begins = matches!(
                row.phase,
                HostPhase::Waiting | HostPhase::Preparing | HostPhase::Ready
            );
            let able = row.phase == HostPhase::Preparing || self.can_begin(leg, host, now_ms);
            tally.to_begin += u32::from(begins && able);
            tally.left_behind += u32::from(begins && !able);
        }
        tally
    }

    pub(super) fn drive_clients(&mut self, at: usize, now_ms: u64) {
        let plan = Arc::clone(&self.plan);
        let leg = self.legs[at].leg.clone();
        let mut earlier_done = true;
        for group in &plan.groups {
            let tally = self.tally(&leg, group, now_ms);
            if self.had_its_turn(&leg, &group.name) && tally.failures > group.failure_threshold {
                self.breach(&leg, group, &tally, now_ms);
            }
            if self.rollout.phase == RolloutPhase::Running {
                self.drive_group(&leg, group, &tally, earlier_done, now_ms);
                self.let_through(&leg, group, now_ms);
            }
            earlier_done &= self
                .group(&leg, &group.name)
                .is_some_and(|row| matches!(row.phase, GroupPhase::Done | GroupPhase::RolledBack));
        }
        if earlier_done {
            self.drive_end(at, now_ms);
        }
    }

    fn had_its_turn(&self, leg: &LegId, group: &GroupName) -> bool {
        self.group(leg, group).is_some_and(|row| {
            !matches!(
                row.phase,
                GroupPhase::Pending | GroupPhase::Gated | GroupPhase::Cancelled | GroupPhase::RolledBack
            )
        })
    }

    fn breach(&mut self, leg: &LegId, group: &PlanGroup, tally: &Tally, now_ms: u64) {
        if self
            .group(leg, &group.name)
            .is_some_and(|row| row.phase == GroupPhase::Breached)
        {
            return;
        }
        self.set_group(leg, &group.name, GroupPhase::Breached, now_ms);
        let text = format!(
            "group {}: {} failed, {} tolerated",
            group.name, tally.failures, group.failure_threshold
        );
        if group.on_breach == OnBreach::Rollback {
            self.take_group_back(leg, group, &text, now_ms);
        }
        self.pause(
            "threshold",
            &text,
            "`retry` the hosts after repairing the cause, `resume` to accept the failures, or `abort`",
            "coordinator",
            now_ms,
        );
    }

    /// Moves a group on. One pass per tick is enough; the loop is for empty groups.
    fn drive_group(
        &mut self,
        leg: &LegId,
        group: &PlanGroup,
        tally: &Tally,
        earlier_done: bool,
        now_ms: u64,
    ) {
        for _ in 0..6 {
            let Some(row) = self.group(leg, &group.name) else {
                return;
            };
            let next = next_phase(row, group, tally, earlier_done, now_ms);
            if next == row.phase {
                return;
            }
            self.set_group(leg, &group.name, next, now_ms);
            if next == GroupPhase::Soaking {
                let until = now_ms + group.soak_ms;
                self.edit_group(leg, &group.name, |row| row.soak_until_ms = Some(until));
            }
        }
    }

    /// Prepares hosts and grants permits. A slot is taken with the permit, in the same commit.
    fn let_through(&mut self, leg: &LegId, group: &PlanGroup, now_ms: u64) {
        if !self.had_its_turn(leg, &group.name)
            || self
                .group(leg, &group.name)
                .is_some_and(|row| row.phase == GroupPhase::Breached)
        {
            return;
        }
        let follow: Vec<HostId> = group
            .hosts
            .iter()
            .filter(|host| self.followed(host))
            .cloned()
            .collect();
        self.prepare(leg, &follow, now_ms);
        let tally = self.tally(leg, group, now_ms);
        let canary = self
            .group(leg, &group.name)
            .is_some_and(|row| row.phase == GroupPhase::Canary);
        let mut candidates: Vec<&HostId> = Vec::new();
        let eligible = |row: &HostRow, host: &HostId| {
            matches!(
                row.phase,
                HostPhase::Waiting | HostPhase::Preparing | HostPhase::Ready
            ) && self.can_begin(leg, host, now_ms)
        };
        for host in &group.hosts {
            if self.host(leg, host).is_some_and(|row| eligible(row, host)) {
                candidates.push(host);
            }
        }
        if canary {
            // The next hosts in order, and only as many as canaries are missing.
            let wanted = group.canaries.saturating_sub(tally.upgraded + tally.in_flight);
            candidates.truncate(usize::try_from(wanted).unwrap_or(usize::MAX));
        }
        let ready: Vec<HostId> = candidates
            .into_iter()
            .filter(|host| {
                self.host(leg, host)
                    .is_some_and(|row| row.phase == HostPhase::Ready)
            })
            .cloned()
            .collect();
        let mut slots = tally.slots;
        for host in &ready {
            let has_slot = self.host(leg, host).is_some_and(|row| row.slot);
            if !has_slot && slots >= group.max_unavailable {
                break;
            }
            slots += u32::from(!has_slot);
            self.grant(leg, host, now_ms);
        }
        if !ready.is_empty() && tally.stuck_slots >= group.max_unavailable {
            let text = format!(
                "group {}: all {} slots are held by hosts that ended without a working client",
                group.name, group.max_unavailable
            );
            self.pause(
                "slots_exhausted",
                &text,
                "repair and `retry` them, or `host free-slot`, then `resume`",
                "coordinator",
                now_ms,
            );
        }
    }

    fn grant(&mut self, leg: &LegId, host: &HostId, now_ms: u64) {
        self.no_return(leg, now_ms);
        self.enter(leg, host, HostPhase::Permitted, now_ms, |row| {
            row.slot = true;
            row.permitted_at_ms = Some(now_ms);
        });
        self.give(leg, host, Action::Switch, now_ms);
    }

    /// A client of the new release can't talk to the old server: with the first permit the legs before it can't be taken back.
    fn no_return(&mut self, leg: &LegId, now_ms: u64) {
        for row in self.legs.iter_mut().take_while(|row| row.leg != *leg) {
            if !row.hops.is_empty() && row.no_return_since_ms.is_none() {
                row.no_return_since_ms = Some(now_ms);
                self.dirty.insert(Key::Leg(row.leg.clone()));
            }
        }
    }

    /// Every group had its turn: hosts that were away are waited for a while, then the leg is over.
    fn drive_end(&mut self, at: usize, now_ms: u64) {
        let leg = self.legs[at].leg.clone();
        let open: Vec<HostId> = self.hosts[&leg]
            .iter()
            .filter(|(_, row)| !row.phase.is_through())
            .map(|(host, _)| host.clone())
            .collect();
        if open.is_empty() {
            return self.set_leg(at, LegPhase::Settled, now_ms);
        }
        if self.rollout.phase != RolloutPhase::Running {
            return;
        }
        let begins = |host: &&HostId| {
            self.host(&leg, host)
                .is_some_and(|row| matches!(row.phase, HostPhase::Waiting | HostPhase::Ready))
                && !(self.can_be_asked(host) && self.followed(host))
        };
        if open.iter().any(|host| self.waits_for_backup(&leg, host, now_ms)) {
            return;
        }
        let left: Vec<HostId> = open.iter().filter(begins).cloned().collect();
        if left.len() < open.len() {
            return;
        }
        let (held, away): (Vec<HostId>, Vec<HostId>) =
            left.into_iter().partition(|host| self.held(host).is_some());
        match self.legs[at].offline_until_ms {
            _ if away.is_empty() => self.skip_left_behind(at, &held, now_ms),
            None => {
                self.legs[at].offline_until_ms = Some(now_ms + self.plan.timing.offline_for_ms);
                self.dirty.insert(Key::Leg(leg));
            }
            Some(until) if until <= now_ms && self.absence_is_known(now_ms) => {
                self.skip_left_behind(at, &away, now_ms);
                self.skip_left_behind(at, &held, now_ms);
            }
            Some(_) => {}
        }
        let settled = self.hosts[&self.legs[at].leg]
            .values()
            .all(|row| row.phase.is_through());
        if settled {
            self.set_leg(at, LegPhase::Settled, now_ms);
        }
    }

    /// Whether a host of a client leg can be asked now.
    fn can_begin(&self, leg: &LegId, host: &HostId, now_ms: u64) -> bool {
        self.can_be_asked(host)
            && self.followed(host)
            && self.host(leg, host).is_some_and(|row| asked_by(row, now_ms))
    }

    /// Right after a start of the coordinator nobody counts as absent.
    pub(super) fn absence_is_known(&self, now_ms: u64) -> bool {
        self.absence_from_ms <= now_ms
    }

    pub(super) fn set_group(&mut self, leg: &LegId, group: &GroupName, phase: GroupPhase, now_ms: u64) {
        self.edit_group(leg, group, |row| {
            row.phase = phase;
            row.since_ms = now_ms;
        });
        let word = serde_json::to_value(phase)
            .ok()
            .and_then(|value| value.as_str().map(str::to_owned))
            .unwrap_or_default();
        self.event(
            now_ms,
            format!("group:{group}"),
            &format!("group_{word}"),
            format!("group {group} in {leg} is {word}"),
        );
    }

    pub(super) fn edit_group(&mut self, leg: &LegId, group: &GroupName, change: impl FnOnce(&mut GroupRow)) {
        if let Some(row) = self.groups.get_mut(leg).and_then(|rows| rows.get_mut(group)) {
            change(row);
            self.dirty.insert(Key::Group(leg.clone(), group.clone()));
        }
    }

    pub(super) fn cancel_groups(&mut self, now_ms: u64) {
        let open: Vec<(LegId, GroupName)> = self
            .groups
            .iter()
            .flat_map(|(leg, rows)| rows.iter().map(move |(group, row)| (leg, group, row)))
            .filter(|(_, _, row)| {
                !matches!(
                    row.phase,
                    GroupPhase::Done | GroupPhase::Cancelled | GroupPhase::RolledBack
                )
            })
            .map(|(leg, group, _)| (leg.clone(), group.clone()))
            .collect();
        for (leg, group) in open {
            self.set_group(&leg, &group, GroupPhase::Cancelled, now_ms);
        }
    }
}

fn next_phase(
    row: &GroupRow,
    group: &PlanGroup,
    tally: &Tally,
    earlier_done: bool,
    now_ms: u64,
) -> GroupPhase {
    let begin = || {
        if group.canaries > 0 && tally.to_begin > 0 {
            GroupPhase::Canary
        } else {
            GroupPhase::Ramping
        }
    };
    match row.phase {
        GroupPhase::Pending if !earlier_done => GroupPhase::Pending,
        GroupPhase::Pending | GroupPhase::Gated if group.approval && row.approved_by.is_none() => {
            GroupPhase::Gated
        }
        GroupPhase::Pending | GroupPhase::Gated => begin(),
        GroupPhase::Canary if tally.upgraded >= group.canaries => GroupPhase::Ramping,
        GroupPhase::Canary if tally.to_begin == 0 && tally.in_flight == 0 => GroupPhase::Ramping,
        GroupPhase::Ramping if tally.to_begin == 0 => GroupPhase::Draining,
        GroupPhase::Draining if tally.to_begin > 0 => GroupPhase::Ramping,
        GroupPhase::Draining if tally.in_flight > 0 => GroupPhase::Draining,
        GroupPhase::Draining if group.soak_ms > 0 && tally.upgraded > 0 => GroupPhase::Soaking,
        GroupPhase::Draining => GroupPhase::Done,
        GroupPhase::Soaking if row.soak_until_ms.is_some_and(|until| until <= now_ms) => GroupPhase::Done,
        phase => phase,
    }
}
