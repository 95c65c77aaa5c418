//! A group as people see it, where its row does not say it yet: hosts that go back, and groups that end with the rollout.

use super::Kernel;
use super::state::{GroupPhase, HostPhase, HostRow};
use crate::plan::PlanGroup;
use fleet_common::ids::LegId;

impl Kernel {
    fn rows_of<'a>(&'a self, leg: &'a LegId, group: &'a PlanGroup) -> impl Iterator<Item = &'a HostRow> {
        group.hosts.iter().filter_map(|host| self.host(leg, host))
    }

    /// Hosts of a group that go back or are to, whoever wants it: its policy, or somebody who takes a host, the group or all clients back.
    pub(crate) fn going_back(&self, leg: &LegId, group: &PlanGroup) -> u32 {
        let back = |row: &&HostRow| row.waits_to_go_back() || row.phase == HostPhase::RollingBack;
        u32::try_from(self.rows_of(leg, group).filter(back).count()).unwrap_or(u32::MAX)
    }

    /// Whether nothing more happens to a group because the whole rollout goes back or is aborted.
    pub(super) fn ends_with_rollout(&self, leg: &LegId, group: &PlanGroup) -> bool {
        (self.rollout.abort.is_some() || self.rollout.going_back.is_some())
            && self.rows_of(leg, group).all(|row| row.phase.is_through())
    }

    /// The state of a group: that of its row, or what it comes to when the rollout ends.
    pub(crate) fn shown_phase(&self, leg: &LegId, group: &PlanGroup, phase: GroupPhase) -> GroupPhase {
        let all_back = self.rollout.going_back.is_some() && self.going_back(leg, group) > 0;
        if all_back {
            return GroupPhase::RolledBack;
        }
        if !self.ends_with_rollout(leg, group) {
            return phase;
        }
        let went = self.rows_of(leg, group).any(|row| row.taken_back);
        match phase {
            _ if went => GroupPhase::RolledBack,
            GroupPhase::Done | GroupPhase::RolledBack => phase,
            _ => GroupPhase::Cancelled,
        }
    }
}
