//! Dialling the coordinator: TCP, then our own TLS, then HTTP/2. tonic gets an `http://` address and a connector that returns the TLS stream,
//! because it takes `https://` only with a TLS configuration of its own.

use fleet_tls::rustls::ClientConfig;
use hyper_util::rt::TokioIo;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tonic::transport::{Channel, Endpoint};
use tower::service_fn;

/// TCP and TLS together; a healthy handshake takes milliseconds, a storm of ten thousand some seconds.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// HTTP/2 ping while idle.
const PING_EVERY: Duration = Duration::from_secs(20);
/// Silence after a ping that means the peer is gone.
const PING_TIMEOUT: Duration = Duration::from_secs(20);

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The name is no TLS server name.
    #[error("`{0}` is not a host name")]
    Name(String),
    /// TCP or TLS failed.
    #[error("can't connect to {address}")]
    Connect {
        /// `host:port`.
        address: String,
        /// Why.
        #[source]
        source: tonic::transport::Error,
    },
}

/// A channel over TLS.
pub async fn connect(host: &str, port: u16, tls: ClientConfig) -> Result<Channel, ConnectError> {
    let name = rustls_pki_types::ServerName::try_from(host.to_owned())
        .map_err(|_| ConnectError::Name(host.to_owned()))?;
    let connector = TlsConnector::from(Arc::new(tls));
    let address = (host.to_owned(), port);
    let dial = service_fn(move |_: http::Uri| {
        let (connector, name, address) = (connector.clone(), name.clone(), address.clone());
        async move {
            let attempt = async {
                let tcp = TcpStream::connect(address).await?;
                tcp.set_nodelay(true)?;
                connector.connect(name, tcp).await
            };
            let stream = tokio::time::timeout(CONNECT_TIMEOUT, attempt)
                .await
                .unwrap_or_else(|_| Err(std::io::ErrorKind::TimedOut.into()))?;
            Ok::<_, std::io::Error>(TokioIo::new(stream))
        }
    });
    Endpoint::from_static("http://coordinator")
        .http2_keep_alive_interval(PING_EVERY)
        .keep_alive_timeout(PING_TIMEOUT)
        .keep_alive_while_idle(true)
        .initial_stream_window_size(64 * 1024)
        .initial_connection_window_size(128 * 1024)
        .connect_with_connector(dial)
        .await
        .map_err(|source| ConnectError::Connect {
            address: format!("{host}:{port}"),
            source,
        })
}
