//! Order of package versions as dpkg and rpm see it. The coordinator has neither tool, the agent asks the real one.

use debversion::Version as DebVersion;
use std::cmp::Ordering;

/// Compares two Debian package versions. `None` when one of them is not a Debian version.
pub fn compare_deb(a: &str, b: &str) -> Option<Ordering> {
    Some(a.parse::<DebVersion>().ok()?.cmp(&b.parse::<DebVersion>().ok()?))
}

/// Compares two RPM `[epoch:]version-release` texts by RPM's algorithm.
pub fn compare_rpm(a: &str, b: &str) -> Ordering {
    rpm_version::rpm_evr_compare(a, b)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debian_order() {
        assert_eq!(
            compare_deb("3.9.1-1.bookworm", "3.10.0-1.bookworm"),
            Some(Ordering::Less)
        );
        assert_eq!(compare_deb("3.9.1~rc1-1", "3.9.1-1"), Some(Ordering::Less));
        assert_eq!(compare_deb("1:2.0-1", "3.0-1"), Some(Ordering::Greater));
    }

    #[test]
    fn rpm_order() {
        assert_eq!(compare_rpm("3.9.1-1.el9", "3.10.0-1.el9"), Ordering::Less);
        assert_eq!(compare_rpm("3.9.1~rc1-1", "3.9.1-1"), Ordering::Less);
    }
}
