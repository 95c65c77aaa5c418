//! Rollouts: current state as rows, what happened as a numbered log. Both change in the commit that also takes in the events that
//! caused it, so that a crash leaves all of it or nothing.

use super::audit::{AuditEntry, append};
use super::outbox::{NewEvent, append_events};
use super::{Core, Store, StoreError, int, uint};
use fleet_common::ids::{HostId, PlanId, RolloutId};
use rusqlite::{Connection, OptionalExtension as _, Row, params};
use std::collections::BTreeMap;

/// A rollout as stored.
#[derive(Clone, Debug)]
pub struct RolloutRow {
    /// Identity.
    pub rollout: RolloutId,
    /// Its plan.
    pub plan: PlanId,
    /// Unix milliseconds.
    pub started_at_ms: u64,
    /// Unix milliseconds.
    pub finished_at_ms: Option<u64>,
}

/// One numbered event of a rollout.
#[derive(Clone, Debug)]
pub struct StoredEvent {
    /// Number within the rollout, from 1.
    pub sequence: u64,
    /// JSON.
    pub json: String,
}

/// Everything one decision changes.
#[derive(Clone, Debug, Default)]
pub struct RolloutCommit {
    /// The rollout begins with this commit.
    pub begin: Option<RolloutRow>,
    /// The rollout that rows and log belong to.
    pub rollout: Option<RolloutId>,
    /// The plan that the rows belong to from now on.
    pub plan: Option<PlanId>,
    /// State rows that changed: key and JSON.
    pub rows: BTreeMap<String, String>,
    /// Log entries, JSON.
    pub log: Vec<String>,
    /// Events of agents that were taken in.
    pub events: Vec<NewEvent>,
    /// Surveys of hosts that came in: document and time.
    pub surveys: Vec<(HostId, Vec<u8>, u64)>,
    /// Audit lines of operators' acts.
    pub audit: Vec<AuditEntry>,
    /// The final report and the time of the end.
    pub finished: Option<(u64, Vec<u8>)>,
    /// The rollout had ended and goes on: a lost host came back, or something is tried again.
    pub reopened: bool,
}

impl RolloutCommit {
    /// Nothing to commit.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
            && self.log.is_empty()
            && self.events.is_empty()
            && self.surveys.is_empty()
            && self.audit.is_empty()
            && self.plan.is_none()
            && self.begin.is_none()
            && self.finished.is_none()
            && !self.reopened
    }
}

fn rollout_row(row: &Row<'_>) -> rusqlite::Result<RolloutRow> {
    Ok(RolloutRow {
        rollout: RolloutId::new(row.get::<_, String>(0)?),
        plan: PlanId::new(row.get::<_, String>(1)?),
        started_at_ms: uint(row.get(2)?),
        finished_at_ms: row.get::<_, Option<i64>>(3)?.map(uint),
    })
}

const COLUMNS: &str = "rollout_id, plan_id, started_at_ms, finished_at_ms";

impl Core {
    /// Commits one decision.
    pub fn commit(&self, commit: &RolloutCommit) -> Result<(), StoreError> {
        let connection = &self.connection;
        apply(connection, commit)
    }

    /// The newest rollout, finished or not.
    pub fn newest_rollout(&self) -> Result<Option<RolloutRow>, StoreError> {
        let connection = &self.connection;
        Ok(connection
            .query_row(
                &format!("SELECT {COLUMNS} FROM rollouts ORDER BY started_at_ms DESC, rowid DESC LIMIT 1"),
                [],
                rollout_row,
            )
            .optional()?)
    }

    /// State rows of a rollout by key.
    pub fn rollout_rows(&self, rollout: &RolloutId) -> Result<Vec<(String, String)>, StoreError> {
        let connection = &self.connection;
        let id = rollout.as_str();
        let mut statement =
            connection.prepare("SELECT key, json FROM rollout_rows WHERE rollout_id = ?1 ORDER BY key")?;
        Ok(statement
            .query_map([id], |row| Ok((row.get(0)?, row.get(1)?)))?
            .collect::<Result<_, _>>()?)
    }

