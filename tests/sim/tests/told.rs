//! What a command answers while hosts are under way.

#![allow(clippy::unwrap_used)]

use fleet_sim::hosts::Behaviour;
use fleet_sim::steps::{host, id, started};
use fleet_sim::{World, until};
use rollout::kernel::{Command, HostPhase};

fn free_slot(world: &mut World, number: usize) -> Result<String, String> {
    world.command(Command::FreeSlot {
        host: id(number).to_string(),
        reason: "looked at".to_owned(),
    })
}

#[test]
fn a_host_under_way_keeps_its_slot() {
    let groups = [("one", 1, "canaries = 0")];
    let mut world = started(&groups, &[(0, Behaviour::NoSamples)], &|_| {});
    for phase in [
        HostPhase::Permitted,
        HostPhase::Switching,
        HostPhase::Verifying,
        HostPhase::RollingBack,
    ] {
        until(&mut world, |world| host(world, 0).phase == phase);
        assert_eq!(free_slot(&mut world, 0), Err("under_way".to_owned()));
        assert!(host(&world, 0).slot);
    }
    assert_eq!(world.watcher.violations, Default::default());
}
