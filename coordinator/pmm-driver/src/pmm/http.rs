//! Requests and answers.

use crate::config::Trust;
use crate::credential::Credential;
use crate::docker::short;
use crate::error::DriverError;
use reqwest::Method;
use rustls::ClientConfig;
use serde_json::Value;
use std::time::{Duration, Instant};

/// One PMM Server at one address.
#[derive(Clone)]
pub struct Pmm {
    http: reqwest::Client,
    base: String,
    credential: Credential,
    patient_until: Option<Instant>,
}

/// Pause before an inconclusive answer is asked for again.
const AGAIN_AFTER: Duration = Duration::from_millis(300);

/// The TLS configuration for this trust; `None` leaves it to the machine's own CAs.
pub fn trust(trust: &Trust) -> Result<Option<ClientConfig>, DriverError> {
    Ok(match trust {
        Trust::System => None,
        Trust::Fingerprint(hex) => Some(fleet_tls::client::fingerprint(hex)?),
        Trust::CaFile(path) => {
            let pem = std::fs::read(path).map_err(|source| DriverError::File {
                what: "can't read the CA file",
                path: path.clone(),
                source,
            })?;
            Some(fleet_tls::client::roots(&pem)?)
        }
    })
}

impl Pmm {
    /// A client for `base`, such as `https://pmm.example.com`.
    pub fn new(base: &str, tls: Option<ClientConfig>, credential: Credential) -> Result<Self, DriverError> {
        let mut builder = reqwest::Client::builder()
            .connect_timeout(Duration::from_secs(5))
            .timeout(Duration::from_secs(30))
            .redirect(reqwest::redirect::Policy::none())
            // The address of a server is given by the operator; a proxy of this process has no part in it.
            .no_proxy();
        if let Some(tls) = tls {
            builder = builder.tls_backend_preconfigured(tls);
        }
        let http = builder.build().map_err(|source| DriverError::Http {
            what: "can't set up".to_owned(),
            source,
        })?;
        Ok(Self {
            http,
            base: base.trim_end_matches('/').to_owned(),
            credential,
            patient_until: None,
        })
    }

    /// The same PMM, asked with patience: while a fleet reconnects, 401, 403 and 5xx say nothing, and any single answer may be one of them
    /// (percona/pmm PR #5338). Only for questions; nothing that changes PMM is asked twice.
    pub fn patient(&self, patience: Duration) -> Self {
        Self {
            patient_until: Some(Instant::now() + patience),
            ..self.clone()
        }
    }

    /// A GET with the credential.
    pub async fn get(&self, path: &str) -> Result<Value, DriverError> {
        self.ask(Method::GET, path, None).await
    }

    /// A POST with the credential.
    pub async fn post(&self, path: &str, body: &Value) -> Result<Value, DriverError> {
        self.ask(Method::POST, path, Some(body)).await
    }

    /// The status of a GET without a credential.
    pub async fn probe(&self, path: &str) -> Result<u16, DriverError> {
        let sent = self.http.get(format!("{}{path}", self.base)).send().await;
        let answer = sent.map_err(|source| DriverError::Http {
            what: format!("no answer from {}{path}", self.base),
            source,
        })?;
        Ok(answer.status().as_u16())
    }

    async fn ask(&self, method: Method, path: &str, body: Option<&Value>) -> Result<Value, DriverError> {
        loop {
            match self.ask_once(&method, path, body).await {
                Err(DriverError::Status {
                    status: 401 | 403 | 429 | 500..,
                    ..
                }) if self.patient_until.is_some_and(|until| Instant::now() < until) => {
                    tokio::time::sleep(AGAIN_AFTER).await;
                }
                other => return other,
            }
        }
    }

    async fn ask_once(
        &self,
        method: &Method,
        path: &str,
        body: Option<&Value>,
    ) -> Result<Value, DriverError> {
        let what = || format!("{method} {path}", path = path.split('?').next().unwrap_or(path));
        let mut request = self
            .http
            .request(method.clone(), format!("{}{path}", self.base))
            .header("authorization", self.credential.header());
        if let Some(body) = body {
            request = request.json(body);
        }
        let broken = |source| DriverError::Http {
            what: format!("no answer to {}", what()),
            source,
        };
        let answer = request.send().await.map_err(broken)?;
        let status = answer.status().as_u16();
        let text = answer.text().await.map_err(broken)?;
        if !(200..300).contains(&status) {
            let value: Value = serde_json::from_str(&text).unwrap_or_default();
            let message = value["message"]
                .as_str()
                .map_or_else(|| short(&text, 200), |message| short(message, 200));
            return Err(DriverError::Status {
                what: what(),
                status,
                message,
            });
        }
        if text.trim().is_empty() {
            return Ok(Value::Null);
        }
        serde_json::from_str(&text).map_err(|error| DriverError::Answer {
            what: what(),
            message: error.to_string(),
        })
    }
}

/// A text member, empty when it is not there.
pub fn text(value: &Value, member: &str) -> String {
    match &value[member] {
        Value::String(text) => text.clone(),
        Value::Number(number) => number.to_string(),
        _ => String::new(),
    }
}

/// A number that may have arrived as text.
pub fn number(value: &Value) -> Option<f64> {
    match value {
        Value::Number(number) => number.as_f64(),
        Value::String(text) => text.parse().ok(),
        _ => None,
    }
}
