//! Child plans that take over a running rollout.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use fleet_common::ids::HostId;
use fleet_sim::fixture::{self, ACCEPT, GroupSpec};
use fleet_sim::until;
use fleet_sim::{Faults, World};
use rollout::kernel::{Command, GroupPhase, HostPhase, Kernel, RolloutPhase, Row};
use rollout::plan::PlanDraft;
use rollout::report;

fn started(groups: &[GroupSpec<'_>]) -> World {
    let mut world = World::of_plan(7, fixture::draft(groups, ACCEPT), Faults::NONE);
    world.helpful = false;
    world.start();
    world
}

/// A plan of these groups that follows the one that runs.
fn child(world: &World, groups: &[GroupSpec<'_>]) -> PlanDraft {
    fixture::draft(groups, ACCEPT).with_parent(Some(world.kernel.plan_id().clone()))
}

fn phase(world: &World, number: usize) -> HostPhase {
    let host = HostId::new(format!("h{number}"));
    world.kernel.host(&"clients-1".into(), &host).unwrap().phase
}

fn group(world: &World, name: &str) -> GroupPhase {
    world
        .kernel
        .group(&"clients-1".into(), &name.into())
        .unwrap()
        .phase
}

/// Every host once and upgraded, no rule broken.
fn ends_well(world: &mut World, hosts: usize) {
    until(world, |world| world.kernel.is_final());
    assert_eq!(world.kernel.phase(), RolloutPhase::Succeeded);
    let found = report::report(&world.kernel, world.now);
    let json = serde_json::to_value(&found).unwrap();
    assert_eq!(json["hosts"].as_array().unwrap().len(), hosts);
    fleet_sim::steps::sound(world);
}

/// What a coordinator that reads the store now would hold.
fn same_from_store(world: &World) {
    let rows = world.store.iter().map(|(key, json)| Row {
        key: key.clone(),
        json: json.clone(),
    });
    let read = Kernel::restore(&world.bytes, &rows.collect::<Vec<_>>()).unwrap();
    assert_eq!(read.plan(), world.kernel.plan());
    assert_eq!(read.plan_id(), world.kernel.plan_id());
    let hosts = |kernel: &Kernel| report::report(kernel, world.now).hosts;
    assert_eq!(hosts(&read), hosts(&world.kernel));
}

#[test]
fn a_host_that_comes_late_is_upgraded_in_the_running_rollout() {
    let mut world = started(&[("one", 3, "")]);
    until(&mut world, |world| phase(world, 0) == HostPhase::Settling);
    let epoch = world.kernel.epoch();
    let draft = child(&world, &[("one", 4, "")]);
    world.adopt(draft).unwrap();
    assert!(world.kernel.epoch() > epoch);
    assert_eq!(phase(&world, 0), HostPhase::Settling);
    assert_eq!(phase(&world, 3), HostPhase::Waiting);
    same_from_store(&world);
    world.crash();
    ends_well(&mut world, 4);
}

#[test]
fn the_report_names_the_release_that_the_server_began_with() {
    let mut world = started(&[("one", 2, "")]);
    until(&mut world, |world| phase(world, 0).in_flight());
    let from = |world: &World| report::report(&world.kernel, world.now).server.from;
    let before = from(&world);
    assert_eq!(before, "2.41.2");
    // A plan that is made now finds the server on its target.
    for hosts in [3, 4] {
        let mut draft = child(&world, &[("one", hosts, "")]);
        draft.plan.server.from = draft.plan.server.to;
        world.adopt(draft).unwrap();
        assert_eq!(from(&world), before);
        same_from_store(&world);
    }
    world.crash();
    assert_eq!(from(&world), before);
    ends_well(&mut world, 4);
}

#[test]
fn a_leg_whose_last_group_is_done_opens_again_for_hosts_and_groups() {
    let mut world = started(&[("one", 2, "")]);
    until(&mut world, |world| world.kernel.phase() == RolloutPhase::Checking);
    let draft = child(&world, &[("one", 2, ""), ("two", 1, "")]);
    world.adopt(draft).unwrap();
    assert_eq!(group(&world, "one"), GroupPhase::Done);
    until(&mut world, |world| phase(world, 2) == HostPhase::Settling);
    let draft = child(&world, &[("one", 2, ""), ("two", 2, "")]);
    world.adopt(draft).unwrap();
    same_from_store(&world);
    ends_well(&mut world, 4);
}

#[test]
fn a_wider_number_takes_effect_and_lifts_what_was_reduced_a_narrower_one_does_not() {
    let many = |lines| [("one", 9, lines)];
    let mut world = started(&many("max_unavailable = 2"));
    until(&mut world, |world| phase(world, 0) == HostPhase::Switching);
    let limit = Command::Limit {
        group: "one".to_owned(),
        max_unavailable: Some(1),
        failure_threshold: None,
        reason: String::new(),
    };
    world.command(limit).unwrap();
    let row = |world: &World| {
        world
            .kernel
            .group(&"clients-1".into(), &"one".into())
            .unwrap()
            .clone()
    };
    let draft = child(&world, &many("max_unavailable = 2\nsoak = \"1s\""));
    world.adopt(draft).unwrap();
    assert_eq!(row(&world).limits.max_unavailable, Some(1));
    let draft = child(&world, &many("max_unavailable = 4"));
    world.adopt(draft).unwrap();
    assert_eq!(row(&world).limits.max_unavailable, None);
    let switching = |world: &World| (0..9).filter(|host| phase(world, *host).in_flight()).count();
    until(&mut world, |world| switching(world) == 4);
    let draft = child(&world, &many("max_unavailable = 1"));
    world.adopt(draft).unwrap();
    for _ in 0..3 {
        let before = switching(&world);
        world.step();
        assert!(switching(&world) <= before);
    }
    ends_well(&mut world, 9);
}

#[test]
fn hosts_that_left_the_plan_are_skipped_if_they_had_not_begun_and_stay_if_they_had() {
    let mut world = started(&[("one", 4, "max_unavailable = 1")]);
    until(&mut world, |world| phase(world, 0).in_flight());
    let mut draft = child(&world, &[("one", 4, "max_unavailable = 1")]);
    let gone = [HostId::new("h0"), HostId::new("h3")];
    draft.plan.hosts.retain(|host| !gone.contains(&host.host));
    draft.plan.groups[0].hosts.retain(|host| !gone.contains(host));
    for leg in &mut draft.plan.legs {
        if let rollout::plan::LegKind::Clients { entries, .. } = &mut leg.kind {
            entries.retain(|host, _| !gone.contains(host));
        }
    }
    world.adopt(draft).unwrap();
    assert!(phase(&world, 0).in_flight());
    assert_eq!(phase(&world, 3), HostPhase::Skipped);
    same_from_store(&world);
    until(&mut world, |world| phase(world, 0) == HostPhase::Settling);
    // A later plan brings the one back that had not begun.
    let draft = child(&world, &[("one", 4, "max_unavailable = 1")]);
    world.adopt(draft).unwrap();
    assert_ne!(phase(&world, 3), HostPhase::Skipped);
    same_from_store(&world);
    ends_well(&mut world, 4);
}

#[test]
fn a_paused_rollout_stays_paused() {
    let mut world = started(&[("one", 2, "")]);
    until(&mut world, |world| phase(world, 0) == HostPhase::Switching);
    let reason = String::new();
    world.command(Command::Pause { reason }).unwrap();
    let draft = child(&world, &[("one", 3, "")]);
    world.adopt(draft).unwrap();
    assert_eq!(world.kernel.phase(), RolloutPhase::Paused);
    let resume = Command::Resume {
        reason: String::new(),
        accept_server: false,
    };
    world.command(resume).unwrap();
    ends_well(&mut world, 3);
}

#[test]
fn what_does_not_follow_the_running_plan_is_refused() {
    let groups = [("one", 2, ""), ("two", 2, "")];
    let mut world = World::of_plan(7, fixture::draft(&groups, ACCEPT), Faults::NONE);
    let wider = [("one", 3, ""), ("two", 2, "")];
    let draft = child(&world, &wider);
    assert_eq!(world.adopt(draft).unwrap_err(), "not_started");
    world.start();
    assert_eq!(
        world.adopt(fixture::draft(&wider, ACCEPT)).unwrap_err(),
        "other_parent"
    );
    let draft = child(&world, &[("two", 2, ""), ("one", 3, "")]);
    assert_eq!(world.adopt(draft).unwrap_err(), "group_order");
    let mut draft = child(&world, &wider);
    draft.plan.legs.pop();
    assert_eq!(world.adopt(draft).unwrap_err(), "other_legs");
    let mut draft = child(&world, &wider);
    draft.plan.server.url = "https://other.example.com".to_owned();
    assert_eq!(world.adopt(draft).unwrap_err(), "other_target");
    // Two operators: the second one's plan follows a plan that runs no more.
    let (first, second) = (
        child(&world, &wider),
        child(&world, &[("one", 2, ""), ("two", 3, "")]),
    );
    world.adopt(first.clone()).unwrap();
    assert_eq!(world.adopt(second).unwrap_err(), "other_parent");
    assert_eq!(world.adopt(first).unwrap_err(), "already_adopted");
    let abort = Command::Abort {
        reason: String::new(),
        force: false,
    };
    world.command(abort).unwrap();
    let draft = child(&world, &wider);
    let code = world.adopt(draft).unwrap_err();
    assert!(code == "aborting" || code == "ended", "{code}");
}
