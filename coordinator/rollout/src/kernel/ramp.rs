//! How wide a group goes after its canaries.

/// The width after `verified` hosts beyond the canaries: each step of the ramp lasts until as many hosts were verified at it as it is wide,
/// then the full width counts. No step is wider than that.
pub(crate) fn width(ramp: &[u32], verified: u32, full: u32) -> u32 {
    let mut left = verified;
    for step in ramp {
        if left < *step {
            return (*step).min(full);
        }
        left -= step;
    }
    full
}

#[cfg(test)]
mod tests {
    use super::width;
    use proptest::prelude::*;

    #[test]
    fn each_step_lasts_until_as_many_hosts_were_verified() {
        let widths: Vec<u32> = (0..9).map(|verified| width(&[1, 2, 4], verified, 10)).collect();
        assert_eq!(widths, [1, 2, 2, 4, 4, 4, 4, 10, 10]);
        assert_eq!(width(&[], 0, 3), 3);
        assert_eq!(
            width(&[0, 5], 0, 3),
            3,
            "an empty step is none, and none is wider than the group"
        );
    }

    proptest! {
        #[test]
        fn more_verified_hosts_never_make_a_growing_ramp_narrower(
            mut ramp in proptest::collection::vec(0..20_u32, 0..5), verified in 0..100_u32, full in 1..30_u32,
        ) {
            ramp.sort_unstable();
            let now = width(&ramp, verified, full);
            prop_assert!(now <= full);
            prop_assert!(width(&ramp, verified + 1, full) >= now || full < now);
        }
    }
}
