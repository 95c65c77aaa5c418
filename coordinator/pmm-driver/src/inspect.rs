//! What runs: container, image, release.

use crate::config::ServerConfig;
use crate::docker::{Docker, containers, networks};
use crate::error::DriverError;
use crate::pmm::Pmm;
use fleet_common::codes;
use fleet_common::version::PmmVersion;
use serde_json::Value;
use server_upgrade::env::operator_env;
use server_upgrade::facts::{DataMount, ServerFacts};
use server_upgrade::image::{strings, version_in_file};
use server_upgrade::ports;

/// Version marker on the volume, as a path in the container.
pub const MARKER: &str = "/srv/grafana/PERCONA_DASHBOARDS_VERSION";

/// Facts and what they were made from.
pub struct Gathered {
    /// The facts.
    pub facts: ServerFacts,
    /// `docker inspect`.
    pub container: Value,
    /// `docker image inspect`.
    pub image: Value,
}

/// The first container that is asked for is the one that the fleet file names.
fn which(error: DriverError) -> DriverError {
    match error {
        DriverError::State {
            code,
            message,
            mut hints,
        } => {
            hints.push(
                "`docker = { endpoint = \"...\", container = \"...\" }` in [server] of the fleet file says which one runs PMM"
                    .to_owned(),
            );
            DriverError::State { code, message, hints }
        }
        other => other,
    }
}

/// Looks at everything; changes nothing.
pub async fn gather(docker: &Docker, pmm: &Pmm, config: &ServerConfig) -> Result<Gathered, DriverError> {
    let container = docker.existing(&config.container).await.map_err(which)?;
    if !containers::running(&container) {
        return Err(DriverError::State {
            code: codes::UNEXPECTED_STATE,
            message: format!("the container {} does not run", config.container),
            hints: vec![format!("start it and see that PMM answers at {}", config.url)],
        });
    }
    let image_id = container["Image"].as_str().unwrap_or_default().to_owned();
    let Some(image) = docker.image(&image_id).await? else {
        return Err(DriverError::State {
            code: codes::UNEXPECTED_STATE,
            message: format!(
                "the image {image_id} of the container {} is gone",
                config.container
            ),
            hints: vec!["pull it again: without it there is no way back".to_owned()],
        });
    };
    let reference = container["Config"]["Image"]
        .as_str()
        .unwrap_or_default()
        .to_owned();
    let image_version = docker
        .image_version(
            &image_id,
            &reference,
            &format!("{}-fleet-probe", config.container),
        )
        .await?;
    let told = pmm.version().await?;
    let marker: Option<PmmVersion> = docker
        .read_file(&config.container, MARKER)
        .await?
        .as_deref()
        .and_then(version_in_file);
    let own = operator_env(
        &strings(&container["Config"], "Env"),
        &strings(&image["Config"], "Env"),
    );
    let facts = ServerFacts {
        version: told.version,
        marker,
        container: config.container.clone(),
        container_id: container["Id"].as_str().unwrap_or_default().to_owned(),
        image: reference,
        image_id,
        image_version,
        image_digests: strings(&image, "RepoDigests"),
        data: data_mount(&container),
        ports: ports::describe(&container["NetworkSettings"]["Ports"]),
        networks: networks::names(&container),
        reach: server_upgrade::reach::reach(&container),
        restart_policy: container["HostConfig"]["RestartPolicy"]["Name"]
            .as_str()
            .unwrap_or_default()
            .to_owned(),
        operator_env: own.into_iter().map(|(name, _)| name).collect(),
        distribution: told.distribution,
        engine: docker.engine().await?,
        engine_api: docker.api_version().to_owned(),
    };
    Ok(Gathered {
        facts,
        container,
        image,
    })
}

/// Where `/srv` comes from.
fn data_mount(container: &Value) -> Option<DataMount> {
    let mount = data_mounts(container)
        .into_iter()
        .find(|mount| mount["Destination"] == "/srv")?;
    Some(match mount["Type"].as_str()? {
        "volume" => DataMount::Volume {
            name: mount["Name"].as_str()?.to_owned(),
        },
        "bind" => DataMount::Bind {
            source: mount["Source"].as_str()?.to_owned(),
        },
        _ => return None,
    })
}

/// All mounts at and below `/srv`.
fn data_mounts(container: &Value) -> Vec<Value> {
    let inside = |mount: &&Value| {
        let at = mount["Destination"].as_str().unwrap_or_default();
        at == "/srv" || at.starts_with("/srv/")
    };
    container["Mounts"]
        .as_array()
        .into_iter()
        .flatten()
        .filter(inside)
        .cloned()
        .collect()
}

/// The mounts at and below `/srv` as binds for a helper, `source:destination[:ro]`, sorted.
pub fn data_binds(container: &Value, read_only: bool) -> Vec<String> {
    let bind = |mount: Value| {
        let member = if mount["Type"] == "volume" {
            "Name"
        } else {
            "Source"
        };
        let (source, at) = (mount[member].as_str()?, mount["Destination"].as_str()?);
        let mode = if read_only || mount["RW"] == Value::Bool(false) {
            ":ro"
        } else {
            ""
        };
        matches!(mount["Type"].as_str(), Some("volume" | "bind")).then(|| format!("{source}:{at}{mode}"))
    };
    let mut binds: Vec<String> = data_mounts(container).into_iter().filter_map(bind).collect();
    binds.sort();
    binds
}
