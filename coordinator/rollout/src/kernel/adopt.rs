//! A child plan takes over a running rollout: hosts that came late, groups, other numbers.
//!
//! The child speaks for what did not begin. What began or ended keeps the part that it began with: rows `kept/<host>` and `adopted` are
//! laid over the child, when it is adopted and at each restore. A number that a person reduced stays reduced, unless the child's policy allows
//! more than that of the plan before it would for the same hosts: only then somebody asked for more.

use super::commands::{Answer, accepted, refused};
use super::rows::{Key, client_row, fresh, fresh_group};
use super::spread::Spread;
use super::state::{GroupPhase, Hold, HostPhase, HostRow, LegPhase, Limits, RolloutPhase};
use super::{Accepted, Kernel, Link, Refusal};
use crate::plan::{GroupRule, Hop, HostAction, Leg, LegKind, Plan, PlanGroup, PlanHost, Running, plan_id};
use fleet_common::ids::{GroupName, HostId, LegId, PlanId};
use fleet_common::version::PmmVersion;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Row `adopted`: what stays of the plans before the one that runs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Adopted {
    /// The plan that this belongs to.
    pub plan: PlanId,
    /// All legs, also those that are behind; clients' entries are the adopted plan's.
    legs: Vec<Leg>,
    /// Groups in their order, without hosts; where the adopted plan has the group its numbers count.
    groups: Vec<PlanGroup>,
    /// Release of the server when the rollout began; the adopted plan knows only what runs by now.
    #[serde(default)]
    from: Option<PmmVersion>,
    /// When it took over; hosts that came with it have no baseline from before.
    #[serde(default)]
    pub at_ms: u64,
}

/// Row `kept/<host>`: the part of a host that began, or that the adopted plan does not have.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Kept {
    planned: PlanHost,
    entries: BTreeMap<LegId, String>,
    /// It did not begin and left the plan; a later plan may bring it back.
    left: bool,
}

fn open(row: &HostRow) -> bool {
    row.phase.before_permit()
}

fn hops(leg: &Leg) -> &[Hop] {
    match &leg.kind {
        LegKind::Server { hops, .. } => hops,
        LegKind::Survey | LegKind::Clients { .. } => &[],
    }
}

/// The plan as it is carried out.
pub(super) fn lay_over(mut plan: Plan, adopted: &Adopted, kept: &BTreeMap<HostId, Kept>) -> Plan {
    let mut legs = adopted.legs.clone();
    for leg in &mut legs {
        let LegKind::Clients { entries, .. } = &mut leg.kind else {
            continue;
        };
        if let Some(LegKind::Clients { entries: new, .. }) =
            plan.legs.iter().find(|new| new.id == leg.id).map(|new| &new.kind)
        {
            entries.clone_from(new);
        }
        for (host, kept) in kept {
            match kept.entries.get(&leg.id) {
                Some(text) => entries.insert(host.clone(), text.clone()),
                None => entries.remove(host),
            };
        }
    }
    let mut groups: Vec<PlanGroup> = adopted
        .groups
        .iter()
        .map(|old| plan.group(&old.name).unwrap_or(old).clone())
        .collect();
    let new = plan
        .groups
        .iter()
        .filter(|group| !adopted.groups.iter().any(|old| old.name == group.name));
    groups.extend(new.cloned());
    for group in &mut groups {
        let own = kept.values().filter(|kept| kept.planned.group == group.name);
        let mut hosts: Vec<HostId> = own.map(|kept| kept.planned.host.clone()).collect();
        hosts.extend(
            group
                .hosts
                .iter()
                .filter(|host| !kept.contains_key(*host))
                .cloned(),
        );
        group.hosts = hosts;
    }
    let place: BTreeMap<&GroupName, usize> = groups
        .iter()
        .enumerate()
        .map(|(at, group)| (&group.name, at))
        .collect();
    let mut hosts: Vec<PlanHost> = kept.values().map(|kept| kept.planned.clone()).collect();
    hosts.extend(plan.hosts.drain(..).filter(|host| !kept.contains_key(&host.host)));
    hosts.sort_by_key(|host| place.get(&host.group).copied());
    for list in [
        &mut plan.without_node,
        &mut plan.other_server,
        &mut plan.ungrouped,
        &mut plan.without_client,
    ] {
        list.retain(|left| !kept.contains_key(&left.host));
    }
    plan.server.from = adopted.from.unwrap_or(plan.server.from);
    plan.legs = legs;
    plan.groups = groups;
    plan.hosts = hosts;
    plan
}

