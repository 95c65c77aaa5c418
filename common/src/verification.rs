//! PMM's own view of the fleet, and the three checks of the migration guide: all clients current, all services reporting, metrics and
//! Query Analytics flowing.

use crate::version::PmmVersion;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// The PMM Server's inventory at one moment, ids without prefixes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FleetSnapshot {
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
    /// Start of the window that `qan_active` looks at, Unix milliseconds.
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
