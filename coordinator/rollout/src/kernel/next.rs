//! What ends by itself next: for everything that waits for something else. The time and what happens then are one value, so that no
//! screen puts the one beside another's.

use super::Kernel;
use super::gates::Door;
use super::groups::waits_for_approval;
use super::state::{GroupPhase, GroupRow, HostPhase, HostRow, LegPhase, RolloutPhase};
use crate::plan::PlanGroup;
use crate::windows::{Opening, opening};
use fleet_common::ids::{HostId, LegId};

/// Something that ends by itself: when, and what happens then. The earliest comes first.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Move {
    /// When.
    pub at_ms: u64,
    /// What happens then, as in `then ...`.
    pub what: String,
}

fn at(at_ms: u64, what: impl Into<String>) -> Move {
    Move {
        at_ms,
        what: what.into(),
    }
}

impl Kernel {
    /// The earliest of all that end by themselves; the next decision when nothing runs against the clock.
    pub(crate) fn next_move(&self, now_ms: u64) -> Move {
        let hosts = self.hosts.iter();
        let hosts = hosts.flat_map(|(leg, rows)| rows.iter().map(move |(host, row)| (leg, host, row)));
        let host = self.earliest(hosts, now_ms);
        let others = self.next_of_server().chain(self.next_of_groups(now_ms));
        let checks = self
            .rollout
            .check_until_ms
            .filter(|_| self.rollout.phase == RolloutPhase::Checking)
            .map(|until| at(until, "the rollout ends with what the checks say"));
        others
            .chain(host)
            .chain(checks)
            .filter(|next| next.at_ms > now_ms)
            .min()
            .or_else(|| self.next_approval(now_ms))
            .unwrap_or_else(|| at(now_ms + 1_000, "the coordinator decides anew"))
    }

    /// The earliest that ends by itself among a group's own hosts and times, for what waits for these alone; `None` where nothing of its own
    /// runs against the clock.
    pub(crate) fn next_move_of(&self, leg: &LegId, group: &PlanGroup, now_ms: u64) -> Option<Move> {
        let hosts = group.hosts.iter();
        let hosts = hosts.filter_map(|host| Some((leg, host, self.host(leg, host)?)));
        let running = self
            .legs
            .iter()
            .any(|row| row.leg == *leg && row.phase == LegPhase::Running);
        let row = self.group(leg, &group.name).filter(|_| running);
        row.map_or_else(Vec::new, |row| self.next_of_group(leg, group, row, now_ms))
            .into_iter()
            .filter(|next| next.at_ms > now_ms)
            .chain(self.earliest(hosts, now_ms))
            .min()
    }

    /// The first of these hosts whose state ends by itself. Texts are made for it only: there may be ten thousand.
    fn earliest<'a>(
        &self,
        hosts: impl Iterator<Item = (&'a LegId, &'a HostId, &'a HostRow)>,
        now_ms: u64,
    ) -> Option<Move> {
        hosts
            // Who came to no verdict waits for a person.
            .filter(|(_, _, row)| !row.phase.is_final() && !row.inconclusive)
            .filter_map(|(leg, host, row)| Some((leg, host, row, self.next_of_host(host, row, now_ms)?)))
            .filter(|(.., at_ms)| *at_ms > now_ms)
            .min_by_key(|(_, host, _, at_ms)| (*at_ms, self.name(host)))
            .map(|(leg, host, row, at_ms)| at(at_ms, self.words_of_host(leg, host, row, now_ms)))
    }

    /// When a host's state ends in silence. Whoever is away is lost earlier than whoever only works long.
    pub(super) fn end_of_host(&self, host: &HostId, row: &HostRow, now_ms: u64) -> Option<u64> {
        let granted = matches!(
            row.phase,
            HostPhase::Permitted | HostPhase::Switching | HostPhase::RollingBack
        );
        let absent = granted.then(|| self.absent_since(host, now_ms)).flatten();
        let lost = absent.map(|since| since + self.plan.timing.lost_after_ms);
        row.deadline_ms.into_iter().chain(lost).min()
    }

    fn next_of_host(&self, host: &HostId, row: &HostRow, now_ms: u64) -> Option<u64> {
        self.end_of_host(host, row, now_ms).or(row.ask_at_ms)
    }

    pub(super) fn words_of_host(&self, leg: &LegId, host: &HostId, row: &HostRow, now_ms: u64) -> String {
        let name = self.name(host);
        if self.end_of_host(host, row, now_ms).is_none() {
            return format!("{name} is asked again");
        }
        let then = match row.phase {
            HostPhase::Preparing | HostPhase::Repointing => "is asked again",
            HostPhase::Verifying if self.is_unseen(row, now_ms) => "needs a person",
            HostPhase::Verifying => "goes back",
            HostPhase::Settling => "counts as upgraded",
            _ => "is given up",
        };
        let phase = row.phase.as_str().replace('_', " ");
        format!("{name} ({phase} in {leg}) {then}")
    }

