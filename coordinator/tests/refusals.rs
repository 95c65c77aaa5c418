//! Who is refused, and that both sides say why: real processes, real sockets, real TLS.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

use fleet_common::codes;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, SanType};
use std::error::Error;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};
use support::agent::{Identity, Session, enrol, new_key};
use support::{Coordinator, Token, until};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio_rustls::TlsConnector;

/// What a client sees of a refused handshake. TLS 1.3 refuses a client certificate after the client's own part is done, so the refusal
/// comes with the first read.
async fn handshake_error(coordinator: &Coordinator, tls: rustls::ClientConfig) -> String {
    let tcp = tokio::net::TcpStream::connect(coordinator.agents).await.unwrap();
    let name = rustls::pki_types::ServerName::try_from("localhost").unwrap();
    let mut stream = match TlsConnector::from(Arc::new(tls)).connect(name, tcp).await {
        Ok(stream) => stream,
        Err(error) => return error.to_string(),
    };
    let _ = stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await;
    let mut buffer = [0u8; 64];
    match stream.read(&mut buffer).await {
        Ok(_) => "accepted".to_owned(),
        Err(error) => error.to_string(),
    }
}

fn ca_pem(coordinator: &Coordinator) -> String {
    std::fs::read_to_string(coordinator.data().join("pki/ca.pem")).unwrap()
}

