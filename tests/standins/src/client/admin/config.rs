//! `pmm-admin config` and `pmm-admin unregister`.

use super::{Context, Printed};
use crate::client::http::parse_server_url;
use crate::client::out;
use serde_json::{Value, json};
use std::process::Command;

/// Starts `pmm-agent setup` for the configuration file of the running agent and passes its exit code on.
pub fn run(context: &Context) -> u8 {
    match arguments(context) {
        Err(e) => {
            out::error(&e);
            1
        }
        Ok(arguments) => match Command::new("pmm-agent").args(&arguments).status() {
            Ok(status) => status.code().and_then(|c| u8::try_from(c).ok()).unwrap_or(1),
            Err(e) => {
                out::error(&format!("exec: \"pmm-agent\": {e}"));
                1
            }
        },
    }
}

fn arguments(context: &Context) -> Result<Vec<String>, String> {
    let flags = &context.flags;
    let url = flags
        .get("server-url")
        .ok_or("Failed to configure: --server-url is required.")?;
    let (address, user, password, tls) = parse_server_url(&url)?;
    let status = context
        .local_status(false)
        .map_err(|e| format!("{e}\nPlease start pmm-agent first."))?;
    let mut list = vec![
        "setup".to_string(),
        format!(
            "--config-file={}",
            status["config_filepath"].as_str().unwrap_or_default()
        ),
        format!("--server-address={address}"),
    ];
    let mut value = |name: &str, text: String| {
        if !text.is_empty() {
            list.push(format!("--{name}={text}"));
        }
    };
    value("server-username", user);
    value("server-password", password);
    for name in [
        "metrics-mode",
        "custom-labels",
        "region",
        "az",
        "node-model",
        "agent-password",
        "disable-collectors",
        "paths-base",
    ] {
        value(name, flags.text(name));
    }
    for (on, name) in [
        (flags.on("server-insecure-tls"), "server-insecure-tls"),
        (!tls, "server-without-tls"),
        (flags.on("force"), "force"),
    ] {
        if on {
            list.push(format!("--{name}"));
        }
    }
    list.extend(flags.words.iter().cloned());
    Ok(list)
}

/// Removes this node from the server; without `--force` only if it has no services.
pub fn unregister(context: &Context) -> Result<Printed, String> {
    let status = context.set_up_status(false)?;
    let node = status["runs_on_node_id"].as_str().unwrap_or_default().to_string();
    if node.is_empty() {
        return Err("Failed to unregister: the local pmm-agent is not connected to PMM Server.".into());
    }
    let server = context.server()?;
    let force = context.flags.on("force");
    if context.v3() {
        context.call(
            &server,
            "DELETE",
            &format!("/v1/management/nodes/{node}?force={force}"),
            &Value::Null,
        )?;
    } else {
        context.call(
            &server,
            "POST",
            "/v1/inventory/Nodes/Remove",
            &json!({"node_id": node, "force": force}),
        )?;
    }
    Ok(Printed {
        text: format!("Node with ID {node} unregistered."),
        json: json!({"node_id": node}),
    })
}
