//! The way into the engine.

use super::server_leg::ServerDriver;
use crate::problem::{Problem, Problems};
use crate::store::{IncomingEvent, PlanRow};
use fleet_common::ids::{HostId, OrderId};
use fleet_common::order::{Action, OrderResult};
use fleet_common::server::ServerEvent;
use fleet_common::verification::FleetSnapshot;
use fleet_common::version::PmmVersion;
use rollout::kernel::{Command, Kernel};
use std::sync::Arc;
use tokio::sync::{mpsc, oneshot, watch};

/// Where an answer goes, after the commit.
pub type Answer<T> = oneshot::Sender<Result<T, Problems>>;
/// A question about the newest rollout, or why it can't be known now; gets the time, too.
pub type Question = Box<dyn FnOnce(Result<Option<&Kernel>, Problems>, u64) + Send>;

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
    /// An agent showed that the store is not the newest one; what it showed is in the store.
    StoreRestored,
    /// An operator takes the store as the truth from now on.
    Adopt(String, Answer<String>),
    /// An inventory came in: the release that the host's client is on.
    HostRuns(HostId, PmmVersion),
    /// An event of the server driver.
    Server {
        /// The order it belongs to.
        order: OrderId,
        /// What happened.
        event: ServerEvent,
    },
    /// The driver's task for an order is gone.
    ServerEnded(OrderId),
    /// A look at PMM ended.
    View {
        /// At the whole fleet, or at some nodes.
        at_fleet: bool,
        /// What it saw, or why there is nothing.
        view: Result<FleetSnapshot, String>,
    },
    /// An operator begins a rollout.
    Begin(Box<Begin>, Answer<String>),
    /// An operator's command to the rollout under way.
    Command {
        /// Who.
        by: String,
        /// What.
        command: Command,
        /// Whether having no rollout is fine.
        optional: bool,
        /// What was accepted.
        answer: Answer<String>,
    },
    /// An operator lets a child plan take over.
    AdoptPlan(String, Box<PlanRow>, Answer<String>),
    /// Orders of a survey.
    Survey(SurveyOrders, Answer<()>),
    /// An action on one host outside of a rollout.
    HostAction(Box<HostAction>, Answer<OrderResult>),
    /// Reads.
    Ask(Question),
}

/// A rollout to begin.
pub struct Begin {
    /// Who.
    pub by: String,
    /// The plan.
    pub plan: PlanRow,
    /// The plan's server.
    pub driver: Arc<dyn ServerDriver>,
    /// PMM clients without our agent that are accepted.
    pub accept_unmatched: Vec<String>,
}

/// An action on one host that an operator wants.
pub struct HostAction {
    /// Who.
    pub by: String,
    /// The host.
    pub host: HostId,
    /// Its name, for messages.
    pub name: String,
    /// What.
    pub action: Action,
    /// Plan entry, JSON; empty where the action needs none.
    pub entry: Vec<u8>,
    /// For `self_update` the release, JSON.
    pub release: Vec<u8>,
    /// Time for all of it.
    pub wait_for_ms: u64,
}

/// A survey to be made.
pub struct SurveyOrders {
    /// Hosts with their entry.
    pub targets: Vec<SurveyTarget>,
    /// Longest preflight.
    pub preflight_for_ms: u64,
    /// Longest download.
    pub stage_for_ms: u64,
    /// The answer is given at this time at the latest.
    pub until_ms: u64,
}

/// One host of a survey.
pub struct SurveyTarget {
    /// The host.
    pub host: HostId,
    /// Its plan entry, JSON.
    pub entry: Vec<u8>,
}

/// Sends to the engine; cheap to clone. Senders wait while the engine's queue is full.
#[derive(Clone)]
pub struct EngineHandle {
    queue: mpsc::Sender<Message>,
    changes: watch::Receiver<u64>,
}

impl EngineHandle {
    pub(super) fn new(queue: mpsc::Sender<Message>, changes: watch::Receiver<u64>) -> Self {
        Self { queue, changes }
    }

    // The queue closes only when the program ends; what is lost then was not acknowledged.
    pub(super) async fn send(&self, message: Message) {
        let _ = self.queue.send(message).await;
    }

    /// A session opened.
    pub async fn connected(&self, host: HostId, session: u64, running: Option<OrderId>) {
        self.send(Message::Connected {
            host,
            session,
            running,
        })
        .await;
    }

    /// A session ended.
    pub async fn disconnected(&self, host: HostId, session: u64) {
        self.send(Message::Disconnected { host, session }).await;
    }

    /// An event came in.
    pub async fn event(&self, event: IncomingEvent) {
        self.send(Message::Event(event)).await;
    }

    /// An agent showed that the store is not the newest one.
    pub async fn store_restored(&self) {
        self.send(Message::StoreRestored).await;
    }

    /// Takes the store as the truth from now on.
    pub async fn adopt(&self, by: String) -> Result<String, Problems> {
        self.wish(|answer| Message::Adopt(by, answer)).await
    }

    /// An inventory came in.
    pub async fn host_runs(&self, host: HostId, version: PmmVersion) {
        self.send(Message::HostRuns(host, version)).await;
    }

    /// Changes whenever the rollout's state does; the number means nothing.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changes.clone()
    }

    /// Sends what an operator wants and waits for the answer, which comes after the commit.
    async fn wish<T>(&self, make: impl FnOnce(Answer<T>) -> Message) -> Result<T, Problems> {
        let (answer, wait) = oneshot::channel();
        self.send(make(answer)).await;
        wait.await
            .map_err(|_| Problems::from(Problem::new("the coordinator is stopping")))?
    }

    /// Begins a rollout.
    pub async fn begin(&self, begin: Begin) -> Result<String, Problems> {
        self.wish(|answer| Message::Begin(Box::new(begin), answer)).await
    }

    /// Lets a child plan take over the rollout under way.
    pub async fn adopt_plan(&self, by: String, plan: PlanRow) -> Result<String, Problems> {
        self.wish(|answer| Message::AdoptPlan(by, Box::new(plan), answer))
            .await
    }

    /// Commands the rollout under way; without one it is refused.
    pub async fn command(&self, by: String, command: Command) -> Result<String, Problems> {
        self.wish(|answer| Message::Command {
            by,
            command,
            optional: false,
            answer,
        })
        .await
    }

    /// Tells the rollout under way, if there is one that concerns it.
    pub async fn tell(&self, by: String, command: Command) -> Result<String, Problems> {
        self.wish(|answer| Message::Command {
            by,
            command,
            optional: true,
            answer,
        })
        .await
    }

    /// Orders a survey; answers when all hosts did, or when the time is over.
    pub async fn survey(&self, orders: SurveyOrders) -> Result<(), Problems> {
        self.wish(|answer| Message::Survey(orders, answer)).await
    }

    /// Orders an action on one host; answers with its result, or when its time is over.
    pub async fn host_action(&self, wish: HostAction) -> Result<OrderResult, Problems> {
        self.wish(|answer| Message::HostAction(Box::new(wish), answer))
            .await
    }

    /// Reads from the newest rollout.
    pub async fn ask<T: Send + 'static>(
        &self,
        question: impl FnOnce(Option<&Kernel>, u64) -> T + Send + 'static,
    ) -> Result<T, Problems> {
        let (answer, wait) = oneshot::channel();
        let question: Question = Box::new(move |kernel, now_ms| {
            // Whoever asked may be gone.
            let _ = answer.send(kernel.map(|kernel| question(kernel, now_ms)));
        });
        self.send(Message::Ask(question)).await;
        wait.await
            .map_err(|_| Problems::from(Problem::new("the coordinator is stopping")))?
    }
}
