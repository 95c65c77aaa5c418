//! Hosts that are taken back although they were upgraded: by the operator, or by their group's policy.
//!
//! A host that is wanted back keeps its state until its group has a slot for it: going back takes a slot like a switch, with the order.

use super::commands::{Answer, accepted, refused};
use super::hosts::switch_detail;
use super::rows::Key;
use super::state::{GoingBack, GroupPhase, HostPhase, HostRow, LegPhase, RolloutPhase};
use super::waiting::until_next;
use super::{Duty, Kernel, Owner, RollbackTarget};
use crate::names::some_of;
use crate::plan::{LegKind, PlanGroup};
use fleet_common::codes;
use fleet_common::ids::{GroupName, HostId, LegId};
use fleet_common::order::{Action, OrderResult, Outcome};
use std::sync::Arc;

const TOO_LATE: &str = "it came back too late to go back: the rollout has gone on";

/// Why a host can't be taken back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum NoWay {
    /// This leg did not upgrade it.
    NotUpgraded,
    /// It goes back already.
    Going,
    /// What was saved for its way back is gone.
    Kept,
    /// The server promises nothing to the release that it came from.
    Server,
}

impl Kernel {
    pub(super) fn rollback(
        &mut self,
        by: &str,
        target: &RollbackTarget,
        reason: &str,
        now_ms: u64,
    ) -> Answer {
        let under_way = matches!(
            self.rollout.phase,
            RolloutPhase::Running | RolloutPhase::Paused | RolloutPhase::Checking
        );
        if !under_way || self.rollout.going_back.is_some() {
            return refused(
                "not_running",
                "only a rollout that is running or paused takes hosts back",
                "see `status`; with a rollout that has ended make a new plan",
            );
        }
        let Some(leg) = self.leg_of_clients() else {
            return refused(
                "not_upgraded",
                "no client was upgraded yet",
                "`abort` ends the rollout",
            );
        };
        // Whoever goes back meanwhile finds no server that sees it, and with all clients back the rollout would end in the middle of a hop.
        if let Some((_, hop)) = self.open_hop() {
            return refused(
                "hop_under_way",
                format!(
                    "the server's hop to {} is under way: no client is taken back before its end",
                    hop.to
                ),
                "wait for its end (`explain server`), or `abort`",
            );
        }
        let (what, hosts) = match target {
            RollbackTarget::Host(host) => {
                let host = self.find(host)?;
                (self.name(&host).to_owned(), vec![host])
            }
            RollbackTarget::Group(name) => {
                let Some(group) = self.plan.group(&GroupName::new(name)) else {
                    return refused(
                        "unknown_group",
                        format!("the plan has no group `{name}`"),
                        "`plan show` lists them",
                    );
                };
                (format!("group {name}"), group.hosts.clone())
            }
            RollbackTarget::Clients => (
                format!("the clients of {leg}"),
                self.hosts[&leg].keys().cloned().collect(),
            ),
        };
        let (able, answer) = self.who_can_go_back(&leg, &what, &hosts);
        if able.is_empty() {
            return answer;
        }
        let why = format!("taken back by {by}: {reason}");
        match target {
            RollbackTarget::Host(_) => self.want_back(&leg, &able, &why),
            RollbackTarget::Group(name) => {
                self.want_back(&leg, &able, &why);
                self.close_group(&leg, &GroupName::new(name), now_ms);
            }
            RollbackTarget::Clients => {
                self.want_back(&leg, &able, &why);
                self.rollout.going_back = Some(GoingBack {
                    by: by.to_owned(),
                    reason: reason.to_owned(),
                    leg,
                    at_ms: now_ms,
                });
                self.rollout.pause = None;
                self.rollout.before_pause = None;
                self.rollout.keeping_since_ms = None;
                self.next_epoch();
                self.set_rollout(RolloutPhase::RollingBack, &why, now_ms);
                return answer;
            }
        }
        self.pause(
            "rollback",
            &format!("{what} goes back: {reason}"),
            "`retry` those that should try again, `resume` to go on without them, or `abort`",
            by,
            now_ms,
        );
        answer
    }

    /// The newest client leg that has begun.
    fn leg_of_clients(&self) -> Option<LegId> {
        let begun =
            |leg: &&super::LegRow| leg.phase != LegPhase::Waiting && self.leg_target(&leg.leg).is_some();
        self.legs.iter().rev().find(begun).map(|leg| leg.leg.clone())
    }

