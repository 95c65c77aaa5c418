//! What happens next: legs in order, then the three checks, then the end.

use super::Kernel;
use super::groups::waits_for_approval;
use super::orders::GRACE_MS;
use super::repoint::asked_by;
use super::rows::Key;
use super::spread::Census;
use super::start::ABSENCE_SUSPENDED_MS;
use super::state::{GroupPhase, HostPhase, LegPhase, RolloutPhase};
use crate::plan::LegKind;
use fleet_common::ids::{HostId, LegId};
use fleet_common::order::Action;
use std::sync::Arc;

/// Hosts that are asked or download at once; a wider storm would only be a longer one for the package server.
pub(super) const PREPARE_WIDTH: usize = 200;
/// The PMM Server should have answered by then.
const VIEW_PATIENCE_MS: u64 = 600_000;

impl Kernel {
    pub(super) fn decide(&mut self, now_ms: u64) {
        match self.rollout.phase {
            RolloutPhase::Planned => return self.remind(now_ms),
            phase if phase.is_final() => return,
            _ => {}
        }
        if self.is_doubted() {
            return self.hold_back(now_ms);
        }
        // A clock that is set back must not make nobody absent for so long.
        self.absence_from_ms = self.absence_from_ms.min(now_ms + ABSENCE_SUSPENDED_MS);
        self.expire(now_ms);
        self.drive_repoints(now_ms);
        if self.rollout.abort.is_some() {
            self.drive_abort(now_ms);
            return self.remind(now_ms);
        }
        if self.rollout.going_back.is_some() {
            self.drive_going_back(now_ms);
            return self.remind(now_ms);
        }
        self.drive_back(now_ms);
        self.return_late_hosts(now_ms);
        self.retell_behind(now_ms);
        let settled = self.legs.iter().all(|leg| leg.phase == LegPhase::Settled);
        if self.rollout.phase == RolloutPhase::Checking && !settled {
            self.set_rollout(RolloutPhase::Running, "a host begins again", now_ms);
        }
        // Each pass settles at most every leg once.
        for _ in 0..=self.legs.len() {
            let Some(at) = self.legs.iter().position(|leg| leg.phase != LegPhase::Settled) else {
                break;
            };
            if !self.drive_leg(at, now_ms) {
                break;
            }
        }
        if self.legs.iter().all(|leg| leg.phase == LegPhase::Settled) {
            self.drive_checks(now_ms);
        }
        self.remind(now_ms);
    }

    /// Works on a leg. True when it is settled.
    fn drive_leg(&mut self, at: usize, now_ms: u64) -> bool {
        let plan = Arc::clone(&self.plan);
        let kind = &plan.legs[at].kind;
        if self.legs[at].phase == LegPhase::Waiting {
            if self.rollout.phase != RolloutPhase::Running
                || !self.may_strand(at, now_ms)
                || !self.may_begin(at, kind, now_ms)
                || !self.keep_before(at, now_ms)
            {
                return false;
            }
            self.set_leg(at, LegPhase::Running, now_ms);
        }
        if self.legs[at].phase != LegPhase::Running {
            return false;
        }
        match kind {
            LegKind::Survey => self.drive_survey(at, now_ms),
            LegKind::Server { .. } => self.drive_server(at, now_ms),
            LegKind::Clients { .. } => {
                self.look_at_unlisted(VIEW_PATIENCE_MS, now_ms);
                self.drive_clients(at, now_ms);
            }
        }
        self.legs[at].phase == LegPhase::Settled
    }

    fn may_begin(&mut self, at: usize, kind: &LegKind, now_ms: u64) -> bool {
        let leg = self.legs[at].leg.clone();
        match kind {
            LegKind::Survey => true,
            LegKind::Server { .. } => self.late_hosts(at).is_empty() && self.bridge_is_crossed(now_ms),
            LegKind::Clients { .. } => {
                let refused: Vec<HostId> = self.rollout.accepted.iter().cloned().collect();
                for host in refused {
                    self.leave_out(
                        &leg,
                        &host,
                        HostPhase::Refused,
                        "it failed the survey and the rollout was resumed without it",
                        now_ms,
                    );
                }
                let lost: Vec<HostId> = self.rollout.left_at_old_address.iter().cloned().collect();
                for host in lost {
                    self.leave_out(
                        &leg,
                        &host,
                        HostPhase::Skipped,
                        "its client did not follow the server to PMM 3's port and the rollout was resumed without it",
                        now_ms,
                    );
                }
                if let Some(earlier) = self.clients_before(at) {
                    for host in self.missed(&earlier) {
                        self.leave_out(
                            &leg,
                            &host,
                            HostPhase::Skipped,
                            &format!("it did not make it in {earlier}"),
                            now_ms,
                        );
                    }
                }
                true
            }
        }
    }

