//! Looks at the PMM Server: when the fleet is asked for, which nodes in between, and what is known from all of them together.
//!
//! The fleet is asked for at most once in [`FLEET_EVERY_MS`], whatever happens: the moment is in the commit that lets the question out, so a
//! coordinator that comes back does not ask sooner. In between only the hosts under verification are asked for, and in the three checks
//! what is still missing there.

use super::rows::Key;
use super::state::{HostPhase, HostRow, LegPhase, RolloutPhase};
use super::{Kernel, Looks, Mutant, ViewRequest};
use crate::plan::LegKind;
use crate::verification::Comparison;
use fleet_common::ids::HostId;
use fleet_common::verification::FleetSnapshot;
use std::cell::LazyCell;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;

/// Shortest time between two questions for the whole fleet.
pub const FLEET_EVERY_MS: u64 = 60_000;
/// Shortest time between two looks at single nodes.
pub const NODES_EVERY_MS: u64 = 3_000;
/// Most nodes in one look; the others wait for their turn.
pub const NODES_AT_ONCE: usize = 50;
/// A view of a host that is older than so many looks says nothing about it any more.
const LOOKS_IN_SIGHT: u64 = 10;
/// The same in looks at the whole fleet, which come beside the others.
const FLEET_LOOKS_IN_SIGHT: u64 = 3;
/// An end that needs no checks waits at most this long for a look after the last change.
const LAST_LOOK_MS: u64 = 2 * FLEET_EVERY_MS;
/// Queries in this time before the baseline make a service active.
const QAN_WINDOW_MS: u64 = 3_600_000;

/// A look as far as a node is concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Sight {
    at_ms: u64,
    /// Start of its window for queries; 0 when it did not ask for them.
    qan_from_ms: u64,
}

impl Sight {
    /// Whether it is newer than a moment. What lies in the future was seen before the clock was set back.
    fn is_after(&self, at_ms: u64, now_ms: u64) -> bool {
        self.at_ms > at_ms && self.at_ms <= now_ms
    }
}

/// What a look must be to count in the three checks.
struct Evidence {
    taken_ms: RangeInclusive<u64>,
    /// Its window for queries begins here or later.
    qan_from_ms: u64,
}

impl Evidence {
    fn is_in(&self, sight: Option<Sight>) -> bool {
        sight.is_some_and(|sight| {
            self.taken_ms.contains(&sight.at_ms) && sight.qan_from_ms >= self.qan_from_ms
        })
    }
}

/// The last look at each node. Not stored: after a start nothing was seen yet.
#[derive(Clone, Debug, Default)]
pub(super) struct Sights {
    fleet: Option<Sight>,
    /// Nodes that were looked at since.
    nodes: BTreeMap<String, Sight>,
}

impl Sights {
    fn of(&self, node: &str) -> Option<Sight> {
        self.nodes.get(node).copied().or(self.fleet)
    }
}

impl Kernel {
    /// What to ask PMM for from now on. A wish for the fleet counts as asked: it is stored with this output.
    pub(super) fn looks(&mut self, now_ms: u64) -> Looks {
        if self.is_final() || self.rollout.phase == RolloutPhase::Planned || self.is_doubted() {
            return Looks::default();
        }
        let lacking = if self.checking() {
            self.lacking(now_ms)
        } else {
            BTreeSet::new()
        };
        let nodes = self.nodes_in_turn(&lacking, now_ms);
        let fleet = (!lacking.is_empty() || self.needs_the_fleet()) && self.fleet_is_due(now_ms);
        let since = |otherwise: u64| {
            if self.checking() {
                self.last_change_ms()
            } else {
                otherwise
            }
        };
        Looks {
            fleet: fleet.then(|| ViewRequest {
                nodes: None,
                qan_from_ms: since(now_ms.saturating_sub(QAN_WINDOW_MS)),
            }),
            // Whether queries arrive is a matter of the checks alone.
            nodes: (!nodes.is_empty()).then(|| ViewRequest {
                nodes: Some(nodes),
                qan_from_ms: since(0),
            }),
        }
    }

    fn needs_the_fleet(&self) -> bool {
        let clients =
            self.legs.iter().zip(&self.plan.legs).any(|(row, leg)| {
                row.phase == LegPhase::Running && matches!(leg.kind, LegKind::Clients { .. })
            });
        clients || self.waits_for_baseline() || self.anything_in_flight()
    }

    /// Whether the next look at the fleet is the baseline.
    pub(super) fn waits_for_baseline(&self) -> bool {
        let survey = self.legs.first();
        self.baseline.is_none()
            && survey.is_some_and(|leg| leg.phase == LegPhase::Running)
            && self.survey_answered()
    }

