//! The baseline of hosts that it does not have yet: they came with a later plan, or PMM did not list their client.
//!
//! Without a baseline nothing of a host could be compared, so it gets no permit: first the next look at the whole fleet is laid into the
//! baseline. Which hosts lack one follows from the baseline and the plan, and so a coordinator that dies in between looks again.

use super::orders::GRACE_MS;
use super::rows::Key;
use super::waiting::duty;
use super::{Duty, Kernel, Owner};
use crate::fleet::duration_text;
use fleet_common::ids::HostId;
use fleet_common::verification::FleetSnapshot;
use std::collections::BTreeSet;

impl Kernel {
    /// Finds out which hosts of the plan the baseline does not have.
    pub(super) fn find_unlisted(&mut self) {
        let lacks = |baseline: &FleetSnapshot| -> BTreeSet<HostId> {
            let hosts = self.plan.hosts.iter();
            hosts
                .filter(|host| !baseline.clients.contains_key(&host.agent_id))
                .map(|host| host.host.clone())
                .collect()
        };
        self.unlisted = self.baseline.as_ref().map(lacks).unwrap_or_default();
    }

    /// Lays what a look at the whole fleet says of hosts that the baseline lacks into it. None of them had a permit yet.
    pub(super) fn complete_baseline(&mut self, view: &FleetSnapshot, now_ms: u64) {
        if view.scope.is_some() || self.unlisted.is_empty() {
            return;
        }
        let Some(baseline) = &mut self.baseline else {
            return;
        };
        let mut nodes = BTreeSet::new();
        for host in &self.unlisted {
            let planned = self.index.get(host).and_then(|at| self.plan.hosts.get(*at));
            let client = planned.and_then(|planned| view.clients.get(&planned.agent_id));
            nodes.extend(client.map(|client| client.node_id.clone()));
        }
        if nodes.is_empty() {
            return;
        }
        let theirs = view.of_nodes(&nodes);
        let text = format!(
            "baseline: {} more clients, {} more services",
            theirs.clients.len(),
            theirs.services.len()
        );
        baseline.take_over(theirs);
        self.dirty.insert(Key::Baseline);
        self.find_unlisted();
        self.event(now_ms, "server", "baseline", text);
    }

    /// Whether a host may get its permit as far as the baseline is concerned.
    pub(super) fn has_baseline(&self, host: &HostId) -> bool {
        !self.unlisted.contains(host) || self.breaks(super::Mutant::PermitWithoutBaseline)
    }

    /// Whether PMM was asked for a host that the baseline lacks, and does not list its client. Only after a look at it that says so it is
    /// left behind; before that it is waited for like the baseline itself.
    pub(super) fn is_not_listed(&self, host: &HostId, now_ms: u64) -> bool {
        !self.has_baseline(host) && self.fleet_seen_since(self.joined_ms(now_ms), now_ms)
    }

    /// When the newest plan took over. What lies in the future was before the clock was set back.
    fn joined_ms(&self, now_ms: u64) -> u64 {
        let adopted = self.adopted.as_ref().map(|adopted| adopted.at_ms);
        adopted.filter(|at| *at <= now_ms).unwrap_or(0)
    }

    /// What a host waits for that the baseline lacks.
    pub(super) fn listing_duty(&self, host: &HostId, now_ms: u64) -> Duty {
        let again = self.next_fleet_look_ms(now_ms);
        let left = duration_text(again.saturating_sub(now_ms));
        let text = if self.is_not_listed(host, now_ms) {
            format!(
                "PMM does not list its client, so that nothing of it could be compared; asked again in {left}"
            )
        } else {
            format!(
                "the PMM Server's view of it, which the baseline does not have yet; asked again in {left}"
            )
        };
        duty(Owner::PmmServer, "baseline", text, again)
    }

    /// Where PMM can't be asked for hosts that the baseline lacks, a person is told.
    pub(super) fn look_at_unlisted(&mut self, patience_ms: u64, now_ms: u64) {
        if self.unlisted.is_empty() || self.rollout.phase != super::RolloutPhase::Running {
            return;
        }
        let joined = self.joined_ms(now_ms);
        if self.fleet_seen_since(joined, now_ms) {
            return;
        }
        let since = joined
            .max(self.rollout.since_ms)
            .max(self.absence_from_ms + GRACE_MS);
        let waits = |host: &&HostId| self.waits_for_permit(host);
        let hosts: Vec<&HostId> = self.unlisted.iter().filter(waits).collect();
        if hosts.is_empty() || since + patience_ms > now_ms {
            return;
        }
        let text = format!(
            "the PMM Server could not be asked for {} host{} that the baseline lacks: {}",
            hosts.len(),
            if hosts.len() == 1 { "" } else { "s" },
            self.some_of(hosts.iter().copied())
        );
        self.pause(
            "server_view_missing",
            &text,
            "make it reachable for the coordinator, then `resume`",
            "coordinator",
            now_ms,
        );
    }

    fn waits_for_permit(&self, host: &HostId) -> bool {
        let mut rows = self.hosts.values().filter_map(|rows| rows.get(host));
        rows.any(|row| row.phase.before_permit())
    }
}
