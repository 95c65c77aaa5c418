//! `pmm-admin add` and `pmm-admin remove`.

use super::{Context, Printed};
use crate::client::flags::labels;
use serde_json::{Value, json};

/// Adds a service: `add mysql|postgresql|mongodb [name] [address:port]`.
pub fn add(context: &Context) -> Result<Printed, String> {
    let flags = &context.flags;
    let kind = flags
        .words
        .first()
        .cloned()
        .ok_or("expected a service type after `add`")?;
    let (path, port, source) = match kind.as_str() {
        "mysql" => ("/v1/management/MySQL/Add", 3306, "slowlog"),
        "postgresql" => ("/v1/management/PostgreSQL/Add", 5432, "pgstatements"),
        "mongodb" => ("/v1/management/MongoDB/Add", 27017, "profiler"),
        other => return Err(format!("unexpected service type {other}")),
    };
    let status = context.set_up_status(false)?;
    let node = flags
        .get("node-id")
        .unwrap_or_else(|| status["runs_on_node_id"].as_str().unwrap_or_default().to_string());
    if node.is_empty() {
        return Err("Failed to add the service: the local pmm-agent is not connected to PMM Server.".into());
    }
    let name = flags.get("service-name").or_else(|| flags.words.get(1).cloned());
    let name = name.unwrap_or_else(|| format!("{}-{kind}", crate::client::agent::setup::hostname()));
    let target = flags.words.get(2).cloned().unwrap_or_else(|| {
        let host = flags.get("host").unwrap_or_else(|| "127.0.0.1".into());
        format!("{host}:{}", flags.get("port").unwrap_or_else(|| port.to_string()))
    });
    let (address, port) = target.rsplit_once(':').ok_or("expected ADDRESS:PORT")?;
    let port: u16 = port.parse().map_err(|_| "port is not a number")?;
    let source = flags.get("query-source").unwrap_or_else(|| source.to_string());
    let mut body = json!({
        "node_id": node,
        "pmm_agent_id": flags.get("pmm-agent-id").unwrap_or_else(|| status["agent_id"].as_str().unwrap_or_default().to_string()),
        "service_name": name,
        "address": address,
        "port": port,
        "environment": flags.text("environment"),
        "cluster": flags.text("cluster"),
        "replication_set": flags.text("replication-set"),
        "username": flags.text("username"),
        "password": flags.text("password"),
        "custom_labels": labels(&flags.text("custom-labels"))?,
        "skip_connection_check": flags.on("skip-connection-check"),
    });
    if let Some(key) = query_source(&kind, &source)? {
        body[key] = json!(true);
    }
    let server = context.server()?;
    let reply = if context.v3() {
        let mut wrapped = json!({});
        wrapped[&kind] = body;
        context.call(&server, "POST", "/v1/management/services", &wrapped)?
    } else {
        context.call(&server, "POST", path, &body)?
    };
    let service = find_service(&reply).unwrap_or_default();
    let label = match kind.as_str() {
        "mysql" => "MySQL",
        "postgresql" => "PostgreSQL",
        _ => "MongoDB",
    };
    let text = format!(
        "{label} Service added.\nService ID  : {}\nService name: {name}",
        service["service_id"].as_str().unwrap_or_default()
    );
    Ok(Printed {
        text,
        json: json!({"service": service}),
    })
}

/// The request's key for a query source; `none` collects no queries.
fn query_source(kind: &str, source: &str) -> Result<Option<&'static str>, String> {
    Ok(Some(match (kind, source) {
        (_, "none") => return Ok(None),
        ("mysql", "slowlog") => "qan_mysql_slowlog",
        ("mysql", "perfschema") => "qan_mysql_perfschema",
        ("postgresql", "pgstatements") => "qan_postgresql_pgstatements_agent",
        ("postgresql", "pgstatmonitor") => "qan_postgresql_pgstatmonitor_agent",
        ("mongodb", "profiler") => "qan_mongodb_profiler",
        _ => return Err(format!("query source {source} does not fit {kind}")),
    }))
}

/// Finds the object named `service` at any depth of the first levels of an answer.
fn find_service(reply: &Value) -> Option<Value> {
    let object = reply.as_object()?;
    object
        .get("service")
        .cloned()
        .or_else(|| object.values().find_map(find_service))
}

/// Removes a service by type and name: `remove mysql NAME`.
pub fn remove(context: &Context) -> Result<Printed, String> {
    let kind = context
        .flags
        .words
        .first()
        .cloned()
        .ok_or("expected a service type after `remove`")?;
    let name = context
        .flags
        .get("service-name")
        .or_else(|| context.flags.words.get(1).cloned());
    let server = context.server()?;
    let upper = format!("{}_SERVICE", kind.to_ascii_uppercase());
    let id = context.flags.text("service-id");
    if context.v3() {
        let subject = if id.is_empty() {
            name.clone().unwrap_or_default()
        } else {
            id
        };
        context.call(
            &server,
            "DELETE",
            &format!("/v1/management/services/{subject}?service_type=SERVICE_TYPE_{upper}"),
            &Value::Null,
        )?;
    } else {
        let body = json!({"service_type": upper, "service_name": name.unwrap_or_default(), "service_id": id});
        context.call(&server, "POST", "/v1/management/Service/Remove", &body)?;
    }
    Ok(Printed {
        text: "Service removed.".into(),
        json: json!({}),
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn sources_fit_their_service_only() {
        assert_eq!(
            query_source("mysql", "perfschema").unwrap(),
            Some("qan_mysql_perfschema")
        );
        assert_eq!(query_source("mongodb", "none").unwrap(), None);
        assert!(query_source("mongodb", "slowlog").is_err());
    }

    #[test]
    fn the_service_is_found_in_both_answers() {
        assert_eq!(
            find_service(&json!({"service": {"service_id": "1"}})).unwrap()["service_id"],
            "1"
        );
        assert_eq!(
            find_service(&json!({"mysql": {"service": {"service_id": "2"}}})).unwrap()["service_id"],
            "2"
        );
    }
}
