#![allow(clippy::unwrap_used)]
use super::*;
use crate::steps::steps;
use fleet_common::ids::{LegId, OrderId};
use fleet_common::server::Pmm2Update;
use fleet_common::version::PmmVersion;
use proptest::prelude::*;

fn order() -> ServerOrder {
    ServerOrder {
        order: OrderId::new("o"),
        leg: LegId::new("server-1"),
        attempt: 1,
        hop: 2,
        from: PmmVersion::new(2, 44, 1),
        to: PmmVersion::new(3, 7, 1),
        pmm2_update: Pmm2Update::Image,
        last_of_leg: false,
        accept_unsettled: false,
    }
}

fn intent(step: &str) -> Line {
    Line::Intent {
        step: step.to_owned(),
        at_ms: 1,
    }
}
fn done(step: &str) -> Line {
    Line::Done {
        step: step.to_owned(),
        at_ms: 2,
        took_ms: 1,
    }
}

/// A driver that dies after `lives[n]` journal lines in its n-th life; effects are counted by step.
fn drive(lives: &[usize], fail_at: Option<&str>) -> (Vec<Line>, Next) {
    let steps = steps(&order(), true);
    let mut lines = vec![Line::Opened {
        order: order(),
        at_ms: 0,
    }];
    let mut lives = lives.iter();
    let mut left = lives.next().copied().unwrap_or(usize::MAX);
    for _ in 0..10_000 {
        let replay = Replay::of(&lines);
        let name = match replay.next(&steps) {
            Next::Step(step) => step.name(),
            Next::Undo(undo, _) => undo.name().to_owned(),
            end => return (lines, end),
        };
        let failing = fail_at == Some(name.as_str());
        let result = if failing {
            Line::Failing(Failure {
                step: name.clone(),
                code: "x".to_owned(),
                message: String::new(),
                hints: vec![],
                at_ms: 3,
            })
        } else {
            done(&name)
        };
        for line in [intent(&name), result] {
            if left == 0 {
                left = lives.next().copied().unwrap_or(usize::MAX);
                break;
            }
            left -= 1;
            lines.push(line);
        }
    }
    panic!("no end");
}

#[test]
fn a_finished_journal_answers_the_same_again() {
    let result = HopResult {
        outcome: fleet_common::server::HopOutcome::Settled,
        from: order().from,
        running: Some(order().to),
        code: fleet_common::codes::Code::new(""),
        step: String::new(),
        message: String::new(),
        hints: vec![],
        restore_point: None,
        downtime_ms: 5,
        open: false,
        leftovers: Vec::new(),
    };
    let replay = Replay::of(&[
        Line::Opened {
            order: order(),
            at_ms: 0,
        },
        Line::Finished {
            result: result.clone(),
            at_ms: 9,
        },
    ]);
    assert_eq!(
        replay.next(&steps(&order(), false)),
        Next::Answer(Box::new(result))
    );
}

#[test]
fn an_open_step_is_done_again() {
    let replay = Replay::of(&[intent("inspect"), done("inspect"), intent("baseline")]);
    assert_eq!(replay.open.as_deref(), Some("baseline"));
    assert!(matches!(replay.next(&steps(&order(), false)), Next::Step(id) if id.step == Step::Baseline));
}

#[test]
fn a_failure_before_anything_changed_has_no_way_back() {
    let (lines, end) = drive(&[], Some("pull"));
    assert_eq!(end, Next::GaveUp(Phase::Main));
    assert!(
        !Replay::of(&lines)
            .begun
            .iter()
            .any(|step| step.starts_with("undo"))
    );
}

#[test]
fn lines_survive_json() {
    for line in [
        intent("x"),
        done("x"),
        Line::Note {
            key: "k".to_owned(),
            value: serde_json::json!({"a": 1}),
        },
    ] {
        let text = serde_json::to_string(&line).unwrap();
        assert_eq!(serde_json::from_str::<Line>(&text).unwrap(), line);
    }
}

proptest! {
    #[test]
    fn kills_change_nothing_but_the_number_of_attempts(
        lives in proptest::collection::vec(0usize..9, 0..12),
        fail in proptest::option::of(0usize..30),
    ) {
        let all = steps(&order(), true);
        let name = fail.and_then(|index| all.get(index)).map(|id| id.name());
        let (calm, calm_end) = drive(&[], name.as_deref());
        let (wild, wild_end) = drive(&lives, name.as_deref());
        prop_assert_eq!(calm_end, wild_end);
        let (calm, wild) = (Replay::of(&calm), Replay::of(&wild));
        prop_assert_eq!(&calm.begun, &wild.begun);
        prop_assert_eq!(calm.done.keys().collect::<Vec<_>>(), wild.done.keys().collect::<Vec<_>>());
        prop_assert_eq!(calm.failure, wild.failure);
    }

    #[test]
    fn the_way_back_never_meets_the_way_forward(fail in 0usize..30) {
        let all = steps(&order(), true);
        if let Some(id) = all.get(fail) {
            let (lines, end) = drive(&[], Some(&id.name()));
            prop_assert_eq!(end, Next::GaveUp(id.phase));
            let begun = Replay::of(&lines).begun;
            let first_undo = begun.iter().position(|step| step.starts_with("undo")).unwrap_or(begun.len());
            prop_assert!(begun.iter().skip(first_undo).all(|step| step.starts_with("undo")));
        }
    }
}

/// Every step, begun and done, may be the last one before another order arrives: the hop always comes to an end, the server never stays
/// between two releases, and nothing is taken back once clients deliver.
#[test]
fn whatever_is_open_a_newer_order_brings_it_to_an_end() {
    for rehome in [false, true] {
        let steps = steps(&order(), rehome);
        for (at, last) in steps.iter().enumerate() {
            for finished in [false, true] {
                let mut lines = vec![Line::Opened {
                    order: order(),
                    at_ms: 0,
                }];
                for step in &steps[..at] {
                    lines.extend([intent(&step.name()), done(&step.name())]);
                }
                lines.push(intent(&last.name()));
                if finished {
                    lines.push(done(&last.name()));
                }
                let mut undone = Vec::new();
                let mut kept = false;
                for _ in 0..50 {
                    let replay = Replay::of(&lines);
                    match replay.takeover(&steps) {
                        Takeover::Keep => {
                            kept = true;
                            break;
                        }
                        Takeover::Forward(step) => lines.extend([intent(&step.name()), done(&step.name())]),
                        Takeover::GiveUp(step) => lines.push(Line::Failing(Failure {
                            step,
                            code: fleet_common::codes::GIVEN_UP.to_owned(),
                            message: String::new(),
                            hints: Vec::new(),
                            at_ms: 3,
                        })),
                        Takeover::GoOnBack => match replay.next(&steps) {
                            Next::Undo(undo, _) => {
                                undone.push(undo);
                                lines.extend([intent(undo.name()), done(undo.name())]);
                            }
                            Next::GaveUp(_) => break,
                            other => panic!("{}: {other:?}", last.name()),
                        },
                    }
                }
                let main = last.phase == Phase::Main;
                let rehomed = last.phase == Phase::Rehome && last.step >= Step::Publish;
                assert!(!rehomed || undone.is_empty(), "{}: {undone:?}", last.name());
                let published = main && last.step >= Step::Publish;
                assert_eq!(kept, published, "{} {finished}", last.name());
                assert!(!kept || undone.is_empty());
                let down = main && last.step >= Step::Disarm && !published;
                assert!(
                    !down || undone.contains(&Undo::Verify),
                    "{}: {undone:?}",
                    last.name()
                );
            }
        }
    }
}
