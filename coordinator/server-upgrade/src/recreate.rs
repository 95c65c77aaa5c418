//! The container that replaces the old one: everything that the operator chose is kept, everything that the old image brought is left
//! to the new image.

use crate::env::{self, Translation};
use crate::image;
use crate::names::{LABEL_PREFIX, Names};
use crate::ports;
use fleet_common::version::PmmVersion;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

/// What Docker is asked for.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ContainerSpec {
    /// Body of the create request. Its restart policy is `no`: in the dark start an exit must be seen, not papered over.
    pub body: Value,
    /// Networks to connect at publication, with what the old container had there.
    pub networks: BTreeMap<String, Value>,
    /// Restart policy to set at publication.
    pub restart_policy: Value,
    /// What is worth reading.
    pub warnings: Vec<String>,
    /// What can't be kept; each one stops the preflight.
    pub problems: Vec<String>,
    /// What the translation of the environment changed, without values.
    pub env_changes: Vec<String>,
}

/// What the specification is made from.
#[derive(Clone, Copy, Debug)]
pub struct Source<'a> {
    /// `docker inspect` of the container.
    pub container: &'a Value,
    /// `docker image inspect` of the image that the container runs from.
    pub image: &'a Value,
    /// The release that runs.
    pub from: PmmVersion,
    /// The release to run.
    pub to: PmmVersion,
}

/// Members of `Config` that a container takes from its image unless the operator says otherwise.
const INHERITED: &[&str] = &[
    "Cmd",
    "Entrypoint",
    "WorkingDir",
    "User",
    "StopSignal",
    "Volumes",
    "Shell",
    "OnBuild",
];

/// The specification of the container that replaces `source.container`.
pub fn spec(source: Source<'_>, image_reference: &str, names: &Names) -> ContainerSpec {
    let crosses = source.from.major == 2 && source.to.major >= 3;
    let mut notes = Notes::default();
    let translated = environment(source);
    let mut config = config(source, crosses, &mut notes);
    config.insert("Image".to_owned(), json!(image_reference));
    let env: Vec<String> = translated
        .env
        .iter()
        .map(|(name, value)| format!("{name}={value}"))
        .collect();
    config.insert("Env".to_owned(), json!(env));
    let labels: BTreeMap<String, String> = operator_labels(source, &mut notes)
        .into_iter()
        .chain(names.labels("server"))
        .collect();
    config.insert("Labels".to_owned(), json!(labels));
    let (host, restart_policy) = host_config(source, crosses, &mut notes);
    config.insert("HostConfig".to_owned(), host);
    notes.warnings.extend(translated.warnings);
    notes.problems.extend(translated.problems);
    ContainerSpec {
        body: Value::Object(config),
        networks: networks(source.container),
        restart_policy,
        warnings: notes.warnings,
        problems: notes.problems,
        env_changes: translated.changes,
    }
}

#[derive(Default)]
struct Notes {
    warnings: Vec<String>,
    problems: Vec<String>,
}

/// The operator's environment, translated for this hop.
pub fn environment(source: Source<'_>) -> Translation {
    let container = image::strings(&source.container["Config"], "Env");
    let image = image::strings(&source.image["Config"], "Env");
    env::translate(&env::operator_env(&container, &image), source.from, source.to)
}

