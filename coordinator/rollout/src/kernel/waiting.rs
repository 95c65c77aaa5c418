//! Who must act next, why, and until when: for every state that is not final.

use super::Kernel;
use super::gates::Door;
use super::groups::{Tally, waits_for_approval};
use super::spread::Census;
use super::state::{GroupPhase, GroupRow, HostPhase, HostRow, LegPhase, LegRow, RolloutPhase};
use crate::fleet::duration_text;
use crate::plan::PlanGroup;
use crate::policy::Offline;
use fleet_common::codes;
use fleet_common::ids::{GroupName, HostId, LegId};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Who must act.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Owner {
    /// The host's agent.
    Agent,
    /// The coordinator, at its next decision or when something else ends.
    Coordinator,
    /// The part of the coordinator that works on the server.
    ServerDriver,
    /// The PMM Server.
    PmmServer,
    /// A person.
    Operator,
}

impl Owner {
    /// The word in documents.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Agent => "agent",
            Self::Coordinator => "coordinator",
            Self::ServerDriver => "server_driver",
            Self::PmmServer => "pmm_server",
            Self::Operator => "operator",
        }
    }
}

/// Why a state that is not final has not ended yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Duty {
    /// Who must act.
    pub owner: Owner,
    /// Stable name of the reason.
    pub code: &'static str,
    /// For people.
    pub text: String,
    /// When the state ends, or what it waits for at the latest moves.
    pub deadline_ms: Option<u64>,
    /// Where a person is waited for: the next reminder.
    pub reminder_ms: Option<u64>,
}

/// What is the same for all hosts at one moment, so that a look at ten thousand of them is one pass.
pub(crate) struct Moment {
    pub now_ms: u64,
    next_ms: u64,
    tallies: BTreeMap<(LegId, GroupName), (Tally, Door)>,
    census: Census,
}

pub(super) fn duty(owner: Owner, code: &'static str, text: impl Into<String>, deadline_ms: u64) -> Duty {
    Duty {
        owner,
        code,
        text: text.into(),
        deadline_ms: Some(deadline_ms),
        reminder_ms: None,
    }
}

pub(super) fn person(code: &'static str, text: impl Into<String>, reminder_ms: u64) -> Duty {
    Duty {
        owner: Owner::Operator,
        code,
        text: text.into(),
        deadline_ms: None,
        reminder_ms: Some(reminder_ms),
    }
}

fn canary_soak(until_ms: u64, now_ms: u64) -> Duty {
    let left = duration_text(until_ms.saturating_sub(now_ms));
    let text = format!("the canaries are through; the others wait {left} more");
    duty(Owner::Coordinator, "canary_soak", text, until_ms)
}

impl Kernel {
    /// What the rollout waits for; `None` when it is final.
    pub fn rollout_duty(&self, now_ms: u64) -> Option<Duty> {
        if let Some(doubt) = self.doubt().filter(|_| !self.is_final()) {
            return Some(person(
                codes::STORE_RESTORED,
                doubt.text.clone(),
                doubt.remind_at_ms.max(now_ms),
            ));
        }
        match self.rollout.phase {
            RolloutPhase::Planned => Some(person(
                "start",
                "`start`",
                self.next_reminder(self.rollout.since_ms, now_ms),
            )),
            RolloutPhase::Paused => {
                let pause = self.rollout.pause.as_ref()?;
                let text = if pause.over_since_ms.is_some() {
                    "`resume`: the cause of the pause is gone".to_owned()
                } else {
                    format!("the end of the pause: {}", pause.text)
                };
                Some(person("paused", text, pause.remind_at_ms.max(now_ms)))
            }
            RolloutPhase::Checking if self.rollout.keeping_since_ms.is_some() => {
                self.keeping_duty(now_ms).or_else(|| {
                    Some(duty(
                        Owner::Coordinator,
                        "decision",
                        "the next decision",
                        self.next_move_ms(now_ms),
                    ))
                })
            }
            RolloutPhase::Checking => {
                let until = self.rollout.check_until_ms.unwrap_or(now_ms);
                let missing = self.verification.as_ref().map_or_else(
                    || "no view of the PMM Server yet".to_owned(),
                    |found| format!("{} clients not current, {} services missing, {} without fresh metrics, {} without queries", found.clients_not_current.len(), found.services_missing.len(), found.metrics_stale.len(), found.qan_stale.len()),
                );
                Some(duty(Owner::PmmServer, "checks", missing, until))
            }
            RolloutPhase::RollingBack | RolloutPhase::Aborting
                if !self.anything_in_flight() && self.waits_for_last_look(now_ms) =>
            {
                let text = "the PMM Server's view of the fleet after the last change";
                Some(duty(
                    Owner::PmmServer,
                    "last_look",
                    text,
                    self.next_fleet_look_ms(now_ms),
                ))
            }
            RolloutPhase::RollingBack => {
                let text = self.rollout.going_back.as_ref().map_or_else(
                    || "the next decision".to_owned(),
                    |back| format!("the clients of {} to go back: {}", back.leg, back.reason),
                );
                Some(duty(
                    Owner::Coordinator,
                    "rolling_back",
                    text,
                    self.next_move_ms(now_ms),
                ))
            }
            RolloutPhase::Running | RolloutPhase::Aborting => {
                let leg = self.legs.iter().find(|leg| leg.phase == LegPhase::Running);
                let text = leg.map_or_else(
                    || "the next decision".to_owned(),
                    |leg| format!("leg {} is under way", leg.leg),
                );
                if let Some(shut) = leg.and_then(|leg| self.only_a_gate(&leg.leg, now_ms)) {
                    return Some(shut);
                }
                if self.waits_for_baseline() {
                    return Some(self.baseline_duty(now_ms));
                }
                Some(duty(Owner::Coordinator, "leg", text, self.next_move_ms(now_ms)))
            }
            _ => None,
        }
    }

