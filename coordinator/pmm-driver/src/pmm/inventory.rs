//! Nodes, services and what PMM calls agents, in a form that both majors share.

use super::http::{Pmm, text};
use crate::error::DriverError;
use fleet_common::ids::without_pmm_prefix;
use fleet_common::verification::{PmmClient, PmmService};
use futures_util::StreamExt;
use serde_json::{Value, json};
use server_upgrade::baseline::{Exporter, Node, SERVER_ID, plain_word};
use std::collections::BTreeMap;

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
                let node_id = id(item, "runs_on_node_id");
                let node_name = inventory
                    .nodes
                    .get(&node_id)
                    .map(|node| node.name.clone())
                    .unwrap_or_default();
                let connected = item["connected"] == Value::Bool(true);
                inventory.clients.insert(
                    agent_id,
                    PmmClient {
                        node_id,
                        node_name,
                        connected,
                        version: None,
                    },
                );
            } else {
                inventory.agents.insert(agent_id, exporter(kind, item));
            }
        }
        Ok(inventory)
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
            .buffer_unordered(8);
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
