//! The client against a listener that answers as each major does: PMM 2 leaves out what is empty and puts prefixes before ids, PMM 3 sends
//! everything and has other enum words.
#![allow(clippy::unwrap_used)]

use super::Pmm;
use crate::credential;
use crate::error::DriverError;
use crate::snapshot;
use serde_json::{Value, json};
use std::os::unix::fs::PermissionsExt;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

type Answers = fn(&str) -> (u16, Value);

/// Serves until the test ends.
async fn serve(answers: Answers) -> Pmm {
    fleet_tls::install_default();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
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
                let target = text.split(' ').nth(1).unwrap_or_default().to_owned();
                let (status, body) = if text.contains("Basic YWRtaW46cA==") {
                    answers(&target)
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

fn two(target: &str) -> (u16, Value) {
    let answer = match target.split('?').next().unwrap_or_default() {
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

fn three(target: &str) -> (u16, Value) {
    let answer = match target.split('?').next().unwrap_or_default() {
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
    let pmm = serve(|target| match target {
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
