//! Canaries go alone and groups one after the other, whatever comes between: a start of the coordinator, absence, `retry`, a backup.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use fleet_common::ids::GroupName;
use fleet_sim::fixture::{GroupSpec, NOW};
use fleet_sim::hosts::Behaviour;
use fleet_sim::steps::{group, host, id, leaves, resume, retry, returns, started};
use fleet_sim::{World, until};
use rollout::explain;
use rollout::kernel::{Command, GroupPhase, HostPhase, Input, RolloutPhase};
use rollout::policy::{Offline, Window};

const MINUTE: u64 = 60_000;

fn phase(world: &World, name: &str) -> GroupPhase {
    group(world, name).phase
}

fn group_duty(world: &World, name: &str) -> (&'static str, String, Option<u64>) {
    let planned = world.kernel.plan().group(&GroupName::new(name)).unwrap();
    let duty = world.kernel.group_duty(&"clients-1".into(), planned, world.now);
    let duty = duty.unwrap();
    (duty.code, duty.text, duty.deadline_ms)
}

fn slots(world: &World) -> usize {
    let rows = world
        .hosts
        .keys()
        .filter_map(|id| world.kernel.host(&"clients-1".into(), id));
    rows.filter(|row| row.slot).count()
}

/// Most slots until one of these hosts is verified.
fn most_before_one_is_verified(world: &mut World, hosts: std::ops::Range<usize>) -> usize {
    let mut most = slots(world);
    for _ in 0..600 {
        world.step();
        // The decision that follows from it lets the others begin.
        if hosts.clone().any(|number| host(world, number).upgraded()) {
            return most;
        }
        most = most.max(slots(world));
    }
    panic!("nobody was verified");
}

/// The agents come back some seconds after the coordinator.
fn reconnect(world: &mut World, hosts: usize, after_s: usize) {
    for _ in 0..after_s {
        world.now += 1_000;
        world.give(Input::Tick);
    }
    for number in 0..hosts {
        world.connect(&id(number));
    }
}

fn ends_well(world: &mut World) {
    until(world, |world| world.kernel.is_final());
    assert_eq!(world.watcher.violations, Default::default());
}

#[test]
fn the_wait_after_the_canaries_outlives_a_start_of_the_coordinator() {
    let mut world = started(&[("one", 6, "canaries = 1\nmax_unavailable = 5")], &[], &|plan| {
        plan.groups[0].canary_soak_ms = 10 * MINUTE;
    });
    until(&mut world, |world| {
        group(world, "one").canary_soak_until_ms.is_some() && host(world, 1).phase == HostPhase::Ready
    });
    let ends = group(&world, "one").canary_soak_until_ms.unwrap();
    world.crash();
    reconnect(&mut world, 6, 2);
    assert_eq!(phase(&world, "one"), GroupPhase::Canary);
    until(&mut world, |world| host(world, 1).permitted_at_ms.is_some());
    assert!(host(&world, 1).permitted_at_ms.unwrap() >= ends);
    ends_well(&mut world);
}

/// The order in which the engine feeds the kernel after a commit that failed: those that are connected are told after the first decision.
#[test]
fn the_wait_after_the_canaries_outlives_a_commit_that_failed() {
    let groups = [("one", 6, "canaries = 1\nmax_unavailable = 5"), ("two", 2, "")];
    let mut world = started(&groups, &[], &|plan| plan.groups[0].canary_soak_ms = 10 * MINUTE);
    until(&mut world, |world| {
        group(world, "one").canary_soak_until_ms.is_some() && host(world, 1).phase == HostPhase::Ready
    });
    world.crash();
    (0..8).for_each(|number| world.connect(&id(number)));
    assert_eq!(phase(&world, "one"), GroupPhase::Canary);
    assert_eq!(phase(&world, "two"), GroupPhase::Pending);
    ends_well(&mut world);
}

#[test]
fn a_group_that_is_approved_right_after_a_start_has_canaries() {
    let mut world = started(
        &[("one", 8, "canaries = 1\nmax_unavailable = 6\napproval = true")],
        &[],
        &|_| {},
    );
    until(&mut world, |world| phase(world, "one") == GroupPhase::Gated);
    world.crash();
    let group = "one".to_owned();
    world.command(Command::Approve { group }).unwrap();
    reconnect(&mut world, 8, 2);
    assert_eq!(phase(&world, "one"), GroupPhase::Canary);
    assert_eq!(most_before_one_is_verified(&mut world, 0..8), 1);
    ends_well(&mut world);
}

