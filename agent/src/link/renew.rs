//! A new certificate for a new key. The key is made here and never leaves the host; the request goes over the current identity, and its success
//! proves that no earlier candidate was accepted, so that one may be overwritten.

use super::identity::{self, Which};
use super::{backoff, connector};
use crate::config::{AgentConfig, Paths};
use crate::execute::orders::{Shared, Work};
use crate::host::clock;
use anyhow::Context;
use client_upgrade::renewal::{Due, due, wait_ms};
use fleet_proto::RenewRequest;
use fleet_proto::agent_link_client::AgentLinkClient;
use fs_err as fs;
use rcgen::{CertificateParams, DistinguishedName, KeyPair, PKCS_ECDSA_P256_SHA256};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::oneshot;

/// A signature and one commit; a coordinator that is busy with its whole fleet takes some seconds.
const CALL_TIMEOUT: Duration = Duration::from_secs(30);

/// Asks for a certificate and stores it as the candidate.
pub async fn request(paths: &Paths) -> anyhow::Result<()> {
    let (host, port) = AgentConfig::load(paths)?.address()?;
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
    let mut params = CertificateParams::new(Vec::<String>::new())?;
    params.distinguished_name = DistinguishedName::new();
    let csr_pem = params.serialize_request(&key)?.pem()?;
    let channel = connector::connect(&host, port, identity::tls(paths, Which::Current)?.0).await?;
    let mut request = tonic::Request::new(RenewRequest { csr_pem });
    request.set_timeout(CALL_TIMEOUT);
    let call = async { AgentLinkClient::new(channel).renew(request).await };
    let reply = tokio::time::timeout(CALL_TIMEOUT, call)
        .await
        .context("the coordinator does not answer")?
        .map_err(|status| {
            anyhow::anyhow!("{}", status.message()).context("the coordinator refused a new certificate")
        })?
        .into_inner();
    check(paths, &key, &reply.certificate_pem)?;
    // The CA in the reply is not taken over: trust is given at enrolment, by the token.
    identity::store_candidate(paths, &key.serialize_pem(), &reply.certificate_pem)?;
    tracing::info!("a new certificate is stored; it is tried with the next session");
    Ok(())
}

/// A reply that is not for this key and this host is never tried.
fn check(paths: &Paths, key: &KeyPair, certificate_pem: &str) -> anyhow::Result<()> {
    let chain = fleet_tls::certificates(certificate_pem.as_bytes(), "new certificate")?;
    let leaf = chain.first().context("the reply holds no certificate")?;
    let host = fs::read_to_string(paths.host_id())?;
    anyhow::ensure!(
        fleet_tls::identity::host_id(leaf)?.as_deref() == Some(host.trim()),
        "the new certificate names another host"
    );
    let ca = fs::read(paths.ca())?;
    fleet_tls::client::mutual(&ca, certificate_pem.as_bytes(), key.serialize_pem().as_bytes())
        .context("the new certificate is not for the key that was sent")?;
    Ok(())
}

/// Renews by age, as long as the program runs. The executor does it between orders: a new session would take a permit away.
pub async fn keep_fresh(shared: Arc<Shared>) {
    let mut failures = 0u32;
    loop {
        let wait = match identity::validity_ms(&shared.paths) {
            Err(error) => {
                tracing::error!(%error, "the agent's certificate can't be read");
                wait_ms(failures.max(1))
            }
            Ok((from, to)) => match due(from, to, clock::now_ms()) {
                Due::In(ms) => ms,
                age => {
                    if age == Due::Late {
                        let hours = to.saturating_sub(clock::now_ms()) / 3_600_000;
                        tracing::warn!(
                            hours_left = hours,
                            "the agent's certificate ends soon and could not be renewed so far"
                        );
                    }
                    let (answer, wait) = oneshot::channel();
                    shared.hand_over(Work::Renew(answer));
                    match wait.await {
                        Ok(Ok(())) => {
                            failures = 0;
                            1_000
                        }
                        Ok(Err(why)) => {
                            failures = failures.saturating_add(1);
                            tracing::warn!(%why, failures, "the certificate was not renewed");
                            let wait = wait_ms(failures);
                            wait + backoff::below(wait / 4)
                        }
                        // The executor is gone: the program ends.
                        Err(_) => return,
                    }
                }
            },
        };
        tokio::time::sleep(Duration::from_millis(wait)).await;
    }
}
