//! The command line of the real program: exit codes, and what goes where.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

use fleet_common::codes::exit;
use std::os::unix::fs::PermissionsExt as _;
use std::process::Output;
use support::{Coordinator, run_with};

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn init_makes_a_private_directory_and_never_a_second_one() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    assert!(run_with(&data, &["init", "--name", "localhost"]).status.success());
    let mode = |name: &str| std::fs::metadata(data.join(name)).unwrap().permissions().mode() & 0o777;
    assert_eq!(
        (mode("."), mode("pki"), mode("pki/ca.key"), mode("store.sqlite")),
        (0o700, 0o700, 0o600, 0o600)
    );
    let before = std::fs::read(data.join("pki/ca.pem")).unwrap();
    let again = run_with(&data, &["init", "--name", "localhost"]);
    assert_eq!(again.status.code(), Some(exit::FAILED));
    assert!(stderr(&again).contains("initialised already") && stderr(&again).contains("hint:"));
    assert_eq!(std::fs::read(data.join("pki/ca.pem")).unwrap(), before);
}

#[test]
fn init_keeps_its_hands_off_other_directories() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("thesis.txt"), "x").unwrap();
    let output = run_with(dir.path(), &["init", "--name", "localhost"]);
    assert_eq!(output.status.code(), Some(exit::FAILED));
    assert!(!dir.path().join("pki").exists());
}

#[test]
fn without_a_coordinator_the_exit_status_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let output = run_with(dir.path(), &["status"]);
    assert_eq!(output.status.code(), Some(exit::UNREACHABLE));
    assert!(output.stdout.is_empty() && stderr(&output).contains("hint:"));
    assert_eq!(
        run_with(dir.path(), &["no-such-verb"]).status.code(),
        Some(exit::USAGE)
    );
}

#[test]
fn two_coordinators_never_share_a_directory() {
    let coordinator = Coordinator::start();
    let second = coordinator.command(&[
        "serve",
        "--listen",
        "127.0.0.1:0",
        "--enrol-listen",
        "127.0.0.1:0",
    ]);
    assert_eq!(second.status.code(), Some(exit::FAILED));
    assert!(
        stderr(&second).contains("another coordinator uses"),
        "{}",
        stderr(&second)
    );
    let mode = std::fs::metadata(coordinator.data().join("operator.sock"))
        .unwrap()
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o600);
}

#[test]
fn commands_without_a_rollout_say_what_to_do() {
    let coordinator = Coordinator::start();
    for command in [
        &["status"][..],
        &["watch"],
        &["report"],
        &["pause"],
        &["explain", "server"],
        &["events"],
        &["start"],
    ] {
        let output = coordinator.command(command);
        assert_eq!(output.status.code(), Some(exit::FAILED), "{command:?}");
        assert!(
            stderr(&output).contains("hint:"),
            "{command:?}: {}",
            stderr(&output)
        );
        assert!(output.stdout.is_empty(), "{command:?}");
    }
}

#[test]
fn doctor_finds_a_key_that_others_can_read() {
    let coordinator = Coordinator::start();
    assert_eq!(coordinator.command(&["doctor"]).status.code(), Some(exit::OK));
    let key = coordinator.data().join("pki/ca.key");
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o644)).unwrap();
    let output = coordinator.command(&["doctor"]);
    assert_eq!(output.status.code(), Some(exit::FAILED));
    assert!(String::from_utf8_lossy(&output.stdout).contains("chmod 0600"));
}

#[test]
fn a_reader_that_went_away_hides_no_failure() {
    let dir = tempfile::tempdir().unwrap();
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let child = std::process::Command::new(support::PROGRAM)
        .arg("--data")
        .arg(dir.path().join("nothing"))
        .arg("doctor")
        .stdout(writer)
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(exit::FAILED), "{}", stderr(&output));
    assert_eq!(stderr(&output), "", "and it is nothing to complain about");
}

#[test]
fn a_state_that_cant_be_taken_up_is_not_called_no_rollout() {
    let mut coordinator = Coordinator::start();
    coordinator.kill();
    let store = rusqlite::Connection::open(coordinator.data().join("store.sqlite")).unwrap();
    store
        .execute_batch(
            "PRAGMA foreign_keys = OFF;
             INSERT INTO rollouts (rollout_id, plan_id, started_at_ms) VALUES ('r-1', 'lost', 1)",
        )
        .unwrap();
    drop(store);
    coordinator.serve();
    for command in [&["status"][..], &["report"], &["explain"], &["pause"]] {
        let output = coordinator.command(command);
        let said = stderr(&output);
        assert_eq!(output.status.code(), Some(exit::FAILED), "{said}");
        assert!(
            said.contains("can't take up its state") && said.contains("r-1") && said.contains("doctor"),
            "{command:?}: {said}"
        );
        assert!(!said.contains("no rollout"), "{said}");
    }
}

#[test]
fn completions_and_manual_pages_know_every_command() {
    let dir = tempfile::tempdir().unwrap();
    for shell in ["bash", "zsh", "fish"] {
        let output = run_with(dir.path(), &["completions", shell]);
        let script = String::from_utf8(output.stdout).unwrap();
        assert!(output.status.success(), "{shell}");
        for word in ["free-slot", "preflight", "accept-unmatched", "completions"] {
            assert!(script.contains(word), "{shell} does not know `{word}`");
        }
    }
    assert_eq!(
        run_with(dir.path(), &["completions", "cmd.exe"]).status.code(),
        Some(exit::USAGE)
    );
    let pages = dir.path().to_str().unwrap();
    assert!(run_with(dir.path(), &["man", pages]).status.success());
    let page = |name: &str| std::fs::read_to_string(dir.path().join(name)).unwrap();
    assert!(page("pmm-coordinator.1").contains("Readiness of server and fleet"));
    assert!(page("pmm-coordinator-plan.1").contains(".TH"));
    let nowhere = run_with(dir.path(), &["man", "/nonexistent/pages"]);
    assert_eq!(nowhere.status.code(), Some(exit::FAILED));
    assert!(stderr(&nowhere).contains("hint:"));
}

#[test]
fn results_are_json_when_asked_for() {
    let coordinator = Coordinator::start();
    let token = coordinator.json(&["token", "create", "--group", "db", "--uses", "3"]);
    assert_eq!((&token["group"], &token["uses"]), (&"db".into(), &3.into()));
    let output = coordinator.command(&["--json", "host", "show", "nobody"]);
    let errors: serde_json::Value = serde_json::from_slice(&output.stderr).unwrap();
    assert!(
        errors["errors"][0]["message"]
            .as_str()
            .unwrap()
            .contains("nobody")
    );
}
