//! The way back of verified hosts: how long it is kept, and how it is taken.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use fleet_sim as world;
use fleet_sim::until;

use fleet_common::order::Action;
use fleet_sim::fixture::{self, ACCEPT, GroupSpec};
use fleet_sim::hosts::Behaviour;
use fleet_sim::steps::{id, leaves, resume, returns, sound};
use rollout::kernel::{Command, GroupPhase, HostPhase, HostRow, LegPhase, RollbackTarget, RolloutPhase};
use rollout::plan::PlanDraft;
use rollout::{explain, progress, report};
use world::{Faults, World};

const BRIDGE: &str = "[server.pmm2_clients]\nbridge = \"3.2.0\"";

/// Under a server that takes PMM 2 clients still, or not.
fn draft(groups: &[GroupSpec<'_>], no_way_back: bool) -> PlanDraft {
    let mut draft = fixture::draft(groups, ACCEPT);
    fixture::way_back(&mut draft.plan, !no_way_back);
    draft
}

fn world(groups: &[GroupSpec<'_>]) -> World {
    started(draft(groups, false), &[])
}

fn started(draft: PlanDraft, behaviours: &[(usize, Behaviour)]) -> World {
    let mut world = World::of_plan(7, draft, Faults::NONE);
    world.helpful = false;
    for (number, behaviour) in behaviours {
        world.hosts.get_mut(&id(*number)).unwrap().behaviour = *behaviour;
    }
    world.start();
    world
}

fn row(world: &World, leg: &str, number: usize) -> HostRow {
    world.kernel.host(&leg.into(), &id(number)).unwrap().clone()
}

fn phase(world: &World, number: usize) -> HostPhase {
    row(world, "clients-1", number).phase
}

fn rest(world: &mut World) {
    until(world, |world| progress::view(&world.kernel, world.now).at_rest);
}

#[test]
fn a_verified_host_keeps_its_way_back_to_the_end_and_counts_as_upgraded() {
    let groups = [("one", 1, ""), ("two", 3, "canaries = 1\nsoak = \"60s\"")];
    let mut world = world(&groups);
    until(&mut world, |world| phase(world, 0) == HostPhase::Settling);
    let resting = row(&world, "clients-1", 0);
    assert!(resting.rests() && !resting.slot && !resting.in_flight() && resting.order.is_none());
    let told = explain::explain(&world.kernel, "node-0", world.now).unwrap();
    assert!(
        told.waits_for[0].contains("the three checks are over"),
        "{told:#?}"
    );
    assert!(told.deadline_ms.is_some() && told.owner == "coordinator");
    let shown = report::report(&world.kernel, world.now);
    assert_eq!(
        (shown.hosts[0].outcome.as_str(), shown.hosts[0].to.as_str()),
        ("upgraded", "3.9.1")
    );
    let view = progress::view(&world.kernel, world.now);
    assert!(view.groups[0].counts.upgraded == 1 && view.in_flight.iter().all(|host| host.name != "node-0"));
    until(&mut world, |world| world.kernel.phase() == RolloutPhase::Checking);
    assert!((0..4).all(|number| row(&world, "clients-1", number).rests()));
    assert!(
        world.hosts.values().all(|host| host.changed),
        "nothing was removed yet"
    );
    // The order to make it final survives the coordinator.
    until(&mut world, |world| {
        world.kernel.rollout().keeping_since_ms.is_some()
    });
    assert!(
        row(&world, "clients-1", 3)
            .order
            .is_some_and(|order| order.action == Action::Keep)
    );
    world.crash();
    rest(&mut world);
    assert_eq!(world.kernel.phase(), RolloutPhase::Succeeded);
    assert!((0..4).all(|number| phase(&world, number) == HostPhase::Upgraded));
    assert!(world.hosts.values().all(|host| !host.changed));
    let took = report::report(&world.kernel, world.now).hosts[0].took_s;
    assert!(took < 60, "the wait for the end is not the host's: {took}");
    sound(&world);
}

#[test]
fn before_the_next_leg_begins_the_upgrades_of_the_last_one_are_final() {
    let mut world = started(fleet_sim::fixture::draft(&[("one", 3, "")], BRIDGE), &[]);
    until(&mut world, |world| {
        (0..3).all(|number| row(world, "clients-1", number).made_it())
    });
    let server = |world: &World| world.kernel.legs()[3].phase;
    until(&mut world, |world| row(world, "clients-1", 0).order.is_some());
    assert_eq!(
        server(&world),
        LegPhase::Waiting,
        "no hop while an upgrade is not final"
    );
    until(&mut world, |world| server(world) == LegPhase::Running);
    assert!((0..3).all(|number| phase(&world, number) == HostPhase::Upgraded));
    rest(&mut world);
    assert_eq!(world.kernel.phase(), RolloutPhase::Succeeded);
    sound(&world);
}

#[test]
fn a_silent_host_does_not_hold_up_the_end_and_an_abort_makes_upgrades_final() {
    let mut world = world(&[("one", 2, "")]);
    until(&mut world, |world| world.kernel.phase() == RolloutPhase::Checking);
    world.hosts.get_mut(&id(1)).unwrap().gone = true;
    world.disconnect(&id(1));
    rest(&mut world);
    assert_eq!(world.kernel.phase(), RolloutPhase::Succeeded);
    assert!(row(&world, "clients-1", 1).reason.contains("did not say"));

    let mut world = self::world(&[("one", 4, "max_unavailable = 1")]);
    until(&mut world, |world| phase(world, 0) == HostPhase::Settling);
    let reason = "enough".to_owned();
    world.command(Command::Abort { reason, force: true }).unwrap();
    rest(&mut world);
    assert_eq!(world.kernel.phase(), RolloutPhase::Aborted);
    assert_eq!(phase(&world, 0), HostPhase::Upgraded);
    assert!(!world.hosts[&id(0)].changed);
    sound(&world);
}

fn back(world: &mut World, target: RollbackTarget) -> Result<String, String> {
    world.command(Command::Rollback {
        target,
        reason: "slow queries".to_owned(),
    })
}

fn host(number: usize) -> RollbackTarget {
    RollbackTarget::Host(format!("node-{number}"))
}

#[test]
fn one_host_is_taken_back_and_is_no_failure() {
    let groups = [("one", 3, "failure_threshold = 0\nmax_unavailable = 1")];
    let mut world = world(&groups);
    assert_eq!(back(&mut world, host(0)).unwrap_err(), "not_upgraded");
    until(&mut world, |world| phase(world, 0) == HostPhase::Settling);
    assert_eq!(back(&mut world, host(2)).unwrap_err(), "not_upgraded");
    back(&mut world, host(0)).unwrap();
    assert_eq!(world.kernel.rollout().pause.as_ref().unwrap().code, "rollback");
    assert_eq!(back(&mut world, host(0)).unwrap_err(), "going_back");
    rest(&mut world);
    let back = row(&world, "clients-1", 0);
    assert!(
        back.phase == HostPhase::RolledBack && !back.counts && !back.slot,
        "{back:#?}"
    );
    assert!(back.reason.contains("ann: slow queries"), "{}", back.reason);
    assert_eq!(world.hosts[&id(0)].version, Some(world.hosts[&id(0)].old));
    assert_eq!(phase(&world, 2), HostPhase::Ready, "nothing begins meanwhile");
    resume(&mut world).unwrap();
    rest(&mut world);
    assert_eq!(world.kernel.phase(), RolloutPhase::FinishedWithExceptions);
    assert_eq!(phase(&world, 2), HostPhase::Upgraded);
    world
        .command(Command::Retry {
            hosts: vec!["node-0".to_owned()],
            server: false,
        })
        .unwrap();
    rest(&mut world);
    assert_eq!(world.kernel.phase(), RolloutPhase::Succeeded);
    sound(&world);
}

#[test]
fn a_group_goes_back_within_its_slots_and_what_did_not_begin_is_left_out() {
    let groups = [("one", 6, "canaries = 0\nmax_unavailable = 2"), ("two", 1, "")];
    let mut world = world(&groups);
    until(&mut world, |world| {
        (0..4)
            .filter(|number| phase(world, *number) == HostPhase::Settling)
            .count()
            >= 3
    });
    back(&mut world, RollbackTarget::Group("one".to_owned())).unwrap();
    let mut most = 0;
    while !progress::view(&world.kernel, world.now).at_rest {
        world.step();
        let going = (0..6)
            .filter(|number| row(&world, "clients-1", *number).slot)
            .count();
        most = most.max(going);
        if world.now.is_multiple_of(7_000) {
            world.crash();
        }
    }
    assert_eq!(most, 2);
    let group = world.kernel.group(&"clients-1".into(), &"one".into()).unwrap();
    assert_eq!(group.phase, GroupPhase::RolledBack);
    assert!((0..6).all(|number| matches!(phase(&world, number), HostPhase::RolledBack | HostPhase::Skipped)));
    assert!(world.hosts.values().all(|host| host.version == Some(host.old)));
    resume(&mut world).unwrap();
    rest(&mut world);
    assert_eq!(
        phase(&world, 6),
        HostPhase::Upgraded,
        "the next group has its turn"
    );
    sound(&world);
}

#[test]
fn a_lost_host_goes_back_with_its_group_when_it_returns() {
    let targets = [RollbackTarget::Group("one".to_owned()), RollbackTarget::Clients];
    for target in targets {
        let mut world = world(&[("one", 3, "canaries = 0\nmax_unavailable = 2")]);
        until(&mut world, |world| {
            (0..3).any(|number| phase(world, number) == HostPhase::Switching)
        });
        let away = (0..3)
            .find(|number| phase(&world, *number) == HostPhase::Switching)
            .unwrap();
        leaves(&mut world, away);
        until(&mut world, |world| phase(world, away) == HostPhase::Lost);
        back(&mut world, target).unwrap();
        rest(&mut world);
        assert_eq!(phase(&world, away), HostPhase::Lost);
        returns(&mut world, away);
        until(&mut world, |world| phase(world, away) == HostPhase::RolledBack);
        assert!(world.hosts.values().all(|host| host.version == Some(host.old)));
        sound(&world);
    }
}

#[test]
fn all_clients_go_back_group_by_group_in_reverse() {
    let groups = [
        ("one", 2, ""),
        ("two", 3, "canaries = 0"),
        ("three", 2, "approval = true"),
    ];
    let mut world = world(&groups);
    until(&mut world, |world| {
        (0..5).all(|number| phase(world, number) == HostPhase::Settling)
    });
    back(&mut world, RollbackTarget::Clients).unwrap();
    assert_eq!(world.kernel.phase(), RolloutPhase::RollingBack);
    assert_eq!(
        back(&mut world, RollbackTarget::Clients).unwrap_err(),
        "not_running"
    );
    until(&mut world, |world| {
        phase(world, 0) == HostPhase::RollingBack || phase(world, 1) == HostPhase::RollingBack
    });
    assert!(
        (2..5).all(|number| phase(&world, number) == HostPhase::RolledBack),
        "the last group first"
    );
    world.crash();
    rest(&mut world);
    let report = report::report(&world.kernel, world.now);
    assert_eq!(
        (report.outcome.as_str(), report.exit_code()),
        ("rolled_back", fleet_common::codes::exit::ROLLED_BACK)
    );
    assert!(report.reason.contains("slow queries"), "{}", report.reason);
    assert_eq!(phase(&world, 5), HostPhase::Cancelled);
    assert!(world.hosts.values().all(|host| host.version == Some(host.old)));
    sound(&world);
}

#[test]
fn what_is_final_is_too_late_and_pmm_2_is_no_way_back_where_the_server_promises_nothing() {
    let mut world = started(fleet_sim::fixture::draft(&[("one", 2, "")], BRIDGE), &[]);
    until(&mut world, |world| {
        world.kernel.legs()[4].phase == LegPhase::Running
    });
    assert_eq!(
        back(&mut world, host(0)).unwrap_err(),
        "not_upgraded",
        "the leg under way did not"
    );

    let mut world = self::world(&[("one", 2, "")]);
    until(&mut world, |world| {
        world.kernel.rollout().keeping_since_ms.is_some()
    });
    assert_eq!(back(&mut world, host(0)).unwrap_err(), "too_late");
    assert_eq!(back(&mut world, RollbackTarget::Clients).unwrap_err(), "too_late");

    // The host says itself that it is too late: it stays what it was, with a note.
    let mut world = self::world(&[("one", 2, "max_unavailable = 1")]);
    until(&mut world, |world| phase(world, 0) == HostPhase::Settling);
    world.hosts.get_mut(&id(0)).unwrap().changed = false;
    back(&mut world, host(0)).unwrap();
    rest(&mut world);
    let found = row(&world, "clients-1", 0);
    assert!(
        found.rests() && !found.slot && found.reason.contains("too_late"),
        "{found:#?}"
    );
    assert_eq!(back(&mut world, host(0)).unwrap_err(), "too_late");
    resume(&mut world).unwrap();
    rest(&mut world);
    assert_eq!(world.kernel.phase(), RolloutPhase::Succeeded);

    let mut world = started(draft(&[("one", 2, "")], true), &[]);
    until(&mut world, |world| phase(world, 0) == HostPhase::Settling);
    assert_eq!(back(&mut world, host(0)).unwrap_err(), "no_way_back");
    assert_eq!(
        back(&mut world, RollbackTarget::Clients).unwrap_err(),
        "no_way_back"
    );
    assert_eq!(world.kernel.phase(), RolloutPhase::Running, "nothing changed");
}

#[test]
fn a_breach_takes_the_group_back_where_its_policy_says_so() {
    let groups = [(
        "one",
        4,
        "canaries = 0\nmax_unavailable = 1\nfailure_threshold = 0",
    )];
    let mut draft = draft(&groups, false);
    draft.plan.groups[0].on_breach = rollout::policy::OnBreach::Rollback;
    let mut world = started(draft, &[(2, Behaviour::RollsBack)]);
    rest(&mut world);
    assert_eq!(world.kernel.rollout().pause.as_ref().unwrap().code, "threshold");
    for number in [0, 1] {
        let found = row(&world, "clients-1", number);
        assert!(
            found.phase == HostPhase::RolledBack && !found.counts,
            "{found:#?}"
        );
    }
    assert!(
        !row(&world, "clients-1", 3).made_it(),
        "begun before the failure or not"
    );
    sound(&world);
}

#[test]
fn a_host_that_begins_after_an_abort_says_so() {
    let mut world = world(&[("one", 2, "canaries = 0")]);
    until(&mut world, |world| phase(world, 0) == HostPhase::Permitted);
    // The word of the abort does not reach it any more before it begins.
    let reason = "enough".to_owned();
    world.kernel.handle(
        rollout::kernel::Input::Operator {
            by: "ann".to_owned(),
            command: Command::Abort { reason, force: false },
        },
        world.now,
    );
    rest(&mut world);
    assert_eq!(world.kernel.phase(), RolloutPhase::Aborted);
    let late = world
        .events
        .iter()
        .filter(|event| event.code == "too_late")
        .count();
    assert_eq!(
        late,
        world.hosts.values().filter(|host| host.switches > 0).count()
    );
    assert!(late > 0);
}

/// Three good views in a row are needed, and the host comes and goes.
fn flapping(number: usize) -> World {
    let mut draft = draft(&[("one", 2, "canaries = 1\nfailure_threshold = 0")], false);
    draft.plan.groups[0].health = Some(rollout::policy::HealthGate {
        good_views: 3,
        patience_ms: 60_000,
    });
    let mut world = started(draft, &[(number, Behaviour::Flaps)]);
    rest(&mut world);
    world
}

#[test]
fn a_host_that_comes_and_goes_is_for_a_person() {
    let mut world = flapping(0);
    let pause = world.kernel.rollout().pause.clone().unwrap();
    assert!(
        pause.code == "inconclusive" && pause.text.contains("node-0"),
        "{pause:?}"
    );
    assert_eq!(
        phase(&world, 0),
        HostPhase::Verifying,
        "neither passed nor taken back"
    );
    for _ in 0..300 {
        world.step();
    }
    assert_eq!(phase(&world, 0), HostPhase::Verifying, "a person was asked");
    let told = explain::explain(&world.kernel, "node-0", world.now).unwrap();
    assert!(
        told.you_can.iter().any(|way| way.command == "accept node-0"),
        "{told:#?}"
    );
    let accept = |number: usize| Command::Accept {
        host: format!("node-{number}"),
        reason: "known".to_owned(),
    };
    assert_eq!(world.command(accept(1)).unwrap_err(), "no_verdict_open");
    world.command(accept(0)).unwrap();
    rest(&mut world);
    assert_eq!(
        phase(&world, 1),
        HostPhase::Upgraded,
        "{:#?} {:#?}",
        world.kernel.rollout(),
        row(&world, "clients-1", 1)
    );

    let mut world = flapping(0);
    back(&mut world, host(0)).unwrap();
    until(&mut world, |world| phase(world, 0) == HostPhase::RolledBack);

    let mut world = flapping(0);
    resume(&mut world).unwrap();
    until(&mut world, |world| world.kernel.phase() == RolloutPhase::Paused);
    assert_eq!(
        world.kernel.rollout().pause.as_ref().unwrap().code,
        "inconclusive"
    );
    world.hosts.get_mut(&id(0)).unwrap().behaviour = Behaviour::Good;
    resume(&mut world).unwrap();
    rest(&mut world);
    assert_eq!(world.kernel.phase(), RolloutPhase::Succeeded);
    sound(&world);
}

#[test]
fn a_host_on_its_way_back_is_not_tried_again_before_it_is_back() {
    let mut world = world(&[("one", 2, "canaries = 0\nmax_unavailable = 2")]);
    until(&mut world, |world| world.kernel.phase() == RolloutPhase::Checking);
    let back = Command::Rollback {
        target: RollbackTarget::Host("h0".to_owned()),
        reason: String::new(),
    };
    world.command(back).unwrap();
    until(&mut world, |world| phase(world, 0) == HostPhase::RollingBack);
    let again = || Command::Retry {
        hosts: vec!["h0".to_owned()],
        server: false,
    };
    assert_eq!(world.command(again()).unwrap_err(), "not_failed");
    assert!(phase(&world, 0) == HostPhase::RollingBack && row(&world, "clients-1", 0).slot);
    until(&mut world, |world| phase(world, 0) == HostPhase::RolledBack);
    world.command(again()).unwrap();
    rest(&mut world);
    assert_eq!(world.kernel.phase(), RolloutPhase::Succeeded);
    sound(&world);
}

#[test]
fn a_width_that_was_reduced_holds_for_those_that_go_back() {
    let mut world = world(&[("one", 4, "canaries = 0\nmax_unavailable = 3")]);
    until(&mut world, |world| world.kernel.phase() == RolloutPhase::Checking);
    let limit = Command::Limit {
        group: "one".to_owned(),
        max_unavailable: Some(1),
        failure_threshold: None,
        reason: String::new(),
    };
    world.command(limit).unwrap();
    let back = Command::Rollback {
        target: RollbackTarget::Group("one".to_owned()),
        reason: String::new(),
    };
    world.command(back).unwrap();
    let going = |world: &World| {
        let phases = (0..4).map(|number| phase(world, number));
        phases.filter(|phase| *phase == HostPhase::RollingBack).count()
    };
    while (0..4).any(|number| phase(&world, number) != HostPhase::RolledBack) {
        assert!(going(&world) <= 1);
        world.step();
    }
    sound(&world);
}

#[test]
fn members_of_a_set_go_back_one_after_the_other() {
    let mut draft = draft(
        &[("one", 2, "canaries = 0"), ("two", 1, "approval = true")],
        false,
    );
    for host in &mut draft.plan.hosts[..2] {
        host.sets = ["cluster/c/set/rs0".to_owned()].into();
    }
    draft.plan.groups[0].max_unavailable = 2;
    let mut world = started(draft, &[]);
    until(&mut world, |world| {
        (0..2).all(|number| phase(world, number) == HostPhase::Settling)
    });
    let target = RollbackTarget::Group("one".to_owned());
    let reason = "the application misses metrics".to_owned();
    world.command(Command::Rollback { target, reason }).unwrap();
    let back =
        |world: &World, wanted: HostPhase| (0..2).filter(|number| phase(world, *number) == wanted).count();
    assert_eq!(back(&world, HostPhase::RollingBack), 1);
    until(&mut world, |world| {
        assert!(back(world, HostPhase::RollingBack) < 2);
        back(world, HostPhase::RolledBack) == 2
    });
    sound(&world);
}
