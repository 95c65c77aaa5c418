//! Samples through the Prometheus API.

use super::http::{Pmm, number};
use crate::error::DriverError;
use fleet_common::ids::without_pmm_prefix;
use std::collections::BTreeMap;

/// One series of an instant query.
pub struct Point {
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// Value.
    pub value: f64,
}

impl Pmm {
    /// An instant query, at a moment or now.
    pub async fn query(&self, query: &str, at_ms: Option<u64>) -> Result<Vec<Point>, DriverError> {
        let mut path = format!("/prometheus/api/v1/query?query={}", percent(query));
        if let Some(at) = at_ms {
            path.push_str(&format!("&time={}.{:03}", at / 1000, at % 1000));
        }
        let answer = self.get(&path).await?;
        let mut out = Vec::new();
        for one in answer["data"]["result"].as_array().into_iter().flatten() {
            let labels = one["metric"].as_object().into_iter().flatten();
            let Some(value) = number(&one["value"][1]) else {
                continue;
            };
            out.push(Point {
                labels: labels
                    .map(|(name, value)| (name.clone(), value.as_str().unwrap_or_default().to_owned()))
                    .collect(),
                value,
            });
        }
        Ok(out)
    }

    /// The newest sample per value of a label, Unix milliseconds; ids without prefix, since old series carry PMM 2's form.
    pub async fn newest_samples(&self, label: &str) -> Result<BTreeMap<String, u64>, DriverError> {
        let points = self
            .query(
                &format!("max by ({label}) (timestamp(up{{{label}!=\"\"}}))"),
                None,
            )
            .await?;
        let mut out: BTreeMap<String, u64> = BTreeMap::new();
        for point in points {
            let Some(id) = point.labels.get(label) else {
                continue;
            };
            // Samples before 1970 or beyond f64's exact range don't exist.
            let at = std::time::Duration::try_from_secs_f64(point.value).unwrap_or_default();
            let at = u64::try_from(at.as_millis()).unwrap_or_default();
            let newest = out.entry(without_pmm_prefix(id).to_owned()).or_default();
            *newest = (*newest).max(at);
        }
        Ok(out)
    }

    /// Value of a query that counts, at a moment; no answer is zero.
    pub async fn count_at(&self, query: &str, at_ms: u64) -> Result<u64, DriverError> {
        let points = self.query(query, Some(at_ms)).await?;
        let value = points.first().map_or(0.0, |point| point.value);
        Ok(if value.is_finite() && value > 0.0 {
            value.round() as u64
        } else {
            0
        })
    }
}

fn percent(text: &str) -> String {
    let mut out = String::new();
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}
