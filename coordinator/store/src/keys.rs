//! Keys of hosts. A host is known by its key; a renewal adds a candidate beside it. Both are valid until the candidate was used in a session
//! once, then the old one is former. Each check and the change it allows are one write, so that two of them never cross.

use super::audit::{AuditEntry, append};
use super::{Core, Store, StoreError, int};
use fleet_common::ids::HostId;
use rusqlite::{Connection, OptionalExtension as _, params};

/// Whether a certificate may be used for a call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Admission {
    /// Yes.
    Admitted,
    /// The host is unknown or revoked, or the key is not its key.
    Unknown,
    /// The host is quarantined; the reason.
    Quarantined(String),
}

/// A renewal that is to be stored.
#[derive(Clone, Debug)]
pub struct Renewal {
    /// Key of the certificate that the request came with.
    pub shown_sha256: String,
    /// Key of the request.
    pub new_sha256: String,
    /// Serial of the certificate that was made for it.
    pub serial: String,
    /// Unix milliseconds.
    pub now_ms: u64,
}

/// How the keys of a host stand to a shown one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shown {
    Current,
    Candidate,
    Neither,
}

impl Core {
    /// Whether a host may call with this key, current or candidate.
    pub fn admission(&self, host: &HostId, key_sha256: String) -> Result<Admission, StoreError> {
        let connection = &self.connection;
        let id = host.as_str();
        admission(connection, id, &key_sha256)
    }

    /// Stores a candidate, if the request came with the host's current key. A repeat replaces the candidate before.
    pub fn renew(&self, host: &HostId, renewal: Renewal) -> Result<Admission, StoreError> {
        let connection = &self.connection;
        let id = host.as_str();
        renew(connection, id, &renewal)
    }
}

impl Store {
    /// Whether a host may call with this key, current or candidate.
    pub async fn admission(&self, host: &HostId, key_sha256: String) -> Result<Admission, StoreError> {
        let host = host.clone();
        self.read(move |core| core.admission(&host, key_sha256)).await
    }

    /// Stores a candidate, if the request came with the host's current key. A repeat replaces the candidate before.
    pub async fn renew(&self, host: &HostId, renewal: Renewal) -> Result<Admission, StoreError> {
        let host = host.clone();
        self.write(move |core| core.renew(&host, renewal)).await
    }
}

fn admission(connection: &Connection, id: &str, key: &str) -> Result<Admission, StoreError> {
    let row: Option<(bool, Option<String>)> = connection.prepare_cached("SELECT revoked, quarantined FROM hosts WHERE host_id = ?1 AND (key_sha256 = ?2 OR candidate_key_sha256 = ?2)")?.query_row([id, key],
            |row| Ok((row.get::<_, i64>(0)? != 0, row.get(1)?)),
        )
        .optional()?;
    Ok(match row {
        None | Some((true, _)) => Admission::Unknown,
        Some((false, Some(reason))) => Admission::Quarantined(reason),
        Some((false, None)) => Admission::Admitted,
    })
}

fn renew(connection: &Connection, id: &str, renewal: &Renewal) -> Result<Admission, StoreError> {
    let admitted = admission(connection, id, &renewal.shown_sha256)?;
    if admitted != Admission::Admitted {
        return Ok(admitted);
    }
    // Only over the current key: a candidate that asks for another would leave two unproven keys behind.
    if shown(connection, id, &renewal.shown_sha256)? != Shown::Current {
        return Ok(Admission::Unknown);
    }
    let taken = connection
        .prepare_cached(
            "SELECT 1 FROM hosts WHERE key_sha256 = ?1 OR (candidate_key_sha256 = ?1 AND host_id <> ?2)
             UNION SELECT 1 FROM former_keys WHERE key_sha256 = ?1",
        )?
        .query_row([&renewal.new_sha256, id], |_| Ok(()))
        .optional()?
        .is_some();
    if taken {
        return Ok(Admission::Unknown);
    }
    connection
        .prepare_cached(
            "UPDATE hosts SET candidate_key_sha256 = ?2, candidate_serial = ?3 WHERE host_id = ?1",
        )?
        .execute(params![id, renewal.new_sha256, renewal.serial])?;
    append(
        connection,
        &AuditEntry {
            at_ms: renewal.now_ms,
            who: format!("host {id}"),
            what: "renew".to_owned(),
            detail: format!("certificate {} for a new key, not used yet", renewal.serial),
        },
    )?;
    Ok(Admission::Admitted)
}

/// Which of the host's keys this is.
pub(super) fn shown(connection: &Connection, id: &str, key: &str) -> Result<Shown, StoreError> {
    let row: Option<(String, Option<String>)> = connection
        .prepare_cached("SELECT key_sha256, candidate_key_sha256 FROM hosts WHERE host_id = ?1")?
        .query_row([id], |row| Ok((row.get(0)?, row.get(1)?)))
        .optional()?;
    Ok(match row {
        Some((current, _)) if current == key => Shown::Current,
        Some((_, Some(candidate))) if candidate == key => Shown::Candidate,
        _ => Shown::Neither,
    })
}

