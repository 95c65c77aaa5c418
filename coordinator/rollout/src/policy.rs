//! The policy of a group as a plan keeps it: integers, milliseconds and names, nothing left to interpret.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// What happens when a group has more failures than it tolerates. Its further hosts wait in each case.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum OnBreach {
    /// The rollout waits for a person.
    #[default]
    Pause,
    /// The hosts of the group that were upgraded by this leg and whose way back is still kept go back; then the rollout waits for a person.
    Rollback,
    /// The rollout is aborted: what is under way finishes, nothing else begins.
    Abort,
}

/// What becomes of hosts that are away at their group's turn.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Offline {
    /// The group goes on without them; they are caught up when they return, until `timing.offline_for` after the last group.
    #[default]
    CatchUp,
    /// They are left out as soon as the other hosts of the group have ended.
    Skip,
    /// The group is not done before they returned, at most `timing.offline_for`; then the rollout waits for a person.
    Wait,
}

/// Why a host did not make it, as far as trying again by itself is concerned.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, schemars::JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum FailureClass {
    /// Something that passes: a download, a lock of the package manager, a deadline before anything changed.
    Transient,
    /// The package manager failed and the host is back on its old release.
    Install,
    /// The new client did not pass its verification and the host is back on its old release.
    Verify,
}

/// How often and after which pauses a host is tried again by itself.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Retries {
    /// Attempts after the first.
    pub times: u32,
    /// Pause before each, milliseconds; the last one counts for all later ones.
    pub backoff_ms: Vec<u64>,
}

/// By class. A class without an entry is not tried again.
pub type RetryPolicy = BTreeMap<FailureClass, Retries>;

/// When a switched host passes, and how patient the look at it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HealthGate {
    /// Good views of the PMM Server in a row that are needed: 1 believes the first.
    pub good_views: u32,
    /// Time until the verdict, milliseconds.
    pub patience_ms: u64,
}

/// A recurring time in which hosts may begin.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Window {
    /// Days on which it opens, 1 is Monday; empty means each day.
    pub days: Vec<u8>,
    /// Minute of the day at which it opens, in its zone.
    pub from_minute: u16,
    /// Length, milliseconds of elapsed time (a change of the clocks in between neither shortens nor lengthens it).
    pub for_ms: u64,
    /// IANA name of the zone.
    pub zone: String,
}

/// A time in which no host may begin, whatever the windows say.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Blackout {
    /// Beginning, Unix milliseconds.
    pub from_ms: u64,
    /// End, Unix milliseconds; this moment is free again.
    pub until_ms: u64,
    /// Why, for screens; may be empty.
    pub reason: String,
}
