//! Clients that address the PMM Server's container follow its port.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use fleet_sim as world;
use fleet_sim::until;

use fleet_common::ids::HostId;
use fleet_common::server::HopOutcome;
use fleet_sim::fixture::ACCEPT;
use fleet_sim::hosts::Behaviour;
use rollout::kernel::{Command, HostPhase, RolloutPhase, Side};
use rollout::{explain, progress, report};
use world::{Faults, World};

const GROUPS: &[fleet_sim::fixture::GroupSpec<'static>] = &[("one", 1, ""), ("two", 3, "")];

fn world(direct: &[usize]) -> World {
    let mut world = World::with_direct(7, GROUPS, ACCEPT, Faults::NONE, direct);
    world.helpful = false;
    world.start();
    world
}

fn host(number: usize) -> HostId {
    HostId::new(format!("h{number}"))
}

fn row(world: &World, number: usize) -> rollout::kernel::HostRow {
    world
        .kernel
        .host(&"server-1".into(), &host(number))
        .unwrap()
        .clone()
}

fn rest(world: &mut World) {
    until(world, |world| progress::view(&world.kernel, world.now).at_rest);
}

fn pause_code(world: &World) -> String {
    world
        .kernel
        .rollout()
        .pause
        .as_ref()
        .map(|pause| pause.code.clone())
        .unwrap_or_default()
}

#[test]
fn they_follow_once_after_the_first_release_of_pmm_3() {
    let mut world = world(&[0, 2]);
    until(&mut world, |world| row(world, 2).phase == HostPhase::Repointed);
    assert!(world.server_version.major >= 3 && world.hosts.values().all(|host| host.switches == 0));
    let status = progress::view(&world.kernel, world.now);
    assert_eq!(status.server[0].repoint.as_ref().unwrap().total, 2);
    rest(&mut world);
    assert_eq!(world.kernel.phase(), RolloutPhase::Succeeded);
    assert_eq!(
        world.watcher.violations.len(),
        0,
        "{:?}",
        world.watcher.violations
    );
    let told: Vec<u32> = (0..4).map(|number| world.hosts[&host(number)].repoints).collect();
    assert_eq!(told, [1, 0, 1, 0], "once, over both hops to PMM 3");
    let report = report::report(&world.kernel, world.now);
    let found = report.hosts[0].repoint.as_ref().unwrap();
    assert_eq!(
        (found.to.as_str(), found.outcome.as_str()),
        ("pmm-server:8443", "repointed")
    );
    assert!(report.hosts[1].repoint.is_none());
}

#[test]
fn one_that_does_not_follow_is_named_before_any_client_switches() {
    let mut world = world(&[0, 2]);
    world.hosts.get_mut(&host(2)).unwrap().behaviour = Behaviour::StaysBehind;
    rest(&mut world);
    assert_eq!(pause_code(&world), "repoint");
    assert!(
        world
            .kernel
            .rollout()
            .pause
            .as_ref()
            .unwrap()
            .text
            .contains("node-2")
    );
    assert!(world.hosts.values().all(|host| host.switches == 0));
    assert_eq!(
        (row(&world, 2).phase, row(&world, 2).attempt),
        (HostPhase::Failed, 3)
    );
    let told = explain::explain(&world.kernel, "node-2", world.now).unwrap();
    assert!(
        told.reason.contains("server-1") && told.rules.iter().any(|rule| rule.contains("pmm-server:8443")),
        "{told:#?}"
    );
    let server = explain::explain(&world.kernel, "server", world.now).unwrap();
    assert!(
        server.rules.iter().any(|rule| rule.contains("not yet: node-2")),
        "{server:#?}"
    );
    assert_eq!(
        progress::view(&world.kernel, world.now).failures[0].name,
        "node-2"
    );
    // Repaired and tried again.
    world.hosts.get_mut(&host(2)).unwrap().behaviour = Behaviour::Good;
    world
        .command(Command::Retry {
            hosts: vec!["node-2".into()],
            server: false,
        })
        .unwrap();
    rest(&mut world);
    assert_eq!(world.kernel.phase(), RolloutPhase::Succeeded);
}

#[test]
fn a_person_may_go_on_without_it_and_bring_it_later() {
    let mut world = world(&[2]);
    world.hosts.get_mut(&host(2)).unwrap().behaviour = Behaviour::StaysBehind;
    rest(&mut world);
    world
        .command(Command::Resume {
            reason: String::new(),
            accept_server: false,
        })
        .unwrap();
    rest(&mut world);
    assert_eq!(world.kernel.phase(), RolloutPhase::FinishedWithExceptions);
    assert_eq!(world.phases()["h2"], "skipped");
    assert_eq!(world.hosts[&host(2)].switches, 0);
    world.hosts.get_mut(&host(2)).unwrap().behaviour = Behaviour::Good;
    world
        .command(Command::Retry {
            hosts: vec!["node-2".into()],
            server: false,
        })
        .unwrap();
    rest(&mut world);
    assert_eq!(
        world.kernel.phase(),
        RolloutPhase::Succeeded,
        "{:?}",
        world.kernel.verification()
    );
    fleet_sim::steps::sound(&world);
}

#[test]
fn held_and_absent_hosts_are_named_and_follow_when_they_return() {
    let mut world = world(&[1, 2]);
    world
        .command(Command::Hold {
            host: "node-1".into(),
            reason: "audit".into(),
        })
        .unwrap();
    until(&mut world, |world| world.open_hop().is_some());
    world.hosts.get_mut(&host(2)).unwrap().gone = true;
    world.disconnect(&host(2));
    rest(&mut world);
    let text = world.kernel.rollout().pause.as_ref().unwrap().text.clone();
    assert!(
        text.contains("node-1 is held (audit)") && text.contains("node-2 is offline"),
        "{text}"
    );
    world
        .command(Command::Resume {
            reason: String::new(),
            accept_server: false,
        })
        .unwrap();
    world.hosts.get_mut(&host(2)).unwrap().gone = false;
    world.connect(&host(2));
    until(&mut world, |world| row(world, 2).phase == HostPhase::Repointed);
    rest(&mut world);
    assert_eq!(
        world.phases()["h2"],
        "skipped",
        "it follows, and a person decides about its upgrade"
    );
    world
        .command(Command::Unhold {
            host: "node-1".into(),
        })
        .unwrap();
    world
        .command(Command::Retry {
            hosts: vec!["node-1".into(), "node-2".into()],
            server: false,
        })
        .unwrap();
    rest(&mut world);
    assert_eq!(world.kernel.phase(), RolloutPhase::Succeeded);
}

#[test]
fn they_go_back_with_the_server() {
    let mut world = world(&[1, 2]);
    (world.fail_hop, world.fail_published) = (Some((2, HopOutcome::Restored)), true);
    until(&mut world, |world| world.hosts[&host(1)].follows);
    until(&mut world, |world| pause_code(world) == "server_restored");
    rest(&mut world);
    assert_eq!(world.server_version.to_string(), "2.44.1");
    for number in [1, 2] {
        assert!(
            !world.hosts[&host(number)].follows,
            "its client reaches the server"
        );
        assert_eq!(
            (row(&world, number).phase, row(&world, number).side),
            (HostPhase::Waiting, None)
        );
    }
    (world.fail_hop, world.fail_published) = (None, false);
    world
        .command(Command::Retry {
            hosts: Vec::new(),
            server: true,
        })
        .unwrap();
    rest(&mut world);
    assert_eq!(world.kernel.phase(), RolloutPhase::Succeeded);
    assert_eq!(world.hosts[&host(1)].repoints, 3, "there, back, and there again");
}

#[test]
fn an_abort_leaves_nobody_at_a_port_that_is_gone() {
    let mut world = world(&[1]);
    until(&mut world, |world| {
        world.open_hop().is_some_and(|order| order.to.major >= 3)
    });
    world
        .command(Command::Abort {
            reason: "enough".into(),
            force: false,
        })
        .unwrap();
    rest(&mut world);
    assert_eq!(world.kernel.phase(), RolloutPhase::Aborted);
    assert!(world.server_version.major >= 3 && world.hosts[&host(1)].follows);
    assert_eq!(row(&world, 1).side, Some(Side::New));
}