    /// What a leg waits for; `None` when it is settled or ended.
    pub fn leg_duty(&self, leg: &LegRow, now_ms: u64) -> Option<Duty> {
        match leg.phase {
            LegPhase::Settled | LegPhase::Cancelled => return None,
            LegPhase::Restored | LegPhase::Refused | LegPhase::NeedsOperator => {
                let text = self.rollout.pause.as_ref().map_or_else(
                    || "the server leg did not settle".to_owned(),
                    |pause| pause.text.clone(),
                );
                let at = self
                    .rollout
                    .pause
                    .as_ref()
                    .map_or(leg.since_ms, |pause| pause.since_ms);
                return (!self.is_final()).then(|| person("server", text, self.next_reminder(at, now_ms)));
            }
            LegPhase::Waiting | LegPhase::Running => {}
        }
        if let Some(hop) = leg.hops.iter().find(|hop| hop.order.is_some()) {
            let text = hop.steps.last().map_or_else(
                || format!("hop {} to {}: its first step", hop.number, hop.to),
                |step| {
                    format!(
                        "hop {} to {}: step {} ({} of {}): {}",
                        hop.number, hop.to, step.step, step.index, step.of, step.waits_for
                    )
                },
            );
            return Some(duty(
                Owner::ServerDriver,
                "server_step",
                text.trim_end_matches([':', ' ']).to_owned(),
                hop.deadline_ms.unwrap_or(now_ms),
            ));
        }
        if matches!(self.rollout.phase, RolloutPhase::Planned | RolloutPhase::Paused) {
            return self.rollout_duty(now_ms);
        }
        if leg.phase == LegPhase::Waiting
            && let Some(duty) = self.keeping_duty(now_ms)
        {
            return Some(duty);
        }
        if leg.phase == LegPhase::Waiting {
            let before = self
                .legs
                .iter()
                .take_while(|other| other.leg != leg.leg)
                .filter(|other| other.phase != LegPhase::Settled)
                .last();
            let text = before.map_or_else(
                || "the next decision".to_owned(),
                |before| format!("leg {} is not settled", before.leg),
            );
            return Some(duty(
                Owner::Coordinator,
                "earlier_leg",
                text,
                self.next_move_ms(now_ms),
            ));
        }
        if self.waits_for_baseline() {
            return Some(self.baseline_duty(now_ms));
        }
        Some(duty(
            Owner::Coordinator,
            "hosts",
            "its hosts",
            self.next_move_ms(now_ms),
        ))
    }

    /// The answer may be lost with a coordinator that dies before it comes; then the minute is waited out.
    fn baseline_duty(&self, now_ms: u64) -> Duty {
        let again = self.next_fleet_look_ms(now_ms);
        let left = duration_text(again.saturating_sub(now_ms));
        let text = format!("the PMM Server's view of the whole fleet, the baseline; asked again in {left}");
        duty(Owner::PmmServer, "baseline", text, again)
    }

