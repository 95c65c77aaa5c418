//! Orders that leave: to whom, when, and whether what they take is free.

use super::Watcher;
use crate::rules;
use crate::run::operated;
use fleet_common::ids::{GroupName, LegId};
use fleet_common::order::Action;
use fleet_common::plan_entry::PlanEntry;
use rollout::kernel::{GroupPhase, HostOrder, HostPhase, Kernel, LegPhase, Output, RolloutPhase};
use rollout::plan::PlanHost;

impl Watcher {
    pub(super) fn look_at_orders(&mut self, kernel: &Kernel, out: &Output, wall_ms: u64) {
        for order in &out.orders {
            self.count(format!("order {}", order.action.as_str()));
            let planned = self
                .planned
                .get(&order.host)
                .and_then(|(at, _)| kernel.plan().hosts.get(*at));
            let Some(planned) = planned.filter(|_| !order.entry.is_empty()) else {
                self.broken(rules::PLAN_ONLY, format!("order {}", order.order));
                continue;
            };
            if order.action == Action::Repoint && self.orders.insert(order.order.clone()) {
                let entry: Option<PlanEntry> = serde_json::from_slice(&order.entry).ok();
                let to = entry.and_then(|entry| entry.repoint).map(|repoint| repoint.to);
                let new = to.is_some_and(|to| to.ends_with(":8443"));
                let leg = kernel.legs().iter().find(|leg| leg.leg == order.leg);
                let crossing = leg.and_then(|leg| {
                    leg.hops
                        .iter()
                        .find(|hop| hop.from.major == 2 && hop.to.major > 2)
                });
                if crossing.and_then(|hop| hop.published) != Some(new) {
                    self.broken(
                        rules::FOLLOW,
                        format!("{} and the server is elsewhere", order.order),
                    );
                }
            }
            if order.action == Action::Switch && self.orders.insert(order.order.clone()) {
                self.look_at_permit(kernel, out, order, planned, wall_ms);
            }
            if order.action == Action::Rollback && self.orders.insert(order.order.clone()) {
                let key = (order.leg.clone(), planned.group.clone());
                let taken = self.groups.get(&key).map_or(0, |count| count.slots)
                    + before(kernel, &order.leg, &planned.group);
                let most = self.limits.get(&key).map_or(0, |(most, _)| *most);
                let found = operated::goes_back(kernel, out, order, planned, taken, most);
                self.all_broken(found);
                if operated::goes_back_in_a_pause(kernel, order) {
                    self.broken(rules::PAUSE, order.order.to_string());
                }
            }
        }
        for order in out
            .cancel_server
            .iter()
            .chain(out.server.iter().map(|order| &order.order))
        {
            let of = |leg: &&rollout::kernel::LegRow| order.as_str().contains(&format!("/{}/", leg.leg));
            if kernel
                .legs()
                .iter()
                .find(of)
                .is_some_and(|leg| leg.no_return_since_ms.is_some())
            {
                self.broken(rules::NO_RETURN, order.to_string());
            }
        }
        for order in &out.server {
            if !self.server_orders.insert(order.order.clone()) {
                continue;
            }
            if kernel.phase() != RolloutPhase::Running {
                self.broken(rules::PAUSE, order.order.to_string());
            }
            if let Some(late) = rules::late(kernel, order) {
                self.broken(rules::LATE, late);
            }
        }
    }

