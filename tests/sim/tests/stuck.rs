//! Hosts that keep others from beginning: a person is told, and nobody begins beyond what is allowed.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use fleet_sim::fixture::{self, GroupSpec};
use fleet_sim::hosts::Behaviour;
use fleet_sim::steps::{group, host, id, leaves, paused, resume, retry, returns, sound, started};
use fleet_sim::{Faults, World, until};
use rollout::explain;
use rollout::kernel::{Command, GroupPhase, HostPhase, HostRow, LegPhase, RollbackTarget, RolloutPhase};

const BRIDGE: &str = "[server.pmm2_clients]\nbridge = \"3.2.0\"";

/// A started fleet with a bridge in which nothing goes wrong but what these hosts do.
fn bridge(groups: &[GroupSpec<'_>], threshold: Option<u32>, behaviours: &[(usize, Behaviour)]) -> World {
    let mut draft = fixture::draft(groups, BRIDGE);
    draft.plan.failure_threshold = threshold;
    for group in &mut draft.plan.groups {
        group.retry.clear();
        group.ramp.clear();
    }
    let mut world = World::of_plan(7, draft, Faults::NONE);
    world.helpful = false;
    for (number, behaviour) in behaviours {
        world.hosts.get_mut(&id(*number)).unwrap().behaviour = *behaviour;
    }
    world.start();
    world
}

fn row<'a>(world: &'a World, leg: &str, number: usize) -> &'a HostRow {
    world.kernel.host(&leg.into(), &id(number)).unwrap()
}

fn steps(world: &mut World, number: usize) {
    for _ in 0..number {
        world.step();
    }
}

fn hold(world: &mut World, number: usize) {
    let (host, reason) = (id(number).to_string(), "its disk is being replaced".to_owned());
    world.command(Command::Hold { host, reason }).unwrap();
}

fn free_slot(world: &mut World, number: usize) -> Result<String, String> {
    let (host, reason) = (id(number).to_string(), "not needed".to_owned());
    world.command(Command::FreeSlot { host, reason })
}

/// The commands that a person is shown for the pause.
fn ways_on(world: &World) -> String {
    let answer = explain::explain(&world.kernel, "rollout", world.now).unwrap();
    let lines = answer
        .you_can
        .iter()
        .map(|way| format!("{} | {}\n", way.command, way.does));
    lines.collect()
}

/// The first host of a group of three has ended without a client, and nobody else may begin beside it.
fn exhausted() -> World {
    let groups = [(
        "one",
        3,
        "canaries = 0\nmax_unavailable = 1\nfailure_threshold = 2",
    )];
    let mut world = started(&groups, &[(0, Behaviour::Inconsistent)], &|_| {});
    until(&mut world, |world| paused(world).starts_with("slots_exhausted"));
    world
}

#[test]
fn a_host_tried_again_while_away_does_not_stop_the_rollout_for_ever() {
    let mut world = exhausted();
    leaves(&mut world, 0);
    retry(&mut world, &[0]).unwrap();
    // An agent that only lost its connection has the time to come back.
    steps(&mut world, 20);
    assert_eq!(paused(&world), "");
    until(&mut world, |world| !paused(world).is_empty());
    let told = paused(&world);
    assert!(told.starts_with("slots_exhausted"), "{told}");
    assert!(
        told.ends_with("to be tried again, node-0 is held or away"),
        "{told}"
    );
    let ways = ways_on(&world);
    assert!(ways.contains("bring node-0 or its agent back"), "{ways}");
    assert!(ways.contains("host free-slot node-0"), "{ways}");
    // When it returns the cause is gone, and it goes on at `resume`.
    world.hosts.get_mut(&id(0)).unwrap().behaviour = Behaviour::Good;
    returns(&mut world, 0);
    steps(&mut world, 3);
    assert!(
        world
            .kernel
            .rollout()
            .pause
            .as_ref()
            .unwrap()
            .over_since_ms
            .is_some()
    );
    resume(&mut world).unwrap();
    world.rest();
    assert_eq!(world.kernel.phase(), RolloutPhase::Succeeded);
    sound(&world);
}

#[test]
fn an_agent_that_is_away_for_a_moment_pauses_nothing() {
    let mut world = exhausted();
    world.hosts.get_mut(&id(0)).unwrap().behaviour = Behaviour::Good;
    leaves(&mut world, 0);
    retry(&mut world, &[0]).unwrap();
    steps(&mut world, 30);
    returns(&mut world, 0);
    until(&mut world, |world| {
        host(world, 0).made_it() || !paused(world).is_empty()
    });
    assert_eq!(paused(&world), "");
}

