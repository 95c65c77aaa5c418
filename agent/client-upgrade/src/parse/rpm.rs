//! `rpm -q`, `rpm -qf`, `rpm -V`, and what dnf and rpm say about scriptlets.

use crate::facts::{PackageFacts, PackageState};

/// The format given to `rpm -q --qf`.
pub const QUERY_FORMAT: &str = "%{NAME}\\t%{VERSION}-%{RELEASE}\\n";

/// Reads `rpm -q` in [`QUERY_FORMAT`]; lines about packages that are not installed are skipped.
pub fn query(text: &str) -> Vec<PackageFacts> {
    text.lines()
        .filter_map(|line| line.split_once('\t'))
        .map(|(name, version)| PackageFacts {
            name: name.to_owned(),
            state: PackageState::Installed,
            version: version.trim().to_owned(),
        })
        .collect()
}

/// Reads `rpm -qf --qf '%{NAME}\n' <path>`: the owning package.
pub fn owner(text: &str) -> Option<String> {
    text.lines()
        .map(str::trim)
        .find(|line| !line.is_empty() && !line.contains(' '))
        .map(str::to_owned)
}

/// Reads `rpm -V <package>`: files whose content differs from what was shipped.
pub fn verify(text: &str) -> Vec<String> {
    text.lines()
        .filter(|line| line.as_bytes().get(2) == Some(&b'5'))
        .filter_map(|line| line.find('/').and_then(|at| line.get(at..)))
        .map(str::to_owned)
        .collect()
}

/// The first line that reports a failed scriptlet. rpm and dnf can end with status 0 although `%posttrans` failed, and then the package's
/// own migration did not happen.
pub fn failed_scriptlet(text: &str) -> Option<String> {
    text.lines()
        .map(str::trim)
        .find(|line| {
            let lower = line.to_ascii_lowercase();
            lower.contains("scriptlet failed")
                || lower.contains("error in posttrans scriptlet")
                || lower.contains("error in <unknown> scriptlet")
                || (lower.starts_with("error in ") && lower.contains("scriptlet"))
        })
        .map(str::to_owned)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn query_skips_what_is_not_installed() {
        let packages = query("pmm2-client\t2.41.2-6.el9\npackage pmm-client is not installed\n");
        assert_eq!(packages.len(), 1);
        assert_eq!(packages[0].version, "2.41.2-6.el9");
    }

    #[test]
    fn owner_of_nothing_is_none() {
        assert_eq!(owner("file /opt/x is not owned by any package\n"), None);
        assert_eq!(owner("pmm-client\n").unwrap(), "pmm-client");
    }

    #[test]
    fn scriptlet_failures_are_seen_in_both_spellings() {
        assert!(
            failed_scriptlet(
                "warning: %posttrans(pmm-client-3.9.1-1.el9.x86_64) scriptlet failed, exit status 1\n"
            )
            .is_some()
        );
        assert!(failed_scriptlet("Error in POSTTRANS scriptlet in rpm package pmm-client\n").is_some());
        assert!(failed_scriptlet("Running scriptlet: pmm-client-3.9.1-1.el9.x86_64\n").is_none());
    }

    #[test]
    fn verify_names_changed_content_only() {
        assert_eq!(
            verify("S.5....T.    /usr/local/x.yml\n.M.......    /usr/local/y\n"),
            ["/usr/local/x.yml"]
        );
    }
}
