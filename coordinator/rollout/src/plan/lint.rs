//! What is worth reading before a plan is started. Nothing here refuses anything.

use super::groups::{all_at_once, too_many_canaries};
use super::legs::Route;
use super::{HostAction, LegKind, Plan, PlanHost, Warning};
use crate::fleet::{Fleet, duration_text};
use fleet_common::compat::CompatibilityTable;
use fleet_common::inventory::Method;
use fleet_common::survey::Verdict;
use std::collections::BTreeMap;

pub(super) fn warnings(
    plan: &Plan,
    fleet: &Fleet,
    route: &Route,
    table: &CompatibilityTable,
) -> Vec<Warning> {
    let mut found = Vec::new();
    let mut warn = |code: &str, subject: String, message: String| {
        found.push(Warning::new(code, subject, message));
    };
    if route.gap {
        let message = format!(
            "PMM 2 clients have no guarantee from PMM Server {} until each of them is upgraded; accepted in the fleet file",
            plan.server.to
        );
        warn("gap_accepted", "server".to_owned(), message);
    }
    if fleet.clients.target < fleet.server.target {
        let message = format!(
            "clients end at {}, older than the server's {}",
            fleet.clients.target, fleet.server.target
        );
        warn("clients_behind", "clients".to_owned(), message);
    }
    for group in &fleet.groups {
        let Some(resolved) = plan.groups.iter().find(|found| found.name.as_str() == group.name) else {
            continue;
        };
        let subject = || format!("group:{}", group.name);
        let hosts: Vec<&PlanHost> = plan
            .hosts
            .iter()
            .filter(|host| host.group == resolved.name && host.action == HostAction::Upgrade)
            .collect();
        let upgrades = hosts.len();
        if resolved.hosts.is_empty() {
            warn("group_empty", subject(), "no host matches this group".to_owned());
        }
        if upgrades > 1 && resolved.canaries == 0 {
            warn("no_canary", subject(), format!("{upgrades} hosts and no canary"));
        }
        let size = resolved.size(upgrades);
        if upgrades > 0 && all_at_once(resolved, &hosts, size) {
            warn(
                "all_at_once",
                subject(),
                format!(
                    "max_unavailable {} lets all {size} hosts go at once",
                    resolved.max_unavailable
                ),
            );
        }
        if too_many_canaries(group, size) {
            warn(
                "canaries_capped",
                subject(),
                format!("canaries = {} but there are {size} hosts", group.policy.canaries),
            );
        }
    }
    for host in &plan.hosts {
        let subject = || format!("host:{}", host.name);
        if let Some(reason) = &host.held {
            warn(
                "held",
                subject(),
                format!("held ({reason}); it is skipped unless the hold is lifted"),
            );
        }
        if let Some(repoint) = &host.repoint {
            warn(
                "repoint",
                subject(),
                format!(
                    "its client addresses the PMM Server's container itself and is moved from {} to {} when the server is PMM 3; until then it delivers nothing",
                    repoint.from, repoint.to
                ),
            );
        }
        if host.backups {
            warn(
                "backups",
                subject(),
                "PMM-run database backups are scheduled here; none must be running at the cut-over"
                    .to_owned(),
            );
        }
        if host.backup_running {
            warn(
                "backup_running",
                subject(),
                format!(
                    "PMM runs a database backup here now; at its turn the host waits for its end, at most {}",
                    duration_text(plan.timing.backup_for_ms)
                ),
            );
        }
    }
    for client in &plan.stranded {
        warn(
            "stranded",
            format!("host:{}", client.name),
            format!(
                "its client loses the PMM Server at {}: {}",
                client.address, client.reason
            ),
        );
    }
    for client in plan.unmatched.iter().filter(|client| client.beside_server) {
        warn(
            "beside_server",
            format!("host:{}", client.name),
            "it has no agent of ours and is in a network of the PMM Server's container: if it addresses the container itself, it must be moved to PMM 3's port by hand".to_owned(),
        );
    }
    for ((method, leg, effect), count) in hazards(plan, table) {
        let message = format!(
            "{count} {method} host{} in {leg}: {effect}",
            if count == 1 { "" } else { "s" }
        );
        warn("client_hazard", "clients".to_owned(), message);
    }
    for finding in plan
        .server_findings
        .iter()
        .filter(|finding| finding.verdict == Verdict::Warn)
    {
        warn(
            "server_finding",
            "server".to_owned(),
            format!("{}: {}", finding.check, finding.message),
        );
    }
    // A leg whose hosts are all current stands in the plan without entries.
    let works = |kind: &LegKind| match kind {
        LegKind::Survey => false,
        LegKind::Server { .. } => true,
        LegKind::Clients { entries, .. } => !entries.is_empty(),
    };
    let current = |host: &PlanHost| host.action == HostAction::AlreadyCurrent;
    if !plan.legs.iter().any(|leg| works(&leg.kind)) && plan.hosts.iter().all(current) {
        warn(
            "nothing_to_do",
            "rollout".to_owned(),
            "server and clients are on their targets".to_owned(),
        );
    }
    found
}

/// Known harm by package family and leg, with the number of hosts.
fn hazards(plan: &Plan, table: &CompatibilityTable) -> BTreeMap<(Method, String, String), u32> {
    let mut found = BTreeMap::new();
    for leg in &plan.legs {
        let LegKind::Clients { to, entries, .. } = &leg.kind else {
            continue;
        };
        for host in plan.hosts.iter().filter(|host| entries.contains_key(&host.host)) {
            for hazard in host.method.iter().flat_map(|method| table.hazards(*method, *to)) {
                *found
                    .entry((hazard.method, leg.id.to_string(), hazard.effect.clone()))
                    .or_insert(0) += 1;
            }
        }
    }
    found
}
