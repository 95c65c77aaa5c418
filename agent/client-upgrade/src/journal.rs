//! The journal of one order and what to do when the agent finds it unfinished. Intent before, result after.
//!
//! What runs is asked of the process, what is installed of the package database, what was meant of the journal; where they disagree the
//! case has a name ([`Doubt`]).

use crate::client_change;
use crate::order_clock::{Moment, Reading, stretch_ms};
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
        /// Milliseconds of the order that had passed.
        #[serde(default)]
        spent_ms: u64,
    },
    /// A step ended.
    Result {
        /// Which.
        step: StepId,
        /// Whether it did what it should.
        ok: bool,
        /// Unix milliseconds.
        at_ms: u64,
        /// Milliseconds of the order that had passed.
        #[serde(default)]
        spent_ms: u64,
    },
    /// The agent came back and goes on, perhaps in another boot.
    Resumed {
        /// When.
        at: Reading,
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
    /// Milliseconds since that boot.
    #[serde(default)]
    pub boot_ms: u64,
    /// Milliseconds it may take.
    pub deadline_for_ms: u64,
    /// For `self_update` the release, as text of the order's bytes.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub release: String,
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
    /// When the client was stopped, and the Unix milliseconds of that.
    pub stopped: Option<(Moment, u64)>,
    /// Where the order's time is counted from: its acceptance, or the last time the agent came back.
    pub anchor: Moment,
    /// The most time that a record states as spent.
    pub recorded_ms: u64,
    /// The host was rebooted, and neither a stop nor a start was begun since: what runs is what systemd started.
    pub reboot_unanswered: bool,
    /// Whether a changing step was ever begun.
    pub changed: bool,
    /// The result.
    pub finished: Option<OrderResult>,
}

/// Steps after which it no longer matters what systemd started at boot.
const ANSWERS_A_REBOOT: [StepId; 4] = [StepId::Stop, StepId::Start, StepId::BackStop, StepId::BackStart];

impl Folded {
    /// Milliseconds of the order that have passed.
    pub fn spent_ms(&self, now: &Reading) -> u64 {
        self.anchor.spent_ms(now, self.recorded_ms)
    }

    /// Milliseconds since the client was stopped; 0 when it was not.
    pub fn client_gap_ms(&self, now: &Reading, now_wall_ms: u64) -> u64 {
        let here = Moment {
            reading: now.clone(),
            spent_ms: self.spent_ms(now),
        };
        self.stopped.as_ref().map_or(0, |(stopped, wall_ms)| {
            stretch_ms(stopped, *wall_ms, &here, now_wall_ms)
        })
    }

    /// Whether the host was rebooted since the journal last knew what runs.
    pub fn rebooted(&self, now: &Reading) -> bool {
        self.reboot_unanswered || !self.anchor.reading.same_boot(now)
    }

    /// Whether the order is on its way back.
    pub fn is_back(&self) -> bool {
        let by_order = self
            .order
            .as_ref()
            .is_some_and(|order| order.action == Action::Rollback);
        let by_step = self.open.or(self.last.map(|(step, _)| step));
        by_order || self.going_back.is_some() || by_step.is_some_and(StepId::is_back)
    }
}

