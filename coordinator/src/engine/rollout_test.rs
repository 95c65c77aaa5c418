//! Whole rollouts in one process: the real engine, kernel and store, with a server driver and agents that only pretend to work. The engine
//! is also stopped in the middle without a word, as a kill does it.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use super::{Begin, Deps, Drivers, EngineHandle, ServerDriver, start};
use crate::agent_api::IncomingEvent;
use crate::clock::now_ms;
use crate::problem::Problems;
use crate::sessions::Sessions;
use crate::store::testing;
use crate::store::{AuditEntry, PlanRow, Store};
use fleet_common::codes::Code;
use fleet_common::compat::CompatibilityTable;
use fleet_common::ids::HostId;
use fleet_common::inventory::Inventory;
use fleet_common::order::{HostEvent, OrderResult, Outcome};
use fleet_common::plan_entry::PlanEntry;
use fleet_common::server::{HopOutcome, HopResult, ServerEvent, ServerOrder};
use fleet_common::survey::HostSurvey;
use fleet_common::verification::{FleetSnapshot, PmmClient, PmmService};
use fleet_common::version::PmmVersion;
use fleet_proto as wire;
use fleet_proto::coordinator_message::Body;
use pmm_driver::DriverError;
use rollout::plan::{HostRecord, ServerInput};
use rollout::progress::StatusDocument;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

const FLEET: &str = r#"
[server]
url = "https://pmm.test"
credential_file = "/nowhere"
target = "3.9.1"
[server.pmm2_clients]
accept_gap = "3.9.1"
[clients]
target = "3.9.1"
repository_url = "http://repo.test"
[defaults]
max_unavailable = 1
failure_threshold = 0
[[group]]
name = "canary"
match = { names = ["db-0"] }
[[group]]
name = "rest"
match = { names = ["db-1", "db-2", "db-3"] }
max_unavailable = 2
"#;

/// PMM and its clients, and what happened to them.
struct World {
    server: PmmVersion,
    clients: BTreeMap<String, PmmVersion>,
    hops_done: BTreeMap<String, u32>,
    switches: BTreeMap<String, u32>,
    /// Hosts whose switch fails and goes back.
    broken: BTreeSet<String>,
}

#[derive(Clone)]
struct Fake(Arc<Mutex<World>>);

impl Fake {
    fn new(hosts: usize) -> Self {
        let old = PmmVersion::new(2, 41, 2);
        let clients = (0..hosts).map(|n| (format!("db-{n}"), old)).collect();
        Self(Arc::new(Mutex::new(World {
            server: old,
            clients,
            hops_done: BTreeMap::new(),
            switches: BTreeMap::new(),
            broken: BTreeSet::new(),
        })))
    }

    fn view(&self) -> FleetSnapshot {
        let world = self.0.lock().unwrap();
        let now = now_ms();
        let mut view = FleetSnapshot { taken_at_ms: now, server_version: Some(world.server), ..FleetSnapshot::default() };
        for (name, version) in &world.clients {
            let client = PmmClient {
                node_id: format!("node-{name}"),
                node_name: name.clone(),
                connected: true,
                version: Some(version.to_string()),
            };
            view.clients.insert(format!("agent-{name}"), client);
            let service = PmmService {
                name: format!("mysql-{name}"),
                service_type: "mysql".into(),
                node_id: format!("node-{name}"),
                environment: String::new(),
                cluster: String::new(),
                replication_set: String::new(),
                address: "127.0.0.1:3306".into(),
                custom_labels: BTreeMap::new(),
            };
            view.services.insert(format!("service-{name}"), service);
            view.service_samples_ms.insert(format!("service-{name}"), now);
            view.node_samples_ms.insert(format!("node-{name}"), now);
            view.qan_active.insert(format!("service-{name}"));
        }
        view
    }
}

#[tonic::async_trait]
impl ServerDriver for Fake {
    async fn snapshot(&self, qan_from_ms: u64) -> Result<FleetSnapshot, DriverError> {
        Ok(FleetSnapshot { qan_from_ms, ..self.view() })
    }

