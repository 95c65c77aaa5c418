//! The three checks of the migration guide: clients current, services there, metrics and Query Analytics flowing.

use fleet_common::verification::{FleetSnapshot, PmmClient, Verification};
use fleet_common::version::PmmVersion;

/// Compares the server's view now with the baseline. Each `*_checked` counts what the baseline had. A client whose release the server
/// does not tell is not current. Names are those of the baseline.
pub fn compare(
    baseline: &FleetSnapshot,
    now: &FleetSnapshot,
    target: PmmVersion,
    since_ms: u64,
) -> Verification {
    let mut result = Verification::default();
    for (id, client) in &baseline.clients {
        result.clients_checked += 1;
        if !now.clients.get(id).is_some_and(|client| runs(client, target)) {
            result.clients_not_current.push(client.node_name.clone());
        }
    }
    for (id, service) in &baseline.services {
        result.services_checked += 1;
        if !now.services.contains_key(id) {
            result.services_missing.push(service.name.clone());
        }
        if let Some(before) = baseline.service_samples_ms.get(id) {
            result.metrics_checked += 1;
            let least = since_ms.max(*before);
            if now
                .service_samples_ms
                .get(id)
                .is_none_or(|newest| *newest <= least)
            {
                result.metrics_stale.push(service.name.clone());
            }
        }
        if baseline.qan_active.contains(id) {
            result.qan_checked += 1;
            if !now.qan_active.contains(id) {
                result.qan_stale.push(service.name.clone());
            }
        } else {
            result.qan_idle.push(service.name.clone());
        }
    }
    for names in [
        &mut result.clients_not_current,
        &mut result.services_missing,
        &mut result.metrics_stale,
        &mut result.qan_stale,
        &mut result.qan_idle,
    ] {
        names.sort();
    }
    result
}

/// Whether the server says that this client runs the release.
pub(crate) fn runs(client: &PmmClient, release: PmmVersion) -> bool {
    client
        .version
        .as_deref()
        .is_some_and(|text| PmmVersion::from_package_version(text) == Ok(release))
}
