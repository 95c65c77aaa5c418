//! Issues certificates. Of a request only the public key is used; names, usages and validity are ours.

use super::PkiError;
use fleet_common::ids::HostId;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, PublicKeyData as _, SanType,
    SerialNumber,
};
use sha2::{Digest as _, Sha256};
use std::time::{Duration, SystemTime};

const DAY: Duration = Duration::from_secs(24 * 3600);
/// The CA outlives any rollout; changing it means enrolling every host again.
const CA_DAYS: u32 = 3650;
/// `serve` renews it when a third of this is left.
pub const SERVER_DAYS: u32 = 397;
/// Hosts renew by themselves at two thirds of it.
const HOST_DAYS: u32 = 730;
/// Clocks of hosts may be behind ours.
const BACKDATE: Duration = Duration::from_secs(3600);

/// The CA with its key.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    ca_pem: String,
}

/// A certificate for a host.
#[derive(Clone, Debug)]
pub struct HostCertificate {
    /// Leaf, PEM.
    pub pem: String,
    /// Serial number in hex.
    pub serial: String,
}

/// A certificate with its key, both PEM.
pub struct Pair {
    /// Certificate.
    pub certificate: String,
    /// Private key.
    pub key: String,
}

impl Authority {
    /// Makes a new CA.
    pub fn generate() -> Result<Pair, PkiError> {
        let key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256)?;
        let mut params = base(CA_DAYS, "pmm-coordinator CA");
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let certificate = params.self_signed(&key)?;
        Ok(Pair {
            certificate: certificate.pem(),
            key: key.serialize_pem(),
        })
    }

    /// The CA from its files.
    pub fn from_pem(ca_pem: &str, key_pem: &str) -> Result<Self, PkiError> {
        let key = KeyPair::from_pem(key_pem)?;
        Ok(Self {
            issuer: Issuer::from_ca_cert_pem(ca_pem, key)?,
            ca_pem: ca_pem.to_owned(),
        })
    }

    /// CA certificate, PEM.
    pub fn ca_pem(&self) -> &str {
        &self.ca_pem
    }

    /// SHA-256 over the CA's SubjectPublicKeyInfo, as join tokens carry it.
    pub fn key_digest(&self) -> Result<String, PkiError> {
        let certificates = fleet_tls::certificates(self.ca_pem.as_bytes(), "CA certificate")?;
        let first = certificates.first().ok_or(fleet_tls::TlsError::Empty {
            what: "CA certificate",
        })?;
        Ok(fleet_tls::identity::spki_sha256_hex(first)?)
    }

    /// A server certificate for these names.
    pub fn issue_server(&self, names: &[String]) -> Result<Pair, PkiError> {
        let key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256)?;
        let mut params = base(SERVER_DAYS, "pmm-coordinator");
        params.subject_alt_names = names
            .iter()
            .map(|name| alt_name(name))
            .collect::<Result<_, _>>()?;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        let certificate = params.signed_by(&key, &self.issuer)?;
        Ok(Pair {
            certificate: certificate.pem(),
            key: key.serialize_pem(),
        })
    }

    /// Identifies the key of a request, after checking that the request is signed by it.
    pub fn request_key_digest(csr_pem: &str) -> Result<String, PkiError> {
        let request = CertificateSigningRequestParams::from_pem(csr_pem).map_err(PkiError::Request)?;
        Ok(hex::encode(Sha256::digest(request.public_key.der_bytes())))
    }

    /// A client certificate for the key of a request, naming the host and nothing that the request asked for.
    pub fn issue_host(&self, csr_pem: &str, host: &HostId) -> Result<HostCertificate, PkiError> {
        let mut request = CertificateSigningRequestParams::from_pem(csr_pem).map_err(PkiError::Request)?;
        let mut params = base(HOST_DAYS, host.as_str());
        let uri = format!("{}{host}", fleet_tls::identity::HOST_URI_PREFIX);
        params.subject_alt_names = vec![SanType::URI(
            uri.clone().try_into().map_err(|_| PkiError::Name(uri))?,
        )];
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        let serial = serial();
        params.serial_number = Some(SerialNumber::from(serial.clone()));
        request.params = params;
        let certificate = request.signed_by(&self.issuer)?;
        Ok(HostCertificate {
            pem: certificate.pem(),
            serial: hex::encode(serial),
        })
    }
}

fn base(days: u32, common_name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    let mut name = DistinguishedName::new();
    name.push(DnType::CommonName, common_name);
    params.distinguished_name = name;
    let now = SystemTime::now();
    params.not_before = (now - BACKDATE).into();
    params.not_after = (now + DAY * days).into();
    params.use_authority_key_identifier_extension = true;
    params
}

fn serial() -> Vec<u8> {
    // Positive and of fixed length: the first byte is never zero and never negative.
    let mut bytes = uuid::Uuid::new_v4().as_bytes().to_vec();
    if let Some(first) = bytes.first_mut() {
        *first = (*first & 0x7f) | 0x40;
    }
    bytes
}

fn alt_name(name: &str) -> Result<SanType, PkiError> {
    if let Ok(address) = name.parse() {
        return Ok(SanType::IpAddress(address));
    }
    let plain = !name.is_empty()
        && name.len() <= 253
        && name.split('.').all(|label| {
            !label.is_empty()
                && label
                    .bytes()
                    .all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
        });
    if !plain {
        return Err(PkiError::Name(name.to_owned()));
    }
    Ok(SanType::DnsName(
        name.to_owned()
            .try_into()
            .map_err(|_| PkiError::Name(name.to_owned()))?,
    ))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn authority() -> Authority {
        let pair = Authority::generate().unwrap();
        Authority::from_pem(&pair.certificate, &pair.key).unwrap()
    }

    #[test]
    fn only_the_key_of_a_request_counts() {
        let key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
        let mut wish = CertificateParams::new(vec!["coordinator.lab".to_owned()]).unwrap();
        wish.subject_alt_names
            .push(SanType::URI("fleet://host/somebody-else".try_into().unwrap()));
        let csr = wish.serialize_request(&key).unwrap().pem().unwrap();
        let issued = authority().issue_host(&csr, &HostId::new("host-1")).unwrap();
        let der = fleet_tls::certificates(issued.pem.as_bytes(), "leaf").unwrap();
        assert_eq!(
            fleet_tls::identity::host_id(&der[0]).unwrap().as_deref(),
            Some("host-1")
        );
        let bytes = der[0].as_ref();
        assert!(
            !bytes.windows(15).any(|w| w == b"coordinator.lab"),
            "a wished name got into the certificate"
        );
    }

    #[test]
    fn nonsense_is_refused() {
        assert!(matches!(
            Authority::request_key_digest("no pem"),
            Err(PkiError::Request(_))
        ));
        assert!(alt_name("a b").is_err());
        assert!(alt_name("").is_err());
        assert!(matches!(alt_name("10.0.0.1"), Ok(SanType::IpAddress(_))));
        assert!(matches!(alt_name("coordinator.lab"), Ok(SanType::DnsName(_))));
    }

    #[test]
    fn the_key_digest_is_stable() {
        let authority = authority();
        let digest = authority.key_digest().unwrap();
        assert_eq!(digest.len(), 64);
        assert_eq!(digest, authority.key_digest().unwrap());
    }
}
