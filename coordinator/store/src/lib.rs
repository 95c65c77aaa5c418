//! The coordinator's memory: SQLite behind methods named by use case; SQL stays in this crate.
//!
//! [`Core`] is synchronous and holds one connection. [`Store`] is the handle of the daemon: one writer thread around a core, with group
//! commit and full sync, and readers on their own connections. The fleet simulator drives a core in memory, so that what it proves is said
//! of the very statements that run in production. [`intake`] decides which events of agents are new and what is acknowledged after a commit.

mod audit;
mod core;
mod hosts;
pub mod intake;
mod keys;
mod migrations;
mod outbox;
mod plans;
mod restored;
mod rollouts;
mod sessions;
mod term;
mod tokens;
mod writer;

pub use audit::AuditEntry;
pub use core::Core;
pub use hosts::HostRow;
pub use intake::IncomingEvent;
pub use keys::{Admission, Renewal};
pub use outbox::{Cursor, NewEvent};
pub use plans::{PlanRow, Startable, WaitingPlan};
pub use restored::{ADOPT_HINT, Restored};
pub use rollouts::{RolloutCommit, RolloutRow, StoredEvent};
pub use sessions::{HelloFacts, Opened, SessionDecision};
pub use tokens::{Enrolled, JoinTicket, NewToken, TokenRefusal};

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

/// What can go wrong in the store.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// SQLite refused.
    #[error("SQLite: {0}")]
    Sqlite(#[from] rusqlite::Error),
    /// The group that this write was part of could not be committed.
    #[error("the commit failed: {0}")]
    Commit(String),
    /// The writer thread is gone.
    #[error("the store is closed")]
    Closed,
    /// The file was written by a newer release.
    #[error("the store has schema {found}, this release knows up to {known}")]
    TooNew {
        /// In the file.
        found: i64,
        /// Ours.
        known: i64,
    },
    /// A stored document that can't be read back.
    #[error("a stored document is not valid JSON")]
    Document(#[from] serde_json::Error),
    /// A second program holds the data directory.
    #[error("the file system refused")]
    Io(#[from] std::io::Error),
}

/// Handle to the store; cheap to clone.
#[derive(Clone)]
pub struct Store {
    inner: Arc<Inner>,
}

struct Inner {
    writer: writer::Writer,
    path: PathBuf,
    readers: Mutex<Vec<Core>>,
}

/// Readers that are kept open. Views are short, so few are ever needed at once.
const READERS: usize = 4;

impl Store {
    /// Makes the file and its schema; the file must not exist.
    pub fn create(path: &Path) -> Result<(), StoreError> {
        drop(
            std::fs::OpenOptions::new()
                .write(true)
                .create_new(true)
                .open(path)?,
        );
        fs_err::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o600))?;
        Core::open(path).map(drop)
    }

    /// Opens an existing store and starts its writer.
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        if !path.is_file() {
            return Err(std::io::Error::new(
                std::io::ErrorKind::NotFound,
                format!("no store at {}", path.display()),
            )
            .into());
        }
        let writer = writer::Writer::start(Core::open(path)?)?;
        Ok(Self {
            inner: Arc::new(Inner {
                writer,
                path: path.to_owned(),
                readers: Mutex::new(Vec::new()),
            }),
        })
    }

    /// Runs one use case in the writer thread, in a savepoint of the next group commit; answers after the commit.
    async fn write<T, F>(&self, work: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&Core) -> Result<T, StoreError> + Send + 'static,
    {
        self.inner.writer.run(work).await
    }

    /// Runs a query on a reader connection, off the I/O threads.
    async fn read<T, F>(&self, work: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&Core) -> Result<T, StoreError> + Send + 'static,
    {
        let store = self.clone();
        tokio::task::spawn_blocking(move || store.read_now(work))
            .await
            .map_err(|_| StoreError::Closed)?
    }

    /// The same on the calling thread.
    fn read_now<T>(&self, work: impl FnOnce(&Core) -> Result<T, StoreError>) -> Result<T, StoreError> {
        let kept = self
            .inner
            .readers
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .pop();
        let core = match kept {
            Some(core) => core,
            None => Core::open_for_reading(&self.inner.path)?,
        };
        let result = work(&core);
        let mut readers = self.inner.readers.lock().unwrap_or_else(PoisonError::into_inner);
        if readers.len() < READERS {
            readers.push(core);
        }
        result
    }

    /// SQLite's own check of the whole file; empty when all is well.
    pub fn integrity(path: &Path) -> Result<Vec<String>, StoreError> {
        Core::open_for_reading(path)?.integrity()
    }
}

/// SQLite integers are signed; our numbers never come near the limit.
fn int(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

/// Back from [`int`].
fn uint(value: i64) -> u64 {
    u64::try_from(value).unwrap_or(0)
}

#[cfg(any(test, feature = "testing"))]
pub mod testing {
    #![allow(clippy::unwrap_used)]
    //! A store in a temporary directory.
    use super::Store;
    use super::{AuditEntry, HelloFacts, JoinTicket, NewToken};
    use fleet_common::ids::{Epoch, HostId, OutboxId};

    /// The directory must be kept alive as long as the store.
    pub fn store() -> (tempfile::TempDir, Store) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("store.sqlite");
        Store::create(&path).unwrap();
        let store = Store::open(&path).unwrap();
        (dir, store)
    }

    /// A host with key `k` that has enrolled.
    pub async fn enrolled(store: &Store) -> HostId {
        enrolled_as(store, "h").await
    }

    /// A host with this id that joined; one per store.
    pub async fn enrolled_as(store: &Store, host: &str) -> HostId {
        let token = NewToken {
            token_id: "t".into(),
            secret_sha256: "s".into(),
            group_label: "g".into(),
            uses: 1,
            created_at_ms: 0,
            expires_at_ms: 10,
        };
        let audit = AuditEntry {
            at_ms: 0,
            who: String::new(),
            what: String::new(),
            detail: String::new(),
        };
        store.create_token(token, audit).await.unwrap();
        let ticket = JoinTicket {
            token_id: "t".into(),
            secret_sha256: "s".into(),
            key_sha256: "k".into(),
            hostname: "db-1".into(),
            new_host: HostId::new(host),
            now_ms: 1,
        };
        store.enrol(ticket).await.unwrap().unwrap().host
    }

    /// Its greeting.
    pub fn hello(session_number: u64) -> HelloFacts {
        HelloFacts {
            session_number,
            key_sha256: "k".into(),
            boot_id: "b".into(),
            agent_version: "0".into(),
            outbox: OutboxId::new("o"),
            inventory_sha256: String::new(),
            acknowledged_seen: 0,
            epoch_seen: Epoch::default(),
            epoch_given: Epoch::default(),
            still_there: false,
            now_ms: 5,
        }
    }
}