/// The candidate was used: it is the host's key from now on, and the old one is accepted no longer.
pub(super) fn promote(connection: &Connection, id: &str, now_ms: u64) -> Result<(), StoreError> {
    connection.prepare_cached("INSERT INTO former_keys (key_sha256, host_id, until_ms) SELECT key_sha256, host_id, ?2 FROM hosts WHERE host_id = ?1")?.execute(params![id, int(now_ms)],
    )?;
    connection.prepare_cached("UPDATE hosts SET key_sha256 = candidate_key_sha256, certificate_serial = candidate_serial, candidate_key_sha256 = NULL,
         candidate_serial = NULL WHERE host_id = ?1")?.execute([id],
    )?;
    append(
        connection,
        &AuditEntry {
            at_ms: now_ms,
            who: format!("host {id}"),
            what: "renewed".to_owned(),
            detail: "uses its new key; the old one is refused".to_owned(),
        },
    )
}

/// Whether a key was a host's before.
pub(super) fn is_former(connection: &Connection, key: &str) -> Result<bool, StoreError> {
    Ok(connection
        .prepare_cached("SELECT 1 FROM former_keys WHERE key_sha256 = ?1")?
        .query_row([key], |_| Ok(()))
        .optional()?
        .is_some())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::testing::{enrolled, hello};
    use crate::{HelloFacts, SessionDecision, testing};

    fn renewal(shown: &str, new: &str) -> Renewal {
        Renewal {
            shown_sha256: shown.into(),
            new_sha256: new.into(),
            serial: format!("serial-{new}"),
            now_ms: 7,
        }
    }

    async fn opens(store: &Store, host: &HostId, key: &str, number: u64) -> Option<u64> {
        let facts = HelloFacts {
            key_sha256: key.into(),
            ..hello(number)
        };
        match store.open_session(host, facts).await.unwrap() {
            SessionDecision::Open(opened) => Some(opened.session_number),
            _ => None,
        }
    }

    #[tokio::test]
    async fn both_keys_are_valid_until_the_new_one_was_used() {
        let (_dir, store) = testing::store();
        let host = enrolled(&store).await;
        assert_eq!(
            store.renew(&host, renewal("k", "k2")).await.unwrap(),
            Admission::Admitted
        );
        let first = opens(&store, &host, "k", 0).await.unwrap();
        // The reply may have been lost: another key takes the candidate's place, and the first one is then nobody's.
        store.renew(&host, renewal("k", "k3")).await.unwrap();
        assert_eq!(opens(&store, &host, "k2", first).await, None);
        let second = opens(&store, &host, "k3", first).await.unwrap();
        assert_eq!(
            opens(&store, &host, "k", second).await,
            None,
            "the old one is over"
        );
        assert!(opens(&store, &host, "k3", second).await.is_some());
        assert_eq!(
            store.admission(&host, "k".into()).await.unwrap(),
            Admission::Unknown
        );
        assert_eq!(
            store.renew(&host, renewal("k", "k4")).await.unwrap(),
            Admission::Unknown
        );
        assert_eq!(
            store.renew(&host, renewal("k3", "k")).await.unwrap(),
            Admission::Unknown,
            "a former key never comes back"
        );
    }

    #[tokio::test]
    async fn a_candidate_can_ask_for_nothing_before_its_session() {
        let (_dir, store) = testing::store();
        let host = enrolled(&store).await;
        store.renew(&host, renewal("k", "k2")).await.unwrap();
        assert_eq!(
            store.renew(&host, renewal("k2", "k3")).await.unwrap(),
            Admission::Unknown
        );
    }

    #[tokio::test]
    async fn quarantined_and_revoked_hosts_get_nothing() {
        let (_dir, store) = testing::store();
        let host = enrolled(&store).await;
        let audit = || AuditEntry {
            at_ms: 0,
            who: String::new(),
            what: String::new(),
            detail: String::new(),
        };
        store.open_session(&host, hello(0)).await.unwrap();
        store.confirm_session(&host, 1).await.unwrap();
        let fork = HelloFacts {
            key_sha256: "k".into(),
            still_there: true,
            ..hello(0)
        };
        assert!(!matches!(
            store.open_session(&host, fork).await.unwrap(),
            SessionDecision::Open(_) | SessionDecision::Stale
        ));
        assert!(matches!(
            store.renew(&host, renewal("k", "k2")).await.unwrap(),
            Admission::Quarantined(_)
        ));
        store.revoke(&host, audit()).await.unwrap();
        assert_eq!(
            store.renew(&host, renewal("k", "k2")).await.unwrap(),
            Admission::Unknown
        );
    }
}
