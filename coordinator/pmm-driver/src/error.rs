//! What can go wrong in the driver, with a code for the wire and advice for the reader.

use crate::credential::CredentialError;
use fleet_common::codes::{self, Code};
use fleet_common::hint::Hint;
use std::path::PathBuf;

/// An error of the driver.
#[derive(Debug, thiserror::Error)]
pub enum DriverError {
    /// The credential can't be used.
    #[error("no usable credential for the PMM Server")]
    Credential(#[from] CredentialError),
    /// TLS material can't be used.
    #[error("no usable TLS trust for the PMM Server")]
    Tls(#[from] fleet_tls::TlsError),
    /// A file of ours.
    #[error("{what} {path}")]
    File {
        /// What was tried, such as `can't write`.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A line of the journal that is not the torn last one.
    #[error("the journal {path} is damaged in line {line}")]
    Journal {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
    /// Docker refused or failed.
    #[error("Docker: {what}")]
    Docker {
        /// What was tried.
        what: String,
        /// Why.
        #[source]
        source: bollard::errors::Error,
    },
    /// PMM could not be reached.
    #[error("PMM: {what}")]
    Http {
        /// What was tried.
        what: String,
        /// Why.
        #[source]
        source: reqwest::Error,
    },
    /// PMM answered something else than was hoped for.
    #[error("PMM: {what} was answered {status}: {message}")]
    Status {
        /// What was tried.
        what: String,
        /// HTTP status.
        status: u16,
        /// PMM's own message, shortened.
        message: String,
    },
    /// PMM answered something that can't be understood.
    #[error("PMM: {what}: {message}")]
    Answer {
        /// What was tried.
        what: String,
        /// What is odd.
        message: String,
    },
    /// What was found forbids going on.
    #[error("{message}")]
    State {
        /// One of `fleet_common::codes`.
        code: &'static str,
        /// What was found.
        message: String,
        /// What to do next.
        hints: Vec<String>,
    },
    /// A wait was given up.
    #[error("gave up after {after_s} s waiting for {what}")]
    Deadline {
        /// What was waited for.
        what: String,
        /// Seconds.
        after_s: u64,
    },
    /// The coordinator is going down. The journal stays open.
    #[error("interrupted; the hop will be continued")]
    Cancelled,
}

impl DriverError {
    /// The code on the wire.
    pub fn code(&self) -> Code {
        Code::new(match self {
            Self::Credential(_) => codes::CREDENTIALS,
            Self::Docker { .. } => codes::DOCKER,
            Self::Http { .. } | Self::Status { .. } | Self::Answer { .. } | Self::Tls(_) => codes::PMM_API,
            Self::State { code, .. } => code,
            Self::Deadline { .. } => codes::DEADLINE,
            Self::File { .. } | Self::Journal { .. } | Self::Cancelled => codes::INTERNAL,
        })
    }

    /// An unexpected state without advice.
    pub fn state(code: &'static str, message: impl Into<String>) -> Self {
        Self::State {
            code,
            message: message.into(),
            hints: Vec::new(),
        }
    }

    /// Whether the engine gave no answer at all; one that refuses is another matter.
    pub fn engine_unreachable(&self) -> bool {
        use bollard::errors::Error as Engine;
        matches!(
            self,
            Self::Docker {
                source: Engine::IOError { .. }
                    | Engine::HyperResponseError { .. }
                    | Engine::HyperLegacyError { .. }
                    | Engine::SocketNotFoundError(_)
                    | Engine::RequestTimeoutError,
                ..
            }
        )
    }

    /// Whether the engine answered and said no.
    pub fn engine_refuses(&self) -> bool {
        matches!(
            self,
            Self::Docker {
                source: bollard::errors::Error::DockerResponseServerError { .. },
                ..
            }
        )
    }

    /// Whether PMM may answer differently a little later: not reachable, 401, 403 and 5xx are inconclusive while a fleet reconnects.
    pub fn inconclusive(&self) -> bool {
        match self {
            Self::Http { .. } | Self::Answer { .. } => true,
            Self::Status { status, .. } => matches!(status, 401 | 403 | 404 | 429 | 500..),
            _ => false,
        }
    }
}

impl Hint for DriverError {
    fn hints(&self) -> Vec<String> {
        match self {
            Self::Credential(inner) => inner.hints(),
            Self::Docker { .. } => {
                vec!["check that the Docker endpoint is right and that the coordinator may use it".to_owned()]
            }
            Self::Http { .. } => {
                vec!["check the PMM Server's url and ca_file or fingerprint in the fleet file".to_owned()]
            }
            Self::Status {
                status: 401 | 403, ..
            } => {
                vec![
                    "the credential must belong to a local Grafana user or token with the Admin role"
                        .to_owned(),
                ]
            }
            Self::Journal { path, .. } => vec![format!(
                "keep a copy of {} and ask for help; nothing was changed",
                path.display()
            )],
            Self::State { hints, .. } => hints.clone(),
            _ => Vec::new(),
        }
    }
}