    /// Whether an operator can take a host back now.
    pub(crate) fn goes_back(&self, host: &HostId) -> bool {
        let under_way = matches!(
            self.rollout.phase,
            RolloutPhase::Running | RolloutPhase::Paused | RolloutPhase::Checking
        );
        let leg = self.leg_of_clients();
        under_way
            && self.rollout.going_back.is_none()
            && self.open_hop().is_none()
            && leg.is_some_and(|leg| self.way_back(&leg, host).is_ok())
    }

    /// Whether a host can be taken back in a leg.
    fn way_back(&self, leg: &LegId, host: &HostId) -> Result<(), NoWay> {
        let row = self.host(leg, host).ok_or(NoWay::NotUpgraded)?;
        match row.phase {
            HostPhase::RollingBack => return Err(NoWay::Going),
            _ if row.back_wanted.is_some() => return Err(NoWay::Going),
            HostPhase::Upgraded => return Err(NoWay::Kept),
            HostPhase::Settling if !row.rests() || row.code == codes::TOO_LATE => return Err(NoWay::Kept),
            HostPhase::Settling | HostPhase::Verifying | HostPhase::Switching | HostPhase::Permitted => {}
            _ => return Err(NoWay::NotUpgraded),
        }
        if self.leaves_pmm2(leg, host) {
            return Err(NoWay::Server);
        }
        Ok(())
    }

    /// Whether going back would lead a host to PMM 2 under a server that promises nothing to it.
    fn leaves_pmm2(&self, leg: &LegId, host: &HostId) -> bool {
        let from = self
            .plan
            .entry(leg, host)
            .map(|entry| entry.expect.from_max)
            .or_else(|| self.planned(host).and_then(|planned| planned.from));
        self.serves_no_pmm2(leg) && from.is_none_or(|from| from.major < 3)
    }

    /// Why a host stays on the leg's release although the others of its group, or all clients, were taken back: the server promises nothing to
    /// what it came from.
    pub(crate) fn stays_behind_others(&self, leg: &LegId, host: &HostId) -> Option<String> {
        let row = self.host(leg, host)?;
        let goes_on = matches!(
            row.phase,
            HostPhase::Permitted | HostPhase::Switching | HostPhase::Verifying
        );
        let stays = row.upgraded() || goes_on;
        if !stays || row.back_wanted.is_some() || !row.code.is_empty() {
            return None;
        }
        let group = self
            .planned(host)
            .and_then(|planned| self.group(leg, &planned.group));
        let closed = group.is_some_and(|row| row.phase == GroupPhase::RolledBack);
        let all = self.rollout.going_back.as_ref();
        let others = match all {
            Some(back) if back.leg == *leg => "all clients were taken back",
            _ if closed => "its group was taken back",
            _ => return None,
        };
        if !self.leaves_pmm2(leg, host) {
            return None;
        }
        let to = self.leg_target(leg)?;
        let does = if goes_on { "it goes on to" } else { "it stays on" };
        Some(format!(
            "{others}, and {does} {to}: {}, which promises nothing to PMM 2 clients",
            self.server_by_now(leg)
        ))
    }

    /// Those of these hosts that can go back, and the answer about all of them.
    fn who_can_go_back(&self, leg: &LegId, what: &str, hosts: &[HostId]) -> (Vec<HostId>, Answer) {
        let mut able = Vec::new();
        let (mut kept, mut server, mut going) = (Vec::new(), Vec::new(), Vec::new());
        for host in hosts {
            match self.way_back(leg, host) {
                Ok(()) => able.push(host.clone()),
                Err(NoWay::Kept) => kept.push(self.name(host)),
                Err(NoWay::Server) => server.push(self.name(host)),
                Err(NoWay::Going) => going.push(self.name(host)),
                Err(NoWay::NotUpgraded) => {}
            }
        }
        let kept_text = || {
            format!(
                "the upgrade is final already on {}",
                some_of(kept.iter().copied())
            )
        };
        let server_text = || {
            format!(
                "{}, which promises nothing to PMM 2 clients, and these came from PMM 2: {}",
                self.server_by_now(leg),
                some_of(server.iter().copied())
            )
        };
        if !able.is_empty() {
            let mut text = format!(
                "{what}: {} host{} back, at most as many at once as the group allows",
                able.len(),
                if able.len() == 1 { " goes" } else { "s go" }
            );
            let unable = kept.len() + server.len();
            if unable > 0 {
                text.push_str(&format!("; {unable} can't"));
            }
            if !kept.is_empty() {
                text.push_str(&format!("; {}", kept_text()));
            }
            if !server.is_empty() {
                text.push_str(&format!("; {}", server_text()));
            }
            return (able, accepted(text));
        }
        let answer = if !server.is_empty() {
            refused(
                "no_way_back",
                server_text(),
                "repair the client on the host, `host restart-client` starts it again; `pause` or `abort` keeps further hosts from it",
            )
        } else if !kept.is_empty() {
            refused(
                codes::TOO_LATE,
                kept_text(),
                "what was saved for the way back is gone; install the old release on the host by hand if it is needed",
            )
        } else if !going.is_empty() {
            refused(
                "going_back",
                format!("going back already: {}", some_of(going.iter().copied())),
                "see `status`",
            )
        } else {
            refused(
                "not_upgraded",
                format!("{leg} upgraded nothing of {what}"),
                "see `explain`; `skip` leaves out a host that did not begin",
            )
        };
        (able, answer)
    }

