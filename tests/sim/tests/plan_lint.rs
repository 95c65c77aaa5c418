//! Every warning of a plan: a plan that has it, beside one that has it not.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use fleet_common::compat::CompatibilityTable;
use fleet_common::inventory::{Detection, Installation};
use fleet_common::survey::{Finding, Verdict};
use fleet_common::verification::{FleetSnapshot, PmmClient};
use fleet_sim::fixture::{self, ACCEPT, GroupSpec, NOW};
use rollout::fleet;
use rollout::plan::{HostRecord, Plan, ServerInput, join};
use std::collections::BTreeSet;

/// What a plan is made of.
struct Case {
    text: String,
    hosts: Vec<HostRecord>,
    pmm: FleetSnapshot,
    server: ServerInput,
}

impl Case {
    fn new(groups: &[GroupSpec<'_>], decision: &str) -> Self {
        let hosts = fixture::records(groups);
        Self {
            text: fixture::fleet_text(groups, "3.9.1", decision),
            pmm: fixture::snapshot(&hosts, NOW),
            hosts,
            server: ServerInput {
                running: "2.41.2".parse().unwrap(),
                findings: Vec::new(),
                reach: fixture::reach(),
            },
        }
    }

    fn plan(&self) -> Plan {
        let fleet = fleet::parse(&self.text, "fleet.toml").unwrap_or_else(|errors| panic!("{errors:#?}"));
        let table = CompatibilityTable::shipped().unwrap();
        join(&fleet, &self.hosts, &self.pmm, &self.server, &table, NOW)
            .unwrap_or_else(|errors| panic!("{errors:#?}"))
            .plan
    }

    fn codes(&self) -> BTreeSet<String> {
        let warnings = self.plan().warnings;
        warnings.into_iter().map(|warning| warning.code).collect()
    }

    fn with(mut self, change: impl FnOnce(&mut Self)) -> Self {
        change(&mut self);
        self
    }

    fn finding(self, verdict: Verdict) -> Self {
        self.with(|case| {
            case.server.findings.push(Finding {
                check: "disk_space".to_owned(),
                verdict,
                message: "12 GB free".to_owned(),
                hint: "make room".to_owned(),
            });
        })
    }

    /// Everything is on its target.
    fn current(self) -> Self {
        self.with(|case| {
            case.server.running = "3.9.1".parse().unwrap();
            for host in &mut case.hosts {
                let found = installation(host);
                found.version = "3.9.1".parse().unwrap();
                found.running_version = Some(found.version);
            }
        })
    }

    /// A client without an agent of ours, at this address.
    fn unmatched(self, address: &str) -> Self {
        self.with(|case| {
            let client = PmmClient {
                node_id: "foreign".to_owned(),
                node_name: "foreign".to_owned(),
                connected: true,
                version: Some("2.41.2".to_owned()),
            };
            case.pmm.clients.insert("foreign-agent".to_owned(), client);
            let node = "foreign".to_owned();
            case.pmm.node_addresses.insert(node, address.to_owned());
        })
    }

    fn set_of_all(self) -> Self {
        self.with(|case| {
            for service in case.pmm.services.values_mut() {
                service.replication_set = "rs0".to_owned();
            }
        })
    }

    fn text(self, from: &str, to: &str) -> Self {
        self.with(|case| {
            assert!(case.text.contains(from), "{from}");
            case.text = case.text.replace(from, to);
        })
    }
}

fn installation(host: &mut HostRecord) -> &mut Installation {
    match &mut host.inventory.client {
        Detection::Installed(found) => found,
        _ => unreachable!(),
    }
}

/// A group of four hosts with this policy.
fn of(policy: &str) -> Case {
    Case::new(&[("one", 4, policy)], ACCEPT)
}

fn headed(head: &str, policy: &str) -> Case {
    Case::new(&[("one", 4, policy)], &format!("{ACCEPT}\n{head}"))
}

fn window(length: &str, more: &str) -> Case {
    of(&format!(
        "window = {{ from = \"01:00\", for = \"{length}\", zone = \"UTC\" }}\n{more}"
    ))
}

fn blackout(until: &str) -> Case {
    of(&format!(
        "blackouts = [{{ from = \"2020-01-01T00:00\", until = \"{until}\", zone = \"UTC\" }}]"
    ))
}

/// Each code with a plan that has it and a near one that has it not.
fn cases() -> Vec<(&'static str, Case, Case)> {
    let bridge = "[server.pmm2_clients]\nbridge = \"3.2.0\"";
    let small = |policy: &str| {
        Case::new(&[("one", 1, policy)], ACCEPT).text("[defaults]", "[defaults]\nfailure_threshold = 2")
    };
    let direct = |number: usize, verdict| {
        of("").with(|case| {
            fixture::make_direct(&mut case.hosts[number]);
            case.hosts[number].survey = Some((NOW, fixture::survey(verdict)));
        })
    };
    let clients = |target: &str| headed(&format!("[clients]\ntarget = \"{target}\""), "");
    let site = "[rollout]\nsite_label = \"group\"";
    let threshold = |number: u32| format!("[rollout]\nfailure_threshold = {number}");
    vec![
        ("gap_accepted", of(""), Case::new(&[("one", 4, "")], bridge)),
        ("clients_behind", clients("3.7.1"), clients("3.9.1")),
        (
            "group_empty",
            Case::new(&[("one", 4, ""), ("two", 0, "")], ACCEPT),
            Case::new(&[("one", 4, ""), ("two", 1, "")], ACCEPT),
        ),
        ("no_canary", of("canaries = 0"), of("canaries = 1")),
        (
            "all_at_once",
            of("max_unavailable = 4"),
            of("max_unavailable = 3"),
        ),
        ("canaries_capped", of("canaries = 5"), of("canaries = 4")),
        (
            "held",
            of("").with(|case| case.hosts[0].held = Some("backup".to_owned())),
            of(""),
        ),
        ("repoint", direct(1, Verdict::Pass), of("")),
        ("stranded", direct(1, Verdict::Fail), direct(1, Verdict::Pass)),
        (
            "backups",
            of("").with(|case| case.pmm.backups_scheduled_on.extend(["node-0".to_owned()])),
            of("").with(|case| case.pmm.backups_scheduled_on.extend(["foreign".to_owned()])),
        ),
        (
            "backup_running",
            of("").with(|case| case.pmm.backups_running_on.extend(["node-0".to_owned()])),
            of("").with(|case| case.pmm.backups_scheduled_on.extend(["node-0".to_owned()])),
        ),
        (
            "beside_server",
            of("").unmatched("172.18.0.7"),
            of("").unmatched("10.0.0.7"),
        ),
        ("client_hazard", Case::new(&[("one", 4, "")], bridge), of("")),
        (
            "server_finding",
            of("").finding(Verdict::Warn),
            of("").finding(Verdict::Pass),
        ),
        ("nothing_to_do", of("").current(), of("")),
        (
            "survey_missing",
            of("").with(|case| case.hosts[0].survey = None),
            of(""),
        ),
        ("threshold_capped", small(""), small("failure_threshold = 0")),
        (
            "window_never",
            blackout("9999-12-30T00:00"),
            blackout("2030-01-02T00:00"),
        ),
        (
            "window_far",
            blackout("2030-01-02T00:00"),
            blackout("2023-11-20T00:00"),
        ),
        (
            "blackout_past",
            blackout("2020-01-02T00:00"),
            blackout("2023-11-20T00:00"),
        ),
        ("window_short", window("5m", ""), window("5h", "")),
        (
            "canary_soak_window",
            window("1h", "canary_soak = \"2h\""),
            window("3h", "canary_soak = \"2h\""),
        ),
        ("deadline_short", of("deadline = \"1m\""), of("deadline = \"9h\"")),
        (
            "offline_wait",
            of("offline = \"wait\""),
            of("offline = \"wait\"\ndeadline = \"9h\""),
        ),
        (
            "on_breach_no_way_back",
            of("on_breach = \"rollback\""),
            of("on_breach = \"pause\""),
        ),
        (
            "patience_short",
            of("health = { good_views = 3, patience = \"30s\" }"),
            of("health = { good_views = 3, patience = \"3m\" }"),
        ),
        ("profile_over_defaults", of("profile = \"fast\""), of("")),
        ("ramp_wide", of("ramp = [1, 3]"), of("ramp = [1, 2]")),
        (
            "sets_slow",
            of("max_unavailable = 4").set_of_all(),
            of("max_unavailable = 1").set_of_all(),
        ),
        (
            "site_missing",
            headed("[rollout]\nsite_label = \"site\"", "per_site = 1"),
            headed(site, "per_site = 1"),
        ),
        (
            "server_outside_windows",
            window("5h", ""),
            window("5h", "").with(|case| case.server.running = "3.9.1".parse().unwrap()),
        ),
        (
            "rollout_threshold_unreachable",
            headed(&threshold(4), ""),
            headed(&threshold(3), ""),
        ),
        (
            "rollout_threshold_below",
            headed(&threshold(1), "failure_threshold = 2"),
            headed(&threshold(2), "failure_threshold = 2"),
        ),
    ]
}

#[test]
fn each_warning_has_a_plan_that_has_it_and_a_near_one_that_has_it_not() {
    for (code, has, has_not) in cases() {
        let found = has.codes();
        assert!(found.contains(code), "{code} is missing: {found:?}");
        let found = has_not.codes();
        assert!(!found.contains(code), "{code} is said without reason: {found:?}");
    }
}

/// The codes as the sources give them: one that is added without a case is noticed here.
#[test]
fn no_warning_is_without_a_case() {
    let sources = [
        include_str!("../../../coordinator/rollout/src/plan/groups.rs"),
        include_str!("../../../coordinator/rollout/src/plan/join.rs"),
        include_str!("../../../coordinator/rollout/src/plan/lint.rs"),
        include_str!("../../../coordinator/rollout/src/plan/lint_policy.rs"),
    ];
    let code = |call: &str| {
        let text = call.trim_start().strip_prefix('"')?;
        Some(text.split_once('"')?.0.to_owned())
    };
    let given: BTreeSet<String> = sources
        .into_iter()
        .flat_map(|source| {
            let plain = source.split("warn(").skip(1);
            let built = source.split("Warning::new(").skip(1);
            plain.chain(built).filter_map(code).collect::<Vec<_>>()
        })
        .collect();
    let tested: BTreeSet<String> = cases().iter().map(|(code, ..)| (*code).to_owned()).collect();
    assert_eq!(given, tested);
}

/// Where members of one set or site take turns, the widest width does not let all go at once, and no wave has two of them.
#[test]
fn sets_and_sites_that_bind_are_seen_in_the_waves_and_in_the_warnings() {
    let waves = |case: &Case| -> Vec<u32> { case.plan().hosts.iter().map(|host| host.wave).collect() };
    let wide = "max_unavailable = 4\ncanaries = 0";
    let set = of(wide).set_of_all();
    assert_eq!(waves(&set), [1, 2, 3, 4]);
    assert!(!set.codes().contains("all_at_once"));
    let two = of(&format!("{wide}\ntogether = 2")).set_of_all();
    assert_eq!(waves(&two), [1, 1, 2, 2]);
    let site = headed(
        "[rollout]\nsite_label = \"group\"",
        &format!("{wide}\nper_site = 3"),
    );
    assert_eq!(waves(&site), [1, 1, 1, 2]);
    assert!(!site.codes().contains("all_at_once"));
    // Who is of no set fills the waves that the others leave room in.
    let mixed = of("max_unavailable = 2\ncanaries = 1").with(|case| {
        for number in [0, 1] {
            let service = case.pmm.services.get_mut(&format!("service-{number}")).unwrap();
            service.replication_set = "rs0".to_owned();
        }
    });
    assert_eq!(waves(&mixed), [1, 2, 2, 3]);
    let later = of("max_unavailable = 2\ncanaries = 0").with(|case| {
        for number in [0, 1] {
            let service = case.pmm.services.get_mut(&format!("service-{number}")).unwrap();
            service.replication_set = "rs0".to_owned();
        }
    });
    assert_eq!(waves(&later), [1, 2, 1, 2]);
}

/// An end of time in a blackout: the plan says that the group never begins, and estimates nothing.
#[test]
fn what_never_opens_has_no_forecast() {
    assert!(blackout("9999-12-30T00:00").plan().forecast.is_none());
    assert!(blackout("2023-11-20T00:00").plan().forecast.is_some());
}
