//! Our own accept loop: a backlog that survives a restart of the fleet, a limit and a timeout on handshakes, and an alert that reaches
//! the refused peer before the socket closes.

use super::connection::{Connection, Peer};
use super::{EnrolmentService, SessionService};
use crate::config;
use crate::pki::CurrentTls;
use crate::store::Store;
use fleet_common::ids::HostId;
use fleet_proto::agent_link_server::AgentLinkServer;
use fleet_proto::enrolment_server::EnrolmentServer;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::{Semaphore, mpsc};
use tokio_rustls::TlsAcceptor;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::transport::Server;

/// A bound socket; its address is known even when port 0 was asked for.
pub struct Bound {
    listener: TcpListener,
    /// Where it listens.
    pub address: SocketAddr,
}

/// Binds with a long backlog.
pub fn bind(address: SocketAddr) -> io::Result<Bound> {
    let socket = if address.is_ipv4() {
        TcpSocket::new_v4()?
    } else {
        TcpSocket::new_v6()?
    };
    // A restart must not wait for the old sockets' time-wait.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    let listener = socket.listen(u32::try_from(config::BACKLOG).unwrap_or(1024))?;
    let address = listener.local_addr()?;
    Ok(Bound { listener, address })
}

/// Serves sessions until the token is set.
pub async fn serve_agents(
    bound: Bound,
    tls: CurrentTls,
    store: Store,
    service: SessionService,
    stop: CancellationToken,
) -> Result<(), tonic::transport::Error> {
    let gate = Gate {
        tls,
        limit: Arc::new(Semaphore::new(config::HANDSHAKES_AT_ONCE)),
        admission: Some(store),
    };
    let incoming = accept(bound.listener, gate, stop.clone());
    let service = AgentLinkServer::new(service).max_decoding_message_size(config::MESSAGE_LIMIT);
    limits(Server::builder())
        .add_service(service)
        .serve_with_incoming_shutdown(incoming, stop.cancelled_owned())
        .await
}

/// Serves enrolment until the token is set.
pub async fn serve_enrolment(
    bound: Bound,
    tls: CurrentTls,
    service: EnrolmentService,
    stop: CancellationToken,
) -> Result<(), tonic::transport::Error> {
    let gate = Gate {
        tls,
        limit: Arc::new(Semaphore::new(config::ENROL_HANDSHAKES_AT_ONCE)),
        admission: None,
    };
    let incoming = accept(bound.listener, gate, stop.clone());
    let service = EnrolmentServer::new(service).max_decoding_message_size(config::MESSAGE_LIMIT);
    limits(Server::builder())
        .timeout(Duration::from_secs(30))
        .add_service(service)
        .serve_with_incoming_shutdown(incoming, stop.cancelled_owned())
        .await
}

fn limits(server: Server) -> Server {
    server
        .initial_stream_window_size(config::STREAM_WINDOW)
        .initial_connection_window_size(config::CONNECTION_WINDOW)
        .max_concurrent_streams(config::STREAMS_PER_CONNECTION)
        .max_frame_size(config::FRAME_SIZE)
        .http2_max_header_list_size(config::HEADER_LIST)
        .http2_keepalive_interval(Some(config::KEEPALIVE))
        .http2_keepalive_timeout(Some(config::KEEPALIVE_TIMEOUT))
}

#[derive(Clone)]
struct Gate {
    tls: CurrentTls,
    limit: Arc<Semaphore>,
    /// With a store, a client certificate of a host that it admits is needed.
    admission: Option<Store>,
}

fn accept(
    listener: TcpListener,
    gate: Gate,
    stop: CancellationToken,
) -> ReceiverStream<io::Result<Connection>> {
    let (ready, connections) = mpsc::channel(64);
    tokio::spawn(async move {
        loop {
            // The permit is taken before the accept, so that peers wait in the kernel's backlog and not in our memory.
            let permit = tokio::select! {
                () = stop.cancelled() => return,
                permit = gate.limit.clone().acquire_owned() => permit,
            };
            let accepted = tokio::select! {
                () = stop.cancelled() => return,
                accepted = listener.accept() => accepted,
            };
            let (stream, address) = match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    // Out of descriptors or a peer that went away: neither is a reason to stop listening.
                    tracing::warn!(%error, "accept failed");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    continue;
                }
            };
            let (gate, ready) = (gate.clone(), ready.clone());
            tokio::spawn(async move {
                let connection = handshake(&gate, stream, address).await;
                drop(permit);
                if let Some(connection) = connection {
                    // The server is gone only at the end of the program.
                    let _ = ready.send(Ok(connection)).await;
                }
            });
        }
    });
    ReceiverStream::new(connections)
}

async fn handshake(gate: &Gate, stream: TcpStream, address: SocketAddr) -> Option<Connection> {
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(peer = %address, %error, "no TCP_NODELAY");
    }
    let current = gate.tls.borrow().clone();
    let accepting = TlsAcceptor::from(current).accept(stream).into_fallible();
    let tls = match tokio::time::timeout(config::HANDSHAKE_TIMEOUT, accepting).await {
        Err(_) => {
            tracing::warn!(peer = %address, "refused: the TLS handshake took longer than 10 s");
            return None;
        }
        Ok(Err((error, stream))) => {
            let reason = fleet_tls::find_refusal(&error).unwrap_or_else(|| error.to_string());
            tracing::warn!(peer = %address, %reason, "refused: the TLS handshake failed");
            linger(stream).await;
            return None;
        }
        Ok(Ok(tls)) => tls,
    };
    let Some(store) = &gate.admission else {
        let stranger = Peer {
            address,
            host: None,
            key_sha256: String::new(),
            not_after_ms: u64::MAX,
        };
        return Some(Connection::new(tls, stranger));
    };
    let certificate = tls
        .get_ref()
        .1
        .peer_certificates()
        .and_then(|chain| chain.first());
    let named = certificate.and_then(|leaf| {
        let host = fleet_tls::identity::host_id(leaf).ok().flatten()?;
        let key = fleet_tls::identity::public_key_sha256_hex(leaf).ok()?;
        let seconds = fleet_tls::identity::not_after(leaf).ok()?;
        let not_after_ms = u64::try_from(seconds).ok()?.saturating_mul(1000);
        Some((HostId::new(host), key, not_after_ms))
    });
    let Some((host, key_sha256, not_after_ms)) = named else {
        tracing::warn!(peer = %address, "refused: the client certificate names no host");
        return None;
    };
    // A host that is not admitted still gets its connection, so that the session can tell it why; it gets nothing else.
    match store.admits(&host).await {
        Ok(true) => {}
        Ok(false) => {
            tracing::warn!(peer = %address, %host, "the certificate is of an unknown or revoked host")
        }
        Err(error) => {
            tracing::error!(peer = %address, %host, %error, "refused: the store can't be asked");
            return None;
        }
    }
    Some(Connection::new(
        tls,
        Peer {
            address,
            host: Some(host),
            key_sha256,
            not_after_ms,
        },
    ))
}

/// Lets the alert arrive: closing a socket with unread data resets it, and the peer would see only the reset.
async fn linger(mut stream: TcpStream) {
    let drain = async {
        if stream.shutdown().await.is_err() {
            return;
        }
        let mut rest = [0u8; 4096];
        for _ in 0..64 {
            match stream.read(&mut rest).await {
                Ok(0) | Err(_) => return,
                Ok(_) => {}
            }
        }
    };
    // Whoever does not close within a second has had its chance.
    let _ = tokio::time::timeout(Duration::from_secs(1), drain).await;
}
