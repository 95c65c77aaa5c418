//! The local API on 127.0.0.1:7777: `/local/Status` and `/local/Reload`, plain HTTP without authentication.

use super::shared::Shared;
use crate::client::http::{encode, read_request, respond};
use crate::client::out;
use serde_json::{Value, json};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

/// Serves for the life of the process, a thread per request.
pub fn spawn(shared: Arc<Shared>, listener: TcpListener) {
    thread::spawn(move || {
        for tcp in listener.incoming().flatten() {
            let shared = Arc::clone(&shared);
            thread::spawn(move || {
                if let Err(e) = serve(&shared, &tcp) {
                    out::log("DEBU", "local-server", &format!("request failed: {e}"));
                }
            });
        }
    });
}

fn serve(shared: &Shared, tcp: &TcpStream) -> std::io::Result<()> {
    tcp.set_read_timeout(Some(Duration::from_secs(5)))?;
    let (method, target, body) = read_request(tcp)?;
    let (path, query) = target.split_once('?').unwrap_or((&target, ""));
    let network = query.contains("get_network_info=true")
        || serde_json::from_slice::<Value>(&body).is_ok_and(|v| {
            v.get("get_network_info")
                .and_then(Value::as_bool)
                .unwrap_or(false)
        });
    match (method.as_str(), path) {
        ("GET" | "POST", "/local/Status") => answer(tcp, "200 OK", &status(shared, network)),
        ("POST", "/local/Reload") => match shared.reload() {
            Ok(()) => answer(tcp, "200 OK", &json!({})),
            Err(e) => answer(
                tcp,
                "400 Bad Request",
                &json!({"error": e, "code": 9, "message": e, "details": []}),
            ),
        },
        _ => answer(
            tcp,
            "404 Not Found",
            &json!({"error": "Not Found", "code": 5, "message": "Not Found", "details": []}),
        ),
    }
}

fn answer(tcp: &TcpStream, status: &str, body: &Value) -> std::io::Result<()> {
    let text = serde_json::to_string_pretty(body).unwrap_or_default();
    respond(tcp, status, "application/json", text.as_bytes())
}

/// Spelling of an agent type in the local API of a major.
pub fn type_name(agent_type: &str, v3: bool) -> String {
    let bare = if agent_type == "vmagent" {
        "VM_AGENT".to_string()
    } else {
        agent_type.to_ascii_uppercase()
    };
    if v3 { format!("AGENT_TYPE_{bare}") } else { bare }
}

/// Spelling of a status in the local API of a major.
pub fn status_name(status: &str, v3: bool) -> String {
    if v3 {
        format!("AGENT_STATUS_{status}")
    } else {
        status.to_string()
    }
}

fn status(shared: &Shared, network: bool) -> Value {
    let v3 = shared.release.is_v3();
    let inner = shared.lock();
    let config = &inner.config;
    let server = if config.is_set_up() {
        let scheme = if config.without_tls { "http" } else { "https" };
        let user = if config.server_username.is_empty() {
            String::new()
        } else {
            format!(
                "{}:{}@",
                encode(&config.server_username),
                encode(&config.server_password)
            )
        };
        let latency = (network && inner.link.connected).then(|| duration(inner.link.latency_ns));
        let drift = (network && inner.link.connected).then(|| duration(inner.link.latency_ns / 2));
        json!({
            "url": format!("{scheme}://{user}{}/", config.server_address),
            "insecure_tls": config.insecure_tls,
            "connected": inner.link.connected,
            "version": inner.link.server_version,
            "latency": latency,
            "clock_drift": drift,
        })
    } else {
        Value::Null
    };
    let agents: Vec<Value> = inner
        .agents
        .values()
        .map(|a| {
            json!({
                "agent_id": a.agent_id,
                "agent_type": type_name(&a.agent_type, v3),
                "status": status_name(&a.status, v3),
                "listen_port": a.port,
                "process_exec_path": a.exec_path,
            })
        })
        .collect();
    let mut reply = json!({
        "agent_id": config.id,
        "runs_on_node_id": inner.link.node_id,
        "server_info": server,
        "agents_info": agents,
        "config_filepath": shared.file.as_ref().map(|f| f.display().to_string()).unwrap_or_default(),
        "agent_version": shared.release.version,
        "connection_uptime": inner.uptime_percent(),
    });
    if v3 {
        reply["node_name"] = json!(inner.link.node_name);
    }
    reply
}

/// A duration as protobuf's JSON has it.
#[allow(clippy::cast_precision_loss)]
fn duration(ns: u64) -> String {
    format!("{:.9}s", ns as f64 / 1e9)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spellings_differ_by_major() {
        assert_eq!(type_name("vmagent", false), "VM_AGENT");
        assert_eq!(type_name("mysqld_exporter", true), "AGENT_TYPE_MYSQLD_EXPORTER");
        assert_eq!(
            (status_name("RUNNING", false), status_name("RUNNING", true)),
            ("RUNNING".into(), "AGENT_STATUS_RUNNING".into())
        );
    }
}
