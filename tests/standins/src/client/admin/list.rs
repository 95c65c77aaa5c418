//! `pmm-admin list`: services and agents of this node, asked of the server.

use super::{Context, Printed};
use serde_json::{Map, Value, json};

const SERVICES: [(&str, &str); 7] = [
    ("mysql", "MYSQL_SERVICE"),
    ("mongodb", "MONGODB_SERVICE"),
    ("postgresql", "POSTGRESQL_SERVICE"),
    ("valkey", "VALKEY_SERVICE"),
    ("proxysql", "PROXYSQL_SERVICE"),
    ("haproxy", "HAPROXY_SERVICE"),
    ("external", "EXTERNAL_SERVICE"),
];

/// Prints the list; needs credentials that the server accepts for its inventory.
pub fn run(context: &Context) -> Result<Printed, String> {
    let status = context.set_up_status(false)?;
    let node = match context.flags.get("node-id") {
        Some(node) => node,
        None => status["runs_on_node_id"].as_str().unwrap_or_default().to_string(),
    };
    if node.is_empty() {
        return Err(
            "Failed to get the node of the local pmm-agent: it is not connected to PMM Server.".into(),
        );
    }
    let server = context.server()?;
    let (services, agents) = if context.v3() {
        (
            context.call(
                &server,
                "GET",
                &format!("/v1/inventory/services?node_id={node}"),
                &Value::Null,
            )?,
            context.call(&server, "GET", "/v1/inventory/agents", &Value::Null)?,
        )
    } else {
        (
            context.call(
                &server,
                "POST",
                "/v1/inventory/Services/List",
                &json!({"node_id": node}),
            )?,
            context.call(&server, "POST", "/v1/inventory/Agents/List", &json!({}))?,
        )
    };
    let services = service_rows(&services, context.v3());
    let agents = agent_rows(&agents, &node, context.v3());
    let text = text(&services, &agents);
    let list = |rows: Vec<Value>| {
        if rows.is_empty() {
            Value::Null
        } else {
            Value::Array(rows)
        }
    };
    Ok(Printed {
        text,
        json: json!({"service": list(services), "agent": list(agents)}),
    })
}

fn service_rows(reply: &Value, v3: bool) -> Vec<Value> {
    let mut rows = Vec::new();
    for (key, kind) in SERVICES {
        for service in reply[key].as_array().into_iter().flatten() {
            let text = |name: &str| service[name].as_str().unwrap_or_default();
            let port = service["port"].as_u64().unwrap_or(0);
            let address = if text("socket").is_empty() {
                format!("{}:{port}", text("address"))
            } else {
                text("socket").to_string()
            };
            rows.push(json!({
                "service_type": if v3 { format!("SERVICE_TYPE_{kind}") } else { kind.to_string() },
                "service_id": text("service_id"),
                "service_name": text("service_name"),
                "address_port": if text("address").is_empty() && text("socket").is_empty() { String::new() } else { address },
                "external_group": text("group"),
            }));
        }
    }
    rows
}

fn bare(id: &str) -> &str {
    id.rsplit('/').next().unwrap_or(id)
}

fn agent_rows(reply: &Value, node: &str, v3: bool) -> Vec<Value> {
    let empty = Map::new();
    let groups = reply.as_object().unwrap_or(&empty);
    let text = |agent: &Value, name: &str| agent[name].as_str().unwrap_or_default().to_string();
    let mut own = Vec::new();
    let mut rows = Vec::new();
    for agent in groups
        .get("pmm_agent")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
    {
        if bare(&text(agent, "runs_on_node_id")) != bare(node) {
            continue;
        }
        own.push(bare(&text(agent, "agent_id")).to_string());
        rows.push(json!({
            "agent_type": if v3 { "AGENT_TYPE_PMM_AGENT" } else { "PMM_AGENT" },
            "agent_id": text(agent, "agent_id"),
            "service_id": "",
            "status": if agent["connected"].as_bool().unwrap_or(false) { "CONNECTED" } else { "DISCONNECTED" },
            "disabled": false,
            "push_metrics_enabled": "",
        }));
    }
    for (kind, agents) in groups.iter().filter(|(kind, _)| *kind != "pmm_agent") {
        for agent in agents.as_array().into_iter().flatten() {
            if !own.iter().any(|id| id == bare(&text(agent, "pmm_agent_id"))) {
                continue;
            }
            let name = kind.to_ascii_uppercase();
            let mut row = json!({
                "agent_type": if v3 { format!("AGENT_TYPE_{name}") } else { name },
                "agent_id": text(agent, "agent_id"),
                "service_id": text(agent, "service_id"),
                "status": text(agent, "status"),
                "disabled": agent["disabled"].as_bool().unwrap_or(false),
                "push_metrics_enabled": mode(kind, agent),
            });
            if let Some(port) = agent["listen_port"].as_u64().filter(|p| *p > 0) {
                row["port"] = json!(port);
            }
            rows.push(row);
        }
    }
    rows
}

/// `push`, `pull` or nothing: a string, as in the real program.
fn mode(kind: &str, agent: &Value) -> &'static str {
    match agent["push_metrics_enabled"].as_bool() {
        Some(true) => "push",
        Some(false) => "pull",
        None if kind == "vm_agent" => "push",
        None => "",
    }
}

fn text(services: &[Value], agents: &[Value]) -> String {
    let word = |row: &Value, key: &str| row[key].as_str().unwrap_or_default().to_string();
    let mut text = String::from("Service type        Service name         Address and port  Service ID\n");
    for row in services {
        let kind = super::status::human(&word(row, "service_type"));
        text.push_str(&format!(
            "{kind:<19} {:<20} {:<17} {}\n",
            word(row, "service_name"),
            word(row, "address_port"),
            word(row, "service_id")
        ));
    }
    text.push_str(
        "\nAgent type                    Status           Metrics Mode        Agent ID  Service ID  Port\n",
    );
    for row in agents {
        let kind = super::status::human(&word(row, "agent_type"));
        let status = super::status::human(&word(row, "status"));
        text.push_str(&format!(
            "{kind:<29} {status:<16} {:<19} {}  {}  {}\n",
            word(row, "push_metrics_enabled"),
            word(row, "agent_id"),
            word(row, "service_id"),
            row["port"].as_u64().map(|p| p.to_string()).unwrap_or_default()
        ));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_this_nodes_agents_are_listed() {
        let reply = json!({
            "pmm_agent": [{"agent_id": "/agent_id/p", "runs_on_node_id": "/node_id/n", "connected": true}, {"agent_id": "pmm-server", "runs_on_node_id": "pmm-server"}],
            "mysqld_exporter": [{"agent_id": "/agent_id/m", "pmm_agent_id": "/agent_id/p", "status": "RUNNING", "push_metrics_enabled": true, "listen_port": 42001}],
            "node_exporter": [{"agent_id": "x", "pmm_agent_id": "pmm-server"}]
        });
        let rows = agent_rows(&reply, "/node_id/n", false);
        assert_eq!(rows.len(), 2);
        assert_eq!(rows[0]["status"], "CONNECTED");
        assert_eq!(
            (rows[1]["push_metrics_enabled"].clone(), rows[1]["port"].clone()),
            (json!("push"), json!(42001))
        );
        assert_eq!(
            agent_rows(&reply, "/node_id/n", true)[1]["agent_type"],
            "AGENT_TYPE_MYSQLD_EXPORTER"
        );
    }
}
