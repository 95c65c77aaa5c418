//! Findings of the survey, of the host and of the server preflight.

use serde::{Deserialize, Serialize};

/// How a check ended. Unknown counts as a failure: unknown means no.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// Fine.
    Pass,
    /// Worth reading; does not stop anything.
    Warn,
    /// Stops this host or the server.
    Fail,
}

/// One check and its result.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// Stable name of the check, such as `credentials`, `candidate`, `disk`, `package_manager`, `way_back`.
    pub check: String,
    /// How it ended.
    pub verdict: Verdict,
    /// What was seen.
    pub message: String,
    /// What to do next; empty when there is nothing to do.
    pub hint: String,
}

/// A host's survey, produced by the agent's preflight.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostSurvey {
    /// All checks that ran, in order.
    pub findings: Vec<Finding>,
    /// Full version of the candidate package or tarball.
    pub candidate: Option<String>,
    /// File name of the kept package of the installed version (the way back).
    pub kept: Option<String>,
}

impl HostSurvey {
    /// Whether nothing failed.
    pub fn ready(&self) -> bool {
        self.findings
            .iter()
            .all(|finding| finding.verdict != Verdict::Fail)
    }
}
