//! Latest documents by kind, and the term.

use super::{Store, StoreError, int, uint};
use rusqlite::{OptionalExtension as _, params};

impl Store {
    /// Takes over the store: raises the term and returns it.
    pub async fn take_over(&self) -> Result<u64, StoreError> {
        self.write(|connection| {
            let old: Option<String> = connection
                .query_row("SELECT value FROM meta WHERE key = 'term'", [], |row| row.get(0))
                .optional()?;
            let term = old.and_then(|text| text.parse::<u64>().ok()).unwrap_or(0) + 1;
            connection.execute(
                "INSERT INTO meta (key, value) VALUES ('term', ?1) ON CONFLICT (key) DO UPDATE SET value = excluded.value",
                [term.to_string()],
            )?;
            Ok(term)
        })
        .await
    }

    /// Keeps the latest document of a kind.
    pub async fn save_document(&self, kind: &'static str, at_ms: u64, json: Vec<u8>) -> Result<(), StoreError> {
        self.write(move |connection| {
            connection.execute(
                "INSERT INTO documents (kind, at_ms, json) VALUES (?1, ?2, ?3)
                 ON CONFLICT (kind) DO UPDATE SET at_ms = excluded.at_ms, json = excluded.json",
                params![kind, int(at_ms), json],
            )?;
            Ok(())
        })
        .await
    }

    /// The latest document of a kind and its time.
    pub async fn document(&self, kind: &'static str) -> Result<Option<(u64, Vec<u8>)>, StoreError> {
        self.read(move |connection| {
            Ok(connection
                .query_row("SELECT at_ms, json FROM documents WHERE kind = ?1", [kind], |row| {
                    Ok((uint(row.get(0)?), row.get(1)?))
                })
                .optional()?)
        })
        .await
    }
}