    /// What a group waits for; `None` when it is done.
    pub fn group_duty(&self, leg: &LegId, group: &PlanGroup, now_ms: u64) -> Option<Duty> {
        let row = self.group(leg, &group.name)?;
        match row.phase {
            GroupPhase::Done | GroupPhase::Cancelled => return None,
            GroupPhase::RolledBack => return self.group_back_duty(leg, group, now_ms),
            GroupPhase::Gated if waits_for_approval(row, group) => {
                return Some(self.approval_duty(row, group, now_ms));
            }
            GroupPhase::Soaking if row.soak_until_ms.is_some_and(|until| until > now_ms) => {
                let until = row.soak_until_ms.unwrap_or(now_ms);
                return Some(duty(
                    Owner::Coordinator,
                    "soak",
                    format!(
                        "the end of its soak, {} more",
                        duration_text(until.saturating_sub(now_ms))
                    ),
                    until,
                ));
            }
            _ => {}
        }
        if self.is_final() {
            return None;
        }
        if matches!(self.rollout.phase, RolloutPhase::Planned | RolloutPhase::Paused) {
            return self.rollout_duty(now_ms);
        }
        if row.phase == GroupPhase::Pending {
            if let Some(before) = self
                .legs
                .iter()
                .take_while(|other| other.leg != *leg)
                .find(|other| other.phase != LegPhase::Settled)
            {
                return Some(duty(
                    Owner::Coordinator,
                    "earlier_leg",
                    format!("leg {} is not settled", before.leg),
                    self.next_move_ms(now_ms),
                ));
            }
            let earlier = self
                .plan
                .groups
                .iter()
                .take_while(|other| other.name != group.name);
            let open = earlier
                .filter(|other| {
                    self.group(leg, &other.name)
                        .is_some_and(|row| row.phase != GroupPhase::Done)
                })
                .last();
            let text = open.map_or_else(
                || "the next decision".to_owned(),
                |other| format!("group {} is not done", other.name),
            );
            return Some(duty(
                Owner::Coordinator,
                "earlier_group",
                text,
                self.next_move_ms(now_ms),
            ));
        }
        let tally = self.tally(leg, group, now_ms);
        let left = tally.to_begin + tally.retried;
        if let Some(shut) = self
            .window_duty(row, &self.door(group, now_ms), now_ms)
            .filter(|_| left > 0 || row.phase == GroupPhase::Gated)
        {
            let text = match tally.in_flight {
                0 => shut.text,
                under_way => format!("{}; {under_way} under way finish", shut.text),
            };
            return Some(Duty { text, ..shut });
        }
        if let Some(until) = Self::canary_soak(row, now_ms) {
            return Some(canary_soak(until, now_ms));
        }
        if let Some(until) = row.offline_until_ms.filter(|until| *until > now_ms) {
            let text = format!(
                "hosts that are away, {} more",
                duration_text(until.saturating_sub(now_ms))
            );
            return Some(duty(Owner::Agent, "offline", text, until));
        }
        let mut text = format!("{} under way, {} to begin", tally.in_flight, tally.to_begin);
        if tally.retried > 0 {
            text.push_str(&format!(", {} to be tried again", tally.retried));
        }
        let width = self.width(leg, group, &tally);
        if width < self.max_unavailable(leg, group) {
            text.push_str(&format!(", {width} at once in this step of the ramp"));
        }
        Some(duty(Owner::Coordinator, "hosts", text, self.next_move_ms(now_ms)))
    }

    /// Where nothing is under way and the group whose turn it is waits for its window or a person, the whole rollout does.
    fn only_a_gate(&self, leg: &LegId, now_ms: u64) -> Option<Duty> {
        if self.rollout.phase != RolloutPhase::Running {
            return None;
        }
        let done = |row: &GroupRow| matches!(row.phase, GroupPhase::Done | GroupPhase::Cancelled);
        let group = self
            .plan
            .groups
            .iter()
            .find(|group| self.group(leg, &group.name).is_some_and(|row| !done(row)))?;
        let tally = self.tally(leg, group, now_ms);
        let shut = self.group_duty(leg, group, now_ms);
        let shut = shut.filter(|duty| matches!(duty.code, "window" | "approval") && tally.in_flight == 0)?;
        Some(Duty {
            text: format!("group {}: {}", group.name, shut.text),
            ..shut
        })
    }

