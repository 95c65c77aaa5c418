//! Join tokens and enrolment. Only a digest of the secret is kept; counting a use and making the host are one commit.

use super::audit::{AuditEntry, append};
use super::keys::is_former;
use super::{Core, Store, StoreError, int, uint};
use fleet_common::ids::HostId;
use rusqlite::{Connection, OptionalExtension as _, params};

/// A token to be stored.
#[derive(Clone, Debug)]
pub struct NewToken {
    /// Public part.
    pub token_id: String,
    /// SHA-256 of the secret part, hex.
    pub secret_sha256: String,
    /// Label for people.
    pub group_label: String,
    /// Machines that may join.
    pub uses: u64,
    /// Unix milliseconds.
    pub created_at_ms: u64,
    /// Unix milliseconds.
    pub expires_at_ms: u64,
}

/// What a joining machine brought.
#[derive(Clone, Debug)]
pub struct JoinTicket {
    /// Public part of the token.
    pub token_id: String,
    /// SHA-256 of the secret it sent, hex.
    pub secret_sha256: String,
    /// SHA-256 of its public key, hex.
    pub key_sha256: String,
    /// Its name.
    pub hostname: String,
    /// Identity to give if the machine is new.
    pub new_host: HostId,
    /// Unix milliseconds.
    pub now_ms: u64,
}

/// Why a machine may not join.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TokenRefusal {
    /// No such token, or the wrong secret; the two are not told apart.
    Invalid,
    /// Past its time.
    Expired,
    /// No uses left.
    UsedUp,
    /// The machine's identity was revoked.
    Revoked,
}

/// The identity of a machine that joined.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Enrolled {
    /// Identity.
    pub host: HostId,
    /// Group label of the token.
    pub group_label: String,
    /// False when the machine had joined before.
    pub new: bool,
}

impl Core {
    /// Keeps a new token.
    pub fn create_token(&self, token: NewToken, audit: AuditEntry) -> Result<(), StoreError> {
        let connection = &self.connection;
        connection.execute(
            "INSERT INTO tokens (token_id, secret_sha256, group_label, uses, created_at_ms, expires_at_ms)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
            params![
                token.token_id,
                token.secret_sha256,
                token.group_label,
                int(token.uses),
                int(token.created_at_ms),
                int(token.expires_at_ms)
            ],
        )?;
        append(connection, &audit)
    }

    /// Checks the ticket, counts the use and makes or finds the host: one commit.
    pub fn enrol(&self, ticket: JoinTicket) -> Result<Result<Enrolled, TokenRefusal>, StoreError> {
        let connection = &self.connection;
        enrol(connection, &ticket)
    }

    /// Notes the serial of the certificate that was handed out.
    pub fn certificate_issued(&self, host: &HostId, serial: String) -> Result<(), StoreError> {
        let connection = &self.connection;
        let id = host.as_str();
        connection.execute(
            "UPDATE hosts SET certificate_serial = ?2 WHERE host_id = ?1",
            params![id, serial],
        )?;
        Ok(())
    }
}

impl Store {
    /// Keeps a new token.
    pub async fn create_token(&self, token: NewToken, audit: AuditEntry) -> Result<(), StoreError> {
        self.write(move |core| core.create_token(token, audit)).await
    }

    /// Checks the ticket, counts the use and makes or finds the host: one commit.
    pub async fn enrol(&self, ticket: JoinTicket) -> Result<Result<Enrolled, TokenRefusal>, StoreError> {
        self.write(move |core| core.enrol(ticket)).await
    }

    /// Notes the serial of the certificate that was handed out.
    pub async fn certificate_issued(&self, host: &HostId, serial: String) -> Result<(), StoreError> {
        let host = host.clone();
        self.write(move |core| core.certificate_issued(&host, serial))
            .await
    }
}

struct Token {
    secret_sha256: String,
    group_label: String,
    uses: u64,
    used: u64,
    expires_at_ms: u64,
    revoked: bool,
}

