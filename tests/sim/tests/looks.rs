//! When the PMM Server is asked, for whom, and what its answers prove.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use fleet_common::ids::HostId;
use fleet_common::verification::FleetSnapshot;
use fleet_sim::fixture::ACCEPT;
use fleet_sim::hosts::Behaviour;
use fleet_sim::{Faults, World, until};
use rollout::kernel::{
    FLEET_EVERY_MS, HostPhase, HostRow, Input, Kernel, Looks, NODES_AT_ONCE, RolloutPhase, Row, ViewRequest,
};
use std::collections::BTreeSet;

const ALL_AT_ONCE: &str = "canaries = 0\nmax_unavailable = 120\nfailure_threshold = 0";

fn host(world: &World, number: usize) -> &HostRow {
    let host = HostId::new(format!("h{number}"));
    world.kernel.host(&"clients-1".into(), &host).unwrap()
}

fn node(world: &World, number: usize) -> String {
    let hosts = &world.kernel.plan().hosts;
    let name = format!("h{number}");
    let found = hosts.iter().find(|planned| planned.host.as_str() == name);
    found.unwrap().node_id.clone()
}

/// What the last tick wished for.
fn looks(world: &World) -> Looks {
    world.last.looks.clone().unwrap_or_default()
}

fn nodes(looks: &Looks) -> BTreeSet<String> {
    let request = looks.nodes.clone();
    request.and_then(|request| request.nodes).unwrap_or_default()
}

fn seen(world: &World, of: &[usize]) -> FleetSnapshot {
    let request = ViewRequest {
        nodes: Some(of.iter().map(|number| node(world, *number)).collect()),
        qan_from_ms: world.now,
    };
    request.answer_from(world.view())
}

/// All hosts of a leg made it, and from then on PMM does not answer: the checks begin with nothing seen.
fn blind_checks(hosts: usize) -> World {
    let mut world = World::calm(&[("one", hosts, ALL_AT_ONCE)], ACCEPT, &[]);
    until(&mut world, |world| {
        (0..hosts).all(|number| host(world, number).made_it())
    });
    world.faults.view_lost = 1;
    until(&mut world, |world| world.kernel.phase() == RolloutPhase::Checking);
    world
}

#[test]
fn the_baseline_is_asked_for_as_soon_as_the_survey_is_answered_and_not_before() {
    let mut world = World::calm(&[("one", 2, "")], ACCEPT, &[]);
    let mut asked = None;
    while world.kernel.baseline().is_none() {
        world.step();
        let survey = world.kernel.legs()[0].leg.clone();
        let open = world.hosts.keys().any(|id| {
            let row = world.kernel.host(&survey, id);
            row.is_some_and(|row| !row.phase.is_final())
        });
        if looks(&world).fleet.is_some() {
            assert!(!open, "a look that can't be the baseline");
            asked = Some(world.now);
        }
    }
    assert!(
        asked.is_some_and(|asked| asked + 2_000 >= world.now),
        "nobody waits for a minute"
    );
}

#[test]
fn many_hosts_take_turns_and_none_is_left_out() {
    let groups = [(
        "one",
        120,
        "canaries = 0\nmax_unavailable = 120\nfailure_threshold = 119",
    )];
    let wide = |plan: &mut rollout::plan::Plan| {
        plan.groups[0].ramp.clear();
        plan.groups[0].retry.clear();
    };
    let mut world = World::with_plan(7, &groups, ACCEPT, Faults::NONE, &[], &wide);
    for host in world.hosts.values_mut() {
        host.behaviour = Behaviour::NoSamples;
    }
    world.start();
    let verifying = |world: &World| -> BTreeSet<String> {
        let all = (0..120).filter(|number| host(world, *number).phase == HostPhase::Verifying);
        all.map(|number| node(world, number)).collect()
    };
    until(&mut world, |world| verifying(world).len() == 120);
    let mut looked_at = BTreeSet::new();
    for _ in 0..18 {
        world.step();
        let wanted = nodes(&looks(&world));
        assert_eq!(wanted.len(), NODES_AT_ONCE);
        looked_at.extend(wanted);
    }
    assert_eq!(looked_at, verifying(&world));
    // Between two of its turns a host is not out of sight.
    until(&mut world, |world| !verifying(world).contains(&node(world, 0)));
    assert_eq!(
        world
            .kernel
            .rollout()
            .pause
            .as_ref()
            .map(|pause| pause.code.as_str()),
        None
    );
    assert_eq!(host(&world, 0).phase, HostPhase::RollingBack);
    assert_eq!(world.watcher.violations, Default::default());
}

