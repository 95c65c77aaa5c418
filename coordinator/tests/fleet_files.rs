//! Fleet files that are refused by the real program: each with its place, the reason and what to do, and nothing is started.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

use fleet_common::codes::exit;
use std::path::Path;
use std::process::Output;
use support::fake_pmm::FakePmm;
use support::{Coordinator, run_with};

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// A fleet file that is fine except for what the test puts in.
struct Fleet<'a> {
    pmm: &'a FakePmm,
    credential: &'a str,
    target: &'a str,
    defaults: &'a str,
    groups: &'a str,
}

impl Fleet<'_> {
    fn text(&self) -> String {
        let Self {
            pmm,
            credential,
            target,
            defaults,
            groups,
        } = self;
        format!(
            r#"[server]
url = "{}"
credential_file = "{credential}"
fingerprint = "sha256:{}"
docker = {{ endpoint = "unix://{}", container = "pmm-server" }}
target = "{target}"

[server.pmm2_clients]
accept_gap = "{target}"

[defaults]
{defaults}

{groups}
"#,
            pmm.url,
            pmm.fingerprint,
            pmm.docker.display()
        )
    }
}

const GROUP: &str = "[[group]]\nname = \"all\"\nmatch = { labels = { tier = \"db\" } }\n";
const UNREACHABLE: &str =
    "[[group]]\nname = \"all\"\nmatch = { names = [\"a\", \"b\"] }\nfailure_threshold = 2\n";
const TWICE: &str = "[[group]]\nname = \"x\"\nmatch = { names = [\"a\"] }\n[[group]]\nname = \"y\"\nmatch = { names = [\"a\"] }\n";
const UNKNOWN_GROUP: &str =
    "[[group]]\nname = \"all\"\nmatch = { labels = { tier = \"db\" } }\nafter = [\"nobody\"]\n";
const SAME: &str = "[[group]]\nname = \"all\"\nmatch = { labels = { tier = \"db\" } }\n[[group]]\nname = \"more\"\nmatch = { labels = { tier = \"db\" } }\n";

/// The refusal must name the line of this text (the last line that has it; empty: the file has no such line), and this reason.
struct Case {
    name: &'static str,
    text: String,
    at: &'static str,
    reason: &'static str,
}

fn case(name: &'static str, text: String, at: &'static str, reason: &'static str) -> Case {
    Case {
        name,
        text,
        at,
        reason,
    }
}

/// Refuses with `fleet.toml:LINE`, reason and hint, in each of these commands; nothing comes out on stdout.
fn refused(coordinator: &Coordinator, case: &Case, commands: &[&[&str]]) {
    let path = coordinator.file("fleet.toml", 0o644, &case.text);
    let line = case
        .text
        .lines()
        .enumerate()
        .filter(|(_, line)| !case.at.is_empty() && line.contains(case.at))
        .last();
    let place = match line {
        Some((index, _)) => format!("{}:{}: ", path.display(), index + 1),
        None => format!("{}: ", path.display()),
    };
    for command in commands {
        let mut arguments = command.to_vec();
        arguments.push(path.to_str().unwrap());
        let output = coordinator.command(&arguments);
        let said = stderr(&output);
        let about = format!("{} in {command:?}: {said}", case.name);
        assert_eq!(output.status.code(), Some(exit::FAILED), "{about}");
        let told = said
            .split("error: ")
            .find(|one| one.starts_with(&place) && one.contains(case.reason));
        let told = told.unwrap_or_else(|| panic!("no `{}` at {place} for {about}", case.reason));
        assert!(told.contains("hint: "), "no hint for {about}");
        assert!(output.stdout.is_empty(), "{about}");
    }
}

fn nothing_was_started(coordinator: &Coordinator, pmm: &FakePmm) {
    let store = rusqlite::Connection::open(coordinator.data().join("store.sqlite")).unwrap();
    for table in ["plans", "rollouts", "rollout_events"] {
        let rows: i64 = store
            .query_row(&format!("SELECT count(*) FROM {table}"), [], |row| row.get(0))
            .unwrap();
        assert_eq!(rows, 0, "{table}");
    }
    let orders = std::fs::read_dir(coordinator.data().join("server")).map_or(0, Iterator::count);
    assert_eq!(orders, 0, "journals of hops");
    assert!(stderr(&coordinator.command(&["start"])).contains("no plan"));
    // A container that is never started may be made to look into an image; it is refused here, so nothing else may follow.
    let acts: Vec<String> = pmm
        .requests()
        .into_iter()
        .filter(|request| !request.starts_with("GET ") && !request.contains("pmm-server-fleet-probe"))
        .collect();
    assert!(acts.is_empty(), "{acts:?}");
}