    /// Whether the minute since the last question is over; if so, the next one begins.
    fn fleet_is_due(&mut self, now_ms: u64) -> bool {
        let asked = self.rollout.fleet_asked_ms;
        let due = asked.is_none_or(|asked| asked + FLEET_EVERY_MS <= now_ms);
        // After the clock was set back nobody knows how long ago that was.
        if due || asked > Some(now_ms) {
            self.rollout.fleet_asked_ms = Some(now_ms);
            if !self.breaks(Mutant::FleetLookForgotten) {
                self.dirty.insert(Key::Rollout);
            }
        }
        due
    }

    /// When the fleet may be asked for again.
    pub(super) fn next_fleet_look_ms(&self, now_ms: u64) -> u64 {
        let asked = self.rollout.fleet_asked_ms.unwrap_or(now_ms);
        (asked + FLEET_EVERY_MS).max(now_ms + 1_000)
    }

    /// The nodes of the next look: those that were not seen for longest.
    fn nodes_in_turn(&self, lacking: &BTreeSet<&str>, now_ms: u64) -> BTreeSet<String> {
        let mut wanted: BTreeSet<&str> = self.verifying_nodes().collect();
        if self.breaks(Mutant::LooksAtEverybody) {
            wanted.extend(self.plan.hosts.iter().map(|host| host.node_id.as_str()));
        }
        // One look at the fleet is cheaper than many at its parts.
        let seen_whole = || self.evidence(now_ms).is_in(self.sights.fleet);
        if lacking.len() <= NODES_AT_ONCE || seen_whole() {
            wanted.extend(lacking);
        }
        let seen = |node: &str| self.sights.of(node).filter(|sight| sight.at_ms <= now_ms);
        let mut turns: Vec<(u64, &str)> = wanted
            .into_iter()
            .map(|node| (seen(node).map_or(0, |sight| sight.at_ms), node))
            .collect();
        turns.sort_unstable();
        turns.truncate(NODES_AT_ONCE);
        turns.into_iter().map(|(_, node)| node.to_owned()).collect()
    }

    fn verifying(&self) -> impl Iterator<Item = &HostId> {
        let rows = self.client_rows().flat_map(|(_, rows)| rows);
        rows.filter(|(_, row)| row.phase == HostPhase::Verifying)
            .map(|(host, _)| host)
    }

    fn verifying_nodes(&self) -> impl Iterator<Item = &str> {
        self.verifying().filter_map(|host| self.node(host))
    }

    /// The node that PMM had a host's client on.
    pub(super) fn node(&self, host: &HostId) -> Option<&str> {
        let planned = self.planned(host)?;
        let client = self.baseline.as_ref()?.clients.get(&planned.agent_id);
        Some(client.map_or(planned.node_id.as_str(), |client| client.node_id.as_str()))
    }

    /// How long a view of a verifying host says something about it. Where hosts wait for their turn that is longer.
    fn sight_ms(&self) -> u64 {
        let turns = self.verifying().count().div_ceil(NODES_AT_ONCE).max(1) as u64;
        (LOOKS_IN_SIGHT * NODES_EVERY_MS * turns).min(FLEET_LOOKS_IN_SIGHT * FLEET_EVERY_MS)
    }

    /// Whether a moment is recent enough to say something about a verifying host.
    pub(super) fn is_in_sight(&self, at_ms: u64, now_ms: u64) -> bool {
        at_ms + self.sight_ms() >= now_ms
    }

    /// Whether nothing was seen of a verifying host since its switch, or nothing lately.
    pub(crate) fn is_unseen(&self, row: &HostRow, now_ms: u64) -> bool {
        row.views == 0 || !self.is_in_sight(row.last_view_ms, now_ms)
    }

    /// Whether the end of an abort or of the way back waits for one more look at the fleet, so that the report shows how things are after
    /// the last change and not how they were before it. Where PMM can't be asked it ends without.
    pub(super) fn waits_for_last_look(&self, now_ms: u64) -> bool {
        let legs = self.legs.iter().filter(|leg| self.leg_target(&leg.leg).is_some());
        let rows = legs.flat_map(|leg| self.hosts[&leg.leg].values());
        let changes = rows.filter_map(|row| match row.phase {
            HostPhase::RolledBack | HostPhase::Inconsistent => row.ended_at_ms,
            _ => row.switched_at_ms,
        });
        let changed = changes
            .max()
            .filter(|at| *at <= now_ms && self.baseline.is_some());
        changed.is_some_and(|at| !self.fleet_seen_since(at, now_ms) && at + LAST_LOOK_MS > now_ms)
    }

    /// What the last look showed beside the baseline becomes what is reported.
    pub(super) fn keep_last_look(&mut self) {
        let before = self.verification.take();
        let found = Some(self.checks()).filter(|found| found.clients_checked > 0);
        self.verification = found.or(before);
        self.dirty.insert(Key::Verification);
    }

