//! The coordinator's store is set back to an older state, told step by step.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use fleet_common::codes;
use fleet_common::ids::{HostId, LegId};
use fleet_sim::fixture::{self, ACCEPT, GroupSpec};
use fleet_sim::until;
use fleet_sim::{Faults, World};
use rollout::kernel::{Command, HostPhase, Input, Kernel, RolloutPhase, Row};
use rollout::{explain, progress, report};
use std::collections::BTreeMap;

const GROUPS: &[GroupSpec<'static>] = &[("one", 1, ""), ("two", 3, "max_unavailable = 1")];

fn world() -> World {
    let mut world = World::new(7, GROUPS, ACCEPT, Faults::NONE);
    world.helpful = false;
    world.start();
    world
}

fn leg() -> LegId {
    "clients-1".into()
}

fn phase(world: &World, host: usize) -> HostPhase {
    let id = HostId::new(format!("h{host}"));
    world.kernel.host(&leg(), &id).unwrap().phase
}

fn upgraded(world: &World) -> usize {
    (0..4)
        .filter(|host| matches!(phase(world, *host), HostPhase::Settling | HostPhase::Upgraded))
        .count()
}

/// The kernel as a coordinator finds it that starts on this store.
fn set_back(world: &mut World, store: &BTreeMap<String, String>) {
    let rows: Vec<Row> = store
        .iter()
        .map(|(key, json)| Row {
            key: key.clone(),
            json: json.clone(),
        })
        .collect();
    world.store.clone_from(store);
    world.kernel = Kernel::restore(&world.bytes, &rows).unwrap();
    let term = world.kernel.epoch().term + 1;
    world.give(Input::CoordinatorStarted { term });
}

fn doubt(world: &mut World) {
    let text = "host h0 has seen epoch 9.9".to_owned();
    world.give(Input::StoreRestored { text });
}

/// A fleet of which all but the last host were upgraded after the backup, and the store that knows of the first one only. Nobody is let in.
fn restored() -> World {
    let mut world = world();
    until(&mut world, |world| upgraded(world) == 1);
    let backup = world.store.clone();
    until(&mut world, |world| upgraded(world) == 3);
    let hosts: Vec<HostId> = world.hosts.keys().cloned().collect();
    for host in &hosts {
        let host = world.hosts.get_mut(host).unwrap();
        host.connected = false;
        host.gone = true;
    }
    set_back(&mut world, &backup);
    assert_eq!(upgraded(&world), 1, "the backup is older");
    doubt(&mut world);
    world
}

fn refusal(world: &mut World, command: Command) -> String {
    world.command(command).unwrap_err()
}

#[test]
fn nothing_begins_and_nobody_is_given_up_before_the_adoption() {
    let mut world = restored();
    let status = progress::view(&world.kernel, world.now);
    let pause = status.paused.expect("paused");
    assert_eq!(pause.code, codes::STORE_RESTORED);
    assert!(pause.hint.contains("doctor --adopt-epoch"), "{}", pause.hint);
    assert!(pause.text.contains("9.9"), "{}", pause.text);
    let resume = || Command::Resume {
        reason: String::new(),
        accept_server: false,
    };
    for command in [
        resume(),
        Command::Retry {
            hosts: Vec::new(),
            server: false,
        },
        Command::Approve {
            group: "two".to_owned(),
        },
        Command::Unhold {
            host: "h1".to_owned(),
        },
    ] {
        assert_eq!(refusal(&mut world, command), codes::STORE_RESTORED);
    }
    let told = explain::explain(&world.kernel, "rollout", world.now).unwrap();
    assert!(
        told.reminder_ms.is_some() && told.owner == "operator",
        "{told:#?}"
    );
    let before: Vec<HostPhase> = (0..4).map(|host| phase(&world, host)).collect();
    let reminders = |world: &World| {
        world
            .events
            .iter()
            .filter(|event| event.code == "reminder")
            .count()
    };
    let told = reminders(&world);
    // A day: far longer than any deadline.
    for _ in 0..1_440 {
        world.now += 60_000;
        world.give(Input::Tick);
        assert!(world.last.orders.is_empty() && world.last.server.is_empty());
    }
    let after: Vec<HostPhase> = (0..4).map(|host| phase(&world, host)).collect();
    assert_eq!(before, after, "silence of hosts that are not let in says nothing");
    assert!(reminders(&world) > told, "a person is reminded");
    // A hold lets less happen.
    let hold = Command::Hold {
        host: "h3".to_owned(),
        reason: "backup".to_owned(),
    };
    world.command(hold).unwrap();
}

fn come_back(world: &mut World, inventory: bool) {
    let hosts: Vec<HostId> = world.hosts.keys().cloned().collect();
    for id in hosts {
        let version = world.hosts[&id].version;
        let host = world.hosts.get_mut(&id).unwrap();
        host.gone = false;
        world.connect(&id);
        if let Some(version) = version.filter(|_| inventory) {
            world.give(Input::HostRuns { host: id, version });
        }
    }
}

fn adopt(world: &mut World) {
    let term = world.kernel.epoch().term + 9;
    world.give(Input::StoreAdopted { term });
    assert_eq!(world.kernel.epoch().term, term);
    assert_eq!(world.kernel.phase(), RolloutPhase::Paused, "a person says when");
}

fn resume(world: &mut World) {
    let command = Command::Resume {
        reason: String::new(),
        accept_server: false,
    };
    world.command(command).unwrap();
}

#[test]
fn whoever_was_upgraded_after_the_backup_is_already_current() {
    let mut world = restored();
    let done: Vec<HostId> = world
        .hosts
        .values()
        .filter(|host| host.switches == 1)
        .map(|host| host.id.clone())
        .collect();
    assert!(done.len() >= 3, "the fourth may be under way");
    adopt(&mut world);
    come_back(&mut world, true);
    resume(&mut world);
    until(&mut world, |world| world.kernel.is_final());
    assert_eq!(world.kernel.phase(), RolloutPhase::Succeeded);
    let report = report::report(&world.kernel, world.now);
    let outcomes = |wanted: &str| report.hosts.iter().filter(|host| host.outcome == wanted).count();
    assert!(outcomes("already_current") >= 1, "{:#?}", report.hosts);
    assert_eq!(outcomes("already_current") + outcomes("upgraded"), 4);
    assert!(
        world.hosts.values().all(|host| host.switches == 1),
        "nothing twice"
    );
}

#[test]
fn without_a_new_inventory_the_hosts_journals_answer() {
    let mut world = restored();
    adopt(&mut world);
    come_back(&mut world, false);
    resume(&mut world);
    until(&mut world, |world| world.kernel.is_final());
    assert_eq!(world.kernel.phase(), RolloutPhase::Succeeded);
    assert_eq!(upgraded(&world), 4);
    assert!(
        world.hosts.values().all(|host| host.switches == 1),
        "nothing twice"
    );
}

#[test]
fn an_inventory_alone_ends_no_host_of_a_store_that_was_never_restored() {
    let mut world = world();
    world.give(Input::HostRuns {
        host: HostId::new("h3"),
        version: fleet_common::version::PmmVersion::new(3, 9, 1),
    });
    assert_eq!(phase(&world, 3), HostPhase::Waiting);
}

#[test]
fn rows_from_before_know_no_restored_store() {
    let (bytes, kernel) = fixture::kernel(GROUPS, ACCEPT, &[], &|_| {});
    let mut value = serde_json::to_value(kernel.rollout()).unwrap();
    value.as_object_mut().unwrap().remove("restored");
    let row = Row {
        key: "rollout".to_owned(),
        json: value.to_string(),
    };
    assert!(!Kernel::restore(&bytes, &[row]).unwrap().is_doubted());
}
