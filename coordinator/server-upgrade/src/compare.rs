//! Compares what a PMM Server holds before and after a hop. Only differences that no rule explains are returned.

use crate::baseline::{Baseline, Exporter, SERVER_ID};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Something that should be as before and is not.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Difference {
    /// Kind and name, such as `service db-1 (address)`.
    pub what: String,
    /// Before.
    pub before: String,
    /// After.
    pub after: String,
}

impl std::fmt::Display for Difference {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {} -> {}", self.what, self.before, self.after)
    }
}

/// PMM 3's schema step 112 switches off the query agent of the server's own database (percona/pmm `managed/models/database.go`).
const SWITCHED_OFF_BY_112: &str = "qan_postgresql_pgstatements_agent";
const OWN_DATABASE: &str = "pmm-server-postgresql";

/// All unexplained differences. Additions are expected: new majors bring agents and services of their own.
pub fn compare(before: &Baseline, after: &Baseline) -> Vec<Difference> {
    let mut out = Out::default();
    for (id, node) in &before.nodes {
        match after.nodes.get(id) {
            None => out.missing(format!("node {}", node.name)),
            Some(now) => {
                out.equal(format!("node {} (name)", node.name), &node.name, &now.name);
                // The server's own node is described by the server itself.
                if id != SERVER_ID {
                    out.equal(
                        format!("node {} (type)", node.name),
                        &node.node_type,
                        &now.node_type,
                    );
                    out.equal(
                        format!("node {} (address)", node.name),
                        &node.address,
                        &now.address,
                    );
                }
            }
        }
    }
    services(before, after, &mut out);
    agents(before, after, &mut out);
    for (name, value) in &before.settings {
        out.equal(
            format!("setting {name}"),
            value,
            after.settings.get(name).map_or("", String::as_str),
        );
    }
    content(before, after, &mut out);
    history(before, after, &mut out);
    out.0
}

/// Whether the data from before is gone altogether: the mark of a PMM that initialised an empty volume and is perfectly healthy.
pub fn looks_fresh(before: &Baseline, after: &Baseline) -> bool {
    fn foreign<V>(map: &BTreeMap<String, V>) -> impl Iterator<Item = &String> {
        map.keys().filter(|id| *id != SERVER_ID)
    }
    let own = |base: &Baseline, id: &String| {
        base.services
            .get(id)
            .is_some_and(|service| service.node_id == SERVER_ID)
    };
    let nodes: Vec<&String> = foreign(&before.nodes).collect();
    let services: Vec<&String> = before.services.keys().filter(|id| !own(before, id)).collect();
    let survived = nodes.iter().any(|id| after.nodes.contains_key(*id))
        || services.iter().any(|id| after.services.contains_key(*id));
    if !nodes.is_empty() || !services.is_empty() {
        return !survived;
    }
    // A server without any client: its own agents have random ids, which only its own data can know.
    let own_agents: Vec<&String> = foreign(&before.agents).collect();
    !own_agents.is_empty() && !own_agents.iter().any(|id| after.agents.contains_key(*id))
}

fn services(before: &Baseline, after: &Baseline, out: &mut Out) {
    for (id, service) in &before.services {
        let Some(now) = after.services.get(id) else {
            out.missing(format!("service {}", service.name));
            continue;
        };
        if service.node_id == SERVER_ID {
            continue;
        }
        let label = |field: &str| format!("service {} ({field})", service.name);
        out.equal(label("name"), &service.name, &now.name);
        out.equal(label("type"), &service.service_type, &now.service_type);
        out.equal(label("node"), &service.node_id, &now.node_id);
        out.equal(label("address"), &service.address, &now.address);
        out.equal(label("environment"), &service.environment, &now.environment);
        out.equal(label("cluster"), &service.cluster, &now.cluster);
        out.equal(
            label("replication set"),
            &service.replication_set,
            &now.replication_set,
        );
        let text = |labels: &BTreeMap<String, String>| {
            labels
                .iter()
                .map(|(name, value)| format!("{name}={value}"))
                .collect::<Vec<_>>()
                .join(",")
        };
        out.equal(
            label("custom labels"),
            &text(&service.custom_labels),
            &text(&now.custom_labels),
        );
    }
}

