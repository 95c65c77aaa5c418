//! What operators want: begin, command, survey. Answers leave after the commit.

use super::active::{self, Active, Outgoing};
use super::dispatcher::{Engine, Link};
use super::handle::{Answer, Begin, Message, SurveyOrders};
use super::holds::untold;
use super::survey::SurveyRun;
use crate::clock;
use crate::plan_choice;
use crate::problem::Problem;
use crate::sessions::goodbye;
use crate::store::{AuditEntry, PlanRow, RolloutCommit, RolloutRow};
use fleet_common::codes;
use fleet_common::ids::{Epoch, HostId, RolloutId};
use fleet_proto::coordinator_message::Body;
use rollout::kernel::{Command, Input, Kernel};

impl Engine {
    pub(super) fn begin(&mut self, begin: Begin, answer: Answer<String>) {
        if self.stale {
            let _ = answer.send(Err(Problem::new("the coordinator's store refused")
                .hint("run `pmm-coordinator doctor`")
                .into()));
            return;
        }
        if let Some(running) = self.active.as_ref().filter(|active| !active.kernel.is_final()) {
            let problem = plan_choice::under_way(running.kernel.plan_id(), &begin.plan);
            let _ = answer.send(Err(problem.into()));
            return;
        }
        let now_ms = clock::now_ms();
        let rollout = RolloutId::new(format!("rollout-{now_ms:012x}"));
        let last = self.deps.sessions.epoch();
        let epoch = Epoch {
            term: self.deps.term.max(last.term),
            counter: last.counter + 1,
        };
        let kernel = match Kernel::new(rollout.clone(), &begin.plan.document, epoch, now_ms) {
            Ok(kernel) => kernel,
            Err(error) => {
                let _ = answer.send(Err(
                    Problem::because("the plan can't be carried out", &error).into()
                ));
                return;
            }
        };
        let untold = untold(&kernel, &self.holds);
        let mut active = Active::new(kernel, begin.driver);
        let (mut commit, mut outgoing) = (RolloutCommit::default(), Outgoing::default());
        for input in untold {
            // One that is refused changes nothing: a host is held on its own machine as well.
            let _ = active.feed(input, &mut commit, &mut outgoing);
        }
        let command = Command::Start {
            accept_unmatched: begin.accept_unmatched,
        };
        let input = Input::Operator {
            by: begin.by.clone(),
            command,
        };
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
        if let Some(last) = self.active.replace(active) {
            last.server.release();
        }
        self.feed_connected();
        self.reply(answer, text);
    }

    pub(super) fn command(&mut self, by: String, command: Command, optional: bool, answer: Answer<String>) {
        let active = self
            .active
            .as_ref()
            .is_some_and(|active| !active.kernel.is_final());
        self.remember_hold(&command);
        // A retry may reopen a rollout that ended with exceptions; the kernel decides. A host that is held then does not begin.
        let concerns_ended = matches!(
            command,
            Command::Retry { .. } | Command::Hold { .. } | Command::Unhold { .. }
        );
        if !active && (!concerns_ended || self.active.is_none()) {
            let result = if optional {
                Ok(String::new())
            } else {
                Err(plan_choice::none_under_way().into())
            };
            let _ = answer.send(result);
            return;
        }
        let what = command.to_string();
        match self.feed(Input::Operator {
            by: by.clone(),
            command,
        }) {
            Some(Ok(accepted)) => {
                let entry = AuditEntry {
                    at_ms: clock::now_ms(),
                    who: by,
                    what: "command".to_owned(),
                    detail: what,
                };
                self.commit.audit.push(entry);
                self.reply(answer, accepted.text);
            }
            // A host that is not part of the rollout is no error here.
            Some(Err(refused)) if optional && refused.code == "unknown_host" => {
                self.reply(answer, String::new())
            }
            Some(Err(refused)) => {
                let _ = answer.send(Err(active::refusal(refused).into()));
            }
            None => self.reply(answer, "done".to_owned()),
        }
    }

