//! Certificates that change: of hosts by renewal, of the coordinator by reload, and those that end under a live session.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

use fleet_common::codes;
use fleet_proto::RenewRequest;
use rcgen::{CertificateParams, Issuer, KeyPair, SanType};
use std::time::{Duration, SystemTime};
use support::Coordinator;
use support::agent::{Identity, Session};
use tonic::Code;

async fn enrolled(coordinator: &Coordinator) -> Identity {
    Identity::enrol(coordinator.enrolment, &coordinator.token(5, "1h"), "db-1").await
}

fn audit(coordinator: &Coordinator, what: &str) -> i64 {
    rusqlite::Connection::open(coordinator.data().join("store.sqlite"))
        .unwrap()
        .query_row("SELECT count(*) FROM audit WHERE what = ?1", [what], |row| {
            row.get(0)
        })
        .unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn both_certificates_are_valid_until_the_new_one_was_used_even_over_a_kill() {
    let mut coordinator = Coordinator::start();
    let old = enrolled(&coordinator).await;
    let lost = old.renew(coordinator.agents).await.unwrap();
    // The first reply may have been lost on its way: the newest request counts.
    let new = old.renew(coordinator.agents).await.unwrap();
    let der = fleet_tls::certificates(new.certificate.as_bytes(), "leaf").unwrap();
    assert_eq!(
        fleet_tls::identity::host_id(&der[0]).unwrap().as_deref(),
        Some(old.host.as_str()),
        "the identity is the peer's, whatever the request wished"
    );
    coordinator.kill();
    coordinator.serve();
    let mut session = Session::open(coordinator.agents, old.tls(), old.hello(0))
        .await
        .unwrap();
    let number = session.welcome().await.session_number;
    let mut nobody = Session::open(coordinator.agents, lost.tls(), lost.hello(number))
        .await
        .unwrap();
    assert_eq!(nobody.goodbye().await.code, codes::HOST_UNKNOWN);
    let mut renewed = Session::open(coordinator.agents, new.tls(), new.hello(number))
        .await
        .unwrap();
    let number = renewed.welcome().await.session_number;
    assert_eq!(session.goodbye().await.code, "replaced");
    let mut late = Session::open(coordinator.agents, old.tls(), old.hello(number))
        .await
        .unwrap();
    assert_eq!(late.goodbye().await.code, codes::HOST_UNKNOWN);
    let status = old.renew(coordinator.agents).await.err().unwrap();
    assert_eq!(status.code(), Code::PermissionDenied, "{status:?}");
    coordinator.kill();
    coordinator.serve();
    let mut again = Session::open(coordinator.agents, new.tls(), new.hello(number))
        .await
        .unwrap();
    again.welcome().await;
    assert_eq!(
        (audit(&coordinator, "renew"), audit(&coordinator, "renewed")),
        (2, 1)
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_gets_no_certificate() {
    let coordinator = Coordinator::start();
    let identity = enrolled(&coordinator).await;
    let nonsense = RenewRequest {
        csr_pem: "no request".to_owned(),
    };
    let status = identity
        .calls(coordinator.agents)
        .await
        .renew(nonsense)
        .await
        .unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument);
    // A fork: quarantined.
    let mut number = 0;
    for _ in 0..2 {
        let mut original = Session::open(coordinator.agents, identity.tls(), identity.hello(number))
            .await
            .unwrap();
        number = original.welcome().await.session_number;
    }
    let mut fork = Session::open(coordinator.agents, identity.tls(), identity.hello(0))
        .await
        .unwrap();
    assert!(fork.goodbye().await.quarantine);
    let status = identity.renew(coordinator.agents).await.err().unwrap();
    assert!(status.message().contains(codes::FORK), "{status:?}");
    assert!(coordinator.command(&["host", "unhold", "db-1"]).status.success());
    identity.renew(coordinator.agents).await.unwrap();
    assert!(coordinator.command(&["host", "revoke", "db-1"]).status.success());
    let status = identity.renew(coordinator.agents).await.err().unwrap();
    assert!(status.message().contains(codes::HOST_UNKNOWN), "{status:?}");
    let bare = fleet_tls::client::without_certificate(identity.ca.as_bytes()).unwrap();
    let channel = support::agent::channel(coordinator.agents, bare).await;
    let refused = match channel {
        Err(_) => true,
        Ok(channel) => fleet_proto::agent_link_client::AgentLinkClient::new(channel)
            .renew(RenewRequest::default())
            .await
            .is_err(),
    };
    assert!(refused);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_ends_with_its_certificate() {
    let coordinator = Coordinator::start();
    let identity = enrolled(&coordinator).await;
    let ca_key = std::fs::read_to_string(coordinator.data().join("pki/ca.key")).unwrap();
    let issuer = Issuer::from_ca_cert_pem(&identity.ca, KeyPair::from_pem(&ca_key).unwrap()).unwrap();
    let mut params = CertificateParams::default();
    params.subject_alt_names = vec![SanType::URI(
        format!("fleet://host/{}", identity.host).try_into().unwrap(),
    )];
    params.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ClientAuth];
    params.not_before = (SystemTime::now() - Duration::from_secs(60)).into();
    params.not_after = (SystemTime::now() + Duration::from_secs(4)).into();
    let key = KeyPair::from_pem(&identity.key).unwrap();
    let short = Identity {
        certificate: params.signed_by(&key, &issuer).unwrap().pem(),
        ..identity
    };
    let mut session = Session::open(coordinator.agents, short.tls(), short.hello(0))
        .await
        .unwrap();
    session.welcome().await;
    let mut calls = short.calls(coordinator.agents).await;
    assert_eq!(session.goodbye().await.code, codes::CERTIFICATE_EXPIRED);
    assert!(session.next().await.is_none(), "the stream is closed");
    // A connection from before is worth nothing either.
    let status = calls.renew(RenewRequest::default()).await.unwrap_err();
    assert!(
        status.message().contains(codes::CERTIFICATE_EXPIRED),
        "{status:?}"
    );
}
