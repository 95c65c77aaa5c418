//! A coordinator's side for tests: own CA, real TLS listener, one session handed to the test.
#![allow(clippy::unwrap_used, clippy::expect_used, dead_code, unreachable_pub)]

use fleet_proto::agent_link_server::{AgentLink, AgentLinkServer};
use fleet_proto::enrolment_server::{Enrolment, EnrolmentServer};
use fleet_proto::{
    AgentMessage, CoordinatorMessage, EnrolReply, EnrolRequest, agent_message, coordinator_message,
};
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, SanType,
};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
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
    pub fn host(&self, csr_pem: &str, host_id: &str) -> String {
        let mut request = CertificateSigningRequestParams::from_pem(csr_pem).unwrap();
        request.params = CertificateParams::new(Vec::<String>::new()).unwrap();
        request.params.subject_alt_names = vec![SanType::URI(
            format!("fleet://host/{host_id}").try_into().unwrap(),
        )];
        request.params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        request.signed_by(&self.issuer).unwrap().pem()
    }
}

/// The stream that tonic serves.
pub struct Accepted(TlsStream<TcpStream>);

impl Connected for Accepted {
    type ConnectInfo = ();
    fn connect_info(&self) {}
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

struct Link(mpsc::Sender<Session>);

#[tonic::async_trait]
impl AgentLink for Link {
    type SessionStream = ReceiverStream<Result<CoordinatorMessage, Status>>;
    type ArtifactStream = ReceiverStream<Result<fleet_proto::ArtifactChunk, Status>>;

    async fn renew(
        &self,
        _: Request<fleet_proto::RenewRequest>,
    ) -> Result<Response<fleet_proto::RenewReply>, Status> {
        Err(Status::unimplemented("this coordinator renews nothing"))
    }

    async fn artifact(
        &self,
        _: Request<fleet_proto::ArtifactRequest>,
    ) -> Result<Response<Self::ArtifactStream>, Status> {
        Err(Status::unimplemented("this coordinator has no artifacts"))
    }

    async fn session(
        &self,
        request: Request<Streaming<AgentMessage>>,
    ) -> Result<Response<Self::SessionStream>, Status> {
        let (to, from) = mpsc::channel(64);
        let session = Session {
            from: request.into_inner(),
            to,
        };
        self.0
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
        let certificate_pem = self.ca.host(&request.csr_pem, &host_id);
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

/// Serves sessions; returns its port and the sessions as they come.
pub async fn sessions(ca: &Ca, name: &str, bind: &str) -> (u16, mpsc::Receiver<Session>) {
    let listener = TcpListener::bind(bind).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let (chain, key) = ca.server(name);
    let tls = fleet_tls::server::mutual(ca.pem.as_bytes(), chain.as_bytes(), key.as_bytes()).unwrap();
    let incoming = accept(listener, tls).await;
    let (to, from) = mpsc::channel(4);
    tokio::spawn(
        tonic::transport::Server::builder()
            .add_service(AgentLinkServer::new(Link(to)))
            .serve_with_incoming(incoming),
    );
    (port, from)
}
