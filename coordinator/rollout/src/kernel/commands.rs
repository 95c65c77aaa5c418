//! What the operator may say. A refused command changes nothing and says why.

use super::groups::waits_for_approval;
use super::rows::Key;
use super::state::{Abort, GroupPhase, HostPhase, HostRow, LegPhase, RolloutPhase};
use super::stranded::{LOSE_SERVER, STAY_BEHIND, STRANDED};
use super::{Accepted, Command, Kernel, Refusal, RollbackTarget};
use fleet_common::ids::{GroupName, HostId, LegId};
use std::collections::BTreeSet;
use std::sync::Arc;

pub(super) type Answer = Result<Accepted, Refusal>;

pub(super) fn accepted(text: impl Into<String>) -> Answer {
    Ok(Accepted { text: text.into() })
}

pub(super) fn refused(code: &str, reason: impl Into<String>, hint: impl Into<String>) -> Answer {
    Err(Refusal {
        code: code.to_owned(),
        reason: reason.into(),
        hint: hint.into(),
    })
}

impl std::fmt::Display for Command {
    /// As it is typed, with its reason: for the log and the audit.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&typed(self))
    }
}

fn typed(command: &Command) -> String {
    let because = |text: String, reason: &str| {
        if reason.is_empty() {
            text
        } else {
            format!("{text} ({reason})")
        }
    };
    let option = |name: &str, number: &Option<u32>| {
        number.map_or_else(String::new, |number| format!(" {name} {number}"))
    };
    match command {
        Command::Start { accept_unmatched } => {
            let accepted = accept_unmatched
                .iter()
                .map(|name| format!(" --accept-unmatched {name}"));
            format!("start{}", accepted.collect::<String>())
        }
        Command::Pause { reason } => because("pause".to_owned(), reason),
        Command::Resume {
            reason,
            accept_server,
        } => {
            let option = if *accept_server { " --accept-server" } else { "" };
            because(format!("resume{option}"), reason)
        }
        Command::Abort { reason, force } => {
            let option = if *force { " --force" } else { "" };
            because(format!("abort{option}"), reason)
        }
        Command::Retry { hosts, server } => {
            let server = if *server { " --server" } else { "" };
            let hosts: String = hosts.iter().map(|host| format!(" {host}")).collect();
            format!("retry{server}{hosts}")
        }
        Command::Hold { host, reason } => because(format!("host hold {host}"), reason),
        Command::Unhold { host } => format!("host unhold {host}"),
        Command::FreeSlot { host, reason } => because(format!("host free-slot {host}"), reason),
        Command::Approve { group } => format!("approve {group}"),
        Command::Limit {
            group,
            max_unavailable,
            failure_threshold,
            reason,
        } => {
            let slots = option("--max-unavailable", max_unavailable);
            let failures = option("--failure-threshold", failure_threshold);
            because(format!("limit {group}{slots}{failures}"), reason)
        }
        Command::Rollback { target, reason } => {
            let target = match target {
                RollbackTarget::Host(host) => format!("host {host}"),
                RollbackTarget::Group(group) => format!("group {group}"),
                RollbackTarget::Clients => "clients".to_owned(),
            };
            because(format!("rollback {target}"), reason)
        }
        Command::Accept { host, reason } => because(format!("accept {host}"), reason),
        Command::Skip { host, reason } => because(format!("skip {host}"), reason),
    }
}

impl Kernel {
    pub(super) fn command(&mut self, by: &str, command: Command, now_ms: u64) -> Answer {
        let what = format!("{by}: {command}");
        let answer = match command {
            ref begins if self.refuses_while_doubted(begins) => self.not_adopted(),
            Command::Start { accept_unmatched } => self.start(&accept_unmatched, now_ms),
            Command::Pause { reason } => self.pause_by(by, &reason, now_ms),
            Command::Resume {
                reason,
                accept_server,
            } => self.resume(by, &reason, accept_server, now_ms),
            Command::Abort { reason, force } => self.abort(by, reason, force, now_ms),
            Command::Retry { hosts, server } => self.retry(&hosts, server, now_ms),
            Command::Hold { host, reason } => {
                self.find(&host).and_then(|host| self.hold(&host, reason, now_ms))
            }
            Command::Unhold { host } => self.find(&host).and_then(|host| self.unhold(&host, now_ms)),
            Command::FreeSlot { host, reason } => self
                .find(&host)
                .and_then(|host| self.free_slot(&host, &reason, now_ms)),
            Command::Approve { group } => self.approve(by, &group, now_ms),
            Command::Rollback { target, reason } => self.rollback(by, &target, &reason, now_ms),
            Command::Accept { host, reason } => self
                .find(&host)
                .and_then(|host| self.accept_host(by, &host, &reason, now_ms)),
            Command::Skip { host, reason } => self
                .find(&host)
                .and_then(|host| self.skip(&host, &reason, now_ms)),
            Command::Limit {
                group,
                max_unavailable,
                failure_threshold,
                reason,
            } => self.limit(&group, max_unavailable, failure_threshold, &reason, now_ms),
        };
        let result = match &answer {
            Ok(done) => done.text.clone(),
            Err(refusal) => format!("refused: {}", refusal.reason),
        };
        self.event(now_ms, "rollout", "operator", format!("{what}: {result}"));
        answer
    }

