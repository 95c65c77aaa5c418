//! What a host waits for that has no permit.

use super::super::Kernel;
use super::super::groups::waits_for_approval;
use super::super::state::{GroupPhase, HostPhase, HostRow, LegPhase, RolloutPhase};
use super::{Duty, Moment, Owner, canary_soak, duty, person, until_next};
use crate::fleet::duration_text;
use crate::plan::PlanGroup;
use crate::policy::Offline;
use fleet_common::ids::{HostId, LegId};

impl Kernel {
    pub(super) fn not_begun_duty(&self, leg: &LegId, host: &HostId, row: &HostRow, moment: &Moment) -> Duty {
        let (now_ms, next) = (moment.now_ms, &moment.next);
        if let Some(reason) = self.held(host) {
            return person("held", format!("held: {reason}"), self.held_reminder(now_ms));
        }
        // Only while it is the answer: for a running rollout it walks all hosts, and this is asked for each of them.
        if matches!(self.rollout.phase, RolloutPhase::Planned | RolloutPhase::Paused)
            && let Some(duty) = self.rollout_duty(now_ms)
        {
            return duty;
        }
        if let Some(before) = self
            .legs
            .iter()
            .take_while(|other| other.leg != *leg)
            .find(|other| other.phase != LegPhase::Settled)
        {
            return until_next(
                Owner::Coordinator,
                "earlier_leg",
                format!("leg {} is not settled", before.leg),
                next.clone(),
            );
        }
        if self.waits_for_publication(leg, row) {
            return until_next(
                Owner::ServerDriver,
                "publication",
                "the publication of PMM 3; then its client follows to the new port",
                next.clone(),
            );
        }
        if let Some(at) = row.ask_at_ms.filter(|at| *at > now_ms) {
            if row.backup_since_ms.is_some() {
                // Which one it is stands in the reason.
                let text = "the end of a database backup that PMM runs there";
                return duty(Owner::Coordinator, "backup", text, at);
            }
            let code = if row.retried.is_empty() {
                "asked_later"
            } else {
                "retry"
            };
            return duty(Owner::Coordinator, code, row.reason.clone(), at);
        }
        if self.is_connected(host) && self.leg_target(leg).is_some() && !self.followed(host) {
            return until_next(
                Owner::Coordinator,
                "repoint",
                "its client does not use the server's new port yet",
                next.clone(),
            );
        }
        let group = self
            .planned(host)
            .and_then(|planned| self.plan.group(&planned.group));
        let group = group.filter(|group| self.group(leg, &group.name).is_some());
        if let Some(group) = group
            && let Some(state) = self.group(leg, &group.name)
        {
            let turn = || {
                let text = format!("the turn of group {}", group.name);
                until_next(Owner::Coordinator, "earlier_group", text, next.clone())
            };
            match state.phase {
                GroupPhase::Pending => return turn(),
                GroupPhase::Done if self.is_connected(host) && self.waits_for_turn(leg, group) => {
                    return turn();
                }
                GroupPhase::Gated if waits_for_approval(state, group) => {
                    return self.approval_duty(state, group, now_ms);
                }
                _ => {}
            }
        }
        if !self.is_connected(host) {
            if !self.absence_is_known(now_ms) {
                let text = "its agent to connect again after the coordinator's start";
                return duty(Owner::Agent, "reconnect", text, self.absence_from_ms);
            }
            let policy = group.map_or(Offline::CatchUp, |group| group.offline);
            let waited = group
                .and_then(|group| self.group(leg, &group.name))
                .and_then(|state| state.offline_until_ms);
            if let Some(until) = waited.filter(|until| *until >= now_ms) {
                let text = format!(
                    "offline; its group waits for it {} more, then a person is asked",
                    duration_text(until - now_ms)
                );
                return duty(Owner::Agent, "offline", text, until);
            }
            let until = self
                .legs
                .iter()
                .find(|other| other.leg == *leg)
                .and_then(|other| other.offline_until_ms);
            let text = until.map_or_else(
                || match policy {
                    Offline::CatchUp => "offline; it is caught up when it returns".to_owned(),
                    Offline::Skip => {
                        "offline; left out when the other hosts of its group have ended".to_owned()
                    }
                    Offline::Wait => "offline; its group is not done before it returns".to_owned(),
                },
                |until| {
                    format!(
                        "offline; skipped in {}",
                        duration_text(until.saturating_sub(now_ms))
                    )
                },
            );
            return match until.filter(|until| *until >= now_ms) {
                Some(until) => duty(Owner::Agent, "offline", text, until),
                None => until_next(Owner::Agent, "offline", text, next.clone()),
            };
        }
        if row.phase == HostPhase::Ready && self.leg_target(leg).is_some() && !self.has_baseline(host) {
            return self.listing_duty(host, now_ms);
        }
        if let Some(group) = group
            && let Some(duty) = self.turn_duty(leg, host, row, group, moment)
        {
            return duty;
        }
        until_next(Owner::Coordinator, "decision", "the next decision", next.clone())
    }

    /// What keeps a host whose group has its turn.
    fn turn_duty(
        &self,
        leg: &LegId,
        host: &HostId,
        row: &HostRow,
        group: &PlanGroup,
        moment: &Moment,
    ) -> Option<Duty> {
        let (now_ms, next) = (moment.now_ms, &moment.next);
        let state = self.group(leg, &group.name)?;
        let (tally, door) = moment.tallies.get(&(leg.clone(), group.name.clone()))?;
        if row.phase == HostPhase::Waiting && self.site_is_full(&moment.census, host, row) {
            let crowd = self.crowd(&moment.census, host, row)?;
            return Some(until_next(
                Owner::Coordinator,
                crowd.code,
                crowd.text(),
                next.clone(),
            ));
        }
        if let Some(shut) = self.window_duty(state, door, now_ms) {
            return Some(shut);
        }
        if row.phase != HostPhase::Ready {
            return None;
        }
        if let Some(until) = Self::canary_soak(state, now_ms) {
            return Some(canary_soak(until, now_ms));
        }
        if let Some(crowd) = self.crowd(&moment.census, host, row) {
            return Some(until_next(
                Owner::Coordinator,
                crowd.code,
                crowd.text(),
                next.clone(),
            ));
        }
        // What is left are others of its group.
        let next = moment.next_of(leg, Some(group));
        let (width, full) = (self.width(leg, group, tally), self.max_unavailable(leg, group));
        if tally.slots >= width && !self.holds_slot(leg, host) {
            let (slots, name) = (tally.slots, &group.name);
            return Some(if width < full {
                let text = format!("{slots} of {width} slots of this step of group {name}'s ramp are taken");
                until_next(Owner::Coordinator, "ramp", text, next.clone())
            } else {
                let text = format!("{slots} of {full} slots of group {name} are taken");
                until_next(Owner::Coordinator, "slots", text, next.clone())
            });
        }
        Self::canaries_go(state, group, tally, now_ms).then(|| {
            let text = format!("the canaries of group {}", group.name);
            until_next(Owner::Coordinator, "canary", text, next.clone())
        })
    }
}