    fn leave_out(&mut self, leg: &LegId, host: &HostId, phase: HostPhase, reason: &str, now_ms: u64) {
        if self.host(leg, host).is_some_and(|row| !row.phase.is_final()) {
            self.enter(leg, host, phase, now_ms, |row| {
                fleet_common::codes::PREFLIGHT.clone_into(&mut row.code);
                reason.clone_into(&mut row.reason);
            });
        }
    }

    /// Asks every host, at most [`PREPARE_WIDTH`] at once. Whoever has to download takes its place in its site before it is asked.
    pub(super) fn prepare(&mut self, leg: &LegId, hosts: &[HostId], census: &mut Census, now_ms: u64) {
        if self.rollout.phase != RolloutPhase::Running {
            return;
        }
        for host in hosts {
            if census.preparing >= PREPARE_WIDTH {
                break;
            }
            let Some(row) = self.host(leg, host) else { continue };
            if row.phase == HostPhase::Waiting
                && asked_by(row, now_ms)
                && self.can_be_asked(host)
                && !self.site_is_full(census, host, row)
            {
                census.preparing += 1;
                if !row.staged && !self.is_down(host) {
                    self.count_in(census, host, false);
                }
                // Asked now; a clock that is set back must not make it wait once more.
                self.enter(leg, host, HostPhase::Preparing, now_ms, |row| {
                    row.ask_at_ms = None
                });
                self.give(leg, host, Action::Preflight, now_ms);
            }
        }
    }

    pub(super) fn can_be_asked(&self, host: &HostId) -> bool {
        let free = self.held(host).is_none() || self.breaks(super::Mutant::HoldIgnored);
        self.is_connected(host) && free
    }

    /// Whether every host of the survey has ended there.
    pub(super) fn survey_answered(&self) -> bool {
        self.legs
            .first()
            .is_some_and(|leg| self.hosts[&leg.leg].values().all(|row| row.phase.is_final()))
    }

    fn drive_survey(&mut self, at: usize, now_ms: u64) {
        let leg = self.legs[at].leg.clone();
        if self.legs[at].offline_until_ms.is_none() {
            self.legs[at].offline_until_ms = Some(now_ms + self.plan.timing.offline_for_ms);
            self.dirty.insert(Key::Leg(leg.clone()));
        }
        let hosts: Vec<HostId> = self.plan.hosts.iter().map(|host| host.host.clone()).collect();
        let mut census = self.census(now_ms);
        self.prepare(&leg, &hosts, &mut census, now_ms);
        let waits = |kernel: &Self, held: bool| {
            kernel.hosts[&leg]
                .iter()
                .any(|(host, row)| !row.phase.is_final() && (held || kernel.held(host).is_none()))
        };
        let timed_out = self.legs[at]
            .offline_until_ms
            .is_some_and(|until| until <= now_ms && self.absence_is_known(now_ms));
        if timed_out || !waits(self, false) {
            // Those that are away or held are asked again at their turn.
            let away: Vec<HostId> = self.hosts[&leg]
                .iter()
                .filter(|(host, row)| row.phase == HostPhase::Waiting && !self.can_be_asked(host))
                .map(|(host, _)| host.clone())
                .collect();
            self.skip_left_behind(at, &away, now_ms);
        }
        if waits(self, true) {
            return;
        }
        let failed: Vec<HostId> = self.hosts[&leg]
            .iter()
            .filter(|(host, row)| row.counts && !self.rollout.accepted.contains(*host))
            .map(|(host, _)| host.clone())
            .collect();
        let unsurveyed = self.unsurveyed();
        if !failed.is_empty() || !unsurveyed.is_empty() {
            self.pause_after_survey(&leg, &failed, &unsurveyed, now_ms);
        } else if self.baseline.is_some() {
            self.set_leg(at, LegPhase::Settled, now_ms);
        } else if self.baseline_wanted_ms(&leg, now_ms) + VIEW_PATIENCE_MS <= now_ms {
            self.pause(
                "server_view_missing",
                "the PMM Server could not be asked for the baseline",
                "make it reachable for the coordinator, then `resume`",
                "coordinator",
                now_ms,
            );
        }
    }

    /// Since when PMM could be asked for the baseline: the survey's last answer, the last `resume` or a start of the coordinator.
    fn baseline_wanted_ms(&self, survey: &LegId, now_ms: u64) -> u64 {
        let ended = self.hosts[survey].values().filter_map(|row| row.ended_at_ms);
        // What lies in the future was before the clock was set back.
        let answered = ended.filter(|at| *at <= now_ms).max().unwrap_or(0);
        answered
            .max(self.rollout.since_ms)
            .max(self.absence_from_ms + GRACE_MS)
    }

