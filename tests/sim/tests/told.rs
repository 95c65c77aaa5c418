//! What a command answers while hosts are under way, and what `resume` accepts.

#![allow(clippy::unwrap_used)]

use fleet_sim::hosts::Behaviour;
use fleet_sim::steps::{group, host, id, paused, resume, started};
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

#[test]
fn resume_accepts_who_failed_and_nobody_else() {
    let groups = [(
        "one",
        4,
        "canaries = 0\nmax_unavailable = 1\nfailure_threshold = 0",
    )];
    let bad = [(0, Behaviour::RollsBack), (1, Behaviour::RollsBack)];
    let mut world = started(&groups, &bad, &|_| {});
    for number in 0..2 {
        until(&mut world, |world| paused(world).starts_with("threshold"));
        resume(&mut world).unwrap();
        let accepted: Vec<_> = group(&world, "one").forgiven.iter().cloned().collect();
        assert_eq!(accepted, (0..=number).map(id).collect::<Vec<_>>());
    }
    until(&mut world, |world| world.kernel.is_final());
    assert_eq!(world.watcher.violations, Default::default());
}

#[test]
fn resume_from_an_operators_pause_accepts_no_failure() {
    let groups = [(
        "one",
        4,
        "canaries = 0\nmax_unavailable = 1\nfailure_threshold = 1",
    )];
    let bad = [(0, Behaviour::RollsBack), (1, Behaviour::RollsBack)];
    let mut world = started(&groups, &bad, &|_| {});
    until(&mut world, |world| host(world, 0).phase == HostPhase::RolledBack);
    let reason = "lunch".to_owned();
    world.command(Command::Pause { reason }).unwrap();
    resume(&mut world).unwrap();
    assert!(group(&world, "one").forgiven.is_empty());
    until(&mut world, |world| paused(world).starts_with("threshold"));
    assert_eq!(world.watcher.violations, Default::default());
}
