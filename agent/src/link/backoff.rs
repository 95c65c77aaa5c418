//! Waiting between attempts to connect: exponential with full jitter, so that a fleet does not come back at one instant.

use std::time::Duration;

/// First ceiling.
const BASE_MS: u64 = 1_000;
/// Ceiling until the coordinator says another: 20 s fits 10,000 hosts.
const DEFAULT_CAP_MS: u64 = 20_000;

/// A random number below a limit; the limit itself is never returned.
pub fn below(limit_ms: u64) -> u64 {
    let random = u64::from_le_bytes(
        uuid::Uuid::new_v4().as_u128().to_le_bytes()[8..]
            .try_into()
            .unwrap_or_default(),
    );
    if limit_ms == 0 { 0 } else { random % limit_ms }
}

/// The wait before an attempt, counted from 0.
pub fn wait(attempt: u32, cap_ms: u64) -> Duration {
    let cap = if cap_ms == 0 { DEFAULT_CAP_MS } else { cap_ms };
    let ceiling = BASE_MS
        .saturating_mul(1u64.checked_shl(attempt.min(20)).unwrap_or(u64::MAX))
        .min(cap);
    // Never less than a tenth of a second: a coordinator that refuses at once is not hammered.
    Duration::from_millis(100 + below(ceiling))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_stay_below_the_cap() {
        for attempt in 0..60 {
            assert!(wait(attempt, 5_000) < Duration::from_millis(5_100));
        }
        assert!(wait(0, 0) < Duration::from_millis(1_100));
        assert_eq!(below(0), 0);
    }
}
