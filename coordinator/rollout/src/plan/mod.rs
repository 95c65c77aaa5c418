//! The plan: what one rollout does with which host, resolved to integers, as one immutable document.
//!
//! A plan is stored as bytes and named by their hash; nothing is ever encoded again. The part of each host is stored inside as text of
//! its own, so that an order carries exactly those bytes.
//!
//! # Child plans
//!
//! A running plan is never widened: operators may only take away from it. What is to be added (hosts that came late, another group, a wider
//! limit) is a child plan, made by [`join_child`] over the plan that runs. What the kernel can rely on when it takes one over:
//!
//! - [`Plan::parent`] is the plan that runs, not merely the newest one; whatever else was planned meanwhile is no ancestor.
//! - A leg that does what a leg of the parent did has the same id, although the server's legs that are behind it are left out: ids are
//!   taken from the parent's client leg with the same release. So the state that is kept by leg and host stays where it is.
//! - Hosts whose upgrade ended before are `already_current`: they have no entry in a leg and take no slot; their rows of the parent
//!   (and with them the restore points and the report) must be carried over as they are. A host that is switching while the child is made
//!   may still show its old release: it has an entry that expects that. Its row of the parent has precedence until its attempt ended.
//! - Hosts of the parent that the child does not have any more (a group that no longer matches them) must be carried over, too, if they
//!   have begun; else they are left out as skipped.
//! - Integers are resolved anew over the whole group as the rollout will see it: hosts that began or ended in the rollout ([`Running::begun`]) and
//!   those that the child upgrades, each once. So failures, slots and verified canaries of the parent's hosts count as before, and a share of the
//!   group stays that share. What they were resolved from stands in [`PlanGroup::rule`], so that whoever takes the child over can tell a
//!   wider policy from a larger group.

mod compared;
mod diff;
mod forecast;
mod groups;
mod join;
mod legs;
mod lint;
mod lint_policy;
mod repoint;
mod waves;

pub use diff::{Change, ChangeKind, PlanDiff, diff};
pub(crate) use forecast::{in_turn, pass};
pub use join::{join, join_child};

use crate::fleet::{Limit, Timing};
use crate::policy::{Blackout, HealthGate, Offline, OnBreach, RetryPolicy, Window};
use fleet_common::digest::sha256_hex;
use fleet_common::ids::{GroupName, HostId, LegId, PlanId};
use fleet_common::inventory::{Inventory, Method};
use fleet_common::plan_entry::{PlanEntry, Repoint};
use fleet_common::reach::ContainerReach;
use fleet_common::server::Pmm2Update;
use fleet_common::survey::{Finding, HostSurvey};
use fleet_common::version::PmmVersion;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// A host with our agent, as the store knows it.
#[derive(Clone, Debug)]
pub struct HostRecord {
    /// The host.
    pub host_id: HostId,
    /// Its newest inventory.
    pub inventory: Inventory,
    /// Its newest preflight and when it was taken.
    pub survey: Option<(u64, HostSurvey)>,
    /// Reason of a hold, by the operator or by a person on the host.
    pub held: Option<String>,
}

/// The PMM Server as it was found.
#[derive(Clone, Debug)]
pub struct ServerInput {
    /// Release that runs.
    pub running: PmmVersion,
    /// Findings of the preflight. One that failed blocks `start`.
    pub findings: Vec<Finding>,
    /// How clients may reach it past its published ports.
    pub reach: ContainerReach,
}

/// A plan that was not stored yet.
#[derive(Clone, Debug)]
pub struct PlanDraft {
    /// The document.
    pub plan: Plan,
}

impl PlanDraft {
    /// Names the plan that this one replaces.
    #[must_use]
    pub fn with_parent(mut self, parent: Option<PlanId>) -> Self {
        self.plan.parent = parent;
        self
    }

    /// The bytes to store and the id over them.
    pub fn into_bytes(self) -> Result<(PlanId, Vec<u8>), serde_json::Error> {
        let bytes = serde_json::to_vec_pretty(&self.plan)?;
        Ok((plan_id(&bytes), bytes))
    }
}

/// The id of a plan's stored bytes.
pub fn plan_id(bytes: &[u8]) -> PlanId {
    PlanId::new(format!("plan-{}", &sha256_hex(bytes)[..16]))
}

/// The rollout that a child plan is to take over.
#[derive(Clone, Debug)]
pub struct Running {
    /// Its plan as it is carried out, with what stays of the plans before it.
    pub plan: Arc<Plan>,
    /// Hosts to upgrade that began or ended in it, whatever the child says of them, and the groups that they stay in.
    pub begun: BTreeMap<HostId, GroupName>,
}

