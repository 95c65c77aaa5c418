//! The fleet file: PMM Server, target versions, package sources, host groups and their policy.
//!
//! Reading it needs no I/O. What needs some (credential file, CA file, compatibility file) is checked by the caller, who
//! reports through [`Fleet::error`] so that all findings look alike.

mod check;
mod error;
mod first;
mod matching;
mod policy;
mod raw;
mod schema;
mod show;
mod units;

pub use error::FleetError;
pub use first::{FirstFile, first_file};
pub use matching::{FACTS, HostFacts, Matcher};
pub use policy::{Policy, Profile, Ramp};
pub use schema::json_schema;
pub use show::{blackout_text, moment_text, window_text};
pub use units::{Limit, duration_ms, duration_text};

use fleet_common::plan_entry::ClientSource;
use fleet_common::server::Pmm2Update;
use fleet_common::version::PmmVersion;
use serde::{Deserialize, Serialize};

/// A valid fleet file.
#[derive(Clone, Debug)]
pub struct Fleet {
    /// The file as the operator typed it.
    pub file: String,
    /// The PMM Server.
    pub server: Server,
    /// The clients.
    pub clients: Clients,
    /// Override of the shipped compatibility table.
    pub compatibility_file: Option<String>,
    /// Durations that hold for the whole rollout.
    pub timing: Timing,
    /// What holds for the whole rollout.
    pub rollout: RolloutPolicy,
    /// Groups in the order of their turns.
    pub groups: Vec<Group>,
    /// Where things stand in the file.
    pub lines: Lines,
}

/// How the PMM Server is reached and what becomes of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Server {
    /// Name on screens; the URL's host if not given.
    pub name: String,
    /// Base URL, without a slash at its end.
    pub url: String,
    /// File with `user:password` or a token.
    pub credential_file: String,
    /// What the server's certificate is checked against.
    pub trust: Trust,
    /// Docker endpoint, `unix:///...`.
    pub docker_endpoint: String,
    /// Name of the container.
    pub container: String,
    /// Image without tag.
    pub image_repository: String,
    /// Release to reach.
    pub target: PmmVersion,
    /// How the last PMM 2 release is reached.
    pub pmm2_update: Pmm2Update,
    /// What happens to PMM 2 clients if the target promises them nothing.
    pub pmm2_clients: Pmm2Clients,
}

/// What the server's certificate is checked against.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Trust {
    /// The system's certificate authorities.
    System,
    /// A CA file.
    CaFile(String),
    /// SHA-256 of the certificate in lower-case hex, without a `sha256:` before it.
    Fingerprint(String),
}

/// The decision for targets that no longer guarantee anything to PMM 2 clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Pmm2Clients {
    /// Nothing was decided.
    Undecided,
    /// Server to this release, clients, server to the target, clients.
    Bridge(PmmVersion),
    /// The gap up to this server release is accepted.
    AcceptGap(PmmVersion),
}

/// Target and sources of the clients.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Clients {
    /// Release to reach.
    pub target: PmmVersion,
    /// Packages and tarballs.
    pub source: ClientSource,
}

/// One group of hosts with one policy.
#[derive(Clone, Debug)]
pub struct Group {
    /// Unique name.
    pub name: String,
    /// Which hosts belong to it.
    pub matches: Matcher,
    /// The profile that it starts from.
    pub profile: Profile,
    /// How its hosts are let through.
    pub policy: Policy,
    /// Limits of `[defaults]` that its own profile takes the place of with a wider one, for people.
    pub replaced: Vec<String>,
    /// Whether the threshold stands in the group itself and not in the defaults.
    pub threshold_own: bool,
    /// Line of the group.
    pub line: usize,
    /// Line of the threshold, if the group has its own.
    pub threshold_line: Option<usize>,
}

/// What holds for the whole rollout.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct RolloutPolicy {
    /// Where everything comes from that is not given.
    pub profile: Profile,
    /// Tolerated failures over all groups.
    pub failure_threshold: Option<Limit>,
    /// Label of our agent that names the site of a host.
    pub site_label: Option<String>,
}

/// Durations in milliseconds that hold for the whole rollout.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Timing {
    /// Seconds within which a permitted host must start switching.
    pub permit_ms: u64,
    /// Longest preflight.
    pub preflight_ms: u64,
    /// Longest download.
    pub stage_ms: u64,
    /// Longest switch on the host, its own way back included.
    pub switch_ms: u64,
    /// Longest wait for the PMM Server to see the new client with fresh samples.
    pub verify_ms: u64,
    /// Longest ordered way back.
    pub rollback_ms: u64,
    /// A host that is away for this long after its permit is lost.
    pub lost_after_ms: u64,
    /// Hosts that were offline at their turn are waited for this long at the end of the leg.
    pub offline_for_ms: u64,
    /// Oldest survey that a plan takes.
    pub survey_max_age_ms: u64,
    /// Time between reminders while a person is waited for.
    pub reminder_ms: u64,
    /// A host on which PMM runs a database backup at its turn is waited for this long.
    #[serde(default = "backup_for")]
    pub backup_for_ms: u64,
}

/// Six hours: longer than a backup of a few terabytes takes.
fn backup_for() -> u64 {
    6 * 60 * 60_000
}

impl Default for Timing {
    fn default() -> Self {
        const MINUTE: u64 = 60_000;
        Self {
            permit_ms: MINUTE,
            preflight_ms: 5 * MINUTE,
            stage_ms: 30 * MINUTE,
            switch_ms: 30 * MINUTE,
            verify_ms: 10 * MINUTE,
            rollback_ms: 20 * MINUTE,
            lost_after_ms: 15 * MINUTE,
            offline_for_ms: 15 * MINUTE,
            survey_max_age_ms: 24 * 60 * MINUTE,
            reminder_ms: 60 * MINUTE,
            backup_for_ms: backup_for(),
        }
    }
}

/// Lines from 1, for findings that come later than reading.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Lines {
    /// `[server]`.
    pub server: Option<usize>,
    /// `server.target`.
    pub server_target: Option<usize>,
    /// `server.credential_file`.
    pub credential_file: Option<usize>,
    /// `server.ca_file`.
    pub ca_file: Option<usize>,
    /// `server.docker`.
    pub docker: Option<usize>,
    /// `server.pmm2_clients`.
    pub pmm2_clients: Option<usize>,
    /// `clients.target`, or that of the server if the clients have none.
    pub clients_target: Option<usize>,
    /// `compatibility.file`.
    pub compatibility_file: Option<usize>,
}

impl Fleet {
    /// A finding about this file, for checks that need I/O.
    pub fn error(
        &self,
        line: Option<usize>,
        reason: impl Into<String>,
        hint: impl Into<String>,
    ) -> FleetError {
        FleetError {
            file: self.file.clone(),
            line,
            reason: reason.into(),
            hint: hint.into(),
        }
    }

    /// The group of this name.
    pub fn group(&self, name: &str) -> Option<&Group> {
        self.groups.iter().find(|group| group.name == name)
    }
}

/// Reads and checks a fleet file. `file` is only used in messages.
pub fn parse(text: &str, file: &str) -> Result<Fleet, Vec<FleetError>> {
    check::fleet(text, file)
}

#[cfg(test)]
mod policy_tests;
#[cfg(test)]
mod tests;