    /// Release of the server while a client leg is under way.
    pub(super) fn serves_during(&self, leg: &LegId) -> String {
        let before = self.plan.legs.iter().take_while(|found| found.id != *leg);
        let last = before
            .filter_map(|found| match &found.kind {
                LegKind::Server { hops, .. } => hops.last().map(|hop| hop.to),
                _ => None,
            })
            .last();
        last.unwrap_or(self.plan.server.from).to_string()
    }

    fn want_back(&mut self, leg: &LegId, hosts: &[HostId], why: &str) {
        for host in hosts {
            self.edit(leg, host, |row| row.back_wanted = Some(why.to_owned()));
        }
    }

    /// Takes back the hosts of a group that this leg upgraded and whose way back is kept, as its policy wants after a failure too many. What
    /// becomes of the group's other hosts is the caller's.
    pub(super) fn take_group_back(&mut self, leg: &LegId, group: &PlanGroup, reason: &str, now_ms: u64) {
        let able: Vec<HostId> = group
            .hosts
            .iter()
            .filter(|host| self.way_back(leg, host).is_ok())
            .cloned()
            .collect();
        let lost: Vec<HostId> = group
            .hosts
            .iter()
            .filter(|host| self.goes_back_once_there(leg, host))
            .cloned()
            .collect();
        let why = format!("its group is taken back: {reason}");
        self.want_back(leg, &able, &why);
        self.want_back(leg, &lost, &why);
        let later = match lost.len() {
            0 => String::new(),
            lost => format!(", {lost} more when back"),
        };
        let text = format!(
            "group {}: {} of {} hosts go back{later}: {reason}",
            group.name,
            able.len(),
            group.hosts.len()
        );
        self.event(now_ms, format!("group:{}", group.name), "group_goes_back", text);
        self.drive_back(now_ms);
    }

    /// Whether a lost host would be one of those that go back if it were there.
    fn goes_back_once_there(&self, leg: &LegId, host: &HostId) -> bool {
        let under_way = |row: &HostRow| {
            row.phase == HostPhase::Lost && row.order.is_some() && row.lost_in != Some(HostPhase::RollingBack)
        };
        self.host(leg, host).is_some_and(under_way) && !self.leaves_pmm2(leg, host)
    }

    /// No host of the group begins any more.
    fn close_group(&mut self, leg: &LegId, group: &GroupName, now_ms: u64) {
        self.leave_rest_behind(leg, group, now_ms);
        self.set_group(leg, group, GroupPhase::RolledBack, now_ms);
    }

    /// Ends the hosts of a group that was taken back that did not begin, also those that had a permit by then and let it pass.
    pub(super) fn leave_rest_behind(&mut self, leg: &LegId, group: &GroupName, now_ms: u64) {
        let hosts = self
            .plan
            .group(group)
            .map_or_else(Vec::new, |group| group.hosts.clone());
        for host in hosts {
            self.leave_behind(leg, &host, HostPhase::Skipped, "its group was taken back", now_ms);
        }
    }

    /// Ends a host that did not begin.
    fn leave_behind(&mut self, leg: &LegId, host: &HostId, phase: HostPhase, reason: &str, now_ms: u64) {
        let begins = self.host(leg, host).is_some_and(|row| row.phase.before_permit());
        if begins && !self.leave_lost(leg, host, reason, now_ms) {
            self.enter(leg, host, phase, now_ms, |row| {
                row.slot = row.broken;
                row.reason = row.not_begun(reason);
            });
        }
    }

