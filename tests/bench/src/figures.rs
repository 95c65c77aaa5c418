//! Small arithmetic.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// The value below which `percent` of the values lie; 0 without values.
pub fn percentile(values: &[f64], percent: f64) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let last = sorted.len().saturating_sub(1);
    let at = (last as f64 * percent / 100.0).round() as usize;
    sorted.get(at).copied().unwrap_or(0.0)
}

pub fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len().max(1) as f64
}

/// When work of these lengths ends if each piece in turn goes to the first of `width` workers that is free, and nothing else takes time.
pub fn schedule(lengths: impl IntoIterator<Item = u64>, width: usize) -> u64 {
    let mut workers: BinaryHeap<Reverse<u64>> = (0..width.max(1)).map(|_| Reverse(0)).collect();
    let mut end = 0;
    for length in lengths {
        let free = workers.pop().map_or(0, |Reverse(at)| at);
        end = end.max(free + length);
        workers.push(Reverse(free + length));
    }
    end
}

/// Splitmix64 over a seed and a place: the same numbers in every run, whatever the order of events.
pub fn draw(seed: u64, place: u64, bound: u64) -> u64 {
    let mut z = seed
        .wrapping_mul(0x9E37_79B9_7F4A_7C15)
        .wrapping_add(place.wrapping_mul(0xD1B5_4A32_D192_ED03));
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    (z ^ (z >> 31)) % bound.max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_values_of_the_list() {
        let values: Vec<f64> = (0..101).map(f64::from).rev().collect();
        assert_eq!(
            [0.0, 50.0, 99.0, 100.0].map(|p| percentile(&values, p)),
            [0.0, 50.0, 99.0, 100.0]
        );
        assert_eq!(percentile(&[], 99.0), 0.0);
        assert_eq!(mean(&[1.0, 3.0]), 2.0);
    }

    #[test]
    fn a_schedule_waits_for_the_first_free_worker() {
        assert_eq!(schedule([3, 1, 1, 4], 2), 6);
        assert_eq!(schedule([3, 1, 1, 4], 1), 9);
        assert_eq!(schedule([3, 1, 1, 4], 9), 4);
        assert_eq!(schedule([], 2), 0);
    }
}
