//! What waits for a person while the rollout is not paused. All of it has one clock, so that nobody is called for each host of a hundred.

use super::Kernel;
use super::rows::Key;
use super::state::{HostPhase, LegPhase, RolloutPhase};
use super::waiting::{Duty, Owner, person};
use crate::names::some_of;
use fleet_common::ids::HostId;

impl Kernel {
    pub(super) fn remind_of_the_rest(&mut self, now_ms: u64, every_ms: u64) {
        let text = self.waits_unpaused(now_ms);
        let next = match (&text, self.rollout.remind_at_ms) {
            (None, None) => return,
            (None, Some(_)) => None,
            (Some(_), Some(at)) if at > now_ms => return,
            (Some(_), _) => Some(now_ms + every_ms),
        };
        let due = self.rollout.remind_at_ms.is_some();
        self.rollout.remind_at_ms = next;
        self.dirty.insert(Key::Rollout);
        if let Some(text) = text.filter(|_| due) {
            self.event(now_ms, "rollout", "reminder", text);
        }
    }

    /// When the next of them comes.
    pub(super) fn open_reminder(&self, now_ms: u64) -> u64 {
        let every = self.plan.timing.reminder_ms.max(1);
        let known = self.rollout.remind_at_ms.filter(|at| *at > now_ms);
        known.unwrap_or(now_ms + every)
    }

    fn waits_unpaused(&self, now_ms: u64) -> Option<String> {
        match self.rollout.phase {
            RolloutPhase::Planned => Some(format!(
                "nothing was started: it waits for {}",
                self.planned_text()
            )),
            RolloutPhase::Aborting => self
                .undecided_text()
                .map(|text| format!("the abort waits for {text}")),
            RolloutPhase::Running => {
                let all: Vec<String> = self
                    .never_opens(now_ms)
                    .into_iter()
                    .chain(self.held_text())
                    .collect();
                (!all.is_empty()).then(|| all.join("; "))
            }
            _ => None,
        }
    }

    /// What stands before the start.
    pub(super) fn planned_text(&self) -> String {
        self.plan.blockers.first().map_or_else(
            || "`start`".to_owned(),
            |blocker| {
                format!(
                    "a new plan that nothing blocks; this one is blocked by {}: {}",
                    blocker.check, blocker.message
                )
            },
        )
    }

    /// Hosts whose patience ended without a verdict.
    pub(crate) fn undecided(&self) -> Vec<&HostId> {
        let rows = self.hosts.values().flat_map(|rows| rows.iter());
        rows.filter(|(_, row)| row.phase == HostPhase::Verifying && row.inconclusive)
            .map(|(host, _)| host)
            .collect()
    }

    fn undecided_text(&self) -> Option<String> {
        let hosts = self.undecided();
        (!hosts.is_empty()).then(|| {
            format!(
                "a verdict on {}: make the PMM Server reachable for the coordinator, or `accept` it, or `abort --force`",
                self.some_of(hosts)
            )
        })
    }

    /// An abort that only a person's verdict ends.
    pub(super) fn undecided_duty(&self, now_ms: u64) -> Option<Duty> {
        let text = self
            .undecided_text()
            .filter(|_| self.rollout.phase == RolloutPhase::Aborting)?;
        Some(person("verdict", text, self.open_reminder(now_ms)))
    }

    /// A window that never opens again, where nothing else goes on.
    fn never_opens(&self, now_ms: u64) -> Option<String> {
        if self
            .plan
            .groups
            .iter()
            .all(|group| group.windows.is_empty() && group.blackouts.is_empty())
        {
            return None;
        }
        let leg = self.legs.iter().find(|leg| leg.phase == LegPhase::Running)?;
        let shut = self.only_a_gate(&leg.leg, now_ms)?;
        (shut.code == "window" && shut.owner == Owner::Operator).then_some(shut.text)
    }

    /// Hosts of the legs under way that a person holds.
    fn held_text(&self) -> Option<String> {
        let waits = |host: &&HostId| {
            let mut legs = self
                .legs
                .iter()
                .filter(|leg| leg.phase == LegPhase::Running && leg.hops.is_empty());
            self.held(host).is_some()
                && legs.any(|leg| {
                    self.host(&leg.leg, host)
                        .is_some_and(|row| row.phase.before_permit())
                })
        };
        let held: Vec<&HostId> = self.holds.keys().filter(waits).collect();
        let (is, its) = if held.len() == 1 {
            ("is", "its")
        } else {
            ("are", "their")
        };
        (!held.is_empty()).then(|| {
            format!(
                "{} {is} held and left out when the other hosts of {its} leg have ended; `host unhold` lets them begin",
                self.some_of(held.iter().copied())
            )
        })
    }

    pub(super) fn some_of<'a>(&'a self, hosts: impl IntoIterator<Item = &'a HostId>) -> String {
        some_of(hosts.into_iter().map(|host| self.name(host)))
    }
}
