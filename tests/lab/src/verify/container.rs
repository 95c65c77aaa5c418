//! The PMM Server's container, field by field, before and after.

use crate::report::Findings;
use crate::{docker, names};
use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

/// `docker inspect` of container and image.
#[derive(Clone, Serialize, Deserialize)]
pub struct State {
    /// The container.
    pub container: Value,
    /// The image it runs from.
    pub image: Value,
}

/// What was made between the two looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hop {
    /// PMM 2 stayed PMM 2: nothing may be translated.
    WithinPmm2,
    /// PMM 2 became PMM 3: inner ports moved and variables have other names.
    ToPmm3,
}

/// Looks at the container with PMM's name.
pub fn look() -> Result<State> {
    let mut container =
        docker::inspect("container", names::PMM)?.context("the PMM Server container is not there")?;
    // The engine lists them in no order.
    if let Some(mounts) = container["Mounts"].as_array_mut() {
        mounts.sort_by_key(|mount| mount["Destination"].to_string());
    }
    let image = container["Image"].as_str().unwrap_or_default().to_owned();
    let image = docker::inspect("image", &image)?.context("its image is not there")?;
    Ok(State { container, image })
}

/// Labels of our own that the re-creation may add.
const OUR_LABELS: &str = "io.pmm-fleet.";

/// Everything in `HostConfig` must come through unchanged, except these.
const OTHER_HOST_CONFIG: [&str; 3] = [
    // Compared with their inner ports translated.
    "PortBindings",
    // The file that `docker run --cidfile` wrote; the container's id is another one.
    "ContainerIDFile",
    // The network that the container was created with. A new one begins apart from the clients; the networks are compared by themselves.
    "NetworkMode",
];

/// Everything in `Config` must come through unchanged, except these, which are compared by themselves.
const OTHER_CONFIG: [&str; 4] = ["Image", "Env", "Labels", "ExposedPorts"];

/// Of the members outside of both, those that somebody may have asked for.
const OTHER_MEMBERS: [&str; 5] = [
    "Name",
    "Platform",
    "AppArmorProfile",
    "MountLabel",
    "ProcessLabel",
];

/// Expectations where nobody may have touched the container.
pub fn untouched(before: &State, now: &State, findings: &mut Findings) {
    for pointer in [
        "/Id",
        "/State/StartedAt",
        "/State/Pid",
        "/Config",
        "/HostConfig",
        "/Mounts",
        "/NetworkSettings/Networks",
    ] {
        let of = |state: &State| state.container.pointer(pointer).cloned();
        findings.equal(&format!("container {pointer}"), &of(now), &of(before));
    }
}

/// Expectations after the re-creation.
pub fn compare(before: &State, now: &State, hop: Hop, findings: &mut Findings) {
    let (was, is) = (&before.container, &now.container);
    let mut same = |what: &str, is: &BTreeMap<String, Value>, was: &BTreeMap<String, Value>| {
        let names: BTreeSet<&String> = is.keys().chain(was.keys()).collect();
        for name in names {
            findings.equal(&format!("container {what}{name}"), &is.get(name), &was.get(name));
        }
    };
    same("HostConfig.", &host_config(is), &host_config(was));
    same("Config.", &own_config(now), &own_config(before));
    same("", &members(is), &members(was));
    same("network ", &networks(is), &networks(was));
    findings.equal("container mounts", &mounts(is), &mounts(was));
    let inner = |ports: BTreeSet<String>| {
        if hop == Hop::ToPmm3 {
            translated(&ports)
        } else {
            ports
        }
    };
    findings.equal("published ports", &ports(is), &inner(ports(was)));
    findings.equal("exposed ports", &exposed(now), &inner(exposed(before)));
    let labels = labels(is, &now.image);
    for (key, value) in self::labels(was, &before.image) {
        findings.equal(&format!("label {key}"), &labels.get(&key).cloned(), &Some(value));
    }
    let strange: Vec<&String> = labels
        .keys()
        .filter(|key| !key.starts_with(OUR_LABELS) && !self::labels(was, &before.image).contains_key(*key))
        .collect();
    findings.expect(
        strange.is_empty(),
        format!("labels that nobody asked for: {strange:?}"),
    );
    let wanted = match hop {
        Hop::WithinPmm2 => operator_environment(before),
        Hop::ToPmm3 => WANTED_ENVIRONMENT.map(str::to_owned).into(),
    };
    findings.equal("environment", &operator_environment(now), &wanted);
    findings.expect(
        is["RestartCount"] == 0 && is["State"]["Running"] == true,
        "the container restarted or does not run",
    );
}

/// What [`crate::pmm::start`] sets, as PMM 3 names it (PMM docs, migrating_from_pmm_2.md, table of variables).
const WANTED_ENVIRONMENT: [&str; 7] = [
    "PMM_DATA_RETENTION=720h",
    "PMM_ENABLE_TELEMETRY=false",
    "PMM_ENABLE_UPDATES=true",
    "PMM_ENABLE_ACCESS_CONTROL=1",
    "PMM_DEBUG=1",
    "GF_SECURITY_COOKIE_SECURE=true",
    r#"SITE_NOTE=a "quoted" $value with \ and `ticks`"#,
];