    pub(super) fn find(&self, text: &str) -> Result<HostId, Refusal> {
        self.plan
            .find_host(text)
            .map(|host| host.host.clone())
            .ok_or_else(|| Refusal {
                code: "unknown_host".to_owned(),
                reason: format!("the plan has no host `{text}`"),
                hint: "`plan show` lists them".to_owned(),
            })
    }

    fn start(&mut self, accept: &[String], now_ms: u64) -> Answer {
        if self.rollout.phase != RolloutPhase::Planned {
            return refused(
                "already_started",
                "this rollout was started already",
                "see `status`",
            );
        }
        if let Some(blocker) = self.plan.blockers.first() {
            return refused(
                "blocked",
                format!(
                    "the server's preflight failed: {}: {}",
                    blocker.check, blocker.message
                ),
                blocker.hint.clone(),
            );
        }
        let accept: BTreeSet<String> = accept.iter().cloned().collect();
        let behind: BTreeSet<&str> = self
            .plan
            .unmatched
            .iter()
            .map(|client| client.name.as_str())
            .collect();
        let stranded: BTreeSet<&str> = self
            .plan
            .stranded
            .iter()
            .map(|client| client.name.as_str())
            .collect();
        let open = |names: &BTreeSet<&str>| -> Vec<String> {
            let open = names.iter().filter(|name| !accept.contains(**name));
            open.map(|name| (*name).to_owned()).collect()
        };
        let (left, lost) = (open(&behind), open(&stranded));
        if !left.is_empty() {
            let reason = format!("{STAY_BEHIND}: {}", left.join(", "));
            return refused(
                "unmatched",
                reason,
                "install the agent there and plan again, or accept each by name with --accept-unmatched",
            );
        }
        if !lost.is_empty() {
            let reason = format!("{LOSE_SERVER}: {}", lost.join(", "));
            return refused(
                "stranded",
                reason,
                "see `plan show`; repair it and plan again, or accept each by name with --accept-unmatched",
            );
        }
        let known = |name: &String| behind.contains(name.as_str()) || stranded.contains(name.as_str());
        if let Some(unknown) = accept.iter().find(|name| !known(name)) {
            return refused(
                "unknown_client",
                format!("the plan lists no client `{unknown}` that must be accepted"),
                "`plan show` lists them",
            );
        }
        self.rollout.accepted_unmatched = accept;
        self.rollout.started_at_ms = Some(now_ms);
        self.next_epoch();
        self.set_rollout(RolloutPhase::Running, "started", now_ms);
        accepted("started")
    }

    pub(super) fn next_epoch(&mut self) {
        self.rollout.epoch.counter += 1;
        self.dirty.insert(Key::Rollout);
    }

    fn pause_by(&mut self, by: &str, reason: &str, now_ms: u64) -> Answer {
        let text = if reason.is_empty() {
            "paused by the operator"
        } else {
            reason
        };
        if self.pause("operator", text, "`resume` or `abort`", by, now_ms) {
            if self.breaks(super::Mutant::PauseTouchesWork) {
                let rows = self.hosts.values_mut().flat_map(|rows| rows.values_mut());
                rows.filter(|row| row.phase.in_flight())
                    .for_each(|row| row.deadline_ms = None);
            }
            let text = if self.rollout.going_back.is_some() {
                "no further host is told to go back; what is under way goes on"
            } else {
                "no host and no hop begins; what is under way goes on"
            };
            return accepted(text);
        }
        let (text, hint) = self.why_not_paused();
        refused("not_running", text, hint)
    }

