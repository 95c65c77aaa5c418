//! What lies between two legs: a look at PMM before a person is asked about it, the bridge and who is told of the hosts behind it, and hosts
//! that come back to a leg while the server's next hop is due or under way.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use fleet_sim::fixture;
use fleet_sim::hosts::Behaviour;
use fleet_sim::steps::{host, id, leaves, paused, resume, returns, sound, started};
use fleet_sim::{Faults, World, rules, until};
use rollout::explain;
use rollout::kernel::{Command, HostPhase, HostRow, LegPhase, Mutant, RollbackTarget, RolloutPhase};

const BRIDGE: &str = "[server.pmm2_clients]\nbridge = \"3.2.0\"";
const THREE: [fixture::GroupSpec<'static>; 1] = [(
    "one",
    3,
    "canaries = 0\nfailure_threshold = 2\nmax_unavailable = 3",
)];

/// A plan with a bridge, in which h1 behaves like this.
fn bridge(h1: Behaviour) -> World {
    bridge_of(7, h1)
}

fn bridge_of(seed: u64, h1: Behaviour) -> World {
    let mut world = World::of_plan(seed, fixture::draft(&THREE, BRIDGE), Faults::NONE);
    world.helpful = false;
    world.hosts.get_mut(&id(1)).unwrap().behaviour = h1;
    world.start();
    world
}

fn back(world: &mut World, target: RollbackTarget) -> Result<String, String> {
    let reason = "slow queries".to_owned();
    world.command(Command::Rollback { target, reason })
}

/// h1 vanishes in the middle of its switch to the bridge's release.
fn loses_h1(world: &mut World) {
    until(world, |world| host(world, 1).phase == HostPhase::Switching);
    leaves(world, 1);
}

/// The last server leg of a plan with a bridge.
fn last_server(world: &World) -> &rollout::kernel::LegRow {
    &world.kernel.legs()[3]
}

fn hop_is_open(world: &World) -> bool {
    last_server(world).hops.iter().any(|hop| hop.order.is_some())
}

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

#[test]
fn who_resumes_past_the_bridge_is_told_of_every_host_that_is_behind() {
    let mut world = bridge(Behaviour::Slow);
    loses_h1(&mut world);
    until(&mut world, |world| paused(world).starts_with("bridge_incomplete"));
    assert!(paused(&world).contains("1 host did not reach") && paused(&world).contains("node-1"));
    back(&mut world, RollbackTarget::Group("one".to_owned())).unwrap();
    until(&mut world, |world| {
        host(world, 0).phase == HostPhase::RolledBack && host(world, 2).phase == HostPhase::RolledBack
    });
    // The pause tells of those that fell behind during it, before anybody resumes.
    let told = paused(&world);
    assert!(
        told.contains("3 hosts") && told.contains("node-0") && told.contains("node-2"),
        "{told}"
    );
    resume(&mut world).unwrap();
    until(&mut world, hop_is_open);
}

#[test]
fn who_falls_behind_after_the_bridge_was_accepted_is_asked_about_too() {
    let mut world = bridge(Behaviour::Slow);
    loses_h1(&mut world);
    until(&mut world, |world| paused(world).starts_with("bridge_incomplete"));
    returns(&mut world, 1);
    resume(&mut world).unwrap();
    // The hop waits for h1, and meanwhile another one is taken back under a pause of the operator's own.
    let reason = "lunch".to_owned();
    world.command(Command::Pause { reason }).unwrap();
    back(&mut world, RollbackTarget::Host("h0".to_owned())).unwrap();
    until(&mut world, |world| {
        host(world, 0).phase == HostPhase::RolledBack && host(world, 1).made_it()
    });
    assert!(paused(&world).starts_with("operator"), "{}", paused(&world));
    resume(&mut world).unwrap();
    until(&mut world, |world| {
        !paused(world).is_empty() || hop_is_open(world)
    });
    let asked = paused(&world);
    assert!(
        asked.contains("1 host did not reach") && asked.contains("node-0"),
        "{asked}"
    );
    resume(&mut world).unwrap();
    until(&mut world, hop_is_open);
}

