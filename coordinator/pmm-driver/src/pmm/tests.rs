//! The client against a listener that answers as each major does: PMM 2 leaves out what is empty and puts prefixes before ids, PMM 3 sends
//! everything and has other enum words.
#![allow(clippy::unwrap_used)]

use super::Pmm;
use crate::credential;
use crate::error::DriverError;
use crate::snapshot;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::os::unix::fs::PermissionsExt;
use std::sync::{Arc, Mutex};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

/// What is asked for: path with query, and body.
struct Asked<'a> {
    target: &'a str,
    body: Value,
}

impl Asked<'_> {
    fn path(&self) -> &str {
        self.target.split('?').next().unwrap_or_default()
    }

    /// A filter of the request, from wherever its major has it.
    fn filter(&self, name: &str) -> String {
        let query = self.target.split_once('?').map_or("", |(_, query)| query);
        let given = query.split('&').filter_map(|pair| pair.split_once('='));
        let mut found = given.filter(|(key, _)| *key == name).map(|(_, value)| value);
        found
            .next()
            .or(self.body[name].as_str())
            .unwrap_or_default()
            .to_owned()
    }
}

type Answers = fn(&Asked<'_>) -> (u16, Value);

/// Everything that was asked for.
type Log = Arc<Mutex<Vec<String>>>;

/// Serves until the test ends.
async fn serve(answers: Answers) -> Pmm {
    serve_logged(answers, Log::default()).await
}

async fn serve_logged(answers: Answers, log: Log) -> Pmm {
    fleet_tls::install_default();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let log = Arc::clone(&log);
            tokio::spawn(async move {
                let mut seen = Vec::new();
                let mut block = [0u8; 4096];
                while !whole(&seen) {
                    match stream.read(&mut block).await {
                        Ok(0) | Err(_) => return,
                        Ok(got) => seen.extend_from_slice(&block[..got]),
                    }
                }
                let text = String::from_utf8_lossy(&seen).into_owned();
                let target = text.split(' ').nth(1).unwrap_or_default();
                let body = text.split_once("\r\n\r\n").map_or("", |(_, body)| body);
                log.lock().unwrap().push(format!("{target} {body}"));
                let body = serde_json::from_str(body).unwrap_or_default();
                let (status, body) = if text.contains("Basic YWRtaW46cA==") {
                    answers(&Asked { target, body })
                } else {
                    (401, json!({}))
                };
                let body = body.to_string();
                let head = format!(
                    "HTTP/1.1 {status} x\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
                    body.len()
                );
                let _ = stream.write_all(format!("{head}{body}").as_bytes()).await;
            });
        }
    });
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("credential");
    std::fs::write(&file, "admin:p").unwrap();
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();
    Pmm::new(&base, None, credential::read(&file).unwrap()).unwrap()
}

fn whole(request: &[u8]) -> bool {
    let text = String::from_utf8_lossy(request).to_lowercase();
    let Some((head, body)) = text.split_once("\r\n\r\n") else {
        return false;
    };
    let length = head.lines().find_map(|line| {
        line.strip_prefix("content-length: ")?
            .trim()
            .parse::<usize>()
            .ok()
    });
    body.len() >= length.unwrap_or(0)
}

fn samples(prefix: &str) -> Value {
    let now = crate::clock::now_ms() as f64 / 1000.0;
    json!({"status": "success", "data": {"resultType": "vector", "result": [
        {"metric": {"service_id": format!("{prefix}s1")}, "value": [now, format!("{}", now - 2.0)]},
        {"metric": {"service_id": "s1"}, "value": [now, format!("{}", now - 60.0)]},
        {"metric": {"service_id": "gone"}, "value": [now, now.to_string()]},
    ]}})
}

