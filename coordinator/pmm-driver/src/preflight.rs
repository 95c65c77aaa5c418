//! Looks at everything that a hop depends on and has it judged.

use crate::config::ServerConfig;
use crate::docker::Docker;
use crate::docker::helper::Work;
use crate::error::DriverError;
use crate::inspect::{Gathered, data_binds, gather};
use crate::pmm::Pmm;
use crate::snapshot;
use fleet_common::codes;
use fleet_common::hint::chain;
use fleet_common::ids::{LegId, OrderId};
use fleet_common::server::{Pmm2Update, ServerOrder};
use fleet_common::survey::{Finding, Verdict};
use fleet_common::verification::FleetSnapshot;
use fleet_common::version::PmmVersion;
use server_upgrade::facts::PreflightReport;
use server_upgrade::names::{LABEL_MANAGED, LABEL_ROLE, Names, Phase};
use server_upgrade::preflight::{Sight, judge};
use server_upgrade::recreate::{Source, spec};
use server_upgrade::volume::LookReport;
use std::collections::BTreeSet;

/// Everything that can be checked before PMM stops.
pub async fn run(
    docker: &Docker,
    pmm: &Pmm,
    config: &ServerConfig,
    program: &[u8],
    path: &[PmmVersion],
    pmm2: Pmm2Update,
) -> Result<PreflightReport, DriverError> {
    let gathered = gather(docker, pmm, config).await?;
    let version = gathered.facts.version;
    let look = look(docker, config, program, &gathered).await;
    let snapshot = snapshot::take(pmm, 0).await?;
    let settings = pmm.settings(version.major).await;
    let mut images = Vec::new();
    for wanted in images_needed(&gathered, path, pmm2) {
        let found = docker.resolve(&config.image_repository, wanted).await;
        images.push((wanted, found.map(|one| one.digest).map_err(|error| chain(&error))));
    }
    let specs: Vec<_> = path
        .iter()
        .map(|to| {
            (
                *to,
                spec(
                    source(&gathered, *to),
                    &config.image_repository,
                    &names(config, *to),
                ),
            )
        })
        .collect();
    let alertmanager = settings.as_ref().is_ok_and(|settings| {
        ["alert_manager_url", "alert_manager_rules"]
            .iter()
            .any(|name| settings[name].as_str().is_some_and(|text| !text.is_empty()))
    });
    let admin = settings.map(|_| ()).map_err(|error| chain(&error));
    let backups = pmm.backups(version.major).await;
    let named = |services: &BTreeSet<String>| -> Vec<String> {
        services.iter().map(|id| on_node(&snapshot, id)).collect()
    };
    let (scheduled, running) = (named(&backups.scheduled), named(&backups.running));
    let told = look.as_ref().map_err(chain_text);
    let mut findings = judge(&Sight {
        facts: &gathered.facts,
        path,
        look: told.as_ref().map(|look| *look).map_err(String::as_str),
        free_bytes: look.as_ref().map_or(0, |look| look.free_bytes),
        specs: &specs,
        images: &images,
        admin: admin.as_ref().map_err(String::as_str).copied(),
        backups_on: &scheduled,
        backups_running: &running,
        backups_unknown: &backups.unknown,
        clients: snapshot.clients.len(),
        services: snapshot.services.len(),
        alertmanager,
    });
    if let Some(first) = path
        .first()
        .filter(|first| first.major == 2 && pmm2 == Pmm2Update::Api)
    {
        findings.push(offer(pmm, *first).await);
    }
    let look = look.unwrap_or_default();
    Ok(PreflightReport {
        facts: gathered.facts,
        data_bytes: look.bytes,
        data_files: look.files,
        free_bytes: look.free_bytes,
        findings,
    })
}

/// A service with the node whose client must not be switched while its backup runs.
fn on_node(snapshot: &FleetSnapshot, id: &str) -> String {
    let Some(service) = snapshot.services.get(id) else {
        return format!("service {id}");
    };
    let node = snapshot
        .clients
        .values()
        .find(|one| one.node_id == service.node_id);
    node.map_or_else(
        || service.name.clone(),
        |node| format!("{} on {}", service.name, node.node_name),
    )
}

fn chain_text(error: &DriverError) -> String {
    chain(error)
}

fn source(gathered: &Gathered, to: PmmVersion) -> Source<'_> {
    Source {
        container: &gathered.container,
        image: &gathered.image,
        from: gathered.facts.version,
        to,
    }
}

/// The images of the path, and that of the running release if the container has to be re-created first.
fn images_needed(gathered: &Gathered, path: &[PmmVersion], pmm2: Pmm2Update) -> Vec<PmmVersion> {
    let mut needed = path.to_vec();
    let first_needs_image = |first: &PmmVersion| first.major >= 3 || pmm2 == Pmm2Update::Api;
    if path.first().is_some_and(first_needs_image) && !gathered.facts.image_matches_data() {
        needed.insert(0, gathered.facts.version);
    }
    needed
}

async fn look(
    docker: &Docker,
    config: &ServerConfig,
    program: &[u8],
    gathered: &Gathered,
) -> Result<LookReport, DriverError> {
    let binds = data_binds(&gathered.container, true);
    if binds.is_empty() {
        return Err(DriverError::state(
            codes::UNEXPECTED_STATE,
            "nothing is mounted at /srv",
        ));
    }
    let labels = [(LABEL_MANAGED, "true"), (LABEL_ROLE, "helper")];
    docker
        .help(&Work {
            name: format!("{}-fleet-look", config.container),
            labels: labels
                .into_iter()
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .collect(),
            image: &gathered.facts.image_id,
            program,
            args: ["look", "--root", "/srv", "--space", "/", "--count"]
                .iter()
                .map(|word| (*word).to_owned())
                .collect(),
            binds,
            limit: config.deadlines.volume,
            reuse: false,
        })
        .await
}

/// Only names of a specification depend on the order; the judgement does not.
fn names(config: &ServerConfig, to: PmmVersion) -> Names {
    let order = ServerOrder {
        order: OrderId::new("preflight"),
        leg: LegId::new("preflight"),
        attempt: 1,
        hop: 1,
        from: to,
        to,
        pmm2_update: Pmm2Update::Image,
        last_of_leg: false,
        accept_unsettled: false,
    };
    Names::new(&config.container, &order, Phase::Main)
}

/// Whether PMM 2's own update leads to the release.
async fn offer(pmm: &Pmm, wanted: PmmVersion) -> Finding {
    let finding = |verdict, message: String, hint: &str| Finding {
        check: "api_update".to_owned(),
        verdict,
        message,
        hint: hint.to_owned(),
    };
    let advice = "set pmm2_update = \"image\" in the fleet file";
    match pmm.check_updates().await {
        Ok(offer) if offer.latest == Some(wanted) && offer.available => {
            finding(Verdict::Pass, format!("PMM offers {wanted}"), "")
        }
        Ok(offer) => {
            let latest = offer
                .latest
                .map_or_else(|| "nothing".to_owned(), |version| version.to_string());
            finding(
                Verdict::Fail,
                format!("PMM's own update offers {latest}, not {wanted}"),
                advice,
            )
        }
        Err(error) => finding(
            Verdict::Fail,
            format!("PMM's own update can't be used: {}", chain(&error)),
            advice,
        ),
    }
}
