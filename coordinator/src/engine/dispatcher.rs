//! The engine's task: take a batch, decide, commit, act.

use super::active::{self, Active, Outgoing};
use super::handle::{Answer, Begin, EngineHandle, Message};
use super::intake::{self, Intake, Sequence};
use super::server_leg::Drivers;
use super::survey::{self, SurveyRun};
use crate::agent_api::IncomingEvent;
use crate::clock;
use crate::config;
use crate::problem::{Problem, Problems};
use crate::sessions::{Sessions, goodbye};
use crate::store::{AuditEntry, RolloutCommit, RolloutRow, Store, StoreError};
use fleet_common::codes;
use fleet_common::hint::chain;
use fleet_common::ids::{Epoch, HostId, OrderId, RolloutId};
use fleet_proto as wire;
use fleet_proto::coordinator_message::Body;
use rollout::kernel::{Command, HostOrder, Input, Kernel};
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
    deps.sessions.set_epoch(Epoch { term: deps.term, counter: 0 });
    let mut engine = Engine {
        handle: handle.clone(),
        intake,
        commit: RolloutCommit::default(),
        outgoing: Outgoing::default(),
        replies: Vec::new(),
        restart: BTreeSet::new(),
        connected: BTreeMap::new(),
        active: None,
        stale: true,
        surveys: 0,
        survey: None,
        changed,
        deps,
    };
    engine.reload().await;
    let task = tokio::spawn(engine.run(messages));
    Ok((handle, task))
}

/// Told after the commit whether it held.
type Reply = Box<dyn FnOnce(Result<(), Problems>) + Send>;

struct Engine {
    deps: Deps,
    handle: EngineHandle,
    intake: Intake,
    commit: RolloutCommit,
    outgoing: Outgoing,
    replies: Vec<Reply>,
    /// Hosts whose session must start over.
    restart: BTreeSet<HostId>,
    connected: BTreeMap<HostId, Link>,
    active: Option<Active>,
    /// Memory does not agree with the store; it is read back before anything else.
    stale: bool,
    surveys: u64,
    survey: Option<SurveyRun>,
    changed: watch::Sender<u64>,
}

