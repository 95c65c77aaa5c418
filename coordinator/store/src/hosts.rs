//! Hosts: identity, what they said of themselves, holds.

use super::audit::{AuditEntry, append};
use super::{Core, Store, StoreError, int, uint};
use fleet_common::ids::HostId;
use rusqlite::{Row, params};

/// A host as stored.
#[derive(Clone, Debug)]
pub struct HostRow {
    /// Identity.
    pub host: HostId,
    /// Host name at enrolment, or the one in the inventory.
    pub name: String,
    /// Group label of its join token.
    pub group_label: String,
    /// Unix milliseconds.
    pub enrolled_at_ms: u64,
    /// Its certificate is no longer accepted.
    pub revoked: bool,
    /// Why it takes no orders.
    pub quarantined: Option<String>,
    /// Why an operator holds it.
    pub held: Option<String>,
    /// Last connect or disconnect.
    pub last_seen_ms: u64,
    /// Release of its agent.
    pub agent_version: String,
    /// Inventory as sent (JSON).
    pub inventory: Option<Vec<u8>>,
    /// Survey (JSON).
    pub survey: Option<Vec<u8>>,
    /// When it was made.
    pub survey_at_ms: u64,
}

const COLUMNS: &str = "host_id, name, group_label, enrolled_at_ms, revoked, quarantined, held, last_seen_ms, agent_version, \
     inventory, survey, survey_at_ms";

fn host_row(row: &Row<'_>) -> rusqlite::Result<HostRow> {
    Ok(HostRow {
        host: HostId::new(row.get::<_, String>(0)?),
        name: row.get(1)?,
        group_label: row.get(2)?,
        enrolled_at_ms: uint(row.get(3)?),
        revoked: row.get::<_, i64>(4)? != 0,
        quarantined: row.get(5)?,
        held: row.get(6)?,
        last_seen_ms: uint(row.get(7)?),
        agent_version: row.get(8)?,
        inventory: row.get(9)?,
        survey: row.get(10)?,
        survey_at_ms: uint(row.get(11)?),
    })
}

impl Core {
    /// All hosts by name.
    pub fn hosts(&self) -> Result<Vec<HostRow>, StoreError> {
        let connection = &self.connection;
        let mut statement =
            connection.prepare_cached(&format!("SELECT {COLUMNS} FROM hosts ORDER BY name, host_id"))?;
        Ok(statement.query_map([], host_row)?.collect::<Result<_, _>>()?)
    }

    /// Keeps an inventory as it was sent.
    pub fn save_inventory(
        &self,
        host: &HostId,
        name: String,
        digest: String,
        document: Vec<u8>,
        at_ms: u64,
    ) -> Result<(), StoreError> {
        let connection = &self.connection;
        let id = host.as_str();
        connection.execute(
            "UPDATE hosts SET name = ?2, inventory_sha256 = ?3, inventory = ?4, inventory_at_ms = ?5 WHERE host_id = ?1",
            params![id, name, digest, document, int(at_ms)],
        )?;
        Ok(())
    }

    /// Holds or releases a host, with its audit line. Releasing lifts a quarantine, too: whichever machine connects next is the host.
    pub fn hold(&self, host: &HostId, held: Option<String>, audit: AuditEntry) -> Result<(), StoreError> {
        let connection = &self.connection;
        let id = host.as_str();
        connection.execute("UPDATE hosts SET held = ?2 WHERE host_id = ?1", params![id, held])?;
        if held.is_none() {
            connection.execute(
                "UPDATE hosts SET quarantined = NULL, session_confirmed = 0 WHERE host_id = ?1 AND quarantined IS NOT NULL",
                params![id],
            )?;
        }
        append(connection, &audit)
    }

    /// Accepts the host's certificate no longer.
    pub fn revoke(&self, host: &HostId, audit: AuditEntry) -> Result<(), StoreError> {
        let connection = &self.connection;
        let id = host.as_str();
        connection.execute("UPDATE hosts SET revoked = 1 WHERE host_id = ?1", params![id])?;
        append(connection, &audit)
    }

    /// Remembers that the host was here.
    pub fn seen(&self, host: &HostId, at_ms: u64) -> Result<(), StoreError> {
        let connection = &self.connection;
        let id = host.as_str();
        connection.execute(
            "UPDATE hosts SET last_seen_ms = ?2 WHERE host_id = ?1",
            params![id, int(at_ms)],
        )?;
        Ok(())
    }
}

impl Store {
    /// All hosts by name.
    pub async fn hosts(&self) -> Result<Vec<HostRow>, StoreError> {
        self.read(Core::hosts).await
    }

    /// Keeps an inventory as it was sent.
    pub async fn save_inventory(
        &self,
        host: &HostId,
        name: String,
        digest: String,
        document: Vec<u8>,
        at_ms: u64,
    ) -> Result<(), StoreError> {
        let host = host.clone();
        self.write(move |core| core.save_inventory(&host, name, digest, document, at_ms))
            .await
    }

    /// Holds or releases a host, with its audit line. Releasing lifts a quarantine, too: whichever machine connects next is the host.
    pub async fn hold(
        &self,
        host: &HostId,
        held: Option<String>,
        audit: AuditEntry,
    ) -> Result<(), StoreError> {
        let host = host.clone();
        self.write(move |core| core.hold(&host, held, audit)).await
    }

    /// Accepts the host's certificate no longer.
    pub async fn revoke(&self, host: &HostId, audit: AuditEntry) -> Result<(), StoreError> {
        let host = host.clone();
        self.write(move |core| core.revoke(&host, audit)).await
    }

    /// Remembers that the host was here.
    pub async fn seen(&self, host: &HostId, at_ms: u64) -> Result<(), StoreError> {
        let host = host.clone();
        self.write(move |core| core.seen(&host, at_ms)).await
    }
}
