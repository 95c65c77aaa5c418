//! What of a plan is compared, by name. Every struct is taken apart completely: a new field does not compile before somebody has decided
//! whether two plans that differ in it do the same.

use super::{Hop, Leg, LegKind, Plan, PlanHost, PlanServer, Stranded, UnmatchedClient};
use fleet_common::plan_entry::{ClientSource, Expect, PlanEntry};
use fleet_common::server::Pmm2Update;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};

pub(super) type Values = BTreeMap<String, Value>;

fn named<const N: usize>(values: [(&str, Value); N]) -> Values {
    values
        .into_iter()
        .map(|(name, value)| (name.to_owned(), value))
        .collect()
}

/// What holds for the whole rollout. Who is left out is a set of names: why stands in the plan.
pub(super) fn of_rollout(plan: &Plan) -> Values {
    let Plan {
        clients_to,
        unmatched,
        stranded,
        without_node,
        other_server,
        ungrouped,
        without_client,
        timing,
        failure_threshold,
        zone_data,
        // Compared on their own.
        server: _,
        legs: _,
        groups: _,
        hosts: _,
        // Of the day on which it was made, or following from the rest.
        format: _,
        parent: _,
        made_at_ms: _,
        fleet_file: _,
        server_findings: _,
        blockers: _,
        warnings: _,
        forecast: _,
    } = plan;
    let left_out = |hosts: &[super::LeftOut]| -> Value {
        json!(hosts.iter().map(|host| &host.name).collect::<BTreeSet<_>>())
    };
    let mut values = super::diff::values(timing);
    values.extend(named([
        ("clients_to", json!(clients_to.to_string())),
        (
            "without_agent",
            json!(unmatched.iter().map(without_agent).collect::<BTreeSet<_>>()),
        ),
        (
            "stranded",
            json!(stranded.iter().map(loses_server).collect::<BTreeSet<_>>()),
        ),
        ("without_node", left_out(without_node)),
        ("other_server", left_out(other_server)),
        ("ungrouped", left_out(ungrouped)),
        ("without_client", left_out(without_client)),
        ("failure_threshold", json!(failure_threshold)),
        ("zone_data", json!(zone_data)),
    ]));
    values
}

fn without_agent(client: &UnmatchedClient) -> &str {
    let UnmatchedClient {
        name,
        // What PMM said of it on the day.
        agent_id: _,
        version: _,
        beside_server: _,
    } = client;
    name
}

fn loses_server(client: &Stranded) -> String {
    let Stranded {
        name,
        address,
        reason: _,
    } = client;
    format!("{name} ({address})")
}

pub(super) fn of_server(server: &PlanServer) -> Values {
    let PlanServer { name, url, from, to } = server;
    named([
        ("name", json!(name)),
        ("url", json!(url)),
        ("from", json!(from.to_string())),
        ("to", json!(to.to_string())),
    ])
}

/// A leg in one line.
pub(super) fn leg_text(leg: &Leg) -> String {
    match &leg.kind {
        LegKind::Survey => "check and stage".to_owned(),
        LegKind::Server {
            hops,
            repoint,
            // The inverse of the same.
            repoint_back: _,
        } => {
            let path: Vec<String> = hops.iter().map(hop_text).collect();
            let follow = match repoint.len() {
                0 => String::new(),
                count => format!("; {count} clients follow"),
            };
            format!("{}{follow}", path.join(", "))
        }
        LegKind::Clients {
            to,
            entries,
            no_way_back_to_pmm2: _,
        } => format!("{} hosts to {to}", entries.len()),
    }
}

fn hop_text(hop: &Hop) -> String {
    let Hop {
        from,
        to,
        pmm2_update,
        // Follow from the order of hops.
        number: _,
        last_of_leg: _,
    } = hop;
    let how = match pmm2_update {
        Pmm2Update::Api if to.major == 2 => " by PMM's own update",
        Pmm2Update::Api | Pmm2Update::Image => "",
    };
    format!("{from} -> {to}{how}")
}

/// What all hosts of a client leg have in common, and whether they could go back; empty where it has no hosts.
pub(super) fn of_leg(leg: &Leg) -> Values {
    let LegKind::Clients {
        entries,
        no_way_back_to_pmm2,
        to: _,
    } = &leg.kind
    else {
        return Values::new();
    };
    let mut found: BTreeMap<&str, BTreeSet<String>> = BTreeMap::new();
    for entry in entries.values().filter_map(|text| read(text)) {
        let PlanEntry {
            source,
            // One of the durations of the rollout.
            verify_for_ms: _,
            // Of each host; see `of_entry`.
            expect: _,
            repoint: _,
            // Where it stands: compared with the host, the group and the leg.
            host: _,
            name: _,
            group: _,
            leg: _,
            to: _,
        } = entry;
        let ClientSource {
            repository_url,
            component,
            tarball_url,
            tarball_sha256,
        } = source;
        let digests: Vec<String> = tarball_sha256
            .iter()
            .map(|(file, digest)| format!("{file} {digest}"))
            .collect();
        for (name, value) in [
            ("source repository", repository_url),
            ("source component", component),
            ("source tarballs", tarball_url),
            ("source digests", digests.join(", ")),
        ] {
            found.entry(name).or_default().insert(value);
        }
    }
    if found.is_empty() {
        return Values::new();
    }
    let values = found
        .into_iter()
        .map(|(name, values)| (name.to_owned(), json!(values)));
    let back = ("no_way_back_to_pmm2".to_owned(), json!(no_way_back_to_pmm2));
    values.chain([back]).collect()
}

fn read(text: &str) -> Option<PlanEntry> {
    serde_json::from_str(text).ok()
}

/// What else may be different about a host that has the same action in the same group.
pub(super) fn of_host(host: &PlanHost) -> Values {
    let PlanHost {
        method,
        agent_id,
        node_id,
        backups,
        repoint,
        sets,
        site,
        held_on_host,
        // Said with its action or its group.
        host: _,
        name: _,
        group: _,
        action: _,
        from: _,
        to: _,
        held: _,
        // Follows from the group and the order of its hosts.
        wave: _,
        // Of the moment at which the plan was made.
        backup_running: _,
    } = host;
    let repoint = repoint
        .as_ref()
        .map(|repoint| format!("{} -> {}", repoint.from, repoint.to));
    named([
        ("method", json!(method)),
        ("agent", json!(agent_id)),
        ("node", json!(node_id)),
        ("scheduled backups", json!(backups)),
        ("server address", json!(repoint)),
        ("sets", json!(sets)),
        ("site", json!(site)),
        ("held on the host", json!(held_on_host)),
    ])
}

/// What an order to a host expects, where it does not stand in the host's own line.
pub(super) fn of_entry(text: &str) -> Values {
    let Some(entry) = read(text) else {
        return Values::new();
    };
    let Expect {
        base_dir,
        // Of the host, and of the legs before.
        from_min: _,
        from_max: _,
        method: _,
        agent_id: _,
    } = entry.expect;
    named([("base_dir", json!(base_dir))])
}
