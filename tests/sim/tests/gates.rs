//! What lets hosts begin or keeps them: windows, ramps, sets, sites, retries, absence, deadlines, thresholds, limits.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use fleet_common::ids::GroupName;
use fleet_sim::World;
use fleet_sim::fixture::NOW;
use fleet_sim::hosts::Behaviour;
use fleet_sim::steps::{group, host, id, paused, planned, resume, started};
use fleet_sim::until;
use rollout::kernel::{Command, GroupPhase, HostPhase, RolloutPhase};
use rollout::plan::Plan;
use rollout::policy::{Blackout, FailureClass, Offline, OnBreach, Retries, Window};
use rollout::{explain, progress};

const MINUTE: u64 = 60_000;

fn rest(world: &mut World) {
    until(world, |world| progress::view(&world.kernel, world.now).at_rest);
    assert_eq!(world.watcher.violations, Default::default());
}

fn duty(world: &World, number: usize) -> (&'static str, String) {
    let duty = world
        .kernel
        .host_duty(&"clients-1".into(), &id(number), world.now)
        .unwrap();
    (duty.code, duty.text)
}

/// What a group waits for, and until when.
fn group_duty(world: &World, name: &str) -> (&'static str, String, Option<u64>) {
    let planned = world.kernel.plan().group(&GroupName::new(name)).unwrap();
    let duty = world
        .kernel
        .group_duty(&"clients-1".into(), planned, world.now)
        .unwrap();
    (duty.code, duty.text, duty.deadline_ms)
}

/// A window each day that is open for so long from this moment on.
fn window(at_ms: u64, for_ms: u64) -> Window {
    Window {
        days: Vec::new(),
        from_minute: u16::try_from(at_ms / MINUTE % 1_440).unwrap(),
        for_ms,
        zone: "UTC".to_owned(),
    }
}

/// The next full minute so many minutes from the beginning.
fn minute(after: u64) -> u64 {
    (NOW / MINUTE + after) * MINUTE
}

/// Hosts that may be without a working client; one that only tidies up is not.
fn in_flight(world: &World) -> usize {
    let plan = world.kernel.plan();
    let rows = plan
        .hosts
        .iter()
        .filter_map(|planned| world.kernel.host(&"clients-1".into(), &planned.host));
    rows.filter(|row| row.slot).count()
}

#[test]
fn a_window_that_closes_in_mid_group_lets_work_finish_and_nothing_begin() {
    let opens = minute(20);
    let mut world = started(&[("one", 8, "max_unavailable = 1")], &[], &|plan| {
        plan.groups[0].windows = vec![window(opens, 20_000)];
    });
    until(&mut world, |world| group(world, "one").phase == GroupPhase::Gated);
    until(&mut world, |world| host(world, 0).phase == HostPhase::Ready);
    let (code, text, deadline) = group_duty(&world, "one");
    assert_eq!((code, deadline), ("window", Some(opens)), "{text}");
    assert_eq!(duty(&world, 0).0, "window");
    let whole = world.kernel.rollout_duty(world.now).unwrap();
    assert_eq!((whole.code, whole.deadline_ms), ("window", Some(opens)));
    assert!(
        whole.text.contains("group one: outside of its windows; opens in"),
        "{}",
        whole.text
    );

    until(&mut world, |world| in_flight(world) > 0);
    assert!((opens..opens + 2_000).contains(&world.now));
    until(&mut world, |world| world.now > opens + MINUTE + 30_000);
    let upgraded = (0..8).filter(|number| host(&world, *number).upgraded()).count();
    assert!((1..8).contains(&upgraded), "{upgraded}");
    assert_eq!(
        (in_flight(&world), group(&world, "one").phase),
        (0, GroupPhase::Ramping)
    );
    let (code, text, deadline) = group_duty(&world, "one");
    assert_eq!(
        (code, deadline),
        ("window", Some(opens + 1_440 * MINUTE)),
        "{text}"
    );
    let told = explain::explain(&world.kernel, "one", world.now).unwrap();
    assert!(
        told.rules
            .iter()
            .any(|rule| rule.starts_with("outside of its windows")),
        "{:?}",
        told.rules
    );

    // A day later it goes on by itself.
    world.now = opens + 1_440 * MINUTE;
    until(&mut world, |world| in_flight(world) > 0);
    assert!(
        *world.watcher.gates.met.get(fleet_sim::gates::WINDOW).unwrap() > 0,
        "a permit ended with the window"
    );
    assert_eq!(world.watcher.violations, Default::default());
}

