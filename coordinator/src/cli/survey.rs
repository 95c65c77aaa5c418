//! `survey`: readiness of server and fleet by finding.

use fleet_common::survey::{Finding, Verdict};
use std::fmt::Write as _;

/// Findings, one a line, with their hints.
pub fn findings_text(text: &mut String, findings: &[Finding]) {
    for finding in findings {
        let mark = match finding.verdict {
            Verdict::Pass => "ok  ",
            Verdict::Warn => "warn",
            Verdict::Fail => "FAIL",
        };
        let _ = writeln!(text, "  {mark} {:<16} {}", finding.check, finding.message);
        if !finding.hint.is_empty() && finding.verdict != Verdict::Pass {
            let _ = writeln!(text, "       hint: {}", finding.hint);
        }
    }
}
