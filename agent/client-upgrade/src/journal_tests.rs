#![allow(clippy::unwrap_used)]
use super::*;
use proptest::prelude::*;

fn accepted(action: Action) -> Record {
    Record::Accepted(JournalOrder {
        order_id: "o".into(),
        epoch: Epoch::default(),
        plan_id: "p".into(),
        action,
        entry: "{}".into(),
        boot_id: "b".into(),
        at_ms: 0,
        deadline_for_ms: 0,
    })
}

/// All records of a switch, then of its way back.
fn whole(back: bool) -> Vec<Record> {
    let mut records = vec![accepted(Action::Switch)];
    let add = |records: &mut Vec<Record>, step, ok| {
        records.push(Record::Intent { step, at_ms: 1 });
        records.push(Record::Result { step, ok, at_ms: 2 });
    };
    for step in procedure(Action::Switch, None, 0) {
        add(&mut records, step.id, !(back && step.id == StepId::Verify));
    }
    if back {
        records.push(Record::GoingBack {
            step: StepId::Verify,
            code: "verify_failed".into(),
            message: String::new(),
        });
        for step in way_back(0) {
            add(&mut records, step.id, true);
        }
    }
    records
}

fn any_transaction() -> impl Strategy<Value = Transaction> {
    prop_oneof![
        Just(Transaction::None),
        Just(Transaction::Running),
        Just(Transaction::Ended)
    ]
}

fn any_disk() -> impl Strategy<Value = OnDisk> {
    prop_oneof![Just(OnDisk::Old), Just(OnDisk::New), Just(OnDisk::Broken)]
}

proptest! {
    /// Whatever the instant of the kill: a transaction that exists is never begun a second time.
    #[test]
    fn a_transaction_is_never_begun_twice(back: bool, cut in 0usize..30, transaction in any_transaction(), on_disk in any_disk()) {
        let records = whole(back);
        let state = fold(&records[..cut.min(records.len())]);
        let decision = resume(&state, Reality { transaction, on_disk });
        if transaction != Transaction::None {
            prop_assert_ne!(decision, Resume::Repeat(StepId::Install));
            prop_assert_ne!(decision, Resume::Repeat(StepId::BackInstall));
        }
    }

    /// Before the first change nothing is undone or continued; after it nothing is forgotten.
    #[test]
    fn nothing_is_forgotten(back: bool, cut in 0usize..30, transaction in any_transaction(), on_disk in any_disk()) {
        let records = whole(back);
        let state = fold(&records[..cut.min(records.len())]);
        let decision = resume(&state, Reality { transaction, on_disk });
        prop_assert_eq!(decision == Resume::Nothing, !state.changed);
    }

    /// Journal and host in agreement never ask a person.
    #[test]
    fn agreement_needs_nobody(cut in 1usize..18) {
        let records = whole(false);
        let state = fold(&records[..cut.min(records.len())]);
        let installed = records[..cut.min(records.len())].iter().any(|record| matches!(record, Record::Result { step: StepId::Install, .. }));
        let on_disk = if installed { OnDisk::New } else { OnDisk::Old };
        let decision = resume(&state, Reality { transaction: Transaction::None, on_disk });
        prop_assert!(!matches!(decision, Resume::AskOperator(_) | Resume::Undo(_)), "{:?}", decision);
    }
}

#[test]
fn an_interrupted_install_is_waited_for() {
    let mut records = whole(false);
    records.truncate(1 + 2 * 4 + 1);
    let state = fold(&records);
    assert_eq!(state.open, Some(StepId::Install));
    let see = |transaction, on_disk| resume(&state, Reality { transaction, on_disk });
    assert_eq!(
        see(Transaction::Running, OnDisk::Broken),
        Resume::Continue(StepId::Install)
    );
    assert_eq!(
        see(Transaction::None, OnDisk::Old),
        Resume::Repeat(StepId::Install)
    );
    assert_eq!(
        see(Transaction::None, OnDisk::New),
        Resume::Continue(StepId::Install)
    );
    assert_eq!(
        see(Transaction::None, OnDisk::Broken),
        Resume::Undo(StepId::Install)
    );
}

#[test]
fn a_failed_step_is_undone_and_a_failed_way_back_is_asked() {
    let mut records = whole(true);
    let verify_failed = records
        .iter()
        .position(|record| matches!(record, Record::GoingBack { .. }))
        .unwrap();
    let see = |records: &[Record]| {
        resume(
            &fold(records),
            Reality {
                transaction: Transaction::None,
                on_disk: OnDisk::New,
            },
        )
    };
    assert_eq!(see(&records[..verify_failed]), Resume::Undo(StepId::Verify));
    assert_eq!(
        see(&records[..=verify_failed]),
        Resume::Continue(StepId::BackStop)
    );
    records.push(Record::Result {
        step: StepId::BackVerify,
        ok: false,
        at_ms: 3,
    });
    assert_eq!(see(&records), Resume::AskOperator(Doubt::BackFailed));
}

#[test]
fn actions_without_change_are_repeated_whole() {
    let records = [
        accepted(Action::Preflight),
        Record::Intent {
            step: StepId::Survey,
            at_ms: 0,
        },
    ];
    let decision = resume(
        &fold(&records),
        Reality {
            transaction: Transaction::None,
            on_disk: OnDisk::Old,
        },
    );
    assert_eq!(decision, Resume::Repeat(StepId::Check));
}
