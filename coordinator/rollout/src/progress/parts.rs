//! The parts of the status document.

use super::doc::{Counts, Failure, GroupView, HopView, InFlight, LegView, RepointView, ServerView, StepView};
use crate::kernel::{HopRow, HostPhase, HostRow, Kernel, LegPhase, Moment, StepRow};
use crate::plan::{Leg, LegKind};
use fleet_common::ids::LegId;
use fleet_common::server::HopOutcome;

fn count(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

pub(super) fn legs(kernel: &Kernel) -> Vec<LegView> {
    kernel
        .legs()
        .iter()
        .zip(&kernel.plan.legs)
        .map(|(row, leg)| {
            let (kind, text, done, total) = leg_parts(kernel, leg, &row.hops);
            LegView {
                leg: leg.id.to_string(),
                kind: kind.to_owned(),
                state: row.phase,
                since_ms: row.since_ms,
                text,
                done,
                total,
            }
        })
        .collect()
}

fn leg_parts(kernel: &Kernel, leg: &Leg, hops: &[HopRow]) -> (&'static str, String, u32, u32) {
    let rows = &kernel.hosts[&leg.id];
    let ended = count(rows.values().filter(|row| row.phase.is_through()).count());
    match &leg.kind {
        LegKind::Survey => (
            "survey",
            "preflight and download on every host".to_owned(),
            ended,
            count(rows.len()),
        ),
        LegKind::Server { hops: planned, .. } => {
            let settled = hops.iter().filter(|hop| hop_state(hop) == "settled").count();
            let mut text = planned
                .first()
                .map_or_else(String::new, |hop| format!("server {}", hop.from));
            for hop in planned {
                text.push_str(&format!(" -> {}", hop.to));
            }
            ("server", text, count(settled), count(hops.len()))
        }
        LegKind::Clients { to, .. } => ("clients", format!("clients to {to}"), ended, count(rows.len())),
    }
}

pub(super) fn servers(kernel: &Kernel, now_ms: u64) -> Vec<ServerView> {
    let mut views = Vec::new();
    let moment = kernel.moment(now_ms);
    for (row, leg) in kernel.legs().iter().zip(&kernel.plan.legs) {
        let LegKind::Server { hops, .. } = &leg.kind else {
            continue;
        };
        let (Some(first), Some(last)) = (hops.first(), hops.last()) else {
            continue;
        };
        views.push(ServerView {
            name: kernel.plan.server.name.clone(),
            leg: leg.id.to_string(),
            state: row.phase,
            from: first.from.to_string(),
            to: last.to.to_string(),
            hops: row.hops.iter().map(hop_view).collect(),
            repoint: repoint_view(kernel, &leg.id, &moment),
        });
    }
    views
}

fn repoint_view(kernel: &Kernel, leg: &LegId, moment: &Moment) -> Option<RepointView> {
    let rows = kernel.hosts.get(leg).filter(|rows| !rows.is_empty())?;
    let mut view = RepointView {
        total: count(rows.len()),
        ..RepointView::default()
    };
    for (host, row) in rows {
        let name = kernel.name(host).to_owned();
        match row.phase {
            HostPhase::Repointed => view.done += 1,
            HostPhase::Repointing => view.under_way.push(name),
            phase if phase.is_final() => {
                view.failed.push(
                    format!("{name}: {} {}", phase.as_str(), row.reason)
                        .trim_end()
                        .to_owned(),
                );
            }
            _ => {
                let text = kernel
                    .host_duty_at(leg, host, moment)
                    .map(|duty| duty.text)
                    .unwrap_or_default();
                view.waiting.push(format!("{name}: {text}"));
            }
        }
    }
    Some(view)
}

/// A hop's state in one word.
pub(crate) fn hop_state(hop: &HopRow) -> &'static str {
    match &hop.result {
        _ if hop.order.is_some() => "running",
        None => "waiting",
        Some(result) => match result.outcome {
            HopOutcome::Settled => "settled",
            HopOutcome::Restored => "restored",
            HopOutcome::NeedsOperator => "needs_operator",
            HopOutcome::Refused => "refused",
        },
    }
}

