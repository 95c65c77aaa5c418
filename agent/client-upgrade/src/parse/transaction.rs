//! What a package manager's log says of a failure, in one line: the script's own words and the package manager's.

/// Lines of a script that are worth repeating.
const MOST_LINES: usize = 4;
/// Longest text, characters.
const MOST_CHARS: usize = 600;

/// Why a transaction failed. Above all what the failing script itself said, which package managers print before, or shortly after, they
/// name the script; their last lines alone only say that some script failed.
pub fn failure(log: &str) -> String {
    let lines = lines(log);
    let last = &lines[lines.len().saturating_sub(MOST_LINES)..];
    let Some(at) = lines.iter().position(|line| names_failure(line)) else {
        return joined(last);
    };
    let mut told = words_around(&lines, at);
    told.extend(last.iter().filter(|line| !lines[..=at].contains(line)));
    told.dedup();
    joined(&told)
}

/// What a script said that failed although the package manager ended well, with the package manager's own line about it.
pub fn failed_scriptlet(log: &str) -> Option<String> {
    super::rpm::failed_scriptlet(log)?;
    let lines = lines(log);
    let at = lines
        .iter()
        .position(|line| super::rpm::failed_scriptlet(line).is_some())?;
    Some(joined(&words_around(&lines, at)))
}

fn lines(log: &str) -> Vec<&str> {
    log.lines()
        .map(str::trim)
        .filter(|line| !line.is_empty())
        .collect()
}

fn names_failure(line: &str) -> bool {
    line.starts_with("dpkg: error processing") || super::rpm::failed_scriptlet(line).is_some()
}

/// The line itself with the script's words before and after it, up to the next line of the package manager's own.
fn words_around<'a>(lines: &[&'a str], at: usize) -> Vec<&'a str> {
    let mut before: Vec<&str> = lines[..at]
        .iter()
        .rev()
        .take_while(|line| !is_progress(line))
        .take(MOST_LINES)
        .copied()
        .collect();
    before.reverse();
    let after = lines[at + 1..]
        .iter()
        .take_while(|line| !is_progress(line))
        .take(MOST_LINES)
        .copied();
    before.into_iter().chain([lines[at]]).chain(after).collect()
}

/// A line in which apt, dpkg or dnf tell what they do (dpkg 1.21, apt 2.6, dnf 4).
fn is_progress(line: &str) -> bool {
    const BEGINNINGS: [&str; 22] = [
        "+ ",
        "Setting up",
        "Unpacking",
        "Preparing",
        "Selecting",
        "Removing",
        "Processing triggers",
        "(Reading database",
        "Errors were encountered",
        "Running scriptlet",
        "Running transaction",
        "Installing",
        "Upgrading",
        "Obsoleting",
        "Erasing",
        "Cleanup",
        "Verifying",
        "Transaction",
        "Installed:",
        "Removed:",
        "Complete!",
        "Failed:",
    ];
    BEGINNINGS.iter().any(|word| line.starts_with(word))
}

fn joined(lines: &[&str]) -> String {
    let text = lines.join(" | ");
    match text.char_indices().nth(MOST_CHARS) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const APT: &str = "+ apt-get install ./pmm-client.deb
Unpacking pmm-client (3.9.1-7.bookworm) ...
Setting up pmm-client (3.9.1-7.bookworm) ...
pmm-client: cannot set up the client
dpkg: error processing package pmm-client (--configure):
 installed pmm-client package post-installation script subprocess returned error exit status 1
Errors were encountered while processing:
 pmm-client
E: Sub-process /usr/bin/dpkg returned an error code (1)
";
    const DNF: &str = "Running transaction
  Running scriptlet: pmm-client-3.9.1-1.el9.x86_64   2/2
warning: %posttrans(pmm-client-3.9.1-1.el9.x86_64) scriptlet failed, exit status 1

pmm-client: cannot set up the client
  Verifying        : pmm-client-3.9.1-1.el9.x86_64   1/2
Complete!
";

    #[test]
    fn the_script_is_heard_before_the_package_manager() {
        let text = failure(APT);
        assert!(
            text.starts_with("pmm-client: cannot set up the client | dpkg: error"),
            "{text}"
        );
        assert!(text.contains("returned error exit status 1"), "{text}");
        assert!(!text.contains("Unpacking"), "{text}");
    }

    #[test]
    fn a_script_that_is_heard_after_its_name_is_heard_too() {
        let text = failed_scriptlet(DNF).unwrap();
        assert_eq!(
            text,
            "warning: %posttrans(pmm-client-3.9.1-1.el9.x86_64) scriptlet failed, exit status 1 | pmm-client: cannot set up the client"
        );
        assert_eq!(failed_scriptlet("Complete!\n"), None);
    }

    #[test]
    fn without_a_script_the_last_lines_tell_and_nothing_is_endless() {
        assert_eq!(failure("a\n\nb\nc\nd\ne\n"), "b | c | d | e");
        assert_eq!(failure(""), "");
        assert!(failure(&"ä".repeat(5_000)).chars().count() < MOST_CHARS + 10);
    }
}
