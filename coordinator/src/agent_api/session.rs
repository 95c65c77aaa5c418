//! The one stream of a host: Hello, Welcome, then events up and orders and acknowledgements down.

use super::connection::Peer;
use super::ingest::incoming;
use crate::artifacts::Artifacts;
use crate::clock;
use crate::config;
use crate::engine::EngineHandle;
use crate::pki::Authority;
use crate::sessions::{Outgoing, Registered, Sessions, goodbye};
use crate::store::{HelloFacts, Opened, SessionDecision, Store};
use fleet_common::codes;
use fleet_common::digest::sha256_hex;
use fleet_common::ids::{HostId, OrderId, OutboxId};
use fleet_common::inventory::{Detection, Inventory};
use fleet_proto::agent_link_server::AgentLink;
use fleet_proto::coordinator_message::Body;
use fleet_proto::{
    AgentMessage, CoordinatorMessage, Goodbye, Hello, InventoryWanted, PROTOCOL_MAX, PROTOCOL_MIN, Welcome,
    agent_message,
};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Semaphore;
use tokio_stream::StreamExt as _;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

/// The service on the agents' listener.
#[derive(Clone)]
pub struct SessionService {
    pub(super) store: Store,
    sessions: Sessions,
    engine: EngineHandle,
    pub(super) authority: Arc<Authority>,
    pub(super) artifacts: Artifacts,
    /// Places for downloads.
    pub(super) downloads: Arc<Semaphore>,
}

impl SessionService {
    /// The service over a store and the table of sessions.
    pub fn new(
        store: Store,
        sessions: Sessions,
        engine: EngineHandle,
        authority: Arc<Authority>,
        artifacts: Artifacts,
    ) -> Self {
        Self {
            store,
            sessions,
            engine,
            authority,
            artifacts,
            downloads: Arc::new(Semaphore::new(config::DOWNLOADS_AT_ONCE)),
        }
    }
}

#[tonic::async_trait]
impl AgentLink for SessionService {
    type SessionStream = ReceiverStream<Outgoing>;
    type ArtifactStream = ReceiverStream<Result<fleet_proto::ArtifactChunk, Status>>;

    async fn renew(
        &self,
        request: Request<fleet_proto::RenewRequest>,
    ) -> Result<Response<fleet_proto::RenewReply>, Status> {
        self.renew_certificate(request).await
    }

    async fn artifact(
        &self,
        request: Request<fleet_proto::ArtifactRequest>,
    ) -> Result<Response<Self::ArtifactStream>, Status> {
        self.send_artifact(request).await
    }

    async fn session(
        &self,
        request: Request<Streaming<AgentMessage>>,
    ) -> Result<Response<Self::SessionStream>, Status> {
        let peer = request.extensions().get::<Peer>().cloned();
        let Some((host, peer)) = peer.and_then(|peer| peer.host.clone().map(|host| (host, peer))) else {
            return Err(Status::unauthenticated(
                "a client certificate with a host identity is required",
            ));
        };
        let Registered {
            outbox,
            messages,
            ended,
        } = Sessions::ends();
        let address = peer.address;
        let service = self.clone();
        let incoming = request.into_inner();
        tokio::spawn(async move {
            let mut session = Session {
                service,
                host: host.clone(),
                peer,
                incoming,
                outbox,
                ended,
            };
            match session.run().await {
                Ok(()) => tracing::info!(%host, peer = %address, "session ended"),
                Err(refused) => {
                    tracing::warn!(%host, peer = %address, code = refused.code, reason = refused.message, "session refused");
                    // A peer that is gone needs no reason.
                    let _ = session.say(Body::Goodbye(refused)).await;
                }
            }
        });
        Ok(Response::new(ReceiverStream::new(messages)))
    }
}

struct Session {
    service: SessionService,
    host: HostId,
    peer: Peer,
    incoming: Streaming<AgentMessage>,
    outbox: tokio::sync::mpsc::Sender<Outgoing>,
    ended: tokio_util::sync::CancellationToken,
}

