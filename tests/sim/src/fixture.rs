//! Small fleets for tests: a fleet file, hosts, PMM's inventory, and a plan made of them by the real code.

use fleet_common::compat::CompatibilityTable;
use fleet_common::ids::{Epoch, HostId, RolloutId};
use fleet_common::inventory::{Detection, Installation, Inventory, Method, RunKind};
use fleet_common::reach::ContainerReach;
use fleet_common::survey::{Finding, HostSurvey, Verdict};
use fleet_common::verification::{FleetSnapshot, PmmClient, PmmService};
use fleet_common::version::PmmVersion;
use rollout::fleet;
use rollout::kernel::Kernel;
use rollout::plan::{HostRecord, LegKind, Plan, PlanDraft, Running, ServerInput, join_child};
use std::collections::BTreeMap;

pub const NOW: u64 = 1_700_000_000_000;

/// A group's name, number of hosts and the lines of its policy.
pub type GroupSpec<'a> = (&'a str, usize, &'a str);

pub fn fleet_text(groups: &[GroupSpec<'_>], target: &str, decision: &str) -> String {
    let mut text = format!(
        r#"
[server]
url = "https://pmm.example.com"
credential_file = "/etc/pmm-coordinator/pmm-admin"
target = "{target}"
{decision}
[clients.tarball.sha256]
"pmm-client-3.2.0-x86_64.tar.gz" = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
"pmm-client-{target}-x86_64.tar.gz" = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
[timing]
permit = "30s"
preflight = "60s"
stage = "60s"
switch = "5m"
verify = "2m"
rollback = "2m"
lost_after = "2m"
offline_for = "2m"
reminder = "10m"
[defaults]
max_unavailable = 2
"#
    );
    for (name, _, policy) in groups {
        text.push_str(&format!(
            "[[group]]\nname = \"{name}\"\nmatch = {{ labels = {{ group = \"{name}\" }} }}\n{policy}\n"
        ));
    }
    text
}

pub fn installation(number: usize, method: Method, version: &str) -> Installation {
    let version: PmmVersion = version.parse().unwrap();
    Installation {
        method,
        package: Some("pmm2-client".to_owned()),
        package_version: Some(format!("{version}-6.bookworm")),
        version,
        running_version: Some(version),
        base_dir: "/usr/local/percona/pmm2".to_owned(),
        config_file: "/usr/local/percona/pmm2/config/pmm-agent.yaml".to_owned(),
        configured: true,
        run: RunKind::Systemd {
            unit: "pmm-agent.service".to_owned(),
            enabled: true,
        },
        user: "pmm-agent".to_owned(),
        agent_id: format!("agent-{number}"),
        node_id: format!("node-{number}"),
        server_address: "pmm.example.com:443".to_owned(),
        server_ips: Vec::new(),
        connected: Some(true),
        credential: "password".to_owned(),
        exporters: BTreeMap::new(),
        evidence: Vec::new(),
    }
}

pub fn survey(verdict: Verdict) -> HostSurvey {
    let finding = Finding {
        check: "disk".to_owned(),
        verdict,
        message: "3 GB free".to_owned(),
        hint: "make room".to_owned(),
    };
    HostSurvey {
        findings: vec![finding],
        candidate: None,
        kept: None,
    }
}

pub fn host(number: usize, group: &str) -> HostRecord {
    let methods = [Method::Deb, Method::Rpm, Method::Tarball];
    HostRecord {
        host_id: HostId::new(format!("h{number}")),
        inventory: Inventory {
            hostname: format!("db{number:02}"),
            os_id: "debian".to_owned(),
            os_version: "12".to_owned(),
            os_codename: "bookworm".to_owned(),
            arch: "x86_64".to_owned(),
            pmm_server: None,
            agent_version: "0.1.0".to_owned(),
            labels: [("group".to_owned(), group.to_owned())].into(),
            held: None,
            client: Detection::Installed(Box::new(installation(number, methods[number % 3], "2.41.2"))),
        },
        survey: Some((NOW, survey(Verdict::Pass))),
        held: None,
    }
}

/// PMM's inventory of these hosts: one service each.
pub fn snapshot(hosts: &[HostRecord], at: u64) -> FleetSnapshot {
    let mut snapshot = FleetSnapshot {
        taken_at_ms: at,
        qan_from_ms: at - 3_600_000,
        ..FleetSnapshot::default()
    };
    for found in hosts.iter().filter_map(|host| host.inventory.installation()) {
        let (node, service) = (found.node_id.clone(), found.agent_id.replace("agent", "service"));
        let client = PmmClient {
            node_id: node.clone(),
            node_name: found.agent_id.replace("agent", "node"),
            connected: true,
            version: Some(found.version.to_string()),
        };
        snapshot.clients.insert(found.agent_id.clone(), client);
        let described = PmmService {
            name: format!("mysql-{node}"),
            service_type: "mysql".to_owned(),
            node_id: node.clone(),
            environment: "prod".to_owned(),
            cluster: String::new(),
            replication_set: String::new(),
            address: "127.0.0.1:3306".to_owned(),
            custom_labels: BTreeMap::new(),
        };
        snapshot.services.insert(service.clone(), described);
        snapshot.node_samples_ms.insert(node, at - 1_000);
        snapshot.service_samples_ms.insert(service.clone(), at - 1_000);
        snapshot.qan_active.insert(service);
    }
    snapshot
}

pub fn records(groups: &[GroupSpec<'_>]) -> Vec<HostRecord> {
    let names = groups
        .iter()
        .flat_map(|(name, hosts, _)| std::iter::repeat_n(*name, *hosts));
    names
        .enumerate()
        .map(|(number, group)| host(number, group))
        .collect()
}

pub const ACCEPT: &str = "[server.pmm2_clients]\naccept_gap = \"3.9.1\"";

/// How the server's container is reached in these fleets.
pub fn reach() -> ContainerReach {
    ContainerReach {
        names: ["pmm-server".to_owned()].into(),
        addresses: ["172.18.0.2".parse().unwrap()].into(),
        subnets: ["172.18.0.2/16".to_owned()].into(),
        published: [443].into(),
        exposed: [80, 443].into(),
        ..ContainerReach::default()
    }
}

/// Lets a host's client address the container itself.
pub fn make_direct(host: &mut HostRecord) {
    if let Detection::Installed(found) = &mut host.inventory.client {
        found.server_address = "pmm-server:443".to_owned();
        found.server_ips = vec!["172.18.0.2".parse().unwrap()];
    }
}

/// Whether the server takes PMM 2 clients back.
pub fn way_back(plan: &mut Plan, there_is: bool) {
    for leg in &mut plan.legs {
        if let LegKind::Clients {
            no_way_back_to_pmm2, ..
        } = &mut leg.kind
        {
            *no_way_back_to_pmm2 = !there_is;
        }
    }
}

pub fn draft(groups: &[GroupSpec<'_>], decision: &str) -> PlanDraft {
    draft_with(groups, decision, &[])
}

pub fn draft_with(groups: &[GroupSpec<'_>], decision: &str, direct: &[usize]) -> PlanDraft {
    let mut hosts = records(groups);
    for number in direct {
        hosts.get_mut(*number).map(make_direct);
    }
    let running = "2.41.2".parse().unwrap();
    plan_of(groups, decision, &hosts, running, None, NOW).unwrap()
}

/// A plan of these hosts as they are; with a rollout under way one that may take it over. Of the groups only name and policy are looked at.
pub fn plan_of(
    groups: &[GroupSpec<'_>],
    decision: &str,
    hosts: &[HostRecord],
    running: PmmVersion,
    under_way: Option<&Running>,
    now_ms: u64,
) -> Result<PlanDraft, Vec<fleet::FleetError>> {
    let fleet = fleet::parse(&fleet_text(groups, "3.9.1", decision), "fleet.toml")?;
    let server = ServerInput {
        running,
        findings: Vec::new(),
        reach: reach(),
    };
    let table = CompatibilityTable::shipped().unwrap();
    let pmm = snapshot(hosts, now_ms);
    join_child(&fleet, hosts, &pmm, &server, &table, now_ms, under_way)
}

/// A change of the plan before it is stored.
pub type Edit<'a> = &'a dyn Fn(&mut Plan);

pub fn kernel(
    groups: &[GroupSpec<'_>],
    decision: &str,
    direct: &[usize],
    edit: Edit<'_>,
) -> (Vec<u8>, Kernel) {
    let mut draft = draft_with(groups, decision, direct);
    edit(&mut draft.plan);
    let (_, bytes) = draft.into_bytes().unwrap();
    let kernel = Kernel::new(RolloutId::new("r1"), &bytes, Epoch { term: 1, counter: 0 }, NOW).unwrap();
    (bytes, kernel)
}
