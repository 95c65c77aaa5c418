//! The PMM Server through its own API: inventory, samples, Query Analytics, history.

use crate::pmm::{self, Service, ServiceAccount};
use crate::report::Findings;
use crate::wait::{self, Probe};
use anyhow::Result;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// What the server held.
#[derive(Serialize, Deserialize)]
pub struct State {
    /// Release.
    pub version: String,
    /// Services by name.
    pub services: BTreeMap<String, Service>,
    /// Bare client ids and node ids.
    pub clients: BTreeMap<String, String>,
    /// Names of services with samples at the moment of the snapshot.
    pub sampled: BTreeSet<String>,
    /// Services with queries, and how many, in the five minutes before.
    pub queries: BTreeMap<String, f64>,
    /// Fingerprint of the served certificate.
    pub fingerprint: String,
    /// API keys: name and role.
    pub api_keys: BTreeMap<String, String>,
}

/// Looks at the server.
pub fn look() -> Result<State> {
    let now = pmm::now();
    let services = pmm::services()?;
    let mut queries = BTreeMap::new();
    for name in services.keys() {
        queries.insert(name.clone(), pmm::qan_queries(name, now - 300, now)?);
    }
    Ok(State {
        version: pmm::version()?,
        clients: pmm::clients()?
            .into_iter()
            .map(|(id, (node, _))| (id, node))
            .collect(),
        sampled: sampled(None)?,
        queries,
        services,
        fingerprint: pmm::fingerprint()?,
        api_keys: pmm::api_keys()?,
    })
}

/// Names of services with an `up` sample at a moment (Unix seconds), or now.
pub fn sampled(at: Option<u64>) -> Result<BTreeSet<String>> {
    let rows = pmm::query("up", at)?;
    Ok(rows
        .into_iter()
        .filter_map(|(labels, _)| labels.get("service_name").cloned())
        .filter(|name| !name.is_empty() && !name.starts_with("pmm-server"))
        .collect())
}

/// The age in seconds of the newest `up` sample per service.
pub fn sample_ages() -> Result<BTreeMap<String, f64>> {
    let now = pmm::now() as f64;
    let mut ages: BTreeMap<String, f64> = BTreeMap::new();
    for (labels, seconds) in pmm::query("timestamp(up)", None)? {
        if let Some(name) = labels.get("service_name").filter(|name| !name.is_empty()) {
            let age = ages.entry(name.clone()).or_insert(f64::MAX);
            *age = age.min(now - seconds);
        }
    }
    Ok(ages)
}

/// Expectations after the migration.
pub fn compare(before: &State, taken_at: u64, target: &str, findings: &mut Findings) {
    if let Some(version) = findings.take("PMM version", pmm::version()) {
        findings.equal("PMM Server release", &version, &target.to_owned());
    }
    if let Some(services) = findings.take("PMM services", pmm::services()) {
        findings.equal("services in PMM's inventory", &services, &before.services);
    }
    if let Some(clients) = findings.take("PMM clients", pmm::clients()) {
        let ids: BTreeMap<String, String> = clients.into_iter().map(|(id, (node, _))| (id, node)).collect();
        findings.equal("clients in PMM's inventory", &ids, &before.clients);
    }
    if let Some(fingerprint) = findings.take("PMM certificate", pmm::fingerprint()) {
        findings.equal("served certificate", &fingerprint, &before.fingerprint);
    }
    if let Some(old) = findings.take("old samples", sampled(Some(taken_at))) {
        findings.equal(
            "services with samples at a moment before the cut",
            &old,
            &before.sampled,
        );
    }
    if let (Some(keys), Some(accounts)) = (
        findings.take("API keys", pmm::api_keys()),
        findings.take("service accounts", pmm::service_accounts()),
    ) {
        converted(&before.api_keys, &keys, &accounts, findings);
    }
    fresh(&before.sampled, findings);
    for (name, count) in &before.queries {
        if let Some(old) = findings.take("old queries", pmm::qan_queries(name, taken_at - 300, taken_at)) {
            findings.expect(
                (old - count).abs() < 0.5,
                format!("{name}: Query Analytics holds {old} queries from before the cut, was {count}"),
            );
        }
        let since = pmm::now();
        if *count > 0.0 {
            let flowing = wait::until(&format!("new queries of {name}"), 60, || {
                let seen = pmm::qan_queries(name, since, pmm::now() + 1)?;
                Ok(if seen > 0.0 {
                    Probe::Ready(())
                } else {
                    Probe::NotYet("none".into())
                })
            });
            findings.take("Query Analytics", flowing);
        }
    }
}

/// No API key is left, and each became a service account of the same role that holds its one token.
fn converted(
    was: &BTreeMap<String, String>,
    left: &BTreeMap<String, String>,
    accounts: &[ServiceAccount],
    findings: &mut Findings,
) {
    findings.expect(!was.is_empty(), "there was no API key that could be converted");
    findings.equal("API keys that are left", left, &BTreeMap::new());
    let seen: BTreeSet<_> = accounts
        .iter()
        .map(|account| {
            (
                account.key_name().to_owned(),
                account.role.clone(),
                account.tokens,
            )
        })
        .collect();
    let wanted: BTreeSet<_> = was
        .iter()
        .map(|(name, role)| (name.clone(), role.clone(), 1))
        .collect();
    findings.equal("service accounts made of the API keys", &seen, &wanted);
    findings.equal("number of service accounts", &accounts.len(), &was.len());
}

/// Every service that had samples has a sample of the last seconds.
pub fn fresh(sampled: &BTreeSet<String>, findings: &mut Findings) {
    let result = wait::until("fresh samples of every service", 60, || {
        let ages = sample_ages()?;
        let old: Vec<&String> = sampled
            .iter()
            .filter(|name| ages.get(*name).is_none_or(|age| *age > 20.0))
            .collect();
        Ok(if old.is_empty() {
            Probe::Ready(())
        } else {
            Probe::NotYet(format!("stale: {old:?}"))
        })
    });
    findings.take("samples", result);
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn keys(names: &[&str]) -> BTreeMap<String, String> {
        let rows = names.iter().map(|name| ((*name).to_owned(), "Admin".to_owned()));
        rows.collect()
    }

    fn account(name: &str, role: &str, tokens: u64) -> ServiceAccount {
        ServiceAccount {
            name: name.to_owned(),
            role: role.to_owned(),
            tokens,
        }
    }

    #[test]
    fn every_key_must_have_become_an_account() {
        let was = keys(&["deb-a", "tar-b"]);
        let whole = [
            account("deb-a", "Admin", 1),
            account("sa-autogen-tar-b", "Admin", 1),
        ];
        let judge = |left: &[&str], accounts: &[ServiceAccount]| {
            let mut findings = Findings::default();
            converted(&was, &keys(left), accounts, &mut findings);
            findings.finish("keys").is_ok()
        };
        assert!(judge(&[], &whole));
        assert!(!judge(&["tar-b"], &whole));
        assert!(!judge(&[], &whole[..1]));
        assert!(!judge(&[], &[whole[0].clone(), account("tar-b", "Viewer", 1)]));
        assert!(!judge(&[], &[whole[0].clone(), account("tar-b", "Admin", 0)]));
        assert!(!judge(&["deb-a", "tar-b"], &[]));
    }
}
