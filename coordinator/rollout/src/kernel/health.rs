//! The PMM Server's view: the baseline, the verification of switched hosts, and the three checks at the end.
//!
//! `connected` is a hint, a fresh sample is proof. A sample is fresh when it is newer than everything from before the end of the switch; a
//! host whose clock is behind is believed once its samples rose twice between views taken after the switch.

use super::Kernel;
use super::commands::{Answer, accepted, refused};
use super::rows::Key;
use super::state::{HostPhase, HostRow, Mark, RolloutPhase};
use crate::plan::LegKind;
use crate::verification::{Comparison, compare, runs};
use fleet_common::ids::{HostId, LegId};
use fleet_common::verification::{FleetSnapshot, Verification};
use fleet_common::version::PmmVersion;
use std::collections::{BTreeMap, BTreeSet};

impl Kernel {
    /// Whether the three checks are looked at now, also while that is paused.
    pub(super) fn checking(&self) -> bool {
        let phase = self.rollout.phase;
        phase == RolloutPhase::Checking
            || (phase == RolloutPhase::Paused && self.rollout.before_pause == Some(RolloutPhase::Checking))
    }

    pub(super) fn server_view(&mut self, view: FleetSnapshot, now_ms: u64) {
        if view.scope.is_none() && self.waits_for_baseline() {
            self.baseline = Some(view.clone());
            self.dirty.insert(Key::Baseline);
            let text = format!(
                "baseline: {} clients, {} services",
                view.clients.len(),
                view.services.len()
            );
            self.event(now_ms, "server", "baseline", text);
            self.find_unlisted();
        }
        self.complete_baseline(&view, now_ms);
        let verifying: Vec<(LegId, HostId)> = self
            .hosts
            .iter()
            .flat_map(|(leg, rows)| {
                rows.iter()
                    .filter(|(_, row)| row.phase == HostPhase::Verifying)
                    .map(move |(host, _)| (leg.clone(), host.clone()))
            })
            .filter(|(_, host)| self.node(host).is_some_and(|node| view.covers(node)))
            .collect();
        for (leg, host) in verifying {
            self.look_at(&leg, &host, &view, now_ms);
        }
        self.learn(view, now_ms);
        if self.checking()
            && self.all_was_seen(now_ms)
            && let Some(with) = self.comparison(self.last_change_ms())
        {
            self.verification = Some(compare(&with));
            self.dirty.insert(Key::Verification);
        }
    }

    /// The series that must flow for a host, with their newest sample so far: its node and each of its services that had samples in the
    /// baseline.
    pub(super) fn series(&self, host: &HostId) -> BTreeMap<String, u64> {
        let (Some(baseline), Some(node)) = (&self.baseline, self.node(host)) else {
            return BTreeMap::new();
        };
        let newest = self.last_view.as_ref().unwrap_or(baseline);
        let mut series = BTreeMap::new();
        if let Some(sample) = baseline.node_samples_ms.get(node) {
            series.insert(
                format!("node/{node}"),
                newest
                    .node_samples_ms
                    .get(node)
                    .copied()
                    .unwrap_or(0)
                    .max(*sample),
            );
        }
        for (id, _) in baseline
            .services
            .iter()
            .filter(|(_, service)| service.node_id == node)
        {
            if let Some(sample) = baseline.service_samples_ms.get(id) {
                series.insert(
                    format!("service/{id}"),
                    newest
                        .service_samples_ms
                        .get(id)
                        .copied()
                        .unwrap_or(0)
                        .max(*sample),
                );
            }
        }
        series
    }

