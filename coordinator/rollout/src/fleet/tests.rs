#![allow(clippy::unwrap_used, clippy::expect_used)]
use super::*;

pub(crate) const GOOD: &str = r#"
[server]
url = "https://pmm.example.com/"
credential_file = "/etc/pmm-coordinator/pmm-admin"
ca_file = "/etc/pmm-coordinator/pmm-ca.pem"
docker = { endpoint = "unix:///var/run/docker.sock", container = "pmm" }
target = "3.9.1"
[server.pmm2_clients]
accept_gap = "3.9.1"

[clients]
source = { percona_repository = "release" }
repository_url = "http://repo.lab"
[clients.tarball]
url = "http://repo.lab/downloads"
[clients.tarball.sha256]
"pmm-client-3.9.1-x86_64.tar.gz" = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"

[defaults]
max_unavailable = "10%"
failure_threshold = 2
on_breach = "pause"

[[group]]
name = "canary"
match = { labels = { tier = "canary" } }
canaries = 1
soak = "15m"
approval = true

[[group]]
name = "production"
after = ["canary"]
match = { labels = { tier = "production" } }
max_unavailable = 20
failure_threshold = "5%"
"#;

#[test]
fn a_good_file_is_read() {
    let fleet = parse(GOOD, "fleet.toml").unwrap();
    assert_eq!(fleet.server.url, "https://pmm.example.com");
    assert_eq!(fleet.server.name, "pmm.example.com");
    assert_eq!(fleet.clients.target, fleet.server.target);
    assert_eq!(
        fleet.server.pmm2_clients,
        Pmm2Clients::AcceptGap(PmmVersion::new(3, 9, 1))
    );
    assert_eq!(fleet.lines.credential_file, Some(4));
    assert_eq!(fleet.groups.len(), 2);
    assert_eq!(fleet.groups[0].policy.soak_ms, 900_000);
    assert_eq!(fleet.groups[0].policy.max_unavailable, Limit::Percent(10));
    assert_eq!(fleet.groups[1].policy.failure_threshold, Limit::Percent(5));
    assert_eq!(fleet.clients.source.repository_url, "http://repo.lab");
}

/// Replaces one text of the good file and returns the findings as `line: reason`.
fn broken(from: &str, to: &str) -> Vec<(Option<usize>, String)> {
    assert!(GOOD.contains(from), "{from}");
    let errors = parse(&GOOD.replacen(from, to, 1), "fleet.toml").expect_err("must be refused");
    for error in &errors {
        assert_eq!(error.file, "fleet.toml");
        assert!(!error.hint.is_empty(), "{error} has no hint");
    }
    errors
        .into_iter()
        .map(|error| (error.line, error.reason))
        .collect()
}

fn one(from: &str, to: &str, line: usize, words: &str) {
    let found = broken(from, to);
    assert_eq!(found.len(), 1, "{found:?}");
    assert_eq!(found[0].0, Some(line), "{found:?}");
    assert!(found[0].1.contains(words), "{found:?}");
}

#[test]
fn unknown_keys() {
    one("canaries = 1", "canarys = 1", 27, "unknown key `canarys`");
    one(
        "container = \"pmm\"",
        "containr = \"pmm\"",
        6,
        "unknown key `containr`",
    );
    one("[defaults]", "[default]", 19, "unknown key `default`");
    one(
        "target = \"3.9.1\"",
        "targett = \"3.9.1\"",
        7,
        "unknown key `targett`",
    );
}

#[test]
fn bad_percentages() {
    one("\"10%\"", "\"110%\"", 20, "bad percentage");
    one("\"10%\"", "\"ten%\"", 20, "bad percentage");
    one("\"10%\"", "\"10\"", 20, "bad percentage");
    one("\"10%\"", "\"0%\"", 20, "never let a host begin");
    one("max_unavailable = 20", "max_unavailable = -1", 35, "out of range");
}

#[test]
fn unknown_groups() {
    one(
        "after = [\"canary\"]",
        "after = [\"canry\"]",
        33,
        "unknown group `canry`",
    );
}

#[test]
fn overlapping_groups() {
    one("tier = \"production\"", "tier = \"canary\"", 31, "overlap");
    one(
        "{ labels = { tier = \"production\" } }",
        "{ labels = { tier = \"canary\" }, names = [\"a\"] }",
        31,
        "overlap",
    );
}

#[test]
fn thresholds_that_cannot_be_reached() {
    one("\"5%\"", "\"100%\"", 36, "can never be reached");
    let names = "match = { names = [\"a\", \"b\"] }";
    let text = GOOD
        .replace("match = { labels = { tier = \"production\" } }", names)
        .replace("\"5%\"", "2");
    let errors = parse(&text, "fleet.toml").expect_err("must be refused");
    assert_eq!(errors[0].line, Some(36));
    assert!(errors[0].reason.contains("can't be reached"), "{errors:?}");
}

#[test]
fn versions_without_a_path() {
    one("target = \"3.9.1\"", "target = \"4.0.0\"", 7, "no path");
    one(
        "target = \"3.9.1\"",
        "target = \"latest\"",
        7,
        "not a PMM release",
    );
    one(
        "source = {",
        "target = \"3.10.0\"\nsource = {",
        12,
        "newer than server.target",
    );
}