    fn approval_duty(&self, row: &GroupRow, group: &PlanGroup, now_ms: u64) -> Duty {
        let reminder = row
            .remind_at_ms
            .filter(|at| *at > now_ms)
            .unwrap_or_else(|| self.next_reminder(row.since_ms, now_ms));
        person(
            "approval",
            format!("approval (`approve {}`)", group.name),
            reminder,
        )
    }

    /// A window that is closed. One that never opens again waits for a person.
    fn window_duty(&self, row: &GroupRow, door: &Door, now_ms: u64) -> Option<Duty> {
        let Door::Shut { opens_ms, .. } = door else {
            return None;
        };
        let text = door.text(now_ms)?;
        Some(match opens_ms {
            Some(at) => duty(Owner::Coordinator, "window", text, *at),
            None => person("window", text, self.next_reminder(row.since_ms, now_ms)),
        })
    }

    /// What a host waits for in a leg; `None` when it ended there.
    pub fn host_duty(&self, leg: &LegId, host: &HostId, now_ms: u64) -> Option<Duty> {
        self.host_duty_at(leg, host, &self.moment(now_ms))
    }

    /// What is the same for all hosts at one moment.
    pub(crate) fn moment(&self, now_ms: u64) -> Moment {
        let mut tallies = BTreeMap::new();
        for leg in self.legs.iter().filter(|leg| leg.phase == LegPhase::Running) {
            let counted = self.tallies(&leg.leg, now_ms);
            tallies.extend(self.plan.groups.iter().zip(counted).map(|(group, tally)| {
                (
                    (leg.leg.clone(), group.name.clone()),
                    (tally, self.door(group, now_ms)),
                )
            }));
        }
        Moment {
            now_ms,
            next_ms: self.next_move_ms(now_ms),
            tallies,
            census: self.census(),
        }
    }

    pub(crate) fn host_duty_at(&self, leg: &LegId, host: &HostId, moment: &Moment) -> Option<Duty> {
        let now_ms = moment.now_ms;
        let row = self.host(leg, host)?;
        if row.phase.is_final() || self.breaks(super::Mutant::NoReason) && row.phase == HostPhase::Ready {
            return None;
        }
        let at = row.deadline_ms.unwrap_or(moment.next_ms);
        // Whoever is away is lost earlier than whoever only works long.
        let lost = self
            .absent_since(host, now_ms)
            .filter(|_| {
                matches!(
                    row.phase,
                    HostPhase::Permitted | HostPhase::Switching | HostPhase::RollingBack
                )
            })
            .map(|since| since + self.plan.timing.lost_after_ms);
        let at = lost.map_or(at, |lost| lost.min(at)).max(now_ms);
        let step = row
            .step
            .as_ref()
            .map(|step| format!("step {} ({} of {})", step.step, step.index, step.of));
        Some(match row.phase {
            HostPhase::Preparing => {
                let what = row
                    .order
                    .as_ref()
                    .map_or("preflight", |order| order.action.as_str());
                duty(Owner::Agent, "preparing", format!("{what} on the host"), at)
            }
            HostPhase::Permitted => duty(
                Owner::Agent,
                "begin",
                "it may begin and did not say yet that it did",
                at,
            ),
            HostPhase::Switching => duty(
                Owner::Agent,
                "switching",
                step.unwrap_or_else(|| "the switch on the host".to_owned()),
                at,
            ),
            HostPhase::Verifying => {
                let text = if row.reason.is_empty() {
                    "a view of the PMM Server with fresh samples".to_owned()
                } else {
                    row.reason.clone()
                };
                duty(Owner::PmmServer, "verifying", text, at)
            }
            HostPhase::Settling if row.rests() => self.resting_duty(leg, row, at),
            HostPhase::Settling => duty(
                Owner::Agent,
                "settling",
                "removing what was saved for the way back",
                at,
            ),
            HostPhase::RollingBack => duty(
                Owner::Agent,
                "rolling_back",
                step.unwrap_or_else(|| "the way back on the host".to_owned()),
                at,
            ),
            HostPhase::Repointing => duty(
                Owner::Agent,
                "repointing",
                "its client to follow the server to its new port",
                at,
            ),
            _ => self.not_begun_duty(leg, host, row, moment),
        })
    }

