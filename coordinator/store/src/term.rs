//! The term: rises with every coordinator that takes over the store.

use super::{Core, Store, StoreError, uint};
use rusqlite::{Connection, OptionalExtension as _};

impl Core {
    /// Takes over the store: raises the term and returns it.
    pub fn take_over(&self) -> Result<u64, StoreError> {
        raise(&self.connection, 0)
    }
}

impl Store {
    /// Takes over the store: raises the term and returns it.
    pub async fn take_over(&self) -> Result<u64, StoreError> {
        self.write(Core::take_over).await
    }
}

/// The term of the coordinator that took over last; 0 before the first.
pub(super) fn current(connection: &Connection) -> Result<u64, StoreError> {
    let text: Option<String> = connection
        .prepare_cached("SELECT value FROM meta WHERE key = 'term'")?
        .query_row([], |row| row.get(0))
        .optional()?;
    Ok(text.and_then(|text| text.parse().ok()).unwrap_or(0))
}

/// Raises the term above the last one, above that of every rollout (which rises by itself when memory is read back), and above `floor`.
pub(super) fn raise(connection: &Connection, floor: u64) -> Result<u64, StoreError> {
    let rollouts: Option<i64> = connection.query_row(
        "SELECT CAST(max(json ->> '$.epoch.term') AS INTEGER) FROM rollout_rows WHERE key = 'rollout'",
        [],
        |row| row.get(0),
    )?;
    let term = current(connection)?
        .max(floor)
        .max(rollouts.map_or(0, uint))
        .saturating_add(1);
    connection.execute(
        "INSERT INTO meta (key, value) VALUES ('term', ?1) ON CONFLICT (key) DO UPDATE SET value = excluded.value",
        [term.to_string()],
    )?;
    Ok(term)
}
