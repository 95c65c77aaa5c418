//! Every command of the operator's side: takes the request apart, asks the part that knows, answers with a document.

use super::access::Operator;
use crate::artifacts::Artifacts;
use crate::engine::EngineHandle;
use crate::pki::Authority;
use crate::pmm::DriverFiles;
use crate::problem::Problems;
use crate::sessions::Sessions;
use crate::store::Store;
use fleet_proto as wire;
use fleet_proto::operator_server::Operator as OperatorRpc;
use rollout::kernel::Command;
use serde::Serialize;
use std::sync::Arc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

/// The service on the operator socket.
#[derive(Clone)]
pub struct OperatorService {
    pub(super) store: Store,
    pub(super) sessions: Sessions,
    pub(super) engine: EngineHandle,
    pub(super) authority: Arc<Authority>,
    pub(super) files: DriverFiles,
    pub(super) artifacts: Artifacts,
}

impl OperatorService {
    /// The service over everything an operator may ask.
    pub fn new(
        store: Store,
        sessions: Sessions,
        engine: EngineHandle,
        authority: Arc<Authority>,
        files: DriverFiles,
        artifacts: Artifacts,
    ) -> Self {
        Self {
            store,
            sessions,
            engine,
            authority,
            files,
            artifacts,
        }
    }
}

type Answer = Result<Response<wire::Document>, Status>;

fn answer<T: Serialize>(result: Result<T, Problems>) -> Answer {
    match result {
        Ok(document) => {
            let json = serde_json::to_vec(&document).map_err(|error| Status::internal(error.to_string()))?;
            Ok(Response::new(wire::Document { json }))
        }
        Err(problems) => {
            tracing::info!(%problems, "a command was refused");
            Err(problems.into_status())
        }
    }
}

#[tonic::async_trait]
impl OperatorRpc for OperatorService {
    async fn create_token(&self, request: Request<wire::CreateTokenRequest>) -> Answer {
        let who = Operator::of(&request);
        answer(self.create_token_document(who, request.into_inner()).await)
    }

    async fn list_hosts(&self, _: Request<wire::Empty>) -> Answer {
        answer(self.hosts_document().await)
    }

    async fn show_host(&self, request: Request<wire::HostRequest>) -> Answer {
        answer(self.one_host_document(&request.into_inner().host).await)
    }

    async fn hold_host(&self, request: Request<wire::HoldRequest>) -> Answer {
        let who = Operator::of(&request);
        answer(self.hold_host_document(who, request.into_inner()).await)
    }

    async fn free_slot(&self, request: Request<wire::HostRequest>) -> Answer {
        let who = Operator::of(&request);
        answer(self.free_slot_document(who, request.into_inner()).await)
    }

    async fn survey(&self, request: Request<wire::SurveyRequest>) -> Answer {
        answer(self.survey_document(request.into_inner()).await)
    }

    async fn inspect_server(&self, request: Request<wire::FleetRequest>) -> Answer {
        answer(self.inspect_document(request.into_inner()).await)
    }

    async fn preflight_server(&self, request: Request<wire::FleetRequest>) -> Answer {
        answer(self.preflight_document(request.into_inner()).await)
    }

    async fn create_plan(&self, request: Request<wire::FleetRequest>) -> Answer {
        let who = Operator::of(&request);
        answer(self.create_plan_document(who, request.into_inner()).await)
    }

    async fn show_plan(&self, request: Request<wire::PlanRequest>) -> Answer {
        answer(self.show_plan_document(&request.into_inner().plan_id).await)
    }

    async fn diff_plan(&self, request: Request<wire::PlanDiffRequest>) -> Answer {
        let wire::PlanDiffRequest { plan_id, other } = request.into_inner();
        answer(self.plan_diff_document(&plan_id, &other).await)
    }

    async fn start(&self, request: Request<wire::StartRequest>) -> Answer {
        let who = Operator::of(&request);
        answer(self.start_document(who, request.into_inner()).await)
    }

    async fn pause(&self, request: Request<wire::ReasonRequest>) -> Answer {
        let who = Operator::of(&request);
        let reason = request.into_inner().reason;
        answer(self.command_document(who, Command::Pause { reason }).await)
    }

