//! The groups of a client leg: turns, canaries, slots, thresholds.

use super::Kernel;
use super::gates::Door;
use super::repoint::asked_by;
use super::rows::Key;
use super::spread::{Census, Crowd};
use super::state::{GroupPhase, GroupRow, HostPhase, HostRow, LegPhase, RolloutPhase};
use crate::beside::Beside;
use crate::plan::PlanGroup;
use crate::policy::OnBreach;
use fleet_common::ids::{GroupName, HostId, LegId};
use fleet_common::order::Action;
use std::collections::BTreeSet;
use std::sync::Arc;

/// A group's hosts by what they need next.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    /// Slots that are taken.
    pub slots: u32,
    /// Slots that are taken by hosts that ended, or whose next attempt waits for a person or for their return.
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
    /// Hosts of those that wait for their next attempt.
    pub retried: u32,
    /// Hosts of those that can't be asked yet and need nobody: PMM runs a backup there, or their client follows the server first.
    pub later: u32,
    /// Hosts of those whose agent has not connected since the coordinator started, while nobody counts as away.
    pub unheard: u32,
    /// Hosts that were not asked yet, or must be asked anew.
    pub waiting: u32,
}

impl Tally {
    /// Hosts that begin without a person, now or later.
    pub fn left(&self) -> u32 {
        self.to_begin + self.retried + self.later + self.unheard
    }
}

impl Kernel {
    pub(crate) fn tally(&self, leg: &LegId, group: &PlanGroup, now_ms: u64) -> Tally {
        let mut tally = Tally::default();
        let forgiven = self.group(leg, &group.name).map(|row| &row.forgiven);
        let Some(rows) = self.hosts.get(leg) else {
            return tally;
        };
        let held = self.held_before(leg);
        for host in &group.hosts {
            if let Some(row) = rows.get(host) {
                let slot = row.slot || held.contains(host);
                self.count_row(&mut tally, host, (row, slot), forgiven, now_ms);
            }
        }
        tally
    }

    /// The same of every group, in the plan's order and in one walk: rows and the plan's index are sorted alike.
    pub(crate) fn tallies(&self, leg: &LegId, now_ms: u64) -> Vec<Tally> {
        self.tallies_of(leg, |_| true, now_ms)
    }

    /// The same of some groups alone; the others count nothing.
    fn tallies_of(&self, leg: &LegId, of: impl Fn(&PlanGroup) -> bool, now_ms: u64) -> Vec<Tally> {
        let groups = &self.plan.groups;
        let mut tallies = vec![Tally::default(); groups.len()];
        let Some(rows) = self.hosts.get(leg) else {
            return tallies;
        };
        let forgiven: Vec<_> = groups
            .iter()
            .map(|group| self.group(leg, &group.name).map(|row| &row.forgiven))
            .collect();
        let wanted: Vec<bool> = groups.iter().map(of).collect();
        let held = self.held_before(leg);
        let mut places = Beside::new(self.index.iter());
        for (host, row) in rows {
            let group = places
                .find(host)
                .and_then(|at| self.spread.group_of.get(*at).copied().flatten());
            if let Some(at) = group.filter(|at| wanted[*at]) {
                let slot = row.slot || held.contains(host);
                self.count_row(&mut tallies[at], host, (row, slot), forgiven[at], now_ms);
            }
        }
        tallies
    }

    fn count_row(
        &self,
        tally: &mut Tally,
        host: &HostId,
        (row, slot): (&HostRow, bool),
        forgiven: Option<&BTreeSet<HostId>>,
        now_ms: u64,
    ) {
        tally.slots += u32::from(slot);
        tally.stuck_slots += u32::from(slot && self.is_stuck(host, now_ms));
        tally.in_flight += u32::from(row.in_flight() && !row.upgraded());
        tally.upgraded += u32::from(row.upgraded());
        tally.failures += u32::from(row.counts && !forgiven.is_some_and(|forgiven| forgiven.contains(host)));
        let begins = row.phase.before_permit();
        // Most hosts of a large group have begun or ended, and what keeps the others is dear to find out.
        if !begins {
            return;
        }
        tally.waiting += u32::from(row.phase == HostPhase::Waiting);
        let able = row.phase == HostPhase::Preparing || self.may_begin_now(host, row, now_ms);
        tally.to_begin += u32::from(able);
        tally.left_behind += u32::from(!able);
        if able {
            return;
        }
        let retried = self.is_retried(host, row, now_ms);
        tally.retried += u32::from(retried);
        tally.later += u32::from(!retried && self.begins_later(host, row, now_ms));
        tally.unheard += u32::from(!retried && self.is_unheard(host, now_ms));
    }