#[test]
fn a_window_across_a_change_of_the_clocks_opens_at_the_end_of_the_gap() {
    // Madrid skips 02:00 to 03:00 on 2026-03-29, which is 01:00 UTC.
    let (gap_end, evening) = (1_774_746_000_000, 1_774_746_000_000 - 60 * MINUTE);
    let mut world = planned(&[("one", 2, "")], &[], &|plan| {
        plan.groups[0].windows = vec![Window {
            days: vec![7],
            from_minute: 150,
            for_ms: 60 * MINUTE,
            zone: "Europe/Madrid".to_owned(),
        }];
    });
    world.now = evening;
    world.start();
    until(&mut world, |world| group(world, "one").phase == GroupPhase::Gated);
    assert_eq!(group_duty(&world, "one").2, Some(gap_end));
    until(&mut world, |world| in_flight(world) > 0);
    assert!((gap_end..gap_end + 2_000).contains(&world.now), "{}", world.now);
    rest(&mut world);
    assert_eq!(world.kernel.phase(), RolloutPhase::Succeeded);
}

#[test]
fn a_blackout_holds_a_group_without_windows() {
    let ends = minute(30);
    let mut world = started(&[("one", 2, "")], &[], &|plan| {
        plan.groups[0].blackouts = vec![Blackout {
            from_ms: NOW,
            until_ms: ends,
            reason: "release week".to_owned(),
        }];
    });
    until(&mut world, |world| group(world, "one").phase == GroupPhase::Gated);
    assert!(group_duty(&world, "one").1.contains("a blackout: release week"));
    rest(&mut world);
    assert!((0..2).all(|number| host(&world, number).permitted_at_ms.unwrap() >= ends));
}

#[test]
fn a_ramp_widens_after_as_many_verified_hosts_as_each_step_is_wide() {
    let mut world = started(
        &[("one", 12, "canaries = 1\nmax_unavailable = 5")],
        &[],
        &|plan| {
            plan.groups[0].ramp = vec![1, 3];
        },
    );
    let (mut most, mut told) = (std::collections::BTreeMap::<u32, usize>::new(), false);
    until(&mut world, |world| {
        world.kernel.is_final() || {
            let upgraded = (0..12).filter(|number| host(world, *number).upgraded()).count();
            upgraded == 1 && in_flight(world) == 1
        }
    });
    while !world.kernel.is_final() {
        let upgraded = (0..12).filter(|number| host(&world, *number).upgraded()).count();
        let step = match upgraded {
            0 => 0,
            1 => 1,
            2..=4 => 3,
            _ => 5,
        };
        let seen = most.entry(step).or_default();
        *seen = (*seen).max(in_flight(&world));
        told |= upgraded == 1
            && (0..12).any(|number| {
                host(&world, number).phase == HostPhase::Ready && duty(&world, number).0 == "ramp"
            });
        world.step();
    }
    assert_eq!(most.get(&1), Some(&1));
    assert_eq!(most.get(&3), Some(&3));
    assert_eq!(most.get(&5), Some(&5));
    assert!(told, "hosts say that the ramp keeps them");
    assert_eq!(world.watcher.violations, Default::default());
}

#[test]
fn the_others_wait_after_the_last_canary() {
    let mut world = started(&[("one", 3, "canaries = 1")], &[], &|plan| {
        plan.groups[0].canary_soak_ms = 10 * MINUTE;
    });
    until(&mut world, |world| {
        group(world, "one").canary_soak_until_ms.is_some()
    });
    let ends = group(&world, "one").canary_soak_until_ms.unwrap();
    until(&mut world, |world| host(world, 1).phase == HostPhase::Ready);
    assert_eq!(group_duty(&world, "one").0, "canary_soak");
    assert_eq!(group_duty(&world, "one").2, Some(ends));
    assert_eq!(duty(&world, 1).0, "canary_soak");
    rest(&mut world);
    assert!(host(&world, 1).permitted_at_ms.unwrap() >= ends);
    assert_eq!(world.kernel.phase(), RolloutPhase::Succeeded);
}

fn of_set(plan: &mut Plan, hosts: &[usize], set: &str) {
    for planned in &mut plan.hosts {
        if hosts.iter().any(|number| planned.host == id(*number)) {
            planned.sets.insert(set.to_owned());
        }
    }
}