    /// A lost host is back. Whoever was to go back by then, or whose group or all clients were taken back meanwhile, goes back, unless the
    /// rollout has gone on to the next leg: a way back is kept until that begins.
    pub(super) fn goes_back_with_others(&mut self, leg: &LegId, host: &HostId, now_ms: u64) {
        let wanted = self.host(leg, host).is_some_and(|row| row.back_wanted.is_some());
        let too_late = wanted && (self.has_gone_on(leg) || self.leaves_pmm2(leg, host));
        if too_late {
            self.edit(leg, host, |row| {
                row.back_wanted = None;
                TOO_LATE.clone_into(&mut row.reason);
            });
        }
        let stays = self.stays_behind_others(leg, host);
        if let Some(why) = stays.or_else(|| too_late.then(|| TOO_LATE.to_owned())) {
            let text = format!("{}: {why}", self.name(host));
            self.event(now_ms, format!("host:{host}"), "host_not_taken_back", text);
            return;
        }
        let group = self
            .planned(host)
            .and_then(|planned| self.group(leg, &planned.group));
        let closed = group.is_some_and(|row| row.phase == GroupPhase::RolledBack);
        let all = self.rollout.going_back.as_ref().filter(|back| back.leg == *leg);
        if !closed && all.is_none() || self.way_back(leg, host).is_err() {
            return;
        }
        let why = all.map_or_else(
            || "its group was taken back while it was away".to_owned(),
            |back| format!("taken back by {}: {}", back.by, back.reason),
        );
        self.want_back(leg, std::slice::from_ref(host), &why);
    }

    /// Whether a leg after this one has begun.
    pub(super) fn has_gone_on(&self, leg: &LegId) -> bool {
        let mut later = self.legs.iter().skip_while(|row| row.leg != *leg).skip(1);
        later.any(|row| !matches!(row.phase, LegPhase::Waiting | LegPhase::Cancelled))
    }

    /// Gives the orders back that slots allow. With all clients going back one group goes after the other, the last one first.
    pub(super) fn drive_back(&mut self, now_ms: u64) {
        if self.works_at_hop() {
            return;
        }
        let wanted = HostRow::waits_to_go_back;
        let legs: Vec<LegId> = self
            .hosts
            .iter()
            .filter(|(_, rows)| rows.values().any(wanted))
            .map(|(leg, _)| leg.clone())
            .collect();
        let plan = Arc::clone(&self.plan);
        let in_turn = self.rollout.going_back.is_some();
        for leg in legs {
            let mut groups: Vec<&PlanGroup> = plan.groups.iter().collect();
            if in_turn {
                groups.reverse();
            }
            for group in groups {
                self.drive_group_back(&leg, group, now_ms);
                let open = group.hosts.iter().any(|host| {
                    self.host(&leg, host)
                        .is_some_and(|row| wanted(row) || row.phase == HostPhase::RollingBack)
                });
                if in_turn && open {
                    break;
                }
            }
        }
    }

    fn drive_group_back(&mut self, leg: &LegId, group: &PlanGroup, now_ms: u64) {
        let due =
            |row: &HostRow| row.back_wanted.is_some() && (row.phase == HostPhase::Verifying || row.rests());
        let mut hosts: Vec<HostId> = group
            .hosts
            .iter()
            .filter(|host| self.host(leg, host).is_some_and(due))
            .cloned()
            .collect();
        if hosts.is_empty() {
            return;
        }
        // The last ones first; those that are away would only hold up the others.
        hosts.reverse();
        hosts.sort_by_key(|host| !self.is_connected(host));
        let tally = self.tally(leg, group, now_ms);
        let most = self.max_unavailable(leg, group);
        let mut slots = tally.slots;
        let mut waits = false;
        let mut census = self.census(now_ms);
        let mut crowds = Vec::new();
        for host in &hosts {
            let Some(row) = self.host(leg, host) else { continue };
            let has_slot = self.holds_slot(leg, host);
            if !has_slot && slots >= most {
                waits = true;
                continue;
            }
            // On its way back a client is down as it was on its way forward.
            if !has_slot {
                if let Some(crowd) = self.crowd(&census, host, row) {
                    crowds.push(crowd);
                    continue;
                }
                self.count_in(&mut census, host, true);
            }
            slots += u32::from(!has_slot);
            self.order_back(leg, host, now_ms);
        }
        if crowds.len() == hosts.len() && tally.in_flight == 0 {
            self.look_at_crowds(group, &crowds, now_ms);
        }
        if waits && tally.stuck_slots >= most {
            let text = format!(
                "group {}: all {most} slots are held by hosts that ended without a working client{}; others wait to go back",
                group.name,
                self.stuck_before_retry(leg, group, now_ms)
            );
            self.pause(
                "slots_exhausted",
                &text,
                "repair them and `host free-slot`, then `resume`",
                "coordinator",
                now_ms,
            );
        }
    }