/// The plan document.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// Form of this document: 1.
    pub format: u32,
    /// The plan that this one replaces.
    pub parent: Option<PlanId>,
    /// When it was made.
    pub made_at_ms: u64,
    /// The fleet file as typed.
    pub fleet_file: String,
    /// The PMM Server.
    pub server: PlanServer,
    /// Findings of the server's preflight when the plan was made.
    pub server_findings: Vec<Finding>,
    /// Release of the clients at the end.
    pub clients_to: PmmVersion,
    /// Ordered parts. A leg waits for all earlier ones.
    pub legs: Vec<Leg>,
    /// Groups in the order of their turns.
    pub groups: Vec<PlanGroup>,
    /// Hosts of the rollout, in the order of groups and names. The refused ones stand here too.
    pub hosts: Vec<PlanHost>,
    /// Clients in PMM without our agent. They block `start` unless accepted by node name.
    pub unmatched: Vec<UnmatchedClient>,
    /// Clients that address the PMM Server's container itself and that nobody moves to PMM 3's port. They block `start` unless accepted by
    /// node name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub stranded: Vec<Stranded>,
    /// Agents whose client PMM does not know.
    pub without_node: Vec<LeftOut>,
    /// Hosts whose client reports to another PMM Server.
    pub other_server: Vec<LeftOut>,
    /// Hosts that no group matches. Never touched.
    pub ungrouped: Vec<LeftOut>,
    /// Hosts without a PMM client that no group needs to know about.
    pub without_client: Vec<LeftOut>,
    /// What blocks `start` whatever the operator accepts.
    pub blockers: Vec<Finding>,
    /// What is worth reading before `start`.
    pub warnings: Vec<Warning>,
    /// Durations.
    pub timing: Timing,
    /// Tolerated failures of one client leg over all groups; one more pauses.
    #[serde(default)]
    pub failure_threshold: Option<u32>,
    /// Release of the zone data that windows were read with, such as `2026a`; `None` without windows.
    #[serde(default)]
    pub zone_data: Option<String>,
    /// How long it may take.
    #[serde(default)]
    pub forecast: Option<Forecast>,
}

/// The server's part.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlanServer {
    /// Name on screens.
    pub name: String,
    /// Base URL.
    pub url: String,
    /// Release that ran when the plan was made.
    pub from: PmmVersion,
    /// Release at the end.
    pub to: PmmVersion,
}

/// One ordered part of a plan.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Leg {
    /// `survey`, `server-1`, `clients-1`, `server-2`, ...
    pub id: LegId,
    /// What it does.
    #[serde(flatten)]
    pub kind: LegKind,
}

/// What a leg does.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum LegKind {
    /// Preflight and stage on every host; changes nothing that runs.
    Survey,
    /// The server, hop by hop.
    Server {
        /// In order; never empty.
        hops: Vec<Hop>,
        /// Hosts whose client follows the server to PMM 3's port: a [`PlanEntry`] as JSON text, like those of clients.
        #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
        repoint: BTreeMap<HostId, String>,
        /// The same with the inverse, for a server that goes back.
        #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
        repoint_back: BTreeMap<HostId, String>,
    },
    /// The groups, in order.
    Clients {
        /// Release to reach.
        to: PmmVersion,
        /// Each host's part as its own JSON text: a [`PlanEntry`]. Hosts with nothing to do have none.
        entries: BTreeMap<HostId, String>,
        /// Whether the server that stands during this leg promises nothing to PMM 2 clients: then no client is ordered back to PMM 2.
        #[serde(default)]
        no_way_back_to_pmm2: bool,
    },
}

/// One hop of the server.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hop {
    /// Position in the whole plan, from 1.
    pub number: u32,
    /// Release before.
    pub from: PmmVersion,
    /// Release after.
    pub to: PmmVersion,
    /// How, if `to` is a PMM 2 release.
    pub pmm2_update: Pmm2Update,
    /// Whether it is the last of its leg.
    pub last_of_leg: bool,
}

