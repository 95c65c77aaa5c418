//! `serve`: the daemon.

use super::Ended;
use crate::agent_api::{self, EnrolmentService, SessionService};
use crate::artifacts::Artifacts;
use crate::config::DataDir;
use crate::engine;
use crate::operator_api::{self, OperatorService};
use crate::pki;
use crate::pmm::DriverFiles;
use crate::problem::{Problem, Problems};
use crate::sessions::Sessions;
use crate::store::Store;
use crate::telemetry;
use fleet_common::codes::exit;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

#[derive(clap::Args)]
pub struct Arguments {
    /// Where agents connect
    #[arg(long, default_value = "0.0.0.0:9443")]
    listen: SocketAddr,
    /// Where new hosts enrol
    #[arg(long, default_value = "0.0.0.0:9444")]
    enrol_listen: SocketAddr,
    /// The static volume helper; by default the one beside this program, or the packaged one
    #[arg(long, env = "PMM_COORDINATOR_VOLUME_HELPER")]
    volume_helper: Option<PathBuf>,
    /// Log as JSON
    #[arg(long)]
    log_json: bool,
}

pub fn run(arguments: &Arguments, data: &DataDir) -> Ended {
    telemetry::init("info", arguments.log_json);
    raise_descriptor_limit();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .map_err(|error| Problem::because("no runtime", &error))?;
    runtime.block_on(serve(arguments, data))
}

async fn serve(arguments: &Arguments, data: &DataDir) -> Ended {
    if !data.store().is_file() {
        return Err(
            Problem::new(format!("{} is not initialised", data.path().display()))
                .hint("run `pmm-coordinator init --name <name of this machine>` first")
                .into(),
        );
    }
    let _lock = lock(data)?;
    let authority =
        Arc::new(pki::load(data).map_err(|error| Problem::because("the CA can't be read", &error))?);
    // Before anything is shown to others: from now on a SIGHUP ends nothing.
    let hangup =
        signal(SignalKind::hangup()).map_err(|error| Problem::because("no signal handler", &error))?;
    let tls = pki::server_configs(data, &authority)
        .map_err(|error| Problem::because("the server certificate can't be used", &error))?;
    let store = Store::open(&data.store())?;
    let term = store.take_over().await?;
    let sessions = Sessions::default();
    let stop = CancellationToken::new();
    let (agents_tls, enrol_tls) =
        pki::keep_current(data.clone(), authority.clone(), tls, hangup, stop.clone());
    // Sockets first: a port in use is found before anything is decided.
    let agents = bind(arguments.listen)?;
    let enrol = bind(arguments.enrol_listen)?;
    let files = DriverFiles::new(data, arguments.volume_helper.clone());
    let deps = engine::Deps {
        store: store.clone(),
        sessions: sessions.clone(),
        drivers: Arc::new(files.clone()),
        term,
        stop: stop.clone(),
    };
    let (engine, engine_task) = engine::start(deps).await?;
    tracing::info!(term, agents = %agents.address, enrolment = %enrol.address, "coordinator serves");

    let artifacts = Artifacts::open(&data.artifacts())
        .map_err(|error| Problem::because("the artifacts can't be read", &error))?;
    let session_service = SessionService::new(
        store.clone(),
        sessions.clone(),
        engine.clone(),
        authority.clone(),
        artifacts.clone(),
    );
    let enrolment = EnrolmentService::new(store.clone(), authority.clone());
    let operator = OperatorService::new(
        store.clone(),
        sessions.clone(),
        engine,
        authority.clone(),
        files,
        artifacts,
    );
    let agents = tokio::spawn(agent_api::serve_agents(
        agents,
        agents_tls,
        store.clone(),
        session_service,
        stop.clone(),
    ));
    let enrol = tokio::spawn(agent_api::serve_enrolment(
        enrol,
        enrol_tls,
        enrolment,
        stop.clone(),
    ));
    let socket = data.socket();
    let operator_stop = stop.clone();
    let operators = tokio::spawn(async move { operator_api::serve(&socket, operator, operator_stop).await });
    telemetry::ready();

    tokio::pin!(agents, enrol, operators, engine_task);
    let result = tokio::select! {
        () = signalled() => Ok(exit::OK),
        ended = &mut agents => Err(ended_early("the agents' listener", ended)),
        ended = &mut enrol => Err(ended_early("the enrolment listener", ended)),
        ended = &mut operators => Err(ended_early("the operator socket", ended)),
        ended = &mut engine_task => Err(Problem::new(format!("the engine ended: {ended:?}")).into()),
    };
    telemetry::stopping();
    tracing::info!("coordinator stops");
    sessions.dismiss_all();
    stop.cancel();
    // What is not finished within a moment is finished by the next start: a kill is a normal end.
    tokio::time::sleep(std::time::Duration::from_millis(200)).await;
    let _ = fs_err::remove_file(data.socket());
    result
}

fn ended_early<T, E: std::fmt::Display, J: std::fmt::Display>(
    what: &str,
    ended: Result<Result<T, E>, J>,
) -> Problems {
    let why = match ended {
        Ok(Ok(_)) => "without an error".to_owned(),
        Ok(Err(error)) => error.to_string(),
        Err(error) => error.to_string(),
    };
    Problem::new(format!("{what} ended: {why}")).into()
}

fn bind(address: SocketAddr) -> Result<agent_api::Bound, Problems> {
    agent_api::bind(address).map_err(|error| {
        Problem::because(format!("can't listen on {address}"), &error)
            .hint("choose other ports with --listen and --enrol-listen")
            .into()
    })
}

/// One descriptor for each agent: takes what the system allows.
fn raise_descriptor_limit() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    if let Err(error) = setrlimit(Resource::Nofile, raised) {
        tracing::debug!(%error, "the limit of open files stays as it is");
    }
}

/// One coordinator per data directory. The lock goes with the process, however it ends.
pub(super) fn lock(data: &DataDir) -> Result<fs_err::File, Problems> {
    let shown = data.path().display().to_string();
    let file = fs_err::OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .open(data.lock())
        .map_err(|error| Problem::because(format!("{shown} can't be locked"), &error))?;
    rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockExclusive).map_err(|error| {
        Problem::because(format!("another coordinator uses {shown}"), &error)
            .hint("only one `pmm-coordinator serve` may run on a data directory")
    })?;
    Ok(file)
}

async fn signalled() {
    let (Ok(mut term), Ok(mut int)) = (signal(SignalKind::terminate()), signal(SignalKind::interrupt()))
    else {
        return std::future::pending().await;
    };
    tokio::select! {
        _ = term.recv() => {}
        _ = int.recv() => {}
    }
}
