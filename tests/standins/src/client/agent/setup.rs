//! `pmm-agent setup`: registers the node, writes the configuration, reloads a running agent.
//!
//! Every run registers anew; `--force` makes the server delete the node with everything under it. That is how all releases played here behave.

use super::{load, lookup};
use crate::client::flags::{Flags, labels};
use crate::client::http::{Endpoint, authorization};
use crate::client::out;
use crate::client::release::Release;
use serde_json::{Value, json};
use std::path::Path;

/// Runs setup; 1 on any failure.
pub fn main(release: &Release, flags: &Flags) -> u8 {
    match setup(release, flags) {
        Ok(()) => 0,
        Err(e) => {
            out::error(&e);
            1
        }
    }
}

/// A setting of `setup` alone: flag, then `PMM_AGENT_SETUP_*`.
fn setting(flags: &Flags, name: &str) -> Option<String> {
    flags.get(name).or_else(|| {
        std::env::var(format!(
            "PMM_AGENT_SETUP_{}",
            name.replace('-', "_").to_ascii_uppercase()
        ))
        .ok()
    })
}

fn is_on(value: Option<String>) -> bool {
    value.is_some_and(|v| v == "1" || v == "true")
}

fn setup(release: &Release, flags: &Flags) -> Result<(), String> {
    let path = lookup(flags, "config-file")
        .ok_or("Failed to load configuration: configuration file is not given.")?;
    let (mut config, _) = match load(release, flags) {
        Err(e) if e.ends_with("does not exist") => {
            std::fs::write(&path, b"").map_err(|e| format!("open {path}: {e}"))?;
            load(release, flags)?
        }
        loaded => loaded?,
    };
    if config.server_address.is_empty() {
        return Err("Failed to setup: server address is not given.".into());
    }
    out::line("Checking local pmm-agent status...");
    let local = local_endpoint(&config.listen_address, config.listen_port);
    let running = local
        .json("POST", "/local/Status", &json!({}))
        .is_ok_and(|a| a.status == 200);
    out::line(if running {
        "pmm-agent is running."
    } else {
        "pmm-agent is not running."
    });
    if is_on(setting(flags, "skip-registration")) {
        if config.id.is_empty() {
            return Err("Can't skip registration: agent id is empty.".into());
        }
    } else {
        out::line("Registering pmm-agent on PMM Server...");
        let reply = register(release, flags, &config)?;
        config.id = text(&reply, &["pmm_agent", "agent_id"]).ok_or("malformed answer: no agent id")?;
        if let Some(token) = text(&reply, &["token"]).filter(|t| !t.is_empty()) {
            config.server_username = if release.is_v3() {
                "service_token"
            } else {
                "api_key"
            }
            .into();
            config.server_password = token;
        }
        out::line("Registered.");
    }
    config.save(Path::new(&path))?;
    out::line(&format!("Configuration file {path} updated."));
    if !running {
        out::line("Please start pmm-agent: `pmm-agent --config-file=...`.");
        return Ok(());
    }
    out::line("Reloading pmm-agent configuration...");
    let answer = local
        .json("POST", "/local/Reload", &json!({}))
        .map_err(|e| format!("Failed to reload configuration: {e}"))?;
    if answer.status != 200 {
        return Err(format!(
            "Failed to reload configuration: {}",
            String::from_utf8_lossy(&answer.body)
        ));
    }
    out::line("Configuration reloaded.");
    Ok(())
}

fn text(value: &Value, keys: &[&str]) -> Option<String> {
    keys.iter()
        .try_fold(value, |v, k| v.get(k))?
        .as_str()
        .map(ToString::to_string)
}

/// Where the local API of a configuration listens.
pub fn local_endpoint(address: &str, port: u16) -> Endpoint {
    Endpoint {
        host: address.into(),
        port,
        tls: false,
        insecure: false,
        authorization: None,
    }
}

fn register(
    release: &Release,
    flags: &Flags,
    config: &crate::client::config::Config,
) -> Result<Value, String> {
    let words = &flags.words;
    let hostname = hostname();
    let address = words
        .first()
        .cloned()
        .or_else(|| std::env::var("PMM_AGENT_SETUP_NODE_ADDRESS").ok())
        .unwrap_or_else(|| "127.0.0.1".into());
    let kind = words
        .get(1)
        .cloned()
        .or_else(|| std::env::var("PMM_AGENT_SETUP_NODE_TYPE").ok())
        .unwrap_or_else(|| "generic".into());
    let name = words
        .get(2)
        .cloned()
        .or_else(|| std::env::var("PMM_AGENT_SETUP_NODE_NAME").ok())
        .unwrap_or(hostname);
    let prefix = if release.is_v3() { "NODE_TYPE_" } else { "" };
    let machine = std::fs::read_to_string("/etc/machine-id").unwrap_or_default();
    let body = json!({
        "node_type": format!("{prefix}{}_NODE", kind.to_ascii_uppercase()),
        "node_name": name,
        "address": address,
        "machine_id": setting(flags, "machine-id").unwrap_or_else(|| format!("/machine_id/{}", machine.trim())),
        "distro": setting(flags, "distro").unwrap_or_else(|| "linux".into()),
        "container_id": setting(flags, "container-id").unwrap_or_default(),
        "container_name": setting(flags, "container-name").unwrap_or_default(),
        "node_model": setting(flags, "node-model").unwrap_or_default(),
        "region": setting(flags, "region").unwrap_or_default(),
        "az": setting(flags, "az").unwrap_or_default(),
        "custom_labels": labels(&setting(flags, "custom-labels").unwrap_or_default())?,
        "reregister": is_on(setting(flags, "force")),
        "metrics_mode": setting(flags, "metrics-mode").unwrap_or_else(|| "auto".into()).to_ascii_uppercase(),
    });
    let (host, port) = config
        .server_address
        .rsplit_once(':')
        .ok_or("server address has no port")?;
    let endpoint = Endpoint {
        host: host.into(),
        port: port
            .parse()
            .map_err(|_| "port of the server address is not a number")?,
        tls: !config.without_tls,
        insecure: config.insecure_tls,
        authorization: authorization(&config.server_username, &config.server_password, release.is_v3()),
    };
    let path = if release.is_v3() {
        "/v1/management/nodes"
    } else {
        "/v1/management/Node/Register"
    };
    let answer = endpoint
        .json("POST", path, &body)
        .map_err(|e| format!("Failed to register pmm-agent on PMM Server: {e}."))?;
    let detail = text(&answer.json(), &["message"])
        .or_else(|| text(&answer.json(), &["error"]))
        .unwrap_or_default();
    match answer.status {
        200 => Ok(answer.json()),
        401 => Err(
            "Failed to register pmm-agent on PMM Server: Unauthorized.\nPlease check username and password."
                .into(),
        ),
        409 => Err(format!(
            "Failed to register pmm-agent on PMM Server: {detail}\nIf you want override node, use --force option."
        )),
        404 => Err(format!(
            "Failed to register pmm-agent on PMM Server: unknown endpoint {path}: (status 404) {detail}"
        )),
        code => Err(format!(
            "Failed to register pmm-agent on PMM Server: (status {code}) {detail}"
        )),
    }
}

/// The host's name.
pub fn hostname() -> String {
    std::fs::read_to_string("/proc/sys/kernel/hostname")
        .unwrap_or_default()
        .trim()
        .to_string()
}
