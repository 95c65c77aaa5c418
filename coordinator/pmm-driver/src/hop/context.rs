//! What every step has at hand.

use super::Tools;
use crate::clock::now_ms;
use crate::docker::Docker;
use crate::error::DriverError;
use crate::journal::Journal;
use crate::pmm::Pmm;
use fleet_common::codes::Code;
use fleet_common::server::{HopOutcome, HopResult, ServerEvent, ServerOrder};
use fleet_common::version::PmmVersion;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use server_upgrade::baseline::Baseline;
use server_upgrade::journal::Line;
use server_upgrade::names::{Names, Phase};
use server_upgrade::steps::{Limit, StepId, steps};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

/// Note: the last life ended by asking a person.
const HANDED_OVER: &str = "handed_over";

/// A hop in progress.
pub struct Hop<'a> {
    /// Configuration, credential, PMM's public address, helper.
    pub tools: Tools<'a>,
    /// The engine.
    pub docker: Docker,
    /// The order.
    pub order: ServerOrder,
    /// Its journal.
    pub journal: Journal,
    /// This process goes down.
    pub cancel: CancellationToken,
    /// It only ends, because a newer order took over.
    pub for_newer: bool,
    events: mpsc::Sender<ServerEvent>,
}

impl<'a> Hop<'a> {
    /// A hop around its journal.
    pub fn new(
        tools: Tools<'a>,
        docker: Docker,
        order: ServerOrder,
        journal: Journal,
        events: mpsc::Sender<ServerEvent>,
        cancel: CancellationToken,
    ) -> Self {
        Self {
            tools,
            docker,
            order,
            journal,
            cancel,
            for_newer: false,
            events,
        }
    }

    /// Sends an event. A receiver that is gone loses it; the journal does not.
    pub async fn send(&self, event: ServerEvent) {
        let of_a_step = matches!(
            event,
            ServerEvent::StepStarted { .. } | ServerEvent::StepFinished { .. }
        );
        if self.for_newer && !of_a_step {
            return;
        }
        let _ = self.events.send(event).await;
    }

    /// Whether somebody wants it to go back to where it started.
    pub fn is_given_up(&self) -> bool {
        let wanted = self.tools.given_up.lock();
        wanted.is_ok_and(|wanted| wanted.contains(&self.order.order))
    }

    /// A person goes on from here: that is no disturbance.
    pub fn hand_over(&mut self) -> Result<(), DriverError> {
        self.journal.note(HANDED_OVER, &true)
    }

    /// Says which step was hit, if this is not the first life of the order.
    pub async fn announce_resumption(&mut self) -> Result<(), DriverError> {
        if self.journal.get::<bool>(HANDED_OVER) == Some(true) {
            return self.journal.note(HANDED_OVER, &false);
        }
        let replay = self.journal.replay();
        if replay.begun.is_empty() {
            return Ok(());
        }
        let all = steps(&self.order, self.journal.get("rehome").unwrap_or(false));
        let next = match replay.next(&all) {
            server_upgrade::journal::Next::Step(id) => Some(id.name()),
            server_upgrade::journal::Next::Undo(undo, _) => Some(undo.name().to_owned()),
            _ => None,
        };
        let step = replay
            .open
            .clone()
            .or(next)
            .or_else(|| replay.begun.last().cloned())
            .unwrap_or_default();
        self.journal.append(Line::Resumed {
            step: step.clone(),
            at_ms: now_ms(),
        })?;
        self.send(ServerEvent::Resumed { step }).await;
        Ok(())
    }

    /// Writes the end and says it.
    pub async fn finish(&mut self, result: HopResult) -> Result<HopResult, DriverError> {
        self.journal.append(Line::Finished {
            result: result.clone(),
            at_ms: now_ms(),
        })?;
        self.send(ServerEvent::Finished(result.clone())).await;
        Ok(result)
    }

    /// A result with everything that does not depend on how it ended.
    pub fn result(&self, outcome: HopOutcome) -> HopResult {
        HopResult {
            outcome,
            from: self.order.from,
            running: None,
            code: Code::new(""),
            step: String::new(),
            message: String::new(),
            hints: Vec::new(),
            restore_point: self.journal.get("restore_point"),
            downtime_ms: self.downtime_ms(),
            open: false,
        }
    }

