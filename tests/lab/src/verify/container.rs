//! The PMM Server's container, field by field, before and after.

use crate::report::Findings;
use crate::{docker, names};
use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

/// `docker inspect` of container and image.
#[derive(Serialize, Deserialize)]
pub struct State {
    /// The container.
    pub container: Value,
    /// The image it runs from.
    pub image: Value,
}

/// Looks at the container with PMM's name.
pub fn look() -> Result<State> {
    let container =
        docker::inspect("container", names::PMM)?.context("the PMM Server container is not there")?;
    let image = container["Image"].as_str().unwrap_or_default().to_owned();
    let image = docker::inspect("image", &image)?.context("its image is not there")?;
    Ok(State { container, image })
}

/// Labels of our own that the re-creation may add.
const OUR_LABELS: &str = "io.pmm-fleet.";

/// Settings that must come through unchanged, as pointers into the inspection.
const KEPT: [&str; 24] = [
    "/HostConfig/RestartPolicy",
    "/HostConfig/Memory",
    "/HostConfig/NanoCpus",
    "/HostConfig/CpuShares",
    "/HostConfig/Ulimits",
    "/HostConfig/LogConfig",
    "/HostConfig/Dns",
    "/HostConfig/DnsSearch",
    "/HostConfig/ExtraHosts",
    "/HostConfig/CapAdd",
    "/HostConfig/CapDrop",
    "/HostConfig/SecurityOpt",
    "/HostConfig/Privileged",
    "/HostConfig/ReadonlyRootfs",
    "/HostConfig/Tmpfs",
    "/HostConfig/Sysctls",
    "/HostConfig/ShmSize",
    "/HostConfig/PidsLimit",
    "/HostConfig/Init",
    "/HostConfig/AutoRemove",
    "/Config/Hostname",
    "/Config/Domainname",
    "/Config/StopTimeout",
    "/Name",
];

/// Expectations after the re-creation.
pub fn compare(before: &State, now: &State, findings: &mut Findings) {
    let (was, is) = (&before.container, &now.container);
    for pointer in KEPT {
        let empty = |value: Option<&Value>| match value {
            None | Some(Value::Null) => Value::Null,
            Some(Value::Array(list)) if list.is_empty() => Value::Null,
            Some(value) => value.clone(),
        };
        findings.equal(
            &format!("container {pointer}"),
            &empty(is.pointer(pointer)),
            &empty(was.pointer(pointer)),
        );
    }
    findings.equal("container mounts", &mounts(is), &mounts(was));
    findings.equal("container networks", &networks(is), &networks(was));
    findings.equal("published ports", &ports(is), &translated(&ports(was)));
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
    let environment = operator_environment(is, &now.image);
    for wanted in WANTED_ENVIRONMENT {
        findings.expect(
            environment.contains(wanted),
            format!("environment lacks `{wanted}`: {environment:?}"),
        );
    }
    findings.equal(
        "number of variables",
        &environment.len(),
        &WANTED_ENVIRONMENT.len(),
    );
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
                "{} {source} -> {} rw={}",
                mount["Type"], mount["Destination"], mount["RW"]
            )
        })
        .collect()
}

fn networks(container: &Value) -> BTreeMap<String, BTreeSet<String>> {
    let short = container["Id"]
        .as_str()
        .unwrap_or_default()
        .get(..12)
        .unwrap_or_default()
        .to_owned();
    let table = container["NetworkSettings"]["Networks"]
        .as_object()
        .cloned()
        .unwrap_or_default();
    table
        .into_iter()
        .map(|(name, network)| {
            let aliases = network["Aliases"].as_array().cloned().unwrap_or_default();
            let aliases = aliases
                .iter()
                .filter_map(Value::as_str)
                .filter(|alias| *alias != short)
                .map(str::to_owned)
                .collect();
            (name, aliases)
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

fn operator_environment(container: &Value, image: &Value) -> BTreeSet<String> {
    let of = |value: &Value| {
        serde_json::from_value::<BTreeSet<String>>(value["Config"]["Env"].clone()).unwrap_or_default()
    };
    of(container).difference(&of(image)).cloned().collect()
}
