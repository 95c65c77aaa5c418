//! Hosts that are away when their group's other hosts have ended: what becomes of them is the group's policy.

use super::Kernel;
use super::groups::Tally;
use super::start::ABSENCE_SUSPENDED_MS;
use super::state::{GroupPhase, HostPhase};
use crate::fleet::duration_text;
use crate::plan::PlanGroup;
use crate::policy::Offline;
use fleet_common::codes;
use fleet_common::ids::{HostId, LegId};

impl Kernel {
    /// Whether a host that did not begin is away: not held, and not only waiting for something else.
    pub(crate) fn is_away(&self, leg: &LegId, host: &HostId) -> bool {
        !self.is_connected(host)
            && self.held(host).is_none()
            && self
                .host(leg, host)
                .is_some_and(|row| matches!(row.phase, HostPhase::Waiting | HostPhase::Ready))
    }

    pub(crate) fn away(&self, leg: &LegId, group: &PlanGroup) -> Vec<HostId> {
        let away = group.hosts.iter().filter(|host| self.is_away(leg, host));
        away.cloned().collect()
    }

    /// Whether a group whose other hosts have ended is kept by those that are away. Leaves them out where that is the policy; an agent that
    /// only lost its connection has the time to come back first.
    pub(super) fn kept_by_absence(
        &mut self,
        leg: &LegId,
        group: &PlanGroup,
        tally: &Tally,
        now_ms: u64,
    ) -> bool {
        let over = self
            .group(leg, &group.name)
            .is_some_and(|row| row.phase == GroupPhase::Draining)
            && tally.to_begin + tally.in_flight + tally.retried + tally.later == 0;
        if group.offline == Offline::CatchUp {
            return false;
        }
        if !over {
            self.wait_for_away(leg, group, None);
            return false;
        }
        let away = self.away(leg, group);
        match group.offline {
            Offline::Skip => {
                let gone = |host: &HostId| {
                    self.absent_since(host, now_ms)
                        .is_some_and(|since| since + ABSENCE_SUSPENDED_MS <= now_ms)
                };
                let (gone, not_yet): (Vec<HostId>, Vec<HostId>) = away.into_iter().partition(gone);
                self.leave_away(
                    leg,
                    &gone,
                    "offline when the other hosts of its group had ended",
                    now_ms,
                );
                !not_yet.is_empty()
            }
            _ if away.is_empty() => {
                self.wait_for_away(leg, group, None);
                false
            }
            _ => {
                let until = self.group(leg, &group.name).and_then(|row| row.offline_until_ms);
                match until {
                    None => {
                        let until = now_ms.saturating_add(self.plan.timing.offline_for_ms);
                        self.wait_for_away(leg, group, Some(until));
                    }
                    Some(until) if until <= now_ms && self.absence_is_known(now_ms) => {
                        let text = format!(
                            "group {}: {} host{} still away {} after its other hosts ended: {}",
                            group.name,
                            away.len(),
                            if away.len() == 1 { " is" } else { "s are" },
                            duration_text(self.plan.timing.offline_for_ms),
                            self.some_of(&away)
                        );
                        self.pause(
                            "offline",
                            &text,
                            "bring them back, then `resume`; `resume` leaves out those that are still away",
                            "coordinator",
                            now_ms,
                        );
                    }
                    Some(_) => {}
                }
                true
            }
        }
    }

    /// Whether a host for which a person was asked is still away.
    pub(super) fn somebody_is_away(&self, leg: &LegId, now_ms: u64) -> bool {
        let asked = |group: &&PlanGroup| {
            let row = self.group(leg, &group.name);
            row.and_then(|row| row.offline_until_ms)
                .is_some_and(|until| until <= now_ms)
        };
        self.plan
            .groups
            .iter()
            .filter(asked)
            .any(|group| !self.away(leg, group).is_empty())
    }

    fn wait_for_away(&mut self, leg: &LegId, group: &PlanGroup, until: Option<u64>) {
        if self
            .group(leg, &group.name)
            .is_some_and(|row| row.offline_until_ms != until)
        {
            self.edit_group(leg, &group.name, |row| row.offline_until_ms = until);
        }
    }

    /// After the pause about them, those that are still away are left out.
    pub(super) fn accept_absence(&mut self, now_ms: u64) {
        // Right after a start of the coordinator nobody knows who is away: whoever is then is asked about once more.
        if !self.absence_is_known(now_ms) {
            return;
        }
        let plan = std::sync::Arc::clone(&self.plan);
        for leg in &plan.legs {
            for group in plan.groups.iter().filter(|group| group.offline == Offline::Wait) {
                let over = self
                    .group(&leg.id, &group.name)
                    .and_then(|row| row.offline_until_ms)
                    .is_some_and(|until| until <= now_ms);
                if over {
                    let away = self.away(&leg.id, group);
                    self.leave_away(
                        &leg.id,
                        &away,
                        "offline, and the rollout was resumed without it",
                        now_ms,
                    );
                    self.wait_for_away(&leg.id, group, None);
                }
            }
        }
    }

    fn leave_away(&mut self, leg: &LegId, hosts: &[HostId], reason: &str, now_ms: u64) {
        for host in hosts {
            if self.lose_again(leg, host, now_ms) {
                continue;
            }
            self.enter(leg, host, HostPhase::Skipped, now_ms, |row| {
                row.slot = row.broken;
                codes::DEADLINE.clone_into(&mut row.code);
                reason.clone_into(&mut row.reason);
            });
        }
    }
}