    fn not_begun_duty(&self, leg: &LegId, host: &HostId, row: &HostRow, moment: &Moment) -> Duty {
        let (now_ms, next) = (moment.now_ms, moment.next_ms);
        if let Some(reason) = self.held(host) {
            return person(
                "held",
                format!("held: {reason}"),
                self.next_reminder(row.since_ms, now_ms),
            );
        }
        // Only while it is the answer: for a running rollout it walks all hosts, and this is asked for each of them.
        if matches!(self.rollout.phase, RolloutPhase::Planned | RolloutPhase::Paused)
            && let Some(duty) = self.rollout_duty(now_ms)
        {
            return duty;
        }
        if let Some(before) = self
            .legs
            .iter()
            .take_while(|other| other.leg != *leg)
            .find(|other| other.phase != LegPhase::Settled)
        {
            return duty(
                Owner::Coordinator,
                "earlier_leg",
                format!("leg {} is not settled", before.leg),
                next,
            );
        }
        if self.waits_for_publication(leg, row) {
            return duty(
                Owner::ServerDriver,
                "publication",
                "the publication of PMM 3; then its client follows to the new port",
                next,
            );
        }
        if let Some(at) = row.ask_at_ms.filter(|at| *at > now_ms) {
            let code = if row.backup_since_ms.is_some() {
                "backup"
            } else if row.retried.is_empty() {
                "asked_later"
            } else {
                "retry"
            };
            return duty(Owner::Coordinator, code, row.reason.clone(), at);
        }
        if self.is_connected(host) && self.leg_target(leg).is_some() && !self.followed(host) {
            return duty(
                Owner::Coordinator,
                "repoint",
                "its client does not use the server's new port yet",
                next,
            );
        }
        let group = self
            .planned(host)
            .and_then(|planned| self.plan.group(&planned.group));
        let group = group.filter(|group| self.group(leg, &group.name).is_some());
        if let Some(group) = group
            && let Some(state) = self.group(leg, &group.name)
        {
            match state.phase {
                GroupPhase::Pending => {
                    let text = format!("the turn of group {}", group.name);
                    return duty(Owner::Coordinator, "earlier_group", text, next);
                }
                GroupPhase::Gated if waits_for_approval(state, group) => {
                    return self.approval_duty(state, group, now_ms);
                }
                _ => {}
            }
        }
        if !self.is_connected(host) {
            let policy = group.map_or(Offline::CatchUp, |group| group.offline);
            let waited = group
                .and_then(|group| self.group(leg, &group.name))
                .and_then(|state| state.offline_until_ms);
            if let Some(until) = waited.filter(|until| *until >= now_ms) {
                let text = format!(
                    "offline; its group waits for it {} more, then a person is asked",
                    duration_text(until - now_ms)
                );
                return duty(Owner::Agent, "offline", text, until);
            }
            let until = self
                .legs
                .iter()
                .find(|other| other.leg == *leg)
                .and_then(|other| other.offline_until_ms);
            let text = until.map_or_else(
                || match policy {
                    Offline::CatchUp => "offline; it is caught up when it returns".to_owned(),
                    Offline::Skip => {
                        "offline; left out when the other hosts of its group have ended".to_owned()
                    }
                    Offline::Wait => "offline; its group is not done before it returns".to_owned(),
                },
                |until| {
                    format!(
                        "offline; skipped in {}",
                        duration_text(until.saturating_sub(now_ms))
                    )
                },
            );
            return duty(
                Owner::Agent,
                "offline",
                text,
                until.filter(|until| *until >= now_ms).unwrap_or(next),
            );
        }
        if row.phase == HostPhase::Ready && self.leg_target(leg).is_some() && !self.has_baseline(host) {
            return self.listing_duty(host, now_ms);
        }
        if let Some(group) = group
            && let Some(duty) = self.turn_duty(leg, host, row, group, moment)
        {
            return duty;
        }
        duty(Owner::Coordinator, "decision", "the next decision", next)
    }

