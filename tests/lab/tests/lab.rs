//! The short lab suites as part of `cargo test`. They need Docker; a machine without it fails here and says so.

use std::process::Command;

#[test]
fn every_suite_and_case_is_listed_as_json() {
    let output = Command::new(env!("CARGO_BIN_EXE_lab"))
        .args(["suite", "--list", "--json"])
        .output();
    let output = output.unwrap_or_else(|error| panic!("the lab can't be started: {error}"));
    let suites: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
    let names: Vec<&str> = suites
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|suite| suite["suite"].as_str())
        .collect();
    assert_eq!(
        names,
        [
            "short",
            "scenarios",
            "maintenance",
            "rollout-real",
            "teeth",
            "sabotage"
        ]
    );
    for suite in suites.as_array().into_iter().flatten() {
        assert!(
            suite["cases"].as_array().is_some_and(|cases| !cases.is_empty()),
            "{suite}"
        );
    }
}

#[test]
fn short_suite() {
    let status = Command::new(env!("CARGO_BIN_EXE_lab"))
        .args(["suite", "short"])
        .status();
    assert!(
        status.is_ok_and(|status| status.success()),
        "`cargo lab suite short` failed; run it to see why"
    );
}
