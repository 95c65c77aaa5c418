//! PMM and its clients as the coordinator sees them, and plans for them. The server is on the target already: only client legs run.

use crate::coordinator::audit;
use fleet_common::compat::CompatibilityTable;
use fleet_common::ids::{HostId, OrderId};
use fleet_common::inventory::Inventory;
use fleet_common::reach::ContainerReach;
use fleet_common::server::{HopResult, ServerEvent, ServerOrder};
use fleet_common::survey::HostSurvey;
use fleet_common::verification::{FleetSnapshot, PmmClient, PmmService};
use fleet_common::version::PmmVersion;
use pmm_coordinator::clock::now_ms;
use pmm_coordinator::engine::{Drivers, ServerDriver};
use pmm_coordinator::problem::Problems;
use pmm_coordinator::store::{PlanRow, Store};
use pmm_driver::DriverError;
use rollout::kernel::ViewRequest;
use rollout::plan::{HostRecord, ServerInput};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

pub const OLD: PmmVersion = PmmVersion::new(3, 8, 0);
pub const TARGET: PmmVersion = PmmVersion::new(3, 9, 1);

/// Name and enrolled id of a host.
#[derive(Clone, Debug)]
pub struct Member {
    pub name: String,
    pub host: HostId,
}

/// Releases of the clients by name.
#[derive(Clone, Default)]
pub struct Pmm(Arc<Mutex<BTreeMap<String, PmmVersion>>>);

impl Pmm {
    fn clients(&self) -> MutexGuard<'_, BTreeMap<String, PmmVersion>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn set(&self, name: &str, version: PmmVersion) {
        self.clients().insert(name.to_owned(), version);
    }

    fn view(&self) -> FleetSnapshot {
        let now = now_ms();
        let mut view = FleetSnapshot {
            taken_at_ms: now,
            server_version: Some(TARGET),
            ..FleetSnapshot::default()
        };
        for (name, version) in self.clients().iter() {
            let (node, service) = (format!("node-{name}"), format!("service-{name}"));
            let client = PmmClient {
                node_id: node.clone(),
                node_name: name.clone(),
                connected: true,
                version: Some(version.to_string()),
            };
            view.clients.insert(format!("agent-{name}"), client);
            let described = PmmService {
                name: format!("mysql-{name}"),
                service_type: "mysql".to_owned(),
                node_id: node.clone(),
                environment: String::new(),
                cluster: String::new(),
                replication_set: String::new(),
                address: "127.0.0.1:3306".to_owned(),
                custom_labels: BTreeMap::new(),
            };
            view.services.insert(service.clone(), described);
            view.service_samples_ms.insert(service.clone(), now);
            view.node_samples_ms.insert(node, now);
            view.qan_active.insert(service);
        }
        view
    }
}

#[tonic::async_trait]
impl ServerDriver for Pmm {
    async fn snapshot(&self, request: &ViewRequest) -> Result<FleetSnapshot, DriverError> {
        Ok(request.answer_from(self.view()))
    }

    async fn run_hop(
        &self,
        _: &ServerOrder,
        _: mpsc::Sender<ServerEvent>,
        _: CancellationToken,
    ) -> Result<HopResult, DriverError> {
        panic!("a plan for a server on its target has no hop")
    }

    fn give_up(&self, _: &OrderId) {}
}

impl Drivers for Pmm {
    fn of_fleet(&self, _: &str, _: &[u8]) -> Result<Arc<dyn ServerDriver>, Problems> {
        Ok(Arc::new(self.clone()))
    }
}

fn fleet_file(width: usize, permit: Option<&str>) -> String {
    let timing = permit.map_or_else(String::new, |permit| format!("[timing]\npermit = \"{permit}\"\n"));
    format!(
        r#"{timing}[server]
url = "https://pmm.test"
credential_file = "/nowhere"
target = "{TARGET}"
[clients]
target = "{TARGET}"
repository_url = "http://repo.test"
[[group]]
name = "all"
match = {{ labels = {{ tier = "db" }} }}
canaries = 0
ramp = []
max_unavailable = {width}
failure_threshold = 0
"#
    )
}

fn inventory(name: &str) -> Inventory {
    serde_json::from_value(serde_json::json!({
        "hostname": name, "os_id": "debian", "os_version": "12", "os_codename": "bookworm", "arch": "x86_64",
        "agent_version": "0.1.0", "labels": {"tier": "db"}, "held": null,
        "client": {
            "detection": "installed", "method": "deb", "package": "pmm-client",
            "package_version": format!("{OLD}-7.bookworm"), "version": OLD.to_string(), "running_version": OLD.to_string(),
            "base_dir": "/usr/local/percona/pmm", "config_file": "/usr/local/percona/pmm/config/pmm-agent.yaml", "configured": true,
            "run": {"kind": "systemd", "unit": "pmm-agent.service", "enabled": true}, "user": "pmm-agent",
            "agent_id": format!("agent-{name}"), "node_id": format!("node-{name}"), "server_address": "pmm.test:443",
            "connected": true, "credential": "password", "exporters": {}, "evidence": []
        }
    }))
    .expect("an inventory")
}

/// Stores a plan for the whole fleet, every client on the old release.
pub async fn plan(
    store: &Store,
    pmm: &Pmm,
    members: &[Member],
    width: usize,
    permit: Option<&str>,
) -> anyhow::Result<PlanRow> {
    for member in members {
        pmm.set(&member.name, OLD);
    }
    let text = fleet_file(width, permit);
    let fleet = rollout::fleet::parse(&text, "fleet.toml").map_err(|errors| anyhow::anyhow!("{errors:?}"))?;
    let survey = HostSurvey {
        findings: Vec::new(),
        candidate: None,
        kept: None,
    };
    let hosts: Vec<HostRecord> = members
        .iter()
        .map(|member| HostRecord {
            host_id: member.host.clone(),
            inventory: inventory(&member.name),
            survey: Some((now_ms(), survey.clone())),
            held: None,
        })
        .collect();
    let server = ServerInput {
        running: TARGET,
        findings: Vec::new(),
        reach: ContainerReach::default(),
    };
    let table = CompatibilityTable::shipped()?;
    let draft = rollout::plan::join(&fleet, &hosts, &pmm.view(), &server, &table, now_ms())
        .map_err(|errors| anyhow::anyhow!("{errors:?}"))?;
    let (plan, document) = draft.into_bytes()?;
    let parent = store.newest_plan().await?.map(|row| row.plan);
    let row = PlanRow {
        plan,
        parent,
        created_at_ms: now_ms(),
        document,
        fleet_path: "fleet.toml".to_owned(),
        fleet_text: text.into_bytes(),
    };
    anyhow::ensure!(
        store.save_plan(row.clone(), audit("plan")).await?,
        "the plan was not stored"
    );
    Ok(row)
}