#[test]
fn a_start_while_a_window_is_shut_lets_no_later_group_begin() {
    let opens = (NOW / MINUTE + 20) * MINUTE;
    let groups = [
        ("one", 8, "canaries = 1\nmax_unavailable = 1"),
        ("two", 4, "canaries = 1\nmax_unavailable = 4"),
    ];
    let mut world = started(&groups, &[], &|plan| {
        plan.groups[0].windows = vec![Window {
            days: Vec::new(),
            from_minute: u16::try_from(opens / MINUTE % 1_440).unwrap(),
            for_ms: 40_000,
            zone: "UTC".to_owned(),
        }];
    });
    until(&mut world, |world| world.now > opens + 3 * MINUTE);
    assert_eq!(phase(&world, "one"), GroupPhase::Ramping);
    world.crash();
    world.give(Input::Tick);
    let phases = [phase(&world, "one"), phase(&world, "two")];
    assert_eq!(phases, [GroupPhase::Ramping, GroupPhase::Pending]);
    reconnect(&mut world, 12, 2);
    (0..120).for_each(|_| world.step());
    assert!((8..12).all(|number| host(&world, number).permitted_at_ms.is_none()));
    assert_eq!(world.watcher.violations, Default::default());
}

/// Nobody waits for ever for those that are really away, and the screens say what is waited for meanwhile.
#[test]
fn who_does_not_come_back_after_a_start_is_away_after_a_while() {
    let groups = [("one", 4, "canaries = 1\nmax_unavailable = 1"), ("two", 1, "")];
    let mut world = started(&groups, &[], &|_| {});
    until(&mut world, |world| host(world, 0).phase == HostPhase::Switching);
    let reason = "lunch".to_owned();
    world.command(Command::Pause { reason }).unwrap();
    until(&mut world, |world| host(world, 0).upgraded() && slots(world) == 0);
    for number in 1..4 {
        world.hosts.get_mut(&id(number)).unwrap().gone = true;
    }
    world.crash();
    let began = world.now;
    resume(&mut world).unwrap();
    let (code, text, deadline) = group_duty(&world, "one");
    assert_eq!(code, "reconnect");
    assert_eq!(text, "3 agents to connect again after the coordinator's start");
    assert_eq!(deadline, Some(began + 50_000));
    let told = explain::explain(&world.kernel, "one", world.now).unwrap();
    assert!(
        told.reason
            .ends_with("0 held or away, 3 not connected since the coordinator started"),
        "{}",
        told.reason
    );
    world.connect(&id(0));
    world.connect(&id(4));
    until(&mut world, |world| host(world, 4).permitted_at_ms.is_some());
    assert!(world.now >= began + 50_000 && world.now < began + 90_000);
    ends_well(&mut world);
}

#[test]
fn after_a_failed_canary_the_next_attempt_goes_alone() {
    let spec = [(
        "one",
        8,
        "canaries = 1\nmax_unavailable = 6\nfailure_threshold = 0",
    )];
    for retries in [true, false] {
        let mut world = started(&spec, &[(0, Behaviour::RollsBack)], &|_| {});
        until(&mut world, |world| world.kernel.phase() == RolloutPhase::Paused);
        world.hosts.get_mut(&id(0)).unwrap().behaviour = Behaviour::Good;
        if retries {
            retry(&mut world, &[0]).unwrap();
        } else {
            resume(&mut world).unwrap();
        }
        world.give(Input::Tick);
        assert_eq!(phase(&world, "one"), GroupPhase::Canary);
        assert_eq!(most_before_one_is_verified(&mut world, 0..8), 1);
        let canary = if retries { 0 } else { 1 };
        assert!(
            host(&world, canary).upgraded(),
            "the next in order, or the same again"
        );
        ends_well(&mut world);
    }
}

/// A group whose canaries were verified and that is stopped and resumed before their wait is over goes on waiting.
#[test]
fn a_resume_does_not_cut_the_wait_after_the_canaries() {
    let spec = [(
        "one",
        6,
        "canaries = 2\nmax_unavailable = 4\nfailure_threshold = 1",
    )];
    let mut world = started(&spec, &[(0, Behaviour::RollsBack)], &|plan| {
        plan.groups[0].canary_soak_ms = 10 * MINUTE;
    });
    until(&mut world, |world| {
        group(world, "one").canary_soak_until_ms.is_some()
    });
    let ends = group(&world, "one").canary_soak_until_ms.unwrap();
    let limit = Command::Limit {
        group: "one".to_owned(),
        max_unavailable: None,
        failure_threshold: Some(0),
        reason: "careful".to_owned(),
    };
    world.command(limit).unwrap();
    until(&mut world, |world| world.kernel.phase() == RolloutPhase::Paused);
    resume(&mut world).unwrap();
    until(&mut world, |world| {
        (3..6).any(|number| host(world, number).permitted_at_ms.is_some())
    });
    assert!(world.now >= ends);
    ends_well(&mut world);
}