impl Kernel {
    pub(super) fn adopt(&mut self, by: &str, bytes: &[u8], now_ms: u64) -> Answer {
        let id = plan_id(bytes);
        let answer = self.take_over(&id, bytes, now_ms);
        let result = match &answer {
            Ok(done) => done.text.clone(),
            Err(refusal) => format!("refused: {}", refusal.reason),
        };
        self.event(
            now_ms,
            "rollout",
            "operator",
            format!("{by}: adopt {id}: {result}"),
        );
        answer
    }

    fn take_over(&mut self, id: &PlanId, bytes: &[u8], now_ms: u64) -> Answer {
        self.takes_plans()?;
        let child = match Plan::parse(bytes) {
            Ok(child) => child,
            Err(error) => return refused("unreadable_plan", error.to_string(), "make a new plan"),
        };
        self.adoptable(id, &child)?;
        let before = Arc::clone(&self.plan);
        let listed: BTreeSet<HostId> = child.hosts.iter().map(|host| host.host.clone()).collect();
        let adopted = self.what_stays(id, &child, now_ms);
        let kept = self.kept_by(&listed);
        let freed: Vec<HostId> = self
            .kept
            .keys()
            .filter(|host| !kept.contains_key(*host))
            .cloned()
            .collect();
        let plan = Arc::new(lay_over(child, &adopted, &kept));
        self.dirty
            .extend(kept.keys().chain(&freed).cloned().map(Key::Kept));
        self.dirty.insert(Key::Adopted);
        self.kept = kept;
        self.adopted = Some(adopted);
        self.index = Arc::new(super::rows::index(&plan));
        self.spread = Arc::new(Spread::of(&plan));
        self.plan = Arc::clone(&plan);
        self.plan_id = id.clone();
        self.out.plan = Some(id.clone());
        self.find_unlisted();
        let left = self.skip_those_that_left(now_ms);
        let mut late = 0;
        for at in 0..plan.legs.len() {
            late += self.fill_up(at, &before, now_ms);
        }
        let again = self.ask_the_refused_again(now_ms);
        let (freed_limits, reduced) = self.lift_limits(&before);
        for host in &plan.hosts {
            if !self.links.contains_key(&host.host) {
                let away = Link {
                    connected: false,
                    since_ms: now_ms,
                };
                self.links.insert(host.host.clone(), away);
            }
        }
        if self.breaks(super::Mutant::AdoptTouchesWork) {
            let rows = self.hosts.values_mut().flat_map(|rows| rows.values_mut());
            rows.filter(|row| row.in_flight())
                .for_each(|row| row.deadline_ms = row.deadline_ms.map(|at| at + 1_000));
        }
        self.next_epoch();
        let mut text = format!(
            "{id} is the rollout's plan now: {late} to upgrade that the last one had not, {left} left out"
        );
        if !freed_limits.is_empty() {
            text = format!(
                "{text}; it allows more than the last plan, so what was reduced counts no more: {}",
                freed_limits.join(", ")
            );
        }
        if !reduced.is_empty() {
            text = format!("{text}; what was reduced stays: {}", reduced.join(", "));
        }
        if !again.is_empty() {
            text = format!(
                "{text}; asked again although the rollout was resumed without: {}",
                self.some_of(&again)
            );
        }
        if let Some(strands) = self.strands() {
            text = format!("{text}; a person will be asked first: {strands}");
        }
        self.retell_stranded(now_ms);
        self.event(now_ms, "rollout", "plan_adopted", text.clone());
        accepted(text)
    }

    /// What a plan that is to take over has to know.
    pub fn running(&self) -> Running {
        let begun = |planned: &&PlanHost| planned.action == HostAction::Upgrade && self.stays(&planned.host);
        let begun = self.plan.hosts.iter().filter(begun);
        Running {
            plan: Arc::clone(&self.plan),
            begun: begun
                .map(|planned| (planned.host.clone(), planned.group.clone()))
                .collect(),
        }
    }