fn hop_view(hop: &HopRow) -> HopView {
    let state = hop_state(hop);
    let failed_step = hop
        .result
        .as_ref()
        .filter(|_| state != "settled")
        .map(|result| result.step.as_str())
        .unwrap_or_default();
    HopView {
        number: hop.number,
        from: hop.from.to_string(),
        to: hop.to.to_string(),
        state: state.to_owned(),
        attempt: hop.attempt,
        started_at_ms: hop.started_at_ms,
        ended_at_ms: hop.ended_at_ms,
        reason: hop
            .result
            .as_ref()
            .filter(|_| state != "settled")
            .map(|result| format!("{}: {}", result.code, result.message))
            .unwrap_or_default(),
        leftovers: hop
            .result
            .as_ref()
            .map(|result| result.leftovers.clone())
            .unwrap_or_default(),
        steps: hop
            .steps
            .iter()
            .map(|step| step_view(step, failed_step))
            .collect(),
    }
}

fn step_view(step: &StepRow, failed: &str) -> StepView {
    let state = if step.step == failed {
        "failed"
    } else if step.took_ms.is_some() {
        "done"
    } else {
        "running"
    };
    StepView {
        step: step.step.clone(),
        index: step.index,
        of: step.of,
        state: state.to_owned(),
        since_ms: step.since_ms,
        took_ms: step.took_ms,
        waits_for: step.waits_for.clone(),
        deadline_ms: step.deadline_ms,
    }
}

pub(super) fn groups(kernel: &Kernel, now_ms: u64) -> Vec<GroupView> {
    let mut views = Vec::new();
    for leg in super::client_legs(kernel) {
        for group in &kernel.plan.groups {
            let Some(row) = kernel.group(&leg, &group.name) else {
                continue;
            };
            let tally = kernel.tally(&leg, group, now_ms);
            let rows = || {
                group
                    .hosts
                    .iter()
                    .filter_map(|host| Some((host, kernel.host(&leg, host)?)))
            };
            let mut counts = Counts::default();
            for (_, row) in rows() {
                *counter(&mut counts, row.phase) += 1;
            }
            views.push(GroupView {
                leg: leg.to_string(),
                name: group.name.to_string(),
                state: kernel.shown_phase(&leg, group, row.phase),
                since_ms: row.since_ms,
                waits_for: kernel
                    .group_duty(&leg, group, now_ms)
                    .filter(|duty| duty.code != "ending")
                    .map(|duty| duty.text)
                    .unwrap_or_default(),
                total: count(group.hosts.len()),
                counts,
                canaries: group.canaries,
                slots_used: tally.slots,
                slots_max: kernel.width(&leg, group, &tally),
                slot_holders: rows()
                    .filter(|(host, _)| kernel.holds_slot(&leg, host))
                    .map(|(host, _)| kernel.name(host).to_owned())
                    .collect(),
                failures: tally.failures,
                failure_threshold: kernel.failure_threshold(&leg, group),
                going_back: kernel.going_back(&leg, group),
            });
        }
    }
    views
}

fn counter(counts: &mut Counts, phase: HostPhase) -> &mut u32 {
    match phase {
        HostPhase::Waiting | HostPhase::Surveyed | HostPhase::Repointed => &mut counts.waiting,
        HostPhase::Preparing => &mut counts.preparing,
        HostPhase::Ready => &mut counts.ready,
        HostPhase::Permitted
        | HostPhase::Switching
        | HostPhase::Verifying
        | HostPhase::RollingBack
        | HostPhase::Repointing => &mut counts.in_flight,
        HostPhase::Upgraded | HostPhase::Settling => &mut counts.upgraded,
        HostPhase::AlreadyCurrent => &mut counts.already_current,
        HostPhase::RolledBack => &mut counts.rolled_back,
        HostPhase::Failed => &mut counts.failed,
        HostPhase::Inconsistent => &mut counts.inconsistent,
        HostPhase::Refused => &mut counts.refused,
        HostPhase::Skipped => &mut counts.skipped,
        HostPhase::Cancelled => &mut counts.cancelled,
        HostPhase::Lost => &mut counts.lost,
    }
}

