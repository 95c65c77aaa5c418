//! The state that is stored: one row for the rollout, one per leg, per group of a leg and per host of a leg.

use crate::policy::FailureClass;
use fleet_common::ids::{Epoch, HostId, LegId, OrderId, RolloutId};
use fleet_common::order::Action;
use fleet_common::server::HopResult;
use fleet_common::version::PmmVersion;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// State of the rollout.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RolloutPhase {
    /// Waits for `start`.
    Planned,
    /// Under way.
    Running,
    /// Waits for a person.
    Paused,
    /// Everything is switched; the three checks are looked at.
    Checking,
    /// Hosts that were under way finish, no other begins.
    Aborting,
    /// The hosts that the client leg under way upgraded go back, group by group in reverse.
    RollingBack,
    /// Every host upgraded and all checks hold.
    Succeeded,
    /// It ended, but not every host is upgraded or not every check holds.
    FinishedWithExceptions,
    /// It ended and at least one host is lost.
    FinishedWithLost,
    /// Ended by the operator.
    Aborted,
    /// Ended by the operator; its clients went back as far as they could.
    RolledBack,
}

impl RolloutPhase {
    /// Whether nothing follows any more.
    pub fn is_final(self) -> bool {
        matches!(
            self,
            Self::Succeeded
                | Self::FinishedWithExceptions
                | Self::FinishedWithLost
                | Self::Aborted
                | Self::RolledBack
        )
    }
}

/// Why the rollout waits for a person.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pause {
    /// `operator`, `threshold`, `slots_exhausted`, `set_exhausted`, `site_exhausted`, `group_deadline`, `offline`, `survey`,
    /// `server_restored`, `server_refused`, `server_needs_operator`, `server_view_missing`, `bridge_incomplete`, `repoint`,
    /// `store_restored`, `stranded`, `rollback`, `inconclusive`.
    pub code: String,
    /// For people.
    pub text: String,
    /// What to do next.
    pub hint: String,
    /// Who.
    pub by: String,
    /// Since when.
    pub since_ms: u64,
    /// Next reminder.
    pub remind_at_ms: u64,
    /// Since when what it is about is over; it lasts all the same.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub over_since_ms: Option<u64>,
    /// The operator's own pause that this reason took over from. Only a person ends that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<Box<Self>>,
}

/// One disturbance that the rollout went through.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Disturbance {
    /// `coordinator`, or the name of the host whose agent was hit, or that was lost and came back.
    pub target: String,
    /// The step that was hit.
    pub step: String,
    /// When it was noticed, Unix milliseconds.
    pub at: u64,
}

/// Row `rollout`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RolloutRow {
    /// Its id.
    pub id: RolloutId,
    /// State.
    pub phase: RolloutPhase,
    /// Since when.
    pub since_ms: u64,
    /// The phase that a pause interrupted.
    pub before_pause: Option<RolloutPhase>,
    /// While paused.
    pub pause: Option<Pause>,
    /// Epoch of new orders.
    pub epoch: Epoch,
    /// When it was made.
    pub created_at_ms: u64,
    /// When it was started.
    pub started_at_ms: Option<u64>,
    /// When it ended.
    pub ended_at_ms: Option<u64>,
    /// Why and by whom it was aborted.
    pub abort: Option<Abort>,
    /// Why and by whom its clients are taken back.
    #[serde(default)]
    pub going_back: Option<GoingBack>,
    /// PMM clients that were accepted, by name: unmatched ones, and those that lose the server.
    pub accepted_unmatched: BTreeSet<String>,
    /// What it went through.
    pub disturbances: Vec<Disturbance>,
    /// Hosts that failed the survey and whose exclusion a person accepted.
    pub accepted: BTreeSet<HostId>,
    /// Hosts that were not surveyed before a person let the server go on. They are asked at their turn.
    #[serde(default)]
    pub accepted_unsurveyed: BTreeSet<HostId>,
    /// Hosts whose client did not follow the server to PMM 3's port, and whose exclusion a person accepted.
    #[serde(default)]
    pub left_at_old_address: BTreeSet<HostId>,
    /// Hosts that missed the bridge, as far as a person was told of them in the pause about it.
    #[serde(default)]
    pub behind_told: BTreeSet<HostId>,
    /// Hosts that missed the bridge and that a person lets lose the next server.
    #[serde(default)]
    pub behind_accepted: BTreeSet<HostId>,
    /// End of the wait for the three checks.
    pub check_until_ms: Option<u64>,
    /// When they began.
    #[serde(default)]
    pub check_since_ms: Option<u64>,
    /// When the PMM Server was asked for the whole fleet last.
    #[serde(default)]
    pub fleet_asked_ms: Option<u64>,
    /// Since when, at the end, the upgrades are made final: from here on no host goes back.
    #[serde(default)]
    pub keeping_since_ms: Option<u64>,
    /// The store was restored from a backup while the rollout was under way, or before it.
    #[serde(default)]
    pub restored: Option<RestoredStore>,
    /// While it waits for a person and is not paused: the next reminder.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remind_at_ms: Option<u64>,
    /// Transitions that were asked for and are not allowed; counted, never a panic.
    pub illegal: u64,
}