/// A group with all numbers resolved.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlanGroup {
    /// Name.
    pub name: GroupName,
    /// Hosts in the order in which they are let through.
    pub hosts: Vec<HostId>,
    /// Hosts that must succeed before the full width is used.
    pub canaries: u32,
    /// Most hosts that may be without a working client at once.
    pub max_unavailable: u32,
    /// Tolerated failures; one more pauses.
    pub failure_threshold: u32,
    /// Wait after the last host.
    pub soak_ms: u64,
    /// Whether a person must let it begin.
    pub approval: bool,
    /// Widths after the canaries, in order: each is used until as many hosts as it is wide were verified at it. `max_unavailable` follows.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ramp: Vec<u32>,
    /// Wait after the last canary before the others.
    #[serde(default)]
    pub canary_soak_ms: u64,
    /// What a failure too many leads to.
    #[serde(default)]
    pub on_breach: OnBreach,
    /// When a switched host passes.
    #[serde(default)]
    pub health: Option<HealthGate>,
    /// Hosts begin only inside one of these; empty means at any time.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub windows: Vec<Window>,
    /// No host begins inside one of these.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub blackouts: Vec<Blackout>,
    /// Most hosts of one site at once that download or may be without a working client; counted over all groups.
    #[serde(default)]
    pub per_site: Option<u32>,
    /// Most members of one cluster or replication set that may be without a working client at once; counted over all groups.
    #[serde(default = "one")]
    pub together: u32,
    /// Trying again by itself.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub retry: RetryPolicy,
    /// Hosts that are away at their turn.
    #[serde(default)]
    pub offline: Offline,
    /// Longest time from the group's first permit to its end; then the rollout waits for a person. Time outside of windows counts.
    #[serde(default)]
    pub deadline_ms: Option<u64>,
    /// What its width and its threshold come from; unknown in plans of older versions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rule: Option<GroupRule>,
}

/// What numbers of a group were resolved from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupRule {
    /// Hosts that the numbers of the group are for.
    pub hosts: u32,
    /// Of these, hosts that began or ended in the running rollout before this plan; 0 without one.
    #[serde(default)]
    pub begun: u32,
    /// `max_unavailable` as the policy has it.
    pub max_unavailable: Limit,
    /// `failure_threshold` as the policy has it.
    pub failure_threshold: Limit,
}

fn one() -> u32 {
    1
}

/// How long a rollout of this plan may take.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Forecast {
    /// Shortest likely duration, milliseconds.
    pub low_ms: u64,
    /// Longest likely duration, milliseconds; without pauses for persons.
    pub high_ms: u64,
    /// What the numbers come from, a line each.
    pub basis: Vec<String>,
}

/// What the plan does with a host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "action", rename_all = "snake_case")]
pub enum HostAction {
    /// Upgrade it.
    Upgrade,
    /// It runs the target already.
    AlreadyCurrent,
    /// It is left alone.
    Refuse {
        /// One of [`fleet_common::codes`].
        code: String,
        /// Why.
        reason: String,
        /// What to do.
        hint: String,
    },
}

/// One host of the plan.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlanHost {
    /// The host.
    pub host: HostId,
    /// PMM node name.
    pub name: String,
    /// Its group.
    pub group: GroupName,
    /// What happens to it.
    #[serde(flatten)]
    pub action: HostAction,
    /// Install method, if there is an installation.
    pub method: Option<Method>,
    /// Release before.
    pub from: Option<PmmVersion>,
    /// Release after.
    pub to: PmmVersion,
    /// Wave within the group: 1 for canaries, then by ramp and width, with members of one set or site in turns.
    pub wave: u32,
    /// PMM agent id without prefix.
    pub agent_id: String,
    /// PMM node id without prefix.
    pub node_id: String,
    /// Whether PMM-run backups are scheduled on its node.
    pub backups: bool,
    /// Whether PMM ran a backup or restore on its node when the plan was made.
    #[serde(default)]
    pub backup_running: bool,
    /// The change of the server's address that its client needs when the server becomes PMM 3.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub repoint: Option<Repoint>,
    /// Clusters and replication sets that services on it belong to, as `cluster/<name>` and `set/<cluster>/<name>` (`set/<name>` without a
    /// cluster). Members of one don't go together.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub sets: BTreeSet<String>,
    /// Its site, where the fleet file names the label for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub site: Option<String>,
    /// Reason of a hold when the plan was made.
    pub held: Option<String>,
    /// The same, if a person on the host holds it.
    pub held_on_host: Option<String>,
}

/// A client in PMM without our agent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UnmatchedClient {
    /// Node name; what the operator accepts it by.
    pub name: String,
    /// PMM agent id.
    pub agent_id: String,
    /// Last release it reported.
    pub version: Option<String>,
    /// Whether its node is in a network of the PMM Server's container, so that it may address the container itself.
    #[serde(default)]
    pub beside_server: bool,
}

/// A client that loses the PMM Server when it becomes PMM 3.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stranded {
    /// PMM node name; what the operator accepts it by.
    pub name: String,
    /// Its configured address of the server.
    pub address: String,
    /// Why it is not moved.
    pub reason: String,
}

/// A host that the plan leaves out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeftOut {
    /// The host.
    pub host: HostId,
    /// PMM node name or host name.
    pub name: String,
    /// Why.
    pub reason: String,
}