fn config(source: Source<'_>, crosses: bool, notes: &mut Notes) -> Map<String, Value> {
    let old = &source.container["Config"];
    let inherited = &source.image["Config"];
    let mut config = old.as_object().cloned().unwrap_or_default();
    let from_image = |name: &str, value: &Value| INHERITED.contains(&name) && inherited[name] == *value;
    config.retain(|name, value| !image::is_empty(value) && !from_image(name, value));
    let id = source.container["Id"].as_str().unwrap_or_default();
    if config
        .get("Hostname")
        .and_then(Value::as_str)
        .is_some_and(|name| id.starts_with(name))
    {
        config.remove("Hostname");
    }
    if crosses && config.remove("User").is_some() {
        notes
            .warnings
            .push("the container's user is not kept: PMM 3 runs as uid 1000".to_owned());
    }
    for name in ["Cmd", "Entrypoint"] {
        if config.contains_key(name) {
            notes
                .warnings
                .push(format!("the container has a {name} of its own, which is kept"));
        }
    }
    config.insert(
        "ExposedPorts".to_owned(),
        ports::translate_exposed(&old["ExposedPorts"], &inherited["ExposedPorts"], crosses),
    );
    match healthcheck(&old["Healthcheck"], &inherited["Healthcheck"], crosses) {
        Some(own) => config.insert("Healthcheck".to_owned(), own),
        None => config.remove("Healthcheck"),
    };
    config
}

/// The operator's own health check; `None` where the image's is used. A probe of PMM 2's ports is moved to PMM 3's.
fn healthcheck(own: &Value, inherited: &Value, crosses: bool) -> Option<Value> {
    if image::is_empty(own) || own == inherited {
        return None;
    }
    let mut own = own.clone();
    if own["Test"] == inherited["Test"] {
        own.as_object_mut()?.remove("Test");
    } else if crosses {
        for word in own["Test"].as_array_mut().into_iter().flatten() {
            if let Some(text) = word.as_str() {
                *word = json!(move_probe(text));
            }
        }
    }
    Some(own)
}

fn move_probe(text: &str) -> String {
    let mut text = text.to_owned();
    for host in ["127.0.0.1", "localhost"] {
        for (old, new) in [("https://", "8443"), ("http://", "8080"), ("", "8080")] {
            for port in [":80/", ":443/", "/"] {
                let inner = if port == ":443/" { "8443" } else { new };
                let from = format!("{old}{host}{port}");
                let to = format!("{old}{host}:{inner}/");
                text = text.replace(&from, &to);
            }
        }
    }
    text
}

fn operator_labels(source: Source<'_>, notes: &mut Notes) -> BTreeMap<String, String> {
    let inherited = &source.image["Config"]["Labels"];
    let mut labels = BTreeMap::new();
    for (name, value) in source.container["Config"]["Labels"]
        .as_object()
        .into_iter()
        .flatten()
    {
        if inherited[name] != *value && !name.starts_with(LABEL_PREFIX) {
            labels.insert(name.clone(), value.as_str().unwrap_or_default().to_owned());
        }
    }
    if let Some(project) = labels.get("com.docker.compose.project") {
        notes.warnings.push(format!("the container belongs to the compose project {project}: change the image there before the next `up`"));
    }
    if labels.keys().any(|name| name.starts_with("autoheal")) {
        notes
            .warnings
            .push("autoheal restarts unhealthy containers; PMM is unhealthy during a migration".to_owned());
    }
    labels
}

fn host_config(source: Source<'_>, crosses: bool, notes: &mut Notes) -> (Value, Value) {
    let container = source.container;
    let mut host = container["HostConfig"].as_object().cloned().unwrap_or_default();
    let publish_all = host
        .get("PublishAllPorts")
        .and_then(Value::as_bool)
        .unwrap_or(false);
    let bindings = host.get("PortBindings").cloned().unwrap_or(Value::Null);
    host.insert(
        "PortBindings".to_owned(),
        ports::translate_bindings(
            &bindings,
            &container["NetworkSettings"]["Ports"],
            publish_all,
            crosses,
        ),
    );
    host.insert("PublishAllPorts".to_owned(), json!(false));
    host.remove("ContainerIDFile");
    let policy = host
        .insert("RestartPolicy".to_owned(), json!({"Name": "no"}))
        .unwrap_or_else(|| json!({"Name": "no"}));
    if host.get("AutoRemove").and_then(Value::as_bool) == Some(true) {
        notes.problems.push("the container was started with --rm: Docker would delete it, and its anonymous volumes, when it is stopped".to_owned());
    }
    match host
        .get("NetworkMode")
        .and_then(Value::as_str)
        .unwrap_or_default()
    {
        mode @ ("host" | "none") => notes.problems.push(format!(
            "network mode `{mode}`: PMM can't be started apart from its clients"
        )),
        mode if mode.starts_with("container:") => {
            notes
                .problems
                .push("the container uses the network of another container".to_owned());
        }
        _ => {}
    }
    add_anonymous_volumes(container, &mut host);
    (Value::Object(host), policy)
}

