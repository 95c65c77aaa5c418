//! Enrolment: a join token and a certificate request become an identity.

use super::connection::Peer;
use crate::clock;
use crate::pki::{Authority, PkiError};
use crate::store::{Enrolled, JoinTicket, Store, TokenRefusal};
use fleet_common::codes;
use fleet_common::digest::sha256_hex;
use fleet_common::hint::chain;
use fleet_common::ids::HostId;
use fleet_proto::enrolment_server::Enrolment;
use fleet_proto::{EnrolReply, EnrolRequest};
use std::sync::Arc;
use tonic::{Request, Response, Status};

/// The metadata key that carries the stable code of a refusal.
pub const CODE_KEY: &str = "fleet-code";

/// The service on the enrolment listener.
pub struct EnrolmentService {
    store: Store,
    authority: Arc<Authority>,
}

impl EnrolmentService {
    /// The service over a store and its CA.
    pub fn new(store: Store, authority: Arc<Authority>) -> Self {
        Self { store, authority }
    }

    async fn join(&self, request: EnrolRequest) -> Result<EnrolReply, Refusal> {
        if !plausible_name(&request.hostname) {
            return Err(Refusal::Request(
                "the host name is empty, too long or has odd characters".to_owned(),
            ));
        }
        let key_sha256 = Authority::request_key_digest(&request.csr_pem)?;
        let ticket = JoinTicket {
            token_id: request.token_id,
            secret_sha256: sha256_hex(request.token_secret.as_bytes()),
            key_sha256,
            hostname: request.hostname,
            new_host: HostId::new(uuid::Uuid::now_v7().to_string()),
            now_ms: clock::now_ms(),
        };
        let Enrolled {
            host,
            group_label,
            new,
        } = self.store.enrol(ticket).await?.map_err(Refusal::Token)?;
        let certificate = self.authority.issue_host(&request.csr_pem, &host)?;
        self.store.certificate_issued(&host, certificate.serial).await?;
        tracing::info!(%host, new, "a host enrolled");
        Ok(EnrolReply {
            host_id: host.into(),
            certificate_pem: certificate.pem,
            ca_pem: self.authority.ca_pem().to_owned(),
            group: group_label,
        })
    }
}

#[tonic::async_trait]
impl Enrolment for EnrolmentService {
    async fn enrol(&self, request: Request<EnrolRequest>) -> Result<Response<EnrolReply>, Status> {
        let peer = request
            .extensions()
            .get::<Peer>()
            .map(|peer| peer.address.to_string())
            .unwrap_or_default();
        let request = request.into_inner();
        let (token, hostname) = (request.token_id.clone(), request.hostname.clone());
        match self.join(request).await {
            Ok(reply) => Ok(Response::new(reply)),
            Err(refusal) => {
                tracing::warn!(%peer, ?token, ?hostname, code = refusal.code(), reason = %chain(&refusal), "enrolment refused");
                Err(refusal.into_status())
            }
        }
    }
}

#[derive(Debug, thiserror::Error)]
enum Refusal {
    #[error("{}", explain(*.0))]
    Token(TokenRefusal),
    #[error("{0}")]
    Request(String),
    #[error("the certificate request was refused")]
    Pki(#[from] PkiError),
    #[error("the coordinator can't store the enrolment")]
    Store(#[from] crate::store::StoreError),
}

impl Refusal {
    fn code(&self) -> &'static str {
        match self {
            Self::Token(TokenRefusal::Invalid) => codes::TOKEN_INVALID,
            Self::Token(TokenRefusal::Expired) => codes::TOKEN_EXPIRED,
            Self::Token(TokenRefusal::UsedUp) => codes::TOKEN_USED_UP,
            Self::Token(TokenRefusal::Revoked) => codes::HOST_UNKNOWN,
            Self::Request(_) | Self::Pki(PkiError::Request(_)) => "request_invalid",
            Self::Pki(_) | Self::Store(_) => codes::INTERNAL,
        }
    }

    fn into_status(self) -> Status {
        let text = format!("{}: {}", self.code(), chain(&self));
        let mut status = match &self {
            Self::Token(_) => Status::permission_denied(text),
            Self::Request(_) | Self::Pki(PkiError::Request(_)) => Status::invalid_argument(text),
            Self::Pki(_) | Self::Store(_) => Status::unavailable(text),
        };
        if let Ok(code) = self.code().parse() {
            status.metadata_mut().insert(CODE_KEY, code);
        }
        status
    }
}

fn explain(refusal: TokenRefusal) -> &'static str {
    match refusal {
        TokenRefusal::Invalid => "the join token is unknown or its secret is wrong",
        TokenRefusal::Expired => {
            "the join token is past its time; create a new one with `pmm-coordinator token create`"
        }
        TokenRefusal::UsedUp => {
            "the join token has no uses left; create a new one with `pmm-coordinator token create`"
        }
        TokenRefusal::Revoked => "the identity of this machine was revoked",
    }
}

fn plausible_name(name: &str) -> bool {
    !name.is_empty()
        && name.len() <= 253
        && name
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_could_confuse_a_screen_are_refused() {
        for bad in ["", "a b", "a\u{1b}[0m", "x\n", &"a".repeat(254)] {
            assert!(!plausible_name(bad), "{bad:?}");
        }
        assert!(plausible_name("db-01.example.com"));
    }
}
