//! Hosts that are away, lost, skipped or to go back: nobody is forgotten, and nobody is upgraded who should not be.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use fleet_sim::fixture::{self, GroupSpec, NOW};
use fleet_sim::hosts::Behaviour;
use fleet_sim::steps::{host, id, leaves, paused, planned, resume, returns};
use fleet_sim::{World, until};
use rollout::explain;
use rollout::kernel::{Command, HostPhase, HostRow, Input, RollbackTarget, RolloutPhase};
use rollout::plan::Plan;
use rollout::policy::Offline;

/// Under a server that takes PMM 2 clients still.
fn world(groups: &[GroupSpec<'_>], behaviours: &[(usize, Behaviour)], edit: &dyn Fn(&mut Plan)) -> World {
    planned(groups, behaviours, &|plan| {
        fixture::way_back(plan, true);
        edit(plan);
    })
}

fn started(groups: &[GroupSpec<'_>], behaviours: &[(usize, Behaviour)], edit: &dyn Fn(&mut Plan)) -> World {
    let mut world = world(groups, behaviours, edit);
    world.start();
    world
}

fn surveyed(world: &World, number: usize) -> &HostRow {
    world.kernel.host(&"survey".into(), &id(number)).unwrap()
}

fn the_one_in(world: &World, hosts: usize, phase: HostPhase) -> Option<usize> {
    (0..hosts).find(|number| host(world, *number).phase == phase)
}

fn ends(world: &mut World) {
    until(world, |world| world.kernel.is_final());
    assert_eq!(world.watcher.violations, Default::default());
}

#[test]
fn the_server_is_not_touched_before_somebody_accepts_that_hosts_were_not_surveyed() {
    let mut world = world(&[("one", 6, "canaries = 0\noffline = \"wait\"")], &[], &|_| {});
    for number in 0..6 {
        leaves(&mut world, number);
    }
    world.start();
    let told = explain::explain(&world.kernel, "survey", world.now);
    until(&mut world, |world| {
        world.open_hop().is_some() || world.kernel.phase() == RolloutPhase::Paused
    });
    assert!(world.open_hop().is_none(), "{told:?}");
    let text = paused(&world);
    assert!(
        text.starts_with("survey: 6 hosts were not surveyed: node-0, node-1"),
        "{text}"
    );
    // Whoever is back by `resume` is surveyed after all; the others are accepted and asked at their turn.
    for number in 0..5 {
        returns(&mut world, number);
    }
    resume(&mut world).unwrap();
    until(&mut world, |world| world.open_hop().is_some());
    let phases = (0..6).map(|number| surveyed(&world, number).phase);
    assert_eq!(
        phases.filter(|phase| *phase == HostPhase::Surveyed).count(),
        5,
        "{}",
        surveyed(&world, 5).reason
    );
    returns(&mut world, 5);
    ends(&mut world);
    assert!(host(&world, 5).upgraded());
}

#[test]
fn a_restart_during_a_long_survey_leaves_nobody_unsurveyed() {
    // One after the other, and the last one is not ready.
    let mut world = started(
        &[("one", 40, "canaries = 0")],
        &[(39, Behaviour::Unready)],
        &|plan| {
            for host in &mut plan.hosts {
                host.site = Some("m".to_owned());
            }
            for group in &mut plan.groups {
                group.per_site = Some(1);
            }
        },
    );
    until(&mut world, |world| world.now > NOW + 130_000);
    let waiting = |world: &World| {
        let rows = (0..40).map(|number| surveyed(world, number).phase);
        rows.filter(|phase| *phase == HostPhase::Waiting).count()
    };
    assert!(waiting(&world) > 5);
    world.crash();
    world.give(Input::Tick);
    for number in 0..40 {
        world.connect(&id(number));
    }
    until(&mut world, |world| {
        world.open_hop().is_some() || world.kernel.phase() == RolloutPhase::Paused
    });
    assert!(
        paused(&world).contains("1 host failed the survey"),
        "{}",
        paused(&world)
    );
    let skipped = (0..40).filter(|number| surveyed(&world, *number).phase == HostPhase::Skipped);
    assert_eq!(skipped.count(), 0);
}

#[test]
fn a_host_that_was_wanted_back_and_let_its_permit_pass_does_not_begin_after_all() {
    let mut world = started(&[("one", 3, "canaries = 0\nmax_unavailable = 1")], &[], &|_| {});
    until(&mut world, |world| {
        the_one_in(world, 3, HostPhase::Permitted).is_some()
    });
    let number = the_one_in(&world, 3, HostPhase::Permitted).unwrap();
    leaves(&mut world, number);
    let command = Command::Rollback {
        target: RollbackTarget::Host(id(number).to_string()),
        reason: "not this one".to_owned(),
    };
    world.command(command).unwrap();
    // Past the permit's time, but not so long that it is lost.
    for _ in 0..45 {
        world.step();
    }
    returns(&mut world, number);
    until(&mut world, |world| !host(world, number).phase.in_flight());
    let row = host(&world, number);
    assert_eq!(row.phase, HostPhase::Skipped, "{}", row.reason);
    assert!(row.reason.contains("not this one"), "{}", row.reason);
    assert!(!row.slot && !row.counts);
    resume(&mut world).unwrap();
    ends(&mut world);
    assert_eq!(host(&world, number).phase, HostPhase::Skipped);
    assert_eq!(world.hosts[&id(number)].switches, 0);
}

#[test]
fn a_slot_that_was_freed_is_taken_again_when_the_lost_host_returns_in_flight() {
    let mut world = started(
        &[(
            "one",
            4,
            "canaries = 0\nmax_unavailable = 1\nfailure_threshold = 3",
        )],
        &[],
        &|_| {},
    );
    until(&mut world, |world| {
        the_one_in(world, 4, HostPhase::Switching).is_some()
    });
    let number = the_one_in(&world, 4, HostPhase::Switching).unwrap();
    // It dies in mid-switch: its client is down.
    let mut dead = world.hosts[&id(number)].clone();
    dead.connected = false;
    leaves(&mut world, number);
    until(&mut world, |world| host(world, number).phase == HostPhase::Lost);
    let command = Command::FreeSlot {
        host: id(number).to_string(),
        reason: "looked at".to_owned(),
    };
    world.command(command).unwrap();
    if world.kernel.phase() == RolloutPhase::Paused {
        resume(&mut world).unwrap();
    }
    world.hosts.insert(id(number), dead);
    world.connect(&id(number));
    // What began beside it goes on; nobody else begins before one of the two has ended.
    let began = |world: &World| {
        let rows = (0..4).filter(|other| host(world, *other).permitted_at_ms.is_some());
        rows.count()
    };
    let begun = began(&world);
    assert!(host(&world, number).slot, "{:?}", host(&world, number).phase);
    while host(&world, number).phase.in_flight() {
        assert_eq!(began(&world), begun);
        world.step();
    }
    ends(&mut world);
}

#[test]
fn a_lost_host_is_not_tried_again_while_it_is_away() {
    let mut world = started(
        &[(
            "one",
            4,
            "canaries = 0\nmax_unavailable = 2\nfailure_threshold = 3",
        )],
        &[(0, Behaviour::Silent)],
        &|_| {},
    );
    until(&mut world, |world| host(world, 0).phase == HostPhase::Switching);
    leaves(&mut world, 0);
    until(&mut world, |world| host(world, 0).phase == HostPhase::Lost);
    let retry = || Command::Retry {
        hosts: vec!["h0".to_owned()],
        server: false,
    };
    assert!(world.command(retry()).is_err());
    ends(&mut world);
    assert_eq!(world.kernel.phase(), RolloutPhase::FinishedWithLost);
    returns(&mut world, 0);
    assert_eq!(host(&world, 0).phase, HostPhase::Switching);
    assert_eq!(world.kernel.phase(), RolloutPhase::Running);
}

#[test]
fn a_lost_host_that_is_tried_again_and_leaves_is_lost_again_and_reopens_when_it_returns() {
    let mut world = started(
        &[(
            "one",
            4,
            "canaries = 0\nmax_unavailable = 2\nfailure_threshold = 3",
        )],
        &[(0, Behaviour::Silent)],
        &|_| {},
    );
    // It says nothing although it is there.
    until(&mut world, |world| host(world, 0).phase == HostPhase::Lost);
    let command = Command::Retry {
        hosts: vec!["h0".to_owned()],
        server: false,
    };
    world.command(command).unwrap();
    leaves(&mut world, 0);
    ends(&mut world);
    let row = host(&world, 0);
    assert_eq!(row.phase, HostPhase::Lost, "{}", row.reason);
    assert!(row.counts);
    assert_eq!(world.kernel.phase(), RolloutPhase::FinishedWithLost);
    world.crash();
    returns(&mut world, 0);
    assert_eq!(host(&world, 0).phase, HostPhase::Waiting);
    assert_eq!(world.kernel.phase(), RolloutPhase::Running);
}

#[test]
fn a_resume_right_after_a_restart_leaves_nobody_out_who_is_back() {
    let groups = [("one", 3, "canaries = 0"), ("two", 1, "")];
    let mut world = started(&groups, &[], &|plan| plan.groups[0].offline = Offline::Wait);
    until(&mut world, |world| world.open_hop().is_some());
    leaves(&mut world, 1);
    until(&mut world, |world| world.kernel.phase() == RolloutPhase::Paused);
    assert!(paused(&world).starts_with("offline"));
    returns(&mut world, 1);
    for _ in 0..5 {
        world.step();
    }
    world.crash();
    resume(&mut world).unwrap();
    assert_eq!(host(&world, 1).phase, HostPhase::Waiting);
    ends(&mut world);
    assert!(host(&world, 1).upgraded());
}

#[test]
fn a_host_that_was_skipped_and_is_tried_again_during_the_survey_is_upgraded() {
    let mut world = started(&[("one", 3, "canaries = 0")], &[], &|_| {});
    let reason = "not now".to_owned();
    world
        .command(Command::Skip {
            host: "h2".to_owned(),
            reason,
        })
        .unwrap();
    world
        .command(Command::Retry {
            hosts: vec!["h2".to_owned()],
            server: false,
        })
        .unwrap();
    ends(&mut world);
    assert!(host(&world, 2).upgraded(), "{}", host(&world, 2).reason);
}
