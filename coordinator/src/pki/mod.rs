//! Our own certificate authority: one CA key, the coordinator's server certificate and one certificate per host. Revocation is the store
//! check at every session; there are no lists to publish.

mod authority;
mod files;
mod reload;

pub use authority::Authority;
pub use files::{create, load, not_after_ms, server_configs};
pub use reload::{CurrentTls, keep_current};

use std::io;

/// What can go wrong with keys and certificates.
#[derive(Debug, thiserror::Error)]
pub enum PkiError {
    /// A file could not be read or written.
    #[error("a key or certificate file can't be used")]
    Io(#[from] io::Error),
    /// The certificate library refused.
    #[error("the certificate can't be made")]
    Certificate(#[from] rcgen::Error),
    /// TLS material that does not fit together.
    #[error("the TLS material is not usable")]
    Tls(#[from] fleet_tls::TlsError),
    /// A request that is not a signed certificate request.
    #[error("the certificate request is not valid or not signed by its own key")]
    Request(#[source] rcgen::Error),
    /// A certificate whose time is over.
    #[error("the certificate has expired")]
    Expired,
    /// A name that can't stand in a certificate.
    #[error("`{0}` is not a host name or an address")]
    Name(String),
}
