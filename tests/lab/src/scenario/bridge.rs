//! Server to a release that still takes PMM 2 clients, clients, server to the target, clients.

use super::expect;
use crate::fleet::HOSTS;
use crate::report::{Findings, Report};
use crate::verify::Snapshot;
use anyhow::Result;

/// Four hops, two client legs, everything current at the end.
pub fn check(report: &Report, exit: i32, before: &Snapshot) -> Result<()> {
    expect::migrated(report, exit, &["2.44.1", "3.2.0", "3.7.1", "3.9.1"], before)?;
    let mut findings = Findings::default();
    for host in &HOSTS {
        let Some(row) = findings.take(host.name, report.host(host.name)) else {
            continue;
        };
        let legs = row["legs"].as_array().cloned().unwrap_or_default();
        let upgraded: Vec<String> = legs
            .iter()
            .filter(|leg| leg["outcome"] == "upgraded")
            .filter_map(|leg| leg["to"].as_str().map(str::to_owned))
            .collect();
        findings.equal(
            &format!("{}: releases by leg", host.name),
            &upgraded,
            &vec!["3.2.0".to_owned(), "3.9.1".to_owned()],
        );
    }
    findings.finish("bridge")
}
