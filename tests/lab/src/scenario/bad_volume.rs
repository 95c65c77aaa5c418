//! The new PMM 3 container gets an empty `/srv`: it would become a healthy, fresh PMM. It must be recognised before any client sees it.

use super::run::Road;
use crate::fleet::HOSTS;
use crate::proxy::Rule;
use crate::report::{Findings, Report};
use crate::verify::container::{self, Hop};
use crate::verify::{Snapshot, host, server};
use crate::{docker, names, pmm};
use anyhow::{Result, bail};
use serde_json::Value;

/// Swaps the volume of the first PMM 3 container and runs.
pub fn drive(road: &mut Road) -> Result<i32> {
    docker::docker(["volume", "create", names::EMPTY_VOLUME])?;
    let reference = format!("{}:3.7.1", names::image_repository());
    docker::docker(["pull", "--quiet", &reference])?;
    let image = docker::inspect("image", &reference)?.unwrap_or_default();
    let mut images = vec![
        reference.clone(),
        image["Id"].as_str().unwrap_or_default().to_owned(),
    ];
    images.extend(
        image["RepoDigests"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(|digest| digest.as_str().map(str::to_owned)),
    );
    let given = names::EMPTY_VOLUME.to_owned();
    road.proxy.set(Some(Rule::SwapVolume {
        images,
        wanted: names::PMM_VOLUME.to_owned(),
        given,
    }));
    let exit = road.start_and_watch()?;
    if road.proxy.hits() == 0 {
        bail!("the volume was never swapped: no container was created from {reference}");
    }
    road.proxy.set(None);
    if !fresh_instance_was_started()? {
        bail!("PMM 3 was never started on the empty volume, so the dark start was not put to the test");
    }
    Ok(exit)
}

/// A fresh PMM 3 leaves its marker on the volume that was slipped under it.
fn fresh_instance_was_started() -> Result<bool> {
    let volume = docker::inspect("volume", names::EMPTY_VOLUME)?.unwrap_or_default();
    let mountpoint = volume["Mountpoint"].as_str().unwrap_or_default().to_owned();
    Ok(std::path::Path::new(&mountpoint)
        .join("pmm-distribution")
        .exists())
}

/// PMM 2.44.1 is back with all services, and no client was touched.
pub fn check(report: &Report, exit: i32, before: &Snapshot) -> Result<()> {
    let mut findings = Findings::default();
    findings.expect(exit != 0, "watch ended with 0");
    findings.equal(
        "server outcome",
        &report.text("/server/outcome"),
        &"restored".to_owned(),
    );
    findings.equal(
        "server reason",
        &report.text("/server/reason"),
        &"fresh_instance".to_owned(),
    );
    if let Some(version) = findings.take("PMM version", pmm::version()) {
        findings.equal("PMM Server release", &version, &"2.44.1".to_owned());
    }
    if let Some(services) = findings.take("PMM services", pmm::services()) {
        findings.equal("services", &services, &before.server.services);
    }
    if let Some(keys) = findings.take("API keys", pmm::api_keys()) {
        findings.equal("API keys", &keys, &before.server.api_keys);
    }
    if let Some(now) = findings.take("container", container::look()) {
        restored(&now, &crate::product::docker_events()?, &mut findings);
        container::compare(&before.container, &now, Hop::WithinPmm2, &mut findings);
    }
    server::fresh(&before.server.sampled, &mut findings);
    for spec in &HOSTS {
        let Some(now) = findings.take(spec.name, host::look(spec)) else {
            continue;
        };
        if let Some(was) = before.hosts.get(spec.name) {
            host::untouched(spec, was, &now, &mut findings);
        }
    }
    findings.finish("bad-volume")
}

/// The container that runs is the one that was made for the hop before, not another one of its kind.
fn restored(now: &container::State, events: &[Value], findings: &mut Findings) {
    let servers = events
        .iter()
        .map(|event| &event["Actor"])
        .filter(|actor| actor["Attributes"]["io.pmm-fleet.role"] == "server");
    let created: Vec<(&Value, &Value)> = servers
        .map(|actor| (&actor["ID"], &actor["Attributes"]["image"]))
        .collect();
    let [(first, image), (second, _)] = created[..] else {
        findings.expect(
            false,
            format!("PMM Server containers created: {created:?}, expected one for each of two hops"),
        );
        return;
    };
    findings.equal("container id", &&now.container["Id"], &first);
    findings.expect(first != second, "both hops made the same container");
    findings.equal(
        "image of the container",
        &&now.container["Config"]["Image"],
        &image,
    );
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn only_the_container_of_the_hop_before_is_a_restored_one() {
        let created = |id: &str, image: &str| json!({"Actor": {"ID": id, "Attributes": {"image": image, "io.pmm-fleet.role": "server"}}});
        let helper = json!({"Actor": {"ID": "h", "Attributes": {"image": "pmm:2.44.1", "io.pmm-fleet.role": "helper"}}});
        let events = [created("a", "pmm:2.44.1"), helper, created("b", "pmm:3.7.1")];
        let judge = |id: &str, image: &str, events: &[Value]| {
            let now = container::State {
                container: json!({"Id": id, "Config": {"Image": image}}),
                image: Value::Null,
            };
            let mut findings = Findings::default();
            restored(&now, events, &mut findings);
            findings.finish("restored").is_ok()
        };
        assert!(judge("a", "pmm:2.44.1", &events));
        assert!(!judge("b", "pmm:3.7.1", &events));
        assert!(!judge("c", "pmm:2.44.1", &events));
        assert!(!judge("a", "pmm:2.41.2", &events));
        assert!(!judge("a", "pmm:2.44.1", &events[..2]));
        let again = [&events[..], &[created("a2", "pmm:2.44.1")]].concat();
        assert!(!judge("a2", "pmm:2.44.1", &again));
    }
}
