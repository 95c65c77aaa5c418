//! A store that was restored from a backup, or of which an older copy was started. Agents show it: they have seen an epoch, a session number
//! or an acknowledgement that this store never gave. That is written down, and nothing begins until a person adopts the store as it is.

use super::audit::{AuditEntry, append};
use super::{Core, Store, StoreError, int, term, uint};
use fleet_common::ids::Epoch;
use rusqlite::{Connection, params};
use std::path::Path;

/// What agents showed so far.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Restored {
    /// Hosts that showed something this store never gave.
    pub hosts: u64,
    /// Name of the host with the highest epoch.
    pub host: String,
    /// The highest epoch that any of them has seen.
    pub highest: Epoch,
    /// When the first of them came, Unix milliseconds.
    pub first_ms: u64,
}

impl Restored {
    /// What was found, for people.
    pub fn text(&self) -> String {
        format!(
            "the coordinator's store is older than what {} host{} saw (first {}, which has seen epoch {}): it was restored from a backup, \
             or an older copy of it was started",
            self.hosts,
            if self.hosts == 1 { "" } else { "s" },
            self.host,
            self.highest
        )
    }
}

/// What to do about it.
pub const ADOPT_HINT: &str = "if a newer store exists, stop this coordinator and start that one; else `pmm-coordinator doctor --adopt-epoch`";

/// What a Hello shows beside what the store knows of the host.
pub(super) struct Shown<'a> {
    pub id: &'a str,
    pub name: &'a str,
    pub epoch: Epoch,
    pub session_number: u64,
    pub session_given: u64,
    pub events_seen: u64,
    pub events_known: u64,
    pub now_ms: u64,
}

/// Writes the evidence down; the first of each host also goes into the audit.
pub(super) fn record(connection: &Connection, shown: &Shown<'_>) -> Result<String, StoreError> {
    let known = connection
        .prepare_cached("UPDATE restored_evidence SET term = ?2, counter = ?3, session_number = ?4, last_ms = ?5 WHERE host_id = ?1")?
        .execute(params![
            shown.id,
            int(shown.epoch.term),
            int(shown.epoch.counter),
            int(shown.session_number),
            int(shown.now_ms)
        ])?;
    let text = format!(
        "host {} has seen epoch {}, session {} and {} acknowledged events; this store knows session {} and {} events of it",
        shown.name,
        shown.epoch,
        shown.session_number,
        shown.events_seen,
        shown.session_given,
        shown.events_known
    );
    if known == 0 {
        connection
            .prepare_cached("INSERT INTO restored_evidence (host_id, term, counter, session_number, session_given, first_ms, last_ms)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?6)")?
            .execute(params![
                shown.id,
                int(shown.epoch.term),
                int(shown.epoch.counter),
                int(shown.session_number),
                int(shown.session_given),
                int(shown.now_ms)
            ])?;
        let entry = AuditEntry {
            at_ms: shown.now_ms,
            who: "coordinator".to_owned(),
            what: "store_restored".to_owned(),
            detail: text.clone(),
        };
        append(connection, &entry)?;
    }
    Ok(text)
}

impl Core {
    /// What agents showed, if this store was restored and nobody adopted it since.
    pub fn restored(&self) -> Result<Option<Restored>, StoreError> {
        summary(&self.connection)
    }

    /// Takes the store as the truth from now on: raises the term above everything that was seen, and lets each host show a session number
    /// once that the store does not know. `None` when no agent showed anything. Returns the new term.
    pub fn adopt(&self, who: &str, now_ms: u64) -> Result<Option<u64>, StoreError> {
        let connection = &self.connection;
        let Some(restored) = summary(connection)? else {
            return Ok(None);
        };
        let term = term::raise(connection, restored.highest.term)?;
        connection.execute("UPDATE hosts SET adopted = 1 WHERE revoked = 0", [])?;
        connection.execute("DELETE FROM restored_evidence", [])?;
        let entry = AuditEntry {
            at_ms: now_ms,
            who: who.to_owned(),
            what: "adopt_epoch".to_owned(),
            detail: format!("term {term}; {}", restored.text()),
        };
        append(connection, &entry)?;
        Ok(Some(term))
    }
}

impl Store {
    /// What agents showed, if this store was restored and nobody adopted it since.
    pub async fn restored(&self) -> Result<Option<Restored>, StoreError> {
        self.read(Core::restored).await
    }

    /// The same of a store that no coordinator of this process holds.
    pub fn restored_in(path: &Path) -> Result<Option<Restored>, StoreError> {
        Core::open_for_reading(path)?.restored()
    }

    /// See [`Core::adopt`].
    pub async fn adopt(&self, who: String, now_ms: u64) -> Result<Option<u64>, StoreError> {
        self.write(move |core| core.adopt(&who, now_ms)).await
    }
}

