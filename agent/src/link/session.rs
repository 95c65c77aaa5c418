//! The session: Hello, Welcome, then orders in and events out until it breaks; then again after a wait.

use super::identity::{self, Which};
use super::{backoff, connector};
use crate::config::{AgentConfig, Paths};
use crate::execute::orders::{self, Shared};
use crate::host::clock;
use fleet_common::codes;
use fleet_proto::agent_link_client::AgentLinkClient;
use fleet_proto::{
    AgentMessage, CoordinatorMessage, Event, Goodbye, Hello, InventoryDocument, PROTOCOL_MAX, PROTOCOL_MIN,
    Progress, Ready, Welcome, agent_message, coordinator_message,
};
use fs_err as fs;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;

/// Messages on their way to the transport.
const SEND_BUFFER: usize = 32;
/// Events sent at once before the next look at other things.
const EVENT_BATCH: usize = 16;
/// A coordinator that is busy with ten thousand handshakes answers within this.
const WELCOME_TIMEOUT: Duration = Duration::from_secs(30);

/// How a session ended.
#[derive(Debug)]
enum Ended {
    /// The coordinator closed it in order.
    Closed,
    /// It said when to come back; 0 leaves it to us.
    Away(u64),
    /// It broke.
    Broken(String),
    /// The certificate that was shown is not accepted.
    Refused {
        /// Digest of its key.
        shown: String,
        /// What the coordinator said.
        why: String,
    },
    /// Start over at once: another certificate is to be used.
    Again,
    /// We are to stop.
    Stop,
}

/// Keeps a session up until told to stop.
pub async fn keep(
    paths: &Paths,
    config: &AgentConfig,
    shared: &Arc<Shared>,
    mut stop: watch::Receiver<bool>,
) -> anyhow::Result<()> {
    let (host, port) = config.address()?;
    let mut attempt = 0u32;
    // A new certificate is tried first. While it is not accepted the two take turns, so that neither can lock the host out.
    let mut turn = Which::Candidate;
    loop {
        let mut welcomed = false;
        let which = identity::usable(paths, turn);
        let ended = tokio::select! {
            ended = once(paths, &host, port, shared, which, &mut welcomed) => ended,
            _ = stop.wait_for(|stop| *stop) => Ended::Stop,
        };
        shared.link.set_live(None);
        if welcomed {
            attempt = 0;
            turn = Which::Candidate;
        } else {
            turn = which.other();
        }
        let persisted = shared.link.get();
        let wait = match ended {
            Ended::Stop => return Ok(()),
            Ended::Closed => {
                tracing::info!("session closed by the coordinator");
                Duration::from_millis(100 + backoff::below(persisted.reconnect_spread_ms))
            }
            Ended::Away(0) => backoff::wait(attempt, persisted.reconnect_cap_ms),
            // Clamped: a wrong number must not send a host away for a day.
            Ended::Away(ms) => Duration::from_millis(ms.min(600_000)),
            Ended::Again => Duration::ZERO,
            Ended::Refused { shown, why } if which == Which::Candidate => {
                tracing::warn!(%why, "the new certificate is not accepted; going on with the old one");
                identity::drop_candidate(paths, &shown)?;
                Duration::ZERO
            }
            Ended::Refused { why, .. } | Ended::Broken(why) => {
                tracing::warn!(%why, attempt, "no session");
                backoff::wait(attempt, persisted.reconnect_cap_ms)
            }
        };
        crate::service::status("waiting for the coordinator");
        attempt = attempt.saturating_add(1);
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            _ = stop.wait_for(|stop| *stop) => return Ok(()),
        }
    }
}

