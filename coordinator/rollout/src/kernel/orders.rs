//! Changing a host's state and giving it orders.

use super::rows::Key;
use super::state::{HostPhase, HostRow, OpenOrder, Side};
use super::{HostOrder, Kernel};
use fleet_common::ids::{Epoch, HostId, LegId, OrderId};
use fleet_common::order::Action;

/// Agents enforce the durations of their orders themselves; the kernel waits this much longer for the answer to arrive.
pub(crate) const GRACE_MS: u64 = 60_000;
/// Removing what was saved for the way back.
const KEEP_MS: u64 = 300_000;
/// Raising the epoch on a host.
const PROBE_MS: u64 = 60_000;

impl Kernel {
    /// Moves a host to a state. Clears what belonged to the state before, then lets `change` set what belongs to the new one.
    pub(super) fn enter(
        &mut self,
        leg: &LegId,
        host: &HostId,
        phase: HostPhase,
        now_ms: u64,
        change: impl FnOnce(&mut HostRow),
    ) {
        let forgets = self.breaks(super::Mutant::BackForgotten);
        let Some(row) = self.hosts.get_mut(leg).and_then(|rows| rows.get_mut(host)) else {
            return;
        };
        let before = row.phase;
        row.phase = phase;
        row.since_ms = now_ms;
        row.deadline_ms = None;
        row.good_views = 0;
        row.last_good_ms = 0;
        row.inconclusive = false;
        if phase != HostPhase::Lost {
            row.step = None;
            row.lost_in = None;
            row.left_lost = false;
        }
        if phase.is_final() {
            row.ended_at_ms = Some(now_ms);
            // Whoever is lost goes back when it returns, if that was wanted.
            if phase != HostPhase::Lost || forgets {
                row.back_wanted = None;
            }
            if phase != HostPhase::Lost {
                row.order = None;
                row.marks.clear();
            }
        } else {
            row.ended_at_ms = None;
            row.counts = false;
            row.code.clear();
            row.reason.clear();
            row.failed_step.clear();
        }
        change(row);
        let works = phase.made_it() || phase == HostPhase::RolledBack;
        let reason = row.reason.clone();
        let mut text = if before == phase {
            // Asked for the next thing in the same state, such as the download after the checks.
            format!("{} in {leg}: still {}", self.name(host), phase.as_str())
        } else {
            format!(
                "{} in {leg}: {} -> {}",
                self.name(host),
                before.as_str(),
                phase.as_str()
            )
        };
        if !reason.is_empty() {
            text.push_str(&format!(": {reason}"));
        }
        if works {
            self.free_before(leg, host);
        }
        self.dirty.insert(Key::Host(leg.clone(), host.clone()));
        self.event(
            now_ms,
            format!("host:{host}"),
            &format!("host_{}", phase.as_str()),
            text,
        );
    }

    /// Changes a host's row without changing its state.
    pub(super) fn edit(&mut self, leg: &LegId, host: &HostId, change: impl FnOnce(&mut HostRow)) {
        if let Some(row) = self.hosts.get_mut(leg).and_then(|rows| rows.get_mut(host)) {
            change(row);
            self.dirty.insert(Key::Host(leg.clone(), host.clone()));
        }
    }

    /// Gives an order and sets the state's deadline to the moment when silence about it ends the state.
    pub(super) fn give(&mut self, leg: &LegId, host: &HostId, action: Action, now_ms: u64) {
        self.give_within(leg, host, action, u64::MAX, now_ms);
    }

    /// The same with a bound on the time to begin.
    pub(super) fn give_within(
        &mut self,
        leg: &LegId,
        host: &HostId,
        action: Action,
        within_ms: u64,
        now_ms: u64,
    ) {
        let timing = &self.plan.timing;
        let (deadline_for_ms, start_within_ms) = match action {
            Action::Probe | Action::Verify => (PROBE_MS, 0),
            Action::Preflight => (timing.preflight_ms, 0),
            Action::Stage => (timing.stage_ms, 0),
            Action::Switch => (timing.switch_ms, timing.permit_ms),
            Action::Keep => (KEEP_MS, 0),
            Action::Rollback => (timing.rollback_ms, timing.rollback_ms),
            Action::Repoint | Action::RestartClient => (timing.rollback_ms, timing.rollback_ms),
            Action::CollectBundle | Action::Renew | Action::SelfUpdate => (KEEP_MS, 0),
        };
        let start_within_ms = start_within_ms.min(within_ms);
        let epoch = self.rollout.epoch;
        let rollout = &self.rollout.id;
        let Some(row) = self.hosts.get_mut(leg).and_then(|rows| rows.get_mut(host)) else {
            return;
        };
        let id = OrderId::new(format!(
            "{rollout}/{leg}/{host}/{}/{}",
            row.attempt,
            action.as_str()
        ));
        row.order = Some(OpenOrder {
            id,
            action,
            epoch,
            given_at_ms: now_ms,
            accepted: false,
            deadline_for_ms,
            start_within_ms,
            called_back: false,
        });
        // A permitted host must only say that it began; for all others the whole order counts.
        let wait = if action == Action::Switch {
            start_within_ms
        } else {
            deadline_for_ms + start_within_ms
        };
        row.deadline_ms = Some(now_ms + wait + GRACE_MS);
        self.dirty.insert(Key::Host(leg.clone(), host.clone()));
        self.send(leg, host, now_ms);
    }

