//! Verifiers for peers that no public root vouches for.

use crate::{TlsError, identity, provider};
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{verify_tls12_signature, verify_tls13_signature};
use rustls::{CertificateError, DigitallySignedStruct, Error, OtherError, RootCertStore, SignatureScheme};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use sha2::{Digest, Sha256};
use std::sync::Arc;

/// The message of a handshake that met another CA than the one in the join token.
pub const CA_MISMATCH_TEXT: &str = "the coordinator's CA is not the one named in the join token";

#[derive(Debug, thiserror::Error)]
#[error("{CA_MISMATCH_TEXT}")]
struct CaMismatch;

#[derive(Debug, thiserror::Error)]
#[error("the server's certificate has fingerprint sha256:{seen}, expected sha256:{wanted}")]
struct FingerprintMismatch {
    seen: String,
    wanted: String,
}

fn refused(error: impl std::error::Error + Send + Sync + 'static) -> Error {
    Error::InvalidCertificate(CertificateError::Other(OtherError(Arc::new(error))))
}

fn sha256_argument(text: &str) -> Result<String, TlsError> {
    let digest: String = text
        .trim()
        .trim_start_matches("sha256:")
        .replace(':', "")
        .to_ascii_lowercase();
    match hex::decode(&digest) {
        Ok(bytes) if bytes.len() == 32 => Ok(digest),
        _ => Err(TlsError::Digest(text.to_owned())),
    }
}

macro_rules! signatures {
    () => {
        fn verify_tls12_signature(
            &self,
            message: &[u8],
            certificate: &CertificateDer<'_>,
            signature: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, Error> {
            verify_tls12_signature(
                message,
                certificate,
                signature,
                &provider().signature_verification_algorithms,
            )
        }
        fn verify_tls13_signature(
            &self,
            message: &[u8],
            certificate: &CertificateDer<'_>,
            signature: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, Error> {
            verify_tls13_signature(
                message,
                certificate,
                signature,
                &provider().signature_verification_algorithms,
            )
        }
        fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
            provider()
                .signature_verification_algorithms
                .supported_schemes()
        }
    };
}

/// Accepts a chain whose CA certificate has a known public key.
#[derive(Debug)]
pub(crate) struct PinnedCaKey {
    digest: String,
}

impl PinnedCaKey {
    pub(crate) fn new(spki_sha256_hex: &str) -> Result<Self, TlsError> {
        Ok(Self {
            digest: sha256_argument(spki_sha256_hex)?,
        })
    }
}

impl ServerCertVerifier for PinnedCaKey {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let pinned = intermediates
            .iter()
            .find(|candidate| identity::spki_sha256_hex(candidate).is_ok_and(|seen| seen == self.digest))
            .ok_or_else(|| refused(CaMismatch))?;
        let mut roots = RootCertStore::empty();
        roots.add(pinned.clone().into_owned())?;
        let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider())
            .build()
            .map_err(|error| Error::General(error.to_string()))?;
        verifier.verify_server_cert(leaf, &[], name, ocsp, now)
    }
    signatures!();
}

/// Accepts one leaf certificate.
#[derive(Debug)]
pub(crate) struct LeafFingerprint {
    digest: String,
}

impl LeafFingerprint {
    pub(crate) fn new(leaf_sha256: &str) -> Result<Self, TlsError> {
        Ok(Self {
            digest: sha256_argument(leaf_sha256)?,
        })
    }
}

impl ServerCertVerifier for LeafFingerprint {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let seen = hex::encode(Sha256::digest(leaf));
        if seen == self.digest {
            Ok(ServerCertVerified::assertion())
        } else {
            Err(refused(FingerprintMismatch {
                seen,
                wanted: self.digest.clone(),
            }))
        }
    }
    signatures!();
}

/// Accepts everything.
#[derive(Debug)]
pub(crate) struct AcceptAny;

impl ServerCertVerifier for AcceptAny {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }
    signatures!();
}