const ALL: &[&[&str]] = &[&["plan", "-f"], &["survey", "-f"], &["server", "preflight", "-f"]];
/// `survey` reports what is wrong with the server among its findings.
const WITH_SERVER: &[&[&str]] = &[&["plan", "-f"], &["server", "preflight", "-f"]];

#[test]
fn malformed_fleet_files_are_refused_with_place_reason_and_hint() {
    let coordinator = Coordinator::start();
    let pmm = FakePmm::start(coordinator.scratch(), "2.41.2");
    let file = coordinator.file("credential", 0o600, "admin:admin\n");
    let credential = file.to_str().unwrap();
    let base = || Fleet {
        pmm: &pmm,
        credential,
        target: "3.9.1",
        defaults: "",
        groups: GROUP,
    };
    let defaults = |defaults| Fleet { defaults, ..base() }.text();
    let target = |target| Fleet { target, ..base() }.text();
    let groups = |groups| Fleet { groups, ..base() }.text();
    let cases = [
        case("syntax", "[server\n".to_owned(), "[server", ""),
        case(
            "unknown key",
            defaults("max_unavailabel = 1"),
            "max_unavailabel",
            "max_unavailabel",
        ),
        case(
            "bad percentage",
            defaults("max_unavailable = \"110%\""),
            "110%",
            "bad percentage",
        ),
        case("not a release", target("latest"), "target = ", "latest"),
        case("no path, whatever runs", target("4.0.0"), "target = ", "no path"),
        case(
            "threshold that can't be reached",
            groups(UNREACHABLE),
            "failure_threshold",
            "can't be reached",
        ),
        case("unknown group", groups(UNKNOWN_GROUP), "nobody", "nobody"),
        case(
            "overlapping groups: a name",
            groups(TWICE),
            "[[group]]",
            "overlap",
        ),
        case("overlapping groups: a label", groups(SAME), "[[group]]", "more"),
        case("no group", groups(""), "", "group"),
        case("no server", GROUP.to_owned(), "", "server"),
    ];
    for case in &cases {
        refused(&coordinator, case, ALL);
    }
    assert!(pmm.requests().is_empty(), "neither PMM nor Docker was asked");
    nothing_was_started(&coordinator, &pmm);
}

#[test]
fn credential_files_are_checked_before_anything_is_asked() {
    let coordinator = Coordinator::start();
    let pmm = FakePmm::start(coordinator.scratch(), "2.41.2");
    let open = coordinator.file("open", 0o644, "admin:admin\n");
    let missing = coordinator.scratch().join("missing");
    let directory = coordinator.scratch();
    let shown = |path: &Path| path.to_str().unwrap().to_owned();
    let files = [
        ("missing", shown(&missing), "missing"),
        ("a directory", shown(directory), ""),
        ("open to others", shown(&open), "0644"),
        ("relative", "relative/path".to_owned(), "is relative"),
    ];
    for (name, credential, reason) in &files {
        let fleet = Fleet {
            pmm: &pmm,
            credential,
            target: "3.9.1",
            defaults: "",
            groups: GROUP,
        };
        refused(
            &coordinator,
            &case(name, fleet.text(), "credential_file", reason),
            ALL,
        );
    }
    assert!(pmm.requests().is_empty(), "neither PMM nor Docker was asked");
    nothing_was_started(&coordinator, &pmm);
}

#[test]
fn what_runs_decides_whether_a_target_can_be_reached() {
    let coordinator = Coordinator::start();
    let file = coordinator.file("credential", 0o600, "admin:admin\n");
    for (running, target, reason) in [
        (
            "3.10.0",
            "3.9.1",
            "server.target 3.9.1 is older than the installed release 3.10.0",
        ),
        ("2.41.2", "3.13.0", "no path from 2.41.2 to server.target 3.13.0"),
    ] {
        let pmm = FakePmm::start(coordinator.scratch(), running);
        let fleet = Fleet {
            pmm: &pmm,
            credential: file.to_str().unwrap(),
            target,
            defaults: "",
            groups: GROUP,
        };
        refused(
            &coordinator,
            &case(running, fleet.text(), "target = ", reason),
            WITH_SERVER,
        );
        let asked = pmm.requests();
        for wanted in ["/v1/version", "/containers/pmm-server/json"] {
            assert!(
                asked.iter().any(|request| request.contains(wanted)),
                "{wanted}: {asked:?}"
            );
        }
        nothing_was_started(&coordinator, &pmm);
    }
}

#[test]
fn the_example_fleet_file_is_well_formed() {
    let dir = tempfile::tempdir().unwrap();
    let example = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../deploy/coordinator/etc/pmm-coordinator/fleet.toml.example"
    );
    let output = run_with(dir.path(), &["plan", "-f", example]);
    // The file is checked before the coordinator is looked for.
    assert_eq!(
        output.status.code(),
        Some(exit::UNREACHABLE),
        "{}",
        stderr(&output)
    );
}
