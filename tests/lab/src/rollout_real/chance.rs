//! Random moments from a seed, so that a run can be repeated.

use crate::output;
use std::sync::OnceLock;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

static SEED: OnceLock<u64> = OnceLock::new();

/// Chooses the seed of this process; without it the clock does.
pub fn choose(seed: u64) {
    SEED.get_or_init(|| seed);
}

/// The seed, printed.
pub fn seed() -> u64 {
    let seed = *SEED.get_or_init(|| {
        SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |since| since.as_secs())
    });
    output::step(&format!(
        "seed {seed}; `cargo lab suite rollout-real --seed {seed}` draws the same moments"
    ));
    seed
}

/// Moments in order, one in each of as many equal parts of a span, at random within its part.
pub fn moments(seed: u64, span: Duration, count: u32) -> Vec<Duration> {
    let mut state = seed;
    (0..count)
        .map(|part| span.mul_f64((f64::from(part) + fraction(&mut state)) / f64::from(count)))
        .collect()
}

/// The next number from 0 up to 1 (SplitMix64: small, and good enough to spread kills).
fn fraction(state: &mut u64) -> f64 {
    *state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let mut mixed = *state;
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    mixed ^= mixed >> 31;
    f64::from((mixed >> 32) as u32) / (f64::from(u32::MAX) + 1.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_draws_the_same_moments_again_and_another_one_others() {
        let span = Duration::from_secs(100);
        assert_eq!(moments(7, span, 10), moments(7, span, 10));
        assert_ne!(moments(7, span, 10), moments(8, span, 10));
    }

    #[test]
    fn each_part_has_its_moment() {
        for seed in 0..100 {
            for (part, moment) in (0..).zip(moments(seed, Duration::from_secs(100), 10)) {
                let from = Duration::from_secs(part * 10);
                assert!(
                    moment >= from && moment < from + Duration::from_secs(10),
                    "{seed}: {moment:?}"
                );
            }
        }
    }
}
