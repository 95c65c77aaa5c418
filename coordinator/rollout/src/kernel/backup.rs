//! A host on which PMM runs a database backup is not touched: it waits, without a slot, and is asked again.

use super::Kernel;
use super::state::HostPhase;
use crate::fleet::duration_text;
use fleet_common::codes;
use fleet_common::ids::{HostId, LegId};
use fleet_common::order::OrderResult;

/// First pause before it is asked again; each next one is twice as long, up to [`LONGEST_MS`].
const FIRST_MS: u64 = 60_000;
/// A backup that ended is noticed within this time.
const LONGEST_MS: u64 = 15 * 60_000;

impl Kernel {
    /// It never counts for the threshold: nothing failed.
    pub(super) fn wait_for_backup(&mut self, leg: &LegId, host: &HostId, result: &OrderResult, now_ms: u64) {
        let Some(row) = self.host(leg, host) else { return };
        let since = row.backup_since_ms.unwrap_or(now_ms);
        let answers = row.backup_answers + 1;
        let limit = self.plan.timing.backup_for_ms;
        let until = since.saturating_add(limit);
        if until <= now_ms {
            let reason = format!(
                "PMM ran a database backup there for all of the {} that are waited for: {}",
                duration_text(limit),
                result.message
            );
            return self.enter(leg, host, HostPhase::Skipped, now_ms, |row| {
                row.slot = row.broken;
                codes::BACKUP_RUNNING.clone_into(&mut row.code);
                row.reason = row.after_failure(&reason);
                row.backup_since_ms = None;
                row.backup_answers = 0;
            });
        }
        let at = now_ms.saturating_add(pause(answers)).min(until);
        let reason = if result.message.is_empty() {
            "PMM runs a database backup there".to_owned()
        } else {
            result.message.clone()
        };
        self.ask_anew(leg, host, &reason, now_ms);
        self.edit(leg, host, |row| {
            row.backup_since_ms = Some(since);
            row.backup_answers = answers;
            row.ask_at_ms = Some(at);
        });
    }

    /// Whether it waits for the end of a backup, and so has an end of its own.
    pub(super) fn waits_for_backup(&self, leg: &LegId, host: &HostId, now_ms: u64) -> bool {
        let limit = self.plan.timing.backup_for_ms;
        self.host(leg, host).is_some_and(|row| {
            !row.phase.is_final()
                && row
                    .backup_since_ms
                    .is_some_and(|since| since.saturating_add(limit) > now_ms)
        }) && self.can_be_asked(host)
    }
}

fn pause(answers: u32) -> u64 {
    FIRST_MS
        .saturating_mul(1 << answers.saturating_sub(1).min(8))
        .min(LONGEST_MS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_a_bound() {
        assert_eq!([1, 2, 3].map(pause), [60_000, 120_000, 240_000]);
        assert_eq!(pause(u32::MAX), LONGEST_MS);
    }
}
