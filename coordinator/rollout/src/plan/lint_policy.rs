//! What is worth knowing about policies: limits that bind nothing, times that never come, sites that nobody told.

use super::forecast::{LONG, by_sets, course};
use super::{HostAction, LegKind, Plan, PlanGroup, PlanHost, Warning};
use crate::fleet::{Fleet, Ramp, duration_text, moment_text, window_text};
use crate::names::some_of;
use crate::policy::{Offline, OnBreach};
use crate::windows::{Opening, Shut, opening};

/// A group that has to wait longer than this for its first opening was hardly meant so.
const FAR_MS: u64 = 30 * 24 * 3_600_000;

/// `total` is the number of hosts that the rollout's own threshold is for.
pub(super) fn warnings(plan: &Plan, fleet: &Fleet, total: u32, now_ms: u64) -> Vec<Warning> {
    let mut found = Vec::new();
    rollout(plan, total, &mut found);
    found.extend(server_outside(plan));
    for group in &plan.groups {
        let hosts: Vec<&PlanHost> = plan
            .hosts
            .iter()
            .filter(|host| host.group == group.name && host.action == HostAction::Upgrade)
            .collect();
        if hosts.is_empty() {
            continue;
        }
        let mut warn = |code: &str, message: String| {
            found.push(Warning {
                line: fleet.group(group.name.as_str()).map(|group| group.line),
                hint: hint(code).to_owned(),
                ..Warning::new(code, format!("group:{}", group.name), message)
            });
        };
        limits(group, &hosts, fleet, &mut warn);
        health(group, &mut warn);
        times(plan, group, now_ms, &mut warn);
        way_back(plan, group, &hosts, &mut warn);
        if group.offline == Offline::Wait && group.deadline_ms.is_none() {
            warn(
                "offline_wait",
                format!(
                    "offline = \"wait\" without a deadline: a host that is away holds up all later groups for {}, then a person is asked",
                    duration_text(plan.timing.offline_for_ms)
                ),
            );
        }
    }
    found
}

/// What to do about a policy that can hardly be meant so.
fn hint(code: &str) -> &'static str {
    match code {
        "window_never" => {
            "change its windows or blackouts and plan again: as it is, the rollout waits for ever at this group"
        }
        "window_far" => "change its windows or blackouts and plan again, unless that is meant",
        "window_short" => {
            "a longer window, a larger max_unavailable or a group with fewer hosts ends it earlier"
        }
        "blackout_past" => "remove it from the fleet file",
        "canary_soak_window" => "a shorter canary_soak or a longer window lets the others follow at once",
        "deadline_short" => "a longer deadline, or a larger max_unavailable",
        "offline_wait" => "set `deadline`, or `offline = \"catch_up\"`",
        "on_breach_no_way_back" => {
            "expect that they stay as they are and a person is asked; `on_breach = \"pause\"` says just that"
        }
        "patience_short" => "a longer `health.patience` (or `timing.verify`), or fewer good views",
        "profile_over_defaults" => "write the limit that is meant into the group itself",
        "ramp_wide" => "leave the step out, or raise max_unavailable",
        "sets_slow" => {
            "nothing to do if its sets may lose only so many at once; else raise `together`, or expect the longer time"
        }
        "site_missing" => {
            "give these hosts the label in their agent's configuration, or they are not counted for any site"
        }
        _ => "",
    }
}

/// Windows and blackouts keep hosts; the server is worked on as soon as the survey is over, also where they stand in the defaults.
fn server_outside(plan: &Plan) -> Option<Warning> {
    let kept = |group: &PlanGroup| !group.windows.is_empty() || !group.blackouts.is_empty();
    let server = plan
        .legs
        .iter()
        .any(|leg| matches!(leg.kind, LegKind::Server { .. }));
    (server && plan.groups.iter().any(kept)).then(|| Warning {
        hint: "`start` it when PMM may be down, or `pause` it after the survey".to_owned(),
        ..Warning::new(
            "server_outside_windows",
            "server",
            "windows and blackouts keep hosts only; the server's hops begin as soon as the survey is settled",
        )
    })
}

