//! An agent that only pretends to switch its client.

use super::world::Fake;
use crate::agent_api::incoming;
use crate::engine::EngineHandle;
use crate::sessions::{Registered, Sessions};
use fleet_common::codes::Code;
use fleet_common::ids::HostId;
use fleet_common::order::{HostEvent, OrderResult, Outcome};
use fleet_common::plan_entry::PlanEntry;
use fleet_common::version::PmmVersion;
use fleet_proto as wire;
use fleet_proto::coordinator_message::Body;
use std::collections::BTreeMap;
use tokio_util::sync::CancellationToken;

/// What an agent keeps over the lives of the coordinator.
pub struct Agent {
    name: String,
    host: HostId,
    outbox: Vec<(String, HostEvent)>,
    acknowledged: usize,
    session: u64,
    done: BTreeMap<String, OrderResult>,
}

impl Agent {
    pub fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            host: HostId::new(format!("id-{name}")),
            outbox: Vec::new(),
            acknowledged: 0,
            session: 0,
            done: BTreeMap::new(),
        }
    }

    /// Works until the coordinator's life ends; a session that is closed is opened anew.
    pub async fn live(
        mut self,
        engine: EngineHandle,
        sessions: Sessions,
        fake: Fake,
        stop: CancellationToken,
    ) -> Self {
        while !stop.is_cancelled() {
            self.session += 1;
            let mut ends = Sessions::ends();
            sessions.register(&self.host, self.session, ends.outbox.clone(), ends.ended.clone());
            engine.connected(self.host.clone(), self.session, None).await;
            tokio::select! {
                () = stop.cancelled() => {}
                () = self.session(&mut ends, &engine, &fake) => {}
            }
            sessions.unregister(&self.host, self.session);
            engine.disconnected(self.host.clone(), self.session).await;
        }
        self
    }

    async fn session(&mut self, ends: &mut Registered, engine: &EngineHandle, fake: &Fake) {
        let mut sent = self.acknowledged;
        let mut first = true;
        loop {
            while sent < self.outbox.len() {
                let (order, event) = self.outbox[sent].clone();
                let event = wire::Event {
                    outbox_id: "outbox".into(),
                    sequence: u64::try_from(sent).unwrap() + 1,
                    order_id: order,
                    epoch: None,
                    at_ms: 0,
                    body: wire::convert::event_body(&event),
                };
                engine.event(incoming(self.host.clone(), first, event)).await;
                first = false;
                sent += 1;
            }
            let message = ends.messages.recv().await;
            match message.and_then(Result::ok).and_then(|message| message.body) {
                Some(Body::Ack(ack)) => self.acknowledged = usize::try_from(ack.sequence).unwrap(),
                Some(Body::Order(order)) => self.order(&order, fake),
                Some(Body::Goodbye(_)) | None => return,
                Some(_) => {}
            }
        }
    }

    fn order(&mut self, order: &wire::Order, fake: &Fake) {
        let id = order.order_id.clone();
        let result = match self.done.get(&id) {
            Some(result) => result.clone(),
            None => self.work(order, fake),
        };
        self.done.insert(id.clone(), result.clone());
        self.outbox.push((id.clone(), HostEvent::Accepted));
        let step = HostEvent::StepStarted {
            step: "install".into(),
            index: 1,
            of: 1,
            deadline_for_ms: 1000,
        };
        self.outbox.push((id.clone(), step));
        self.outbox.push((id, HostEvent::Finished(result)));
    }

    fn work(&self, order: &wire::Order, fake: &Fake) -> OrderResult {
        let entry: PlanEntry = serde_json::from_slice(&order.plan_entry).unwrap();
        assert_eq!(
            entry.name, self.name,
            "an order carries the entry of its own host"
        );
        let mut detail = serde_json::Value::Null;
        let mut outcome = Outcome::Done;
        match order.action() {
            wire::Action::Preflight => {
                detail = serde_json::json!({"findings": [], "candidate": null, "kept": null})
            }
            wire::Action::Switch => {
                let mut world = fake.0.lock().unwrap();
                assert_eq!(
                    world.server,
                    PmmVersion::new(3, 9, 1),
                    "no host switches before the server leg is settled"
                );
                *world.switches.entry(self.name.clone()).or_default() += 1;
                let mut now_runs = "2.41.2".to_owned();
                if world.broken.contains(&self.name) {
                    outcome = Outcome::RolledBack;
                } else {
                    world.clients.insert(self.name.clone(), entry.to);
                    now_runs = entry.to.to_string();
                }
                detail = serde_json::json!({"from": "2.41.2", "to": now_runs, "client_gap_ms": 5, "transaction_ms": 3});
            }
            _ => {}
        }
        let code = Code::new(if outcome == Outcome::Done {
            ""
        } else {
            fleet_common::codes::INSTALL_FAILED
        });
        OrderResult {
            outcome,
            step: "install".into(),
            code,
            message: String::new(),
            took_ms: 5,
            detail,
        }
    }
}
