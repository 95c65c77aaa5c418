//! Docker through its unix socket.
//!
//! Inspecting and creating containers go as raw JSON, so that members which our library does not know are kept; everything else goes
//! through bollard with the version negotiated (Docker 29 refuses API below 1.44, 20.10 knows 1.41 only).

pub mod containers;
mod exec;
mod files;
pub mod helper;
mod images;
pub mod networks;
mod raw;
mod volumes;

use crate::error::DriverError;
use bollard::ClientVersion;
use std::path::PathBuf;

pub use images::Resolved;
pub use raw::short;

/// Longest single request: `docker stop -t 300` answers only when the container is down.
const REQUEST_S: u64 = 1200;

/// A connection to an engine.
#[derive(Clone)]
pub struct Docker {
    api: bollard::Docker,
    socket: PathBuf,
    version: String,
}

impl Docker {
    /// Connects and negotiates the API version.
    pub async fn connect(endpoint: &str) -> Result<Self, DriverError> {
        let socket = PathBuf::from(endpoint.strip_prefix("unix://").unwrap_or(endpoint));
        let failed = |source| DriverError::Docker {
            what: format!("no answer at {endpoint}"),
            source,
        };
        let api = bollard::Docker::connect_with_unix(
            &socket.to_string_lossy(),
            REQUEST_S,
            bollard::API_DEFAULT_VERSION,
        )
        .map_err(failed)?
        .negotiate_version()
        .await
        .map_err(failed)?;
        let ClientVersion {
            major_version,
            minor_version,
        } = api.client_version();
        Ok(Self {
            api,
            socket,
            version: format!("{major_version}.{minor_version}"),
        })
    }

    /// Where the engine is, as in a fleet file.
    pub fn endpoint(&self) -> String {
        format!("unix://{}", self.socket.display())
    }

    /// The negotiated API version.
    pub fn api_version(&self) -> &str {
        &self.version
    }

    /// Version of the engine.
    pub async fn engine(&self) -> Result<String, DriverError> {
        let version = self
            .api
            .version()
            .await
            .map_err(|source| failed("can't ask for its version", source))?;
        Ok(version.version.unwrap_or_default())
    }
}

/// Wraps an error with what was tried.
pub fn failed(what: impl Into<String>, source: bollard::errors::Error) -> DriverError {
    DriverError::Docker {
        what: what.into(),
        source,
    }
}

/// Whether the engine says that the object is not there.
pub fn not_found(error: &bollard::errors::Error) -> bool {
    status(error) == Some(404)
}

/// Whether the engine says that it is so already (304) or that somebody else is at it (409).
pub fn already(error: &bollard::errors::Error) -> bool {
    status(error) == Some(304)
}

/// The status code of an engine's answer.
pub fn status(error: &bollard::errors::Error) -> Option<u16> {
    match error {
        bollard::errors::Error::DockerResponseServerError { status_code, .. } => Some(*status_code),
        _ => None,
    }
}
