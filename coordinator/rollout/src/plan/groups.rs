//! From the policy of a group to integers.

use super::forecast::in_turn;
use super::waves::number_waves;
use super::{GroupRule, HostAction, PlanGroup, PlanHost, Running, Warning};
use crate::fleet::{Fleet, FleetError, Group, Limit};
use fleet_common::ids::{GroupName, HostId};
use std::collections::BTreeMap;

/// Resolves every group over its hosts, and numbers the waves of the hosts. Hosts that began in the rollout under way belong to the group that
/// they began in.
pub(super) fn resolve(
    fleet: &Fleet,
    hosts: &mut [PlanHost],
    running: Option<&Running>,
    warnings: &mut Vec<Warning>,
) -> Result<Vec<PlanGroup>, Vec<FleetError>> {
    let mut errors = Vec::new();
    let mut groups = Vec::new();
    let before = running.iter().flat_map(|running| &running.plan.hosts);
    let waves: BTreeMap<HostId, u32> = before.map(|host| (host.host.clone(), host.wave)).collect();
    for group in &fleet.groups {
        let name = GroupName::new(group.name.as_str());
        let members: Vec<&mut PlanHost> = hosts.iter_mut().filter(|host| host.group == name).collect();
        let begun = running.map_or(0, |running| {
            running.begun.values().filter(|group| **group == name).count()
        });
        let begun = u32::try_from(begun).unwrap_or(u32::MAX);
        let to_begin = members.iter().filter(|host| begins(host, running)).count();
        let size = begun.saturating_add(u32::try_from(to_begin).unwrap_or(u32::MAX));
        let policy = &group.policy;
        let width = policy.max_unavailable.max_unavailable(size).min(size.max(1));
        let runs = running.is_some_and(|running| running.plan.group(&name).is_some());
        let threshold = threshold(fleet, group, size, runs, warnings, &mut errors);
        let resolved = PlanGroup {
            hosts: members.iter().map(|host| host.host.clone()).collect(),
            canaries: policy.canaries.canaries(size),
            max_unavailable: width,
            failure_threshold: threshold,
            soak_ms: policy.soak_ms,
            approval: policy.approval,
            ramp: policy.ramp.widths(size, width),
            canary_soak_ms: policy.canary_soak_ms,
            on_breach: policy.on_breach,
            health: Some(policy.health.clone()),
            windows: policy.windows.clone(),
            blackouts: policy.blackouts.clone(),
            per_site: policy.per_site,
            together: policy.together,
            retry: policy.retry.clone(),
            offline: policy.offline,
            deadline_ms: policy.deadline_ms,
            rule: Some(GroupRule {
                hosts: size,
                begun,
                max_unavailable: policy.max_unavailable,
                failure_threshold: policy.failure_threshold,
            }),
            name,
        };
        number_waves(members, &waves, running, &resolved);
        groups.push(resolved);
    }
    if errors.is_empty() {
        Ok(groups)
    } else {
        Err(errors)
    }
}

/// Whether the plan lets it begin: it upgrades it, and no rollout under way has begun with it.
pub(super) fn begins(host: &PlanHost, running: Option<&Running>) -> bool {
    host.action == HostAction::Upgrade
        && running.is_none_or(|running| !running.begun.contains_key(&host.host))
}

/// A threshold of N tolerates N and is breached by N + 1, so it must be below the number of hosts. In a group that runs already, hosts may have
/// left since somebody wrote it.
fn threshold(
    fleet: &Fleet,
    group: &Group,
    size: u32,
    runs: bool,
    warnings: &mut Vec<Warning>,
    errors: &mut Vec<FleetError>,
) -> u32 {
    let wanted = group.policy.failure_threshold.failure_threshold(size);
    if size == 0 || wanted < size {
        return wanted;
    }
    let most = size - 1;
    let hosts = if size == 1 {
        "1 host".to_owned()
    } else {
        format!("{size} hosts")
    };
    if group.threshold_own && !runs {
        errors.push(fleet.error(
            group.threshold_line.or(Some(group.line)),
            format!(
                "failure_threshold = {wanted} can't be reached in group `{}`: it has {hosts} to upgrade",
                group.name
            ),
            format!("a threshold of N tolerates N failures; set at most {most}"),
        ));
    } else {
        let whose = if group.threshold_own { "" } else { "default " };
        warnings.push(Warning::new(
            "threshold_capped",
            format!("group:{}", group.name),
            format!(
                "the {whose}failure_threshold of {wanted} could never be reached with {hosts}; {most} is used"
            ),
        ));
    }
    most
}

/// Whether the whole group may be down at once.
/// `size` counts hosts that began before this plan, too.
pub(super) fn all_at_once(group: &PlanGroup, hosts: &[&PlanHost], size: u32) -> bool {
    size > 1 && group.max_unavailable >= size && in_turn(group, hosts) <= 1
}

/// Whether a group asks for more canaries than it has hosts.
pub(super) fn too_many_canaries(group: &Group, hosts: u32) -> bool {
    matches!(group.policy.canaries, Limit::Count(count) if count > 1 && count > hosts)
}
