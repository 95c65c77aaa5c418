//! What was said holds: a loss that was accepted, a host that was wanted back, a pause, a hold; and a lost host is called lost.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use fleet_common::order::HostEvent;
use fleet_sim::fixture;
use fleet_sim::hosts::Behaviour;
use fleet_sim::steps::{group, host, id, leaves, paused, resume, retry, returns, started};
use fleet_sim::{Faults, World, until};
use rollout::explain;
use rollout::kernel::{Command, HostPhase, Input, LegPhase, RollbackTarget, RolloutPhase};
use rollout::policy::{FailureClass, Retries};

const BRIDGE: &str = "[server.pmm2_clients]\nbridge = \"3.2.0\"";

fn seconds(world: &mut World, number: usize) {
    for _ in 0..number {
        world.step();
    }
}

fn told(world: &World, number: usize) -> explain::ExplainDocument {
    explain::explain(&world.kernel, &format!("node-{number}"), world.now).unwrap()
}

fn hold(world: &mut World, number: usize) -> String {
    let (host, reason) = (id(number).to_string(), "not now".to_owned());
    world.command(Command::Hold { host, reason }).unwrap()
}

fn unhold(world: &mut World, number: usize) -> Result<String, String> {
    let host = id(number).to_string();
    world.command(Command::Unhold { host })
}

fn back(world: &mut World, target: RollbackTarget) -> String {
    let reason = "slow queries".to_owned();
    world.command(Command::Rollback { target, reason }).unwrap()
}

/// What its agent says of the order that it has.
fn says(world: &World, number: usize, event: HostEvent) -> Input {
    let order = host(world, number).order.as_ref().unwrap();
    Input::Host {
        host: id(number),
        order_id: order.id.clone(),
        epoch: order.epoch,
        event,
    }
}

fn abort(world: &mut World) {
    let (reason, force) = ("enough".to_owned(), false);
    world.command(Command::Abort { reason, force }).unwrap();
}

/// A host that does not answer its switch, was lost and is tried again.
fn lost_and_tried_again(edit: &dyn Fn(&mut rollout::plan::Plan)) -> World {
    let groups = [("one", 3, "canaries = 0\nfailure_threshold = 2")];
    let mut world = started(&groups, &[(0, Behaviour::Silent)], &|plan| {
        plan.timing.switch_ms = 60_000;
        edit(plan);
    });
    until(&mut world, |world| host(world, 0).phase == HostPhase::Lost);
    retry(&mut world, &[0]).unwrap();
    assert!(host(&world, 0).phase.before_permit());
    world
}

#[test]
fn a_failure_of_a_host_that_was_accepted_as_lost_counts() {
    let groups = [(
        "one",
        6,
        "canaries = 0\nfailure_threshold = 0\nmax_unavailable = 2",
    )];
    let slow = |number| (number, Behaviour::Slow);
    let behaviours = [(0, Behaviour::RollsBack), slow(1), slow(2), slow(3)];
    let mut world = started(&groups, &behaviours, &|_| {});
    until(&mut world, |world| host(world, 0).phase == HostPhase::Switching);
    leaves(&mut world, 0);
    until(&mut world, |world| !paused(world).is_empty());
    resume(&mut world).unwrap();
    assert!(group(&world, "one").forgiven.contains(&id(0)));
    returns(&mut world, 0);
    until(&mut world, |world| host(world, 0).phase == HostPhase::RolledBack);
    seconds(&mut world, 5);
    assert_eq!(paused(&world), "threshold: group one: 1 failed, 0 tolerated");
    assert_eq!(world.watcher.violations, Default::default());
}

#[test]
fn a_lost_host_that_was_to_be_tried_again_is_not_called_cancelled_by_an_abort() {
    let mut world = lost_and_tried_again(&|_| {});
    abort(&mut world);
    world.rest();
    assert_eq!(world.outcome(0), "lost", "{:?}", host(&world, 0));
    assert!(host(&world, 0).counts && host(&world, 0).slot);
    // Its session says nothing of its client, and an aborted rollout asks nobody.
    let ended = world.kernel.rollout().ended_at_ms;
    leaves(&mut world, 0);
    returns(&mut world, 0);
    seconds(&mut world, 5);
    assert_eq!(host(&world, 0).phase, HostPhase::Lost);
    assert_eq!(world.kernel.rollout().ended_at_ms, ended);
    let told = told(&world, 0);
    assert!(told.reason.contains("the rollout was aborted"), "{}", told.reason);
    assert!(!told.then.contains("by itself"), "{}", told.then);
    assert_eq!(world.watcher.violations, Default::default());
}

