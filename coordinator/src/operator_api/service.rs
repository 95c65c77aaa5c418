//! Every command of the operator's side: takes the request apart, asks the part that knows, answers with a document.

use super::access::Operator;
use crate::engine::EngineHandle;
use crate::pki::Authority;
use crate::problem::Problems;
use crate::sessions::Sessions;
use crate::store::Store;
use fleet_proto as wire;
use fleet_proto::operator_server::Operator as OperatorRpc;
use serde::Serialize;
use std::sync::Arc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

/// The service on the operator socket.
#[derive(Clone)]
pub struct OperatorService {
    pub(super) store: Store,
    pub(super) sessions: Sessions,
    pub(super) engine: EngineHandle,
    pub(super) authority: Arc<Authority>,
}

impl OperatorService {
    pub fn new(store: Store, sessions: Sessions, engine: EngineHandle, authority: Arc<Authority>) -> Self {
        Self { store, sessions, engine, authority }
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

fn not_yet() -> Answer { Err(Status::unimplemented("not yet")) }

#[tonic::async_trait]
impl OperatorRpc for OperatorService {
    async fn create_token(&self, request: Request<wire::CreateTokenRequest>) -> Answer {
        let who = Operator::of(&request);
        answer(self.create_token_document(who, request.into_inner()).await)
    }

    async fn list_hosts(&self, _: Request<wire::Empty>) -> Answer { answer(self.hosts_document().await) }

    async fn show_host(&self, request: Request<wire::HostRequest>) -> Answer {
        answer(self.one_host_document(&request.into_inner().host).await)
    }

    async fn hold_host(&self, request: Request<wire::HoldRequest>) -> Answer {
        let who = Operator::of(&request);
        answer(self.hold_host_document(who, request.into_inner()).await)
    }

    async fn free_slot(&self, _: Request<wire::HostRequest>) -> Answer { not_yet() }
    async fn survey(&self, _: Request<wire::SurveyRequest>) -> Answer { not_yet() }
    async fn inspect_server(&self, _: Request<wire::FleetRequest>) -> Answer { not_yet() }
    async fn preflight_server(&self, _: Request<wire::FleetRequest>) -> Answer { not_yet() }
    async fn create_plan(&self, _: Request<wire::FleetRequest>) -> Answer { not_yet() }
    async fn show_plan(&self, _: Request<wire::PlanRequest>) -> Answer { not_yet() }
    async fn start(&self, _: Request<wire::StartRequest>) -> Answer { not_yet() }
    async fn pause(&self, _: Request<wire::ReasonRequest>) -> Answer { not_yet() }
    async fn resume(&self, _: Request<wire::ReasonRequest>) -> Answer { not_yet() }
    async fn abort(&self, _: Request<wire::ReasonRequest>) -> Answer { not_yet() }
    async fn retry(&self, _: Request<wire::RetryRequest>) -> Answer { not_yet() }
    async fn status(&self, _: Request<wire::Empty>) -> Answer { not_yet() }

    type WatchStream = ReceiverStream<Result<wire::Document, Status>>;

    async fn watch(&self, _: Request<wire::Empty>) -> Result<Response<Self::WatchStream>, Status> {
        Err(Status::unimplemented("not yet"))
    }

    async fn explain(&self, _: Request<wire::ExplainRequest>) -> Answer { not_yet() }
    async fn events(&self, _: Request<wire::EventsRequest>) -> Answer { not_yet() }
    async fn report(&self, _: Request<wire::Empty>) -> Answer { not_yet() }
}