/// What hosts showed of a store that was restored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RestoredStore {
    /// Who showed what.
    pub text: String,
    /// When the first of them came.
    pub since_ms: u64,
    /// Next reminder, until it is adopted.
    pub remind_at_ms: u64,
    /// When a person took the store as the truth.
    pub adopted_at_ms: Option<u64>,
}

/// An abort.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Abort {
    /// Who.
    pub by: String,
    /// Why.
    pub reason: String,
    /// Whether hosts that are not verified yet go back.
    pub force: bool,
    /// When.
    pub at_ms: u64,
}

/// The way back of all clients of a leg.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GoingBack {
    /// Who.
    pub by: String,
    /// Why.
    pub reason: String,
    /// The client leg.
    pub leg: LegId,
    /// When.
    pub at_ms: u64,
}

/// Row `hold/<host>`: who holds a host, and why. One does not lift the other's hold.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hold {
    /// The operator's reason.
    pub operator: Option<String>,
    /// The reason given on the host itself.
    pub host: Option<String>,
}

/// State of a leg.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LegPhase {
    /// An earlier leg is not settled.
    Waiting,
    /// Under way.
    Running,
    /// Done, as far as later legs are concerned.
    Settled,
    /// Server: the hop failed and the server runs the release it started from.
    Restored,
    /// Server: refused before anything changed.
    Refused,
    /// Server: a person must look.
    NeedsOperator,
    /// Ended by an abort.
    Cancelled,
}

/// Row `leg/<leg>`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LegRow {
    /// The leg.
    pub leg: LegId,
    /// State.
    pub phase: LegPhase,
    /// Since when.
    pub since_ms: u64,
    /// Hops of a server leg.
    pub hops: Vec<HopRow>,
    /// Clients: the end of the wait for hosts that were offline at their turn. Server: the same for those that must follow its port.
    pub offline_until_ms: Option<u64>,
    /// Server: when the first permit to a client was granted after it. In the same commit as that permit; the server can't go back from here on.
    #[serde(default)]
    pub no_return_since_ms: Option<u64>,
}

/// One hop.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HopRow {
    /// Position in the plan.
    pub number: u32,
    /// Release before.
    pub from: PmmVersion,
    /// Release after.
    pub to: PmmVersion,
    /// Attempt, from 1; 0 before the first.
    pub attempt: u32,
    /// The order under way.
    pub order: Option<OrderId>,
    /// When the order was given.
    pub started_at_ms: Option<u64>,
    /// Silence past this means that a person must look.
    pub deadline_ms: Option<u64>,
    /// Steps of this attempt in the order they began.
    pub steps: Vec<StepRow>,
    /// How it ended.
    pub result: Option<HopResult>,
    /// How earlier attempts ended.
    pub earlier: Vec<HopResult>,
    /// When it ended.
    pub ended_at_ms: Option<u64>,
    /// Whether this attempt's release serves its clients: unknown before the publication, false once that was taken back.
    #[serde(default)]
    pub published: Option<bool>,
    /// Whether a person accepted that no client came back.
    #[serde(default)]
    pub accept_unsettled: bool,
}