#[test]
fn a_slot_of_a_host_that_is_held_before_its_next_attempt_is_told_of() {
    let mut world = exhausted();
    hold(&mut world, 0);
    retry(&mut world, &[0]).unwrap();
    steps(&mut world, 3);
    assert!(
        paused(&world).starts_with("slots_exhausted"),
        "{}",
        paused(&world)
    );
    let ways = ways_on(&world);
    assert!(ways.contains("host unhold node-0"), "{ways}");
    free_slot(&mut world, 0).unwrap();
    resume(&mut world).unwrap();
    until(&mut world, |world| {
        host(world, 1).made_it() && host(world, 2).made_it()
    });
    sound(&world);
}

#[test]
fn a_member_of_a_set_that_is_tried_again_while_away_does_not_stop_the_others_for_ever() {
    let groups = [(
        "one",
        4,
        "canaries = 0\nmax_unavailable = 3\nfailure_threshold = 3",
    )];
    let mut world = started(&groups, &[(0, Behaviour::Inconsistent)], &|plan| {
        for host in &mut plan.hosts {
            host.sets = ["cluster/a".to_owned()].into();
        }
    });
    until(&mut world, |world| paused(world).starts_with("set_exhausted"));
    leaves(&mut world, 0);
    retry(&mut world, &[0]).unwrap();
    assert_eq!(paused(&world), "");
    until(&mut world, |world| !paused(world).is_empty());
    assert!(paused(&world).starts_with("set_exhausted"), "{}", paused(&world));
    sound(&world);
}

/// A bridge plan of six hosts of which the first ended without a client in the first leg; the second leg has begun.
fn second_leg(most: u32) -> World {
    let policy = format!("canaries = 0\nfailure_threshold = 2\nmax_unavailable = {most}");
    let groups = [("one", 6, policy.as_str())];
    let mut world = bridge(&groups, None, &[(0, Behaviour::Inconsistent)]);
    until(&mut world, |world| !paused(world).is_empty());
    while world.kernel.legs()[4].phase == LegPhase::Waiting {
        if !paused(&world).is_empty() {
            if paused(&world).starts_with("slots_exhausted") {
                free_slot(&mut world, 0).unwrap();
            }
            resume(&mut world).unwrap();
        }
        world.step();
    }
    world
}

fn down(world: &World) -> usize {
    let holds =
        |number: &usize| row(world, "clients-1", *number).slot || row(world, "clients-2", *number).slot;
    (0..6).filter(holds).count()
}

#[test]
fn a_slot_that_is_held_since_an_earlier_leg_counts_in_the_next() {
    let mut world = second_leg(2);
    assert!(row(&world, "clients-1", 0).slot);
    let mut most = 0;
    until_settled(&mut world, &mut most);
    assert_eq!(most, 2, "hosts without a working client at once");
    assert!(row(&world, "clients-1", 0).slot, "nobody has repaired it");
    free_slot(&mut world, 0).unwrap();
    assert_eq!(down(&world), 0);
    sound(&world);
}

fn until_settled(world: &mut World, most: &mut usize) {
    for _ in 0..3_600 {
        world.step();
        *most = (*most).max(down(world));
        if (1..6).all(|number| row(world, "clients-2", number).made_it()) {
            return;
        }
    }
    panic!("{:?} {}", world.phases(), paused(world));
}

#[test]
fn a_slot_from_an_earlier_leg_is_its_own_when_the_host_is_tried_again_and_free_when_it_works() {
    let mut world = second_leg(2);
    // Both slots are in its way: its own, and that of a host that is under way.
    world.hosts.get_mut(&id(0)).unwrap().behaviour = Behaviour::Good;
    retry(&mut world, &[0]).unwrap();
    let mut most = 0;
    until_settled(&mut world, &mut most);
    assert_eq!(most, 2);
    until(&mut world, |world| row(world, "clients-2", 0).made_it());
    assert!(!row(&world, "clients-1", 0).slot && !row(&world, "clients-2", 0).slot);
    sound(&world);
}

