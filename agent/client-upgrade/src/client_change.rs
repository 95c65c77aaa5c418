//! Changes of the client that leave its release alone: `repoint` and `restart_client`. Their steps, the way back, and how to go on after a
//! kill. Every step may be done again from its beginning, so that a crash at any instant costs at most one restart of the client.

use crate::journal::{Doubt, Folded, Resume};
use crate::procedure::{Step, StepId, next, procedure, step};
use fleet_common::order::Action;

/// Steps of `repoint`.
pub(crate) const REPOINT: &[StepId] = &[
    StepId::Check,
    StepId::SaveAddress,
    StepId::Rewrite,
    StepId::Restart,
    StepId::Reconnect,
];
/// Steps of `restart_client`.
pub(crate) const RESTART: &[StepId] = &[
    StepId::Check,
    StepId::SaveAddress,
    StepId::Restart,
    StepId::Reconnect,
];
const BACK: &[StepId] = &[StepId::BackRewrite, StepId::BackRestart, StepId::BackReconnect];

/// Whether an action is one of these.
pub fn handles(action: Action) -> bool {
    matches!(action, Action::Repoint | Action::RestartClient)
}

/// The steps back to the old address. A restart has none: there is nothing to put back.
pub fn way_back(action: Action, verify_for_ms: u64) -> Vec<Step> {
    let ids = if action == Action::Repoint { BACK } else { &[] };
    ids.iter().map(|id| step(*id, verify_for_ms)).collect()
}

/// Decides how to go on after a crash. After a reboot a client that was run by hand does not run: it is started before it is waited for.
pub fn resume(state: &Folded, action: Action, rebooted: bool) -> Resume {
    match in_one_boot(state, action) {
        Resume::Repeat(StepId::Reconnect) | Resume::Continue(StepId::Reconnect) if rebooted => {
            Resume::Repeat(StepId::Restart)
        }
        Resume::Repeat(StepId::BackReconnect) | Resume::Continue(StepId::BackReconnect) if rebooted => {
            Resume::Repeat(StepId::BackRestart)
        }
        decision => decision,
    }
}

fn in_one_boot(state: &Folded, action: Action) -> Resume {
    if !state.changed && state.going_back.is_none() {
        return Resume::Nothing;
    }
    if let Some(open) = state.open {
        return Resume::Repeat(open);
    }
    let back = way_back(action, 0);
    match state.last {
        None => back
            .first()
            .map_or(Resume::Finish, |first| Resume::Continue(first.id)),
        Some((step, false)) if step.is_back() => Resume::AskOperator(Doubt::BackFailed),
        Some((step, false)) => Resume::Undo(step),
        Some((step, true)) => {
            let list = if step.is_back() {
                back
            } else {
                procedure(action, None, 0)
            };
            next(&list, step).map_or(Resume::Finish, |following| Resume::Continue(following.id))
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::journal::{JournalOrder, OnDisk, Reality, Record, Transaction, fold};
    use fleet_common::ids::Epoch;
    use proptest::prelude::*;

    fn whole(action: Action, back: bool) -> Vec<Record> {
        let mut records = vec![Record::Accepted(JournalOrder {
            order_id: "o".into(),
            epoch: Epoch::default(),
            plan_id: "p".into(),
            action,
            entry: "{}".into(),
            boot_id: "b".into(),
            at_ms: 0,
            boot_ms: 0,
            deadline_for_ms: 0,
            release: String::new(),
        })];
        let add = |records: &mut Vec<Record>, step, ok| {
            records.push(Record::Intent {
                step,
                at_ms: 1,
                spent_ms: 0,
            });
            records.push(Record::Result {
                step,
                ok,
                at_ms: 2,
                spent_ms: 0,
            });
        };
        for step in procedure(action, None, 0) {
            add(&mut records, step.id, !(back && step.id == StepId::Reconnect));
        }
        if back {
            records.push(Record::GoingBack {
                step: StepId::Reconnect,
                code: "verify_failed".into(),
                message: String::new(),
            });
            for step in way_back(action, 0) {
                add(&mut records, step.id, true);
            }
        }
        records
    }

    proptest! {
        /// Whatever the instant of the kill: before the first change nothing happens, after it the next step is always named and never an
        /// earlier one, and the installed release plays no part.
        #[test]
        fn every_instant_has_a_next_step(back: bool, cut in 1usize..30, old: bool) {
            let records = whole(Action::Repoint, back);
            let seen = &records[..cut.min(records.len())];
            let state = fold(seen);
            let reality = Reality { transaction: Transaction::None, on_disk: if old { OnDisk::Old } else { OnDisk::Broken }, rebooted: false };
            let decision = crate::journal::resume(&state, reality);
            prop_assert_eq!(decision == Resume::Nothing, !state.changed);
            match decision {
                Resume::Repeat(step) => prop_assert_eq!(state.open, Some(step)),
                Resume::Continue(step) => {
                    let begun = seen.iter().any(|record| matches!(record, Record::Intent { step: done, .. } if *done == step));
                    prop_assert!(!begun);
                }
                Resume::Undo(step) => prop_assert_eq!(step, StepId::Reconnect),
                Resume::Finish => prop_assert_eq!(seen.len(), records.len()),
                Resume::Nothing => {}
                Resume::AskOperator(_) => prop_assert!(false, "nothing is in doubt here"),
            }
        }
    }

    #[test]
    fn a_failed_way_back_is_asked() {
        let mut records = whole(Action::Repoint, true);
        records.push(Record::Result {
            step: StepId::BackReconnect,
            ok: false,
            at_ms: 3,
            spent_ms: 0,
        });
        assert_eq!(
            resume(&fold(&records), Action::Repoint, false),
            Resume::AskOperator(Doubt::BackFailed)
        );
    }

    #[test]
    fn after_a_reboot_the_client_is_started_before_it_is_waited_for() {
        for (back, waits, starts) in [
            (false, StepId::Reconnect, StepId::Restart),
            (true, StepId::BackReconnect, StepId::BackRestart),
        ] {
            let records = whole(Action::Repoint, back);
            let at = records
                .iter()
                .position(|record| matches!(record, Record::Intent { step, .. } if *step == waits))
                .unwrap();
            for seen in [&records[..at], &records[..=at]] {
                let state = fold(seen);
                assert_eq!(resume(&state, Action::Repoint, true), Resume::Repeat(starts));
                assert_ne!(resume(&state, Action::Repoint, false), Resume::Repeat(starts));
            }
        }
    }

    #[test]
    fn only_the_repoint_has_a_way_back_and_the_file_is_written_before_the_restart() {
        assert!(way_back(Action::RestartClient, 0).is_empty());
        let steps = procedure(Action::Repoint, None, 0);
        let at = |id| steps.iter().position(|step| step.id == id).unwrap();
        assert!(at(StepId::SaveAddress) < at(StepId::Rewrite) && at(StepId::Rewrite) < at(StepId::Restart));
        assert!(!StepId::SaveAddress.changes_host() && StepId::Rewrite.changes_host());
        assert!(StepId::BackRewrite.is_back() && !StepId::Reconnect.is_back());
    }
}
