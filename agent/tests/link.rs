//! The real program against a coordinator's side on real sockets: enrolment, session, orders, durable events.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use common::{Agent, Ca, SECRET, Session, end_of, meet, next_event, soon};
use fleet_common::codes;
use fleet_common::order::Outcome;
use fleet_proto::{Ack, Action, Epoch, Order, agent_message, coordinator_message};
use std::sync::Arc;
use std::time::Duration;

async fn order(session: &Session, id: &str, counter: u64) {
    let order = Order {
        order_id: id.to_owned(),
        epoch: Some(Epoch { term: 1, counter }),
        action: Action::Probe as i32,
        deadline_for_ms: 60_000,
        ..Order::default()
    };
    session.send(coordinator_message::Body::Order(order)).await;
}

#[tokio::test]
async fn orders_are_carried_out_once_and_events_survive_a_kill() {
    let ca = Arc::new(Ca::new());
    let enrol_port = common::enrolment(ca.clone(), "localhost", "127.0.0.1:0", SECRET).await;
    let (session_port, mut sessions) = common::sessions(&ca, "localhost", "127.0.0.1:0").await;
    let mut agent = Agent::new();
    let output = agent
        .enrol(enrol_port, session_port, &format!("id.{SECRET}.{}", ca.spki))
        .await;
    assert!(output.status.success(), "{output:?}");

    agent.start();
    let (mut session, first) = meet(&mut sessions, 7, 0).await;
    assert_eq!(first.session_number, 0);
    let said = soon(session.next()).await;
    assert!(matches!(said, Some(agent_message::Body::Ready(_))), "{said:?}");
    // What it said is so: the number is on disk by now.
    order(&session, "probe", 2).await;
    let (end, result) = end_of(&mut session, "probe").await;
    assert_eq!(result.outcome, Outcome::Done);

    // Nothing was acknowledged: after a kill the same outbox sends everything again, from its first event.
    agent.kill();
    drop(session);
    agent.start();
    let (mut session, second) = meet(&mut sessions, 8, 0).await;
    assert_eq!(second.session_number, 7);
    assert_eq!(second.outbox_id, first.outbox_id);
    assert_eq!(second.highest_epoch, Some(Epoch { term: 1, counter: 2 }));
    assert_eq!(next_event(&mut session).await.sequence, 1);
    let (again, _) = end_of(&mut session, "probe").await;
    assert_eq!(again.sequence, end.sequence);

    // Acknowledged, then asked again: the stored result, as a new event. An older epoch is refused.
    let acknowledged = Ack {
        outbox_id: again.outbox_id.clone(),
        sequence: second.last_sequence,
    };
    session.send(coordinator_message::Body::Ack(acknowledged)).await;
    order(&session, "probe", 2).await;
    let (repeated, result) = end_of(&mut session, "probe").await;
    assert!(repeated.sequence > end.sequence);
    assert_eq!(result.outcome, Outcome::Done);
    order(&session, "late", 1).await;
    let (_, result) = end_of(&mut session, "late").await;
    assert_eq!(
        (result.outcome, result.code.as_str()),
        (Outcome::Refused, codes::STALE_EPOCH)
    );
}

#[tokio::test]
async fn wrong_tokens_and_foreign_cas_are_refused_with_a_reason() {
    let ca = Arc::new(Ca::new());
    let port = common::enrolment(ca.clone(), "localhost", "127.0.0.1:0", SECRET).await;
    let agent = Agent::new();
    let told = async |token: String| {
        let output = agent.enrol(port, 1, &token).await;
        assert!(!output.status.success());
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    let wrong_secret = told(format!("id.nonsense.{}", ca.spki)).await;
    assert!(wrong_secret.contains("token_invalid") && !wrong_secret.contains("nonsense"));
    let foreign = told(format!("id.{SECRET}.{}", Ca::new().spki)).await;
    assert!(foreign.contains("ca_mismatch"), "{foreign}");
    assert!(told("half.a.token".to_owned()).await.contains("token_invalid"));
    assert!(!agent.dir.path().join("state/identity/certificate.pem").exists());
}

#[tokio::test]
async fn a_coordinator_of_another_ca_gets_no_session() {
    let (own, foreign) = (Arc::new(Ca::new()), Ca::new());
    let enrol_port = common::enrolment(own.clone(), "localhost", "127.0.0.1:0", SECRET).await;
    let (session_port, mut sessions) = common::sessions(&foreign, "localhost", "127.0.0.1:0").await;
    let mut agent = Agent::new();
    let output = agent
        .enrol(enrol_port, session_port, &format!("id.{SECRET}.{}", own.spki))
        .await;
    assert!(output.status.success(), "{output:?}");
    let log = std::fs::File::create(agent.dir.path().join("log")).unwrap();
    agent.child = Some(agent.command().arg("run").stderr(log).spawn().unwrap());
    let refused = async {
        loop {
            let said = std::fs::read_to_string(agent.dir.path().join("log")).unwrap();
            if said.contains("no session") {
                return said;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let said = soon(refused).await;
    assert!(said.contains("certificate"), "{said}");
    assert!(sessions.try_recv().is_err());
}
