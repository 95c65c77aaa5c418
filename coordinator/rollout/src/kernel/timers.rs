//! Silence past a deadline ends in a named state.

use super::Kernel;
use super::hosts::PATIENCE;
use super::state::{HostPhase, HostRow, LegPhase};
use fleet_common::codes;
use fleet_common::ids::{HostId, LegId};

impl Kernel {
    pub(super) fn expire(&mut self, now_ms: u64) {
        let mut due: Vec<(LegId, HostId)> = Vec::new();
        for (leg, rows) in self.hosts.iter() {
            due.extend(
                rows.iter()
                    .filter(|(host, row)| self.is_due(host, row, now_ms))
                    .map(|(host, _)| (leg.clone(), host.clone())),
            );
        }
        for (leg, host) in due {
            self.expire_host(&leg, &host, now_ms);
        }
        self.server_silent(now_ms);
    }

    fn is_due(&self, host: &HostId, row: &HostRow, now_ms: u64) -> bool {
        if row.phase.is_final() {
            return false;
        }
        if self.breaks(super::Mutant::DeafToDeadlines) && row.phase == HostPhase::Switching {
            return false;
        }
        let early = self.breaks(super::Mutant::LostBeforePermit) && row.phase == HostPhase::Ready;
        let absent = (early
            || matches!(
                row.phase,
                HostPhase::Permitted | HostPhase::Switching | HostPhase::RollingBack
            ))
            && self
                .absent_since(host, now_ms)
                .is_some_and(|since| early || since + self.plan.timing.lost_after_ms <= now_ms);
        absent || row.deadline_ms.is_some_and(|deadline| deadline <= now_ms)
    }

    /// Since when a host is away. Right after a start of the coordinator nobody is.
    pub(crate) fn absent_since(&self, host: &HostId, now_ms: u64) -> Option<u64> {
        match self.links.get(host) {
            Some(link) if link.connected => None,
            Some(link) => Some(link.since_ms.max(self.absence_from_ms)).filter(|since| *since <= now_ms),
            None => Some(self.absence_from_ms).filter(|since| *since <= now_ms),
        }
    }

    /// Since when a host is not connected, as far as this coordinator or the one before it saw; `None` for one that never was.
    pub(crate) fn away_since(&self, host: &HostId) -> Option<u64> {
        let link = self.links.get(host).filter(|link| !link.connected)?;
        Some(link.since_ms)
    }

    fn expire_host(&mut self, leg: &LegId, host: &HostId, now_ms: u64) {
        let Some(row) = self.host(leg, host) else { return };
        let phase = row.phase;
        match phase {
            HostPhase::Preparing => {
                let expired = row.expired + 1;
                self.edit(leg, host, |row| row.expired = expired);
                if expired >= PATIENCE && self.lose_again(leg, host, now_ms) {
                    return;
                }
                if expired >= PATIENCE {
                    let fails = self.breaks(super::Mutant::SilenceCounts);
                    let end = if fails {
                        HostPhase::Failed
                    } else {
                        HostPhase::Skipped
                    };
                    self.enter(leg, host, end, now_ms, |row| {
                        row.counts = fails;
                        codes::DEADLINE.clone_into(&mut row.code);
                        row.reason = row.after_failure("it did not answer before anything was changed");
                    });
                } else {
                    self.enter(leg, host, HostPhase::Waiting, now_ms, |row| {
                        row.order = None;
                        "it did not answer in time and is asked again".clone_into(&mut row.reason);
                    });
                }
            }
            HostPhase::Verifying => self.verdict(leg, host, now_ms),
            HostPhase::Settling => self.enter(leg, host, HostPhase::Upgraded, now_ms, |row| {
                "upgraded; the host did not say whether the files saved for the way back are removed"
                    .clone_into(&mut row.reason);
            }),
            HostPhase::Repointing => self.repoint_expired(leg, host, now_ms),
            HostPhase::Permitted | HostPhase::Switching | HostPhase::RollingBack => {
                self.lose(leg, host, phase, now_ms)
            }
            HostPhase::Ready if self.breaks(super::Mutant::LostBeforePermit) => {
                self.lose(leg, host, phase, now_ms)
            }
            _ => {}
        }
    }

