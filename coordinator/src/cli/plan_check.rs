//! `plan --check`: a fleet file alone. What it means is printed as far as that is known without hosts; nothing is asked of anybody.

use super::Ended;
use super::fleet_file;
use super::output::Output;
use super::plan_text::{breach_line, health_line, offline_line, retry_line, times_lines};
use super::text::fold;
use crate::clock;
use crate::pmm;
use ::rollout::fleet::{Fleet, Matcher, Pmm2Clients, Policy, Profile, RolloutPolicy, duration_text};
use fleet_common::codes::exit;
use fleet_common::version::PmmVersion;
use serde::Serialize;
use std::fmt::Write as _;
use std::path::Path;

#[derive(Serialize)]
struct CheckDocument {
    file: String,
    server: String,
    server_target: PmmVersion,
    pmm2_clients: Pmm2Clients,
    clients_target: PmmVersion,
    rollout: RolloutPolicy,
    groups: Vec<CheckedGroup>,
}

#[derive(Serialize)]
struct CheckedGroup {
    name: String,
    profile: Profile,
    matches: Matcher,
    policy: Policy,
    /// What its profile takes the place of in `[defaults]`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    replaced: Vec<String>,
}

pub fn run(file: &Path, output: &Output) -> Ended {
    let request = fleet_file::request(file)?;
    let text = String::from_utf8_lossy(&request.text);
    let fleet = ::rollout::fleet::parse(&text, &request.path).map_err(pmm::problems)?;
    let document = document(fleet);
    let now_ms = clock::now_ms();
    output.document(&document, |document| check_text(document, now_ms, output.width()));
    Ok(exit::OK)
}

fn document(fleet: Fleet) -> CheckDocument {
    let groups = fleet
        .groups
        .into_iter()
        .map(|group| CheckedGroup {
            name: group.name,
            profile: group.profile,
            matches: group.matches,
            policy: group.policy,
            replaced: group.replaced,
        })
        .collect();
    CheckDocument {
        file: fleet.file,
        server: fleet.server.url,
        server_target: fleet.server.target,
        pmm2_clients: fleet.server.pmm2_clients,
        clients_target: fleet.clients.target,
        rollout: fleet.rollout,
        groups,
    }
}

fn check_text(document: &CheckDocument, now_ms: u64, width: usize) -> String {
    let mut text = format!("{} is valid\n", document.file);
    let way = match document.pmm2_clients {
        Pmm2Clients::Undecided => String::new(),
        Pmm2Clients::Bridge(bridge) => format!(", over the bridge {bridge}"),
        Pmm2Clients::AcceptGap(_) => ", PMM 2 clients without a guarantee until they are upgraded".to_owned(),
    };
    let mut line = |line: String| {
        let _ = writeln!(text, "{}", fold(&line, width, 4));
    };
    line(format!(
        "server {} to {}{way}",
        document.server, document.server_target
    ));
    line(format!("clients to {}", document.clients_target));
    let threshold = document.rollout.failure_threshold.map_or_else(
        || "no threshold over all groups".to_owned(),
        |threshold| format!("more than {threshold} failures over all groups pause it"),
    );
    line(format!(
        "rollout: profile {}, {threshold}",
        document.rollout.profile
    ));
    for group in &document.groups {
        line(String::new());
        line(format!(
            "group {}: {} (profile {})",
            group.name,
            matcher(&group.matches),
            group.profile
        ));
        for policy in policy_lines(&group.policy, now_ms) {
            line(format!("  {policy}"));
        }
        if !group.replaced.is_empty() {
            line(format!(
                "  note: its profile takes the place of what [defaults] says: {}",
                group.replaced.join(", ")
            ));
        }
    }
    text
}

fn policy_lines(policy: &Policy, now_ms: u64) -> Vec<String> {
    let mut first = format!("canaries {}", policy.canaries);
    if policy.canary_soak_ms > 0 {
        let _ = write!(
            first,
            ", then {} of watching",
            duration_text(policy.canary_soak_ms)
        );
    }
    let mut lines = vec![
        first,
        format!("ramp {}; max_unavailable {}", policy.ramp, policy.max_unavailable),
        format!(
            "tolerated failures {}; {}",
            policy.failure_threshold,
            breach_line(policy.on_breach).unwrap_or("one failure too many: the rollout pauses")
        ),
        health_line(&policy.health),
        retry_line(&policy.retry),
    ];
    if policy.soak_ms > 0 {
        lines.push(format!(
            "soak {} after the last host",
            duration_text(policy.soak_ms)
        ));
    }
    if policy.approval {
        lines.push("a person must let it begin".to_owned());
    }
    lines.extend(times_lines(&policy.windows, &policy.blackouts, now_ms));
    if let Some(per_site) = policy.per_site {
        lines.push(format!("at most {per_site} at once in one site"));
    }
    lines.push(format!(
        "at most {} of one cluster or replication set at once",
        policy.together
    ));
    lines.push(
        offline_line(policy.offline)
            .unwrap_or("hosts that are away are caught up when they return")
            .to_owned(),
    );
    if let Some(deadline) = policy.deadline_ms {
        lines.push(format!("must be done within {}", duration_text(deadline)));
    }
    lines
}

fn matcher(matches: &Matcher) -> String {
    let mut parts: Vec<String> = Vec::new();
    let pairs = matches.labels.iter().chain(&matches.facts);
    parts.extend(pairs.map(|(key, value)| format!("{key} {value}")));
    for (key, value) in [
        ("environment", &matches.environment),
        ("cluster", &matches.cluster),
        ("replication set", &matches.replication_set),
    ] {
        parts.extend(value.iter().map(|value| format!("{key} {value}")));
    }
    let names: Vec<&str> = matches.names.iter().map(String::as_str).collect();
    match names.len() {
        0 => {}
        1..=5 => parts.push(format!("hosts {}", names.join(", "))),
        count => parts.push(format!("{count} hosts by name")),
    }
    parts.join(" and ")
}
