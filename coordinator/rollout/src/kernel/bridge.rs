//! Between a client leg and the server leg after it: hosts that did not reach the leg's release and would lose the next server, and hosts
//! that came back after their leg was over and are still between two releases.

use super::rows::Key;
use super::state::{HopRow, HostRow, LegPhase, RolloutPhase};
use super::{Duty, Kernel};
use crate::plan::LegKind;
use fleet_common::ids::{HostId, LegId};
use fleet_common::server::HopOutcome;
use std::collections::BTreeSet;

const INCOMPLETE: &str = "bridge_incomplete";

impl Kernel {
    /// The last client leg before a position.
    pub(super) fn clients_before(&self, at: usize) -> Option<LegId> {
        let mut earlier = self.plan.legs[..at].iter().rev();
        let clients = earlier.find(|leg| matches!(leg.kind, LegKind::Clients { .. }));
        clients.map(|leg| leg.id.clone())
    }

    /// Hosts that are not on a client leg's release.
    pub(super) fn missed(&self, leg: &LegId) -> Vec<HostId> {
        let rows = self.hosts[leg].iter();
        rows.filter(|(_, row)| !row.made_it())
            .map(|(host, _)| host.clone())
            .collect()
    }

    /// The client leg before the server leg that is still to begin, and its hosts that would lose the server then and that nobody accepted.
    fn behind(&self) -> Option<(LegId, Vec<HostId>)> {
        let begins = |leg: &super::LegRow| leg.phase == LegPhase::Waiting && !leg.hops.is_empty();
        let earlier = self.clients_before(self.legs.iter().position(begins)?)?;
        let mut behind = self.missed(&earlier);
        behind.retain(|host| !self.rollout.behind_accepted.contains(host));
        Some((earlier, behind))
    }

    /// Whether anybody would lose the next server unknown to everybody.
    pub(super) fn somebody_is_behind(&self) -> bool {
        self.behind().is_some_and(|(_, behind)| !behind.is_empty())
    }

    /// Whether the next server leg may begin as far as hosts that missed the bridge are concerned; a person is asked about each of them.
    pub(super) fn bridge_is_crossed(&mut self, now_ms: u64) -> bool {
        let Some((earlier, behind)) = self.behind() else {
            return true;
        };
        if behind.is_empty() {
            return true;
        }
        let text = self.behind_text(&earlier, &behind);
        let hint = "`retry` the hosts, or `resume` to go on without them";
        if self.pause(INCOMPLETE, &text, hint, "coordinator", now_ms) {
            self.rollout.behind_told = behind.into_iter().collect();
        }
        false
    }

    fn behind_text(&self, leg: &LegId, behind: &[HostId]) -> String {
        format!(
            "{} host{} did not reach {leg}'s release and would lose the next server: {}",
            behind.len(),
            if behind.len() == 1 { "" } else { "s" },
            self.some_of(behind)
        )
    }

    /// `resume` accepts the hosts that the pause tells of: it tells of all of them, also of those that fell behind later.
    pub(super) fn retell_behind(&mut self, now_ms: u64) {
        let paused = self.rollout.phase == RolloutPhase::Paused;
        let told = self
            .rollout
            .pause
            .as_ref()
            .filter(|pause| pause.code == INCOMPLETE);
        let Some((earlier, behind)) = told.filter(|_| paused).and_then(|_| self.behind()) else {
            return;
        };
        let now: BTreeSet<HostId> = behind.iter().cloned().collect();
        // With nobody left the cause of the pause is gone, which is told as that.
        if now.is_empty() || now == self.rollout.behind_told {
            return;
        }
        let text = self.behind_text(&earlier, &behind);
        if let Some(pause) = &mut self.rollout.pause {
            pause.text.clone_from(&text);
        }
        self.rollout.behind_told = now;
        self.dirty.insert(Key::Rollout);
        self.event(now_ms, "rollout", "pause_cause", text);
    }

    /// `resume` past the bridge.
    pub(super) fn accept_behind(&mut self) {
        let told = std::mem::take(&mut self.rollout.behind_told);
        self.rollout.behind_accepted.extend(told);
        self.dirty.insert(Key::Rollout);
    }

