//! The actions beside the upgrade, by the real program against a coordinator's side on real sockets: a new certificate, a bundle, the agent's
//! own update with its download.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use common::{Agent, Ca, SECRET, Script, Serve, Session, end_of, meet, soon};
use fleet_common::agent_release::AgentRelease;
use fleet_common::codes;
use fleet_common::digest::sha256_hex;
use fleet_common::order::{HostEvent, OrderResult, Outcome};
use fleet_proto::{Action, Epoch, Goodbye, Order, agent_message, coordinator_message};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::sync::mpsc;

struct Scene {
    agent: Agent,
    sessions: mpsc::Receiver<Session>,
    script: Arc<Script>,
    number: u64,
}

impl Scene {
    /// Enrolled, not started.
    async fn new(aged: bool) -> Self {
        let ca = Arc::new(Ca::new());
        ca.aged.store(aged, Ordering::SeqCst);
        let enrol_port = common::enrolment(ca.clone(), "localhost", "127.0.0.1:0", SECRET).await;
        let (port, sessions, script) = common::coordinator(&ca, "localhost").await;
        let agent = Agent::new();
        let token = format!("id.{SECRET}.{}", ca.spki);
        let output = agent.enrol(enrol_port, port, &token).await;
        assert!(output.status.success(), "{output:?}");
        Self {
            agent,
            sessions,
            script,
            number: 0,
        }
    }

    async fn welcome(&mut self) -> Session {
        self.number += 1;
        meet(&mut self.sessions, self.number, 0).await.0
    }

    /// The next session, told that its certificate is not accepted.
    async fn refuse(&mut self) -> Session {
        let mut session = soon(self.sessions.recv()).await.unwrap();
        soon(session.next()).await.expect("a hello");
        let goodbye = Goodbye {
            code: codes::HOST_UNKNOWN.to_owned(),
            message: "this host is not known here".to_owned(),
            retry_after_ms: 60_000,
            quarantine: false,
        };
        session.send(coordinator_message::Body::Goodbye(goodbye)).await;
        session
    }

    fn file(&self, name: &str) -> PathBuf {
        self.agent.dir.path().join("state").join(name)
    }
}

async fn order(session: &Session, id: &str, action: Action, release: Vec<u8>, deadline_for_ms: u64) {
    let order = Order {
        order_id: id.to_owned(),
        epoch: Some(Epoch { term: 1, counter: 1 }),
        action: action as i32,
        deadline_for_ms,
        release,
        ..Order::default()
    };
    session.send(coordinator_message::Body::Order(order)).await;
}

#[tokio::test]
async fn a_new_certificate_is_used_and_stays() {
    let mut scene = Scene::new(false).await;
    scene.agent.start();
    let session = scene.welcome().await;
    let old = session.key.clone();
    order(&session, "renew", Action::Renew, Vec::new(), 60_000).await;
    let mut session = scene.welcome().await;
    let new = session.key.clone();
    assert_ne!(old, new, "a new key, not only a new certificate");
    let (_, result) = end_of(&mut session, "renew").await;
    assert_eq!(result.outcome, Outcome::Done, "{}", result.message);
    assert!(!scene.file("identity/candidate.pem").exists());
    scene.agent.kill();
    scene.agent.start();
    assert_eq!(scene.welcome().await.key, new);
}

#[tokio::test]
async fn a_refused_certificate_costs_nothing() {
    let mut scene = Scene::new(false).await;
    scene.agent.start();
    let session = scene.welcome().await;
    let old = session.key.clone();
    order(&session, "renew", Action::Renew, Vec::new(), 60_000).await;
    let refused = scene.refuse().await;
    assert_ne!(refused.key, old);
    // At once, although the goodbye says a minute: that is meant for the certificate that is not accepted.
    let mut session = scene.welcome().await;
    assert_eq!(session.key, old);
    let (_, result) = end_of(&mut session, "renew").await;
    assert_eq!(result.code.as_str(), codes::RENEW_FAILED);
    assert_eq!(result.outcome, Outcome::FailedNothingChanged);
    assert!(!scene.file("identity/candidate.pem").exists());
}