    fn next_of_server(&self) -> impl Iterator<Item = Move> + '_ {
        let hops = self.legs.iter().flat_map(|leg| &leg.hops).filter_map(|hop| {
            let what = format!("the server's hop to {} counts as stuck", hop.to);
            Some(at(hop.deadline_ms?, what))
        });
        let running = self.legs.iter().filter(|leg| leg.phase == LegPhase::Running);
        let away = running.filter_map(move |leg| {
            let survey = leg.hops.is_empty() && self.leg_target(&leg.leg).is_none();
            let what = if survey {
                "hosts that are still away are asked again at their turn"
            } else {
                "hosts that are still away are left out"
            };
            Some(at(leg.offline_until_ms?, what))
        });
        hops.chain(away)
    }

    fn next_of_groups(&self, now_ms: u64) -> impl Iterator<Item = Move> + '_ {
        self.groups_of_running_legs()
            .flat_map(move |(leg, group, row)| self.next_of_group(leg, group, row, now_ms))
    }

    fn next_of_group(&self, leg: &LegId, group: &PlanGroup, row: &GroupRow, now_ms: u64) -> Vec<Move> {
        let name = &group.name;
        let mut moves = Vec::new();
        // A pause holds a soak that is over.
        if row.phase == GroupPhase::Soaking
            && let Some(until) = row.soak_until_ms
        {
            moves.push(at(until, format!("the soak of group {name} ends")));
        }
        if let Some(until) = Self::soaks_after_canaries(row, now_ms) {
            moves.push(at(
                until,
                format!("the wait after the canaries of group {name} ends"),
            ));
        }
        // Only a rollout that goes on looks at these.
        if self.rollout.phase != RolloutPhase::Running {
            return moves;
        }
        let ended = matches!(
            row.phase,
            GroupPhase::Done | GroupPhase::Cancelled | GroupPhase::RolledBack
        );
        if let Some(until) = row
            .deadline_ms
            .filter(|_| !ended && row.phase != GroupPhase::Gated)
        {
            moves.push(at(
                until,
                format!("a person is asked unless group {name} is done"),
            ));
        }
        if let Some(until) = row.offline_until_ms.filter(|_| !ended) {
            let what = format!("a person is asked about hosts of group {name} that are away");
            moves.push(at(until, what));
        }
        moves.extend(self.next_of_door(leg, group, row, now_ms));
        moves
    }

    /// When the window of a group that has hosts to begin opens or closes.
    fn next_of_door(&self, leg: &LegId, group: &PlanGroup, row: &GroupRow, now_ms: u64) -> Option<Move> {
        if group.windows.is_empty() && group.blackouts.is_empty() {
            return None;
        }
        if matches!(row.phase, GroupPhase::Pending | GroupPhase::Cancelled) || waits_for_approval(row, group)
        {
            return None;
        }
        let mut rows = group.hosts.iter().filter_map(|host| self.host(leg, host));
        if !rows.any(|row| row.phase.before_permit()) {
            return None;
        }
        if let Door::Shut { opens_ms, .. } = self.door(group, now_ms) {
            let opens = |at_ms| at(at_ms, format!("the hosts of group {} may begin", group.name));
            return opens_ms.map(opens);
        }
        match opening(&group.windows, &group.blackouts, now_ms) {
            Opening::Open { until_ms } => until_ms.map(|until| {
                let what = format!(
                    "the window of group {} closes; what is under way goes on",
                    group.name
                );
                at(until, what)
            }),
            Opening::Closed { .. } => None,
        }
    }

    /// Where only a person can move something, the reminder is what comes next.
    fn next_approval(&self, now_ms: u64) -> Option<Move> {
        self.groups_of_running_legs()
            .filter(|(_, group, row)| row.phase == GroupPhase::Gated && waits_for_approval(row, group))
            .filter_map(|(_, group, row)| {
                let reminder = self.approval_duty(row, group, now_ms).reminder_ms?;
                let what = format!(
                    "a person is reminded that group {} waits for approval",
                    group.name
                );
                Some(at(reminder.max(now_ms + 1_000), what))
            })
            .min()
    }

    fn groups_of_running_legs(&self) -> impl Iterator<Item = (&LegId, &PlanGroup, &GroupRow)> + '_ {
        let legs = self.legs.iter().filter(|leg| leg.phase == LegPhase::Running);
        legs.flat_map(move |leg| {
            let groups = self.plan.groups.iter();
            groups.filter_map(move |group| Some((&leg.leg, group, self.group(&leg.leg, &group.name)?)))
        })
    }
}
