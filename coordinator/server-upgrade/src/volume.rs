//! The answers of the volume helper.

use fleet_common::version::PmmVersion;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Answer of `sync`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SyncReport {
    /// Files in the copy.
    pub files: u64,
    /// Bytes in the copy.
    pub bytes: u64,
    /// Files copied by this pass.
    pub copied_files: u64,
    /// Bytes copied by this pass.
    pub copied_bytes: u64,
    /// Milliseconds.
    pub took_ms: u64,
    /// After the final pass: what the data says about itself.
    #[serde(default)]
    pub source: Option<LookReport>,
    /// After the final pass: the same of the copy, counted.
    #[serde(default)]
    pub copy: Option<LookReport>,
}

impl SyncReport {
    /// What speaks against this copy being a way back.
    pub fn objections(&self) -> Vec<String> {
        let (Some(source), Some(copy)) = (&self.source, &self.copy) else {
            return vec!["the copy was not verified".to_owned()];
        };
        let mut out = Vec::new();
        if copy.files != self.files || copy.bytes != self.bytes {
            out.push(format!(
                "{} of {} files, {} of {} bytes",
                copy.files, self.files, copy.bytes, self.bytes
            ));
        }
        if copy.files == 0 {
            out.push("the copy is empty".to_owned());
        }
        let same = copy.distribution == source.distribution
            && copy.dashboards_version == source.dashboards_version
            && copy.encryption_key == source.encryption_key
            && copy.owner == source.owner;
        if !same {
            out.push("its markers differ from those of the data".to_owned());
        }
        out
    }
}

/// Answer of `own`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct OwnReport {
    /// Entries that were changed.
    pub changed: u64,
    /// Milliseconds.
    pub took_ms: u64,
}

/// Answer of `look`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct LookReport {
    /// Nothing at all in the directory.
    pub empty: bool,
    /// Text of `pmm-distribution`.
    pub distribution: Option<String>,
    /// Text of `grafana/PERCONA_DASHBOARDS_VERSION`.
    pub dashboards_version: Option<String>,
    /// Size of the encryption key.
    pub encryption_key: Option<u64>,
    /// `uid:gid` of the directory itself.
    pub owner: String,
    /// Sizes of log files.
    pub logs: BTreeMap<String, u64>,
    /// Files.
    pub files: u64,
    /// Bytes.
    pub bytes: u64,
    /// Free bytes of the file system.
    pub free_bytes: u64,
    /// Entries of read-only mounts that PMM 3's user can't read: the first few.
    pub unreadable: Vec<String>,
    /// How many there are.
    pub unreadable_count: u64,
}

impl LookReport {
    /// The release that the marker names.
    pub fn marker(&self) -> Option<PmmVersion> {
        PmmVersion::from_package_version(self.dashboards_version.as_deref()?).ok()
    }

    /// What speaks against this being the data directory of a PMM of this release.
    pub fn objections(&self, version: PmmVersion) -> Vec<String> {
        let mut out = Vec::new();
        if self.empty {
            out.push("the data directory is empty".to_owned());
        } else if self.distribution.is_none() {
            out.push(
                "the data directory has no pmm-distribution: PMM would initialise a fresh instance"
                    .to_owned(),
            );
        }
        match (self.marker(), &self.dashboards_version) {
            (Some(marker), _) if marker == version => {}
            (Some(marker), _) => out.push(format!(
                "the data directory was last used by {marker}, but {version} runs"
            )),
            (None, Some(text)) => out.push(format!(
                "the version marker `{text}` on the data directory is no release"
            )),
            (None, None) => {
                out.push("the data directory has no version marker: PMM would treat it as fresh".to_owned())
            }
        }
        out
    }
}

/// Owner of the data directory for a release: 1000:1000 in the first 3.x, 1000:0 since images run as uid 1000 with group 0 (percona/pmm
/// PR #4110 and PR #5844, PMM-15396). The exact release of the change is not known to us; a process of uid 1000 can use both.
pub fn owner_for(version: PmmVersion) -> Option<(u32, u32)> {
    match version.major {
        0..=2 => None,
        _ if version < PmmVersion::new(3, 4, 0) => Some((1000, 1000)),
        _ => Some((1000, 0)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_is_a_way_back_only_if_it_was_verified() {
        let look = LookReport {
            files: 2,
            bytes: 9,
            owner: "0:0".to_owned(),
            ..LookReport::default()
        };
        let mut report = SyncReport {
            files: 2,
            bytes: 9,
            ..SyncReport::default()
        };
        assert_eq!(report.objections().len(), 1);
        report.source = Some(look.clone());
        report.copy = Some(look.clone());
        assert!(report.objections().is_empty());
        report.copy = Some(LookReport {
            files: 1,
            owner: "1000:0".to_owned(),
            ..look
        });
        assert_eq!(report.objections().len(), 2);
    }

    #[test]
    fn owners_by_release() {
        assert_eq!(owner_for(PmmVersion::new(2, 44, 1)), None);
        assert_eq!(owner_for(PmmVersion::new(3, 2, 0)), Some((1000, 1000)));
        assert_eq!(owner_for(PmmVersion::new(3, 7, 1)), Some((1000, 0)));
    }
}
