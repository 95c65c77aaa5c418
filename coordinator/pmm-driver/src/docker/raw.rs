//! Requests whose JSON must not pass through a typed model.

use super::Docker;
use crate::error::DriverError;
use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use hyper::{Method, Request};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use std::time::Duration;

impl Docker {
    /// A GET; `None` when the engine answers 404.
    pub(super) async fn get_raw(&self, path: &str) -> Result<Option<Value>, DriverError> {
        match self.request(Method::GET, path, None).await? {
            (404, _) => Ok(None),
            (200, body) => Ok(Some(body)),
            (status, body) => Err(refused(path, status, &body)),
        }
    }

    /// A POST with a JSON body; status and answer.
    pub(super) async fn post_raw(&self, path: &str, body: &Value) -> Result<(u16, Value), DriverError> {
        self.request(Method::POST, path, Some(body)).await
    }

    async fn request(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> Result<(u16, Value), DriverError> {
        let broken = |source: std::io::Error| super::failed(format!("no answer to {path}"), source.into());
        let work = async {
            let stream = tokio::net::UnixStream::connect(&self.socket).await?;
            let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
                .await
                .map_err(std::io::Error::other)?;
            let driving = tokio::spawn(connection);
            let bytes = body.map(Value::to_string).unwrap_or_default();
            let request = Request::builder()
                .method(method)
                .uri(format!("/v{}{path}", self.version))
                .header("host", "docker")
                .header("content-type", "application/json")
                .body(Full::new(Bytes::from(bytes)))
                .map_err(std::io::Error::other)?;
            let answer = sender
                .send_request(request)
                .await
                .map_err(std::io::Error::other)?;
            let status = answer.status().as_u16();
            let bytes = answer
                .into_body()
                .collect()
                .await
                .map_err(std::io::Error::other)?
                .to_bytes();
            driving.abort();
            let value = if bytes.is_empty() {
                Value::Null
            } else {
                serde_json::from_slice(&bytes).map_err(std::io::Error::other)?
            };
            Ok((status, value))
        };
        match tokio::time::timeout(Duration::from_secs(120), work).await {
            Ok(done) => done.map_err(broken),
            Err(_) => Err(broken(std::io::Error::from(std::io::ErrorKind::TimedOut))),
        }
    }
}

/// The engine's refusal as an error.
pub(super) fn refused(what: &str, status: u16, body: &Value) -> DriverError {
    let message = body["message"].as_str().unwrap_or("no message").to_owned();
    super::failed(
        what,
        bollard::errors::Error::DockerResponseServerError {
            status_code: status,
            message,
        },
    )
}

/// The first characters of a text, for messages.
pub fn short(text: &str, most: usize) -> String {
    let text = text.trim();
    match text.char_indices().nth(most) {
        Some((end, _)) => format!("{}...", text.get(..end).unwrap_or_default()),
        None => text.to_owned(),
    }
}