/// Where an order to follow the server leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Side {
    /// To PMM 3's port.
    New,
    /// Back to PMM 2's.
    Old,
}

/// One step of a hop or of a host's order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StepRow {
    /// Name.
    pub step: String,
    /// Position, from 1.
    pub index: u32,
    /// Number of steps.
    pub of: u32,
    /// When it began.
    pub since_ms: u64,
    /// What it waits for; may be empty.
    pub waits_for: String,
    /// When it is given up.
    pub deadline_ms: u64,
    /// How long it took, once done.
    pub took_ms: Option<u64>,
}

/// State of a group in a leg.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GroupPhase {
    /// An earlier group or leg is not done.
    Pending,
    /// Waits for approval, or before its first permit for its windows.
    Gated,
    /// The first hosts, alone.
    Canary,
    /// Full width.
    Ramping,
    /// No host is left to begin; those under way finish.
    Draining,
    /// Waits before the next group.
    Soaking,
    /// Every host is settled, or waits offline for the end of the leg.
    Done,
    /// More failures than tolerated.
    Breached,
    /// Taken back by the operator; none of its hosts begins any more.
    RolledBack,
    /// Ended by an abort.
    Cancelled,
}

/// Row `group/<leg>/<group>`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupRow {
    /// State.
    pub phase: GroupPhase,
    /// Since when.
    pub since_ms: u64,
    /// End of the soak.
    pub soak_until_ms: Option<u64>,
    /// Who let it begin.
    pub approved_by: Option<String>,
    /// Failed hosts that a person accepted by `resume`; they no longer count for the threshold.
    pub forgiven: BTreeSet<HostId>,
    /// When its first permit was given.
    #[serde(default)]
    pub first_permit_ms: Option<u64>,
    /// End of the wait after the last canary; `None` while one is missing, 0 once the wait is over.
    #[serde(default)]
    pub canary_soak_until_ms: Option<u64>,
    /// While it waits for a person: the next reminder.
    #[serde(default)]
    pub remind_at_ms: Option<u64>,
    /// When it must be done; from its first permit, or from the `resume` after it was late.
    #[serde(default)]
    pub deadline_ms: Option<u64>,
    /// Until when hosts that are away are waited for before it is done.
    #[serde(default)]
    pub offline_until_ms: Option<u64>,
    /// What a person reduced.
    #[serde(default)]
    pub limits: Limits,
}

/// Numbers of a group that a person reduced below the plan's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// Instead of the plan's `max_unavailable`.
    pub max_unavailable: Option<u32>,
    /// Instead of the plan's `failure_threshold`.
    pub failure_threshold: Option<u32>,
}

/// State of a host in a leg.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HostPhase {
    /// Nothing was ordered yet, or it must be asked anew.
    Waiting,
    /// Preflight or stage is ordered.
    Preparing,
    /// Waits for a permit.
    Ready,
    /// It may switch, and did not say that it began.
    Permitted,
    /// It is switching.
    Switching,
    /// The PMM Server's view is waited for.
    Verifying,
    /// Verified, and so it made it. Without an open order its way back is kept; with one, what was saved for it is being removed.
    Settling,
    /// The way back is ordered.
    RollingBack,
    /// Its client is told the server's new port (server leg).
    Repointing,
    /// Surveyed (survey leg).
    Surveyed,
    /// Its client uses the server's new port (server leg).
    Repointed,
    /// On the target, verified, kept.
    Upgraded,
    /// It was on the target before.
    AlreadyCurrent,
    /// Back on the old version, verified.
    RolledBack,
    /// Failed before anything changed.
    Failed,
    /// Neither version could be verified.
    Inconsistent,
    /// Not begun, by a rule.
    Refused,
    /// Left out: held, offline, or by the operator.
    Skipped,
    /// Ended by an abort before it began.
    Cancelled,
    /// Silent after its permit. Reopens when the host returns.
    Lost,
}

