//! The term: rises with every coordinator that takes over the store.

use super::{Core, Store, StoreError};
use rusqlite::OptionalExtension as _;

impl Core {
    /// Takes over the store: raises the term and returns it.
    pub fn take_over(&self) -> Result<u64, StoreError> {
        let connection = &self.connection;
        let old: Option<String> = connection
            .query_row("SELECT value FROM meta WHERE key = 'term'", [], |row| row.get(0))
            .optional()?;
        let term = old.and_then(|text| text.parse::<u64>().ok()).unwrap_or(0) + 1;
        connection.execute(
            "INSERT INTO meta (key, value) VALUES ('term', ?1) ON CONFLICT (key) DO UPDATE SET value = excluded.value",
            [term.to_string()],
        )?;
        Ok(term)
    }
}

impl Store {
    /// Takes over the store: raises the term and returns it.
    pub async fn take_over(&self) -> Result<u64, StoreError> {
        self.write(Core::take_over).await
    }
}
