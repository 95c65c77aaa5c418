//! Which hosts a group means, and which pairs of groups can be told to overlap without looking at a host.

use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// Facts that a group can ask for: ID and VERSION_ID of os-release, machine architecture, install method of the client.
pub const FACTS: [&str; 4] = ["os", "os_version", "arch", "method"];

/// A group's conditions. All of them must hold; one that is not given always holds.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Matcher {
    /// Labels of our agent, all of them.
    pub labels: BTreeMap<String, String>,
    /// PMM node names or host names, any of them.
    pub names: BTreeSet<String>,
    /// What the host says about itself, by [`FACTS`], all of them.
    pub facts: BTreeMap<String, String>,
    /// PMM's label on a service of the host.
    pub environment: Option<String>,
    /// PMM's label on a service of the host.
    pub cluster: Option<String>,
    /// PMM's label on a service of the host.
    pub replication_set: Option<String>,
}

/// What a host is matched by.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HostFacts {
    /// Labels of our agent.
    pub labels: BTreeMap<String, String>,
    /// PMM node name and host name.
    pub names: BTreeSet<String>,
    /// What it says about itself, by [`FACTS`].
    pub facts: BTreeMap<String, String>,
    /// PMM's labels on the host's services.
    pub environments: BTreeSet<String>,
    /// PMM's labels on the host's services.
    pub clusters: BTreeSet<String>,
    /// PMM's labels on the host's services.
    pub replication_sets: BTreeSet<String>,
}

impl Matcher {
    /// Whether nothing is asked for. Such a group would take every host.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Whether the host belongs to the group.
    pub fn matches(&self, host: &HostFacts) -> bool {
        let has = |wanted: &Option<String>, present: &BTreeSet<String>| {
            wanted.as_ref().is_none_or(|wanted| present.contains(wanted))
        };
        self.labels
            .iter()
            .all(|(key, value)| host.labels.get(key) == Some(value))
            && self
                .facts
                .iter()
                .all(|(key, value)| host.facts.get(key) == Some(value))
            && (self.names.is_empty() || !self.names.is_disjoint(&host.names))
            && has(&self.environment, &host.environments)
            && has(&self.cluster, &host.clusters)
            && has(&self.replication_set, &host.replication_sets)
    }

    /// Why both groups can be told to take the same host from their conditions alone: one of them asks for no more than the other,
    /// or both list the same name and ask for nothing else. `None` when only a look at the hosts can tell.
    pub fn surely_overlaps(&self, other: &Self) -> Option<String> {
        if self.asks_no_more_than(other) || other.asks_no_more_than(self) {
            return Some("every host of the one is also a host of the other".to_owned());
        }
        let names_only = |matcher: &Self| {
            Self {
                names: BTreeSet::new(),
                ..matcher.clone()
            }
            .is_empty()
        };
        let shared: Vec<&str> = self
            .names
            .intersection(&other.names)
            .map(String::as_str)
            .collect();
        if !shared.is_empty() && names_only(self) && names_only(other) {
            return Some(format!("both list {}", shared.join(", ")));
        }
        None
    }

    fn asks_no_more_than(&self, other: &Self) -> bool {
        let within = |mine: &Option<String>, theirs: &Option<String>| mine.is_none() || mine == theirs;
        self.labels
            .iter()
            .all(|(key, value)| other.labels.get(key) == Some(value))
            && self
                .facts
                .iter()
                .all(|(key, value)| other.facts.get(key) == Some(value))
            && (self.names.is_empty() || (!other.names.is_empty() && other.names.is_subset(&self.names)))
            && within(&self.environment, &other.environment)
            && within(&self.cluster, &other.cluster)
            && within(&self.replication_set, &other.replication_set)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn word() -> impl Strategy<Value = String> {
        "[ab]"
    }

    fn matcher() -> impl Strategy<Value = Matcher> {
        let labels = proptest::collection::btree_map(word(), word(), 0..2);
        let names = proptest::collection::btree_set(word(), 0..3);
        let facts = proptest::collection::btree_map(word(), word(), 0..2);
        (labels, names, facts, proptest::option::of(word())).prop_map(
            |(labels, names, facts, environment)| Matcher {
                labels,
                names,
                facts,
                environment,
                ..Matcher::default()
            },
        )
    }

    /// A host made to fit a matcher.
    fn fitting(matcher: &Matcher) -> HostFacts {
        HostFacts {
            labels: matcher.labels.clone(),
            names: matcher.names.clone(),
            facts: matcher.facts.clone(),
            environments: matcher.environment.iter().cloned().collect(),
            ..HostFacts::default()
        }
    }

    proptest! {
        #[test]
        fn a_sure_overlap_has_a_witness(a in matcher(), b in matcher()) {
            if a.surely_overlaps(&b).is_some() {
                let (of_a, of_b) = (fitting(&a), fitting(&b));
                let both = |host: &HostFacts| a.matches(host) && b.matches(host);
                prop_assert!(both(&of_a) || both(&of_b));
            }
        }
    }
}
