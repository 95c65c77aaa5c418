//! Sessions, events and crashes, against the real program.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

use fleet_common::codes;
use fleet_proto::agent_message::Body as Up;
use fleet_proto::coordinator_message::Body as Down;
use fleet_proto::{AgentMessage, Hello, InventoryDocument};
use support::agent::{Identity, Session};
use support::{Coordinator, until};

const ACCEPTED: &[u8] = br#"{"event":"accepted"}"#;

async fn enrolled(coordinator: &Coordinator) -> Identity {
    Identity::enrol(coordinator.enrolment, &coordinator.token(5, "1h"), "db-1").await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_survive_kill_9_once() {
    let mut coordinator = Coordinator::start();
    let identity = enrolled(&coordinator).await;
    let mut session = Session::open(coordinator.agents, identity.tls(), identity.hello(0))
        .await
        .unwrap();
    let welcome = session.welcome().await;
    assert_eq!((welcome.protocol, welcome.acknowledged), (1, 0));
    for sequence in 1..=20 {
        session.event(sequence, "o", ACCEPTED).await;
    }
    session.acknowledged(20).await;
    // Not acknowledged when the coordinator dies; it may or may not have been committed.
    session.event(21, "o", ACCEPTED).await;
    coordinator.kill();
    coordinator.serve();

    let hello = identity.hello(welcome.session_number);
    let mut session = Session::open(coordinator.agents, identity.tls(), hello)
        .await
        .unwrap();
    let again = session.welcome().await;
    assert!(again.acknowledged >= 20, "what was acknowledged was committed");
    assert!(again.session_number > welcome.session_number);
    // Everything again, as an agent does that lost the acknowledgements, and one more.
    for sequence in 1..=22 {
        session.event(sequence, "o", ACCEPTED).await;
    }
    session.acknowledged(22).await;
    assert_eq!(stored_events(&coordinator), 22, "each number once");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_event_that_is_not_understood_blocks_nobody() {
    let coordinator = Coordinator::start();
    let identity = enrolled(&coordinator).await;
    let mut session = Session::open(coordinator.agents, identity.tls(), identity.hello(0))
        .await
        .unwrap();
    session.welcome().await;
    session.event(1, "", b"not json").await;
    session.event(2, "", br#"{"event":"from_the_future"}"#).await;
    session.event(3, "", ACCEPTED).await;
    session.acknowledged(3).await;
    let store = store(&coordinator);
    let rejected: i64 = store
        .query_row(
            "SELECT count(*) FROM host_events WHERE rejected IS NOT NULL",
            [],
            |row| row.get(0),
        )
        .unwrap();
    assert_eq!(rejected, 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_missing_number_starts_the_session_over() {
    let coordinator = Coordinator::start();
    let identity = enrolled(&coordinator).await;
    let mut session = Session::open(coordinator.agents, identity.tls(), identity.hello(0))
        .await
        .unwrap();
    session.welcome().await;
    session.event(1, "", ACCEPTED).await;
    session.acknowledged(1).await;
    session.event(3, "", ACCEPTED).await;
    assert_eq!(session.goodbye().await.code, "gap");
    assert_eq!(stored_events(&coordinator), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_newer_session_replaces_the_older_one() {
    let coordinator = Coordinator::start();
    let identity = enrolled(&coordinator).await;
    let mut old = Session::open(coordinator.agents, identity.tls(), identity.hello(0))
        .await
        .unwrap();
    let number = old.welcome().await.session_number;
    let mut new = Session::open(coordinator.agents, identity.tls(), identity.hello(number))
        .await
        .unwrap();
    new.welcome().await;
    assert_eq!(old.goodbye().await.code, "replaced");
    new.event(1, "", ACCEPTED).await;
    new.acknowledged(1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_copied_machine_is_quarantined_with_its_original() {
    let coordinator = Coordinator::start();
    let identity = enrolled(&coordinator).await;
    let mut first = Session::open(coordinator.agents, identity.tls(), identity.hello(0))
        .await
        .unwrap();
    let copied = first.welcome().await.session_number;
    let mut second = Session::open(coordinator.agents, identity.tls(), identity.hello(copied))
        .await
        .unwrap();
    let number = second.welcome().await.session_number;
    let mut third = Session::open(coordinator.agents, identity.tls(), identity.hello(number))
        .await
        .unwrap();
    third.welcome().await;
    // The copy was made when the number was `copied`; since then the original proved that it has a later one.
    let mut copy = Session::open(coordinator.agents, identity.tls(), identity.hello(copied))
        .await
        .unwrap();
    let told = copy.goodbye().await;
    assert!(told.quarantine && told.code == codes::FORK, "{told:?}");
    assert!(third.goodbye().await.quarantine, "both sides stop");
    let list = coordinator.json(&["host", "list"]);
    assert_eq!(list["hosts"][0]["state"], "quarantined");
}

/// A machine that comes back at once whenever its session ends, until it is quarantined.
async fn insist(agents: std::net::SocketAddr, identity: &Identity, mut stored: u64) -> u32 {
    let mut sessions = 0;
    loop {
        let mut session = Session::open(agents, identity.tls(), identity.hello(stored))
            .await
            .unwrap();
        sessions += 1;
        loop {
            match session.next().await {
                Some(Down::Welcome(welcome)) => {
                    stored = welcome.session_number;
                    session.ready().await;
                }
                Some(Down::Goodbye(told)) if told.quarantine => {
                    assert_eq!(told.code, codes::FORK);
                    return sessions;
                }
                Some(Down::Goodbye(_)) | None => break,
                Some(_) => {}
            }
        }
        assert!(sessions < 100, "two machines replace each other for ever");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_running_clones_end_up_quarantined_both() {
    let coordinator = Coordinator::start();
    let identity = enrolled(&coordinator).await;
    let mut original = Session::open(coordinator.agents, identity.tls(), identity.hello(0))
        .await
        .unwrap();
    // Cloned while it ran: both have the newest number.
    let number = original.welcome().await.session_number;
    original.ready().await;
    drop(original);
    let both = async {
        tokio::join!(
            insist(coordinator.agents, &identity, number),
            insist(coordinator.agents, &identity, number)
        )
    };
    tokio::time::timeout(support::PATIENCE, both)
        .await
        .expect("both in quarantine");
    let list = coordinator.json(&["host", "list"]);
    assert_eq!(list["hosts"][0]["state"], "quarantined");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flapping_network_of_one_machine_is_no_fork() {
    let coordinator = Coordinator::start();
    let identity = enrolled(&coordinator).await;
    let mut stored = 0;
    // Connections whose end the coordinator never hears of.
    let mut half_open = Vec::new();
    for round in 0..40 {
        let mut session = Session::open(coordinator.agents, identity.tls(), identity.hello(stored))
            .await
            .unwrap();
        match round % 5 {
            // The network broke before Welcome came.
            0 => drop(session),
            // Killed between Welcome and the write.
            1 => drop(session.welcome().await),
            // Killed between the write and the word that it was made.
            2 => stored = session.welcome().await.session_number,
            3 => {
                stored = session.welcome().await.session_number;
                session.ready().await;
            }
            _ => {
                stored = session.welcome().await.session_number;
                session.ready().await;
                half_open.push(session);
            }
        }
    }
    let newest = half_open.last_mut().unwrap();
    newest.event(1, "", ACCEPTED).await;
    newest.acknowledged(1).await;
    // A greeting that was overtaken: the machine gave up on this connection long ago.
    let before = coordinator.log().len();
    let overtaken = Session::open(coordinator.agents, identity.tls(), identity.hello(1))
        .await
        .unwrap();
    drop(overtaken);
    coordinator.wait_for_log(before, "a stale greeting of a closed connection was ignored");
    let list = coordinator.json(&["host", "list"]);
    assert_ne!(list["hosts"][0]["state"], "quarantined", "{list}");
    let mut again = Session::open(coordinator.agents, identity.tls(), identity.hello(stored))
        .await
        .unwrap();
    again.welcome().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_revoked_host_is_out_at_once_and_for_good() {
    let coordinator = Coordinator::start();
    let token = coordinator.token(5, "1h");
    let identity = Identity::enrol(coordinator.enrolment, &token, "db-1").await;
    let mut session = Session::open(coordinator.agents, identity.tls(), identity.hello(0))
        .await
        .unwrap();
    let number = session.welcome().await.session_number;
    assert!(coordinator.command(&["host", "revoke", "db-1"]).status.success());
    assert_eq!(session.goodbye().await.code, codes::HOST_UNKNOWN);
    let mut again = Session::open(coordinator.agents, identity.tls(), identity.hello(number))
        .await
        .unwrap();
    assert_eq!(again.goodbye().await.code, codes::HOST_UNKNOWN);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn protocol_versions_without_a_common_one() {
    let coordinator = Coordinator::start();
    let identity = enrolled(&coordinator).await;
    let hello = Hello {
        protocol_min: 7,
        protocol_max: 9,
        ..identity.hello(0)
    };
    let mut session = Session::open(coordinator.agents, identity.tls(), hello)
        .await
        .unwrap();
    let told = session.goodbye().await;
    assert!(
        told.code == codes::UNSUPPORTED && told.message.contains("7 to 9"),
        "{told:?}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn somebody_elses_host_id_is_refused() {
    let coordinator = Coordinator::start();
    let identity = enrolled(&coordinator).await;
    let hello = Hello {
        host_id: "another".to_owned(),
        ..identity.hello(0)
    };
    let mut session = Session::open(coordinator.agents, identity.tls(), hello)
        .await
        .unwrap();
    assert_eq!(session.goodbye().await.code, codes::HOST_UNKNOWN);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn host_list_shows_what_the_inventory_says() {
    let coordinator = Coordinator::start();
    let identity = enrolled(&coordinator).await;
    let mut session = Session::open(coordinator.agents, identity.tls(), identity.hello(0))
        .await
        .unwrap();
    session.welcome().await;
    let inventory = serde_json::json!({
        "hostname": "db-1.example", "os_id": "debian", "os_version": "12", "os_codename": "bookworm", "arch": "x86_64",
        "agent_version": "0.1.0", "labels": {"tier": "canary"}, "held": null, "client": {"detection": "not_installed"}
    });
    let document = InventoryDocument {
        document: serde_json::to_vec(&inventory).unwrap(),
    };
    session
        .up
        .send(AgentMessage {
            body: Some(Up::Inventory(document)),
        })
        .await
        .unwrap();
    until("the inventory", || {
        coordinator.json(&["host", "list"])["hosts"][0]["name"] == "db-1.example"
    });
    let host = coordinator.json(&["host", "list"])["hosts"][0].clone();
    assert_eq!(
        (&host["connected"], &host["labels"]["tier"]),
        (&true.into(), &"canary".into())
    );
    drop(session);
    until("the end of the session", || {
        coordinator.json(&["host", "list"])["hosts"][0]["connected"] == false
    });
    // A hold is kept and shown.
    assert!(
        coordinator
            .command(&["host", "hold", "db-1", "--reason", "backup tonight"])
            .status
            .success()
    );
    let host = coordinator.json(&["host", "show", "db-1"]);
    assert_eq!(
        (&host["state"], &host["reason"]),
        (&"held".into(), &"backup tonight".into())
    );
}

fn store(coordinator: &Coordinator) -> rusqlite::Connection {
    rusqlite::Connection::open(coordinator.data().join("store.sqlite")).unwrap()
}

fn stored_events(coordinator: &Coordinator) -> i64 {
    store(coordinator)
        .query_row("SELECT count(*) FROM host_events", [], |row| row.get(0))
        .unwrap()
}
