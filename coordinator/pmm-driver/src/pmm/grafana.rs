//! What people made in Grafana, as numbers. Only what a release does not bring or take away by itself is counted: each release has other
//! dashboards, folders and data sources of its own.

use super::http::Pmm;
use crate::error::DriverError;
use serde_json::Value;
use std::collections::BTreeMap;

/// How an answer is counted.
type Count = fn(&Value) -> u64;

/// What is counted: name, path, and how the answer is counted (Grafana HTTP API; PMM docs: `migrating_from_vmware.md`).
const COUNTED: &[(&str, &str, Count)] = &[
    ("users", "/graph/api/org/users", items),
    ("alert rules", "/graph/api/ruler/grafana/api/v1/rules", rules),
    (
        "contact points",
        "/graph/api/v1/provisioning/contact-points",
        items,
    ),
];

impl Pmm {
    /// Counts what is wanted; what this release does not have, or does not show to the credential, is left out.
    pub async fn grafana_counts(
        &self,
        wanted: impl Fn(&str) -> bool,
    ) -> Result<BTreeMap<String, u64>, DriverError> {
        let mut counts = BTreeMap::new();
        for (name, path, count) in COUNTED.iter().filter(|(name, ..)| wanted(name)) {
            match self.get(path).await {
                Ok(answer) => {
                    counts.insert((*name).to_owned(), count(&answer));
                }
                Err(DriverError::Status {
                    status: 400 | 403 | 404 | 410 | 501,
                    ..
                }) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(counts)
    }
}

fn items(answer: &Value) -> u64 {
    answer.as_array().map_or(0, Vec::len) as u64
}

/// Folders by name, each with groups of rules.
fn rules(answer: &Value) -> u64 {
    let groups = answer.as_object().into_iter().flatten().map(|(_, groups)| groups);
    groups
        .flat_map(|groups| groups.as_array().into_iter().flatten())
        .map(|group| items(&group["rules"]))
        .sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn rules_are_counted_through_folders_and_groups() {
        let answer = json!({"own": [{"name": "a", "rules": [{}, {}]}, {"name": "b", "rules": [{}]}], "other": [{"name": "c", "rules": []}]});
        assert_eq!(rules(&answer), 3);
        assert_eq!((rules(&json!({})), items(&json!([1, 2]))), (0, 2));
    }
}
