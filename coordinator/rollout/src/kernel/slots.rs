//! Slots over all client legs: who holds one, and whose slot only a person can free.

use super::start::ABSENCE_SUSPENDED_MS;
use super::state::{HostPhase, HostRow, LegPhase};
use super::{HostMap, Kernel};
use crate::plan::PlanGroup;
use fleet_common::ids::{HostId, LegId};
use std::collections::BTreeSet;

impl Kernel {
    /// Client legs and their rows, in the plan's order.
    pub(super) fn client_rows(&self) -> impl Iterator<Item = (&super::LegRow, &HostMap<HostRow>)> {
        let legs = self.legs.iter();
        let clients = legs.filter(|leg| self.groups.get(&leg.leg).is_some_and(|groups| !groups.is_empty()));
        clients.filter_map(|leg| Some((leg, self.hosts.get(&leg.leg)?)))
    }

    /// Client legs before one that has begun: whoever they left without a working client is down in this one, too.
    fn rows_before(&self, leg: &LegId) -> impl Iterator<Item = &HostMap<HostRow>> {
        let begun = |row: &super::LegRow| row.leg == *leg && row.phase != LegPhase::Waiting;
        let counts = self.legs.iter().any(begun) && !self.breaks(super::Mutant::EarlierSlotsForgotten);
        let earlier = self.client_rows().take_while(move |(row, _)| row.leg != *leg);
        earlier.filter(move |_| counts).map(|(_, rows)| rows)
    }

    /// Hosts that hold a slot since an earlier client leg.
    pub(super) fn held_before(&self, leg: &LegId) -> BTreeSet<&HostId> {
        let rows = self.rows_before(leg).flatten();
        rows.filter(|(_, row)| row.slot).map(|(host, _)| host).collect()
    }

    /// The row by which a host holds a slot in a leg: from its permit there, or since an earlier client leg.
    pub(crate) fn holder(&self, leg: &LegId, host: &HostId) -> Option<&HostRow> {
        let own = self.host(leg, host).into_iter();
        let earlier = self.rows_before(leg).filter_map(|rows| rows.get(host));
        own.chain(earlier).find(|row| row.slot)
    }

    /// Whether there is one.
    pub(crate) fn holds_slot(&self, leg: &LegId, host: &HostId) -> bool {
        self.holder(leg, host).is_some()
    }

    /// Whoever is known to have a working client is no more down since an earlier leg either.
    pub(super) fn free_before(&mut self, leg: &LegId, host: &HostId) {
        let earlier: Vec<LegId> = self
            .client_rows()
            .take_while(|(row, _)| row.leg != *leg)
            .filter(|(_, rows)| rows.get(host).is_some_and(|row| row.slot && row.phase.is_final()))
            .map(|(row, _)| row.leg.clone())
            .collect();
        for earlier in earlier {
            self.edit(&earlier, host, |row| {
                row.slot = false;
                row.broken = false;
            });
        }
    }

    /// Whether it may be without a working client.
    pub(super) fn is_down(&self, host: &HostId) -> bool {
        self.client_rows()
            .filter_map(|(_, rows)| rows.get(host))
            .any(is_down)
    }

    /// Hosts that may be without a working client, each once.
    pub(super) fn down(&self) -> BTreeSet<&HostId> {
        let rows = self.client_rows().flat_map(|(_, rows)| rows);
        rows.filter(|(_, row)| is_down(row))
            .map(|(host, _)| host)
            .collect()
    }

    /// Whether a host holds a slot that it does not give back by itself: it ended in every leg, or its next attempt waits for a person or for
    /// its return.
    pub(crate) fn is_stuck(&self, host: &HostId, now_ms: u64) -> bool {
        let mut holds = false;
        for (leg, rows) in self.client_rows() {
            let Some(row) = rows.get(host) else { continue };
            let begins = leg.phase == LegPhase::Running && row.phase.before_permit();
            if row.phase.in_flight() || begins && self.goes_on(&leg.leg, host, row, now_ms) {
                return false;
            }
            holds |= row.slot;
        }
        holds
    }

    /// Whether a host that has to begin does so without a person. An agent that only lost its connection has the time to come back.
    fn goes_on(&self, leg: &LegId, host: &HostId, row: &HostRow, now_ms: u64) -> bool {
        let group = self
            .planned(host)
            .and_then(|planned| self.plan.group(&planned.group));
        if group.is_some_and(|group| self.waits_for_turn(leg, group)) {
            return false;
        }
        let gone = || {
            let since = self.absent_since(host, now_ms);
            since.is_some_and(|since| since + ABSENCE_SUSPENDED_MS <= now_ms)
        };
        if !self.is_connected(host) {
            return self.held(host).is_none() && !gone();
        }
        row.phase == HostPhase::Preparing
            || self.may_begin_now(host, row, now_ms)
            || self.begins_later(host, row, now_ms)
    }

    /// Hosts that hold a slot with which nothing happens: they ended, or are to be tried again and held or away. In the order of their names.
    pub(crate) fn idle_holders(&self) -> BTreeSet<&HostId> {
        let all = self.client_rows().flat_map(|(_, rows)| rows);
        let idle = |row: &HostRow, host: &HostId| {
            row.phase.is_final() || row.phase.before_permit() && !self.can_be_asked(host)
        };
        let holders = all
            .filter(|(host, row)| row.slot && idle(row, host))
            .map(|(host, _)| host);
        let busy = |host: &HostId| {
            let mut rows = self.client_rows().filter_map(|(_, rows)| rows.get(host));
            rows.any(|row| row.phase.in_flight())
        };
        holders.filter(|host| !busy(host)).collect()
    }

    /// Whether a host holds a slot in any leg.
    pub(crate) fn holds_any_slot(&self, host: &HostId) -> bool {
        let mut rows = self.client_rows().filter_map(|(_, rows)| rows.get(host));
        rows.any(|row| row.slot)
    }

    /// Those of a group that hold their slot while they wait for their next attempt, as an end of a sentence; empty without any.
    pub(super) fn stuck_before_retry(&self, leg: &LegId, group: &PlanGroup, now_ms: u64) -> String {
        let waits = |host: &&HostId| {
            self.host(leg, host).is_some_and(|row| row.phase.before_permit())
                && self.holds_slot(leg, host)
                && self.is_stuck(host, now_ms)
        };
        let hosts: Vec<&HostId> = group.hosts.iter().filter(waits).collect();
        if hosts.is_empty() {
            return String::new();
        }
        let is = if hosts.len() == 1 { "is" } else { "are" };
        format!("; to be tried again, {} {is} held or away", self.some_of(hosts))
    }
}

/// Whether it may be without a working client.
fn is_down(row: &HostRow) -> bool {
    row.slot || row.phase.in_flight()
}
