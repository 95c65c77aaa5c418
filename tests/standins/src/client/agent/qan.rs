//! Query Analytics: one bucket per query and medium resolution, kept in memory until the server takes it.

use super::shared::{Inner, Shared};
use crate::client::{clock, fault};
use crate::wire::{AgentSpec, Bucket};
use std::fs::File;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

/// How many buckets wait in memory before the oldest are lost.
const KEPT: usize = 20_000;
/// Where the slow log of a MySQL service lies, behind the configured prefix.
const SLOW_LOG: &str = "/var/log/mysql/mysql-slow.log";
/// A service with this label is never queried.
const IDLE_LABEL: &str = "standin_idle";

/// Collects for the life of the process.
pub fn spawn(shared: Arc<Shared>) {
    thread::spawn(move || {
        let mut last = 0;
        loop {
            clock::pause(Duration::from_millis(200));
            let mut inner = shared.lock();
            let period = inner.resolutions.mr.max(1);
            let start = clock::unix_ms() / 1000 / period * period;
            if start == last || last == 0 {
                last = start;
                continue;
            }
            let collected = collect(&inner, last, shared.release.is_v3());
            last = start;
            if !fault::asked(&shared.release, "no-qan") {
                inner.buckets.extend(collected);
            }
            let excess = inner.buckets.len().saturating_sub(KEPT);
            inner.buckets.drain(..excess);
        }
    });
}

/// True for the agents that live inside `pmm-agent`.
pub fn is_builtin(agent_type: &str) -> bool {
    agent_type.starts_with("qan_") || agent_type.starts_with("rta_")
}

/// The state of a built-in agent: a slow log that exists but may not be read leaves its collector waiting.
pub fn status(spec: &AgentSpec, prefix: &str) -> &'static str {
    if spec.agent_type != "qan_mysql_slowlog_agent" {
        return "RUNNING";
    }
    match File::open(format!("{prefix}{SLOW_LOG}")) {
        Err(e) if e.kind() == std::io::ErrorKind::PermissionDenied => "WAITING",
        _ => "RUNNING",
    }
}

fn collect(inner: &Inner, period_start: u64, v3: bool) -> Vec<Bucket> {
    let mut buckets = Vec::new();
    for spec in inner.desired.iter().flatten() {
        let running = inner
            .agents
            .get(&spec.agent_id)
            .is_some_and(|a| a.status == "RUNNING");
        if !is_builtin(&spec.agent_type) || !running || spec.custom_labels.contains_key(IDLE_LABEL) {
            continue;
        }
        for (index, fingerprint) in fingerprints(&spec.agent_type).iter().enumerate() {
            #[allow(clippy::cast_precision_loss)]
            let count = (3 + index * 4) as f64 + (period_start % 5) as f64;
            buckets.push(Bucket {
                agent_id: spec.agent_id.clone(),
                service_id: spec.service_id.clone(),
                queryid: query_id(fingerprint, v3),
                fingerprint: (*fingerprint).to_string(),
                num_queries: count,
                query_time: count * 0.012,
                period_start,
            });
        }
    }
    buckets
}

fn fingerprints(agent_type: &str) -> &'static [&'static str] {
    if agent_type.contains("mongodb") {
        &[
            "db.orders.find({\"customer\":\"?\"})",
            "db.orders.aggregate([{\"$group\":\"?\"}])",
        ]
    } else if agent_type.contains("postgresql") {
        &[
            "SELECT * FROM accounts WHERE id = $1",
            "UPDATE accounts SET balance = balance + $1 WHERE id = $2",
        ]
    } else {
        &[
            "SELECT c FROM sbtest1 WHERE id = ?",
            "UPDATE sbtest1 SET k = k + ? WHERE id = ?",
            "COMMIT",
        ]
    }
}

/// PMM 2 names a query by 16 characters, PMM 3 by 32, so ids can't be compared across the upgrade.
fn query_id(fingerprint: &str, v3: bool) -> String {
    use sha2::{Digest, Sha256};
    let digest = hex::encode_upper(Sha256::digest(fingerprint.as_bytes()));
    digest[..if v3 { 32 } else { 16 }].to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn query_ids_change_length_with_the_major() {
        assert_eq!((query_id("a", false).len(), query_id("a", true).len()), (16, 32));
        assert!(query_id("a", true).starts_with(&query_id("a", false)));
    }

    #[test]
    fn an_unreadable_slow_log_is_only_the_slow_log_agents_concern() {
        let spec = |kind: &str| AgentSpec {
            agent_id: "a".into(),
            agent_type: kind.into(),
            service_id: String::new(),
            service_name: String::new(),
            custom_labels: Default::default(),
        };
        assert_eq!(status(&spec("qan_mysql_perfschema_agent"), "/nowhere"), "RUNNING");
        assert_eq!(status(&spec("qan_mysql_slowlog_agent"), "/nowhere"), "RUNNING");
        assert!(is_builtin("qan_mongodb_profiler_agent") && !is_builtin("mysqld_exporter"));
    }
}