#[test]
fn a_hop_does_not_begin_while_a_late_host_of_the_leg_before_is_verified() {
    let mut world = bridge(Behaviour::NoSamples);
    loses_h1(&mut world);
    until(&mut world, |world| !paused(world).is_empty());
    returns(&mut world, 1);
    resume(&mut world).unwrap();
    until(&mut world, |world| host(world, 1).phase == HostPhase::Verifying);
    assert!(!hop_is_open(&world));
    let duty = world.kernel.leg_duty(last_server(&world), world.now).unwrap();
    assert_eq!(duty.code, "late_hosts", "{duty:?}");
    assert!(
        duty.text.contains("node-1") && duty.text.contains("clients-1"),
        "{duty:?}"
    );
    assert_eq!(duty.deadline_ms, host(&world, 1).deadline_ms);
    for subject in ["server", "rollout"] {
        let told = explain::explain(&world.kernel, subject, world.now).unwrap();
        assert!(
            told.waits_for.iter().any(|text| text.contains("node-1")),
            "{told:#?}"
        );
        assert_eq!(told.deadline_ms, duty.deadline_ms, "{told:#?}");
    }
    until(&mut world, hop_is_open);
    assert_eq!(host(&world, 1).phase, HostPhase::RolledBack);
    world.rest();
    sound(&world);
}

/// That the rule is looked at: a kernel that breaks it is caught.
#[test]
fn a_hop_that_begins_beside_a_late_host_is_seen_by_the_watcher() {
    let mut world = bridge(Behaviour::NoSamples);
    world.break_rule(Mutant::HopPastLateHosts);
    loses_h1(&mut world);
    until(&mut world, |world| !paused(world).is_empty());
    returns(&mut world, 1);
    resume(&mut world).unwrap();
    until(&mut world, hop_is_open);
    assert!(
        world.watcher.violations.contains_key(rules::LATE),
        "{:?}",
        world.watcher.violations
    );
}

#[test]
fn a_late_host_that_makes_it_before_the_hop_takes_part_in_the_next_leg() {
    let mut world = bridge(Behaviour::Slow);
    loses_h1(&mut world);
    until(&mut world, |world| !paused(world).is_empty());
    returns(&mut world, 1);
    resume(&mut world).unwrap();
    until(&mut world, hop_is_open);
    assert!(host(&world, 1).made_it(), "{:?}", host(&world, 1).phase);
    world.rest();
    assert_eq!(world.kernel.phase(), RolloutPhase::Succeeded);
    assert_eq!(world.outcome(1), "upgraded");
}

#[test]
fn clients_do_not_go_back_past_a_hop_that_is_under_way() {
    for seed in 0..3 {
        let mut world = bridge_of(seed, Behaviour::Slow);
        loses_h1(&mut world);
        until(&mut world, |world| !paused(world).is_empty());
        resume(&mut world).unwrap();
        until(&mut world, hop_is_open);
        // A hop takes minutes.
        world.hop_pause = 60_000;
        returns(&mut world, 1);
        for target in [
            RollbackTarget::Clients,
            RollbackTarget::Group("one".to_owned()),
            RollbackTarget::Host("h1".to_owned()),
        ] {
            let refused = back(&mut world, target).unwrap_err();
            assert_eq!(refused, "hop_under_way");
        }
        let told = explain::explain(&world.kernel, "h1", world.now).unwrap();
        assert!(
            told.you_can
                .iter()
                .all(|choice| !choice.command.starts_with("rollback")),
            "{told:#?}"
        );
        for _ in 0..600 {
            world.step();
            assert!(!(world.kernel.is_final() && hop_is_open(&world)), "seed {seed}");
        }
    }
}

#[test]
fn a_late_host_of_a_group_taken_back_does_not_go_to_pmm2_under_the_last_server() {
    let mut world = bridge(Behaviour::Slow);
    until(&mut world, |world| {
        host(world, 1).phase == HostPhase::Switching && host(world, 0).made_it() && host(world, 2).made_it()
    });
    leaves(&mut world, 1);
    back(&mut world, RollbackTarget::Group("one".to_owned())).unwrap();
    until(&mut world, |world| {
        host(world, 0).phase == HostPhase::RolledBack
            && host(world, 2).phase.is_final()
            && host(world, 1).phase == HostPhase::Lost
    });
    for _ in 0..600 {
        let _ = resume(&mut world);
        world.step();
    }
    assert_eq!(last_server(&world).phase, LegPhase::Settled);
    assert_eq!(world.server_version.to_string(), "3.9.1");
    returns(&mut world, 1);
    until(&mut world, |world| host(world, 1).upgraded());
    assert_eq!(world.hosts[&id(1)].version.unwrap().to_string(), "3.2.0");
    let report = rollout::report::report(&world.kernel, world.now);
    let told = explain::explain(&world.kernel, "h1", world.now).unwrap();
    for text in [format!("{:?}", report.hosts[1]), format!("{told:?}")] {
        assert!(
            text.contains("its group was taken back") && text.contains("runs 3.9.1"),
            "{text}"
        );
    }
    world.rest();
    sound(&world);
}
