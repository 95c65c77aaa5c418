//! Nodes, services and what PMM calls agents, in a form that both majors share.

use super::http::{Pmm, text};
use super::metrics::percent;
use crate::error::DriverError;
use fleet_common::ids::without_pmm_prefix;
use fleet_common::verification::{PmmClient, PmmService};
use futures_util::StreamExt;
use serde_json::{Value, json};
use server_upgrade::baseline::{Exporter, Node, SERVER_ID, plain_word};
use std::collections::{BTreeMap, BTreeSet};

/// The whole inventory.
#[derive(Clone, Debug, Default)]
pub struct Inventory {
    /// Nodes by id.
    pub nodes: BTreeMap<String, Node>,
    /// Services by id.
    pub services: BTreeMap<String, PmmService>,
    /// Agents except `pmm-agent`, by id.
    pub agents: BTreeMap<String, Exporter>,
    /// Clients by id, the server's own included.
    pub clients: BTreeMap<String, PmmClient>,
}

/// What is asked for node by node.
#[derive(Clone, Debug, Default)]
pub struct Part {
    /// Clients by id.
    pub clients: BTreeMap<String, PmmClient>,
    /// Services by id.
    pub services: BTreeMap<String, PmmService>,
}

/// Requests of one kind that are under way together.
const AT_ONCE: usize = 8;

impl Pmm {
    /// Reads the inventory.
    pub async fn inventory(&self, major: u32) -> Result<Inventory, DriverError> {
        let (nodes, services, agents) = if major >= 3 {
            (
                self.get("/v1/inventory/nodes").await?,
                self.get("/v1/inventory/services").await?,
                self.get("/v1/inventory/agents").await?,
            )
        } else {
            let all = json!({});
            (
                self.post("/v1/inventory/Nodes/List", &all).await?,
                self.post("/v1/inventory/Services/List", &all).await?,
                self.post("/v1/inventory/Agents/List", &all).await?,
            )
        };
        let mut inventory = Inventory::default();
        for (kind, item) in items(&nodes) {
            let node = Node {
                name: text(item, "node_name"),
                node_type: kind.to_owned(),
                address: text(item, "address"),
            };
            inventory.nodes.insert(id(item, "node_id"), node);
        }
        for (kind, item) in items(&services) {
            inventory
                .services
                .insert(id(item, "service_id"), service(kind, item));
        }
        for (kind, item) in items(&agents) {
            let agent_id = id(item, "agent_id");
            if kind == "pmm_agent" {
                let mut client = client(item, "connected");
                if let Some(node) = inventory.nodes.get(&client.node_id) {
                    client.node_name.clone_from(&node.name);
                }
                inventory.clients.insert(agent_id, client);
            } else {
                inventory.agents.insert(agent_id, exporter(kind, item));
            }
        }
        Ok(inventory)
    }

    /// Clients and services of some nodes, without the names of the nodes.
    ///
    /// Services are asked for node by node: PMM looks them up by that. Clients are not: PMM's inventory lists by node only what watches it,
    /// not the `pmm-agent` that runs there, and its management list by node, which has that one too, reads every agent of the fleet from the
    /// database for each answer, and in PMM 3 decrypts them (percona/pmm `managed/services/management/agent.go`, both majors). PMM 3 has
    /// two short lists of all clients instead, one of them with the releases; PMM 2 tells releases only in the management list.
    pub async fn inventory_of(&self, major: u32, nodes: &BTreeSet<String>) -> Result<Part, DriverError> {
        let mut part = Part::default();
        if major >= 3 {
            part.clients = self.clients(major).await?;
            part.clients.retain(|_, client| nodes.contains(&client.node_id));
            self.client_versions(major, &mut part.clients).await?;
        } else {
            part.clients = self.pmm2_clients_of(nodes).await?;
        }
        let mut answers = futures_util::stream::iter(nodes.clone())
            .map(|node| async move { self.node_services(major, &node).await })
            .buffer_unordered(AT_ONCE);
        while let Some(answer) = answers.next().await {
            for (kind, item) in items(&answer?) {
                let one = service(kind, item);
                // A release that does not know the filter answers with everything.
                if nodes.contains(&one.node_id) {
                    part.services.insert(id(item, "service_id"), one);
                }
            }
        }
        Ok(part)
    }

    async fn node_services(&self, major: u32, node: &str) -> Result<Value, DriverError> {
        let answer = if major >= 3 {
            let path = format!("/v1/inventory/services?node_id={}", percent(node));
            self.get(&path).await
        } else {
            let filter = json!({ "node_id": format!("/node_id/{node}") });
            self.post("/v1/inventory/Services/List", &filter).await
        };
        match answer {
            // A node that PMM does not know has none; the others are still to be seen.
            Err(DriverError::Status { status: 404, .. }) => Ok(Value::Null),
            other => other,
        }
    }

    /// All clients, without releases and names of nodes.
    async fn clients(&self, major: u32) -> Result<BTreeMap<String, PmmClient>, DriverError> {
        let answer = if major >= 3 {
            self.get("/v1/inventory/agents?agent_type=AGENT_TYPE_PMM_AGENT")
                .await?
        } else {
            self.post("/v1/inventory/Agents/List", &json!({ "agent_type": "PMM_AGENT" }))
                .await?
        };
        let clients = items(&answer).filter(|(kind, _)| *kind == "pmm_agent");
        Ok(clients
            .map(|(_, item)| (id(item, "agent_id"), client(item, "connected")))
            .collect())
    }

