//! A coordinator's side for tests: own CA, real TLS listener, one session handed to the test.
#![allow(clippy::unwrap_used, clippy::expect_used, dead_code, unreachable_pub)]

use fleet_common::order::HostEvent;
use fleet_proto::agent_link_server::{AgentLink, AgentLinkServer};
use fleet_proto::enrolment_server::{Enrolment, EnrolmentServer};
use fleet_proto::{
    AgentMessage, ArtifactChunk, ArtifactRequest, CoordinatorMessage, EnrolReply, EnrolRequest, RenewReply,
    RenewRequest, agent_message, coordinator_message,
};
use fleet_proto::{Epoch, Event, Hello, Welcome};
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, SanType,
};
use std::collections::VecDeque;
use std::path::PathBuf;
use std::pin::Pin;
use std::process::{Child, Command, Output};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::server::Connected;
use tonic::{Request, Response, Status, Streaming};

/// A CA with its key.
pub struct Ca {
    pub pem: String,
    issuer: Issuer<'static, KeyPair>,
    pub spki: String,
    /// Enrolled hosts get a certificate that is nearly over.
    pub aged: AtomicBool,
}

impl Ca {
    pub fn new() -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(Vec::<String>::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let certificate = params.self_signed(&key).unwrap();
        let spki = fleet_tls::identity::spki_sha256_hex(certificate.der()).unwrap();
        Self {
            pem: certificate.pem(),
            issuer: Issuer::new(params, key),
            spki,
            aged: AtomicBool::new(false),
        }
    }

    /// Chain and key for the listener.
    pub fn server(&self, name: &str) -> (String, String) {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        let leaf = params.signed_by(&key, &self.issuer).unwrap();
        (format!("{}{}", leaf.pem(), self.pem), key.serialize_pem())
    }

    /// A host's certificate from its request.
    pub fn host(&self, csr_pem: &str, host_id: &str, aged: bool) -> String {
        let mut request = CertificateSigningRequestParams::from_pem(csr_pem).unwrap();
        request.params = CertificateParams::new(Vec::<String>::new()).unwrap();
        if aged {
            let now = std::time::SystemTime::now();
            let hour = std::time::Duration::from_secs(3600);
            request.params.not_before = (now - 100 * hour).into();
            request.params.not_after = (now + hour).into();
        }
        request.params.subject_alt_names = vec![SanType::URI(
            format!("fleet://host/{host_id}").try_into().unwrap(),
        )];
        request.params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        request.signed_by(&self.issuer).unwrap().pem()
    }
}

/// The stream that tonic serves.
pub struct Accepted(TlsStream<TcpStream>);

/// Digest of the key in the peer's certificate; empty without one.
#[derive(Clone)]
pub struct Key(pub String);

impl Connected for Accepted {
    type ConnectInfo = Key;
    fn connect_info(&self) -> Key {
        let leaf = self
            .0
            .get_ref()
            .1
            .peer_certificates()
            .and_then(|chain| chain.first());
        Key(leaf.map_or_else(String::new, |leaf| {
            fleet_tls::identity::public_key_sha256_hex(leaf).unwrap()
        }))
    }
}

impl AsyncRead for Accepted {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl AsyncWrite for Accepted {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, buf)
    }
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

async fn accept(
    listener: TcpListener,
    tls: rustls::ServerConfig,
) -> ReceiverStream<std::io::Result<Accepted>> {
    let acceptor = TlsAcceptor::from(Arc::new(tls));
    let (to, from) = mpsc::channel(8);
    tokio::spawn(async move {
        while let Ok((tcp, _)) = listener.accept().await {
            let (acceptor, to) = (acceptor.clone(), to.clone());
            tokio::spawn(async move {
                if let Ok(stream) = acceptor.accept(tcp).await {
                    let _ = to.send(Ok(Accepted(stream))).await;
                }
            });
        }
    });
    ReceiverStream::new(from)
}

use fleet_tls::rustls;

/// Both ends of one session, for the test.
pub struct Session {
    /// Digest of the agent's key.
    pub key: String,
    pub from: Streaming<AgentMessage>,
    pub to: mpsc::Sender<Result<CoordinatorMessage, Status>>,
}

impl Session {
    pub async fn send(&self, body: coordinator_message::Body) {
        self.to
            .send(Ok(CoordinatorMessage { body: Some(body) }))
            .await
            .unwrap();
    }

    pub async fn next(&mut self) -> Option<agent_message::Body> {
        self.from
            .message()
            .await
            .ok()
            .flatten()
            .and_then(|message| message.body)
    }
}

