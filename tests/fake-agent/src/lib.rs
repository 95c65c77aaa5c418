//! The agent's side of the wire, for tests of the coordinator and for benchmarks: real TLS and gRPC, nothing behind it.

#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used)]

use fleet_proto::agent_link_client::AgentLinkClient;
use fleet_proto::agent_message::Body as Up;
use fleet_proto::coordinator_message::Body as Down;
use fleet_proto::enrolment_client::EnrolmentClient;
use fleet_proto::{AgentMessage, CoordinatorMessage, EnrolReply, EnrolRequest, Event, Hello};
use hyper_util::rt::TokioIo;
use rcgen::{CertificateParams, KeyPair};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio_rustls::TlsConnector;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::{Channel, Endpoint};
use tonic::{Status, Streaming};

/// Longest wait for anything in a test.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// The parts of a join token.
#[derive(Clone, Debug)]
pub struct Token {
    pub id: String,
    pub secret: String,
    pub ca_key: String,
}

impl Token {
    pub fn parse(text: &str) -> Self {
        let parts: Vec<&str> = text.split('.').collect();
        assert_eq!(parts.len(), 3, "id.secret.sha256");
        Self {
            id: parts[0].to_owned(),
            secret: parts[1].to_owned(),
            ca_key: parts[2].to_owned(),
        }
    }
}

/// A key and its certificate request.
pub struct Key {
    pub key_pem: String,
    pub csr_pem: String,
}

pub fn new_key() -> Key {
    let key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
    // The names in the request are a wish that must not be granted.
    let params = CertificateParams::new(vec!["coordinator.example".to_owned()]).unwrap();
    Key {
        key_pem: key.serialize_pem(),
        csr_pem: params.serialize_request(&key).unwrap().pem().unwrap(),
    }
}

/// A gRPC channel over our own TLS stream.
pub async fn channel(
    address: SocketAddr,
    tls: rustls::ClientConfig,
) -> Result<Channel, tonic::transport::Error> {
    let connector = TlsConnector::from(Arc::new(tls));
    let service = tower::service_fn(move |_: http::Uri| {
        let connector = connector.clone();
        async move {
            let tcp = TcpStream::connect(address).await?;
            let name = rustls::pki_types::ServerName::try_from("localhost").unwrap();
            Ok::<_, std::io::Error>(TokioIo::new(connector.connect(name, tcp).await?))
        }
    });
    Endpoint::from_static("http://localhost")
        .connect_with_connector(service)
        .await
}

/// Enrols; the outer error is the transport's, the inner one the coordinator's.
pub async fn enrol(
    address: SocketAddr,
    token: &Token,
    key: &Key,
    hostname: &str,
) -> Result<Result<EnrolReply, Status>, tonic::transport::Error> {
    let tls = fleet_tls::client::pinned_ca_key(&token.ca_key).unwrap();
    let mut client = EnrolmentClient::new(channel(address, tls).await?);
    let request = EnrolRequest {
        token_id: token.id.clone(),
        token_secret: token.secret.clone(),
        csr_pem: key.csr_pem.clone(),
        hostname: hostname.to_owned(),
        agent_version: "0.0.0".to_owned(),
    };
    Ok(client.enrol(request).await.map(tonic::Response::into_inner))
}

/// An enrolled host.
pub struct Identity {
    pub host: String,
    pub certificate: String,
    pub ca: String,
    pub key: String,
}

impl Identity {
    pub async fn enrol(address: SocketAddr, token: &Token, hostname: &str) -> Self {
        let key = new_key();
        let reply = enrol(address, token, &key, hostname).await.unwrap().unwrap();
        Self {
            host: reply.host_id,
            certificate: reply.certificate_pem,
            ca: reply.ca_pem,
            key: key.key_pem,
        }
    }

    pub fn tls(&self) -> rustls::ClientConfig {
        fleet_tls::client::mutual(
            self.ca.as_bytes(),
            self.certificate.as_bytes(),
            self.key.as_bytes(),
        )
        .unwrap()
    }