fn two(asked: &Asked<'_>) -> (u16, Value) {
    let answer = match asked.path() {
        "/v1/version" => json!({"version": "2.44.1", "distribution_method": "DOCKER"}),
        "/v1/inventory/Nodes/List" => {
            json!({"generic": [{"node_id": "pmm-server", "node_name": "pmm-server"}, {"node_id": "/node_id/n1", "node_name": "db"}]})
        }
        "/v1/inventory/Services/List" => json!({
            "mysql": [{"service_id": "/service_id/s1", "service_name": "db-1", "node_id": "/node_id/n1", "address": "127.0.0.1", "port": 3306}],
            "postgresql": [{"service_id": "/service_id/own", "service_name": "pmm-server-postgresql", "node_id": "pmm-server"}]}),
        "/v1/inventory/Agents/List" => json!({
            "pmm_agent": [{"agent_id": "/agent_id/a1", "runs_on_node_id": "/node_id/n1", "connected": true}, {"agent_id": "pmm-server", "runs_on_node_id": "pmm-server"}],
            "mysqld_exporter": [{"agent_id": "/agent_id/e1", "pmm_agent_id": "/agent_id/a1", "service_id": "/service_id/s1", "status": "RUNNING"}]}),
        "/v1/management/Agent/List" => {
            json!({"agents": [{"agent_id": "/agent_id/a1", "agent_type": "pmm_agent", "version": "2.41.2"}]})
        }
        "/prometheus/api/v1/query" => samples("/service_id/"),
        "/v0/qan/GetReport" => json!({"total_rows": 2, "rows": [{"sparkline": [{"load": "NaN"}]}]}),
        _ => return (404, json!({})),
    };
    (200, answer)
}

fn three(asked: &Asked<'_>) -> (u16, Value) {
    let answer = match asked.path() {
        "/v1/version" => json!({"version": "3.7.1", "distribution_method": "DISTRIBUTION_METHOD_DOCKER"}),
        "/v1/inventory/nodes" => {
            json!({"generic": [{"node_id": "pmm-server", "node_name": "pmm-server"}, {"node_id": "n1", "node_name": "db", "address": ""}], "container": []})
        }
        "/v1/inventory/services" => {
            json!({"valkey": [], "mysql": [{"service_id": "s1", "service_name": "db-1", "node_id": "n1", "address": "127.0.0.1", "port": 3306, "socket": "", "custom_labels": {}, "version": ""}]})
        }
        "/v1/inventory/agents" => {
            json!({"nomad_agent": [], "pmm_agent": [{"agent_id": "a1", "runs_on_node_id": "n1", "connected": true}],
            "mysqld_exporter": [{"agent_id": "e1", "pmm_agent_id": "a1", "service_id": "s1", "status": "AGENT_STATUS_RUNNING", "disabled": false}]})
        }
        "/v1/management/agents/versions" => {
            json!({"agent_versions": [{"agent_id": "a1", "version": "2.41.2", "severity": "UPDATE_SEVERITY_CRITICAL"}]})
        }
        "/prometheus/api/v1/query" => samples("/service_id/"),
        "/v1/qan/metrics:getReport" => json!({"total_rows": "2"}),
        "/v1/backups/scheduled" => json!({"scheduled_backups": [{"service_id": "s1"}]}),
        _ => return (404, json!({})),
    };
    (200, answer)
}

#[tokio::test]
async fn both_majors_give_the_same_picture() {
    let mut pictures = Vec::new();
    for answers in [two as Answers, three as Answers] {
        let pmm = serve(answers).await;
        let mut picture = snapshot::take(&pmm, 1).await.unwrap();
        assert!(
            picture.taken_at_ms - picture.service_samples_ms["s1"] < 30_000,
            "the newest of both forms of the id counts"
        );
        assert_eq!(picture.clients["a1"].version.as_deref(), Some("2.41.2"));
        assert!(!picture.service_samples_ms.contains_key("gone"));
        (picture.taken_at_ms, picture.server_version) = (0, None);
        picture.service_samples_ms.clear();
        picture.backups_scheduled_on.clear();
        pictures.push(picture);
        let version = pmm.version().await.unwrap().version;
        let inventory = pmm.inventory(version.major).await.unwrap();
        assert!(inventory.agents["e1"].running);
        assert_eq!(
            (
                inventory.agents["e1"].watches.as_str(),
                inventory.agents["e1"].client.as_str()
            ),
            ("s1", "a1")
        );
    }
    assert_eq!(pictures.first(), pictures.last());
    assert_eq!(
        pictures.first().unwrap().qan_active.iter().collect::<Vec<_>>(),
        ["s1"]
    );
}