/// A bridge plan of three hosts of which the last one ends without a client in the first leg, so that nobody waits for its slot there;
/// the pause before the next server was resumed.
fn last_one_is_stuck(policy: &str, together: bool) -> (World, usize) {
    let mut draft = fixture::draft(&[("one", 3, policy)], BRIDGE);
    if together {
        for host in &mut draft.plan.hosts {
            host.sets = ["cluster/a".to_owned()].into();
        }
    }
    let mut world = World::of_plan(7, draft, Faults::NONE);
    world.helpful = false;
    world.start();
    let open = |world: &World| {
        let open = (0..3).filter(|number| !host(world, *number).made_it());
        open.collect::<Vec<_>>()
    };
    until(&mut world, |world| open(world).len() == 1);
    let last = open(&world)[0];
    world.hosts.get_mut(&id(last)).unwrap().behaviour = Behaviour::Inconsistent;
    until(&mut world, |world| !paused(world).is_empty());
    assert!(
        paused(&world).starts_with("bridge_incomplete"),
        "{}",
        paused(&world)
    );
    resume(&mut world).unwrap();
    (world, last)
}

/// It has its slot and goes on with it, and then the others do.
fn ends_when_it_is_tried_again(world: &mut World, last: usize) {
    world.hosts.get_mut(&id(last)).unwrap().behaviour = Behaviour::Good;
    retry(world, &[last]).unwrap();
    world.rest();
    let all = (0..3).all(|number| row(world, "clients-2", number).made_it());
    assert!(all, "{} {:?}", paused(world), world.phases());
    assert!(!row(world, "clients-1", last).slot && !row(world, "clients-2", last).slot);
    sound(world);
}

#[test]
fn a_host_that_holds_the_only_slot_since_an_earlier_leg_stops_the_next_until_a_person_acts() {
    let (mut world, last) =
        last_one_is_stuck("canaries = 0\nfailure_threshold = 2\nmax_unavailable = 1", false);
    until(&mut world, |world| paused(world).starts_with("slots_exhausted"));
    let ways = ways_on(&world);
    assert!(ways.contains(&format!("host free-slot node-{last}")), "{ways}");
    assert!((0..3).all(|number| !row(&world, "clients-2", number).slot));
    ends_when_it_is_tried_again(&mut world, last);
}

#[test]
fn a_member_of_a_set_does_not_keep_itself_back_by_a_slot_from_an_earlier_leg() {
    let (mut world, last) =
        last_one_is_stuck("canaries = 0\nfailure_threshold = 2\nmax_unavailable = 2", true);
    until(&mut world, |world| paused(world).starts_with("set_exhausted"));
    ends_when_it_is_tried_again(&mut world, last);
}

#[test]
fn a_group_that_ended_without_a_permit_waits_for_an_earlier_one_that_opened_again() {
    let groups = [("one", 3, "canaries = 1\nfailure_threshold = 1"), ("two", 1, "")];
    let mut world = started(&groups, &[(2, Behaviour::RollsBack)], &|plan| {
        plan.timing.offline_for_ms = 3_600_000;
    });
    until(&mut world, |world| {
        world.kernel.legs()[1].phase == LegPhase::Running
    });
    leaves(&mut world, 3);
    until(&mut world, |world| group(world, "two").phase == GroupPhase::Done);
    world.hosts.get_mut(&id(2)).unwrap().behaviour = Behaviour::Slow;
    retry(&mut world, &[2]).unwrap();
    returns(&mut world, 3);
    until(&mut world, |world| host(world, 3).phase == HostPhase::Ready);
    for _ in 0..3 {
        world.step();
    }
    let duty = world.kernel.host_duty(&"clients-1".into(), &id(3), world.now);
    let duty = duty.unwrap();
    assert_eq!(
        (duty.code, duty.text.as_str()),
        ("earlier_group", "the turn of group two")
    );
    until(&mut world, |world| host(world, 3).phase == HostPhase::Permitted);
    assert_eq!(group(&world, "one").phase, GroupPhase::Done);
    sound(&world);
}

#[test]
fn failures_of_two_client_legs_count_together_for_the_rollout() {
    let groups = [(
        "one",
        6,
        "canaries = 0\nfailure_threshold = 2\nmax_unavailable = 1",
    )];
    let mut world = bridge(&groups, Some(1), &[(0, Behaviour::RollsBack)]);
    until(&mut world, |world| paused(world).starts_with("bridge_incomplete"));
    world.hosts.get_mut(&id(1)).unwrap().behaviour = Behaviour::RollsBack;
    resume(&mut world).unwrap();
    until(&mut world, |world| {
        row(world, "clients-2", 1).phase == HostPhase::RolledBack
    });
    steps(&mut world, 5);
    assert_eq!(
        paused(&world),
        "threshold: the rollout: 2 failed over all groups, 1 tolerated"
    );
    let answer = explain::explain(&world.kernel, "rollout", world.now).unwrap();
    let rules = answer.rules.join("\n");
    assert!(
        rules.contains("node-0 rolled back") && rules.contains("node-1 rolled back"),
        "{rules}"
    );
    // What a person accepted does not pause again, in whatever leg it failed.
    resume(&mut world).unwrap();
    world.rest();
    assert_eq!(
        world.kernel.phase(),
        RolloutPhase::FinishedWithExceptions,
        "{}",
        paused(&world)
    );
    sound(&world);
}

