//! The join of hosts, PMM's inventory and groups.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use fleet_common::codes;
use fleet_common::compat::CompatibilityTable;
use fleet_common::inventory::{Detection, Method};
use fleet_common::survey::{Finding, Verdict};
use fleet_sim::fixture::{self, ACCEPT, NOW};
use proptest::prelude::*;
use rollout::fleet::{self, FleetError};
use rollout::plan::{HostAction, HostRecord, LegKind, Plan, PlanDraft, ServerInput, join};

struct Case {
    text: String,
    hosts: Vec<HostRecord>,
    known: Vec<HostRecord>,
    running: &'static str,
    findings: Vec<Finding>,
}

impl Case {
    fn new(groups: &[fixture::GroupSpec<'_>]) -> Self {
        let hosts = fixture::records(groups);
        let text = fixture::fleet_text(groups, "3.9.1", ACCEPT);
        Self {
            text,
            known: hosts.clone(),
            hosts,
            running: "2.41.2",
            findings: Vec::new(),
        }
    }

    fn join(&self) -> Result<Plan, Vec<FleetError>> {
        let fleet = fleet::parse(&self.text, "fleet.toml").unwrap();
        let server = ServerInput {
            running: self.running.parse().unwrap(),
            findings: self.findings.clone(),
            reach: fixture::reach(),
        };
        let pmm = fixture::snapshot(&self.known, NOW);
        let draft: PlanDraft = join(
            &fleet,
            &self.hosts,
            &pmm,
            &server,
            &CompatibilityTable::shipped().unwrap(),
            NOW,
        )?;
        let (id, bytes) = draft.into_bytes().unwrap();
        assert!(id.as_str().starts_with("plan-"));
        Ok(Plan::parse(&bytes).unwrap())
    }

    fn refused(&self) -> FleetError {
        self.join().expect_err("must be refused").remove(0)
    }
}

fn installation(host: &mut HostRecord) -> &mut fleet_common::inventory::Installation {
    match &mut host.inventory.client {
        Detection::Installed(installation) => installation,
        _ => unreachable!(),
    }
}

fn action<'a>(plan: &'a Plan, host: &str) -> &'a HostAction {
    &plan.find_host(host).unwrap().action
}

#[test]
fn the_main_road_has_three_legs_and_three_hops() {
    let plan = Case::new(&[("one", 4, ""), ("two", 2, "")]).join().unwrap();
    let legs: Vec<&str> = plan.legs.iter().map(|leg| leg.id.as_str()).collect();
    assert_eq!(legs, ["survey", "server-1", "clients-1"]);
    let LegKind::Server { hops, .. } = &plan.legs[1].kind else {
        panic!()
    };
    let path: Vec<String> = hops.iter().map(|hop| hop.to.to_string()).collect();
    assert_eq!(path, ["2.44.1", "3.7.1", "3.9.1"]);
    assert_eq!(hops.iter().filter(|hop| hop.last_of_leg).count(), 1);
    let entry = plan.entry(&"clients-1".into(), &"h0".into()).unwrap();
    assert_eq!(
        (
            entry.expect.from_min.to_string(),
            entry.to.to_string(),
            entry.group.as_str()
        ),
        ("2.41.2".into(), "3.9.1".into(), "one")
    );
    assert_eq!(entry.name, "node-0");
    assert!(plan.hosts.iter().all(|host| host.action == HostAction::Upgrade));
    assert_eq!(
        plan.hosts.iter().map(|host| host.wave).collect::<Vec<_>>(),
        [1, 2, 2, 3, 1, 2]
    );
}

#[test]
fn a_bridge_has_two_stages() {
    let mut case = Case::new(&[("one", 3, "")]);
    case.text = fixture::fleet_text(
        &[("one", 3, "")],
        "3.9.1",
        "[server.pmm2_clients]\nbridge = \"3.2.0\"",
    );
    let plan = case.join().unwrap();
    let legs: Vec<&str> = plan.legs.iter().map(|leg| leg.id.as_str()).collect();
    assert_eq!(legs, ["survey", "server-1", "clients-1", "server-2", "clients-2"]);
    let path: Vec<String> = plan
        .legs
        .iter()
        .filter_map(|leg| {
            if let LegKind::Server { hops, .. } = &leg.kind {
                Some(hops)
            } else {
                None
            }
        })
        .flatten()
        .map(|hop| format!("{}:{}", hop.number, hop.to))
        .collect();
    assert_eq!(path, ["1:2.44.1", "2:3.2.0", "3:3.7.1", "4:3.9.1"]);
    let second = plan.entry(&"clients-2".into(), &"h0".into()).unwrap();
    assert_eq!(
        (
            second.expect.from_min.to_string(),
            second.expect.base_dir.as_str()
        ),
        ("3.2.0".to_owned(), "/usr/local/percona/pmm")
    );
    assert!(
        plan.warnings
            .iter()
            .any(|warning| warning.code == "client_hazard"),
        "{:?}",
        plan.warnings
    );
}

