//! What all hosts of a leg wait for, at one price.

use super::{Duty, Kernel};
use fleet_common::ids::{HostId, LegId};

impl Kernel {
    /// The hosts of a leg that did not end, each with what it waits for. Much cheaper than asking for one after the other.
    pub fn host_duties(&self, leg: &LegId, now_ms: u64) -> Vec<(&HostId, Option<Duty>)> {
        let moment = self.moment(now_ms);
        let rows = self.hosts.get(leg).into_iter().flatten();
        rows.filter(|(_, row)| !row.phase.is_final())
            .map(|(host, _)| (host, self.host_duty_at(leg, host, &moment)))
            .collect()
    }
}
