//! What hosts say: sessions and events.

use super::orders::GRACE_MS;
use super::rows::Key;
use super::state::{Disturbance, Hold, HostPhase, Mark, RolloutPhase, StepRow};
use super::{Kernel, Link};
use fleet_common::codes;
use fleet_common::ids::{HostId, LegId, OrderId};
use fleet_common::order::{Action, HostEvent, OrderResult, Outcome, SwitchDetail};
use fleet_common::survey::{HostSurvey, Verdict};

/// Permits that may run out, or preparations that may stay unanswered, before the host has failed.
pub(super) const PATIENCE: u32 = 3;

impl Kernel {
    /// Open orders are sent again, also those that the host is working on: it learns whether they stand under the new epoch.
    pub(super) fn connected(&mut self, host: &HostId, now_ms: u64) {
        self.links.insert(
            host.clone(),
            Link {
                connected: true,
                since_ms: now_ms,
            },
        );
        for leg in self.legs_with_open_order(host) {
            self.reopen_if_lost(&leg, host, now_ms);
            self.send(&leg, host, now_ms);
        }
    }

    /// Legs in which a host has an order open, or is lost.
    fn legs_with_open_order(&self, host: &HostId) -> Vec<LegId> {
        let busy = |leg: &&LegId| {
            self.host(leg, host)
                .is_some_and(|row| row.order.is_some() || row.phase == HostPhase::Lost)
        };
        self.plan
            .legs
            .iter()
            .map(|leg| &leg.id)
            .filter(busy)
            .cloned()
            .collect()
    }

    /// A lost host that returns goes on where it was; so does a rollout that had ended without it.
    fn reopen_if_lost(&mut self, leg: &LegId, host: &HostId, now_ms: u64) {
        let Some(row) = self.host(leg, host) else { return };
        if !row.is_awaited() {
            return;
        }
        let without_order = row.order.is_none();
        self.forgive_no_more(leg, host);
        let Some(row) = self.host(leg, host) else { return };
        if without_order {
            self.ask_anew(leg, host, "it came back", now_ms);
            return self.reopened(host, "its next attempt", now_ms);
        }
        let phase = row.lost_in.unwrap_or(HostPhase::Switching);
        let step = row.step.clone();
        let place = step
            .as_ref()
            .map_or_else(|| phase.as_str().replace('_', " "), |step| step.step.clone());
        let wait = match phase {
            HostPhase::RollingBack => self.plan.timing.rollback_ms * 2 + GRACE_MS,
            HostPhase::Permitted => self.plan.timing.permit_ms + GRACE_MS,
            _ => self.plan.timing.switch_ms + GRACE_MS,
        };
        let takes_slot = self.leg_target(leg).is_some() && !self.breaks(super::Mutant::ReturnsWithoutSlot);
        self.enter(leg, host, phase, now_ms, |row| {
            row.step = step;
            row.deadline_ms = Some(now_ms + wait);
            row.reason = "it came back".to_owned();
            // Its slot may have been freed meanwhile. What really happens there counts, also beyond the maximum: nobody else begins before
            // it is below that again.
            row.slot |= takes_slot;
        });
        self.goes_back_with_others(leg, host, now_ms);
        self.reopened(host, &place, now_ms);
    }

    /// Whoever accepted a loss accepted no more than that: how the host ends once it is back counts.
    fn forgive_no_more(&mut self, leg: &LegId, host: &HostId) {
        let group = self.planned(host).map(|planned| planned.group.clone());
        let forgiven = group.filter(|group| {
            self.group(leg, group)
                .is_some_and(|row| row.forgiven.contains(host))
        });
        if let Some(group) = forgiven {
            self.edit_group(leg, &group, |row| {
                row.forgiven.remove(host);
            });
        }
    }

    fn reopened(&mut self, host: &HostId, place: &str, now_ms: u64) {
        let target = self.name(host).to_owned();
        self.disturbed(target, format!("{place}: it was lost and came back"), now_ms);
        self.goes_on_after_its_end("a lost host came back", now_ms);
    }

