//! Policy keys, profiles, windows and blackouts of the fleet file.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use super::tests::GOOD;
use super::{Fleet, FleetError, Limit, Profile, Ramp, json_schema, parse};
use crate::policy::{FailureClass, Offline, OnBreach, Retries};
use proptest::prelude::*;

/// The good file with these lines in the group `production`.
fn with(lines: &str) -> Result<Fleet, Vec<FleetError>> {
    parse(
        &GOOD.replace(
            "max_unavailable = 20\n",
            &format!("max_unavailable = 20\n{lines}\n"),
        ),
        "fleet.toml",
    )
}

/// The same, with a site label and a profile for the whole rollout.
fn under(rollout: &str, lines: &str) -> Fleet {
    let text = GOOD
        .replace("[defaults]", &format!("[rollout]\n{rollout}\n[defaults]"))
        .replace(
            "max_unavailable = 20\n",
            &format!("max_unavailable = 20\n{lines}\n"),
        );
    parse(&text, "fleet.toml").unwrap()
}

#[test]
fn every_policy_key_is_read() {
    let fleet = under(
        "site_label = \"site\"\nfailure_threshold = \"1%\"",
        r#"canaries = "1%"
canary_soak = "5m"
ramp = [1, 3, "10%"]
on_breach = "rollback"
soak = "1h"
approval = true
health = { good_views = 2, patience = "10m" }
windows = [{ days = ["sun", "sat"], from = "01:00", for = "4h", zone = "europe/madrid" }, { from = "9:30", for = "30m", zone = "UTC" }]
blackouts = [{ from = "2026-12-20T00:00", until = "2027-01-07T06:00", zone = "Europe/Madrid", reason = "freeze" }]
per_site = 2
together = 2
retry = { transient = { times = 0 }, install = { times = 1, backoff = ["10m"] } }
offline = "wait"
deadline = "2d""#,
    );
    assert_eq!(fleet.rollout.failure_threshold, Some(Limit::Percent(1)));
    let policy = &fleet.groups[1].policy;
    assert_eq!(policy.canaries, Limit::Percent(1));
    assert_eq!(policy.canary_soak_ms, 300_000);
    assert_eq!(
        policy.ramp,
        Ramp::Steps(vec![Limit::Count(1), Limit::Count(3), Limit::Percent(10)])
    );
    assert_eq!(policy.on_breach, OnBreach::Rollback);
    assert_eq!((policy.soak_ms, policy.approval), (3_600_000, true));
    assert_eq!(
        (policy.health.good_views, policy.health.patience_ms),
        (2, 600_000)
    );
    assert_eq!(policy.windows[0].days, [6, 7]);
    assert_eq!(policy.windows[0].zone, "Europe/Madrid");
    assert_eq!(
        (policy.windows[1].days.len(), policy.windows[1].from_minute),
        (0, 570)
    );
    assert_eq!(
        (policy.blackouts[0].from_ms, policy.blackouts[0].until_ms),
        (1_797_721_200_000, 1_799_298_000_000),
        "midnight and six in Madrid, an hour before UTC"
    );
    assert_eq!((policy.per_site, policy.together), (Some(2), 2));
    assert_eq!(
        policy.retry,
        [(
            FailureClass::Install,
            Retries {
                times: 1,
                backoff_ms: vec![600_000]
            }
        )]
        .into()
    );
    assert_eq!(
        (policy.offline, policy.deadline_ms),
        (Offline::Wait, Some(172_800_000))
    );
}

