//! The policy keys of `[defaults]` or of one group.

use super::super::error::Findings;
use super::super::policy::{Policy, Ramp};
use super::super::raw::{self, Spanned};
use super::super::units::Limit;
use super::numbers::{Which, duration, limit, whole, word};
use super::times;
use crate::policy::{Blackout, FailureClass, HealthGate, Offline, OnBreach, Retries, RetryPolicy, Window};

const ON_BREACH: [(&str, OnBreach); 3] = [
    ("pause", OnBreach::Pause),
    ("rollback", OnBreach::Rollback),
    ("abort", OnBreach::Abort),
];
const OFFLINE: [(&str, Offline); 3] = [
    ("catch_up", Offline::CatchUp),
    ("skip", Offline::Skip),
    ("wait", Offline::Wait),
];
/// More attempts than this are no policy but a loop.
const MOST: u32 = 10;

/// What one table says; `None` where it says nothing.
#[derive(Debug, Default)]
pub(super) struct Given {
    canaries: Option<Limit>,
    canary_soak_ms: Option<u64>,
    ramp: Option<Vec<Limit>>,
    max_unavailable: Option<Limit>,
    pub failure_threshold: Option<Limit>,
    on_breach: Option<OnBreach>,
    soak_ms: Option<u64>,
    approval: Option<bool>,
    good_views: Option<u32>,
    patience_ms: Option<u64>,
    windows: Option<Vec<Window>>,
    blackouts: Vec<Blackout>,
    per_site: Option<u32>,
    together: Option<u32>,
    retry: RetryPolicy,
    offline: Option<Offline>,
    deadline_ms: Option<u64>,
}

impl Given {
    /// These keys over a policy.
    pub(super) fn over(&self, base: Policy) -> Policy {
        let mut blackouts = base.blackouts;
        blackouts.extend(self.blackouts.iter().cloned());
        blackouts.sort_by_key(|blackout| (blackout.from_ms, blackout.until_ms));
        blackouts.dedup();
        let mut retry = base.retry;
        retry.extend(self.retry.clone());
        retry.retain(|_, retries| retries.times > 0);
        Policy {
            canaries: self.canaries.unwrap_or(base.canaries),
            canary_soak_ms: self.canary_soak_ms.unwrap_or(base.canary_soak_ms),
            ramp: self.ramp.clone().map_or(base.ramp, Ramp::Steps),
            max_unavailable: self.max_unavailable.unwrap_or(base.max_unavailable),
            failure_threshold: self.failure_threshold.unwrap_or(base.failure_threshold),
            on_breach: self.on_breach.unwrap_or(base.on_breach),
            soak_ms: self.soak_ms.unwrap_or(base.soak_ms),
            approval: self.approval.unwrap_or(base.approval),
            health: HealthGate {
                good_views: self.good_views.unwrap_or(base.health.good_views),
                patience_ms: self.patience_ms.unwrap_or(base.health.patience_ms),
            },
            windows: self.windows.clone().unwrap_or(base.windows),
            blackouts,
            per_site: self.per_site.or(base.per_site),
            together: self.together.unwrap_or(base.together),
            retry,
            offline: self.offline.unwrap_or(base.offline),
            deadline_ms: self.deadline_ms.or(base.deadline_ms),
        }
    }

    /// Limits that stand here and that neither a group itself nor its profile keeps.
    pub(super) fn replaced(&self, own: &Self, profile: &Policy) -> Vec<String> {
        let limits = [
            ("canaries", self.canaries, own.canaries, profile.canaries),
            (
                "max_unavailable",
                self.max_unavailable,
                own.max_unavailable,
                profile.max_unavailable,
            ),
            (
                "failure_threshold",
                self.failure_threshold,
                own.failure_threshold,
                profile.failure_threshold,
            ),
        ];
        let lost = limits.into_iter().filter_map(|(key, stands, own, by)| {
            let stands = stands.filter(|stands| own.is_none() && *stands != by)?;
            Some(format!("{key} = {stands} by {by}"))
        });
        lost.collect()
    }

    /// What a profile says nothing about: a group that names a profile of its own still has these from the defaults.
    pub(super) fn beside_profiles(&self) -> Self {
        Self {
            approval: self.approval,
            on_breach: self.on_breach,
            windows: self.windows.clone(),
            blackouts: self.blackouts.clone(),
            per_site: self.per_site,
            together: self.together,
            offline: self.offline,
            deadline_ms: self.deadline_ms,
            ..Self::default()
        }
    }
}

