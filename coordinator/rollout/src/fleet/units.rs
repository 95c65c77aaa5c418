//! Numbers, percentages and durations as people write them.

use serde::{Deserialize, Serialize};
use std::fmt;

/// A count or a share of a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Limit {
    /// So many hosts.
    Count(u32),
    /// So many percent of the group's hosts, 0 to 100.
    Percent(u32),
}

impl Limit {
    /// Canaries: percentages round up, and a percentage is never less than one host. Never more than the group has.
    pub fn canaries(self, hosts: u32) -> u32 {
        let wanted = match self {
            Self::Count(count) => count,
            Self::Percent(percent) => (hosts.saturating_mul(percent)).div_ceil(100).max(1),
        };
        wanted.min(hosts)
    }

    /// Width: percentages round down, at least one host.
    pub fn max_unavailable(self, hosts: u32) -> u32 {
        match self {
            Self::Count(count) => count.max(1),
            Self::Percent(percent) => (hosts.saturating_mul(percent) / 100).max(1),
        }
    }

    /// Tolerated failures: percentages round down, zero is possible.
    pub fn failure_threshold(self, hosts: u32) -> u32 {
        match self {
            Self::Count(count) => count,
            Self::Percent(percent) => hosts.saturating_mul(percent) / 100,
        }
    }

    pub(in crate::fleet) fn read(text: &str) -> Result<Self, String> {
        let Some(number) = text.trim().strip_suffix('%') else {
            return match text.trim().parse::<u32>() {
                Ok(_) => Err(format!("`{text}` is a text, not a number")),
                Err(_) => Err(format!("`{text}` is neither a whole number nor a percentage")),
            };
        };
        match number.trim().parse::<u32>() {
            Ok(percent) if percent <= 100 => Ok(Self::Percent(percent)),
            Ok(_) => Err(format!("`{text}` is more than 100%")),
            Err(_) => Err(format!("`{text}` is not a whole percentage")),
        }
    }
}

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Count(count) => write!(f, "{count}"),
            Self::Percent(percent) => write!(f, "{percent}%"),
        }
    }
}

/// Milliseconds of a text such as `15m`, `90s`, `1h30m`, `2d` or `500ms`.
pub fn duration_ms(text: &str) -> Option<u64> {
    let mut rest = text.trim();
    if rest == "0" {
        return Some(0);
    }
    let mut total: u64 = 0;
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let number: u64 = rest.get(..digits)?.parse().ok()?;
        rest = &rest[digits..];
        let letters = rest.bytes().take_while(u8::is_ascii_alphabetic).count();
        let unit = match &rest[..letters] {
            "ms" => 1,
            "s" => 1_000,
            "m" => 60_000,
            "h" => 3_600_000,
            "d" => 86_400_000,
            _ => return None,
        };
        total = total.checked_add(number.checked_mul(unit)?)?;
        rest = rest[letters..].trim_start();
    }
    Some(total)
}

