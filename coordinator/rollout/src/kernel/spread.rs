//! Hosts that don't go together: members of one cluster or replication set, and hosts of one site.
//!
//! What belongs together follows from the plan and is worked out once; how much of it is busy is counted once per pass.

use super::Kernel;
use super::state::{HostPhase, HostRow};
use crate::plan::{Plan, PlanGroup};
use fleet_common::ids::{GroupName, HostId};
use fleet_common::order::Action;
use std::collections::BTreeMap;

/// Sets and sites of a plan.
#[derive(Debug, Default)]
pub(super) struct Spread {
    sets: Vec<Circle>,
    sites: Vec<Circle>,
    /// By position in the plan's hosts: its sets and its site.
    hosts: Vec<(Vec<usize>, Option<usize>)>,
    /// By position in the plan's hosts: the position of its group.
    pub group_of: Vec<Option<usize>>,
}

/// A set or a site.
#[derive(Debug)]
struct Circle {
    name: String,
    /// Members that may be busy at once.
    most: u32,
}

/// How much of a set or site is busy.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Busy {
    now: u32,
    /// Of those, hosts that hold their slot until a person does something or they return.
    stuck: u32,
}

impl Busy {
    fn add(&mut self, other: Self) {
        self.now += other.now;
        self.stuck += other.stuck;
    }
}

/// What is busy, over all groups and client legs.
#[derive(Clone, Debug, Default)]
pub(crate) struct Census {
    sets: Vec<Busy>,
    sites: Vec<Busy>,
    /// Hosts that are asked or download.
    pub preparing: usize,
}

/// What keeps a host from beginning beside others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Crowd {
    /// `set` or `site`.
    pub code: &'static str,
    /// Its name.
    pub name: String,
    /// Members that may be busy at once.
    pub most: u32,
    /// Whether only a person can change it: enough of it ended and hold their slots, or are to be tried again and held or away.
    pub stuck: bool,
}

impl Crowd {
    pub fn text(&self) -> String {
        let state = if self.stuck {
            "ended without a working client"
        } else {
            "are under way"
        };
        match self.code {
            "set" => format!(
                "only {} of {} may be down at once, and that many {state}",
                self.most, self.name
            ),
            _ => format!(
                "only {} of site {} may be busy at once, and that many {state}",
                self.most, self.name
            ),
        }
    }
}

impl Spread {
    /// The strictest group of the members counts for a set and for a site.
    pub fn of(plan: &Plan) -> Self {
        let groups: BTreeMap<&GroupName, &PlanGroup> =
            plan.groups.iter().map(|group| (&group.name, group)).collect();
        let mut spread = Self::default();
        let (mut sets, mut sites) = (BTreeMap::new(), BTreeMap::new());
        let place: BTreeMap<&GroupName, usize> = plan
            .groups
            .iter()
            .enumerate()
            .map(|(at, group)| (&group.name, at))
            .collect();
        spread.group_of = plan
            .hosts
            .iter()
            .map(|host| place.get(&host.group).copied())
            .collect();
        for host in &plan.hosts {
            let group = groups.get(&host.group);
            let together = group.map_or(1, |group| group.together).max(1);
            let of_host = host
                .sets
                .iter()
                .map(|name| join(&mut spread.sets, &mut sets, name, together))
                .collect();
            let most = group
                .and_then(|group| group.per_site)
                .map_or(u32::MAX, |most| most.max(1));
            let site = host.site.as_ref();
            let site = site.map(|name| join(&mut spread.sites, &mut sites, name, most));
            spread.hosts.push((of_host, site));
        }
        spread
    }
}

fn join<'a>(
    circles: &mut Vec<Circle>,
    known: &mut BTreeMap<&'a str, usize>,
    name: &'a str,
    most: u32,
) -> usize {
    let at = *known.entry(name).or_insert_with(|| {
        circles.push(Circle {
            name: name.to_owned(),
            most,
        });
        circles.len() - 1
    });
    circles[at].most = circles[at].most.min(most);
    at
}

/// Whether it downloads, or will as soon as its preflight is done.
fn downloads(row: &HostRow) -> bool {
    let stage = row
        .order
        .as_ref()
        .is_some_and(|order| order.action == Action::Stage);
    row.phase == HostPhase::Preparing && (stage || !row.staged)
}

impl Kernel {
    pub(crate) fn census(&self, now_ms: u64) -> Census {
        let mut census = Census {
            sets: vec![Busy::default(); self.spread.sets.len()],
            sites: vec![Busy::default(); self.spread.sites.len()],
            preparing: 0,
        };
        let down = self.down();
        for host in &down {
            self.count(&mut census, host, true, self.is_stuck(host, now_ms));
        }
        for (host, row) in self.hosts.values().flatten() {
            census.preparing += usize::from(row.phase == HostPhase::Preparing);
            if downloads(row) && !down.contains(host) {
                self.count(&mut census, host, false, false);
            }
        }
        census
    }

    fn count(&self, census: &mut Census, host: &HostId, down: bool, stuck: bool) {
        let Some((sets, site)) = self.index.get(host).and_then(|at| self.spread.hosts.get(*at)) else {
            return;
        };
        let one = Busy {
            now: 1,
            stuck: u32::from(stuck),
        };
        for at in sets.iter().filter(|_| down) {
            census.sets[*at].add(one);
        }
        if let Some(at) = site {
            census.sites[*at].add(one);
        }
    }

    /// A host begins to switch, or to download.
    pub(super) fn count_in(&self, census: &mut Census, host: &HostId, down: bool) {
        self.count(census, host, down, false);
    }

    /// What keeps a host from switching beside others; a slot that it holds itself is not in its way.
    pub(super) fn crowd(&self, census: &Census, host: &HostId, row: &HostRow) -> Option<Crowd> {
        let (sets, site) = self.spread.hosts.get(*self.index.get(host)?)?;
        if sets.is_empty() && site.is_none() {
            return None;
        }
        let own = u32::from(self.is_down(host));
        let sets = sets
            .iter()
            .map(|at| ("set", &self.spread.sets[*at], census.sets[*at], own));
        let own_place = own | u32::from(downloads(row));
        let site = site
            .iter()
            .map(|at| ("site", &self.spread.sites[*at], census.sites[*at], own_place));
        sets.chain(site)
            .filter(|(_, circle, busy, own)| busy.now.saturating_sub(*own) >= circle.most)
            .filter(|(code, ..)| {
                let ignored = if *code == "set" {
                    super::Mutant::SetsTogether
                } else {
                    super::Mutant::SitesIgnored
                };
                !self.breaks(ignored)
            })
            .map(|(code, circle, busy, _)| Crowd {
                code,
                name: circle.name.clone(),
                most: circle.most,
                stuck: busy.stuck >= circle.most,
            })
            .max_by_key(|crowd| crowd.stuck)
    }

    /// Whether a host may begin to download beside others of its site.
    pub(super) fn site_is_full(&self, census: &Census, host: &HostId, row: &HostRow) -> bool {
        let place = self.index.get(host).and_then(|at| self.spread.hosts.get(*at));
        let Some(site) = place.and_then(|(_, site)| *site) else {
            return false;
        };
        let own = u32::from(self.is_down(host));
        !self.breaks(super::Mutant::SitesIgnored)
            && !row.staged
            && census.sites[site].now.saturating_sub(own) >= self.spread.sites[site].most
    }
}
