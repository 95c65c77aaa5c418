//! What PMM must show of a host before it counts as verified.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use fleet_sim::fixture::{self, ACCEPT, GroupSpec};
use fleet_sim::hosts::Behaviour;
use fleet_sim::steps::{host, id, resume, started};
use fleet_sim::{World, until};
use rollout::kernel::{HostPhase, Input, RolloutPhase};

/// A host joins by a child plan.
fn joins(world: &mut World, groups: &[GroupSpec<'_>], behaviour: Behaviour) {
    let draft = fixture::draft(groups, ACCEPT).with_parent(Some(world.kernel.plan_id().clone()));
    world.adopt(draft).unwrap();
    let newest = world.hosts.len() - 1;
    world.hosts.get_mut(&id(newest)).unwrap().behaviour = behaviour;
}

#[test]
fn a_late_host_without_samples_is_not_verified_and_the_checks_count_it() {
    let mut world = started(&[("one", 2, "max_unavailable = 1")], &[], &|_| {});
    until(&mut world, |world| host(world, 0).phase.in_flight());
    joins(
        &mut world,
        &[("one", 3, "max_unavailable = 1")],
        Behaviour::NoSamples,
    );
    // What is read back from the store knows as well that its baseline is missing.
    world.crash();
    until(&mut world, |world| {
        host(world, 2).phase == HostPhase::Verifying || world.kernel.is_final()
    });
    let baseline = world.kernel.baseline().unwrap();
    assert!(baseline.clients.contains_key("agent-2") && baseline.services.contains_key("service-2"));
    until(&mut world, |world| host(world, 2).phase != HostPhase::Verifying);
    assert_ne!(host(&world, 2).phase, HostPhase::Settling);
    until(&mut world, |world| world.kernel.phase() == RolloutPhase::Paused);
    resume(&mut world).unwrap();
    until(&mut world, |world| world.kernel.is_final());
    let found = world.kernel.verification().unwrap();
    assert_eq!((found.clients_checked, found.services_checked), (3, 3));
    assert_eq!(world.watcher.violations, Default::default());
}

#[test]
fn a_host_that_pmm_does_not_list_waits_with_a_reason_and_is_left_out_in_the_end() {
    let mut world = started(&[("one", 2, "max_unavailable = 1")], &[], &|_| {});
    until(&mut world, |world| host(world, 0).phase.in_flight());
    joins(&mut world, &[("one", 3, "max_unavailable = 1")], Behaviour::Good);
    world.unlisted.insert(id(2));
    until(&mut world, |world| host(world, 2).phase == HostPhase::Ready);
    let duty = world
        .kernel
        .host_duty(&"clients-1".into(), &id(2), world.now)
        .unwrap();
    assert_eq!(duty.code, "baseline");
    assert!(duty.deadline_ms.is_some_and(|at| at > world.now));
    until(&mut world, |world| world.kernel.is_final());
    let row = host(&world, 2);
    assert_eq!(row.phase, HostPhase::Skipped);
    assert!(
        row.reason.contains("PMM does not list its client"),
        "{}",
        row.reason
    );
    assert_eq!(world.hosts[&id(2)].switches, 0);
    assert_eq!(world.watcher.violations, Default::default());
}

#[test]
fn where_pmm_can_not_be_asked_for_a_late_host_a_person_is_told() {
    let mut world = started(&[("one", 2, "max_unavailable = 1")], &[], &|_| {});
    until(&mut world, |world| host(world, 1).upgraded());
    world.faults.view_lost = 1;
    joins(&mut world, &[("one", 3, "max_unavailable = 1")], Behaviour::Good);
    until(&mut world, |world| world.kernel.phase() == RolloutPhase::Paused);
    let pause = world.kernel.rollout().pause.clone().unwrap();
    assert_eq!(pause.code, "server_view_missing");
    assert_eq!(host(&world, 2).phase, HostPhase::Ready);
    world.faults.view_lost = 0;
    resume(&mut world).unwrap();
    until(&mut world, |world| world.kernel.is_final());
    assert_eq!(world.kernel.phase(), RolloutPhase::Succeeded);
    assert_eq!(world.watcher.violations, Default::default());
}

#[test]
fn a_sample_that_stays_the_same_is_one_good_view_however_often_it_is_looked_at() {
    let mut world = started(
        &[(
            "one",
            1,
            "canaries = 0\nhealth = { good_views = 3, patience = \"5m\" }",
        )],
        &[],
        &|_| {},
    );
    until(&mut world, |world| host(world, 0).phase == HostPhase::Verifying);
    // The client delivers one sample and dies: PMM's newest stays what it was.
    let sample = world.now + 1_000;
    let look = |world: &mut World, sample: u64| {
        world.now += 3_000;
        let mut view = world.view();
        view.taken_at_ms = world.now;
        let newest = view.node_samples_ms.values_mut();
        for at in newest.chain(view.service_samples_ms.values_mut()) {
            *at = sample;
        }
        world.give(Input::ServerView(view));
    };
    for _ in 0..10 {
        look(&mut world, sample);
        assert_eq!(host(&world, 0).phase, HostPhase::Verifying);
        assert_eq!(host(&world, 0).good_views, 1);
    }
    // Each new one is another good view.
    look(&mut world, sample + 20_000);
    look(&mut world, sample + 20_000);
    assert_eq!(host(&world, 0).good_views, 2);
    look(&mut world, sample + 30_000);
    assert_eq!(host(&world, 0).phase, HostPhase::Settling);
}

#[test]
fn a_client_that_dies_after_its_first_sample_goes_back_when_the_patience_ends() {
    let mut world = started(
        &[(
            "one",
            1,
            "canaries = 0\nhealth = { good_views = 3, patience = \"5m\" }",
        )],
        &[],
        &|_| {},
    );
    until(&mut world, |world| host(world, 0).phase == HostPhase::Verifying);
    let sample = world.now + 1_000;
    while host(&world, 0).phase == HostPhase::Verifying {
        world.now += 3_000;
        let mut view = world.view();
        view.taken_at_ms = world.now;
        let newest = view.node_samples_ms.values_mut();
        for at in newest.chain(view.service_samples_ms.values_mut()) {
            *at = sample;
        }
        world.give(Input::ServerView(view));
        world.give(Input::Tick);
    }
    let row = host(&world, 0);
    assert_eq!(row.phase, HostPhase::RollingBack, "{}", row.reason);
    assert!(row.reason.contains("no newer sample"), "{}", row.reason);
}