#[test]
fn a_gap_for_pmm2_clients_needs_a_decision() {
    let mut case = Case::new(&[("one", 2, "")]);
    case.text = fixture::fleet_text(&[("one", 2, "")], "3.9.1", "");
    let error = case.refused();
    assert_eq!(error.line, Some(5));
    assert!(
        error.hint.contains("bridge") && error.hint.contains("accept_gap"),
        "{error:?}"
    );
    case.text = fixture::fleet_text(
        &[("one", 2, "")],
        "3.9.1",
        "[server.pmm2_clients]\naccept_gap = \"3.8.0\"",
    );
    assert!(case.refused().reason.contains("accept_gap names 3.8.0"));
}

#[test]
fn downgrades_and_closed_doors_are_refused_with_their_line() {
    let mut case = Case::new(&[("one", 2, "")]);
    case.running = "3.10.0";
    let error = case.refused();
    assert_eq!(error.line, Some(5));
    assert!(
        error.reason.contains("older than the installed release 3.10.0"),
        "{error}"
    );
    case.running = "2.41.2";
    case.text = fixture::fleet_text(&[("one", 2, "")], "3.13.0", ACCEPT);
    let error = case.refused();
    assert!(
        error.reason.contains("no path") && error.line == Some(5),
        "{error}"
    );
}

#[test]
fn hosts_that_two_groups_match_are_refused() {
    let mut case = Case::new(&[("one", 2, ""), ("two", 1, "")]);
    case.text
        .push_str("[[group]]\nname = \"three\"\nmatch = { names = [\"db01\"] }\n");
    let error = case.refused();
    assert!(
        error.reason.contains("`one` and `three` overlap") && error.reason.contains("node-1"),
        "{error}"
    );
    assert!(error.line.is_some());
}

#[test]
fn a_threshold_of_its_own_must_be_reachable_and_a_default_is_capped() {
    let error = Case::new(&[("one", 2, "failure_threshold = 2")]).refused();
    assert!(
        error.reason.contains("can't be reached") && error.line.is_some(),
        "{error}"
    );
    let mut case = Case::new(&[("one", 1, "")]);
    case.text = case
        .text
        .replace("[defaults]", "[defaults]\nfailure_threshold = 2");
    let plan = case.join().unwrap();
    assert_eq!(plan.groups[0].failure_threshold, 0);
    assert!(
        plan.warnings
            .iter()
            .any(|warning| warning.code == "threshold_capped")
    );
}

