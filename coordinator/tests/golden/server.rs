//! The server driver with a timetable.

use fleet_common::codes::Code;
use fleet_common::ids::OrderId;
use fleet_common::server::{HopOutcome, HopResult, ServerEvent, ServerOrder};
use fleet_common::version::PmmVersion;

/// Steps of a hop: name, what it waits for, seconds.
const STEPS: [(&str, &str, u64); 8] = [
    ("inspect", "Docker", 2),
    ("restore_point", "a copy of /srv while PMM runs", 120),
    ("pull", "the image", 60),
    ("stop", "all services to stop", 20),
    ("ownership", "/srv to belong to the user pmm", 30),
    ("create", "the new container", 5),
    ("migrate", "PMM to finish its migration", 90),
    ("compare", "the baseline to be matched", 15),
];

/// The server and its driver.
pub struct Server {
    pub version: PmmVersion,
    /// The hop of this number ends so, in this step, with this code and message.
    pub fails: Option<(u32, HopOutcome)>,
    /// Looks for clients that find nobody.
    pub nobody: bool,
    hop: Option<Hop>,
}

struct Hop {
    order: ServerOrder,
    at: u64,
    step: usize,
    cancelled: bool,
}

impl Server {
    pub fn new(version: PmmVersion) -> Self {
        Self {
            version,
            fails: None,
            nobody: false,
            hop: None,
        }
    }

    pub fn is_busy(&self) -> bool {
        self.hop.is_some()
    }

    pub fn take(&mut self, order: ServerOrder, now: u64) {
        match self.hop.as_mut().filter(|hop| hop.order.order == order.order) {
            Some(hop) => hop.order = order,
            None => {
                // An order given again after an answer that left the journal open goes on behind the last step.
                let step = if order.accept_unsettled || (self.version == order.to) {
                    STEPS.len()
                } else {
                    0
                };
                self.hop = Some(Hop {
                    order,
                    at: now + 1_000,
                    step,
                    cancelled: false,
                });
            }
        }
    }

    pub fn cancel(&mut self, order: &OrderId) {
        if let Some(hop) = self.hop.as_mut().filter(|hop| hop.order.order == *order) {
            hop.cancelled = true;
        }
    }

    /// The next thing that is due.
    pub fn step(&mut self, now: u64) -> Option<(OrderId, ServerEvent)> {
        let nobody = self.nobody;
        let hop = self.hop.as_mut().filter(|hop| hop.at <= now)?;
        let order = hop.order.clone();
        let fails = self
            .fails
            .filter(|(number, _)| *number == order.hop)
            .map(|(_, outcome)| outcome);
        let stop_at = match fails {
            Some(HopOutcome::Refused) => 1,
            Some(HopOutcome::Restored | HopOutcome::NeedsOperator) => 7,
            _ => STEPS.len(),
        };
        if !hop.cancelled && hop.step < stop_at {
            let (step, waits_for, seconds) = STEPS[hop.step];
            hop.step += 1;
            hop.at += seconds * 1_000;
            let event = ServerEvent::StepStarted {
                step: step.to_owned(),
                index: u32::try_from(hop.step).unwrap(),
                of: u32::try_from(STEPS.len()).unwrap(),
                waits_for: waits_for.to_owned(),
                deadline_for_ms: seconds * 4_000,
            };
            return Some((order.order, event));
        }
        let outcome = if hop.cancelled {
            HopOutcome::Restored
        } else {
            fails.unwrap_or(HopOutcome::Settled)
        };
        let settled = outcome == HopOutcome::Settled;
        if settled && self.version != order.to {
            self.version = order.to;
            return Some((order.order, ServerEvent::Published));
        }
        let waits = settled && order.last_of_leg && nobody && !order.accept_unsettled;
        let step = STEPS[hop.step.saturating_sub(1)].0;
        self.hop = None;
        if fails.is_some() {
            self.fails = None;
        }
        let (code, step, message, hint) = match outcome {
            _ if waits => (
                "deadline",
                "settle",
                "no client delivered samples within 10m",
                "check the network between the hosts and the server",
            ),
            HopOutcome::Settled => ("", "", "", ""),
            HopOutcome::Restored => (
                "migration_failed",
                step,
                "the migration of the database stopped with an error; the old container runs again",
                "read the log that the coordinator kept of the new container",
            ),
            HopOutcome::Refused => (
                "disk_space",
                step,
                "/srv has 12 GB free and a copy needs 40 GB",
                "make room, or name another volume for restore points",
            ),
            HopOutcome::NeedsOperator => (
                "rollback_failed",
                step,
                "the migration failed, and the old container does not start",
                "look at the container `pmm-server` and at its log",
            ),
        };
        let running = if settled { order.to } else { order.from };
        let result = HopResult {
            outcome: if waits { HopOutcome::NeedsOperator } else { outcome },
            from: order.from,
            running: (outcome != HopOutcome::NeedsOperator).then_some(running),
            code: Code::new(code),
            step: step.to_owned(),
            message: message.to_owned(),
            hints: if hint.is_empty() {
                Vec::new()
            } else {
                vec![hint.to_owned()]
            },
            restore_point: (outcome != HopOutcome::Refused).then(|| format!("pmm-restore-{}", order.hop)),
            downtime_ms: if outcome == HopOutcome::Refused {
                0
            } else {
                140_000
            },
            open: waits,
            leftovers: Vec::new(),
        };
        Some((order.order, ServerEvent::Finished(result)))
    }
}
