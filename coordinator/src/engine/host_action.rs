//! What an operator asks of one host outside of a rollout. The audit line is committed before the order leaves, the result's before the
//! operator hears of it.

use super::dispatcher::Engine;
use super::errand::Errand;
use super::handle::{Answer, HostAction};
use crate::clock;
use crate::problem::{Problem, Problems};
use crate::store::AuditEntry;
use fleet_common::ids::HostId;
use fleet_common::order::{Action, OrderResult};

/// How long a host may take to begin: the order waits for nothing but the agent's own queue.
const START_WITHIN_MS: u64 = 30_000;

/// An operator who waits.
pub(super) struct Asked {
    name: String,
    action: Action,
    answer: Answer<OrderResult>,
    /// The audit line is in the store and the order has left.
    sent: bool,
}

impl Engine {
    pub(super) fn begin_host_action(&mut self, wish: HostAction, answer: Answer<OrderResult>) {
        if let Some(problem) = self.not_now(&wish) {
            let _ = answer.send(Err(problem.into()));
            return;
        }
        let now_ms = clock::now_ms();
        self.asked_so_far += 1;
        let order_id = format!(
            "host-{:x}/{}/{}",
            now_ms
                .saturating_mul(1000)
                .saturating_add(self.asked_so_far % 1000),
            wish.host,
            wish.action.as_str()
        );
        self.commit.audit.push(AuditEntry {
            at_ms: now_ms,
            who: wish.by,
            what: format!("host {}", wish.action.as_str()),
            detail: format!("{} ({}): {order_id}", wish.name, wish.host),
        });
        self.errands.give(Errand {
            host: wish.host,
            order_id: order_id.clone(),
            plan_id: order_id.clone(),
            action: wish.action,
            entry: wish.entry,
            release: wish.release,
            deadline_for_ms: wish.wait_for_ms,
            start_within_ms: if wish.action.changes_host() {
                START_WITHIN_MS
            } else {
                0
            },
            until_ms: now_ms.saturating_add(wish.wait_for_ms),
        });
        self.asked.insert(
            order_id,
            Asked {
                name: wish.name,
                action: wish.action,
                answer,
                sent: false,
            },
        );
    }

    /// Why the host can't be asked at this moment.
    fn not_now(&self, wish: &HostAction) -> Option<Problem> {
        if !self.connected.contains_key(&wish.host) {
            return Some(Problem::new(format!("{} is not connected", wish.name)).hint(
                "`systemctl status pmm-upgrade-agent` on the host says why; then give the command again",
            ));
        }
        if self.is_in_flight(&wish.host) {
            return Some(
                Problem::new(format!("{} is at work for the rollout", wish.name)).hint(format!(
                    "`pmm-coordinator explain {}` shows at what; wait until it has ended",
                    wish.name
                )),
            );
        }
        None
    }

    fn is_in_flight(&self, host: &HostId) -> bool {
        let Some(active) = self.active.as_ref().filter(|active| !active.kernel.is_final()) else {
            return false;
        };
        active.kernel.legs().iter().any(|leg| {
            active
                .kernel
                .host(&leg.leg, host)
                .is_some_and(|row| row.in_flight() || row.order.is_some())
        })
    }

    /// The result of an errand that an operator waits for.
    pub(super) fn host_action_ended(&mut self, errand: &Errand, result: OrderResult) {
        let Some(asked) = self.asked.remove(&errand.order_id) else {
            return;
        };
        self.commit.audit.push(AuditEntry {
            at_ms: clock::now_ms(),
            who: format!("host {}", errand.host),
            what: format!("host {} ended", asked.action.as_str()),
            detail: format!(
                "{} {:?} {} {}: {}",
                asked.name, result.outcome, result.code, result.message, errand.order_id
            ),
        });
        self.reply(asked.answer, result);
    }

    /// Errands whose time is over. The agent goes on with what it has begun, and its result is kept like every event.
    pub(super) fn give_up_errands(&mut self) {
        for errand in self.errands.expire(clock::now_ms()) {
            if let Some(asked) = self.asked.remove(&errand.order_id) {
                let problem = Problem::new(format!(
                    "{} gave no result of {} in its time",
                    asked.name,
                    asked.action.as_str()
                ))
                .hint("the host goes on if it has the order; `pmm-upgrade-agent status` there shows it")
                .hint("--wait gives it longer");
                let _ = asked.answer.send(Err(problem.into()));
            }
        }
    }

    /// After the commit: what was asked in it leaves.
    pub(super) fn send_asked(&mut self) {
        let mut new = Vec::new();
        for (id, asked) in &mut self.asked {
            if !std::mem::replace(&mut asked.sent, true) {
                new.push(id.clone());
            }
        }
        for id in new {
            if let Some(host) = self.errands.host_of(&id) {
                tracing::info!(%host, order = %id, "order sent");
                self.send_errands(&host);
            }
        }
    }

    /// After a commit that failed: what was asked in it never leaves.
    pub(super) fn drop_asked(&mut self, problem: &Problems) {
        let new: Vec<String> = self
            .asked
            .iter()
            .filter(|(_, asked)| !asked.sent)
            .map(|(id, _)| id.clone())
            .collect();
        for id in new {
            self.errands.drop_plan(&id);
            if let Some(asked) = self.asked.remove(&id) {
                let _ = asked.answer.send(Err(problem.clone()));
            }
        }
    }
}