#[test]
fn each_fault_has_its_line_its_reason_and_a_hint() {
    let window = |inside: &str| format!("window = {{ {inside} }}");
    let blackout = |from: &str, until: &str, zone: &str| {
        format!("blackouts = [{{ from = \"{from}\", until = \"{until}\", zone = \"{zone}\" }}]")
    };
    let (day, later) = ("2026-12-20T00:00", "2026-12-21T00:00");
    let cases: Vec<(String, &str, &str)> = vec![
        ("ramp = [3, 1]".into(), "not wider", "rising"),
        ("ramp = [\"10%\", \"5%\"]".into(), "not wider", "rising"),
        ("ramp = [0]".into(), "never let a host begin", "at least one"),
        ("ramp = [\"x\"]".into(), "bad percentage", "whole number"),
        ("canary_soak = \"soon\"".into(), "not a duration", "15m"),
        ("deadline = \"0\"".into(), "no time at all", "15m"),
        ("on_breach = \"ignore\"".into(), "not known", "\"rollback\""),
        ("offline = \"later\"".into(), "not known", "\"catch_up\""),
        ("profile = \"brave\"".into(), "not known", "\"cautious\""),
        ("per_site = 2".into(), "sites of the hosts", "site_label"),
        ("together = 0".into(), "out of range", "from 1"),
        ("health = { good_views = 11 }".into(), "out of range", "1 to 10"),
        ("health = { patience = \"0\" }".into(), "no time", "15m"),
        (
            "retry = { transient = { times = 2 } }".into(),
            "backoff is missing",
            "example",
        ),
        (
            "retry = { install = { backoff = [\"1m\"] } }".into(),
            "times is missing",
            "example",
        ),
        (
            "retry = { verify = { times = 1, backoff = [\"1m\", \"2m\"] } }".into(),
            "more pauses",
            "one pause",
        ),
        (
            "retry = { verify = { times = 99, backoff = [\"1m\"] } }".into(),
            "out of range",
            "0 to 10",
        ),
        (
            window("days = [\"Saturday\"], from = \"01:00\", for = \"4h\", zone = \"UTC\""),
            "not a day",
            "sat",
        ),
        (
            window("from = \"25:00\", for = \"4h\", zone = \"UTC\""),
            "not a time of the day",
            "01:00",
        ),
        (
            window("from = \"01:00\", for = \"8d\", zone = \"UTC\""),
            "longer than a week",
            "at any time",
        ),
        (
            window("from = \"01:00\", for = \"4s\", zone = \"UTC\""),
            "too short",
            "a minute at least",
        ),
        (window("from = \"01:00\", zone = \"UTC\""), "for is missing", "4h"),
        (
            window("from = \"01:00\", for = \"4h\""),
            "zone is missing",
            "Europe/Madrid",
        ),
        (
            window("from = \"01:00\", for = \"4h\", zone = \"Europe/Madird\""),
            "not known",
            "did you mean \"Europe/Madrid\"?",
        ),
        (
            window("from = \"01:00\", for = \"4h\", zone = \"Madrid\""),
            "not known",
            "did you mean \"Europe/Madrid\"?",
        ),
        (
            window("from = \"01:00\", for = \"4h\", zone = \"Mars\""),
            "not known",
            "IANA",
        ),
        (blackout(later, day, "UTC"), "ends before it begins", "later time"),
        (
            blackout("tomorrow", later, "UTC"),
            "not a date",
            "2026-12-20T00:00",
        ),
        (
            blackout("2026-12-20T00:00+02:00", later, "UTC"),
            "not a date",
            "zone",
        ),
        (
            blackout("2026-12-20T00:00-02:00", later, "UTC"),
            "not a date",
            "zone",
        ),
        (blackout("2026-12-20T00:00Z", later, "UTC"), "not a date", "zone"),
        (blackout(day, later, "Nowhere/City"), "not known", "IANA"),
        (
            "window = { from = \"01:00\", for = \"4h\", zone = \"UTC\" }\nwindows = []".into(),
            "both",
            "windows = [...]",
        ),
    ];
    for (line, reason, hint) in cases {
        let errors = with(&line).expect_err(&line);
        assert_eq!(errors.len(), 1, "{line}: {errors:?}");
        let error = &errors[0];
        assert_eq!(error.line, Some(36), "{line}: {error}");
        assert!(error.reason.contains(reason), "{line}: {error}");
        assert!(error.hint.contains(hint), "{line}: {error:?}");
    }
    let two = with("together = 0\nwindow = { from = \"x\", for = \"y\", zone = \"z\" }").expect_err("four");
    assert_eq!(two.len(), 4, "{two:?}");
}

#[test]
fn facts_are_matched_and_unknown_ones_refused() {
    let facts = |inside: &str| {
        let text = GOOD.replace(
            "match = { labels = { tier = \"production\" } }",
            &format!("match = {{ facts = {{ {inside} }} }}"),
        );
        parse(&text, "fleet.toml")
    };
    let fleet = facts("os = \"debian\", arch = \"x86_64\", method = \"deb\"").unwrap();
    let host = |method: &str| super::HostFacts {
        facts: [
            ("os", "debian"),
            ("os_version", "12"),
            ("arch", "x86_64"),
            ("method", method),
        ]
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .into(),
        ..Default::default()
    };
    assert!(fleet.groups[1].matches.matches(&host("deb")));
    assert!(!fleet.groups[1].matches.matches(&host("rpm")));
    for bad in ["kernel = \"6.1\"", "method = \"snap\""] {
        let errors = facts(bad).expect_err(bad);
        assert_eq!((errors.len(), errors[0].line), (1, Some(34)), "{errors:?}");
    }
}