    /// The last log entries about a subject, oldest first.
    pub fn last_events_about(
        &self,
        rollout: &RolloutId,
        subject: &str,
        limit: u64,
    ) -> Result<Vec<StoredEvent>, StoreError> {
        let connection = &self.connection;
        let id = rollout.as_str();
        let mut statement = connection.prepare_cached(
            "SELECT sequence, json FROM rollout_events WHERE rollout_id = ?1 AND json ->> '$.subject' = ?2
             ORDER BY sequence DESC LIMIT ?3",
        )?;
        let rows = statement.query_map(params![id, subject, int(limit)], |row| {
            Ok(StoredEvent {
                sequence: uint(row.get(0)?),
                json: row.get(1)?,
            })
        })?;
        let mut events: Vec<StoredEvent> = rows.collect::<Result<_, _>>()?;
        events.reverse();
        Ok(events)
    }

    /// Log entries after a number.
    pub fn rollout_events(
        &self,
        rollout: &RolloutId,
        after: u64,
        limit: u64,
    ) -> Result<Vec<StoredEvent>, StoreError> {
        let connection = &self.connection;
        let id = rollout.as_str();
        let mut statement = connection.prepare_cached(
            "SELECT sequence, json FROM rollout_events WHERE rollout_id = ?1 AND sequence > ?2 ORDER BY sequence LIMIT ?3",
        )?;
        let rows = statement.query_map(params![id, int(after), int(limit)], |row| {
            Ok(StoredEvent {
                sequence: uint(row.get(0)?),
                json: row.get(1)?,
            })
        })?;
        Ok(rows.collect::<Result<_, _>>()?)
    }
}

impl Store {
    /// Commits one decision.
    pub async fn commit(&self, commit: RolloutCommit) -> Result<(), StoreError> {
        self.write(move |core| core.commit(&commit)).await
    }

    /// The newest rollout, finished or not.
    pub async fn newest_rollout(&self) -> Result<Option<RolloutRow>, StoreError> {
        self.read(Core::newest_rollout).await
    }

    /// State rows of a rollout by key.
    pub async fn rollout_rows(&self, rollout: &RolloutId) -> Result<Vec<(String, String)>, StoreError> {
        let rollout = rollout.clone();
        self.read(move |core| core.rollout_rows(&rollout)).await
    }

    /// The last log entries about a subject, oldest first.
    pub async fn last_events_about(
        &self,
        rollout: &RolloutId,
        subject: &str,
        limit: u64,
    ) -> Result<Vec<StoredEvent>, StoreError> {
        let rollout = rollout.clone();
        let subject = subject.to_owned();
        self.read(move |core| core.last_events_about(&rollout, &subject, limit))
            .await
    }

    /// Log entries after a number.
    pub async fn rollout_events(
        &self,
        rollout: &RolloutId,
        after: u64,
        limit: u64,
    ) -> Result<Vec<StoredEvent>, StoreError> {
        let rollout = rollout.clone();
        self.read(move |core| core.rollout_events(&rollout, after, limit))
            .await
    }
}

