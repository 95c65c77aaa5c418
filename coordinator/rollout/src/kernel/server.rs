//! The server legs: one hop after the other.

use super::Kernel;
use super::rows::Key;
use super::state::{HopRow, LegPhase, LegRow, RolloutPhase, StepRow};
use crate::plan::{Hop, LegKind};
use fleet_common::codes;
use fleet_common::ids::{LegId, OrderId};
use fleet_common::server::{HopOutcome, HopResult, ServerEvent, ServerOrder};

/// The driver names its first step within this time, and a step's end arrives this long after the step's own deadline at the latest:
/// the driver enforces the deadlines itself and needs some time for the way back to begin.
pub(super) const SERVER_GRACE_MS: u64 = 600_000;

impl Kernel {
    /// Gives the order for the next hop of a server leg, or settles the leg.
    pub(super) fn drive_server(&mut self, at: usize, now_ms: u64) {
        let Some(next) = self.legs[at].hops.iter().position(|hop| {
            hop.result
                .as_ref()
                .is_none_or(|result| result.outcome != HopOutcome::Settled)
        }) else {
            if self.repoints_settled(at, now_ms) {
                self.set_leg(at, LegPhase::Settled, now_ms);
            }
            return;
        };
        if self.repoints_under_way(at) || !self.late_hosts(at).is_empty() {
            return;
        }
        let hop = &self.legs[at].hops[next];
        if hop.order.is_some() || hop.result.is_some() || self.rollout.phase != RolloutPhase::Running {
            return;
        }
        if !self.may_strand(at, now_ms) {
            return;
        }
        let hop = &self.legs[at].hops[next];
        let id = self.hop_order(at, next, hop.attempt + 1);
        let text = format!("hop {}: {} to {}", hop.number, hop.from, hop.to);
        self.edit_hop(at, next, |hop| {
            hop.attempt += 1;
            hop.order = Some(id);
            hop.started_at_ms = Some(now_ms);
            hop.ended_at_ms = None;
            hop.deadline_ms = Some(now_ms + SERVER_GRACE_MS);
            hop.published = None;
            hop.accept_unsettled = false;
            hop.steps.clear();
        });
        self.event(now_ms, "server", "hop_started", text);
        self.send_server(at, next);
    }

    fn hop_order(&self, at: usize, position: usize, attempt: u32) -> OrderId {
        let leg = &self.legs[at];
        let number = leg.hops[position].number;
        OrderId::new(format!(
            "{}/{}/server/{attempt}/hop-{number}",
            self.rollout.id, leg.leg
        ))
    }

    fn send_server(&mut self, at: usize, position: usize) {
        let leg = &self.legs[at];
        let Some(planned) = planned_hop(&self.plan.legs, &leg.leg, position) else {
            return;
        };
        let row = &leg.hops[position];
        let Some(order) = row.order.clone() else { return };
        let message = ServerOrder {
            order,
            leg: leg.leg.clone(),
            attempt: row.attempt,
            hop: planned.number,
            from: planned.from,
            to: planned.to,
            pmm2_update: planned.pmm2_update,
            last_of_leg: planned.last_of_leg,
            accept_unsettled: row.accept_unsettled,
        };
        self.out.server.push(message);
    }

    /// Gives the open server order again, after a start of the coordinator.
    pub(super) fn resend_server(&mut self, now_ms: u64) {
        let open: Vec<(usize, usize)> = open_hops(&self.legs).collect();
        for (at, position) in open {
            self.edit_hop(at, position, |hop| {
                hop.deadline_ms = hop.deadline_ms.max(Some(now_ms + SERVER_GRACE_MS));
            });
            self.send_server(at, position);
        }
    }

    /// Whether the server is being worked on, and may be neither reached nor there.
    pub fn works_on_server(&self) -> bool {
        self.open_hop().is_some()
    }

    /// The order under way, if there is one.
    pub(crate) fn open_hop(&self) -> Option<(&LegRow, &HopRow)> {
        let (at, position) = open_hops(&self.legs).next()?;
        Some((&self.legs[at], &self.legs[at].hops[position]))
    }