    /// Whether it is there and can't be asked, and what keeps it ends by itself.
    pub(super) fn begins_later(&self, host: &HostId, row: &HostRow, now_ms: u64) -> bool {
        let follows = || !self.followed(host) && self.is_to_follow(host);
        self.can_be_asked(host) && (!asked_by(row, now_ms) || follows())
    }

    /// Right after a start of the coordinator nobody is connected: whoever is not held may well be there.
    pub(super) fn is_unheard(&self, host: &HostId, now_ms: u64) -> bool {
        !self.is_connected(host)
            && self.held(host).is_none()
            && !self.absence_is_known(now_ms)
            && !self.breaks(super::Mutant::AbsenceAtOnce)
    }

    pub(super) fn drive_clients(&mut self, at: usize, now_ms: u64) {
        let plan = Arc::clone(&self.plan);
        let leg = self.legs[at].leg.clone();
        // Nothing is asked of a group before the earlier ones are done, and most hosts of a large fleet are in such groups.
        let pending = |group: &PlanGroup| self.is_pending(&leg, &group.name);
        let tallies = self.tallies_of(&leg, |group| !pending(group), now_ms);
        let not_counted: Vec<bool> = plan.groups.iter().map(pending).collect();
        for (group, tally) in plan.groups.iter().zip(&tallies) {
            if self.had_its_turn(&leg, &group.name) {
                self.look_at_threshold(&leg, group, tally, now_ms);
                self.look_at_deadline(&leg, group, now_ms);
                self.soak_after_canaries(&leg, group, tally, now_ms);
            } else if tally.to_begin + tally.left_behind > 0
                && self
                    .group(&leg, &group.name)
                    .is_some_and(|row| row.phase == GroupPhase::RolledBack)
            {
                self.leave_rest_behind(&leg, &group.name, now_ms);
            }
        }
        self.look_at_rollout_threshold(now_ms);
        self.retell_failures(&leg, &tallies, now_ms);
        let mut census = self.census(now_ms);
        let mut earlier_done = true;
        for (place, group) in plan.groups.iter().enumerate() {
            let grants = |kernel: &Self| {
                kernel.rollout.phase == RolloutPhase::Running || kernel.breaks(super::Mutant::PauseGrants)
            };
            if grants(self) {
                let door = self.door(group, now_ms);
                let turn = earlier_done || self.breaks(super::Mutant::OutOfTurn);
                // Its turn may have come with what was decided above.
                let now_counted = (not_counted[place] && (turn || !self.is_pending(&leg, &group.name)))
                    .then(|| self.tally(&leg, group, now_ms));
                let tally = now_counted.as_ref().unwrap_or(&tallies[place]);
                let begun = self.had_its_turn(&leg, &group.name);
                self.drive_group(&leg, group, tally, &door, turn, now_ms);
                if !begun && self.had_its_turn(&leg, &group.name) {
                    // Hosts that were prepared while it waited for its window may have failed already.
                    self.look_at_threshold(&leg, group, tally, now_ms);
                    self.look_at_rollout_threshold(now_ms);
                }
                if grants(self) {
                    self.let_through(&leg, group, tally, &door, &mut census, now_ms);
                }
            }
            earlier_done &= self
                .group(&leg, &group.name)
                .is_some_and(|row| matches!(row.phase, GroupPhase::Done | GroupPhase::RolledBack));
        }
        if earlier_done {
            self.drive_end(at, now_ms);
        }
    }

    fn is_pending(&self, leg: &LegId, group: &GroupName) -> bool {
        let row = self.group(leg, group);
        row.is_some_and(|row| row.phase == GroupPhase::Pending)
    }