#[test]
fn the_checks_ask_again_only_for_what_is_missing() {
    let mut world = World::calm(&[("one", 4, ALL_AT_ONCE)], ACCEPT, &[]);
    until(&mut world, |world| {
        (0..4).all(|number| host(world, number).made_it())
    });
    let quiet = HostId::new("h2");
    world.hosts.get_mut(&quiet).unwrap().samples = false;
    until(&mut world, |world| world.kernel.verification().is_some());
    world.step();
    assert_eq!(nodes(&looks(&world)), [node(&world, 2)].into());
    let found = world.kernel.verification().unwrap();
    assert_eq!(found.metrics_stale.len(), 1);
    world.hosts.get_mut(&quiet).unwrap().samples = true;
    world.rest();
    assert_eq!(world.kernel.phase(), RolloutPhase::Succeeded);
    assert_eq!(nodes(&looks(&world)), BTreeSet::new());
}

#[test]
fn all_is_well_only_when_every_node_was_seen_since_the_checks_began() {
    let mut world = blind_checks(4);
    let old = seen(&world, &[3]);
    assert_eq!(
        nodes(&looks(&world)).len(),
        4,
        "what was seen before says nothing"
    );
    for _ in 0..5 {
        world.step();
    }
    world.give(Input::ServerView(seen(&world, &[0, 1])));
    world.give(Input::ServerView(seen(&world, &[2])));
    // Of the last one there is only a look that was taken before they began.
    world.give(Input::ServerView(FleetSnapshot {
        taken_at_ms: world.kernel.rollout().check_since_ms.unwrap() - 1,
        ..old
    }));
    world.give(Input::Tick);
    assert_eq!(world.kernel.verification(), None);
    assert_eq!(nodes(&looks(&world)), [node(&world, 3)].into());
    world.give(Input::ServerView(seen(&world, &[3])));
    assert!(world.kernel.verification().unwrap().holds());
    world.rest();
    assert_eq!(world.kernel.phase(), RolloutPhase::Succeeded);
}

#[test]
fn a_large_fleet_is_looked_at_as_a_whole_first() {
    let mut world = blind_checks(60);
    let mut fleet = 0;
    for _ in 0..60 {
        world.step();
        assert!(looks(&world).nodes.is_none(), "many looks instead of one");
        fleet += usize::from(looks(&world).fleet.is_some());
    }
    assert!((1..=2).contains(&fleet), "{fleet} in a minute");
    world.faults.view_lost = 0;
    world.rest();
    let pause = &world.kernel.rollout().pause;
    assert_eq!(world.kernel.phase(), RolloutPhase::Succeeded, "{pause:?}");
}

#[test]
fn checks_that_nobody_answers_are_for_a_person() {
    let mut world = blind_checks(3);
    world.give(Input::ServerView(seen(&world, &[0, 1])));
    until(&mut world, |world| world.kernel.phase() == RolloutPhase::Paused);
    let pause = world.kernel.rollout().pause.clone().unwrap();
    assert_eq!(pause.code, "server_view_missing");
    assert_eq!(world.kernel.verification(), None);
    // PMM is back while it is paused; the person comes much later and does not wait.
    world.faults.view_lost = 0;
    for _ in 0..1_200 {
        world.step();
    }
    let reason = "PMM is back".to_owned();
    let resume = rollout::kernel::Command::Resume {
        reason,
        accept_server: false,
    };
    world.command(resume).unwrap();
    world.rest();
    assert_eq!(world.kernel.phase(), RolloutPhase::Succeeded);
}