fn apply(connection: &Connection, commit: &RolloutCommit) -> Result<(), StoreError> {
    append_events(connection, &commit.events)?;
    for (host, document, at_ms) in &commit.surveys {
        connection
            .prepare_cached("UPDATE hosts SET survey = ?2, survey_at_ms = ?3 WHERE host_id = ?1")?
            .execute(params![host.as_str(), document, int(*at_ms)])?;
    }
    for entry in &commit.audit {
        append(connection, entry)?;
    }
    let Some(rollout) = &commit.rollout else {
        return Ok(());
    };
    if let Some(begin) = &commit.begin {
        connection.execute(
            "INSERT INTO rollouts (rollout_id, plan_id, started_at_ms) VALUES (?1, ?2, ?3)",
            params![
                begin.rollout.as_str(),
                begin.plan.as_str(),
                int(begin.started_at_ms)
            ],
        )?;
        carries_out(connection, rollout, &begin.plan)?;
    }
    if let Some(plan) = &commit.plan {
        connection.execute(
            "UPDATE rollouts SET plan_id = ?2 WHERE rollout_id = ?1",
            params![rollout.as_str(), plan.as_str()],
        )?;
        carries_out(connection, rollout, plan)?;
    }
    if !commit.rows.is_empty() {
        let mut statement = connection.prepare_cached(
            "INSERT INTO rollout_rows (rollout_id, key, json) VALUES (?1, ?2, ?3)
             ON CONFLICT (rollout_id, key) DO UPDATE SET json = excluded.json",
        )?;
        for (key, json) in &commit.rows {
            statement.execute(params![rollout.as_str(), key, json])?;
        }
    }
    append_log(connection, rollout, &commit.log)?;
    if commit.reopened {
        connection.execute(
            "UPDATE rollouts SET finished_at_ms = NULL WHERE rollout_id = ?1",
            params![rollout.as_str()],
        )?;
    }
    if let Some((at_ms, report)) = &commit.finished {
        connection.execute(
            "UPDATE rollouts SET finished_at_ms = ?2, report = ?3 WHERE rollout_id = ?1",
            params![rollout.as_str(), int(*at_ms), report],
        )?;
    }
    Ok(())
}

fn carries_out(connection: &Connection, rollout: &RolloutId, plan: &PlanId) -> Result<(), StoreError> {
    connection.execute(
        "INSERT OR IGNORE INTO rollout_plans (rollout_id, plan_id) VALUES (?1, ?2)",
        params![rollout.as_str(), plan.as_str()],
    )?;
    Ok(())
}

fn append_log(connection: &Connection, rollout: &RolloutId, log: &[String]) -> Result<(), StoreError> {
    if log.is_empty() {
        return Ok(());
    }
    let mut sequence: i64 = connection
        .prepare_cached("SELECT last_sequence FROM rollouts WHERE rollout_id = ?1")?
        .query_row([rollout.as_str()], |row| row.get(0))?;
    let mut statement = connection
        .prepare_cached("INSERT INTO rollout_events (rollout_id, sequence, json) VALUES (?1, ?2, ?3)")?;
    for json in log {
        sequence += 1;
        statement.execute(params![rollout.as_str(), sequence, json])?;
    }
    connection
        .prepare_cached("UPDATE rollouts SET last_sequence = ?2 WHERE rollout_id = ?1")?
        .execute(params![rollout.as_str(), sequence])?;
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::PlanRow;
    use crate::testing;

    #[tokio::test]
    async fn the_last_events_about_a_subject_are_found_however_many_others_there_are() {
        let (_dir, store) = testing::store();
        let (rollout, plan) = (RolloutId::new("r"), PlanId::new("p"));
        let row = PlanRow {
            plan: plan.clone(),
            parent: None,
            created_at_ms: 1,
            document: Vec::new(),
            fleet_path: String::new(),
            fleet_text: Vec::new(),
        };
        let audit = AuditEntry {
            at_ms: 1,
            who: String::new(),
            what: String::new(),
            detail: String::new(),
        };
        assert!(store.save_plan(row, audit).await.unwrap());
        let event = |number: usize| {
            let subject = if number.is_multiple_of(2000) {
                "host:h"
            } else {
                "server"
            };
            serde_json::json!({"subject": subject, "text": number.to_string()}).to_string()
        };
        let commit = RolloutCommit {
            begin: Some(RolloutRow {
                rollout: rollout.clone(),
                plan,
                started_at_ms: 1,
                finished_at_ms: None,
            }),
            rollout: Some(rollout.clone()),
            log: (1..=110_000).map(event).collect(),
            ..RolloutCommit::default()
        };
        store.commit(commit).await.unwrap();
        let last = store.last_events_about(&rollout, "host:h", 3).await.unwrap();
        let numbers: Vec<u64> = last.iter().map(|event| event.sequence).collect();
        assert_eq!(numbers, [106_000, 108_000, 110_000]);
    }
}
