//! Handshakes in memory: who accepts whom, and what the refusal says.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use fleet_tls::rustls::pki_types::{CertificateDer, ServerName};
use fleet_tls::rustls::{ClientConfig, ClientConnection, Error, ServerConfig, ServerConnection};
use fleet_tls::{client, identity, server};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, SanType};
use std::sync::Arc;

struct Ca {
    issuer: CertifiedIssuer<'static, KeyPair>,
}

impl Ca {
    fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self {
            issuer: CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap(),
        }
    }
    fn pem(&self) -> String {
        self.issuer.pem()
    }
    fn pin(&self) -> String {
        identity::spki_sha256_hex(self.issuer.der()).unwrap()
    }
    /// (chain with the CA behind the leaf, key)
    fn leaf(&self, name: SanType) -> (String, String) {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.subject_alt_names = vec![name];
        let leaf = params.signed_by(&key, &self.issuer).unwrap();
        (format!("{}{}", leaf.pem(), self.pem()), key.serialize_pem())
    }
    fn server(&self) -> (String, String) {
        self.leaf(SanType::DnsName("coordinator.test".try_into().unwrap()))
    }
    fn host(&self, id: &str) -> (String, String) {
        self.leaf(SanType::URI(format!("fleet://host/{id}").try_into().unwrap()))
    }
}

fn handshake(client: ClientConfig, server: ServerConfig) -> Result<Option<CertificateDer<'static>>, Error> {
    let name = ServerName::try_from("coordinator.test").unwrap();
    let mut dialling = ClientConnection::new(Arc::new(client), name).unwrap();
    let mut accepting = ServerConnection::new(Arc::new(server)).unwrap();
    for _ in 0..8 {
        let mut wire = Vec::new();
        while dialling.wants_write() {
            dialling.write_tls(&mut wire).unwrap();
        }
        let mut bytes = wire.as_slice();
        while !bytes.is_empty() {
            accepting.read_tls(&mut bytes).unwrap();
            accepting.process_new_packets()?;
        }
        let mut wire = Vec::new();
        while accepting.wants_write() {
            accepting.write_tls(&mut wire).unwrap();
        }
        let mut bytes = wire.as_slice();
        while !bytes.is_empty() {
            dialling.read_tls(&mut bytes).unwrap();
            dialling.process_new_packets()?;
        }
    }
    assert!(!dialling.is_handshaking() && !accepting.is_handshaking());
    Ok(accepting
        .peer_certificates()
        .map(|chain| chain[0].clone().into_owned()))
}

#[test]
fn an_enrolled_host_is_let_in_and_known() {
    let ca = Ca::new();
    let ((chain, key), (leaf, host_key)) = (ca.server(), ca.host("h1"));
    let accepting = server::mutual(ca.pem().as_bytes(), chain.as_bytes(), key.as_bytes()).unwrap();
    let dialling = client::mutual(ca.pem().as_bytes(), leaf.as_bytes(), host_key.as_bytes()).unwrap();
    let peer = handshake(dialling, accepting)
        .unwrap()
        .expect("a client certificate");
    assert_eq!(identity::host_id(&peer).unwrap().as_deref(), Some("h1"));
}

#[test]
fn no_certificate_and_foreign_certificates_are_refused() {
    let (ca, other) = (Ca::new(), Ca::new());
    let (chain, key) = ca.server();
    let accepting = || server::mutual(ca.pem().as_bytes(), chain.as_bytes(), key.as_bytes()).unwrap();
    let none = handshake(
        client::without_certificate(ca.pem().as_bytes()).unwrap(),
        accepting(),
    );
    assert!(matches!(none, Err(Error::NoCertificatesPresented)), "{none:?}");
    let (leaf, host_key) = other.host("h1");
    let foreign = client::mutual(ca.pem().as_bytes(), leaf.as_bytes(), host_key.as_bytes()).unwrap();
    let refused = handshake(foreign, accepting());
    assert!(
        matches!(refused, Err(Error::InvalidCertificate(_))),
        "{refused:?}"
    );
}

#[test]
fn a_joining_agent_checks_the_ca_before_it_sends_anything() {
    let (ca, other) = (Ca::new(), Ca::new());
    let (chain, key) = ca.server();
    let accepting = || server::plain(chain.as_bytes(), key.as_bytes()).unwrap();
    handshake(client::pinned_ca_key(&ca.pin()).unwrap(), accepting()).unwrap();
    let refused = handshake(client::pinned_ca_key(&other.pin()).unwrap(), accepting()).unwrap_err();
    assert_eq!(fleet_tls::describe(&refused), fleet_tls::CA_MISMATCH_TEXT);
    // A chain that merely carries the right CA, with a leaf of somebody else, proves nothing.
    let (foreign_chain, foreign_key) = other.server();
    let forged = format!(
        "{}{}",
        foreign_chain
            .split_inclusive("-----END CERTIFICATE-----")
            .next()
            .unwrap(),
        ca.pem()
    );
    let forged = server::plain(format!("{forged}\n").as_bytes(), foreign_key.as_bytes()).unwrap();
    assert!(handshake(client::pinned_ca_key(&ca.pin()).unwrap(), forged).is_err());
}

#[test]
fn a_pmm_server_is_known_by_its_fingerprint() {
    let ca = Ca::new();
    let (chain, key) = ca.server();
    let leaf = fleet_tls::certificates(chain.as_bytes(), "leaf")
        .unwrap()
        .remove(0);
    let digest = identity::fingerprint_hex(&leaf);
    let accepting = || server::plain(chain.as_bytes(), key.as_bytes()).unwrap();
    let mut dialling = client::fingerprint(&format!("sha256:{digest}")).unwrap();
    dialling.alpn_protocols = vec![b"h2".to_vec()];
    handshake(dialling, accepting()).unwrap();
    let wrong = client::fingerprint(&"0".repeat(64)).unwrap();
    assert!(fleet_tls::describe(&handshake(wrong, accepting()).unwrap_err()).contains("fingerprint"));
    assert!(client::fingerprint("sha256:12").is_err());
}