    pub(super) fn adopt_plan(&mut self, by: String, plan: PlanRow, answer: Answer<String>) {
        if self.active.is_none() {
            let problem =
                Problem::new("no rollout is under way that a plan could take over").hint("`start` the plan");
            let _ = answer.send(Err(problem.into()));
            return;
        }
        let input = Input::Adopt {
            by: by.clone(),
            bytes: plan.document,
        };
        match self.feed(input) {
            Some(Err(refused)) => {
                let _ = answer.send(Err(active::refusal(refused).into()));
            }
            accepted => {
                self.commit.audit.push(AuditEntry {
                    at_ms: clock::now_ms(),
                    who: by,
                    what: "adopt".to_owned(),
                    detail: plan.plan.to_string(),
                });
                // Hosts that came late are connected already, and one may be held since the plan was made.
                self.feed_holds();
                self.feed_connected();
                let text = accepted.and_then(Result::ok).map(|done| done.text);
                self.reply(answer, text.unwrap_or_default());
            }
        }
    }

    /// Answers after the commit.
    pub(super) fn reply<T: Send + 'static>(&mut self, answer: Answer<T>, value: T) {
        self.replies.push(Box::new(move |committed| {
            // The operator may have left.
            let _ = answer.send(committed.map(|()| value));
        }));
    }

    /// The next order of the survey under way to a host.
    pub(super) fn survey_order(&mut self, host: &HostId) {
        if let Some(errand) = self.survey.as_ref().and_then(|survey| survey.errand(host)) {
            self.errands.give(errand);
            self.send_errands(host);
        }
    }

    /// Sends a host what it should be working on outside of the rollout; what it has already it does not take twice.
    pub(super) fn send_errands(&self, host: &HostId) {
        let epoch = self.deps.sessions.epoch();
        for order in self.errands.orders(host, epoch, clock::now_ms()) {
            self.deps.sessions.send(host, Body::Order(order));
        }
    }

    pub(super) fn end_survey(&mut self) {
        if self
            .survey
            .as_ref()
            .is_some_and(|survey| survey.is_over(clock::now_ms()))
            && let Some(survey) = self.survey.take()
        {
            self.errands.drop_plan(survey.id());
            // Its last results are in the commit that is due, and the answer must come after it.
            self.replies.push(Box::new(move |_| survey.end()));
        }
    }

    /// Without memory that agrees with the store nothing is taken in: an event that is acknowledged must have been decided upon.
    pub(super) fn refuse(&mut self, message: Message) {
        let problem = || Problem {
            because: vec![self.trouble.clone()],
            ..Problem::new("the coordinator can't take up its state from the store; it keeps trying")
                .hint("run `pmm-coordinator doctor`; the coordinator's log says more")
        };
        match message {
            Message::Event(event) => {
                let message = goodbye(
                    codes::INTERNAL,
                    "the coordinator's store refused; try again later",
                    5_000,
                    false,
                );
                self.deps.sessions.dismiss(&event.host, message);
            }
            Message::Connected {
                host,
                session,
                running,
            } => {
                self.connected.insert(host, Link { session, running });
            }
            Message::Disconnected { host, session } => {
                if self
                    .connected
                    .get(&host)
                    .is_some_and(|link| link.session == session)
                {
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
            Message::View { at_fleet, view } => {
                if let Some(active) = &mut self.active {
                    active.server.looked(at_fleet, &view);
                }
            }
            // In the store already; it is read back with everything else.
            Message::StoreRestored | Message::HostRuns(..) => {}
            Message::Begin(_, answer)
            | Message::Command { answer, .. }
            | Message::AdoptPlan(_, _, answer)
            | Message::Adopt(_, answer) => {
                let _ = answer.send(Err(problem().into()));
            }
            Message::Survey(_, answer) => {
                let _ = answer.send(Err(problem().into()));
            }
            Message::HostAction(_, answer) => {
                let _ = answer.send(Err(problem().into()));
            }
            Message::Ask(question) => question(Err(problem().into()), clock::now_ms()),
        }
    }

    pub(super) fn begin_survey(&mut self, orders: SurveyOrders, answer: Answer<()>) {
        if self
            .active
            .as_ref()
            .is_some_and(|active| !active.kernel.is_final())
        {
            let problem = Problem::new("a rollout is under way; its first leg is the survey")
                .hint("see `pmm-coordinator status`");
            let _ = answer.send(Err(problem.into()));
            return;
        }
        if let Some(older) = self.survey.take() {
            self.errands.drop_plan(older.id());
            older.end();
        }
        self.surveys += 1;
        // Unique over restarts, so that an old answer is never taken for a new one.
        let id = clock::now_ms()
            .saturating_mul(100)
            .saturating_add(self.surveys % 100);
        let run = SurveyRun::new(id, orders, answer);
        let hosts = run.hosts();
        self.survey = Some(run);
        for host in hosts {
            self.survey_order(&host);
        }
    }
}