#[tokio::test]
async fn a_kill_between_storing_and_switching_leaves_a_working_identity() {
    let mut scene = Scene::new(false).await;
    scene.agent.start();
    let session = scene.welcome().await;
    let old = session.key.clone();
    order(&session, "renew", Action::Renew, Vec::new(), 60_000).await;
    // The candidate has shown itself and got no answer.
    let first = soon(scene.sessions.recv()).await.unwrap();
    assert_ne!(first.key, old);
    assert!(scene.file("identity/candidate.pem").exists());
    scene.agent.kill();
    scene.agent.start();
    // The candidate is tried again before the old one. The order goes on as well and may bring another key meanwhile.
    let mut session = scene.welcome().await;
    assert_eq!(session.key, first.key);
    let result = soon(async {
        loop {
            match session.next().await {
                Some(agent_message::Body::Event(event)) => {
                    if let (true, Ok(HostEvent::Finished(result))) = (
                        event.order_id == "renew",
                        fleet_proto::convert::host_event(&event.body),
                    ) {
                        return result;
                    }
                }
                Some(_) => {}
                None => session = scene.welcome().await,
            }
        }
    })
    .await;
    assert_eq!(result.outcome, Outcome::Done, "{}", result.message);
    let used = session.key.clone();
    scene.agent.kill();
    drop(session);
    scene.agent.start();
    let again = scene.welcome().await;
    assert_eq!(again.key, used);
    assert_ne!(again.key, old);
}

