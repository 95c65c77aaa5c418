//! What is known about a PMM Server before anything is changed.

use fleet_common::reach::ContainerReach;
use fleet_common::survey::{Finding, Verdict};
use fleet_common::version::PmmVersion;
use serde::{Deserialize, Serialize};

/// A PMM Server in a container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServerFacts {
    /// What the API says. The image tag never tells the version: PMM 2's own update changes the container's writable layer and leaves the
    /// tag alone (percona/pmm `docs/managed/update-process.md`).
    pub version: PmmVersion,
    /// Version marker on the volume (`grafana/PERCONA_DASHBOARDS_VERSION`), readable without PMM running.
    pub marker: Option<PmmVersion>,
    /// Name of the container.
    pub container: String,
    /// Id of the container.
    pub container_id: String,
    /// Image reference as the container names it.
    pub image: String,
    /// Id of the image.
    pub image_id: String,
    /// Release that the image was built as, read from a file inside of the image.
    pub image_version: Option<PmmVersion>,
    /// Repository digests of the image.
    pub image_digests: Vec<String>,
    /// Where `/srv` comes from.
    pub data: Option<DataMount>,
    /// Published ports as `host-ip:host-port->container-port/proto`.
    pub ports: Vec<String>,
    /// Docker networks of the container.
    pub networks: Vec<String>,
    /// How clients may reach it past its published ports.
    #[serde(default)]
    pub reach: ContainerReach,
    /// Restart policy.
    pub restart_policy: String,
    /// Names (never values) of the variables that the operator set.
    pub operator_env: Vec<String>,
    /// `DISTRIBUTION_METHOD_DOCKER` and the like, as the API says.
    pub distribution: String,
    /// Version of the Docker engine.
    pub engine: String,
    /// API version that was negotiated with it.
    pub engine_api: String,
}

impl ServerFacts {
    /// Whether the container runs from an image of exactly the release that wrote the data. Unknown means no.
    pub fn image_matches_data(&self) -> bool {
        self.image_version == Some(self.version)
    }
}

/// Where the data directory comes from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum DataMount {
    /// A Docker volume, named or anonymous.
    Volume {
        /// Its name.
        name: String,
    },
    /// A directory of the Docker host.
    Bind {
        /// Path on the Docker host.
        source: String,
    },
}

impl DataMount {
    /// Name of the volume or path on the host: the left side of a bind.
    pub fn source(&self) -> &str {
        match self {
            Self::Volume { name } => name,
            Self::Bind { source } => source,
        }
    }
}

/// Everything the server's preflight found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PreflightReport {
    /// The server.
    pub facts: ServerFacts,
    /// Bytes below `/srv`.
    pub data_bytes: u64,
    /// Files below `/srv`.
    pub data_files: u64,
    /// Bytes free where restore points are written.
    pub free_bytes: u64,
    /// All checks, in order.
    pub findings: Vec<Finding>,
}

impl PreflightReport {
    /// Whether nothing failed.
    pub fn ready(&self) -> bool {
        self.findings
            .iter()
            .all(|finding| finding.verdict != Verdict::Fail)
    }
}
