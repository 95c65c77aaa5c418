//! Fleet files without a coordinator: `plan --check`, `fleet schema`, `fleet init`.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

use fleet_common::codes::exit;
use support::fake_pmm::FakePmm;
use support::run_with;

const EXAMPLE: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/../deploy/coordinator/etc/pmm-coordinator/fleet.toml.example"
);

#[test]
fn a_file_is_checked_without_a_coordinator() {
    let dir = tempfile::tempdir().unwrap();
    let output = run_with(dir.path(), &["plan", "--check", "-f", EXAMPLE]);
    let said = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(exit::OK), "{said}");
    assert!(
        said.contains("is valid") && said.contains("group production"),
        "{said}"
    );
    let bad = dir.path().join("bad.toml");
    let text = std::fs::read_to_string(EXAMPLE).unwrap();
    std::fs::write(
        &bad,
        text.replace("soak = \"15m\"", "soak = \"x\"")
            .replace("canaries = 1", "canaries = -1"),
    )
    .unwrap();
    let output = run_with(dir.path(), &["plan", "--check", "-f", bad.to_str().unwrap()]);
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(exit::FAILED), "{said}");
    assert_eq!(said.matches("error: ").count(), 2, "all faults at once: {said}");
    assert!(output.stdout.is_empty());
}

#[test]
fn the_schema_is_printed() {
    let dir = tempfile::tempdir().unwrap();
    let output = run_with(dir.path(), &["fleet", "schema"]);
    let schema: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert!(schema["properties"]["group"].is_object(), "{schema}");
}

#[test]
fn a_first_file_is_valid_and_never_overwrites_one() {
    let dir = tempfile::tempdir().unwrap();
    let pmm = FakePmm::start(dir.path(), "2.41.2");
    let credential = dir.path().join("credential");
    std::fs::write(&credential, "admin:admin\n").unwrap();
    std::fs::set_permissions(&credential, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    let file = dir.path().join("fleet.toml");
    let fingerprint = format!("sha256:{}", pmm.fingerprint);
    let init = || {
        run_with(
            dir.path(),
            &[
                "fleet",
                "init",
                "--url",
                &pmm.url,
                "--credential-file",
                credential.to_str().unwrap(),
                "--fingerprint",
                &fingerprint,
                "-o",
                file.to_str().unwrap(),
            ],
        )
    };
    let output = init();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(exit::OK), "{said}");
    let text = std::fs::read_to_string(&file).unwrap();
    assert!(
        text.contains("name = \"canary\"") && text.contains("environment = \"prod\""),
        "{text}"
    );
    assert!(text.contains("cluster orders: db1, db2"), "{text}");
    let output = run_with(dir.path(), &["plan", "--check", "-f", file.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(exit::OK));
    let output = init();
    assert_eq!(output.status.code(), Some(exit::FAILED));
    assert!(String::from_utf8_lossy(&output.stderr).contains("not overwritten"));
    assert_eq!(std::fs::read_to_string(&file).unwrap(), text);
}