/// A duration for people: the two largest units, such as `1h 30m`, `45s` or `300ms`.
pub fn duration_text(ms: u64) -> String {
    if ms < 1_000 {
        return format!("{ms}ms");
    }
    let seconds = ms / 1_000;
    let parts = [
        (seconds / 86_400, "d"),
        (seconds / 3_600 % 24, "h"),
        (seconds / 60 % 60, "m"),
        (seconds % 60, "s"),
    ];
    let shown: Vec<String> = parts
        .iter()
        .skip_while(|(value, _)| *value == 0)
        .take(2)
        .filter(|(value, _)| *value > 0)
        .map(|(value, unit)| format!("{value}{unit}"))
        .collect();
    shown.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn percentages_on_small_groups() {
        for (hosts, canaries, width, threshold) in [
            (1, 1, 1, 0),
            (2, 1, 1, 0),
            (3, 1, 1, 0),
            (7, 1, 1, 0),
            (100, 10, 10, 10),
        ] {
            let limit = Limit::Percent(10);
            assert_eq!(
                (
                    limit.canaries(hosts),
                    limit.max_unavailable(hosts),
                    limit.failure_threshold(hosts)
                ),
                (canaries, width, threshold),
                "{hosts} hosts"
            );
        }
        assert_eq!(Limit::Percent(34).canaries(3), 2);
        assert_eq!(Limit::Percent(34).max_unavailable(3), 1);
    }

    /// What a percentage of a group must become, from what the words mean: the fewest hosts that are at least that share, the most that are
    /// at most that share.
    fn exact(hosts: u32, percent: u32) -> (u32, u32, u32) {
        let fewest = (1..).find(|count| count * 100 >= hosts * percent);
        let most = (0..=hosts).rev().find(|count| count * 100 <= hosts * percent);
        let most = most.unwrap_or(0);
        (fewest.unwrap_or(u32::MAX), most.max(1), most)
    }

    /// Sizes and percentages at which three roundings are not what they must be.
    fn wrong(roundings: impl Fn(u32, u32) -> (u32, u32, u32)) -> usize {
        let all = (1..=200).flat_map(|hosts| (0..=100).map(move |percent| (hosts, percent)));
        all.filter(|(hosts, percent)| roundings(*hosts, *percent) != exact(*hosts, *percent))
            .count()
    }

    #[test]
    fn every_percentage_of_every_group_becomes_the_right_integer() {
        let ours = |hosts, percent| {
            let limit = Limit::Percent(percent);
            (
                limit.canaries(hosts),
                limit.max_unavailable(hosts),
                limit.failure_threshold(hosts),
            )
        };
        assert_eq!(wrong(ours), 0);
        // Each rounding the other way, to the nearest, or without its least is noticed.
        let near = |hosts: u32, percent: u32| (hosts * percent + 50) / 100;
        let (up, down) = (
            |hosts: u32, percent: u32| (hosts * percent).div_ceil(100),
            |hosts: u32, percent: u32| hosts * percent / 100,
        );
        assert!(wrong(|h, p| (down(h, p).max(1), ours(h, p).1, ours(h, p).2)) > 0);
        assert!(wrong(|h, p| (near(h, p).max(1), ours(h, p).1, ours(h, p).2)) > 0);
        assert!(wrong(|h, p| (up(h, p), ours(h, p).1, ours(h, p).2)) > 0);
        assert!(wrong(|h, p| (ours(h, p).0, up(h, p).max(1), ours(h, p).2)) > 0);
        assert!(wrong(|h, p| (ours(h, p).0, near(h, p).max(1), ours(h, p).2)) > 0);
        assert!(wrong(|h, p| (ours(h, p).0, down(h, p), ours(h, p).2)) > 0);
        assert!(wrong(|h, p| (ours(h, p).0, ours(h, p).1, up(h, p))) > 0);
        assert!(wrong(|h, p| (ours(h, p).0, ours(h, p).1, near(h, p))) > 0);
        assert!(wrong(|h, p| (ours(h, p).0, ours(h, p).1, down(h, p).max(1))) > 0);
    }

    #[test]
    fn durations() {
        assert_eq!(duration_ms("15m"), Some(900_000));
        assert_eq!(duration_ms("1h30m"), Some(5_400_000));
        assert_eq!(duration_ms("500ms"), Some(500));
        assert_eq!(duration_ms("0"), Some(0));
        for bad in ["", "15", "m", "-1s", "1.5h", "ten minutes", "1w"] {
            assert_eq!(duration_ms(bad), None, "{bad}");
        }
        assert_eq!(duration_text(5_400_000), "1h 30m");
        assert_eq!(duration_text(45_200), "45s");
        assert_eq!(duration_text(3_600_000), "1h");
        assert_eq!(duration_text(0), "0ms");
    }

    proptest! {
        #[test]
        fn canaries_round_up_width_and_threshold_down(hosts in 1u32..2000, percent in 1u32..=100) {
            let limit = Limit::Percent(percent);
            let exact = hosts * percent;
            prop_assert!(limit.canaries(hosts) >= 1 && limit.canaries(hosts) * 100 >= exact);
            prop_assert!(limit.max_unavailable(hosts) >= 1);
            prop_assert!(limit.max_unavailable(hosts) == 1 || limit.max_unavailable(hosts) * 100 <= exact);
            prop_assert!(limit.failure_threshold(hosts) * 100 <= exact);
        }
    }
}