impl Session {
    async fn run(&mut self) -> Result<(), Goodbye> {
        let Some(hello) = self.hello().await? else {
            return Ok(());
        };
        let protocol = check_protocol(&hello)?;
        if hello.host_id != self.host.as_str() {
            return Err(goodbye(
                codes::HOST_UNKNOWN,
                &format!(
                    "the certificate is of host {}, the greeting of `{}`",
                    self.host, hello.host_id
                ),
                config::REFUSED_RETRY_MS,
                false,
            ));
        }
        let Some(opened) = self.open(&hello).await? else {
            return Ok(());
        };
        self.service.sessions.register(
            &self.host,
            opened.session_number,
            self.outbox.clone(),
            self.ended.clone(),
        );
        let welcome = Welcome {
            protocol,
            session_number: opened.session_number,
            epoch: Some(self.service.sessions.epoch().into()),
            acknowledged: opened.acknowledged,
            reconnect_cap_ms: config::RECONNECT_CAP_MS,
            reconnect_spread_ms: config::RECONNECT_SPREAD_MS,
        };
        let mut alive = self.say(Body::Welcome(welcome)).await;
        if opened.inventory_wanted {
            alive = alive && self.say(Body::InventoryWanted(InventoryWanted {})).await;
        }
        tracing::info!(host = %self.host, name = opened.name, session = opened.session_number, "session opened");
        let running = (!hello.running_order.is_empty()).then(|| OrderId::new(hello.running_order));
        if alive {
            self.service
                .engine
                .connected(self.host.clone(), opened.session_number, running)
                .await;
            self.listen(&opened).await;
        }
        if self
            .service
            .sessions
            .unregister(&self.host, opened.session_number)
        {
            self.service
                .engine
                .disconnected(self.host.clone(), opened.session_number)
                .await;
            if let Err(error) = self.service.store.seen(&self.host, clock::now_ms()).await {
                tracing::warn!(host = %self.host, %error, "last contact not stored");
            }
        }
        Ok(())
    }

    async fn say(&self, body: Body) -> bool {
        self.outbox
            .send(Ok(CoordinatorMessage { body: Some(body) }))
            .await
            .is_ok()
    }

    /// The first message. `None` when the peer went away without a word.
    async fn hello(&mut self) -> Result<Option<Hello>, Goodbye> {
        let first = tokio::time::timeout(config::HELLO_TIMEOUT, self.incoming.next()).await;
        match first {
            Ok(None | Some(Err(_))) => Ok(None),
            Ok(Some(Ok(AgentMessage {
                body: Some(agent_message::Body::Hello(hello)),
            }))) => Ok(Some(hello)),
            Ok(Some(Ok(_))) => Err(goodbye(
                codes::UNSUPPORTED,
                "the first message must be Hello",
                0,
                false,
            )),
            Err(_) => Err(goodbye(codes::DEADLINE, "no Hello within 10 s", 0, false)),
        }
    }

    /// `None` when the peer has gone away.
    async fn open(&mut self, hello: &Hello) -> Result<Option<Opened>, Goodbye> {
        let mut facts = HelloFacts {
            session_number: hello.session_number,
            key_sha256: self.peer.key_sha256.clone(),
            boot_id: hello.boot_id.clone(),
            agent_version: hello.agent_version.clone(),
            outbox: OutboxId::new(hello.outbox_id.clone()),
            inventory_sha256: hello.inventory_digest.clone(),
            acknowledged_seen: hello.acknowledged,
            epoch_seen: hello.highest_epoch.unwrap_or_default().into(),
            epoch_given: self.service.sessions.epoch(),
            still_there: false,
            now_ms: clock::now_ms(),
        };
        let store = &self.service.store;
        let mut decision = store.open_session(&self.host, facts.clone()).await;
        if let Ok(SessionDecision::Stale) = decision {
            if let Ok(None | Some(Err(_))) =
                tokio::time::timeout(config::FORK_PROOF, self.incoming.next()).await
            {
                tracing::info!(host = %self.host, session = hello.session_number, "a stale greeting of a closed connection was ignored");
                return Ok(None);
            }
            facts.still_there = true;
            decision = store.open_session(&self.host, facts).await;
        }
        match decision {
            Ok(SessionDecision::Open(opened)) => Ok(Some(opened)),
            // Not after proof; should it be, the agent comes back and is judged again.
            Ok(SessionDecision::Stale) => Ok(None),
            Ok(SessionDecision::Unknown) => Err(goodbye(
                codes::HOST_UNKNOWN,
                "this host is not known here, its identity was revoked, or its certificate was replaced; enrol it again",
                config::REFUSED_RETRY_MS,
                false,
            )),
            Ok(SessionDecision::Quarantined(reason)) => {
                let message = goodbye(codes::FORK, &reason, config::REFUSED_RETRY_MS, true);
                // The other side of the fork may be connected right now.
                self.service.sessions.dismiss(&self.host, message.clone());
                Err(message)
            }
            Ok(SessionDecision::Restored(shown)) => {
                tracing::error!(host = %self.host, shown, "the store is older than what this host saw; nothing begins before an operator adopts it");
                self.service.engine.store_restored().await;
                Err(goodbye(
                    codes::STORE_RESTORED,
                    "the coordinator's store is older than what this host saw; an operator of the coordinator must decide",
                    config::RESTORED_RETRY_MS,
                    false,
                ))
            }
            Err(error) => {
                tracing::error!(host = %self.host, %error, "a session can't be opened");
                Err(goodbye(
                    codes::INTERNAL,
                    "the coordinator's store refused; try again later",
                    5_000,
                    false,
                ))
            }
        }
    }

