//! A first fleet file from PMM's inventory: valid as it is, meant to be read and changed.

use super::check::RESERVED;
use fleet_common::verification::FleetSnapshot;
use fleet_common::version::PmmVersion;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

/// What PMM's inventory can't tell.
#[derive(Clone, Debug)]
pub struct FirstFile {
    /// Base URL of the PMM Server.
    pub url: String,
    /// File with its credential.
    pub credential_file: String,
    /// CA file of its certificate.
    pub ca_file: Option<String>,
    /// Or the certificate's SHA-256.
    pub fingerprint: Option<String>,
    /// Name of its container.
    pub container: String,
    /// Release to reach.
    pub target: String,
}

/// Names in one comment.
const NAMES: usize = 8;
/// A release that still promises something to PMM 2 clients: the usual bridge.
const BRIDGE: &str = "3.2.0";
/// From this release on nothing is promised to them.
const NO_PROMISE: PmmVersion = PmmVersion::new(3, 4, 0);

/// Hosts of the file by group.
struct Sorted<'a> {
    /// Goes first and alone.
    canary: Option<&'a str>,
    /// Environments whose hosts are in no other environment and that lost none to the canary: matched by PMM's label.
    by_label: BTreeMap<&'a str, BTreeSet<&'a str>>,
    /// All others, by name.
    by_name: BTreeMap<&'a str, BTreeSet<&'a str>>,
}

