//! Who did what, for the record.

use super::{Core, Store, StoreError, int};
use rusqlite::{Connection, params};

/// One line of the audit.
#[derive(Clone, Debug)]
pub struct AuditEntry {
    /// Unix milliseconds.
    pub at_ms: u64,
    /// `uid 0`, `host 1234`, `coordinator`.
    pub who: String,
    /// Verb, such as `hold`.
    pub what: String,
    /// Object and reason. Never a secret.
    pub detail: String,
}

impl Core {
    /// Adds a line for something that changed nothing else in the store.
    pub fn note(&self, entry: AuditEntry) -> Result<(), StoreError> {
        let connection = &self.connection;
        append(connection, &entry)
    }
}

impl Store {
    /// Adds a line for something that changed nothing else in the store.
    pub async fn note(&self, entry: AuditEntry) -> Result<(), StoreError> {
        self.write(move |core| core.note(entry)).await
    }
}

pub(super) fn append(connection: &Connection, entry: &AuditEntry) -> Result<(), StoreError> {
    connection
        .prepare_cached("INSERT INTO audit (at_ms, who, what, detail) VALUES (?1, ?2, ?3, ?4)")?
        .execute(params![int(entry.at_ms), entry.who, entry.what, entry.detail])?;
    Ok(())
}