#[test]
fn a_group_that_was_away_at_its_turn_has_canaries_when_it_returns() {
    for (offline, passed) in [
        (Offline::CatchUp, GroupPhase::Done),
        (Offline::Wait, GroupPhase::Draining),
    ] {
        let groups = [
            ("one", 1, "canaries = 0"),
            ("two", 8, "canaries = 1\nmax_unavailable = 6"),
        ];
        let mut world = started(&groups, &[], &|plan| {
            plan.groups[1].offline = offline;
            plan.groups[1].canary_soak_ms = 2 * MINUTE;
        });
        until(&mut world, |world| host(world, 0).phase == HostPhase::Switching);
        (1..9).for_each(|number| leaves(&mut world, number));
        until(&mut world, |world| host(world, 0).upgraded());
        world.give(Input::Tick);
        assert_eq!(phase(&world, "two"), passed);
        (1..9).for_each(|number| returns(&mut world, number));
        assert_eq!(most_before_one_is_verified(&mut world, 1..9), 1, "{offline:?}");
        let verified = world.now;
        until(&mut world, |world| {
            (2..9).any(|number| host(world, number).permitted_at_ms.is_some())
        });
        assert!(
            world.now >= verified + 2 * MINUTE,
            "{offline:?}: they are watched, too"
        );
        ends_well(&mut world);
    }
}

#[test]
fn a_canary_group_whose_host_runs_a_backup_holds_the_next_group() {
    let groups = [
        ("canary", 1, "canaries = 1\nsoak = \"15m\""),
        ("production", 4, "canaries = 0\nmax_unavailable = 4"),
    ];
    let mut world = started(&groups, &[(0, Behaviour::Backup(NOW + 20 * MINUTE))], &|_| {});
    until(&mut world, |world| host(world, 0).backup_since_ms.is_some());
    (0..60).for_each(|_| world.step());
    until(&mut world, |world| {
        host(world, 0).ask_at_ms.is_some_and(|at| at > world.now)
    });
    assert_eq!(phase(&world, "canary"), GroupPhase::Canary);
    assert_eq!(phase(&world, "production"), GroupPhase::Pending);
    let (_, text, deadline) = group_duty(&world, "canary");
    assert_eq!(text, "0 under way, 0 to begin, 1 that can't be asked yet");
    assert_eq!(deadline, host(&world, 0).ask_at_ms);
    until(&mut world, |world| host(world, 1).permitted_at_ms.is_some());
    let verified = host(&world, 0).verified_at_ms.unwrap();
    assert!(world.now >= verified + 15 * MINUTE, "and it soaks");
    ends_well(&mut world);
}

/// The wait for a backup has its own end; then the next group goes on without that host.
#[test]
fn a_backup_that_never_ends_holds_the_next_group_until_it_is_given_up() {
    let groups = [("canary", 1, "canaries = 1"), ("production", 2, "canaries = 0")];
    let mut world = started(&groups, &[(0, Behaviour::Backup(u64::MAX))], &|plan| {
        plan.timing.backup_for_ms = 30 * MINUTE;
    });
    until(&mut world, |world| host(world, 1).permitted_at_ms.is_some());
    assert_eq!(host(&world, 0).phase, HostPhase::Skipped);
    ends_well(&mut world);
}

const SOAKING: &[GroupSpec<'static>] = &[
    (
        "one",
        3,
        "canaries = 0\nmax_unavailable = 3\nfailure_threshold = 1\nsoak = \"3m\"",
    ),
    ("two", 2, "canaries = 0"),
];

#[test]
fn a_retry_while_a_group_soaks_holds_the_next_group() {
    let mut world = started(SOAKING, &[(1, Behaviour::FailsBefore)], &|_| {});
    until(&mut world, |world| phase(world, "one") == GroupPhase::Soaking);
    let ends = group(&world, "one").soak_until_ms.unwrap();
    until(&mut world, |world| world.now + 20_000 > ends);
    world.hosts.get_mut(&id(1)).unwrap().behaviour = Behaviour::Slow;
    retry(&mut world, &[1]).unwrap();
    assert_eq!(phase(&world, "one"), GroupPhase::Ramping);
    until(&mut world, |world| host(world, 3).permitted_at_ms.is_some());
    let verified = host(&world, 1).verified_at_ms.unwrap();
    assert!(world.now >= verified + 3 * MINUTE, "and it soaks anew");
    ends_well(&mut world);
}

/// The next group's turn has come, but none of its hosts has begun: it waits for the host that is tried again.
#[test]
fn a_retry_before_the_next_group_is_approved_holds_it() {
    let mut world = started(SOAKING, &[(1, Behaviour::FailsBefore)], &|plan| {
        plan.groups[1].approval = true;
    });
    until(&mut world, |world| phase(world, "two") == GroupPhase::Gated);
    world.hosts.get_mut(&id(1)).unwrap().behaviour = Behaviour::Slow;
    retry(&mut world, &[1]).unwrap();
    let group = "two".to_owned();
    world.command(Command::Approve { group }).unwrap();
    assert_eq!(phase(&world, "two"), GroupPhase::Pending);
    let (code, text, _) = group_duty(&world, "two");
    assert_eq!((code, text.as_str()), ("earlier_group", "group one is not done"));
    until(&mut world, |world| host(world, 3).permitted_at_ms.is_some());
    let verified = host(&world, 1).verified_at_ms.unwrap();
    assert!(world.now >= verified + 3 * MINUTE);
    ends_well(&mut world);
}
