//! The compatibility table: which PMM releases may follow which. The rows are data (`common/data/compatibility.toml`), each with its
//! source, and can be overridden by an installation.

use crate::inventory::Method;
use crate::version::PmmVersion;
use serde::Deserialize;

const SHIPPED: &str = include_str!("../data/compatibility.toml");

/// Everything the planner knows about releases.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CompatibilityTable {
    /// Releases that must be passed through.
    #[serde(default, rename = "floor")]
    pub floors: Vec<Floor>,
    /// Ends of a migration path.
    #[serde(default, rename = "door")]
    pub doors: Vec<Door>,
    /// What PMM 2 clients get.
    #[serde(default)]
    pub pmm2_clients: Vec<Pmm2ClientSupport>,
    /// Known harm done by client packages.
    #[serde(default, rename = "client_hazard")]
    pub client_hazards: Vec<ClientHazard>,
}

/// An installation older than `below` reaches `target_from` and later only through `via`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Floor {
    /// Installations older than this are concerned.
    pub below: PmmVersion,
    /// Targets from this release on are concerned.
    pub target_from: PmmVersion,
    /// The release that must run in between.
    pub via: PmmVersion,
    /// Where this is written.
    pub source: String,
}

/// The last release that takes installations older than `from_below`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Door {
    /// Installations older than this are concerned.
    pub from_below: PmmVersion,
    /// The last release they may reach.
    pub last_target: PmmVersion,
    /// Where this is written.
    pub source: String,
}

/// What PMM 2 clients get on servers from `server_from` on.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pmm2ClientSupport {
    /// First server release.
    pub server_from: PmmVersion,
    /// The promise.
    pub support: ClientSupport,
    /// Where this is written.
    pub source: String,
}

/// A promise about PMM 2 clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ClientSupport {
    /// Everything works (PMM 2 servers).
    Full,
    /// Metrics and Query Analytics only.
    Partial,
    /// Nothing is promised.
    NotGuaranteed,
}

/// Known harm done by a client package family.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClientHazard {
    /// Package family.
    pub method: Method,
    /// First release with the hazard.
    pub from: PmmVersion,
    /// First release without it.
    pub before: PmmVersion,
    /// What happens.
    pub effect: String,
    /// Where this is written.
    pub source: String,
}

/// Why there is no path.
#[derive(Debug, thiserror::Error, PartialEq, Eq, Clone)]
pub enum PathError {
    /// The target is older than what runs.
    #[error("target {target} is older than the running release {from}; PMM cannot be downgraded")]
    Downgrade {
        /// Running release.
        from: PmmVersion,
        /// Wanted release.
        target: PmmVersion,
    },
    /// The table says that no path exists.
    #[error("no path from {from} to {target}: the last release that takes this installation is {last}")]
    Closed {
        /// Running release.
        from: PmmVersion,
        /// Wanted release.
        target: PmmVersion,
        /// Last reachable release.
        last: PmmVersion,
        /// Where this is written.
        source_row: String,
    },
    /// Majors that the table knows nothing about.
    #[error("no path from {from} to {target}: the compatibility table knows PMM 2 and 3 only")]
    UnknownMajor {
        /// Running release.
        from: PmmVersion,
        /// Wanted release.
        target: PmmVersion,
    },
}

impl CompatibilityTable {
    /// The table that is compiled in.
    pub fn shipped() -> Result<Self, toml::de::Error> {
        toml::from_str(SHIPPED)
    }

    /// A table from text of the same form.
    pub fn parse(text: &str) -> Result<Self, toml::de::Error> {
        toml::from_str(text)
    }