#[tokio::test]
async fn an_old_certificate_is_renewed_without_an_order() {
    let mut scene = Scene::new(true).await;
    scene.agent.start();
    let first = scene.welcome().await;
    let second = scene.welcome().await;
    assert_ne!(first.key, second.key);
    assert_eq!(scene.script.renewals.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn a_bundle_stays_on_the_host_and_says_where() {
    let mut scene = Scene::new(false).await;
    scene.agent.start();
    let mut session = scene.welcome().await;
    order(&session, "bundle", Action::CollectBundle, Vec::new(), 120_000).await;
    let (_, result) = end_of(&mut session, "bundle").await;
    assert_eq!(result.outcome, Outcome::Done, "{}", result.message);
    let path = PathBuf::from(result.detail["path"].as_str().unwrap());
    assert!(path.starts_with(scene.file("bundles")) && result.message.contains(path.to_str().unwrap()));
    let bytes = std::fs::read(&path).unwrap();
    assert_eq!(result.detail["size"], bytes.len());
    assert_eq!(result.detail["sha256"], sha256_hex(&bytes));
    use std::os::unix::fs::PermissionsExt;
    assert_eq!(
        std::fs::metadata(&path).unwrap().permissions().mode() & 0o777,
        0o600
    );
    let key = std::fs::read_to_string(scene.file("identity/key.pem")).unwrap();
    let secret = key.lines().nth(1).unwrap().to_owned();
    let mut archive = tar::Archive::new(flate2::read::GzDecoder::new(bytes.as_slice()));
    let mut names = Vec::new();
    for entry in archive.entries().unwrap() {
        let mut entry = entry.unwrap();
        let mut text = String::new();
        std::io::Read::read_to_string(&mut entry, &mut text).unwrap();
        assert!(!text.contains(&secret));
        names.push(entry.path().unwrap().display().to_string());
    }
    for wanted in ["inventory.json", "journal.jsonl", "client-config.txt", "disk.txt"] {
        assert!(names.contains(&format!("bundle/{wanted}")), "{names:?}");
    }
}

const FILE: &str = "pmm-upgrade-agent-0.2.0-x86_64.tar.gz";

fn fixture(name: &str) -> Vec<u8> {
    std::fs::read(
        PathBuf::from(env!("CARGO_MANIFEST_DIR"))
            .join("tests/fixtures")
            .join(name),
    )
    .unwrap()
}

fn release() -> AgentRelease {
    let bytes = fixture(FILE);
    AgentRelease {
        version: "0.2.0".to_owned(),
        file: FILE.to_owned(),
        sha256: sha256_hex(&bytes),
        length: bytes.len() as u64,
        signature: String::from_utf8(fixture(&format!("{FILE}.minisig"))).unwrap(),
    }
}

impl Scene {
    /// An agent with a program that may be replaced, on a host that lists the key.
    async fn for_update(list_the_key: bool) -> Self {
        let mut scene = Self::new(false).await;
        let program = scene.agent.dir.path().join("pmm-upgrade-agent");
        std::fs::copy(&scene.agent.program, &program).unwrap();
        scene.agent.program = program;
        if list_the_key {
            let key = String::from_utf8(fixture("minisign.pub")).unwrap();
            let policy = format!("agent_keys = [\"{}\"]\n", key.trim());
            std::fs::write(scene.agent.dir.path().join("config/policy.toml"), policy).unwrap();
        }
        scene
    }

    async fn update(&mut self, serve: Vec<Serve>, deadline_for_ms: u64) -> (Session, OrderResult) {
        self.script.serve.lock().unwrap().extend(serve);
        self.agent.start();
        let mut session = self.welcome().await;
        let release = serde_json::to_vec(&release()).unwrap();
        order(&session, "update", Action::SelfUpdate, release, deadline_for_ms).await;
        let (_, result) = end_of(&mut session, "update").await;
        (session, result)
    }

    fn nothing_is_left(&self) {
        let left: Vec<_> = std::fs::read_dir(self.file("artifacts"))
            .map(|list| list.flatten().map(|entry| entry.path()).collect())
            .unwrap_or_default();
        assert!(left.is_empty(), "{left:?}");
        assert!(!self.file("self-update/spec.json").exists());
    }
}

#[tokio::test]
async fn without_keys_in_the_policy_nothing_is_even_fetched() {
    let mut scene = Scene::for_update(false).await;
    let (_session, result) = scene.update(vec![Serve::All(fixture(FILE))], 60_000).await;
    assert_eq!(
        (result.outcome, result.code.as_str()),
        (Outcome::Refused, codes::POLICY)
    );
    assert!(result.message.contains("agent_keys"), "{}", result.message);
    assert!(scene.script.offsets.lock().unwrap().is_empty());
}

#[tokio::test]
async fn another_file_is_refused_and_removed() {
    let mut scene = Scene::for_update(true).await;
    let mut other = fixture(FILE);
    other[60] ^= 1;
    let (_session, result) = scene.update(vec![Serve::All(other)], 60_000).await;
    assert_eq!(result.code.as_str(), codes::UPDATE_FAILED);
    assert_eq!(result.outcome, Outcome::FailedNothingChanged);
    assert!(result.message.contains("SHA-256"), "{}", result.message);
    // Once more from the beginning, because a part may have been of another file; then never again.
    assert_eq!(*scene.script.offsets.lock().unwrap(), [0, 0]);
    scene.nothing_is_left();
}

#[tokio::test]
async fn a_file_that_nobody_has_or_of_another_length_is_refused() {
    for serve in [Serve::Unknown, Serve::Length(fixture(FILE), 7)] {
        let mut scene = Scene::for_update(true).await;
        let (_session, result) = scene.update(vec![serve], 60_000).await;
        assert_eq!(result.code.as_str(), codes::UPDATE_FAILED);
        assert_eq!(result.outcome, Outcome::FailedNothingChanged);
        assert_eq!(*scene.script.offsets.lock().unwrap(), [0]);
        scene.nothing_is_left();
    }
}

/// The whole way with a release that does not work: a download that is cut and goes on, the guardian that installs it, the agent that is
/// gone, the way back, and the result told by the old agent.
#[tokio::test]
async fn a_release_that_does_not_work_is_taken_back() {
    let mut scene = Scene::for_update(true).await;
    let bytes = fixture(FILE);
    let before = std::fs::read(&scene.agent.program).unwrap();
    scene.script.serve.lock().unwrap().extend([
        Serve::Busy,
        Serve::Break(bytes.clone(), 60),
        Serve::All(bytes.clone()),
    ]);
    scene.agent.start();
    let session = scene.welcome().await;
    let document = serde_json::to_vec(&release()).unwrap();
    order(&session, "update", Action::SelfUpdate, document, 40_000).await;
    // What a service manager does: start whatever program is there whenever it ended.
    let mut ends = 0;
    let mut back = soon(async {
        loop {
            let ended = scene
                .agent
                .child
                .as_mut()
                .is_none_or(|child| child.try_wait().unwrap().is_some());
            if ended {
                ends += 1;
                scene.agent.start();
            }
            match tokio::time::timeout(Duration::from_millis(100), scene.sessions.recv()).await {
                Ok(next) => return next.unwrap(),
                Err(_) => continue,
            }
        }
    })
    .await;
    assert!(ends >= 2, "the new release was started and ended: {ends}");
    assert_eq!(*scene.script.offsets.lock().unwrap(), [0, 0, 60]);
    soon(back.next()).await.expect("a hello");
    let welcome = fleet_proto::Welcome {
        protocol: 1,
        session_number: 99,
        epoch: Some(Epoch { term: 1, counter: 1 }),
        acknowledged: 0,
        reconnect_cap_ms: 200,
        reconnect_spread_ms: 1,
    };
    back.send(coordinator_message::Body::Welcome(welcome)).await;
    let (_, result) = end_of(&mut back, "update").await;
    assert_eq!(result.outcome, Outcome::RolledBack, "{}", result.message);
    assert_eq!(result.code.as_str(), codes::UPDATE_FAILED);
    assert!(result.message.contains("0.2.0"), "{}", result.message);
    assert_eq!(std::fs::read(&scene.agent.program).unwrap(), before);
}