    fn look_at(&mut self, leg: &LegId, host: &HostId, view: &FleetSnapshot, now_ms: u64) {
        let Some(row) = self.host(leg, host) else { return };
        let Some(switched) = row.switched_at_ms.filter(|switched| view.taken_at_ms > *switched) else {
            return;
        };
        // An answer that was overtaken by a later one.
        if row.views > 0 && (view.taken_at_ms..=now_ms).contains(&row.last_view_ms) {
            return;
        }
        let Some(to) = self.leg_target(leg) else { return };
        let agent_id = self.planned(host).map_or("", |planned| planned.agent_id.as_str());
        let until = if self.breaks(super::Mutant::SamplesOfTheSwitchProve) {
            0
        } else {
            switched
        };
        let mut missing = missing(row, view, agent_id, to, until);
        let shown = || row.marks.keys().all(|series| newest(view, series).is_some());
        let believed = self.breaks(super::Mutant::StaleSamplesProve) && shown();
        if self.breaks(super::Mutant::VerifiedUnseen) || believed {
            missing.retain(|what| !what.starts_with("no fresh sample"));
        }
        let further = row.good_views > 0 && !self.breaks(super::Mutant::OldSamplesCount);
        // Looks come more often than samples: one without news of each series is neither good nor bad.
        let same = (row.marks.iter())
            .find(|(series, mark)| further && newest(view, series).is_none_or(|now| now <= mark.counted_ms))
            .map(|(series, _)| series_name(view, series));
        let counts = missing.is_empty() && same.is_none();
        let marks: BTreeMap<String, Mark> = row
            .marks
            .iter()
            .map(|(series, mark)| {
                let now = newest(view, series);
                let mut mark = advanced(*mark, now);
                if counts {
                    mark.counted_ms = now.unwrap_or(mark.counted_ms);
                }
                (series.clone(), mark)
            })
            .collect();
        let (needed, _) = self.gate(leg, host);
        let good = if missing.is_empty() {
            row.good_views + u32::from(counts)
        } else {
            0
        };
        self.edit(leg, host, |row| {
            row.views += 1;
            row.last_view_ms = view.taken_at_ms;
            row.marks = marks;
            row.good_views = good;
            if counts {
                row.last_good_ms = view.taken_at_ms;
            }
            row.reason = match same {
                _ if good == 0 => missing.join("; "),
                Some(series) => {
                    format!("{good} of {needed} good views in a row; no newer sample of {series} yet")
                }
                None => format!("{good} of {needed} good views in a row"),
            };
        });
        if good >= needed {
            self.verified(leg, host, now_ms);
        }
    }

    /// Good views in a row that a host of a leg needs, and the time until its verdict.
    pub(super) fn gate(&self, leg: &LegId, host: &HostId) -> (u32, u64) {
        let group = self
            .planned(host)
            .and_then(|planned| self.plan.group(&planned.group));
        match group.and_then(|group| group.health.as_ref()) {
            Some(gate) => (gate.good_views.max(1), gate.patience_ms),
            None => (
                1,
                self.plan
                    .verify_for_ms(leg, host)
                    .unwrap_or(self.plan.timing.verify_ms),
            ),
        }
    }

    /// The patience with a host ended. Evidence against its client leads back; anything else is for a person.
    pub(super) fn verdict(&mut self, leg: &LegId, host: &HostId, now_ms: u64) {
        let Some(row) = self.host(leg, host) else { return };
        // Nothing was seen since the switch, or nothing lately: that says nothing about the host. Going back now would need the same PMM
        // Server that does not answer.
        let blind = self.is_unseen(row, now_ms);
        let flapping = row.last_good_ms > 0
            && self.is_in_sight(row.last_good_ms, now_ms)
            && self.rollout.abort.is_none();
        let asked = row.inconclusive && self.rollout.phase == RolloutPhase::Paused;
        let (reason, name) = (row.reason.clone(), self.name(host).to_owned());
        if !blind && !flapping && !asked {
            return self.go_back(leg, host, &format!("not verified in time: {reason}"), now_ms);
        }
        let (needed, patience) = self.gate(leg, host);
        let told = row.inconclusive;
        self.edit(leg, host, |row| {
            row.deadline_ms = Some(now_ms + patience);
            row.inconclusive = true;
        });
        if asked {
            return;
        }
        let (code, text) = if blind {
            (
                "server_view_missing",
                format!("the PMM Server can't be asked while {name} waits for its verification"),
            )
        } else {
            (
                "inconclusive",
                format!("{name} comes and goes, {needed} good views in a row are needed: {reason}"),
            )
        };
        let hint = if blind && self.open_hop().is_some() {
            format!("wait for the end of the server's hop, then `resume`; or `accept {name}`")
        } else if blind {
            format!(
                "make the PMM Server reachable for the coordinator, then `resume`; or `accept {name}`, or `rollback host {name}`"
            )
        } else {
            format!(
                "`accept {name}` lets it pass, `rollback host {name}` takes it back, `resume` looks again as long as before"
            )
        };
        let pauses = self.pause(code, &text, &hint, "coordinator", now_ms);
        // An abort can't be paused, and waits for a person all the same.
        if !pauses && !told && self.rollout.abort.is_some() {
            let text = format!("{text}: `accept {name}` lets it pass, `abort --force` takes it back");
            self.event(now_ms, format!("host:{host}"), "host_undecided", text);
        }
    }