#[test]
fn two_replicas_of_one_set_never_go_together_and_another_host_goes_instead() {
    let groups = [("one", 4, "max_unavailable = 2\ncanaries = 0")];
    let mut world = started(&groups, &[], &|plan| of_set(plan, &[0, 1], "set/rs0"));
    let waits = |world: &World| {
        [(0, 1), (1, 0)].into_iter().find(|(goes, waits)| {
            let other = host(world, 2).slot || host(world, 3).slot;
            host(world, *goes).slot && host(world, *waits).phase == HostPhase::Ready && other
        })
    };
    until(&mut world, |world| waits(world).is_some());
    let (_, kept) = waits(&world).unwrap();
    let text = "only 1 of set/rs0 may be down at once, and that many are under way".to_owned();
    assert_eq!(duty(&world, kept), ("set", text));
    rest(&mut world);
    assert_eq!(world.kernel.phase(), RolloutPhase::Succeeded);
}

#[test]
fn a_set_may_go_together_where_every_group_of_it_allows_it() {
    let both = |strict: bool| {
        let mut world = started(
            &[("one", 2, "max_unavailable = 2\ncanaries = 0"), ("two", 1, "")],
            // Slow enough to be under way when the other one is ready.
            &[(0, Behaviour::Slow), (1, Behaviour::Slow)],
            &|plan| {
                of_set(plan, &[0, 1, 2], "cluster/c1");
                plan.groups[0].together = 2;
                plan.groups[1].together = if strict { 1 } else { 2 };
            },
        );
        let mut most = 0;
        while !world.kernel.is_final() {
            most = most.max(in_flight(&world));
            world.step();
        }
        assert_eq!(world.watcher.violations, Default::default());
        most
    };
    assert_eq!((both(false), both(true)), (2, 1));
}

#[test]
fn a_lost_replica_holds_the_others_back_until_a_person_frees_its_slot() {
    let groups = [("one", 3, "max_unavailable = 3\nfailure_threshold = 2")];
    let mut world = started(&groups, &[(0, Behaviour::Inconsistent)], &|plan| {
        of_set(plan, &[0, 1, 2], "set/rs0");
    });
    rest(&mut world);
    let text = paused(&world);
    assert!(
        text.starts_with("set_exhausted: group one: nothing can begin any more, 2 hosts are kept back"),
        "{text}"
    );
    assert_eq!(world.hosts[&id(1)].switches + world.hosts[&id(2)].switches, 0);
    world
        .command(Command::FreeSlot {
            host: "h0".to_owned(),
            reason: "its client works".to_owned(),
        })
        .unwrap();
    resume(&mut world).unwrap();
    rest(&mut world);
    assert!(host(&world, 2).upgraded());
}

#[test]
fn a_site_is_not_busier_than_its_limit_over_all_groups() {
    let groups = [
        ("one", 3, "max_unavailable = 3"),
        ("two", 3, "max_unavailable = 3"),
    ];
    let mut world = started(&groups, &[], &|plan| {
        for group in &mut plan.groups {
            group.per_site = Some(1);
        }
        for planned in &mut plan.hosts {
            planned.site = Some(if planned.host == id(2) { "fra" } else { "mad" }.to_owned());
        }
    });
    let mut told = false;
    while !world.kernel.is_final() {
        told |= host(&world, 1).phase == HostPhase::Ready && duty(&world, 1).0 == "site";
        world.step();
    }
    assert!(told);
    assert!(*world.watcher.gates.met.get(fleet_sim::gates::SITE).unwrap() > 0);
    assert_eq!(world.watcher.violations, Default::default());
    assert_eq!(world.kernel.phase(), RolloutPhase::Succeeded);
}

fn retries(plan: &mut Plan, class: FailureClass, times: u32) {
    let retries = Retries {
        times,
        backoff_ms: vec![2 * MINUTE, 4 * MINUTE],
    };
    plan.groups[0].retry.insert(class, retries);
}

