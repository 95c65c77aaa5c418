//! Which PMM release a copy of the program plays, and the text of `--version`.

use serde_json::json;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};

/// Marks the JSON document that the package build appends to every copy of the program.
pub const MARK: &str = "\nSTANDIN-PMM-RELEASE:";
const TAIL: u64 = 512;

/// One PMM release.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Release {
    /// For example `2.41.2`.
    pub version: String,
    /// Build time as printed.
    pub timestamp: String,
    /// Full commit as printed.
    pub commit: String,
}

impl Release {
    /// Reads the release from the end of the running executable; `STANDIN_PMM_VERSION` serves programs without one.
    pub fn current() -> Self {
        let tail = read_tail().unwrap_or_default();
        Self::from_tail(&tail).unwrap_or_else(|| {
            Self::plain(&std::env::var("STANDIN_PMM_VERSION").unwrap_or_else(|_| "2.41.2".into()))
        })
    }

    /// A release known by its version alone.
    pub fn plain(version: &str) -> Self {
        Self {
            version: version.into(),
            timestamp: "1970-01-01 00:00:00 (UTC)".into(),
            commit: "0".repeat(40),
        }
    }

    fn from_tail(tail: &[u8]) -> Option<Self> {
        let mark = MARK.as_bytes();
        let at = tail.windows(mark.len()).rposition(|w| w == mark)? + mark.len();
        let doc: serde_json::Value = serde_json::from_slice(tail[at..].trim_ascii()).ok()?;
        let text = |key: &str| doc.get(key).and_then(|v| v.as_str()).map(ToString::to_string);
        Some(Self {
            version: text("version")?,
            timestamp: text("timestamp").unwrap_or_default(),
            commit: text("commit").unwrap_or_default(),
        })
    }

    /// First number of the version.
    pub fn major(&self) -> u32 {
        self.numbers().0
    }

    /// First two numbers of the version.
    pub fn numbers(&self) -> (u32, u32) {
        let mut parts = self.version.split('.').map(|p| p.parse().unwrap_or(0));
        (parts.next().unwrap_or(0), parts.next().unwrap_or(0))
    }

    /// True for PMM 3 programs.
    pub fn is_v3(&self) -> bool {
        self.major() >= 3
    }

    /// The default program directory of the release.
    pub fn default_base(&self) -> &'static str {
        if self.is_v3() {
            "/usr/local/percona/pmm"
        } else {
            "/usr/local/percona/pmm2"
        }
    }

    /// Text of `--version`.
    pub fn text(&self, project: &str) -> String {
        format!(
            "ProjectName: {project}\nVersion: {v}\nPMMVersion: {v}\nTimestamp: {}\nFullCommit: {}",
            self.timestamp,
            self.commit,
            v = self.version
        )
    }

    /// JSON of `--version --json`.
    pub fn json(&self, project: &str) -> String {
        json!({"ProjectName": project, "Version": self.version, "PMMVersion": self.version, "Timestamp": self.timestamp, "FullCommit": self.commit})
            .to_string()
    }
}

fn read_tail() -> std::io::Result<Vec<u8>> {
    let mut file = File::open("/proc/self/exe")?;
    let len = file.metadata()?.len();
    file.seek(SeekFrom::Start(len.saturating_sub(TAIL)))?;
    let mut tail = Vec::new();
    file.read_to_end(&mut tail)?;
    Ok(tail)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn reads_the_document_behind_the_mark() {
        let tail =
            b"\x7fELF..\nSTANDIN-PMM-RELEASE:{\"version\":\"3.9.1\",\"timestamp\":\"t\",\"commit\":\"c\"}\n";
        let release = Release::from_tail(tail).unwrap();
        assert_eq!(
            (release.version.as_str(), release.is_v3(), release.numbers()),
            ("3.9.1", true, (3, 9))
        );
        assert!(
            release
                .text("pmm-agent")
                .lines()
                .nth(1)
                .unwrap()
                .ends_with("3.9.1")
        );
        assert_eq!(Release::from_tail(b"nothing"), None);
    }
}