    /// What keeps a host whose group has its turn.
    fn turn_duty(
        &self,
        leg: &LegId,
        host: &HostId,
        row: &HostRow,
        group: &PlanGroup,
        moment: &Moment,
    ) -> Option<Duty> {
        let (now_ms, next) = (moment.now_ms, moment.next_ms);
        let state = self.group(leg, &group.name)?;
        let (tally, door) = moment.tallies.get(&(leg.clone(), group.name.clone()))?;
        if row.phase == HostPhase::Waiting && self.site_is_full(&moment.census, host, row) {
            let crowd = self.crowd(&moment.census, host, row)?;
            return Some(duty(Owner::Coordinator, crowd.code, crowd.text(), next));
        }
        if let Some(shut) = self.window_duty(state, door, now_ms) {
            return Some(shut);
        }
        if row.phase != HostPhase::Ready {
            return None;
        }
        if let Some(until) = Self::canary_soak(state, now_ms) {
            return Some(canary_soak(until, now_ms));
        }
        if let Some(crowd) = self.crowd(&moment.census, host, row) {
            return Some(duty(Owner::Coordinator, crowd.code, crowd.text(), next));
        }
        let (width, full) = (self.width(leg, group, tally), self.max_unavailable(leg, group));
        if tally.slots >= width && !row.slot {
            let (slots, name) = (tally.slots, &group.name);
            return Some(if width < full {
                let text = format!("{slots} of {width} slots of this step of group {name}'s ramp are taken");
                duty(Owner::Coordinator, "ramp", text, next)
            } else {
                let text = format!("{slots} of {full} slots of group {name} are taken");
                duty(Owner::Coordinator, "slots", text, next)
            });
        }
        (state.phase == GroupPhase::Canary).then(|| {
            let text = format!("the canaries of group {}", group.name);
            duty(Owner::Coordinator, "canary", text, next)
        })
    }

    fn next_reminder(&self, since_ms: u64, now_ms: u64) -> u64 {
        let every = self.plan.timing.reminder_ms.max(1);
        since_ms + (now_ms.saturating_sub(since_ms) / every + 1) * every
    }

    /// The moment at which something ends by itself at the latest; the next decision when nothing is under way.
    pub(crate) fn next_move_ms(&self, now_ms: u64) -> u64 {
        let hosts = self
            .hosts
            .values()
            .flat_map(|rows| rows.values())
            .filter(|row| !row.phase.is_final())
            .filter_map(|row| row.deadline_ms.or(row.ask_at_ms));
        let hops = self
            .legs
            .iter()
            .flat_map(|leg| &leg.hops)
            .filter_map(|hop| hop.deadline_ms);
        // A pause holds a soak that is over.
        let soaks = self
            .groups
            .values()
            .flat_map(|rows| rows.values())
            .filter(|row| row.phase == GroupPhase::Soaking)
            .filter_map(|row| row.soak_until_ms);
        let groups = || self.groups.values().flat_map(|rows| rows.values());
        let canary_soaks = groups().filter_map(|row| Self::canary_soak(row, now_ms));
        let late = groups()
            .filter(|row| !matches!(row.phase, GroupPhase::Done | GroupPhase::Cancelled))
            .flat_map(|row| [row.deadline_ms, row.offline_until_ms])
            .flatten();
        let offline = self
            .legs
            .iter()
            .filter(|leg| leg.phase == LegPhase::Running)
            .filter_map(|leg| leg.offline_until_ms);
        let checks = self
            .rollout
            .check_until_ms
            .filter(|_| self.rollout.phase == RolloutPhase::Checking);
        let gates = self.doors_ms(now_ms).chain(canary_soaks).chain(late);
        let all = hosts
            .chain(hops)
            .chain(soaks)
            .chain(offline)
            .chain(checks)
            .chain(gates);
        // Where only a person can move something, the reminder is what comes next.
        let approvals = || {
            let legs = self.legs.iter().filter(|leg| leg.phase == LegPhase::Running);
            let rows = legs.flat_map(|leg| {
                let groups = self.plan.groups.iter();
                groups.filter_map(|group| Some((group, self.group(&leg.leg, &group.name)?)))
            });
            rows.filter(|(group, row)| row.phase == GroupPhase::Gated && waits_for_approval(row, group))
                .filter_map(|(group, row)| self.approval_duty(row, group, now_ms).reminder_ms)
                .min()
        };
        all.min().or_else(approvals).unwrap_or(0).max(now_ms + 1_000)
    }
}