impl HostPhase {
    /// Whether nothing follows without a person or, for lost hosts, without the host coming back.
    pub fn is_final(self) -> bool {
        self >= Self::Surveyed
    }
    /// Whether it could still get its permit in this attempt.
    pub fn before_permit(self) -> bool {
        matches!(self, Self::Waiting | Self::Preparing | Self::Ready)
    }
    /// Whether something may change on the host and has not ended. See [`HostRow::in_flight`] for what is waited for.
    pub fn in_flight(self) -> bool {
        matches!(
            self,
            Self::Permitted | Self::Switching | Self::Verifying | Self::RollingBack | Self::Repointing
        )
    }
    /// Whether it runs the leg's release and that was verified, now or before: what canaries, widths, groups and later legs ask.
    pub fn made_it(self) -> bool {
        matches!(self, Self::Settling | Self::Upgraded | Self::AlreadyCurrent)
    }
    /// Whether this leg has nothing more to do with it, except removing what was saved for its way back.
    pub fn is_through(self) -> bool {
        self.is_final() || self == Self::Settling
    }
    /// The word on screens and in reports.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Preparing => "preparing",
            Self::Ready => "ready",
            Self::Permitted => "permitted",
            Self::Switching => "switching",
            Self::Verifying => "verifying",
            Self::Settling => "settling",
            Self::RollingBack => "rolling_back",
            Self::Repointing => "repointing",
            Self::Repointed => "repointed",
            Self::Surveyed => "surveyed",
            Self::Upgraded => "upgraded",
            Self::AlreadyCurrent => "already_current",
            Self::RolledBack => "rolled_back",
            Self::Failed => "failed",
            Self::Inconsistent => "inconsistent",
            Self::Refused => "refused",
            Self::Skipped => "skipped",
            Self::Cancelled => "cancelled",
            Self::Lost => "lost",
        }
    }
}

/// An order that was given and not answered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OpenOrder {
    /// Its id.
    pub id: OrderId,
    /// What.
    pub action: Action,
    /// Under which epoch.
    pub epoch: Epoch,
    /// When it was given first.
    pub given_at_ms: u64,
    /// Whether the agent's journal has it.
    pub accepted: bool,
    /// Longest duration.
    pub deadline_for_ms: u64,
    /// Time to begin within, from `given_at_ms`.
    pub start_within_ms: u64,
    /// It must not begin any more where it has not: the host was held after its permit.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub called_back: bool,
}

/// Newest sample of one series while a host is verified.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mark {
    /// Newest before the switch was done.
    pub before_ms: u64,
    /// Newest now.
    pub last_ms: u64,
    /// How often it rose after the switch was done.
    pub rises: u32,
    /// Newest in the last good view that counted.
    #[serde(default)]
    pub counted_ms: u64,
}

