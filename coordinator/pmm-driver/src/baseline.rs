//! Reads what a hop is compared by.

use crate::clock::now_ms;
use crate::docker::Docker;
use crate::error::DriverError;
use crate::pmm::Pmm;
use crate::snapshot;
use fleet_common::digest::sha256_hex;
use server_upgrade::baseline::{Baseline, HISTORY_MOMENTS_MS, HistoryProbe, KEPT_FILES, QanProbe, settings};
use std::collections::BTreeMap;

/// How many series there were, by the metric that every exporter has.
const HISTORY_QUERY: &str = "count(up)";
/// How far back queries are counted.
const QAN_WINDOW_MS: u64 = 12 * 3_600_000;
/// The window ends this long before the baseline: later buckets may still be on their way.
const QAN_MARGIN_MS: u64 = 60_000;

/// The digests of the files that stay as they are; their text is not kept.
async fn files(docker: &Docker, container: &str) -> Result<BTreeMap<String, String>, DriverError> {
    let mut found = BTreeMap::new();
    for path in KEPT_FILES {
        if let Some(text) = docker.read_file(container, path).await? {
            found.insert((*path).to_owned(), sha256_hex(text.as_bytes()));
        }
    }
    Ok(found)
}

/// Takes the baseline before a hop.
pub async fn before(pmm: &Pmm, docker: &Docker, container: &str) -> Result<Baseline, DriverError> {
    let now = now_ms();
    let history = HISTORY_MOMENTS_MS
        .iter()
        .map(|ago| HistoryProbe {
            query: HISTORY_QUERY.to_owned(),
            at_ms: now.saturating_sub(*ago),
            series: 0,
        })
        .collect();
    let qan = vec![QanProbe {
        from_ms: now.saturating_sub(QAN_WINDOW_MS),
        to_ms: now.saturating_sub(QAN_MARGIN_MS),
        rows: 0,
    }];
    let mut baseline = read(pmm, history, qan, None).await?;
    // A moment without samples proves nothing later.
    baseline.history.retain(|probe| probe.series > 0);
    baseline.qan.retain(|probe| probe.rows > 0);
    baseline.files = files(docker, container).await?;
    Ok(baseline)
}

/// Reads the same from the new PMM, at the moments of the old baseline.
pub async fn after(
    pmm: &Pmm,
    docker: &Docker,
    container: &str,
    old: &Baseline,
) -> Result<Baseline, DriverError> {
    let mut baseline = read(pmm, old.history.clone(), old.qan.clone(), Some(old)).await?;
    baseline.files = files(docker, container).await?;
    Ok(baseline)
}

async fn read(
    pmm: &Pmm,
    mut history: Vec<HistoryProbe>,
    mut qan: Vec<QanProbe>,
    old: Option<&Baseline>,
) -> Result<Baseline, DriverError> {
    let version = pmm.version().await?.version;
    let major = version.major;
    let inventory = pmm.inventory(major).await?;
    for probe in &mut history {
        probe.series = pmm.count_at(&probe.query, probe.at_ms).await?;
    }
    for probe in &mut qan {
        probe.rows = pmm.qan_rows(major, probe.from_ms, probe.to_ms, None).await?;
    }
    // What could not be counted before has nothing to be compared with.
    let grafana = pmm
        .grafana_counts(|what| old.is_none_or(|old| old.grafana.contains_key(what)))
        .await?;
    let mut baseline = Baseline {
        taken_at_ms: now_ms(),
        version: Some(version),
        nodes: inventory.nodes.clone(),
        services: inventory.services.clone(),
        agents: inventory.agents.clone(),
        settings: settings(&pmm.settings(major).await?, major),
        history,
        qan,
        grafana,
        ..Baseline::default()
    };
    if old.is_none() {
        baseline.fleet = snapshot::from_inventory(pmm, version, inventory, 0).await?;
    }
    Ok(baseline)
}
