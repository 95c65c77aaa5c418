//! Plans: immutable bytes under their digest.

use super::audit::{AuditEntry, append};
use super::{Core, Store, StoreError, int, uint};
use fleet_common::ids::PlanId;
use rusqlite::{OptionalExtension as _, Row, params};

/// A plan as stored.
#[derive(Clone, Debug)]
pub struct PlanRow {
    /// Digest of the bytes.
    pub plan: PlanId,
    /// The plan it follows.
    pub parent: Option<PlanId>,
    /// Unix milliseconds.
    pub created_at_ms: u64,
    /// JSON.
    pub document: Vec<u8>,
    /// Where the fleet file was.
    pub fleet_path: String,
    /// The fleet file.
    pub fleet_text: Vec<u8>,
}

fn plan_row(row: &Row<'_>) -> rusqlite::Result<PlanRow> {
    Ok(PlanRow {
        plan: PlanId::new(row.get::<_, String>(0)?),
        parent: row.get::<_, Option<String>>(1)?.map(PlanId::new),
        created_at_ms: uint(row.get(2)?),
        document: row.get(3)?,
        fleet_path: row.get(4)?,
        fleet_text: row.get(5)?,
    })
}

const COLUMNS: &str = "plan_id, parent, created_at_ms, document, fleet_path, fleet_text";

impl Core {
    /// Keeps a plan, if its parent is still the newest one (compare and set). Says whether it was.
    pub fn save_plan(&self, plan: PlanRow, audit: AuditEntry) -> Result<bool, StoreError> {
        let newest = plan.parent.clone();
        self.save_plan_after(plan, newest, audit)
    }

    /// Keeps a plan, if the newest one is still this (compare and set). Its parent may be another: the one that runs. Says whether it was.
    pub fn save_plan_after(
        &self,
        plan: PlanRow,
        expected: Option<PlanId>,
        audit: AuditEntry,
    ) -> Result<bool, StoreError> {
        let connection = &self.connection;
        let newest: Option<String> = connection
            .query_row(
                "SELECT plan_id FROM plans ORDER BY created_at_ms DESC, rowid DESC LIMIT 1",
                [],
                |row| row.get(0),
            )
            .optional()?;
        if newest.as_deref() != expected.as_ref().map(PlanId::as_str) {
            return Ok(false);
        }
        connection.execute(
            "INSERT INTO plans (plan_id, parent, created_at_ms, document, fleet_path, fleet_text)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6) ON CONFLICT DO NOTHING",
            params![
                plan.plan.as_str(),
                plan.parent.as_ref().map(PlanId::as_str),
                int(plan.created_at_ms),
                plan.document,
                plan.fleet_path,
                plan.fleet_text
            ],
        )?;
        append(connection, &audit)?;
        Ok(true)
    }

    /// Whether a rollout of this plan was ever started.
    pub fn plan_was_started(&self, plan: &PlanId) -> Result<bool, StoreError> {
        let connection = &self.connection;
        let id = plan.as_str();
        Ok(connection
            .query_row("SELECT 1 FROM rollouts WHERE plan_id = ?1 LIMIT 1", [id], |_| {
                Ok(())
            })
            .optional()?
            .is_some())
    }

    /// A plan by id.
    pub fn plan(&self, plan: &PlanId) -> Result<Option<PlanRow>, StoreError> {
        let connection = &self.connection;
        let id = plan.as_str();
        Ok(connection
            .query_row(
                &format!("SELECT {COLUMNS} FROM plans WHERE plan_id = ?1"),
                [id],
                plan_row,
            )
            .optional()?)
    }

    /// The newest plan.
    pub fn newest_plan(&self) -> Result<Option<PlanRow>, StoreError> {
        let connection = &self.connection;
        Ok(connection
            .query_row(
                &format!("SELECT {COLUMNS} FROM plans ORDER BY created_at_ms DESC, rowid DESC LIMIT 1"),
                [],
                plan_row,
            )
            .optional()?)
    }
}

impl Store {
    /// Keeps a plan, if its parent is still the newest one (compare and set). Says whether it was.
    pub async fn save_plan(&self, plan: PlanRow, audit: AuditEntry) -> Result<bool, StoreError> {
        self.write(move |core| core.save_plan(plan, audit)).await
    }

    /// See [`Core::save_plan_after`].
    pub async fn save_plan_after(
        &self,
        plan: PlanRow,
        expected: Option<PlanId>,
        audit: AuditEntry,
    ) -> Result<bool, StoreError> {
        self.write(move |core| core.save_plan_after(plan, expected, audit))
            .await
    }

    /// Whether a rollout of this plan was ever started.
    pub async fn plan_was_started(&self, plan: &PlanId) -> Result<bool, StoreError> {
        let plan = plan.clone();
        self.read(move |core| core.plan_was_started(&plan)).await
    }

    /// A plan by id.
    pub async fn plan(&self, plan: &PlanId) -> Result<Option<PlanRow>, StoreError> {
        let plan = plan.clone();
        self.read(move |core| core.plan(&plan)).await
    }

    /// The newest plan.
    pub async fn newest_plan(&self) -> Result<Option<PlanRow>, StoreError> {
        self.read(Core::newest_plan).await
    }
}