#[test]
fn a_transient_failure_is_tried_again_by_itself_and_counts_for_nothing() {
    let groups = [("one", 2, "failure_threshold = 0\ncanaries = 0"), ("two", 1, "")];
    let mut world = started(&groups, &[(0, Behaviour::FailsBefore)], &|plan| {
        retries(plan, FailureClass::Transient, 2);
    });
    until(&mut world, |world| host(world, 0).attempt == 2);
    let ask_at = host(&world, 0).ask_at_ms.unwrap();
    let (code, text) = duty(&world, 0);
    assert_eq!(
        (code, text.as_str()),
        (
            "retry",
            "tried again after 2m, retry 1 of 2: transient failure stage_failed: stage_failed"
        )
    );
    assert!(!host(&world, 0).counts && !host(&world, 0).slot);
    world.hosts.get_mut(&id(0)).unwrap().behaviour = Behaviour::Good;
    until(&mut world, |world| host(world, 1).upgraded());
    assert!(
        group(&world, "two").phase == GroupPhase::Pending,
        "its group waits for it"
    );
    rest(&mut world);
    assert!(host(&world, 0).permitted_at_ms.unwrap() >= ask_at);
    assert_eq!(world.kernel.phase(), RolloutPhase::Succeeded);
}

#[test]
fn the_last_attempt_that_fails_counts_and_a_person_gives_new_ones() {
    let groups = [("one", 2, "failure_threshold = 0")];
    let mut world = started(&groups, &[(0, Behaviour::RollsBack)], &|plan| {
        retries(plan, FailureClass::Install, 2);
    });
    rest(&mut world);
    assert!(
        paused(&world).starts_with("threshold: group one: 1 failed, 0 tolerated"),
        "{}",
        paused(&world)
    );
    assert_eq!((host(&world, 0).attempt, world.hosts[&id(0)].switches), (3, 3));
    world
        .command(Command::Retry {
            hosts: Vec::new(),
            server: false,
        })
        .unwrap();
    until(&mut world, |world| host(world, 0).attempt == 5);
    assert_eq!(host(&world, 0).retried[&FailureClass::Install], 1);
    rest(&mut world);
    assert_eq!(world.hosts[&id(0)].switches, 6);
}

#[test]
fn other_classes_and_hosts_without_a_working_client_are_not_tried_again() {
    let groups = [("one", 3, "failure_threshold = 2\nmax_unavailable = 2")];
    let bad = [(0, Behaviour::FailsBefore), (1, Behaviour::Inconsistent)];
    let mut world = started(&groups, &bad, &|plan| {
        retries(plan, FailureClass::Verify, 5);
        retries(plan, FailureClass::Install, 5);
    });
    rest(&mut world);
    assert_eq!((host(&world, 0).attempt, host(&world, 1).attempt), (1, 1));
}

/// A host that is away from before its turn.
fn away(offline: Offline) -> World {
    let groups = [("one", 3, "canaries = 0"), ("two", 1, "")];
    let mut world = started(&groups, &[], &|plan| plan.groups[0].offline = offline);
    until(&mut world, |world| world.open_hop().is_some());
    world.hosts.get_mut(&id(1)).unwrap().gone = true;
    world.disconnect(&id(1));
    world
}

#[test]
fn an_offline_host_is_caught_up_or_left_out_by_policy() {
    let mut world = away(Offline::CatchUp);
    until(&mut world, |world| group(world, "one").phase == GroupPhase::Done);
    assert_eq!(host(&world, 1).phase, HostPhase::Waiting);

    let mut world = away(Offline::Skip);
    until(&mut world, |world| {
        group(world, "one").phase == GroupPhase::Draining
    });
    assert!(
        duty(&world, 1).1.contains("left out when the other hosts"),
        "{:?}",
        duty(&world, 1)
    );
    until(&mut world, |world| group(world, "one").phase == GroupPhase::Done);
    assert_eq!(host(&world, 1).phase, HostPhase::Skipped);
    rest(&mut world);
    assert_eq!(world.kernel.phase(), RolloutPhase::FinishedWithExceptions);
}

#[test]
fn nobody_is_left_out_right_after_a_start_of_the_coordinator() {
    let mut world = away(Offline::Skip);
    until(&mut world, |world| in_flight(world) > 0);
    world.crash();
    let crashed = world.now;
    for number in [0, 2, 3] {
        world.connect(&id(number));
    }
    until(&mut world, |world| host(world, 1).phase == HostPhase::Skipped);
    assert!(world.now >= crashed + 50_000);
}