#[tokio::test]
async fn refusals_of_a_busy_pmm_are_inconclusive() {
    for (status, inconclusive) in [(401, true), (403, true), (500, true), (503, true), (400, false)] {
        let answers: Answers = match status {
            401 => |_| (401, json!({"message": "no"})),
            403 => |_| (403, json!({"message": "no"})),
            500 => |_| (500, json!({})),
            503 => |_| (503, json!("maintenance")),
            _ => |_| (400, json!({})),
        };
        let error = serve(answers).await.version().await.unwrap_err();
        assert!(matches!(error, DriverError::Status { .. }));
        assert_eq!(error.inconclusive(), inconclusive, "{status}");
    }
}

#[tokio::test]
async fn grafana_is_counted_as_far_as_it_is_shown() {
    let pmm = serve(|asked| match asked.target {
        "/graph/api/org/users" => (200, json!([{"login": "admin"}, {"login": "dba"}])),
        "/graph/api/ruler/grafana/api/v1/rules" => (200, json!({"own": [{"name": "g", "rules": [{}, {}]}]})),
        _ => (404, json!({"message": "Not found"})),
    })
    .await;
    let all = pmm.grafana_counts(|_| true).await.unwrap();
    assert_eq!(
        all,
        [("users".to_owned(), 2), ("alert rules".to_owned(), 2)].into()
    );
    let one = pmm.grafana_counts(|what| what == "users").await.unwrap();
    assert_eq!(one, [("users".to_owned(), 2)].into());
}

/// Three hosts with one service each, on a server that filters as that major does.
fn fleet(asked: &Asked<'_>, major: u32) -> (u16, Value) {
    let spelled = |kind: &str, id: &str| match major {
        2 => format!("/{kind}_id/{id}"),
        _ => id.to_owned(),
    };
    let numbers = || ["1", "2", "3"].into_iter();
    let listed = |kind: &str, make: &dyn Fn(&str) -> Value| {
        let (kind, node) = (kind.to_owned(), asked.filter("node_id"));
        let theirs = numbers().filter(|n| node.is_empty() || node == spelled("node", &format!("n{n}")));
        json!({ kind: theirs.map(make).collect::<Vec<_>>() })
    };
    let id = |kind: &str, n: &str| spelled(kind, &format!("{}{n}", &kind[..1]));
    let answer = match asked.path() {
        "/v1/version" => json!({"version": format!("{major}.9.0")}),
        "/v1/inventory/nodes" | "/v1/inventory/Nodes/List" => listed(
            "generic",
            &|n| json!({"node_id": id("node", n), "node_name": format!("db-{n}"), "address": "10.0.0.1"}),
        ),
        "/v1/inventory/services" | "/v1/inventory/Services/List" => listed(
            "mysql",
            &|n| json!({"service_id": id("service", n), "service_name": format!("mysql-{n}"), "node_id": id("node", n)}),
        ),
        // Nothing that only runs on a node is listed by it.
        "/v1/inventory/agents" | "/v1/inventory/Agents/List" if asked.filter("node_id").is_empty() => listed(
            "pmm_agent",
            &|n| json!({"agent_id": id("agent", n), "runs_on_node_id": id("node", n), "connected": n != "3"}),
        ),
        "/v1/management/agents/versions" => {
            let all = numbers().map(|n| json!({"agent_id": id("agent", n), "version": format!("3.{n}.0")}));
            json!({"agent_versions": all.collect::<Vec<_>>()})
        }
        "/v1/management/Agent/List" => listed("agents", &|n| {
            json!({"agent_id": id("agent", n), "agent_type": "pmm-agent", "runs_on_node_id": id("node", n), "is_connected": n != "3",
                "version": format!("3.{n}.0")})
        }),
        "/prometheus/api/v1/query" => {
            let label = if asked.filter("query").starts_with("max%20by%20%28service_id%29") {
                "service"
            } else {
                "node"
            };
            let now = crate::clock::now_ms() / 1_000;
            let points = numbers().filter(|n| {
                let query = asked.filter("query");
                !query.contains("%3D~") || query.contains(&format!("n{n}"))
            });
            let points = points.map(
                |n| json!({"metric": {format!("{label}_id"): id(label, n)}, "value": [now, now.to_string()]}),
            );
            json!({"status": "success", "data": {"result": points.collect::<Vec<_>>()}})
        }
        "/v1/qan/metrics:getReport" | "/v0/qan/GetReport" => {
            let two = asked.body["labels"][0]["value"][0] == "mysql-2";
            json!({"total_rows": if two { 0 } else { 2 }})
        }
        _ => return (404, json!({})),
    };
    (200, answer)
}

