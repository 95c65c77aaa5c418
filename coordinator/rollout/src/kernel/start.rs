//! A coordinator took over.

use super::orders::GRACE_MS;
use super::rows::Key;
use super::state::{HostPhase, OpenOrder, RolloutPhase};
use super::{Kernel, Link};
use crate::names::some_of;
use fleet_common::ids::{Epoch, HostId, LegId};
use fleet_common::order::Action;
use std::collections::{BTreeMap, BTreeSet};

/// Agents try to reconnect at least every 20 s; with 30 s on top every agent that lives has done so. Until then nobody counts as absent.
pub(super) const ABSENCE_SUSPENDED_MS: u64 = 20_000 + 30_000;

impl Kernel {
    pub(super) fn coordinator_started(&mut self, term: u64, now_ms: u64) {
        if term <= self.rollout.epoch.term {
            self.illegal(
                now_ms,
                "rollout".to_owned(),
                format!("term {term} is not above {}", self.rollout.epoch.term),
            );
        }
        let term = term.max(self.rollout.epoch.term);
        self.rollout.epoch = Epoch {
            term,
            counter: self.rollout.epoch.counter + 1,
        };
        self.dirty.insert(Key::Rollout);
        self.absence_from_ms = now_ms + ABSENCE_SUSPENDED_MS;
        self.links = self
            .plan
            .hosts
            .iter()
            .map(|host| {
                (
                    host.host.clone(),
                    Link {
                        connected: false,
                        since_ms: now_ms,
                    },
                )
            })
            .collect();
        let under_way = !self.rollout.phase.is_final() && self.rollout.phase != RolloutPhase::Planned;
        if under_way {
            let step = self.what_was_hit();
            self.event(
                now_ms,
                "rollout",
                "coordinator_started",
                format!("a coordinator took over with term {term}; under way was: {step}"),
            );
            self.disturbed("coordinator".to_owned(), step, now_ms);
        }
        self.renew_orders(now_ms);
        self.renew_checks(now_ms);
        self.resend_server(now_ms);
        if self.rollout.abort.as_ref().is_some_and(|abort| abort.force) {
            self.cancel_server();
        }
    }

    /// The steps that were open: of the server, or of the hosts.
    fn what_was_hit(&self) -> String {
        if let Some((leg, hop)) = self.open_hop() {
            return hop.steps.last().map_or_else(
                || format!("{} hop {}", leg.leg, hop.number),
                |step| step.step.clone(),
            );
        }
        let mut groups: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for (host, row) in self.hosts.values().flat_map(|rows| rows.iter()) {
            if row.in_flight() || row.phase == HostPhase::Preparing {
                let step = row
                    .step
                    .as_ref()
                    .map_or_else(|| row.phase.as_str().to_owned(), |step| step.step.clone());
                let (group, name) = self.planned(host).map_or_else(
                    || (String::new(), host.to_string()),
                    |planned| (planned.group.to_string(), planned.name.clone()),
                );
                groups.entry(group).or_default().insert(format!("{name} {step}"));
            }
        }
        if groups.is_empty() {
            return "nothing".to_owned();
        }
        let texts = groups
            .into_iter()
            .map(|(group, hosts)| format!("group {group}: {}", some_of(hosts.iter().map(String::as_str))));
        texts.collect::<Vec<_>>().join("; ")
    }

    /// While there was no coordinator nobody looked at PMM: what was not seen by now may be seen soon.
    fn renew_checks(&mut self, now_ms: u64) {
        if let Some(until) = &mut self.rollout.check_until_ms {
            *until = (*until).max(now_ms + ABSENCE_SUSPENDED_MS + GRACE_MS);
        }
    }

    /// What was ordered is still meant, unless the rollout was aborted: open orders go on under the new epoch, and nobody's time ran out
    /// while there was no coordinator to hear the answer.
    fn renew_orders(&mut self, now_ms: u64) {
        let epoch = self.rollout.epoch;
        let hurried = self.breaks(super::Mutant::StartGivesNoTime);
        let aborted = self.rollout.abort.is_some();
        let open: Vec<(LegId, HostId)> = self
            .hosts
            .iter()
            .flat_map(|(leg, rows)| rows.iter().map(move |(host, row)| (leg, host, row)))
            .filter(|(_, _, row)| row.deadline_ms.is_some() || row.order.is_some())
            .map(|(leg, host, _)| (leg.clone(), host.clone()))
            .collect();
        for (leg, host) in open {
            self.edit(&leg, &host, |row| {
                if let Some(deadline) = row.deadline_ms.as_mut().filter(|_| !hurried) {
                    *deadline = (*deadline).max(now_ms + ABSENCE_SUSPENDED_MS + GRACE_MS);
                }
                // What makes an upgrade final or leads back is meant all the more.
                let meant = |order: &&mut OpenOrder| {
                    !aborted || matches!(order.action, Action::Keep | Action::Rollback | Action::Repoint)
                };
                if let Some(order) = row.order.as_mut().filter(meant) {
                    order.epoch = epoch;
                }
            });
        }
    }
}
