//! A verified host's way back: kept until the next leg begins, the three checks are over, or an abort ends.

use super::rows::Key;
use super::state::{HostPhase, HostRow, RolloutPhase};
use super::waiting::{duty, person, until_next};
use super::{Duty, Kernel, Owner};
use fleet_common::ids::{HostId, LegId};
use fleet_common::order::Action;

impl Kernel {
    /// A host made it. Its slot is free, and what was saved for its way back stays.
    pub(super) fn verified(&mut self, leg: &LegId, host: &HostId, now_ms: u64) {
        let reason = format!("verified; its way back is kept until {}", self.kept_until(leg));
        self.enter(leg, host, HostPhase::Settling, now_ms, |row| {
            row.order = None;
            row.slot = false;
            row.broken = false;
            row.verified_at_ms = Some(now_ms);
            row.reason = reason;
        });
        // Should it fall behind anew, nobody knows of that.
        if self.rollout.behind_accepted.remove(host) {
            self.dirty.insert(Key::Rollout);
        }
    }

    /// Makes the upgrades of all client legs before a position final. True when no host of them is left to do so.
    pub(super) fn keep_before(&mut self, at: usize, now_ms: u64) -> bool {
        let legs: Vec<LegId> = self.legs[..at.min(self.legs.len())]
            .iter()
            .map(|row| row.leg.clone())
            .collect();
        let mut open = false;
        for leg in legs {
            let settling: Vec<(HostId, bool)> = self.hosts[&leg]
                .iter()
                .filter(|(_, row)| row.phase == HostPhase::Settling)
                .map(|(host, row)| (host.clone(), row.rests() && row.back_wanted.is_none()))
                .collect();
            open |= !settling.is_empty();
            for (host, _) in settling.into_iter().filter(|(_, rests)| *rests) {
                self.edit(&leg, &host, |row| {
                    "verified; what was saved for its way back is being removed".clone_into(&mut row.reason);
                });
                self.give(&leg, &host, Action::Keep, now_ms);
            }
        }
        !open
    }

    /// What is waited for while upgrades are made final.
    pub(super) fn keeping_duty(&self, now_ms: u64) -> Option<Duty> {
        let rows = self.hosts.values().flat_map(|rows| rows.values());
        let open = rows
            .filter(|row| row.phase == HostPhase::Settling && !row.rests())
            .count();
        let text = format!(
            "{open} host{} to remove what was saved for the way back",
            if open == 1 { "" } else { "s" }
        );
        (open > 0).then(|| until_next(Owner::Agent, "settling", text, self.next_move(now_ms)))
    }

    /// Up to when the way back of a leg's hosts is kept.
    fn kept_until(&self, leg: &LegId) -> String {
        let next = self
            .legs
            .iter()
            .position(|row| row.leg == *leg)
            .and_then(|at| self.legs.get(at + 1));
        match next {
            _ if self.rollout.abort.is_some() => "the abort has ended".to_owned(),
            Some(next) => format!("leg {} begins", next.leg),
            None => "the three checks are over".to_owned(),
        }
    }

    /// What a host waits for whose way back is kept.
    pub(super) fn resting_duty(&self, leg: &LegId, row: &HostRow, at_ms: u64) -> Duty {
        if let Some(why) = &row.back_wanted {
            if let Some(pause) = self.rollout.pause.as_ref().filter(|_| self.way_back_is_paused()) {
                let text = format!("the end of the pause: {}; then it goes back: {why}", pause.text);
                return person("paused", text, pause.remind_at_ms.max(at_ms));
            }
            let hop = if self.works_at_hop() {
                "the end of the server's hop, and "
            } else {
                ""
            };
            let text = format!("{hop}a slot of its group to go back in: {why}");
            return duty(Owner::Coordinator, "slots", text, at_ms);
        }
        let text = format!("its way back is kept until {}", self.kept_until(leg));
        match &self.rollout.pause {
            Some(pause) if self.rollout.phase == RolloutPhase::Paused => person(
                "way_back_kept",
                format!("{text}; {}", pause.text),
                pause.remind_at_ms.max(at_ms),
            ),
            _ => duty(Owner::Coordinator, "way_back_kept", text, at_ms),
        }
    }
}