    /// Whether there was a look at the whole fleet after a moment.
    pub(super) fn fleet_seen_since(&self, at_ms: u64, now_ms: u64) -> bool {
        self.sights
            .fleet
            .is_some_and(|sight| sight.is_after(at_ms, now_ms))
    }

    /// Lays a look over what is known. Answers may overtake each other: nothing takes the place of something newer.
    pub(super) fn learn(&mut self, view: FleetSnapshot, now_ms: u64) {
        let sight = Sight {
            at_ms: view.taken_at_ms,
            qan_from_ms: view.qan_from_ms,
        };
        let Some(nodes) = &view.scope else {
            let since = |known: &Sight| known.is_after(sight.at_ms, now_ms);
            if self.sights.fleet.as_ref().is_some_and(since) {
                return;
            }
            self.sights.nodes.retain(|_, known| since(known));
            self.sights.fleet = Some(sight);
            let newer: BTreeSet<String> = self.sights.nodes.keys().cloned().collect();
            if let Some(before) = self.last_view.replace(view)
                && !newer.is_empty()
                && let Some(now) = &mut self.last_view
            {
                now.take_over(before.of_nodes(&newer));
            }
            return;
        };
        let known = |node: &String| {
            let known = self.sights.of(node);
            known.is_some_and(|known| known.is_after(sight.at_ms, now_ms))
        };
        let news: BTreeSet<String> = nodes.iter().filter(|node| !known(node)).cloned().collect();
        let view = if news.len() == nodes.len() {
            view
        } else {
            view.of_nodes(&news)
        };
        self.sights
            .nodes
            .extend(news.into_iter().map(|node| (node, sight)));
        match &mut self.last_view {
            Some(known) => known.take_over(view),
            None => self.last_view = Some(view),
        }
    }

    /// Which looks tell how things are since the checks began and since the last change.
    fn evidence(&self, now_ms: u64) -> Evidence {
        let changed = self.last_change_ms();
        let begun = self.rollout.check_since_ms.unwrap_or(self.rollout.since_ms);
        // A moment in the future is one from before the clock was set back.
        let moments = [changed, begun].into_iter().filter(|at| *at <= now_ms);
        Evidence {
            taken_ms: moments.max().unwrap_or(0)..=now_ms,
            qan_from_ms: changed,
        }
    }

    /// Whether every node of the baseline was looked at since the last change.
    pub(super) fn all_was_seen(&self, now_ms: u64) -> bool {
        let Some(baseline) = &self.baseline else {
            return false;
        };
        let mut unseen = self.unseen(baseline, now_ms);
        unseen.next().is_none()
    }

    /// Nodes of the baseline that were not looked at since the last change.
    fn unseen<'a>(&'a self, baseline: &'a FleetSnapshot, now_ms: u64) -> impl Iterator<Item = &'a str> {
        let evidence = self.evidence(now_ms);
        // Each node is judged by its own look, or else by that at the fleet: where all of these count, nobody is searched.
        let mut later = self.sights.nodes.values();
        let all = evidence.is_in(self.sights.fleet) && later.all(|sight| evidence.is_in(Some(*sight)));
        let nodes = (!all).then(|| nodes_of(baseline)).into_iter().flatten();
        nodes.filter(move |node| !evidence.is_in(self.sights.of(node)))
    }

    /// The newest view beside the baseline, with samples from after a moment.
    pub(super) fn comparison(&self, since_ms: u64) -> Option<Comparison<'_>> {
        Some(Comparison {
            baseline: self.baseline.as_ref()?,
            now: self.last_view.as_ref()?,
            target: self.plan.clients_to,
            since_ms,
        })
    }

    /// Nodes that the three checks wait for: not looked at since the last change, or something was missing there that is expected.
    fn lacking(&self, now_ms: u64) -> BTreeSet<&str> {
        let Some(baseline) = &self.baseline else {
            return BTreeSet::new();
        };
        let Some(with) = self.comparison(self.last_change_ms()) else {
            return nodes_of(baseline).collect();
        };
        let expected = LazyCell::new(|| self.expected_current());
        let clients = with
            .clients()
            .filter(|(client, current)| !current && expected.contains(client.node_name.as_str()));
        let services = with.services().filter(|(_, now)| {
            let flows = |flow: Option<bool>| flow != Some(false);
            !(now.is_there && flows(now.metrics_flow) && flows(now.queries_flow))
        });
        let found = clients
            .map(|(client, _)| client.node_id.as_str())
            .chain(services.map(|(service, _)| service.node_id.as_str()));
        found.chain(self.unseen(baseline, now_ms)).collect()
    }
}

fn nodes_of(view: &FleetSnapshot) -> impl Iterator<Item = &str> {
    let clients = view.clients.values().map(|client| client.node_id.as_str());
    clients.chain(view.services.values().map(|service| service.node_id.as_str()))
}
