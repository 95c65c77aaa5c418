//! Policies in the plan: what the linter says, the forecast, the difference of two plans, child plans.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use fleet_common::compat::CompatibilityTable;
use fleet_sim::fixture::{self, ACCEPT, GroupSpec, NOW};
use rollout::fleet;
use rollout::plan::{ChangeKind, Plan, Running, ServerInput, Warning, diff, join_child};
use std::collections::BTreeMap;
use std::sync::Arc;

/// The plan of these groups; the server runs `running`, and a rollout of `parent` is under way, in which nobody has begun.
fn plan(groups: &[GroupSpec<'_>], head: &str, running: &str, parent: Option<&Plan>) -> Plan {
    let hosts = fixture::records(groups);
    let decision = head.to_owned();
    let text = fixture::fleet_text(groups, "3.9.1", &decision);
    let fleet = fleet::parse(&text, "fleet.toml").unwrap();
    let server = ServerInput {
        running: running.parse().unwrap(),
        findings: Vec::new(),
        reach: fixture::reach(),
    };
    let pmm = fixture::snapshot(&hosts, NOW);
    let table = CompatibilityTable::shipped().unwrap();
    let under_way = parent.map(|plan| Running {
        plan: Arc::new(plan.clone()),
        begun: BTreeMap::new(),
    });
    join_child(&fleet, &hosts, &pmm, &server, &table, NOW, under_way.as_ref())
        .unwrap()
        .plan
}

fn codes(policy: &str) -> Vec<String> {
    let plan = plan(&[("one", 8, policy)], ACCEPT, "2.41.2", None);
    plan.warnings.into_iter().map(|warning| warning.code).collect()
}

#[test]
fn the_linter_names_policies_that_cannot_work() {
    let window =
        |length: &str| format!("window = {{ from = \"01:00\", for = \"{length}\", zone = \"UTC\" }}");
    let cases = [
        (window("5m"), "window_short"),
        (
            format!("{}\ncanary_soak = \"2h\"", window("1h")),
            "canary_soak_window",
        ),
        ("offline = \"wait\"".to_owned(), "offline_wait"),
        ("profile = \"fast\"".to_owned(), "profile_over_defaults"),
        ("on_breach = \"rollback\"".to_owned(), "on_breach_no_way_back"),
        ("deadline = \"1m\"".to_owned(), "deadline_short"),
        ("ramp = [1, 5]".to_owned(), "ramp_wide"),
        (
            "blackouts = [{ from = \"2020-01-01T00:00\", until = \"2020-01-02T00:00\", zone = \"UTC\" }]"
                .to_owned(),
            "blackout_past",
        ),
        (
            "blackouts = [{ from = \"2020-01-01T00:00\", until = \"2030-01-02T00:00\", zone = \"UTC\" }]"
                .to_owned(),
            "window_far",
        ),
    ];
    let plain = codes("");
    for (policy, code) in cases {
        assert!(!plain.iter().any(|found| found == code), "{code}: {plain:?}");
        let found = codes(&policy);
        assert!(found.iter().any(|found| found == code), "{code}: {found:?}");
    }
}

/// A warning of the plan, with the line of the fleet file that it names.
fn warning(plan: &Plan, code: &str, text: &str) -> (Warning, String) {
    let found = plan.warnings.iter().find(|warning| warning.code == code);
    let found = found
        .unwrap_or_else(|| panic!("no {code}: {:#?}", plan.warnings))
        .clone();
    let line = text.lines().nth(found.line.unwrap() - 1).unwrap().to_owned();
    (found, line)
}

#[test]
fn times_that_never_come_slow_sets_and_missing_sites_are_told_with_place_reason_and_hint() {
    let groups: [GroupSpec<'_>; 3] = [
        (
            "never",
            2,
            "window = { from = \"01:00\", for = \"2h\", zone = \"UTC\" }\nblackouts = [{ from = \"2020-01-01T00:00\", until = \"9999-12-30T00:00\", zone = \"UTC\", reason = \"retired\" }]",
        ),
        ("set", 4, "max_unavailable = 4"),
        ("site", 3, "per_site = 1"),
    ];
    let head = format!("{ACCEPT}\n[rollout]\nsite_label = \"site\"");
    let text = fixture::fleet_text(&groups, "3.9.1", &head);
    let fleet = fleet::parse(&text, "fleet.toml").unwrap();
    let mut hosts = fixture::records(&groups);
    for (number, host) in hosts.iter_mut().enumerate().filter(|(number, _)| *number != 7) {
        host.inventory
            .labels
            .insert("site".to_owned(), format!("dc{}", number % 2));
    }
    let mut pmm = fixture::snapshot(&hosts, NOW);
    for number in 2..6 {
        let service = pmm.services.get_mut(&format!("service-{number}")).unwrap();
        service.replication_set = "rs0".to_owned();
    }
    let server = ServerInput {
        running: "2.41.2".parse().unwrap(),
        findings: Vec::new(),
        reach: fixture::reach(),
    };
    let table = CompatibilityTable::shipped().unwrap();
    let plan = join_child(&fleet, &hosts, &pmm, &server, &table, NOW, None)
        .unwrap()
        .plan;
    for (code, group, says, hint) in [
        (
            "window_never",
            "never",
            "its hosts can never begin: a blackout: retired",
            "change its windows or blackouts",
        ),
        (
            "sets_slow",
            "set",
            "at least 4 rounds, where max_unavailable 4 alone would need 1",
            "raise `together`",
        ),
        (
            "site_missing",
            "site",
            "by the label `site`, which 1 of its hosts does not have: ",
            "give these hosts the label",
        ),
    ] {
        let (found, line) = warning(&plan, code, &text);
        assert_eq!(found.subject, format!("group:{group}"));
        assert!(found.message.contains(says), "{found:?}");
        assert!(found.hint.contains(hint), "{found:?}");
        assert_eq!(line, "[[group]]", "{found:?}");
        let of_code = plan.warnings.iter().filter(|warning| warning.code == code);
        assert_eq!(of_code.count(), 1, "{code} is said of the one group that is so");
    }
}

#[test]
fn a_threshold_of_the_rollout_is_resolved_and_judged() {
    let head = |threshold: &str| format!("{ACCEPT}\n[rollout]\nfailure_threshold = {threshold}");
    let groups: [GroupSpec<'_>; 1] = [("one", 8, "failure_threshold = 3")];
    let low = plan(&groups, &head("\"20%\""), "2.41.2", None);
    assert_eq!(low.failure_threshold, Some(1));
    assert!(
        low.warnings
            .iter()
            .any(|warning| warning.code == "rollout_threshold_below")
    );
    let high = plan(&groups, &head("8"), "2.41.2", None);
    assert!(
        high.warnings
            .iter()
            .any(|warning| warning.code == "rollout_threshold_unreachable")
    );
}

#[test]
fn the_forecast_follows_width_soak_and_windows() {
    let forecast = |policy: &str| {
        plan(&[("one", 8, policy)], ACCEPT, "2.41.2", None)
            .forecast
            .unwrap()
    };
    let plain = forecast("");
    assert!(plain.low_ms < plain.high_ms && !plain.basis.is_empty());
    assert!(forecast("max_unavailable = 8").high_ms < plain.high_ms);
    assert_eq!(forecast("soak = \"1h\"").low_ms, plain.low_ms + 3_600_000);
    let window = forecast("window = { from = \"01:00\", for = \"5m\", zone = \"UTC\" }");
    assert!(window.high_ms > 24 * 3_600_000, "{window:?}");
}

#[test]
fn the_forecast_counts_hosts_of_a_site_that_go_one_after_the_other() {
    let low = |policy: &str| {
        let head = format!("{ACCEPT}\n[rollout]\nsite_label = \"group\"");
        let policy = format!("canaries = 0\nmax_unavailable = 8\n{policy}");
        let plan = plan(&[("one", 8, &policy)], &head, "2.41.2", None);
        assert!(plan.hosts.iter().all(|host| host.site.as_deref() == Some("one")));
        plan.forecast.unwrap()
    };
    let (wide, narrow) = (low(""), low("per_site = 2"));
    let round = 40_000;
    assert_eq!(narrow.low_ms, wide.low_ms + 3 * round, "four rounds and not one");
    let told = |text: &String| text.contains("4 rounds") && text.contains("2 per site");
    assert!(narrow.basis.iter().any(told), "{:?}", narrow.basis);
}

#[test]
fn waves_are_the_canaries_the_steps_of_the_ramp_and_then_the_full_width() {
    let waves = |policy: &str| -> Vec<u32> {
        let plan = plan(&[("one", 10, policy)], ACCEPT, "2.41.2", None);
        plan.hosts.iter().map(|host| host.wave).collect()
    };
    assert_eq!(
        waves("canaries = 1\nramp = [1, 2, 3]\nmax_unavailable = 4"),
        [1, 2, 3, 3, 4, 4, 4, 5, 5, 5]
    );
    assert_eq!(
        waves("canaries = 2\nmax_unavailable = 4"),
        [1, 1, 2, 2, 2, 2, 3, 3, 3, 3]
    );
    assert_eq!(waves("canaries = 0\nmax_unavailable = 10"), [1; 10]);
}

#[test]
fn a_window_that_the_server_does_not_wait_for_is_named() {
    let window = "window = { from = \"01:00\", for = \"5h\", zone = \"UTC\" }";
    let named = |policy: &str, running: &str| {
        let plan = plan(&[("one", 8, policy)], ACCEPT, running, None);
        plan.warnings
            .iter()
            .any(|warning| warning.code == "server_outside_windows" && warning.subject == "server")
    };
    assert!(named(window, "2.41.2"));
    assert!(!named("", "2.41.2"), "no window");
    assert!(!named(window, "3.9.1"), "no hop");
}

#[test]
fn a_difference_is_told_once_and_nothing_differs_from_itself() {
    let old = plan(&[("one", 4, ""), ("two", 2, "")], ACCEPT, "2.41.2", None);
    assert!(diff(&old, &old).changes.is_empty());
    let new = plan(
        &[("one", 4, "max_unavailable = 3"), ("two", 3, "")],
        ACCEPT,
        "2.41.2",
        None,
    );
    let changes = diff(&old, &new).changes;
    let of = |kind: ChangeKind| changes.iter().filter(|change| change.kind == kind).count();
    assert_eq!(of(ChangeKind::HostAdded), 1, "{changes:?}");
    assert_eq!(of(ChangeKind::HostRemoved), 0, "{changes:?}");
    assert!(
        changes.iter().any(|change| change.subject == "group:one"
            && change.what == "max_unavailable"
            && change.from.as_deref() == Some("2")
            && change.to.as_deref() == Some("3")),
        "{changes:?}"
    );
}

#[test]
fn a_difference_has_moments_as_dates_and_pauses_as_durations() {
    let old = plan(&[("one", 4, "")], ACCEPT, "2.41.2", None);
    let policy = "blackouts = [{ from = \"2026-12-20T00:00\", until = \"2027-01-07T06:00\", zone = \"Europe/Madrid\", reason = \"freeze\" }]
retry = { install = { times = 2, backoff = [\"1m\", \"5m\"] } }";
    let new = plan(&[("one", 4, policy)], ACCEPT, "2.41.2", None);
    let changes = diff(&old, &new).changes;
    let to = |what: &str| -> String {
        let found = changes.iter().find(|change| change.what == what);
        found.and_then(|change| change.to.clone()).unwrap_or_default()
    };
    assert_eq!(
        to("blackouts"),
        "2026-12-19 23:00 to 2027-01-07 05:00 (UTC): freeze",
        "{changes:?}"
    );
    let retry = to("retry");
    assert!(retry.contains("install backoff 1m; 5m times 2"), "{retry}");
}

#[test]
fn a_child_keeps_the_ids_of_the_legs_that_are_left() {
    let head = "[server.pmm2_clients]\nbridge = \"3.2.0\"";
    let groups: [GroupSpec<'_>; 1] = [("one", 3, "")];
    let parent = plan(&groups, head, "2.41.2", None);
    let ids = |plan: &Plan| -> Vec<String> { plan.legs.iter().map(|leg| leg.id.to_string()).collect() };
    assert_eq!(
        ids(&parent),
        ["survey", "server-1", "clients-1", "server-2", "clients-2"]
    );
    let child = plan(&groups, head, "3.2.0", Some(&parent));
    assert_eq!(ids(&child), ["survey", "clients-1", "server-2", "clients-2"]);
}
