//! When the agent's own certificate is to be replaced. Times are arguments.

/// What the certificate's age asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Due {
    /// Nothing yet; look again after this many milliseconds.
    In(u64),
    /// Renew now.
    Now,
    /// Renew now, and say loudly that it is late.
    Late,
}

/// Longest time between two looks: the wall clock may be set while we sleep.
const LOOK_MS: u64 = 3_600_000;
/// First wait after a renewal that failed.
const FIRST_WAIT_MS: u64 = 60_000;
/// Longest wait after a renewal that failed.
const LONGEST_WAIT_MS: u64 = 6 * 3_600_000;

/// Decides from the certificate's validity and the time, all Unix milliseconds. Due at two thirds of its life, late at four fifths.
pub fn due(not_before_ms: u64, not_after_ms: u64, now_ms: u64) -> Due {
    let life = not_after_ms.saturating_sub(not_before_ms);
    let due_ms = not_before_ms.saturating_add(life / 3 * 2);
    let late_ms = not_before_ms.saturating_add(life / 5 * 4);
    if now_ms >= late_ms {
        Due::Late
    } else if now_ms >= due_ms {
        Due::Now
    } else {
        Due::In((due_ms - now_ms).clamp(1, LOOK_MS))
    }
}

/// The wait before the next attempt, counted from 1.
pub fn wait_ms(attempt: u32) -> u64 {
    let doubled = 1u64
        .checked_shl(attempt.saturating_sub(1).min(20))
        .unwrap_or(u64::MAX);
    FIRST_WAIT_MS.saturating_mul(doubled).min(LONGEST_WAIT_MS)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn two_thirds_and_four_fifths() {
        let day = 24 * 3_600_000;
        assert_eq!(due(0, 30 * day, 19 * day), Due::In(LOOK_MS));
        assert_eq!(due(0, 30 * day, 20 * day - 5), Due::In(5));
        assert_eq!(due(0, 30 * day, 20 * day), Due::Now);
        assert_eq!(due(0, 30 * day, 24 * day), Due::Late);
        assert_eq!(due(0, 30 * day, 40 * day), Due::Late);
    }

    proptest! {
        #[test]
        fn it_is_never_forgotten(from: u32, life: u32, now: u64) {
            let (from, to) = (u64::from(from), u64::from(from) + u64::from(life));
            match due(from, to, now) {
                Due::In(wait) => prop_assert!(wait > 0 && now.saturating_add(wait) <= to.max(now + 1)),
                Due::Now | Due::Late => prop_assert!(now >= from),
            }
        }

        #[test]
        fn waits_grow_to_a_limit(attempt in 1u32..1000) {
            prop_assert!(wait_ms(attempt) <= wait_ms(attempt + 1) && wait_ms(attempt) <= LONGEST_WAIT_MS);
        }
    }
}