fn rollout(plan: &Plan, total: u32, found: &mut Vec<Warning>) {
    let Some(threshold) = plan.failure_threshold else {
        return;
    };
    let mut warn = |code: &str, message: String| {
        found.push(Warning::new(code, "rollout", message));
    };
    if total > 0 && threshold >= total {
        warn(
            "rollout_threshold_unreachable",
            format!(
                "the rollout's failure_threshold of {threshold} can never be reached with {total} host{}",
                if total == 1 { "" } else { "s" }
            ),
        );
    }
    let above: Vec<String> = plan
        .groups
        .iter()
        .filter(|group| group.failure_threshold > threshold)
        .map(|group| format!("{} ({})", group.name, group.failure_threshold))
        .collect();
    if !above.is_empty() {
        warn(
            "rollout_threshold_below",
            format!(
                "the rollout pauses after more than {threshold} failures, before the larger thresholds of {} are reached",
                above.join(", ")
            ),
        );
    }
}

fn limits(group: &PlanGroup, hosts: &[&PlanHost], fleet: &Fleet, warn: &mut impl FnMut(&str, String)) {
    if let Some(found) = fleet
        .group(group.name.as_str())
        .filter(|group| !group.replaced.is_empty())
    {
        warn(
            "profile_over_defaults",
            format!(
                "profile = \"{}\" of this group takes the place of what [defaults] says: {}",
                found.profile,
                found.replaced.join(", ")
            ),
        );
    }
    let (left, size) = (
        u32::try_from(hosts.len()).unwrap_or(u32::MAX),
        group.size(hosts.len()),
    );
    let policy = fleet.group(group.name.as_str()).map(|group| &group.policy);
    if let Some(Ramp::Steps(steps)) = policy.map(|policy| &policy.ramp) {
        let wide: Vec<String> = steps
            .iter()
            .filter(|step| step.max_unavailable(size) > group.max_unavailable)
            .map(ToString::to_string)
            .collect();
        if !wide.is_empty() {
            warn(
                "ramp_wide",
                format!(
                    "ramp: {} is wider than max_unavailable {} and is left out",
                    wide.join(", "),
                    group.max_unavailable
                ),
            );
        }
    }
    let (sets, width) = (by_sets(group, hosts), left.div_ceil(group.max_unavailable.max(1)));
    if sets > width {
        warn(
            "sets_slow",
            format!(
                "members of one cluster or replication set go {} at a time: at least {sets} rounds, where max_unavailable {} alone would need {width}",
                group.together, group.max_unavailable
            ),
        );
    }
    let without: Vec<&str> = hosts
        .iter()
        .filter(|host| host.site.is_none())
        .map(|host| host.name.as_str())
        .collect();
    if group.per_site.is_some() && !without.is_empty() {
        let label = fleet.rollout.site_label.as_deref().unwrap_or_default();
        warn(
            "site_missing",
            format!(
                "per_site counts sites by the label `{label}`, which {} of its hosts {} not have: {}",
                without.len(),
                if without.len() == 1 { "does" } else { "do" },
                some_of(without)
            ),
        );
    }
}

/// A host that works goes back to its old client when the time for its verdict is over before PMM can have seen enough of it.
fn health(group: &PlanGroup, warn: &mut impl FnMut(&str, String)) {
    let Some(gate) = &group.health else { return };
    let needs = u64::from(gate.good_views).saturating_mul(LONG.view_ms);
    if gate.patience_ms < needs {
        warn(
            "patience_short",
            format!(
                "hosts that work may be taken back: {} good view{} in a row may take {}, and the verdict is due after {}",
                gate.good_views,
                if gate.good_views == 1 { "" } else { "s" },
                duration_text(needs),
                duration_text(gate.patience_ms)
            ),
        );
    }
}