    async fn resume(&self, request: Request<wire::ReasonRequest>) -> Answer {
        let who = Operator::of(&request);
        let wire::ReasonRequest { reason, force } = request.into_inner();
        let command = Command::Resume {
            reason,
            accept_server: force,
        };
        answer(self.command_document(who, command).await)
    }

    async fn abort(&self, request: Request<wire::ReasonRequest>) -> Answer {
        let who = Operator::of(&request);
        let wire::ReasonRequest { reason, force } = request.into_inner();
        answer(self.command_document(who, Command::Abort { reason, force }).await)
    }

    async fn retry(&self, request: Request<wire::RetryRequest>) -> Answer {
        let who = Operator::of(&request);
        let wire::RetryRequest { hosts, server } = request.into_inner();
        answer(self.command_document(who, Command::Retry { hosts, server }).await)
    }

    async fn approve(&self, request: Request<wire::ApproveRequest>) -> Answer {
        let who = Operator::of(&request);
        let group = request.into_inner().group;
        answer(self.command_document(who, Command::Approve { group }).await)
    }

    async fn limit(&self, request: Request<wire::LimitRequest>) -> Answer {
        let who = Operator::of(&request);
        let wire::LimitRequest {
            group,
            max_unavailable,
            failure_threshold,
            reason,
        } = request.into_inner();
        let command = Command::Limit {
            group,
            max_unavailable,
            failure_threshold,
            reason,
        };
        answer(self.command_document(who, command).await)
    }

    async fn skip_host(&self, request: Request<wire::HostRequest>) -> Answer {
        let who = Operator::of(&request);
        let wire::HostRequest { host, reason } = request.into_inner();
        answer(self.command_document(who, Command::Skip { host, reason }).await)
    }

    async fn rollback(&self, request: Request<wire::RollbackRequest>) -> Answer {
        let who = Operator::of(&request);
        answer(self.rollback_document(who, request.into_inner()).await)
    }

    async fn accept_host(&self, request: Request<wire::HostRequest>) -> Answer {
        let who = Operator::of(&request);
        let wire::HostRequest { host, reason } = request.into_inner();
        answer(self.command_document(who, Command::Accept { host, reason }).await)
    }

    async fn revoke_host(&self, request: Request<wire::HostRequest>) -> Answer {
        let who = Operator::of(&request);
        answer(self.revoke_document(who, request.into_inner()).await)
    }

    async fn host_action(&self, request: Request<wire::HostActionRequest>) -> Answer {
        let who = Operator::of(&request);
        answer(self.host_action_document(who, request.into_inner()).await)
    }

    async fn import_artifact(&self, request: Request<Streaming<wire::ArtifactPart>>) -> Answer {
        let who = Operator::of(&request);
        answer(self.import_document(who, request.into_inner()).await)
    }

    async fn adopt(&self, request: Request<wire::PlanRequest>) -> Answer {
        let who = Operator::of(&request);
        answer(self.adopt_plan_document(who, request.into_inner().plan_id).await)
    }

    async fn adopt_epoch(&self, request: Request<wire::Empty>) -> Answer {
        let who = Operator::of(&request);
        answer(self.adopt_document(who).await)
    }

    async fn status(&self, _: Request<wire::Empty>) -> Answer {
        answer(self.status_document().await)
    }

    type WatchStream = ReceiverStream<Result<wire::Document, Status>>;

    async fn watch(&self, _: Request<wire::Empty>) -> Result<Response<Self::WatchStream>, Status> {
        // The first frame is made here, so that "no rollout" is an ordinary refusal.
        self.status_document().await.map_err(Problems::into_status)?;
        Ok(Response::new(self.watch_frames()))
    }

    async fn explain(&self, request: Request<wire::ExplainRequest>) -> Answer {
        answer(self.explain_document(request.into_inner().subject).await)
    }

    async fn events(&self, request: Request<wire::EventsRequest>) -> Answer {
        answer(self.events_document(request.into_inner()).await)
    }

    async fn report(&self, _: Request<wire::Empty>) -> Answer {
        answer(self.report_document().await)
    }
}
