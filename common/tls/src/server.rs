//! Configurations of the coordinator's listeners.

use crate::{TlsError, certificates, private_key, provider, root_store};
use rustls::ServerConfig;
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use std::sync::Arc;

/// For agents: a client certificate of our CA is required.
pub fn mutual(ca_pem: &[u8], chain_pem: &[u8], key_pem: &[u8]) -> Result<ServerConfig, TlsError> {
    let roots = Arc::new(root_store(ca_pem)?);
    let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider()).build()?;
    let config = builder()?.with_client_cert_verifier(verifier).with_single_cert(
        certificates(chain_pem, "server certificate")?,
        private_key(key_pem)?,
    )?;
    Ok(hardened(config))
}

/// For enrolment: the server proves itself, the client has nothing yet. The chain must include the CA certificate, so that a joining
/// agent can check the key named in its token.
pub fn plain(chain_pem: &[u8], key_pem: &[u8]) -> Result<ServerConfig, TlsError> {
    let config = builder()?.with_no_client_auth().with_single_cert(
        certificates(chain_pem, "server certificate")?,
        private_key(key_pem)?,
    )?;
    Ok(hardened(config))
}

fn builder() -> Result<rustls::ConfigBuilder<ServerConfig, rustls::WantsVerifier>, TlsError> {
    Ok(ServerConfig::builder_with_provider(provider()).with_protocol_versions(&[&rustls::version::TLS13])?)
}

fn hardened(mut config: ServerConfig) -> ServerConfig {
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    config.max_early_data_size = 0;
    config.alpn_protocols = vec![b"h2".to_vec()];
    config
}