    async fn listen(&mut self, opened: &Opened) {
        // A certificate is looked at in the handshake; a session that outlives it ends with it.
        let left = self.peer.not_after_ms.saturating_sub(clock::now_ms());
        let expiry = tokio::time::sleep(Duration::from_millis(left));
        tokio::pin!(expiry);
        let mut confirmed = false;
        let mut first_event = true;
        loop {
            let message = tokio::select! {
                () = self.ended.cancelled() => return,
                () = &mut expiry => {
                    tracing::warn!(host = %self.host, "the host's certificate is past its end; the session ends");
                    let text = "the certificate of this host is past its end; enrol it again";
                    let bye = goodbye(codes::CERTIFICATE_EXPIRED, text, config::REFUSED_RETRY_MS, false);
                    let _ = self.say(Body::Goodbye(bye)).await;
                    return;
                }
                message = self.incoming.next() => message,
            };
            // An agent says nothing between Hello and the moment when it has stored what Welcome gave.
            if !confirmed && matches!(message, Some(Ok(_))) {
                confirmed = self.confirm(opened.session_number).await;
            }
            match message {
                Some(Ok(AgentMessage { body })) => match body {
                    Some(agent_message::Body::Ready(_)) => {}
                    Some(agent_message::Body::Event(event)) => {
                        let event = incoming(self.host.clone(), first_event, event);
                        first_event = false;
                        self.service.engine.event(event).await;
                    }
                    Some(agent_message::Body::Progress(progress)) => {
                        self.service.sessions.set_progress(&self.host, progress);
                    }
                    Some(agent_message::Body::Inventory(inventory)) => {
                        self.inventory(inventory.document).await
                    }
                    Some(agent_message::Body::Hello(_)) | None => {
                        tracing::warn!(host = %self.host, "an unexpected message was ignored");
                    }
                },
                Some(Err(status)) => {
                    tracing::info!(host = %self.host, reason = %status.message(), "session broke");
                    return;
                }
                None => return,
            }
        }
    }

    async fn confirm(&self, number: u64) -> bool {
        let stored = self.service.store.confirm_session(&self.host, number).await;
        if let Err(error) = &stored {
            tracing::warn!(host = %self.host, %error, "session number not confirmed");
        }
        stored.is_ok()
    }

    async fn inventory(&self, document: Vec<u8>) {
        let inventory: Inventory = match serde_json::from_slice(&document) {
            Ok(inventory) => inventory,
            Err(error) => {
                tracing::warn!(host = %self.host, %error, "an inventory that is not understood was ignored");
                return;
            }
        };
        let digest = sha256_hex(&document);
        let name = inventory.hostname.clone();
        let runs = match &inventory.client {
            Detection::Installed(found)
                if found
                    .running_version
                    .is_none_or(|running| running == found.version) =>
            {
                Some(found.version)
            }
            Detection::Installed(_) | Detection::NotInstalled | Detection::Refused { .. } => None,
        };
        let saved = self
            .service
            .store
            .save_inventory(&self.host, name, digest, document, clock::now_ms())
            .await;
        match (saved, runs) {
            (Err(error), _) => {
                tracing::error!(host = %self.host, %error, "an inventory could not be stored");
            }
            (Ok(_), Some(version)) => self.service.engine.host_runs(self.host.clone(), version).await,
            (Ok(_), None) => {}
        }
    }
}

fn check_protocol(hello: &Hello) -> Result<u32, Goodbye> {
    fleet_proto::common_protocol(hello.protocol_min, hello.protocol_max).ok_or_else(|| {
        let text = format!(
            "the agent speaks protocol {} to {}, the coordinator {PROTOCOL_MIN} to {PROTOCOL_MAX}; bring both to the same release",
            hello.protocol_min, hello.protocol_max
        );
        goodbye(codes::UNSUPPORTED, &text, config::REFUSED_RETRY_MS, false)
    })
}
