//! From the policy of a group to integers.

use super::forecast::in_turn;
use super::{HostAction, PlanGroup, PlanHost, Warning};
use crate::fleet::{Fleet, FleetError, Group, Limit};
use fleet_common::ids::GroupName;
use std::collections::BTreeMap;

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
        number_waves(members, &resolved);
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

/// The canaries are the first wave; each step of the ramp is one, then each time that the full width goes. A host for which its wave has
/// enough of its set or site already goes in the first one that has room.
fn number_waves(members: Vec<&mut PlanHost>, group: &PlanGroup) {
    let width = group.max_unavailable.max(1);
    let mut sizes: Vec<u32> = Vec::new();
    sizes.extend(Some(group.canaries).filter(|canaries| *canaries > 0));
    sizes.extend(group.ramp.iter().map(|step| (*step).clamp(1, width)));
    let mut waves = Waves {
        sizes,
        width,
        ..Waves::default()
    };
    for host in members {
        if host.action != HostAction::Upgrade {
            continue;
        }
        let set = |name: &String| (Bound::Set(name.clone()), group.together.max(1));
        let site = group.per_site.zip(host.site.clone());
        let bounds = host.sets.iter().map(set).chain(site.map(|(most, site)| {
            let site = Bound::Site(site);
            (site, most.max(1))
        }));
        host.wave = waves.place(&bounds.collect::<Vec<_>>());
    }
}

/// What members of a wave share.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Bound {
    Set(String),
    Site(String),
}

/// Hosts that were counted into each wave, and those of one set or site among them. The first waves of a count that have no room left are
/// skipped at once: a fleet of ten thousand hosts in one set is one walk.
#[derive(Default)]
struct Waves {
    /// Hosts of the first waves; the others take `width`.
    sizes: Vec<u32>,
    width: u32,
    all: Filled,
    shared: BTreeMap<Bound, Filled>,
}

#[derive(Default)]
struct Filled {
    counts: BTreeMap<usize, u32>,
    full: usize,
}

impl Filled {
    fn of(&self, wave: usize) -> u32 {
        self.counts.get(&wave).copied().unwrap_or(0)
    }

    fn add(&mut self, wave: usize, most: impl Fn(usize) -> u32) {
        *self.counts.entry(wave).or_default() += 1;
        while self.of(self.full) >= most(self.full) {
            self.full += 1;
        }
    }
}

impl Waves {
    /// Number of the first wave with room, from 1.
    fn place(&mut self, bounds: &[(Bound, u32)]) -> u32 {
        let Self {
            sizes,
            width,
            all,
            shared,
        } = self;
        let size = |wave: usize| sizes.get(wave).copied().unwrap_or(*width);
        let full = bounds.iter().filter_map(|(bound, _)| shared.get(bound));
        let mut wave = full.map(|filled| filled.full).fold(all.full, usize::max);
        while all.of(wave) >= size(wave)
            || bounds
                .iter()
                .any(|(bound, most)| shared.get(bound).is_some_and(|filled| filled.of(wave) >= *most))
        {
            wave += 1;
        }
        all.add(wave, size);
        for (bound, most) in bounds {
            shared.entry(bound.clone()).or_default().add(wave, |_| *most);
        }
        u32::try_from(wave + 1).unwrap_or(u32::MAX)
    }
}

/// Whether the whole group may be down at once.
pub(super) fn all_at_once(group: &PlanGroup, hosts: &[&PlanHost]) -> bool {
    let width = usize::try_from(group.max_unavailable).unwrap_or(usize::MAX);
    hosts.len() > 1 && width >= hosts.len() && in_turn(group, hosts) <= 1
}

/// Whether a group asks for more canaries than it has hosts.
pub(super) fn too_many_canaries(group: &Group, hosts: usize) -> bool {
    matches!(group.policy.canaries, Limit::Count(count) if count > 1 && usize::try_from(count).is_ok_and(|count| count > hosts))
}
