//! What tests that are told step by step share: a fleet without surprises, and running it until something holds.

use super::fixture::{ACCEPT, GroupSpec};
use super::hosts::Behaviour;
use super::{Faults, World};
use fleet_common::ids::{GroupName, HostId};
use rollout::kernel::{Command, GroupRow, HostRow};
use rollout::plan::Plan;
use rollout::progress;
use std::collections::BTreeMap;

/// Runs until something holds, at most an hour; what never happens is a failure that shows where things stand.
pub fn until(world: &mut World, what: impl Fn(&World) -> bool) {
    for _ in 0..3_600 {
        if what(world) {
            return;
        }
        world.step();
    }
    panic!("never happened: {:#?}", progress::view(&world.kernel, world.now));
}

/// A fleet that is not started, in which nothing goes wrong but what these hosts do, without a helpful operator and without the profile's
/// retries: each test says which it wants.
pub fn planned(
    groups: &[GroupSpec<'_>],
    behaviours: &[(usize, Behaviour)],
    edit: &dyn Fn(&mut Plan),
) -> World {
    let plain = |plan: &mut Plan| {
        plan.groups.iter_mut().for_each(|group| group.retry.clear());
        edit(plan);
    };
    let mut world = World::with_plan(7, groups, ACCEPT, Faults::NONE, &[], &plain);
    world.helpful = false;
    behave(&mut world, behaviours);
    world
}

/// The same, started.
pub fn started(
    groups: &[GroupSpec<'_>],
    behaviours: &[(usize, Behaviour)],
    edit: &dyn Fn(&mut Plan),
) -> World {
    let mut world = planned(groups, behaviours, edit);
    world.start();
    world
}

fn behave(world: &mut World, behaviours: &[(usize, Behaviour)]) {
    for (number, behaviour) in behaviours {
        let host = world.hosts.get_mut(&id(*number));
        host.expect("a host of the fleet").behaviour = *behaviour;
    }
}

/// A host by its number.
pub fn id(number: usize) -> HostId {
    HostId::new(format!("h{number}"))
}

/// A host in the first client leg.
pub fn host(world: &World, number: usize) -> &HostRow {
    let row = world.kernel.host(&"clients-1".into(), &id(number));
    row.expect("a host of the leg")
}

/// A group in the first client leg.
pub fn group<'a>(world: &'a World, name: &str) -> &'a GroupRow {
    let row = world.kernel.group(&"clients-1".into(), &GroupName::new(name));
    row.expect("a group of the leg")
}

/// A host loses its network or its power.
pub fn leaves(world: &mut World, number: usize) {
    world
        .hosts
        .get_mut(&id(number))
        .expect("a host of the fleet")
        .gone = true;
    world.disconnect(&id(number));
}

/// And has it again.
pub fn returns(world: &mut World, number: usize) {
    world
        .hosts
        .get_mut(&id(number))
        .expect("a host of the fleet")
        .gone = false;
    world.connect(&id(number));
}

/// `resume`.
pub fn resume(world: &mut World) -> Result<String, String> {
    let (reason, accept_server) = ("looked at".to_owned(), false);
    world.command(Command::Resume {
        reason,
        accept_server,
    })
}

/// `retry` with these hosts, or without any.
pub fn retry(world: &mut World, numbers: &[usize]) -> Result<String, String> {
    let hosts = numbers.iter().map(|number| id(*number).to_string()).collect();
    world.command(Command::Retry { hosts, server: false })
}

/// Code and text of the pause; empty without one.
pub fn paused(world: &World) -> String {
    let pause = world.kernel.rollout().pause.as_ref();
    pause.map_or_else(String::new, |pause| format!("{}: {}", pause.code, pause.text))
}

/// No rule was broken so far.
pub fn sound(world: &World) {
    let broken = &world.watcher.violations;
    assert!(broken.is_empty(), "{broken:?}");
}

impl World {
    /// A started fleet in which nothing goes wrong but what these hosts do, without a helpful operator.
    pub fn calm(groups: &[GroupSpec<'_>], decision: &str, behaviours: &[(usize, Behaviour)]) -> Self {
        let mut world = Self::new(7, groups, decision, Faults::NONE);
        world.helpful = false;
        behave(&mut world, behaviours);
        world.start();
        world
    }

    /// Runs until `watch` would end.
    pub fn rest(&mut self) {
        for _ in 0..7_200 {
            self.step();
            if progress::view(&self.kernel, self.now).at_rest {
                return;
            }
        }
        panic!("still under way: {:#?}", progress::view(&self.kernel, self.now));
    }

    /// How each host ended, or what it does.
    pub fn phases(&self) -> BTreeMap<String, String> {
        rollout::report::report(&self.kernel, self.now)
            .hosts
            .into_iter()
            .map(|host| (host.host, host.outcome))
            .collect()
    }

    /// How a host ended, by its number.
    pub fn outcome(&self, host: usize) -> String {
        self.phases()[&format!("h{host}")].clone()
    }
}