    async fn pmm2_clients_of(
        &self,
        nodes: &BTreeSet<String>,
    ) -> Result<BTreeMap<String, PmmClient>, DriverError> {
        let mut answers = futures_util::stream::iter(nodes.clone())
            .map(|node| async move { self.node_agents(&node).await })
            .buffer_unordered(AT_ONCE);
        let mut found = BTreeMap::new();
        while let Some(answer) = answers.next().await {
            let answer = answer?;
            if answer.is_null() {
                // A release without that list does not tell who runs what.
                let mut clients = self.clients(2).await?;
                clients.retain(|_, client| nodes.contains(&client.node_id));
                return Ok(clients);
            }
            for item in answer["agents"].as_array().into_iter().flatten() {
                if text(item, "agent_type").replace('-', "_") == "pmm_agent" {
                    found.insert(id(item, "agent_id"), client(item, "is_connected"));
                }
            }
        }
        Ok(found)
    }

    /// Fills in the releases of the clients, where the server tells. Absence means unknown, not fine.
    pub async fn client_versions(
        &self,
        major: u32,
        clients: &mut BTreeMap<String, PmmClient>,
    ) -> Result<(), DriverError> {
        if major >= 3 {
            let answer = self.get("/v1/management/agents/versions").await?;
            for one in answer["agent_versions"].as_array().into_iter().flatten() {
                if let Some(client) = clients.get_mut(&id(one, "agent_id")) {
                    client.version = Some(text(one, "version")).filter(|version| !version.is_empty());
                }
            }
            return Ok(());
        }
        let nodes: Vec<String> = clients.values().map(|client| client.node_id.clone()).collect();
        let mut answers = futures_util::stream::iter(nodes)
            .map(|node| async move { self.node_agents(&node).await })
            .buffer_unordered(AT_ONCE);
        let mut found: BTreeMap<String, String> = BTreeMap::new();
        while let Some(answer) = answers.next().await {
            for one in answer?["agents"].as_array().into_iter().flatten() {
                let version = text(one, "version");
                if !version.is_empty() {
                    found.insert(id(one, "agent_id"), version);
                }
            }
        }
        for (agent_id, version) in found {
            if let Some(client) = clients.get_mut(&agent_id) {
                client.version = Some(version);
            }
        }
        Ok(())
    }

    /// PMM 2 knows releases of clients only through the list per node; ids are asked for in the form that it uses itself.
    async fn node_agents(&self, node: &str) -> Result<Value, DriverError> {
        for node_id in [format!("/node_id/{node}"), node.to_owned()] {
            match self
                .post("/v1/management/Agent/List", &json!({ "node_id": node_id }))
                .await
            {
                Err(DriverError::Status {
                    status: 400 | 404 | 501,
                    ..
                }) => {}
                other => return other,
            }
        }
        Ok(Value::Null)
    }
}

fn items(answer: &Value) -> impl Iterator<Item = (&str, &Value)> {
    answer.as_object().into_iter().flatten().flat_map(|(kind, list)| {
        list.as_array()
            .into_iter()
            .flatten()
            .map(move |item| (kind.as_str(), item))
    })
}

fn id(item: &Value, member: &str) -> String {
    item[member]
        .as_str()
        .map(|id| without_pmm_prefix(id).to_owned())
        .unwrap_or_default()
}

/// A client; the lists have different names for whether it is connected.
fn client(item: &Value, connected: &str) -> PmmClient {
    PmmClient {
        node_id: id(item, "runs_on_node_id"),
        node_name: String::new(),
        connected: item[connected] == Value::Bool(true),
        version: Some(text(item, "version")).filter(|version| !version.is_empty()),
    }
}

fn service(kind: &str, item: &Value) -> PmmService {
    let socket = text(item, "socket");
    let (host, port) = (text(item, "address"), text(item, "port"));
    let address = if !socket.is_empty() {
        socket
    } else if port.is_empty() || port == "0" {
        host
    } else {
        format!("{host}:{port}")
    };
    let labels = item["custom_labels"].as_object().into_iter().flatten();
    PmmService {
        name: text(item, "service_name"),
        service_type: plain_word(kind, "SERVICE_TYPE_", "_SERVICE"),
        node_id: id(item, "node_id"),
        environment: text(item, "environment"),
        cluster: text(item, "cluster"),
        replication_set: text(item, "replication_set"),
        address,
        custom_labels: labels
            .map(|(name, value)| (name.clone(), value.as_str().unwrap_or_default().to_owned()))
            .collect(),
    }
}

fn exporter(kind: &str, item: &Value) -> Exporter {
    let service_id = id(item, "service_id");
    let node_id = id(item, "node_id");
    let client = id(item, "pmm_agent_id");
    Exporter {
        exporter_type: kind.to_owned(),
        watches: if service_id.is_empty() {
            node_id
        } else {
            service_id
        },
        client: if client.is_empty() {
            id(item, "runs_on_node_id")
        } else {
            client
        },
        disabled: item["disabled"] == Value::Bool(true),
        push: Some(item["push_metrics_enabled"] == Value::Bool(true)),
        running: plain_word(&text(item, "status"), "AGENT_STATUS_", "") == "running",
    }
}

/// Whether this is the server's own client.
pub fn is_own(client_id: &str, client: &PmmClient) -> bool {
    client_id == SERVER_ID || client.node_id == SERVER_ID
}
