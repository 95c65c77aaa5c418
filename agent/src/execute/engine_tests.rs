#![allow(clippy::unwrap_used)]
use super::*;
use crate::config::Paths;
use std::sync::mpsc;

fn entry() -> PlanEntry {
    serde_json::from_value(serde_json::json!({
        "host": "h", "name": "h", "group": "g", "leg": "clients-1", "to": "3.9.1", "verify_for_ms": 1000,
        "expect": {"method": "deb", "from_min": "3.9.1", "from_max": "3.9.1", "base_dir": "/usr/local/percona/pmm", "agent_id": "a"},
        "source": {"repository_url": "", "component": "", "tarball_url": "", "tarball_sha256": {}}
    }))
    .unwrap()
}

fn saved(version: &str) -> Saved {
    serde_json::from_value(serde_json::json!({
        "order_id": "o", "config": null, "collectors": {}, "unit_files": [], "unit": null, "account": null, "links": {},
        "process": null, "base_owner": [0, 0], "tree": null, "package_file": null,
        "installation": {
            "method": "deb", "package": "pmm-client", "package_version": format!("{version}-1.bookworm"), "version": version,
            "running_version": "2.44.1", "base_dir": "/usr/local/percona/pmm",
            "config_file": "/usr/local/percona/pmm/config/pmm-agent.yaml", "configured": true,
            "run": {"kind": "systemd", "unit": "pmm-agent.service", "enabled": true}, "user": "pmm-agent", "agent_id": "a",
            "node_id": "n", "server_address": "pmm:443", "connected": true, "credential": "password", "exporters": {},
            "evidence": []
        }
    }))
    .unwrap()
}

fn with_run<T>(action: Action, version: &str, test: impl FnOnce(&mut Run<'_>) -> T) -> T {
    let dir = tempfile::tempdir().unwrap();
    let paths = Paths::new(dir.path(), dir.path());
    let (queue, _work) = mpsc::channel();
    let shared = Shared::open(&paths, queue).unwrap();
    saved(version).store(&paths).unwrap();
    let order: JournalOrder = serde_json::from_value(serde_json::json!({
        "order_id": "o", "epoch": {"term": 1, "counter": 1}, "plan_id": "p", "action": action, "entry": "{}", "boot_id": "b",
        "at_ms": 0, "deadline_for_ms": 0
    }))
    .unwrap();
    let mut journal = Journal::open(&paths).unwrap();
    journal.begin(order.clone()).unwrap();
    let (policy, entry) = (Policy::default(), entry());
    test(&mut Run {
        shared: &shared,
        policy: &policy,
        order: &order,
        entry: &entry,
        permit: None,
        journal: &mut journal,
        detail: Value::Null,
        unwritten: None,
    })
}

#[test]
fn a_release_that_is_on_the_disk_is_not_installed_and_not_taken_away() {
    with_run(Action::Switch, "3.9.1", |run| {
        assert!(install::install(run, Duration::from_secs(1)).is_ok());
        assert!(back::install(run, Duration::from_secs(1)).is_ok());
    });
    let nothing_staged = with_run(Action::Switch, "3.0.0", |run| {
        install::install(run, Duration::from_secs(1)).unwrap_err()
    });
    assert_eq!(nothing_staged.code, codes::STAGE_FAILED);
}

#[test]
fn without_an_older_release_nobody_is_told_that_the_host_is_back_on_it() {
    let (outcome, end) = with_run(Action::Switch, "3.9.1", |run| run.way_back_ended());
    assert_eq!(outcome, Outcome::Inconsistent);
    assert!(end.contains("as it was found"), "{end}");
    let (outcome, _) = with_run(Action::Switch, "3.0.0", |run| run.way_back_ended());
    assert_eq!(outcome, Outcome::RolledBack);
    let refused = with_run(Action::Rollback, "3.9.1", |run| run.forward(None));
    assert_eq!(refused.outcome, Outcome::Refused);
}