#[test]
fn other_faults() {
    one(
        "ca_file = \"/etc/pmm-coordinator/pmm-ca.pem\"",
        "ca_file = \"x\"\nfingerprint = \"sha256:00\"",
        6,
        "both",
    );
    one("soak = \"15m\"", "soak = \"15 minutes\"", 28, "not a duration");
    one("on_breach = \"pause\"", "on_breach = \"ignore\"", 22, "not known");
    one("unix:///var", "tcp:///var", 6, "not supported");
    one("accept_gap = \"3.9.1\"", "bridge = \"3.9.1\"", 9, "bridge");
    one("name = \"production\"", "name = \"canary\"", 32, "two groups");
    one(
        "match = { labels = { tier = \"production\" } }",
        "match = {}",
        34,
        "every host",
    );
    one("[server]\n", "[server]\nname = 1\n", 3, "invalid type");
    let missing = parse("", "f").expect_err("empty");
    assert_eq!(missing.len(), 2);
}

#[test]
fn several_faults_are_named_at_once() {
    let found = broken(
        "target = \"3.9.1\"\n[server.pmm2_clients]",
        "target = \"nine\"\npmm2_update = \"magic\"\n[server.pmm2_clients]",
    );
    assert_eq!(found.len(), 2, "{found:?}");
}

#[test]
fn lists_of_servers() {
    let (head, rest) = GOOD
        .split_once("[server.pmm2_clients]\naccept_gap = \"3.9.1\"\n")
        .unwrap();
    let list = head.replace("[server]", "[[server]]");
    assert!(parse(&format!("{list}{rest}"), "f").is_ok());
    let errors = parse(&format!("{list}{list}{rest}"), "f").expect_err("two servers");
    assert!(errors[0].reason.contains("more than one"), "{errors:?}");
    assert_eq!(errors[0].line, Some(2));
}

/// What is said about a file with one group, more lines of it, and another table before it.
fn told(before: &str, name: &str, matches: &str, after: &str) -> Vec<String> {
    let text = format!(
        "[server]\nurl = \"https://pmm.example.com\"\ncredential_file = \"/x\"\ntarget = \"3.9.1\"\n{before}\n[[group]]\nname = \"{name}\"\nmatch = {{ {matches} }}\n{after}"
    );
    let errors = parse(&text, "fleet.toml").err().unwrap_or_default();
    errors.into_iter().map(|error| error.reason).collect()
}

const TIER: &str = "labels = { tier = \"db\" }";

#[test]
fn durations_that_no_clock_can_end_are_refused() {
    // The longest that fits into the milliseconds of the kernel, but for the present time.
    let forever = "213503982334d";
    for key in ["soak", "canary_soak", "deadline"] {
        let told = told("", "db", TIER, &format!("{key} = {forever:?}"));
        assert_eq!(told, [format!("{key} = {forever:?} is longer than a year")]);
    }
    for key in ["permit", "reminder", "lost_after", "verify"] {
        let long = told(&format!("[timing]\n{key} = {forever:?}"), "db", TIER, "");
        assert_eq!(
            long,
            [format!("timing.{key} = {forever:?} is longer than a year")]
        );
        let short = told(&format!("[timing]\n{key} = \"1ms\""), "db", TIER, "");
        assert_eq!(
            short,
            [format!(
                "timing.{key} = \"1ms\" is over before anybody could answer"
            )]
        );
    }
    assert!(told("[timing]\nreminder = \"366d\"", "db", TIER, "soak = \"365d\"").is_empty());
}

#[test]
fn groups_have_names_that_can_be_typed() {
    for name in ["server", "rollout", "db ", " db", r"d\nb", r"d\u001B[31mb"] {
        assert_eq!(told("", name, TIER, "").len(), 1, "{name:?}");
    }
    for name in ["servers", "my db", "db/eu", "Zürich"] {
        assert!(told("", name, TIER, "").is_empty(), "{name:?}");
    }
}

#[test]
fn a_match_never_asks_for_an_empty_label() {
    for matches in [
        "environment = \"\"",
        "cluster = \"\"",
        "replication_set = \"\"",
        "names = [\"a\", \"\"]",
    ] {
        let told = told("", "db", matches, "");
        assert!(
            told.len() == 1 && told[0].contains("empty text"),
            "{matches}: {told:?}"
        );
    }
}

#[test]
fn a_time_that_the_clocks_show_twice_has_its_offset() {
    let shown = |at: &str| {
        let at: jiff::Timestamp = at.parse().unwrap();
        moment_text(at.as_millisecond().try_into().unwrap(), "Europe/Madrid")
    };
    assert_eq!(
        shown("2026-10-25T00:30:00Z"),
        "Sun 2026-10-25 02:30 +02:00 (Europe/Madrid)"
    );
    assert_eq!(
        shown("2026-10-25T01:30:00Z"),
        "Sun 2026-10-25 02:30 +01:00 (Europe/Madrid)"
    );
    assert_eq!(
        shown("2026-10-25T02:30:00Z"),
        "Sun 2026-10-25 03:30 (Europe/Madrid)"
    );
}