#[test]
fn a_lost_host_that_comes_back_after_its_leg_is_not_called_skipped() {
    let groups = [(
        "one",
        3,
        "canaries = 0\nfailure_threshold = 2\nmax_unavailable = 3",
    )];
    let mut world = World::of_plan(7, fixture::draft(&groups, BRIDGE), Faults::NONE);
    world.helpful = false;
    world.hosts.get_mut(&id(1)).unwrap().behaviour = Behaviour::Silent;
    world.start();
    until(&mut world, |world| host(world, 1).phase == HostPhase::Lost);
    seconds(&mut world, 3);
    retry(&mut world, &[1]).unwrap();
    leaves(&mut world, 1);
    until(&mut world, |world| host(world, 1).phase == HostPhase::Lost);
    seconds(&mut world, 3);
    resume(&mut world).unwrap();
    until(&mut world, |world| {
        world.open_hop().is_some_and(|hop| hop.leg.as_str() == "server-2")
    });
    for _ in 0..2 {
        returns(&mut world, 1);
        seconds(&mut world, 30);
        assert_eq!(
            host(&world, 1).phase,
            HostPhase::Lost,
            "{}",
            host(&world, 1).reason
        );
        leaves(&mut world, 1);
    }
    let came_back = world
        .kernel
        .rollout()
        .disturbances
        .iter()
        .filter(|hit| hit.target == "node-1");
    assert!(came_back.count() <= 1, "each session of it is told as a return");
    world.rest();
    assert_eq!(world.kernel.phase(), RolloutPhase::FinishedWithLost);
    assert_eq!(world.watcher.violations, Default::default());
}

#[test]
fn a_lost_host_that_is_skipped_before_its_next_attempt_stays_lost_and_does_not_begin() {
    let mut world = lost_and_tried_again(&|_| {});
    let (name, reason) = ("h0".to_owned(), "its disk is gone".to_owned());
    let answer = world.command(Command::Skip { host: name, reason }).unwrap();
    assert!(answer.contains("lost"), "{answer}");
    assert!(host(&world, 0).counts);
    leaves(&mut world, 0);
    returns(&mut world, 0);
    seconds(&mut world, 60);
    assert_eq!(
        host(&world, 0).phase,
        HostPhase::Lost,
        "{}",
        told(&world, 0).reason
    );
    assert!(told(&world, 0).reason.contains("its disk is gone"));
    // A person may still take it up again.
    assert!(
        told(&world, 0)
            .you_can
            .iter()
            .any(|way| way.command == "retry node-0")
    );
    world.hosts.get_mut(&id(0)).unwrap().behaviour = Behaviour::Good;
    retry(&mut world, &[0]).unwrap();
    assert!(host(&world, 0).phase.before_permit());
    assert_eq!(world.watcher.violations, Default::default());
}

#[test]
fn a_lost_host_whose_group_is_taken_back_before_its_next_attempt_stays_lost() {
    for clients in [false, true] {
        let mut world = lost_and_tried_again(&|plan| fixture::way_back(plan, true));
        let target = if clients {
            RollbackTarget::Clients
        } else {
            RollbackTarget::Group("one".to_owned())
        };
        back(&mut world, target);
        seconds(&mut world, 2);
        assert_eq!(
            host(&world, 0).phase,
            HostPhase::Lost,
            "{}",
            host(&world, 0).reason
        );
        assert!(host(&world, 0).counts);
        assert_eq!(world.watcher.violations, Default::default());
    }
}

#[test]
fn a_host_that_an_operator_takes_back_goes_back_although_it_was_lost_meanwhile() {
    let groups = [("one", 3, "canaries = 0\nfailure_threshold = 2")];
    let mut world = started(&groups, &[(0, Behaviour::Slow)], &|plan| {
        fixture::way_back(plan, true);
    });
    until(&mut world, |world| host(world, 0).phase == HostPhase::Switching);
    back(&mut world, RollbackTarget::Host("h0".to_owned()));
    leaves(&mut world, 0);
    until(&mut world, |world| host(world, 0).phase == HostPhase::Lost);
    let then = told(&world, 0).then;
    assert_eq!(
        then,
        "when its agent returns it goes on, and then back to its old client"
    );
    world.crash();
    returns(&mut world, 0);
    resume(&mut world).unwrap();
    world.rest();
    assert_eq!(world.outcome(0), "rolled_back", "{:?}", host(&world, 0));
    assert_eq!(world.watcher.violations, Default::default());
}

