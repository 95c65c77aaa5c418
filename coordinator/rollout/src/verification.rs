//! The three checks of the migration guide: clients current, services there, metrics and Query Analytics flowing.

use fleet_common::verification::{FleetSnapshot, PmmClient, Verification};
use fleet_common::version::PmmVersion;

/// The server's view now beside the baseline. A client whose release the server does not tell is not current.
#[derive(Clone, Copy)]
pub(crate) struct Comparison<'a> {
    pub baseline: &'a FleetSnapshot,
    pub now: &'a FleetSnapshot,
    /// The release that clients must be on.
    pub target: PmmVersion,
    /// Samples from before this prove nothing.
    pub since_ms: u64,
}

impl Comparison<'_> {
    pub fn client_is_current(&self, id: &str) -> bool {
        let client = self.now.clients.get(id);
        client.is_some_and(|client| runs(client, self.target))
    }

    pub fn service_is_there(&self, id: &str) -> bool {
        self.now.services.contains_key(id)
    }

    /// `None` for a service without samples in the baseline.
    pub fn metrics_flow(&self, id: &str) -> Option<bool> {
        let least = self.since_ms.max(*self.baseline.service_samples_ms.get(id)?);
        let newest = self.now.service_samples_ms.get(id);
        Some(newest.is_some_and(|newest| *newest > least))
    }

    /// `None` for a service without queries in the baseline.
    pub fn queries_flow(&self, id: &str) -> Option<bool> {
        let was_active = self.baseline.qan_active.contains(id);
        was_active.then(|| self.now.qan_active.contains(id))
    }
}

/// Compares the server's view now with the baseline. Each `*_checked` counts what the baseline had. Names are those of the baseline.
pub(crate) fn compare(with: &Comparison<'_>) -> Verification {
    let mut result = Verification::default();
    for (id, client) in &with.baseline.clients {
        result.clients_checked += 1;
        if !with.client_is_current(id) {
            result.clients_not_current.push(client.node_name.clone());
        }
    }
    for (id, service) in &with.baseline.services {
        result.services_checked += 1;
        if !with.service_is_there(id) {
            result.services_missing.push(service.name.clone());
        }
        if let Some(flow) = with.metrics_flow(id) {
            result.metrics_checked += 1;
            if !flow {
                result.metrics_stale.push(service.name.clone());
            }
        }
        match with.queries_flow(id) {
            Some(flow) => {
                result.qan_checked += 1;
                if !flow {
                    result.qan_stale.push(service.name.clone());
                }
            }
            None => result.qan_idle.push(service.name.clone()),
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