/// Reads a journal.
pub fn fold(records: &[Record]) -> Folded {
    let mut state = Folded::default();
    for record in records {
        match record {
            Record::Accepted(order) => {
                state = Folded {
                    order: Some(order.clone()),
                    anchor: Moment {
                        reading: Reading {
                            boot_id: order.boot_id.clone(),
                            boot_ms: order.boot_ms,
                        },
                        spent_ms: 0,
                    },
                    ..Folded::default()
                }
            }
            Record::Intent {
                step,
                at_ms,
                spent_ms,
            } => {
                state.open = Some(*step);
                state.changed |= step.changes_host();
                state.recorded_ms = state.recorded_ms.max(*spent_ms);
                if matches!(step, StepId::Stop | StepId::BackStop) && state.stopped.is_none() {
                    let moment = Moment {
                        reading: state.anchor.reading.clone(),
                        spent_ms: *spent_ms,
                    };
                    state.stopped = Some((moment, *at_ms));
                }
                if ANSWERS_A_REBOOT.contains(step) {
                    state.reboot_unanswered = false;
                }
            }
            Record::Result {
                step, ok, spent_ms, ..
            } => {
                state.open = None;
                state.last = Some((*step, *ok));
                state.recorded_ms = state.recorded_ms.max(*spent_ms);
            }
            Record::Resumed { at } => {
                state.reboot_unanswered |= !state.anchor.reading.same_boot(at);
                state.anchor = Moment {
                    spent_ms: state.spent_ms(at),
                    reading: at.clone(),
                };
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
    /// The one release of both: the new one was on the disk before the order, only the process was old.
    Same,
    /// Neither, or half of one.
    Broken,
}

/// What is seen when the agent comes back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reality {
    /// The transaction of the way that the order is on: the way back's once it is taken, else the installation's.
    pub transaction: Transaction,
    /// What is installed.
    pub on_disk: OnDisk,
    /// Whether the host was rebooted since the journal last knew what runs ([`Folded::rebooted`]): systemd may have started the old client
    /// again, or a half-installed new one, and a client started by hand is gone.
    pub rebooted: bool,
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

/// Decides how to go on after a crash or a reboot.
pub fn resume(state: &Folded, reality: Reality) -> Resume {
    let Some(order) = state.order.as_ref().filter(|_| state.finished.is_none()) else {
        return Resume::Nothing;
    };
    if client_change::handles(order.action) {
        return client_change::resume(state, order.action, reality.rebooted);
    }
    let steps = procedure(order.action, None, 0);
    if !order.action.changes_host() {
        return steps
            .first()
            .map_or(Resume::Nothing, |first| Resume::Repeat(first.id));
    }
    if !state.changed && state.going_back.is_none() {
        return Resume::Nothing;
    }
    // Whatever the journal says: two transactions at once would fight for the package database.
    if reality.transaction == Transaction::Running {
        return Resume::Continue(if state.is_back() {
            StepId::BackInstall
        } else {
            StepId::Install
        });
    }
    let decision = match (state.open, state.last) {
        (Some(open), _) => open_step(open, reality),
        // Going back was written, no step of the way back was begun.
        (None, None) => Resume::Continue(StepId::BackStop),
        (None, Some((step, false))) if step.is_back() => Resume::AskOperator(Doubt::BackFailed),
        (None, Some((step, false))) => Resume::Undo(step),
        (None, Some((step, true))) => after(step, &steps, reality),
    };
    let moves_release = matches!(order.action, Action::Switch | Action::Rollback);
    let decision = if reality.rebooted && moves_release {
        rebooted(decision, state.is_back())
    } else {
        decision
    };
    walkable(decision, state, order.action)
}

/// After a reboot a client may run that was stopped before, and one that was started by hand does not run any more. Steps that rely on either
/// go back to the one that sees to it; carrying over and restoring stop everything themselves.
fn rebooted(decision: Resume, back: bool) -> Resume {
    match decision {
        Resume::Repeat(StepId::Install) | Resume::Continue(StepId::Install) => Resume::Repeat(StepId::Stop),
        Resume::Repeat(StepId::Verify) | Resume::Continue(StepId::Verify) => Resume::Repeat(StepId::Start),
        Resume::Repeat(StepId::BackInstall) | Resume::Continue(StepId::BackInstall) => {
            Resume::Repeat(StepId::BackStop)
        }
        Resume::Repeat(StepId::BackVerify) | Resume::Continue(StepId::BackVerify) => {
            Resume::Repeat(StepId::BackStart)
        }
        Resume::Finish if back => Resume::Repeat(StepId::BackStart),
        Resume::Finish => Resume::Repeat(StepId::Start),
        other => other,
    }
}

/// A journal that names a step which the order does not have after its first change was not written by this release. A switch is undone and a
/// rollback begun anew: both lead to the saved client.
fn walkable(decision: Resume, state: &Folded, action: Action) -> Resume {
    let (Resume::Repeat(step) | Resume::Continue(step)) = decision else {
        return decision;
    };
    match action {
        Action::Switch if state.going_back.is_some() && !step.is_back() => Resume::Continue(StepId::BackStop),
        Action::Switch if !step.changes_host() => Resume::Undo(step),
        Action::Rollback if !step.is_back() => Resume::Continue(StepId::BackStop),
        _ => decision,
    }
}

fn open_step(open: StepId, reality: Reality) -> Resume {
    match (open, reality.transaction, reality.on_disk) {
        (StepId::Install | StepId::BackInstall, Transaction::Running | Transaction::Ended, _) => {
            Resume::Continue(open)
        }
        (StepId::Install, Transaction::None, OnDisk::New)
        | (StepId::BackInstall, Transaction::None, OnDisk::Old) => Resume::Continue(open),
        // The stop is repeated after a reboot, when half of an installation may already be there.
        (StepId::Stop | StepId::Install, Transaction::None, OnDisk::Broken) => Resume::Undo(open),
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
        Some(following) if following.id == StepId::Install && reality.on_disk == OnDisk::Broken => {
            open_step(following.id, reality)
        }
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
        Some(found) if found == before && found.1 == target => OnDisk::Same,
        Some((method, version)) if method == before.0 && version == target => OnDisk::New,
        Some(found) if found == before => OnDisk::Old,
        _ => OnDisk::Broken,
    }
}

#[cfg(test)]
#[path = "journal_tests.rs"]
mod tests;
