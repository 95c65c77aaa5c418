//! Hosts on which PMM runs a database backup at their turn.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use fleet_sim as world;
use fleet_sim::until;

use fleet_common::ids::HostId;
use fleet_common::order::HostEvent;
use fleet_sim::fixture::{ACCEPT, GroupSpec};
use fleet_sim::hosts::Behaviour;
use rollout::kernel::{HostPhase, Input, RolloutPhase};
use rollout::{explain, report};
use world::{Faults, World};

fn world(groups: &[GroupSpec<'_>], behaviours: &[(usize, Behaviour)]) -> World {
    let mut world = World::new(7, groups, ACCEPT, Faults::NONE);
    world.helpful = false;
    for (number, behaviour) in behaviours {
        world
            .hosts
            .get_mut(&HostId::new(format!("h{number}")))
            .unwrap()
            .behaviour = *behaviour;
    }
    world.start();
    world
}

#[test]
fn a_host_with_a_running_backup_waits_without_a_slot_and_is_asked_again() {
    let groups = [("one", 3, "max_unavailable = 1\nfailure_threshold = 0")];
    let hour = 3_600_000;
    let end = fleet_sim::fixture::NOW + 2 * hour;
    let mut world = world(&groups, &[(0, Behaviour::Backup(end))]);
    until(&mut world, |world| {
        let row = world.kernel.host(&"clients-1".into(), &"h0".into()).unwrap();
        world.outcome(1) == "upgraded"
            && world.outcome(2) == "upgraded"
            && row.ask_at_ms.is_some_and(|at| at > world.now)
    });
    let row = world.kernel.host(&"clients-1".into(), &"h0".into()).unwrap();
    assert!(
        row.phase == HostPhase::Waiting && !row.slot && !row.counts,
        "{row:#?}"
    );
    let told = explain::explain(&world.kernel, "h0", world.now).unwrap();
    assert!(
        told.waits_for[0].contains("backup") && told.deadline_ms.is_some(),
        "{told:#?}"
    );
    world.crash();
    while !world.kernel.is_final() && world.now < end + hour {
        world.step();
    }
    assert_eq!(world.kernel.phase(), RolloutPhase::Succeeded);
    let asked = world
        .kernel
        .host(&"clients-1".into(), &"h0".into())
        .unwrap()
        .attempt;
    assert!(
        (6..20).contains(&asked),
        "it is asked with growing pauses: {asked}"
    );
    assert_eq!(world.hosts[&HostId::new("h0")].switches, 1);
}

#[test]
fn a_backup_that_never_ends_leaves_the_host_out_by_a_named_rule() {
    let mut world = world(
        &[("one", 2, "failure_threshold = 0")],
        &[(0, Behaviour::Backup(u64::MAX))],
    );
    let begun = world.now;
    for _ in 0..30_000 {
        world.step();
        if world.kernel.is_final() {
            break;
        }
    }
    assert_eq!(world.kernel.phase(), RolloutPhase::FinishedWithExceptions);
    assert!(world.now - begun < 7 * 3_600_000, "six hours by default");
    let report = report::report(&world.kernel, world.now);
    assert_eq!(
        (report.hosts[0].outcome.as_str(), report.hosts[0].code.as_str()),
        ("skipped", fleet_common::codes::BACKUP_RUNNING)
    );
    assert_eq!(world.outcome(1), "upgraded");
    assert!(world.events.iter().all(|event| event.code != "group_breached"));
}

/// An agent looks for backups right before the client stops, too: by then it has told of its first step.
#[test]
fn a_backup_that_is_seen_only_after_the_first_step_is_not_waited_for_for_ever() {
    let mut world = world(
        &[("one", 1, "failure_threshold = 0")],
        &[(0, Behaviour::Backup(u64::MAX))],
    );
    let (begun, id) = (world.now, HostId::new("h0"));
    let mut first_steps = 0;
    for _ in 0..30_000 {
        world.step();
        let row = world.kernel.host(&"clients-1".into(), &id).unwrap();
        if let (HostPhase::Permitted, Some(order)) = (row.phase, &row.order) {
            first_steps += 1;
            let event = HostEvent::StepStarted {
                step: "check".to_owned(),
                index: 1,
                of: 8,
                deadline_for_ms: 60_000,
            };
            let input = Input::Host {
                host: id.clone(),
                order_id: order.id.clone(),
                epoch: world.kernel.epoch(),
                event,
            };
            world.give(input);
        }
        if world.kernel.is_final() {
            break;
        }
    }
    assert!(first_steps > 3, "{first_steps}");
    let row = world.kernel.host(&"clients-1".into(), &id).unwrap();
    assert_eq!(row.phase, HostPhase::Skipped);
    let limit = world.kernel.plan().timing.backup_for_ms;
    assert!(row.since_ms - begun < limit + 30 * 60_000);
}