    fn downtime_ms(&self) -> u64 {
        let one = |phase: Phase| {
            let down: u64 = self.get(phase, "down_at_ms")?;
            let up: u64 = self.get(phase, "up_at_ms").unwrap_or_else(now_ms);
            Some(up.saturating_sub(down))
        };
        [Phase::Rehome, Phase::Main].into_iter().filter_map(one).sum()
    }

    /// The names of a phase.
    pub fn names(&self, phase: Phase) -> Names {
        Names::new(&self.tools.config.container, &self.order, phase)
    }

    /// The releases of a phase.
    pub fn versions(&self, phase: Phase) -> (PmmVersion, PmmVersion) {
        match phase {
            Phase::Rehome => (self.order.from, self.order.from),
            Phase::Main => (self.order.from, self.order.to),
        }
    }

    /// Keeps something of this phase for later steps.
    pub fn note<T: Serialize>(&mut self, phase: Phase, key: &str, value: &T) -> Result<(), DriverError> {
        self.journal.note(&format!("{}{key}", phase.prefix()), value)
    }

    /// As `note`, unless it is there: the first life's word counts.
    pub fn note_once<T: Serialize>(&mut self, phase: Phase, key: &str, value: &T) -> Result<(), DriverError> {
        if self
            .journal
            .replay()
            .notes
            .contains_key(&format!("{}{key}", phase.prefix()))
        {
            return Ok(());
        }
        self.note(phase, key, value)
    }

    /// Something of this phase.
    pub fn get<T: DeserializeOwned>(&self, phase: Phase, key: &str) -> Option<T> {
        self.journal.get(&format!("{}{key}", phase.prefix()))
    }

    /// Something of this phase that an earlier step must have left.
    pub fn need<T: DeserializeOwned>(&self, phase: Phase, key: &str) -> Result<T, DriverError> {
        self.get(phase, key).ok_or_else(|| {
            DriverError::state(
                fleet_common::codes::INTERNAL,
                format!("the journal has no `{}{key}`", phase.prefix()),
            )
        })
    }

    /// The baseline.
    pub fn baseline(&self) -> Result<Baseline, DriverError> {
        self.need(Phase::Main, "baseline")
    }

    /// The old container of a phase, with the name, policy and ports that it had before it was touched.
    pub async fn old_container(&self, phase: Phase) -> Result<Value, DriverError> {
        let id: String = self.need(phase, "old_id")?;
        let mut container = self.docker.existing(&id).await?;
        if let Some(policy) = self.get::<Value>(phase, "old_policy") {
            container["HostConfig"]["RestartPolicy"] = policy;
        }
        if let Some(ports) = self.get::<Value>(phase, "old_ports") {
            container["NetworkSettings"]["Ports"] = ports;
        }
        Ok(container)
    }

    /// The image that the old container of a phase runs from.
    pub async fn old_image(&self, phase: Phase) -> Result<Value, DriverError> {
        let id: String = self.need(phase, "old_image_id")?;
        self.docker.image(&id).await?.ok_or_else(|| {
            DriverError::state(
                fleet_common::codes::UNEXPECTED_STATE,
                format!("the image {id} is gone"),
            )
        })
    }

    /// PMM at another address than its public one, over plain HTTP.
    pub fn pmm_at(&self, address: &str) -> Result<Pmm, DriverError> {
        Pmm::new(&format!("http://{address}"), None, self.tools.credential.clone())
    }

    /// How long a step may take here.
    pub fn limit(&self, limit: Limit) -> Duration {
        let deadlines = &self.tools.config.deadlines;
        let bytes = self.journal.get::<u64>("data_bytes").unwrap_or_default();
        match limit {
            Limit::Quick => deadlines.quick,
            Limit::Stop => deadlines.stop,
            Limit::Pull => deadlines.pull,
            Limit::Volume => deadlines.volume_for(bytes),
            Limit::Migration => deadlines.migration_for(bytes),
            Limit::ApiUpdate => deadlines.api_update,
            Limit::Settle => deadlines.settle_for(self.journal.get::<usize>("clients").unwrap_or_default()),
        }
    }

    /// The pause between two looks.
    pub async fn pause(&self) {
        tokio::time::sleep(self.tools.config.deadlines.poll).await;
    }

    /// Whether a step of a phase was begun.
    pub fn begun(&self, phase: Phase, step: server_upgrade::steps::Step) -> bool {
        self.journal.replay().was_begun(StepId { phase, step })
    }
}
