//! Rules that ask for the cause itself: a stop for failures needs a failure too many, and a verified host truly delivers. The numbers are
//! worked out here anew from the rows, what PMM was shown comes from the machines.

use crate::gates::tolerated;
use crate::told::Told;
use fleet_common::ids::{HostId, LegId};
use fleet_common::verification::FleetSnapshot;
use fleet_common::version::PmmVersion;
use rollout::kernel::{GroupPhase, HostPhase, Kernel, LegPhase, Output};
use rollout::plan::{LegKind, PlanGroup};

pub const TOLERATED: &str = "nothing stops for failures that are tolerated";
pub const VERIFIED: &str = "who is verified delivers with the new release";

/// A group is breached or the rollout pauses for failures in this output, and there are not enough of them.
pub fn stopped_too_early(told: &Told, kernel: &Kernel, out: &Output) -> Option<String> {
    let says = |code: &str| out.events.iter().any(|event| event.code == code);
    let (breached, paused) = (says("group_breached"), says("rollout_paused"));
    if !breached && !paused {
        return None;
    }
    let both = || {
        let groups = kernel.plan().groups.iter();
        groups.flat_map(|group| kernel.legs().iter().map(move |leg| (&leg.leg, group)))
    };
    let too_many = |(leg, group): &(&LegId, &PlanGroup)| {
        told.failures(kernel, leg, group) > tolerated(kernel, leg, group) as usize
    };
    for (leg, group) in both().filter(|of| !too_many(of)) {
        let text = format!("group {} in {leg} is breached", group.name);
        if out
            .events
            .iter()
            .any(|event| event.code == "group_breached" && event.text == text)
        {
            return Some(format!(
                "{text} with {} failures",
                told.failures(kernel, leg, group)
            ));
        }
    }
    let pause = kernel
        .rollout()
        .pause
        .as_ref()
        .filter(|pause| paused && pause.code == "threshold")?;
    let tolerated = kernel.plan().failure_threshold;
    let over_all =
        tolerated.is_some_and(|tolerated| failed_over_all(told, kernel).len() > tolerated as usize);
    let founded = both().any(|of| too_many(&of)) || over_all;
    (!founded).then(|| pause.text.clone())
}

/// Hosts whose failure counts for the whole rollout: in the newest client leg that did anything with them they failed, their group had its turn
/// there, and nobody accepted that. A group that was taken back had its turn.
pub fn failed_over_all(told: &Told, kernel: &Kernel) -> Vec<HostId> {
    let clients = |leg: &&rollout::plan::Leg| matches!(leg.kind, LegKind::Clients { .. });
    let legs: Vec<&LegId> = kernel
        .plan()
        .legs
        .iter()
        .filter(clients)
        .map(|leg| &leg.id)
        .collect();
    let begun = |leg: &LegId| {
        let mut rows = kernel.legs().iter();
        rows.any(|row| row.leg == *leg && row.phase != LegPhase::Waiting)
    };
    let mut failed = Vec::new();
    for planned in &kernel.plan().hosts {
        let newest = legs.iter().rev().filter(|leg| begun(leg)).find(|leg| {
            let row = kernel.host(leg, &planned.host);
            row.is_some_and(|row| row.counts || row.made_it() || !row.phase.is_final())
        });
        let Some(leg) = newest else { continue };
        let turn = kernel.group(leg, &planned.group).is_some_and(|row| {
            !matches!(
                row.phase,
                GroupPhase::Pending | GroupPhase::Gated | GroupPhase::Cancelled
            ) && !told.is_accepted(leg, &planned.group, &planned.host)
        });
        if turn && kernel.host(leg, &planned.host).is_some_and(|row| row.counts) {
            failed.push(planned.host.clone());
        }
    }
    failed
}

/// The release that PMM showed of a client since that was changed last.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Shown {
    pub samples: Option<PmmVersion>,
    pub connected: Option<PmmVersion>,
    /// The end of that change: PMM shows a sample for minutes, and one from until then proves nothing.
    since_ms: u64,
}

impl Shown {
    /// Nothing yet of a client that was changed at this moment.
    pub fn nothing_since(since_ms: u64) -> Self {
        Self {
            since_ms,
            ..Self::default()
        }
    }

    /// A view of PMM was taken while this release ran there. Who compares the samples has a clock that is behind by at most this much.
    pub fn in_view(
        &mut self,
        view: &FleetSnapshot,
        agent_id: &str,
        node_id: &str,
        version: Option<PmmVersion>,
        behind_ms: u64,
    ) {
        let newest = view.node_samples_ms.get(node_id);
        if newest.is_some_and(|at| at + behind_ms > self.since_ms) {
            self.samples = version;
        }
        if view.clients.get(agent_id).is_some_and(|client| client.connected) {
            self.connected = version;
        }
    }

    /// What proves the release of this host: samples, or where the baseline knows none that could stop, the connection.
    pub fn proves(&self, kernel: &Kernel, host: &HostId) -> Option<PmmVersion> {
        let planned = kernel.plan().hosts.iter().find(|planned| planned.host == *host);
        let known = planned.is_some_and(|planned| {
            let baseline = kernel.baseline();
            baseline.is_some_and(|view| view.node_samples_ms.contains_key(&planned.node_id))
        });
        if known { self.samples } else { self.connected }
    }
}

/// Whether a host passes its verification with this move.
pub fn passes(before: HostPhase, after: HostPhase) -> bool {
    matches!(
        before,
        HostPhase::Permitted | HostPhase::Switching | HostPhase::Verifying
    ) && matches!(after, HostPhase::Settling | HostPhase::Upgraded)
}

/// What a leg's clients come to.
pub fn target(kernel: &Kernel, leg: &LegId) -> Option<PmmVersion> {
    let leg = kernel.plan().legs.iter().find(|found| found.id == *leg)?;
    match &leg.kind {
        LegKind::Clients { to, .. } => Some(*to),
        LegKind::Survey | LegKind::Server { .. } => None,
    }
}
