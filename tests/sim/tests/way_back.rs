//! The way back of verified hosts: how long it is kept, and how it is taken.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use fleet_sim as world;

use fleet_common::ids::HostId;
use fleet_common::order::Action;
use fleet_sim::fixture::{ACCEPT, GroupSpec};
use fleet_sim::hosts::Behaviour;
use rollout::kernel::{Command, HostPhase, HostRow, LegPhase, RolloutPhase};
use rollout::{explain, progress, report};
use world::{Faults, World};

const BRIDGE: &str = "[server.pmm2_clients]\nbridge = \"3.2.0\"";

fn world_with(groups: &[GroupSpec<'_>], decision: &str, behaviours: &[(usize, Behaviour)]) -> World {
    let mut world = World::new(7, groups, decision, Faults::NONE);
    world.helpful = false;
    for (number, behaviour) in behaviours {
        world.hosts.get_mut(&id(*number)).unwrap().behaviour = *behaviour;
    }
    world.start();
    world
}

fn world(groups: &[GroupSpec<'_>], behaviours: &[(usize, Behaviour)]) -> World {
    world_with(groups, ACCEPT, behaviours)
}

fn id(number: usize) -> HostId {
    HostId::new(format!("h{number}"))
}

fn row(world: &World, leg: &str, number: usize) -> HostRow {
    world.kernel.host(&leg.into(), &id(number)).unwrap().clone()
}

fn phase(world: &World, number: usize) -> HostPhase {
    row(world, "clients-1", number).phase
}

fn until(world: &mut World, what: impl Fn(&World) -> bool) {
    for _ in 0..7_200 {
        if what(world) {
            return;
        }
        world.step();
    }
    panic!("never happened: {:#?}", progress::view(&world.kernel, world.now));
}

fn rest(world: &mut World) {
    until(world, |world| progress::view(&world.kernel, world.now).at_rest);
}

fn sound(world: &World) {
    assert!(
        world.watcher.violations.is_empty(),
        "{:?}",
        world.watcher.violations
    );
}

#[test]
fn a_verified_host_keeps_its_way_back_to_the_end_and_counts_as_upgraded() {
    let groups = [("one", 1, ""), ("two", 3, "canaries = 1\nsoak = \"60s\"")];
    let mut world = world(&groups, &[]);
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
    let mut world = world_with(&[("one", 3, "")], BRIDGE, &[]);
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
    let mut world = world(&[("one", 2, "")], &[]);
    until(&mut world, |world| world.kernel.phase() == RolloutPhase::Checking);
    world.hosts.get_mut(&id(1)).unwrap().gone = true;
    world.disconnect(&id(1));
    rest(&mut world);
    assert_eq!(world.kernel.phase(), RolloutPhase::Succeeded);
    assert!(row(&world, "clients-1", 1).reason.contains("did not say"));

    let mut world = self::world(&[("one", 4, "max_unavailable = 1")], &[]);
    until(&mut world, |world| phase(world, 0) == HostPhase::Settling);
    let reason = "enough".to_owned();
    world.command(Command::Abort { reason, force: true }).unwrap();
    rest(&mut world);
    assert_eq!(world.kernel.phase(), RolloutPhase::Aborted);
    assert_eq!(phase(&world, 0), HostPhase::Upgraded);
    assert!(!world.hosts[&id(0)].changed);
    sound(&world);
}
