//! When it may end, from what this rollout has seen so far: what is left is walked through like a forecast, with the times that its own
//! hosts and hops took, through windows, ramps and waits. It stops where a person is waited for: nobody knows how long that takes.

use super::doc::Estimate;
use crate::fleet::duration_text;
use crate::kernel::{GroupPhase, GroupRow, HostRow, Kernel, LegPhase, LegRow, RolloutPhase};
use crate::plan::{LegKind, PlanGroup, in_turn, pass};
use crate::policy::Offline;

/// Something is known once a host or a hop is through; before that there is no estimate rather than a guess, and so there is none where
/// nothing goes on before a person says so.
pub(super) fn estimate(kernel: &Kernel, now_ms: u64) -> Option<Estimate> {
    if !matches!(kernel.phase(), RolloutPhase::Running | RolloutPhase::Checking) {
        return None;
    }
    let mut walk = Walk {
        kernel,
        now_ms,
        at_ms: now_ms,
        until: None,
    };
    let mut basis = Vec::new();
    let hop_ms = hop_ms(kernel);
    let (host_ms, hosts) = host_ms(kernel);
    for (row, leg) in kernel.legs().iter().zip(&kernel.plan.legs) {
        if row.phase == LegPhase::Settled || walk.until.is_some() {
            continue;
        }
        match &leg.kind {
            LegKind::Survey => {}
            LegKind::Server { .. } => {
                let open = row.hops.iter().filter(|hop| hop.ended_at_ms.is_none()).count();
                if open > 0 {
                    walk.server(row, u64::try_from(open).unwrap_or(u64::MAX), hop_ms?);
                    basis.push(format!("{} per hop", duration_text(hop_ms?)));
                }
            }
            LegKind::Clients { .. } => {
                walk.clients(row, host_ms?)?;
                let line = format!("{} per host over {hosts} done", duration_text(host_ms?));
                if !basis.contains(&line) {
                    basis.push(line);
                }
            }
        }
    }
    let remaining_ms = walk.at_ms.saturating_sub(now_ms);
    // A person is waited for already.
    if basis.is_empty() || walk.until.is_some() && remaining_ms == 0 {
        return None;
    }
    Some(Estimate {
        remaining_ms,
        basis: basis.join(", "),
        until: walk.until,
    })
}

fn hop_ms(kernel: &Kernel) -> Option<u64> {
    let hops = kernel.legs().iter().flat_map(|leg| &leg.hops);
    let took = hops.filter_map(|hop| Some(hop.ended_at_ms?.saturating_sub(hop.started_at_ms?)));
    mean(&took.collect::<Vec<_>>())
}

/// How long a host takes from its permit on, and how many that is known of.
fn host_ms(kernel: &Kernel) -> (Option<u64>, usize) {
    let legs = kernel.legs().iter().filter(|leg| leg.hops.is_empty());
    let rows = legs
        .filter_map(|leg| kernel.hosts.get(&leg.leg))
        .flat_map(|rows| rows.values());
    let took: Vec<u64> = rows
        .filter(|row| row.upgraded() && row.permitted_at_ms.is_some())
        .map(HostRow::took_ms)
        .collect();
    (mean(&took), took.len())
}

fn mean(values: &[u64]) -> Option<u64> {
    let number = u64::try_from(values.len()).ok().filter(|number| *number > 0)?;
    Some(values.iter().sum::<u64>() / number)
}

/// The way through what is left.
struct Walk<'a> {
    kernel: &'a Kernel,
    now_ms: u64,
    /// How far it has come.
    at_ms: u64,
    /// Where a person is waited for.
    until: Option<String>,
}