/// What a call for a file does, one after another; the last one stays.
#[derive(Clone, Debug)]
pub enum Serve {
    /// The bytes from the offset, in pieces of three.
    All(Vec<u8>),
    /// So many bytes from the offset, then the connection breaks.
    Break(Vec<u8>, usize),
    /// No such file.
    Unknown,
    /// Others are served.
    Busy,
    /// A length that nobody ordered.
    Length(Vec<u8>, u64),
}

/// What the coordinator's side does besides sessions, and what was asked of it.
#[derive(Default)]
pub struct Script {
    pub serve: Mutex<VecDeque<Serve>>,
    pub offsets: Mutex<Vec<u64>>,
    pub renewals: AtomicUsize,
}

struct Link {
    sessions: mpsc::Sender<Session>,
    ca: Option<Arc<Ca>>,
    script: Arc<Script>,
}

fn key_of<T>(request: &Request<T>) -> String {
    request
        .extensions()
        .get::<Key>()
        .map(|key| key.0.clone())
        .unwrap_or_default()
}

#[tonic::async_trait]
impl AgentLink for Link {
    type SessionStream = ReceiverStream<Result<CoordinatorMessage, Status>>;
    type ArtifactStream = ReceiverStream<Result<ArtifactChunk, Status>>;

    async fn renew(&self, request: Request<RenewRequest>) -> Result<Response<RenewReply>, Status> {
        let Some(ca) = &self.ca else {
            return Err(Status::unimplemented("this coordinator renews nothing"));
        };
        self.script.renewals.fetch_add(1, Ordering::SeqCst);
        let host = format!("host-{}", hostname());
        Ok(Response::new(RenewReply {
            certificate_pem: ca.host(&request.into_inner().csr_pem, &host, false),
            ca_pem: ca.pem.clone(),
        }))
    }

    async fn artifact(
        &self,
        request: Request<ArtifactRequest>,
    ) -> Result<Response<Self::ArtifactStream>, Status> {
        let offset = request.into_inner().offset;
        self.script.offsets.lock().unwrap().push(offset);
        let serve = {
            let mut list = self.script.serve.lock().unwrap();
            let next = list.front().cloned().unwrap_or(Serve::Unknown);
            if list.len() > 1 {
                list.pop_front();
            }
            next
        };
        let offset = usize::try_from(offset).unwrap();
        let (bytes, end, length) = match serve {
            Serve::Unknown => return Err(Status::not_found("no such file")),
            Serve::Busy => return Err(Status::resource_exhausted("busy")),
            Serve::All(bytes) => (bytes.clone(), bytes.len(), bytes.len() as u64),
            Serve::Break(bytes, count) => (bytes.clone(), offset + count, bytes.len() as u64),
            Serve::Length(bytes, length) => (bytes.clone(), bytes.len(), length),
        };
        let (to, from) = mpsc::channel(4);
        tokio::spawn(async move {
            for data in bytes[offset..end].chunks(3) {
                let chunk = ArtifactChunk {
                    length,
                    data: data.to_vec(),
                };
                if to.send(Ok(chunk)).await.is_err() {
                    return;
                }
            }
            if end < bytes.len() {
                let _ = to.send(Err(Status::unavailable("the line is cut"))).await;
            }
        });
        Ok(Response::new(ReceiverStream::new(from)))
    }

    async fn session(
        &self,
        request: Request<Streaming<AgentMessage>>,
    ) -> Result<Response<Self::SessionStream>, Status> {
        let (to, from) = mpsc::channel(64);
        let session = Session {
            key: key_of(&request),
            from: request.into_inner(),
            to,
        };
        self.sessions
            .send(session)
            .await
            .map_err(|_| Status::unavailable("the test is over"))?;
        Ok(Response::new(ReceiverStream::new(from)))
    }
}

struct Enroller {
    ca: Arc<Ca>,
    secret: String,
}

#[tonic::async_trait]
impl Enrolment for Enroller {
    async fn enrol(&self, request: Request<EnrolRequest>) -> Result<Response<EnrolReply>, Status> {
        let request = request.into_inner();
        if request.token_secret != self.secret {
            return Err(Status::unauthenticated(
                "token_invalid: the join token is unknown",
            ));
        }
        let host_id = format!("host-{}", request.hostname);
        let aged = self.ca.aged.load(Ordering::SeqCst);
        let certificate_pem = self.ca.host(&request.csr_pem, &host_id, aged);
        Ok(Response::new(EnrolReply {
            host_id,
            certificate_pem,
            ca_pem: self.ca.pem.clone(),
            group: String::new(),
        }))
    }
}

/// Serves the enrolment; returns its port.
pub async fn enrolment(ca: Arc<Ca>, name: &str, bind: &str, secret: &str) -> u16 {
    let listener = TcpListener::bind(bind).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let (chain, key) = ca.server(name);
    let tls = fleet_tls::server::plain(chain.as_bytes(), key.as_bytes()).unwrap();
    let incoming = accept(listener, tls).await;
    let service = EnrolmentServer::new(Enroller {
        ca,
        secret: secret.to_owned(),
    });
    tokio::spawn(
        tonic::transport::Server::builder()
            .add_service(service)
            .serve_with_incoming(incoming),
    );
    port
}

