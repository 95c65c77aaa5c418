//! Errors, each with the path it is about.

use std::io;
use std::path::{Path, PathBuf};

/// Why the work was not done.
#[derive(Debug, thiserror::Error)]
pub enum HelperError {
    /// The command line is wrong.
    #[error("usage: {0}")]
    Usage(String),
    /// A file operation failed.
    #[error("can't {what} {}", path.display())]
    Io {
        /// What was tried.
        what: &'static str,
        /// On what.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Owners that could not be changed.
    #[error("the owner of {count} entries could not be changed, first {}", path.display())]
    Owners {
        /// How many.
        count: u64,
        /// The first one.
        path: PathBuf,
        /// Why the first one failed.
        #[source]
        source: io::Error,
    },
    /// The manifest can't be understood.
    #[error("line {line} of the manifest {} can't be read", path.display())]
    Manifest {
        /// The manifest.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
    },
    /// The answer could not be written as JSON.
    #[error("the answer can't be written")]
    Json(#[source] serde_json::Error),
}

/// Adds operation and path to an I/O error.
pub trait At<T> {
    /// `what` is an infinitive such as `read`.
    fn at(self, what: &'static str, path: &Path) -> Result<T, HelperError>;
}

impl<T, E: Into<io::Error>> At<T> for Result<T, E> {
    fn at(self, what: &'static str, path: &Path) -> Result<T, HelperError> {
        self.map_err(|error| HelperError::Io {
            what,
            path: path.to_owned(),
            source: error.into(),
        })
    }
}

impl HelperError {
    /// Whether the reason is a file that is no longer there.
    pub fn vanished(&self) -> bool {
        matches!(self, Self::Io { source, .. } if source.kind() == io::ErrorKind::NotFound)
    }
}
