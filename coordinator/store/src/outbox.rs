//! Events of agents. They are appended once, whatever is sent twice, and acknowledged as far as they are contiguous.

use super::{Core, Store, StoreError, int, uint};
use fleet_common::ids::{HostId, OutboxId};
use rusqlite::{Connection, params};
use std::collections::BTreeMap;

/// An event as it came in.
#[derive(Clone, Debug)]
pub struct NewEvent {
    /// Sender.
    pub host: HostId,
    /// Its outbox.
    pub outbox: OutboxId,
    /// Number within the outbox.
    pub sequence: u64,
    /// Order it belongs to; may be empty.
    pub order_id: String,
    /// The host's clock; informational.
    pub at_ms: u64,
    /// Our clock.
    pub received_at_ms: u64,
    /// JSON as sent.
    pub body: Vec<u8>,
    /// Why it was not understood.
    pub rejected: Option<String>,
}

/// How far an outbox is committed.
pub type Cursor = BTreeMap<(HostId, OutboxId), u64>;

impl Core {
    /// All cursors, for the start of the engine.
    pub fn cursors(&self) -> Result<Cursor, StoreError> {
        let connection = &self.connection;
        let mut statement = connection.prepare("SELECT host_id, outbox_id, acknowledged FROM outboxes")?;
        let rows = statement.query_map([], |row| {
            let key = (
                HostId::new(row.get::<_, String>(0)?),
                OutboxId::new(row.get::<_, String>(1)?),
            );
            Ok((key, uint(row.get(2)?)))
        })?;
        Ok(rows.collect::<Result<_, _>>()?)
    }
}

impl Store {
    /// All cursors, for the start of the engine.
    pub async fn cursors(&self) -> Result<Cursor, StoreError> {
        self.read(Core::cursors).await
    }
}

/// Moves the cursor of an outbox on: over events that were appended, or that a restored store will never get.
pub(super) fn move_cursor(
    connection: &Connection,
    host: &str,
    outbox: &str,
    up_to: u64,
) -> Result<(), StoreError> {
    connection
        .prepare_cached(
            "INSERT INTO outboxes (host_id, outbox_id, acknowledged) VALUES (?1, ?2, ?3)
             ON CONFLICT (host_id, outbox_id) DO UPDATE SET acknowledged = max(acknowledged, excluded.acknowledged)",
        )?
        .execute(params![host, outbox, int(up_to)])?;
    Ok(())
}

/// Appends events and moves the cursors, inside the caller's savepoint.
pub(super) fn append_events(connection: &Connection, events: &[NewEvent]) -> Result<(), StoreError> {
    if events.is_empty() {
        return Ok(());
    }
    let mut event_row = connection.prepare_cached(
        "INSERT INTO host_events (host_id, outbox_id, sequence, order_id, at_ms, received_at_ms, body, rejected)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8) ON CONFLICT DO NOTHING",
    )?;
    let mut cursors = BTreeMap::new();
    for event in events {
        event_row.execute(params![
            event.host.as_str(),
            event.outbox.as_str(),
            int(event.sequence),
            event.order_id,
            int(event.at_ms),
            int(event.received_at_ms),
            event.body,
            event.rejected
        ])?;
        let cursor: &mut u64 = cursors.entry((&event.host, &event.outbox)).or_default();
        *cursor = event.sequence.max(*cursor);
    }
    for ((host, outbox), up_to) in cursors {
        move_cursor(connection, host.as_str(), outbox.as_str(), up_to)?;
    }
    Ok(())
}