    /// Whether its hosts may begin, or could. A group whose window shut before its first permit waits for its turn again.
    fn had_its_turn(&self, leg: &LegId, group: &GroupName) -> bool {
        self.group(leg, group).is_some_and(|row| has_turn(row.phase))
    }

    /// Whether a group without a permit so far waits for an earlier one. It may have ended while its hosts were away, and that one may have
    /// opened again since.
    pub(super) fn waits_for_turn(&self, leg: &LegId, group: &PlanGroup) -> bool {
        let new = self
            .group(leg, &group.name)
            .is_some_and(|row| row.first_permit_ms.is_none());
        let groups = self.plan.groups.iter();
        let mut earlier = groups.take_while(|earlier| earlier.name != group.name);
        new && !self.breaks(super::Mutant::OutOfTurn)
            && earlier.any(|earlier| self.holds_up_others(leg, earlier))
    }

    fn look_at_threshold(&mut self, leg: &LegId, group: &PlanGroup, tally: &Tally, now_ms: u64) {
        let one_more = u32::from(self.breaks(super::Mutant::ThresholdOffByOne));
        let strict = self.breaks(super::Mutant::ThresholdTooStrict) && tally.failures > 0;
        if tally.failures + u32::from(strict) > self.failure_threshold(leg, group) + one_more {
            self.breach(leg, group, tally, now_ms);
        } else if self.rollout.phase == RolloutPhase::Running
            && self
                .group(leg, &group.name)
                .is_some_and(|row| row.phase == GroupPhase::Breached)
        {
            // A person lets the rollout go on, and the failures are no more: who was lost came back.
            self.reopen(leg, group, now_ms);
        }
    }

    fn breach(&mut self, leg: &LegId, group: &PlanGroup, tally: &Tally, now_ms: u64) {
        let text = self.breach_text(leg, group, tally);
        if self
            .group(leg, &group.name)
            .is_some_and(|row| row.phase == GroupPhase::Breached)
        {
            // `retry` in another group lets the rollout go on; these failures were neither accepted nor repaired.
            return self.pause_for_failures(&text, now_ms);
        }
        self.set_group(leg, &group.name, GroupPhase::Breached, now_ms);
        match group.on_breach {
            OnBreach::Pause => self.pause_for_failures(&text, now_ms),
            OnBreach::Rollback => {
                self.take_group_back(leg, group, &text, now_ms);
                self.pause_for_failures(&text, now_ms);
            }
            OnBreach::Abort => {
                // Refused only where it is being aborted already.
                let _ = self.abort("coordinator", text, false, now_ms);
            }
        }
    }

    pub(super) fn breach_text(&self, leg: &LegId, group: &PlanGroup, tally: &Tally) -> String {
        format!(
            "group {}: {} failed, {} tolerated",
            group.name,
            tally.failures,
            self.failure_threshold(leg, group)
        )
    }

    fn pause_for_failures(&mut self, text: &str, now_ms: u64) {
        self.pause(
            "threshold",
            text,
            "`retry` the hosts after repairing the cause, `resume` to accept the failures, or `abort`",
            "coordinator",
            now_ms,
        );
    }

    /// All groups together may be less tolerant than each.
    fn look_at_rollout_threshold(&mut self, now_ms: u64) {
        if self.breaks(super::Mutant::RolloutThresholdIgnored) {
            return;
        }
        if let Some(text) = self.rollout_breach_text() {
            self.pause_for_failures(&text, now_ms);
        }
    }

    /// More failures than the whole rollout tolerates.
    pub(crate) fn rollout_breach_text(&self) -> Option<String> {
        let tolerated = self.plan.failure_threshold?;
        let failures = self.failures();
        let text = || format!("the rollout: {failures} failed over all groups, {tolerated} tolerated");
        (failures > tolerated).then(text)
    }