    /// `resume`: whoever came to no verdict gets its time again.
    pub(super) fn look_again(&mut self, now_ms: u64) {
        for (leg, host) in self.inconclusive() {
            let (_, patience) = self.gate(&leg, &host);
            self.edit(&leg, &host, |row| {
                row.inconclusive = false;
                row.good_views = 0;
                row.last_good_ms = 0;
                row.deadline_ms = Some(now_ms + patience);
            });
        }
    }

    fn inconclusive(&self) -> Vec<(LegId, HostId)> {
        let rows = self
            .hosts
            .iter()
            .flat_map(|(leg, rows)| rows.iter().map(move |(host, row)| (leg, host, row)));
        rows.filter(|(_, _, row)| row.phase == HostPhase::Verifying && row.inconclusive)
            .map(|(leg, host, _)| (leg.clone(), host.clone()))
            .collect()
    }

    /// A person lets a host pass that came to no verdict.
    pub(super) fn accept_host(&mut self, by: &str, host: &HostId, reason: &str, now_ms: u64) -> Answer {
        let mut open = self.inconclusive();
        if self.breaks(super::Mutant::AcceptsAnybody) {
            let rows = self.hosts.iter();
            open.extend(rows.flat_map(|(leg, rows)| rows.keys().map(|host| (leg.clone(), host.clone()))));
        }
        let Some((leg, _)) = open.iter().find(|(_, found)| found == host) else {
            return refused(
                "no_verdict_open",
                format!("{} does not wait for a person's verdict", self.name(host)),
                "see `explain`; `accept` is for hosts whose verification came to no verdict",
            );
        };
        self.verified(leg, host, now_ms);
        let text = format!("{} was accepted by {by} {reason}", self.name(host))
            .trim_end()
            .to_owned();
        self.edit(leg, host, |row| row.reason = format!("{text}; {}", row.reason));
        self.event(now_ms, format!("host:{host}"), "host_accepted", text.clone());
        let paused_for_it = self
            .rollout
            .pause
            .as_ref()
            .is_some_and(|pause| matches!(pause.code.as_str(), "inconclusive" | "server_view_missing"));
        if open.len() == 1 && paused_for_it && !self.checking() {
            self.dealt_with("the host was accepted", now_ms);
        }
        accepted(text)
    }

    pub(crate) fn leg_target(&self, leg: &LegId) -> Option<PmmVersion> {
        match &self.plan.legs.iter().find(|found| found.id == *leg)?.kind {
            LegKind::Clients { to, .. } => Some(*to),
            LegKind::Survey | LegKind::Server { .. } => None,
        }
    }

    /// When the newest lasting change was made: samples and queries from before prove nothing.
    pub(crate) fn last_change_ms(&self) -> u64 {
        let hosts = self
            .hosts
            .values()
            .flat_map(|rows| rows.values())
            .filter_map(|row| row.switched_at_ms);
        let hops = self
            .legs
            .iter()
            .flat_map(|leg| &leg.hops)
            .filter_map(|hop| hop.ended_at_ms);
        hosts
            .chain(hops)
            .max()
            .or(self.rollout.started_at_ms)
            .unwrap_or(0)
    }

