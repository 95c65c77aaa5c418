//! Opening a session: is the host known, and is its session number the one we gave? A stale number means that two machines use one
//! identity; both are then quarantined until a person looked. A count of reconnects would be no proof: the flapping network of one machine
//! makes as many.

use super::audit::{AuditEntry, append};
use super::keys::{self, Shown};
use super::{Core, Store, StoreError, int, uint};
use super::{outbox, restored, term};
use fleet_common::ids::{Epoch, HostId, OutboxId};
use rusqlite::{Connection, OptionalExtension as _, params};

/// What a Hello says that matters here.
#[derive(Clone, Debug)]
pub struct HelloFacts {
    /// Number it was given last; 0 at first.
    pub session_number: u64,
    /// Key of the certificate that the session came with.
    pub key_sha256: String,
    /// Boot of the machine.
    pub boot_id: String,
    /// Release of the agent.
    pub agent_version: String,
    /// Its outbox.
    pub outbox: OutboxId,
    /// Digest of the inventory it has.
    pub inventory_sha256: String,
    /// Highest sequence of its outbox that it saw acknowledged.
    pub acknowledged_seen: u64,
    /// Highest epoch that it has seen.
    pub epoch_seen: Epoch,
    /// Highest epoch that this coordinator gave to anybody.
    pub epoch_given: Epoch,
    /// The sender was seen to be connected still some time after its Hello.
    pub still_there: bool,
    /// Unix milliseconds, ours.
    pub now_ms: u64,
}

/// An opened session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Opened {
    /// Its number.
    pub session_number: u64,
    /// Committed so far of this outbox.
    pub acknowledged: u64,
    /// The host's inventory is not the one we have.
    pub inventory_wanted: bool,
    /// Name on screens.
    pub name: String,
}

/// Whether the session may open.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SessionDecision {
    /// Yes.
    Open(Opened),
    /// Unknown or revoked.
    Unknown,
    /// The number is stale. Either the Hello was overtaken by a later one of the same machine, which then has closed this connection, or
    /// it comes from a second machine: ask again with `still_there`.
    Stale,
    /// Quarantined, now or before; the reason.
    Quarantined(String),
    /// It has seen what this store never gave: the store is not the newest one. What it showed is written down.
    Restored(String),
}

impl Core {
    /// Decides about a session and gives it its number.
    pub fn open_session(&self, host: &HostId, hello: HelloFacts) -> Result<SessionDecision, StoreError> {
        let connection = &self.connection;
        let id = host.as_str();
        open(connection, id, &hello)
    }

    /// The agent is known to have stored this number.
    pub fn confirm_session(&self, host: &HostId, number: u64) -> Result<(), StoreError> {
        let connection = &self.connection;
        let id = host.as_str();
        connection
            .prepare_cached(
                "UPDATE hosts SET session_confirmed = ?2 WHERE host_id = ?1 AND session_confirmed < ?2",
            )?
            .execute(params![id, int(number)])?;
        Ok(())
    }

    /// Whether the identity is accepted at all; the check at the handshake.
    pub fn admits(&self, host: &HostId) -> Result<bool, StoreError> {
        let connection = &self.connection;
        let id = host.as_str();
        Ok(connection
            .prepare_cached("SELECT 1 FROM hosts WHERE host_id = ?1 AND revoked = 0")?
            .query_row([id], |_| Ok(()))
            .optional()?
            .is_some())
    }
}

impl Store {
    /// Decides about a session and gives it its number.
    pub async fn open_session(
        &self,
        host: &HostId,
        hello: HelloFacts,
    ) -> Result<SessionDecision, StoreError> {
        let host = host.clone();
        self.write(move |core| core.open_session(&host, hello)).await
    }

    /// The agent is known to have stored this number.
    pub async fn confirm_session(&self, host: &HostId, number: u64) -> Result<(), StoreError> {
        let host = host.clone();
        self.write(move |core| core.confirm_session(&host, number)).await
    }

    /// Whether the identity is accepted at all; the check at the handshake.
    pub async fn admits(&self, host: &HostId) -> Result<bool, StoreError> {
        let host = host.clone();
        self.read(move |core| core.admits(&host)).await
    }
}

struct Known {
    revoked: bool,
    quarantined: Option<String>,
    given: u64,
    confirmed: u64,
    inventory: String,
    name: String,
    adopted: bool,
}

