//! Dev harness.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout)]
mod common;
use fleet_proto::{Ack, Order, Welcome, agent_message, coordinator_message};
use std::sync::Arc;

#[tokio::test]
#[ignore = "driven by hand"]
async fn drive() {
    let dir = std::env::var("DRIVE_DIR").unwrap();
    let ca = Arc::new(common::Ca::new());
    common::enrolment(ca.clone(), "coordinator.lab", "0.0.0.0:29444", "s").await;
    let (_, mut sessions) = common::sessions(&ca, "coordinator.lab", "0.0.0.0:29443").await;
    std::fs::write(format!("{dir}/token"), format!("t.s.{}", ca.spki)).unwrap();
    let mut number = 0;
    while let Some(mut session) = sessions.recv().await {
        number += 1;
        let dir = dir.clone();
        tokio::spawn(async move {
            let Some(agent_message::Body::Hello(hello)) = session.next().await else {
                return;
            };
            let host = hello.host_id.clone();
            println!(
                "{host} HELLO session={} epoch={:?} running={} last={}",
                hello.session_number, hello.highest_epoch, hello.running_order, hello.last_sequence
            );
            let mut acked: u64 = std::fs::read_to_string(format!("{dir}/{host}.{}.ack", hello.outbox_id))
                .ok()
                .and_then(|t| t.parse().ok())
                .unwrap_or(0);
            session
                .send(coordinator_message::Body::Welcome(Welcome {
                    protocol: 1,
                    session_number: number,
                    epoch: Some(fleet_proto::Epoch { term: 1, counter: 1 }),
                    acknowledged: acked,
                    reconnect_cap_ms: 2000,
                    reconnect_spread_ms: 500,
                }))
                .await;
            session
                .send(coordinator_message::Body::InventoryWanted(
                    fleet_proto::InventoryWanted {},
                ))
                .await;
            let to = session.to.clone();
            let orders_dir = format!("{dir}/orders/{host}");
            std::fs::create_dir_all(&orders_dir).unwrap();
            tokio::spawn(async move {
                loop {
                    let mut names: Vec<_> = std::fs::read_dir(&orders_dir)
                        .unwrap()
                        .flatten()
                        .map(|e| e.path())
                        .filter(|p| p.extension().is_some_and(|e| e == "json"))
                        .collect();
                    names.sort();
                    for path in names {
                        let v: serde_json::Value =
                            serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
                        let order = Order {
                            order_id: v["order_id"].as_str().unwrap().into(),
                            epoch: Some(fleet_proto::Epoch { term: 1, counter: 1 }),
                            plan_id: "p".into(),
                            plan_entry: serde_json::to_vec(&v["entry"]).unwrap(),
                            signature: vec![],
                            action: v["action"].as_i64().unwrap() as i32,
                            deadline_for_ms: 1_200_000,
                            start_within_ms: 10_000,
                        };
                        if to
                            .send(Ok(fleet_proto::CoordinatorMessage {
                                body: Some(coordinator_message::Body::Order(order)),
                            }))
                            .await
                            .is_err()
                        {
                            return;
                        }
                        std::fs::rename(&path, path.with_extension("sent")).unwrap();
                    }
                    if to.is_closed() {
                        return;
                    }
                    tokio::time::sleep(std::time::Duration::from_millis(200)).await;
                }
            });
            while let Some(body) = session.next().await {
                match body {
                    agent_message::Body::Event(event) => {
                        println!(
                            "{host} EVENT {} {} {}",
                            event.sequence,
                            event.order_id,
                            String::from_utf8_lossy(&event.body)
                        );
                        acked = acked.max(event.sequence);
                        std::fs::write(format!("{dir}/{host}.{}.ack", event.outbox_id), acked.to_string())
                            .unwrap();
                        session
                            .send(coordinator_message::Body::Ack(Ack {
                                outbox_id: event.outbox_id,
                                sequence: acked,
                            }))
                            .await;
                    }
                    agent_message::Body::Inventory(doc) => {
                        std::fs::write(format!("{dir}/{host}.inventory.json"), &doc.document).unwrap();
                        println!("{host} INVENTORY {}", doc.document.len());
                    }
                    agent_message::Body::Progress(p) => println!("{host} PROGRESS {} {}", p.step, p.note),
                    other => println!("{host} {other:?}"),
                }
            }
            println!("{host} GONE");
        });
    }
}
