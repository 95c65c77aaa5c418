//! PMM release numbers.

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::fmt;
use std::str::FromStr;

/// A PMM release, `major.minor.patch`. Build suffixes (`-6.jammy`, `-7.el9`) are no part of it: the build number is not
/// constant between releases (PMM client packages, QA's table of 3.x builds).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PmmVersion {
    /// 2 or 3.
    pub major: u32,
    /// Minor release.
    pub minor: u32,
    /// Patch release.
    pub patch: u32,
}

impl PmmVersion {
    /// A release from its three numbers.
    pub const fn new(major: u32, minor: u32, patch: u32) -> Self {
        Self { major, minor, patch }
    }

    /// Reads the release at the start of a package version such as `2.42.0-6.focal` or `1:3.9.1-1.el9`.
    pub fn from_package_version(text: &str) -> Result<Self, VersionError> {
        let after_epoch = text.split_once(':').map_or(text, |(_, rest)| rest);
        let release = after_epoch.split(['-', '~', '+']).next().unwrap_or(after_epoch);
        release.parse().map_err(|_| VersionError {
            text: text.to_owned(),
        })
    }
}

/// Text that is not `major.minor.patch`.
#[derive(Debug, thiserror::Error, PartialEq, Eq, Clone)]
#[error("`{text}` is not a PMM release number such as 3.9.1")]
pub struct VersionError {
    /// What was read.
    pub text: String,
}

impl FromStr for PmmVersion {
    type Err = VersionError;

    fn from_str(text: &str) -> Result<Self, VersionError> {
        let bad = || VersionError {
            text: text.to_owned(),
        };
        let numbers: Vec<u32> = text
            .split('.')
            .map(|part| {
                let canonical = !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
                if canonical {
                    part.parse().map_err(|_| bad())
                } else {
                    Err(bad())
                }
            })
            .collect::<Result<_, _>>()?;
        match numbers[..] {
            [major, minor, patch] => Ok(Self { major, minor, patch }),
            _ => Err(bad()),
        }
    }
}

impl fmt::Display for PmmVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.major, self.minor, self.patch)
    }
}

impl Serialize for PmmVersion {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for PmmVersion {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn package_versions_of_both_families_are_read() {
        for (text, want) in [
            ("2.42.0-6.focal", "2.42.0"),
            ("3.9.1-1.el9", "3.9.1"),
            ("1:3.7.1-8.jammy", "3.7.1"),
        ] {
            assert_eq!(PmmVersion::from_package_version(text).unwrap().to_string(), want);
        }
    }

    #[test]
    fn odd_texts_are_refused() {
        for text in [
            "3", "3.9", "3.9.1.2", "v3.9.1", "3.9.x", "", "3..1", "+3.1.1", "latest",
        ] {
            assert!(text.parse::<PmmVersion>().is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn text_round_trips(a in 0u32..999, b in 0u32..999, c in 0u32..999) {
            let version = PmmVersion::new(a, b, c);
            prop_assert_eq!(version.to_string().parse::<PmmVersion>().unwrap(), version);
        }
    }
}
