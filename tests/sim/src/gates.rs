//! Rules about what keeps hosts from beginning: windows, sets, sites and ramps. The limits are worked out here anew from the plan.

use crate::told::Told;
use fleet_common::ids::{HostId, LegId};
use fleet_common::order::Action;
use rollout::kernel::{HostOrder, HostPhase, HostRow, Kernel, LegPhase, Output, RolloutPhase};
use rollout::plan::{LegKind, Plan, PlanGroup};
use rollout::windows::{Opening, opening};
use std::collections::{BTreeMap, BTreeSet};

pub const WINDOW: &str = "no permit outside of the window, none that reaches past its end";
pub const CLOSE: &str = "no host begins after its window closed";
pub const SET: &str = "never more members of one set under way than may be together";
pub const SITE: &str = "never more hosts of one site busy than its limit";
pub const RAMP: &str = "no grant is wider than the ramp";
pub const ROLLOUT_THRESHOLD: &str = "failures over all groups stop the rollout";
pub const ATTEMPTS: &str = "no more attempts by itself than the policy has";

/// An order is under way for at most this long.
const ON_THE_WAY_MS: u64 = 2_000;

/// What the plan says, by host and by circle.
#[derive(Debug, Default)]
pub struct Gates {
    groups: BTreeMap<HostId, PlanGroup>,
    circles: BTreeMap<String, (u32, BTreeSet<HostId>)>,
    orders: BTreeSet<String>,
    /// How often a rule's case was met; one that never was proves nothing.
    pub met: BTreeMap<&'static str, u64>,
}

impl Gates {
    pub fn of(plan: &Plan) -> Self {
        let mut gates = Self::default();
        gates.planned_by(plan);
        gates
    }

    /// From now on this plan counts. What was ordered stays known.
    pub fn planned_by(&mut self, plan: &Plan) {
        self.groups.clear();
        self.circles.clear();
        let gates = self;
        for host in &plan.hosts {
            let Some(group) = plan.group(&host.group) else {
                continue;
            };
            gates.groups.insert(host.host.clone(), group.clone());
            let sets = host.sets.iter().map(|set| (format!("set {set}"), group.together));
            let site = host
                .site
                .iter()
                .filter_map(|site| Some((format!("site {site}"), group.per_site?)));
            for (circle, most) in sets.chain(site) {
                let entry = gates.circles.entry(circle).or_insert((most, BTreeSet::new()));
                entry.0 = entry.0.min(most);
            }
        }
        for host in &plan.hosts {
            let sets = host.sets.iter().map(|set| format!("set {set}"));
            for circle in sets.chain(host.site.iter().map(|site| format!("site {site}"))) {
                if let Some((_, members)) = gates.circles.get_mut(&circle) {
                    members.insert(host.host.clone());
                }
            }
        }
    }

    /// Most slots of a group: the plan's number or a person's lower one.
    pub fn most(&self, kernel: &Kernel, leg: &LegId, group: &PlanGroup) -> u32 {
        let limit = kernel
            .group(leg, &group.name)
            .and_then(|row| row.limits.max_unavailable);
        group.max_unavailable.min(limit.unwrap_or(u32::MAX))
    }

    /// A host that begins must have received its order before the close.
    pub fn began(&mut self, host: &HostId, order: &HostOrder, now: u64) -> Option<String> {
        let group = self.groups.get(host)?;
        let open = |at| opening(&group.windows, &group.blackouts, at).is_open();
        (!open(now) && !open(now - ON_THE_WAY_MS))
            .then(|| format!("{host} began {} after the close", order.order))
    }

    pub fn look(
        &mut self,
        told: &Told,
        kernel: &Kernel,
        out: &Output,
        now: u64,
        tick: bool,
    ) -> Vec<(&'static str, String)> {
        let mut found = Vec::new();
        for order in out.orders.iter().filter(|order| order.action == Action::Switch) {
            if self.orders.insert(order.order.to_string()) {
                self.look_at_permit(kernel, order, now, &mut found);
            }
        }
        for leg in &kernel.plan().legs {
            if matches!(leg.kind, LegKind::Server { .. }) {
                continue;
            }
            for (circle, (most, members)) in &self.circles {
                let (site, rule) = if circle.starts_with("site ") {
                    (true, SITE)
                } else {
                    (false, SET)
                };
                let rows = members.iter().filter_map(|host| kernel.host(&leg.id, host));
                let busy = rows.filter(|row| is_down(row) || site && stages(row)).count();
                if busy == *most as usize {
                    *self.met.entry(rule).or_default() += 1;
                }
                if busy > *most as usize {
                    found.push((rule, format!("{busy} of {most} of {circle} in {}", leg.id)));
                }
            }
        }
        if tick {
            self.look_at_rollout(told, kernel, &mut found);
        }
        if tick {
            for host in self.groups.keys() {
                let rows = kernel.legs().iter().filter_map(|leg| kernel.host(&leg.leg, host));
                found.extend(rows.filter_map(|row| Some((ATTEMPTS, self.too_often(host, row)?))));
            }
        }
        found
    }

