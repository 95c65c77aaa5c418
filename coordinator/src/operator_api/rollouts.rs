//! The rollout: begin, command, watch, explain, report.

use super::documents::{DoneDocument, EventsDocument, ExplainedDocument, LiveStatus, NumberedEvent};
use super::service::OperatorService;
use crate::config;
use crate::engine::Begin;
use crate::plan_choice;
use crate::pmm;
use crate::problem::{Problem, Problems};
use crate::store::{ADOPT_HINT, StoredEvent};
use fleet_common::ids::{PlanId, RolloutId};
use fleet_proto as wire;
use rollout::kernel::{Command, RollbackTarget};
use rollout::report::ReportDocument;
use std::collections::BTreeSet;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

/// Events of one subject that `explain` adds.
const EXPLAINED_EVENTS: u64 = 10;
/// Events in one answer when the operator names no number.
const EVENT_PAGE: u64 = 100_000;
/// A viewer sees times move even when nothing happens.
const HEARTBEAT: std::time::Duration = std::time::Duration::from_secs(1);

impl OperatorService {
    pub(super) async fn start_document(
        &self,
        who: String,
        request: wire::StartRequest,
    ) -> Result<DoneDocument, Problems> {
        let wanted = Some(PlanId::new(request.plan_id.clone())).filter(|_| !request.plan_id.is_empty());
        let plan = plan_choice::to_start(&request.plan_id, self.store.startable(wanted).await?)?;
        let checked = pmm::check(&plan.fleet_path, &plan.fleet_text)?;
        let driver = pmm::driver(&checked.fleet, &self.files)?;
        let begin = Begin {
            by: who,
            plan,
            driver,
            accept_unmatched: request.accept_unmatched,
        };
        Ok(DoneDocument {
            done: self.engine.begin(begin).await?,
        })
    }

    pub(super) async fn command_document(
        &self,
        who: String,
        command: Command,
    ) -> Result<DoneDocument, Problems> {
        Ok(DoneDocument {
            done: self.engine.command(who, command).await?,
        })
    }

    pub(super) async fn adopt_plan_document(
        &self,
        who: String,
        plan: String,
    ) -> Result<DoneDocument, Problems> {
        let plan = self.stored_plan(&plan).await?;
        Ok(DoneDocument {
            done: self.engine.adopt_plan(who, plan).await?,
        })
    }

    pub(super) async fn adopt_document(&self, who: String) -> Result<DoneDocument, Problems> {
        Ok(DoneDocument {
            done: self.engine.adopt(who).await?,
        })
    }

    pub(super) async fn rollback_document(
        &self,
        who: String,
        request: wire::RollbackRequest,
    ) -> Result<DoneDocument, Problems> {
        use wire::rollback_request::Target;
        let target = match request.target {
            Some(Target::Host(host)) => RollbackTarget::Host(host),
            Some(Target::Group(group)) => RollbackTarget::Group(group),
            Some(Target::Clients(_)) => RollbackTarget::Clients,
            None => {
                return Err(Problem::new("the request names nobody to take back")
                    .hint("give a host, a group, or all clients")
                    .into());
            }
        };
        let reason = request.reason;
        self.command_document(who, Command::Rollback { target, reason })
            .await
    }

    pub(super) async fn status_document(&self) -> Result<LiveStatus, Problems> {
        let view = self
            .engine
            .ask(|kernel, now_ms| kernel.map(|kernel| rollout::progress::view(kernel, now_ms)))
            .await?;
        let restored = self.store.restored().await?.map(|restored| restored.text());
        let status = match (view, &restored) {
            (Some(status), _) => status,
            (None, Some(text)) => return Err(Problem::new(text).hint(ADOPT_HINT).into()),
            (None, None) => return Err(self.not_started().await?),
        };
        let mut progress = self.sessions.progress();
        let in_flight: BTreeSet<&str> = status.in_flight.iter().map(|host| host.host.as_str()).collect();
        progress.retain(|host, _| in_flight.contains(host.as_str()));
        let progress = progress
            .into_iter()
            .map(|(host, latest)| (host.into(), latest))
            .collect();
        let waiting = self.waiting_plan().await?;
        Ok(LiveStatus {
            status,
            progress,
            store_restored: restored,
            waiting_plan: waiting.map(Into::into),
        })
    }