    /// Hosts of client legs before a position that are under way or are to go back: no hop begins before each of them has ended on one
    /// release or the other. Each has a deadline of its own.
    pub(super) fn late_hosts(&self, at: usize) -> Vec<(&LegId, &HostId)> {
        if self.breaks(super::Mutant::HopPastLateHosts) {
            return Vec::new();
        }
        let late = |row: &HostRow| row.phase.in_flight() || row.rests() && row.back_wanted.is_some();
        let legs = self.legs[..at]
            .iter()
            .filter(|leg| !self.groups[&leg.leg].is_empty());
        let rows = legs.flat_map(|leg| {
            self.hosts[&leg.leg]
                .iter()
                .map(move |(host, row)| (leg, host, row))
        });
        rows.filter(|(_, _, row)| late(row))
            .map(|(leg, host, _)| (&leg.leg, host))
            .collect()
    }

    /// The hosts that the next hop waits for, if it is due but for them.
    pub(crate) fn hop_waits_for(&self) -> Vec<(&LegId, &HostId)> {
        let running = self.rollout.phase == RolloutPhase::Running;
        let Some(at) = self.legs.iter().position(|leg| leg.phase != LegPhase::Settled) else {
            return Vec::new();
        };
        let leg = &self.legs[at];
        let due = matches!(leg.phase, LegPhase::Waiting | LegPhase::Running)
            && leg.hops.iter().all(|hop| hop.order.is_none())
            && leg.hops.iter().any(|hop| hop.result.is_none());
        if running && due {
            self.late_hosts(at)
        } else {
            Vec::new()
        }
    }

    /// What the next hop waits for: of these hosts the one that ends first.
    pub(super) fn late_duty(&self, now_ms: u64) -> Option<Duty> {
        let late = self.hop_waits_for();
        let end = |leg: &LegId, host: &HostId| self.end_of_host(host, self.host(leg, host)?, now_ms);
        let (leg, host) = *late
            .iter()
            .min_by_key(|(leg, host)| end(leg, host).unwrap_or(u64::MAX))?;
        let row = self.host(leg, host)?;
        let own = self.host_duty(leg, host, now_ms)?;
        let others = match late.len() {
            1 => String::new(),
            number => format!("{number} hosts of earlier legs, first "),
        };
        let state = row.phase.as_str().replace('_', " ");
        let ends = own
            .deadline_ms
            .map(|_| self.words_of_host(leg, host, row, now_ms));
        Some(Duty {
            code: "late_hosts",
            text: format!("{others}{} ({state} in {leg}): {}", self.name(host), own.text),
            next: own.next.or(ends),
            ..own
        })
    }

    /// The hop that is under way, unless a person is asked about it.
    pub(super) fn works_at_hop(&self) -> bool {
        self.open_hop().is_some() && self.legs.iter().all(|leg| leg.phase != LegPhase::NeedsOperator)
    }

    /// Whether the server that is there by now promises nothing to PMM 2 clients: what the plan says of the client leg after the last server
    /// leg that has begun.
    pub(super) fn serves_no_pmm2(&self, leg: &LegId) -> bool {
        let legs = self.plan.legs.iter().zip(&self.legs);
        let mut none = false;
        for (planned, row) in legs.skip_while(|(planned, _)| planned.id != *leg) {
            match planned.kind {
                LegKind::Clients {
                    no_way_back_to_pmm2, ..
                } => none = no_way_back_to_pmm2,
                // Nobody worked out what it promises unless clients come after it.
                LegKind::Server { .. } if row.hops.iter().any(went_on) => none = true,
                LegKind::Server { .. } | LegKind::Survey => break,
            }
        }
        none
    }

    /// The server as clients of a leg find it by now.
    pub(super) fn server_by_now(&self, leg: &LegId) -> String {
        let later = self.legs.iter().skip_while(|row| row.leg != *leg);
        let hop = later.flat_map(|row| &row.hops).filter(|hop| went_on(hop)).last();
        match hop {
            Some(hop) if hop.order.is_some() => format!("the PMM Server is on its way to {}", hop.to),
            Some(hop) => format!("the PMM Server runs {}", hop.to),
            None => format!("the PMM Server runs {}", self.serves_during(leg)),
        }
    }
}

/// Whether a hop was begun and the server is not known to be back where it was.
fn went_on(hop: &HopRow) -> bool {
    let result = hop.result.as_ref();
    hop.order.is_some()
        || result
            .is_some_and(|result| matches!(result.outcome, HopOutcome::Settled | HopOutcome::NeedsOperator))
}
