//! Who must act next, why, and until when: for every state that is not final.

mod not_begun;

use super::Kernel;
use super::gates::Door;
use super::groups::{Tally, waits_for_approval};
use super::next::Move;
use super::spread::Census;
use super::state::{GroupPhase, GroupRow, HostPhase, HostRow, LegPhase, LegRow, RolloutPhase};
use crate::fleet::duration_text;
use crate::plan::PlanGroup;
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
    /// Where the deadline is not the end of this state: what ends then, as in `then ...`.
    pub next: Option<String>,
}

/// What is the same for all hosts at one moment, so that a look at ten thousand of them is one pass.
pub(crate) struct Moment {
    pub now_ms: u64,
    next: Move,
    /// The same of a group alone.
    next_of: BTreeMap<(LegId, GroupName), Move>,
    tallies: BTreeMap<(LegId, GroupName), (Tally, Door)>,
    census: Census,
}

impl Moment {
    /// What ends next for a host that waits for others of its group.
    fn next_of(&self, leg: &LegId, group: Option<&PlanGroup>) -> &Move {
        group
            .and_then(|group| self.next_of.get(&(leg.clone(), group.name.clone())))
            .unwrap_or(&self.next)
    }
}

pub(super) fn duty(owner: Owner, code: &'static str, text: impl Into<String>, deadline_ms: u64) -> Duty {
    Duty {
        owner,
        code,
        text: text.into(),
        deadline_ms: Some(deadline_ms),
        reminder_ms: None,
        next: None,
    }
}

/// What waits for something else: until the next thing that ends by itself.
pub(super) fn until_next(owner: Owner, code: &'static str, text: impl Into<String>, next: Move) -> Duty {
    Duty {
        next: Some(next.what),
        ..duty(owner, code, text, next.at_ms)
    }
}