    pub fn hello(&self, session_number: u64) -> Hello {
        Hello {
            protocol_min: 1,
            protocol_max: 1,
            features: Vec::new(),
            host_id: self.host.clone(),
            session_number,
            boot_id: "boot".to_owned(),
            agent_version: "0.0.0".to_owned(),
            highest_epoch: None,
            outbox_id: "outbox".to_owned(),
            last_sequence: 0,
            acknowledged: 0,
            running_order: String::new(),
            inventory_digest: String::new(),
        }
    }
}

impl Identity {
    /// A client for the short calls, on a connection of its own.
    pub async fn calls(&self, address: SocketAddr) -> AgentLinkClient<Channel> {
        AgentLinkClient::new(channel(address, self.tls()).await.unwrap())
    }

    /// Asks for a certificate for a new key; the identity with it.
    pub async fn renew(&self, address: SocketAddr) -> Result<Self, Status> {
        let key = new_key();
        let request = fleet_proto::RenewRequest { csr_pem: key.csr_pem };
        let reply = self.calls(address).await.renew(request).await?.into_inner();
        Ok(Self {
            host: self.host.clone(),
            certificate: reply.certificate_pem,
            ca: reply.ca_pem,
            key: key.key_pem,
        })
    }
}

/// An open session.
pub struct Session {
    pub up: mpsc::Sender<AgentMessage>,
    down: Streaming<CoordinatorMessage>,
    _channel: Channel,
}

impl Session {
    pub async fn open(address: SocketAddr, tls: rustls::ClientConfig, hello: Hello) -> Result<Self, Status> {
        let channel = channel(address, tls)
            .await
            .map_err(|error| Status::unavailable(format!("{error:?}")))?;
        let mut client = AgentLinkClient::new(channel.clone());
        let (up, messages) = mpsc::channel(64);
        up.send(AgentMessage {
            body: Some(Up::Hello(hello)),
        })
        .await
        .unwrap();
        let down = client.session(ReceiverStream::new(messages)).await?.into_inner();
        Ok(Self {
            up,
            down,
            _channel: channel,
        })
    }

    /// The next message, however long it takes; `None` when the coordinator closed the stream.
    pub async fn message(&mut self) -> Option<Down> {
        let message = self.down.message().await;
        message.ok().flatten().and_then(|message| message.body)
    }

    /// The next message; `None` when the coordinator closed the stream.
    pub async fn next(&mut self) -> Option<Down> {
        let message = tokio::time::timeout(PATIENCE, self.down.message())
            .await
            .expect("a message in time");
        message.ok().flatten().and_then(|message| message.body)
    }

    /// Waits for the message that the closure picks.
    pub async fn pick<T>(&mut self, mut wanted: impl FnMut(Down) -> Option<T>) -> T {
        loop {
            let message = self.next().await.expect("the stream to go on");
            if let Some(found) = wanted(message) {
                return found;
            }
        }
    }

    pub async fn event(&self, sequence: u64, order: &str, body: &[u8]) {
        let event = Event {
            outbox_id: "outbox".to_owned(),
            sequence,
            order_id: order.to_owned(),
            epoch: None,
            at_ms: 1,
            body: body.to_vec(),
        };
        self.up
            .send(AgentMessage {
                body: Some(Up::Event(event)),
            })
            .await
            .unwrap();
    }

    /// Waits until the coordinator has committed this number.
    pub async fn acknowledged(&mut self, sequence: u64) {
        self.pick(|message| match message {
            Down::Ack(ack) if ack.sequence >= sequence => Some(()),
            _ => None,
        })
        .await;
    }

    pub async fn welcome(&mut self) -> fleet_proto::Welcome {
        self.pick(|message| match message {
            Down::Welcome(welcome) => Some(welcome),
            other => panic!("not welcome: {other:?}"),
        })
        .await
    }

    /// What an agent says as soon as it has stored its session number.
    pub async fn ready(&self) {
        let body = Some(Up::Ready(fleet_proto::Ready {}));
        // The coordinator may have closed the session already; the next message tells.
        let _ = self.up.send(AgentMessage { body }).await;
    }

    pub async fn goodbye(&mut self) -> fleet_proto::Goodbye {
        self.pick(|message| match message {
            Down::Goodbye(goodbye) => Some(goodbye),
            _ => None,
        })
        .await
    }
}
