//! Child plans that a person lets take over the running rollout: hosts that came late, a group more, other numbers, and now and then a plan
//! that does not fit.

use super::coordinator::Message;
use super::faults::Fault;
use super::pmm::Listed;
use super::world::{Doom, Rng, World};
use crate::fixture;
use fleet_common::inventory::Detection;
use fleet_common::survey::Verdict;
use fleet_common::version::PmmVersion;
use rollout::kernel::{GroupPhase, LegPhase};
use rollout::plan::{HostRecord, Plan, PlanGroup};
use std::collections::BTreeMap;

/// The group that comes after all others.
const LAST: &str = "late";

impl World {
    /// A plan as it would be made now, over the one that runs.
    pub fn child(&mut self) -> Option<Message> {
        let kernel = &self.coordinator.as_ref()?.kernel;
        let (under_way, running) = (kernel.running(), kernel.plan_id().clone());
        let parent = Plan::clone(&under_way.plan);
        self.hosts_join(&parent);
        let gone = self
            .rng
            .one_in(4)
            .then(|| self.rng.below(self.listed.len() as u64) as usize);
        let wall = self.wall();
        let there = self.listed.iter().zip(&self.agents).enumerate();
        let records: Vec<HostRecord> = there
            .filter(|(at, (listed, _))| listed.joined && gone != Some(*at))
            .map(|(_, (listed, agent))| {
                let version = agent.version.unwrap_or(agent.old);
                record(listed, version, agent.follows, wall)
            })
            .collect();
        let specs = self.recipe.specs(&[]);
        let draft = fixture::plan_of(
            &specs,
            self.recipe.decision,
            &records,
            self.server,
            Some(&under_way),
            wall,
        );
        let mut plan = draft.ok()?.plan;
        like(&parent, &mut plan);
        plan.parent = Some(running);
        for group in &mut plan.groups {
            other_numbers(&mut self.rng, group);
        }
        match self.rng.below(12) {
            0 => plan.parent = None,
            1 => plan.groups.reverse(),
            2 => plan.server.url.push_str("/other"),
            _ => {}
        }
        let bytes = rollout::plan::PlanDraft { plan }.into_bytes().ok()?.1;
        Some(Message::Child { by: "bob", bytes })
    }

    /// Some of those that were not there before are set up, and connect.
    fn hosts_join(&mut self, parent: &Plan) {
        let fresh: Vec<usize> = (0..self.listed.len())
            .filter(|at| !self.listed[*at].joined)
            .collect();
        let many = self.rng.below(4) as usize;
        // Once clients have reached a release, a group more has nothing to do there.
        let legs = self
            .coordinator
            .iter()
            .flat_map(|coordinator| coordinator.kernel.legs());
        let mut clients = legs.filter(|leg| leg.leg.as_str().starts_with("clients"));
        let late = clients.any(|leg| leg.phase == LegPhase::Settled);
        let soaks = self.some_group_that(|row| row.phase == GroupPhase::Soaking);
        for machine in fresh.into_iter().take(many) {
            let last = self.rng.one_in(3) || late;
            let first = self.rng.one_in(2);
            let pick = if first {
                0
            } else {
                self.rng.below(parent.groups.len() as u64) as usize
            };
            let group = match &soaks {
                Some(group) => group.clone(),
                None if last => LAST.to_owned(),
                None => parent.groups[pick].name.to_string(),
            };
            if !self.recipe.groups.iter().any(|(name, _)| *name == group) {
                let (_, policy) = self.recipe.groups[pick.min(self.recipe.groups.len() - 1)].clone();
                self.recipe.groups.push((group.clone(), policy));
            }
            let listed = &mut self.listed[machine];
            (listed.joined, listed.group) = (true, group);
            // Somebody installs the newest client at once where the server takes it.
            if self.server.major >= 3 && self.rng.one_in(3) {
                let target = parent.clients_to;
                (self.agents[machine].version, self.agents[machine].old) = (Some(target), target);
            }
            self.count(format!("fault {}", Fault::LateHost.word()));
            let wait = self.rng.below(60_000);
            self.dial(machine, wait);
        }
    }

    /// A child plan is about to be taken over; in every other such batch the coordinator dies.
    pub fn dies_while_adopting(&mut self) {
        let (fault, doom) = [
            (Fault::CrashBeforeCommit, Doom::BeforeCommit),
            (Fault::CrashAfterCommit, Doom::AfterCommit),
            (Fault::CrashWhileActing, Doom::WhileActing),
        ][self.rng.below(3) as usize];
        if self.strikes(fault, 2) {
            self.count(format!("adoption {}", fault.word()));
            self.doom = Some(doom);
        }
    }
}

fn record(listed: &Listed, version: PmmVersion, follows: bool, now: u64) -> HostRecord {
    let mut record = fixture::host(listed.number, &listed.group);
    if let Detection::Installed(found) = &mut record.inventory.client {
        let installed = fixture::installation(listed.number, found.method, &version.to_string());
        **found = installed;
    }
    record.survey = Some((now, fixture::survey(Verdict::Pass)));
    if listed.direct && !follows {
        fixture::make_direct(&mut record);
    }
    record
}

/// Sets, sites and limits over all groups stay as they are.
fn like(parent: &Plan, plan: &mut Plan) {
    plan.failure_threshold = parent.failure_threshold;
    plan.timing.backup_for_ms = parent.timing.backup_for_ms;
    for group in &mut plan.groups {
        group.per_site = parent.group(&group.name).and_then(|old| old.per_site);
    }
    let known: BTreeMap<_, _> = parent.hosts.iter().map(|host| (&host.host, host)).collect();
    for host in &mut plan.hosts {
        if let Some(old) = known.get(&host.host) {
            host.sets.clone_from(&old.sets);
            host.site.clone_from(&old.site);
        }
    }
}

fn other_numbers(rng: &mut Rng, group: &mut PlanGroup) {
    match rng.below(6) {
        0 => group.max_unavailable += 1 + rng.below(4) as u32,
        1 => group.max_unavailable = group.max_unavailable.saturating_sub(1).max(1),
        2 => group.failure_threshold += 1,
        3 => group.failure_threshold = group.failure_threshold.saturating_sub(1),
        _ => {}
    }
}