    /// Whether nothing more can be won by waiting: all data flow, and the clients that are not current are those that we know about.
    pub(super) fn checks_are_as_good_as_they_get(&self, now_ms: u64) -> bool {
        let Some(found) = &self.verification else {
            return false;
        };
        let expected = || self.expected_current();
        found.services_missing.is_empty()
            && found.metrics_stale.is_empty()
            && found.qan_stale.is_empty()
            && (found.clients_not_current.is_empty()
                || expected().is_disjoint(&found.clients_not_current.iter().map(String::as_str).collect()))
            && self.all_was_seen(now_ms)
    }

    /// Names of the hosts whose client should be on the target: those that made it, and those that no client leg has anything to do with.
    pub(super) fn expected_current(&self) -> BTreeSet<&str> {
        let made_it = |host: &HostId| {
            let last = self.legs.iter().rev().find_map(|leg| self.host(&leg.leg, host));
            last.is_none_or(HostRow::made_it)
        };
        let hosts = self.plan.hosts.iter().filter(|planned| made_it(&planned.host));
        hosts.map(|planned| planned.name.as_str()).collect()
    }

    /// The three checks as they stand: those that were looked at last, or else a comparison with the newest view.
    pub(crate) fn checks(&self) -> Verification {
        if let Some(found) = &self.verification {
            return found.clone();
        }
        // A look at some nodes alone says nothing of the others, and the baseline itself shows nothing of what came after it.
        let says = |with: &Comparison<'_>| {
            with.now.scope.is_none() && with.now.taken_at_ms > with.baseline.taken_at_ms
        };
        self.comparison(0)
            .filter(says)
            .map(|with| compare(&with))
            .unwrap_or_default()
    }

    /// Names of services whose host is not upgraded; for messages.
    pub(super) fn lost_hosts(&self) -> BTreeSet<String> {
        let lost = self
            .hosts
            .values()
            .flat_map(|rows| rows.iter())
            .filter(|(_, row)| row.phase == HostPhase::Lost);
        lost.map(|(host, _)| self.name(host).to_owned()).collect()
    }
}

fn newest(view: &FleetSnapshot, series: &str) -> Option<u64> {
    match series.split_once('/')? {
        ("node", id) => view.node_samples_ms.get(id).copied(),
        (_, id) => view.service_samples_ms.get(id).copied(),
    }
}

fn advanced(mark: Mark, newest: Option<u64>) -> Mark {
    let Some(newest) = newest else { return mark };
    let rises = if mark.last_ms > 0 && newest > mark.last_ms {
        mark.rises + 1
    } else {
        mark.rises
    };
    Mark {
        last_ms: mark.last_ms.max(newest),
        rises,
        ..mark
    }
}

/// What is missing until the host is verified; empty when nothing is.
fn missing(
    row: &HostRow,
    view: &FleetSnapshot,
    agent_id: &str,
    to: PmmVersion,
    switched: u64,
) -> Vec<String> {
    let mut missing = Vec::new();
    match view.clients.get(agent_id) {
        None => missing.push("PMM does not list its client".to_owned()),
        Some(client) => {
            let told = client.version.as_deref().unwrap_or_default();
            let running = row.running.as_deref().unwrap_or_default();
            if told.is_empty() && PmmVersion::from_package_version(running) != Ok(to) {
                missing.push(format!("the host says that it runs {running}, not {to}"));
            } else if !told.is_empty() && !runs(client, to) {
                missing.push(format!("PMM sees client {told}, not {to}"));
            }
            if row.marks.is_empty() && !client.connected {
                missing.push("PMM does not see the client connected".to_owned());
            }
        }
    }
    for (series, mark) in &row.marks {
        let now = newest(view, series);
        let rose = advanced(*mark, now).rises >= 2;
        if now.is_none_or(|now| !rose && now <= switched.max(mark.before_ms)) {
            missing.push(format!("no fresh sample of {}", series_name(view, series)));
        }
    }
    missing
}

/// A series as people know it: the name of the service, or the node's own metrics.
fn series_name(view: &FleetSnapshot, series: &str) -> String {
    match series.split_once('/') {
        Some(("service", id)) => view
            .services
            .get(id)
            .map_or_else(|| format!("service {id}"), |service| service.name.clone()),
        Some(("node", _)) => "the node itself".to_owned(),
        _ => series.to_owned(),
    }
}