#[test]
fn closer_keys_win() {
    let standard = &with("").unwrap().groups[1];
    assert_eq!(standard.profile, Profile::Standard);
    assert_eq!(
        standard.policy.retry[&FailureClass::Transient].backoff_ms,
        [60_000, 300_000]
    );
    let cautious = under("profile = \"cautious\"", "");
    assert_eq!(cautious.groups[1].policy.canary_soak_ms, 900_000);
    assert_eq!(
        cautious.groups[0].policy.max_unavailable,
        Limit::Percent(10),
        "the defaults win over the rollout's profile"
    );
    let fast = under("profile = \"cautious\"", "profile = \"fast\"");
    let policy = &fast.groups[1].policy;
    assert_eq!(policy.canary_soak_ms, 0);
    assert_eq!(
        policy.max_unavailable,
        Limit::Count(20),
        "the group's own key wins"
    );
    let text = GOOD.replace(
        "on_breach = \"pause\"\n",
        "on_breach = \"abort\"\nwindow = { from = \"01:00\", for = \"4h\", zone = \"UTC\" }\nblackouts = [{ from = \"2026-12-20T00:00\", until = \"2026-12-21T00:00\", zone = \"UTC\" }]\n",
    );
    let own = "profile = \"fast\"\nwindows = []\nblackouts = [{ from = \"2026-12-25T00:00\", until = \"2026-12-26T00:00\", zone = \"UTC\" }]\n";
    let fleet = parse(
        &text.replace("max_unavailable = 20\n", &format!("max_unavailable = 20\n{own}")),
        "f",
    )
    .unwrap();
    assert_eq!(fleet.groups[0].policy.windows.len(), 1);
    let policy = &fleet.groups[1].policy;
    assert!(policy.windows.is_empty(), "at any time");
    assert_eq!(policy.blackouts.len(), 2, "those of the defaults hold as well");
    assert_eq!(policy.on_breach, OnBreach::Abort, "no profile says that");
}

#[test]
fn a_blackout_is_rather_too_long() {
    // On 2026-10-25 the clocks in Madrid show 02:30 twice; on 2026-03-29 never.
    let fleet = with(
        "blackouts = [{ from = \"2026-03-29T02:30\", until = \"2026-10-25T02:30\", zone = \"Europe/Madrid\" }]",
    )
    .unwrap();
    let blackout = &fleet.groups[1].policy.blackouts[0];
    assert_eq!(
        (blackout.from_ms, blackout.until_ms),
        (1_774_744_200_000, 1_792_891_800_000)
    );
}

#[test]
fn percentages_of_every_limit() {
    // Hosts; canaries of 10%; max_unavailable of 10%; threshold of 10%; ramp of [1, 3, "10%", "50%"] at full width.
    let table: [(u32, u32, u32, u32, &[u32]); 5] = [
        (1, 1, 1, 0, &[]),
        (2, 1, 1, 0, &[1]),
        (3, 1, 1, 0, &[1]),
        (7, 1, 1, 0, &[1, 3]),
        (100, 10, 10, 10, &[1, 3, 10, 50]),
    ];
    let ten = Limit::Percent(10);
    let ramp = Ramp::Steps(vec![Limit::Count(1), Limit::Count(3), ten, Limit::Percent(50)]);
    for (hosts, canaries, width, threshold, widths) in table {
        assert_eq!(ten.canaries(hosts), canaries, "{hosts}");
        assert_eq!(ten.max_unavailable(hosts), width, "{hosts}");
        assert_eq!(ten.failure_threshold(hosts), threshold, "{hosts}");
        assert_eq!(ramp.widths(hosts, hosts), widths, "{hosts}");
    }
    let standard = Profile::Standard.policy(1).ramp;
    for narrow in [1, 2, 3, 7, 10, 20] {
        assert!(standard.widths(1_000, narrow).is_empty(), "{narrow}");
    }
    assert_eq!(standard.widths(1_000, 100), [10, 20, 40, 80]);
    assert_eq!(
        Profile::Cautious.policy(1).ramp.widths(1_000, 50),
        [3, 6, 12, 24, 48]
    );
    assert!(Profile::Fast.policy(1).ramp.widths(1_000, 250).is_empty());
}