fn enrol(connection: &Connection, ticket: &JoinTicket) -> Result<Result<Enrolled, TokenRefusal>, StoreError> {
    let token = connection
        .prepare_cached("SELECT secret_sha256, group_label, uses, used, expires_at_ms, revoked FROM tokens WHERE token_id = ?1")?
        .query_row(
            [&ticket.token_id],
            |row| {
                Ok(Token {
                    secret_sha256: row.get(0)?,
                    group_label: row.get(1)?,
                    uses: uint(row.get(2)?),
                    used: uint(row.get(3)?),
                    expires_at_ms: uint(row.get(4)?),
                    revoked: row.get::<_, i64>(5)? != 0,
                })
            },
        )
        .optional()?;
    let Some(token) = token else {
        return Ok(Err(TokenRefusal::Invalid));
    };
    if !same_digest(&token.secret_sha256, &ticket.secret_sha256) || token.revoked {
        return Ok(Err(TokenRefusal::Invalid));
    }
    let known: Option<(String, bool)> = connection
        .prepare_cached("SELECT host_id, revoked FROM hosts WHERE key_sha256 = ?1")?
        .query_row([&ticket.key_sha256], |row| {
            Ok((row.get(0)?, row.get::<_, i64>(1)? != 0))
        })
        .optional()?;
    if let Some((_, true)) = known {
        return Ok(Err(TokenRefusal::Revoked));
    }
    if is_former(connection, &ticket.key_sha256)? {
        return Ok(Err(TokenRefusal::Revoked));
    }
    let used_before = connection
        .prepare_cached("SELECT 1 FROM token_uses WHERE token_id = ?1 AND key_sha256 = ?2")?
        .query_row([&ticket.token_id, &ticket.key_sha256], |_| Ok(()))
        .optional()?
        .is_some();
    if let (true, Some((host, _))) = (used_before, &known) {
        let host = HostId::new(host.clone());
        return Ok(Ok(Enrolled {
            host,
            group_label: token.group_label,
            new: false,
        }));
    }
    if ticket.now_ms >= token.expires_at_ms {
        return Ok(Err(TokenRefusal::Expired));
    }
    if token.used >= token.uses {
        return Ok(Err(TokenRefusal::UsedUp));
    }
    let new = known.is_none();
    let host = known.map_or_else(|| ticket.new_host.clone(), |(host, _)| HostId::new(host));
    if new {
        connection
        .prepare_cached("INSERT INTO hosts (host_id, name, group_label, key_sha256, certificate_serial, enrolled_at_ms)
             VALUES (?1, ?2, ?3, ?4, '', ?5)")?
        .execute(params![
                host.as_str(),
                ticket.hostname,
                token.group_label,
                ticket.key_sha256,
                int(ticket.now_ms)
            ])?;
    }
    connection
        .prepare_cached("UPDATE tokens SET used = used + 1 WHERE token_id = ?1")?
        .execute([&ticket.token_id])?;
    connection
        .prepare_cached("INSERT INTO token_uses (token_id, key_sha256, host_id) VALUES (?1, ?2, ?3)")?
        .execute(params![ticket.token_id, ticket.key_sha256, host.as_str()])?;
    append(
        connection,
        &AuditEntry {
            at_ms: ticket.now_ms,
            who: format!("host {host}"),
            what: "enrol".to_owned(),
            detail: format!("{} with token {}", ticket.hostname, ticket.token_id),
        },
    )?;
    Ok(Ok(Enrolled {
        host,
        group_label: token.group_label,
        new,
    }))
}

/// Compares without stopping at the first difference.
fn same_digest(a: &str, b: &str) -> bool {
    a.len() == b.len()
        && a.bytes()
            .zip(b.bytes())
            .fold(0u8, |difference, (x, y)| difference | (x ^ y))
            == 0
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::testing;

    fn audit() -> AuditEntry {
        AuditEntry {
            at_ms: 0,
            who: "test".into(),
            what: "token".into(),
            detail: String::new(),
        }
    }

    fn token(uses: u64, expires_at_ms: u64) -> NewToken {
        NewToken {
            token_id: "t".into(),
            secret_sha256: "s".into(),
            group_label: "g".into(),
            uses,
            created_at_ms: 0,
            expires_at_ms,
        }
    }

    fn ticket(key: &str, now_ms: u64) -> JoinTicket {
        JoinTicket {
            token_id: "t".into(),
            secret_sha256: "s".into(),
            key_sha256: key.into(),
            hostname: key.into(),
            new_host: HostId::new(format!("id-{key}-{now_ms}")),
            now_ms,
        }
    }

    #[tokio::test]
    async fn the_same_key_is_the_same_host_and_costs_nothing() {
        let (_dir, store) = testing::store();
        store.create_token(token(1, 100), audit()).await.unwrap();
        let first = store.enrol(ticket("k", 1)).await.unwrap().unwrap();
        assert!(first.new);
        // Used up for others, and even after its time the same machine gets its own identity again.
        assert_eq!(
            store.enrol(ticket("other", 2)).await.unwrap(),
            Err(TokenRefusal::UsedUp)
        );
        let again = store.enrol(ticket("k", 200)).await.unwrap().unwrap();
        assert_eq!((again.host, again.new), (first.host, false));
    }

    #[tokio::test]
    async fn wrong_secret_and_late_tickets_are_refused() {
        let (_dir, store) = testing::store();
        store.create_token(token(5, 100), audit()).await.unwrap();
        let wrong = JoinTicket {
            secret_sha256: "x".into(),
            ..ticket("k", 1)
        };
        assert_eq!(store.enrol(wrong).await.unwrap(), Err(TokenRefusal::Invalid));
        let unknown = JoinTicket {
            token_id: "x".into(),
            ..ticket("k", 1)
        };
        assert_eq!(store.enrol(unknown).await.unwrap(), Err(TokenRefusal::Invalid));
        assert_eq!(
            store.enrol(ticket("k", 100)).await.unwrap(),
            Err(TokenRefusal::Expired)
        );
    }

    #[tokio::test]
    async fn parallel_machines_cannot_share_the_last_use() {
        let (_dir, store) = testing::store();
        store.create_token(token(1, 100), audit()).await.unwrap();
        let (a, b) = tokio::join!(store.enrol(ticket("a", 1)), store.enrol(ticket("b", 1)));
        assert_eq!(
            [a.unwrap().is_ok(), b.unwrap().is_ok()]
                .iter()
                .filter(|ok| **ok)
                .count(),
            1
        );
    }
}
