//! How long the coordinator has said nothing, and how that is marked.

use crate::cli::text::duration;
use crate::clock;
use std::time::{Duration, Instant};

/// Between two looks at whether something came.
pub(super) const LOOK: Duration = Duration::from_secs(1);
/// Frames come each second; three of them may be late on a busy machine.
const LONG: Duration = Duration::from_secs(4);
/// A connection over which nothing comes for so long is made anew.
pub(super) const GIVE_UP: Duration = Duration::from_secs(20);

/// Since when nothing came: by a clock that only goes forward, and by the wall's for people.
pub(super) struct Silence {
    since: Instant,
    since_ms: u64,
}

impl Silence {
    pub(super) fn new(since: Instant, since_ms: u64) -> Self {
        Self { since, since_ms }
    }

    pub(super) fn is_long(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.since) >= LONG
    }

    pub(super) fn mark(&self, now: Instant) -> String {
        let age = now.saturating_duration_since(self.since);
        mark(self.since_ms, u64::try_from(age.as_millis()).unwrap_or(u64::MAX))
    }
}

/// What stands over a frame that is old.
fn mark(since_ms: u64, age_ms: u64) -> String {
    format!(
        "no answer since {} UTC ({}), trying again; what stands below may be over",
        clock::time_of_day(since_ms),
        duration(age_ms)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_silence_of_some_seconds_is_marked_with_its_age() {
        let begun = Instant::now();
        let silence = Silence::new(begun, 1_780_351_200_000);
        assert!(!silence.is_long(begun + Duration::from_secs(3)));
        assert!(silence.is_long(begun + Duration::from_secs(5)));
        assert_eq!(
            silence.mark(begun + Duration::from_secs(75)),
            "no answer since 22:00:00 UTC (1m 15s), trying again; what stands below may be over"
        );
    }
}
