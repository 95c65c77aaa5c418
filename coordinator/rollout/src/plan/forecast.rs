//! How long a plan may take, walked through its legs, groups, widths and windows twice: once with short times and once with long ones.
//!
//! All durations that this rests on stand in [`SHORT`] and [`LONG`]. They are estimates: a client's package is installed in well under a
//! minute on an idle host and takes some minutes where the package manager first waits for a mirror; PMM gets new samples of its
//! clients every few seconds to every minute, and hosts under verification are looked at every few seconds. A hop of the server is a stop,
//! an image that may have to be pulled, a change of ownership and a start; how long the copy of its data takes depends on its size
//! and disks, which are not known here.

use super::{Forecast, HostAction, LegKind, Plan, PlanGroup, PlanHost};
use crate::fleet::duration_text;
use crate::windows::{Opening, opening};
use fleet_common::ids::HostId;
use std::collections::BTreeMap;

const SECOND: u64 = 1_000;
const MINUTE: u64 = 60 * SECOND;

/// One set of durations, milliseconds.
pub(super) struct Pace {
    /// Check and download on all hosts; they do it side by side.
    survey_ms: u64,
    /// One hop of the server, without the copy of its data.
    hop_ms: u64,
    /// One host from its permit to the first good view of PMM.
    host_ms: u64,
    /// Each further good view: it needs a newer sample of every series, and these come by PMM's resolution.
    pub view_ms: u64,
}

pub(super) const SHORT: Pace = Pace {
    survey_ms: 30 * SECOND,
    hop_ms: 3 * MINUTE,
    host_ms: 40 * SECOND,
    view_ms: 6 * SECOND,
};
pub(super) const LONG: Pace = Pace {
    survey_ms: 10 * MINUTE,
    hop_ms: 20 * MINUTE,
    host_ms: 4 * MINUTE,
    view_ms: MINUTE,
};

/// How one group goes through one leg.
pub(super) struct Course {
    /// Unix milliseconds of its end, its soak included.
    pub end_ms: u64,
    /// Times that its slots are filled.
    pub rounds: u64,
    /// Openings of its windows that it needs; 1 without windows.
    pub openings: u64,
}

/// The forecast of a plan that starts now; `None` where a window never opens.
pub(super) fn forecast(plan: &Plan, now_ms: u64) -> Option<Forecast> {
    if plan.legs.len() < 2 {
        return None;
    }
    let mut basis = Vec::new();
    let high = walk(plan, now_ms, &LONG, &mut basis)?;
    let low = walk(plan, now_ms, &SHORT, &mut Vec::new())?;
    let hops = plan.legs.iter().map(|leg| match &leg.kind {
        LegKind::Server { hops, .. } => hops.len(),
        _ => 0,
    });
    let between = |short: u64, long: u64| format!("{} to {}", duration_text(short), duration_text(long));
    let mut all = vec![format!(
        "check and download: {}",
        between(SHORT.survey_ms, LONG.survey_ms)
    )];
    match hops.sum::<usize>() {
        0 => {}
        hops => all.push(format!(
            "server: {hops} hop{} of {}, the copy of its data not counted",
            if hops == 1 { "" } else { "s" },
            between(SHORT.hop_ms, LONG.hop_ms)
        )),
    }
    all.push(format!(
        "a host: {}, and {} for each further good view (built-in estimates)",
        between(SHORT.host_ms, LONG.host_ms),
        between(SHORT.view_ms, LONG.view_ms)
    ));
    all.extend(basis);
    all.push("not counted: approvals, pauses, retries, hosts that are away".to_owned());
    Some(Forecast {
        low_ms: low,
        high_ms: high,
        basis: all,
    })
}

fn walk(plan: &Plan, now_ms: u64, pace: &Pace, basis: &mut Vec<String>) -> Option<u64> {
    let mut at = now_ms;
    for leg in &plan.legs {
        match &leg.kind {
            LegKind::Survey => at = at.saturating_add(pace.survey_ms),
            LegKind::Server { hops, .. } => {
                let hops = u64::try_from(hops.len()).unwrap_or(u64::MAX);
                at = at.saturating_add(hops.saturating_mul(pace.hop_ms));
            }
            LegKind::Clients { entries, .. } => {
                for group in &plan.groups {
                    let Some(course) = course(plan, group, entries, at, pace) else {
                        continue;
                    };
                    let course = course?;
                    if course.rounds > 0 {
                        basis.push(line(leg.id.as_str(), group, &course));
                    }
                    at = course.end_ms;
                }
            }
        }
    }
    Some(at.saturating_sub(now_ms))
}

