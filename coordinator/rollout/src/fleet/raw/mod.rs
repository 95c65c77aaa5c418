//! The fleet file as typed: every key optional and with its place, so that validation can name all faults at once with their lines. The
//! doc comments here are the texts of the JSON Schema.

mod policy;
mod values;

pub(in crate::fleet) use policy::{Blackout, Group, Match, Policy, Retry, RetryTable, Window};
pub(in crate::fleet) use values::{Number, OneOrMany, Spanned};

use schemars::JsonSchema;
use serde::Deserialize;
use std::collections::BTreeMap;

pub(in crate::fleet) type Text = Option<Spanned<String>>;

/// One PMM installation and what becomes of it. Read by `pmm-coordinator survey -f`, `plan -f` and `server ... -f`; all paths are whole paths
/// on the coordinator's machine.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(title = "Fleet file of pmm-coordinator")]
pub(in crate::fleet) struct File {
    /// The PMM Server. A list of them is read, but one at a time is supported.
    #[schemars(required)]
    pub server: Option<Spanned<OneOrMany<Server>>>,
    /// Target and sources of the clients.
    pub clients: Option<Spanned<Clients>>,
    /// What holds for the whole rollout.
    pub rollout: Option<Rollout>,
    /// Policy for every group that does not say otherwise.
    pub defaults: Option<Policy>,
    /// Durations that hold for the whole rollout.
    pub timing: Option<Timing>,
    /// Override of the shipped compatibility table.
    pub compatibility: Option<Compatibility>,
    /// Groups in the order of their turns.
    #[serde(default)]
    #[schemars(required, extend("minItems" = 1))]
    pub group: Vec<Spanned<Group>>,
}

/// What holds for the whole rollout.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::fleet) struct Rollout {
    /// The named policy that everything not given comes from; `standard` if not given. `pmm-coordinator plan --check` prints it resolved.
    #[schemars(extend("enum" = ["cautious", "standard", "fast"]))]
    pub profile: Text,
    /// Tolerated failures over all groups; one more pauses. A percentage is one of all hosts to upgrade and rounds down.
    pub failure_threshold: Option<Spanned<Number>>,
    /// Label of our agent that names the site of a host, for `per_site`.
    pub site_label: Text,
}

/// Override of the shipped compatibility table.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::fleet) struct Compatibility {
    /// The table's file.
    pub file: Text,
}

/// How the PMM Server is reached and what becomes of it.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::fleet) struct Server {
    /// Name on screens; the host of the URL if not given.
    pub name: Text,
    /// Base URL, such as `https://pmm.example.com`.
    #[schemars(required)]
    pub url: Text,
    /// File of mode 0600 with `user:password` of a Grafana administrator, or a token with the Admin role.
    #[schemars(required)]
    pub credential_file: Text,
    /// The CA of the server's certificate; the system's if neither this nor `fingerprint` is given.
    pub ca_file: Text,
    /// SHA-256 of the server's certificate, as "sha256:" and 64 hex digits.
    pub fingerprint: Text,
    /// Where its container is.
    pub docker: Option<Docker>,
    /// Image without tag; `percona/pmm-server` if not given.
    pub image_repository: Text,
    /// Release to reach, such as "3.9.1".
    #[schemars(required, extend("pattern" = "^[0-9]+\\.[0-9]+\\.[0-9]+$"))]
    pub target: Text,
    /// How the last PMM 2 release is reached: by its image, or by PMM's own update.
    #[schemars(extend("enum" = ["image", "api"]))]
    pub pmm2_update: Text,
    /// The decision where the target guarantees nothing to PMM 2 clients.
    pub pmm2_clients: Option<Pmm2Clients>,
}

/// Where the server's container is.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::fleet) struct Docker {
    /// The engine's socket; `unix:///var/run/docker.sock` if not given.
    #[schemars(extend("pattern" = "^unix://"))]
    pub endpoint: Text,
    /// Name of the container; `pmm-server` if not given.
    pub container: Text,
}

/// Either a bridge or an accepted gap.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::fleet) struct Pmm2Clients {
    /// A PMM 3 release that still serves PMM 2 clients: server to it, clients, server to the target, clients.
    pub bridge: Text,
    /// The target, to say that PMM 2 clients may be without a guarantee until each of them is upgraded.
    pub accept_gap: Text,
}

/// Target and sources of the clients.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::fleet) struct Clients {
    /// Release to reach; that of the server if not given.
    #[schemars(extend("pattern" = "^[0-9]+\\.[0-9]+\\.[0-9]+$"))]
    pub target: Text,
    /// Where packages come from.
    pub source: Option<Source>,
    /// Base URL of Percona's repository or of a mirror of it.
    pub repository_url: Text,
    /// Where tarballs come from.
    pub tarball: Option<Tarball>,
}

/// Where packages come from.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::fleet) struct Source {
    /// Component of the repository; `release` if not given.
    #[schemars(extend("enum" = ["release", "testing", "experimental"]))]
    pub percona_repository: Text,
}

/// Where tarballs come from, and their digests.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::fleet) struct Tarball {
    /// Base URL.
    pub url: Text,
    /// SHA-256 in hex by file name, such as `pmm-client-3.9.1-x86_64.tar.gz`. A tarball without a pinned digest is not installed.
    #[serde(default)]
    pub sha256: BTreeMap<String, Spanned<String>>,
}

/// Durations that hold for the whole rollout, such as "90s", "15m", "2h".
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::fleet) struct Timing {
    /// A permitted host must start within this.
    pub permit: Text,
    /// Longest check before anything.
    pub preflight: Text,
    /// Longest download.
    pub stage: Text,
    /// Longest switch on the host, its own way back included.
    pub switch: Text,
    /// Longest wait for the PMM Server to see the new client with fresh samples.
    pub verify: Text,
    /// Longest ordered way back.
    pub rollback: Text,
    /// A host that is away for this long after its permit is lost.
    pub lost_after: Text,
    /// Hosts that were away at their turn are waited for this long.
    pub offline_for: Text,
    /// Oldest survey that a plan takes.
    pub survey_max_age: Text,
    /// Time between reminders while a person is waited for.
    pub reminder: Text,
    /// A host on which PMM runs a database backup at its turn is waited for this long.
    pub backup_for: Text,
}