    /// Whether it could adopt a plan at all at this moment.
    pub fn takes_another_plan(&self) -> bool {
        self.takes_plans().is_ok()
    }

    /// The same with the reason.
    fn takes_plans(&self) -> Result<(), Refusal> {
        let no = |code: &str, reason: &str, hint: &str| refused(code, reason, hint).map(|_: Accepted| ());
        if self.is_doubted() {
            return self.not_adopted().map(|_| ());
        }
        if self.rollout.phase == RolloutPhase::Planned {
            return no(
                "not_started",
                "the rollout was not started",
                "`start` the new plan",
            );
        }
        if self.rollout.phase.is_final() {
            return no("ended", "the rollout has ended", "`start` the new plan");
        }
        let wait = "wait for its end, then make a new plan and `start` it";
        if self.rollout.abort.is_some() {
            return no("aborting", "the rollout is being aborted", wait);
        }
        if self.rollout.going_back.is_some() {
            return no("rolling_back", "the rollout's clients are being taken back", wait);
        }
        Ok(())
    }

    /// Whether this plan may take over now.
    fn adoptable(&self, id: &PlanId, child: &Plan) -> Result<(), Refusal> {
        let no = |code: &str, reason: String, hint: &str| refused(code, reason, hint).map(|_: Accepted| ());
        let again = "make a new plan: `plan` follows the plan that runs";
        if *id == self.plan_id {
            return no(
                "already_adopted",
                format!("{id} is the rollout's plan already"),
                "see `status`",
            );
        }
        if child.parent.as_ref() != Some(&self.plan_id) {
            let parent = child.parent.as_ref().map_or("no plan", |parent| parent.as_str());
            return no(
                "other_parent",
                format!("{id} follows {parent}, but {} runs", self.plan_id),
                again,
            );
        }
        let old = &self.plan;
        if child.clients_to != old.clients_to
            || child.server.to != old.server.to
            || child.server.url != old.server.url
        {
            return no(
                "other_target",
                format!("{id} leads to another release or another PMM Server than the rollout"),
                "`abort` and start the new plan, or plan with the rollout's target",
            );
        }
        self.legs_fit(child)
            .or_else(|reason| no("other_legs", reason, again))?;
        let known = |name: &GroupName| old.group(name).is_some();
        let common: Vec<&GroupName> = child
            .groups
            .iter()
            .map(|group| &group.name)
            .filter(|name| known(name))
            .collect();
        let order = old
            .groups
            .iter()
            .map(|group| &group.name)
            .filter(|name| child.group(name).is_some());
        let at_the_end = child
            .groups
            .iter()
            .skip_while(|group| known(&group.name))
            .all(|group| !known(&group.name));
        if !order.eq(common.iter().copied()) || !at_the_end {
            return no(
                "group_order",
                "the groups of the running plan must keep their order, and new ones come after them"
                    .to_owned(),
                "put new groups at the end of the fleet file and plan again",
            );
        }
        let to_come = self
            .legs
            .iter()
            .any(|leg| !leg.hops.is_empty() && leg.phase != LegPhase::Settled);
        match child.blockers.first().filter(|_| to_come) {
            Some(blocker) => no(
                "blocked",
                format!(
                    "the server's preflight failed: {}: {}",
                    blocker.check, blocker.message
                ),
                &blocker.hint,
            ),
            None => Ok(()),
        }
    }

