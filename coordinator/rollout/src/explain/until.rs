//! What ends by itself next, for everything that waits for something else.

use crate::kernel::{GroupPhase, HostPhase, Kernel, LegPhase};

/// The next thing that ends by itself, in words; `None` when nothing runs against the clock.
pub(super) fn next_end(kernel: &Kernel) -> Option<String> {
    let mut ends: Vec<(u64, String)> = Vec::new();
    for (leg, rows) in &kernel.hosts {
        for (host, row) in rows.iter().filter(|(_, row)| !row.phase.is_final()) {
            let name = kernel.name(host);
            if let Some(at) = row.deadline_ms {
                ends.push((at, format!("{name} ({} in {leg}) is given up", words(row.phase))));
            } else if let Some(at) = row.ask_at_ms {
                ends.push((at, format!("{name} is asked again")));
            }
        }
    }
    for leg in kernel.legs() {
        for hop in &leg.hops {
            if let Some(at) = hop.deadline_ms {
                ends.push((at, format!("the server's hop to {} counts as stuck", hop.to)));
            }
        }
        if let Some(at) = leg.offline_until_ms.filter(|_| leg.phase == LegPhase::Running) {
            let survey = leg.hops.is_empty() && kernel.leg_target(&leg.leg).is_none();
            let what = if survey {
                "hosts that are still away are asked again at their turn"
            } else {
                "hosts that are still away are left out"
            };
            ends.push((at, what.to_owned()));
        }
        for group in &kernel.plan.groups {
            let soak = kernel
                .group(&leg.leg, &group.name)
                .filter(|row| row.phase == GroupPhase::Soaking)
                .and_then(|row| row.soak_until_ms);
            if let Some(at) = soak {
                ends.push((at, format!("the soak of group {} ends", group.name)));
            }
        }
    }
    ends.into_iter().min().map(|(_, what)| what)
}

/// What happens at a deadline that is another one's.
pub(super) fn then_of_others(kernel: &Kernel) -> String {
    next_end(kernel).map_or_else(
        || "then the coordinator decides anew".to_owned(),
        |what| format!("then {what}; each change before that is looked at, too"),
    )
}

fn words(phase: HostPhase) -> String {
    phase.as_str().replace('_', " ")
}
