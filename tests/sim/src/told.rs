//! Rules about what persons and hosts say: which failures are accepted, who is held, what an answer does, and whose refusal or silence is a
//! failure. What was said is remembered here: the kernel's own memory of it is what is looked at.

use crate::{gates, proof};
use fleet_common::codes;
use fleet_common::ids::{Epoch, GroupName, HostId, LegId, OrderId};
use fleet_common::order::{Action, HostEvent};
use rollout::kernel::{
    Command, GroupPhase, HostOrder, HostPhase, HostRow, Input, Kernel, Output, RolloutPhase,
};
use rollout::plan::{LegKind, PlanGroup};
use std::collections::{BTreeMap, BTreeSet, HashMap};

pub const HOLDS: &str = "whoever is under way in a client leg holds a slot";
pub const HELD: &str = "no permit for a host that is held";
pub const SILENT: &str = "silence before its permit is no failure of a host";
pub const RAISED: &str = "start, resume and abort raise the epoch";

type Found = Vec<(&'static str, String)>;
type Groups = BTreeMap<(LegId, GroupName), BTreeSet<HostId>>;

/// What the answer to a command decides about.
#[derive(Clone, Debug)]
enum Asked {
    Start,
    /// With the failures that are accepted by it.
    Resume(Groups),
    /// With the attempts of hosts whose failure was accepted before.
    Retry(BTreeMap<(LegId, HostId), u32>),
    Abort,
    Hold(HostId),
    Unhold(HostId),
}

#[derive(Debug, Default)]
pub struct Told {
    /// What is asked by the input under way, and the epoch before it.
    asked: Option<(Asked, Epoch)>,
    /// Who speaks with it.
    speaker: Option<HostId>,
    /// Hosts whose failure somebody knew of and accepted.
    accepted: Groups,
    held_by_operator: BTreeSet<HostId>,
    held_on_host: BTreeSet<HostId>,
    /// The permits that were seen leave.
    permits: BTreeSet<OrderId>,
    /// By the row's key.
    phases: HashMap<String, HostPhase>,
}

impl Told {
    /// What was said before is taken from the kernel, as far as it tells.
    pub fn of(kernel: &Kernel) -> Self {
        let hosts = kernel.plan().hosts.iter().map(|planned| &planned.host);
        let held = hosts
            .clone()
            .filter(|host| kernel.held_by_operator(host).is_some());
        let rows = kernel.legs().iter().flat_map(|leg| {
            let phase = |host: &HostId| kernel.host(&leg.leg, host).map(|row| row.phase);
            hosts
                .clone()
                .filter_map(move |host| Some((format!("host/{}/{host}", leg.leg), phase(host)?)))
        });
        let groups = kernel.legs().iter().flat_map(|leg| {
            let row = |group: &PlanGroup| kernel.group(&leg.leg, &group.name);
            let plan = kernel.plan().groups.iter();
            plan.filter_map(move |group| {
                let key = (leg.leg.clone(), group.name.clone());
                Some((key, row(group)?.forgiven.clone()))
            })
        });
        Self {
            accepted: groups.collect(),
            held_by_operator: held.cloned().collect(),
            phases: rows.collect(),
            ..Self::default()
        }
    }

    /// Whether somebody accepted the failure of a host.
    pub fn is_accepted(&self, leg: &LegId, group: &GroupName, host: &HostId) -> bool {
        let hosts = self.accepted.get(&(leg.clone(), group.clone()));
        hosts.is_some_and(|hosts| hosts.contains(host))
    }

    /// How many of these failures of a group in a leg nobody accepted.
    pub fn unaccepted(&self, group: &(LegId, GroupName), failed: &BTreeSet<HostId>) -> usize {
        let accepted = self.accepted.get(group);
        let open = |host: &&HostId| !accepted.is_some_and(|hosts| hosts.contains(*host));
        failed.iter().filter(open).count()
    }

    /// Failures of a group in a leg that count and that nobody accepted.
    pub fn failures(&self, kernel: &Kernel, leg: &LegId, group: &PlanGroup) -> usize {
        let counts = |host: &&HostId| kernel.host(leg, host).is_some_and(|row| row.counts);
        let failed = group.hosts.iter().filter(counts).cloned().collect();
        self.unaccepted(&(leg.clone(), group.name.clone()), &failed)
    }

    /// Before the kernel takes an input.
    pub fn hears(&mut self, kernel: &Kernel, input: &Input) {
        let named = |text: &str| kernel.plan().find_host(text).map(|found| found.host.clone());
        self.speaker = match input {
            Input::Host { host, .. } => Some(host.clone()),
            _ => None,
        };
        let asked = match input {
            Input::Host {
                host,
                event: HostEvent::HoldChanged { held },
                ..
            } => {
                self.held_on_host.remove(host);
                // Whoever is in no plan yet tells nobody, and refuses when it is asked.
                let planned = kernel.plan().hosts.iter().any(|planned| planned.host == *host);
                let holds = held.as_ref().filter(|_| planned).map(|_| host.clone());
                self.held_on_host.extend(holds);
                None
            }
            Input::Operator { command, .. } => match command {
                Command::Start { .. } => Some(Asked::Start),
                Command::Resume { .. } => Some(Asked::Resume(self.told_of(kernel))),
                Command::Retry { .. } => Some(Asked::Retry(self.attempts(kernel))),
                Command::Abort { .. } => Some(Asked::Abort),
                Command::Hold { host, .. } => named(host).map(Asked::Hold),
                Command::Unhold { host } => named(host).map(Asked::Unhold),
                _ => None,
            },
            _ => None,
        };
        self.asked = asked.map(|asked| (asked, kernel.epoch()));
    }

    /// The failures that the pause tells of: those that count at this moment, of groups with too many, or of all if those are too many.
    fn told_of(&self, kernel: &Kernel) -> Groups {
        let mut found = Groups::new();
        let pause = kernel.rollout().pause.as_ref();
        // A `resume` that only ends an operator's earlier pause accepts nothing.
        if !pause.is_some_and(|pause| pause.code == "threshold" && pause.before.is_none()) {
            return found;
        }
        let tolerated = kernel.plan().failure_threshold;
        let over_all = proof::failed_over_all(self, kernel).len();
        let over_all = tolerated.is_some_and(|tolerated| over_all > tolerated as usize);
        for leg in kernel.legs() {
            for group in &kernel.plan().groups {
                let Some(row) = kernel.group(&leg.leg, &group.name) else {
                    continue;
                };
                let tolerated = gates::tolerated(kernel, &leg.leg, group) as usize;
                let too_many = match row.phase {
                    GroupPhase::Breached => true,
                    GroupPhase::RolledBack => self.failures(kernel, &leg.leg, group) > tolerated,
                    _ => false,
                };
                if over_all || too_many {
                    let counts = |host: &&HostId| kernel.host(&leg.leg, host).is_some_and(|row| row.counts);
                    let hosts = group.hosts.iter().filter(counts).cloned().collect();
                    found.insert((leg.leg.clone(), group.name.clone()), hosts);
                }
            }
        }
        found
    }

    fn attempts(&self, kernel: &Kernel) -> BTreeMap<(LegId, HostId), u32> {
        let groups = self.accepted.iter();
        let hosts = groups.flat_map(|((leg, _), hosts)| hosts.iter().map(move |host| (leg, host)));
        let attempt = |(leg, host): (&LegId, &HostId)| {
            let attempt = kernel.host(leg, host)?.attempt;
            Some(((leg.clone(), host.clone()), attempt))
        };
        hosts.filter_map(attempt).collect()
    }

    /// What the kernel made of it.
    pub fn look(&mut self, kernel: &Kernel, out: &Output, now: u64) -> Found {
        let mut found = Found::new();
        self.look_at_answer(kernel, out, &mut found);
        for (key, leg, host, row) in changed(kernel, out) {
            if is_under_way(row.phase) && !row.slot && is_of_clients(kernel, &leg) {
                found.push((HOLDS, format!("{host} in {leg} is {:?}", row.phase)));
            }
            let before = self.phases.insert(key.to_owned(), row.phase);
            if let Some(before) = before.filter(|before| *before != row.phase) {
                self.comes_back((&leg, &host), before);
                self.look_at_end((&leg, &host), before, row, &mut found);
            }
        }
        for order in out.orders.iter().filter(|order| order.action == Action::Switch) {
            self.look_at_permit(kernel, order, now, &mut found);
        }
        found
    }

    fn look_at_answer(&mut self, kernel: &Kernel, out: &Output, found: &mut Found) {
        let (Some((asked, before)), Some(answer)) = (self.asked.take(), &out.answer) else {
            return;
        };
        let well = answer.is_ok();
        let raises = match &asked {
            Asked::Start | Asked::Abort => well,
            // One that ends an earlier pause alone lets nothing go on.
            Asked::Resume(_) => well && kernel.phase() != RolloutPhase::Paused,
            Asked::Retry(_) | Asked::Hold(_) | Asked::Unhold(_) => false,
        };
        if raises && kernel.epoch() <= before {
            found.push((RAISED, format!("{} after {before}", kernel.epoch())));
        }
        match asked {
            Asked::Resume(failed) if well => {
                for (key, hosts) in failed {
                    self.accepted.entry(key).or_default().extend(hosts);
                }
            }
            Asked::Retry(before) if well => {
                for ((leg, _), hosts) in &mut self.accepted {
                    hosts.retain(|host| {
                        let now = kernel.host(leg, host).map(|row| row.attempt);
                        now == before.get(&(leg.clone(), host.clone())).copied()
                    });
                }
            }
            Asked::Hold(host) if well => {
                self.held_by_operator.insert(host);
            }
            Asked::Unhold(host) if well => {
                self.held_by_operator.remove(&host);
            }
            _ => {}
        }
    }

    /// Whoever accepted a loss accepted no more than that.
    fn comes_back(&mut self, (leg, host): (&LegId, &HostId), before: HostPhase) {
        let groups = self.accepted.iter_mut().filter(|((of, _), _)| of == leg);
        for (_, hosts) in groups.filter(|_| before == HostPhase::Lost) {
            hosts.remove(host);
        }
    }

    /// A host went on to another state.
    fn look_at_end(
        &self,
        (leg, host): (&LegId, &HostId),
        before: HostPhase,
        row: &HostRow,
        found: &mut Found,
    ) {
        if must_count_refused(before, row).is_some_and(|must| must != row.counts) {
            let text = format!(
                "{host} in {leg} refused at its turn ({}) and counts: {}",
                row.code, row.counts
            );
            found.push((crate::rules::COUNTS, text));
        }
        // One that was lost, is tried again and stays silent is lost again.
        let silent = self.speaker.as_ref() != Some(host) && row.phase != HostPhase::Lost;
        if before.before_permit() && row.counts && silent {
            found.push((SILENT, format!("{host} in {leg}: {before:?} -> {:?}", row.phase)));
        }
    }

    /// One that is sent again tells its host that a hold called it back.
    fn look_at_permit(&mut self, kernel: &Kernel, order: &HostOrder, now: u64, found: &mut Found) {
        let row = kernel.host(&order.leg, &order.host);
        let granted = row.is_some_and(|row| row.permitted_at_ms == Some(now));
        let first = self.permits.insert(order.order.clone());
        let held = self.held_by_operator.contains(&order.host) || self.held_on_host.contains(&order.host);
        if first && granted && held {
            found.push((HELD, order.order.to_string()));
        }
    }
}

/// The hosts whose rows changed.
fn changed<'a>(
    kernel: &'a Kernel,
    out: &'a Output,
) -> impl Iterator<Item = (&'a str, LegId, HostId, &'a HostRow)> {
    out.rows.iter().filter_map(|row| {
        let (leg, host) = row.key.strip_prefix("host/")?.split_once('/')?;
        let (leg, host) = (LegId::from(leg), HostId::from(host));
        let found = kernel.host(&leg, &host)?;
        Some((row.key.as_str(), leg, host, found))
    })
}

/// Whether a refusal must count: whoever is left out by the plan or after the survey was not asked, and a hold is no failure.
fn must_count_refused(before: HostPhase, row: &HostRow) -> Option<bool> {
    let asked = matches!(
        before,
        HostPhase::Preparing | HostPhase::Permitted | HostPhase::Switching
    );
    (asked && row.phase == HostPhase::Refused).then(|| row.code != codes::HELD)
}

fn is_under_way(phase: HostPhase) -> bool {
    matches!(
        phase,
        HostPhase::Permitted | HostPhase::Switching | HostPhase::Verifying | HostPhase::RollingBack
    )
}

fn is_of_clients(kernel: &Kernel, leg: &LegId) -> bool {
    let mut legs = kernel.plan().legs.iter();
    legs.any(|found| found.id == *leg && matches!(found.kind, LegKind::Clients { .. }))
}