    /// Each leg of the child must be one of the rollout's, and only what is behind may be missing.
    fn legs_fit(&self, child: &Plan) -> Result<(), String> {
        for new in &child.legs {
            let Some(at) = self.plan.legs.iter().position(|old| old.id == new.id) else {
                return Err(format!("the rollout has no leg {}", new.id));
            };
            let (old, phase) = (&self.plan.legs[at], self.legs[at].phase);
            let over = phase == LegPhase::Settled
                && self
                    .legs
                    .get(at + 1)
                    .is_some_and(|next| next.phase != LegPhase::Waiting);
            let too_late = |what: &str| {
                Err(format!(
                    "{} {what} when this plan would still add hosts to it",
                    new.id
                ))
            };
            match (&old.kind, &new.kind) {
                (LegKind::Survey, LegKind::Survey) => {}
                (
                    LegKind::Clients { to, entries, .. },
                    LegKind::Clients {
                        to: goal,
                        entries: wanted,
                        ..
                    },
                ) => {
                    if to != goal {
                        return Err(format!("{} leads to {goal} and not to {to}", new.id));
                    }
                    if over && wanted.keys().any(|host| !entries.contains_key(host)) {
                        return too_late("was over");
                    }
                }
                (LegKind::Server { repoint, .. }, LegKind::Server { repoint: wanted, .. }) => {
                    let same = |one: &Hop, other: &Hop| one.from == other.from && one.to == other.to;
                    let ends = hops(old).last().map(|hop| hop.to) == hops(new).last().map(|hop| hop.to);
                    let equal = hops(old).len() == hops(new).len()
                        && hops(old)
                            .iter()
                            .zip(hops(new))
                            .all(|(one, other)| same(one, other));
                    if !ends || (phase == LegPhase::Waiting && !equal) {
                        return Err(format!("{} takes the server another way", new.id));
                    }
                    if phase != LegPhase::Waiting && wanted.keys().any(|host| !repoint.contains_key(host)) {
                        return too_late("had begun");
                    }
                }
                _ => return Err(format!("{} does something else in the rollout", new.id)),
            }
        }
        let missing = self.plan.legs.iter().zip(&self.legs).find(|(old, row)| {
            row.phase != LegPhase::Settled && !child.legs.iter().any(|new| new.id == old.id)
        });
        missing.map_or(Ok(()), |(old, _)| {
            Err(format!("{} is not over and the plan does not have it", old.id))
        })
    }

    fn what_stays(&self, id: &PlanId, child: &Plan, now_ms: u64) -> Adopted {
        let mut legs = self.plan.legs.clone();
        for (leg, row) in legs.iter_mut().zip(&self.legs) {
            let new = child
                .legs
                .iter()
                .find(|new| new.id == leg.id)
                .map(|new| &new.kind);
            match (&mut leg.kind, new) {
                (LegKind::Clients { entries, .. }, _) => entries.clear(),
                (
                    LegKind::Server {
                        repoint,
                        repoint_back,
                        ..
                    },
                    Some(LegKind::Server {
                        repoint: to,
                        repoint_back: back,
                        ..
                    }),
                ) if row.phase == LegPhase::Waiting => {
                    repoint.extend(to.clone());
                    repoint_back.extend(back.clone());
                }
                _ => {}
            }
        }
        let mut groups = self.plan.groups.clone();
        for group in &mut groups {
            group.hosts.clear();
        }
        Adopted {
            plan: id.clone(),
            legs,
            groups,
            from: Some(self.plan.server.from),
            at_ms: now_ms,
        }
    }

    /// Whether this rollout did more with a host than ask it.
    fn has_begun(&self, host: &HostId) -> bool {
        self.groups
            .iter()
            .filter(|(_, groups)| !groups.is_empty())
            .any(|(leg, _)| {
                let had_part = self.plan.entry_text(leg, host).is_some();
                self.host(leg, host).is_some_and(|row| {
                    let tried = !row.retried.is_empty() || row.lost_before_ms.is_some();
                    row.slot || row.broken || tried || (had_part && !open(row))
                })
            })
    }

    /// Whether its part stays as it is, whatever a later plan says of it.
    fn stays(&self, host: &HostId) -> bool {
        self.kept
            .get(host)
            .map_or_else(|| self.has_begun(host), |kept| !kept.left)
    }

    /// The hosts whose part stays as it is.
    fn kept_by(&self, listed: &BTreeSet<HostId>) -> BTreeMap<HostId, Kept> {
        let part = |planned: &PlanHost| {
            let host = &planned.host;
            let left = !self.stays(host);
            let entries = self
                .plan
                .legs
                .iter()
                .filter(|leg| matches!(leg.kind, LegKind::Clients { .. }));
            let entries = entries
                .filter_map(|leg| Some((leg.id.clone(), self.plan.entry_text(&leg.id, host)?.to_owned())));
            let kept = Kept {
                planned: planned.clone(),
                entries: entries.collect(),
                left,
            };
            (!left || !listed.contains(host)).then(|| (host.clone(), kept))
        };
        self.plan.hosts.iter().filter_map(part).collect()
    }

