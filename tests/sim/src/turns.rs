//! Rules about who goes first: canaries before the others of their group, each group before the next. Who is there is known here from what
//! the kernel was told, and what was verified from its rows.

use fleet_common::ids::{GroupName, HostId, LegId};
use fleet_common::order::Action;
use rollout::kernel::{GroupPhase, HostPhase, HostRow, Input, Kernel, Output};
use rollout::plan::PlanGroup;
use std::collections::{BTreeMap, BTreeSet};

pub const CANARY: &str = "no more than the canaries begin before they are verified";
pub const CANARY_SOAK: &str = "nobody else begins before the wait after the canaries is over";
pub const ORDER: &str =
    "a group ends, and the next begins, only when each of its hosts ended, is held or is known to be away";

/// Right after a start of the coordinator every agent has so long to connect.
const HEARD_OF_MS: u64 = 50_000;

type Found = Vec<(&'static str, String)>;

#[derive(Debug, Default)]
pub struct Turns {
    connected: BTreeSet<HostId>,
    started_ms: u64,
    groups: BTreeMap<HostId, GroupName>,
    /// Hosts of a group that are upgraded, counted along.
    upgraded: BTreeMap<LegId, BTreeMap<GroupName, BTreeSet<HostId>>>,
    /// Since when a group's canaries are verified; 0 where nobody can say.
    reached: BTreeMap<(LegId, GroupName), u64>,
    /// Hosts that their group did not wait for, and may catch up at any time.
    late: BTreeSet<(LegId, HostId)>,
    orders: BTreeSet<String>,
    /// How often a rule's case was met; one that never was proves nothing.
    pub met: BTreeMap<&'static str, u64>,
}

impl Turns {
    /// What happened before is nobody's fault.
    pub fn of(kernel: &Kernel) -> Self {
        let mut turns = Self::default();
        turns.planned_by(kernel);
        for leg in kernel.legs() {
            for group in &kernel.plan().groups {
                let Some(row) = kernel.group(&leg.leg, &group.name) else {
                    continue;
                };
                if matches!(row.phase, GroupPhase::Soaking | GroupPhase::Done) {
                    turns.leave_behind(kernel, &leg.leg, group);
                }
            }
        }
        turns
    }

    /// From now on this plan counts.
    pub fn planned_by(&mut self, kernel: &Kernel) {
        let hosts = kernel.plan().hosts.iter();
        self.groups = hosts
            .map(|host| (host.host.clone(), host.group.clone()))
            .collect();
        self.reached.clear();
        self.upgraded.clear();
        for leg in kernel.legs() {
            for group in &kernel.plan().groups {
                for host in &group.hosts {
                    let upgraded = kernel.host(&leg.leg, host).is_some_and(HostRow::upgraded);
                    self.note(&leg.leg, group, host, upgraded);
                }
                if self.verified(&leg.leg, group) >= group.canaries {
                    self.reached.insert((leg.leg.clone(), group.name.clone()), 0);
                }
            }
        }
    }

    /// The clock was set: how long something lasted is not known any more.
    pub fn clock_set(&mut self) {
        self.reached.values_mut().for_each(|since| *since = 0);
        self.started_ms = 0;
    }

    /// What the kernel is told of who is there.
    pub fn hears(&mut self, input: &Input, now: u64) {
        match input {
            // A restored store that is adopted is a start as well: everybody is asked to come back.
            Input::CoordinatorStarted { .. } | Input::StoreAdopted { .. } => {
                self.connected.clear();
                self.started_ms = now;
            }
            Input::Connected { host, .. } => {
                self.connected.insert(host.clone());
            }
            Input::Disconnected { host } => {
                self.connected.remove(host);
            }
            _ => {}
        }
    }

    /// What the kernel made of it.
    pub fn look(&mut self, kernel: &Kernel, out: &Output, now: u64) -> Found {
        let mut found = Found::new();
        for row in &out.rows {
            let mut parts = row.key.splitn(3, '/');
            let (kind, leg, name) = (parts.next(), parts.next(), parts.next());
            let (Some(kind), Some(leg), Some(name)) = (kind, leg.map(LegId::from), name) else {
                continue;
            };
            match kind {
                "host" => self.look_at_host(kernel, &leg, &HostId::from(name), now),
                "group" => self.look_at_group(kernel, &leg, &GroupName::new(name), now, &mut found),
                _ => {}
            }
        }
        for order in out.orders.iter().filter(|order| order.action == Action::Switch) {
            let row = kernel.host(&order.leg, &order.host);
            let granted = row.is_some_and(|row| row.permitted_at_ms == Some(now));
            if !granted || !self.orders.insert(order.order.to_string()) {
                continue;
            }
            let name = self.groups.get(&order.host).cloned();
            if let Some(group) = name.and_then(|name| kernel.plan().group(&name)) {
                self.look_at_permit(kernel, &order.leg, group, now, &mut found);
            }
        }
        found
    }

    /// Notes since when the canaries of its group are verified.
    fn look_at_host(&mut self, kernel: &Kernel, leg: &LegId, host: &HostId, now: u64) {
        let Some(row) = kernel.host(leg, host) else { return };
        if row.phase == HostPhase::Lost {
            self.late.insert((leg.clone(), host.clone()));
        }
        let Some(group) = self.groups.get(host).and_then(|name| kernel.plan().group(name)) else {
            return;
        };
        self.note(leg, group, host, row.upgraded());
        if group.canaries == 0 || kernel.group(leg, &group.name).is_none() {
            return;
        }
        let key = (leg.clone(), group.name.clone());
        let since = self.reached.contains_key(&key);
        // Only what upgrades a host, or takes it back, changes the number.
        if since == row.upgraded() {
            return;
        }
        if self.verified(leg, group) < group.canaries {
            self.reached.remove(&key);
        } else if !since {
            self.reached.insert(key, now);
        }
    }

    /// A group that ends now must have nobody who could begin.
    fn look_at_group(&mut self, kernel: &Kernel, leg: &LegId, name: &GroupName, now: u64, found: &mut Found) {
        let (Some(group), Some(row)) = (kernel.plan().group(name), kernel.group(leg, name)) else {
            return;
        };
        if row.since_ms != now || !matches!(row.phase, GroupPhase::Soaking | GroupPhase::Done) {
            return;
        }
        *self.met.entry(ORDER).or_default() += 1;
        for host in self.open(kernel, leg, group) {
            if !self.is_given_up(kernel, leg, &host, now) {
                let phase = kernel.host(leg, &host).map(|row| row.phase);
                let text = format!("group {name} in {leg} is {:?}, {host} is {phase:?}", row.phase);
                found.push((ORDER, text));
            }
        }
        self.leave_behind(kernel, leg, group);
    }

    fn look_at_permit(
        &mut self,
        kernel: &Kernel,
        leg: &LegId,
        group: &PlanGroup,
        now: u64,
        found: &mut Found,
    ) {
        let text = |what: String| format!("group {} in {leg}: {what}", group.name);
        let verified = self.verified(leg, group);
        let under_way = count(kernel, leg, group, |row| row.phase.in_flight());
        if verified < group.canaries {
            *self.met.entry(CANARY).or_default() += 1;
            if verified + under_way > group.canaries {
                let what = format!("{verified} verified, {under_way} under way of {}", group.canaries);
                found.push((CANARY, text(what)));
            }
        } else if let Some(since) = self.reached.get(&(leg.clone(), group.name.clone()))
            && group.canary_soak_ms > 0
            && group.canaries > 0
        {
            *self.met.entry(CANARY_SOAK).or_default() += 1;
            if now < since.saturating_add(group.canary_soak_ms) {
                found.push((CANARY_SOAK, text(format!("a permit {} ms after", now - since))));
            }
        }
        let row = kernel.group(leg, &group.name);
        if row.is_none_or(|row| row.first_permit_ms != Some(now)) {
            return;
        }
        let before = kernel.plan().groups.iter();
        for earlier in before.take_while(|earlier| earlier.name != group.name) {
            match kernel.group(leg, &earlier.name).map(|row| row.phase) {
                Some(GroupPhase::RolledBack) => {}
                Some(GroupPhase::Done) => {
                    for host in self.open(kernel, leg, earlier) {
                        found.push((ORDER, text(format!("its first permit before {host}'s end"))));
                    }
                }
                phase => {
                    let what = format!("its first permit while {} is {phase:?}", earlier.name);
                    found.push((ORDER, text(what)));
                }
            }
        }
    }

    /// Hosts that a group must not leave behind. Whoever is taken back begins nothing.
    fn open(&self, kernel: &Kernel, leg: &LegId, group: &PlanGroup) -> Vec<HostId> {
        let open = |host: &&HostId| {
            kernel.host(leg, host).is_some_and(|row| {
                !row.phase.is_through() && !row.taken_back && row.phase != HostPhase::RollingBack
            }) && !self.late.contains(&(leg.clone(), (*host).clone()))
        };
        group.hosts.iter().filter(open).cloned().collect()
    }

    fn note(&mut self, leg: &LegId, group: &PlanGroup, host: &HostId, upgraded: bool) {
        let hosts = self.upgraded.entry(leg.clone()).or_default();
        let hosts = hosts.entry(group.name.clone()).or_default();
        if upgraded {
            hosts.insert(host.clone());
        } else {
            hosts.remove(host);
        }
    }

    /// Hosts of a group that are upgraded.
    fn verified(&self, leg: &LegId, group: &PlanGroup) -> u32 {
        let hosts = self.upgraded.get(leg).and_then(|groups| groups.get(&group.name));
        hosts.map_or(0, |hosts| u32::try_from(hosts.len()).unwrap_or(u32::MAX))
    }

    fn leave_behind(&mut self, kernel: &Kernel, leg: &LegId, group: &PlanGroup) {
        let open = self.open(kernel, leg, group);
        self.late.extend(open.into_iter().map(|host| (leg.clone(), host)));
    }

    /// Whether a host that could still begin is held, known to be away, cut off from the server, or not in PMM's list.
    fn is_given_up(&self, kernel: &Kernel, leg: &LegId, host: &HostId, now: u64) -> bool {
        let before = |row: &HostRow| row.phase.before_permit();
        if !kernel.host(leg, host).is_some_and(before) {
            return false;
        }
        let away = !self.connected.contains(host) && self.started_ms + HEARD_OF_MS <= now;
        let duty = kernel.host_duty(leg, host, now);
        let held = duty.is_some_and(|duty| duty.code == "held");
        let servers = kernel.legs().iter().filter(|leg| !leg.hops.is_empty());
        let mut followers = servers.filter_map(|server| kernel.host(&server.leg, host));
        let cut_off = followers.any(|row| row.phase.is_final() && row.phase != HostPhase::Repointed);
        let unlisted = kernel
            .plan()
            .hosts
            .iter()
            .any(|planned| planned.host == *host && super::rules::lacks_baseline(kernel, planned));
        away || held || cut_off || unlisted
    }
}

fn count(kernel: &Kernel, leg: &LegId, group: &PlanGroup, what: impl Fn(&HostRow) -> bool) -> u32 {
    let rows = group.hosts.iter().filter_map(|host| kernel.host(leg, host));
    u32::try_from(rows.filter(|row| what(row)).count()).unwrap_or(u32::MAX)
}
