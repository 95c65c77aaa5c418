//! One host's part of a plan. It travels inside every order as the stored bytes of the plan; the agent hashes and reads those bytes.

use crate::inventory::Method;
use crate::version::PmmVersion;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// What one client leg does with one host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlanEntry {
    /// The host.
    pub host: String,
    /// Name on screens: the PMM node name.
    pub name: String,
    /// The group it belongs to.
    pub group: String,
    /// The leg, such as `clients-1`.
    pub leg: String,
    /// What must be found.
    pub expect: Expect,
    /// The release to reach.
    pub to: PmmVersion,
    /// Where packages and tarballs come from.
    pub source: ClientSource,
    /// Longest wait for the new client to be connected with fresh samples, milliseconds.
    pub verify_for_ms: u64,
    /// The change of the PMM Server's address that this host needs when the server becomes PMM 3; `None` for hosts that reach it through a
    /// published port.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub repoint: Option<Repoint>,
}

/// A change of the PMM Server's address in a client's configuration. Clients that address the server's container directly must follow its
/// inner port from 443 to 8443 (facts server 1.3 and 5.1). The host stays the same; an agent refuses anything else unless its own policy
/// lists the new address.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Repoint {
    /// `host:port` that must be found.
    pub from: String,
    /// `host:port` to write.
    pub to: String,
}

/// What an order expects to find. If reality differs the agent does nothing and reports.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Expect {
    /// Install method.
    pub method: Method,
    /// Lowest acceptable installed release.
    pub from_min: PmmVersion,
    /// Highest acceptable installed release. The target itself is always acceptable (already done).
    pub from_max: PmmVersion,
    /// Base directory.
    pub base_dir: String,
    /// PMM agent id without prefix; the identity that must survive.
    pub agent_id: String,
}

/// Where the new client comes from. The host's policy file must allow it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClientSource {
    /// Root of a Percona-style repository, such as `http://repo.percona.com`; below it `pmm2-client/` and `pmm3-client/` with `apt/` and `yum/`
    /// (percona-release 1.0, URL shapes).
    pub repository_url: String,
    /// `release`, `testing` or `experimental`.
    pub component: String,
    /// Root of a tarball tree, such as `https://downloads.percona.com/downloads`; below it `pmm2/<ver>/binary/tarball/` and
    /// `pmm3/<ver>/binary/tarball/` (PMM docs: binary_package.md), or a local directory as `file:///...`.
    pub tarball_url: String,
    /// Pinned SHA-256 per tarball file name. A tarball without a pinned digest is refused.
    pub tarball_sha256: BTreeMap<String, String>,
}
