//! The policy of a group before its hosts are known, and the named profiles.

use super::Limit;
use crate::policy::{Blackout, FailureClass, HealthGate, Offline, OnBreach, Retries, RetryPolicy, Window};
use serde::{Deserialize, Serialize};
use std::fmt;

const MINUTE: u64 = 60_000;

/// How a group's hosts are let through. Limits are not resolved yet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Policy {
    /// Hosts that go first and alone.
    pub canaries: Limit,
    /// Wait after the last canary.
    pub canary_soak_ms: u64,
    /// Widths between the canaries and `max_unavailable`.
    pub ramp: Ramp,
    /// Width.
    pub max_unavailable: Limit,
    /// Tolerated failures.
    pub failure_threshold: Limit,
    /// What a failure too many leads to.
    pub on_breach: OnBreach,
    /// Wait after the last host before the next group.
    pub soak_ms: u64,
    /// Whether a person must let the group begin.
    pub approval: bool,
    /// When a switched host passes.
    pub health: HealthGate,
    /// Hosts begin only inside one of these; empty means at any time.
    pub windows: Vec<Window>,
    /// No host begins inside one of these.
    pub blackouts: Vec<Blackout>,
    /// Most hosts of one site at once.
    pub per_site: Option<u32>,
    /// Most members of one cluster or replication set at once.
    pub together: u32,
    /// Trying again by itself.
    pub retry: RetryPolicy,
    /// Hosts that are away at their turn.
    pub offline: Offline,
    /// Longest time of the group.
    pub deadline_ms: Option<u64>,
}

/// Widths between the canaries and `max_unavailable`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Ramp {
    /// These, in order; none at all is possible.
    Steps(Vec<Limit>),
    /// From a width on by doubling, for groups whose `max_unavailable` is above a number.
    Doubling {
        /// First width.
        from: u32,
        /// A group as narrow as this needs none.
        above: u32,
    },
}

impl Ramp {
    /// Widths in rising order, all below `max_unavailable`, which follows them. Percentages round down and are at least one host; a step that
    /// is no wider than the one before it (small groups make such) is left out.
    pub fn widths(&self, hosts: u32, max_unavailable: u32) -> Vec<u32> {
        let mut widths: Vec<u32> = Vec::new();
        match self {
            Self::Steps(steps) => {
                for step in steps {
                    let width = step.max_unavailable(hosts);
                    if width < max_unavailable && widths.last().is_none_or(|last| *last < width) {
                        widths.push(width);
                    }
                }
            }
            Self::Doubling { from, above } if max_unavailable > *above => {
                let mut width = (*from).max(1);
                while width < max_unavailable {
                    widths.push(width);
                    width = width.saturating_mul(2);
                }
            }
            Self::Doubling { .. } => {}
        }
        widths
    }
}

impl fmt::Display for Ramp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Steps(steps) if steps.is_empty() => f.write_str("none"),
            Self::Steps(steps) => {
                let steps: Vec<String> = steps.iter().map(ToString::to_string).collect();
                f.write_str(&steps.join(", "))
            }
            Self::Doubling { from, above } if above <= from => write!(f, "{from} and doubling"),
            Self::Doubling { from, above } => {
                write!(f, "{from} and doubling, for widths above {above}")
            }
        }
    }
}

/// A named policy.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Profile {
    /// For fleets where a mistake is dear: one canary that is watched for a quarter of an hour, then 3 hosts, 6, 12, ... up to 5%; 3 good views
    /// in a row; nothing may fail.
    Cautious,
    /// One canary, then 10% at a time, in steps from 10 hosts on where that is more than 20; nothing may fail, no waiting.
    #[default]
    Standard,
    /// For hosts whose loss for an hour is no harm: one canary, then a quarter at a time; 5% may fail.
    Fast,
}

impl Profile {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Cautious, Self::Standard, Self::Fast];

    /// As it stands in the fleet file.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Cautious => "cautious",
            Self::Standard => "standard",
            Self::Fast => "fast",
        }
    }

    /// Its values. `verify_ms` is the patience where it names none.
    pub fn policy(self, verify_ms: u64) -> Policy {
        let standard = Policy {
            canaries: Limit::Count(1),
            // No soaks here: a fleet file that says nothing of them never waited, and a canary is let through only after it was verified.
            canary_soak_ms: 0,
            ramp: Ramp::Doubling { from: 10, above: 20 },
            max_unavailable: Limit::Percent(10),
            failure_threshold: Limit::Count(0),
            on_breach: OnBreach::Pause,
            soak_ms: 0,
            approval: false,
            health: HealthGate {
                good_views: 1,
                patience_ms: verify_ms,
            },
            windows: Vec::new(),
            blackouts: Vec::new(),
            per_site: None,
            together: 1,
            retry: transient(&[MINUTE, 5 * MINUTE]),
            offline: Offline::CatchUp,
            deadline_ms: None,
        };
        match self {
            Self::Standard => standard,
            Self::Cautious => Policy {
                canary_soak_ms: 15 * MINUTE,
                ramp: Ramp::Doubling { from: 3, above: 3 },
                max_unavailable: Limit::Percent(5),
                soak_ms: 15 * MINUTE,
                health: HealthGate {
                    good_views: 3,
                    // A further good view needs newer samples, which come every few seconds to every minute: three views in a row, and as
                    // many again after one bad.
                    patience_ms: verify_ms.saturating_add(5 * MINUTE),
                },
                retry: transient(&[MINUTE, 5 * MINUTE, 15 * MINUTE]),
                ..standard
            },
            Self::Fast => Policy {
                ramp: Ramp::Steps(Vec::new()),
                max_unavailable: Limit::Percent(25),
                failure_threshold: Limit::Percent(5),
                ..standard
            },
        }
    }
}

impl fmt::Display for Profile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// Tries again what passes by itself, after these pauses.
fn transient(backoff_ms: &[u64]) -> RetryPolicy {
    let retries = Retries {
        times: u32::try_from(backoff_ms.len()).unwrap_or(u32::MAX),
        backoff_ms: backoff_ms.to_vec(),
    };
    [(FailureClass::Transient, retries)].into()
}