fn agents(before: &Baseline, after: &Baseline, out: &mut Out) {
    for (id, agent) in &before.agents {
        // The server runs other agents of its own in each release.
        let own = agent.client == SERVER_ID || agent.watches == SERVER_ID || id == SERVER_ID;
        let Some(now) = after.agents.get(id) else {
            if !own {
                out.missing(format!("agent {id} ({})", agent.exporter_type));
            }
            continue;
        };
        let label = |field: &str| format!("agent {id} {} ({field})", agent.exporter_type);
        out.equal(label("type"), &agent.exporter_type, &now.exporter_type);
        out.equal(label("watches"), &agent.watches, &now.watches);
        if let (Some(before), Some(after), false) = (agent.push, now.push, own)
            && before != after
        {
            out.equal(label("push mode"), &before.to_string(), &after.to_string());
        }
        if agent.disabled != now.disabled && !explained(before, agent) {
            out.equal(
                label("disabled"),
                &agent.disabled.to_string(),
                &now.disabled.to_string(),
            );
        }
    }
}

/// What people made and what the operator put there. More in Grafana is fine, PMM 3's conversion makes users of its own; a file that was
/// not there is PMM 3's own.
fn content(before: &Baseline, after: &Baseline, out: &mut Out) {
    for (what, count) in &before.grafana {
        match after.grafana.get(what) {
            Some(now) if now >= count => {}
            now => out.differs(
                format!("Grafana's {what}"),
                &count.to_string(),
                &now.map_or_else(|| "not shown".to_owned(), u64::to_string),
            ),
        }
    }
    for (path, digest) in &before.files {
        match after.files.get(path) {
            None => out.missing(format!("file {path}")),
            Some(now) => out.equal(format!("file {path} (SHA-256)"), digest, now),
        }
    }
}

fn explained(before: &Baseline, agent: &Exporter) -> bool {
    agent.exporter_type == SWITCHED_OFF_BY_112
        && before
            .services
            .get(&agent.watches)
            .is_some_and(|service| service.name == OWN_DATABASE)
}

/// Buffered samples and queries may still arrive for the time before the cut, so more is fine and less is not.
fn history(before: &Baseline, after: &Baseline, out: &mut Out) {
    for probe in &before.history {
        let now = after
            .history
            .iter()
            .find(|one| one.query == probe.query && one.at_ms == probe.at_ms)
            .map_or(0, |one| one.series);
        if now < probe.series {
            let what = format!("metrics at {} ({})", probe.at_ms, probe.query);
            out.differs(what, &probe.series.to_string(), &now.to_string());
        }
    }
    for probe in &before.qan {
        let now = after
            .qan
            .iter()
            .find(|one| one.from_ms == probe.from_ms && one.to_ms == probe.to_ms)
            .map_or(0, |one| one.rows);
        if now < probe.rows {
            let what = format!("queries between {} and {}", probe.from_ms, probe.to_ms);
            out.differs(what, &probe.rows.to_string(), &now.to_string());
        }
    }
}

#[derive(Default)]
struct Out(Vec<Difference>);