#[tokio::test]
async fn a_look_at_some_nodes_sees_of_them_what_a_look_at_the_fleet_sees_and_asks_for_no_other() {
    for (answers, major) in [
        ((|asked| fleet(asked, 2)) as Answers, 2),
        (|asked| fleet(asked, 3), 3),
    ] {
        let log = Log::default();
        let pmm = serve_logged(answers, Arc::clone(&log)).await;
        let nodes: BTreeSet<String> = ["n1".to_owned(), "n3".to_owned()].into();
        let mut whole = snapshot::take(&pmm, 5).await.unwrap();
        assert_eq!(whole.clients.len(), 3);
        assert_eq!(whole.clients["a1"].node_name, "db-1");
        log.lock().unwrap().clear();
        let part = snapshot::of_nodes(&pmm, &nodes, 5).await.unwrap();
        assert_eq!(part.clients.keys().collect::<Vec<_>>(), ["a1", "a3"]);
        assert_eq!(part.clients["a3"].version.as_deref(), Some("3.3.0"));
        assert!(!part.clients["a3"].connected && part.clients["a1"].connected);
        assert_eq!(part.qan_active, ["s1".to_owned(), "s3".to_owned()].into());
        let asked = log.lock().unwrap().clone();
        for line in &asked {
            let fine = match line.split([' ', '?']).next().unwrap() {
                "/v1/version" => true,
                "/v1/inventory/services" | "/v1/inventory/Services/List" | "/v1/management/Agent/List" => {
                    line.contains("n1") || line.contains("n3")
                }
                "/v1/inventory/agents" => line.contains("agent_type=AGENT_TYPE_PMM_AGENT"),
                "/v1/management/agents/versions" => true,
                "/prometheus/api/v1/query" => line.contains("n1%7Cn3"),
                "/v1/qan/metrics:getReport" | "/v0/qan/GetReport" => !line.contains("mysql-2"),
                _ => false,
            };
            assert!(fine, "PMM {major}: {line}");
        }
        // The version; in PMM 2 two clients, in PMM 3 two lists of clients; services of two nodes; samples of two kinds; queries of two
        // services.
        assert_eq!(asked.len(), 9, "{asked:#?}");
        // Laid over what a look at the fleet saw, only the times differ.
        let seen = whole.clone();
        whole.take_over(part);
        (whole.service_samples_ms, whole.node_samples_ms) =
            (seen.service_samples_ms.clone(), seen.node_samples_ms.clone());
        assert_eq!(whole, seen, "PMM {major}");
    }
}

#[tokio::test]
async fn queries_are_asked_for_only_where_somebody_wants_to_know() {
    let log = Log::default();
    let pmm = serve_logged(|asked| fleet(asked, 3), Arc::clone(&log)).await;
    let part = snapshot::of_nodes(&pmm, &["n1".to_owned()].into(), 0)
        .await
        .unwrap();
    assert!(part.qan_active.is_empty() && part.services.contains_key("s1"));
    assert!(!log.lock().unwrap().iter().any(|line| line.contains("qan")));
}

/// A PMM 2 that is too old to have the management list.
#[tokio::test]
async fn without_a_list_that_tells_releases_clients_are_seen_all_the_same() {
    let pmm = serve(|asked| match asked.path() {
        "/v1/management/Agent/List" => (404, json!({})),
        _ => fleet(asked, 2),
    })
    .await;
    let part = snapshot::of_nodes(&pmm, &["n2".to_owned()].into(), 0)
        .await
        .unwrap();
    assert_eq!(part.clients.keys().collect::<Vec<_>>(), ["a2"]);
    assert_eq!(part.clients["a2"].version, None);
}

#[tokio::test]
async fn a_node_that_pmm_forgot_does_not_hide_the_others() {
    let pmm = serve(|asked| match asked.filter("node_id").as_str() {
        "gone" => (404, json!({"message": "Node with ID \"gone\" not found."})),
        _ => fleet(asked, 3),
    })
    .await;
    let nodes: BTreeSet<String> = ["gone".to_owned(), "n2".to_owned()].into();
    let part = snapshot::of_nodes(&pmm, &nodes, 0).await.unwrap();
    assert_eq!(part.services.keys().collect::<Vec<_>>(), ["s2"]);
    assert!(part.covers("gone") && part.clients.len() == 1);
}