    pub(super) fn server_event(&mut self, order: &OrderId, event: ServerEvent, now_ms: u64) {
        let Some((at, position)) = open_hops(&self.legs)
            .find(|(at, position)| self.legs[*at].hops[*position].order.as_ref() == Some(order))
        else {
            return;
        };
        if self.legs[at].phase == LegPhase::NeedsOperator {
            self.set_leg(at, LegPhase::Running, now_ms);
            self.goes_on_after_its_end("the server driver is heard of again", now_ms);
        }
        match event {
            ServerEvent::StepStarted {
                step,
                index,
                of,
                waits_for,
                deadline_for_ms,
            } => {
                let text = format!("step {index} of {of}: {step}");
                self.edit_hop(at, position, |hop| {
                    hop.deadline_ms = Some(now_ms + deadline_for_ms + SERVER_GRACE_MS);
                    // A step that is begun again after a restart stands there once.
                    hop.steps.retain(|known| known.step != step);
                    hop.steps.push(StepRow {
                        step,
                        index,
                        of,
                        since_ms: now_ms,
                        waits_for,
                        deadline_ms: now_ms + deadline_for_ms,
                        took_ms: None,
                    });
                });
                self.event(now_ms, "server", "step_started", text);
            }
            ServerEvent::StepFinished { step, took_ms } => self.edit_hop(at, position, |hop| {
                hop.deadline_ms = Some(now_ms + SERVER_GRACE_MS);
                if let Some(known) = hop.steps.iter_mut().find(|known| known.step == step) {
                    known.took_ms = Some(took_ms);
                }
            }),
            ServerEvent::Published => {
                if self.legs[at].hops[position].published.is_none() {
                    let text = format!(
                        "the server serves its clients with {}",
                        self.legs[at].hops[position].to
                    );
                    self.edit_hop(at, position, |hop| hop.published = Some(true));
                    self.event(now_ms, "server", "published", text);
                }
            }
            ServerEvent::Resumed { step } => {
                self.event(
                    now_ms,
                    "server",
                    "server_resumed",
                    format!("the server driver came back in step {step}"),
                );
                // The driver only goes away together with the coordinator, and its journal knows best which step was hit.
                match self
                    .rollout
                    .disturbances
                    .last_mut()
                    .filter(|last| last.target == "coordinator")
                {
                    Some(last) => {
                        last.step = step;
                        self.dirty.insert(Key::Rollout);
                    }
                    None => self.disturbed("coordinator".to_owned(), step, now_ms),
                }
            }
            ServerEvent::Finished(result) => self.hop_finished(at, position, result, now_ms),
        }
    }

    fn hop_finished(&mut self, at: usize, position: usize, result: HopResult, now_ms: u64) {
        let (outcome, message, code) = (result.outcome, result.message.clone(), result.code.clone());
        let left = result.leftovers.clone();
        let hint = result.hints.first().cloned();
        let (from, to) = (result.from, self.legs[at].hops[position].to);
        let stuck = if result.running == Some(to) {
            format!("the server runs {to}, but the hop did not settle")
        } else if result.step.is_empty() {
            format!("the driver could not go on with the hop to {to}")
        } else {
            format!("the hop to {to} failed and the way back too")
        };
        self.edit_hop(at, position, |hop| {
            hop.order = None;
            hop.deadline_ms = None;
            hop.ended_at_ms = Some(now_ms);
            hop.result = Some(result);
        });
        self.note_publication(at, position);
        let retry = hint.unwrap_or_else(|| "repair the cause, then `retry --server`, or `abort`".to_owned());
        match outcome {
            HopOutcome::Settled => {
                let text = if left.is_empty() {
                    format!("the server runs {to}")
                } else {
                    format!("the server runs {to}; left undone: {}", left.join("; "))
                };
                self.event(now_ms, "server", "hop_settled", text);
                if self.rollout.abort.is_some() {
                    self.set_leg(at, LegPhase::Cancelled, now_ms);
                }
            }
            HopOutcome::Restored => {
                self.event(
                    now_ms,
                    "server",
                    "hop_restored",
                    format!("the server is back on {from}: {message}"),
                );
                self.set_leg(at, LegPhase::Restored, now_ms);
                self.pause(
                    "server_restored",
                    &format!("the server is back on {from} ({code}): {message}"),
                    &retry,
                    "coordinator",
                    now_ms,
                );
            }
            HopOutcome::Refused => {
                self.event(
                    now_ms,
                    "server",
                    "hop_refused",
                    format!("the hop to {to} was refused: {message}"),
                );
                self.set_leg(at, LegPhase::Refused, now_ms);
                self.pause(
                    "server_refused",
                    &format!("the hop to {to} was refused ({code}): {message}"),
                    &retry,
                    "coordinator",
                    now_ms,
                );
            }
            HopOutcome::NeedsOperator => {
                self.event(now_ms, "server", "hop_needs_operator", message.clone());
                self.set_leg(at, LegPhase::NeedsOperator, now_ms);
                self.pause(
                    "server_needs_operator",
                    &format!("{stuck} ({code}): {message}"),
                    &retry,
                    "coordinator",
                    now_ms,
                );
            }
        }
    }

