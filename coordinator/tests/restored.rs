//! A data directory that was restored from a copy, against the real program.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

use fleet_common::codes;
use fleet_proto::{Epoch, Hello};
use std::path::Path;
use support::Coordinator;
use support::agent::{Identity, Session};

/// What an agent keeps.
struct Agent {
    identity: Identity,
    number: u64,
    epoch: Epoch,
}

impl Agent {
    async fn enrol(coordinator: &Coordinator, name: &str) -> Self {
        Self {
            identity: Identity::enrol(coordinator.enrolment, &coordinator.token(5, "1h"), name).await,
            number: 0,
            epoch: Epoch { term: 0, counter: 0 },
        }
    }

    async fn dial(&self, coordinator: &Coordinator) -> Session {
        let hello = Hello {
            highest_epoch: Some(self.epoch),
            ..self.identity.hello(self.number)
        };
        Session::open(coordinator.agents, self.identity.tls(), hello)
            .await
            .unwrap()
    }

    /// A whole session: what Welcome gives is kept and told.
    async fn visit(&mut self, coordinator: &Coordinator) -> Session {
        let mut session = self.dial(coordinator).await;
        let welcome = session.welcome().await;
        self.number = welcome.session_number;
        let given = welcome.epoch.unwrap();
        if (given.term, given.counter) > (self.epoch.term, self.epoch.counter) {
            self.epoch = given;
        }
        session.ready().await;
        session.event(self.number, "", br#"{"event":"accepted"}"#).await;
        session.acknowledged(self.number).await;
        session
    }
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let (kind, target) = (entry.file_type().unwrap(), to.join(entry.file_name()));
        if kind.is_dir() {
            copy(&entry.path(), &target);
        } else if kind.is_file() {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}

/// A coordinator that goes on after a copy was made of its directory, and then is put back to the copy; with a host that was there meanwhile
/// and one that was not.
async fn restored() -> (Coordinator, Agent, Agent) {
    let mut coordinator = Coordinator::start();
    let mut active = Agent::enrol(&coordinator, "db-1").await;
    let mut away = Agent::enrol(&coordinator, "db-2").await;
    active.visit(&coordinator).await;
    away.visit(&coordinator).await;
    coordinator.kill();
    let (data, backup) = (coordinator.data(), coordinator.scratch().join("backup"));
    copy(&data, &backup);
    for _ in 0..3 {
        coordinator.serve();
        active.visit(&coordinator).await;
        coordinator.kill();
    }
    std::fs::remove_dir_all(&data).unwrap();
    std::fs::rename(&backup, &data).unwrap();
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::set_permissions(&data, std::fs::Permissions::from_mode(0o700)).unwrap();
    coordinator.serve();
    (coordinator, active, away)
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn audit(coordinator: &Coordinator, what: &str) -> i64 {
    rusqlite::Connection::open(coordinator.data().join("store.sqlite"))
        .unwrap()
        .query_row("SELECT count(*) FROM audit WHERE what = ?1", [what], |row| {
            row.get(0)
        })
        .unwrap()
}

async fn refused(coordinator: &Coordinator, agent: &Agent) {
    let told = agent.dial(coordinator).await.goodbye().await;
    assert_eq!(told.code, codes::STORE_RESTORED, "{told:?}");
    assert!(!told.quarantine, "the agent keeps its state");
    assert!((1..=30_000).contains(&told.retry_after_ms), "and comes back soon");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restored_store_refuses_until_it_is_adopted() {
    let (coordinator, mut active, mut away) = restored().await;
    let early = coordinator.command(&["doctor", "--adopt-epoch", "--yes"]);
    assert!(
        !early.status.success() && text(&early.stderr).contains("nothing to adopt"),
        "{}",
        text(&early.stderr)
    );
    for _ in 0..2 {
        refused(&coordinator, &active).await;
    }
    // Who saw nothing newer is let in, but nothing begins there.
    let here = away.visit(&coordinator).await;
    let action = coordinator.command(&["host", "renew", "db-2"]);
    assert!(!action.status.success());
    assert!(
        text(&action.stderr).contains("--adopt-epoch"),
        "{}",
        text(&action.stderr)
    );
    drop(here);
    let list = coordinator.json(&["host", "list"]);
    for host in list["hosts"].as_array().unwrap() {
        assert_ne!(host["state"], "quarantined", "{list}");
    }
    let status = coordinator.command(&["status"]);
    let said = text(&status.stderr);
    assert!(
        !status.status.success() && said.contains("older than what 1 host saw") && said.contains("db-1"),
        "{said}"
    );
    let doctor = coordinator.command(&["doctor"]);
    assert_eq!(doctor.status.code(), Some(1));
    assert!(
        text(&doctor.stdout).contains("--adopt-epoch"),
        "{}",
        text(&doctor.stdout)
    );
    assert_eq!(audit(&coordinator, "store_restored"), 1, "once for each host");

    // No prompt without a terminal; the text says what it means.
    let asked = coordinator.command(&["doctor", "--adopt-epoch"]);
    let said = text(&asked.stderr);
    assert!(
        !asked.status.success() && said.contains("lost here for good") && said.contains("--yes"),
        "{said}"
    );
    refused(&coordinator, &active).await;

    let adopted = coordinator.command(&["doctor", "--adopt-epoch", "--yes"]);
    assert!(adopted.status.success(), "{}", text(&adopted.stderr));
    assert_eq!(audit(&coordinator, "adopt_epoch"), 1);
    let (before, seen) = (active.number, active.epoch);
    let session = active.visit(&coordinator).await;
    assert!(active.number > before && active.epoch.term > seen.term);
    away.visit(&coordinator).await;
    assert!(
        coordinator
            .command(&["doctor", "--adopt-epoch", "--yes"])
            .status
            .code()
            == Some(1)
    );

    // The permission held once: a second machine with the same identity is found as ever.
    let clone = Agent {
        number: before,
        epoch: seen,
        identity: active.identity,
    };
    let told = clone.dial(&coordinator).await.goodbye().await;
    assert!(told.quarantine && told.code == codes::FORK, "{told:?}");
    drop(session);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_evidence_survives_a_stop_and_the_adoption_works_without_a_coordinator() {
    let (mut coordinator, mut active, _) = restored().await;
    refused(&coordinator, &active).await;
    coordinator.kill();
    let adopted = coordinator.command(&["doctor", "--adopt-epoch", "--yes"]);
    assert!(adopted.status.success(), "{}", text(&adopted.stderr));
    coordinator.serve();
    let seen = active.epoch;
    active.visit(&coordinator).await;
    assert!(active.epoch.term > seen.term);
}
