//! What ends although something of it is still open, or is judged by what was so before: a host's earlier order, a permit that is out, the
//! failure before a next attempt, a driver that was given up, a look from before a change.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use fleet_common::inventory::Detection;
use fleet_sim::fixture::{self, ACCEPT, GroupSpec};
use fleet_sim::hosts::Behaviour;
use fleet_sim::steps::{host, id, leaves, paused, resume, retry, returns, sound, started, until};
use fleet_sim::{Faults, World};
use rollout::explain;
use rollout::kernel::{Command, HostPhase, HostRow, LegPhase, RollbackTarget, RolloutPhase};
use rollout::plan::Plan;
use rollout::policy::{FailureClass, Retries};

const BRIDGE: &str = "[server.pmm2_clients]\nbridge = \"3.2.0\"";
const THREE: [GroupSpec<'static>; 1] = [(
    "one",
    3,
    "canaries = 0\nfailure_threshold = 2\nmax_unavailable = 3",
)];
const TWO: GroupSpec<'static> = (
    "one",
    2,
    "canaries = 0\nfailure_threshold = 1\nmax_unavailable = 2",
);

fn row(world: &World, leg: &str, number: usize) -> HostRow {
    world.kernel.host(&leg.into(), &id(number)).unwrap().clone()
}

fn back(world: &mut World, target: RollbackTarget) {
    let reason = "slow queries".to_owned();
    world.command(Command::Rollback { target, reason }).unwrap();
}

/// One more attempt after this failure, in ten minutes.
fn tries_again(plan: &mut Plan, class: FailureClass) {
    let retries = Retries {
        times: 1,
        backoff_ms: vec![600_000],
    };
    for group in &mut plan.groups {
        group.retry = [(class, retries.clone())].into();
    }
}

/// A plan with a bridge, in which h1 behaves like this and is away since the middle of its first switch; the server's last hop is due.
fn lost_before_the_last_hop(h1: Behaviour, edit: &dyn Fn(&mut Plan)) -> World {
    let mut draft = fixture::draft(&THREE, BRIDGE);
    draft.plan.groups.iter_mut().for_each(|group| group.retry.clear());
    edit(&mut draft.plan);
    let mut world = World::of_plan(7, draft, Faults::NONE);
    world.helpful = false;
    world.hosts.get_mut(&id(0)).unwrap().behaviour = Behaviour::Slow;
    world.hosts.get_mut(&id(1)).unwrap().behaviour = h1;
    world.start();
    until(&mut world, |world| host(world, 1).phase == HostPhase::Switching);
    leaves(&mut world, 1);
    until(&mut world, |world| paused(world).starts_with("bridge_incomplete"));
    resume(&mut world).unwrap();
    world
}

