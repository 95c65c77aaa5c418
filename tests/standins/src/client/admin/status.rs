//! `pmm-admin status`.

use super::{Context, Printed};
use crate::client::{clock, http};
use serde_json::{Value, json};
use std::time::{Duration, Instant};

/// Asks the local agent. Exit code 0 says nothing about the connection: a disconnected agent is a success too.
pub fn run(context: &Context) -> Result<Printed, String> {
    let wait = context
        .flags
        .get("wait")
        .and_then(|w| clock::parse_duration_ms(&w))
        .unwrap_or(0);
    let deadline = Instant::now() + Duration::from_millis(wait);
    let status = loop {
        match context.set_up_status(true) {
            Err(_) if Instant::now() < deadline => clock::pause(Duration::from_secs(1)),
            outcome => break outcome?,
        }
    };
    let info = &status["server_info"];
    let url = without_password(info["url"].as_str().unwrap_or_default());
    let mut reply = json!({
        "agent_id": status["agent_id"],
        "node_id": status["runs_on_node_id"],
        "server_url": url,
        "server_insecure_tls": info["insecure_tls"],
        "server_version": info["version"],
        "agent_version": status["agent_version"],
        "agents": agents(&status),
        "connected": info["connected"],
        "connection_uptime": status["connection_uptime"],
    });
    for (key, source) in [
        ("server_clock_drift", "clock_drift"),
        ("server_latency", "latency"),
    ] {
        if let Some(ns) = info[source].as_str().and_then(nanoseconds) {
            reply[key] = json!(ns);
        }
    }
    if context.v3() {
        reply["node_name"] = status["node_name"].clone();
    }
    let text = text(context, &reply);
    Ok(Printed {
        text,
        json: json!({"pmm_agent_status": reply, "pmm_admin_version": context.release.version}),
    })
}

fn agents(status: &Value) -> Vec<Value> {
    let list = status["agents_info"].as_array().cloned().unwrap_or_default();
    list.iter()
        .map(|a| {
            let mut agent =
                json!({"agent_id": a["agent_id"], "agent_type": a["agent_type"], "status": a["status"]});
            if a["listen_port"].as_u64().unwrap_or(0) > 0 {
                agent["listen_port"] = a["listen_port"].clone();
            }
            agent
        })
        .collect()
}

fn text(context: &Context, reply: &Value) -> String {
    let word = |key: &str| reply[key].as_str().unwrap_or_default().to_string();
    let name = if context.v3() {
        format!("Node name: {}\n", word("node_name"))
    } else {
        String::new()
    };
    let mut text = format!(
        "Agent ID : {}\nNode ID  : {}\n{name}\nPMM Server:\n\tURL    : {}\n\tVersion: {}\n\nPMM Client:\n\tConnected        : {}\n\tConnection uptime: {}\n\tpmm-admin version: {}\n\tpmm-agent version: {}\nAgents:\n",
        word("agent_id"),
        word("node_id"),
        word("server_url"),
        word("server_version"),
        reply["connected"],
        reply["connection_uptime"],
        context.release.version,
        word("agent_version"),
    );
    for agent in reply["agents"].as_array().into_iter().flatten() {
        let field = |key: &str| agent[key].as_str().unwrap_or_default();
        let port = agent["listen_port"]
            .as_u64()
            .map(|p| p.to_string())
            .unwrap_or_default();
        text.push_str(&format!(
            "\t{} {} {} {port}\n",
            field("agent_id"),
            human(field("agent_type")),
            human(field("status"))
        ));
    }
    text
}

/// `AGENT_STATUS_RUNNING` and `RUNNING` are both shown as `Running`.
pub fn human(name: &str) -> String {
    let bare = ["AGENT_TYPE_", "AGENT_STATUS_", "SERVICE_TYPE_"]
        .iter()
        .find_map(|p| name.strip_prefix(p))
        .unwrap_or(name)
        .to_ascii_lowercase();
    if bare.contains('_') {
        return bare;
    }
    let mut letters = bare.chars();
    letters
        .next()
        .map(|c| c.to_ascii_uppercase().to_string() + letters.as_str())
        .unwrap_or_default()
}

fn without_password(url: &str) -> String {
    match http::parse_server_url(url) {
        Ok((address, _, _, tls)) => format!("{}://{address}/", if tls { "https" } else { "http" }),
        Err(_) => url.to_string(),
    }
}

#[allow(clippy::cast_possible_truncation)]
fn nanoseconds(text: &str) -> Option<i64> {
    let seconds: f64 = text.strip_suffix('s')?.parse().ok()?;
    Some((seconds * 1e9).round() as i64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_lose_their_credentials_and_durations_become_numbers() {
        assert_eq!(without_password("https://admin:x@h:443/"), "https://h:443/");
        assert_eq!(nanoseconds("0.000412000s"), Some(412_000));
        assert_eq!(human("AGENT_STATUS_RUNNING"), "Running");
        assert_eq!(human("NODE_EXPORTER"), "node_exporter");
    }
}
