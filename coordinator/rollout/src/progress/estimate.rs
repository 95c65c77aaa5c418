//! When it may end, from what this rollout has seen so far.

use super::doc::Estimate;
use crate::fleet::duration_text;
use crate::kernel::{GroupPhase, Kernel, LegPhase, RolloutPhase};
use crate::plan::LegKind;

/// Something is known once a host or a hop is through; before that there is no estimate rather than a guess.
pub(super) fn estimate(kernel: &Kernel, now_ms: u64) -> Option<Estimate> {
    if !matches!(kernel.phase(), RolloutPhase::Running | RolloutPhase::Checking) {
        return None;
    }
    let mut remaining = 0;
    let mut basis = Vec::new();

    let hops = || kernel.legs().iter().flat_map(|leg| &leg.hops);
    let open = u64::try_from(hops().filter(|hop| hop.ended_at_ms.is_none()).count()).unwrap_or(u64::MAX);
    if open > 0 {
        let took: Vec<u64> = hops()
            .filter_map(|hop| Some(hop.ended_at_ms?.saturating_sub(hop.started_at_ms?)))
            .collect();
        let mean = mean(&took)?;
        let spent = hops()
            .filter(|hop| hop.order.is_some())
            .filter_map(|hop| hop.started_at_ms)
            .map(|at| now_ms.saturating_sub(at))
            .sum::<u64>();
        remaining += (mean * open).saturating_sub(spent);
        basis.push(format!("{} per hop", duration_text(mean)));
    }

    let mut took = Vec::new();
    let mut to_go = false;
    for leg in kernel
        .legs()
        .iter()
        .zip(&kernel.plan.legs)
        .filter(|(_, leg)| matches!(leg.kind, LegKind::Clients { .. }))
        .map(|(row, _)| row)
    {
        let rows = kernel.hosts[&leg.leg].values();
        took.extend(
            rows.filter(|row| row.upgraded() && row.permitted_at_ms.is_some())
                .map(crate::kernel::HostRow::took_ms),
        );
        to_go |= leg.phase != LegPhase::Settled;
    }
    if to_go {
        let mean = mean(&took)?;
        for leg in kernel.legs().iter().filter(|leg| leg.phase != LegPhase::Settled) {
            for group in &kernel.plan.groups {
                let Some(row) = kernel.group(&leg.leg, &group.name) else {
                    continue;
                };
                let tally = kernel.tally(&leg.leg, group, now_ms);
                let left = tally.left() + tally.in_flight;
                let rounds = left.div_ceil(kernel.max_unavailable(&leg.leg, group).max(1))
                    + u32::from(group.canaries > 0 && tally.upgraded == 0 && left > 1);
                remaining += mean * u64::from(rounds);
                if row.phase != GroupPhase::Done {
                    remaining += row
                        .soak_until_ms
                        .map_or(group.soak_ms, |until| until.saturating_sub(now_ms));
                }
            }
        }
        basis.push(format!(
            "{} per host over {} done",
            duration_text(mean),
            took.len()
        ));
    }
    if basis.is_empty() {
        return None;
    }
    Some(Estimate {
        remaining_ms: remaining,
        basis: basis.join(", "),
    })
}

fn mean(values: &[u64]) -> Option<u64> {
    let number = u64::try_from(values.len()).ok().filter(|number| *number > 0)?;
    Some(values.iter().sum::<u64>() / number)
}