    /// Leaves out the hosts that did not begin and that the plan does not have any more.
    fn skip_those_that_left(&mut self, now_ms: u64) -> usize {
        let reason = format!("{} does not have it any more, and it had not begun", self.plan_id);
        let gone: Vec<HostId> = self
            .kept
            .iter()
            .filter(|(_, kept)| kept.left)
            .map(|(host, _)| host.clone())
            .collect();
        let legs: Vec<LegId> = self
            .legs
            .iter()
            .filter(|leg| leg.hops.is_empty())
            .map(|leg| leg.leg.clone())
            .collect();
        let mut left = BTreeSet::new();
        for host in &gone {
            for leg in &legs {
                if self.host(leg, host).is_some_and(open) {
                    self.enter(leg, host, HostPhase::Skipped, now_ms, |row| {
                        reason.clone_into(&mut row.reason)
                    });
                    left.insert(host);
                }
            }
        }
        left.len()
    }

    /// Hosts that failed the survey, that a person went on without, and that the adopted plan upgrades after all.
    fn ask_the_refused_again(&mut self, now_ms: u64) -> Vec<HostId> {
        let upgrades = |host: &&HostId| {
            !self.kept.contains_key(*host)
                && self
                    .planned(host)
                    .is_some_and(|planned| planned.action == HostAction::Upgrade)
        };
        let again: Vec<HostId> = self.rollout.accepted.iter().filter(upgrades).cloned().collect();
        let survey = self.legs.first().filter(|leg| leg.phase == LegPhase::Running);
        let survey = survey.map(|leg| leg.leg.clone());
        for host in &again {
            self.rollout.accepted.remove(host);
            if let Some(leg) = &survey {
                self.ask_anew(leg, host, "the adopted plan upgrades it", now_ms);
            }
        }
        self.dirty.insert(Key::Rollout);
        again
    }

    /// Gives a leg the rows that the adopted plan adds, and tells how many of them begin in it.
    fn fill_up(&mut self, at: usize, before: &Plan, now_ms: u64) -> usize {
        let plan = Arc::clone(&self.plan);
        let leg = plan.legs[at].id.clone();
        let add = |kernel: &mut Self, host: &HostId, row: HostRow| {
            kernel.hosts.or_default(&leg).insert(host.clone(), row);
            kernel.dirty.insert(Key::Host(leg.clone(), host.clone()));
        };
        match &plan.legs[at].kind {
            // Whoever comes after it is asked at its turn.
            LegKind::Survey if self.legs[at].phase == LegPhase::Settled => 0,
            LegKind::Survey => {
                for planned in &plan.hosts {
                    if self.entry_leg(&planned.host).is_some()
                        && self.host(&leg, &planned.host).is_none_or(|row| {
                            row.phase == HostPhase::Skipped && !self.kept.contains_key(&planned.host)
                        })
                    {
                        add(self, &planned.host, fresh(HostPhase::Waiting, now_ms));
                    }
                }
                0
            }
            LegKind::Server { repoint, .. } => {
                for host in repoint.keys() {
                    if self.host(&leg, host).is_none() {
                        add(self, host, fresh(HostPhase::Waiting, now_ms));
                    }
                }
                0
            }
            LegKind::Clients { entries, .. } => {
                for group in &plan.groups {
                    if self.group(&leg, &group.name).is_none() {
                        self.groups
                            .or_default(&leg)
                            .insert(group.name.clone(), fresh_group(now_ms));
                        self.dirty.insert(Key::Group(leg.clone(), group.name.clone()));
                    }
                }
                let mut late: Vec<&PlanHost> = Vec::new();
                for planned in &plan.hosts {
                    if self.kept.contains_key(&planned.host) {
                        continue;
                    }
                    let host = &planned.host;
                    let mut row = client_row(planned, entries, now_ms);
                    match self.host(&leg, host) {
                        Some(old) if open(old) && row.phase == HostPhase::Waiting => {
                            if before.entry_text(&leg, host) != plan.entry_text(&leg, host) {
                                self.ask_anew(&leg, host, "the adopted plan changed its part", now_ms);
                                self.edit(&leg, host, |row| row.staged = false);
                            }
                            continue;
                        }
                        Some(old) if old.phase == row.phase => continue,
                        // Its journal must not answer for what was asked before.
                        Some(old) => row.attempt = old.attempt + 1,
                        None => {}
                    }
                    if row.phase == HostPhase::Waiting {
                        late.push(planned);
                    }
                    add(self, host, row);
                    if let (None, Some(text)) = (
                        self.holds.get(host),
                        planned.held.as_ref().or(planned.held_on_host.as_ref()),
                    ) {
                        let operator = Some(text.clone()).filter(|_| planned.held != planned.held_on_host);
                        let hold = Hold {
                            operator,
                            host: planned.held_on_host.clone(),
                        };
                        self.holds.insert(host.clone(), hold);
                        self.dirty.insert(Key::Hold(host.clone()));
                    }
                }
                self.open_groups(&leg, &late, now_ms);
                self.close_empty(at, now_ms);
                late.len()
            }
        }
    }