pub(super) fn person(code: &'static str, text: impl Into<String>, reminder_ms: u64) -> Duty {
    Duty {
        owner: Owner::Operator,
        code,
        text: text.into(),
        deadline_ms: None,
        reminder_ms: Some(reminder_ms),
        next: None,
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
        if let Some(doubt) = self.doubt_duty(now_ms) {
            return Some(doubt);
        }
        if let Some(verdict) = self.undecided_duty(now_ms) {
            return Some(verdict);
        }
        match self.rollout.phase {
            RolloutPhase::Planned => {
                let blocked = !self.plan.blockers.is_empty();
                let code = if blocked { "blocked" } else { "start" };
                Some(person(code, self.planned_text(), self.open_reminder(now_ms)))
            }
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
                    Some(until_next(
                        Owner::Coordinator,
                        "decision",
                        "the next decision",
                        self.next_move(now_ms),
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
            RolloutPhase::RollingBack
                if !self.anything_in_flight() && !self.waits_to_go_back() && self.works_at_hop() =>
            {
                self.open_hop().and_then(|(leg, _)| self.leg_duty(leg, now_ms))
            }
            RolloutPhase::RollingBack => {
                let text = self.rollout.going_back.as_ref().map_or_else(
                    || "the next decision".to_owned(),
                    |back| format!("the clients of {} to go back: {}", back.leg, back.reason),
                );
                Some(until_next(
                    Owner::Coordinator,
                    "rolling_back",
                    text,
                    self.next_move(now_ms),
                ))
            }
            RolloutPhase::Running | RolloutPhase::Aborting => {
                let leg = self.legs.iter().find(|leg| leg.phase == LegPhase::Running);
                let text =
                    leg.map_or_else(|| self.late_text(), |leg| format!("leg {} is under way", leg.leg));
                if let Some(shut) = leg.and_then(|leg| self.only_a_gate(&leg.leg, now_ms)) {
                    return Some(shut);
                }
                if self.waits_for_baseline() {
                    return Some(self.baseline_duty(now_ms));
                }
                if let Some(late) = self.late_duty(now_ms) {
                    return Some(late);
                }
                Some(until_next(
                    Owner::Coordinator,
                    "leg",
                    text,
                    self.next_move(now_ms),
                ))
            }
            _ => None,
        }
    }

    /// Nothing begins, ends or is given up before a person says which store counts.
    fn doubt_duty(&self, now_ms: u64) -> Option<Duty> {
        let doubt = self.doubt().filter(|_| !self.is_final())?;
        let at = doubt.remind_at_ms.max(now_ms);
        Some(person(codes::STORE_RESTORED, doubt.text.clone(), at))
    }

    /// Behind the last leg: hosts that came back after it was settled, if there are any.
    fn late_text(&self) -> String {
        let rows = self.hosts.values().flat_map(super::HostMap::iter);
        let names: Vec<&str> = rows
            .filter(|(_, row)| row.in_flight() || row.phase.before_permit())
            .map(|(host, _)| self.name(host))
            .collect();
        match names.as_slice() {
            [] => "the next decision".to_owned(),
            [name] => format!("{name} goes on after its leg has ended"),
            [name, ..] => format!(
                "{} hosts go on after their leg has ended, first {name}",
                names.len()
            ),
        }
    }

    /// What a leg waits for; `None` when it is settled or ended.
    pub fn leg_duty(&self, leg: &LegRow, now_ms: u64) -> Option<Duty> {
        match leg.phase {
            LegPhase::Settled | LegPhase::Cancelled => return None,
            _ if self.is_doubted() && !self.is_final() => return self.doubt_duty(now_ms),
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
        let next = self.legs.iter().find(|other| other.phase != LegPhase::Settled);
        if next.is_some_and(|next| next.leg == leg.leg)
            && let Some(late) = self.late_duty(now_ms)
        {
            return Some(late);
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
            return Some(until_next(
                Owner::Coordinator,
                "earlier_leg",
                text,
                self.next_move(now_ms),
            ));
        }
        if self.waits_for_baseline() {
            return Some(self.baseline_duty(now_ms));
        }
        Some(until_next(
            Owner::Coordinator,
            "hosts",
            "its hosts",
            self.next_move(now_ms),
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
        let ended = matches!(row.phase, GroupPhase::Done | GroupPhase::Cancelled);
        if !ended && let Some(doubt) = self.doubt_duty(now_ms) {
            return Some(doubt);
        }
        if row.phase == GroupPhase::RolledBack || self.rollout.going_back.is_some() {
            let back = self.group_back_duty(leg, group, now_ms);
            if back.is_some() {
                return back;
            }
        }
        match row.phase {
            GroupPhase::Done | GroupPhase::Cancelled | GroupPhase::RolledBack => return None,
            _ if !self.is_final() && self.ends_with_rollout(leg, group) => {
                let text = "nothing more: none of its hosts begins, and it ends with the rollout";
                return Some(until_next(
                    Owner::Coordinator,
                    "ending",
                    text,
                    self.next_move(now_ms),
                ));
            }
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
                return Some(until_next(
                    Owner::Coordinator,
                    "earlier_leg",
                    format!("leg {} is not settled", before.leg),
                    self.next_move(now_ms),
                ));
            }
            let earlier = self
                .plan
                .groups
                .iter()
                .take_while(|other| other.name != group.name);
            let open = earlier.filter(|other| self.holds_up_others(leg, other)).last();
            let text = open.map_or_else(
                || "the next decision".to_owned(),
                |other| format!("group {} is not done", other.name),
            );
            return Some(until_next(
                Owner::Coordinator,
                "earlier_group",
                text,
                self.next_move(now_ms),
            ));
        }
        let tally = self.tally(leg, group, now_ms);
        let left = tally.left();
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
        if let Some(until) = Self::soaks_after_canaries(row, now_ms) {
            return Some(canary_soak(until, now_ms));
        }
        if tally.unheard > 0 && left == tally.unheard && tally.in_flight == 0 {
            let text = match tally.unheard {
                1 => "1 agent to connect again after the coordinator's start".to_owned(),
                agents => format!("{agents} agents to connect again after the coordinator's start"),
            };
            return Some(duty(Owner::Agent, "reconnect", text, self.absence_from_ms));
        }
        if let Some(until) = row.offline_until_ms.filter(|until| *until > now_ms) {
            let text = format!(
                "hosts that are away ({}), {} more",
                self.some_of(&self.away(leg, group)),
                duration_text(until.saturating_sub(now_ms))
            );
            return Some(duty(Owner::Agent, "offline", text, until));
        }
        let mut text = format!("{} under way, {} to begin", tally.in_flight, tally.to_begin);
        if tally.retried > 0 {
            text.push_str(&format!(", {} to be tried again", tally.retried));
        }
        if tally.later > 0 {
            text.push_str(&format!(", {} that can't be asked yet", tally.later));
        }
        let width = self.width(leg, group, &tally);
        if width < self.max_unavailable(leg, group) {
            text.push_str(&format!(", {width} at once in this step of the ramp"));
        }
        let own = self.next_move_of(leg, group, now_ms);
        let next = own.unwrap_or_else(|| self.next_move(now_ms));
        Some(until_next(Owner::Coordinator, "hosts", text, next))
    }

    /// Whether the groups after a group wait for it.
    pub(crate) fn holds_up_others(&self, leg: &LegId, group: &PlanGroup) -> bool {
        self.group(leg, &group.name)
            .is_some_and(|row| !matches!(row.phase, GroupPhase::Done | GroupPhase::RolledBack))
    }

    /// Where nothing is under way and the group whose turn it is waits for its window or a person, the whole rollout does.
    pub(super) fn only_a_gate(&self, leg: &LegId, now_ms: u64) -> Option<Duty> {
        if self.rollout.phase != RolloutPhase::Running {
            return None;
        }
        let mut groups = self.plan.groups.iter();
        let group = groups.find(|group| self.holds_up_others(leg, group))?;
        let tally = self.tally(leg, group, now_ms);
        let shut = self.group_duty(leg, group, now_ms);
        let shut = shut.filter(|duty| matches!(duty.code, "window" | "approval") && tally.in_flight == 0)?;
        Some(Duty {
            text: format!("group {}: {}", group.name, shut.text),
            ..shut
        })
    }

    pub(super) fn approval_duty(&self, row: &GroupRow, group: &PlanGroup, now_ms: u64) -> Duty {
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
        // A group that began is late before its window opens again.
        let late = row
            .deadline_ms
            .filter(|late| *late > now_ms && opens_ms.is_none_or(|opens| *late < opens))
            .filter(|_| row.phase != GroupPhase::Gated && self.rollout.phase == RolloutPhase::Running);
        if let Some(at_ms) = late {
            let what = "a person is asked because the group is late".to_owned();
            let next = Move { at_ms, what };
            return Some(until_next(Owner::Coordinator, "window", text, next));
        }
        Some(match opens_ms {
            Some(at) => duty(Owner::Coordinator, "window", text, *at),
            None => person("window", text, self.open_reminder(now_ms)),
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
        let turned = self.groups.iter().flat_map(|(leg, rows)| {
            let groups = self.plan.groups.iter();
            let turned = groups.filter(|group| {
                rows.get(&group.name)
                    .is_some_and(|row| row.phase != GroupPhase::Pending)
            });
            turned.map(move |group| (leg, group))
        });
        Moment {
            now_ms,
            next: self.next_move(now_ms),
            next_of: turned
                .filter_map(|(leg, group)| {
                    let next = self.next_move_of(leg, group, now_ms)?;
                    Some(((leg.clone(), group.name.clone()), next))
                })
                .collect(),
            tallies,
            census: self.census(now_ms),
        }
    }

    pub(crate) fn host_duty_at(&self, leg: &LegId, host: &HostId, moment: &Moment) -> Option<Duty> {
        let now_ms = moment.now_ms;
        let row = self.host(leg, host)?;
        if row.phase.is_final() || self.breaks(super::Mutant::NoReason) && row.phase == HostPhase::Ready {
            return None;
        }
        if let Some(doubt) = self.doubt_duty(now_ms) {
            return Some(doubt);
        }
        let own = self.end_of_host(host, row, now_ms);
        let group = || self.plan.group(&self.planned(host)?.group);
        let next = if row.back_wanted.is_some() {
            moment.next_of(leg, group())
        } else {
            &moment.next
        };
        let at = own.unwrap_or(next.at_ms).max(now_ms);
        let step = row
            .step
            .as_ref()
            .map(|step| format!("step {} ({} of {})", step.step, step.index, step.of));
        let duty = match row.phase {
            HostPhase::Preparing => {
                let what = row
                    .order
                    .as_ref()
                    .map_or("preflight", |order| order.action.as_str());
                duty(Owner::Agent, "preparing", format!("{what} on the host"), at)
            }
            HostPhase::Permitted => {
                let text = if row.is_called_back() {
                    "its answer: its permit is called back, and it did not say that it had begun"
                } else {
                    "it may begin and did not say yet that it did"
                };
                duty(Owner::Agent, "begin", text, at)
            }
            HostPhase::Switching => duty(
                Owner::Agent,
                "switching",
                step.unwrap_or_else(|| "the switch on the host".to_owned()),
                at,
            ),
            HostPhase::Verifying if row.inconclusive => self.verdict_duty(row, now_ms),
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
            _ => return Some(self.not_begun_duty(leg, host, row, moment)),
        };
        let of_another = own.is_none() && duty.deadline_ms.is_some();
        Some(Duty {
            next: of_another.then(|| next.what.clone()),
            ..duty
        })
    }

    /// A host that came to no verdict: a person was asked.
    fn verdict_duty(&self, row: &HostRow, now_ms: u64) -> Duty {
        let text = if self.is_unseen(row, now_ms) {
            "a verdict: the PMM Server can't be asked whether its new client works".to_owned()
        } else {
            format!("a verdict: it comes and goes: {}", row.reason)
        };
        person(
            "verdict",
            text.trim_end_matches([':', ' ']),
            self.held_reminder(now_ms),
        )
    }

    /// While the rollout is paused that is what a person is reminded of, with all that it holds up.
    fn held_reminder(&self, now_ms: u64) -> u64 {
        let paused = self.rollout.phase == RolloutPhase::Paused;
        let pause = self.rollout.pause.as_ref().filter(|_| paused);
        pause.map_or_else(
            || self.open_reminder(now_ms),
            |pause| pause.remind_at_ms.max(now_ms),
        )
    }

    fn next_reminder(&self, since_ms: u64, now_ms: u64) -> u64 {
        let every = self.plan.timing.reminder_ms.max(1);
        since_ms + (now_ms.saturating_sub(since_ms) / every + 1) * every
    }
}
