//! Configurations for dialling: the coordinator (by agents) and PMM Servers (by both programs).

use crate::pinned::{AcceptAny, LeafFingerprint, PinnedCaKey};
use crate::{TlsError, certificates, private_key, provider, root_store};
use rustls::ClientConfig;
use rustls::client::Resumption;
use std::sync::Arc;

/// An enrolled agent dials its coordinator: our CA only, own certificate shown.
pub fn mutual(ca_pem: &[u8], chain_pem: &[u8], key_pem: &[u8]) -> Result<ClientConfig, TlsError> {
    let config = ours()?
        .with_root_certificates(root_store(ca_pem)?)
        .with_client_auth_cert(certificates(chain_pem, "certificate")?, private_key(key_pem)?)?;
    Ok(http2(config))
}

/// Our CA, but no certificate of our own; the coordinator refuses such a session.
pub fn without_certificate(ca_pem: &[u8]) -> Result<ClientConfig, TlsError> {
    Ok(http2(
        ours()?
            .with_root_certificates(root_store(ca_pem)?)
            .with_no_client_auth(),
    ))
}

/// A joining agent: accepts the coordinator only if its chain holds a CA certificate whose public key has this SHA-256 (hex over the
/// SubjectPublicKeyInfo), that CA signed the leaf and the leaf is for the dialled name. A mismatch fails the handshake with
/// [`crate::CA_MISMATCH_TEXT`] before anything is sent.
pub fn pinned_ca_key(spki_sha256_hex: &str) -> Result<ClientConfig, TlsError> {
    let verifier = PinnedCaKey::new(spki_sha256_hex)?;
    let config = ours()?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_no_client_auth();
    Ok(http2(config))
}

/// A PMM Server whose certificate is signed by a known CA.
pub fn roots(ca_pem: &[u8]) -> Result<ClientConfig, TlsError> {
    Ok(pmm()?
        .with_root_certificates(root_store(ca_pem)?)
        .with_no_client_auth())
}

/// A PMM Server with a self-signed certificate, known by the SHA-256 of the leaf (hex, colons and a `sha256:` prefix allowed).
pub fn fingerprint(leaf_sha256: &str) -> Result<ClientConfig, TlsError> {
    let verifier = LeafFingerprint::new(leaf_sha256)?;
    Ok(pmm()?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_no_client_auth())
}

/// As a PMM client with `insecure-tls: true` does it: any certificate. Only for checks that the client itself would make the same way.
pub fn accept_any() -> Result<ClientConfig, TlsError> {
    Ok(pmm()?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(AcceptAny))
        .with_no_client_auth())
}

fn ours() -> Result<rustls::ConfigBuilder<ClientConfig, rustls::WantsVerifier>, TlsError> {
    Ok(ClientConfig::builder_with_provider(provider()).with_protocol_versions(&[&rustls::version::TLS13])?)
}

fn pmm() -> Result<rustls::ConfigBuilder<ClientConfig, rustls::WantsVerifier>, TlsError> {
    let versions = [&rustls::version::TLS13, &rustls::version::TLS12];
    Ok(ClientConfig::builder_with_provider(provider()).with_protocol_versions(&versions)?)
}

fn http2(mut config: ClientConfig) -> ClientConfig {
    config.alpn_protocols = vec![b"h2".to_vec()];
    config.resumption = Resumption::disabled();
    config
}