    /// A group that was done goes on for hosts that came late. One that was taken back takes none.
    fn open_groups(&mut self, leg: &LegId, late: &[&PlanHost], now_ms: u64) {
        let plan = Arc::clone(&self.plan);
        for planned in late {
            let (Some(row), Some(group)) = (self.group(leg, &planned.group), plan.group(&planned.group))
            else {
                continue;
            };
            match row.phase {
                GroupPhase::Soaking | GroupPhase::Done => self.reopen(leg, group, now_ms),
                GroupPhase::RolledBack | GroupPhase::Cancelled => {
                    self.enter(leg, &planned.host, HostPhase::Skipped, now_ms, |row| {
                        "its group was taken back".clone_into(&mut row.reason);
                    });
                }
                _ => {}
            }
        }
    }

    /// A new group has nothing to do in a leg that is over for it.
    fn close_empty(&mut self, at: usize, now_ms: u64) {
        let plan = Arc::clone(&self.plan);
        let leg = &plan.legs[at].id;
        if self.legs[at].phase != LegPhase::Settled {
            return;
        }
        for group in &plan.groups {
            let idle = group
                .hosts
                .iter()
                .all(|host| !self.host(leg, host).is_some_and(open));
            if idle
                && self
                    .group(leg, &group.name)
                    .is_some_and(|row| row.phase == GroupPhase::Pending)
            {
                self.set_group(leg, &group.name, GroupPhase::Done, now_ms);
            }
        }
    }

    /// The groups in which what a person reduced counts no more, and those in which it does.
    fn lift_limits(&mut self, before: &Plan) -> (Vec<String>, Vec<String>) {
        let plan = Arc::clone(&self.plan);
        let legs: Vec<LegId> = self.groups.keys().cloned().collect();
        let (mut lifted, mut reduced) = (BTreeSet::new(), BTreeSet::new());
        for group in &plan.groups {
            let Some(old) = before.group(&group.name) else {
                continue;
            };
            let (wider, laxer) = asks_for_more(old, group);
            for leg in &legs {
                let Some(now) = self.group(leg, &group.name).map(|row| row.limits) else {
                    continue;
                };
                let new = Limits {
                    max_unavailable: now.max_unavailable.filter(|_| !wider),
                    failure_threshold: now.failure_threshold.filter(|_| !laxer),
                };
                if new != now {
                    self.edit_group(leg, &group.name, |row| row.limits = new);
                    lifted.insert(format!("group {}", group.name));
                }
                if new != Limits::default() {
                    reduced.insert(format!("group {}", group.name));
                }
            }
        }
        (lifted.into_iter().collect(), reduced.into_iter().collect())
    }
}

/// Whether a group's policy allows more hosts to be down, and more to fail, than the one before: for the same hosts, and in sum. Where nobody
/// knows what a number was made of, somebody may only have added hosts.
fn asks_for_more(old: &PlanGroup, new: &PlanGroup) -> (bool, bool) {
    let (Some(GroupRule { hosts, .. }), Some(rule)) = (&new.rule, &old.rule) else {
        return (false, false);
    };
    let width = rule
        .max_unavailable
        .max_unavailable(*hosts)
        .max(old.max_unavailable);
    let failures = rule
        .failure_threshold
        .failure_threshold(*hosts)
        .max(old.failure_threshold);
    (new.max_unavailable > width, new.failure_threshold > failures)
}
