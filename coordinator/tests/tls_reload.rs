//! A new server certificate without a restart, on real sockets.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

use rcgen::{CertificateParams, ExtendedKeyUsagePurpose, Issuer, KeyPair};
use std::sync::Arc;
use support::agent::{Identity, Session};
use support::{Coordinator, PATIENCE};

/// Puts a new certificate of the coordinator's own CA in place; returns its leaf, DER.
fn replace(coordinator: &Coordinator) -> Vec<u8> {
    let pki = coordinator.data().join("pki");
    let ca = std::fs::read_to_string(pki.join("ca.pem")).unwrap();
    let ca_key = KeyPair::from_pem(&std::fs::read_to_string(pki.join("ca.key")).unwrap()).unwrap();
    let issuer = Issuer::from_ca_cert_pem(&ca, ca_key).unwrap();
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    let leaf = params.signed_by(&key, &issuer).unwrap();
    std::fs::write(pki.join("server.key"), key.serialize_pem()).unwrap();
    std::fs::write(pki.join("server.pem"), format!("{}{ca}", leaf.pem())).unwrap();
    leaf.der().to_vec()
}

/// The leaf that a listener shows in a handshake.
async fn shown(address: std::net::SocketAddr, identity: &Identity) -> Vec<u8> {
    let tcp = tokio::net::TcpStream::connect(address).await.unwrap();
    let name = rustls::pki_types::ServerName::try_from("localhost").unwrap();
    let connector = tokio_rustls::TlsConnector::from(Arc::new(identity.tls()));
    let stream = connector.connect(name, tcp).await.unwrap();
    stream.get_ref().1.peer_certificates().unwrap()[0].to_vec()
}

async fn until_shown(coordinator: &Coordinator, identity: &Identity, leaf: &[u8]) {
    let both = async {
        while shown(coordinator.agents, identity).await != leaf
            || shown(coordinator.enrolment, identity).await != leaf
        {
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(PATIENCE, both)
        .await
        .expect("the new certificate");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_certificate_is_used_and_a_broken_one_is_not() {
    let coordinator = Coordinator::start();
    let identity = Identity::enrol(coordinator.enrolment, &coordinator.token(5, "1h"), "db-1").await;
    let mut session = Session::open(coordinator.agents, identity.tls(), identity.hello(0))
        .await
        .unwrap();
    let number = session.welcome().await.session_number;
    let first = shown(coordinator.agents, &identity).await;

    // On SIGHUP.
    let second = replace(&coordinator);
    assert_ne!(first, second);
    coordinator.hang_up();
    until_shown(&coordinator, &identity, &second).await;
    // The session of before goes on.
    session.event(1, "", br#"{"event":"accepted"}"#).await;
    session.acknowledged(1).await;

    // Broken: said, and the old one stays.
    let chain = coordinator.data().join("pki/server.pem");
    let before = coordinator.log().len();
    std::fs::write(&chain, "-----BEGIN CERTIFICATE-----\nnonsense\n").unwrap();
    coordinator.hang_up();
    let line = coordinator.wait_for_log(before, "the old one stays in use");
    assert!(line.contains("server.pem") && line.contains("hint"), "{line}");
    assert_eq!(shown(coordinator.agents, &identity).await, second);
    let mut again = Session::open(coordinator.agents, identity.tls(), identity.hello(number))
        .await
        .unwrap();
    again.welcome().await;

    // Without a signal.
    let third = replace(&coordinator);
    until_shown(&coordinator, &identity, &third).await;
}