#[test]
fn a_group_waits_for_an_offline_host_and_then_asks_a_person() {
    let mut world = away(Offline::Wait);
    until(&mut world, |world| group(world, "one").offline_until_ms.is_some());
    let ends = group(&world, "one").offline_until_ms.unwrap();
    assert_eq!(group_duty(&world, "one").2, Some(ends));
    rest(&mut world);
    assert!(
        paused(&world)
            .starts_with("offline: group one: 1 host is still away 2m after its other hosts ended: "),
        "{}",
        paused(&world)
    );
    assert!(world.now >= ends && host(&world, 3).permitted_at_ms.is_none());
    resume(&mut world).unwrap();
    rest(&mut world);
    assert_eq!(host(&world, 1).phase, HostPhase::Skipped);
    assert!(host(&world, 3).upgraded());

    // One that returns in time is upgraded before the next group.
    let mut world = away(Offline::Wait);
    until(&mut world, |world| group(world, "one").offline_until_ms.is_some());
    world.hosts.get_mut(&id(1)).unwrap().gone = false;
    rest(&mut world);
    assert_eq!(world.kernel.phase(), RolloutPhase::Succeeded);
    assert!(host(&world, 1).permitted_at_ms < host(&world, 3).permitted_at_ms);
}

#[test]
fn a_group_that_is_not_done_at_its_deadline_asks_a_person_and_gets_the_same_time_again() {
    let groups = [("one", 30, "max_unavailable = 1")];
    let mut world = started(&groups, &[], &|plan| plan.groups[0].deadline_ms = Some(MINUTE));
    rest(&mut world);
    assert_eq!(
        paused(&world),
        "group_deadline: group one is not done 1m after it began"
    );
    let first = group(&world, "one").first_permit_ms.unwrap();
    assert!(world.now >= first + MINUTE);
    resume(&mut world).unwrap();
    assert_eq!(group(&world, "one").deadline_ms, Some(world.now + MINUTE));
    rest(&mut world);
    assert!(!world.kernel.is_final());
    for _ in 0..20 {
        if world.kernel.phase() == RolloutPhase::Paused {
            resume(&mut world).unwrap();
        }
        rest(&mut world);
    }
    assert_eq!(world.kernel.phase(), RolloutPhase::Succeeded);
}

#[test]
fn failures_over_all_groups_stop_the_rollout_and_are_forgiven_by_resume() {
    let groups = [
        ("one", 2, "failure_threshold = 1"),
        (
            "two",
            3,
            "failure_threshold = 1\nmax_unavailable = 1\ncanaries = 0",
        ),
    ];
    let bad = [(0, Behaviour::RollsBack), (2, Behaviour::RollsBack)];
    let mut world = started(&groups, &bad, &|plan| plan.failure_threshold = Some(1));
    rest(&mut world);
    assert_eq!(
        paused(&world),
        "threshold: the rollout: 2 failed over all groups, 1 tolerated"
    );
    let not_begun = (2..5).filter(|number| host(&world, *number).permitted_at_ms.is_none());
    assert_eq!(not_begun.count(), 1);
    resume(&mut world).unwrap();
    rest(&mut world);
    assert_eq!(world.kernel.phase(), RolloutPhase::FinishedWithExceptions);
    assert!(host(&world, 4).upgraded());
}

#[test]
fn failures_before_the_window_stop_a_group_before_anything_begins() {
    let groups = [("one", 3, "failure_threshold = 0\ncanaries = 0")];
    let mut world = started(&groups, &[], &|plan| {
        plan.groups[0].windows = vec![window(minute(20), 60 * MINUTE)];
    });
    until(&mut world, |world| group(world, "one").phase == GroupPhase::Gated);
    world.hosts.get_mut(&id(0)).unwrap().behaviour = Behaviour::Unready;
    until(&mut world, |world| host(world, 0).counts);
    assert!(world.now < minute(20));
    until(&mut world, |world| world.kernel.phase() == RolloutPhase::Paused);
    assert_eq!(paused(&world), "threshold: group one: 1 failed, 0 tolerated");
    assert!((0..3).all(|number| host(&world, number).permitted_at_ms.is_none()));
}

#[test]
fn a_breach_aborts_where_the_policy_says_so() {
    let groups = [
        (
            "one",
            4,
            "failure_threshold = 0\nmax_unavailable = 1\ncanaries = 0",
        ),
        ("two", 1, ""),
    ];
    let mut world = started(&groups, &[(1, Behaviour::RollsBack)], &|plan| {
        plan.groups[0].on_breach = OnBreach::Abort;
    });
    rest(&mut world);
    assert_eq!(world.kernel.phase(), RolloutPhase::Aborted);
    let abort = world.kernel.rollout().abort.clone().unwrap();
    assert_eq!((abort.by.as_str(), abort.force), ("coordinator", false));
    assert_eq!(abort.reason, "group one: 1 failed, 0 tolerated");
    assert_eq!(host(&world, 4).phase, HostPhase::Cancelled);
}

