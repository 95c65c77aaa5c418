//! `watch` in a pipe: a line for each event, and for what changed and is no event.

use crate::cli::status::{bar, counts, left, stamp, state, waiting_plan};
use crate::cli::text::words;
use crate::clock;
use crate::operator_api::documents::{EventsDocument, LiveStatus};
use rollout::progress::{GroupView, StatusDocument};
use std::collections::{BTreeMap, BTreeSet};

/// Events from before that a new viewer is shown.
const HISTORY: usize = 20;

/// Reasons that are the ordinary course of a group, or that have an event of their own.
const ORDINARY: [&str; 8] = [
    "start",
    "paused",
    "decision",
    "slots",
    "ramp",
    "canary",
    "earlier_group",
    "earlier_leg",
];

/// What a viewer was told already.
#[derive(Default)]
pub struct Lines {
    /// Last event that was shown.
    seen: u64,
    /// Whether a frame was shown.
    begun: bool,
    steps: BTreeMap<String, String>,
    groups: BTreeMap<String, String>,
    legs: String,
    /// What hosts wait for.
    waits: BTreeSet<String>,
    waiting_plan: String,
    /// Day of the last line; the lines themselves have the time only.
    day: String,
}

impl Lines {
    /// Number of the last event that was shown.
    pub fn seen(&self) -> u64 {
        self.seen
    }

    /// New events.
    pub fn events(&mut self, document: &EventsDocument) -> Vec<String> {
        let skip = if self.begun {
            0
        } else {
            document.events.len().saturating_sub(HISTORY)
        };
        if let Some(last) = document.events.last() {
            self.seen = last.sequence;
        }
        let mut lines = Vec::new();
        for numbered in document.events.iter().skip(skip) {
            let at_ms = numbered.event.at_ms;
            lines.extend(self.new_day(at_ms));
            lines.push(format!("{}  {}", stamp(at_ms), numbered.event.text));
        }
        lines
    }

    /// The line above the first one of a day.
    fn new_day(&mut self, at_ms: u64) -> Option<String> {
        let day = clock::day(at_ms);
        (day != self.day).then(|| {
            self.day.clone_from(&day);
            format!("{day} UTC")
        })
    }

    /// Steps of hosts and bars of groups are no events; they get their lines here.
    pub fn changes(&mut self, live: &LiveStatus) -> Vec<String> {
        let document = &live.status;
        let at = stamp(document.now_ms);
        let mut lines = Vec::new();
        self.hosts(document, &at, &mut lines);
        for group in &document.groups {
            self.group(group, &at, &mut lines);
        }
        self.waits(document, &at, &mut lines);
        let legs = document
            .legs
            .iter()
            .map(|leg| format!("{} {}", leg.leg, words(&leg.state)))
            .collect::<Vec<_>>()
            .join(" > ");
        if legs != self.legs {
            let left = document
                .estimate
                .as_ref()
                .map(|estimate| format!("  {}", left(estimate)));
            lines.push(format!("{at}  legs: {legs}{}", left.unwrap_or_default()));
            self.legs = legs;
        }
        let waiting = waiting_plan(live).unwrap_or_default();
        if waiting != self.waiting_plan && !waiting.is_empty() {
            lines.push(format!("{at}  {waiting}"));
        }
        self.waiting_plan = waiting;
        self.begun = true;
        if !lines.is_empty()
            && let Some(day) = self.new_day(document.now_ms)
        {
            lines.insert(0, day);
        }
        lines
    }

    /// What keeps hosts, said where it is new and not each time that a number in it changes.
    fn waits(&mut self, document: &StatusDocument, at: &str, lines: &mut Vec<String>) {
        let mut waits = BTreeSet::new();
        for wait in document
            .waits
            .iter()
            .filter(|wait| !ORDINARY.contains(&wait.code.as_str()))
        {
            let what = format!("{}: {}", wait.code, without_numbers(&wait.text));
            if !self.waits.contains(&what) {
                let s = if wait.count == 1 { " waits" } else { "s wait" };
                lines.push(format!(
                    "{at}  {} host{s}: {}; turn of {}",
                    wait.count,
                    wait.text,
                    words(&wait.owner)
                ));
            }
            waits.insert(what);
        }
        self.waits = waits;
    }

    fn hosts(&mut self, document: &StatusDocument, at: &str, lines: &mut Vec<String>) {
        let mut steps = BTreeMap::new();
        for host in document.in_flight.iter().filter(|host| !host.step.is_empty()) {
            let of = if host.of > 0 {
                format!("{}/{} ", host.index, host.of)
            } else {
                String::new()
            };
            let text = format!("{}: {} step {of}{}", host.name, words(&host.state), host.step);
            let key = format!("{}/{}", host.leg, host.host);
            if self.steps.get(&key) != Some(&text) {
                lines.push(format!("{at}  {text}"));
            }
            steps.insert(key, text);
        }
        self.steps = steps;
    }

    fn group(&mut self, group: &GroupView, at: &str, lines: &mut Vec<String>) {
        let ended = group.total.saturating_sub(
            group.counts.waiting + group.counts.preparing + group.counts.ready + group.counts.in_flight,
        );
        let text = format!(
            "{} {}  {} {ended}/{}  {}",
            group.leg,
            group.name,
            bar(ended, group.total, 20),
            group.total,
            state(group)
        );
        let key = format!("{}/{}", group.leg, group.name);
        let changed = self.groups.get(&key) != Some(&text);
        if changed && (self.begun || ended > 0) {
            lines.push(format!("{at}  {text}  {}", counts(&group.counts)));
        }
        self.groups.insert(key, text);
    }
}

/// A text without counts and times, which change while it stays the same reason.
fn without_numbers(text: &str) -> String {
    let number = |word: &&str| {
        let word = word.trim_matches(|c: char| c.is_ascii_punctuation());
        let digits = word.trim_end_matches(['s', 'm', 'h', 'd']);
        !digits.is_empty() && digits.chars().all(|c| c.is_ascii_digit())
    };
    text.split_whitespace()
        .filter(|word| !number(word))
        .collect::<Vec<_>>()
        .join(" ")
}
