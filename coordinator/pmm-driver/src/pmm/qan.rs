//! Query Analytics reports.

use super::http::{Pmm, number};
use crate::error::DriverError;
use fleet_common::verification::PmmService;
use futures_util::StreamExt;
use serde_json::json;
use std::collections::{BTreeMap, BTreeSet};

impl Pmm {
    /// Rows of the report between two moments, for one service or for all. The first row is the total, so a period without queries has
    /// none or only that one.
    pub async fn qan_rows(
        &self,
        major: u32,
        from_ms: u64,
        to_ms: u64,
        service: Option<&str>,
    ) -> Result<u64, DriverError> {
        let labels = service
            .map(|name| json!([{"key": "service_name", "value": [name]}]))
            .unwrap_or_else(|| json!([]));
        let body = json!({
            "period_start_from": rfc3339(from_ms),
            "period_start_to": rfc3339(to_ms),
            "group_by": "queryid",
            "labels": labels,
            "columns": ["load", "num_queries", "query_time"],
            "order_by": "-query_time",
            "main_metric": "query_time",
            "offset": 0,
            "limit": 10,
            "search": "",
        });
        let path = if major >= 3 {
            "/v1/qan/metrics:getReport"
        } else {
            "/v0/qan/GetReport"
        };
        let answer = self.post(path, &body).await?;
        let rows = number(&answer["total_rows"]).unwrap_or(0.0);
        Ok(if rows > 0.0 { rows as u64 } else { 0 })
    }

    /// Services with queries between two moments.
    pub async fn qan_active(
        &self,
        major: u32,
        from_ms: u64,
        to_ms: u64,
        services: &BTreeMap<String, PmmService>,
    ) -> Result<BTreeSet<String>, DriverError> {
        // Only these kinds have queries at all.
        let with_queries = services
            .iter()
            .filter(|(_, one)| matches!(one.service_type.as_str(), "mysql" | "mongodb" | "postgresql"));
        let named: Vec<(String, String)> = with_queries
            .map(|(id, one)| (id.clone(), one.name.clone()))
            .collect();
        let mut answers = futures_util::stream::iter(named)
            .map(|(id, name)| async move { (id, self.qan_rows(major, from_ms, to_ms, Some(&name)).await) })
            .buffer_unordered(8);
        let mut active = BTreeSet::new();
        while let Some((id, rows)) = answers.next().await {
            if rows? > 0 {
                active.insert(id);
            }
        }
        Ok(active)
    }
}

fn rfc3339(at_ms: u64) -> String {
    let at = i64::try_from(at_ms)
        .ok()
        .and_then(|at| jiff::Timestamp::from_millisecond(at).ok())
        .unwrap_or_default();
    at.to_string()
}

#[cfg(test)]
mod tests {
    #[test]
    fn moments_are_rfc3339() {
        assert_eq!(super::rfc3339(1_700_000_000_500), "2023-11-14T22:13:20.5Z");
    }
}