#[test]
fn the_schema_on_disk_is_current() {
    let committed: serde_json::Value =
        serde_json::from_str(include_str!("../../../../deploy/coordinator/fleet.schema.json")).unwrap();
    assert_eq!(
        committed,
        json_schema(),
        "run `pmm-coordinator fleet schema > deploy/coordinator/fleet.schema.json`"
    );
}

#[test]
fn the_schema_knows_every_key_and_explains_it() {
    fn explained(place: &str, schema: &serde_json::Value) {
        for (key, property) in schema["properties"].as_object().into_iter().flatten() {
            let described = property.get("description").is_some();
            assert!(described, "{place}.{key} has no description: {property}");
        }
    }
    let schema = json_schema();
    explained("file", &schema);
    let parts = schema["definitions"].as_object().unwrap();
    for (name, part) in parts {
        explained(name, part);
    }
    assert!(!schema.to_string().contains("null"), "TOML has no null");
    for key in [
        "windows",
        "blackouts",
        "retry",
        "per_site",
        "deadline",
        "profile",
        "match",
    ] {
        assert!(
            schema["definitions"]["Group"]["properties"].get(key).is_some(),
            "{key}"
        );
    }
    assert_eq!(schema["definitions"]["Group"]["additionalProperties"], false);
}

#[test]
fn the_example_file_is_valid() {
    let text = include_str!("../../../../deploy/coordinator/etc/pmm-coordinator/fleet.toml.example");
    let fleet = parse(text, "fleet.toml.example").unwrap();
    assert_eq!(fleet.groups.len(), 2);
    // What stands there as a comment is valid too, but for the other decision and the tarballs.
    let is_key = |line: &str| {
        let key = line.split_once(" = ").map_or("", |(key, _)| key);
        !key.is_empty() && !key.contains(' ') && !["accept_gap", "url", "sha256"].contains(&key)
    };
    let all: Vec<&str> = text
        .lines()
        .map(|line| match line.strip_prefix("# ") {
            Some(rest) if is_key(rest) => rest,
            _ => line,
        })
        .collect();
    let fleet = parse(&all.join("\n"), "fleet.toml.example").unwrap();
    assert!(!fleet.groups[1].policy.windows.is_empty());
}

proptest! {
    #[test]
    fn a_ramp_rises_and_stays_below_the_width(
        steps in proptest::collection::vec((1u32..200, any::<bool>()), 0..6),
        hosts in 1u32..2_000,
        width in 1u32..500,
    ) {
        let steps = steps.into_iter().map(|(step, percent)| {
            if percent { Limit::Percent(step.min(100)) } else { Limit::Count(step) }
        });
        for ramp in [
            Ramp::Steps(steps.collect()),
            Ramp::Doubling { from: 3, above: 3 },
            Ramp::Doubling { from: 10, above: 20 },
        ] {
            let widths = ramp.widths(hosts, width);
            prop_assert!(widths.iter().all(|step| (1..width).contains(step)));
            prop_assert!(widths.is_sorted_by(|one, other| one < other));
        }
    }

    #[test]
    fn any_text_is_read_or_refused_with_a_hint(text in "[a-z0-9:/\"T %-]{0,24}", key in 0usize..6) {
        let text = text.replace('"', "\\\"");
        let line = match key {
            0 => format!("window = {{ from = \"{text}\", for = \"1h\", zone = \"UTC\" }}"),
            1 => format!("window = {{ from = \"01:00\", for = \"{text}\", zone = \"UTC\" }}"),
            2 => format!("window = {{ from = \"01:00\", for = \"1h\", zone = \"{text}\" }}"),
            3 => format!("blackouts = [{{ from = \"{text}\", until = \"2026-12-20T00:00\", zone = \"UTC\" }}]"),
            4 => format!("ramp = [\"{text}\"]"),
            _ => format!("deadline = \"{text}\""),
        };
        if let Err(errors) = with(&line) {
            for error in errors {
                prop_assert_eq!(error.line, Some(36));
                prop_assert!(!error.hint.is_empty());
            }
        }
    }
}