    /// What was given up is under way after all: a rollout that had ended without it goes on until that has ended, too.
    pub(super) fn goes_on_after_its_end(&mut self, why: &str, now_ms: u64) {
        if self.rollout.phase.is_final() {
            let phase = if self.rollout.abort.is_some() {
                RolloutPhase::Aborting
            } else if self.rollout.going_back.is_some() {
                RolloutPhase::RollingBack
            } else {
                RolloutPhase::Running
            };
            self.rollout.ended_at_ms = None;
            self.rollout.check_until_ms = None;
            self.rollout.keeping_since_ms = None;
            self.set_rollout(phase, why, now_ms);
        }
    }

    pub(super) fn host_event(&mut self, host: &HostId, order: &OrderId, event: HostEvent, now_ms: u64) {
        match event {
            HostEvent::InventoryChanged { .. } => {}
            HostEvent::HoldChanged { held } => self.set_hold(host, now_ms, |hold| hold.host = held),
            event => {
                let leg = order
                    .as_str()
                    .strip_prefix(self.rollout.id.as_str())
                    .and_then(|rest| rest.strip_prefix('/'));
                let Some(leg) = leg.and_then(|rest| rest.split('/').next()).map(LegId::from) else {
                    return;
                };
                let open = self.host(&leg, host).and_then(|row| row.order.as_ref());
                // Anything else is the answer to an order that is over: a repetition.
                if open.is_some_and(|open| open.id == *order) {
                    self.reopen_if_lost(&leg, host, now_ms);
                    self.order_event(&leg, host, event, now_ms);
                }
            }
        }
    }

    /// Changes who holds a host. One does not lift the other's hold.
    pub(super) fn set_hold(&mut self, host: &HostId, now_ms: u64, change: impl FnOnce(&mut Hold)) {
        if self.planned(host).is_none() {
            return;
        }
        let hold = self.holds.entry(host.clone()).or_default();
        let before = hold.clone();
        change(hold);
        if *hold == before {
            return;
        }
        self.dirty.insert(Key::Hold(host.clone()));
        let lifted = before.operator.is_some() && hold.operator.is_none();
        let (code, text) = match self.held(host) {
            Some(reason) if lifted => (
                "host_held",
                format!(
                    "the operator's hold of {} is lifted, it is held on the host: {reason}",
                    self.name(host)
                ),
            ),
            Some(reason) => ("host_held", format!("{} is held: {reason}", self.name(host))),
            None => (
                "host_unheld",
                format!("the hold of {} is lifted", self.name(host)),
            ),
        };
        self.event(now_ms, format!("host:{host}"), code, text);
    }

    fn order_event(&mut self, leg: &LegId, host: &HostId, event: HostEvent, now_ms: u64) {
        match event {
            HostEvent::Accepted if self.breaks(super::Mutant::HonestyIllegal) => {
                self.illegal(now_ms, format!("host:{host}"), "accepted".to_owned());
            }
            HostEvent::Accepted => self.edit(leg, host, |row| {
                if let Some(order) = &mut row.order {
                    order.accepted = true;
                }
            }),
            HostEvent::StepStarted {
                step,
                index,
                of,
                deadline_for_ms,
            } => {
                let permitted = self
                    .host(leg, host)
                    .filter(|row| row.phase == HostPhase::Permitted);
                if let Some(row) = permitted {
                    let deadline = now_ms + self.plan.timing.switch_ms + GRACE_MS;
                    let late = match (&self.rollout.abort, row.is_called_back()) {
                        (Some(_), _) => Some("abort"),
                        (None, true) => Some("hold"),
                        (None, false) => None,
                    };
                    self.enter(leg, host, HostPhase::Switching, now_ms, |row| {
                        row.deadline_ms = Some(deadline);
                        if let Some(what) = late {
                            row.reason = format!("it had begun before the {what} reached it, and finishes");
                        }
                    });
                    if let Some(what) = late {
                        let text = format!("the {what} came too late for {}: it had begun", self.name(host));
                        self.event(now_ms, format!("host:{host}"), codes::TOO_LATE, text);
                    }
                }
                let began = StepRow {
                    step,
                    index,
                    of,
                    since_ms: now_ms,
                    waits_for: String::new(),
                    deadline_ms: now_ms + deadline_for_ms,
                    took_ms: None,
                };
                self.edit(leg, host, |row| row.step = Some(began));
            }
            HostEvent::StepFinished { step, took_ms, .. } => self.edit(leg, host, |row| {
                if let Some(current) = row.step.as_mut().filter(|current| current.step == step) {
                    current.took_ms = Some(took_ms);
                }
            }),
            HostEvent::Resumed { step, decision } => {
                let target = self.name(host).to_owned();
                let text =
                    format!("the agent of {target} came back in step {step} and decided to {decision}");
                self.disturbed(target, step, now_ms);
                self.event(now_ms, format!("host:{host}"), "host_resumed", text);
            }
            HostEvent::Finished(result) => {
                let wanted_back = self.host(leg, host).is_some_and(|row| row.back_wanted.is_some());
                self.finished(leg, host, &result, now_ms);
                if !wanted_back {
                    self.try_by_itself(leg, host, now_ms);
                }
            }
            HostEvent::InventoryChanged { .. } | HostEvent::HoldChanged { .. } => {}
        }
    }