    /// Whether a host is still to be told to go back.
    pub(super) fn waits_to_go_back(&self) -> bool {
        let mut rows = self.hosts.values().flat_map(|rows| rows.values());
        rows.any(HostRow::waits_to_go_back)
    }

    fn order_back(&mut self, leg: &LegId, host: &HostId, now_ms: u64) {
        let Some(row) = self.host(leg, host) else { return };
        let (from, why) = (row.phase, row.back_wanted.clone().unwrap_or_default());
        let slot = !self.breaks(super::Mutant::BackWithoutSlot);
        self.enter(leg, host, HostPhase::RollingBack, now_ms, |row| {
            row.slot = slot;
            row.reason = why;
            row.back_wanted = None;
            row.taken_back = true;
            row.back_from = Some(from);
        });
        self.give(leg, host, Action::Rollback, now_ms);
    }

    /// A host that was taken back answered. Where nothing was changed it is what it was.
    pub(super) fn taken_back(&mut self, leg: &LegId, host: &HostId, result: &OrderResult, now_ms: u64) {
        let Some(row) = self.host(leg, host) else { return };
        let (why, from) = (row.reason.clone(), row.back_from);
        match result.outcome {
            Outcome::Done | Outcome::RolledBack => {
                let running = switch_detail(result)
                    .map(|detail| detail.to)
                    .filter(|to| !to.is_empty());
                self.enter(leg, host, HostPhase::RolledBack, now_ms, |row| {
                    row.slot = false;
                    row.broken = false;
                    row.counts = false;
                    codes::GIVEN_UP.clone_into(&mut row.code);
                    row.reason = why;
                    row.running = running;
                });
            }
            Outcome::Inconsistent => {
                self.fail(leg, host, HostPhase::Inconsistent, result, now_ms);
                self.edit(leg, host, |row| {
                    row.reason = format!("{why}; the way back failed: {}", result.message);
                });
            }
            Outcome::Refused | Outcome::Expired | Outcome::FailedNothingChanged => {
                let code = result.code.as_str().to_owned();
                let note = format!("it did not go back ({code}): {}", result.message);
                if from == Some(HostPhase::Verifying) {
                    let until = now_ms + self.gate(leg, host).1;
                    self.enter(leg, host, HostPhase::Verifying, now_ms, |row| {
                        row.deadline_ms = Some(until);
                    });
                } else {
                    self.verified(leg, host, now_ms);
                }
                self.edit(leg, host, |row| {
                    row.order = None;
                    row.taken_back = false;
                    row.code = code;
                    row.reason = format!("{}; {note}", row.reason)
                        .trim_start_matches("; ")
                        .to_owned();
                });
                self.event(now_ms, format!("host:{host}"), "host_not_taken_back", note);
            }
        }
    }

