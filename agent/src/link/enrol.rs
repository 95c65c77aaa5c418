//! Enrolment: a join token and a certificate request for an identity. The coordinator's CA is checked against the digest in the token before
//! anything is sent. The key never leaves the host, and the same key is used again when enrolment is repeated.

use super::connector;
use crate::config::{AgentConfig, Paths};
use crate::host::{files, os};
use anyhow::Context;
use fleet_proto::EnrolRequest;
use fleet_proto::enrolment_client::EnrolmentClient;
use fs_err as fs;
use rcgen::{CertificateParams, DistinguishedName, KeyPair, PKCS_ECDSA_P256_SHA256};
use std::collections::BTreeMap;
use std::time::Duration;

/// Port of the session listener where none is given.
const SESSION_PORT: u16 = 9443;
/// Port of the enrolment listener where none is given.
const ENROL_PORT: u16 = 9444;

/// What to enrol with.
#[derive(Debug)]
pub struct Enrolment {
    /// `https://host:port` of the enrolment listener.
    pub coordinator: String,
    /// `host:port` of the session listener.
    pub session: Option<String>,
    /// Labels for `agent.toml`.
    pub labels: BTreeMap<String, String>,
}

/// `id.secret.sha256(CA key)`.
struct Token {
    id: String,
    secret: String,
    ca_key: String,
}

fn token(text: &str) -> anyhow::Result<Token> {
    let parts: Vec<&str> = text.trim().split('.').collect();
    match parts[..] {
        [id, secret, ca_key]
            if ca_key.len() == 64
                && ca_key.bytes().all(|byte| byte.is_ascii_hexdigit())
                && !id.is_empty() =>
        {
            Ok(Token {
                id: id.to_owned(),
                secret: secret.to_owned(),
                ca_key: ca_key.to_owned(),
            })
        }
        // The text itself is a secret and stays out of the message.
        _ => anyhow::bail!("token_invalid: the join token does not have the form id.secret.sha256"),
    }
}

/// Enrols and writes identity and configuration. Returns the host id.
pub async fn enrol(paths: &Paths, wish: &Enrolment, token_text: &str) -> anyhow::Result<String> {
    let token = token(token_text)?;
    let address = wish
        .coordinator
        .strip_prefix("https://")
        .unwrap_or(&wish.coordinator)
        .trim_end_matches('/');
    let with_port = if address
        .rsplit_once(':')
        .is_some_and(|(_, port)| port.parse::<u16>().is_ok())
    {
        address.to_owned()
    } else {
        format!("{address}:{ENROL_PORT}")
    };
    let (host, port) = crate::config::host_port(&with_port)?;
    paths.prepare()?;
    let key = key(paths)?;
    let mut params = CertificateParams::new(Vec::<String>::new())?;
    params.distinguished_name = DistinguishedName::new();
    let csr_pem = params.serialize_request(&key)?.pem()?;
    let tls = fleet_tls::client::pinned_ca_key(&token.ca_key)?;
    let channel = connector::connect(&host, port, tls).await.map_err(explain)?;
    let mut request = tonic::Request::new(EnrolRequest {
        token_id: token.id,
        token_secret: token.secret,
        csr_pem,
        hostname: os::hostname(),
        agent_version: env!("CARGO_PKG_VERSION").to_owned(),
    });
    request.set_timeout(Duration::from_secs(30));
    let reply = EnrolmentClient::new(channel)
        .enrol(request)
        .await
        .map_err(|status| {
            anyhow::anyhow!("{}", status.message()).context("the coordinator refused the enrolment")
        })?
        .into_inner();
    let mut config = AgentConfig::load(paths).unwrap_or_default();
    config.coordinator = wish
        .session
        .clone()
        .unwrap_or_else(|| format!("{host}:{SESSION_PORT}"));
    config.labels.extend(wish.labels.clone());
    let public = files::Ownership {
        mode: 0o644,
        ..files::PRIVATE
    };
    if let Some(dir) = paths.agent_toml().parent() {
        fs::create_dir_all(dir)?;
    }
    files::replace(&paths.agent_toml(), toml::to_string(&config)?.as_bytes(), public)?;
    files::replace(&paths.ca(), reply.ca_pem.as_bytes(), public)?;
    files::replace(&paths.host_id(), reply.host_id.as_bytes(), public)?;
    // The certificate comes last: its presence is what the service waits for.
    files::replace(&paths.certificate(), reply.certificate_pem.as_bytes(), public)?;
    Ok(reply.host_id)
}

fn explain(error: connector::ConnectError) -> anyhow::Error {
    match fleet_tls::find_refusal(&error) {
        Some(refusal) if refusal == fleet_tls::CA_MISMATCH_TEXT => anyhow::anyhow!("ca_mismatch: {refusal}"),
        _ => error.into(),
    }
}

fn key(paths: &Paths) -> anyhow::Result<KeyPair> {
    let path = paths.key();
    if let Ok(pem) = fs::read_to_string(&path) {
        return KeyPair::from_pem(&pem).with_context(|| format!("{} is not a usable key", path.display()));
    }
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
    if let Some(dir) = path.parent() {
        fs::create_dir_all(dir)?;
    }
    files::replace(&path, key.serialize_pem().as_bytes(), files::PRIVATE)?;
    Ok(key)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn tokens_have_three_parts_and_are_never_repeated() {
        let ca = "ab".repeat(32);
        assert_eq!(token(&format!("id.secret.{ca}\n")).unwrap().secret, "secret");
        for bad in ["", "a.b", "id.hush.xyz", &format!("id.hush.{ca}.more")] {
            let message = token(bad).err().unwrap().to_string();
            assert!(message.starts_with("token_invalid") && !message.contains("hush"));
        }
    }
}