#[test]
fn an_answer_that_was_overtaken_takes_nothing_back() {
    let behaviours = [(0, Behaviour::NoSamples)];
    let mut world = World::calm(&[("one", 1, "failure_threshold = 0")], ACCEPT, &behaviours);
    until(&mut world, |world| {
        host(world, 0).phase == HostPhase::Verifying && host(world, 0).views > 2
    });
    let row = host(&world, 0).clone();
    let mut late = world.view();
    late.taken_at_ms = row.last_view_ms - 1_000;
    late.services.clear();
    world.give(Input::ServerView(late));
    assert_eq!(host(&world, 0), &row, "older than what was seen already");
    world.hosts.get_mut(&HostId::new("h0")).unwrap().samples = true;
    until(&mut world, |world| host(world, 0).made_it());
}

#[test]
fn a_coordinator_that_dies_again_and_again_does_not_ask_more_often() {
    let behaviours = [(0, Behaviour::NoSamples)];
    let mut world = World::calm(&[("one", 1, "failure_threshold = 0")], ACCEPT, &behaviours);
    until(&mut world, |world| host(world, 0).phase == HostPhase::Verifying);
    let (mut asked, begun) = (Vec::new(), world.now);
    while world.now < begun + 5 * FLEET_EVERY_MS {
        world.step();
        if looks(&world).fleet.is_some() {
            asked.push(world.now);
        }
        world.crash();
    }
    assert!((4..=6).contains(&asked.len()), "{asked:?}");
    assert!(
        asked.windows(2).all(|pair| pair[1] >= pair[0] + FLEET_EVERY_MS),
        "{asked:?}"
    );
}

#[test]
fn who_waits_for_the_baseline_is_told_so_and_until_when() {
    let mut world = World::calm(&[("one", 2, "")], ACCEPT, &[]);
    world.faults.view_lost = 1;
    until(&mut world, |world| {
        world.kernel.rollout().fleet_asked_ms.is_some()
    });
    world.step();
    let (now, survey) = (world.now, &world.kernel.legs()[0]);
    let again = world.kernel.rollout().fleet_asked_ms.unwrap() + FLEET_EVERY_MS;
    for duty in [world.kernel.rollout_duty(now), world.kernel.leg_duty(survey, now)] {
        let duty = duty.unwrap();
        assert_eq!((duty.code, duty.deadline_ms), ("baseline", Some(again)));
        assert!(duty.text.contains("the PMM Server's view of the whole fleet"));
    }
}

#[test]
fn a_clock_that_is_set_back_does_not_end_the_asking() {
    let mut world = World::calm(&[("one", 1, "")], ACCEPT, &[(0, Behaviour::NoSamples)]);
    until(&mut world, |world| host(world, 0).phase == HostPhase::Verifying);
    until(&mut world, |world| looks(world).fleet.is_some());
    let earlier = world.now - 3_600_000;
    let mut kernel: Kernel = world.kernel.clone();
    let mut asked = Vec::new();
    for second in 0..=60 {
        let out = kernel.handle(Input::Tick, earlier + second * 1_000);
        if out.looks.unwrap().fleet.is_some() {
            asked.push(second);
        }
        assert!(
            second > 0 || out.rows.iter().any(|row: &Row| row.key == "rollout"),
            "from when on is stored"
        );
    }
    assert_eq!(asked, [60]);
}

#[test]
fn nothing_is_asked_before_the_start_and_after_the_end() {
    let mut world = World::new(7, &[("one", 1, "")], ACCEPT, Faults::NONE);
    world.give(Input::Tick);
    assert_eq!(looks(&world), Looks::default());
    world.start();
    world.rest();
    world.give(Input::Tick);
    assert_eq!(looks(&world), Looks::default());
}
