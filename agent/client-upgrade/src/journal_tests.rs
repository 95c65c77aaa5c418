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
        boot_ms: 0,
        deadline_for_ms: 0,
        release: String::new(),
    })
}

fn intent(step: StepId) -> Record {
    Record::Intent {
        step,
        at_ms: 1,
        spent_ms: 0,
    }
}

fn result(step: StepId, ok: bool) -> Record {
    Record::Result {
        step,
        ok,
        at_ms: 2,
        spent_ms: 0,
    }
}

fn see(transaction: Transaction, on_disk: OnDisk) -> Reality {
    Reality {
        transaction,
        on_disk,
        rebooted: false,
    }
}

/// All records of a switch, then of its way back.
fn whole(back: bool) -> Vec<Record> {
    let mut records = vec![accepted(Action::Switch)];
    let add = |records: &mut Vec<Record>, step, ok| {
        records.push(intent(step));
        records.push(result(step, ok));
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
    prop_oneof![
        Just(OnDisk::Old),
        Just(OnDisk::New),
        Just(OnDisk::Same),
        Just(OnDisk::Broken)
    ]
}

proptest! {
    /// Whatever the instant of the kill: a transaction that exists is never begun a second time.
    #[test]
    fn a_transaction_is_never_begun_twice(back: bool, cut in 0usize..30, transaction in any_transaction(), on_disk in any_disk(), rebooted: bool) {
        let records = whole(back);
        let state = fold(&records[..cut.min(records.len())]);
        let decision = resume(&state, Reality { transaction, on_disk, rebooted });
        if transaction != Transaction::None {
            prop_assert_ne!(decision, Resume::Repeat(StepId::Install));
            prop_assert_ne!(decision, Resume::Repeat(StepId::BackInstall));
        }
    }

    /// Before the first change nothing is undone or continued; after it nothing is forgotten.
    #[test]
    fn nothing_is_forgotten(back: bool, cut in 0usize..30, transaction in any_transaction(), on_disk in any_disk(), rebooted: bool) {
        let records = whole(back);
        let state = fold(&records[..cut.min(records.len())]);
        let decision = resume(&state, Reality { transaction, on_disk, rebooted });
        prop_assert_eq!(decision == Resume::Nothing, !state.changed);
    }

    /// Journal and host in agreement never ask a person.
    #[test]
    fn agreement_needs_nobody(cut in 1usize..18) {
        let records = whole(false);
        let state = fold(&records[..cut.min(records.len())]);
        let installed = records[..cut.min(records.len())].iter().any(|record| matches!(record, Record::Result { step: StepId::Install, .. }));
        let on_disk = if installed { OnDisk::New } else { OnDisk::Old };
        let decision = resume(&state, see(Transaction::None, on_disk));
        prop_assert!(!matches!(decision, Resume::AskOperator(_) | Resume::Undo(_)), "{:?}", decision);
    }
}

#[test]
fn an_interrupted_install_is_waited_for() {
    let mut records = whole(false);
    records.truncate(1 + 2 * 4 + 1);
    let state = fold(&records);
    assert_eq!(state.open, Some(StepId::Install));
    let see = |transaction, on_disk| resume(&state, see(transaction, on_disk));
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
    let see = |records: &[Record]| resume(&fold(records), see(Transaction::None, OnDisk::New));
    assert_eq!(see(&records[..verify_failed]), Resume::Undo(StepId::Verify));
    assert_eq!(
        see(&records[..=verify_failed]),
        Resume::Continue(StepId::BackStop)
    );
    records.push(result(StepId::BackVerify, false));
    assert_eq!(see(&records), Resume::AskOperator(Doubt::BackFailed));
}

#[test]
fn actions_without_change_are_repeated_whole() {
    let records = [accepted(Action::Preflight), intent(StepId::Survey)];
    let decision = resume(&fold(&records), see(Transaction::None, OnDisk::Old));
    assert_eq!(decision, Resume::Repeat(StepId::Check));
}

const STEPS: [StepId; 16] = [
    StepId::Check,
    StepId::Survey,
    StepId::Stage,
    StepId::Save,
    StepId::Stop,
    StepId::Install,
    StepId::Carry,
    StepId::Start,
    StepId::Verify,
    StepId::BackStop,
    StepId::BackInstall,
    StepId::BackRestore,
    StepId::BackStart,
    StepId::BackVerify,
    StepId::Repository,
    StepId::Discard,
];

/// The steps that follow a decision, as the agent walks them. `Undo` and steps of the way back lead over the way back.
fn walk(decision: Resume, action: Action) -> Vec<StepId> {
    let ids = |steps: Vec<crate::procedure::Step>| steps.into_iter().map(|step| step.id).collect::<Vec<_>>();
    let from = match decision {
        Resume::Repeat(step) | Resume::Continue(step) => step,
        Resume::Undo(_) => StepId::BackStop,
        Resume::Nothing | Resume::Finish | Resume::AskOperator(_) => return Vec::new(),
    };
    let list = if from.is_back() {
        ids(way_back(0))
    } else {
        ids(procedure(action, None, 0))
    };
    let at = list
        .iter()
        .position(|step| *step == from)
        .expect("a step of the list");
    list[at..].to_vec()
}

/// Every combination of what the journal can say and what the host can be, impossible ones included.
fn every(mut check: impl FnMut(&Folded, Reality, Action, Resume)) {
    let some_steps = || std::iter::once(None).chain(STEPS.map(Some));
    let lasts = || {
        std::iter::once(None).chain(
            STEPS
                .iter()
                .flat_map(|step| [Some((*step, true)), Some((*step, false))]),
        )
    };
    for action in [Action::Switch, Action::Rollback] {
        let Record::Accepted(order) = accepted(action) else {
            unreachable!()
        };
        for open in some_steps() {
            for last in lasts() {
                for back in [false, true] {
                    let state = Folded {
                        order: Some(order.clone()),
                        open,
                        last,
                        going_back: back.then(|| (StepId::Install, "install_failed".into(), String::new())),
                        changed: true,
                        ..Folded::default()
                    };
                    for transaction in [Transaction::None, Transaction::Running, Transaction::Ended] {
                        for on_disk in [OnDisk::Old, OnDisk::New, OnDisk::Same, OnDisk::Broken] {
                            for rebooted in [false, true] {
                                let reality = Reality {
                                    transaction,
                                    on_disk,
                                    rebooted,
                                };
                                check(&state, reality, action, resume(&state, reality));
                            }
                        }
                    }
                }
            }
        }
    }
}

/// The decision is total: it never forgets a changed host, and what it says can be walked.
#[test]
fn every_combination_has_an_answer_that_can_be_walked() {
    let mut seen = 0;
    every(|_, _, action, decision| {
        seen += 1;
        assert_ne!(decision, Resume::Nothing);
        let steps = walk(decision, action);
        assert!(steps.iter().all(|step| step.changes_host()), "{decision:?}");
    });
    assert_eq!(seen, 2 * 17 * 33 * 2 * 24);
}

/// While a transaction runs there is one decision: to wait for it.
#[test]
fn a_running_transaction_is_waited_for_in_every_combination() {
    every(|state, reality, _, decision| {
        if reality.transaction == Transaction::Running {
            let waited_for = if state.is_back() {
                StepId::BackInstall
            } else {
                StepId::Install
            };
            assert_eq!(decision, Resume::Continue(waited_for));
        }
    });
}

/// After a reboot no installation, forward or back, is begun or gone on with before the clients were stopped, and nothing is verified
/// before it was started.
#[test]
fn after_a_reboot_nothing_is_installed_with_a_client_running() {
    every(|state, reality, action, decision| {
        if !reality.rebooted || reality.transaction == Transaction::Running {
            return;
        }
        let steps = walk(decision, action);
        let position = |wanted: StepId| steps.iter().position(|step| *step == wanted);
        for (first, then) in [
            (StepId::Stop, StepId::Install),
            (StepId::BackStop, StepId::BackInstall),
            (StepId::Start, StepId::Verify),
            (StepId::BackStart, StepId::BackVerify),
        ] {
            if let Some(at) = position(then) {
                assert!(
                    position(first).is_some_and(|before| before < at),
                    "{state:?} {reality:?} {decision:?}"
                );
            }
        }
    });
}

/// Half of a new release is never started by going forward.
#[test]
fn what_is_broken_is_not_installed_over() {
    every(|state, reality, action, decision| {
        let undecided = matches!(state.open, Some(StepId::Stop | StepId::Install));
        if undecided
            && reality.on_disk == OnDisk::Broken
            && reality.transaction == Transaction::None
            && action == Action::Switch
        {
            assert!(!walk(decision, action).contains(&StepId::Install), "{decision:?}");
        }
    });
}

fn reading(boot: &str, boot_ms: u64) -> Reading {
    Reading {
        boot_id: boot.into(),
        boot_ms,
    }
}

/// The agent may be killed again before it acted on a reboot: what was not answered by a stop or a start stays a reboot.
#[test]
fn a_reboot_stays_until_a_stop_or_a_start_answers_it() {
    let mut records = whole(false);
    records.truncate(1 + 2 * 4 + 1);
    let rebooted = |records: &[Record]| fold(records).rebooted(&reading("c", 5));
    assert!(!fold(&records).rebooted(&reading("b", 5)));
    assert!(rebooted(&records));
    records.push(Record::Resumed { at: reading("c", 4) });
    assert!(rebooted(&records));
    records.push(intent(StepId::Stop));
    assert!(!rebooted(&records));
    assert!(
        fold(&records).rebooted(&reading("", 5)),
        "an unknown boot is another one"
    );
}

#[test]
fn time_goes_on_in_a_boot_and_stands_still_across_one() {
    let spent = |step, spent_ms| Record::Intent {
        step,
        at_ms: 1_000,
        spent_ms,
    };
    let mut records = vec![
        accepted(Action::Switch),
        spent(StepId::Stop, 500),
        spent(StepId::Install, 900),
    ];
    assert_eq!(fold(&records).spent_ms(&reading("b", 2_000)), 2_000);
    assert_eq!(fold(&records).client_gap_ms(&reading("b", 2_000), 0), 1_500);
    assert_eq!(fold(&records).spent_ms(&reading("c", 2_000)), 900);
    assert_eq!(fold(&records).client_gap_ms(&reading("c", 2_000), 61_000), 60_000);
    records.push(Record::Resumed {
        at: reading("c", 2_000),
    });
    assert_eq!(fold(&records).spent_ms(&reading("c", 2_100)), 1_000);
    assert_eq!(fold(&records).spent_ms(&reading("d", 9)), 900);
}

proptest! {
    /// The new release was on the disk before: neither way is in doubt because of it, whatever the instant of the kill.
    #[test]
    fn one_release_for_both_ways_is_no_contradiction(back: bool, rebooted: bool, cut in 1usize..30) {
        let records = whole(back);
        let state = fold(&records[..cut.min(records.len())]);
        let reality = Reality { transaction: Transaction::None, on_disk: OnDisk::Same, rebooted };
        prop_assert!(!matches!(resume(&state, reality), Resume::AskOperator(_)));
    }
}

#[test]
fn the_release_on_disk_is_told_from_both_sides() {
    use fleet_common::version::PmmVersion;
    let (old, new) = (PmmVersion::new(2, 44, 1), PmmVersion::new(3, 9, 1));
    let see = |found: Option<PmmVersion>, before| {
        on_disk(
            found.map(|found| (Method::Deb, found)),
            (Method::Deb, before),
            new,
        )
    };
    assert_eq!(
        (see(Some(old), old), see(Some(new), old)),
        (OnDisk::Old, OnDisk::New)
    );
    assert_eq!(
        (see(Some(new), new), see(None, new)),
        (OnDisk::Same, OnDisk::Broken)
    );
    assert_eq!(see(Some(PmmVersion::new(3, 0, 0)), old), OnDisk::Broken);
}