    /// A host of a settled leg that has to begin again, because it came back or is tried again.
    fn return_late_hosts(&mut self, now_ms: u64) {
        for at in 0..self.legs.len() {
            let leg = self.legs[at].leg.clone();
            if self.legs[at].phase != LegPhase::Settled || self.groups[&leg].is_empty() {
                continue;
            }
            let begins = |phase: HostPhase| phase.before_permit();
            let late: Vec<HostId> = self.hosts[&leg]
                .iter()
                .filter(|(_, row)| begins(row.phase))
                .map(|(host, _)| host.clone())
                .collect();
            if late.is_empty() {
                continue;
            }
            if self
                .legs
                .get(at + 1)
                .is_none_or(|next| next.phase == LegPhase::Waiting)
            {
                self.legs[at].offline_until_ms = None;
                self.set_leg(at, LegPhase::Running, now_ms);
            } else {
                for host in late {
                    if self.leave_lost(&leg, &host, "its leg was over", now_ms) {
                        continue;
                    }
                    self.enter(&leg, &host, HostPhase::Skipped, now_ms, |row| {
                        row.slot = row.broken;
                        row.order = None;
                        "it came back after its leg was over".clone_into(&mut row.reason);
                    });
                }
            }
        }
    }

    pub(super) fn anything_in_flight(&self) -> bool {
        self.hosts
            .values()
            .any(|rows| rows.values().any(super::HostRow::in_flight))
    }

    fn drive_checks(&mut self, now_ms: u64) {
        let returned = self
            .hosts
            .values()
            .any(|rows| rows.values().any(|row| row.phase.in_flight()));
        if self.rollout.keeping_since_ms.is_some()
            && self.rollout.phase == RolloutPhase::Checking
            && !returned
        {
            if self.keep_before(self.legs.len(), now_ms) {
                self.finish(now_ms);
            }
            return;
        }
        if returned && self.rollout.before_pause == Some(RolloutPhase::Checking) {
            // What was seen before says nothing of what is changed meanwhile.
            self.rollout.before_pause = Some(RolloutPhase::Running);
            self.dirty.insert(Key::Rollout);
        }
        if self.anything_in_flight() {
            if self.rollout.phase == RolloutPhase::Checking {
                self.set_rollout(RolloutPhase::Running, "a host came back and is under way", now_ms);
            }
            return;
        }
        if self.rollout.phase == RolloutPhase::Running {
            self.verification = None;
            self.dirty.insert(Key::Verification);
            self.rollout.check_since_ms = Some(now_ms);
            self.rollout.check_until_ms = Some(now_ms + self.plan.timing.verify_ms);
            self.rollout.keeping_since_ms = None;
            self.set_rollout(
                RolloutPhase::Checking,
                "clients, services, metrics and Query Analytics",
                now_ms,
            );
        }
        if self.rollout.phase != RolloutPhase::Checking {
            return;
        }
        let over = self.rollout.check_until_ms.is_none_or(|until| until <= now_ms);
        let looked_at = self.verification.is_some() && self.all_was_seen(now_ms);
        if self.checks_are_as_good_as_they_get(now_ms) || (over && looked_at) {
            self.rollout.keeping_since_ms = Some(now_ms);
            self.dirty.insert(Key::Rollout);
            if self.keep_before(self.legs.len(), now_ms) {
                self.finish(now_ms);
            }
        } else if over {
            self.rollout.check_until_ms = Some(now_ms + self.plan.timing.verify_ms);
            self.pause(
                "server_view_missing",
                "the PMM Server could not be asked for the three checks",
                "make it reachable for the coordinator, then `resume`",
                "coordinator",
                now_ms,
            );
        }
    }

    fn finish(&mut self, now_ms: u64) {
        let lost = self.lost_hosts();
        let last: Option<&LegId> = self
            .plan
            .legs
            .iter()
            .rev()
            .find(|leg| matches!(leg.kind, LegKind::Clients { .. }))
            .map(|leg| &leg.id);
        let all_well = last.is_none_or(|leg| self.hosts[leg].values().all(super::HostRow::made_it));
        let holds = self
            .verification
            .as_ref()
            .is_some_and(fleet_common::verification::Verification::holds);
        let refused = last.is_none()
            && self
                .plan
                .hosts
                .iter()
                .any(|host| host.action != crate::plan::HostAction::AlreadyCurrent);
        let (phase, text) = if !lost.is_empty() {
            (
                RolloutPhase::FinishedWithLost,
                format!("lost: {}", lost.into_iter().collect::<Vec<_>>().join(", ")),
            )
        } else if all_well && holds && !refused {
            (
                RolloutPhase::Succeeded,
                "every host is upgraded and all three checks hold".to_owned(),
            )
        } else if all_well && !refused {
            (
                RolloutPhase::FinishedWithExceptions,
                "every host is upgraded, but not every check holds".to_owned(),
            )
        } else {
            (
                RolloutPhase::FinishedWithExceptions,
                "not every host is upgraded".to_owned(),
            )
        };
        self.rollout.ended_at_ms = Some(now_ms);
        self.set_rollout(phase, &text, now_ms);
    }

