//! Commands to the rollout: start, adopt, pause, resume, abort, retry, approve, limit, skip, accept, rollback.

use super::Ended;
use super::client::{self, Client};
use super::output::Output;
use crate::operator_api::documents::DoneDocument;
use fleet_common::codes::exit;
use fleet_proto as wire;

#[derive(clap::Args)]
pub struct StartArguments {
    /// Plan to start; the newest one if not given
    plan: Option<String>,
    /// Accept a PMM client without our agent, by its node name; repeat for several
    #[arg(long = "accept-unmatched", value_name = "NODE")]
    accept_unmatched: Vec<String>,
}

#[derive(clap::Args)]
pub struct AdoptArguments {
    /// Plan to adopt, made while the rollout runs; the newest one if not given
    plan: Option<String>,
}

#[derive(clap::Args)]
pub struct ReasonArguments {
    /// Why; kept in the log
    #[arg(long, default_value = "")]
    reason: String,
}

#[derive(clap::Args)]
pub struct ResumeArguments {
    /// Why; kept in the log
    #[arg(long, default_value = "")]
    reason: String,
    /// Go on although no client came back to the upgraded server
    #[arg(long)]
    accept_server: bool,
}

#[derive(clap::Args)]
pub struct AbortArguments {
    /// Why; kept in the log
    #[arg(long, default_value = "")]
    reason: String,
    /// Also take back hosts that are not verified yet
    #[arg(long)]
    force: bool,
}

#[derive(clap::Args)]
pub struct RetryArguments {
    /// Hosts by id or name; without any, everything that failed
    hosts: Vec<String>,
    /// The server leg
    #[arg(long)]
    server: bool,
}

#[derive(clap::Args)]
pub struct ApproveArguments {
    /// Group that may begin
    group: String,
}

#[derive(clap::Args)]
pub struct LimitArguments {
    /// Group whose numbers are reduced
    group: String,
    /// Most hosts that may be without a working client at once
    #[arg(long, value_name = "N", required_unless_present = "failure_threshold")]
    max_unavailable: Option<u32>,
    /// Failures that are tolerated
    #[arg(long, value_name = "N")]
    failure_threshold: Option<u32>,
    /// Why; kept in the log
    #[arg(long, default_value = "")]
    reason: String,
}

#[derive(clap::Args)]
pub struct SkipArguments {
    /// Host by id or name
    host: String,
    /// Why; kept in the log
    #[arg(long, default_value = "")]
    reason: String,
}

#[derive(clap::Subcommand)]
pub enum RollbackCommand {
    /// One host
    Host {
        /// Host by id or name
        host: String,
        /// Why; kept in the log and in the report
        #[arg(long)]
        reason: String,
    },
    /// A group; its hosts that did not begin are left out
    Group {
        /// Name of the group
        group: String,
        /// Why; kept in the log and in the report
        #[arg(long)]
        reason: String,
    },
    /// Every host that the client leg under way upgraded, group by group in reverse; that ends the rollout
    Clients {
        /// Why; kept in the log and in the report
        #[arg(long)]
        reason: String,
    },
}

type Reply = Result<tonic::Response<wire::Document>, tonic::Status>;

fn done(answer: Reply, output: &Output) -> Ended {
    let document: DoneDocument = client::read(answer)?;
    output.document(&document, |document| document.done.clone());
    Ok(exit::OK)
}

pub async fn start(arguments: StartArguments, client: &mut Client, output: &Output) -> Ended {
    let request = wire::StartRequest {
        plan_id: arguments.plan.unwrap_or_default(),
        accept_unmatched: arguments.accept_unmatched,
    };
    done(client.start(request).await, output)
}

pub async fn adopt(arguments: AdoptArguments, client: &mut Client, output: &Output) -> Ended {
    let request = wire::PlanRequest {
        plan_id: arguments.plan.unwrap_or_default(),
    };
    done(client.adopt(request).await, output)
}

pub async fn pause(arguments: ReasonArguments, client: &mut Client, output: &Output) -> Ended {
    done(
        client
            .pause(wire::ReasonRequest {
                reason: arguments.reason,
                force: false,
            })
            .await,
        output,
    )
}

pub async fn resume(arguments: ResumeArguments, client: &mut Client, output: &Output) -> Ended {
    done(
        client
            .resume(wire::ReasonRequest {
                reason: arguments.reason,
                force: arguments.accept_server,
            })
            .await,
        output,
    )
}

pub async fn abort(arguments: AbortArguments, client: &mut Client, output: &Output) -> Ended {
    done(
        client
            .abort(wire::ReasonRequest {
                reason: arguments.reason,
                force: arguments.force,
            })
            .await,
        output,
    )
}

pub async fn retry(arguments: RetryArguments, client: &mut Client, output: &Output) -> Ended {
    done(
        client
            .retry(wire::RetryRequest {
                hosts: arguments.hosts,
                server: arguments.server,
            })
            .await,
        output,
    )
}

pub async fn approve(arguments: ApproveArguments, client: &mut Client, output: &Output) -> Ended {
    done(
        client
            .approve(wire::ApproveRequest {
                group: arguments.group,
            })
            .await,
        output,
    )
}

pub async fn limit(arguments: LimitArguments, client: &mut Client, output: &Output) -> Ended {
    done(
        client
            .limit(wire::LimitRequest {
                group: arguments.group,
                max_unavailable: arguments.max_unavailable,
                failure_threshold: arguments.failure_threshold,
                reason: arguments.reason,
            })
            .await,
        output,
    )
}

pub async fn skip(arguments: SkipArguments, client: &mut Client, output: &Output) -> Ended {
    done(
        client
            .skip_host(wire::HostRequest {
                host: arguments.host,
                reason: arguments.reason,
            })
            .await,
        output,
    )
}

pub async fn accept(arguments: SkipArguments, client: &mut Client, output: &Output) -> Ended {
    done(
        client
            .accept_host(wire::HostRequest {
                host: arguments.host,
                reason: arguments.reason,
            })
            .await,
        output,
    )
}

pub async fn rollback(command: RollbackCommand, client: &mut Client, output: &Output) -> Ended {
    use wire::rollback_request::Target;
    let (target, reason) = match command {
        RollbackCommand::Host { host, reason } => (Target::Host(host), reason),
        RollbackCommand::Group { group, reason } => (Target::Group(group), reason),
        RollbackCommand::Clients { reason } => (Target::Clients(wire::Empty {}), reason),
    };
    let request = wire::RollbackRequest {
        target: Some(target),
        reason,
    };
    done(client.rollback(request).await, output)
}
