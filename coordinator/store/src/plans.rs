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
const NEWEST: &str = "ORDER BY created_at_ms DESC, rowid DESC LIMIT 1";

/// Whether a rollout of a plan may begin.
#[derive(Clone, Debug)]
pub enum Startable {
    /// It is the newest plan and was never carried out.
    Yes(Box<PlanRow>),
    /// There is no such plan, or none at all.
    Unknown,
    /// A newer plan took its place.
    Replaced {
        /// The plan.
        plan: PlanId,
        /// The newest one.
        by: PlanId,
        /// Who made the newest one.
        who: String,
        /// When, Unix milliseconds.
        at_ms: u64,
    },
    /// A rollout began with it or adopted it.
    Started {
        /// The plan.
        plan: PlanId,
        /// Who did so.
        who: String,
        /// When, Unix milliseconds.
        at_ms: u64,
    },
}

/// A plan that could take over the rollout under way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WaitingPlan {
    /// The plan.
    pub plan: PlanId,
    /// The plan that runs, which it follows.
    pub follows: PlanId,
    /// When it was made, Unix milliseconds.
    pub made_at_ms: u64,
}

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
            .query_row(&format!("SELECT plan_id FROM plans {NEWEST}"), [], |row| {
                row.get(0)
            })
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

    /// Whether a rollout ever carried this plan out: began with it, or adopted it.
    pub fn plan_was_started(&self, plan: &PlanId) -> Result<bool, StoreError> {
        let connection = &self.connection;
        let id = plan.as_str();
        Ok(connection
            .query_row(
                "SELECT 1 FROM rollout_plans WHERE plan_id = ?1 LIMIT 1",
                [id],
                |_| Ok(()),
            )
            .optional()?
            .is_some())
    }

    /// Whether a rollout of a plan may begin, or of the newest one where none is named.
    pub fn startable(&self, wanted: Option<&PlanId>) -> Result<Startable, StoreError> {
        let Some(newest) = self.newest_plan()? else {
            return Ok(Startable::Unknown);
        };
        let plan = wanted.unwrap_or(&newest.plan).clone();
        if self.plan(&plan)?.is_none() {
            return Ok(Startable::Unknown);
        }
        if self.plan_was_started(&plan)? {
            let (who, at_ms) = self.last_act("what IN ('start', 'adopt')", &plan)?;
            return Ok(Startable::Started { plan, who, at_ms });
        }
        if plan != newest.plan {
            let (who, at_ms) = self.last_act("what = 'plan'", &newest.plan)?;
            let by = newest.plan;
            return Ok(Startable::Replaced { plan, by, who, at_ms });
        }
        Ok(Startable::Yes(Box::new(newest)))
    }

    /// Who did something last with a plan, and when: the audit ends such a line with the plan's id.
    fn last_act(&self, what: &str, plan: &PlanId) -> Result<(String, u64), StoreError> {
        let query = format!(
            "SELECT who, at_ms FROM audit WHERE {what} AND (detail = ?1 OR detail LIKE '% ' || ?1) ORDER BY id DESC LIMIT 1"
        );
        let found = self
            .connection
            .query_row(&query, [plan.as_str()], |row| {
                Ok((row.get(0)?, uint(row.get(1)?)))
            })
            .optional()?;
        Ok(found.unwrap_or_default())
    }

    /// The newest plan, if it follows the one that a rollout carries out now.
    pub fn waiting_plan(&self) -> Result<Option<WaitingPlan>, StoreError> {
        let waiting = |row: &Row<'_>| {
            Ok(WaitingPlan {
                plan: PlanId::new(row.get::<_, String>(0)?),
                follows: PlanId::new(row.get::<_, String>(1)?),
                made_at_ms: uint(row.get(2)?),
            })
        };
        Ok(self
            .connection
            .prepare_cached(&format!(
                "SELECT newest.plan_id, newest.parent, newest.created_at_ms
                 FROM (SELECT plan_id, parent, created_at_ms FROM plans {NEWEST}) AS newest,
                      (SELECT plan_id, finished_at_ms FROM rollouts ORDER BY started_at_ms DESC, rowid DESC LIMIT 1) AS running
                 WHERE running.finished_at_ms IS NULL AND newest.parent = running.plan_id"
            ))?
            .query_row([], waiting)
            .optional()?)
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
            .query_row(&format!("SELECT {COLUMNS} FROM plans {NEWEST}"), [], plan_row)
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

    /// See [`Core::startable`].
    pub async fn startable(&self, wanted: Option<PlanId>) -> Result<Startable, StoreError> {
        self.read(move |core| core.startable(wanted.as_ref())).await
    }

    /// See [`Core::waiting_plan`].
    pub async fn waiting_plan(&self) -> Result<Option<WaitingPlan>, StoreError> {
        self.read(Core::waiting_plan).await
    }

    /// Whether a rollout ever carried this plan out.
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
