//! PMM's own view of the fleet, and the three checks of the migration guide: all clients current, all services reporting, metrics and
//! Query Analytics flowing.

use crate::version::PmmVersion;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// The PMM Server's inventory at one moment, ids without prefixes; all of it, or of some nodes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FleetSnapshot {
    /// The nodes (by id) that were looked at; `None` for the whole fleet. A look at some nodes says nothing about any other, about backups
    /// and about addresses, and may leave the names of its nodes empty: [`FleetSnapshot::take_over`] keeps what is known of these.
    #[serde(default)]
    pub scope: Option<BTreeSet<String>>,
    /// Unix milliseconds.
    pub taken_at_ms: u64,
    /// Release of the server.
    pub server_version: Option<PmmVersion>,
    /// Clients by agent id; the server's own client is left out.
    pub clients: BTreeMap<String, PmmClient>,
    /// Services by service id; the server's own are left out.
    pub services: BTreeMap<String, PmmService>,
    /// Newest sample per service id, Unix milliseconds of the sample; services without any sample in the last five minutes are absent.
    pub service_samples_ms: BTreeMap<String, u64>,
    /// The same per node id, from the node's own exporter.
    pub node_samples_ms: BTreeMap<String, u64>,
    /// Start of the window that `qan_active` looks at, Unix milliseconds; 0 where queries were not asked for.
    pub qan_from_ms: u64,
    /// Services (by id) that had queries between `qan_from_ms` and `taken_at_ms`.
    pub qan_active: BTreeSet<String>,
    /// Nodes (by id) with PMM-run database backups scheduled.
    pub backups_scheduled_on: BTreeSet<String>,
    /// Nodes (by id) on which PMM runs a database backup or restore now.
    #[serde(default)]
    pub backups_running_on: BTreeSet<String>,
    /// Addresses of nodes (by id), where PMM knows one.
    #[serde(default)]
    pub node_addresses: BTreeMap<String, String>,
}

impl FleetSnapshot {
    /// Whether it says something about a node.
    pub fn covers(&self, node: &str) -> bool {
        self.scope.as_ref().is_none_or(|scope| scope.contains(node))
    }

    /// What it says about these nodes, as a look at them alone finds it.
    pub fn of_nodes(&self, nodes: &BTreeSet<String>) -> Self {
        let clients = self
            .clients
            .iter()
            .filter(|(_, one)| nodes.contains(&one.node_id));
        let services: BTreeMap<String, PmmService> = (self.services.iter())
            .filter(|(_, one)| nodes.contains(&one.node_id))
            .map(|(id, one)| (id.clone(), one.clone()))
            .collect();
        let samples = |all: &BTreeMap<String, u64>, is_theirs: &dyn Fn(&str) -> bool| {
            let theirs = all.iter().filter(|(id, _)| is_theirs(id));
            theirs.map(|(id, at)| (id.clone(), *at)).collect()
        };
        Self {
            scope: Some(nodes.iter().filter(|node| self.covers(node)).cloned().collect()),
            taken_at_ms: self.taken_at_ms,
            server_version: self.server_version,
            clients: clients.map(|(id, one)| (id.clone(), one.clone())).collect(),
            service_samples_ms: samples(&self.service_samples_ms, &|id| services.contains_key(id)),
            node_samples_ms: samples(&self.node_samples_ms, &|node| nodes.contains(node)),
            qan_from_ms: self.qan_from_ms,
            qan_active: (self.qan_active.iter())
                .filter(|id| services.contains_key(*id))
                .cloned()
                .collect(),
            services,
            backups_scheduled_on: BTreeSet::new(),
            backups_running_on: BTreeSet::new(),
            node_addresses: BTreeMap::new(),
        }
    }