    pub(super) fn disturbed(&mut self, target: String, step: String, now_ms: u64) {
        self.rollout.disturbances.push(Disturbance {
            target,
            step,
            at: now_ms,
        });
        self.dirty.insert(Key::Rollout);
    }

    fn finished(&mut self, leg: &LegId, host: &HostId, result: &OrderResult, now_ms: u64) {
        let Some((phase, Some(action))) = self
            .host(leg, host)
            .map(|row| (row.phase, row.order.as_ref().map(|order| order.action)))
        else {
            return;
        };
        match (phase, action) {
            (HostPhase::Preparing, Action::Preflight) => self.preflight_done(leg, host, result, now_ms),
            (HostPhase::Preparing, Action::Stage) => self.stage_done(leg, host, result, now_ms),
            (HostPhase::Permitted | HostPhase::Switching, Action::Switch) => {
                self.switch_done(leg, host, result, now_ms)
            }
            (HostPhase::Settling, Action::Keep) => {
                let note = if result.outcome == Outcome::Done {
                    String::new()
                } else {
                    format!(
                        "upgraded, but the files saved for the way back are still there: {}",
                        result.message
                    )
                };
                self.enter(leg, host, HostPhase::Upgraded, now_ms, |row| row.reason = note);
            }
            (HostPhase::Repointing, Action::Repoint) => self.repoint_done(leg, host, result, now_ms),
            (HostPhase::RollingBack, Action::Rollback)
                if self.host(leg, host).is_some_and(|row| row.taken_back) =>
            {
                self.taken_back(leg, host, result, now_ms)
            }
            (HostPhase::RollingBack, Action::Rollback) => {
                let back = matches!(result.outcome, Outcome::Done | Outcome::RolledBack);
                let why = self
                    .host(leg, host)
                    .map(|row| row.reason.clone())
                    .unwrap_or_default();
                if back {
                    let running = switch_detail(result)
                        .map(|detail| detail.to)
                        .filter(|to| !to.is_empty());
                    self.fail(leg, host, HostPhase::RolledBack, result, now_ms);
                    self.edit(leg, host, |row| {
                        codes::VERIFY_FAILED.clone_into(&mut row.code);
                        row.reason = why;
                        row.running = running;
                    });
                } else {
                    self.fail(leg, host, HostPhase::Inconsistent, result, now_ms);
                    self.edit(leg, host, |row| {
                        row.reason = format!("{why}; the way back failed: {}", result.message)
                    });
                }
            }
            (phase, action) => {
                let text = format!(
                    "{}: end of {} while {}",
                    self.name(host),
                    action.as_str(),
                    phase.as_str()
                );
                self.illegal(now_ms, format!("host:{host}"), text);
            }
        }
    }

    fn preflight_done(&mut self, leg: &LegId, host: &HostId, result: &OrderResult, now_ms: u64) {
        if result.outcome != Outcome::Done {
            return self.not_begun(leg, host, result, now_ms);
        }
        let survey: Option<HostSurvey> = serde_json::from_value(result.detail.clone()).ok();
        let failed = survey.and_then(|survey| {
            survey
                .findings
                .into_iter()
                .find(|finding| finding.verdict == Verdict::Fail)
        });
        if let Some(finding) = failed {
            let mut result = result.clone();
            result.code = codes::Code::new(codes::PREFLIGHT);
            result.step = finding.check;
            result.message = finding.message;
            return self.fail(leg, host, HostPhase::Refused, &result, now_ms);
        }
        self.edit(leg, host, |row| {
            row.preflighted = true;
            row.order = None;
        });
        if self.host(leg, host).is_some_and(|row| row.staged) {
            self.prepared(leg, host, now_ms);
        } else {
            self.enter(leg, host, HostPhase::Preparing, now_ms, |_| {});
            self.give(leg, host, Action::Stage, now_ms);
        }
    }

