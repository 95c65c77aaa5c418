//! The new PMM 3 container gets an empty `/srv`: it would become a healthy, fresh PMM. It must be recognised before any client sees it.

use super::run::Road;
use crate::fleet::HOSTS;
use crate::proxy::Rule;
use crate::report::{Findings, Report};
use crate::verify::{Snapshot, host, server};
use crate::{docker, names, pmm};
use anyhow::{Result, bail};

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
