//! HTTP out of this host: the client's own PMM Server and tarball trees. Runs on the caller's thread with a small runtime of its own.

use futures_util::StreamExt;
use reqwest::{Client, ClientBuilder};
use std::io::Write;
use std::path::Path;
use std::time::Duration;

/// One answer is a few kilobytes; PMM's own authentication timeout is 3 s, slow name resolution takes as long.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(20);
/// Largest tarball: three times the size of a client tarball.
const MOST_BYTES: u64 = 1024 * 1024 * 1024;

/// A request that got no usable answer.
#[derive(Debug, thiserror::Error)]
pub enum HttpError {
    /// The client could not be made.
    #[error("can't set up HTTP: {0}")]
    Setup(String),
    /// No answer.
    #[error("no answer: {0}")]
    Request(String),
    /// Another status than asked for.
    #[error("HTTP status {0}")]
    Status(u16),
    /// Writing the file failed.
    #[error("can't write the download")]
    Io(#[from] std::io::Error),
}

/// The chain of a reqwest error in one line, without the URL, which may hold credentials.
fn plain(error: reqwest::Error) -> HttpError {
    HttpError::Request(fleet_common::hint::chain(&error.without_url()))
}

/// Where the system keeps its CA certificates.
const BUNDLES: &[&str] = &[
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
];

/// A client: with the system's CA certificates, or, as a PMM client with `insecure-tls` does it, accepting any.
pub fn client(insecure: bool) -> Result<Client, HttpError> {
    let setup = |error: &dyn std::error::Error| HttpError::Setup(fleet_common::hint::chain(error));
    let tls = if insecure {
        fleet_tls::client::accept_any()
    } else {
        let bundle = BUNDLES.iter().find_map(|path| fs_err::read(path).ok());
        match bundle {
            Some(pem) => fleet_tls::client::roots(&pem),
            None => fleet_tls::client::fingerprint(&"0".repeat(64)),
        }
    }
    .map_err(|error| setup(&error))?;
    builder()
        .tls_backend_preconfigured(tls)
        .build()
        .map_err(|error| setup(&error))
}

fn builder() -> ClientBuilder {
    Client::builder()
        .connect_timeout(Duration::from_secs(10))
        .redirect(reqwest::redirect::Policy::limited(5))
        .user_agent(concat!("pmm-upgrade-agent/", env!("CARGO_PKG_VERSION")))
}

/// Runs a request on this thread.
pub fn block_on<T>(work: impl Future<Output = Result<T, HttpError>>) -> Result<T, HttpError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(work)
}

/// Status of a request; the body is not looked at.
pub async fn status(request: reqwest::RequestBuilder) -> Result<u16, HttpError> {
    Ok(request
        .timeout(REQUEST_TIMEOUT)
        .send()
        .await
        .map_err(plain)?
        .status()
        .as_u16())
}

/// Whether a URL can be fetched.
pub async fn exists(client: &Client, url: &str) -> Result<(), HttpError> {
    match status(client.head(url)).await? {
        200 => Ok(()),
        other => Err(HttpError::Status(other)),
    }
}

/// Downloads to a file.
pub async fn download(client: &Client, url: &str, to: &Path, limit: Duration) -> Result<(), HttpError> {
    let answer = client.get(url).timeout(limit).send().await.map_err(plain)?;
    if answer.status().as_u16() != 200 {
        return Err(HttpError::Status(answer.status().as_u16()));
    }
    let mut file = fs_err::File::create(to)?;
    let mut written = 0u64;
    let mut body = answer.bytes_stream();
    while let Some(chunk) = body.next().await {
        let chunk = chunk.map_err(plain)?;
        written += chunk.len() as u64;
        if written > MOST_BYTES {
            return Err(HttpError::Request(format!("more than {MOST_BYTES} bytes")));
        }
        file.write_all(&chunk)?;
    }
    file.sync_all()?;
    Ok(())
}
