//! `[defaults]` and `[[group]]`: the same policy keys, written once.

use super::Text;
use super::values::{Number, Spanned};
use schemars::JsonSchema;
use serde::Deserialize;
use std::collections::BTreeMap;

/// Makes the table of defaults and that of a group out of one list of keys. (A flattened struct would lose the places of its values and the
/// refusal of unknown keys.)
macro_rules! policy_keys {
    ($($(#[$meta:meta])* $key:ident: $type:ty,)*) => {
        /// Policy for every group that does not say otherwise. A key of a group wins over its profile, that over these, and these over the
        /// profile of the rollout.
        #[derive(Debug, Default, Deserialize, JsonSchema)]
        #[serde(deny_unknown_fields)]
        pub(in crate::fleet) struct Policy {
            $($(#[$meta])* pub $key: $type,)*
        }

        /// A group of hosts with one policy. Groups take their turns in the order of the file; a host that no group matches is never touched.
        #[derive(Debug, Deserialize, JsonSchema)]
        #[serde(deny_unknown_fields)]
        pub(in crate::fleet) struct Group {
            /// Its name; each group has its own.
            #[schemars(required)]
            pub name: Text,
            /// Which hosts belong to it. All conditions must hold.
            #[serde(rename = "match")]
            #[schemars(required)]
            pub matches: Option<Spanned<Match>>,
            /// Groups that stand before this one in the file; says it again for readers, and is checked.
            #[serde(default)]
            pub after: Vec<Spanned<String>>,
            /// Policy that this group starts from, instead of the rollout's profile and the policy keys of `[defaults]`. Of limits of the
            /// latter that are replaced so, `plan` and `plan --check` tell.
            #[schemars(extend("enum" = ["cautious", "standard", "fast"]))]
            pub profile: Text,
            $($(#[$meta])* pub $key: $type,)*
        }

        impl Group {
            /// What is the group's own, and its policy.
            pub(in crate::fleet) fn split(self) -> (Head, Policy) {
                let head = Head {
                    name: self.name,
                    matches: self.matches,
                    after: self.after,
                    profile: self.profile,
                };
                (head, Policy { $($key: self.$key,)* })
            }
        }
    };
}

/// The keys of a group that are no policy.
#[derive(Debug)]
pub(in crate::fleet) struct Head {
    pub name: Text,
    pub matches: Option<Spanned<Match>>,
    pub after: Vec<Spanned<String>>,
    pub profile: Text,
}

policy_keys! {
    /// Hosts that go first; all others wait until they were verified. A percentage rounds up and is at least 1; 0 for none.
    canaries: Option<Spanned<Number>>,
    /// Wait after the last canary before the others, such as "15m".
    #[schemars(extend("pattern" = "^\\s*(0|([0-9]+(ms|s|m|h|d)\\s*)+)\\s*$"))]
    canary_soak: Text,
    /// Widths after the canaries, such as [1, 3, "10%"]: each is used until as many hosts as it is wide were verified at it; then
    /// `max_unavailable`. Percentages round down and are at least 1. [] for none.
    ramp: Option<Spanned<Vec<Spanned<Number>>>>,
    /// Most hosts that may be without a working client at once. A percentage rounds down and is at least 1.
    max_unavailable: Option<Spanned<Number>>,
    /// Tolerated failures; one more is a breach. A percentage rounds down and may be 0.
    failure_threshold: Option<Spanned<Number>>,
    /// What a failure too many leads to: the rollout pauses, the group's upgraded hosts go back and it pauses, or it is aborted.
    #[schemars(extend("enum" = ["pause", "rollback", "abort"]))]
    on_breach: Text,
    /// Wait after the last host before the next group, such as "15m".
    #[schemars(extend("pattern" = "^\\s*(0|([0-9]+(ms|s|m|h|d)\\s*)+)\\s*$"))]
    soak: Text,
    /// Whether a person must let the group begin.
    approval: Option<bool>,
    /// When a switched host passes.
    health: Option<Health>,
    /// The one time in which hosts may begin. The hops of the server don't wait for it.
    window: Option<Spanned<Window>>,
    /// Times in which hosts may begin: one of them is enough. [] in a group: at any time, whatever the defaults say.
    /// The hops of the server don't wait for them.
    windows: Option<Vec<Spanned<Window>>>,
    /// Times in which no host may begin, whatever the windows say. Those of a group are added to those of the defaults.
    /// The hops of the server don't wait for their end.
    blackouts: Option<Vec<Spanned<Blackout>>>,
    /// Most hosts of one site that download or are without a working client at once, counted over all groups. Needs `rollout.site_label`.
    #[schemars(extend("minimum" = 1))]
    per_site: Option<Spanned<i64>>,
    /// Most members of one cluster or replication set that may be without a working client at once; 1 if not given.
    #[schemars(extend("minimum" = 1))]
    together: Option<Spanned<i64>>,
    /// Trying again by itself, by class of failure. A class that is not given stays as it is; `times = 0` turns one off.
    retry: Option<RetryTable>,
    /// Hosts that are away at their turn: caught up when they return, left out, or waited for.
    #[schemars(extend("enum" = ["catch_up", "skip", "wait"]))]
    offline: Text,
    /// Longest time from the group's first host to its end; then the rollout waits for a person.
    #[schemars(extend("pattern" = "^\\s*([0-9]+(ms|s|m|h|d)\\s*)+\\s*$"))]
    deadline: Text,
}

/// What the hosts of a group have in common. All conditions that are given must hold; at least one must be given.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::fleet) struct Match {
    /// Labels of our agent, all of them.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// PMM node names or host names, any of them.
    #[serde(default)]
    pub names: Vec<String>,
    /// What the host says about itself, all of them: `os` (ID of os-release, such as debian), `os_version`, `arch` (such as x86_64),
    /// `method` (deb, rpm or tarball).
    #[serde(default)]
    pub facts: BTreeMap<String, Spanned<String>>,
    /// PMM's label on a service of the host.
    pub environment: Option<String>,
    /// PMM's label on a service of the host.
    pub cluster: Option<String>,
    /// PMM's label on a service of the host.
    pub replication_set: Option<String>,
}

/// When a switched host passes, as the PMM Server sees it.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::fleet) struct Health {
    /// Good views of the PMM Server in a row that are needed, 1 to 10.
    #[schemars(extend("minimum" = 1, "maximum" = 10))]
    pub good_views: Option<Spanned<i64>>,
    /// Time until the verdict, such as "10m"; `timing.verify` if not given.
    #[schemars(extend("pattern" = "^\\s*([0-9]+(ms|s|m|h|d)\\s*)+\\s*$"))]
    pub patience: Text,
}

/// A recurring time in which hosts may begin. Hosts that began in it finish after it.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::fleet) struct Window {
    /// Days on which it opens: mon, tue, wed, thu, fri, sat, sun. Each day if not given.
    #[serde(default)]
    #[schemars(extend("items" = {"enum": ["mon", "tue", "wed", "thu", "fri", "sat", "sun"]}))]
    pub days: Vec<Spanned<String>>,
    /// Time of the day at which it opens, such as "01:00".
    #[schemars(required, extend("pattern" = "^[0-2]?[0-9]:[0-5][0-9]$"))]
    pub from: Text,
    /// Length, such as "4h"; elapsed time, whatever the clocks do.
    #[serde(rename = "for")]
    #[schemars(required, extend("pattern" = "^\\s*([0-9]+(ms|s|m|h|d)\\s*)+\\s*$"))]
    pub length: Text,
    /// IANA name of its time zone, such as "Europe/Madrid".
    #[schemars(required)]
    pub zone: Text,
}

/// A time in which no host may begin.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::fleet) struct Blackout {
    /// Its beginning in its zone, such as "2026-12-20T00:00".
    #[schemars(required)]
    pub from: Text,
    /// Its end; this moment is free again.
    #[schemars(required)]
    pub until: Text,
    /// IANA name of its time zone, such as "Europe/Madrid".
    #[schemars(required)]
    pub zone: Text,
    /// Why, for screens.
    pub reason: Option<String>,
}

/// Trying again by class of failure.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::fleet) struct RetryTable {
    /// What passes: a download, a lock of the package manager, a deadline before anything changed.
    pub transient: Option<Spanned<Retry>>,
    /// The package manager failed and the host is back on its old release.
    pub install: Option<Spanned<Retry>>,
    /// The new client did not pass its verification and the host is back on its old release.
    pub verify: Option<Spanned<Retry>>,
}

/// How often and after which pauses.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::fleet) struct Retry {
    /// Attempts after the first, 0 to 10.
    #[schemars(required, extend("minimum" = 0, "maximum" = 10))]
    pub times: Option<Spanned<i64>>,
    /// Pause before each, such as ["1m", "5m"]; the last one counts for all later ones.
    #[serde(default)]
    pub backoff: Vec<Spanned<String>>,
}
