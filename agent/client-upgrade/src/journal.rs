//! The journal of one order and what to do when the agent finds it unfinished. Intent before, result after.
//!
//! What runs is asked of the process, what is installed of the package database, what was meant of the journal; where they disagree the
//! case has a name ([`Doubt`]).

use crate::procedure::{StepId, next, procedure, way_back};
use fleet_common::ids::Epoch;
use fleet_common::inventory::Method;
use fleet_common::order::{Action, OrderResult};
use serde::{Deserialize, Serialize};

/// One line of the journal.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "record", rename_all = "snake_case")]
pub enum Record {
    /// The order was taken.
    Accepted(JournalOrder),
    /// A step is about to be done.
    Intent {
        /// Which.
        step: StepId,
        /// Unix milliseconds.
        at_ms: u64,
    },
    /// A step ended.
    Result {
        /// Which.
        step: StepId,
        /// Whether it did what it should.
        ok: bool,
        /// Unix milliseconds.
        at_ms: u64,
    },
    /// From here on the way back is taken, because of this.
    GoingBack {
        /// The step that failed.
        step: StepId,
        /// Stable code.
        code: String,
        /// For people.
        message: String,
    },
    /// The order ended.
    Finished(OrderResult),
}

/// What the journal keeps of an order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JournalOrder {
    /// Its id.
    pub order_id: String,
    /// Its epoch.
    pub epoch: Epoch,
    /// The plan it belongs to.
    pub plan_id: String,
    /// What to do.
    pub action: Action,
    /// The plan entry, as text of its stored bytes.
    pub entry: String,
    /// Boot in which it was accepted.
    pub boot_id: String,
    /// Unix milliseconds of the acceptance.
    pub at_ms: u64,
    /// Milliseconds it may take.
    pub deadline_for_ms: u64,
}

/// The journal folded.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Folded {
    /// The order; `None` for an empty journal.
    pub order: Option<JournalOrder>,
    /// A step that was begun and has no result.
    pub open: Option<StepId>,
    /// The last step with a result, and the result.
    pub last: Option<(StepId, bool)>,
    /// Why the way back was taken.
    pub going_back: Option<(StepId, String, String)>,
    /// When the client was stopped.
    pub stopped_at_ms: Option<u64>,
    /// Whether a changing step was ever begun.
    pub changed: bool,
    /// The result.
    pub finished: Option<OrderResult>,
}

/// Reads a journal.
pub fn fold(records: &[Record]) -> Folded {
    let mut state = Folded::default();
    for record in records {
        match record {
            Record::Accepted(order) => {
                state = Folded {
                    order: Some(order.clone()),
                    ..Folded::default()
                }
            }
            Record::Intent { step, at_ms } => {
                state.open = Some(*step);
                state.changed |= step.changes_host();
                if matches!(step, StepId::Stop | StepId::BackStop) && state.stopped_at_ms.is_none() {
                    state.stopped_at_ms = Some(*at_ms);
                }
            }
            Record::Result { step, ok, .. } => {
                state.open = None;
                state.last = Some((*step, *ok));
            }
            Record::GoingBack { step, code, message } => {
                state.open = None;
                state.last = None;
                state.going_back = Some((*step, code.clone(), message.clone()));
            }
            Record::Finished(result) => state.finished = Some(result.clone()),
        }
    }
    state
}

/// State of the transient unit that carries a transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transaction {
    /// No trace of one.
    None,
    /// It runs.
    Running,
    /// It ended and left its result.
    Ended,
}

/// What the package database or the program tree says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnDisk {
    /// The release from before, complete.
    Old,
    /// The new release, complete.
    New,
    /// Neither, or half of one.
    Broken,
}

/// What is seen when the agent comes back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reality {
    /// The transaction of the open step.
    pub transaction: Transaction,
    /// What is installed.
    pub on_disk: OnDisk,
}

