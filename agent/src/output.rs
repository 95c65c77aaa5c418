//! The one place that prints: results on stdout, errors on stderr.

use std::io::Write;

/// A result.
pub fn line(text: &str) {
    // A reader that has seen enough is no error.
    let _ = writeln!(std::io::stdout(), "{text}");
}

/// An error with its chain.
#[allow(clippy::print_stderr)]
pub fn error(error: &anyhow::Error) {
    let source: &dyn std::error::Error = error.as_ref();
    eprintln!("{}", fleet_common::hint::render(source, &hints(error)));
}

fn hints(error: &anyhow::Error) -> Vec<String> {
    let text = format!("{error:#}");
    let hint = if text.contains("token_expired") {
        "make a new join token with `pmm-coordinator token create`"
    } else if text.contains("token_used_up") {
        "make a new join token with more uses"
    } else if text.contains("token_invalid") {
        "copy the whole token: three parts joined by dots"
    } else if text.contains("ca_mismatch") {
        "the token belongs to another coordinator, or somebody is in between; nothing was sent"
    } else if text.contains("can't connect") {
        "check name, port and firewall towards the coordinator"
    } else {
        return Vec::new();
    };
    vec![hint.to_owned()]
}
