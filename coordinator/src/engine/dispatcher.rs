//! The engine's task: take a batch, decide, commit, act.

use super::active::{Active, Outgoing};
use super::errand::Errands;
use super::handle::{EngineHandle, Message};
use super::holds::Holds;
use super::host_action::Asked;
use super::server_leg::Drivers;
use super::survey::{self, Followed, SurveyRun};
use crate::clock;
use crate::config;
use crate::problem::Problems;
use crate::sessions::{Sessions, goodbye};
use crate::store::intake::{self, Intake, Sequence};
use crate::store::{IncomingEvent, Restored, RolloutCommit, Store, StoreError};
use fleet_common::codes;
use fleet_common::hint::chain;
use fleet_common::ids::{Epoch, HostId, OrderId};
use fleet_proto as wire;
use fleet_proto::coordinator_message::Body;
use rollout::kernel::{HostOrder, Input};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

/// What the engine works with.
pub struct Deps {
    /// Memory.
    pub store: Store,
    /// Ways to the agents.
    pub sessions: Sessions,
    /// Drivers of rollouts that are taken up again.
    pub drivers: Arc<dyn Drivers>,
    /// Term of this coordinator.
    pub term: u64,
    /// Set when the program ends.
    pub stop: CancellationToken,
}

/// Starts the engine's task, with the newest rollout as the last commit left it.
pub async fn start(deps: Deps) -> Result<(EngineHandle, tokio::task::JoinHandle<()>), StoreError> {
    let (queue, messages) = mpsc::channel(config::ENGINE_QUEUE);
    let (changed, changes) = watch::channel(0);
    let handle = EngineHandle::new(queue, changes);
    let intake = Intake::new(deps.store.cursors().await?);
    deps.sessions.set_epoch(Epoch {
        term: deps.term,
        counter: 0,
    });
    let mut engine = Engine {
        handle: handle.clone(),
        intake,
        commit: RolloutCommit::default(),
        outgoing: Outgoing::default(),
        replies: Vec::new(),
        restart: BTreeSet::new(),
        connected: BTreeMap::new(),
        active: None,
        holds: Holds::new(),
        stale: true,
        trouble: String::new(),
        restored: None,
        surveys: 0,
        survey: None,
        survey_next: BTreeSet::new(),
        errands: Errands::default(),
        asked: BTreeMap::new(),
        asked_so_far: 0,
        changed,
        deps,
    };
    engine.reload().await;
    let task = tokio::spawn(engine.run(messages));
    Ok((handle, task))
}

/// Told after the commit whether it held.
pub(super) type Reply = Box<dyn FnOnce(Result<(), Problems>) + Send>;

pub(super) struct Engine {
    pub(super) deps: Deps,
    pub(super) handle: EngineHandle,
    pub(super) intake: Intake,
    pub(super) commit: RolloutCommit,
    pub(super) outgoing: Outgoing,
    pub(super) replies: Vec<Reply>,
    /// Hosts whose session must start over.
    pub(super) restart: BTreeSet<HostId>,
    pub(super) connected: BTreeMap<HostId, Link>,
    pub(super) active: Option<Active>,
    /// Whom operators hold, as the store has it.
    pub(super) holds: Holds,
    /// Memory does not agree with the store; it is read back before anything else.
    pub(super) stale: bool,
    /// Why it could not be read back.
    pub(super) trouble: String,
    /// Agents have seen what the store never gave, and nobody adopted it since.
    pub(super) restored: Option<Restored>,
    pub(super) surveys: u64,
    pub(super) survey: Option<SurveyRun>,
    /// Hosts whose next order of the survey leaves after the commit.
    survey_next: BTreeSet<HostId>,
    /// Orders that are out outside of the rollout.
    pub(super) errands: Errands,
    /// Operators who wait for the result of an errand.
    pub(super) asked: BTreeMap<String, Asked>,
    pub(super) asked_so_far: u64,
    pub(super) changed: watch::Sender<u64>,
}