    /// Failures that count and that nobody accepted, over all legs and over all groups that had their turn: a group that was taken back had
    /// it, too. A host counts once, as the newest leg says that did anything with it.
    pub(crate) fn failures(&self) -> u32 {
        let legs: Vec<_> = self
            .client_rows()
            .filter(|(leg, _)| leg.phase != LegPhase::Waiting)
            .collect();
        let mut failures = 0;
        for (at, (leg, rows)) in legs.iter().enumerate() {
            let tried_later = |host: &HostId| {
                let later = legs[at + 1..].iter().filter_map(|(_, rows)| rows.get(host));
                later.into_iter().any(|row| {
                    row.counts || row.made_it() || row.phase.in_flight() || row.phase.before_permit()
                })
            };
            for (host, _) in rows.iter().filter(|(_, row)| row.counts) {
                let group = self
                    .planned(host)
                    .and_then(|planned| self.group(&leg.leg, &planned.group));
                let open = group.is_some_and(|row| {
                    let turn = has_turn(row.phase) || row.phase == GroupPhase::RolledBack;
                    turn && !row.forgiven.contains(host)
                });
                failures += u32::from(open && !tried_later(host));
            }
        }
        failures
    }

    /// Moves a group on. One pass per tick is enough; the loop is for empty groups.
    fn drive_group(
        &mut self,
        leg: &LegId,
        group: &PlanGroup,
        tally: &Tally,
        door: &Door,
        earlier_done: bool,
        now_ms: u64,
    ) {
        for _ in 0..6 {
            self.soak_after_canaries(leg, group, tally, now_ms);
            let kept = self.kept_by_absence(leg, group, tally, now_ms);
            let Some(row) = self.group(leg, &group.name) else {
                return;
            };
            let canaries = Self::canaries_go(row, group, tally, now_ms);
            let next = next_phase(row, group, tally, canaries, door.is_open(), earlier_done, now_ms);
            if next == row.phase || kept {
                return;
            }
            self.set_group(leg, &group.name, next, now_ms);
            if next == GroupPhase::Soaking {
                let until = now_ms + group.soak_ms;
                self.edit_group(leg, &group.name, |row| row.soak_until_ms = Some(until));
            }
        }
    }

    /// The wait after the last canary begins once, and begins anew if a canary is missing again.
    fn soak_after_canaries(&mut self, leg: &LegId, group: &PlanGroup, tally: &Tally, now_ms: u64) {
        if group.canaries == 0 || !self.had_its_turn(leg, &group.name) {
            return;
        }
        let Some(row) = self.group(leg, &group.name) else {
            return;
        };
        let forgotten = self.breaks(super::Mutant::CanarySoakForgotten);
        let end = |until: u64| if until <= now_ms || forgotten { 0 } else { until };
        let until = (tally.upgraded >= group.canaries).then(|| {
            let soak = now_ms.saturating_add(group.canary_soak_ms);
            end(row.canary_soak_until_ms.unwrap_or(soak))
        });
        if until != row.canary_soak_until_ms {
            self.edit_group(leg, &group.name, |row| row.canary_soak_until_ms = until);
        }
    }