    fn look_at_permit(
        &mut self,
        kernel: &Kernel,
        out: &Output,
        order: &HostOrder,
        planned: &PlanHost,
        wall_ms: u64,
    ) {
        let Some(row) = kernel.host(&order.leg, &order.host) else {
            return self.broken(rules::PLAN_ONLY, order.order.to_string());
        };
        let key = format!("host/{}/{}", order.leg, order.host);
        let stored = out.rows.iter().any(|row| row.key == key);
        if !row.slot || !stored || row.phase != HostPhase::Permitted {
            self.broken(rules::SLOT_WITH_GRANT, order.order.to_string());
        }
        let key = (order.leg.clone(), planned.group.clone());
        if let (Some((most, _)), Some(taken)) = (self.limits.get(&key), self.groups.get(&key))
            && let taken = taken.slots + before(kernel, &order.leg, &planned.group)
            && taken > *most
            // Whoever kept its slot from an earlier attempt takes no new one.
            && !row.broken
            && !rules::held_before(kernel, &order.leg, &order.host)
        {
            let text = format!("{taken} of {most} in {}", planned.group);
            self.broken(rules::SLOT_MAX, text);
        }
        if rules::lacks_baseline(kernel, planned) {
            self.broken(rules::BASELINE, order.order.to_string());
        }
        if kernel.rollout().going_back.is_some() {
            self.broken(operated::CLOSED, format!("{} while clients go back", order.order));
        }
        // A pause of the coordinator's own may follow permits of the same tick.
        let pause = kernel.rollout().pause.as_ref();
        let by_operator = pause.is_some_and(|pause| pause.code == "operator");
        if kernel.phase() == RolloutPhase::Paused && (self.was_paused || by_operator)
            || kernel.rollout().abort.is_some()
        {
            self.broken(rules::PAUSE, order.order.to_string());
        }
        for (rule, what) in self.gates.look(&self.told, kernel, out, wall_ms, false) {
            self.broken(rule, what);
        }
        self.look_at_turn(kernel, order, planned);
        if planned.repoint.is_some() {
            let mut rows = kernel.legs().iter().filter(|leg| !leg.hops.is_empty());
            let followed = |leg: &rollout::kernel::LegRow| {
                let row = kernel.host(&leg.leg, &order.host);
                row.is_none_or(|row| row.phase == HostPhase::Repointed)
            };
            if !rows.all(followed) {
                self.broken(
                    rules::FOLLOW,
                    format!("{} before its client followed", order.order),
                );
            }
        }
        let first = self.passed.insert(order.leg.clone());
        let earlier = kernel.legs().iter().take_while(|leg| leg.leg != order.leg);
        for leg in earlier.filter(|leg| !leg.hops.is_empty()) {
            let stored = out.rows.iter().any(|row| row.key == format!("leg/{}", leg.leg));
            let new = first && self.no_return.insert(leg.leg.clone());
            if leg.no_return_since_ms.is_none() || new && !stored {
                self.broken(rules::NO_RETURN, format!("{} without {}", order.order, leg.leg));
            }
        }
    }

    fn look_at_turn(&mut self, kernel: &Kernel, order: &HostOrder, planned: &PlanHost) {
        let mut earlier = kernel.legs().iter().take_while(|leg| leg.leg != order.leg);
        if earlier.any(|leg| leg.phase != LegPhase::Settled) {
            self.broken(rules::TURN, format!("{} before an earlier leg", order.order));
        }
        for group in &kernel.plan().groups {
            let Some(row) = kernel.group(&order.leg, &group.name) else {
                continue;
            };
            if group.name == planned.group {
                if row.phase == GroupPhase::RolledBack {
                    self.broken(
                        operated::CLOSED,
                        format!("{} in a group that was taken back", order.order),
                    );
                }
                if matches!(row.phase, GroupPhase::Pending | GroupPhase::Gated) {
                    self.broken(rules::TURN, format!("{} in a group that waits", order.order));
                }
                if group.approval && row.approved_by.is_none() {
                    self.broken(rules::TURN, format!("{} without approval", order.order));
                }
                break;
            }
            // An earlier group that was done goes on for hosts that are late or tried again; who began meanwhile goes on, too.
            let open = matches!(
                row.phase,
                GroupPhase::Pending | GroupPhase::Gated | GroupPhase::Canary
            );
            if open && !rules::had_begun(kernel, order, &planned.group) {
                self.broken(
                    rules::TURN,
                    format!("{} before group {}", order.order, group.name),
                );
            }
        }
    }
}

/// Hosts of a group that hold a slot in a leg only since an earlier one.
fn before(kernel: &Kernel, leg: &LegId, group: &GroupName) -> u32 {
    let group = kernel.plan().group(group);
    let hosts = group.into_iter().flat_map(|group| &group.hosts);
    let only_before = hosts.filter(|host| {
        rules::held_before(kernel, leg, host) && !kernel.host(leg, host).is_some_and(|row| row.slot)
    });
    u32::try_from(only_before.count()).unwrap_or(u32::MAX)
}
