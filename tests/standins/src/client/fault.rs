//! What one host asks these programs to do wrong, for tests of known faults and for sabotage runs.
//!
//! `/etc/standin/agent-mode` holds words: `stuck` (a silently dropped connection is believed in until a restart, PMM-15200), `crash` (the
//! agent ends at once), `no-connect` (it never connects), `no-samples` (vmagent drops what it scrapes), `no-qan` (no query buckets).
//! `no-connect@3` is meant for programs of PMM 3 alone, and so on.

use super::release::Release;

const FILE: &str = "/etc/standin/agent-mode";

/// True if this host asks programs of this release for a fault.
pub fn asked(release: &Release, fault: &str) -> bool {
    std::fs::read_to_string(FILE).is_ok_and(|text| names(&text, fault, release.major()))
}

fn names(text: &str, fault: &str, major: u32) -> bool {
    text.split_whitespace().any(|word| match word.split_once('@') {
        None => word == fault,
        Some((name, only)) => name == fault && only == major.to_string(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_may_be_meant_for_one_major() {
        assert!(names("stuck no-qan\n", "no-qan", 2));
        assert!(names("crash@3", "crash", 3));
        assert!(!names("crash@3", "crash", 2));
        assert!(!names("", "crash", 2));
    }
}