    /// Takes over what a later look found. One at the whole fleet takes the place of everything; one at some nodes takes the place of what
    /// was known of these, so that what is gone there is gone here. Where it did not ask for queries, the services that are still there keep
    /// what was known. `taken_at_ms` and `qan_from_ms` stay those of the look at the rest.
    pub fn take_over(&mut self, later: Self) {
        let Some(nodes) = &later.scope else {
            *self = later;
            return;
        };
        // Of a large fleet only a few nodes are looked at: what is known of these is found in one walk each and taken out by its id.
        let ids = |of: &mut dyn Iterator<Item = (&String, &String)>| -> Vec<String> {
            of.filter(|(_, node)| nodes.contains(*node))
                .map(|(id, _)| id.clone())
                .collect()
        };
        let clients = ids(&mut self.clients.iter().map(|(id, one)| (id, &one.node_id)));
        let gone = ids(&mut self.services.iter().map(|(id, one)| (id, &one.node_id)));
        let clients = clients.iter().filter_map(|id| self.clients.remove(id));
        let names: BTreeMap<String, String> = clients.map(|one| (one.node_id, one.node_name)).collect();
        let asked = later.qan_from_ms > 0;
        for id in &gone {
            self.services.remove(id);
            self.service_samples_ms.remove(id);
            if asked || !later.services.contains_key(id) {
                self.qan_active.remove(id);
            }
        }
        for node in nodes {
            self.node_samples_ms.remove(node);
        }
        for (id, mut client) in later.clients {
            if client.node_name.is_empty()
                && let Some(name) = names.get(&client.node_id)
            {
                client.node_name.clone_from(name);
            }
            self.clients.insert(id, client);
        }
        self.services.extend(later.services);
        self.service_samples_ms.extend(later.service_samples_ms);
        self.node_samples_ms.extend(later.node_samples_ms);
        if asked {
            self.qan_active.extend(later.qan_active);
        }
        self.server_version = later.server_version.or(self.server_version);
        if let (Some(scope), Some(nodes)) = (&mut self.scope, later.scope) {
            scope.extend(nodes);
        }
    }
}

/// A `pmm-agent` as the server knows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PmmClient {
    /// Node it runs on, without prefix.
    pub node_id: String,
    /// Name of that node.
    pub node_name: String,
    /// What the server says; a hint, not proof.
    pub connected: bool,
    /// Last reported release, where the server tells.
    pub version: Option<String>,
}

/// A monitored service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PmmService {
    /// Unique name.
    pub name: String,
    /// Lower-case type without prefix and suffix, such as `mysql`.
    pub service_type: String,
    /// Node it runs on, without prefix.
    pub node_id: String,
    /// PMM's label.
    pub environment: String,
    /// PMM's label.
    pub cluster: String,
    /// PMM's label.
    pub replication_set: String,
    /// `address:port` or socket.
    pub address: String,
    /// Operator's labels.
    pub custom_labels: BTreeMap<String, String>,
}

/// The three checks, as they stand in the report.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verification {
    /// Clients of the baseline that were looked at.
    pub clients_checked: u32,
    /// Services of the baseline that were looked at.
    pub services_checked: u32,
    /// Services whose metrics were looked at.
    pub metrics_checked: u32,
    /// Services that had queries in the hour before and whose Query Analytics were looked at; idle ones are not counted.
    pub qan_checked: u32,
    /// Services without queries in the hour before: listed, not passed.
    pub qan_idle: Vec<String>,
    /// Clients whose release is not the target.
    pub clients_not_current: Vec<String>,
    /// Services of the baseline that the server no longer lists.
    pub services_missing: Vec<String>,
    /// Services with samples before and none now.
    pub metrics_stale: Vec<String>,
    /// Services with queries before and none now.
    pub qan_stale: Vec<String>,
}

