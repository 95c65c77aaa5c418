//! What lies between two legs: a look at PMM before a person is asked about it.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use fleet_sim::steps::{id, paused, started};
use fleet_sim::{World, until};
use rollout::kernel::{HostPhase, HostRow, RolloutPhase};

fn row(world: &World, leg: &str, number: usize) -> HostRow {
    world.kernel.host(&leg.into(), &id(number)).unwrap().clone()
}

/// There is no coordinator for so long; what the agents do goes on.
fn down_for(world: &mut World, ms: u64) {
    world.now += ms;
    world.crash();
}

/// Never paused for so many seconds.
fn goes_on(world: &mut World, seconds: u64) {
    for _ in 0..seconds {
        world.step();
        assert_eq!(paused(world), "");
    }
}

#[test]
fn a_coordinator_that_was_away_during_the_checks_looks_before_it_asks_a_person() {
    let mut world = started(&[("one", 2, "canaries = 0")], &[], &|_| {});
    until(&mut world, |world| world.kernel.phase() == RolloutPhase::Checking);
    let verify_ms = world.kernel.plan().timing.verify_ms;
    down_for(&mut world, verify_ms + 60_000);
    let told = world.kernel.rollout_duty(world.now).unwrap();
    assert!(told.deadline_ms.unwrap() > world.now, "{told:?}");
    goes_on(&mut world, 120);
    assert_eq!(world.kernel.phase(), RolloutPhase::Succeeded);
}

#[test]
fn a_coordinator_that_was_away_before_the_baseline_looks_before_it_asks_a_person() {
    let mut world = started(&[("one", 2, "canaries = 0")], &[], &|_| {});
    until(&mut world, |world| {
        row(world, "survey", 0).phase == HostPhase::Preparing
    });
    let offline_for_ms = world.kernel.plan().timing.offline_for_ms;
    down_for(&mut world, 600_000 + offline_for_ms + 60_000);
    goes_on(&mut world, 180);
    assert!(world.kernel.baseline().is_some());
}

/// With many hosts to ask and packages to load that is no rarity.
#[test]
fn a_survey_that_takes_long_is_followed_by_a_look_at_pmm_and_not_by_a_question() {
    let mut world = started(&[("one", 2, "canaries = 0")], &[], &|plan| {
        plan.timing.preflight_ms = 3_600_000;
    });
    until(&mut world, |world| {
        row(world, "survey", 0).phase == HostPhase::Preparing
    });
    // The agent has its order and works on it.
    world.hosts.get_mut(&id(0)).unwrap().gone = true;
    world.disconnect(&id(0));
    for _ in 0..1_200 {
        world.step();
        assert_eq!(paused(&world), "");
    }
    world.hosts.get_mut(&id(0)).unwrap().gone = false;
    world.connect(&id(0));
    until(&mut world, |world| row(world, "survey", 0).phase.is_final());
    goes_on(&mut world, 120);
    assert!(world.kernel.baseline().is_some());
}
