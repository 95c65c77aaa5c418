//! Clients that are left behind when the PMM Server becomes PMM 3. `start` demands that each is accepted by name; a plan that was adopted may
//! know of more. Refusing it would not help them, as the server goes on without it, too: so a person is asked before that, and may adopt a
//! repaired plan.

use super::Kernel;
use super::rows::Key;
use super::state::{HopRow, LegPhase, RolloutPhase};
use fleet_common::server::HopOutcome;
use std::collections::BTreeSet;

/// Clients that nobody upgrades.
pub(super) const STAY_BEHIND: &str = "PMM clients without our agent would stay behind";
/// Clients that can't find the server any more.
pub(super) const LOSE_SERVER: &str = "PMM clients that address the server's container itself would lose it";
/// The code of the pause.
pub(super) const STRANDED: &str = "stranded";

fn crosses(hop: &HopRow) -> bool {
    let settled = hop.result.as_ref().map(|result| result.outcome) == Some(HopOutcome::Settled);
    hop.from.major == 2 && hop.to.major >= 3 && hop.order.is_none() && !settled
}

impl Kernel {
    /// Clients that nobody accepted and that a hop to come leaves behind, in one line; `None` where there are none.
    pub(super) fn strands(&self) -> Option<String> {
        let leg = self.legs.iter().find(|leg| leg.hops.iter().any(crosses))?;
        let left = self.plan.unmatched.iter().map(|client| client.name.as_str());
        let lost = self.plan.stranded.iter().map(|client| client.name.as_str());
        let parts = [
            self.nobody_accepted(left)
                .map(|names| format!("{STAY_BEHIND}: {names}")),
            self.nobody_accepted(lost)
                .map(|names| format!("{LOSE_SERVER}: {names}")),
        ];
        let parts: Vec<String> = parts.into_iter().flatten().collect();
        (!parts.is_empty()).then(|| format!("with {}, {}", leg.leg, parts.join("; ")))
    }

    fn nobody_accepted<'a>(&self, names: impl Iterator<Item = &'a str>) -> Option<String> {
        let open: BTreeSet<&str> = names
            .filter(|name| !self.rollout.accepted_unmatched.contains(*name))
            .collect();
        (!open.is_empty()).then(|| open.into_iter().collect::<Vec<_>>().join(", "))
    }

    /// Whether a server leg may begin its next hop, as far as they are concerned; else a person is asked.
    pub(super) fn may_strand(&mut self, at: usize, now_ms: u64) -> bool {
        let leg = &self.legs[at];
        let next = if leg.phase == LegPhase::Waiting {
            leg.hops.iter().any(crosses)
        } else {
            let open =
                |hop: &&HopRow| hop.result.as_ref().map(|result| result.outcome) != Some(HopOutcome::Settled);
            leg.hops.iter().find(open).is_some_and(crosses)
        };
        let Some(text) = self.strands().filter(|_| next) else {
            return true;
        };
        self.pause(
            STRANDED,
            &text,
            "see `plan show`; repair it, make a new plan and `adopt` it, or `resume` to go on without them",
            "coordinator",
            now_ms,
        );
        false
    }

    /// `resume` accepts the clients that the pause tells of: after another plan it tells of that one's.
    pub(super) fn retell_stranded(&mut self, now_ms: u64) {
        let Some(text) = self.strands() else { return };
        let paused = self.rollout.phase == RolloutPhase::Paused;
        let pause = self
            .rollout
            .pause
            .as_mut()
            .filter(|pause| paused && pause.code == STRANDED);
        let Some(pause) = pause.filter(|pause| pause.text != text) else {
            return;
        };
        pause.text.clone_from(&text);
        self.dirty.insert(Key::Rollout);
        self.event(now_ms, "rollout", "pause_cause", text);
    }

    /// `resume` after that.
    pub(super) fn accept_stranded(&mut self) {
        let left = self.plan.unmatched.iter().map(|client| client.name.clone());
        let lost = self.plan.stranded.iter().map(|client| client.name.clone());
        self.rollout.accepted_unmatched.extend(left.chain(lost));
        self.dirty.insert(Key::Rollout);
    }
}
