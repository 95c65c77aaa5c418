//! What a life goes through: states, and the moves between them that the kernel made, counted from what it says and stores.

use super::expected::{self, HopPhase};
use fleet_common::ids::LegId;
use rollout::kernel::{FleetEvent, HostPhase, Kernel, LegRow, Output};
use std::collections::BTreeMap;
use std::fmt::Write as _;

/// Counts by name.
pub type Counts = BTreeMap<String, u64>;

pub fn count(counts: &mut Counts, what: &str) {
    match counts.get_mut(what) {
        Some(number) => *number += 1,
        None => {
            counts.insert(what.to_owned(), 1);
        }
    }
}

#[derive(Debug, Default)]
pub struct Cover {
    /// Where groups and legs are, by the name under which the kernel speaks of them.
    at: BTreeMap<String, String>,
    hops: BTreeMap<(LegId, u32), HopPhase>,
    /// While a plan is adopted: where hosts were before the first move that the output tells.
    told: Option<BTreeMap<String, String>>,
    /// The name under which something is counted, written again and again.
    name: String,
}

impl Cover {
    pub fn look(&mut self, kernel: &Kernel, out: &Output, counts: &mut Counts) {
        self.told = out.plan.as_ref().map(|_| BTreeMap::new());
        for event in &out.events {
            self.hear(kernel, event, counts);
        }
        for row in out.rows.iter().filter(|row| row.key.starts_with("leg/")) {
            let leg = kernel.legs().iter().find(|leg| row.key[4..] == *leg.leg.as_str());
            leg.into_iter().for_each(|leg| self.look_at_hops(leg, counts));
        }
    }

    /// Where everything begins.
    pub fn begin(kernel: &Kernel, counts: &mut Counts) {
        count(counts, &format!("rollout {}", expected::word(&kernel.phase())));
        for leg in kernel.legs() {
            count(counts, &format!("leg {}", expected::word(&leg.phase)));
            for group in &kernel.plan().groups {
                let row = kernel.group(&leg.leg, &group.name);
                row.into_iter()
                    .for_each(|row| count(counts, &format!("group {}", expected::word(&row.phase))));
            }
        }
    }

    /// A host's row appears, or a child plan put another in its place without a word.
    pub fn row(&mut self, key: &str, old: Option<HostPhase>, new: HostPhase, counts: &mut Counts) {
        let Some(old) = old else {
            return self.moved("host", None, new.as_str(), counts);
        };
        let Some(told) = &self.told else { return };
        let became = told.get(key).cloned();
        self.moved(
            "host",
            Some(old.as_str()),
            became.as_deref().unwrap_or(new.as_str()),
            counts,
        );
    }

    /// From now on an older store counts.
    pub fn restored(&mut self, kernel: &Kernel) {
        self.at.clear();
        for leg in kernel.legs() {
            self.at
                .insert(format!("leg {}", leg.leg), expected::word(&leg.phase));
            for group in &kernel.plan().groups {
                if let Some(row) = kernel.group(&leg.leg, &group.name) {
                    let name = format!("group {} in {}", group.name, leg.leg);
                    self.at.insert(name, expected::word(&row.phase));
                }
            }
        }
        let hops = kernel
            .legs()
            .iter()
            .flat_map(|leg| leg.hops.iter().map(move |hop| (leg, hop)));
        self.hops = hops
            .map(|(leg, hop)| ((leg.leg.clone(), hop.number), expected::hop_phase(hop)))
            .collect();
    }

    fn hear(&mut self, kernel: &Kernel, event: &FleetEvent, counts: &mut Counts) {
        let Some((kind, word)) = event.code.split_once('_') else {
            return;
        };
        match kind {
            // `name in leg: before -> after: reason`
            "host" if expected::is_host_phase(word) => {
                let Some((before, after)) = change(&event.text) else {
                    return;
                };
                self.moved("host", Some(before), after, counts);
                if let (Some(told), Some((name, _))) = (&mut self.told, event.text.split_once(": ")) {
                    let leg = name.rsplit_once(" in ").map_or("", |(_, leg)| leg);
                    let key = format!("host/{leg}/{}", &event.subject["host:".len()..]);
                    told.entry(key).or_insert_with(|| before.to_owned());
                }
            }
            // `rollout: before -> after: reason`
            "rollout" => {
                let Some((before, after)) = change(&event.text) else {
                    return;
                };
                self.moved("rollout", Some(before), after, counts);
                if let (Some(pause), "paused") = (&kernel.rollout().pause, after) {
                    self.name.clear();
                    let _ = write!(self.name, "pause {}", pause.code);
                    count(counts, &self.name);
                }
            }
            // `leg name is state`, `group name in leg is state`
            "leg" | "group" => {
                let Some((name, _)) = event.text.rsplit_once(" is ") else {
                    return;
                };
                if !expected::is_phase_of(kind, word) {
                    return;
                }
                let before = self.at.insert(name.to_owned(), word.to_owned());
                let begin = if kind == "leg" { "waiting" } else { "pending" };
                self.moved(kind, Some(before.as_deref().unwrap_or(begin)), word, counts);
            }
            _ => {}
        }
    }

    fn look_at_hops(&mut self, leg: &LegRow, counts: &mut Counts) {
        for hop in &leg.hops {
            let now = expected::hop_phase(hop);
            let before = self.hops.insert((leg.leg.clone(), hop.number), now);
            if before != Some(now) {
                self.moved("hop", before.map(HopPhase::as_str), now.as_str(), counts);
            }
        }
    }

    fn moved(&mut self, kind: &str, before: Option<&str>, after: &str, counts: &mut Counts) {
        if before == Some(after) {
            return;
        }
        self.name.clear();
        if let Some(before) = before {
            let _ = write!(self.name, "{kind} {before} -> {after}");
            count(counts, &self.name);
            self.name.clear();
        }
        let _ = write!(self.name, "{kind} {after}");
        count(counts, &self.name);
    }
}

/// `anything: before -> after: anything`
fn change(text: &str) -> Option<(&str, &str)> {
    let (_, rest) = text.split_once(": ")?;
    let (before, rest) = rest.split_once(" -> ")?;
    Some((before, rest.split(':').next().unwrap_or(rest)))
}