    /// Prepares hosts and grants permits. A slot is taken with the permit, in the same commit.
    fn let_through(
        &mut self,
        leg: &LegId,
        group: &PlanGroup,
        tally: &Tally,
        door: &Door,
        census: &mut Census,
        now_ms: u64,
    ) {
        let Some(row) = self.group(leg, &group.name) else {
            return;
        };
        let phase = row.phase;
        let canary =
            Self::canaries_go(row, group, tally, now_ms) && !self.breaks(super::Mutant::CanariesForgotten);
        // Whoever only waits for its window is prepared meanwhile.
        let before_window = phase == GroupPhase::Gated && !waits_for_approval(row, group);
        if !before_window && !self.had_its_turn(leg, &group.name) || phase == GroupPhase::Breached {
            return;
        }
        if tally.waiting > 0 {
            let rows = &self.hosts[leg];
            let waits = |host: &&HostId| rows.get(host).is_some_and(|row| row.phase == HostPhase::Waiting);
            let asked = group.hosts.iter().filter(waits);
            let follow: Vec<HostId> = asked.filter(|host| self.followed(host)).cloned().collect();
            self.prepare(leg, &follow, census, now_ms);
        }
        let Door::Open { within_ms } = *door else {
            return;
        };
        if before_window || tally.to_begin == 0 || self.waits_for_turn(leg, group) {
            return;
        }
        let (mut candidates, crowds) = self.candidates(leg, group, census, now_ms);
        let nobody = candidates.is_empty();
        if canary {
            // The next hosts in order, and only as many as canaries are missing.
            let gone = tally.upgraded + tally.in_flight + tally.retried;
            let wanted = group.canaries.saturating_sub(gone);
            candidates.truncate(usize::try_from(wanted).unwrap_or(usize::MAX));
        }
        let width = self.width(leg, group, tally);
        let mut slots = tally.slots;
        let mut ready = false;
        for host in &candidates {
            let Some(row) = self.host(leg, host).filter(|row| row.phase == HostPhase::Ready) else {
                continue;
            };
            let has_slot = self.holds_slot(leg, host);
            ready |= !has_slot;
            if !has_slot && slots >= width && !self.breaks(super::Mutant::TooWide) {
                break;
            }
            // An earlier one of this pass may be its neighbour.
            if self.crowd(census, host, row).is_some() {
                continue;
            }
            slots += u32::from(!has_slot);
            if !has_slot {
                self.count_in(census, host, true);
            }
            self.began(leg, group, now_ms);
            self.grant(leg, host, within_ms, now_ms);
        }
        if ready && tally.stuck_slots >= width && !self.breaks(super::Mutant::ExhaustedGoesOn) {
            let text = format!(
                "group {}: all {width} slots are held by hosts that ended without a working client{}",
                group.name,
                self.stuck_before_retry(leg, group, now_ms)
            );
            self.pause(
                "slots_exhausted",
                &text,
                "repair and `retry` them, or `host free-slot`, then `resume`",
                "coordinator",
                now_ms,
            );
        }
        if nobody && tally.in_flight + tally.retried == 0 {
            self.look_at_crowds(group, &crowds, now_ms);
        }
    }

    /// Whether nobody else of a group can begin before a person frees a slot: the same as what [`Self::let_through`] pauses for.
    pub(super) fn is_exhausted(&self, leg: &LegId, now_ms: u64) -> bool {
        let census = self.census(now_ms);
        let tallies = self.tallies(leg, now_ms);
        let groups = self.plan.groups.iter().zip(&tallies);
        groups
            .filter(|(group, _)| self.had_its_turn(leg, &group.name))
            .any(|(group, tally)| {
                let (candidates, crowds) = self.candidates(leg, group, &census, now_ms);
                let ready = candidates.iter().any(|host| {
                    self.host(leg, host)
                        .is_some_and(|row| row.phase == HostPhase::Ready)
                        && !self.holds_slot(leg, host)
                });
                let held = ready && tally.stuck_slots >= self.width(leg, group, tally);
                let idle = candidates.is_empty() && tally.in_flight + tally.retried == 0;
                held || idle && !crowds.is_empty() && crowds.iter().all(|crowd| crowd.stuck)
            })
    }

    /// Hosts that could begin, in order, without those that others keep from it; and what keeps these.
    fn candidates(
        &self,
        leg: &LegId,
        group: &PlanGroup,
        census: &Census,
        now_ms: u64,
    ) -> (Vec<HostId>, Vec<Crowd>) {
        let (mut free, mut crowds) = (Vec::new(), Vec::new());
        let rows = &self.hosts[leg];
        for host in &group.hosts {
            let Some(row) = rows.get(host) else { continue };
            let begins = row.phase.before_permit() && self.has_baseline(host);
            if !begins || !self.may_begin_now(host, row, now_ms) {
                continue;
            }
            match self.crowd(census, host, row) {
                Some(crowd) => crowds.push(crowd),
                None => free.push(host.clone()),
            }
        }
        // Whoever holds a slot from before needs none: behind one that waits for that slot it would never begin.
        free.sort_by_cached_key(|host| !self.holds_slot(leg, host));
        (free, crowds)
    }

    /// Nothing else of the group can begin: if only a person can change that, it is told.
    pub(super) fn look_at_crowds(&mut self, group: &PlanGroup, crowds: &[Crowd], now_ms: u64) {
        let Some(first) = crowds.first().filter(|_| crowds.iter().all(|crowd| crowd.stuck)) else {
            return;
        };
        let code = if first.code == "set" {
            "set_exhausted"
        } else {
            "site_exhausted"
        };
        let text = format!(
            "group {}: nothing can begin any more, {} host{} kept back: {}",
            group.name,
            crowds.len(),
            if crowds.len() == 1 { " is" } else { "s are" },
            first.text()
        );
        self.pause(
            code,
            &text,
            "repair and `retry` the host that holds the others back, `host free-slot` it, or `skip` the others, then `resume`",
            "coordinator",
            now_ms,
        );
    }

