//! The engine's task: take a batch, decide, commit, act.

use super::handle::{EngineHandle, Message};
use super::intake::{self, Intake, Sequence};
use crate::clock;
use crate::config;
use crate::sessions::{Sessions, goodbye};
use crate::store::{RolloutCommit, Store, StoreError};
use fleet_common::codes;
use fleet_common::ids::HostId;
use fleet_proto::Ack;
use fleet_proto::coordinator_message::Body;
use std::collections::BTreeSet;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

/// What the engine works with.
pub struct Deps {
    /// Memory.
    pub store: Store,
    /// Ways to the agents.
    pub sessions: Sessions,
    /// Set when the program ends.
    pub stop: CancellationToken,
}

/// Starts the engine's task.
pub async fn start(deps: Deps) -> Result<(EngineHandle, tokio::task::JoinHandle<()>), StoreError> {
    let (queue, messages) = mpsc::channel(config::ENGINE_QUEUE);
    let intake = Intake::new(deps.store.cursors().await?);
    let engine = Engine { deps, intake, commit: RolloutCommit::default(), restart: BTreeSet::new() };
    let task = tokio::spawn(engine.run(messages));
    Ok((EngineHandle::new(queue), task))
}

struct Engine {
    deps: Deps,
    intake: Intake,
    commit: RolloutCommit,
    /// Hosts whose session must start over.
    restart: BTreeSet<HostId>,
}

impl Engine {
    async fn run(mut self, mut messages: mpsc::Receiver<Message>) {
        let mut batch = Vec::with_capacity(config::ENGINE_BATCH);
        let mut tick = tokio::time::interval(config::TICK);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                biased;
                () = self.deps.stop.cancelled() => return,
                received = messages.recv_many(&mut batch, config::ENGINE_BATCH) => {
                    if received == 0 {
                        return;
                    }
                }
                _ = tick.tick() => {}
            }
            for message in batch.drain(..) {
                self.take(message);
            }
            self.settle().await;
        }
    }

    fn take(&mut self, message: Message) {
        match message {
            Message::Event(event) => {
                match self.intake.classify(&event) {
                    Sequence::New => self.commit.events.push(intake::row(&event, clock::now_ms(), None)),
                    Sequence::Duplicate => {}
                    Sequence::Gap => {
                        self.restart.insert(event.host);
                    }
                }
            }
            Message::Hold { answer, .. } => {
                let _ = answer.send(Ok(()));
            }
            Message::Connected { .. } | Message::Disconnected { .. } | Message::Inventory { .. } => {}
        }
    }

    /// Commits what was decided, then acts on it.
    async fn settle(&mut self) {
        let commit = std::mem::take(&mut self.commit);
        let due = self.intake.take_due();
        if !commit.is_empty()
            && let Err(error) = self.deps.store.commit(commit).await
        {
            tracing::error!(%error, "a decision could not be stored; nothing was acknowledged or sent");
            self.recover(due.into_keys().map(|(host, _)| host).collect()).await;
            return;
        }
        for ((host, outbox), sequence) in due {
            self.deps.sessions.send(&host, Body::Ack(Ack { outbox_id: outbox.0, sequence }));
        }
        for host in std::mem::take(&mut self.restart) {
            self.deps.sessions.dismiss(&host, goodbye("gap", "an event number is missing; start over", 0, false));
        }
    }

    /// After a failed commit memory is ahead of the store: read it back and let the senders send again.
    async fn recover(&mut self, senders: BTreeSet<HostId>) {
        match self.deps.store.cursors().await {
            Ok(cursors) => self.intake = Intake::new(cursors),
            Err(error) => tracing::error!(%error, "the store can't be read back"),
        }
        for host in senders {
            let message = goodbye(codes::INTERNAL, "the coordinator's store refused; try again later", 5_000, false);
            self.deps.sessions.dismiss(&host, message);
        }
    }
}
