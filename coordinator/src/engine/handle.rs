//! The way into the engine.

use crate::agent_api::IncomingEvent;
use fleet_common::ids::{HostId, OrderId};
use fleet_common::inventory::Inventory;
use crate::problem::{Problem, Problems};
use tokio::sync::{mpsc, oneshot};

/// Everything the engine reacts to.
pub enum Message {
    /// A session opened.
    Connected {
        /// Host.
        host: HostId,
        /// Number of the session.
        session: u64,
        /// Order that the agent's journal holds unfinished.
        running: Option<OrderId>,
    },
    /// A session ended.
    Disconnected {
        /// Host.
        host: HostId,
        /// Number of the session.
        session: u64,
    },
    /// An event of an agent.
    Event(IncomingEvent),
    /// An operator holds or releases a host; stored already.
    Hold {
        /// Host.
        host: HostId,
        /// Reason; `None` releases.
        held: Option<String>,
        /// Who.
        who: String,
        /// Where the answer goes.
        answer: oneshot::Sender<Result<(), Problems>>,
    },
    /// A new inventory, stored already.
    Inventory {
        /// Host.
        host: HostId,
        /// What it says.
        inventory: Box<Inventory>,
    },
}

/// Sends to the engine; cheap to clone. Senders wait while the engine's queue is full.
#[derive(Clone)]
pub struct EngineHandle {
    queue: mpsc::Sender<Message>,
}

impl EngineHandle {
    pub(super) fn new(queue: mpsc::Sender<Message>) -> Self { Self { queue } }

    // The queue closes only when the program ends; what is lost then was not acknowledged.
    async fn send(&self, message: Message) { let _ = self.queue.send(message).await; }

    /// A session opened.
    pub async fn connected(&self, host: HostId, session: u64, running: Option<OrderId>) {
        self.send(Message::Connected { host, session, running }).await;
    }

    /// A session ended.
    pub async fn disconnected(&self, host: HostId, session: u64) {
        self.send(Message::Disconnected { host, session }).await;
    }

    /// An event came in.
    pub async fn event(&self, event: IncomingEvent) { self.send(Message::Event(event)).await; }

    /// Sends what an operator wants and waits for the answer, which comes after the commit.
    async fn ask<T>(&self, make: impl FnOnce(oneshot::Sender<Result<T, Problems>>) -> Message) -> Result<T, Problems> {
        let (answer, wait) = oneshot::channel();
        self.send(make(answer)).await;
        wait.await.map_err(|_| Problem::new("the coordinator is stopping"))?
    }

    /// Holds or releases a host.
    pub async fn hold(&self, host: HostId, held: Option<String>, who: String) -> Result<(), Problems> {
        self.ask(|answer| Message::Hold { host, held, who, answer }).await
    }

    /// An inventory was stored.
    pub async fn inventory(&self, host: HostId, inventory: Inventory) {
        self.send(Message::Inventory { host, inventory: Box::new(inventory) }).await;
    }
}
