//! PMM versions and what the stand-in knows of each: its schema number, what data it takes, what it refuses.

use std::{fmt, str::FromStr};

/// The version that an image or its data has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version {
    /// 2 or 3.
    pub major: u32,
    /// The release.
    pub minor: u32,
    /// The fix.
    pub patch: u32,
}

impl Version {
    /// A version from its parts.
    pub const fn new(major: u32, minor: u32, patch: u32) -> Self {
        Self { major, minor, patch }
    }

    /// Reads the version that this image plays.
    pub fn of_image() -> Self {
        read("/usr/share/pmm-server/VERSION").unwrap_or(Self::new(2, 41, 2))
    }

    /// Whether it is 3.x.
    pub fn is_v3(self) -> bool {
        self.major >= 3
    }

    /// The highest schema number that this version's pmm-managed knows.
    ///
    /// The range 101 to 116 belongs to 3.x (percona/pmm: managed/models/database.go). Which release added which of them is only known in
    /// part; the numbers below keep their order.
    pub fn schema(self) -> u32 {
        match (self.major, self.minor) {
            (2, ..=40) => 90,
            (2, 41) => 97,
            (2, 42) => 98,
            (2, 43) => 99,
            (2, _) => 100,
            (_, ..=1) => 106,
            (_, 2) => 107,
            (_, 3..=5) => 110,
            (_, 6..=7) => 114,
            (_, 8) => 115,
            _ => 116,
        }
    }

    /// The schema number of qan-api2's tables in ClickHouse.
    pub fn qan_schema(self) -> u32 {
        if self.is_v3() { 20 + self.minor.min(9) } else { 17 }
    }

    /// The Grafana that the release carries.
    pub fn grafana(self) -> &'static str {
        match (self.major, self.minor) {
            (2, _) => "9.2.20",
            (_, ..=7) => "11.1.8",
            _ => "12.4.0",
        }
    }

    /// Why data that were written by the releases in `history` cannot be migrated to this version, if they cannot.
    ///
    /// 2.44.1 is the only 2.x release that 3.x takes; from 3.8 on, data of 2.x must have passed through 3.7 (PMM docs: migrating_from_pmm_2.md and
    /// its troubleshooting page); 3.7.0 itself fails (release notes 3.7.1, PMM-14984); there is no way down (upgrade_docker.md).
    pub fn refuses(self, history: &[Self]) -> Option<String> {
        let highest = history.iter().max().copied()?;
        if self < highest && self.schema() < highest.schema() {
            return Some(format!(
                "pq: schema version {} is newer than {} of this release",
                highest.schema(),
                self.schema()
            ));
        }
        if !self.is_v3() {
            return None;
        }
        if self == Self::new(3, 7, 0) && highest < self {
            return Some("pq: password authentication failed for user \"pmm-managed\"".to_owned());
        }
        let last_v2 = history.iter().filter(|v| !v.is_v3()).max().copied()?;
        if last_v2 < Self::new(2, 44, 1) {
            return Some(format!(
                "pq: relation \"agents\" has the layout of {last_v2}, column \"environment_variables\" does not exist"
            ));
        }
        let stone = history.iter().any(|v| v.major == 3 && v.minor == 7);
        if self >= Self::new(3, 8, 0) && !stone {
            return Some(format!(
                "pq: constraint \"agents_node_id_fkey\" of data from {last_v2} does not exist (release 3.7 was skipped)"
            ));
        }
        None
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.major, self.minor, self.patch)
    }
}

impl FromStr for Version {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let core = text
            .trim()
            .trim_start_matches('v')
            .split(['-', '+'])
            .next()
            .unwrap_or_default();
        let mut parts = core.split('.').map(str::parse::<u32>);
        match (parts.next(), parts.next(), parts.next(), parts.next()) {
            (Some(Ok(major)), Some(Ok(minor)), Some(Ok(patch)), None) => Ok(Self { major, minor, patch }),
            _ => Err(format!("\"{}\" is not a PMM version", text.trim())),
        }
    }
}

/// Reads a version from a file.
pub fn read(path: &str) -> Option<Version> {
    std::fs::read_to_string(path).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn refused(target: &str, history: &[&str]) -> bool {
        let history: Vec<Version> = history.iter().map(|v| v.parse().unwrap()).collect();
        target.parse::<Version>().unwrap().refuses(&history).is_some()
    }

    #[test]
    fn supported_paths_are_taken() {
        assert!(!refused("2.44.1", &["2.41.2"]));
        assert!(!refused("3.7.1", &["2.41.2", "2.44.1"]));
        assert!(!refused("3.9.1", &["2.41.2", "2.44.1", "3.7.1"]));
        assert!(!refused("3.2.0", &["2.44.1"]));
        assert!(!refused("3.9.1", &["3.2.0"]));
        assert!(!refused("3.9.1", &[]));
    }

    #[test]
    fn other_paths_are_refused() {
        assert!(refused("3.7.1", &["2.41.2"]));
        assert!(refused("3.9.1", &["2.44.1"]));
        assert!(refused("3.9.1", &["2.44.1", "3.2.0"]));
        assert!(refused("3.7.0", &["2.44.1"]));
        assert!(refused("2.44.1", &["2.44.1", "3.7.1"]));
        assert!(refused("2.41.2", &["2.41.2", "2.44.1"]));
        assert!(refused("3.7.1", &["2.44.1", "3.7.1", "3.9.1"]));
    }
}
