//! A PMM Server that only pretends to be upgraded, and its fleet.

use crate::clock::now_ms;
use crate::engine::{Drivers, ServerDriver};
use crate::problem::Problems;
use crate::store::{AuditEntry, PlanRow, Store};
use fleet_common::codes::Code;
use fleet_common::compat::CompatibilityTable;
use fleet_common::ids::HostId;
use fleet_common::inventory::Inventory;
use fleet_common::server::{HopOutcome, HopResult, ServerEvent, ServerOrder};
use fleet_common::survey::HostSurvey;
use fleet_common::verification::{FleetSnapshot, PmmClient, PmmService};
use fleet_common::version::PmmVersion;
use pmm_driver::DriverError;
use rollout::kernel::ViewRequest;
use rollout::plan::{HostRecord, ServerInput};
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
pub struct World {
    pub server: PmmVersion,
    pub clients: BTreeMap<String, PmmVersion>,
    pub hops_done: BTreeMap<String, u32>,
    pub switches: BTreeMap<String, u32>,
    /// Hosts whose switch fails and goes back.
    pub broken: BTreeSet<String>,
    /// When it was asked for the whole fleet.
    pub fleet_looks: Vec<Instant>,
    /// Nodes that it was asked for one by one.
    pub nodes_looked_at: BTreeSet<String>,
}

#[derive(Clone)]
pub struct Fake(pub Arc<Mutex<World>>);

impl Fake {
    pub fn new(hosts: usize) -> Self {
        let old = PmmVersion::new(2, 41, 2);
        let clients = (0..hosts).map(|n| (format!("db-{n}"), old)).collect();
        Self(Arc::new(Mutex::new(World {
            server: old,
            clients,
            hops_done: BTreeMap::new(),
            switches: BTreeMap::new(),
            broken: BTreeSet::new(),
            fleet_looks: Vec::new(),
            nodes_looked_at: BTreeSet::new(),
        })))
    }

    pub fn view(&self) -> FleetSnapshot {
        let world = self.0.lock().unwrap();
        let now = now_ms();
        let mut view = FleetSnapshot {
            taken_at_ms: now,
            server_version: Some(world.server),
            ..FleetSnapshot::default()
        };
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
    async fn snapshot(&self, request: &ViewRequest) -> Result<FleetSnapshot, DriverError> {
        let mut world = self.0.lock().unwrap();
        match &request.nodes {
            Some(nodes) => world.nodes_looked_at.extend(nodes.iter().cloned()),
            None => world.fleet_looks.push(Instant::now()),
        }
        drop(world);
        Ok(request.answer_from(self.view()))
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
            let _ = events
                .send(ServerEvent::StepFinished {
                    step: (*step).to_owned(),
                    took_ms: 1,
                })
                .await;
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
            open: false,
            leftovers: Vec::new(),
        };
        let _ = events.send(ServerEvent::Finished(result.clone())).await;
        Ok(result)
    }

    fn give_up(&self, _: &fleet_common::ids::OrderId) {}
}

impl Drivers for Fake {
    fn of_fleet(&self, _: &str, _: &[u8]) -> Result<Arc<dyn ServerDriver>, Problems> {
        Ok(Arc::new(self.clone()))
    }
}

pub fn inventory(name: &str) -> Inventory {
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

pub async fn plan(store: &Store, fake: &Fake) -> PlanRow {
    let fleet = rollout::fleet::parse(FLEET, "fleet.toml").unwrap();
    let names: Vec<String> = fake.0.lock().unwrap().clients.keys().cloned().collect();
    let survey = HostSurvey {
        findings: Vec::new(),
        candidate: None,
        kept: None,
    };
    let hosts: Vec<HostRecord> = names
        .iter()
        .map(|name| HostRecord {
            host_id: HostId::new(format!("id-{name}")),
            inventory: inventory(name),
            survey: Some((now_ms(), survey.clone())),
            held: None,
        })
        .collect();
    let server = ServerInput {
        running: PmmVersion::new(2, 41, 2),
        findings: Vec::new(),
        reach: fleet_common::reach::ContainerReach::default(),
    };
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
    let audit = AuditEntry {
        at_ms: 0,
        who: "test".into(),
        what: "plan".into(),
        detail: String::new(),
    };
    assert!(store.save_plan(row.clone(), audit).await.unwrap());
    row
}
