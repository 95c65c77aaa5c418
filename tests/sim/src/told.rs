//! Rules about what persons and hosts say: what an answer to it may be.

use fleet_common::ids::{HostId, LegId};
use rollout::kernel::{HostPhase, HostRow, Kernel, Output};
use rollout::plan::LegKind;

pub const HOLDS: &str = "whoever is under way in a client leg holds a slot";

type Found = Vec<(&'static str, String)>;

/// The hosts whose rows changed.
fn changed<'a>(
    kernel: &'a Kernel,
    out: &'a Output,
) -> impl Iterator<Item = (&'a str, LegId, HostId, &'a HostRow)> {
    out.rows.iter().filter_map(|row| {
        let (leg, host) = row.key.strip_prefix("host/")?.split_once('/')?;
        let (leg, host) = (LegId::from(leg), HostId::from(host));
        let found = kernel.host(&leg, &host)?;
        Some((row.key.as_str(), leg, host, found))
    })
}

/// What an output leaves under way without a slot.
pub fn look(kernel: &Kernel, out: &Output) -> Found {
    let without = |(_, leg, _, row): &(&str, LegId, HostId, &HostRow)| {
        is_under_way(row.phase) && !row.slot && is_of_clients(kernel, leg)
    };
    changed(kernel, out)
        .filter(without)
        .map(|(_, leg, host, row)| (HOLDS, format!("{host} in {leg} is {:?}", row.phase)))
        .collect()
}

fn is_under_way(phase: HostPhase) -> bool {
    matches!(
        phase,
        HostPhase::Permitted | HostPhase::Switching | HostPhase::Verifying | HostPhase::RollingBack
    )
}

fn is_of_clients(kernel: &Kernel, leg: &LegId) -> bool {
    let mut legs = kernel.plan().legs.iter();
    legs.any(|found| found.id == *leg && matches!(found.kind, LegKind::Clients { .. }))
}
