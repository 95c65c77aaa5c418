//! Who is connected, and the way to them. Each session has a bounded outbox: a peer too slow to take its messages is dropped, because
//! the store holds the state and the kernel sends open orders again when it comes back.

use crate::config;
use fleet_common::ids::{Epoch, HostId};
use fleet_proto::{CoordinatorMessage, Goodbye, Progress, coordinator_message::Body};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tonic::Status;

/// What goes to one agent.
pub type Outgoing = Result<CoordinatorMessage, Status>;

/// All sessions; cheap to clone.
#[derive(Clone, Default)]
pub struct Sessions {
    inner: Arc<Mutex<Table>>,
}

#[derive(Default)]
struct Table {
    live: BTreeMap<HostId, Live>,
    epoch: Epoch,
    progress: BTreeMap<HostId, HostProgress>,
}

struct Live {
    number: u64,
    outbox: mpsc::Sender<Outgoing>,
    ended: CancellationToken,
}

/// Latest progress of a host; never stored.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct HostProgress {
    /// Order it belongs to.
    pub order: String,
    /// Step.
    pub step: String,
    /// 0 to 100; 0 when unknown.
    pub percent: u32,
    /// Free text.
    pub note: String,
}

/// A session's own ends.
pub struct Registered {
    /// To the agent.
    pub outbox: mpsc::Sender<Outgoing>,
    /// What the agent gets.
    pub messages: mpsc::Receiver<Outgoing>,
    /// Set when the session must end.
    pub ended: CancellationToken,
}

impl Sessions {
    fn table(&self) -> MutexGuard<'_, Table> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends for a session that is not registered yet.
    pub fn ends() -> Registered {
        let (outbox, messages) = mpsc::channel(config::OUTBOX);
        Registered {
            outbox,
            messages,
            ended: CancellationToken::new(),
        }
    }

    /// Makes this the host's session; an older one is told and closed.
    pub fn register(
        &self,
        host: &HostId,
        number: u64,
        outbox: mpsc::Sender<Outgoing>,
        ended: CancellationToken,
    ) {
        let older = self.table().live.insert(
            host.clone(),
            Live {
                number,
                outbox,
                ended,
            },
        );
        if let Some(older) = older {
            close(
                &older,
                goodbye("replaced", "a newer session of this host took over", 0, false),
            );
        }
    }

    /// Forgets a session. Says whether the host has none now; false when a newer one took over.
    pub fn unregister(&self, host: &HostId, number: u64) -> bool {
        let mut table = self.table();
        let own = table.live.get(host).is_none_or(|live| live.number == number);
        if own {
            table.live.remove(host);
            table.progress.remove(host);
        }
        own
    }

    /// Whether the host has a session.
    pub fn is_connected(&self, host: &HostId) -> bool {
        self.table().live.contains_key(host)
    }

    /// Sends without waiting. A full outbox drops the session; no session is no error, the message is in the store.
    pub fn send(&self, host: &HostId, body: Body) -> bool {
        let mut table = self.table();
        let Some(live) = table.live.get(host) else {
            return false;
        };
        if live
            .outbox
            .try_send(Ok(CoordinatorMessage { body: Some(body) }))
            .is_ok()
        {
            return true;
        }
        tracing::warn!(%host, "the agent does not take its messages; dropping the session");
        if let Some(live) = table.live.remove(host) {
            live.ended.cancel();
        }
        false
    }

    /// Says goodbye to a host's session and closes it.
    pub fn dismiss(&self, host: &HostId, message: Goodbye) {
        if let Some(live) = self.table().live.remove(host) {
            close(&live, message);
        }
    }

    /// Closes every session, for a clean stop.
    pub fn dismiss_all(&self) {
        let live = std::mem::take(&mut self.table().live);
        for session in live.values() {
            close(session, goodbye("stopping", "the coordinator stops", 0, false));
        }
    }

    /// Epoch that Welcome messages carry.
    pub fn epoch(&self) -> Epoch {
        self.table().epoch
    }

    /// Set by the engine after the commit that raised it.
    pub fn set_epoch(&self, epoch: Epoch) {
        self.table().epoch = epoch;
    }

    /// Keeps the latest progress of a host.
    pub fn set_progress(&self, host: &HostId, progress: Progress) {
        let latest = HostProgress {
            order: progress.order_id,
            step: progress.step,
            percent: progress.percent.min(100),
            note: progress.note,
        };
        self.table().progress.insert(host.clone(), latest);
    }

    /// Latest progress of every connected host.
    pub fn progress(&self) -> BTreeMap<HostId, HostProgress> {
        self.table().progress.clone()
    }
}

fn close(live: &Live, message: Goodbye) {
    // A full outbox means that the peer is slow; it then sees the stream end without a word.
    let _ = live.outbox.try_send(Ok(CoordinatorMessage {
        body: Some(Body::Goodbye(message)),
    }));
    live.ended.cancel();
}

/// A Goodbye.
pub fn goodbye(code: &str, message: &str, retry_after_ms: u64, quarantine: bool) -> Goodbye {
    Goodbye {
        code: code.to_owned(),
        message: message.to_owned(),
        retry_after_ms,
        quarantine,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_newer_session_replaces_the_older_one() {
        let sessions = Sessions::default();
        let host = HostId::new("h");
        let mut old = Sessions::ends();
        sessions.register(&host, 1, old.outbox.clone(), old.ended.clone());
        let new = Sessions::ends();
        sessions.register(&host, 2, new.outbox.clone(), new.ended.clone());
        assert!(old.ended.is_cancelled());
        let last = old.messages.try_recv().unwrap().unwrap();
        assert!(matches!(last.body, Some(Body::Goodbye(_))));
        assert!(
            !sessions.unregister(&host, 1),
            "the older one must not take the newer one with it"
        );
        assert!(sessions.is_connected(&host));
    }

    #[test]
    fn a_slow_agent_is_dropped() {
        let sessions = Sessions::default();
        let host = HostId::new("h");
        let ends = Sessions::ends();
        sessions.register(&host, 1, ends.outbox.clone(), ends.ended.clone());
        for _ in 0..config::OUTBOX {
            assert!(sessions.send(&host, Body::InventoryWanted(fleet_proto::InventoryWanted {})));
        }
        assert!(!sessions.send(&host, Body::InventoryWanted(fleet_proto::InventoryWanted {})));
        assert!(ends.ended.is_cancelled() && !sessions.is_connected(&host));
    }
}