pub(super) fn in_flight(kernel: &Kernel, now_ms: u64) -> Vec<InFlight> {
    let mut views = Vec::new();
    let moment = kernel.moment(now_ms);
    for (leg, rows) in kernel.hosts.iter() {
        for (host, row) in rows
            .iter()
            .filter(|(_, row)| row.in_flight() || row.phase == HostPhase::Preparing)
        {
            let duty = kernel.host_duty_at(leg, host, &moment);
            let step = row.step.as_ref();
            views.push(InFlight {
                host: host.to_string(),
                name: kernel.name(host).to_owned(),
                group: kernel
                    .planned(host)
                    .map(|planned| planned.group.to_string())
                    .unwrap_or_default(),
                leg: leg.to_string(),
                state: row.phase.as_str().to_owned(),
                step: step
                    .map(|step| step.step.clone())
                    .or_else(|| row.order.as_ref().map(|order| order.action.as_str().to_owned()))
                    .unwrap_or_default(),
                index: step.map_or(0, |step| step.index),
                of: step.map_or(0, |step| step.of),
                since_ms: row.since_ms,
                deadline_ms: row.deadline_ms,
                waits_for: duty.map(|duty| duty.text).unwrap_or_default(),
                asked: row.inconclusive,
                connected: kernel.is_connected(host),
                attempt: row.attempt,
            });
        }
    }
    views.sort_by(|one, other| (one.since_ms, &one.name).cmp(&(other.since_ms, &other.name)));
    views
}

pub(super) fn failures(kernel: &Kernel) -> Vec<Failure> {
    let mut views = Vec::new();
    for row in kernel.legs() {
        for (host, row) in kernel.hosts[&row.leg].iter().filter(|(_, row)| row.counts) {
            views.push(Failure {
                host: host.to_string(),
                name: kernel.name(host).to_owned(),
                group: kernel
                    .planned(host)
                    .map(|planned| planned.group.to_string())
                    .unwrap_or_default(),
                leg: String::new(),
                outcome: row.phase.as_str().to_owned(),
                step: row.failed_step.clone(),
                code: row.code.clone(),
                reason: row.reason.clone(),
                at_ms: row.ended_at_ms.unwrap_or(row.since_ms),
                slot_held: row.slot,
                hint: failure_hint(row).to_owned(),
            });
        }
        let leg = row.leg.to_string();
        views
            .iter_mut()
            .filter(|view| view.leg.is_empty())
            .for_each(|view| view.leg.clone_from(&leg));
    }
    if kernel.legs().iter().any(|leg| leg.phase == LegPhase::Running) {
        views.sort_by_key(|view| std::cmp::Reverse(view.at_ms));
    }
    views
}

/// What to do about a host that ended badly.
fn failure_hint(row: &HostRow) -> &'static str {
    match row.phase {
        HostPhase::RolledBack => "its old client works; repair the cause and `retry` it",
        HostPhase::Failed | HostPhase::Refused => "nothing was changed; repair the cause and `retry` it",
        HostPhase::Inconsistent | HostPhase::Lost if row.slot && !row.is_awaited() => {
            "look at the client on the host; then `retry` it, or give its slot back with `host free-slot`"
        }
        HostPhase::Lost if row.is_awaited() => {
            "bring the host back and it goes on by itself, or give its slot back with `host free-slot`"
        }
        HostPhase::Inconsistent | HostPhase::Lost => "look at the client on the host; then `retry` it",
        _ => "",
    }
}
