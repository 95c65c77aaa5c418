//! What lets the hosts of a group begin, or keeps them: its windows, the wait after its canaries, its width.

use super::Kernel;
use super::groups::Tally;
use super::ramp;
use super::state::{GroupPhase, GroupRow};
use crate::fleet::duration_text;
use crate::plan::PlanGroup;
use crate::windows::{Opening, opening};
use fleet_common::ids::LegId;

/// A permit that must be used within less than this only expires: nothing begins so close to the end of an opening.
pub(super) const SHORTEST_PERMIT_MS: u64 = 5_000;

/// What the windows of a group say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Door {
    /// Hosts may begin within this time.
    Open { within_ms: u64 },
    /// None may, until the moment given if there is one.
    Shut { opens_ms: Option<u64>, why: String },
}

impl Door {
    pub fn is_open(&self) -> bool {
        matches!(self, Self::Open { .. })
    }

    /// For people, with the time until it opens.
    pub fn text(&self, now_ms: u64) -> Option<String> {
        let Self::Shut { opens_ms, why } = self else {
            return None;
        };
        Some(match opens_ms {
            Some(at) => format!("{why}; opens in {}", duration_text(at.saturating_sub(now_ms))),
            None => format!("{why}; it never opens again"),
        })
    }
}

impl Kernel {
    pub(crate) fn door(&self, group: &PlanGroup, now_ms: u64) -> Door {
        let permit_ms = self.plan.timing.permit_ms;
        if self.breaks(super::Mutant::WindowIgnored) {
            return Door::Open { within_ms: permit_ms };
        }
        let ignored = self.breaks(super::Mutant::BlackoutsIgnored);
        let blackouts: &[_] = if ignored { &[] } else { &group.blackouts };
        match opening(&group.windows, blackouts, now_ms) {
            Opening::Open { until_ms: None } => Door::Open { within_ms: permit_ms },
            Opening::Open {
                until_ms: Some(until),
            } if until >= now_ms.saturating_add(SHORTEST_PERMIT_MS) => Door::Open {
                within_ms: permit_ms.min(until - now_ms),
            },
            Opening::Open {
                until_ms: Some(until),
            } => match opening(&group.windows, blackouts, until) {
                Opening::Closed { opens_ms, why } => Door::Shut {
                    opens_ms,
                    why: why.to_string(),
                },
                Opening::Open { .. } => Door::Shut {
                    opens_ms: Some(until),
                    why: "its window is about to change".to_owned(),
                },
            },
            Opening::Closed { opens_ms, why } => Door::Shut {
                opens_ms,
                why: why.to_string(),
            },
        }
    }

    /// Most slots of a group that may be taken now: its canaries go at its full width, then the ramp counts.
    pub(crate) fn width(&self, leg: &LegId, group: &PlanGroup, tally: &Tally) -> u32 {
        let full = self.max_unavailable(leg, group);
        let canary = self
            .group(leg, &group.name)
            .is_some_and(|row| row.phase == GroupPhase::Canary);
        if canary || tally.upgraded < group.canaries || self.breaks(super::Mutant::RampIgnored) {
            return full;
        }
        ramp::width(&group.ramp, tally.upgraded.saturating_sub(group.canaries), full)
    }

    /// Whether only canaries may begin: one is missing, or the wait after the last is not over. What was verified says so, and not the
    /// group's state, so that whoever comes back or is tried again later has canaries, too.
    pub(crate) fn canaries_go(row: &GroupRow, group: &PlanGroup, tally: &Tally, now_ms: u64) -> bool {
        let soaked = row.canary_soak_until_ms.is_some_and(|until| until <= now_ms);
        group.canaries > 0 && (tally.upgraded < group.canaries || !soaked)
    }

    /// The end of the wait after the last canary, if it is not over.
    pub(crate) fn canary_soak(row: &GroupRow, now_ms: u64) -> Option<u64> {
        row.canary_soak_until_ms.filter(|until| *until > now_ms)
    }

    /// The end of that wait where the whole group waits for it.
    pub(super) fn soaks_after_canaries(row: &GroupRow, now_ms: u64) -> Option<u64> {
        Self::canary_soak(row, now_ms).filter(|_| row.phase == GroupPhase::Canary)
    }

    /// A group that had ended or stood still goes on, with canaries as long as one is missing.
    pub(super) fn reopen(&mut self, leg: &LegId, group: &PlanGroup, now_ms: u64) {
        let tally = self.tally(leg, group, now_ms);
        let Some(row) = self.group(leg, &group.name) else {
            return;
        };
        let phase = if Self::canaries_go(row, group, &tally, now_ms) {
            GroupPhase::Canary
        } else {
            GroupPhase::Ramping
        };
        let until = row
            .first_permit_ms
            .and(group.deadline_ms)
            .map(|time| now_ms.saturating_add(time));
        if row.phase != GroupPhase::Breached {
            self.edit_group(leg, &group.name, |row| {
                row.soak_until_ms = None;
                row.offline_until_ms = None;
                row.deadline_ms = until;
            });
        }
        self.set_group(leg, &group.name, phase, now_ms);
    }

    /// Notes the first permit; the group's deadline counts from it.
    pub(super) fn began(&mut self, leg: &LegId, group: &PlanGroup, now_ms: u64) {
        if self
            .group(leg, &group.name)
            .is_some_and(|row| row.first_permit_ms.is_none())
        {
            self.edit_group(leg, &group.name, |row| {
                row.first_permit_ms = Some(now_ms);
                row.deadline_ms = group.deadline_ms.map(|length| now_ms.saturating_add(length));
            });
        }
    }

    /// A group that is not done at its deadline waits for a person.
    pub(super) fn look_at_deadline(&mut self, leg: &LegId, group: &PlanGroup, now_ms: u64) {
        let late = self.group(leg, &group.name).is_some_and(|row| {
            !matches!(
                row.phase,
                GroupPhase::Gated | GroupPhase::Done | GroupPhase::Cancelled
            ) && row.deadline_ms.is_some_and(|deadline| deadline <= now_ms)
        });
        if late {
            let length = duration_text(group.deadline_ms.unwrap_or(0));
            let text = format!("group {} is not done {length} after it began", group.name);
            self.pause(
                "group_deadline",
                &text,
                "see `explain`; `resume` gives it the same time again, or `abort`",
                "coordinator",
                now_ms,
            );
        }
    }

    /// Whoever lets the rollout go on gives late groups their time again.
    pub(super) fn extend_deadlines(&mut self, now_ms: u64) {
        let plan = std::sync::Arc::clone(&self.plan);
        for leg in &plan.legs {
            for group in &plan.groups {
                let late = self.group(&leg.id, &group.name).is_some_and(|row| {
                    row.phase != GroupPhase::Done
                        && row.deadline_ms.is_some_and(|deadline| deadline <= now_ms)
                });
                if let Some(length) = group.deadline_ms.filter(|_| late) {
                    self.edit_group(&leg.id, &group.name, |row| {
                        row.deadline_ms = Some(now_ms.saturating_add(length));
                    });
                }
            }
        }
    }
}