    pub(super) async fn report_document(&self) -> Result<ReportDocument, Problems> {
        let report = self
            .engine
            .ask(|kernel, now_ms| kernel.map(|kernel| rollout::report::report(kernel, now_ms)))
            .await?;
        match report {
            Some(report) => Ok(report),
            None => Err(self.not_started().await?),
        }
    }

    pub(super) async fn explain_document(&self, subject: String) -> Result<ExplainedDocument, Problems> {
        let wanted = subject;
        let explained = self
            .engine
            .ask(move |kernel, now_ms| {
                kernel.map(|kernel| {
                    rollout::explain::explain(kernel, &wanted, now_ms)
                        .ok_or_else(|| plan_choice::not_explained(kernel, &wanted))
                })
            })
            .await?;
        let Some(explained) = explained else {
            return Err(self.not_started().await?);
        };
        let mut explained = explained?;
        if explained.subject == "rollout"
            && let Some(waiting) = self.waiting_plan().await?
        {
            explained.with_waiting_plan(&waiting.plan, &waiting.follows);
        }
        let rollout = self.newest_rollout().await?;
        let last = self
            .store
            .last_events_about(&rollout, &explained.subject, EXPLAINED_EVENTS)
            .await?;
        Ok(ExplainedDocument {
            explained,
            events: last.iter().filter_map(numbered).collect(),
        })
    }

    pub(super) async fn events_document(
        &self,
        request: wire::EventsRequest,
    ) -> Result<EventsDocument, Problems> {
        let limit = if request.limit == 0 {
            EVENT_PAGE
        } else {
            u64::from(request.limit)
        };
        self.numbered_events(request.after, limit).await
    }

    async fn newest_rollout(&self) -> Result<RolloutId, Problems> {
        match self.store.newest_rollout().await? {
            Some(row) => Ok(row.rollout),
            None => Err(self.not_started().await?),
        }
    }

    /// What is said where there is no rollout.
    async fn not_started(&self) -> Result<Problems, Problems> {
        let newest = self.store.newest_plan().await?.map(|row| row.plan);
        Ok(plan_choice::not_started(newest.as_ref()).into())
    }

    async fn numbered_events(&self, after: u64, limit: u64) -> Result<EventsDocument, Problems> {
        let rollout = self.newest_rollout().await?;
        let stored = self.store.rollout_events(&rollout, after, limit).await?;
        let events = stored.iter().filter_map(numbered).collect();
        Ok(EventsDocument {
            rollout: rollout.to_string(),
            events,
        })
    }

    /// A status document at once and at each change, at most five a second; ends with the rollout at rest.
    pub(super) fn watch_frames(&self) -> ReceiverStream<Result<wire::Document, Status>> {
        let (frames, stream) = mpsc::channel(1);
        let service = self.clone();
        tokio::spawn(async move {
            let mut changes = service.engine.changes();
            loop {
                changes.mark_unchanged();
                let document = match service.status_document().await {
                    Ok(document) => document,
                    Err(problems) => {
                        let _ = frames.send(Err(problems.into_status())).await;
                        return;
                    }
                };
                let json = serde_json::to_vec(&document).unwrap_or_default();
                if frames.send(Ok(wire::Document { json })).await.is_err() || document.status.at_rest {
                    return;
                }
                tokio::time::sleep(config::WATCH_INTERVAL).await;
                tokio::select! {
                    changed = changes.changed() => if changed.is_err() { return },
                    () = tokio::time::sleep(HEARTBEAT) => {}
                    () = frames.closed() => return,
                }
            }
        });
        ReceiverStream::new(stream)
    }
}

fn numbered(stored: &StoredEvent) -> Option<NumberedEvent> {
    let event = serde_json::from_str(&stored.json).ok()?;
    Some(NumberedEvent {
        sequence: stored.sequence,
        event,
    })
}