    /// Says so if a host was tried again by itself more often than its group's policy has.
    pub fn too_often(&self, host: &HostId, row: &HostRow) -> Option<String> {
        let policy = self.groups.get(host).map(|group| &group.retry);
        let most = |class| {
            policy
                .and_then(|policy| policy.get(class))
                .map_or(0, |retries| retries.times)
        };
        let mut classes = row.retried.iter();
        let (class, times) = classes.find(|(class, times)| **times > most(class))?;
        Some(format!("{host}: {times} of {} for {class:?}", most(class)))
    }

    fn look_at_permit(
        &mut self,
        kernel: &Kernel,
        order: &HostOrder,
        now: u64,
        found: &mut Vec<(&'static str, String)>,
    ) {
        let Some(group) = self.groups.get(&order.host) else {
            return;
        };
        match opening(&group.windows, &group.blackouts, now) {
            Opening::Open {
                until_ms: Some(until),
            } if now + order.start_within_ms == until => {
                *self.met.entry(WINDOW).or_default() += 1;
            }
            Opening::Closed { .. } => found.push((WINDOW, format!("{} at {now}", order.order))),
            Opening::Open {
                until_ms: Some(until),
            } if now + order.start_within_ms > until => {
                found.push((WINDOW, format!("{} reaches past {until}", order.order)));
            }
            Opening::Open { .. } => {}
        }
        let rows = || {
            group
                .hosts
                .iter()
                .filter_map(|host| kernel.host(&order.leg, host))
        };
        let count =
            |what: &dyn Fn(&HostRow) -> bool| u32::try_from(rows().filter(|row| what(row)).count()).unwrap();
        let held = group
            .hosts
            .iter()
            .filter(|host| super::rules::holds_slot(kernel, &order.leg, host));
        let slots = u32::try_from(held.count()).unwrap();
        let verified = count(&|row| row.upgraded());
        if verified < group.canaries {
            return;
        }
        let (mut sum, mut width) = (group.canaries, group.max_unavailable);
        for step in &group.ramp {
            sum += step;
            if verified < sum {
                width = *step;
                *self.met.entry(RAMP).or_default() += 1;
                break;
            }
        }
        let width = width.min(self.most(kernel, &order.leg, group));
        // Whoever kept its slot from an earlier attempt takes no new one.
        let kept = kernel.host(&order.leg, &order.host).is_some_and(|row| row.broken)
            || super::rules::held_before(kernel, &order.leg, &order.host);
        if slots > width && !kept {
            found.push((RAMP, format!("{}: {slots} slots of {width}", order.order)));
        }
    }

    /// Looked at after a decision: what a host says alone decides nothing.
    pub fn look_at_rollout(&self, told: &Told, kernel: &Kernel, found: &mut Vec<(&'static str, String)>) {
        let Some(tolerated) = kernel.plan().failure_threshold else {
            return;
        };
        if kernel.phase() != RolloutPhase::Running {
            return;
        }
        // Between the legs of clients nothing is decided about them.
        let mut legs = kernel.legs().iter();
        if !legs.any(|leg| leg.phase == LegPhase::Running && leg.hops.is_empty()) {
            return;
        }
        let failed = crate::proof::failed_over_all(told, kernel);
        if failed.len() > tolerated as usize {
            let what = format!("{failed:?} failed, {tolerated} tolerated");
            found.push((ROLLOUT_THRESHOLD, what));
        }
    }
}

/// Failures that a group tolerates in a leg: the plan's number or a person's lower one.
pub fn tolerated(kernel: &Kernel, leg: &LegId, group: &PlanGroup) -> u32 {
    let limit = kernel
        .group(leg, &group.name)
        .and_then(|row| row.limits.failure_threshold);
    group.failure_threshold.min(limit.unwrap_or(u32::MAX))
}

fn is_down(row: &HostRow) -> bool {
    row.slot || row.phase.in_flight()
}

fn stages(row: &HostRow) -> bool {
    let stage = row
        .order
        .as_ref()
        .is_some_and(|order| order.action == Action::Stage);
    row.phase == HostPhase::Preparing && stage
}
