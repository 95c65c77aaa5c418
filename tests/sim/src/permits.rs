//! Rules about the time that orders give: a permit that is sent again has what is left of it, and a start of the coordinator gives everybody
//! time to connect again.

use fleet_common::ids::OrderId;
use fleet_common::order::Action;
use rollout::kernel::{Kernel, Output};
use std::collections::BTreeMap;

pub const LEFT: &str = "a permit that is sent again gives no more than what is left of its time";
pub const HEARD: &str = "nobody's time is up before its agent could connect to a coordinator that started";

/// Agents dial at least every 20 s; with half a minute more each that lives has done so.
const CONNECTED_MS: u64 = 50_000;

/// The permits that were seen leave: until when one may be used, and its whole time.
#[derive(Debug, Default)]
pub struct Permits(BTreeMap<OrderId, (u64, u64)>);

impl Permits {
    /// Of orders that a restored store has given already nobody saw the whole time.
    pub fn restored(&mut self, kernel: &Kernel) {
        let hosts = |leg| {
            kernel
                .plan()
                .hosts
                .iter()
                .filter_map(move |host| kernel.host(leg, &host.host))
        };
        let rows = kernel.legs().iter().flat_map(|leg| hosts(&leg.leg));
        let given = rows.filter_map(|row| row.order.as_ref());
        (self.0).extend(given.map(|order| (order.id.clone(), (u64::MAX, u64::MAX))));
    }

    /// The orders of an output, by the clock that the kernel was given.
    pub fn look(&mut self, kernel: &Kernel, out: &Output, wall_ms: u64) -> Option<String> {
        let mut broken = None;
        // What an abort leaves of permits has a rule of its own.
        if kernel.rollout().abort.is_some() {
            return None;
        }
        for order in out.orders.iter().filter(|order| order.action == Action::Switch) {
            let first = (wall_ms + order.start_within_ms, order.start_within_ms);
            let (until, whole) = *self.0.entry(order.order.clone()).or_insert(first);
            let left = until.saturating_sub(wall_ms).min(whole);
            if order.start_within_ms > left {
                let text = format!("{} for {} of {left} ms", order.order, order.start_within_ms);
                broken = Some(text);
            }
        }
        broken
    }
}

/// A coordinator took over: who has a deadline that is too short to be heard.
pub fn unheard(kernel: &Kernel, wall_ms: u64) -> Option<String> {
    if kernel.is_final() {
        return None;
    }
    for leg in kernel.legs() {
        for planned in &kernel.plan().hosts {
            let row = kernel.host(&leg.leg, &planned.host);
            let Some((row, deadline)) = row.and_then(|row| Some((row, row.deadline_ms?))) else {
                continue;
            };
            if deadline < wall_ms + CONNECTED_MS {
                let left = deadline.saturating_sub(wall_ms);
                return Some(format!(
                    "{} in {} is {:?} with {left} ms",
                    planned.name, leg.leg, row.phase
                ));
            }
        }
    }
    None
}