    /// Sends the open order, with what is left of the time to begin.
    pub(super) fn send(&mut self, leg: &LegId, host: &HostId, now_ms: u64) {
        let Some(order) = self
            .hosts
            .get(leg)
            .and_then(|rows| rows.get(host))
            .and_then(|row| row.order.as_ref())
        else {
            return;
        };
        let kept = self.rollout.abort.is_some() && self.breaks(super::Mutant::AbortKeepsPermits);
        let stopped =
            order.action == Action::Switch && (self.rollout.abort.is_some() || order.called_back) && !kept;
        // A clock that was set back gives nobody more time than the permit says.
        let left = (order.given_at_ms + order.start_within_ms)
            .saturating_sub(now_ms)
            .min(order.start_within_ms);
        let entry_leg = self
            .entry_leg(host)
            .filter(|_| self.plan.entry_text(leg, host).is_none())
            .unwrap_or(leg);
        let back = self
            .host(leg, host)
            .is_some_and(|row| row.side == Some(Side::Old));
        let entry = if back {
            self.plan.back_text(leg, host)
        } else {
            self.plan.entry_text(entry_leg, host)
        };
        let message = HostOrder {
            host: host.clone(),
            order: order.id.clone(),
            epoch: if kept { self.rollout.epoch } else { order.epoch },
            plan_id: self.plan_id.clone(),
            leg: leg.clone(),
            entry: entry.unwrap_or_default().as_bytes().to_vec(),
            action: order.action,
            deadline_for_ms: order.deadline_for_ms,
            start_within_ms: match (stopped, kept) {
                (true, _) => 0,
                (_, true) => order.start_within_ms,
                _ if self.breaks(super::Mutant::ResentPermitsWhole) => order.start_within_ms,
                _ => left,
            },
        };
        self.out.orders.push(message);
    }

    /// Raises the epoch on a host that may hold a permit of an older one: nothing of the old epoch begins there any more.
    pub(super) fn raise_epoch(&mut self, leg: &LegId, host: &HostId) {
        if self.breaks(super::Mutant::AbortKeepsPermits) {
            return;
        }
        let Epoch { term, counter } = self.rollout.epoch;
        let message = HostOrder {
            host: host.clone(),
            order: OrderId::new(format!(
                "{}/epoch-{term}.{counter}/{host}/1/probe",
                self.rollout.id
            )),
            epoch: self.rollout.epoch,
            plan_id: self.plan_id.clone(),
            leg: leg.clone(),
            entry: self
                .plan
                .entry_text(leg, host)
                .filter(|_| !self.breaks(super::Mutant::NoPlanEntry))
                .unwrap_or_default()
                .as_bytes()
                .to_vec(),
            action: Action::Probe,
            deadline_for_ms: PROBE_MS,
            start_within_ms: 0,
        };
        self.out.orders.push(message);
    }

    /// The host is asked anew, under a new attempt so that its journal does not answer for the old one.
    pub(super) fn ask_anew(&mut self, leg: &LegId, host: &HostId, reason: &str, now_ms: u64) {
        let failed = self
            .host(leg, host)
            .filter(|row| row.counts && row.phase != HostPhase::Lost);
        let failed = failed.map(|row| format!("{}: {}", row.code, row.reason));
        self.enter(leg, host, HostPhase::Waiting, now_ms, |row| {
            row.attempt += 1;
            row.failed_before = failed.or(row.failed_before.take());
            row.order = None;
            row.slot = row.broken;
            row.preflighted = false;
            row.permitted_at_ms = None;
            row.switched_at_ms = None;
            row.verified_at_ms = None;
            row.back_wanted = None;
            row.taken_back = false;
            row.back_from = None;
            row.ask_at_ms = None;
            reason.clone_into(&mut row.reason);
        });
    }
}
