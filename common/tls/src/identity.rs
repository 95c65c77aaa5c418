//! Reading certificates: who a peer is and which key a CA has.

use crate::TlsError;
use rustls_pki_types::CertificateDer;
use sha2::{Digest, Sha256};
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

/// Scheme and authority before a host id in a certificate's SAN URI.
pub const HOST_URI_PREFIX: &str = "fleet://host/";

/// SHA-256, hex, over the SubjectPublicKeyInfo of a certificate: what a join token names its CA by.
pub fn spki_sha256_hex(certificate: &CertificateDer<'_>) -> Result<String, TlsError> {
    let (_, parsed) = X509Certificate::from_der(certificate).map_err(|_| TlsError::NotX509)?;
    Ok(hex::encode(Sha256::digest(parsed.public_key().raw)))
}

/// SHA-256, hex, over a whole certificate.
pub fn fingerprint_hex(certificate: &CertificateDer<'_>) -> String {
    hex::encode(Sha256::digest(certificate))
}

/// The host id in the SAN URI of a host's certificate; `None` when there is none or more than one. The common name is never looked at.
pub fn host_id(certificate: &CertificateDer<'_>) -> Result<Option<String>, TlsError> {
    let (_, parsed) = X509Certificate::from_der(certificate).map_err(|_| TlsError::NotX509)?;
    let Ok(Some(names)) = parsed.subject_alternative_name() else {
        return Ok(None);
    };
    let mut found = names.value.general_names.iter().filter_map(|name| match name {
        GeneralName::URI(uri) => uri.strip_prefix(HOST_URI_PREFIX),
        _ => None,
    });
    match (found.next(), found.next()) {
        (Some(id), None) if !id.is_empty() => Ok(Some(id.to_owned())),
        _ => Ok(None),
    }
}

/// SHA-256, hex, over the bits of a certificate's public key, without its algorithm: what a host is known by in the store.
pub fn public_key_sha256_hex(certificate: &CertificateDer<'_>) -> Result<String, TlsError> {
    let (_, parsed) = X509Certificate::from_der(certificate).map_err(|_| TlsError::NotX509)?;
    Ok(hex::encode(Sha256::digest(
        &parsed.public_key().subject_public_key.data,
    )))
}

/// Unix seconds of the beginning of a certificate's validity.
pub fn not_before(certificate: &CertificateDer<'_>) -> Result<i64, TlsError> {
    let (_, parsed) = X509Certificate::from_der(certificate).map_err(|_| TlsError::NotX509)?;
    Ok(parsed.validity().not_before.timestamp())
}

/// Unix seconds of the end of a certificate's validity.
pub fn not_after(certificate: &CertificateDer<'_>) -> Result<i64, TlsError> {
    let (_, parsed) = X509Certificate::from_der(certificate).map_err(|_| TlsError::NotX509)?;
    Ok(parsed.validity().not_after.timestamp())
}
