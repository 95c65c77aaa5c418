//! Trying again: a new attempt of the server leg and of hosts.

use super::Kernel;
use super::commands::{Answer, accepted, refused};
use super::rows::Key;
use super::state::{GroupPhase, HostPhase, HostRow, LegPhase, RolloutPhase};
use fleet_common::ids::{HostId, LegId};
use std::collections::BTreeSet;
use std::sync::Arc;

impl Kernel {
    pub(super) fn retry(&mut self, hosts: &[String], server: bool, now_ms: u64) -> Answer {
        if !self.may_retry() {
            return refused(
                "not_running",
                "only a rollout that was started and not aborted can try again",
                "make a new plan",
            );
        }
        let all = hosts.is_empty() && !server;
        let Some(leg) = self.leg_to_retry() else {
            return refused("nothing_failed", "the rollout has no hosts", "");
        };
        let wanted: BTreeSet<HostId> = hosts
            .iter()
            .map(|text| self.find(text))
            .collect::<Result<_, _>>()?;
        let again: Vec<HostId> = self.hosts[&leg]
            .iter()
            .filter(|(host, row)| {
                if all {
                    self.is_taken_unnamed(host, row)
                } else {
                    wanted.contains(*host)
                }
            })
            .map(|(host, _)| host.clone())
            .collect();
        for host in &wanted {
            let Some(row) = self.host(&leg, host) else {
                return refused(
                    "not_now",
                    format!(
                        "{} has nothing to do in {leg}, which is the leg under way",
                        self.name(host)
                    ),
                    "make a new plan when this rollout has ended",
                );
            };
            if self.is_lost_and_away(host, row) {
                let hint = if row.is_awaited() {
                    "it goes on by itself when it returns; `host free-slot` lets others begin meanwhile"
                } else {
                    "`retry` it when it is back; `host free-slot` lets others begin meanwhile"
                };
                return refused("away", format!("{} is lost and away", self.name(host)), hint);
            }
            if let Some((earlier, row)) = self.open_before(&leg, host) {
                let (code, is) = match row.phase {
                    HostPhase::Lost => ("away", "lost"),
                    _ => ("under_way", "under way"),
                };
                return refused(
                    code,
                    format!("{} is {is} in {earlier}", self.name(host)),
                    "what it was told there ends first, by itself when it is back; then `retry` it",
                );
            }
            if !self.is_retryable(host, row) {
                return refused(
                    "not_failed",
                    format!(
                        "{} is {} and can't be tried again",
                        self.name(host),
                        row.phase.as_str().replace('_', " ")
                    ),
                    instead(row.phase),
                );
            }
        }
        let later: Vec<LegId> = self
            .legs
            .iter()
            .skip_while(|row| row.leg != leg)
            .skip(1)
            .map(|row| row.leg.clone())
            .collect();
        for host in &again {
            self.try_again(&leg, host, now_ms);
            // `skip` leaves it out of all legs.
            for later in &later {
                if self
                    .host(later, host)
                    .is_some_and(|row| row.phase == HostPhase::Skipped)
                {
                    self.ask_anew(later, host, "tried again", now_ms);
                }
            }
        }
        let server_again = (server || all) && self.retry_server(now_ms);
        if again.is_empty() && !server_again {
            return refused(
                "nothing_failed",
                "nothing failed that could be tried again",
                "see `status`",
            );
        }
        // With a server leg that is still stuck nothing would move: the pause stays, and its reminders.
        let stuck = self.is_server_stuck();
        let pause = self.rollout.pause.as_ref();
        let mut stays = None;
        if self.rollout.phase == RolloutPhase::Paused
            && !stuck
            && pause.is_some_and(|pause| pause.code != "operator")
        {
            if !self.dealt_with("retried", now_ms) {
                stays = Some("; still paused, as an operator wants it");
            }
        } else if self.rollout.phase.is_final() {
            self.rollout.ended_at_ms = None;
            self.rollout.keeping_since_ms = None;
            self.next_epoch();
            self.set_rollout(RolloutPhase::Running, "retried", now_ms);
        }
        let hosts = match again.len() {
            0 => None,
            1 => Some("1 host".to_owned()),
            number => Some(format!("{number} hosts")),
        };
        let server = server_again.then(|| "the server leg".to_owned());
        let all: Vec<String> = server.into_iter().chain(hosts).collect();
        let stays = stays.unwrap_or_default();
        accepted(format!("a new attempt for {}{stays}", all.join(" and ")))
    }

    fn may_retry(&self) -> bool {
        self.rollout.phase != RolloutPhase::Planned
            && self.rollout.abort.is_none()
            && self.rollout.going_back.is_none()
    }

    /// What `retry` without names takes: what failed, and the hosts that the pause is about. A lost host goes on by itself.
    fn is_taken_unnamed(&self, host: &HostId, row: &HostRow) -> bool {
        let about = self.rollout.pause.as_ref().map(|pause| pause.code.as_str());
        let wanted = match about {
            Some("rollback") => row.taken_back && row.phase == HostPhase::RolledBack,
            Some("bridge_incomplete") => {
                row.phase.is_final() && !row.made_it() && self.is_retryable(host, row)
            }
            _ => false,
        };
        row.phase != HostPhase::Lost && (row.counts || wanted)
    }

    fn is_retryable(&self, host: &HostId, row: &HostRow) -> bool {
        let planned = self
            .planned(host)
            .is_some_and(|planned| planned.action == crate::plan::HostAction::Upgrade);
        planned
            && (row.counts
                || matches!(
                    row.phase,
                    HostPhase::RolledBack | HostPhase::Skipped | HostPhase::Refused
                ))
    }