/// Reads a table. `table` stands before the keys in messages, such as `defaults.`.
pub(super) fn given(raw: &raw::Policy, table: &str, sites: bool, found: &mut Findings<'_>) -> Given {
    let key = |key: &str| format!("{table}{key}");
    let number = |value: &Option<Spanned<raw::Number>>, name: &str, which, found: &mut Findings<'_>| {
        value.as_ref().map(|value| limit(value, &key(name), which, found))
    };
    let time = |value: &raw::Text, name: &str, zero, found: &mut Findings<'_>| {
        let value = value.as_ref()?;
        duration(value, &key(name), zero, found)
    };
    let (good_views, patience_ms) = raw.health.as_ref().map_or((None, None), |health| {
        let views = health
            .good_views
            .as_ref()
            .map(|views| whole(views, &key("health.good_views"), (1, MOST), found));
        (views, time(&health.patience, "health.patience", false, found))
    });
    if let (Some(per_site), false) = (&raw.per_site, sites) {
        found.add(
            Some(per_site.at()),
            format!("{} needs to know the sites of the hosts", key("per_site")),
            "name the label of our agent that holds the site: [rollout] site_label = \"site\"",
        );
    }
    Given {
        canaries: number(&raw.canaries, "canaries", Which::Canaries, found),
        canary_soak_ms: time(&raw.canary_soak, "canary_soak", true, found),
        ramp: raw.ramp.as_ref().map(|steps| ramp(steps, &key("ramp"), found)),
        max_unavailable: number(&raw.max_unavailable, "max_unavailable", Which::Width, found),
        failure_threshold: number(
            &raw.failure_threshold,
            "failure_threshold",
            Which::Threshold,
            found,
        ),
        on_breach: word(&raw.on_breach, &key("on_breach"), &ON_BREACH, found),
        soak_ms: time(&raw.soak, "soak", true, found),
        approval: raw.approval,
        good_views,
        patience_ms,
        windows: windows(raw, &key, found),
        blackouts: raw
            .blackouts
            .iter()
            .flatten()
            .filter_map(|blackout| times::blackout(blackout, found))
            .collect(),
        per_site: raw
            .per_site
            .as_ref()
            .map(|value| whole(value, &key("per_site"), (1, u32::MAX), found)),
        together: raw
            .together
            .as_ref()
            .map(|value| whole(value, &key("together"), (1, u32::MAX), found)),
        retry: raw
            .retry
            .as_ref()
            .map(|table| retries(table, &key("retry"), found))
            .unwrap_or_default(),
        offline: word(&raw.offline, &key("offline"), &OFFLINE, found),
        deadline_ms: time(&raw.deadline, "deadline", false, found),
    }
}

fn windows(
    raw: &raw::Policy,
    key: &impl Fn(&str) -> String,
    found: &mut Findings<'_>,
) -> Option<Vec<Window>> {
    if let (Some(window), Some(_)) = (&raw.window, &raw.windows) {
        found.add(
            Some(window.at()),
            format!("both {} and {} are given", key("window"), key("windows")),
            "put all of them into windows = [...]",
        );
    }
    let one = raw.window.iter().map(|window| (window, "window"));
    let many = raw.windows.iter().flatten().map(|window| (window, "windows"));
    let given: Vec<Window> = one
        .chain(many)
        .filter_map(|(window, name)| times::window(window, &key(name), found))
        .collect();
    (raw.window.is_some() || raw.windows.is_some()).then_some(given)
}

/// Steps of one kind must rise; a count and a percentage are compared where the hosts are known.
fn ramp(steps: &Spanned<Vec<Spanned<raw::Number>>>, key: &str, found: &mut Findings<'_>) -> Vec<Limit> {
    let mut read: Vec<Limit> = Vec::new();
    for step in steps.get_ref() {
        let width = limit(step, key, Which::Width, found);
        let falls = read.iter().any(|earlier| match (earlier, width) {
            (Limit::Count(earlier), Limit::Count(later))
            | (Limit::Percent(earlier), Limit::Percent(later)) => *earlier >= later,
            _ => false,
        });
        if falls {
            found.add(
                Some(step.at()),
                format!("{key}: {width} is not wider than a step before it"),
                "write the steps in rising order, such as ramp = [1, 3, \"10%\"]",
            );
        }
        read.push(width);
    }
    read
}

fn retries(table: &raw::RetryTable, key: &str, found: &mut Findings<'_>) -> RetryPolicy {
    let classes = [
        (FailureClass::Transient, "transient", &table.transient),
        (FailureClass::Install, "install", &table.install),
        (FailureClass::Verify, "verify", &table.verify),
    ];
    let mut policy = RetryPolicy::new();
    for (class, name, raw) in classes {
        let Some(raw) = raw else { continue };
        policy.insert(class, retry(raw, &format!("{key}.{name}"), found));
    }
    policy
}

fn retry(raw: &Spanned<raw::Retry>, key: &str, found: &mut Findings<'_>) -> Retries {
    let example = "for example { times = 2, backoff = [\"1m\", \"5m\"] }";
    let times = match &raw.get_ref().times {
        Some(times) => whole(times, &format!("{key}.times"), (0, MOST), found),
        None => {
            found.add(Some(raw.at()), format!("{key}.times is missing"), example);
            0
        }
    };
    let pauses = &raw.get_ref().backoff;
    let backoff_ms: Vec<u64> = pauses
        .iter()
        .filter_map(|pause| duration(pause, &format!("{key}.backoff"), false, found))
        .collect();
    if times > 0 && pauses.is_empty() {
        found.add(
            Some(raw.at()),
            format!("{key}.backoff is missing: {times} attempts would follow at once"),
            example,
        );
    }
    // Where times itself is at fault, that alone is said.
    let told = raw.get_ref().times.as_ref().map(|told| *told.get_ref());
    if told == Some(i64::from(times)) && pauses.len() > usize::try_from(times).unwrap_or(usize::MAX) {
        found.add(
            pauses.last().map(Spanned::at),
            format!("{key}.backoff has more pauses than times = {times} allows"),
            "give at most one pause for each attempt",
        );
    }
    Retries { times, backoff_ms }
}