async fn once(
    paths: &Paths,
    host: &str,
    port: u16,
    shared: &Arc<Shared>,
    which: Which,
    welcomed: &mut bool,
) -> Ended {
    match open(paths, host, port, shared, which).await {
        Ok((to, mut from, shown)) => match welcome(&mut from, shared).await {
            Ok(welcome) => {
                *welcomed = true;
                // From the Welcome on the coordinator refuses the old certificate.
                if which == Which::Candidate
                    && let Err(error) = identity::promote(paths, &shown)
                {
                    return Ended::Broken(format!("the new certificate can't be stored: {error}"));
                }
                crate::guardian::welcomed(paths);
                tracing::info!(session = welcome.session_number, "session is up");
                crate::service::status("connected to the coordinator");
                serve(&to, &mut from, shared, &welcome).await
            }
            Err(Ended::Refused { why, .. }) => Ended::Refused { shown, why },
            Err(ended) => ended,
        },
        Err(error) => Ended::Broken(format!("{error:#}")),
    }
}

type Incoming = tonic::Streaming<CoordinatorMessage>;

async fn open(
    paths: &Paths,
    host: &str,
    port: u16,
    shared: &Shared,
    which: Which,
) -> anyhow::Result<(mpsc::Sender<AgentMessage>, Incoming, String)> {
    let (tls, shown) = identity::tls(paths, which)?;
    let channel = connector::connect(host, port, tls).await?;
    let (to, outgoing) = mpsc::channel(SEND_BUFFER);
    let persisted = shared.link.get();
    let hello = Hello {
        protocol_min: PROTOCOL_MIN,
        protocol_max: PROTOCOL_MAX,
        features: Vec::new(),
        host_id: fs::read_to_string(paths.host_id())?.trim().to_owned(),
        session_number: persisted.session_number,
        boot_id: clock::boot_id(),
        agent_version: env!("CARGO_PKG_VERSION").to_owned(),
        highest_epoch: Some(persisted.highest_epoch.into()),
        outbox_id: shared.outbox.id(),
        last_sequence: shared.outbox.last_sequence(),
        acknowledged: shared.outbox.acknowledged(),
        running_order: shared.running_order(),
        inventory_digest: shared.inventory().1,
    };
    to.send(message(agent_message::Body::Hello(hello))).await?;
    let mut link = AgentLinkClient::new(channel);
    let call = link.session(ReceiverStream::new(outgoing));
    let answer = tokio::time::timeout(WELCOME_TIMEOUT, call)
        .await
        .map_err(|_| anyhow::anyhow!("the coordinator does not answer"))?;
    match answer {
        Ok(response) => Ok((to, response.into_inner(), shown)),
        Err(status) => anyhow::bail!("the coordinator refused the session: {}", status.message()),
    }
}

fn message(body: agent_message::Body) -> AgentMessage {
    AgentMessage { body: Some(body) }
}

async fn welcome(from: &mut Incoming, shared: &Shared) -> Result<Welcome, Ended> {
    let first = tokio::time::timeout(WELCOME_TIMEOUT, from.message())
        .await
        .map_err(|_| Ended::Broken("no welcome".into()))?;
    match first
        .map_err(|status| Ended::Broken(status.message().to_owned()))?
        .and_then(|message| message.body)
    {
        Some(coordinator_message::Body::Welcome(welcome)) => {
            if !(PROTOCOL_MIN..=PROTOCOL_MAX).contains(&welcome.protocol) {
                return Err(Ended::Broken(format!(
                    "the coordinator chose protocol {}, this agent speaks {PROTOCOL_MIN} to {PROTOCOL_MAX}",
                    welcome.protocol
                )));
            }
            let stored = shared.link.update(|persisted| {
                persisted.session_number = welcome.session_number;
                persisted.quarantined = false;
                persisted.reconnect_cap_ms = welcome.reconnect_cap_ms;
                persisted.reconnect_spread_ms = welcome.reconnect_spread_ms;
                if let Some(epoch) = welcome.epoch {
                    persisted.highest_epoch = persisted.highest_epoch.max(epoch.into());
                }
            });
            stored.map_err(|error| Ended::Broken(error.to_string()))?;
            shared.outbox.acknowledge(welcome.acknowledged);
            shared.link.set_live(Some(welcome.session_number));
            Ok(welcome)
        }
        Some(coordinator_message::Body::Goodbye(goodbye)) => {
            let refused = [codes::HOST_UNKNOWN, codes::CERTIFICATE_EXPIRED].contains(&goodbye.code.as_str());
            match leave(&goodbye, shared) {
                // The current certificate keeps away as long as it is told to; `keep` decides about a new one.
                Ended::Away(_) if refused && shared.paths.candidate().exists() => Err(Ended::Refused {
                    shown: String::new(),
                    why: goodbye.message,
                }),
                ended => Err(ended),
            }
        }
        _ => Err(Ended::Broken("the first answer was no welcome".into())),
    }
}