#[test]
fn who_is_left_out_and_why() {
    let mut case = Case::new(&[("one", 12, "")]);
    let hosts = &mut case.hosts;
    installation(&mut hosts[1]).version = "3.10.0".parse().unwrap();
    installation(&mut hosts[2]).version = "3.9.1".parse().unwrap();
    installation(&mut hosts[2]).running_version = Some("3.9.1".parse().unwrap());
    hosts[3].survey = Some((NOW, fixture::survey(Verdict::Fail)));
    hosts[4].inventory.client = Detection::NotInstalled;
    hosts[5].inventory.client = Detection::Refused {
        code: codes::MIXED_INSTALLATION.to_owned(),
        message: "package and tarball".to_owned(),
        evidence: Vec::new(),
    };
    hosts[6].inventory.labels.clear();
    installation(&mut hosts[7]).agent_id = "elsewhere".to_owned();
    installation(&mut hosts[7]).server_address = "other.example.com:443".to_owned();
    installation(&mut hosts[8]).agent_id = "unheard-of".to_owned();
    installation(&mut hosts[9]).agent_id = "agent-0".to_owned();
    hosts[10].survey = None;
    hosts[11].held = Some("backup".to_owned());
    let plan = case.join().unwrap();
    let code = |host: &str| match action(&plan, host) {
        HostAction::Refuse { code, .. } => code.clone(),
        other => format!("{other:?}"),
    };
    assert_eq!(code("h1"), codes::UNEXPECTED_STATE);
    assert_eq!(action(&plan, "h2"), &HostAction::AlreadyCurrent);
    assert_eq!(code("h3"), codes::PREFLIGHT);
    assert_eq!(code("h4"), codes::NOT_INSTALLED);
    assert_eq!(code("h5"), codes::MIXED_INSTALLATION);
    assert_eq!(
        plan.ungrouped
            .iter()
            .map(|host| host.host.as_str())
            .collect::<Vec<_>>(),
        ["h6"]
    );
    assert_eq!(
        plan.other_server
            .iter()
            .map(|host| host.host.as_str())
            .collect::<Vec<_>>(),
        ["h7"]
    );
    assert_eq!(
        plan.without_node
            .iter()
            .map(|host| host.host.as_str())
            .collect::<Vec<_>>(),
        ["h8"]
    );
    assert_eq!(
        (code("h0"), code("h9")),
        (codes::FORK.to_owned(), codes::FORK.to_owned())
    );
    let unmatched: Vec<&str> = plan.unmatched.iter().map(|client| client.name.as_str()).collect();
    assert_eq!(unmatched, ["node-4", "node-5", "node-7", "node-8", "node-9"]);
    for (warning, host) in [("survey_missing", "host:db10"), ("held", "host:node-11")] {
        assert!(
            plan.warnings
                .iter()
                .any(|found| found.code == warning && found.subject == host),
            "{:?}",
            plan.warnings
        );
    }
}

/// Its host is in no wave, however many others there are, and says so; a client there that needs nothing is left alone.
#[test]
fn the_host_of_the_pmm_server_is_in_no_client_wave() {
    let mut case = Case::new(&[("one", 4, "")]);
    for host in &mut case.hosts[..2] {
        host.inventory.pmm_server = Some("pmm-managed runs in a container".to_owned());
    }
    installation(&mut case.hosts[1]).version = "3.9.1".parse().unwrap();
    installation(&mut case.hosts[1]).running_version = Some("3.9.1".parse().unwrap());
    let plan = case.join().unwrap();
    assert!(matches!(
        action(&plan, "h0"),
        HostAction::Refuse { code, reason, hint }
            if code == codes::NOT_APPLICABLE && reason.contains("pmm-managed") && !hint.is_empty()
    ));
    assert_eq!(action(&plan, "h1"), &HostAction::AlreadyCurrent);
    let entries: Vec<&str> = plan
        .legs
        .iter()
        .filter_map(|leg| match &leg.kind {
            LegKind::Clients { entries, .. } => Some(entries.keys().map(|host| host.as_str())),
            _ => None,
        })
        .flatten()
        .collect();
    assert_eq!(entries, ["h2", "h3"]);
}

#[test]
fn a_plan_needs_a_survey_and_a_ready_server_and_pinned_tarballs() {
    let mut case = Case::new(&[("one", 3, "")]);
    for host in &mut case.hosts {
        host.survey = None;
    }
    assert!(case.refused().hint.contains("survey"));
    let mut case = Case::new(&[("one", 3, "")]);
    case.findings = vec![Finding {
        check: "disk".to_owned(),
        verdict: Verdict::Fail,
        message: "full".to_owned(),
        hint: String::new(),
    }];
    assert_eq!(case.join().unwrap().blockers.len(), 1);
    case.text = case.text.replace("pmm-client-3.9.1-", "pmm-client-3.9.0-");
    let plan = case.join().unwrap();
    let tarball = plan
        .hosts
        .iter()
        .find(|host| host.method == Some(Method::Tarball))
        .unwrap();
    assert!(
        matches!(&tarball.action, HostAction::Refuse { reason, .. } if reason.contains("digest")),
        "{tarball:?}"
    );
}