struct Link {
    session: u64,
    running: Option<OrderId>,
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
            self.settle().await;
        }
    }

    async fn take(&mut self, message: Message) {
        match message {
            Message::Event(event) => self.event(&event),
            Message::Connected { host, session, running } => {
                self.connected.insert(host.clone(), Link { session, running: running.clone() });
                self.survey_order(&host);
                self.feed(Input::Connected { host, running_order: running });
            }
            Message::Disconnected { host, session } => {
                if self.connected.get(&host).is_some_and(|link| link.session == session) {
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
            Message::View(view) => {
                if let Some(active) = &mut self.active {
                    active.server.looked(&view);
                }
                if let Ok(snapshot) = view {
                    self.feed(Input::ServerView(snapshot));
                }
            }
            Message::Begin(begin, answer) => {
                // One commit belongs to one rollout: what belongs to the last one goes first.
                self.settle().await;
                self.begin(*begin, answer);
            }
            Message::Command { by, command, optional, answer } => self.command(by, command, optional, answer),
            Message::Survey(orders, answer) => {
                if self.active.as_ref().is_some_and(|active| !active.kernel.is_final()) {
                    let problem = Problem::new("a rollout is under way; its first leg is the survey").hint("see `pmm-coordinator status`");
                    let _ = answer.send(Err(problem.into()));
                    return;
                }
                if let Some(older) = self.survey.take() {
                    older.end();
                }
                self.surveys += 1;
                // Unique over restarts, so that an old answer is never taken for a new one.
                let id = clock::now_ms().saturating_mul(100).saturating_add(self.surveys % 100);
                let run = SurveyRun::new(id, orders, answer);
                let hosts = run.hosts();
                self.survey = Some(run);
                for host in hosts {
                    self.survey_order(&host);
                }
            }
            Message::Ask(question) => question(self.active.as_ref().map(|active| &active.kernel), clock::now_ms()),
        }
    }

    /// Without memory that agrees with the store nothing is taken in: an event that is acknowledged must have been decided upon.
    fn refuse(&mut self, message: Message) {
        let problem = || Problem::new("the coordinator's store can't be read").hint("run `pmm-coordinator doctor`");
        match message {
            Message::Event(event) => {
                let message = goodbye(codes::INTERNAL, "the coordinator's store refused; try again later", 5_000, false);
                self.deps.sessions.dismiss(&event.host, message);
            }
            Message::Connected { host, session, running } => {
                self.connected.insert(host, Link { session, running });
            }
            Message::Disconnected { host, session } => {
                if self.connected.get(&host).is_some_and(|link| link.session == session) {
                    self.connected.remove(&host);
                }
            }
            // Both come again: the order is given once more after the reload.
            Message::Server { .. } => {}
            Message::ServerEnded(order) => {
                if let Some(active) = &mut self.active {
                    active.server.ended(&order, &self.handle, &self.deps.stop);
                }
            }
            Message::View(view) => {
                if let Some(active) = &mut self.active {
                    active.server.looked(&view);
                }
            }
            Message::Begin(_, answer) | Message::Command { answer, .. } => {
                let _ = answer.send(Err(problem().into()));
            }
            Message::Survey(_, answer) => {
                let _ = answer.send(Err(problem().into()));
            }
            Message::Ask(question) => question(None, clock::now_ms()),
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
        let followed = self.survey.as_mut().map(|survey| survey.take(event)).unwrap_or_default();
        if let Some(survey) = followed.survey.or_else(|| survey::late_survey(event)) {
            let document = serde_json::to_vec(&survey).unwrap_or_default();
            self.commit.surveys.push((event.host.clone(), document, now_ms));
        }
        if followed.next {
            self.survey_order(&event.host);
        }
        self.feed(Input::Host {
            host: event.host.clone(),
            order_id: event.order.clone().unwrap_or_else(|| OrderId::new("")),
            epoch: event.epoch,
            event: understood,
        });
    }

    /// Gives the rollout's kernel one input, if there is a rollout.
    fn feed(&mut self, input: Input) -> Option<Result<rollout::kernel::Accepted, rollout::kernel::Refusal>> {
        self.active.as_mut()?.feed(input, &mut self.commit, &mut self.outgoing)
    }

    fn begin(&mut self, begin: Begin, answer: Answer<String>) {
        if self.stale {
            let _ = answer.send(Err(Problem::new("the coordinator's store refused").hint("run `pmm-coordinator doctor`").into()));
            return;
        }
        if self.active.as_ref().is_some_and(|active| !active.kernel.is_final()) {
            let problem = Problem::new("a rollout is under way; only one can be").hint("see `pmm-coordinator status`; `abort` ends it");
            let _ = answer.send(Err(problem.into()));
            return;
        }
        let now_ms = clock::now_ms();
        let rollout = RolloutId::new(format!("rollout-{now_ms:012x}"));
        let last = self.deps.sessions.epoch();
        let epoch = Epoch { term: self.deps.term.max(last.term), counter: last.counter + 1 };
        let kernel = match Kernel::new(rollout.clone(), &begin.plan.document, epoch, now_ms) {
            Ok(kernel) => kernel,
            Err(error) => {
                let _ = answer.send(Err(Problem::because("the plan can't be carried out", &error).into()));
                return;
            }
        };
        let mut active = Active::new(kernel, begin.driver);
        let (mut commit, mut outgoing) = (RolloutCommit::default(), Outgoing::default());
        let command = Command::Start { accept_unmatched: begin.accept_unmatched };
        let input = Input::Operator { by: begin.by.clone(), command };
        let text = match active.feed(input, &mut commit, &mut outgoing) {
            Some(Ok(accepted)) => accepted.text,
            Some(Err(refused)) => {
                let _ = answer.send(Err(active::refusal(refused).into()));
                return;
            }
            None => format!("{rollout} started"),
        };
        commit.begin = Some(RolloutRow {
            rollout: rollout.clone(),
            plan: begin.plan.plan.clone(),
            started_at_ms: now_ms,
            finished_at_ms: None,
        });
        commit.audit.push(AuditEntry {
            at_ms: now_ms,
            who: begin.by,
            what: "start".to_owned(),
            detail: format!("{rollout} of {}", begin.plan.plan),
        });
        self.commit = commit;
        self.outgoing = outgoing;
        self.active = Some(active);
        let connected: Vec<(HostId, Option<OrderId>)> =
            self.connected.iter().map(|(host, link)| (host.clone(), link.running.clone())).collect();
        for (host, running_order) in connected {
            self.feed(Input::Connected { host, running_order });
        }
        self.reply(answer, text);
    }

    fn command(&mut self, by: String, command: Command, optional: bool, answer: Answer<String>) {
        let active = self.active.as_ref().is_some_and(|active| !active.kernel.is_final());
        // A retry may reopen a rollout that ended with exceptions; the kernel decides.
        let reopens = self.active.is_some() && matches!(command, Command::Retry { .. });
        if !active && !reopens {
            let result = if optional {
                Ok(String::new())
            } else {
                Err(Problem::new("no rollout is under way").hint("`pmm-coordinator plan -f fleet.toml`, then `start`").into())
            };
            let _ = answer.send(result);
            return;
        }
        let what = format!("{command:?}");
        match self.feed(Input::Operator { by: by.clone(), command }) {
            Some(Ok(accepted)) => {
                let entry = AuditEntry { at_ms: clock::now_ms(), who: by, what: "command".to_owned(), detail: what };
                self.commit.audit.push(entry);
                self.reply(answer, accepted.text);
            }
            Some(Err(_)) | None if optional => self.reply(answer, String::new()),
            Some(Err(refused)) => {
                let _ = answer.send(Err(active::refusal(refused).into()));
            }
            None => self.reply(answer, "done".to_owned()),
        }
    }

    /// Answers after the commit.
    fn reply<T: Send + 'static>(&mut self, answer: Answer<T>, value: T) {
        self.replies.push(Box::new(move |committed| {
            // The operator may have left.
            let _ = answer.send(committed.map(|()| value));
        }));
    }

    fn survey_order(&mut self, host: &HostId) {
        let epoch = self.deps.sessions.epoch();
        if let Some(order) = self.survey.as_ref().and_then(|survey| survey.order(host, epoch)) {
            self.deps.sessions.send(host, Body::Order(order));
        }
    }

    fn end_survey(&mut self) {
        if self.survey.as_ref().is_some_and(|survey| survey.is_over(clock::now_ms()))
            && let Some(survey) = self.survey.take()
        {
            // Its last results are in the commit that is due, and the answer must come after it.
            self.replies.push(Box::new(move |_| survey.end()));
        }
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
            self.stale = true;
            for (host, _) in due.into_keys() {
                let message = goodbye(codes::INTERNAL, "the coordinator's store refused; try again later", 5_000, false);
                self.deps.sessions.dismiss(&host, message);
            }
            return;
        }
        for ((host, outbox), sequence) in due {
            self.deps.sessions.send(&host, Body::Ack(wire::Ack { outbox_id: outbox.0, sequence }));
        }
        for host in std::mem::take(&mut self.restart) {
            self.deps.sessions.dismiss(&host, goodbye("gap", "an event number is missing; start over", 0, false));
        }
        self.act(outgoing);
        for reply in replies {
            reply(Ok(()));
        }
        if changed {
            self.changed.send_modify(|number| *number = number.wrapping_add(1));
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
        active.server.look(active.want_view, &self.handle);
    }

    /// Reads memory back from the store: at the start, and after a commit that failed.
    async fn reload(&mut self) {
        match self.deps.store.cursors().await {
            Ok(cursors) => self.intake = Intake::new(cursors),
            Err(error) => {
                tracing::error!(error = %chain(&error), "the store can't be read back; trying again");
                return;
            }
        }
        let loaded = match Active::load(&self.deps.store, self.deps.drivers.as_ref()).await {
            Ok(loaded) => loaded,
            Err(error) => {
                tracing::error!(error = %chain(&error), "the rollout can't be taken up; trying again");
                return;
            }
        };
        self.stale = false;
        let old = std::mem::replace(&mut self.active, loaded);
        if let (Some(old), Some(new)) = (old, &mut self.active) {
            // A hop that is under way goes on; its task reports to us all the same.
            new.server.inherit(old.server);
        }
        let Some(active) = &self.active else {
            return;
        };
        tracing::info!(rollout = %active.kernel.rollout_id(), term = self.deps.term, "taking up the rollout");
        let term = self.deps.term.max(active.kernel.epoch().term + 1);
        self.feed(Input::CoordinatorStarted { term });
        let connected: Vec<(HostId, Option<OrderId>)> =
            self.connected.iter().map(|(host, link)| (host.clone(), link.running.clone())).collect();
        for (host, running_order) in connected {
            self.feed(Input::Connected { host, running_order });
        }
    }
}

fn on_the_wire(order: HostOrder) -> wire::Order {
    wire::Order {
        order_id: order.order.0,
        epoch: Some(order.epoch.into()),
        plan_id: order.plan_id.0,
        plan_entry: order.entry,
        signature: Vec::new(),
        action: wire::Action::from(order.action).into(),
        deadline_for_ms: order.deadline_for_ms,
        start_within_ms: order.start_within_ms,
    }
}