    /// Why a pause changes nothing: what is the case instead, and what to do about that.
    fn why_not_paused(&self) -> (String, &'static str) {
        match self.rollout.phase {
            RolloutPhase::Planned => (
                "it was not started: nothing begins before `start`".to_owned(),
                "see `plan show`",
            ),
            RolloutPhase::Paused => {
                let text = self.rollout.pause.as_ref().map_or_else(
                    || "it is paused already".to_owned(),
                    |pause| format!("it is paused already by {}: {}", pause.by, pause.text),
                );
                (text, "see `explain` for the ways on")
            }
            RolloutPhase::Aborting => (
                "it is being aborted: nothing begins any more, and what is under way finishes".to_owned(),
                "see `status` for what is under way",
            ),
            phase if phase.is_final() => ("it has ended: nothing is under way".to_owned(), "see `report`"),
            _ => (
                "nothing is running that could be paused".to_owned(),
                "see `status`",
            ),
        }
    }

    fn resume(&mut self, by: &str, reason: &str, accept_server: bool, now_ms: u64) -> Answer {
        let Some(pause) = self
            .rollout
            .pause
            .clone()
            .filter(|_| self.rollout.phase == RolloutPhase::Paused)
        else {
            return refused("not_paused", "the rollout is not paused", "see `status`");
        };
        self.let_the_taken_back_begin();
        if accept_server {
            if !self.accept_unsettled_server(now_ms) {
                return refused(
                    "nothing_to_accept",
                    "the server leg does not wait for clients to come back",
                    "see `explain server`",
                );
            }
        } else if self.waits_for_clients().is_some() {
            return refused(
                "server_not_settled",
                format!("no client came back to the server: {}", pause.text),
                "`retry --server` waits and looks again, `resume --accept-server` goes on without them, or `abort`",
            );
        }
        if self.is_server_stuck() {
            return refused(
                "server_not_settled",
                format!("the server leg did not settle: {}", pause.text),
                "`retry --server`, or `abort`",
            );
        }
        if let Some(before) = self.end_earlier_pause(now_ms) {
            return accepted(format!(
                "the pause of {} is over; still paused: {}; {}",
                before.by, pause.text, "`resume` once more goes on from that",
            ));
        }
        self.accept_failures(&pause.code, now_ms);
        self.look_again(now_ms);
        self.go_on(&format!("resumed by {by} {reason}"), now_ms);
        accepted("resumed")
    }

    /// Resuming means that what the pause tells of is known, and nothing else: a failure that it does not show pauses again, for itself.
    fn accept_failures(&mut self, code: &str, now_ms: u64) {
        if code == "survey"
            && let Some(leg) = self.legs.first()
        {
            let failed = self.hosts[&leg.leg]
                .iter()
                .filter(|(_, row)| row.counts)
                .map(|(host, _)| host.clone());
            self.rollout.accepted.extend(failed.collect::<Vec<_>>());
            self.accept_unsurveyed(now_ms);
        }
        if code == "bridge_incomplete" {
            self.accept_behind();
        }
        if code == STRANDED {
            self.accept_stranded();
        }
        if code == "repoint" {
            self.accept_left_behind(now_ms);
        }
        if code == "offline" {
            self.accept_absence(now_ms);
        }
        let any = self.breaks(super::Mutant::ForgivesAtAnyPause);
        if code != "threshold" && !any {
            return;
        }
        let plan = std::sync::Arc::clone(&self.plan);
        // What the whole rollout does not tolerate may have failed in any leg.
        let all = self.rollout_breach_text().is_some() || any;
        let everybody = self.breaks(super::Mutant::ForgivesAll);
        for leg in &plan.legs {
            for group in &plan.groups {
                let Some(row) = self.group(&leg.id, &group.name) else {
                    continue;
                };
                let breached = row.phase == GroupPhase::Breached;
                // One that was taken back since the pause told of it.
                let taken_back = row.phase == GroupPhase::RolledBack
                    && self.tally(&leg.id, group, now_ms).failures > self.failure_threshold(&leg.id, group);
                if !all && !breached && !taken_back {
                    continue;
                }
                let failed: Vec<HostId> = group
                    .hosts
                    .iter()
                    .filter(|host| everybody || self.host(&leg.id, host).is_some_and(|row| row.counts))
                    .cloned()
                    .collect();
                self.edit_group(&leg.id, &group.name, |row| row.forgiven.extend(failed));
                if breached {
                    self.reopen(&leg.id, group, now_ms);
                }
            }
        }
    }

    pub(super) fn go_on(&mut self, text: &str, now_ms: u64) {
        let phase = self.rollout.before_pause.take().unwrap_or(RolloutPhase::Running);
        self.rollout.pause = None;
        self.extend_deadlines(now_ms);
        self.next_epoch();
        if self
            .legs
            .first()
            .is_some_and(|leg| leg.phase == LegPhase::Running)
        {
            // The baseline is the view from right before the first change.
            self.baseline = None;
            self.find_unlisted();
            self.dirty.insert(Key::Baseline);
        }
        self.set_rollout(phase, text.trim(), now_ms);
    }