/// Row `host/<leg>/<host>`. What says nothing yet is left out of it: it is written with every event of a host, and most of it is empty.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostRow {
    /// State.
    pub phase: HostPhase,
    /// Since when.
    pub since_ms: u64,
    /// When silence ends this state.
    #[serde(default, skip_serializing_if = "unset")]
    pub deadline_ms: Option<u64>,
    /// Attempt, from 1.
    pub attempt: u32,
    /// The open order.
    #[serde(default, skip_serializing_if = "unset")]
    pub order: Option<OpenOrder>,
    /// The step under way.
    #[serde(default, skip_serializing_if = "unset")]
    pub step: Option<StepRow>,
    /// Whether its end counts for the failure threshold.
    #[serde(default, skip_serializing_if = "unset")]
    pub counts: bool,
    /// Whether it holds a slot.
    #[serde(default, skip_serializing_if = "unset")]
    pub slot: bool,
    /// Whether an earlier attempt left it without a client that is known to work: it keeps its slot until one is verified.
    #[serde(default, skip_serializing_if = "unset")]
    pub broken: bool,
    /// Whether the preflight of this attempt passed.
    #[serde(default, skip_serializing_if = "unset")]
    pub preflighted: bool,
    /// Whether the new version is on the host.
    #[serde(default, skip_serializing_if = "unset")]
    pub staged: bool,
    /// One of [`fleet_common::codes`], or empty.
    #[serde(default, skip_serializing_if = "unset")]
    pub code: String,
    /// Why it is in its state, for people.
    #[serde(default, skip_serializing_if = "unset")]
    pub reason: String,
    /// The step that decided.
    #[serde(default, skip_serializing_if = "unset")]
    pub failed_step: String,
    /// When its permit was given.
    #[serde(default, skip_serializing_if = "unset")]
    pub permitted_at_ms: Option<u64>,
    /// When the host said that the switch was done.
    #[serde(default, skip_serializing_if = "unset")]
    pub switched_at_ms: Option<u64>,
    /// When it reached its final state.
    #[serde(default, skip_serializing_if = "unset")]
    pub ended_at_ms: Option<u64>,
    /// Release that runs, if the host said so.
    #[serde(default, skip_serializing_if = "unset")]
    pub running: Option<String>,
    /// Milliseconds without a connected client, as the host measured.
    #[serde(default, skip_serializing_if = "unset")]
    pub client_gap_ms: u64,
    /// Permits that ran out, and preparations that were not answered.
    #[serde(default, skip_serializing_if = "unset")]
    pub expired: u32,
    /// Attempts whose permit ran out before anything began, over all retries; such as those that died with a coordinator.
    #[serde(default, skip_serializing_if = "unset")]
    pub unused: u32,
    /// Samples while verifying.
    #[serde(default, skip_serializing_if = "unset")]
    pub marks: BTreeMap<String, Mark>,
    /// Views seen since the switch was done.
    #[serde(default, skip_serializing_if = "unset")]
    pub views: u32,
    /// When the newest of them was taken, Unix milliseconds.
    #[serde(default, skip_serializing_if = "unset")]
    pub last_view_ms: u64,
    /// How its last attempt failed, once another was to follow: code and reason.
    #[serde(default, skip_serializing_if = "unset")]
    pub failed_before: Option<String>,
    /// When it got the permit of an attempt in which it was lost, and nothing is known of its client since.
    #[serde(default, skip_serializing_if = "unset")]
    pub lost_before_ms: Option<u64>,
    /// What a lost host was doing.
    #[serde(default, skip_serializing_if = "unset")]
    pub lost_in: Option<HostPhase>,
    /// It was lost, was to be tried again, and that does not begin: nothing is asked of it when it returns, until a person tries it again.
    #[serde(default, skip_serializing_if = "unset")]
    pub left_lost: bool,
    /// It is not asked before this.
    #[serde(default, skip_serializing_if = "unset")]
    pub ask_at_ms: Option<u64>,
    /// Since when PMM runs a database backup there; how often it said so since.
    #[serde(default, skip_serializing_if = "unset")]
    pub backup_since_ms: Option<u64>,
    /// See [`HostRow::backup_since_ms`].
    #[serde(default, skip_serializing_if = "unset")]
    pub backup_answers: u32,
    /// How often it was tried again by itself, by what made it fail.
    #[serde(default, skip_serializing_if = "unset")]
    pub retried: BTreeMap<FailureClass, u32>,
    /// Server leg: where its last order leads; `None` when its client is as the plan found it.
    #[serde(default, skip_serializing_if = "unset")]
    pub side: Option<Side>,
    /// Server leg: it was held or away and a person went on without it. It still follows when it returns.
    #[serde(default, skip_serializing_if = "unset")]
    pub left_behind: bool,
    /// When it was verified on the leg's release.
    #[serde(default, skip_serializing_if = "unset")]
    pub verified_at_ms: Option<u64>,
    /// Good views of the PMM Server in a row, while verifying.
    #[serde(default, skip_serializing_if = "unset")]
    pub good_views: u32,
    /// When the newest good one was taken, Unix milliseconds; 0 without one.
    #[serde(default, skip_serializing_if = "unset")]
    pub last_good_ms: u64,
    /// Its patience ended without a verdict, and a person is asked.
    #[serde(default, skip_serializing_if = "unset")]
    pub inconclusive: bool,
    /// It is to go back for this reason as soon as its group has a slot for that; while it is lost, once it has returned.
    #[serde(default, skip_serializing_if = "unset")]
    pub back_wanted: Option<String>,
    /// It was taken back, by the operator or by its group's policy: that is no failure of its own.
    #[serde(default, skip_serializing_if = "unset")]
    pub taken_back: bool,
    /// What it was when it was taken back.
    #[serde(default, skip_serializing_if = "unset")]
    pub back_from: Option<HostPhase>,
}