/// Journal and host disagree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Doubt {
    /// The journal says the new release was installed, the host has the old one: somebody else was at work.
    InstalledButOld,
    /// The way back ended, but the host has the new release.
    RestoredButNew,
    /// The way back failed before the crash.
    BackFailed,
}

/// How to go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resume {
    /// Nothing is half done. An order that was accepted but changed nothing is answered as expired.
    Nothing,
    /// Do this step again from its beginning.
    Repeat(StepId),
    /// Go on with this step: its transaction is under way or over, or it has not begun yet.
    Continue(StepId),
    /// Take the way back; this step is what failed.
    Undo(StepId),
    /// All steps have results, only the end is missing.
    Finish,
    /// A person must look.
    AskOperator(Doubt),
}

impl Resume {
    /// The word in `HostEvent::Resumed`.
    pub fn word(self) -> &'static str {
        match self {
            Self::Nothing => "nothing",
            Self::Repeat(_) => "repeat",
            Self::Continue(_) | Self::Finish => "continue",
            Self::Undo(_) => "undo",
            Self::AskOperator(_) => "ask_operator",
        }
    }
}

/// Decides how to go on after a crash.
pub fn resume(state: &Folded, reality: Reality) -> Resume {
    let Some(order) = state.order.as_ref().filter(|_| state.finished.is_none()) else {
        return Resume::Nothing;
    };
    let steps = procedure(order.action, None, 0);
    if !order.action.changes_host() {
        return steps
            .first()
            .map_or(Resume::Nothing, |first| Resume::Repeat(first.id));
    }
    if !state.changed && state.going_back.is_none() {
        return Resume::Nothing;
    }
    if let Some(open) = state.open {
        return open_step(open, reality);
    }
    match state.last {
        // Going back was written, no step of the way back was begun.
        None => Resume::Continue(StepId::BackStop),
        Some((step, false)) if step.is_back() => Resume::AskOperator(Doubt::BackFailed),
        Some((step, false)) => Resume::Undo(step),
        Some((step, true)) => after(step, &steps, reality),
    }
}

fn open_step(open: StepId, reality: Reality) -> Resume {
    match (open, reality.transaction, reality.on_disk) {
        (StepId::Install | StepId::BackInstall, Transaction::Running | Transaction::Ended, _) => {
            Resume::Continue(open)
        }
        (StepId::Install, Transaction::None, OnDisk::New)
        | (StepId::BackInstall, Transaction::None, OnDisk::Old) => Resume::Continue(open),
        (StepId::Install, Transaction::None, OnDisk::Broken) => Resume::Undo(open),
        (StepId::Carry | StepId::Start | StepId::Verify, _, OnDisk::Old) => {
            Resume::AskOperator(Doubt::InstalledButOld)
        }
        (StepId::BackRestore | StepId::BackStart | StepId::BackVerify, _, OnDisk::New) => {
            Resume::AskOperator(Doubt::RestoredButNew)
        }
        _ => Resume::Repeat(open),
    }
}

fn after(step: StepId, steps: &[crate::procedure::Step], reality: Reality) -> Resume {
    let list = if step.is_back() {
        way_back(0)
    } else {
        steps.to_vec()
    };
    match next(&list, step) {
        None => Resume::Finish,
        Some(following)
            if following.id > StepId::Install
                && !following.id.is_back()
                && reality.on_disk == OnDisk::Old =>
        {
            Resume::AskOperator(Doubt::InstalledButOld)
        }
        Some(following) => Resume::Continue(following.id),
    }
}

/// The release on disk from what detection found.
pub fn on_disk(
    found: Option<(Method, fleet_common::version::PmmVersion)>,
    before: (Method, fleet_common::version::PmmVersion),
    target: fleet_common::version::PmmVersion,
) -> OnDisk {
    match found {
        Some((method, version)) if method == before.0 && version == target => OnDisk::New,
        Some(found) if found == before => OnDisk::Old,
        _ => OnDisk::Broken,
    }
}

#[cfg(test)]
#[path = "journal_tests.rs"]
mod tests;
