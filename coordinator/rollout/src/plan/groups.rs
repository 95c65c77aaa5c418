//! From the policy of a group to integers.

use super::{HostAction, PlanGroup, PlanHost, Warning};
use crate::fleet::{Fleet, FleetError, Group, Limit};
use fleet_common::ids::GroupName;

/// Resolves every group over its hosts, and numbers the waves of the hosts.
pub(super) fn resolve(
    fleet: &Fleet,
    hosts: &mut [PlanHost],
    warnings: &mut Vec<Warning>,
) -> Result<Vec<PlanGroup>, Vec<FleetError>> {
    let mut errors = Vec::new();
    let mut groups = Vec::new();
    for group in &fleet.groups {
        let name = GroupName::new(group.name.as_str());
        let members: Vec<&mut PlanHost> = hosts.iter_mut().filter(|host| host.group == name).collect();
        let size = members
            .iter()
            .filter(|host| host.action == HostAction::Upgrade)
            .count();
        let size = u32::try_from(size).unwrap_or(u32::MAX);
        let policy = &group.policy;
        let width = policy.max_unavailable.max_unavailable(size).min(size.max(1));
        let threshold = threshold(fleet, group, size, warnings, &mut errors);
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
            name,
        };
        number_waves(
            members,
            resolved.canaries,
            &resolved.ramp,
            resolved.max_unavailable,
        );
        groups.push(resolved);
    }
    if errors.is_empty() {
        Ok(groups)
    } else {
        Err(errors)
    }
}

/// A threshold of N tolerates N and is breached by N + 1, so it must be below the number of hosts.
fn threshold(
    fleet: &Fleet,
    group: &Group,
    size: u32,
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
    if group.threshold_own {
        errors.push(fleet.error(
            group.threshold_line.or(Some(group.line)),
            format!(
                "failure_threshold = {wanted} can't be reached in group `{}`: it has {hosts} to upgrade",
                group.name
            ),
            format!("a threshold of N tolerates N failures; set at most {most}"),
        ));
    } else {
        warnings.push(Warning::new(
            "threshold_capped",
            format!("group:{}", group.name),
            format!("the default failure_threshold of {wanted} could never be reached with {hosts}; {most} is used"),
        ));
    }
    most
}

/// The canaries are the first wave; each step of the ramp is one, then each time that the full width goes.
fn number_waves(members: Vec<&mut PlanHost>, canaries: u32, ramp: &[u32], width: u32) {
    let mut widths = Vec::new();
    widths.extend(Some(canaries).filter(|canaries| *canaries > 0));
    widths.extend(ramp.iter().map(|step| (*step).clamp(1, width.max(1))));
    let mut widths = widths.into_iter();
    let (mut wave, mut left) = (0, 0);
    for host in members {
        if host.action != HostAction::Upgrade {
            continue;
        }
        if left == 0 {
            wave += 1;
            left = widths.next().unwrap_or(width).max(1);
        }
        host.wave = wave;
        left -= 1;
    }
}

/// Whether the whole group may be down at once.
pub(super) fn all_at_once(group: &PlanGroup, hosts: usize) -> bool {
    hosts > 1 && usize::try_from(group.max_unavailable).is_ok_and(|width| width >= hosts)
}

/// Whether a group asks for more canaries than it has hosts.
pub(super) fn too_many_canaries(group: &Group, hosts: usize) -> bool {
    matches!(group.policy.canaries, Limit::Count(count) if count > 1 && usize::try_from(count).is_ok_and(|count| count > hosts))
}
