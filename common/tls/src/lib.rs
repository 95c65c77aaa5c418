//! TLS for every connection of both programs, and the one place that names the crypto provider.
//!
//! Ours are TLS 1.3 only, without session resumption: a resumed session skips the client certificate check, so a revoked host could
//! come back. Connections to a PMM Server also accept TLS 1.2, which old PMM 2 images speak.

pub mod client;
pub mod identity;
mod pinned;
pub mod server;

use rustls::crypto::CryptoProvider;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use std::sync::Arc;

pub use pinned::CA_MISMATCH_TEXT;
pub use rustls;

/// Something about certificates or keys that makes a connection impossible.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// PEM text that can't be read.
    #[error("the {what} is not valid PEM")]
    Pem {
        /// Which input.
        what: &'static str,
        /// What the parser said.
        #[source]
        source: rustls_pki_types::pem::Error,
    },
    /// PEM text without what it should hold.
    #[error("the {what} holds no certificate")]
    Empty {
        /// Which input.
        what: &'static str,
    },
    /// rustls refused the material.
    #[error("certificates and key don't make a usable TLS configuration")]
    Config(#[from] rustls::Error),
    /// The verifier could not be built.
    #[error("the CA certificate can't be used to verify peers")]
    Verifier(#[from] rustls::server::VerifierBuilderError),
    /// A certificate that is not X.509.
    #[error("not an X.509 certificate")]
    NotX509,
    /// A digest that is not 64 hex digits.
    #[error("`{0}` is not a SHA-256 in hex")]
    Digest(String),
}

/// The crypto provider of the whole workspace.
pub fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}

/// Makes [`provider`] the process default, for libraries that ask for one. Calling it again does nothing.
pub fn install_default() {
    // The only error is that a default is set already, which is what we want.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
}

/// All certificates of a PEM text.
pub fn certificates(pem: &[u8], what: &'static str) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let chain = CertificateDer::pem_slice_iter(pem)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|source| TlsError::Pem { what, source })?;
    if chain.is_empty() {
        Err(TlsError::Empty { what })
    } else {
        Ok(chain)
    }
}

fn private_key(pem: &[u8]) -> Result<PrivateKeyDer<'static>, TlsError> {
    PrivateKeyDer::from_pem_slice(pem).map_err(|source| TlsError::Pem {
        what: "private key",
        source,
    })
}

fn root_store(ca_pem: &[u8]) -> Result<rustls::RootCertStore, TlsError> {
    let mut roots = rustls::RootCertStore::empty();
    for certificate in certificates(ca_pem, "CA certificate")? {
        roots.add(certificate)?;
    }
    Ok(roots)
}

/// What a failed handshake means, for people. rustls prints refusals of our own verifiers in debug form only.
pub fn describe(error: &rustls::Error) -> String {
    match error {
        rustls::Error::InvalidCertificate(rustls::CertificateError::Other(other)) => other.0.to_string(),
        other => other.to_string(),
    }
}

/// Looks for a TLS refusal anywhere in an error chain and describes it.
pub fn find_refusal(error: &(dyn std::error::Error + 'static)) -> Option<String> {
    let mut link = Some(error);
    while let Some(current) = link {
        if let Some(refusal) = current.downcast_ref::<rustls::Error>() {
            return Some(describe(refusal));
        }
        if let Some(io) = current.downcast_ref::<std::io::Error>()
            && let Some(refusal) = io
                .get_ref()
                .and_then(|inner| inner.downcast_ref::<rustls::Error>())
        {
            return Some(describe(refusal));
        }
        link = current.source();
    }
    None
}