impl HostRow {
    /// Whether it was verified on the leg's release and its way back is still kept.
    pub fn rests(&self) -> bool {
        self.phase == HostPhase::Settling && self.order.is_none()
    }
    /// Whether its end is waited for: something may change on it, or what was saved for its way back is being removed.
    pub fn in_flight(&self) -> bool {
        self.phase.in_flight() || (self.phase == HostPhase::Settling && self.order.is_some())
    }
    /// Whether it is lost and goes on by itself when it returns.
    pub fn is_awaited(&self) -> bool {
        self.phase == HostPhase::Lost && !self.left_lost
    }
    /// What an end before the next permit says of it: not that it never began, where an attempt failed.
    pub fn not_begun(&self, what: &str) -> String {
        match &self.failed_before {
            Some(failed) => format!("{what} before its next attempt; the last one failed: {failed}"),
            None => format!("{what} before it began"),
        }
    }
    /// The same where the reason says by itself that it was to begin.
    pub fn after_failure(&self, reason: &str) -> String {
        match &self.failed_before {
            Some(failed) => format!("{reason}; its last attempt failed: {failed}"),
            None => reason.to_owned(),
        }
    }
    /// Whether it has a permit that was called back.
    pub fn is_called_back(&self) -> bool {
        self.order.as_ref().is_some_and(|order| order.called_back)
    }
    /// Whether it is there and waits to be told to go back.
    pub fn waits_to_go_back(&self) -> bool {
        self.back_wanted.is_some() && self.phase != HostPhase::Lost
    }
    /// Whether it runs the leg's release and that was verified.
    pub fn made_it(&self) -> bool {
        self.phase.made_it()
    }
    /// Whether this leg upgraded it.
    pub fn upgraded(&self) -> bool {
        matches!(self.phase, HostPhase::Settling | HostPhase::Upgraded)
    }
    /// From its permit to its end, or to now; what was saved for the way back is not waited for.
    pub fn took_ms(&self) -> u64 {
        let end = self.verified_at_ms.or(self.ended_at_ms).unwrap_or(self.since_ms);
        self.permitted_at_ms
            .map_or(0, |permitted| end.saturating_sub(permitted))
    }
}

fn unset<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::super::rows::fresh;
    use super::*;

    #[test]
    fn a_stored_host_has_only_what_says_something_and_needs_what_it_can_not_do_without() {
        let row = HostRow {
            slot: true,
            running: Some("3.9.1".to_owned()),
            ..fresh(HostPhase::Switching, 7)
        };
        let text = serde_json::to_string(&row).unwrap();
        assert_eq!(
            text,
            r#"{"phase":"switching","since_ms":7,"attempt":1,"slot":true,"running":"3.9.1"}"#
        );
        assert_eq!(serde_json::from_str::<HostRow>(&text).unwrap(), row);
        for torn in [
            "{}",
            r#"{"phase":"switching","since_ms":7}"#,
            r#"{"since_ms":7,"attempt":1}"#,
        ] {
            assert!(serde_json::from_str::<HostRow>(torn).is_err(), "{torn}");
        }
    }

    #[test]
    fn a_row_that_was_stored_with_everything_is_read() {
        let stored = r#"{"phase":"ready","since_ms":7,"deadline_ms":null,"attempt":2,"order":null,"step":null,"counts":false,"slot":false,
            "broken":true,"preflighted":true,"staged":false,"code":"","reason":"","failed_step":"","permitted_at_ms":null,"switched_at_ms":null,
            "ended_at_ms":null,"running":null,"client_gap_ms":0,"expired":0,"marks":{},"views":0,"lost_in":null}"#;
        let row = HostRow {
            attempt: 2,
            broken: true,
            preflighted: true,
            ..fresh(HostPhase::Ready, 7)
        };
        assert_eq!(serde_json::from_str::<HostRow>(stored).unwrap(), row);
    }
}