/// A group that is to be taken back under a server that promises nothing to the release it came from.
fn way_back(plan: &Plan, group: &PlanGroup, hosts: &[&PlanHost], warn: &mut impl FnMut(&str, String)) {
    if group.on_breach != OnBreach::Rollback {
        return;
    }
    for leg in &plan.legs {
        let LegKind::Clients {
            no_way_back_to_pmm2: true,
            ..
        } = &leg.kind
        else {
            continue;
        };
        let from_pmm2 = |host: &&&PlanHost| {
            let entry = plan.entry(&leg.id, &host.host);
            let from = entry.map(|entry| entry.expect.from_max).or(host.from);
            from.is_none_or(|from| from.major < 3)
        };
        let stay = hosts.iter().filter(from_pmm2).count();
        if stay > 0 {
            warn(
                "on_breach_no_way_back",
                format!(
                    "on_breach = \"rollback\" takes {stay} of its {} hosts nowhere in {}: they come from PMM 2, and the server promises nothing to PMM 2 clients by then",
                    hosts.len(),
                    leg.id
                ),
            );
        }
    }
}

fn times(plan: &Plan, group: &PlanGroup, now_ms: u64, warn: &mut impl FnMut(&str, String)) {
    let entries = plan.legs.iter().find_map(|leg| match &leg.kind {
        LegKind::Clients { entries, .. } => Some(entries),
        _ => None,
    });
    match opening(&group.windows, &group.blackouts, now_ms) {
        Opening::Closed { opens_ms: None, why } => {
            let why = match why {
                Shut::Window => {
                    "no day or time in its windows ever comes outside of its blackouts".to_owned()
                }
                shut => shut.to_string(),
            };
            warn("window_never", format!("its hosts can never begin: {why}"));
            return;
        }
        Opening::Closed {
            opens_ms: Some(at),
            why,
        } if at.saturating_sub(now_ms) > FAR_MS => {
            let zone = group.windows.first().map_or("UTC", |window| window.zone.as_str());
            warn(
                "window_far",
                format!("its hosts can begin at {} only: {why}", moment_text(at, zone)),
            );
        }
        _ => {}
    }
    if let Some(past) = group
        .blackouts
        .iter()
        .find(|blackout| blackout.until_ms <= now_ms)
    {
        let reason = if past.reason.is_empty() {
            String::new()
        } else {
            format!(" ({})", past.reason)
        };
        warn(
            "blackout_past",
            format!("a blackout{reason} is over already; it can be removed"),
        );
    }
    if let Some(window) = group
        .windows
        .iter()
        .filter(|window| window.for_ms <= group.canary_soak_ms)
        .max_by_key(|window| window.for_ms)
        .filter(|_| {
            group
                .windows
                .iter()
                .all(|window| window.for_ms <= group.canary_soak_ms)
        })
    {
        warn(
            "canary_soak_window",
            format!(
                "canary_soak {} is as long as its window ({}): the others begin in a later one",
                duration_text(group.canary_soak_ms),
                window_text(window)
            ),
        );
    }
    let Some(Some(course)) = entries.and_then(|entries| course(plan, group, entries, now_ms, &LONG)) else {
        return;
    };
    if !group.windows.is_empty() && course.openings > 1 {
        warn(
            "window_short",
            format!(
                "its {} rounds may need {} openings of its windows; later groups wait for that",
                course.rounds, course.openings
            ),
        );
    }
    let begins = match opening(&group.windows, &group.blackouts, now_ms) {
        Opening::Closed { opens_ms, .. } => opens_ms.unwrap_or(now_ms),
        Opening::Open { .. } => now_ms,
    };
    let needs = course.end_ms.saturating_sub(begins);
    if let Some(deadline) = group.deadline_ms.filter(|deadline| *deadline < needs) {
        warn(
            "deadline_short",
            format!(
                "its deadline of {} may pass before it is done: it may need {}",
                duration_text(deadline),
                duration_text(needs)
            ),
        );
    }
}