#[test]
fn a_lost_host_goes_back_with_its_group_that_its_policy_takes_back() {
    let groups = [(
        "one",
        5,
        "canaries = 0\nfailure_threshold = 0\non_breach = \"rollback\"\nmax_unavailable = 3",
    )];
    let mut world = started(&groups, &[(0, Behaviour::Slow)], &|plan| {
        fixture::way_back(plan, true);
    });
    until(&mut world, |world| host(world, 0).phase == HostPhase::Switching);
    leaves(&mut world, 0);
    until(&mut world, |world| host(world, 0).phase == HostPhase::Lost);
    seconds(&mut world, 200);
    let says = |event: &&rollout::kernel::FleetEvent| event.code == "group_goes_back";
    let event = world.events.iter().find(says).unwrap();
    assert!(event.text.contains(", 1 more when back"), "{}", event.text);
    returns(&mut world, 0);
    seconds(&mut world, 400);
    assert_eq!(world.outcome(0), "rolled_back");
    assert_eq!(world.watcher.violations, Default::default());
}

#[test]
fn all_clients_go_back_without_a_lost_one_that_was_wanted_back() {
    let groups = [("one", 2, "canaries = 0"), ("two", 2, "canaries = 0")];
    let mut world = started(&groups, &[(3, Behaviour::Slow)], &|plan| {
        fixture::way_back(plan, true);
    });
    until(&mut world, |world| host(world, 3).phase == HostPhase::Switching);
    back(&mut world, RollbackTarget::Clients);
    leaves(&mut world, 3);
    until(&mut world, |world| world.kernel.is_final());
    assert_eq!(world.kernel.phase(), RolloutPhase::RolledBack);
    assert_eq!(
        (world.outcome(0).as_str(), world.outcome(3).as_str()),
        ("rolled_back", "lost")
    );
    returns(&mut world, 3);
    world.rest();
    assert_eq!(world.outcome(3), "rolled_back");
    assert_eq!(world.watcher.violations, Default::default());
}

#[test]
fn a_pause_keeps_further_hosts_from_going_back() {
    let groups = [("one", 5, "canaries = 0\nmax_unavailable = 1")];
    let mut world = started(&groups, &[], &|plan| fixture::way_back(plan, true));
    until(&mut world, |world| {
        (0..5).all(|number| host(world, number).made_it())
    });
    back(&mut world, RollbackTarget::Clients);
    until(&mut world, |world| {
        (0..5).any(|number| host(world, number).phase == HostPhase::RollingBack)
    });
    let reason = "stop".to_owned();
    let answer = world.command(Command::Pause { reason }).unwrap();
    assert_eq!(
        answer,
        "no further host is told to go back; what is under way goes on"
    );
    let ordered = |world: &World| (0..5).filter(|number| host(world, *number).taken_back).count();
    let before = ordered(&world);
    seconds(&mut world, 300);
    assert_eq!(before, ordered(&world));
    let waiting = (0..5).find(|number| host(&world, *number).back_wanted.is_some());
    let told = told(&world, waiting.unwrap());
    assert_eq!(
        told.then,
        "you are reminded; it does not go back before a person says so"
    );
    assert!(
        told.you_can.iter().any(|way| way.command == "resume"),
        "{:?}",
        told.you_can
    );
    resume(&mut world).unwrap();
    until(&mut world, |world| world.kernel.is_final());
    assert_eq!(world.kernel.phase(), RolloutPhase::RolledBack);
    assert_eq!(ordered(&world), 5);
    assert_eq!(world.watcher.violations, Default::default());
}

#[test]
fn a_host_that_is_held_after_its_permit_does_not_begin() {
    let groups = [("one", 2, "canaries = 0")];
    let mut world = started(&groups, &[(0, Behaviour::Slow)], &|plan| {
        plan.timing.offline_for_ms = 7_200_000;
    });
    // The leg waits for the other one, and does not end without the one that is held.
    until(&mut world, |world| {
        world.kernel.legs()[1].phase == LegPhase::Running
    });
    leaves(&mut world, 1);
    // More often than a host that does not begin is asked anew.
    for _ in 0..5 {
        until(&mut world, |world| host(world, 0).phase == HostPhase::Permitted);
        let answer = hold(&mut world, 0);
        assert!(answer.contains("called back"), "{answer}");
        let duty = told(&world, 0).waits_for;
        assert!(format!("{duty:?}").contains("called back"), "{duty:?}");
        assert!(host(&world, 0).slot, "it may have begun");
        until(&mut world, |world| host(world, 0).phase != HostPhase::Permitted);
        assert_eq!(world.hosts[&id(0)].switches, 0);
        assert_eq!(host(&world, 0).phase, HostPhase::Waiting);
        assert!(!host(&world, 0).slot);
        unhold(&mut world, 0).unwrap();
    }
    returns(&mut world, 1);
    until(&mut world, |world| world.kernel.is_final());
    assert_eq!(world.kernel.phase(), RolloutPhase::Succeeded);
    assert_eq!(world.watcher.violations, Default::default());
}

