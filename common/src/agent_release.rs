//! A release of our own agent, offered to hosts by `self_update`.

use serde::{Deserialize, Serialize};

/// One file of a release of the agent, as an order names it. The file travels by digest; it is installed only when its signature is made with
/// a key that the host's own policy lists, so that a coordinator in wrong hands can't bring its own program.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AgentRelease {
    /// Release of the agent, such as `0.2.0`.
    pub version: String,
    /// File name, such as `pmm-upgrade-agent_0.2.0_amd64.deb`.
    pub file: String,
    /// SHA-256 of the file, lower case hex.
    pub sha256: String,
    /// Length of the file, bytes.
    pub length: u64,
    /// The text of its minisign signature file.
    pub signature: String,
}
