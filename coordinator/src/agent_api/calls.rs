//! The short calls of a host beside its session: a new certificate, a file. Each checks host, key and the end of the certificate anew, because
//! a connection may live longer than any of them.

use super::connection::Peer;
use super::session::SessionService;
use crate::artifacts::ArtifactError;
use crate::clock;
use crate::config;
use crate::pki::{Authority, PkiError};
use crate::store::{Admission, Renewal};
use fleet_common::codes;
use fleet_common::hint::chain;
use fleet_common::ids::HostId;
use fleet_proto::{ArtifactChunk, ArtifactRequest, RenewReply, RenewRequest};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

/// Pieces of a file on their way to one peer.
const CHUNKS: usize = 4;

impl SessionService {
    /// The caller, if it may call.
    async fn caller<T>(&self, request: &Request<T>) -> Result<(HostId, Peer), Status> {
        let peer = request.extensions().get::<Peer>().cloned();
        let Some((host, peer)) = peer.and_then(|peer| peer.host.clone().map(|host| (host, peer))) else {
            return Err(Status::unauthenticated(
                "a client certificate with a host identity is required",
            ));
        };
        if peer.not_after_ms <= clock::now_ms() {
            return Err(Status::unauthenticated(format!(
                "{}: the certificate is past its end; enrol the host again",
                codes::CERTIFICATE_EXPIRED
            )));
        }
        let admission = self
            .store
            .admission(&host, peer.key_sha256.clone())
            .await
            .map_err(|error| {
                tracing::error!(%host, %error, "the store can't be asked");
                Status::unavailable("the coordinator's store refused; try again later")
            })?;
        admitted(admission)?;
        Ok((host, peer))
    }

    pub(super) async fn renew_certificate(
        &self,
        request: Request<RenewRequest>,
    ) -> Result<Response<RenewReply>, Status> {
        let (host, peer) = self.caller(&request).await?;
        let csr = request.into_inner().csr_pem;
        let refused = |error: PkiError| {
            tracing::warn!(%host, reason = %chain(&error), "a renewal was refused");
            Status::invalid_argument(chain(&error))
        };
        let new_sha256 = Authority::request_key_digest(&csr).map_err(refused)?;
        let certificate = self.authority.issue_host(&csr, &host).map_err(refused)?;
        let renewal = Renewal {
            shown_sha256: peer.key_sha256,
            new_sha256,
            serial: certificate.serial.clone(),
            now_ms: clock::now_ms(),
        };
        // Handed out only when it is stored: a certificate that the store does not know is worth nothing.
        let stored = self.store.renew(&host, renewal).await.map_err(|error| {
            tracing::error!(%host, %error, "a renewal could not be stored");
            Status::unavailable("the coordinator's store refused; try again later")
        })?;
        admitted(stored)?;
        tracing::info!(%host, serial = certificate.serial, "a new certificate was handed out");
        Ok(Response::new(RenewReply {
            certificate_pem: certificate.pem,
            ca_pem: self.authority.ca_pem().to_owned(),
        }))
    }

    pub(super) async fn send_artifact(
        &self,
        request: Request<ArtifactRequest>,
    ) -> Result<Response<ReceiverStream<Result<ArtifactChunk, Status>>>, Status> {
        let (host, _) = self.caller(&request).await?;
        let ArtifactRequest { sha256, offset } = request.into_inner();
        let plain = sha256.len() == 64
            && sha256
                .bytes()
                .all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte));
        if !plain {
            return Err(Status::invalid_argument("not a SHA-256 in lower-case hex"));
        }
        let Ok(place) = self.downloads.clone().try_acquire_owned() else {
            return Err(Status::resource_exhausted(
                "the coordinator serves other hosts; try again later",
            ));
        };
        let artifacts = self.artifacts.clone();
        let (found, place) = blocking(move || (artifacts.find(&sha256, offset), place)).await?;
        let mut opened = found.map_err(|error| refusal(&host, &error))?;
        let (to, chunks) = mpsc::channel(CHUNKS);
        tokio::spawn(async move {
            let _place = place;
            loop {
                let length = opened.length();
                let Ok((back, piece)) = blocking(move || {
                    let piece = opened.next_piece();
                    (opened, piece)
                })
                .await
                else {
                    return;
                };
                opened = back;
                let message = match piece {
                    Ok(data) if data.is_empty() => return,
                    Ok(data) => Ok(ArtifactChunk { length, data }),
                    Err(error) => Err(refusal(&host, &error)),
                };
                let last = message.is_err();
                let sent = tokio::time::timeout(config::ARTIFACT_CHUNK_TIMEOUT, to.send(message)).await;
                // A peer that is gone or takes nothing gives its place to others; it goes on later where it stopped.
                if last || !matches!(sent, Ok(Ok(()))) {
                    return;
                }
            }
        });
        Ok(Response::new(ReceiverStream::new(chunks)))
    }
}

fn admitted(admission: Admission) -> Result<(), Status> {
    match admission {
        Admission::Admitted => Ok(()),
        Admission::Unknown => Err(Status::permission_denied(format!(
            "{}: this host is not known here, or this key is not its key any more",
            codes::HOST_UNKNOWN
        ))),
        Admission::Quarantined(reason) => {
            Err(Status::permission_denied(format!("{}: {reason}", codes::FORK)))
        }
    }
}

fn refusal(host: &HostId, error: &ArtifactError) -> Status {
    tracing::warn!(%host, reason = %chain(error), "a file was not sent");
    let text = chain(error);
    match error {
        ArtifactError::Unknown => Status::not_found(text),
        ArtifactError::Offset(_) => Status::out_of_range(text),
        ArtifactError::Changed => Status::aborted(text),
        ArtifactError::Name(_) | ArtifactError::TooLong(_) | ArtifactError::Io(_) => {
            Status::unavailable("the coordinator can't read its files; try again later")
        }
    }
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, Status> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|_| Status::unavailable("the coordinator is stopping"))
}