/// h1 was lost, its slot was freed, and it is to be tried again once a person lets it.
fn lost_and_tried_again_under_a_hold(groups: &[GroupSpec<'_>]) -> World {
    let mut world = started(groups, &[(1, Behaviour::Silent)], &|_| {});
    until(&mut world, |world| host(world, 1).phase == HostPhase::Lost);
    let (host, reason) = (id(1).to_string(), "looked at".to_owned());
    let free = Command::FreeSlot {
        host: host.clone(),
        reason: reason.clone(),
    };
    world.command(free).unwrap();
    world.command(Command::Hold { host, reason }).unwrap();
    retry(&mut world, &[1]).unwrap();
    world
}

#[test]
fn a_host_works_at_one_order_at_a_time_over_all_legs() {
    let mut world = lost_before_the_last_hop(Behaviour::Slow, &|plan| plan.groups[0].max_unavailable = 2);
    world.hosts.get_mut(&id(1)).unwrap().behaviour = Behaviour::Mute;
    until(&mut world, |world| {
        row(world, "clients-2", 0).phase == HostPhase::Switching
    });
    assert_eq!(row(&world, "clients-2", 1).phase, HostPhase::Skipped);
    let offered = |world: &World| {
        let told = explain::explain(&world.kernel, "h1", world.now).unwrap();
        told.you_can
            .iter()
            .any(|choice| choice.command.starts_with("retry"))
    };
    assert_eq!(retry(&mut world, &[1]), Err("away".to_owned()));
    assert!(!offered(&world));
    // It goes on with what it was told in the leg before.
    returns(&mut world, 1);
    assert!(host(&world, 1).phase.in_flight());
    assert_eq!(retry(&mut world, &[1]), Err("under_way".to_owned()));
    assert!(!offered(&world));
    until(&mut world, |world| host(world, 1).phase.is_through());
    sound(&world);
}

#[test]
fn a_lost_host_that_is_held_does_not_begin_with_the_rest_of_its_permit() {
    let mut world = started(&THREE, &[], &|plan| plan.timing.permit_ms = 1_800_000);
    until(&mut world, |world| host(world, 1).phase == HostPhase::Permitted);
    leaves(&mut world, 1);
    until(&mut world, |world| host(world, 1).phase == HostPhase::Lost);
    let (name, reason) = (id(1).to_string(), "disk".to_owned());
    let said = world.command(Command::Hold { host: name, reason }).unwrap();
    assert!(said.contains("called back"), "{said}");
    returns(&mut world, 1);
    for _ in 0..120 {
        world.step();
        assert_eq!(world.hosts[&id(1)].switches, 0, "{:?}", host(&world, 1).phase);
    }
    sound(&world);
}

#[test]
fn who_fails_where_no_attempt_follows_has_failed() {
    for target in [RollbackTarget::Clients, RollbackTarget::Group("one".to_owned())] {
        let mut world = started(&THREE, &[(1, Behaviour::NoSamples)], &|plan| {
            fixture::way_back(plan, true);
            tries_again(plan, FailureClass::Verify);
        });
        until(&mut world, |world| host(world, 1).phase == HostPhase::RollingBack);
        back(&mut world, target);
        until(&mut world, |world| host(world, 1).phase != HostPhase::RollingBack);
        let _ = resume(&mut world);
        world.rest();
        let row = host(&world, 1);
        assert!(row.phase == HostPhase::RolledBack && row.counts, "{row:#?}");
        assert!(row.reason.contains("not verified in time"), "{row:#?}");
        sound(&world);
    }
}

#[test]
fn who_fails_after_its_leg_has_failed() {
    let mut world = lost_before_the_last_hop(Behaviour::RollsBack, &|plan| {
        tries_again(plan, FailureClass::Install);
    });
    until(&mut world, |world| {
        let last = &world.kernel.legs()[3];
        last.hops.iter().any(|hop| hop.order.is_some())
    });
    returns(&mut world, 1);
    world.rest();
    let row = host(&world, 1);
    assert!(row.phase == HostPhase::RolledBack && row.counts, "{row:#?}");
    sound(&world);
}

#[test]
fn an_abort_that_gave_up_the_driver_goes_on_when_it_is_heard_of() {
    let mut world = started(&THREE, &[], &|_| {});
    world.hop_pause = 1_500_000;
    until(&mut world, |world| {
        paused(world).starts_with("server_needs_operator")
    });
    let reason = "enough".to_owned();
    world.command(Command::Abort { reason, force: false }).unwrap();
    until(&mut world, |world| world.kernel.phase() == RolloutPhase::Aborted);
    until(&mut world, |world| {
        world.kernel.legs()[1].phase != LegPhase::NeedsOperator
    });
    assert_eq!(world.kernel.phase(), RolloutPhase::Aborting);
    world.hop_pause = 0;
    let open = |world: &World| world.kernel.legs()[1].hops.iter().any(|hop| hop.order.is_some());
    until(&mut world, |world| {
        let works = world.kernel.legs()[1].phase != LegPhase::NeedsOperator;
        assert!(!(world.kernel.is_final() && open(world) && works));
        world.kernel.is_final() && !open(world)
    });
    sound(&world);
}

#[test]
fn the_checks_look_anew_after_a_host_was_taken_back_in_their_middle() {
    let mut world = started(&THREE, &[], &|plan| {
        fixture::way_back(plan, true);
        plan.timing.verify_ms = 1_200_000;
    });
    until(&mut world, |world| host(world, 2).made_it());
    world.hosts.get_mut(&id(2)).unwrap().samples = false;
    until(&mut world, |world| world.kernel.verification().is_some());
    back(&mut world, RollbackTarget::Host("h1".to_owned()));
    until(&mut world, |world| host(world, 1).phase == HostPhase::RolledBack);
    world.hosts.get_mut(&id(2)).unwrap().samples = true;
    resume(&mut world).unwrap();
    world.rest();
    let found = world.kernel.verification().unwrap();
    assert_eq!(found.clients_not_current, ["node-1"]);
    sound(&world);
}

#[test]
fn a_lost_host_that_is_tried_again_and_held_to_the_end_is_lost() {
    let mut world = lost_and_tried_again_under_a_hold(&[TWO]);
    world.rest();
    let row = host(&world, 1);
    assert!(
        row.phase == HostPhase::Lost && row.counts && row.reason.contains("held: looked at"),
        "{row:#?}"
    );
    assert_eq!(world.kernel.phase(), RolloutPhase::FinishedWithLost);
    sound(&world);
}

#[test]
fn a_child_plan_does_not_leave_out_a_lost_host_that_is_tried_again() {
    let mut world = lost_and_tried_again_under_a_hold(&[TWO, ("two", 1, "approval = true")]);
    let mut records = fixture::records(&[TWO, ("two", 1, "")]);
    if let Detection::Installed(found) = &mut records[0].inventory.client {
        found.version = "3.9.1".parse().unwrap();
        found.running_version = Some(found.version);
    }
    records.remove(1);
    let groups = [TWO, ("two", 1, "approval = true")];
    let running = world.kernel.running();
    let version = world.server_version;
    let child = fixture::plan_of(&groups, ACCEPT, &records, version, Some(&running), world.now).unwrap();
    let parent = world.kernel.plan_id().clone();
    world.adopt(child.with_parent(Some(parent))).unwrap();
    let row = host(&world, 1);
    assert!(row.phase.before_permit(), "{row:#?}");
    sound(&world);
}

#[test]
fn slots_are_exhausted_only_where_somebody_waits_for_one() {
    let groups = [(
        "one",
        3,
        "canaries = 0\nfailure_threshold = 2\nmax_unavailable = 2\nsoak = \"20m\"",
    )];
    let bad = [(1, Behaviour::Inconsistent), (2, Behaviour::Inconsistent)];
    let mut world = started(&groups, &bad, &|_| {});
    until(&mut world, |world| {
        host(world, 2).phase == HostPhase::Inconsistent
    });
    let limit = Command::Limit {
        group: "one".to_owned(),
        max_unavailable: Some(1),
        failure_threshold: None,
        reason: "slow".to_owned(),
    };
    world.command(limit).unwrap();
    world.hosts.get_mut(&id(1)).unwrap().behaviour = Behaviour::Good;
    retry(&mut world, &[1]).unwrap();
    until(&mut world, |world| {
        assert_eq!(paused(world), "");
        host(world, 1).made_it()
    });
    sound(&world);
}

#[test]
fn an_abort_before_the_next_attempt_does_not_hide_the_failure() {
    let mut world = started(&THREE, &[(1, Behaviour::RollsBack)], &|plan| {
        tries_again(plan, FailureClass::Install);
    });
    until(&mut world, |world| !host(world, 1).retried.is_empty());
    let reason = "enough".to_owned();
    world.command(Command::Abort { reason, force: false }).unwrap();
    world.rest();
    let row = host(&world, 1);
    let said = row
        .reason
        .contains("before its next attempt; the last one failed: ")
        && !row.reason.contains("began");
    assert!(said, "{row:#?}");
}
