//! One connection and what is asked of it, without threads.

use super::{StoreError, migrations};
use rusqlite::Connection;
use std::path::Path;

/// Statements that a connection keeps prepared: all that the writer repeats.
const STATEMENTS: usize = 64;

/// The store on the calling thread. Its methods stand beside the tables they are about.
///
/// Writes between [`Self::begin`] and [`Self::end`] hold together or not at all.
pub struct Core {
    pub(crate) connection: Connection,
}

impl Core {
    /// An empty store that lives as long as this value.
    pub fn in_memory() -> Result<Self, StoreError> {
        let mut connection = Connection::open_in_memory()?;
        connection.pragma_update(None, "foreign_keys", true)?;
        migrations::migrate(&mut connection)?;
        Ok(Self::over(connection))
    }

    fn over(connection: Connection) -> Self {
        connection.set_prepared_statement_cache_capacity(STATEMENTS);
        Self { connection }
    }

    /// Opens a file for writing and brings its schema up to date.
    pub(crate) fn open(path: &Path) -> Result<Self, StoreError> {
        let mut connection = open_for_writing(path)?;
        migrations::migrate(&mut connection)?;
        Ok(Self::over(connection))
    }

    /// Opens a file for reading.
    pub(crate) fn open_for_reading(path: &Path) -> Result<Self, StoreError> {
        use rusqlite::OpenFlags;
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = Connection::open_with_flags(path, flags)?;
        connection.busy_timeout(std::time::Duration::from_secs(10))?;
        Ok(Self::over(connection))
    }

    /// Begins a transaction.
    pub fn begin(&self) -> Result<(), StoreError> {
        self.connection.prepare_cached("BEGIN IMMEDIATE")?.execute([])?;
        Ok(())
    }

    /// Commits it.
    pub fn end(&self) -> Result<(), StoreError> {
        self.connection.prepare_cached("COMMIT")?.execute([])?;
        Ok(())
    }

    /// Takes it back.
    pub fn undo(&self) -> Result<(), StoreError> {
        Ok(self.connection.execute_batch("ROLLBACK")?)
    }

    /// A copy in memory, as a backup would hold it.
    pub fn copy(&self) -> Result<Self, StoreError> {
        let mut connection = Connection::open_in_memory()?;
        let copying = rusqlite::backup::Backup::new(&self.connection, &mut connection)?;
        copying.run_to_completion(1_000, std::time::Duration::ZERO, None)?;
        drop(copying);
        connection.pragma_update(None, "foreign_keys", true)?;
        Ok(Self::over(connection))
    }

    /// SQLite's own check of everything; empty when all is well.
    pub(crate) fn integrity(&self) -> Result<Vec<String>, StoreError> {
        let mut statement = self.connection.prepare("PRAGMA quick_check(20)")?;
        let rows = statement
            .query_map([], |row| row.get::<_, String>(0))?
            .collect::<Result<Vec<_>, _>>()?;
        Ok(rows.into_iter().filter(|line| line != "ok").collect())
    }
}

fn open_for_writing(path: &Path) -> Result<Connection, StoreError> {
    let connection = Connection::open(path)?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.pragma_update(None, "foreign_keys", true)?;
    connection.pragma_update(None, "journal_size_limit", 64 * 1024 * 1024)?;
    // We are the only writer; whoever else holds the file must not hold up the engine.
    connection.busy_timeout(std::time::Duration::from_secs(2))?;
    Ok(connection)
}