    async fn run_hop(
        &self,
        order: &ServerOrder,
        events: mpsc::Sender<ServerEvent>,
        cancel: CancellationToken,
    ) -> Result<HopResult, DriverError> {
        for (index, step) in ["inspect", "ownership", "migration"].iter().enumerate() {
            if cancel.is_cancelled() {
                return Err(DriverError::Cancelled);
            }
            let started = ServerEvent::StepStarted {
                step: (*step).to_owned(),
                index: u32::try_from(index).unwrap() + 1,
                of: 3,
                waits_for: String::new(),
                deadline_for_ms: 60_000,
            };
            let _ = events.send(started).await;
            let _ = events.send(ServerEvent::StepFinished { step: (*step).to_owned(), took_ms: 1 }).await;
            tokio::time::sleep(Duration::from_millis(30)).await;
        }
        let mut world = self.0.lock().unwrap().server;
        if world == order.from {
            let mut locked = self.0.lock().unwrap();
            locked.server = order.to;
            *locked.hops_done.entry(order.to.to_string()).or_default() += 1;
            world = order.to;
        }
        let result = HopResult {
            outcome: HopOutcome::Settled,
            from: order.from,
            running: Some(world),
            code: Code::new(""),
            step: "settle".into(),
            message: String::new(),
            hints: Vec::new(),
            restore_point: Some(format!("restore-{}", order.hop)),
            downtime_ms: 1500,
        };
        let _ = events.send(ServerEvent::Finished(result.clone())).await;
        Ok(result)
    }
}

impl Drivers for Fake {
    fn of_fleet(&self, _: &str, _: &[u8]) -> Result<Arc<dyn ServerDriver>, Problems> { Ok(Arc::new(self.clone())) }
}

fn inventory(name: &str) -> Inventory {
    serde_json::from_value(serde_json::json!({
        "hostname": name, "os_id": "debian", "os_version": "12", "os_codename": "bookworm", "arch": "x86_64",
        "agent_version": "0.1.0", "labels": {}, "held": null,
        "client": {
            "detection": "installed", "method": "deb", "package": "pmm2-client", "package_version": "2.41.2-6.bookworm",
            "version": "2.41.2", "running_version": "2.41.2", "base_dir": "/usr/local/percona/pmm2",
            "config_file": "/usr/local/percona/pmm2/config/pmm-agent.yaml", "configured": true,
            "run": {"kind": "systemd", "unit": "pmm-agent.service", "enabled": true}, "user": "pmm-agent",
            "agent_id": format!("agent-{name}"), "node_id": format!("node-{name}"), "server_address": "pmm.test:443",
            "connected": true, "credential": "password", "exporters": {}, "evidence": []
        }
    }))
    .unwrap()
}

async fn plan(store: &Store, fake: &Fake) -> PlanRow {
    let fleet = rollout::fleet::parse(FLEET, "fleet.toml").unwrap();
    let names: Vec<String> = fake.0.lock().unwrap().clients.keys().cloned().collect();
    let survey = HostSurvey { findings: Vec::new(), candidate: None, kept: None };
    let hosts: Vec<HostRecord> = names
        .iter()
        .map(|name| HostRecord {
            host_id: HostId::new(format!("id-{name}")),
            inventory: inventory(name),
            survey: Some((now_ms(), survey.clone())),
            held: None,
        })
        .collect();
    let server = ServerInput { running: PmmVersion::new(2, 41, 2), findings: Vec::new() };
    let table = CompatibilityTable::shipped().unwrap();
    let draft = rollout::plan::join(&fleet, &hosts, &fake.view(), &server, &table, now_ms()).unwrap();
    let (plan, document) = draft.into_bytes().unwrap();
    let row = PlanRow {
        plan,
        parent: None,
        created_at_ms: now_ms(),
        document,
        fleet_path: "fleet.toml".into(),
        fleet_text: FLEET.into(),
    };
    let audit = AuditEntry { at_ms: 0, who: "test".into(), what: "plan".into(), detail: String::new() };
    assert!(store.save_plan(row.clone(), audit).await.unwrap());
    row
}

/// One life of the coordinator.
struct Life {
    engine: EngineHandle,
    sessions: Sessions,
    stop: CancellationToken,
}