impl Verification {
    /// Whether all three checks hold.
    pub fn holds(&self) -> bool {
        self.clients_not_current.is_empty()
            && self.services_missing.is_empty()
            && self.metrics_stale.is_empty()
            && self.qan_stale.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One client and one service per node, all alive.
    fn view(nodes: &[&str], at: u64) -> FleetSnapshot {
        let mut view = FleetSnapshot {
            taken_at_ms: at,
            server_version: Some(PmmVersion::new(3, 9, 1)),
            qan_from_ms: 1,
            ..FleetSnapshot::default()
        };
        for node in nodes {
            let client = PmmClient {
                node_id: (*node).to_owned(),
                node_name: format!("db-{node}"),
                connected: true,
                version: None,
            };
            let service = PmmService {
                name: format!("mysql-{node}"),
                service_type: "mysql".to_owned(),
                node_id: (*node).to_owned(),
                environment: String::new(),
                cluster: String::new(),
                replication_set: String::new(),
                address: String::new(),
                custom_labels: BTreeMap::new(),
            };
            view.clients.insert(format!("a{node}"), client);
            view.services.insert(format!("s{node}"), service);
            view.service_samples_ms.insert(format!("s{node}"), at);
            view.node_samples_ms.insert((*node).to_owned(), at);
            view.qan_active.insert(format!("s{node}"));
            view.backups_scheduled_on.insert((*node).to_owned());
            view.node_addresses
                .insert((*node).to_owned(), "10.0.0.1".to_owned());
        }
        view
    }

    fn set(items: &[&str]) -> BTreeSet<String> {
        items.iter().map(|item| (*item).to_owned()).collect()
    }

    #[test]
    fn a_part_is_what_it_is_of_and_laid_over_its_whole_changes_nothing() {
        let whole = view(&["1", "2", "3"], 10);
        let part = whole.of_nodes(&set(&["1", "3", "4"]));
        assert!(part.covers("1") && part.covers("4") && !part.covers("2"));
        assert_eq!(part.clients.len(), 2);
        assert_eq!(part.qan_active, set(&["s1", "s3"]));
        assert_eq!(part.of_nodes(&set(&["2", "3"])).scope, Some(set(&["3"])));
        let mut again = whole.clone();
        again.take_over(part);
        assert_eq!(again, whole);
    }

    #[test]
    fn what_is_gone_from_a_node_is_gone_and_other_nodes_stay_as_they_are() {
        let mut known = view(&["1", "2"], 10);
        let mut later = view(&["1"], 20).of_nodes(&set(&["1"]));
        later.services.clear();
        later.service_samples_ms.clear();
        later.qan_active.clear();
        if let Some(client) = later.clients.get_mut("a1") {
            client.node_name.clear();
            client.connected = false;
        }
        known.take_over(later);
        assert_eq!(known.services.keys().collect::<Vec<_>>(), ["s2"]);
        assert_eq!(known.service_samples_ms, [("s2".to_owned(), 10)].into());
        assert_eq!(known.qan_active, set(&["s2"]));
        assert_eq!(known.node_samples_ms["1"], 20);
        assert!(!known.clients["a1"].connected && known.clients["a2"].connected);
        assert_eq!(known.clients["a1"].node_name, "db-1", "its name is known");
        assert_eq!(known.backups_scheduled_on, set(&["1", "2"]));
        assert_eq!((known.taken_at_ms, known.scope), (10, None));
    }

    #[test]
    fn who_did_not_ask_for_queries_says_nothing_of_them() {
        let mut known = view(&["1"], 10);
        let quiet = FleetSnapshot {
            qan_from_ms: 0,
            qan_active: BTreeSet::new(),
            ..view(&["1"], 20).of_nodes(&set(&["1"]))
        };
        known.take_over(quiet.clone());
        assert_eq!(known.qan_active, set(&["s1"]));
        known.take_over(FleetSnapshot {
            qan_from_ms: 15,
            ..quiet
        });
        assert_eq!(known.qan_active, set(&[]));
    }

    #[test]
    fn a_later_look_at_the_fleet_takes_the_place_of_everything_and_parts_add_up() {
        let mut known = view(&["1", "2"], 10).of_nodes(&set(&["1"]));
        known.take_over(view(&["1", "2"], 20).of_nodes(&set(&["2"])));
        assert_eq!(known.scope, Some(set(&["1", "2"])));
        assert_eq!(known.clients.len(), 2);
        known.take_over(view(&["3"], 30));
        assert_eq!(known, view(&["3"], 30));
    }
}