fn open(connection: &Connection, id: &str, hello: &HelloFacts) -> Result<SessionDecision, StoreError> {
    let known = connection.prepare_cached("SELECT revoked, quarantined, session_given, session_confirmed, inventory_sha256, name, adopted FROM hosts WHERE host_id = ?1")?.query_row([id],
            |row| {
                Ok(Known {
                    revoked: row.get::<_, i64>(0)? != 0,
                    quarantined: row.get(1)?,
                    given: uint(row.get(2)?),
                    confirmed: uint(row.get(3)?),
                    inventory: row.get(4)?,
                    name: row.get(5)?,
                    adopted: row.get::<_, i64>(6)? != 0,
                })
            },
        )
        .optional()?;
    let Some(known) = known.filter(|known| !known.revoked) else {
        return Ok(SessionDecision::Unknown);
    };
    let shown = keys::shown(connection, id, &hello.key_sha256)?;
    if shown == Shown::Neither {
        return Ok(SessionDecision::Unknown);
    }
    if let Some(reason) = known.quarantined {
        return Ok(SessionDecision::Quarantined(reason));
    }
    let acknowledged = connection
        .prepare_cached("SELECT acknowledged FROM outboxes WHERE host_id = ?1 AND outbox_id = ?2")?
        .query_row([id, hello.outbox.as_str()], |row| row.get::<_, i64>(0))
        .optional()?
        .map_or(0, uint);
    let ahead = hello.session_number > known.given || hello.acknowledged_seen > acknowledged;
    // The term in the store counts, too: an adoption may have raised it while this Hello waited for its turn.
    let given = hello.epoch_given.max(Epoch {
        term: term::current(connection)?,
        counter: 0,
    });
    if hello.epoch_seen > given || (ahead && !known.adopted) {
        let shown = restored::Shown {
            id,
            name: &known.name,
            epoch: hello.epoch_seen,
            session_number: hello.session_number,
            session_given: known.given,
            events_seen: hello.acknowledged_seen,
            events_known: acknowledged,
            now_ms: hello.now_ms,
        };
        return Ok(SessionDecision::Restored(restored::record(connection, &shown)?));
    }
    // A number between the confirmed and the given one is a Welcome that got lost on its way, which is normal after a kill.
    let stale = hello.session_number < known.confirmed;
    if stale && !hello.still_there {
        return Ok(SessionDecision::Stale);
    }
    if stale {
        let reason = format!(
            "session number {} was presented, but {} is known to be in use: two machines share this identity",
            hello.session_number, known.confirmed
        );
        connection
            .prepare_cached("UPDATE hosts SET quarantined = ?2 WHERE host_id = ?1")?
            .execute(params![id, reason])?;
        let entry = AuditEntry {
            at_ms: hello.now_ms,
            who: "coordinator".to_owned(),
            what: "quarantine".to_owned(),
            detail: format!("host {id}: {reason}"),
        };
        append(connection, &entry)?;
        return Ok(SessionDecision::Quarantined(reason));
    }
    if shown == Shown::Candidate {
        keys::promote(connection, id, hello.now_ms)?;
    }
    let number = known.given.max(hello.session_number) + 1;
    connection.prepare_cached("UPDATE hosts SET adopted = 0, session_given = ?2, session_confirmed = ?3, last_seen_ms = ?4, agent_version = ?5, boot_id = ?6
         WHERE host_id = ?1")?.execute(params![id, int(number), int(hello.session_number), int(hello.now_ms), hello.agent_version, hello.boot_id],
    )?;
    if hello.acknowledged_seen > acknowledged {
        // Adopted: the events in between are lost, and the host does not have them any more.
        outbox::move_cursor(connection, id, hello.outbox.as_str(), hello.acknowledged_seen)?;
    }
    Ok(SessionDecision::Open(Opened {
        session_number: number,
        acknowledged: acknowledged.max(hello.acknowledged_seen),
        inventory_wanted: known.inventory != hello.inventory_sha256,
        name: known.name,
    }))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::testing::{self, enrolled, hello};

    fn number(decision: &SessionDecision) -> u64 {
        match decision {
            SessionDecision::Open(opened) => opened.session_number,
            other => panic!("not opened: {other:?}"),
        }
    }

    #[tokio::test]
    async fn a_lost_welcome_is_no_fork_but_a_clone_is() {
        let (_dir, store) = testing::store();
        let host = enrolled(&store).await;
        assert_eq!(number(&store.open_session(&host, hello(0)).await.unwrap()), 1);
        // The Welcome never arrived: the agent still has 0.
        assert_eq!(number(&store.open_session(&host, hello(0)).await.unwrap()), 2);
        store.confirm_session(&host, 2).await.unwrap();
        assert_eq!(number(&store.open_session(&host, hello(2)).await.unwrap()), 3);
        store.confirm_session(&host, 3).await.unwrap();
        // A machine that was copied when the number was 2.
        let overtaken = store.open_session(&host, hello(2)).await.unwrap();
        assert_eq!(overtaken, SessionDecision::Stale, "not proved yet");
        let proved = HelloFacts {
            still_there: true,
            ..hello(2)
        };
        let clone = store.open_session(&host, proved).await.unwrap();
        assert!(matches!(clone, SessionDecision::Quarantined(_)));
        let original = store.open_session(&host, hello(3)).await.unwrap();
        assert!(
            matches!(original, SessionDecision::Quarantined(_)),
            "both sides stop"
        );
    }

    #[tokio::test]
    async fn strangers_are_unknown() {
        let (_dir, store) = testing::store();
        assert_eq!(
            store.open_session(&HostId::new("x"), hello(0)).await.unwrap(),
            SessionDecision::Unknown
        );
        assert!(!store.admits(&HostId::new("x")).await.unwrap());
    }
}