#[test]
fn a_limit_lowers_and_never_raises() {
    let groups = [(
        "one",
        8,
        "max_unavailable = 4\nfailure_threshold = 2\ncanaries = 0",
    )];
    let mut world = started(&groups, &[], &|_| {});
    let limit = |max_unavailable: Option<u32>, failure_threshold: Option<u32>| Command::Limit {
        group: "one".to_owned(),
        max_unavailable,
        failure_threshold,
        reason: "the network is slow".to_owned(),
    };
    let refused = |world: &mut World, command| world.command(command).unwrap_err();
    assert_eq!(refused(&mut world, limit(None, None)), "nothing_to_limit");
    assert_eq!(refused(&mut world, limit(Some(0), None)), "limit_zero");
    assert_eq!(refused(&mut world, limit(Some(5), None)), "not_lower");
    assert_eq!(refused(&mut world, limit(Some(2), Some(3))), "not_lower");
    until(&mut world, |world| in_flight(world) == 4);
    assert_eq!(
        world.command(limit(Some(1), Some(0))).unwrap(),
        "group one: max_unavailable 4 -> 1, failure_threshold 2 -> 0: the network is slow"
    );
    assert_eq!(refused(&mut world, limit(Some(4), None)), "not_lower");
    assert_eq!(refused(&mut world, limit(None, Some(1))), "not_lower");
    let last = (0..8).rfind(|number| host(&world, *number).permitted_at_ms.is_none());
    world.hosts.get_mut(&id(last.unwrap())).unwrap().behaviour = Behaviour::RollsBack;
    until(&mut world, |world| in_flight(world) <= 1);
    let mut most = 0;
    world.crash();
    for number in 0..8 {
        world.connect(&id(number));
    }
    until(&mut world, |world| world.kernel.phase() == RolloutPhase::Running);
    while world.kernel.phase() == RolloutPhase::Running {
        most = most.max(in_flight(&world));
        world.step();
    }
    assert_eq!(most, 1);
    assert_eq!(paused(&world), "threshold: group one: 1 failed, 0 tolerated");
    let told = explain::explain(&world.kernel, "one", world.now).unwrap().rules;
    assert!(
        told.contains(&"max_unavailable was limited from 4 to 1".to_owned()),
        "{told:?}"
    );
    assert_eq!(world.watcher.violations, Default::default());
}

/// The code of a refusal, and what the log says of the command.
fn approve(world: &mut World, name: &str) -> (String, String) {
    let group = name.to_owned();
    let code = world
        .command(Command::Approve { group })
        .err()
        .unwrap_or_default();
    let told = world.events.iter().rfind(|event| event.code == "operator");
    (code, told.unwrap().text.clone())
}

/// A group that waits for its window only, one whose turn has not come, one that was approved and one that there is none of.
#[test]
fn an_approval_is_taken_only_where_one_is_waited_for() {
    let opens = minute(20);
    let groups = [
        ("one", 2, "canaries = 0"),
        ("two", 2, "canaries = 0\napproval = true"),
    ];
    let mut world = started(&groups, &[], &|plan| {
        plan.groups[0].windows = vec![window(opens, 60 * MINUTE)];
        plan.groups[1].windows = vec![window(opens + 120 * MINUTE, 60 * MINUTE)];
    });
    until(&mut world, |world| group(world, "one").phase == GroupPhase::Gated);
    let refused = |(code, reason): (String, String), says: &str| {
        assert_eq!(code, "not_gated", "{reason}");
        assert!(reason.contains(says), "{reason}");
    };
    refused(approve(&mut world, "one"), "the fleet file wants none for it");
    refused(approve(&mut world, "two"), "its turn has not come");
    let (code, text) = approve(&mut world, "three");
    assert_eq!(code, "unknown_group");
    assert!(text.contains("the plan has no group `three`"), "{text}");
    until(&mut world, |world| group(world, "two").phase == GroupPhase::Gated);
    let (code, text) = approve(&mut world, "two");
    assert_eq!(code, "", "{text}");
    // It waits for its window now, and for nobody.
    world.step();
    assert_eq!(group(&world, "two").phase, GroupPhase::Gated);
    refused(approve(&mut world, "two"), "gave it");
    let reason = "enough".to_owned();
    world.command(Command::Abort { reason, force: false }).unwrap();
    refused(approve(&mut world, "two"), "none of its hosts begins any more");
}
