//! PMM's own view of the fleet, and the baseline of a hop.

use crate::clock::now_ms;
use crate::error::DriverError;
use crate::pmm::Pmm;
use crate::pmm::inventory::{Inventory, is_own};
use fleet_common::verification::{FleetSnapshot, PmmClient, PmmService};
use fleet_common::version::PmmVersion;
use server_upgrade::baseline::SERVER_ID;
use std::collections::{BTreeMap, BTreeSet};

/// Samples older than this are none.
const FRESH_MS: u64 = 300_000;

/// Takes a snapshot of either major.
pub async fn take(pmm: &Pmm, qan_from_ms: u64) -> Result<FleetSnapshot, DriverError> {
    let version = pmm.version().await?.version;
    let inventory = pmm.inventory(version.major).await?;
    from_inventory(pmm, version, inventory, qan_from_ms).await
}

/// Clients and services of either major, and nothing that has to be asked for one by one.
pub async fn list(pmm: &Pmm) -> Result<FleetSnapshot, DriverError> {
    let version = pmm.version().await?.version;
    let inventory = pmm.inventory(version.major).await?;
    Ok(listed(now_ms(), version, inventory.clients, inventory.services))
}

/// A snapshot of some nodes of either major, by questions for these nodes.
pub async fn of_nodes(
    pmm: &Pmm,
    nodes: &BTreeSet<String>,
    qan_from_ms: u64,
) -> Result<FleetSnapshot, DriverError> {
    let version = pmm.version().await?.version;
    let now = now_ms();
    let part = pmm.inventory_of(version.major, nodes).await?;
    let mut snapshot = FleetSnapshot {
        scope: Some(nodes.clone()),
        qan_from_ms,
        ..listed(now, version, part.clients, part.services)
    };
    flowing(pmm, version.major, &mut snapshot).await?;
    Ok(snapshot)
}

/// Fills in what arrives: samples, and queries if they are asked for. Asks for nothing outside of the snapshot's scope.
async fn flowing(pmm: &Pmm, major: u32, snapshot: &mut FleetSnapshot) -> Result<(), DriverError> {
    let oldest = snapshot.taken_at_ms.saturating_sub(FRESH_MS);
    let scope = snapshot.scope.as_ref();
    let mut services = pmm.newest_samples("service_id", scope).await?;
    services.retain(|id, at| *at >= oldest && snapshot.services.contains_key(id));
    let mut nodes = pmm.newest_samples("node_id", scope).await?;
    nodes.retain(|id, at| *at >= oldest && id != SERVER_ID && snapshot.covers(id));
    (snapshot.service_samples_ms, snapshot.node_samples_ms) = (services, nodes);
    if snapshot.qan_from_ms > 0 {
        snapshot.qan_active = pmm
            .qan_active(
                major,
                snapshot.qan_from_ms,
                snapshot.taken_at_ms,
                &snapshot.services,
            )
            .await?;
    }
    Ok(())
}

/// A snapshot of an inventory alone; the server's own client and services are left out.
fn listed(
    now: u64,
    version: PmmVersion,
    mut clients: BTreeMap<String, PmmClient>,
    mut services: BTreeMap<String, PmmService>,
) -> FleetSnapshot {
    clients.retain(|id, client| !is_own(id, client));
    services.retain(|_, service| service.node_id != SERVER_ID);
    FleetSnapshot {
        taken_at_ms: now,
        server_version: Some(version),
        clients,
        services,
        ..FleetSnapshot::default()
    }
}

/// Fills a snapshot around an inventory that was read already.
pub async fn from_inventory(
    pmm: &Pmm,
    version: PmmVersion,
    inventory: Inventory,
    qan_from_ms: u64,
) -> Result<FleetSnapshot, DriverError> {
    let major = version.major;
    let now = now_ms();
    let Inventory {
        nodes,
        clients,
        services,
        ..
    } = inventory;
    let mut snapshot = FleetSnapshot {
        qan_from_ms,
        ..listed(now, version, clients, services)
    };
    pmm.client_versions(major, &mut snapshot.clients).await?;
    flowing(pmm, major, &mut snapshot).await?;
    snapshot.node_samples_ms.retain(|id, _| nodes.contains_key(id));
    snapshot.node_addresses = nodes
        .iter()
        .filter(|(id, node)| *id != SERVER_ID && !node.address.is_empty())
        .map(|(id, node)| (id.clone(), node.address.clone()))
        .collect();
    let backups = pmm.backups(major).await;
    for (services, nodes) in [
        (&backups.scheduled, &mut snapshot.backups_scheduled_on),
        (&backups.running, &mut snapshot.backups_running_on),
    ] {
        nodes.extend(
            services
                .iter()
                .filter_map(|id| Some(snapshot.services.get(id)?.node_id.clone())),
        );
    }
    Ok(snapshot)
}
