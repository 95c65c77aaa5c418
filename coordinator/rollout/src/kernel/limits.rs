//! Numbers of a running plan that a person reduces. Only a new plan widens.

use super::Kernel;
use super::commands::{Answer, accepted, refused};
use crate::plan::PlanGroup;
use fleet_common::ids::{GroupName, LegId};

impl Kernel {
    /// Most slots of a group.
    pub(crate) fn max_unavailable(&self, leg: &LegId, group: &PlanGroup) -> u32 {
        let limit = self
            .group(leg, &group.name)
            .and_then(|row| row.limits.max_unavailable);
        limit.map_or(group.max_unavailable, |limit| limit.min(group.max_unavailable))
    }

    /// Failures of a group that are tolerated.
    pub(crate) fn failure_threshold(&self, leg: &LegId, group: &PlanGroup) -> u32 {
        let limit = self
            .group(leg, &group.name)
            .and_then(|row| row.limits.failure_threshold);
        limit.map_or(group.failure_threshold, |limit| {
            limit.min(group.failure_threshold)
        })
    }

    pub(super) fn limit(
        &mut self,
        group: &str,
        max_unavailable: Option<u32>,
        failure_threshold: Option<u32>,
        reason: &str,
        now_ms: u64,
    ) -> Answer {
        let plan = std::sync::Arc::clone(&self.plan);
        let Some(group) = plan.group(&GroupName::new(group)) else {
            return refused(
                "unknown_group",
                format!("the plan has no group `{group}`"),
                "`plan show` lists them",
            );
        };
        if self.rollout.phase.is_final() {
            return refused("ended", "the rollout has ended", "see `report`");
        }
        if max_unavailable == Some(0) {
            return refused(
                "limit_zero",
                "with 0 slots no host could ever begin",
                "`pause` lets nothing begin, `host hold` keeps single hosts",
            );
        }
        let legs: Vec<LegId> = self
            .groups
            .iter()
            .filter(|(_, rows)| rows.contains_key(&group.name))
            .map(|(leg, _)| leg.clone())
            .collect();
        let lowest = |now: &dyn Fn(&LegId) -> u32| legs.iter().map(now).min().unwrap_or(0);
        let slots = lowest(&|leg| self.max_unavailable(leg, group));
        let failures = lowest(&|leg| self.failure_threshold(leg, group));
        let wanted = [
            ("max_unavailable", max_unavailable, slots),
            ("failure_threshold", failure_threshold, failures),
        ];
        if wanted.iter().all(|(_, to, _)| to.is_none()) {
            return refused(
                "nothing_to_limit",
                "neither number was given",
                "give --max-unavailable, --failure-threshold or both",
            );
        }
        if let Some((what, Some(to), now)) = wanted
            .iter()
            .find(|(_, to, now)| to.is_some_and(|to| to >= *now && !self.breaks(super::Mutant::LimitRaises)))
        {
            return refused(
                "not_lower",
                format!(
                    "{what} of group {} is {now} and can only be reduced, not set to {to}",
                    group.name
                ),
                "a new plan with this one as its parent may allow more",
            );
        }
        for leg in &legs {
            self.edit_group(leg, &group.name, |row| {
                row.limits.max_unavailable = max_unavailable.or(row.limits.max_unavailable);
                row.limits.failure_threshold = failure_threshold.or(row.limits.failure_threshold);
            });
        }
        let changes: Vec<String> = wanted
            .iter()
            .filter_map(|(what, to, now)| to.map(|to| format!("{what} {now} -> {to}")))
            .collect();
        let text = format!("group {}: {}: {reason}", group.name, changes.join(", "));
        let text = text.trim_end_matches([':', ' ']).to_owned();
        self.event(
            now_ms,
            format!("group:{}", group.name),
            "group_limited",
            text.clone(),
        );
        accepted(text)
    }
}
