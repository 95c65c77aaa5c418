//! Actions on one host outside of a rollout: the command line, the coordinator and an agent's side on real sockets.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

use fleet_common::agent_release::AgentRelease;
use fleet_common::digest::sha256_hex;
use fleet_proto::agent_message::Body as Up;
use fleet_proto::coordinator_message::Body as Down;
use fleet_proto::{Action, AgentMessage, InventoryDocument, Order};
use std::process::Output;
use support::agent::{Identity, Session};
use support::{Coordinator, run_with, until};

struct Scene {
    coordinator: Coordinator,
    session: Session,
    sent: u64,
}

impl Scene {
    async fn new() -> Self {
        let coordinator = Coordinator::start();
        let identity = Identity::enrol(coordinator.enrolment, &coordinator.token(5, "1h"), "db-1").await;
        let mut session = Session::open(coordinator.agents, identity.tls(), identity.hello(0))
            .await
            .unwrap();
        session.welcome().await;
        until("the session", || {
            coordinator.json(&["host", "list"])["hosts"][0]["connected"] == true
        });
        Self {
            coordinator,
            session,
            sent: 0,
        }
    }

    async fn has_a_client(&self) {
        let inventory = serde_json::json!({
            "hostname": "db-1", "os_id": "debian", "os_version": "12", "os_codename": "bookworm", "arch": "x86_64",
            "agent_version": "0.1.0", "labels": {}, "held": null,
            "client": {"detection": "installed", "method": "deb", "package": "pmm-client", "package_version": "3.9.1-7.bookworm",
                "version": "3.9.1", "running_version": "3.9.1", "base_dir": "/usr/local/percona/pmm",
                "config_file": "/usr/local/percona/pmm/config/pmm-agent.yaml", "configured": true,
                "run": {"kind": "systemd", "unit": "pmm-agent.service", "enabled": true}, "user": "pmm-agent", "agent_id": "a",
                "node_id": "n", "server_address": "pmm:443", "connected": true, "credential": "service_token", "exporters": {},
                "evidence": []}
        });
        let document = InventoryDocument {
            document: serde_json::to_vec(&inventory).unwrap(),
        };
        let body = Some(Up::Inventory(document));
        self.session.up.send(AgentMessage { body }).await.unwrap();
        until("the inventory", || {
            self.coordinator.json(&["host", "list"])["hosts"][0]["method"] == "deb"
        });
    }

    /// Begins a command; the operator waits in a process of its own.
    fn begin(&self, arguments: &[&str]) -> tokio::task::JoinHandle<Output> {
        let data = self.coordinator.data();
        let mut all = vec!["--json".to_owned()];
        all.extend(arguments.iter().map(|argument| (*argument).to_owned()));
        tokio::task::spawn_blocking(move || {
            let all: Vec<&str> = all.iter().map(String::as_str).collect();
            run_with(&data, &all)
        })
    }

    async fn order(&mut self) -> Order {
        self.session
            .pick(|message| match message {
                Down::Order(order) => Some(order),
                _ => None,
            })
            .await
    }

    async fn finish(&mut self, order: &Order, outcome: &str, message: &str) {
        let body = serde_json::json!({"event": "finished", "outcome": outcome, "step": "", "code": "", "message": message,
            "took_ms": 1, "detail": null});
        self.sent += 1;
        let body = serde_json::to_vec(&body).unwrap();
        self.session.event(self.sent, &order.order_id, &body).await;
    }

    fn audit(&self) -> Vec<String> {
        let store = rusqlite::Connection::open(self.coordinator.data().join("store.sqlite")).unwrap();
        let mut statement = store
            .prepare("SELECT what FROM audit WHERE what LIKE 'host %' OR what LIKE 'artifact %' ORDER BY id")
            .unwrap();
        let rows = statement.query_map([], |row| row.get(0)).unwrap();
        rows.map(Result::unwrap).collect()
    }
}