fn summary(connection: &Connection) -> Result<Option<Restored>, StoreError> {
    let mut statement = connection.prepare_cached(
        "SELECT e.term, e.counter, h.name, count(*) OVER (), min(e.first_ms) OVER ()
         FROM restored_evidence e JOIN hosts h USING (host_id) ORDER BY e.term DESC, e.counter DESC, h.name LIMIT 1",
    )?;
    let mut rows = statement.query_map([], |row| {
        Ok(Restored {
            hosts: uint(row.get(3)?),
            host: row.get(2)?,
            highest: Epoch {
                term: uint(row.get(0)?),
                counter: uint(row.get(1)?),
            },
            first_ms: uint(row.get(4)?),
        })
    })?;
    Ok(rows.next().transpose()?)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::testing;
    use crate::testing::{enrolled, hello};
    use crate::{HelloFacts, SessionDecision};
    use fleet_common::ids::HostId;

    const GIVEN: Epoch = Epoch { term: 3, counter: 7 };

    /// Of an agent that has seen this epoch, to a coordinator that gave [`GIVEN`] last.
    fn seen(session_number: u64, epoch: Epoch) -> HelloFacts {
        HelloFacts {
            epoch_seen: epoch,
            epoch_given: GIVEN,
            ..hello(session_number)
        }
    }

    async fn decide(store: &Store, host: &HostId, hello: HelloFacts) -> SessionDecision {
        store.open_session(host, hello).await.unwrap()
    }

    async fn quarantined(store: &Store) -> bool {
        store.hosts().await.unwrap()[0].quarantined.is_some()
    }

    #[tokio::test]
    async fn what_the_store_gave_is_no_evidence() {
        let (_dir, store) = testing::store();
        let host = enrolled(&store).await;
        assert!(matches!(
            decide(&store, &host, seen(0, GIVEN)).await,
            SessionDecision::Open(_)
        ));
        assert!(matches!(
            decide(&store, &host, seen(1, Epoch { term: 2, counter: 99 })).await,
            SessionDecision::Open(_)
        ));
        assert_eq!(store.restored().await.unwrap(), None);
        assert_eq!(
            store.adopt("test".into(), 9).await.unwrap(),
            None,
            "there is nothing to adopt"
        );
    }

    #[tokio::test]
    async fn a_higher_epoch_or_session_number_is_evidence_and_no_fork() {
        for shown in [seen(0, Epoch { term: 3, counter: 8 }), seen(1, GIVEN)] {
            let (_dir, store) = testing::store();
            let host = enrolled(&store).await;
            // Not even with the proof that a fork needs.
            let proved = HelloFacts {
                still_there: true,
                ..shown.clone()
            };
            for hello in [shown.clone(), proved] {
                let decision = decide(&store, &host, hello).await;
                assert!(matches!(decision, SessionDecision::Restored(_)), "{decision:?}");
            }
            assert!(!quarantined(&store).await);
            let restored = store.restored().await.unwrap().unwrap();
            assert_eq!((restored.hosts, restored.highest), (1, shown.epoch_seen));
        }
    }

    #[tokio::test]
    async fn events_that_somebody_else_acknowledged_are_evidence() {
        let (_dir, store) = testing::store();
        let host = enrolled(&store).await;
        // It was connected all the time, so that neither number nor term show anything.
        let hello = |session| HelloFacts {
            acknowledged_seen: 12,
            ..seen(session, GIVEN)
        };
        let decision = decide(&store, &host, hello(0)).await;
        assert!(matches!(decision, SessionDecision::Restored(_)), "{decision:?}");
        store.adopt("test".into(), 9).await.unwrap().unwrap();
        for session in [0, 1] {
            let SessionDecision::Open(opened) = decide(&store, &host, hello(session)).await else {
                panic!("not let in")
            };
            assert_eq!(opened.acknowledged, 12, "what is lost is not asked for");
        }
    }

    #[tokio::test]
    async fn after_the_adoption_a_host_is_let_in_once_and_its_clone_is_found() {
        let (_dir, store) = testing::store();
        let host = enrolled(&store).await;
        let ahead = Epoch { term: 9, counter: 2 };
        assert!(matches!(
            decide(&store, &host, seen(40, ahead)).await,
            SessionDecision::Restored(_)
        ));
        let term = store.adopt("test".into(), 9).await.unwrap().unwrap();
        assert_eq!(term, 10, "above everything that was seen");
        assert_eq!(store.take_over().await.unwrap(), 11);
        assert_eq!(store.restored().await.unwrap(), None);
        let adopted = |session_number| HelloFacts {
            epoch_seen: ahead,
            epoch_given: Epoch { term: 10, counter: 0 },
            ..hello(session_number)
        };
        let SessionDecision::Open(opened) = decide(&store, &host, adopted(40)).await else {
            panic!("not let in")
        };
        assert_eq!(opened.session_number, 41);
        store.confirm_session(&host, 41).await.unwrap();
        // The other of two machines with one identity comes with the same number.
        assert_eq!(decide(&store, &host, adopted(40)).await, SessionDecision::Stale);
        let proved = HelloFacts {
            still_there: true,
            ..adopted(40)
        };
        assert!(matches!(
            decide(&store, &host, proved).await,
            SessionDecision::Quarantined(_)
        ));
    }

    #[tokio::test]
    async fn the_permission_holds_once() {
        let (_dir, store) = testing::store();
        let host = enrolled(&store).await;
        decide(&store, &host, seen(40, GIVEN)).await;
        store.adopt("test".into(), 9).await.unwrap().unwrap();
        assert!(matches!(
            decide(&store, &host, seen(40, GIVEN)).await,
            SessionDecision::Open(_)
        ));
        let again = decide(&store, &host, seen(90, GIVEN)).await;
        assert!(
            matches!(again, SessionDecision::Restored(_)),
            "restored once more: {again:?}"
        );
    }

    #[tokio::test]
    async fn a_term_is_above_that_of_every_rollout() {
        let (_dir, store) = testing::store();
        store
            .write(|core| {
                core.connection.execute_batch(
                    "INSERT INTO plans VALUES ('p', NULL, 0, x'', '', x'');
                     INSERT INTO rollouts (rollout_id, plan_id, started_at_ms) VALUES ('r', 'p', 0);
                     INSERT INTO rollout_rows VALUES ('r', 'rollout', '{\"epoch\":{\"term\":6,\"counter\":1}}');",
                )?;
                Ok(())
            })
            .await
            .unwrap();
        assert_eq!(store.take_over().await.unwrap(), 7);
        assert_eq!(store.take_over().await.unwrap(), 8);
    }
}
