//! How long an order takes, on a clock that nobody can set: milliseconds since boot, suspended time included, together with the boot's id.
//! Readings of two boots can't be compared; across a reboot counts what the journal itself states.

use serde::{Deserialize, Serialize};

/// A reading of the clock.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reading {
    /// The boot. Empty when it can't be told; then it equals no other.
    pub boot_id: String,
    /// Milliseconds since that boot.
    pub boot_ms: u64,
}

impl Reading {
    /// Whether both are of one boot that is known.
    pub fn same_boot(&self, other: &Self) -> bool {
        !self.boot_id.is_empty() && self.boot_id == other.boot_id
    }
}

/// A moment of an order: when, and how much of the order's time had passed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Moment {
    /// When.
    pub reading: Reading,
    /// Milliseconds of the order that had passed.
    pub spent_ms: u64,
}

impl Moment {
    /// Milliseconds of the order that have passed now. In another boot it is what the journal recorded last: the time without power is
    /// not known and not counted.
    pub fn spent_ms(&self, now: &Reading, recorded_ms: u64) -> u64 {
        if self.reading.same_boot(now) {
            let since = now.boot_ms.saturating_sub(self.reading.boot_ms);
            self.spent_ms.saturating_add(since).max(recorded_ms)
        } else {
            self.spent_ms.max(recorded_ms)
        }
    }
}

/// What is left of a deadline: never more than all of it.
pub fn left_ms(deadline_ms: u64, spent_ms: u64) -> u64 {
    deadline_ms.saturating_sub(spent_ms)
}

/// A stretch that began at a moment and ends now. In one boot the clock says it; across a reboot only the wall clock saw all of it, and it is
/// believed where it says more than the recorded time.
pub fn stretch_ms(begun: &Moment, begun_wall_ms: u64, now: &Moment, now_wall_ms: u64) -> u64 {
    let recorded = now.spent_ms.saturating_sub(begun.spent_ms);
    if begun.reading.same_boot(&now.reading) {
        recorded
    } else {
        recorded.max(now_wall_ms.saturating_sub(begun_wall_ms))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn reading(boot: &str, boot_ms: u64) -> Reading {
        Reading {
            boot_id: boot.into(),
            boot_ms,
        }
    }

    fn moment(boot: &str, boot_ms: u64, spent_ms: u64) -> Moment {
        Moment {
            reading: reading(boot, boot_ms),
            spent_ms,
        }
    }

    #[test]
    fn within_a_boot_the_clock_counts_and_across_one_the_record() {
        let begun = moment("a", 1_000, 0);
        assert_eq!(begun.spent_ms(&reading("a", 4_000), 2_000), 3_000);
        assert_eq!(begun.spent_ms(&reading("b", 9_000), 2_000), 2_000);
        assert_eq!(begun.spent_ms(&reading("", 9_000), 2_000), 2_000);
        assert_eq!(moment("", 0, 0).spent_ms(&reading("", 9_000), 7), 7);
    }

    #[test]
    fn a_jump_of_the_wall_clock_moves_nothing_within_a_boot() {
        let begun = moment("a", 1_000, 100);
        let now = moment("a", 3_000, 2_100);
        for wall in [0, 5_000, u64::MAX] {
            assert_eq!(stretch_ms(&begun, 5_000, &now, wall), 2_000);
        }
        let rebooted = moment("b", 10, 2_100);
        assert_eq!(stretch_ms(&begun, 5_000, &rebooted, 65_000), 60_000);
        assert_eq!(stretch_ms(&begun, 5_000, &rebooted, 0), 2_000);
    }

    proptest! {
        /// Whatever the readings: nothing is left beyond the deadline, and what was recorded as spent is never given back.
        #[test]
        fn no_reading_makes_time(
            anchor in (0u8..3, any::<u64>(), any::<u64>()),
            now in (0u8..3, any::<u64>()),
            recorded: u64,
            deadline: u64,
        ) {
            let name = |boot: u8| ["", "a", "b"][usize::from(boot)];
            let begun = moment(name(anchor.0), anchor.1, anchor.2);
            let spent = begun.spent_ms(&reading(name(now.0), now.1), recorded);
            prop_assert!(spent >= recorded && spent >= anchor.2);
            prop_assert!(left_ms(deadline, spent) <= deadline);
        }
    }
}
