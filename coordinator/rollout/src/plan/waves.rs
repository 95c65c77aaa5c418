//! Numbers of the waves in which a plan's hosts are likely to go.

use super::groups::begins;
use super::{HostAction, PlanGroup, PlanHost, Running};
use fleet_common::ids::HostId;
use std::collections::BTreeMap;

/// The canaries are the first wave; each step of the ramp is one, then each time that the full width goes. A host for which its wave has
/// enough of its set or site already goes in the first one that has room. Hosts that began have the first places, and those of them that
/// stand in this plan the wave that they had.
pub(super) fn number_waves(
    members: Vec<&mut PlanHost>,
    before: &BTreeMap<HostId, u32>,
    running: Option<&Running>,
    group: &PlanGroup,
) {
    let width = group.max_unavailable.max(1);
    let mut sizes: Vec<u32> = Vec::new();
    sizes.extend(Some(group.canaries).filter(|canaries| *canaries > 0));
    sizes.extend(group.ramp.iter().map(|step| (*step).clamp(1, width)));
    let mut waves = Waves {
        sizes,
        width,
        ..Waves::default()
    };
    for _ in 0..group.rule.as_ref().map_or(0, |rule| rule.begun) {
        waves.place(&[]);
    }
    for host in members {
        if begins(host, running) {
            let set = |name: &String| (Bound::Set(name.clone()), group.together.max(1));
            let site = group.per_site.zip(host.site.clone());
            let bounds = host.sets.iter().map(set).chain(site.map(|(most, site)| {
                let site = Bound::Site(site);
                (site, most.max(1))
            }));
            host.wave = waves.place(&bounds.collect::<Vec<_>>());
        } else if host.action == HostAction::Upgrade {
            host.wave = before.get(&host.host).copied().unwrap_or(0);
        }
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
