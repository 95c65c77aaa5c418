//! Clients that address the PMM Server's container itself follow its port: once, after the first release of PMM 3 is published, and back
//! again if the server goes back after that. The rows of these hosts belong to the server leg.

use super::Kernel;
use super::decide::PREPARE_WIDTH;
use super::hosts::PATIENCE;
use super::rows::Key;
use super::state::{HopRow, HostPhase, HostRow, LegPhase, RolloutPhase, Side};
use fleet_common::codes;
use fleet_common::ids::{HostId, LegId};
use fleet_common::order::{Action, OrderResult, Outcome};

/// Pause before a client that did not follow is asked again: PMM may still be busy with a fleet that reconnects.
const AGAIN_MS: u64 = 60_000;

impl Kernel {
    /// Where clients must look for the server of a leg: at PMM 3's port, back at PMM 2's, or nothing has changed.
    pub(crate) fn side(&self, at: usize) -> Option<Side> {
        let crossing = self.legs[at].hops.iter().find(|hop| crosses(hop))?;
        if self.breaks(super::Mutant::FollowsTooEarly) {
            return Some(Side::New);
        }
        crossing
            .published
            .map(|stands| if stands { Side::New } else { Side::Old })
    }

    /// Whether a host's client has followed the server, if it has to.
    pub(crate) fn followed(&self, host: &HostId) -> bool {
        let rows = || {
            self.legs
                .iter()
                .enumerate()
                .filter(|(_, leg)| !leg.hops.is_empty())
        };
        rows().all(|(at, leg)| {
            let row = self.host(&leg.leg, host);
            row.is_none_or(|row| row.phase == HostPhase::Repointed || self.side(at).is_none())
        })
    }

    /// Whether its client is told the server's new port, or will be.
    pub(super) fn is_to_follow(&self, host: &HostId) -> bool {
        self.legs.iter().enumerate().any(|(at, leg)| {
            let row = self.host(&leg.leg, host);
            row.zip(self.side(at))
                .is_some_and(|(row, side)| row.phase == HostPhase::Repointing || needs(row, side))
        })
    }

    /// Gives the orders that are due.
    pub(super) fn drive_repoints(&mut self, now_ms: u64) {
        // While a hop is under way the server is down, and a client could not tell whether its new address is good.
        let serves = self.open_hop().is_none_or(|(_, hop)| hop.published == Some(true));
        for at in 0..self.legs.len() {
            let Some(side) = self.side(at) else { continue };
            self.reconcile(at, side, now_ms);
            if !serves {
                continue;
            }
            let leg = self.legs[at].leg.clone();
            let busy = self.hosts[&leg]
                .values()
                .filter(|row| row.phase == HostPhase::Repointing)
                .count();
            let due: Vec<HostId> = self.hosts[&leg]
                .iter()
                .filter(|(host, row)| needs(row, side) && self.can_be_asked(host) && asked_by(row, now_ms))
                .map(|(host, _)| host.clone())
                .take(PREPARE_WIDTH.saturating_sub(busy))
                .collect();
            for host in due {
                self.enter(&leg, &host, HostPhase::Repointing, now_ms, |row| {
                    row.side = Some(side)
                });
                self.give(&leg, &host, Action::Repoint, now_ms);
            }
        }
    }

    /// Hosts whose last order led to the other side, and those that were away, begin again.
    fn reconcile(&mut self, at: usize, side: Side, now_ms: u64) {
        let leg = self.legs[at].leg.clone();
        let turned = |row: &HostRow| match row.phase {
            HostPhase::Repointed | HostPhase::Failed | HostPhase::Refused | HostPhase::Inconsistent => {
                row.side.is_some_and(|last| last != side)
            }
            _ => false,
        };
        let back = |kernel: &Self, host: &HostId, row: &HostRow| {
            row.phase == HostPhase::Skipped
                && row.left_behind
                && side == Side::New
                && kernel.can_be_asked(host)
        };
        let again: Vec<HostId> = self.hosts[&leg]
            .iter()
            .filter(|(host, row)| turned(row) || back(self, host, row))
            .map(|(host, _)| host.clone())
            .collect();
        for host in again {
            let reason = match side {
                Side::New => "the server is PMM 3 again",
                Side::Old => "the server went back to PMM 2",
            };
            self.ask_anew(&leg, &host, reason, now_ms);
            self.edit(&leg, &host, |row| row.expired = 0);
        }
    }