fn line(leg: &str, group: &PlanGroup, course: &Course) -> String {
    let plural = |count: u64, one: &str| format!("{count} {one}{}", if count == 1 { "" } else { "s" });
    let mut line = format!(
        "{leg}, group {}: {}, at most {} at once",
        group.name,
        plural(course.rounds, "round"),
        group.max_unavailable
    );
    if let Some(at_once) = group.per_site {
        line.push_str(&format!(", {at_once} per site"));
    }
    if group.canary_soak_ms > 0 {
        line.push_str(&format!(", canary soak {}", duration_text(group.canary_soak_ms)));
    }
    if group.soak_ms > 0 {
        line.push_str(&format!(", soak {}", duration_text(group.soak_ms)));
    }
    if !group.windows.is_empty() {
        line.push_str(&format!(", in {}", plural(course.openings, "opening")));
    }
    line
}

/// The group's way through a leg from a moment on. The outer `None`: it has nothing to do there. The inner one: it never may.
pub(super) fn course(
    plan: &Plan,
    group: &PlanGroup,
    entries: &BTreeMap<HostId, String>,
    at_ms: u64,
    pace: &Pace,
) -> Option<Option<Course>> {
    let hosts: Vec<&PlanHost> = plan
        .hosts
        .iter()
        .filter(|host| {
            host.group == group.name && host.action == HostAction::Upgrade && entries.contains_key(&host.host)
        })
        .collect();
    if hosts.is_empty() {
        return None;
    }
    let views = group.health.as_ref().map_or(1, |health| health.good_views);
    let round_ms = pace.host_ms + u64::from(views.saturating_sub(1)) * pace.view_ms;
    let (first, rest) = rounds(group, &hosts);
    let mut openings = 0;
    let walked = pass(group, at_ms, first, round_ms, &mut openings).and_then(|canaries| {
        let at = if first > 0 && rest > 0 {
            canaries.saturating_add(group.canary_soak_ms)
        } else {
            canaries
        };
        pass(group, at, rest, round_ms, &mut openings)
    });
    Some(walked.map(|end| Course {
        end_ms: end.saturating_add(group.soak_ms),
        rounds: first + rest,
        openings: openings.max(1),
    }))
}

/// Rounds of the canaries and of the others. Members of one set or site take turns, so a large one makes more rounds than the width does.
fn rounds(group: &PlanGroup, hosts: &[&PlanHost]) -> (u64, u64) {
    let width = group.max_unavailable.max(1);
    let all = u32::try_from(hosts.len()).unwrap_or(u32::MAX);
    let begun = group.rule.as_ref().map_or(0, |rule| rule.begun);
    let canaries = group.canaries.saturating_sub(begun).min(all);
    let first = canaries.div_ceil(width);
    let mut left = all - canaries;
    let mut rest = 0;
    // What began before went through the first steps.
    let mut through = begun.saturating_sub(group.canaries);
    for step in &group.ramp {
        if through >= *step {
            through -= step;
        } else if left > 0 {
            left = left.saturating_sub((*step).max(1));
            rest += 1;
        }
    }
    rest += left.div_ceil(width);
    let in_turn = in_turn(group, hosts);
    (
        u64::from(first),
        u64::from(rest.max(in_turn.saturating_sub(first))),
    )
}

/// Rounds that these hosts need at least because members of one set or site take turns.
pub(crate) fn in_turn(group: &PlanGroup, hosts: &[&PlanHost]) -> u32 {
    by_sets(group, hosts).max(by_sites(group, hosts))
}

/// Rounds that the largest site needs.
fn by_sites(group: &PlanGroup, hosts: &[&PlanHost]) -> u32 {
    let Some(at_once) = group.per_site else {
        return 0;
    };
    let mut members: BTreeMap<&str, u32> = BTreeMap::new();
    for site in hosts.iter().filter_map(|host| host.site.as_ref()) {
        *members.entry(site).or_insert(0) += 1;
    }
    let largest = members.values().max().copied().unwrap_or(0);
    largest.div_ceil(at_once.max(1))
}

/// Rounds that the largest set needs.
pub(super) fn by_sets(group: &PlanGroup, hosts: &[&PlanHost]) -> u32 {
    let mut members: BTreeMap<&str, u32> = BTreeMap::new();
    for set in hosts.iter().flat_map(|host| &host.sets) {
        *members.entry(set).or_insert(0) += 1;
    }
    let largest = members.values().max().copied().unwrap_or(0);
    largest.div_ceil(group.together.max(1))
}

/// So many rounds one after the other, each begun inside an opening. The end of the last one; `None` if that never comes.
pub(crate) fn pass(
    group: &PlanGroup,
    at_ms: u64,
    rounds: u64,
    round_ms: u64,
    openings: &mut u64,
) -> Option<u64> {
    let (mut at, mut left) = (at_ms, rounds);
    let mut inside = *openings > 0;
    while left > 0 {
        match opening(&group.windows, &group.blackouts, at) {
            Opening::Closed { opens_ms, .. } => {
                at = opens_ms?;
                inside = false;
            }
            Opening::Open { until_ms } => {
                if !inside {
                    *openings += 1;
                    inside = true;
                }
                let fit = until_ms.map_or(left, |until| until.saturating_sub(at).div_ceil(round_ms).max(1));
                let now = fit.min(left);
                at = at.saturating_add(now.saturating_mul(round_ms));
                left -= now;
            }
        }
    }
    Some(at)
}