fn document(output: &Output) -> serde_json::Value {
    serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{output:?}"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_action_goes_out_once_and_its_result_comes_back() {
    let mut scene = Scene::new().await;
    let asked = scene.begin(&["host", "collect-bundle", "db-1"]);
    let order = scene.order().await;
    assert_eq!(order.action, Action::CollectBundle as i32);
    assert!(order.deadline_for_ms > 0 && order.deadline_for_ms <= 600_000);
    assert_eq!(
        scene.audit(),
        ["host collect_bundle"],
        "first the store, then the host"
    );
    scene.finish(&order, "done", "the bundle stays on the host").await;
    let output = asked.await.unwrap();
    assert!(output.status.success(), "{output:?}");
    let told = document(&output);
    assert_eq!(
        (&told["name"], &told["outcome"]),
        (&"db-1".into(), &"done".into())
    );
    assert_eq!(
        scene.audit(),
        ["host collect_bundle", "host collect_bundle ended"]
    );

    let asked = scene.begin(&["host", "renew", "db-1"]);
    let order = scene.order().await;
    assert_eq!(order.action, Action::Renew as i32);
    scene.finish(&order, "failed_nothing_changed", "no").await;
    let output = asked.await.unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(document(&output)["outcome"], "failed_nothing_changed");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_is_restarted_as_it_was_told_to_be() {
    let mut scene = Scene::new().await;
    let refused = scene.begin(&["host", "restart-client", "db-1"]).await.unwrap();
    assert_eq!(refused.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("no PMM client"));
    scene.has_a_client().await;
    let asked = scene.begin(&["host", "restart-client", "db-1"]);
    let order = scene.order().await;
    assert_eq!(order.action, Action::RestartClient as i32);
    assert!(order.start_within_ms > 0 && order.start_within_ms <= 30_000);
    let entry: serde_json::Value = serde_json::from_slice(&order.plan_entry).unwrap();
    assert_eq!(
        (&entry["to"], &entry["expect"]["agent_id"]),
        (&"3.9.1".into(), &"a".into())
    );
    scene.finish(&order, "done", "").await;
    assert!(asked.await.unwrap().status.success());
    assert!(
        scene
            .coordinator
            .command(&["host", "hold", "db-1", "--reason", "backup"])
            .status
            .success()
    );
    let held = scene.begin(&["host", "restart-client", "db-1"]).await.unwrap();
    let said = String::from_utf8_lossy(&held.stderr).into_owned();
    assert_eq!(held.status.code(), Some(1));
    assert!(said.contains("backup") && said.contains("unhold"), "{said}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn silence_ends_at_its_time_and_absence_at_once() {
    let scene = Scene::new().await;
    let output = scene
        .begin(&["host", "collect-bundle", "db-1", "--wait", "1s"])
        .await
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("in its time"));
    let Scene {
        coordinator, session, ..
    } = scene;
    drop(session);
    until("the end of the session", || {
        coordinator.json(&["host", "list"])["hosts"][0]["connected"] == false
    });
    let output = coordinator.command(&["host", "renew", "db-1"]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1));
    assert!(said.contains("not connected") && said.contains("hint"), "{said}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_release_is_taken_in_and_offered_by_digest() {
    let mut scene = Scene::new().await;
    let bytes = vec![42u8; 300_000];
    let file = scene
        .coordinator
        .scratch()
        .join("pmm-upgrade-agent_0.2.0_amd64.deb");
    std::fs::write(&file, &bytes).unwrap();
    let signature = scene.coordinator.file("x.minisig", 0o644, "a signature\n");
    let arguments = |version: &str| {
        [
            "host",
            "self-update",
            "db-1",
            "--file",
            file.to_str().unwrap(),
            "--signature",
            signature.to_str().unwrap(),
            "--version",
            version,
        ]
        .map(str::to_owned)
    };
    let wrong = arguments("0.3.0");
    let wrong: Vec<&str> = wrong.iter().map(String::as_str).collect();
    let output = scene.begin(&wrong).await.unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("0.2.0"));
    let right = arguments("0.2.0");
    let right: Vec<&str> = right.iter().map(String::as_str).collect();
    let asked = scene.begin(&right);
    let order = scene.order().await;
    let release: AgentRelease = serde_json::from_slice(&order.release).unwrap();
    assert_eq!(
        (
            release.sha256.as_str(),
            release.length,
            release.signature.as_str()
        ),
        (sha256_hex(&bytes).as_str(), 300_000, "a signature\n")
    );
    let stored = scene
        .coordinator
        .data()
        .join("artifacts/pmm-upgrade-agent_0.2.0_amd64.deb");
    assert!(std::fs::read(stored).unwrap() == bytes);
    scene
        .finish(&order, "refused", "the policy lists no `agent_keys`")
        .await;
    assert_eq!(asked.await.unwrap().status.code(), Some(1));
    assert_eq!(
        scene.audit(),
        ["artifact import", "host self_update", "host self_update ended"]
    );
}