/// What the agent calls this machine.
pub fn hostname() -> String {
    std::fs::read_to_string("/proc/sys/kernel/hostname")
        .unwrap()
        .trim()
        .to_owned()
}

/// Serves sessions; returns its port and the sessions as they come.
pub async fn sessions(ca: &Ca, name: &str, bind: &str) -> (u16, mpsc::Receiver<Session>) {
    serve(ca, None, Arc::default(), name, bind).await
}

/// Serves sessions, renewals and files.
pub async fn coordinator(ca: &Arc<Ca>, name: &str) -> (u16, mpsc::Receiver<Session>, Arc<Script>) {
    let script = Arc::new(Script::default());
    let (port, sessions) = serve(ca, Some(ca.clone()), script.clone(), name, "127.0.0.1:0").await;
    (port, sessions, script)
}

async fn serve(
    ca: &Ca,
    renewer: Option<Arc<Ca>>,
    script: Arc<Script>,
    name: &str,
    bind: &str,
) -> (u16, mpsc::Receiver<Session>) {
    let listener = TcpListener::bind(bind).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let (chain, key) = ca.server(name);
    let tls = fleet_tls::server::mutual(ca.pem.as_bytes(), chain.as_bytes(), key.as_bytes()).unwrap();
    let incoming = accept(listener, tls).await;
    let (to, from) = mpsc::channel(4);
    let link = Link {
        sessions: to,
        ca: renewer,
        script,
    };
    tokio::spawn(
        tonic::transport::Server::builder()
            .add_service(AgentLinkServer::new(link))
            .serve_with_incoming(incoming),
    );
    (port, from)
}

pub const SECRET: &str = "secret";
/// Detection starts a dozen processes; a busy machine takes its time.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// An agent with directories of its own.
pub struct Agent {
    pub dir: tempfile::TempDir,
    pub child: Option<Child>,
    /// A copy of the program, where it may be replaced.
    pub program: PathBuf,
}

impl Agent {
    pub fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        Self {
            dir,
            child: None,
            program: PathBuf::from(env!("CARGO_BIN_EXE_pmm-upgrade-agent")),
        }
    }

    pub fn command(&self) -> Command {
        let mut command = Command::new(&self.program);
        let path = |name: &str| self.dir.path().join(name);
        command.arg("--state-dir").arg(path("state"));
        command.arg("--config-dir").arg(path("config"));
        command
    }

    pub async fn enrol(&self, enrol_port: u16, session_port: u16, token: &str) -> Output {
        let token_file = self.dir.path().join("token");
        std::fs::write(&token_file, token).unwrap();
        let mut command = self.command();
        command.args([
            "enrol",
            "--coordinator",
            &format!("https://localhost:{enrol_port}"),
        ]);
        command.args(["--session", &format!("localhost:{session_port}"), "--token-file"]);
        command.arg(&token_file);
        tokio::task::spawn_blocking(move || command.output().unwrap())
            .await
            .unwrap()
    }

    pub fn start(&mut self) {
        self.child = Some(self.command().arg("run").spawn().unwrap());
    }

    /// SIGKILL.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        self.kill();
    }
}

pub async fn soon<T>(work: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, work).await.expect("in time")
}

/// A new session up to its welcome.
pub async fn meet(
    sessions: &mut mpsc::Receiver<Session>,
    number: u64,
    acknowledged: u64,
) -> (Session, Hello) {
    let mut session = soon(sessions.recv()).await.unwrap();
    let Some(agent_message::Body::Hello(hello)) = soon(session.next()).await else {
        panic!("the first message is no hello");
    };
    let welcome = Welcome {
        protocol: 1,
        session_number: number,
        epoch: Some(Epoch { term: 1, counter: 1 }),
        acknowledged,
        reconnect_cap_ms: 200,
        reconnect_spread_ms: 1,
    };
    session.send(coordinator_message::Body::Welcome(welcome)).await;
    (session, hello)
}

pub async fn next_event(session: &mut Session) -> Event {
    loop {
        match soon(session.next()).await.expect("the session is up") {
            agent_message::Body::Event(event) => return event,
            _ => continue,
        }
    }
}

/// Reads events until the end of an order.
pub async fn end_of(session: &mut Session, id: &str) -> (Event, fleet_common::order::OrderResult) {
    loop {
        let event = next_event(session).await;
        if let (true, Ok(HostEvent::Finished(result))) = (
            event.order_id == id,
            fleet_proto::convert::host_event(&event.body),
        ) {
            return (event, result);
        }
    }
}