    /// The releases to run one after the other, without the one that runs now. Empty when the target runs already.
    pub fn hop_path(&self, from: PmmVersion, target: PmmVersion) -> Result<Vec<PmmVersion>, PathError> {
        if target < from {
            return Err(PathError::Downgrade { from, target });
        }
        if !(2..=3).contains(&from.major) || !(2..=3).contains(&target.major) {
            return Err(PathError::UnknownMajor { from, target });
        }
        for door in &self.doors {
            if from < door.from_below && target > door.last_target {
                return Err(PathError::Closed {
                    from,
                    target,
                    last: door.last_target,
                    source_row: door.source.clone(),
                });
            }
        }
        let mut path = Vec::new();
        let mut at = from;
        while at < target {
            let next = self
                .floors
                .iter()
                .filter(|floor| at < floor.below && target >= floor.target_from && floor.via > at)
                .map(|floor| floor.via)
                .min()
                .unwrap_or(target)
                .min(target);
            path.push(next);
            at = next;
        }
        Ok(path)
    }

    /// What PMM 2 clients get on a server of this release.
    pub fn pmm2_clients_on(&self, server: PmmVersion) -> ClientSupport {
        self.pmm2_clients
            .iter()
            .filter(|row| row.server_from <= server)
            .max_by_key(|row| row.server_from)
            .map_or(ClientSupport::Full, |row| row.support)
    }

    /// Known harm of installing this release by this method.
    pub fn hazards(&self, method: Method, release: PmmVersion) -> Vec<&ClientHazard> {
        self.client_hazards
            .iter()
            .filter(|row| row.method == method && row.from <= release && release < row.before)
            .collect()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    fn path(from: &str, to: &str) -> Vec<String> {
        let table = CompatibilityTable::shipped().unwrap();
        table
            .hop_path(from.parse().unwrap(), to.parse().unwrap())
            .unwrap()
            .iter()
            .map(ToString::to_string)
            .collect()
    }

    #[test]
    fn the_main_road() {
        assert_eq!(path("2.41.2", "3.9.1"), ["2.44.1", "3.7.1", "3.9.1"]);
        assert_eq!(path("2.44.1", "3.9.1"), ["3.7.1", "3.9.1"]);
        assert_eq!(path("2.41.2", "3.2.0"), ["2.44.1", "3.2.0"]);
        assert_eq!(path("3.2.0", "3.9.1"), ["3.7.1", "3.9.1"]);
        assert_eq!(path("2.30.0", "3.7.1"), ["2.32.0", "2.44.1", "3.7.1"]);
        assert!(path("3.9.1", "3.9.1").is_empty());
    }

    #[test]
    fn closed_doors_and_downgrades() {
        let table = CompatibilityTable::shipped().unwrap();
        let closed = table.hop_path(PmmVersion::new(2, 44, 1), PmmVersion::new(3, 13, 0));
        assert!(matches!(closed, Err(PathError::Closed { .. })));
        let down = table.hop_path(PmmVersion::new(3, 7, 1), PmmVersion::new(3, 2, 0));
        assert!(matches!(down, Err(PathError::Downgrade { .. })));
    }

    #[test]
    fn promises_to_pmm2_clients() {
        let table = CompatibilityTable::shipped().unwrap();
        assert_eq!(
            table.pmm2_clients_on(PmmVersion::new(2, 44, 1)),
            ClientSupport::Full
        );
        assert_eq!(
            table.pmm2_clients_on(PmmVersion::new(3, 2, 0)),
            ClientSupport::Partial
        );
        assert_eq!(
            table.pmm2_clients_on(PmmVersion::new(3, 9, 1)),
            ClientSupport::NotGuaranteed
        );
    }

    fn release() -> impl Strategy<Value = PmmVersion> {
        (2u32..=3, 0u32..50, 0u32..3).prop_map(|(major, minor, patch)| PmmVersion::new(major, minor, patch))
    }

    proptest! {
        #[test]
        fn paths_rise_and_end_at_the_target(from in release(), target in release()) {
            let table = CompatibilityTable::shipped().unwrap();
            if let Ok(path) = table.hop_path(from, target) {
                let mut at = from;
                for hop in &path {
                    prop_assert!(*hop > at);
                    at = *hop;
                }
                prop_assert_eq!(at, target.max(from));
            }
        }
    }
}