/// A certificate for a host, by an issuer of the test's choice.
fn host_certificate(issuer: &Issuer<'_, KeyPair>, host: &str) -> (String, String) {
    let key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
    let mut params = CertificateParams::default();
    params.subject_alt_names = vec![SanType::URI(format!("fleet://host/{host}").try_into().unwrap())];
    params.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ClientAuth];
    (params.signed_by(&key, issuer).unwrap().pem(), key.serialize_pem())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_without_a_certificate() {
    let coordinator = Coordinator::start();
    let tls = fleet_tls::client::without_certificate(ca_pem(&coordinator).as_bytes()).unwrap();
    let seen = handshake_error(&coordinator, tls).await;
    assert!(
        seen.contains("CertificateRequired"),
        "the client must learn why: {seen}"
    );
    let line = coordinator.wait_for_log(0, "refused: the TLS handshake failed");
    assert!(
        line.contains("no certificates") && line.contains("127.0.0.1"),
        "{line}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_with_a_certificate_of_another_ca() {
    let coordinator = Coordinator::start();
    let key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let other = Issuer::new(params, key);
    let (certificate, key) = host_certificate(&other, "somebody");
    let tls = fleet_tls::client::mutual(
        ca_pem(&coordinator).as_bytes(),
        certificate.as_bytes(),
        key.as_bytes(),
    )
    .unwrap();
    let seen = handshake_error(&coordinator, tls).await;
    assert!(seen.contains("UnknownCA"), "the client must learn why: {seen}");
    let line = coordinator.wait_for_log(0, "refused: the TLS handshake failed");
    assert!(line.contains("UnknownIssuer"), "{line}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_certificate_of_our_ca_for_a_host_that_is_not_known() {
    let coordinator = Coordinator::start();
    let ca = ca_pem(&coordinator);
    let ca_key = std::fs::read_to_string(coordinator.data().join("pki/ca.key")).unwrap();
    let issuer = Issuer::from_ca_cert_pem(&ca, KeyPair::from_pem(&ca_key).unwrap()).unwrap();
    let (certificate, key) = host_certificate(&issuer, "stranger");
    let identity = Identity {
        host: "stranger".to_owned(),
        certificate,
        ca,
        key,
    };
    let mut session = Session::open(coordinator.agents, identity.tls(), identity.hello(0))
        .await
        .unwrap();
    let goodbye = session.goodbye().await;
    assert_eq!(goodbye.code, codes::HOST_UNKNOWN);
    assert!(goodbye.message.contains("enrol"), "{}", goodbye.message);
    assert!(session.next().await.is_none(), "the stream must be closed");
    coordinator.wait_for_log(0, "unknown or revoked host");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_with_the_wrong_secret() {
    let coordinator = Coordinator::start();
    let token = Token {
        secret: "0".repeat(64),
        ..coordinator.token(1, "1h")
    };
    let status = enrol(coordinator.enrolment, &token, &new_key(), "db-1")
        .await
        .unwrap()
        .unwrap_err();
    refused(
        &coordinator,
        &status,
        codes::TOKEN_INVALID,
        "unknown or its secret is wrong",
    );
    assert!(
        !coordinator.log().contains(&token.secret),
        "a secret must never be logged"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_that_is_unknown() {
    let coordinator = Coordinator::start();
    let token = Token {
        id: "ffffffffffff".to_owned(),
        ..coordinator.token(1, "1h")
    };
    let status = enrol(coordinator.enrolment, &token, &new_key(), "db-1")
        .await
        .unwrap()
        .unwrap_err();
    refused(
        &coordinator,
        &status,
        codes::TOKEN_INVALID,
        "unknown or its secret is wrong",
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_past_its_time() {
    let coordinator = Coordinator::start();
    let token = coordinator.token(1, "1s");
    let made = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis();
    until("the token's end", || {
        SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() > made + 1000
    });
    let status = enrol(coordinator.enrolment, &token, &new_key(), "db-1")
        .await
        .unwrap()
        .unwrap_err();
    refused(&coordinator, &status, codes::TOKEN_EXPIRED, "past its time");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_without_uses_and_the_same_machine_again() {
    let coordinator = Coordinator::start();
    let token = coordinator.token(1, "1h");
    let key = new_key();
    let first = enrol(coordinator.enrolment, &token, &key, "db-1")
        .await
        .unwrap()
        .unwrap();
    let status = enrol(coordinator.enrolment, &token, &new_key(), "db-2")
        .await
        .unwrap()
        .unwrap_err();
    refused(&coordinator, &status, codes::TOKEN_USED_UP, "no uses left");
    let again = enrol(coordinator.enrolment, &token, &key, "db-1")
        .await
        .unwrap()
        .unwrap();
    assert_eq!(
        again.host_id, first.host_id,
        "the same token and key are the same host, at no cost"
    );
    assert_eq!(
        coordinator.json(&["host", "list"])["hosts"]
            .as_array()
            .unwrap()
            .len(),
        1
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_that_names_another_ca() {
    let coordinator = Coordinator::start();
    let token = Token {
        ca_key: "ab".repeat(32),
        ..coordinator.token(1, "1h")
    };
    let error = enrol(coordinator.enrolment, &token, &new_key(), "db-1")
        .await
        .unwrap_err();
    let mut seen = error.to_string();
    if let Some(refusal) = fleet_tls::find_refusal(&error) {
        seen = refusal;
    }
    let mut source = error.source();
    while let Some(cause) = source {
        seen.push_str(&format!(": {cause}"));
        source = cause.source();
    }
    assert!(
        seen.contains(fleet_tls::CA_MISMATCH_TEXT),
        "the agent must learn why, before it sends its secret: {seen}"
    );
    coordinator.wait_for_log(0, "refused: the TLS handshake failed");
    let hosts = coordinator.json(&["host", "list"]);
    assert!(hosts["hosts"].as_array().unwrap().is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_host_name_that_could_confuse_a_screen() {
    let coordinator = Coordinator::start();
    let token = coordinator.token(1, "1h");
    let status = enrol(coordinator.enrolment, &token, &new_key(), "\u{1b}[2J")
        .await
        .unwrap()
        .unwrap_err();
    assert_eq!(status.code(), tonic::Code::InvalidArgument);
    assert!(
        !coordinator.log().contains("\u{1b}[2J"),
        "the log must not carry terminal commands"
    );
}

fn refused(coordinator: &Coordinator, status: &tonic::Status, code: &str, text: &str) {
    assert_eq!(status.code(), tonic::Code::PermissionDenied);
    assert!(
        status.message().contains(code) && status.message().contains(text),
        "{}",
        status.message()
    );
    assert_eq!(status.metadata().get("fleet-code").unwrap(), code);
    let line = coordinator.wait_for_log(0, "enrolment refused");
    assert!(line.contains(code) && line.contains("db-"), "{line}");
}