#[test]
fn a_host_that_had_begun_when_it_was_held_finishes_and_that_is_said() {
    let groups = [("one", 2, "canaries = 0")];
    let mut world = started(&groups, &[(0, Behaviour::Slow)], &|_| {});
    until(&mut world, |world| host(world, 0).phase == HostPhase::Permitted);
    hold(&mut world, 0);
    let (step, deadline_for_ms) = ("install".to_owned(), 60_000);
    let begun = says(
        &world,
        0,
        HostEvent::StepStarted {
            step,
            index: 3,
            of: 7,
            deadline_for_ms,
        },
    );
    let mut kernel = world.kernel.clone();
    let out = kernel.handle(begun, world.now);
    let row = kernel.host(&"clients-1".into(), &id(0)).unwrap();
    assert_eq!(row.phase, HostPhase::Switching);
    assert_eq!(
        row.reason,
        "it had begun before the hold reached it, and finishes"
    );
    assert!(out.events.iter().any(|event| event.code == "too_late"));
    // Held again it is told as what it is.
    let (host, reason) = ("h0".to_owned(), "still".to_owned());
    let input = Input::Operator {
        by: "ann".to_owned(),
        command: Command::Hold { host, reason },
    };
    let answer = kernel.handle(input, world.now).answer.unwrap().unwrap().text;
    assert_eq!(
        answer,
        "node-0 is switching and goes on; nothing else begins there until the hold is lifted"
    );
}

#[test]
fn a_restart_does_not_let_another_canary_go_while_the_first_waits_for_its_retry() {
    let groups = [("one", 6, "canaries = 1\nfailure_threshold = 3")];
    for gone_for in [30, 45] {
        let mut world = started(&groups, &[(0, Behaviour::RollsBack)], &|plan| {
            let retries = Retries {
                times: 3,
                // Over while nobody is connected, or not yet.
                backoff_ms: vec![if gone_for == 30 { 120_000 } else { 40_000 }],
            };
            let classes = [
                FailureClass::Transient,
                FailureClass::Install,
                FailureClass::Verify,
            ];
            plan.groups[0].retry = classes.map(|class| (class, retries.clone())).into();
        });
        until(&mut world, |world| host(world, 0).ask_at_ms.is_some());
        seconds(&mut world, 20);
        let switches = |world: &World| world.hosts.values().map(|host| host.switches).sum::<u32>();
        assert_eq!(switches(&world), 1);
        world.crash();
        leaves(&mut world, 0);
        seconds(&mut world, gone_for);
        assert_eq!(switches(&world), 1);
        returns(&mut world, 0);
        until(&mut world, |world| switches(world) > 1);
        assert_eq!(world.hosts[&id(0)].switches, 2, "another canary went");
    }
}

#[test]
fn an_unhold_says_which_hold_it_lifts_and_a_refused_one_changes_nothing() {
    let mut world = started(&[("one", 2, "canaries = 0")], &[], &|_| {});
    hold(&mut world, 0);
    until(&mut world, |world| host(world, 1).phase == HostPhase::Switching);
    let input = Input::Host {
        host: id(0),
        order_id: fleet_common::ids::OrderId::new(""),
        epoch: world.kernel.epoch(),
        event: HostEvent::HoldChanged {
            held: Some("its own".to_owned()),
        },
    };
    world.give(input);
    let answer = unhold(&mut world, 0).unwrap();
    assert!(
        answer.contains("the operator's hold of node-0 is lifted"),
        "{answer}"
    );
    assert!(answer.contains("held on the host itself: its own"), "{answer}");
    let lifted = "the operator's hold of node-0 is lifted, it is held on the host: its own";
    assert!(world.events.iter().any(|event| event.text == lifted));
    assert!(
        !told(&world, 0)
            .you_can
            .iter()
            .any(|way| way.command.contains("unhold"))
    );
    assert_eq!(unhold(&mut world, 0).unwrap_err(), "held_on_host");
    let waits = |kernel: &rollout::kernel::Kernel| {
        format!(
            "{:?}",
            explain::explain(kernel, "node-0", world.now).unwrap().waits_for
        )
    };
    assert!(waits(&world.kernel).contains("its own"));
}
