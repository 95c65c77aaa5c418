//! `pmm-admin --version` and the `VERSION` file of a tarball.

use fleet_common::version::PmmVersion;

/// Reads the `Version:` line of `pmm-admin --version` or `pmm-agent --version` (percona/pmm version/release.go). A `PMMVersion:` line, where
/// there is one, says the same.
pub fn program(text: &str) -> Option<PmmVersion> {
    let field = |name: &str| {
        text.lines()
            .filter_map(|line| line.split_once(':'))
            .find(|(key, _)| key.trim() == name)
            .and_then(|(_, value)| PmmVersion::from_package_version(value.trim()).ok())
    };
    field("PMMVersion").or_else(|| field("Version"))
}

/// Reads the one line of a tarball's `VERSION` file.
pub fn file(text: &str) -> Option<PmmVersion> {
    PmmVersion::from_package_version(text.trim()).ok()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn both_lines_are_read() {
        let text = "ProjectName: pmm-admin\nVersion: 2.41.2\nPMMVersion: 2.41.2\nTimestamp: 2024-03-01 10:00:00 (UTC)\nFullCommit: 0\n";
        assert_eq!(program(text).unwrap(), PmmVersion::new(2, 41, 2));
        assert_eq!(program("Version: 3.9.1-dev").unwrap(), PmmVersion::new(3, 9, 1));
        assert_eq!(program("nonsense"), None);
        assert_eq!(file("3.9.1\n").unwrap(), PmmVersion::new(3, 9, 1));
    }
}