    pub(super) fn abort(&mut self, by: &str, reason: String, force: bool, now_ms: u64) -> Answer {
        match (&self.rollout.abort, self.rollout.phase) {
            (_, phase) if phase.is_final() => {
                return refused("ended", "the rollout has ended", "see `report`");
            }
            (Some(earlier), _) if earlier.force || !force => {
                return refused("aborting", "the rollout is being aborted already", "see `status`");
            }
            _ => {}
        }
        // One that is made harder still has the reason that it began with.
        let reason = match &self.rollout.abort {
            Some(earlier) => format!("{reason}; first aborted by {}: {}", earlier.by, earlier.reason),
            None => reason,
        };
        self.rollout.abort = Some(Abort {
            by: by.to_owned(),
            reason,
            force,
            at_ms: now_ms,
        });
        self.rollout.pause = None;
        self.rollout.before_pause = None;
        if !self.breaks(super::Mutant::AbortKeepsEpoch) {
            self.next_epoch();
        }
        self.set_rollout(
            RolloutPhase::Aborting,
            if force { "aborted by force" } else { "aborted" },
            now_ms,
        );
        let permitted: Vec<(LegId, HostId)> = self
            .hosts
            .iter()
            .flat_map(|(leg, rows)| {
                rows.iter()
                    .filter(|(_, row)| row.phase == HostPhase::Permitted)
                    .map(move |(host, _)| (leg.clone(), host.clone()))
            })
            .collect();
        for (leg, host) in permitted {
            self.raise_epoch(&leg, &host);
        }
        if force {
            self.cancel_server();
        }
        accepted(if force {
            "hosts that are not verified go back; a server hop stops at the next safe point"
        } else {
            "nothing begins any more; what is under way finishes"
        })
    }

    pub(super) fn cancel_server(&mut self) {
        let open = self.open_hop().and_then(|(_, hop)| hop.order.clone());
        self.out.cancel_server.extend(open);
    }

    /// A permit that was not used is called back. Whoever is under way finishes.
    fn hold(&mut self, host: &HostId, reason: String, now_ms: u64) -> Answer {
        self.set_hold(host, now_ms, |hold| hold.operator = Some(reason));
        let under_way = self
            .hosts
            .values()
            .filter_map(|rows| rows.get(host))
            .find(|row| row.phase.in_flight() || has_permit(row))
            .map(|row| {
                if has_permit(row) {
                    HostPhase::Permitted
                } else {
                    row.phase
                }
            });
        if under_way == Some(HostPhase::Permitted) {
            self.call_back(host);
        }
        let name = self.name(host);
        accepted(match under_way {
            Some(HostPhase::Permitted) => format!(
                "{name} has a permit, which is called back: if it began before that reaches it, it finishes; else it does not begin until the \
                 hold is lifted"
            ),
            Some(phase) => format!(
                "{name} is {} and goes on; nothing else begins there until the hold is lifted",
                phase.as_str().replace('_', " ")
            ),
            None => format!("{name} does not begin until the hold is lifted"),
        })
    }

    /// Nothing that was permitted to a host and did not begin begins there any more. An abort did that already.
    fn call_back(&mut self, host: &HostId) {
        if self.rollout.abort.is_some() {
            return;
        }
        // With a store in doubt no epoch is above those that hosts have seen; the order itself is not given again.
        let doubted = self.is_doubted();
        if !doubted {
            self.next_epoch();
        }
        let permitted = |leg: &&LegId| self.host(leg, host).is_some_and(has_permit);
        let legs: Vec<LegId> = self.hosts.keys().filter(permitted).cloned().collect();
        for leg in legs {
            self.edit(&leg, host, |row| {
                if let Some(order) = &mut row.order {
                    order.called_back = true;
                }
            });
            if !doubted {
                self.raise_epoch(&leg, host);
            }
        }
    }

    fn unhold(&mut self, host: &HostId, now_ms: u64) -> Answer {
        let hold = self.holds.get(host).cloned().unwrap_or_default();
        let name = self.name(host).to_owned();
        if let (None, Some(reason)) = (&hold.operator, &hold.host) {
            return refused(
                "held_on_host",
                format!("{name} is held on the host itself: {reason}"),
                "lift it there with `pmm-upgrade-agent unhold`",
            );
        }
        self.set_hold(host, now_ms, |hold| hold.operator = None);
        accepted(match hold.host {
            Some(reason) => format!(
                "the operator's hold of {name} is lifted; it is still held on the host itself: {reason}; lift that there with \
                 `pmm-upgrade-agent unhold`"
            ),
            None => format!("the hold of {name} is lifted"),
        })
    }

