//! Rules about what a person changes in a running rollout: limits, hosts that go back, hosts that are let pass, another plan.

use fleet_common::ids::{GroupName, HostId, LegId};
use rollout::kernel::{
    Command, HostOrder, HostPhase, HostRow, Kernel, LegPhase, Output, RollbackTarget, RolloutPhase,
};
use rollout::plan::{LegKind, PlanHost};
use std::collections::{BTreeMap, BTreeSet};

pub const LIMIT: &str = "what was reduced grows only by another plan";
pub const BACK: &str = "who goes back holds a slot of its group, and its server still serves it";
pub const CLOSED: &str = "what was taken back begins again only when a person says so";
pub const WORD: &str = "who is wanted back goes back, unless an abort or the next leg comes first";
pub const ACCEPT: &str = "only a host without a verdict is accepted, and then it passes";
pub const ADOPTED: &str = "another plan leaves alone what began, and loses nobody";

type Found = Vec<(&'static str, String)>;

/// Slots and failures that a group may have.
pub type Limits = BTreeMap<(LegId, GroupName), (u32, u32)>;

pub fn limits(kernel: &Kernel) -> Limits {
    let plan = kernel.plan();
    let both = kernel
        .legs()
        .iter()
        .flat_map(|leg| plan.groups.iter().map(move |group| (leg, group)));
    both.filter_map(|(leg, group)| {
        let row = kernel.group(&leg.leg, &group.name)?;
        let slots = row
            .limits
            .max_unavailable
            .unwrap_or(u32::MAX)
            .min(group.max_unavailable);
        let failures = row
            .limits
            .failure_threshold
            .unwrap_or(u32::MAX)
            .min(group.failure_threshold);
        Some(((leg.leg.clone(), group.name.clone()), (slots, failures)))
    })
    .collect()
}

/// What grew although no other plan was adopted.
pub fn grown(before: &Limits, now: &Limits) -> Option<String> {
    let grew = |(key, (slots, failures)): (&(LegId, GroupName), &(u32, u32))| {
        let (had, tolerated) = before.get(key)?;
        let more = slots > had || failures > tolerated;
        more.then(|| {
            format!(
                "group {} in {}: {had}, {tolerated} -> {slots}, {failures}",
                key.1, key.0
            )
        })
    };
    now.iter().find_map(grew)
}

/// A host is told to go back, by a person or by its group's policy; `taken` slots of `most` are occupied with its own.
pub fn goes_back(
    kernel: &Kernel,
    out: &Output,
    order: &HostOrder,
    planned: &PlanHost,
    taken: u32,
    most: u32,
) -> Found {
    let Some(row) = kernel.host(&order.leg, &order.host).filter(|row| row.taken_back) else {
        return Vec::new();
    };
    let mut found = Vec::new();
    let key = format!("host/{}/{}", order.leg, order.host);
    if !row.slot || !out.rows.iter().any(|row| row.key == key) {
        found.push((BACK, format!("{} without a slot", order.order)));
    }
    // Whoever was not verified has a slot from its permit.
    if taken > most && row.back_from == Some(HostPhase::Settling) {
        found.push((BACK, format!("{}: {taken} slots of {most}", order.order)));
    }
    let none = serves_no_pmm2(kernel, &order.leg);
    let entry = kernel
        .plan()
        .entry(&order.leg, &order.host)
        .map(|entry| entry.expect.from_max);
    if none && entry.or(planned.from).is_none_or(|from| from.major < 3) {
        found.push((BACK, format!("{} to what the server does not serve", order.order)));
    }
    found
}

/// Whether the server of a client leg, or the one that it has become since, promises nothing to PMM 2 clients.
fn serves_no_pmm2(kernel: &Kernel, leg: &LegId) -> bool {
    let settled = |leg: &LegId| {
        let row = kernel.legs().iter().find(|row| row.leg == *leg);
        row.is_some_and(|row| row.phase == LegPhase::Settled)
    };
    let mut last = false;
    for planned in kernel.plan().legs.iter().skip_while(|planned| planned.id != *leg) {
        match planned.kind {
            LegKind::Clients {
                no_way_back_to_pmm2, ..
            } => last = no_way_back_to_pmm2,
            LegKind::Server { .. } if !settled(&planned.id) => break,
            LegKind::Server { .. } | LegKind::Survey => {}
        }
    }
    last
}

/// Whether a host is told to go back with all others while a person has paused that.
pub fn goes_back_in_a_pause(kernel: &Kernel, order: &HostOrder) -> bool {
    let pause = kernel.rollout().pause.as_ref();
    let paused = kernel.phase() == RolloutPhase::Paused
        && kernel.rollout().going_back.is_some()
        && pause.is_some_and(|pause| pause.code == "operator");
    paused
        && kernel
            .host(&order.leg, &order.host)
            .is_some_and(|row| row.taken_back)
}

/// After a command that was accepted.
pub fn commanded(command: &Command, before: &Kernel, after: &Kernel) -> Found {
    match command {
        Command::Accept { host, .. } => accepted(&named(before, host), before, after),
        Command::Rollback { target, .. } => rolled_back(target, after),
        _ => Vec::new(),
    }
}

/// The host that a person calls by its id or its name.
fn named(kernel: &Kernel, host: &str) -> HostId {
    let planned = kernel.plan().find_host(host);
    planned.map_or_else(|| HostId::from(host), |planned| planned.host.clone())
}

fn accepted(host: &HostId, before: &Kernel, after: &Kernel) -> Found {
    let open = |leg: &&rollout::kernel::LegRow| {
        let row = before.host(&leg.leg, host);
        row.is_some_and(|row| row.phase == HostPhase::Verifying && row.inconclusive)
    };
    let row = before
        .legs()
        .iter()
        .find(open)
        .and_then(|leg| after.host(&leg.leg, host));
    // It may pass and have to go back at once, with its group.
    let passes = row.is_some_and(|row| row.phase == HostPhase::Settling && !row.slot || row.taken_back);
    let text = format!("{host} is {:?}", row.map(|row| row.phase));
    if passes { Vec::new() } else { vec![(ACCEPT, text)] }
}

fn rolled_back(target: &RollbackTarget, after: &Kernel) -> Found {
    let goes = |row: &HostRow| row.back_wanted.is_some() || row.phase == HostPhase::RollingBack;
    let rows = |host: &HostId| {
        after
            .legs()
            .iter()
            .filter_map(|leg| after.host(&leg.leg, host))
            .any(goes)
    };
    let well = match target {
        RollbackTarget::Host(host) => after.phase() == RolloutPhase::Paused && rows(&named(after, host)),
        RollbackTarget::Group(name) => {
            let group = after.plan().group(&GroupName::new(name));
            after.phase() == RolloutPhase::Paused && group.is_some_and(|group| group.hosts.iter().any(rows))
        }
        RollbackTarget::Clients => after.rollout().going_back.is_some(),
    };
    let text = format!("{target:?} and the rollout is {:?}", after.phase());
    if well { Vec::new() } else { vec![(CLOSED, text)] }
}

/// What a plan that took over must not have touched. `ticked` is what the moment alone would have made of `before`.
pub fn adopted(before: &Kernel, ticked: &Kernel, after: &Kernel) -> Found {
    let mut found = Vec::new();
    let mut broken = |what: String| found.push((ADOPTED, what));
    let (old, new) = (before.plan(), after.plan());
    let listed: BTreeSet<&HostId> = new.hosts.iter().map(|host| &host.host).collect();
    if listed.len() != new.hosts.len() {
        broken("a host is in it twice".to_owned());
    }
    if let Some(lost) = old.hosts.iter().find(|host| !listed.contains(&host.host)) {
        broken(format!("{} is gone", lost.host));
    }
    if after.epoch() <= before.epoch() {
        broken(format!("{} after {}", after.epoch(), before.epoch()));
    }
    // Failures that the new plan does not tolerate may abort where the policy says so.
    let aborted = after.rollout().abort.is_some();
    if before.phase() == RolloutPhase::Paused && after.phase() != RolloutPhase::Paused && !aborted {
        broken(format!("a paused rollout is {:?}", after.phase()));
    }
    for leg in before.legs() {
        for host in &old.hosts {
            let Some(row) = before.host(&leg.leg, &host.host) else {
                continue;
            };
            let due = ticked.host(&leg.leg, &host.host) != Some(row);
            let now = after.host(&leg.leg, &host.host);
            if now.is_some_and(|now| now.slot != row.slot) && !due && !begins(row, now) {
                broken(format!("{} in {}: its slot", host.host, leg.leg));
            }
            if !row.in_flight() && !row.upgraded() || due {
                continue;
            }
            let same = |now: &HostRow| {
                (now.phase, &now.order, now.deadline_ms, now.attempt)
                    == (row.phase, &row.order, row.deadline_ms, row.attempt)
            };
            let text = |plan: &rollout::plan::Plan| plan.entry_text(&leg.leg, &host.host).map(str::to_owned);
            if !now.is_some_and(same) && !goes(row) {
                broken(format!(
                    "{} in {}: {:?} -> {:?}",
                    host.host,
                    leg.leg,
                    row.phase,
                    now.map(|now| now.phase)
                ));
            } else if text(old) != text(new) {
                broken(format!("{} in {}: its part is another", host.host, leg.leg));
            }
        }
    }
    found
}

/// A wider group lets hosts begin at once.
fn begins(before: &HostRow, now: Option<&HostRow>) -> bool {
    let begun = now.is_some_and(|now| matches!(now.phase, HostPhase::Permitted | HostPhase::RollingBack));
    begun && (before.phase.before_permit() || goes(before))
}

/// Whether a host that was wanted back goes on as if it were not.
pub fn is_forgotten(kernel: &Kernel, leg: &LegId, row: &HostRow) -> bool {
    let goes_on = row.rests()
        || matches!(
            row.phase,
            HostPhase::Permitted | HostPhase::Switching | HostPhase::Verifying | HostPhase::Lost
        );
    let mut later = kernel.legs().iter().skip_while(|found| found.leg != *leg).skip(1);
    let gone_on = later.any(|found| found.phase != LegPhase::Waiting);
    row.back_wanted.is_none() && goes_on && !gone_on && kernel.rollout().abort.is_none()
}

/// It waits only for a slot to go back in.
fn goes(row: &HostRow) -> bool {
    row.back_wanted.is_some()
}

/// Once all clients went back nobody is left that could begin.
pub fn ended(kernel: &Kernel) -> Found {
    let Some(back) = kernel
        .rollout()
        .going_back
        .as_ref()
        .filter(|_| kernel.phase() == RolloutPhase::RolledBack)
    else {
        return Vec::new();
    };
    let open = |host: &&PlanHost| {
        let row = kernel.host(&back.leg, &host.host);
        row.is_some_and(|row| !row.phase.is_final())
    };
    let left = kernel.plan().hosts.iter().find(open);
    left.map(|host| (CLOSED, format!("{} is left", host.host)))
        .into_iter()
        .collect()
}