/// Writes the file. Groups follow PMM's environments; one host of the smallest goes first. No host is in two groups.
pub fn first_file(settings: &FirstFile, pmm: &FleetSnapshot) -> String {
    let mut text = head(settings, pmm);
    let sorted = sort(pmm);
    let mut names: BTreeSet<String> = RESERVED.map(str::to_owned).into();
    let mut name_of = |wanted: &str| {
        let mut name = match one_line(wanted).trim() {
            "" => "others".to_owned(),
            name => name.to_owned(),
        };
        while !names.insert(name.clone()) {
            name.push_str("-2");
        }
        quoted(&name)
    };
    match sorted.canary {
        Some(canary) => {
            let _ = write!(
                text,
                "
# One host of the smallest environment goes first. Take another one, or more.
[[group]]
name = {}
match = {{ names = [{}] }}
soak = \"15m\"
",
                name_of("canary"),
                quoted(canary)
            );
        }
        None => text.push_str(
            "
# PMM knows no client yet, so this group is an example.
[[group]]
name = \"canary\"
match = { labels = { tier = \"canary\" } }
",
        ),
    }
    // `approval` keeps the group itself: the one after the canary waits, and with it all that follow.
    let mut gate = sorted.canary.map_or("", |_| {
        "# A person looks at the canary first: `pmm-coordinator approve` with the name of this group lets it begin, and those after it follow.\napproval = true\n"
    });
    for late in [false, true] {
        for (environment, hosts) in &sorted.by_label {
            if is_production(environment) == late {
                let _ = write!(
                    text,
                    "\n# {}\n[[group]]\nname = {}\nmatch = {{ environment = {} }}\n{}",
                    some(hosts),
                    name_of(environment),
                    quoted(environment),
                    std::mem::take(&mut gate)
                );
            }
        }
        for (environment, hosts) in &sorted.by_name {
            if is_production(environment) != late || hosts.is_empty() {
                continue;
            }
            let why = if environment.is_empty() {
                "PMM has no environment for these hosts, so they are listed by name."
            } else {
                "By name, because another group has a host of this environment: a host belongs to one group only."
            };
            let list: Vec<String> = hosts
                .iter()
                .map(|host| format!("    {},\n", quoted(host)))
                .collect();
            let name = if environment.is_empty() {
                "others"
            } else {
                environment
            };
            let _ = write!(
                text,
                "\n# {why}\n[[group]]\nname = {}\n{}[group.match]\nnames = [\n{}]\n",
                name_of(name),
                std::mem::take(&mut gate),
                list.concat()
            );
        }
    }
    shared(&mut text, pmm);
    text
}

fn head(settings: &FirstFile, pmm: &FleetSnapshot) -> String {
    let trust = match (&settings.ca_file, &settings.fingerprint) {
        (Some(file), _) => format!("ca_file = {}\n", quoted(file)),
        (None, Some(fingerprint)) => format!("fingerprint = {}\n", quoted(fingerprint)),
        (None, None) => "# The system's certificate authorities are trusted; or ca_file = \"...\", or fingerprint = \"sha256:...\".\n".to_owned(),
    };
    let running = pmm
        .server_version
        .map_or_else(|| "unknown".to_owned(), |version| version.to_string());
    // A target that still promises something needs no decision, and a bridge past it would be refused. One that can't be read is told of when
    // the file is checked.
    let target = settings.target.parse::<PmmVersion>();
    let promises = target.is_ok_and(|target| target < NO_PROMISE);
    let decision = if pmm.server_version.is_some_and(|version| version.major == 2) && !promises {
        format!(
            "
# From PMM Server 3.4 on nothing is guaranteed to PMM 2 clients. Decide: over a release that still does (server, clients, server, clients),
# or straight to the target with the gap accepted by name.
[server.pmm2_clients]
bridge = \"{BRIDGE}\"
# accept_gap = {}
",
            quoted(&settings.target)
        )
    } else {
        String::new()
    };
    format!(
        "# A first fleet file, made from PMM's inventory: {} clients, {} services, server {running}. Read it, change it, then:
#   pmm-coordinator plan --check -f <this file>     what it means, without a coordinator
#   pmm-coordinator survey -f <this file>           is everybody ready? changes nothing that runs
#   pmm-coordinator plan -f <this file>             who, how, in which order
# `pmm-coordinator fleet schema` prints all keys with their meaning.

[server]
url = {}
credential_file = {}
{trust}docker = {{ container = {} }}
target = {}
{decision}
# Tarball installations need a pinned digest for each file.
# [clients.tarball]
# sha256 = {{ \"pmm-client-{}-x86_64.tar.gz\" = \"<64 hex digits>\" }}

[rollout]
# cautious, standard or fast: where everything comes from that is not given. `plan --check` prints the values.
profile = \"standard\"

# For every group that does not say otherwise.
[defaults]
failure_threshold = 0
# window = {{ days = [\"sat\", \"sun\"], from = \"01:00\", for = \"4h\", zone = \"Europe/Madrid\" }}

# Groups go one after the other, in this order. A host that no group matches is never touched. Hosts also need an agent of ours.
",
        pmm.clients.len(),
        pmm.services.len(),
        quoted(&settings.url),
        quoted(&settings.credential_file),
        quoted(&settings.container),
        quoted(&settings.target),
        settings.target,
    )
}

fn sort(pmm: &FleetSnapshot) -> Sorted<'_> {
    let mut environments: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for service in pmm
        .services
        .values()
        .filter(|service| !service.environment.is_empty())
    {
        let of_node = environments.entry(service.node_id.as_str()).or_default();
        of_node.insert(service.environment.as_str());
    }
    // The first environment of a host counts; that it has others keeps all of them from being matched by label.
    let mut hosts: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    let mut mixed: BTreeSet<&str> = BTreeSet::new();
    let mut placed: BTreeSet<&str> = BTreeSet::new();
    for client in pmm.clients.values() {
        // Two nodes of one name can't be told apart in a fleet file.
        if !placed.insert(client.node_name.as_str()) || client.node_name.is_empty() {
            continue;
        }
        let of_node = environments.get(client.node_id.as_str());
        let first = of_node.and_then(|names| names.first().copied()).unwrap_or("");
        if let Some(names) = of_node.filter(|names| names.len() > 1) {
            mixed.extend(names);
        }
        hosts.entry(first).or_default().insert(client.node_name.as_str());
    }
    let smallest = hosts
        .iter()
        .min_by_key(|(environment, hosts)| (is_production(environment), hosts.len(), **environment))
        .map(|(environment, _)| *environment);
    let mut canary = None;
    if let Some(environment) = smallest {
        canary = hosts.get_mut(environment).and_then(BTreeSet::pop_first);
        mixed.insert(environment);
    }
    let by_label = |environment: &&str| !environment.is_empty() && !mixed.contains(*environment);
    let (labelled, named) = hosts
        .into_iter()
        .partition(|(environment, _)| by_label(environment));
    Sorted {
        canary,
        by_label: labelled,
        by_name: named,
    }
}

/// Goes last.
fn is_production(environment: &str) -> bool {
    environment.to_ascii_lowercase().starts_with("prod") || environment.eq_ignore_ascii_case("live")
}

/// Notes on hosts that must not go together.
fn shared(text: &mut String, pmm: &FleetSnapshot) {
    let mut sets: BTreeMap<String, BTreeSet<&str>> = BTreeMap::new();
    let names: BTreeMap<&str, &str> = pmm
        .clients
        .values()
        .map(|client| (client.node_id.as_str(), client.node_name.as_str()))
        .collect();
    for service in pmm.services.values() {
        let Some(name) = names.get(service.node_id.as_str()) else {
            continue;
        };
        for (kind, set) in [
            ("cluster", &service.cluster),
            ("replication set", &service.replication_set),
        ] {
            if !set.is_empty() {
                sets.entry(format!("{kind} {}", one_line(set)))
                    .or_default()
                    .insert(name);
            }
        }
    }
    sets.retain(|_, hosts| hosts.len() > 1);
    if sets.is_empty() {
        return;
    }
    text.push_str("\n# Hosts that share a cluster or a replication set go one at a time, unless a group says `together = 2`:\n");
    for (set, hosts) in sets {
        let _ = writeln!(text, "#   {set}: {}", some(&hosts));
    }
}

/// A few names, and how many more.
fn some(names: &BTreeSet<&str>) -> String {
    let shown: Vec<String> = names.iter().take(NAMES).map(|name| one_line(name)).collect();
    let shown = shown.join(", ");
    match names.len().saturating_sub(NAMES) {
        0 => shown,
        more => format!("{shown} and {more} more"),
    }
}

/// A text that can't end a comment.
fn one_line(text: &str) -> String {
    text.chars()
        .map(|letter| if letter.is_control() { ' ' } else { letter })
        .collect()
}

/// A text as TOML writes it.
fn quoted(text: &str) -> String {
    let mut quoted = String::from("\"");
    for letter in text.chars() {
        match letter {
            '"' => quoted.push_str("\\\""),
            '\\' => quoted.push_str("\\\\"),
            letter if letter.is_control() => {
                let _ = write!(quoted, "\\u{:04X}", u32::from(letter));
            }
            letter => quoted.push(letter),
        }
    }
    quoted.push('"');
    quoted
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::fleet::{HostFacts, parse};
    use fleet_common::verification::{PmmClient, PmmService};
    use proptest::prelude::*;

    fn settings() -> FirstFile {
        FirstFile {
            url: "https://pmm.example.com".to_owned(),
            credential_file: "/etc/pmm-coordinator/pmm-admin".to_owned(),
            ca_file: None,
            fingerprint: None,
            container: "pmm-server".to_owned(),
            target: "3.9.1".to_owned(),
        }
    }

    /// Hosts by name with the environments of their services; all in one cluster.
    fn snapshot(hosts: &[(String, Vec<String>)]) -> FleetSnapshot {
        let mut pmm = FleetSnapshot {
            server_version: Some(PmmVersion::new(2, 41, 2)),
            ..FleetSnapshot::default()
        };
        for (at, (name, environments)) in hosts.iter().enumerate() {
            let node_id = format!("node-{at}");
            pmm.clients.insert(
                format!("agent-{at}"),
                PmmClient {
                    node_id: node_id.clone(),
                    node_name: name.clone(),
                    connected: true,
                    version: None,
                },
            );
            for environment in environments {
                pmm.services.insert(
                    format!("service-{at}-{environment}"),
                    PmmService {
                        name: format!("mysql-{at}"),
                        service_type: "mysql".to_owned(),
                        node_id: node_id.clone(),
                        environment: environment.clone(),
                        cluster: "orders".to_owned(),
                        replication_set: String::new(),
                        address: String::new(),
                        custom_labels: BTreeMap::new(),
                    },
                );
            }
        }
        pmm
    }

    #[test]
    fn groups_follow_the_environments() {
        let host = |name: &str, environment: &str| (name.to_owned(), vec![environment.to_owned()]);
        let pmm = snapshot(&[
            host("db1", "prod"),
            host("db2", "prod"),
            host("db3", "staging"),
            host("db4", "staging"),
            host("db5", "dev"),
            ("db6".to_owned(), Vec::new()),
            ("db7".to_owned(), Vec::new()),
        ]);
        let text = first_file(&settings(), &pmm);
        let fleet = parse(&text, "fleet.toml").unwrap();
        let names: Vec<&str> = fleet.groups.iter().map(|group| group.name.as_str()).collect();
        assert_eq!(names, ["canary", "staging", "others", "prod"], "{text}");
        // `approval` keeps the group itself: on the canary it would let the others follow without anybody's look.
        let approval: Vec<bool> = fleet.groups.iter().map(|group| group.policy.approval).collect();
        assert_eq!(approval, [false, true, false, false], "{text}");
        assert_eq!(fleet.groups[0].matches.names, ["db5".to_owned()].into());
        assert_eq!(fleet.groups[3].matches.environment.as_deref(), Some("prod"));
        assert!(text.contains("cluster orders: db1, db2, db3, db4, db5"), "{text}");
    }

    #[test]
    fn the_decision_on_pmm_2_clients_fits_the_target() {
        let pmm = snapshot(&[("db1".to_owned(), Vec::new())]);
        for (target, decides) in [
            ("3.9.1", true),
            ("3.4.0", true),
            ("3.3.1", false),
            ("3.2.0", false),
            ("2.44.1", false),
        ] {
            let settings = FirstFile {
                target: target.to_owned(),
                ..settings()
            };
            let text = first_file(&settings, &pmm);
            let fleet = parse(&text, "fleet.toml");
            assert!(fleet.is_ok(), "{target}: {:?}", fleet.err());
            assert_eq!(text.contains("[server.pmm2_clients]"), decides, "{target}");
        }
    }

    proptest! {
        #[test]
        fn the_file_is_valid_and_each_host_is_in_one_group(
            hosts in proptest::collection::btree_map(
                "[a-c\"\\\\#\n]{1,2}",
                proptest::collection::btree_set("canary|prod|dev|o\"ps|others|server| |a\nb", 0..3),
                0..12,
            )
        ) {
            let hosts: Vec<(String, Vec<String>)> = hosts
                .into_iter()
                .map(|(name, environments)| (name, environments.into_iter().collect()))
                .collect();
            let text = first_file(&settings(), &snapshot(&hosts));
            let fleet = parse(&text, "fleet.toml");
            prop_assert!(fleet.is_ok(), "{:?}\n{}", fleet.err(), text);
            let fleet = fleet.unwrap();
            for (name, environments) in &hosts {
                let facts = HostFacts {
                    names: [name.clone()].into(),
                    environments: environments.iter().cloned().collect(),
                    ..HostFacts::default()
                };
                let groups = fleet.groups.iter().filter(|group| group.matches.matches(&facts)).count();
                prop_assert_eq!(groups, 1, "{}\n{}", name, text);
            }
        }
    }
}
