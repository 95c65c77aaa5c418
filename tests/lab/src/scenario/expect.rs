//! What a report must say when the migration went through.

use crate::fleet::HOSTS;
use crate::pmm;
use crate::report::{Findings, Report};
use crate::verify::Snapshot;
use anyhow::Result;

/// The whole fleet is on the target and the three checks hold.
pub fn migrated(report: &Report, exit: i32, hops: &[&str], before: &Snapshot) -> Result<()> {
    let mut findings = Findings::default();
    findings.equal("exit status of watch", &exit, &0);
    findings.equal("outcome", &report.text("/outcome"), &"succeeded".to_owned());
    findings.equal(
        "server outcome",
        &report.text("/server/outcome"),
        &"upgraded".to_owned(),
    );
    findings.equal("server from", &report.text("/server/from"), &"2.41.2".to_owned());
    findings.equal(
        "server to",
        &report.text("/server/to"),
        &hops.last().copied().unwrap_or_default().to_owned(),
    );
    findings.equal(
        "hops",
        &report.list("/server/hops"),
        &hops.iter().map(|hop| (*hop).to_owned()).collect(),
    );
    findings.equal(
        "restore points",
        &report.list("/server/restore_points").len(),
        &hops.len(),
    );
    findings.expect(
        report
            .0
            .pointer("/server/downtime_s")
            .is_some_and(|value| value.as_f64().is_some_and(|s| s > 0.0)),
        "downtime is not above zero",
    );
    findings.equal("host rows", &report.hosts().len(), &HOSTS.len());
    for host in &HOSTS {
        let Some(row) = findings.take(host.name, report.host(host.name)) else {
            continue;
        };
        for (key, wanted) in [
            ("outcome", "upgraded"),
            ("method", host.kind.method()),
            ("group", host.group),
            ("from", "2.41.2"),
            ("to", "3.9.1"),
        ] {
            findings.equal(
                &format!("{} {key}", host.name),
                &row[key].as_str().unwrap_or_default(),
                &wanted,
            );
        }
    }
    checks(report, before, &mut findings);
    findings.finish("the report")
}

/// PMM still has every service and every client of before, with their ids.
pub fn services_and_clients(before: &Snapshot, findings: &mut Findings) {
    if let Some(services) = findings.take("PMM services", pmm::services()) {
        findings.equal("services", &services, &before.server.services);
    }
    if let Some(clients) = findings.take("PMM clients", pmm::clients()) {
        let ids = clients.into_iter().map(|(id, (node, _))| (id, node)).collect();
        findings.equal("clients", &ids, &before.server.clients);
    }
}

/// The three checks of the migration guide.
pub fn checks(report: &Report, before: &Snapshot, findings: &mut Findings) {
    let services = before.server.services.len() as u64;
    let querying = before
        .server
        .queries
        .values()
        .filter(|count| **count > 0.0)
        .count() as u64;
    let idle: Vec<String> = before
        .server
        .queries
        .iter()
        .filter(|(_, count)| **count == 0.0)
        .map(|(name, _)| name.clone())
        .collect();
    let wanted = [
        ("clients", before.server.clients.len() as u64),
        ("services", services),
        ("metrics", before.server.sampled.len() as u64),
        ("qan", querying),
    ];
    for (name, count) in wanted {
        let seen = report.number(&format!("/verification/{name}_checked"));
        findings.expect(seen > 0, format!("{name}_checked is zero"));
        findings.equal(&format!("{name}_checked"), &seen, &count);
    }
    findings.equal("qan_idle", &report.list("/verification/qan_idle"), &idle);
    for name in [
        "clients_not_current",
        "services_missing",
        "metrics_stale",
        "qan_stale",
    ] {
        findings.equal(name, &report.list(&format!("/verification/{name}")), &Vec::new());
    }
}