/// A finding of the linter.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Warning {
    /// Stable name, such as `threshold_capped`.
    pub code: String,
    /// `server`, `clients`, `group:<name>` or `host:<name>`.
    pub subject: String,
    /// What is worth knowing.
    pub message: String,
    /// Line of the fleet file that it is about, where one is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub line: Option<usize>,
    /// What to do about it; may be empty.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub hint: String,
}

impl Warning {
    /// A warning without a line.
    pub(super) fn new(code: &str, subject: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            code: code.to_owned(),
            subject: subject.into(),
            message: message.into(),
            line: None,
            hint: String::new(),
        }
    }
}

/// Stored bytes that are not a plan.
#[derive(Debug, thiserror::Error)]
pub enum PlanError {
    /// Not the JSON of a plan.
    #[error("the stored plan cannot be read")]
    Json(#[source] serde_json::Error),
    /// Made by another version of this program.
    #[error("the stored plan has form {0}; this program reads form 1")]
    Format(u32),
}

impl PlanGroup {
    /// Hosts that its numbers are for; without a rule, the hosts that this plan upgrades.
    fn size(&self, upgrades: usize) -> u32 {
        let alone = || u32::try_from(upgrades).unwrap_or(u32::MAX);
        self.rule.as_ref().map_or_else(alone, |rule| rule.hosts)
    }
}

impl Plan {
    /// Reads stored bytes.
    pub fn parse(bytes: &[u8]) -> Result<Self, PlanError> {
        let mut plan: Self = serde_json::from_slice(bytes).map_err(PlanError::Json)?;
        if plan.format == 1 {
            plan.share_ids();
            Ok(plan)
        } else {
            Err(PlanError::Format(plan.format))
        }
    }

    /// Groups name their hosts by copies of the hosts' own ids.
    fn share_ids(&mut self) {
        let own: BTreeMap<&HostId, &HostId> =
            self.hosts.iter().map(|host| (&host.host, &host.host)).collect();
        for id in self.groups.iter_mut().flat_map(|group| &mut group.hosts) {
            if let Some(own) = own.get(id) {
                *id = (*own).clone();
            }
        }
    }

    /// The host's part of a leg.
    pub fn entry(&self, leg: &LegId, host: &HostId) -> Option<PlanEntry> {
        self.part(leg, host)
    }

    /// How long the host is verified in a leg, milliseconds.
    pub(crate) fn verify_for_ms(&self, leg: &LegId, host: &HostId) -> Option<u64> {
        #[derive(Deserialize)]
        struct Part {
            verify_for_ms: u64,
        }
        Some(self.part::<Part>(leg, host)?.verify_for_ms)
    }

    /// The highest release that the host may be found with in a leg.
    pub(crate) fn highest_from(&self, leg: &LegId, host: &HostId) -> Option<PmmVersion> {
        #[derive(Deserialize)]
        struct Part {
            expect: Inner,
        }
        #[derive(Deserialize)]
        struct Inner {
            from_max: PmmVersion,
        }
        Some(self.part::<Part>(leg, host)?.expect.from_max)
    }

    /// An entry, or what `T` has of it: some parts are asked for with every look at a host and for every line of a report, and most of an
    /// entry is about where packages come from.
    fn part<T: serde::de::DeserializeOwned>(&self, leg: &LegId, host: &HostId) -> Option<T> {
        serde_json::from_str(self.entry_text(leg, host)?).ok()
    }

    /// The same as its stored bytes.
    pub fn entry_text(&self, leg: &LegId, host: &HostId) -> Option<&str> {
        match &self.legs.iter().find(|found| found.id == *leg)?.kind {
            LegKind::Clients { entries, .. } => entries.get(host).map(String::as_str),
            LegKind::Server { repoint, .. } => repoint.get(host).map(String::as_str),
            LegKind::Survey => None,
        }
    }

    /// The inverse of the host's part of a server leg.
    pub fn back_text(&self, leg: &LegId, host: &HostId) -> Option<&str> {
        match &self.legs.iter().find(|found| found.id == *leg)?.kind {
            LegKind::Server { repoint_back, .. } => repoint_back.get(host).map(String::as_str),
            LegKind::Survey | LegKind::Clients { .. } => None,
        }
    }

    /// The group of this name.
    pub fn group(&self, name: &GroupName) -> Option<&PlanGroup> {
        self.groups.iter().find(|group| group.name == *name)
    }

    /// The host of this id, name, or unambiguous beginning of an id.
    pub fn find_host(&self, text: &str) -> Option<&PlanHost> {
        let exact = self
            .hosts
            .iter()
            .find(|host| host.host.as_str() == text || host.name == text);
        exact.or_else(|| {
            let mut starting = self
                .hosts
                .iter()
                .filter(|host| !text.is_empty() && host.host.as_str().starts_with(text));
            starting.next().filter(|_| starting.next().is_none())
        })
    }
}
