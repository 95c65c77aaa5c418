//! What tests that are told step by step share: a fleet without surprises, and running it until something holds.

use super::fixture::GroupSpec;
use super::hosts::Behaviour;
use super::{Faults, World};
use fleet_common::ids::HostId;
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

impl World {
    /// A started fleet in which nothing goes wrong but what these hosts do, without a helpful operator.
    pub fn calm(groups: &[GroupSpec<'_>], decision: &str, behaviours: &[(usize, Behaviour)]) -> Self {
        let mut world = Self::new(7, groups, decision, Faults::NONE);
        world.helpful = false;
        for (number, behaviour) in behaviours {
            let host = world.hosts.get_mut(&HostId::new(format!("h{number}")));
            host.expect("a host of the fleet").behaviour = *behaviour;
        }
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