/// Docker writes what nobody set as null, as nothing, or as empty, by the way a container was created.
fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::String(text) => text.is_empty(),
        Value::Array(list) => list.is_empty(),
        Value::Object(table) => table.is_empty(),
        Value::Bool(_) | Value::Number(_) => false,
    }
}

fn filled(value: &Value, without: &[&str]) -> BTreeMap<String, Value> {
    let table = value.as_object().cloned().unwrap_or_default();
    let kept = table
        .into_iter()
        .filter(|(key, value)| !without.contains(&key.as_str()) && !is_empty(value));
    kept.collect()
}

fn host_config(container: &Value) -> BTreeMap<String, Value> {
    filled(&container["HostConfig"], &OTHER_HOST_CONFIG)
}

/// What the container has of its own, not from its image, which is another one after a hop.
fn own_config(state: &State) -> BTreeMap<String, Value> {
    let inherited = &state.image["Config"];
    let mut own = filled(&state.container["Config"], &OTHER_CONFIG);
    own.retain(|key, value| inherited[key] != *value);
    own
}

fn members(container: &Value) -> BTreeMap<String, Value> {
    let mut members = filled(container, &[]);
    members.retain(|key, _| OTHER_MEMBERS.contains(&key.as_str()));
    members
}

fn mounts(container: &Value) -> BTreeSet<String> {
    let list = container["Mounts"].as_array().cloned().unwrap_or_default();
    list.iter()
        .map(|mount| {
            let source = if mount["Type"] == "volume" {
                &mount["Name"]
            } else {
                &mount["Source"]
            };
            format!(
                "{} {source} -> {} rw={} propagation={}",
                mount["Type"], mount["Destination"], mount["RW"], mount["Propagation"]
            )
        })
        .collect()
}

/// What was asked for on each network: aliases without the one that Docker adds, static addresses, links, options, priority.
fn networks(container: &Value) -> BTreeMap<String, Value> {
    let short = container["Id"]
        .as_str()
        .unwrap_or_default()
        .get(..12)
        .unwrap_or_default();
    let table = container["NetworkSettings"]["Networks"]
        .as_object()
        .cloned()
        .unwrap_or_default();
    let asked = ["IPAMConfig", "Links", "DriverOpts", "GwPriority"];
    table
        .into_iter()
        .map(|(name, network)| {
            let mut wanted = filled(&network, &[]);
            wanted.retain(|key, value| asked.contains(&key.as_str()) && *value != 0);
            let aliases: BTreeSet<&str> = network["Aliases"]
                .as_array()
                .into_iter()
                .flatten()
                .filter_map(Value::as_str)
                .filter(|alias| *alias != short)
                .collect();
            wanted.insert("Aliases".to_owned(), serde_json::json!(aliases));
            if wanted.contains_key("IPAMConfig") {
                wanted.insert("IPAddress".to_owned(), network["IPAddress"].clone());
            }
            (name, wanted.into_iter().collect())
        })
        .collect()
}

fn ports(container: &Value) -> BTreeSet<String> {
    let table = container["HostConfig"]["PortBindings"]
        .as_object()
        .cloned()
        .unwrap_or_default();
    table
        .iter()
        .flat_map(|(inner, bindings)| {
            let bindings = bindings.as_array().cloned().unwrap_or_default();
            bindings.into_iter().map(move |bound| {
                format!(
                    "{}:{} -> {inner}",
                    bound["HostIp"].as_str().unwrap_or_default(),
                    bound["HostPort"].as_str().unwrap_or_default()
                )
            })
        })
        .collect()
}

/// Ports that the container exposes and its image does not.
fn exposed(state: &State) -> BTreeSet<String> {
    let of = |value: &Value| {
        let table = value["Config"]["ExposedPorts"].as_object();
        let names = table.into_iter().flat_map(|table| table.keys());
        names.map(|port| format!("-> {port}")).collect::<BTreeSet<_>>()
    };
    of(&state.container)
        .difference(&of(&state.image))
        .cloned()
        .collect()
}

fn translated(ports: &BTreeSet<String>) -> BTreeSet<String> {
    ports
        .iter()
        .map(|port| port.replace("-> 443/", "-> 8443/").replace("-> 80/", "-> 8080/"))
        .collect()
}

fn labels(container: &Value, image: &Value) -> BTreeMap<String, String> {
    let of = |value: &Value| {
        serde_json::from_value::<BTreeMap<String, String>>(value["Config"]["Labels"].clone())
            .unwrap_or_default()
    };
    let inherited = of(image);
    of(container)
        .into_iter()
        .filter(|(key, value)| inherited.get(key) != Some(value))
        .collect()
}

fn operator_environment(state: &State) -> BTreeSet<String> {
    let of = |value: &Value| {
        serde_json::from_value::<BTreeSet<String>>(value["Config"]["Env"].clone()).unwrap_or_default()
    };
    of(&state.container)
        .difference(&of(&state.image))
        .cloned()
        .collect()
}

#[cfg(test)]
#[path = "container_tests.rs"]
mod tests;