impl Walk<'_> {
    fn server(&mut self, leg: &LegRow, open: u64, hop_ms: u64) {
        let running = leg.hops.iter().filter(|hop| hop.order.is_some());
        let spent: u64 = running
            .filter_map(|hop| hop.started_at_ms)
            .map(|at| self.now_ms.saturating_sub(at))
            .sum();
        self.at_ms += (hop_ms * open).saturating_sub(spent);
    }

    /// Through a client leg; `None` where a window never opens again.
    fn clients(&mut self, leg: &LegRow, host_ms: u64) -> Option<()> {
        let plan = std::sync::Arc::clone(&self.kernel.plan);
        for group in &plan.groups {
            let Some(row) = self.kernel.group(&leg.leg, &group.name) else {
                continue;
            };
            if matches!(
                row.phase,
                GroupPhase::Done | GroupPhase::Cancelled | GroupPhase::RolledBack
            ) {
                continue;
            }
            self.group(leg, group, row, host_ms)?;
            if self.until.is_some() {
                return Some(());
            }
        }
        // Whoever is away is waited for at the end of the leg.
        if let Some(until) = leg.offline_until_ms {
            self.at_ms = self.at_ms.max(until);
        } else if plan.groups.iter().any(|group| self.is_kept(leg, group)) {
            self.at_ms += plan.timing.offline_for_ms;
        }
        Some(())
    }

    fn group(&mut self, leg: &LegRow, group: &PlanGroup, row: &GroupRow, host_ms: u64) -> Option<()> {
        let kernel = self.kernel;
        let tally = kernel.tally(&leg.leg, group, self.now_ms);
        let left = tally.left();
        let not_begun = matches!(row.phase, GroupPhase::Pending | GroupPhase::Gated);
        if group.approval && row.approved_by.is_none() && not_begun {
            self.until = Some(format!("group {} waits for approval", group.name));
            return Some(());
        }
        if tally.in_flight > 0 {
            self.at_ms += host_ms;
        }
        let rows = || group.hosts.iter().filter_map(|host| kernel.host(&leg.leg, host));
        let again = rows().filter(|row| !row.phase.is_final() && !row.retried.is_empty());
        if let Some(at) = again.filter_map(|row| row.ask_at_ms).max() {
            self.at_ms = self.at_ms.max(at);
        }
        let (canaries, rest) = self.rounds(leg, group, tally.upgraded + tally.in_flight, left);
        let mut openings = 0;
        let mut go = |at, rounds| pass(group, at, rounds, host_ms, &mut openings);
        self.at_ms = go(self.at_ms, canaries)?;
        if rest > 0 && (not_begun || row.phase == GroupPhase::Canary) {
            self.at_ms = match row.canary_soak_until_ms {
                Some(until) => self.at_ms.max(until),
                None if group.canaries > 0 => self.at_ms + group.canary_soak_ms,
                None => self.at_ms,
            };
        }
        self.at_ms = go(self.at_ms, rest)?;
        if group.offline == Offline::Wait && rows_away(kernel, leg, group) {
            self.at_ms = match row.offline_until_ms {
                Some(until) => self.at_ms.max(until),
                None => self.at_ms + kernel.plan.timing.offline_for_ms,
            };
            self.until = Some(format!("a person is asked (group {})", group.name));
            return Some(());
        }
        self.at_ms = match row.soak_until_ms.filter(|_| row.phase == GroupPhase::Soaking) {
            Some(until) => self.at_ms.max(until),
            None => self.at_ms + group.soak_ms,
        };
        Some(())
    }

    /// Times that slots are still filled: by canaries, and by the others on the ramp and after it. Members of one set or site take turns.
    fn rounds(&self, leg: &LegRow, group: &PlanGroup, begun: u32, left: u32) -> (u64, u64) {
        let full = self.kernel.max_unavailable(&leg.leg, group).max(1);
        let canaries = group.canaries.saturating_sub(begun).min(left);
        let mut verified = (begun + canaries).saturating_sub(group.canaries);
        let mut left = left - canaries;
        let mut rounds = 0;
        while left > 0 {
            let width = crate::kernel::ramp_width(&group.ramp, verified, full).max(1);
            let go = width.min(left);
            verified += go;
            left -= go;
            rounds += 1;
        }
        let first = u64::from(canaries.div_ceil(full));
        let to_come = group.hosts.iter().filter(|host| {
            let row = self.kernel.host(&leg.leg, host);
            row.is_some_and(|row| row.phase.before_permit())
        });
        let to_come: Vec<_> = to_come.filter_map(|host| self.kernel.planned(host)).collect();
        let in_turn = u64::from(in_turn(group, &to_come));
        (first, rounds.max(in_turn.saturating_sub(first)))
    }

    /// Whether a host of the group is away that its leg waits for at its end.
    fn is_kept(&self, leg: &LegRow, group: &PlanGroup) -> bool {
        group.offline == Offline::CatchUp && rows_away(self.kernel, leg, group)
    }
}

fn rows_away(kernel: &Kernel, leg: &LegRow, group: &PlanGroup) -> bool {
    group.hosts.iter().any(|host| kernel.is_away(&leg.leg, host))
}