fn leave(goodbye: &Goodbye, shared: &Shared) -> Ended {
    tracing::warn!(code = %goodbye.code, message = %goodbye.message, "the coordinator says goodbye");
    if goodbye.quarantine {
        let _ = shared.link.update(|persisted| persisted.quarantined = true);
    }
    Ended::Away(goodbye.retry_after_ms)
}

async fn serve(
    to: &mpsc::Sender<AgentMessage>,
    from: &mut Incoming,
    shared: &Arc<Shared>,
    welcome: &Welcome,
) -> Ended {
    let outbox_id = shared.outbox.id();
    let mut sent = welcome.acknowledged;
    let mut progress = shared.progress.subscribe();
    // The new session number is on disk: the coordinator may take an older one for another machine from now on.
    if to
        .send(message(agent_message::Body::Ready(Ready {})))
        .await
        .is_err()
    {
        return Ended::Broken("the stream is closed".into());
    }
    loop {
        for event in shared.outbox.after(sent, EVENT_BATCH) {
            sent = event.sequence;
            let event = Event {
                outbox_id: outbox_id.clone(),
                sequence: event.sequence,
                order_id: event.order_id,
                epoch: Some(event.epoch.into()),
                at_ms: event.at_ms,
                body: event.body.into_bytes(),
            };
            if to.send(message(agent_message::Body::Event(event))).await.is_err() {
                return Ended::Broken("the stream is closed".into());
            }
        }
        tokio::select! {
            incoming = from.message() => match incoming {
                Ok(Some(incoming)) => {
                    if let Some(ended) = receive(to, incoming, shared, welcome.session_number).await {
                        return ended;
                    }
                }
                Ok(None) => return Ended::Closed,
                Err(status) => return Ended::Broken(status.message().to_owned()),
            },
            () = shared.outbox.added.notified() => {}
            () = shared.reconnect.notified() => return Ended::Again,
            () = shared.inventory_changed.notified() => {
                let document = shared.inventory().0;
                if to.send(message(agent_message::Body::Inventory(InventoryDocument { document }))).await.is_err() {
                    return Ended::Broken("the stream is closed".into());
                }
            }
            Ok(()) = progress.changed() => {
                let note = progress.borrow_and_update().clone();
                if let Some(note) = note {
                    let progress = Progress { order_id: note.order_id, step: note.step, percent: 0, note: note.note };
                    // Latest wins: when the stream is full this one is dropped.
                    let _ = to.try_send(message(agent_message::Body::Progress(progress)));
                }
            }
        }
        // More than one batch may be waiting.
        if !shared.outbox.after(sent, 1).is_empty() {
            shared.outbox.added.notify_one();
        }
    }
}

async fn receive(
    to: &mpsc::Sender<AgentMessage>,
    incoming: CoordinatorMessage,
    shared: &Arc<Shared>,
    session: u64,
) -> Option<Ended> {
    match incoming.body? {
        coordinator_message::Body::Order(order) => {
            if let Err(error) = orders::take(shared, order, session) {
                return Some(Ended::Broken(format!("an order could not be stored: {error}")));
            }
        }
        coordinator_message::Body::Ack(ack) => {
            if ack.outbox_id == shared.outbox.id() {
                shared.outbox.acknowledge(ack.sequence);
            }
        }
        coordinator_message::Body::InventoryWanted(_) => {
            let document = shared.inventory().0;
            if to
                .send(message(agent_message::Body::Inventory(InventoryDocument {
                    document,
                })))
                .await
                .is_err()
            {
                return Some(Ended::Broken("the stream is closed".into()));
            }
        }
        coordinator_message::Body::Goodbye(goodbye) => return Some(leave(&goodbye, shared)),
        coordinator_message::Body::Welcome(_) => {}
    }
    None
}
