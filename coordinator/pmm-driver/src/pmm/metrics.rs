//! Samples through the Prometheus API.

use super::http::{Pmm, number};
use crate::error::DriverError;
use fleet_common::ids::without_pmm_prefix;
use std::collections::{BTreeMap, BTreeSet};

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

    /// The newest sample per value of a label, of the whole fleet or of some nodes, Unix milliseconds; ids without prefix, since old series
    /// carry PMM 2's form. Every series carries the id of its node, also those of services.
    pub async fn newest_samples(
        &self,
        label: &str,
        nodes: Option<&BTreeSet<String>>,
    ) -> Result<BTreeMap<String, u64>, DriverError> {
        let of_nodes = nodes.map(matcher).unwrap_or_default();
        let query = format!("max by ({label}) (timestamp(up{{{label}!=\"\"{of_nodes}}}))");
        let points = self.query(&query, None).await?;
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

/// One more condition for a selector: series of these nodes, with ids in either form.
fn matcher(nodes: &BTreeSet<String>) -> String {
    let ids: Vec<String> = nodes.iter().map(|id| literally(id)).collect();
    format!(",node_id=~\"(/node_id/)?({})\"", ids.join("|"))
}

/// A text as a pattern that matches only itself, in a quoted string.
fn literally(text: &str) -> String {
    let mut out = String::new();
    for sign in text.chars() {
        if !(sign.is_alphanumeric() || "-_/".contains(sign)) {
            out.push_str("\\\\");
            // The sign itself may end the string or escape in it.
            if "\"\\".contains(sign) {
                out.push('\\');
            }
        }
        out.push(sign);
    }
    out
}

/// As a part of a URL.
pub fn percent(text: &str) -> String {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes_are_matched_literally_in_both_forms() {
        let nodes = |ids: &[&str]| ids.iter().map(|id| (*id).to_owned()).collect();
        assert_eq!(
            matcher(&nodes(&["0a-1", "b_2"])),
            r#",node_id=~"(/node_id/)?(0a-1|b_2)""#
        );
        assert_eq!(
            matcher(&nodes(&[r#"a.b"c\d"#])),
            r#",node_id=~"(/node_id/)?(a\\.b\\\"c\\\\d)""#
        );
    }
}