    /// Whether a host of the leg could still follow without a person: the next hop would take the server away from under it.
    pub(super) fn repoints_under_way(&self, at: usize) -> bool {
        let side = self.side(at);
        self.hosts[&self.legs[at].leg].iter().any(|(host, row)| {
            row.phase == HostPhase::Repointing
                || side.is_some_and(|side| needs(row, side)) && self.can_be_asked(host)
        })
    }

    /// After the last hop: whether every client follows, or a person knows of those that do not.
    pub(super) fn repoints_settled(&mut self, at: usize, now_ms: u64) -> bool {
        let leg = self.legs[at].leg.clone();
        let open: Vec<HostId> = self.hosts[&leg]
            .iter()
            .filter(|(host, row)| {
                row.phase != HostPhase::Repointed && !self.rollout.left_at_old_address.contains(*host)
            })
            .map(|(host, _)| host.clone())
            .collect();
        if open.is_empty() {
            return true;
        }
        if self.repoints_under_way(at) {
            return false;
        }
        let away = |kernel: &Self, host: &HostId| {
            kernel.held(host).is_none() && kernel.host(&leg, host).is_some_and(|row| !row.phase.is_final())
        };
        if open.iter().any(|host| away(self, host)) {
            match self.legs[at].offline_until_ms {
                None => {
                    self.legs[at].offline_until_ms = Some(now_ms + self.plan.timing.offline_for_ms);
                    self.dirty.insert(Key::Leg(leg));
                    return false;
                }
                Some(until) if until > now_ms || !self.absence_is_known(now_ms) => return false,
                Some(_) => {}
            }
        }
        let named: Vec<String> = open.iter().take(5).map(|host| self.why_not(&leg, host)).collect();
        let text = format!(
            "{} client{} did not follow the server to PMM 3's port: {}",
            open.len(),
            if open.len() == 1 { "" } else { "s" },
            named.join("; ")
        );
        self.pause(
            "repoint",
            &text,
            "repair and `retry` them, or `resume` to go on without them",
            "coordinator",
            now_ms,
        );
        false
    }

    fn why_not(&self, leg: &LegId, host: &HostId) -> String {
        let name = self.name(host);
        match (self.held(host), self.host(leg, host)) {
            (Some(reason), _) => format!("{name} is held ({reason})"),
            (None, Some(row)) if row.phase.is_final() => {
                format!("{name} {} ({})", row.phase.as_str(), row.reason)
            }
            _ => format!("{name} is offline"),
        }
    }

    /// `resume` after that: those that did not follow are left out, by name.
    pub(super) fn accept_left_behind(&mut self, now_ms: u64) {
        for at in 0..self.legs.len() {
            if self.legs[at].phase != LegPhase::Running || self.side(at) != Some(Side::New) {
                continue;
            }
            let leg = self.legs[at].leg.clone();
            let left: Vec<HostId> = self.hosts[&leg]
                .iter()
                .filter(|(_, row)| row.phase != HostPhase::Repointed)
                .map(|(host, _)| host.clone())
                .collect();
            for host in left {
                if self
                    .host(&leg, &host)
                    .is_some_and(|row| row.phase == HostPhase::Waiting)
                {
                    let reason = format!(
                        "{}; the rollout was resumed without it",
                        self.why_not(&leg, &host)
                    );
                    self.enter(&leg, &host, HostPhase::Skipped, now_ms, |row| {
                        row.left_behind = true;
                        row.reason = reason;
                    });
                }
                self.rollout.left_at_old_address.insert(host);
            }
            self.dirty.insert(Key::Rollout);
        }
    }

    /// A host answered.
    pub(super) fn repoint_done(&mut self, leg: &LegId, host: &HostId, result: &OrderResult, now_ms: u64) {
        let Some(row) = self.host(leg, host) else { return };
        let (side, tries) = (row.side, row.expired + 1);
        match (result.outcome, result.code.as_str()) {
            (Outcome::Done, _) if side == Some(Side::Old) => {
                let reason = "its client is back at PMM 2's port";
                if self.rollout.abort.is_some() {
                    self.enter(leg, host, HostPhase::Cancelled, now_ms, |row| {
                        reason.clone_into(&mut row.reason)
                    });
                } else {
                    self.ask_anew(leg, host, reason, now_ms);
                }
                self.edit(leg, host, |row| {
                    row.side = None;
                    row.expired = 0;
                });
            }
            (Outcome::Done, _) => {
                self.enter(leg, host, HostPhase::Repointed, now_ms, |_| {});
                self.rollout.left_at_old_address.remove(host);
                self.dirty.insert(Key::Rollout);
            }
            (Outcome::Refused, codes::HELD) => {
                self.set_hold(host, now_ms, |hold| hold.host = Some(result.message.clone()));
                self.ask_anew(leg, host, "the host is held", now_ms);
            }
            (Outcome::Refused, codes::BACKUP_RUNNING) => self.wait_for_backup(leg, host, result, now_ms),
            (Outcome::Inconsistent, _) => {
                self.fail(leg, host, HostPhase::Inconsistent, result, now_ms);
                // Following takes no slot, so none is kept.
                self.edit(leg, host, |row| row.broken = false);
            }
            (Outcome::Refused, code) if code != codes::STALE_EPOCH && code != codes::PERMIT_EXPIRED => {
                self.fail(leg, host, HostPhase::Refused, result, now_ms)
            }
            _ if tries >= PATIENCE => self.fail(leg, host, HostPhase::Failed, result, now_ms),
            _ => {
                let reason = format!("its client did not follow and is asked again: {}", result.message);
                self.ask_anew(leg, host, &reason, now_ms);
                self.edit(leg, host, |row| {
                    row.expired = tries;
                    row.ask_at_ms = Some(now_ms + AGAIN_MS);
                });
            }
        }
    }