    fn free_slot(&mut self, host: &HostId, reason: &str, now_ms: u64) -> Answer {
        let rows = self.hosts.iter();
        let holding: Vec<(LegId, HostPhase)> = rows
            .filter_map(|(leg, rows)| Some((leg.clone(), rows.get(host)?)))
            .filter(|(_, row)| row.slot)
            .map(|(leg, row)| (leg, row.phase))
            .collect();
        if holding.is_empty() {
            return refused(
                "no_slot",
                format!("{} holds no slot", self.name(host)),
                "see `status`",
            );
        }
        // One that is to be tried again keeps its slot from before and has not begun anew; held or away it might wait for ever.
        let frees = self.breaks(super::Mutant::FreesSlotUnderWay);
        let begun_anew = |phase: &HostPhase| !phase.before_permit() && !phase.is_final() && !frees;
        if let Some((_, phase)) = holding.iter().find(|(_, phase)| begun_anew(phase)) {
            return refused(
                "under_way",
                format!("{} is {}", self.name(host), phase.as_str()),
                "wait until it ends, or pause",
            );
        }
        for (leg, _) in &holding {
            self.edit(leg, host, |row| {
                row.slot = false;
                row.broken = false;
            });
        }
        let text = format!("the slot of {} was freed: {reason}", self.name(host));
        self.event(now_ms, format!("host:{host}"), "slot_freed", text.clone());
        accepted(text)
    }

    fn approve(&mut self, by: &str, group: &str, now_ms: u64) -> Answer {
        let plan = Arc::clone(&self.plan);
        let Some(planned) = plan.group(&GroupName::new(group)) else {
            return refused(
                "unknown_group",
                format!("the plan has no group `{group}`"),
                "`plan show` lists them",
            );
        };
        let name = planned.name.clone();
        let rows = || {
            self.groups
                .iter()
                .filter_map(|(leg, rows)| Some((leg, rows.get(&name)?)))
        };
        let ends = self.is_final() || self.rollout.abort.is_some() || self.rollout.going_back.is_some();
        let gated = rows()
            .filter(|(_, row)| !ends && row.phase == GroupPhase::Gated && waits_for_approval(row, planned))
            .map(|(leg, _)| leg.clone())
            .next();
        let Some(leg) = gated else {
            let approved = rows().find_map(|(_, row)| row.approved_by.clone());
            let why = match approved {
                _ if ends => "none of its hosts begins any more".to_owned(),
                _ if !planned.approval => "the fleet file wants none for it".to_owned(),
                Some(by) => format!("{by} gave it"),
                None => "its turn has not come".to_owned(),
            };
            return refused(
                "not_gated",
                format!("group {name} waits for no approval: {why}"),
                "see `status`",
            );
        };
        let forgotten = self.breaks(super::Mutant::ApprovalForgotten);
        self.edit_group(&leg, &name, |row| {
            row.approved_by = (!forgotten).then(|| by.to_owned())
        });
        let text = format!("group {name} was approved");
        self.event(now_ms, format!("group:{name}"), "group_approved", text.clone());
        accepted(text)
    }

    fn skip(&mut self, host: &HostId, reason: &str, now_ms: u64) -> Answer {
        let open: Vec<LegId> = self
            .hosts
            .iter()
            .filter(|(_, rows)| rows.get(host).is_some_and(|row| row.phase.before_permit()))
            .map(|(leg, _)| leg.clone())
            .collect();
        if open.is_empty() {
            return refused(
                "not_waiting",
                format!("{} does not wait for its turn", self.name(host)),
                "see `explain`",
            );
        }
        let why = format!("skipped by the operator: {reason}");
        let mut lost = "";
        for leg in &open {
            if self.leave_lost(leg, host, &why, now_ms) {
                lost = "; it stays lost: nothing is known of its client since an earlier permit";
                continue;
            }
            self.enter(leg, host, HostPhase::Skipped, now_ms, |row| {
                row.slot = row.broken;
                row.reason = row.after_failure(&why);
            });
        }
        accepted(format!("{} is left out{lost}", self.name(host)))
    }
}

/// Whether it has a permit that it is not known to have used. One that was lost with it may return before the permit's time is over.
fn has_permit(row: &HostRow) -> bool {
    let lost = row.phase == HostPhase::Lost && row.lost_in == Some(HostPhase::Permitted);
    row.phase == HostPhase::Permitted || lost && row.order.is_some()
}
