//! Files from the coordinator, by digest, on a connection of their own so that orders are never delayed. What is there already is not fetched
//! again: a broken download goes on where it broke.

use super::identity::{self, Which};
use super::{backoff, connector};
use crate::config::{AgentConfig, Paths};
use crate::host::files;
use fleet_artifacts::file_sha256_hex;
use fleet_proto::ArtifactRequest;
use fleet_proto::agent_link_client::AgentLinkClient;
use fs_err as fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::time::Instant;
use tonic::Code;

/// Silence of a download that means that the connection is dead.
const CHUNK_TIMEOUT: Duration = Duration::from_secs(30);
/// Longest wait between two attempts.
const RETRY_CAP_MS: u64 = 5_000;

/// What is wanted.
#[derive(Clone, Debug)]
pub struct Wanted {
    /// SHA-256, lower-case hex.
    pub sha256: String,
    /// Length, bytes; nothing longer is written.
    pub length: u64,
}

/// Why a file is not here.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// The coordinator has no such file or does not give it to us.
    #[error("the coordinator does not give the file: {0}")]
    Refused(String),
    /// It is another file than the order names.
    #[error("the file is not what the order names: {0}")]
    Wrong(String),
    /// The time is over.
    #[error("the file did not come within {seconds} s; the last attempt: {last}")]
    Late {
        /// The limit.
        seconds: u64,
        /// Why the last attempt ended.
        last: String,
    },
    /// Writing failed.
    #[error("the file can't be written")]
    Io(#[from] std::io::Error),
    /// No identity or no address.
    #[error("there is no way to the coordinator: {0}")]
    Setup(String),
}

/// How one attempt ended.
enum Attempt {
    Complete,
    Broken(String),
    Over(FetchError),
}

/// Fetches a file; its path. `note` hears how many bytes are here.
pub async fn fetch(
    paths: &Paths,
    wanted: &Wanted,
    limit: Duration,
    note: impl Fn(u64),
) -> Result<PathBuf, FetchError> {
    let until = Instant::now() + limit;
    let dir = paths.artifacts();
    fs::create_dir_all(&dir)?;
    let (whole, part) = (
        dir.join(&wanted.sha256),
        dir.join(format!("{}.part", wanted.sha256)),
    );
    if verified(&whole, wanted).is_ok() {
        return Ok(whole);
    }
    files::remove(&whole)?;
    let mut attempt = 0u32;
    let mut began_anew = false;
    loop {
        let tried = tokio::time::timeout_at(until, once(paths, wanted, &part, &note)).await;
        let last = match tried {
            Err(_) => "it was under way".to_owned(),
            Ok(Attempt::Over(error)) => {
                files::remove(&part)?;
                return Err(error);
            }
            Ok(Attempt::Broken(why)) => why,
            Ok(Attempt::Complete) => match verified(&part, wanted) {
                Ok(()) => {
                    fs::File::open(&part)?.sync_all()?;
                    fs::rename(&part, &whole)?;
                    files::sync_dir(&dir)?;
                    return Ok(whole);
                }
                Err(why) => {
                    files::remove(&part)?;
                    // An older part may be of another file; from the beginning it is not.
                    if std::mem::replace(&mut began_anew, true) {
                        return Err(FetchError::Wrong(why));
                    }
                    why
                }
            },
        };
        let wait = backoff::wait(attempt, RETRY_CAP_MS);
        if Instant::now() + wait >= until {
            return Err(FetchError::Late {
                seconds: limit.as_secs(),
                last,
            });
        }
        tracing::info!(%last, attempt, "the download goes on");
        attempt = attempt.saturating_add(1);
        tokio::time::sleep(wait).await;
    }
}

async fn once(paths: &Paths, wanted: &Wanted, part: &Path, note: &impl Fn(u64)) -> Attempt {
    let setup = || -> anyhow::Result<_> {
        Ok((
            AgentConfig::load(paths)?.address()?,
            identity::tls(paths, Which::Current)?.0,
        ))
    };
    let ((host, port), tls) = match setup() {
        Ok(ready) => ready,
        Err(error) => return Attempt::Over(FetchError::Setup(format!("{error:#}"))),
    };
    let mut here = fs::metadata(part).map_or(0, |meta| meta.len());
    if here > wanted.length {
        if let Err(error) = files::remove(part) {
            return Attempt::Over(error.into());
        }
        here = 0;
    }
    if here == wanted.length {
        return Attempt::Complete;
    }
    let channel = match connector::connect(&host, port, tls).await {
        Ok(channel) => channel,
        Err(error) => return Attempt::Broken(fleet_common::hint::chain(&error)),
    };
    let request = ArtifactRequest {
        sha256: wanted.sha256.clone(),
        offset: here,
    };
    let mut link = AgentLinkClient::new(channel);
    let mut chunks = match tokio::time::timeout(CHUNK_TIMEOUT, link.artifact(request)).await {
        Err(_) => return Attempt::Broken("the coordinator does not answer".to_owned()),
        Ok(Err(status)) => return ended(&status),
        Ok(Ok(answer)) => answer.into_inner(),
    };
    let mut file = match fs::OpenOptions::new().create(true).append(true).open(part) {
        Ok(file) => file,
        Err(error) => return Attempt::Over(error.into()),
    };
    loop {
        let chunk = match tokio::time::timeout(CHUNK_TIMEOUT, chunks.message()).await {
            Err(_) => return Attempt::Broken("the download stands still".to_owned()),
            Ok(Err(status)) => return ended(&status),
            Ok(Ok(None)) if here == wanted.length => return Attempt::Complete,
            Ok(Ok(None)) => return Attempt::Broken("the download ended early".to_owned()),
            Ok(Ok(Some(chunk))) => chunk,
        };
        here += chunk.data.len() as u64;
        if chunk.length != wanted.length || here > wanted.length {
            let what = format!("{} bytes long, not {}", chunk.length.max(here), wanted.length);
            return Attempt::Over(FetchError::Wrong(what));
        }
        if let Err(error) = file.write_all(&chunk.data) {
            return Attempt::Over(error.into());
        }
        note(here);
    }
}

/// Whether a refusal is for good.
fn ended(status: &tonic::Status) -> Attempt {
    let text = status.message().to_owned();
    match status.code() {
        Code::NotFound
        | Code::PermissionDenied
        | Code::Unauthenticated
        | Code::InvalidArgument
        | Code::Unimplemented => Attempt::Over(FetchError::Refused(text)),
        _ => Attempt::Broken(text),
    }
}

fn verified(path: &Path, wanted: &Wanted) -> Result<(), String> {
    let length = fs::metadata(path).map_err(|error| error.to_string())?.len();
    if length != wanted.length {
        return Err(format!("{length} bytes long, not {}", wanted.length));
    }
    let found = file_sha256_hex(path).map_err(|error| error.to_string())?;
    if found == wanted.sha256 {
        Ok(())
    } else {
        Err(format!("its SHA-256 is {found}, not {}", wanted.sha256))
    }
}