    /// The driver said nothing for longer than any step may take.
    pub(super) fn server_silent(&mut self, now_ms: u64) {
        let silent = |hop: &HopRow| hop.deadline_ms.is_some_and(|deadline| deadline < now_ms);
        let found: Vec<(usize, usize)> = open_hops(&self.legs)
            .filter(|(at, position)| silent(&self.legs[*at].hops[*position]))
            .collect();
        for (at, position) in found {
            let step = self.legs[at].hops[position].steps.last().map_or_else(
                || "its first step".to_owned(),
                |step| format!("step {}", step.step),
            );
            self.edit_hop(at, position, |hop| hop.deadline_ms = None);
            self.set_leg(at, LegPhase::NeedsOperator, now_ms);
            let text = format!(
                "the server driver was silent for too long in {step} ({})",
                codes::DEADLINE
            );
            self.event(now_ms, "server", "server_silent", text.clone());
            self.pause(
                "server_needs_operator",
                &text,
                "look at the container and at the coordinator's log; `retry --server` continues the hop",
                "coordinator",
                now_ms,
            );
        }
    }

    /// A new attempt of the hop that did not settle. What the driver could not decide is the same attempt still: its journal is open, so
    /// the same order continues it.
    pub(super) fn retry_server(&mut self, now_ms: u64) -> bool {
        let stuck = |leg: &LegRow| {
            matches!(
                leg.phase,
                LegPhase::Restored | LegPhase::Refused | LegPhase::NeedsOperator
            )
        };
        let Some(at) = self.legs.iter().position(stuck) else {
            return false;
        };
        for position in 0..self.legs[at].hops.len() {
            let hop = &self.legs[at].hops[position];
            if hop.order.is_some() {
                // Silent, not answered: the same order continues.
                self.edit_hop(at, position, |hop| {
                    hop.deadline_ms = Some(now_ms + SERVER_GRACE_MS)
                });
                self.send_server(at, position);
            } else if hop.result.as_ref().is_some_and(undecided) {
                self.go_on_with(at, position, now_ms);
            } else if hop
                .result
                .as_ref()
                .is_some_and(|result| result.outcome != HopOutcome::Settled)
            {
                self.edit_hop(at, position, |hop| hop.earlier.extend(hop.result.take()));
            }
        }
        self.set_leg(at, LegPhase::Running, now_ms);
        true
    }

    /// Gives the order of an open journal again.
    fn go_on_with(&mut self, at: usize, position: usize, now_ms: u64) {
        let order = self.hop_order(at, position, self.legs[at].hops[position].attempt);
        self.edit_hop(at, position, |hop| {
            // It is the same attempt still: what it cost is in its last answer.
            hop.earlier.extend(hop.result.take().map(|result| HopResult {
                restore_point: None,
                downtime_ms: 0,
                ..result
            }));
            hop.order = Some(order);
            hop.ended_at_ms = None;
            hop.deadline_ms = Some(now_ms + SERVER_GRACE_MS);
        });
        self.send_server(at, position);
    }

    /// The hop whose release serves and whose clients did not come back, if a person is asked about it.
    pub(crate) fn waits_for_clients(&self) -> Option<(usize, usize)> {
        let at = self
            .legs
            .iter()
            .position(|leg| leg.phase == LegPhase::NeedsOperator)?;
        let waits = |hop: &HopRow| {
            hop.result.as_ref().is_some_and(|result| {
                result.open && result.running == Some(hop.to) && result.step == "settle"
            })
        };
        self.legs[at]
            .hops
            .iter()
            .position(waits)
            .map(|position| (at, position))
    }

    /// A person goes on without the clients. The driver writes that down and settles.
    pub(super) fn accept_unsettled_server(&mut self, now_ms: u64) -> bool {
        let Some((at, position)) = self.waits_for_clients() else {
            return false;
        };
        self.edit_hop(at, position, |hop| hop.accept_unsettled = true);
        self.go_on_with(at, position, now_ms);
        self.set_leg(at, LegPhase::Running, now_ms);
        true
    }

    fn edit_hop(&mut self, at: usize, position: usize, change: impl FnOnce(&mut HopRow)) {
        change(&mut self.legs[at].hops[position]);
        self.dirty.insert(Key::Leg(self.legs[at].leg.clone()));
    }
}

/// The driver gave no answer of its own (every one that it gives names a step), or one that leaves its journal open.
fn undecided(result: &HopResult) -> bool {
    result.outcome == HopOutcome::NeedsOperator && (result.step.is_empty() || result.open)
}

fn open_hops(legs: &[LegRow]) -> impl Iterator<Item = (usize, usize)> + '_ {
    legs.iter().enumerate().flat_map(|(at, leg)| {
        leg.hops
            .iter()
            .enumerate()
            .filter(|(_, hop)| hop.order.is_some())
            .map(move |(position, _)| (at, position))
    })
}

fn planned_hop<'a>(legs: &'a [crate::plan::Leg], leg: &LegId, position: usize) -> Option<&'a Hop> {
    match &legs.iter().find(|found| found.id == *leg)?.kind {
        LegKind::Server { hops, .. } => hops.get(position),
        LegKind::Survey | LegKind::Clients { .. } => None,
    }
}
