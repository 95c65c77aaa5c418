//! A store that was restored: what agents showed goes to the kernel, and an operator's adoption lets the fleet in again.

use super::dispatcher::Engine;
use super::handle::Answer;
use crate::clock;
use crate::problem::Problem;
use crate::store::ADOPT_HINT;
use fleet_common::hint::chain;
use fleet_common::ids::Epoch;
use rollout::kernel::Input;

impl Engine {
    /// An agent showed something; the store knows what.
    pub(super) async fn store_restored(&mut self) {
        match self.deps.store.restored().await {
            Ok(restored) => self.restored = restored,
            // The agent comes back and shows it again.
            Err(error) => tracing::error!(error = %chain(&error), "what an agent showed can't be read"),
        }
        self.feed_restored();
    }

    /// Tells the kernel how it stands; it knows a repetition.
    pub(super) fn feed_restored(&mut self) {
        if let Some(restored) = &self.restored {
            let text = restored.text();
            self.feed(Input::StoreRestored { text });
        } else if self
            .active
            .as_ref()
            .is_some_and(|active| active.kernel.is_doubted())
        {
            // Adopted while no coordinator ran, or the kernel's part of it was not committed.
            let term = self.deps.term;
            self.feed(Input::StoreAdopted { term });
        }
    }

    pub(super) async fn adopt(&mut self, by: String, answer: Answer<String>) {
        let adopted = match self.deps.store.adopt(by, clock::now_ms()).await {
            Ok(adopted) => adopted,
            Err(error) => {
                let _ = answer.send(Err(error.into()));
                return;
            }
        };
        let Some(term) = adopted else {
            let _ = answer.send(Err(nothing_to_adopt().into()));
            return;
        };
        tracing::warn!(term, "the store was adopted");
        self.deps.term = term;
        let epoch = Epoch { term, counter: 0 };
        self.deps
            .sessions
            .set_epoch(self.deps.sessions.epoch().max(epoch));
        self.restored = None;
        self.feed(Input::StoreAdopted { term });
        self.feed_holds();
        self.feed_connected();
        let next = if self
            .active
            .as_ref()
            .is_some_and(|active| !active.kernel.is_final())
        {
            "; the rollout stays paused until `resume`"
        } else {
            ""
        };
        self.reply(
            answer,
            format!("the store is adopted with term {term}; agents are let in when they come next{next}"),
        );
    }

    /// Nothing begins before the adoption.
    pub(super) fn not_adopted<T>(&self, answer: Answer<T>) {
        let text = self.restored.as_ref().map(crate::store::Restored::text);
        let problem = Problem::new(text.unwrap_or_default()).hint(ADOPT_HINT);
        let _ = answer.send(Err(problem.into()));
    }
}

/// No agent showed anything.
pub fn nothing_to_adopt() -> Problem {
    Problem::new("no agent showed that it has seen more than this store gave; there is nothing to adopt")
        .hint("see `pmm-coordinator status` and `pmm-coordinator host list`")
}
