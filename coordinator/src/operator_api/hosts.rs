//! Tokens and hosts.

use super::documents::{DoneDocument, HostDocument, HostsDocument, TokenDocument, client_words, survey_word};
use super::service::OperatorService;
use crate::clock;
use crate::config;
use crate::problem::{Problem, Problems};
use crate::sessions::goodbye;
use crate::store::{AuditEntry, HostRow, NewToken};
use fleet_common::codes;
use fleet_common::digest::sha256_hex;
use fleet_common::inventory::Inventory;
use fleet_common::survey::HostSurvey;
use fleet_proto::{CreateTokenRequest, HoldRequest, HostRequest};
use rollout::kernel::Command;

/// Longest life of a join token.
const LONGEST_TTL_MS: u64 = 30 * 24 * 3_600_000;

impl OperatorService {
    pub(super) async fn create_token_document(
        &self,
        who: String,
        request: CreateTokenRequest,
    ) -> Result<TokenDocument, Problems> {
        if request.uses == 0 || request.ttl_ms == 0 || request.ttl_ms > LONGEST_TTL_MS {
            return Err(
                Problem::new("a token needs at least one use and a life of at most 30 days")
                    .hint("for example `--uses 50 --ttl 24h`")
                    .into(),
            );
        }
        let now_ms = clock::now_ms();
        let token_id = hex::encode(&uuid::Uuid::new_v4().as_bytes()[..6]);
        // Two random UUIDs are 244 bits from the operating system's generator.
        let secret = format!(
            "{}{}",
            uuid::Uuid::new_v4().simple(),
            uuid::Uuid::new_v4().simple()
        );
        let digest = self
            .authority
            .key_digest()
            .map_err(|error| Problem::because("the CA can't be read", &error))?;
        let expires_at_ms = now_ms + request.ttl_ms;
        let stored = NewToken {
            token_id: token_id.clone(),
            secret_sha256: sha256_hex(secret.as_bytes()),
            group_label: request.group.clone(),
            uses: u64::from(request.uses),
            created_at_ms: now_ms,
            expires_at_ms,
        };
        let detail = format!("{token_id} for `{}`, {} uses", request.group, request.uses);
        let audit = AuditEntry {
            at_ms: now_ms,
            who,
            what: "token create".to_owned(),
            detail,
        };
        self.store.create_token(stored, audit).await?;
        Ok(TokenDocument {
            token: format!("{token_id}.{secret}.{digest}"),
            token_id,
            group: request.group,
            uses: request.uses,
            expires_at: clock::rfc3339(expires_at_ms),
        })
    }

    pub(super) async fn hosts_document(&self) -> Result<HostsDocument, Problems> {
        let rows = self.store.hosts().await?;
        Ok(HostsDocument {
            hosts: rows.iter().map(|row| self.host_document(row, false)).collect(),
        })
    }

    pub(super) async fn one_host_document(&self, wanted: &str) -> Result<HostDocument, Problems> {
        let row = self.find_host(wanted).await?;
        Ok(self.host_document(&row, true))
    }

    pub(super) async fn hold_host_document(
        &self,
        who: String,
        request: HoldRequest,
    ) -> Result<DoneDocument, Problems> {
        let row = self.find_host(&request.host).await?;
        let held = request.hold.then(|| {
            if request.reason.is_empty() {
                "held by the operator".to_owned()
            } else {
                request.reason.clone()
            }
        });
        let what = if request.hold { "hold" } else { "unhold" };
        let detail = format!("{} ({}): {}", row.name, row.host, request.reason);
        let audit = AuditEntry {
            at_ms: clock::now_ms(),
            who: who.clone(),
            what: what.to_owned(),
            detail,
        };
        self.store.hold(&row.host, held.clone(), audit).await?;
        let host = row.host.to_string();
        let command = match held {
            Some(reason) => Command::Hold { host, reason },
            None => Command::Unhold { host },
        };
        // A host outside of the rollout under way, or no rollout at all, is fine: plans read the hold from the store.
        let told = self.engine.tell(who, command).await?;
        let state = if request.hold { "held" } else { "released" };
        // What it means for a host that the rollout works on is the rollout's to say.
        let done = if told.is_empty() {
            format!("{} is {state}", row.name)
        } else {
            told
        };
        Ok(DoneDocument { done })
    }