    fn stage_done(&mut self, leg: &LegId, host: &HostId, result: &OrderResult, now_ms: u64) {
        if result.outcome == Outcome::Done {
            self.edit(leg, host, |row| {
                row.staged = true;
                row.order = None;
            });
            self.prepared(leg, host, now_ms);
        } else {
            self.not_begun(leg, host, result, now_ms);
        }
    }

    fn prepared(&mut self, leg: &LegId, host: &HostId, now_ms: u64) {
        let survey = self.plan.legs.first().is_some_and(|first| first.id == *leg);
        let phase = if survey {
            HostPhase::Surveyed
        } else {
            HostPhase::Ready
        };
        let early = !survey && self.breaks(super::Mutant::SlotBeforePermit);
        self.enter(leg, host, phase, now_ms, |row| row.slot |= early);
        if survey && let Some(next) = self.entry_leg(host).cloned() {
            self.edit(&next, host, |row| row.staged = true);
        }
    }

    fn switch_done(&mut self, leg: &LegId, host: &HostId, result: &OrderResult, now_ms: u64) {
        // An agent may see the backup only after its first steps: the wait for its end is over with any other answer, not before.
        if result.code.as_str() != codes::BACKUP_RUNNING {
            self.edit(leg, host, |row| {
                row.backup_since_ms = None;
                row.backup_answers = 0;
            });
        }
        match result.outcome {
            Outcome::Done => {
                let detail = switch_detail(result).unwrap_or_default();
                let deadline = now_ms + self.gate(leg, host).1;
                let marks = self
                    .series(host)
                    .into_iter()
                    .map(|(series, before_ms)| {
                        (
                            series,
                            Mark {
                                before_ms,
                                ..Mark::default()
                            },
                        )
                    })
                    .collect();
                self.enter(leg, host, HostPhase::Verifying, now_ms, |row| {
                    row.order = None;
                    row.switched_at_ms = Some(now_ms);
                    row.running = Some(detail.to).filter(|to| !to.is_empty());
                    row.client_gap_ms = detail.client_gap_ms;
                    row.deadline_ms = Some(deadline);
                    row.marks = marks;
                    row.views = 0;
                });
                if self.rollout.abort.as_ref().is_some_and(|abort| abort.force) {
                    self.go_back(leg, host, "the rollout was aborted by force", now_ms);
                }
            }
            Outcome::RolledBack => self.fail(leg, host, HostPhase::RolledBack, result, now_ms),
            Outcome::Inconsistent => self.fail(leg, host, HostPhase::Inconsistent, result, now_ms),
            Outcome::Refused | Outcome::Expired | Outcome::FailedNothingChanged => {
                self.not_begun(leg, host, result, now_ms)
            }
        }
    }

    /// Orders the way back.
    pub(super) fn go_back(&mut self, leg: &LegId, host: &HostId, reason: &str, now_ms: u64) {
        self.enter(leg, host, HostPhase::RollingBack, now_ms, |row| {
            reason.clone_into(&mut row.reason)
        });
        self.give(leg, host, Action::Rollback, now_ms);
    }