    /// Whether `retry` without names does something now.
    pub(crate) fn retries_unnamed(&self) -> bool {
        let leg = self.leg_to_retry();
        let takes = |leg: &LegId| {
            let mut rows = self.hosts[leg].iter();
            rows.any(|(host, row)| self.is_taken_unnamed(host, row))
        };
        self.may_retry() && (self.is_server_stuck() || leg.as_ref().is_some_and(takes))
    }

    /// Whether `retry` with this name is taken now.
    pub(crate) fn retries(&self, host: &HostId) -> bool {
        let leg = self.leg_to_retry();
        let row = leg.as_ref().and_then(|leg| self.host(leg, host));
        self.may_retry()
            && row.is_some_and(|row| self.is_retryable(host, row) && !self.is_lost_and_away(host, row))
            && leg.is_some_and(|leg| self.open_before(&leg, host).is_none())
    }

    /// The earlier client leg whose order to a host is not answered, and its row: a host works at one order at a time, and one that is lost
    /// goes on with that order when it returns.
    fn open_before(&self, leg: &LegId, host: &HostId) -> Option<(&LegId, &HostRow)> {
        let earlier = self.client_rows().take_while(|(row, _)| row.leg != *leg);
        let mut rows = earlier.filter_map(|(earlier, rows)| Some((&earlier.leg, rows.get(host)?)));
        rows.find(|(_, row)| row.phase.in_flight() || row.is_awaited())
    }

    fn is_lost_and_away(&self, host: &HostId, row: &HostRow) -> bool {
        row.phase == HostPhase::Lost && !self.is_connected(host)
    }

    /// Whether the server leg does not go on without a person.
    pub(crate) fn is_server_stuck(&self) -> bool {
        self.legs.iter().any(|leg| {
            matches!(
                leg.phase,
                LegPhase::Restored | LegPhase::Refused | LegPhase::NeedsOperator
            )
        })
    }

    /// The leg under way. A server leg that did not begin waits for the clients before it, and after the end only the last clients can go on.
    fn leg_to_retry(&self) -> Option<LegId> {
        let under_way = self.legs.iter().position(|leg| leg.phase != LegPhase::Settled);
        let clients = |end: usize| {
            let mut legs = self.legs[..end].iter().rev();
            legs.find(|row| !self.groups[&row.leg].is_empty())
        };
        let leg = match under_way {
            Some(at) if self.legs[at].phase == LegPhase::Waiting => clients(at).or(self.legs.get(at)),
            Some(at) => self.legs.get(at),
            None => clients(self.legs.len()),
        };
        leg.map(|row| row.leg.clone())
    }

    /// Whoever is tried again in a client leg must have followed the server first.
    fn follow_again(&mut self, leg: &LegId, host: &HostId, now_ms: u64) {
        self.rollout.left_at_old_address.remove(host);
        self.dirty.insert(Key::Rollout);
        let behind: Vec<LegId> = self
            .legs
            .iter()
            .filter(|row| row.leg != *leg && !row.hops.is_empty())
            .filter(|row| {
                self.host(&row.leg, host)
                    .is_some_and(|row| row.phase.is_final() && row.phase != HostPhase::Repointed)
            })
            .map(|row| row.leg.clone())
            .collect();
        for earlier in behind {
            self.ask_anew(&earlier, host, "tried again", now_ms);
            self.edit(&earlier, host, |row| row.expired = 0);
        }
    }

    fn try_again(&mut self, leg: &LegId, host: &HostId, now_ms: u64) {
        // Without a working client it goes on occupying its slot until it is verified. One that was lost is lost again if it leaves before.
        self.edit(leg, host, |row| {
            row.broken = row.slot;
            row.lost_before_ms = match row.phase {
                HostPhase::Lost => row.permitted_at_ms,
                _ => row.lost_before_ms,
            };
        });
        self.ask_anew(leg, host, "tried again", now_ms);
        self.edit(leg, host, |row| {
            row.staged = false;
            row.expired = 0;
            row.retried.clear();
        });
        self.rollout.accepted.remove(host);
        self.rollout.accepted_unsurveyed.remove(host);
        self.rollout.behind_accepted.remove(host);
        self.follow_again(leg, host, now_ms);
        let plan = Arc::clone(&self.plan);
        let group = self.planned(host).and_then(|planned| plan.group(&planned.group));
        let Some(group) = group else { return };
        self.edit_group(leg, &group.name, |row| {
            row.forgiven.remove(host);
        });
        let Some(phase) = self.group(leg, &group.name).map(|row| row.phase) else {
            return;
        };
        let stands = matches!(phase, GroupPhase::Breached | GroupPhase::RolledBack);
        let ended = matches!(phase, GroupPhase::Soaking | GroupPhase::Done);
        // The groups after it wait for whoever is tried again, and it soaks anew.
        if stands || ended && !self.breaks(super::Mutant::RetriesBehind) {
            self.reopen(leg, group, now_ms);
        }
    }
}

/// What is left to do about a host that did not fail.
fn instead(phase: HostPhase) -> &'static str {
    match phase {
        phase if phase.before_permit() => "it has its turn still to come: see `explain`",
        phase if phase.in_flight() => {
            "nothing has to be done: it is under way, and only a host that failed is tried again"
        }
        HostPhase::Cancelled | HostPhase::Lost | HostPhase::Inconsistent => {
            "see `explain` for what can be done"
        }
        phase if phase.made_it() => {
            "it runs the target and is verified; only a host that failed is tried again"
        }
        _ => "make a new plan if the plan itself refuses it",
    }
}