impl Life {
    async fn begin(store: &Store, fake: &Fake) -> Self {
        let sessions = Sessions::default();
        let stop = CancellationToken::new();
        let deps = Deps {
            store: store.clone(),
            sessions: sessions.clone(),
            drivers: Arc::new(fake.clone()),
            term: store.take_over().await.unwrap(),
            stop: stop.clone(),
        };
        let (engine, _) = start(deps).await.unwrap();
        Self { engine, sessions, stop }
    }

    async fn status(&self) -> StatusDocument {
        self.engine.ask(|kernel, now| kernel.map(|kernel| rollout::progress::view(kernel, now))).await.unwrap().unwrap()
    }

    /// Polls until it holds.
    async fn until(&self, what: &str, holds: impl Fn(&StatusDocument) -> bool) -> StatusDocument {
        let begun = Instant::now();
        loop {
            let status = self.status().await;
            if holds(&status) {
                return status;
            }
            assert!(begun.elapsed() < Duration::from_secs(60), "gave up waiting for {what}: {status:#?}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

/// What an agent keeps over the lives of the coordinator.
struct Agent {
    name: String,
    host: HostId,
    outbox: Vec<(String, HostEvent)>,
    acknowledged: usize,
    session: u64,
    done: BTreeMap<String, OrderResult>,
}

impl Agent {
    fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            host: HostId::new(format!("id-{name}")),
            outbox: Vec::new(),
            acknowledged: 0,
            session: 0,
            done: BTreeMap::new(),
        }
    }

    /// Works until the coordinator's life ends.
    async fn live(mut self, engine: EngineHandle, sessions: Sessions, fake: Fake, stop: CancellationToken) -> Self {
        self.session += 1;
        let mut ends = Sessions::ends();
        sessions.register(&self.host, self.session, ends.outbox.clone(), ends.ended.clone());
        engine.connected(self.host.clone(), self.session, None).await;
        let mut sent = self.acknowledged;
        let mut first = true;
        loop {
            while sent < self.outbox.len() {
                let (order, event) = self.outbox[sent].clone();
                let sequence = u64::try_from(sent).unwrap() + 1;
                let event = wire::Event {
                    outbox_id: "outbox".into(),
                    sequence,
                    order_id: order,
                    epoch: None,
                    at_ms: 0,
                    body: wire::convert::event_body(&event),
                };
                engine.event(IncomingEvent::new(self.host.clone(), first, event)).await;
                first = false;
                sent += 1;
            }
            let message = tokio::select! {
                () = stop.cancelled() => return self,
                message = ends.messages.recv() => message,
            };
            match message.and_then(|message| message.ok()).and_then(|message| message.body) {
                Some(Body::Ack(ack)) => self.acknowledged = usize::try_from(ack.sequence).unwrap(),
                Some(Body::Order(order)) => self.order(&order, &fake),
                Some(_) => {}
                None => return self,
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
        let step = HostEvent::StepStarted { step: "install".into(), index: 1, of: 1, deadline_for_ms: 1000 };
        self.outbox.push((id.clone(), step));
        self.outbox.push((id, HostEvent::Finished(result)));
    }

    fn work(&self, order: &wire::Order, fake: &Fake) -> OrderResult {
        let entry: PlanEntry = serde_json::from_slice(&order.plan_entry).unwrap();
        assert_eq!(entry.name, self.name, "an order carries the entry of its own host");
        let mut detail = serde_json::Value::Null;
        let mut outcome = Outcome::Done;
        match order.action() {
            wire::Action::Preflight => detail = serde_json::json!({"findings": [], "candidate": null, "kept": null}),
            wire::Action::Switch => {
                let mut world = fake.0.lock().unwrap();
                assert_eq!(world.server, PmmVersion::new(3, 9, 1), "no host switches before the server leg is settled");
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
        let code = Code::new(if outcome == Outcome::Done { "" } else { fleet_common::codes::INSTALL_FAILED });
        OrderResult { outcome, step: "install".into(), code, message: String::new(), took_ms: 5, detail }
    }
}

fn agents(fake: &Fake) -> Vec<Agent> { fake.0.lock().unwrap().clients.keys().map(|name| Agent::new(name)).collect() }

/// Runs the agents during one life; the closure decides when the life ends.
async fn during(life: &Life, agents: Vec<Agent>, fake: &Fake, work: impl AsyncFnOnce(&Life)) -> Vec<Agent> {
    let tasks: Vec<_> = agents
        .into_iter()
        .map(|agent| {
            tokio::spawn(agent.live(life.engine.clone(), life.sessions.clone(), fake.clone(), life.stop.clone()))
        })
        .collect();
    work(life).await;
    life.stop.cancel();
    let mut back = Vec::new();
    for task in tasks {
        back.push(task.await.unwrap());
    }
    back
}

async fn begin(life: &Life, plan: PlanRow, fake: &Fake) {
    let begin =
        Begin { by: "test".into(), plan, driver: Arc::new(fake.clone()), accept_unmatched: Vec::new() };
    life.engine.begin(begin).await.unwrap();
}

#[tokio::test]
async fn a_rollout_over_three_hops_and_two_groups() {
    let (_dir, store) = testing::store();
    let fake = Fake::new(4);
    let plan = plan(&store, &fake).await;
    let life = Life::begin(&store, &fake).await;
    during(&life, agents(&fake), &fake, async |life| {
        begin(life, plan, &fake).await;
        let status = life.until("the end", |status| status.at_rest).await;
        assert_eq!(status.exit_code, 0, "{status:#?}");
        let report =
            life.engine.ask(|kernel, now| rollout::report::report(kernel.unwrap(), now)).await.unwrap();
        assert_eq!(report.server.hops, ["2.44.1", "3.7.1", "3.9.1"]);
        assert!(report.hosts.iter().all(|host| host.outcome == "upgraded"), "{:#?}", report.hosts);
        assert_eq!(report.verification.clients_checked, 4);
        assert!(report.verification.holds());
    })
    .await;
    let row = store.newest_rollout().await.unwrap().unwrap();
    assert!(row.finished_at_ms.is_some(), "the end is in the store");
    let world = fake.0.lock().unwrap();
    assert!(world.hops_done.values().chain(world.switches.values()).all(|times| *times == 1));
}

#[tokio::test]
async fn the_coordinator_dies_in_a_hop_and_in_a_group() {
    let (_dir, store) = testing::store();
    let fake = Fake::new(4);
    let plan = plan(&store, &fake).await;
    let life = Life::begin(&store, &fake).await;
    let agents = during(&life, agents(&fake), &fake, async |life| {
        begin(life, plan, &fake).await;
        life.until("the first hop", |status| status.server.iter().any(|server| !server.hops[0].steps.is_empty())).await;
    })
    .await;
    let life = Life::begin(&store, &fake).await;
    let agents = during(&life, agents, &fake, async |life| {
        life.until("the first group", |status| status.groups.iter().any(|group| group.counts.upgraded > 0)).await;
    })
    .await;
    let life = Life::begin(&store, &fake).await;
    during(&life, agents, &fake, async |life| {
        let status = life.until("the end", |status| status.at_rest).await;
        assert_eq!(status.exit_code, 0, "{status:#?}");
        assert_eq!(status.disturbances.len(), 2, "{:#?}", status.disturbances);
    })
    .await;
    let world = fake.0.lock().unwrap();
    assert!(world.hops_done.values().chain(world.switches.values()).all(|times| *times == 1), "each effect once");
}

#[tokio::test]
async fn a_host_that_goes_back_pauses_its_group() {
    let (_dir, store) = testing::store();
    let fake = Fake::new(4);
    fake.0.lock().unwrap().broken.insert("db-0".to_owned());
    let plan = plan(&store, &fake).await;
    let life = Life::begin(&store, &fake).await;
    during(&life, agents(&fake), &fake, async |life| {
        begin(life, plan, &fake).await;
        let status = life.until("the pause", |status| status.at_rest).await;
        assert_eq!(status.exit_code, fleet_common::codes::exit::PAUSED, "{status:#?}");
        assert_eq!(status.failures.len(), 1);
        assert!(status.failures[0].name == "db-0" && status.paused.is_some());
    })
    .await;
    assert_eq!(fake.0.lock().unwrap().switches.len(), 1, "no host of a later group was touched");
}