    fn lose(&mut self, leg: &LegId, host: &HostId, phase: HostPhase, now_ms: u64) {
        let step = self
            .host(leg, host)
            .and_then(|row| row.step.as_ref())
            .map(|step| step.step.clone())
            .unwrap_or_default();
        let place = if step.is_empty() {
            phase.as_str().replace('_', " ")
        } else {
            format!("step {step}")
        };
        let frees = self.breaks(super::Mutant::LostFreesSlot);
        self.enter(leg, host, HostPhase::Lost, now_ms, |row| {
            row.slot = row.slot && !frees;
            row.lost_in = Some(phase);
            row.counts = true;
            codes::DEADLINE.clone_into(&mut row.code);
            row.reason = format!("silent since its permit, last seen in {place}");
            row.failed_step = step;
        });
    }

    /// A host that was lost, is tried again and does not answer before anything is changed is what it was: lost. It is asked anew when it
    /// returns.
    pub(super) fn lose_again(&mut self, leg: &LegId, host: &HostId, now_ms: u64) -> bool {
        let reason = "silent since its permit; it was to be tried again and did not answer";
        self.stays_lost(leg, host, reason, false, now_ms)
    }

    /// A host that was lost and is tried again does not begin after all, and nothing is known of its client: it is lost until a person tries
    /// it again.
    pub(super) fn leave_lost(&mut self, leg: &LegId, host: &HostId, why: &str, now_ms: u64) -> bool {
        let reason =
            format!("silent since an earlier permit; it was to be tried again and did not begin: {why}");
        self.stays_lost(leg, host, &reason, true, now_ms)
    }

    fn stays_lost(&mut self, leg: &LegId, host: &HostId, reason: &str, left: bool, now_ms: u64) -> bool {
        let Some(permitted) = self.host(leg, host).and_then(|row| row.lost_before_ms) else {
            return false;
        };
        self.enter(leg, host, HostPhase::Lost, now_ms, |row| {
            row.order = None;
            row.back_wanted = None;
            row.counts = true;
            row.left_lost = left;
            row.permitted_at_ms = Some(permitted);
            codes::DEADLINE.clone_into(&mut row.code);
            reason.clone_into(&mut row.reason);
        });
        true
    }

    /// Skips the hosts of a client leg that could not begin: held or away to the end.
    pub(super) fn skip_left_behind(&mut self, at: usize, hosts: &[HostId], now_ms: u64) {
        let leg = self.legs[at].leg.clone();
        for host in hosts {
            if !self.is_connected(host) && self.lose_again(&leg, host, now_ms) {
                continue;
            }
            let (code, reason) = match self.held(host) {
                Some(hold) => (codes::HELD, format!("held: {hold}")),
                None if self
                    .host(&leg, host)
                    .is_some_and(|row| row.backup_since_ms.is_some()) =>
                {
                    (
                        codes::BACKUP_RUNNING,
                        "PMM ran a database backup there".to_owned(),
                    )
                }
                None if !self.followed(host) => (
                    codes::UNEXPECTED_STATE,
                    "its client did not follow the server to PMM 3's port".to_owned(),
                ),
                None if self.is_connected(host) && self.is_not_listed(host, now_ms) => {
                    (codes::UNEXPECTED_STATE, "PMM does not list its client".to_owned())
                }
                None => (
                    codes::DEADLINE,
                    "it was offline at its turn and to the end".to_owned(),
                ),
            };
            if self.leave_lost(&leg, host, &reason, now_ms) {
                continue;
            }
            self.enter(&leg, host, HostPhase::Skipped, now_ms, |row| {
                row.slot = row.broken;
                code.clone_into(&mut row.code);
                row.reason = row.after_failure(&reason);
            });
        }
    }

    pub(super) fn set_leg(&mut self, at: usize, phase: LegPhase, now_ms: u64) {
        let row = &mut self.legs[at];
        if row.phase == phase {
            return;
        }
        row.phase = phase;
        row.since_ms = now_ms;
        let leg = row.leg.clone();
        let word = serde_json::to_value(phase)
            .ok()
            .and_then(|value| value.as_str().map(str::to_owned))
            .unwrap_or_default();
        self.dirty.insert(super::rows::Key::Leg(leg.clone()));
        self.event(
            now_ms,
            "rollout",
            &format!("leg_{word}"),
            format!("leg {leg} is {}", word.replace('_', " ")),
        );
    }
}
