//! Trying again by itself: how a host ended says whether and when.

use super::Kernel;
use super::state::{GroupPhase, HostPhase, HostRow};
use crate::fleet::duration_text;
use crate::policy::{FailureClass, Retries};
use fleet_common::codes;
use fleet_common::ids::{HostId, LegId};

/// What made a host fail, if trying again by itself may help. Whoever is refused, held, inconsistent or lost needs a person, or itself.
fn class(row: &HostRow) -> Option<FailureClass> {
    match (row.phase, row.code.as_str()) {
        // Nothing changed: what failed is the download, the wait for the package manager, or time.
        (
            HostPhase::Failed,
            codes::STAGE_FAILED
            | codes::INSTALL_FAILED
            | codes::DEADLINE
            | codes::PERMIT_EXPIRED
            | codes::STALE_EPOCH,
        ) => Some(FailureClass::Transient),
        (HostPhase::RolledBack, codes::VERIFY_FAILED) => Some(FailureClass::Verify),
        (HostPhase::RolledBack, codes::INSTALL_FAILED | codes::DEADLINE) => Some(FailureClass::Install),
        _ => None,
    }
}

fn word(class: FailureClass) -> &'static str {
    match class {
        FailureClass::Transient => "transient",
        FailureClass::Install => "install",
        FailureClass::Verify => "verify",
    }
}

/// The pause before the attempt after so many earlier retries.
fn backoff(retries: &Retries, earlier: u32) -> u64 {
    let at = usize::try_from(earlier).unwrap_or(usize::MAX);
    let pause = retries.backoff_ms.get(at).or(retries.backoff_ms.last());
    pause.copied().unwrap_or(0)
}

impl Kernel {
    /// A host that just failed waits for its next attempt, if its group's policy has one left for what made it fail.
    pub(super) fn try_by_itself(&mut self, leg: &LegId, host: &HostId, now_ms: u64) {
        let server = self
            .legs
            .iter()
            .any(|row| row.leg == *leg && !row.hops.is_empty());
        if server || self.rollout.abort.is_some() || !self.is_tried_again_in(leg, host) {
            return;
        }
        let Some(row) = self.host(leg, host).filter(|row| row.counts) else {
            return;
        };
        let Some(class) = class(row) else { return };
        let group = self
            .planned(host)
            .and_then(|planned| self.plan.group(&planned.group));
        let Some(retries) = group.and_then(|group| group.retry.get(&class)) else {
            return;
        };
        let earlier = row.retried.get(&class).copied().unwrap_or(0);
        if earlier >= retries.times && !self.breaks(super::Mutant::RetriesWithoutEnd) {
            return;
        }
        let pause = backoff(retries, earlier);
        let reason = format!(
            "tried again after {}, retry {} of {}: {} failure {}: {}",
            duration_text(pause),
            earlier + 1,
            retries.times,
            word(class),
            row.code,
            row.reason
        );
        self.ask_anew(leg, host, &reason, now_ms);
        self.edit(leg, host, |row| {
            *row.retried.entry(class).or_insert(0) += 1;
            row.ask_at_ms = Some(now_ms.saturating_add(pause));
            row.staged = false;
            row.expired = 0;
        });
    }

    /// Whether a next attempt could begin in a leg. Where it could not, the failure is how the host ended.
    fn is_tried_again_in(&self, leg: &LegId, host: &HostId) -> bool {
        let group = self
            .planned(host)
            .and_then(|planned| self.group(leg, &planned.group));
        let closed = group.is_some_and(|row| row.phase == GroupPhase::RolledBack);
        !closed && self.rollout.going_back.is_none() && !self.has_gone_on(leg)
    }

    /// Whether it waits for an attempt that comes by itself. Right after a start of the coordinator whoever waited for one still does.
    pub(super) fn is_retried(&self, host: &HostId, row: &HostRow, now_ms: u64) -> bool {
        let waits = row.phase == HostPhase::Waiting
            && row
                .ask_at_ms
                .is_some_and(|at| at > now_ms && self.can_be_asked(host) || self.is_unheard(host, now_ms));
        waits && !row.retried.is_empty() && row.backup_since_ms.is_none()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_pause_counts_for_all_later_ones() {
        let retries = Retries {
            times: 9,
            backoff_ms: vec![10, 20],
        };
        assert_eq!(
            [0, 1, 2, 8].map(|earlier| backoff(&retries, earlier)),
            [10, 20, 20, 20]
        );
        assert_eq!(backoff(&Retries::default(), 3), 0);
    }
}
