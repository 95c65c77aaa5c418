//! The journal of one hop: what its lines mean, and what comes next after a crash.
//!
//! Before anything is done its intent is in the journal, afterwards its result. A step that has an intent and no result may have happened,
//! may have happened in part, or not at all; so every step first looks at what is there, and doing it again is always safe.

use crate::names::Phase;
use crate::steps::{Step, StepId, Undo, undo_steps};
use fleet_common::server::{HopResult, ServerOrder};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;

/// One line.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "line", rename_all = "snake_case")]
pub enum Line {
    /// The first line.
    Opened {
        /// The order.
        order: ServerOrder,
        /// Unix milliseconds.
        at_ms: u64,
    },
    /// A step begins.
    Intent {
        /// The step.
        step: String,
        /// Unix milliseconds.
        at_ms: u64,
    },
    /// A step ended well.
    Done {
        /// The step.
        step: String,
        /// Unix milliseconds.
        at_ms: u64,
        /// Milliseconds of this attempt.
        took_ms: u64,
    },
    /// Something that later steps need. The last one of a name counts.
    Note {
        /// Name.
        key: String,
        /// Value; never a secret.
        value: Value,
    },
    /// The driver came back.
    Resumed {
        /// The step that was open.
        step: String,
        /// Unix milliseconds.
        at_ms: u64,
    },
    /// The hop can't be finished; from here on only the way back is gone.
    Failing(Failure),
    /// The last line.
    Finished {
        /// How it ended.
        result: HopResult,
        /// Unix milliseconds.
        at_ms: u64,
    },
}

/// Why a hop is given up.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// The step that failed.
    pub step: String,
    /// One of `fleet_common::codes`.
    pub code: String,
    /// What happened.
    pub message: String,
    /// What to do next.
    pub hints: Vec<String>,
    /// Unix milliseconds.
    pub at_ms: u64,
}

/// What a journal says.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Replay {
    /// The order.
    pub order: Option<ServerOrder>,
    /// Unix milliseconds of the first line.
    pub opened_at_ms: u64,
    /// Steps with a result, and milliseconds.
    pub done: BTreeMap<String, u64>,
    /// How often each step was begun.
    pub attempts: BTreeMap<String, u32>,
    /// Steps in the order in which they were first begun.
    pub begun: Vec<String>,
    /// The step that has an intent and no result.
    pub open: Option<String>,
    /// What later steps need.
    pub notes: BTreeMap<String, Value>,
    /// Resumptions.
    pub resumed: Vec<(String, u64)>,
    /// The failure.
    pub failure: Option<Failure>,
    /// The end.
    pub finished: Option<HopResult>,
}

impl Replay {
    /// Reads all lines in order.
    pub fn of<'a>(lines: impl IntoIterator<Item = &'a Line>) -> Self {
        let mut replay = Self::default();
        for line in lines {
            replay.apply(line);
        }
        replay
    }

    /// Takes one more line.
    pub fn apply(&mut self, line: &Line) {
        match line {
            Line::Opened { order, at_ms } => {
                self.order = Some(order.clone());
                self.opened_at_ms = *at_ms;
            }
            Line::Intent { step, .. } => {
                *self.attempts.entry(step.clone()).or_default() += 1;
                if !self.begun.contains(step) {
                    self.begun.push(step.clone());
                }
                self.open = Some(step.clone());
            }
            Line::Done { step, took_ms, .. } => {
                self.done.insert(step.clone(), *took_ms);
                if self.open.as_ref() == Some(step) {
                    self.open = None;
                }
            }
            Line::Note { key, value } => {
                self.notes.insert(key.clone(), value.clone());
            }
            Line::Resumed { step, at_ms } => self.resumed.push((step.clone(), *at_ms)),
            Line::Failing(failure) => {
                if self.failure.is_none() {
                    self.failure = Some(failure.clone());
                }
                self.open = None;
            }
            Line::Finished { result, .. } => self.finished = Some(result.clone()),
        }
    }

    /// Whether this step was ever begun.
    pub fn was_begun(&self, step: StepId) -> bool {
        self.attempts.contains_key(&step.name())
    }

    /// Whether this step is done and nothing is being taken back.
    pub fn is_past(&self, step: StepId) -> bool {
        self.failure.is_none() && self.done.contains_key(&step.name())
    }

    /// What becomes of this hop when it must end now, because a newer order took over or a person gave it up.
    pub fn takeover(&self, steps: &[StepId]) -> Takeover {
        if self.failure.is_some() || self.finished.is_some() {
            return Takeover::GoOnBack;
        }
        let publish = StepId {
            phase: Phase::Main,
            step: Step::Publish,
        };
        if self.is_past(publish) {
            return Takeover::Keep;
        }
        // Clients may deliver already: what they sent would be lost.
        if self.was_begun(publish) {
            return Takeover::Forward(publish);
        }
        // The release that was only put onto its own image serves clients too, between the two phases.
        let rehomed = StepId {
            phase: Phase::Rehome,
            step: Step::Publish,
        };
        if steps.contains(&rehomed) && self.was_begun(rehomed) && !self.is_past(rehomed) {
            return Takeover::Forward(rehomed);
        }
        let kept = self.is_past(rehomed);
        let next = steps
            .iter()
            .filter(|step| !kept || step.phase == Phase::Main)
            .find(|step| !self.done.contains_key(&step.name()));
        Takeover::GiveUp(next.map(|step| step.name()).unwrap_or_default())
    }

    /// What comes next.
    pub fn next(&self, steps: &[StepId]) -> Next {
        if let Some(result) = &self.finished {
            return Next::Answer(Box::new(result.clone()));
        }
        if let Some(failure) = &self.failure {
            let phase = phase_of(&failure.step);
            let back = undo_steps(|step: Step| self.was_begun(StepId { phase, step }));
            return match back.into_iter().find(|undo| !self.done.contains_key(undo.name())) {
                Some(undo) => Next::Undo(undo, phase),
                None => Next::GaveUp(phase),
            };
        }
        match steps.iter().find(|step| !self.done.contains_key(&step.name())) {
            Some(step) => Next::Step(*step),
            None => Next::Settled,
        }
    }
}

/// How a hop ends before its time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Takeover {
    /// The new release serves its clients: it stays.
    Keep,
    /// This step is finished first.
    Forward(StepId),
    /// The way back is gone, as if this step had failed. Where nothing was touched, there is nothing to undo.
    GiveUp(String),
    /// It is on its way back, or over.
    GoOnBack,
}

/// What comes next.
#[derive(Clone, Debug, PartialEq)]
pub enum Next {
    /// This step, forward.
    Step(StepId),
    /// This step of the way back, of this phase.
    Undo(Undo, Phase),
    /// Everything forward is done.
    Settled,
    /// The way back from this phase is done.
    GaveUp(Phase),
    /// It ended long ago: the stored answer.
    Answer(Box<HopResult>),
}

/// The phase that a step's name belongs to.
pub fn phase_of(step: &str) -> Phase {
    if step.starts_with(Phase::Rehome.prefix()) {
        Phase::Rehome
    } else {
        Phase::Main
    }
}

#[cfg(test)]
#[path = "journal_tests.rs"]
mod tests;
