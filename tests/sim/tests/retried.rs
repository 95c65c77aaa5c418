//! What `retry` reaches, and that it is stored.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use fleet_sim::fixture::{ACCEPT, GroupSpec};
use fleet_sim::hosts::Behaviour;
use fleet_sim::steps::{id, resume, retry, sound};
use fleet_sim::{Faults, World, until};
use rollout::kernel::{Command, HostPhase, Kernel, RolloutPhase, Row};

const BRIDGE: &str = "[server.pmm2_clients]\nbridge = \"3.2.0\"";

fn world(groups: &[GroupSpec<'_>], decision: &str, bad: usize, behaviour: Behaviour) -> World {
    let mut world = World::new(7, groups, decision, Faults::NONE);
    world.helpful = false;
    world.hosts.get_mut(&id(bad)).unwrap().behaviour = behaviour;
    world
}

fn phase(world: &World, number: usize) -> HostPhase {
    world.kernel.host(&"clients-1".into(), &id(number)).unwrap().phase
}

fn paused_for(world: &World, code: &str) -> bool {
    let pause = world.kernel.rollout().pause.as_ref();
    pause.is_some_and(|pause| pause.code == code)
}

#[test]
fn whoever_holds_the_slot_is_not_behind_one_that_waits_for_it() {
    let groups = [(
        "one",
        3,
        "canaries = 0\nmax_unavailable = 1\nfailure_threshold = 1",
    )];
    let mut world = world(&groups, ACCEPT, 1, Behaviour::Inconsistent);
    world.start();
    let (host, reason) = (id(0).to_string(), "not yet".to_owned());
    world
        .command(Command::Hold {
            host: host.clone(),
            reason,
        })
        .unwrap();
    until(&mut world, |world| phase(world, 1) == HostPhase::Inconsistent);
    until(&mut world, |world| paused_for(world, "slots_exhausted"));
    world.command(Command::Unhold { host }).unwrap();
    world.hosts.get_mut(&id(1)).unwrap().behaviour = Behaviour::Good;
    retry(&mut world, &[1]).unwrap();
    until(&mut world, |world| world.kernel.is_final());
    assert_eq!(world.kernel.phase(), RolloutPhase::Succeeded);
    sound(&world);
}

#[test]
fn clients_are_tried_again_before_the_server_leg_that_waits_for_them() {
    let groups = [("one", 3, "failure_threshold = 1")];
    for named in [true, false] {
        let mut world = world(&groups, BRIDGE, 2, Behaviour::RollsBack);
        world.start();
        until(&mut world, |world| paused_for(world, "bridge_incomplete"));
        world.hosts.get_mut(&id(2)).unwrap().behaviour = Behaviour::Good;
        if named {
            retry(&mut world, &[2]).unwrap();
        } else {
            let (hosts, server) = (Vec::new(), false);
            world.command(Command::Retry { hosts, server }).unwrap();
        }
        until(&mut world, |world| world.kernel.is_final());
        assert_eq!(world.kernel.phase(), RolloutPhase::Succeeded);
    }
}

#[test]
fn a_host_that_failed_the_survey_and_is_tried_again_is_left_out_no_more() {
    let mut world = world(&[("one", 2, "")], ACCEPT, 1, Behaviour::Unready);
    world.start();
    until(&mut world, |world| paused_for(world, "survey"));
    world.faults.view_lost = 1;
    resume(&mut world).unwrap();
    assert!(world.kernel.rollout().accepted.contains(&id(1)));
    world.hosts.get_mut(&id(1)).unwrap().behaviour = Behaviour::Good;
    retry(&mut world, &[1]).unwrap();
    let rows = world.store.iter().map(|(key, json)| Row {
        key: key.clone(),
        json: json.clone(),
    });
    let read = Kernel::restore(&world.bytes, &rows.collect::<Vec<_>>()).unwrap();
    assert_eq!(read.rollout(), world.kernel.rollout());
    assert!(read.rollout().accepted.is_empty());
    world.faults.view_lost = 0;
    world.crash();
    until(&mut world, |world| world.kernel.is_final());
    assert_eq!(world.kernel.phase(), RolloutPhase::Succeeded);
}

#[test]
fn a_new_attempt_in_one_group_forgives_nothing_in_another() {
    let groups = [
        ("one", 2, "failure_threshold = 1"),
        ("two", 2, "failure_threshold = 0"),
    ];
    let mut world = world(&groups, ACCEPT, 0, Behaviour::RollsBack);
    world.hosts.get_mut(&id(2)).unwrap().behaviour = Behaviour::RollsBack;
    world.start();
    until(&mut world, |world| paused_for(world, "threshold"));
    retry(&mut world, &[0]).unwrap();
    let pause = world.kernel.rollout().pause.clone().unwrap();
    assert_eq!(pause.text, "group two: 1 failed, 0 tolerated");
    resume(&mut world).unwrap();
    until(&mut world, |world| world.kernel.is_final());
    assert_eq!(world.kernel.phase(), RolloutPhase::FinishedWithExceptions);
}