pub(super) struct Link {
    pub(super) session: u64,
    pub(super) running: Option<OrderId>,
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
            if self.stale {
                self.reload().await;
            }
            if self.stale {
                batch.drain(..).for_each(|message| self.refuse(message));
                continue;
            }
            for message in batch.drain(..) {
                self.take(message).await;
            }
            self.feed(Input::Tick);
            self.end_survey();
            self.give_up_errands();
            self.settle().await;
        }
    }

    async fn take(&mut self, message: Message) {
        match message {
            Message::Event(event) => self.event(&event),
            Message::Connected {
                host,
                session,
                running,
            } => {
                self.connected.insert(
                    host.clone(),
                    Link {
                        session,
                        running: running.clone(),
                    },
                );
                self.send_errands(&host);
                self.feed(Input::Connected {
                    host,
                    running_order: running,
                });
            }
            Message::Disconnected { host, session } => {
                if self
                    .connected
                    .get(&host)
                    .is_some_and(|link| link.session == session)
                {
                    self.connected.remove(&host);
                    self.feed(Input::Disconnected { host });
                }
            }
            Message::Server { order, event } => {
                self.feed(Input::Server { order, event });
            }
            Message::ServerEnded(order) => {
                if let Some(active) = &mut self.active {
                    active.server.ended(&order, &self.handle, &self.deps.stop);
                }
            }
            Message::View { at_fleet, view } => {
                if let Some(active) = &mut self.active {
                    active.server.looked(at_fleet, &view);
                }
                if let Ok(snapshot) = view {
                    self.feed(Input::ServerView(snapshot));
                }
            }
            Message::StoreRestored => self.store_restored().await,
            Message::Adopt(by, answer) => {
                self.settle().await;
                self.adopt(by, answer).await;
            }
            Message::HostRuns(host, version) => {
                self.feed(Input::HostRuns { host, version });
            }
            Message::Begin(_, answer) if self.restored.is_some() => self.not_adopted(answer),
            Message::AdoptPlan(_, _, answer) if self.restored.is_some() => self.not_adopted(answer),
            Message::Survey(_, answer) if self.restored.is_some() => self.not_adopted(answer),
            Message::HostAction(_, answer) if self.restored.is_some() => self.not_adopted(answer),
            Message::Begin(begin, answer) => {
                // One commit belongs to one rollout: what belongs to the last one goes first.
                self.settle().await;
                self.begin(*begin, answer);
            }
            Message::Command {
                by,
                command,
                optional,
                answer,
            } => self.command(by, command, optional, answer),
            Message::AdoptPlan(by, plan, answer) => self.adopt_plan(by, *plan, answer),
            Message::Survey(orders, answer) => self.begin_survey(orders, answer),
            Message::HostAction(wish, answer) => self.begin_host_action(*wish, answer),
            Message::Ask(question) => question(
                Ok(self.active.as_ref().map(|active| &active.kernel)),
                clock::now_ms(),
            ),
        }
    }

    fn event(&mut self, event: &IncomingEvent) {
        match self.intake.classify(event) {
            Sequence::Duplicate => return,
            Sequence::Gap => {
                self.restart.insert(event.host.clone());
                return;
            }
            Sequence::New => {}
        }
        let now_ms = clock::now_ms();
        self.commit.events.push(intake::row(event, now_ms));
        let Ok(understood) = event.event.clone() else {
            tracing::warn!(host = %event.host, sequence = event.sequence, "an event was not understood and kept as rejected");
            return;
        };
        let followed = match self.errands.take(event) {
            Some((errand, result)) if survey::owns(&errand) => self
                .survey
                .as_mut()
                .map(|survey| survey.take(&errand, &result))
                .unwrap_or_default(),
            Some((errand, result)) => {
                self.host_action_ended(&errand, result);
                Followed::default()
            }
            None => Followed::default(),
        };
        if let Some(survey) = followed.survey.or_else(|| survey::late_survey(event)) {
            let document = serde_json::to_vec(&survey).unwrap_or_default();
            self.commit.surveys.push((event.host.clone(), document, now_ms));
        }
        if followed.next {
            self.survey_next.insert(event.host.clone());
        }
        self.feed(Input::Host {
            host: event.host.clone(),
            order_id: event.order.clone().unwrap_or_else(|| OrderId::new("")),
            epoch: event.epoch,
            event: understood,
        });
    }

    /// Gives the rollout's kernel one input, if there is a rollout.
    pub(super) fn feed(
        &mut self,
        input: Input,
    ) -> Option<Result<rollout::kernel::Accepted, rollout::kernel::Refusal>> {
        self.active
            .as_mut()?
            .feed(input, &mut self.commit, &mut self.outgoing)
    }

    /// Commits what was decided, then acts on it.
    async fn settle(&mut self) {
        let commit = std::mem::take(&mut self.commit);
        let outgoing = std::mem::take(&mut self.outgoing);
        let replies = std::mem::take(&mut self.replies);
        let due = self.intake.take_due();
        let changed = !commit.rows.is_empty() || !commit.log.is_empty();
        if !commit.is_empty()
            && let Err(error) = self.deps.store.commit(commit).await
        {
            tracing::error!(error = %chain(&error), "a decision could not be stored; nothing was acknowledged or sent");
            let problem = Problems::from(error);
            for reply in replies {
                reply(Err(problem.clone()));
            }
            self.drop_asked(&problem);
            self.stale = true;
            for (host, _) in due.into_keys() {
                let message = goodbye(
                    codes::INTERNAL,
                    "the coordinator's store refused; try again later",
                    5_000,
                    false,
                );
                self.deps.sessions.dismiss(&host, message);
            }
            return;
        }
        for ((host, outbox), sequence) in due {
            self.deps.sessions.send(
                &host,
                Body::Ack(wire::Ack {
                    outbox_id: outbox.into(),
                    sequence,
                }),
            );
        }
        for host in std::mem::take(&mut self.restart) {
            self.deps.sessions.dismiss(
                &host,
                goodbye("gap", "an event number is missing; start over", 0, false),
            );
        }
        self.act(outgoing);
        self.send_asked();
        for host in std::mem::take(&mut self.survey_next) {
            self.survey_order(&host);
        }
        for reply in replies {
            reply(Ok(()));
        }
        if changed {
            self.changed
                .send_modify(|number| *number = number.wrapping_add(1));
        }
    }

    fn act(&mut self, outgoing: Outgoing) {
        let Some(active) = &mut self.active else {
            return;
        };
        if active.kernel.epoch() > self.deps.sessions.epoch() {
            self.deps.sessions.set_epoch(active.kernel.epoch());
        }
        for order in outgoing.orders {
            let host = order.host.clone();
            tracing::info!(%host, order = %order.order, "order sent");
            self.deps.sessions.send(&host, Body::Order(on_the_wire(order)));
        }
        for order in outgoing.cancel {
            active.server.cancel(&order);
        }
        for order in outgoing.server {
            active.server.run(order, &self.handle, &self.deps.stop);
        }
        if let Some(request) = outgoing.look_at_fleet {
            active.server.look_at_fleet(request, &self.handle);
        }
        active
            .server
            .look_at_nodes(active.want_nodes.as_ref(), &self.handle);
    }
}

fn on_the_wire(order: HostOrder) -> wire::Order {
    wire::Order {
        release: Vec::new(),
        order_id: order.order.into(),
        epoch: Some(order.epoch.into()),
        plan_id: order.plan_id.into(),
        plan_entry: order.entry,
        signature: Vec::new(),
        action: wire::Action::from(order.action).into(),
        deadline_for_ms: order.deadline_for_ms,
        start_within_ms: order.start_within_ms,
    }
}