    /// An order ended and nothing changed on the host.
    fn not_begun(&mut self, leg: &LegId, host: &HostId, result: &OrderResult, now_ms: u64) {
        let aborted = self.rollout.abort.is_some();
        if let Some(why) = self.host(leg, host).and_then(|row| row.back_wanted.clone())
            && !aborted
            && self.rollout.going_back.is_none()
        {
            return self.spared(leg, host, &why, now_ms);
        }
        match (result.outcome, result.code.as_str()) {
            (Outcome::Expired, _) | (Outcome::Refused, codes::STALE_EPOCH | codes::PERMIT_EXPIRED) => {
                // A permit that a window cut short says nothing about the host.
                let permit_ms = self.plan.timing.permit_ms;
                let row = self.host(leg, host);
                let order = row.and_then(|row| row.order.as_ref());
                let called_back = order.is_some_and(|order| order.called_back);
                let whole = !called_back
                    && order.is_none_or(|order| {
                        order.action != Action::Switch || order.start_within_ms >= permit_ms
                    });
                let expired = row.map_or(0, |row| row.expired) + u32::from(whole);
                self.edit(leg, host, |row| row.expired = expired);
                let stale = result.code.as_str() == codes::STALE_EPOCH;
                if stale {
                    let text = format!(
                        "{} refused an order from before the last change of the rollout's epoch: nothing began there",
                        self.name(host)
                    );
                    self.event(now_ms, format!("host:{host}"), codes::STALE_EPOCH, text);
                }
                if aborted {
                    self.cancel(leg, host, now_ms);
                } else if called_back {
                    self.ask_anew(
                        leg,
                        host,
                        "its permit was called back because it was held",
                        now_ms,
                    );
                    self.edit(leg, host, |row| row.unused += 1);
                } else if expired >= PATIENCE {
                    self.fail(leg, host, HostPhase::Failed, result, now_ms);
                } else {
                    let why = if stale {
                        "its order was of an older epoch and refused there; it is asked again"
                    } else {
                        "it did not begin within its permit's time"
                    };
                    self.ask_anew(leg, host, why, now_ms);
                    self.edit(leg, host, |row| row.unused += 1);
                }
            }
            (Outcome::Refused, codes::HELD) => {
                self.set_hold(host, now_ms, |hold| hold.host = Some(result.message.clone()));
                self.ask_anew(leg, host, "the host is held", now_ms);
            }
            (Outcome::Refused, codes::BACKUP_RUNNING) if aborted => self.cancel(leg, host, now_ms),
            (Outcome::Refused, codes::BACKUP_RUNNING) => self.wait_for_backup(leg, host, result, now_ms),
            (Outcome::Refused, _) => self.fail(leg, host, HostPhase::Refused, result, now_ms),
            _ => self.fail(leg, host, HostPhase::Failed, result, now_ms),
        }
    }

    /// A host that was wanted back before it began: there is nothing to take back, and it does not begin after all.
    fn spared(&mut self, leg: &LegId, host: &HostId, why: &str, now_ms: u64) {
        self.enter(leg, host, HostPhase::Skipped, now_ms, |row| {
            row.slot = row.broken;
            codes::GIVEN_UP.clone_into(&mut row.code);
            row.reason = format!("{why}; it had not begun, nothing was changed");
        });
    }

    /// Ends a host that did not make it. Whoever can show that it has a working client gives its slot back.
    pub(super) fn fail(
        &mut self,
        leg: &LegId,
        host: &HostId,
        phase: HostPhase,
        result: &OrderResult,
        now_ms: u64,
    ) {
        let running = switch_detail(result)
            .map(|detail| detail.to)
            .filter(|to| !to.is_empty());
        let keeps_slot = phase == HostPhase::Inconsistent;
        let forgotten = self.breaks(super::Mutant::FailuresForgotten)
            || phase == HostPhase::Refused && self.breaks(super::Mutant::RefusalsForgotten);
        self.enter(leg, host, phase, now_ms, |row| {
            row.counts = true;
            row.broken = match phase {
                HostPhase::Inconsistent => true,
                HostPhase::RolledBack => false,
                _ => row.broken,
            };
            row.counts = !forgotten;
            row.slot = row.slot && (keeps_slot || row.broken);
            row.code = result.code.as_str().to_owned();
            row.reason.clone_from(&result.message);
            row.failed_step.clone_from(&result.step);
            if running.is_some() {
                row.running = running;
            }
        });
    }

    pub(super) fn cancel(&mut self, leg: &LegId, host: &HostId, now_ms: u64) {
        if self.leave_lost(leg, host, "the rollout was aborted", now_ms) {
            return;
        }
        self.enter(leg, host, HostPhase::Cancelled, now_ms, |row| {
            row.slot = row.broken;
            row.reason = row.not_begun("the rollout was aborted");
        });
    }
}

pub(super) fn switch_detail(result: &OrderResult) -> Option<SwitchDetail> {
    serde_json::from_value(result.detail.clone()).ok()
}
