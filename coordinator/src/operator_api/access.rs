//! Who may talk to the operator socket.

use super::OperatorService;
use crate::problem::{Problem, Problems};
use fleet_proto::operator_server::OperatorServer;
use std::io;
use std::path::Path;
use tokio::net::UnixListener;
use tokio_stream::wrappers::UnixListenerStream;
use tokio_util::sync::CancellationToken;
use tonic::transport::Server;
use tonic::transport::server::UdsConnectInfo;
use tonic::{Request, Status};

/// Serves operators until the token is set.
pub async fn serve(path: &Path, service: OperatorService, stop: CancellationToken) -> io::Result<()> {
    let listener = bind(path)?;
    let service = OperatorServer::new(service).max_decoding_message_size(4 * 1024 * 1024);
    let guarded = tonic::service::interceptor::InterceptedService::new(service, check);
    Server::builder()
        .add_service(guarded)
        .serve_with_incoming_shutdown(UnixListenerStream::new(listener), stop.cancelled_owned())
        .await
        .map_err(io::Error::other)
}

fn bind(path: &Path) -> io::Result<UnixListener> {
    // We hold the lock of the data directory, so an old socket belongs to nobody.
    match fs_err::remove_file(path) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    // The directory is 0700, so nobody gets in between the bind and the change of mode.
    let listener = UnixListener::bind(path)?;
    fs_err::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o600))?;
    Ok(listener)
}

fn check(mut request: Request<()>) -> Result<Request<()>, Status> {
    let peer = request
        .extensions()
        .get::<UdsConnectInfo>()
        .and_then(|info| info.peer_cred);
    let own = rustix::process::geteuid().as_raw();
    match peer {
        Some(peer) if peer.uid() == own || peer.uid() == 0 => {
            request.extensions_mut().insert(Operator { uid: peer.uid() });
            Ok(request)
        }
        _ => {
            tracing::warn!(uid = ?peer.map(|peer| peer.uid()), "refused an operator connection");
            let problem = Problem::new("this account may not operate the coordinator")
                .hint("use the account that the coordinator runs as, or root");
            Err(Problems::from(problem).into_status())
        }
    }
}

/// Who gave a command, for the audit.
#[derive(Clone, Copy, Debug)]
pub struct Operator {
    uid: u32,
}

impl Operator {
    /// Of a request that passed [`check`].
    pub fn of<T>(request: &Request<T>) -> String {
        request.extensions().get::<Self>().map_or_else(
            || "unknown".to_owned(),
            |operator| format!("uid {}", operator.uid),
        )
    }
}