    /// A host did not answer in time. It is asked again under the same order, so that its journal answers if it was done.
    pub(super) fn repoint_expired(&mut self, leg: &LegId, host: &HostId, now_ms: u64) {
        let tries = self.host(leg, host).map_or(0, |row| row.expired) + u32::from(self.is_connected(host));
        if tries >= PATIENCE {
            self.enter(leg, host, HostPhase::Failed, now_ms, |row| {
                row.counts = true;
                codes::DEADLINE.clone_into(&mut row.code);
                "it did not say whether its client follows the server".clone_into(&mut row.reason);
            });
        } else {
            self.enter(leg, host, HostPhase::Waiting, now_ms, |row| {
                row.order = None;
                row.expired = tries;
                "it did not answer in time and is asked again".clone_into(&mut row.reason);
            });
        }
    }

    /// A client's address is wanted by the server's state, not by the rollout's: during an abort those that can follow still do.
    pub(super) fn keeps_following(&self, leg: &LegId, host: &HostId) -> bool {
        let Some(at) = self
            .legs
            .iter()
            .position(|row| row.leg == *leg && !row.hops.is_empty())
        else {
            return false;
        };
        let running = self.legs[at].phase != LegPhase::NeedsOperator
            && self.legs[at].hops.iter().any(|hop| hop.order.is_some());
        let due = |row: &HostRow| self.side(at).is_some_and(|side| needs(row, side));
        // A hop that only a person can end leaves nobody to follow: the abort would wait for ever.
        let stuck = self
            .open_hop()
            .is_some_and(|(leg, hop)| leg.phase == LegPhase::NeedsOperator && hop.published != Some(true));
        running || !stuck && self.host(leg, host).is_some_and(due) && self.can_be_asked(host)
    }

    /// A hop ended. The driver may have lost the word of the publication in a crash; what runs says it, too.
    pub(super) fn note_publication(&mut self, at: usize, position: usize) {
        let hop = &self.legs[at].hops[position];
        let Some(result) = &hop.result else { return };
        let published = match result.outcome {
            fleet_common::server::HopOutcome::Settled => Some(true),
            _ if result.running == Some(hop.to) => Some(true),
            _ if result.running == Some(hop.from) && hop.published == Some(true) => Some(false),
            _ => hop.published,
        };
        self.legs[at].hops[position].published = published;
        self.dirty.insert(Key::Leg(self.legs[at].leg.clone()));
    }

    /// The server leg of a row that waits for the publication, if it does.
    pub(crate) fn waits_for_publication(&self, leg: &LegId, row: &HostRow) -> bool {
        row.phase == HostPhase::Waiting
            && self.rollout.phase != RolloutPhase::Planned
            && self
                .legs
                .iter()
                .position(|found| found.leg == *leg)
                .is_some_and(|at| {
                    !self.legs[at].hops.is_empty() && self.side(at).is_none_or(|side| !needs(row, side))
                })
    }
}

fn crosses(hop: &HopRow) -> bool {
    hop.from.major == 2 && hop.to.major >= 3
}

/// Whether a waiting row has to move to this side: back go only those that were ever sent.
fn needs(row: &HostRow, side: Side) -> bool {
    row.phase == HostPhase::Waiting && (side == Side::New || row.side.is_some())
}

/// Whether its pause is over.
pub(super) fn asked_by(row: &HostRow, now_ms: u64) -> bool {
    row.ask_at_ms.is_none_or(|at| at <= now_ms)
}