/// Volumes that are mounted without being asked for (declared by the image, or taken from another container) are asked for by name.
fn add_anonymous_volumes(container: &Value, host: &mut Map<String, Value>) {
    let mut covered: Vec<String> = Vec::new();
    for bind in host
        .get("Binds")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
    {
        covered.extend(bind.split(':').nth(1).map(clean));
    }
    for mount in host.get("Mounts").and_then(Value::as_array).into_iter().flatten() {
        covered.extend(mount["Target"].as_str().map(clean));
    }
    let mut binds = host
        .get("Binds")
        .and_then(Value::as_array)
        .cloned()
        .unwrap_or_default();
    for mount in container["Mounts"].as_array().into_iter().flatten() {
        let destination = clean(mount["Destination"].as_str().unwrap_or_default());
        if mount["Type"] == "volume" && !covered.contains(&destination) {
            let mode = if mount["RW"] == json!(false) { ":ro" } else { "" };
            binds.push(json!(format!(
                "{}:{destination}{mode}",
                mount["Name"].as_str().unwrap_or_default()
            )));
        }
    }
    if !binds.is_empty() {
        host.insert("Binds".to_owned(), Value::Array(binds));
    }
}

/// A path in the container as Docker compares it: without empty and `.` parts, `..` resolved. What the operator wrote is kept as it was in
/// `Binds` and `Mounts`, and clean in the list of what is mounted.
fn clean(path: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            name => parts.push(name),
        }
    }
    format!("/{}", parts.join("/"))
}

/// Endpoint settings to connect each network with: aliases, static addresses and priorities, without what Docker gave by itself.
fn networks(container: &Value) -> BTreeMap<String, Value> {
    let id = container["Id"].as_str().unwrap_or_default();
    let mut out = BTreeMap::new();
    for (name, old) in container["NetworkSettings"]["Networks"]
        .as_object()
        .into_iter()
        .flatten()
    {
        let mut endpoint = Map::new();
        for member in ["IPAMConfig", "Links", "DriverOpts"] {
            if !image::is_empty(&old[member]) {
                endpoint.insert(member.to_owned(), old[member].clone());
            }
        }
        if let Some(priority) = old["GwPriority"].as_i64().filter(|priority| *priority != 0) {
            endpoint.insert("GwPriority".to_owned(), json!(priority));
        }
        if let Some(mac) = old["MacAddress"].as_str().filter(|mac| !mac.is_empty())
            && !is_made_from(mac, old["IPAddress"].as_str().unwrap_or_default())
        {
            endpoint.insert("MacAddress".to_owned(), json!(mac));
        }
        let aliases: Vec<String> = image::strings(old, "Aliases")
            .into_iter()
            .filter(|alias| !(alias.len() == 12 && id.starts_with(alias.as_str())))
            .collect();
        // The default bridge has no aliases.
        if name != "bridge" && !aliases.is_empty() {
            endpoint.insert("Aliases".to_owned(), json!(aliases));
        }
        out.insert(name.clone(), Value::Object(endpoint));
    }
    out
}

/// Whether Docker made this hardware address from the network address, which may be another one next time (moby `libnetwork/netutils`).
fn is_made_from(mac: &str, address: &str) -> bool {
    address.parse::<std::net::Ipv4Addr>().is_ok_and(|address| {
        let [a, b, c, d] = address.octets();
        mac.eq_ignore_ascii_case(&format!("02:42:{a:02x}:{b:02x}:{c:02x}:{d:02x}"))
    })
}

#[cfg(test)]
#[path = "recreate_tests.rs"]
mod tests;
