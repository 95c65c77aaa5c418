//! The three checks of the migration guide: clients current, services there, metrics and Query Analytics flowing.

use crate::beside::Beside;
use fleet_common::verification::{FleetSnapshot, PmmClient, PmmService, Verification};
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

/// A service of the baseline as it is now.
pub(crate) struct ServiceNow {
    /// The server still lists it.
    pub is_there: bool,
    /// `None` for a service without samples in the baseline.
    pub metrics_flow: Option<bool>,
    /// `None` for a service without queries in the baseline.
    pub queries_flow: Option<bool>,
}

impl<'a> Comparison<'a> {
    /// The clients of the baseline, and whether each is current.
    pub fn clients(&self) -> impl Iterator<Item = (&'a PmmClient, bool)> {
        let target = self.target;
        let mut now = Beside::new(self.now.clients.iter());
        self.baseline.clients.iter().map(move |(id, client)| {
            let found = now.find(id);
            (client, found.is_some_and(|found| runs(found, target)))
        })
    }

    /// The services of the baseline, and how each is now.
    pub fn services(&self) -> impl Iterator<Item = (&'a PmmService, ServiceNow)> {
        let (baseline, now, since_ms) = (self.baseline, self.now, self.since_ms);
        let mut listed = Beside::new(now.services.iter());
        let mut sampled_before = Beside::new(baseline.service_samples_ms.iter());
        let mut sampled = Beside::new(now.service_samples_ms.iter());
        let mut active_before = Beside::new(baseline.qan_active.iter().map(|id| (id, ())));
        let mut active = Beside::new(now.qan_active.iter().map(|id| (id, ())));
        baseline.services.iter().map(move |(id, service)| {
            let newest = sampled.find(id);
            let is_active = active.find(id).is_some();
            let state = ServiceNow {
                is_there: listed.find(id).is_some(),
                metrics_flow: (sampled_before.find(id))
                    .map(|before| newest.is_some_and(|newest| newest > before.max(&since_ms))),
                queries_flow: active_before.find(id).map(|()| is_active),
            };
            (service, state)
        })
    }
}

/// Compares the server's view now with the baseline. Each `*_checked` counts what the baseline had. Names are those of the baseline.
pub(crate) fn compare(with: &Comparison<'_>) -> Verification {
    let mut result = Verification::default();
    for (client, current) in with.clients() {
        result.clients_checked += 1;
        if !current {
            result.clients_not_current.push(client.node_name.clone());
        }
    }
    for (service, now) in with.services() {
        result.services_checked += 1;
        if !now.is_there {
            result.services_missing.push(service.name.clone());
        }
        if let Some(flow) = now.metrics_flow {
            result.metrics_checked += 1;
            if !flow {
                result.metrics_stale.push(service.name.clone());
            }
        }
        match now.queries_flow {
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

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::{BTreeMap, BTreeSet};

    fn service() -> PmmService {
        PmmService {
            name: String::new(),
            service_type: String::new(),
            node_id: String::new(),
            environment: String::new(),
            cluster: String::new(),
            replication_set: String::new(),
            address: String::new(),
            custom_labels: BTreeMap::new(),
        }
    }

    fn view(services: Vec<u8>, samples: &BTreeMap<u8, u64>, active: &BTreeSet<u8>) -> FleetSnapshot {
        let id = |number: &u8| format!("s{number}");
        FleetSnapshot {
            services: services.iter().map(|number| (id(number), service())).collect(),
            service_samples_ms: samples.iter().map(|(number, at)| (id(number), *at)).collect(),
            qan_active: active.iter().map(id).collect(),
            ..FleetSnapshot::default()
        }
    }

    proptest! {
        /// A walk side by side says of each service what a search for it would.
        #[test]
        fn a_walk_beside_another_finds_what_a_search_finds(
            services in prop::collection::vec(prop::collection::vec(0_u8..30, 0..20), 2),
            samples in prop::collection::vec(prop::collection::btree_map(0_u8..30, 0_u64..9, 0..20), 2),
            active in prop::collection::vec(prop::collection::btree_set(0_u8..30, 0..20), 2),
            since_ms in 0_u64..9,
        ) {
            let of = |at: usize| view(services[at].clone(), &samples[at], &active[at]);
            let (baseline, now) = (of(0), of(1));
            let with = Comparison { baseline: &baseline, now: &now, target: PmmVersion::new(3, 9, 1), since_ms };
            for ((_, found), id) in with.services().zip(baseline.services.keys()) {
                let newest = now.service_samples_ms.get(id);
                let before = baseline.service_samples_ms.get(id);
                let flows = before.map(|before| newest.is_some_and(|newest| newest > before && *newest > since_ms));
                prop_assert_eq!(found.is_there, now.services.contains_key(id));
                prop_assert_eq!(found.metrics_flow, flows);
                let was_active = baseline.qan_active.contains(id);
                prop_assert_eq!(found.queries_flow, was_active.then(|| now.qan_active.contains(id)));
            }
            prop_assert_eq!(with.services().count(), baseline.services.len());
        }
    }
}