    pub(super) async fn revoke_document(
        &self,
        who: String,
        request: HostRequest,
    ) -> Result<DoneDocument, Problems> {
        let row = self.find_host(&request.host).await?;
        let detail = format!("{} ({}): {}", row.name, row.host, request.reason);
        let audit = AuditEntry {
            at_ms: clock::now_ms(),
            who,
            what: "revoke".to_owned(),
            detail,
        };
        self.store.revoke(&row.host, audit).await?;
        // The store refuses new sessions from here on; the live one ends now.
        let text = "the identity of this host was revoked";
        self.sessions.dismiss(
            &row.host,
            goodbye(codes::HOST_UNKNOWN, text, config::REFUSED_RETRY_MS, false),
        );
        Ok(DoneDocument {
            done: format!(
                "{} is revoked; it can come back only with a new key and a new token",
                row.name
            ),
        })
    }

    pub(super) async fn free_slot_document(
        &self,
        who: String,
        request: HostRequest,
    ) -> Result<DoneDocument, Problems> {
        let row = self.find_host(&request.host).await?;
        let command = Command::FreeSlot {
            host: row.host.to_string(),
            reason: request.reason,
        };
        Ok(DoneDocument {
            done: self.engine.command(who, command).await?,
        })
    }

    /// A host by id, name or unique prefix of either.
    pub(super) async fn find_host(&self, wanted: &str) -> Result<HostRow, Problems> {
        let rows = self.store.hosts().await?;
        let exact = rows
            .iter()
            .filter(|row| row.host.as_str() == wanted || row.name == wanted)
            .count();
        let fits = |row: &HostRow| {
            if exact > 0 {
                row.host.as_str() == wanted || row.name == wanted
            } else {
                row.host.as_str().starts_with(wanted) || row.name.starts_with(wanted)
            }
        };
        let mut found: Vec<HostRow> = rows
            .into_iter()
            .filter(|row| !wanted.is_empty() && fits(row))
            .collect();
        match (found.len(), found.pop()) {
            (1, Some(row)) => Ok(row),
            (0, _) | (_, None) => Err(Problem::new(format!("no host is called `{wanted}`"))
                .hint("`pmm-coordinator host list` shows names and ids")
                .into()),
            (count, _) => Err(Problem::new(format!("`{wanted}` fits {count} hosts"))
                .hint("give more of the name, or the id")
                .into()),
        }
    }

    fn host_document(&self, row: &HostRow, whole: bool) -> HostDocument {
        let inventory: Option<Inventory> = row
            .inventory
            .as_deref()
            .and_then(|bytes| serde_json::from_slice(bytes).ok());
        let survey: Option<HostSurvey> = row
            .survey
            .as_deref()
            .and_then(|bytes| serde_json::from_slice(bytes).ok());
        let local_hold = inventory.as_ref().and_then(|inventory| inventory.held.clone());
        let (state, reason) = if row.revoked {
            ("revoked", None)
        } else if row.quarantined.is_some() {
            ("quarantined", row.quarantined.clone())
        } else if row.held.is_some() || local_hold.is_some() {
            ("held", row.held.clone().or(local_hold))
        } else {
            ("ok", None)
        };
        let (method, client_version, run) = client_words(inventory.as_ref());
        let time = |ms: u64| {
            if ms == 0 {
                String::new()
            } else {
                clock::rfc3339(ms)
            }
        };
        HostDocument {
            host: row.host.to_string(),
            name: row.name.clone(),
            group_label: row.group_label.clone(),
            connected: self.sessions.is_connected(&row.host),
            state: state.to_owned(),
            reason,
            enrolled_at: time(row.enrolled_at_ms),
            last_seen: time(row.last_seen_ms),
            agent_version: row.agent_version.clone(),
            method,
            client_version,
            run,
            labels: inventory
                .as_ref()
                .map(|inventory| inventory.labels.clone())
                .unwrap_or_default(),
            survey: survey_word(survey.as_ref()),
            surveyed_at: time(row.survey_at_ms),
            findings: survey.map(|survey| survey.findings).unwrap_or_default(),
            inventory: if whole { inventory } else { None },
        }
    }
}