    pub(super) fn drive_abort(&mut self, now_ms: u64) {
        let force = self.rollout.abort.as_ref().is_some_and(|abort| abort.force);
        let all: Vec<(LegId, HostId, HostPhase)> = self
            .hosts
            .iter()
            .flat_map(|(leg, rows)| {
                rows.iter()
                    .map(move |(host, row)| (leg.clone(), host.clone(), row.phase))
            })
            .collect();
        let mut following = false;
        self.forget_wanted_back();
        for (leg, host, phase) in all {
            match phase {
                HostPhase::Waiting if self.keeps_following(&leg, &host) => following = true,
                HostPhase::Waiting | HostPhase::Preparing | HostPhase::Ready => {
                    self.cancel(&leg, &host, now_ms)
                }
                HostPhase::Verifying if force => {
                    self.go_back(&leg, &host, "the rollout was aborted by force", now_ms)
                }
                _ => {}
            }
        }
        if self.open_hop().is_some() && self.legs.iter().all(|leg| leg.phase != LegPhase::NeedsOperator)
            || self.anything_in_flight()
            || following
        {
            return;
        }
        if !self.keep_before(self.legs.len(), now_ms) || self.waits_for_last_look(now_ms) {
            return;
        }
        self.keep_last_look();
        for at in 0..self.legs.len() {
            if matches!(self.legs[at].phase, LegPhase::Waiting | LegPhase::Running) {
                self.set_leg(at, LegPhase::Cancelled, now_ms);
            }
        }
        self.cancel_groups(now_ms);
        self.rollout.ended_at_ms = Some(now_ms);
        self.set_rollout(RolloutPhase::Aborted, "nothing is under way any more", now_ms);
    }

    pub(super) fn set_rollout(&mut self, phase: RolloutPhase, text: &str, now_ms: u64) {
        let word = |phase: RolloutPhase| {
            serde_json::to_value(phase)
                .ok()
                .and_then(|value| value.as_str().map(str::to_owned))
                .unwrap_or_default()
        };
        let line = format!("rollout: {} -> {}: {text}", word(self.rollout.phase), word(phase));
        self.rollout.phase = phase;
        self.rollout.since_ms = now_ms;
        self.dirty.insert(Key::Rollout);
        self.event(now_ms, "rollout", &format!("rollout_{}", word(phase)), line);
    }

    pub(super) fn remind(&mut self, now_ms: u64) {
        self.look_at_cause(now_ms);
        let every = self.plan.timing.reminder_ms.max(1);
        self.remind_of_approvals(now_ms, every);
        self.remind_of_the_rest(now_ms, every);
        let Some(pause) = self
            .rollout
            .pause
            .as_mut()
            .filter(|pause| pause.remind_at_ms <= now_ms)
        else {
            return;
        };
        pause.remind_at_ms = now_ms + every;
        let text = if pause.over_since_ms.is_some() {
            format!("still paused, and the cause is gone: {}; `resume`", pause.text)
        } else {
            format!("still paused: {}; {}", pause.text, pause.hint)
        };
        self.dirty.insert(Key::Rollout);
        self.event(now_ms, "rollout", "reminder", text);
    }

    /// A group that waits for approval is easily forgotten: nothing else says that it waits.
    fn remind_of_approvals(&mut self, now_ms: u64, every_ms: u64) {
        if self.rollout.phase != RolloutPhase::Running {
            return;
        }
        let plan = Arc::clone(&self.plan);
        for leg in &plan.legs {
            for group in &plan.groups {
                let due = self.group(&leg.id, &group.name).is_some_and(|row| {
                    row.phase == GroupPhase::Gated
                        && waits_for_approval(row, group)
                        && row.remind_at_ms.unwrap_or(row.since_ms + every_ms) <= now_ms
                });
                if due {
                    self.edit_group(&leg.id, &group.name, |row| {
                        row.remind_at_ms = Some(now_ms + every_ms)
                    });
                    let text = format!("group {0} still waits for `approve {0}`", group.name);
                    self.event(now_ms, format!("group:{}", group.name), "reminder", text);
                }
            }
        }
    }
}