#[test]
fn a_host_that_failed_in_one_leg_and_is_tried_again_in_the_next_counts_at_most_once() {
    let groups = [(
        "one",
        6,
        "canaries = 0\nfailure_threshold = 2\nmax_unavailable = 1",
    )];
    let mut world = bridge(&groups, Some(1), &[(0, Behaviour::RollsBack)]);
    until(&mut world, |world| paused(world).starts_with("bridge_incomplete"));
    resume(&mut world).unwrap();
    until(&mut world, |world| {
        world.kernel.legs()[4].phase == LegPhase::Running
    });
    retry(&mut world, &[0]).unwrap();
    until(&mut world, |world| {
        row(world, "clients-2", 0).phase == HostPhase::RolledBack
    });
    steps(&mut world, 5);
    assert_eq!(paused(&world), "");
    sound(&world);
}

#[test]
fn failures_of_a_group_that_was_taken_back_count_for_the_rollout() {
    let groups = [
        (
            "one",
            4,
            "canaries = 0\nfailure_threshold = 1\nmax_unavailable = 1",
        ),
        (
            "two",
            3,
            "canaries = 0\nfailure_threshold = 2\nmax_unavailable = 1",
        ),
    ];
    let bad = [(0, Behaviour::RollsBack), (4, Behaviour::RollsBack)];
    let mut world = started(&groups, &bad, &|plan| {
        fixture::way_back(plan, true);
        plan.failure_threshold = Some(1);
    });
    until(&mut world, |world| group(world, "one").phase == GroupPhase::Done);
    let (target, reason) = (RollbackTarget::Group("one".to_owned()), "slow queries".to_owned());
    world.command(Command::Rollback { target, reason }).unwrap();
    until(&mut world, |world| {
        (1..4).all(|number| host(world, number).phase == HostPhase::RolledBack)
    });
    resume(&mut world).unwrap();
    until(&mut world, |world| host(world, 4).phase == HostPhase::RolledBack);
    steps(&mut world, 5);
    assert_eq!(
        paused(&world),
        "threshold: the rollout: 2 failed over all groups, 1 tolerated"
    );
    resume(&mut world).unwrap();
    assert!(group(&world, "one").forgiven.contains(&id(0)) && group(&world, "two").forgiven.contains(&id(4)));
    until(&mut world, |world| {
        host(world, 6).made_it() || !paused(world).is_empty()
    });
    assert_eq!(paused(&world), "");
    sound(&world);
}

#[test]
fn failures_that_were_told_of_before_their_group_was_taken_back_are_accepted_with_the_pause() {
    let groups = [
        (
            "one",
            4,
            "canaries = 0\nfailure_threshold = 1\nmax_unavailable = 1",
        ),
        (
            "two",
            3,
            "canaries = 0\nfailure_threshold = 2\nmax_unavailable = 1",
        ),
    ];
    let mut world = started(&groups, &[(4, Behaviour::RollsBack)], &|plan| {
        fixture::way_back(plan, true);
        plan.failure_threshold = Some(2);
    });
    let good = |world: &World| (0..4).filter(|number| host(world, *number).made_it()).count();
    until(&mut world, |world| good(world) == 2);
    for number in 0..4 {
        if !host(&world, number).made_it() {
            world.hosts.get_mut(&id(number)).unwrap().behaviour = Behaviour::RollsBack;
        }
    }
    until(&mut world, |world| !paused(world).is_empty());
    assert_eq!(paused(&world), "threshold: group one: 2 failed, 1 tolerated");
    let (target, reason) = (RollbackTarget::Group("one".to_owned()), "it fails".to_owned());
    world.command(Command::Rollback { target, reason }).unwrap();
    until(&mut world, |world| {
        good(world) == 0
            && !world.hosts.keys().any(|host| {
                world
                    .kernel
                    .host(&"clients-1".into(), host)
                    .is_some_and(|row| row.phase.in_flight())
            })
    });
    resume(&mut world).unwrap();
    assert_eq!(group(&world, "one").forgiven.len(), 2);
    until(&mut world, |world| {
        host(world, 6).made_it() || !paused(world).is_empty()
    });
    assert_eq!(paused(&world), "");
    sound(&world);
}