    fn grant(&mut self, leg: &LegId, host: &HostId, within_ms: u64, now_ms: u64) {
        self.no_return(leg, now_ms);
        let slot = !self.breaks(super::Mutant::GrantWithoutSlot);
        self.enter(leg, host, HostPhase::Permitted, now_ms, |row| {
            row.slot = slot;
            row.permitted_at_ms = Some(now_ms);
            row.lost_before_ms = None;
        });
        self.give_within(leg, host, Action::Switch, within_ms, now_ms);
    }

    /// A client of the new release can't talk to the old server: with the first permit the legs before it can't be taken back.
    fn no_return(&mut self, leg: &LegId, now_ms: u64) {
        let kept = self.breaks(super::Mutant::NoPointOfNoReturn);
        for row in self.legs.iter_mut().take_while(|row| row.leg != *leg) {
            if !row.hops.is_empty() && row.no_return_since_ms.is_none() && !kept {
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
                && (!(self.can_be_asked(host) && self.followed(host)) || self.is_not_listed(host, now_ms))
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
    pub(super) fn may_begin_now(&self, host: &HostId, row: &HostRow, now_ms: u64) -> bool {
        asked_by(row, now_ms)
            && self.can_be_asked(host)
            && self.followed(host)
            && !self.is_not_listed(host, now_ms)
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

fn has_turn(phase: GroupPhase) -> bool {
    !matches!(
        phase,
        GroupPhase::Pending | GroupPhase::Gated | GroupPhase::Cancelled | GroupPhase::RolledBack
    )
}

pub(super) fn waits_for_approval(row: &GroupRow, group: &PlanGroup) -> bool {
    group.approval && row.approved_by.is_none()
}

fn next_phase(
    row: &GroupRow,
    group: &PlanGroup,
    tally: &Tally,
    canaries: bool,
    open: bool,
    earlier_done: bool,
    now_ms: u64,
) -> GroupPhase {
    let left = tally.left();
    let begin = || {
        if canaries && left > 0 {
            GroupPhase::Canary
        } else {
            GroupPhase::Ramping
        }
    };
    // A group without hosts to begin needs no window.
    let shut = !open && row.first_permit_ms.is_none() && tally.to_begin + tally.left_behind > 0;
    match row.phase {
        GroupPhase::Pending if !earlier_done => GroupPhase::Pending,
        GroupPhase::Pending | GroupPhase::Gated if waits_for_approval(row, group) => GroupPhase::Gated,
        // A host of an earlier group is tried again, or came late.
        GroupPhase::Gated | GroupPhase::Canary | GroupPhase::Ramping
            if !earlier_done && row.first_permit_ms.is_none() =>
        {
            GroupPhase::Pending
        }
        GroupPhase::Pending | GroupPhase::Gated | GroupPhase::Canary | GroupPhase::Ramping if shut => {
            GroupPhase::Gated
        }
        GroupPhase::Pending | GroupPhase::Gated => begin(),
        GroupPhase::Canary if left == 0 && tally.in_flight == 0 => GroupPhase::Ramping,
        GroupPhase::Canary if canaries => GroupPhase::Canary,
        GroupPhase::Canary => GroupPhase::Ramping,
        GroupPhase::Ramping if left == 0 => GroupPhase::Draining,
        GroupPhase::Ramping => begin(),
        GroupPhase::Draining if tally.to_begin > 0 => begin(),
        GroupPhase::Draining if left + tally.in_flight > 0 => GroupPhase::Draining,
        GroupPhase::Draining if group.soak_ms > 0 && tally.upgraded > 0 => GroupPhase::Soaking,
        GroupPhase::Draining => GroupPhase::Done,
        GroupPhase::Soaking if row.soak_until_ms.is_some_and(|until| until <= now_ms) => GroupPhase::Done,
        phase => phase,
    }
}
