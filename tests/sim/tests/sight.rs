//! The PMM Server out of sight while hosts are verified: that says nothing about them.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use fleet_sim as world;
use fleet_sim::until;

use fleet_common::ids::HostId;
use fleet_sim::fixture::ACCEPT;
use fleet_sim::hosts::Behaviour;
use rollout::kernel::{Command, HostPhase, RolloutPhase};
use rollout::progress;
use world::{Faults, World};

fn verifying(world: &World) -> bool {
    let row = world
        .kernel
        .host(&"clients-1".into(), &HostId::new("h0"))
        .unwrap();
    row.phase == HostPhase::Verifying && row.views > 0
}

/// One host that never has samples, seen once after its switch; then no view comes any more.
fn out_of_sight() -> World {
    let mut world = World::new(7, &[("one", 1, "failure_threshold = 0")], ACCEPT, Faults::NONE);
    world.helpful = false;
    world.hosts.get_mut(&HostId::new("h0")).unwrap().behaviour = Behaviour::NoSamples;
    world.start();
    until(&mut world, verifying);
    world.faults.view_lost = 1;
    until(&mut world, |world| world.kernel.phase() == RolloutPhase::Paused);
    world
}

#[test]
fn a_host_is_not_taken_back_because_pmm_went_out_of_sight() {
    let world = out_of_sight();
    let pause = progress::view(&world.kernel, world.now).paused.unwrap();
    assert_eq!(pause.code, "server_view_missing");
    assert!(verifying(&world), "it waits, and nothing was ordered");
}

#[test]
fn once_pmm_is_seen_again_the_host_is_judged() {
    let mut world = out_of_sight();
    world.faults.view_lost = 0;
    world
        .command(Command::Resume {
            reason: "PMM is back".to_owned(),
            accept_server: false,
        })
        .unwrap();
    until(&mut world, |world| world.phases()["h0"] == "rolled_back");
    let mut world = out_of_sight();
    world.faults.view_lost = 0;
    world.hosts.get_mut(&HostId::new("h0")).unwrap().samples = true;
    world
        .command(Command::Resume {
            reason: "PMM is back".to_owned(),
            accept_server: false,
        })
        .unwrap();
    until(&mut world, |world| world.phases()["h0"] == "upgraded");
}