#[test]
fn clients_that_address_the_container_follow_it_and_the_unclear_ones_are_refused() {
    let mut case = Case::new(&[("one", 6, "")]);
    for number in [1, 2, 4] {
        fixture::make_direct(&mut case.hosts[number]);
    }
    // Nobody knows what the name means there.
    installation(&mut case.hosts[3]).server_address = "pmm-server:443".to_owned();
    case.hosts[2].survey = Some((NOW, fixture::survey(Verdict::Fail)));
    case.hosts[4].inventory.labels.clear();
    let plan = case.join().unwrap();
    let LegKind::Server {
        repoint,
        repoint_back,
        ..
    } = &plan.legs[1].kind
    else {
        panic!("the second leg is the server's");
    };
    assert_eq!(
        repoint.keys().map(|host| host.as_str()).collect::<Vec<_>>(),
        ["h1"]
    );
    let there = plan
        .entry(&"server-1".into(), &"h1".into())
        .unwrap()
        .repoint
        .unwrap();
    assert_eq!(
        (there.from.as_str(), there.to.as_str()),
        ("pmm-server:443", "pmm-server:8443")
    );
    let back: fleet_common::plan_entry::PlanEntry =
        serde_json::from_str(&repoint_back[&"h1".into()]).unwrap();
    assert_eq!(back.repoint.unwrap().to, "pmm-server:443");
    let wave = plan.entry(&"clients-1".into(), &"h1".into()).unwrap();
    assert_eq!(wave.repoint.unwrap(), there, "the wave expects the new address");
    assert!(
        matches!(action(&plan, "h3"), HostAction::Refuse { code, .. } if code == codes::UNEXPECTED_STATE)
    );
    let stranded: Vec<&str> = plan.stranded.iter().map(|client| client.name.as_str()).collect();
    assert_eq!(stranded, ["node-2", "node-3", "node-4"]);
    for (code, count) in [("repoint", 1), ("stranded", 3)] {
        assert_eq!(
            plan.warnings
                .iter()
                .filter(|warning| warning.code == code)
                .count(),
            count,
            "{code}"
        );
    }
    case.running = "3.7.1";
    let later = case.join().unwrap();
    assert!(
        later.stranded.is_empty() && later.hosts.iter().all(|host| host.repoint.is_none()),
        "the port moves once"
    );
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_host_is_in_the_plan_exactly_once_and_numbers_fit(sizes in proptest::collection::vec(1usize..9, 1..4), labels in any::<u64>()) {
        let names = ["a", "b", "c"];
        let groups: Vec<fixture::GroupSpec<'_>> = sizes.iter().zip(names).map(|(size, name)| (name, *size, "max_unavailable = \"34%\"\ncanaries = \"10%\"")).collect();
        let mut case = Case::new(&groups);
        for (at, host) in case.hosts.iter_mut().enumerate() {
            if labels >> at & 1 == 1 {
                host.inventory.labels.clear();
            }
        }
        let Ok(plan) = case.join() else { return Ok(()) };
        let mut all: Vec<&str> = plan.hosts.iter().map(|host| host.host.as_str()).collect();
        all.extend(plan.ungrouped.iter().map(|host| host.host.as_str()));
        all.sort_unstable();
        let mut wanted: Vec<&str> = case.hosts.iter().map(|host| host.host_id.as_str()).collect();
        wanted.sort_unstable();
        prop_assert_eq!(all, wanted);
        for group in &plan.groups {
            let hosts = u32::try_from(group.hosts.len()).unwrap();
            prop_assert!(group.max_unavailable >= 1 && group.max_unavailable <= hosts.max(1));
            prop_assert!(group.canaries <= hosts && (hosts == 0 || group.canaries >= 1));
            prop_assert!(hosts == 0 || group.failure_threshold < hosts);
        }
    }

    /// Canaries round up, widths and thresholds down; nobody is let through by none, and a threshold that can't be reached is said.
    #[test]
    fn percentages_become_integers_in_the_plan(size in 1usize..40, canaries in 1u32..100, width in 1u32..100, threshold in 0u32..100) {
        let policy = format!("canaries = \"{canaries}%\"\nmax_unavailable = \"{width}%\"\nfailure_threshold = \"{threshold}%\"");
        let groups: [fixture::GroupSpec<'_>; 1] = [("one", size, policy.as_str())];
        let plan = Case::new(&groups).join();
        let hosts = u32::try_from(size).unwrap();
        let Ok(plan) = plan else {
            // Of its own a group may not ask for what can't be.
            prop_assert!(hosts * threshold / 100 >= hosts);
            return Ok(());
        };
        let group = &plan.groups[0];
        prop_assert_eq!(group.canaries, (hosts * canaries).div_ceil(100).max(1));
        prop_assert_eq!(group.max_unavailable, (hosts * width / 100).max(1));
        prop_assert_eq!(group.failure_threshold, hosts * threshold / 100);
        prop_assert!(group.failure_threshold < hosts);
    }
}