    /// All clients of the leg go back, and then the rollout has ended.
    pub(super) fn drive_going_back(&mut self, now_ms: u64) {
        let Some(back) = self.rollout.going_back.clone() else {
            return;
        };
        let why = format!("taken back by {}: {}", back.by, back.reason);
        let all: Vec<(LegId, HostId)> = self
            .plan
            .legs
            .iter()
            .filter(|leg| matches!(leg.kind, LegKind::Clients { .. }))
            .flat_map(|leg| {
                self.hosts[&leg.id]
                    .keys()
                    .map(|host| (leg.id.clone(), host.clone()))
            })
            .collect();
        for (leg, host) in all {
            self.leave_behind(
                &leg,
                &host,
                HostPhase::Cancelled,
                "the rollout's clients were taken back",
                now_ms,
            );
            // Also those that were under way when that began. Whoever refused once is not asked again.
            let untried = self.host(&leg, &host).is_some_and(|row| row.code.is_empty());
            if leg == back.leg && untried && self.way_back(&leg, &host).is_ok() {
                self.edit(&leg, &host, |row| row.back_wanted = Some(why.clone()));
            }
        }
        self.cancel_unbegun_groups(now_ms);
        if !self.way_back_is_paused() {
            self.drive_back(now_ms);
        }
        if self.rollout.phase != RolloutPhase::RollingBack
            || self.waits_to_go_back()
            || self.anything_in_flight()
            || self.works_at_hop()
            || !self.keep_before(self.legs.len(), now_ms)
            || self.waits_for_last_look(now_ms)
        {
            return;
        }
        self.keep_last_look();
        for at in 0..self.legs.len() {
            let open = matches!(self.legs[at].phase, LegPhase::Waiting | LegPhase::Running);
            if open || self.legs[at].leg == back.leg {
                self.set_leg(at, LegPhase::Cancelled, now_ms);
            }
        }
        let plan = Arc::clone(&self.plan);
        for group in &plan.groups {
            let went = group
                .hosts
                .iter()
                .any(|host| self.host(&back.leg, host).is_some_and(|row| row.taken_back));
            if went {
                self.set_group(&back.leg, &group.name, GroupPhase::RolledBack, now_ms);
            }
        }
        self.cancel_groups(now_ms);
        self.rollout.ended_at_ms = Some(now_ms);
        self.dirty.insert(Key::Rollout);
        self.set_rollout(RolloutPhase::RolledBack, &why, now_ms);
    }

    /// Whether a person paused the way back of all clients: nobody else is told to go back meanwhile. The way back of a host or a group goes
    /// on under its own pause.
    pub(super) fn way_back_is_paused(&self) -> bool {
        let pause = self.rollout.pause.as_ref();
        self.rollout.going_back.is_some()
            && self.rollout.phase == RolloutPhase::Paused
            && pause.is_some_and(|pause| pause.code == "operator" || pause.before.is_some())
    }

    /// Groups of which no host began and none can return end with the begin of the way back; the others with its end.
    fn cancel_unbegun_groups(&mut self, now_ms: u64) {
        let over = |row: &HostRow| row.phase.is_final() && row.phase != HostPhase::Lost;
        let rows = self.groups.iter();
        let rows = rows.flat_map(|(leg, rows)| rows.iter().map(move |(name, row)| (leg, name, row)));
        let unbegun: Vec<(LegId, GroupName)> = rows
            .filter(|(leg, name, row)| {
                let Some(group) = self.plan.group(name) else {
                    return false;
                };
                let mut hosts = group.hosts.iter().filter_map(|host| self.host(leg, host));
                matches!(row.phase, GroupPhase::Pending | GroupPhase::Gated)
                    && self.shown_phase(leg, group, row.phase) == GroupPhase::Cancelled
                    && hosts.all(over)
            })
            .map(|(leg, name, _)| (leg.clone(), name.clone()))
            .collect();
        for (leg, name) in unbegun {
            self.set_group(&leg, &name, GroupPhase::Cancelled, now_ms);
        }
    }

    /// An abort: what is under way finishes, and whoever did not go back yet stays.
    pub(super) fn forget_wanted_back(&mut self) {
        let wanted: Vec<(LegId, HostId)> = self
            .hosts
            .iter()
            .flat_map(|(leg, rows)| rows.iter().map(move |(host, row)| (leg, host, row)))
            .filter(|(_, _, row)| row.back_wanted.is_some())
            .map(|(leg, host, _)| (leg.clone(), host.clone()))
            .collect();
        for (leg, host) in wanted {
            self.edit(&leg, &host, |row| row.back_wanted = None);
        }
    }

    /// What a group waits for that was taken back.
    pub(super) fn group_back_duty(&self, leg: &LegId, group: &PlanGroup, now_ms: u64) -> Option<Duty> {
        let open = self.going_back(leg, group);
        let under_way = |host: &HostId| {
            self.host(leg, host)
                .is_some_and(|row| row.phase == HostPhase::RollingBack)
        };
        if open > 0 && self.way_back_is_paused() && !group.hosts.iter().any(under_way) {
            return self.rollout_duty(now_ms);
        }
        let text = format!("{open} to go back");
        // With all clients going back it may wait for a group behind it, and nothing of its own moves.
        let next = || {
            self.next_move_of(leg, group, now_ms)
                .unwrap_or_else(|| self.next_move(now_ms))
        };
        (open > 0).then(|| until_next(Owner::Coordinator, "rolling_back", text, next()))
    }
}