impl Out {
    fn differs(&mut self, what: String, before: &str, after: &str) {
        self.0.push(Difference {
            what,
            before: before.to_owned(),
            after: after.to_owned(),
        });
    }
    fn equal(&mut self, what: String, before: &str, after: &str) {
        if before != after {
            self.differs(what, before, after);
        }
    }
    fn missing(&mut self, what: String) {
        self.differs(what, "there", "missing");
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::baseline::{HistoryProbe, Node, QanProbe};
    use fleet_common::verification::PmmService;
    use proptest::prelude::*;

    fn service(name: &str, node: &str) -> PmmService {
        PmmService {
            name: name.to_owned(),
            service_type: "mysql".to_owned(),
            node_id: node.to_owned(),
            environment: "prod".to_owned(),
            cluster: String::new(),
            replication_set: String::new(),
            address: "127.0.0.1:3306".to_owned(),
            custom_labels: BTreeMap::new(),
        }
    }

    fn baseline() -> Baseline {
        let mut base = Baseline::default();
        for id in ["pmm-server", "n1", "n2"] {
            base.nodes.insert(
                id.to_owned(),
                Node {
                    name: id.to_owned(),
                    ..Node::default()
                },
            );
        }
        base.services
            .insert("own".to_owned(), service(OWN_DATABASE, SERVER_ID));
        base.services.insert("s1".to_owned(), service("db-1", "n1"));
        let agent = |kind: &str, watches: &str, client: &str| Exporter {
            exporter_type: kind.to_owned(),
            watches: watches.to_owned(),
            client: client.to_owned(),
            disabled: false,
            running: true,
            push: Some(true),
        };
        base.agents
            .insert("a1".to_owned(), agent("mysqld_exporter", "s1", "c1"));
        base.agents
            .insert("a2".to_owned(), agent(SWITCHED_OFF_BY_112, "own", SERVER_ID));
        base.settings
            .insert("data_retention".to_owned(), "720h".to_owned());
        base.history.push(HistoryProbe {
            query: "count(up)".to_owned(),
            at_ms: 5,
            series: 7,
        });
        base.qan.push(QanProbe {
            from_ms: 1,
            to_ms: 2,
            rows: 3,
        });
        base
    }

    #[test]
    fn the_expected_differences_are_silent() {
        let before = baseline();
        let mut after = before.clone();
        after.agents.get_mut("a2").unwrap().disabled = true;
        after.agents.insert(
            "nomad".to_owned(),
            Exporter {
                exporter_type: "nomad_agent".to_owned(),
                ..Exporter::default()
            },
        );
        after.history.first_mut().unwrap().series = 9;
        after.agents.get_mut("a1").unwrap().running = false;
        assert_eq!(compare(&before, &after), vec![]);
        assert!(!looks_fresh(&before, &after));
    }

    #[test]
    fn losses_are_named() {
        let before = baseline();
        let mut after = before.clone();
        after.services.get_mut("s1").unwrap().address = "127.0.0.1:3307".to_owned();
        after.nodes.remove("n2");
        after.agents.get_mut("a1").unwrap().disabled = true;
        after.settings.clear();
        after.history.clear();
        after.qan.clear();
        let found: Vec<String> = compare(&before, &after)
            .iter()
            .map(|one| one.what.clone())
            .collect();
        assert_eq!(found.len(), 6, "{found:?}");
    }

    #[test]
    fn content_files_and_push_mode_are_compared() {
        let mut before = baseline();
        before.grafana.insert("users".to_owned(), 3);
        before.grafana.insert("alert rules".to_owned(), 2);
        let certificate = "/srv/nginx/certificate.crt".to_owned();
        before.files.insert(certificate.clone(), "aa".to_owned());
        let mut after = before.clone();
        after.grafana.insert("users".to_owned(), 4);
        after
            .files
            .insert("/srv/pmm-encryption.key".to_owned(), "bb".to_owned());
        after.agents.get_mut("a2").unwrap().push = Some(false);
        assert_eq!(compare(&before, &after), vec![], "what is expected");
        after.grafana.insert("users".to_owned(), 2);
        after.grafana.remove("alert rules");
        after.files.insert(certificate, "cc".to_owned());
        after.agents.get_mut("a1").unwrap().push = Some(false);
        let found: Vec<String> = compare(&before, &after).into_iter().map(|one| one.what).collect();
        assert_eq!(
            found,
            [
                "agent a1 mysqld_exporter (push mode)",
                "Grafana's alert rules",
                "Grafana's users",
                "file /srv/nginx/certificate.crt (SHA-256)"
            ]
        );
        let mut old = before.clone();
        old.agents.get_mut("a1").unwrap().push = None;
        after.clone_from(&before);
        assert_eq!(compare(&old, &after), vec![], "an older coordinator's baseline");
    }

    #[test]
    fn a_healthy_empty_pmm_is_recognised() {
        let before = baseline();
        let mut fresh = Baseline::default();
        fresh.nodes.insert(
            SERVER_ID.to_owned(),
            Node {
                name: SERVER_ID.to_owned(),
                ..Node::default()
            },
        );
        fresh
            .services
            .insert("other".to_owned(), service(OWN_DATABASE, SERVER_ID));
        assert!(looks_fresh(&before, &fresh));
        let mut lonely = before;
        lonely.nodes.retain(|id, _| id == SERVER_ID);
        lonely.services.retain(|_, service| service.node_id == SERVER_ID);
        assert!(looks_fresh(&lonely, &fresh));
        assert!(!looks_fresh(&lonely, &lonely));
    }

    proptest! {
        #[test]
        fn any_lost_node_or_service_is_found(which in 0usize..4) {
            let before = baseline();
            let mut after = before.clone();
            let name = match which {
                0 => { after.nodes.remove("n1"); "node" }
                1 => { after.nodes.remove("n2"); "node" }
                2 => { after.services.remove("s1"); "service" }
                _ => { after.services.remove("own"); "service" }
            };
            let found = compare(&before, &after);
            prop_assert!(found.iter().any(|one| one.what.starts_with(name) && one.after == "missing"));
        }
    }
}
