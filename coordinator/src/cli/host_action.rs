//! `host restart-client`, `collect-bundle`, `renew`, `self-update`: one action on one host, outside of a rollout. Exit status 0 when it was
//! done, 1 when it was refused or failed; the result is printed either way.

use super::Ended;
use super::client::{self, Client};
use super::output::Output;
use super::text::duration_ms;
use crate::operator_api::documents::{ArtifactDocument, HostActionDocument};
use crate::problem::Problem;
use fleet_common::agent_release::AgentRelease;
use fleet_common::codes::exit;
use fleet_common::digest::sha256_hex;
use fleet_common::order::Outcome;
use fleet_proto::{Action, ArtifactPart, HostActionRequest};
use std::path::{Path, PathBuf};

/// Bytes of one part on the operator socket.
const PART: usize = 64 * 1024;

#[derive(clap::Args)]
pub struct Arguments {
    /// Id, name or unique beginning of either
    host: String,
    /// Longest wait for the result: 90s, 10m
    #[arg(long, default_value = "10m", value_parser = duration_ms)]
    wait: u64,
}

#[derive(clap::Args)]
pub struct UpdateArguments {
    /// Id, name or unique beginning of either
    host: String,
    /// The agent's deb, rpm or tarball, as the host's agent was installed
    #[arg(long)]
    file: PathBuf,
    /// Its minisign signature
    #[arg(long)]
    signature: PathBuf,
    /// Its release, such as 0.2.0
    #[arg(long)]
    version: String,
    /// Longest wait for the result, the way back included: 90s, 30m
    #[arg(long, default_value = "40m", value_parser = duration_ms)]
    wait: u64,
}

pub async fn run(arguments: Arguments, action: Action, client: &mut Client, output: &Output) -> Ended {
    let request = HostActionRequest {
        host: arguments.host,
        action: action.into(),
        wait_for_ms: arguments.wait,
        release: Vec::new(),
    };
    ask(request, client, output).await
}

pub async fn update(arguments: UpdateArguments, client: &mut Client, output: &Output) -> Ended {
    let bytes = read(&arguments.file)?;
    let signature = String::from_utf8(read(&arguments.signature)?).map_err(|error| {
        Problem::because("the signature is no text", &error).at(shown(&arguments.signature))
    })?;
    let file = arguments
        .file
        .file_name()
        .map(|name| name.to_string_lossy().into_owned())
        .unwrap_or_default();
    let release = AgentRelease {
        version: arguments.version,
        file: file.clone(),
        sha256: sha256_hex(&bytes),
        length: bytes.len() as u64,
        signature,
    };
    release.check().map_err(|error| {
        Problem::because("this is no release of the agent", &error)
            .at(shown(&arguments.file))
            .hint("name the file as `deploy/package/build.sh` does, and give the same release with --version")
    })?;
    let mut parts = vec![ArtifactPart {
        file,
        data: Vec::new(),
    }];
    parts.extend(bytes.chunks(PART).map(|data| ArtifactPart {
        file: String::new(),
        data: data.to_vec(),
    }));
    let imported: ArtifactDocument = client::read(client.import_artifact(tokio_stream::iter(parts)).await)?;
    if imported.sha256 != release.sha256 {
        return Err(Problem::new("the coordinator has another file than was sent")
            .hint("give the command again")
            .into());
    }
    let request = HostActionRequest {
        host: arguments.host,
        action: Action::SelfUpdate.into(),
        wait_for_ms: arguments.wait,
        release: serde_json::to_vec(&release)
            .map_err(|error| Problem::because("the release can't be written", &error))?,
    };
    ask(request, client, output).await
}

async fn ask(request: HostActionRequest, client: &mut Client, output: &Output) -> Ended {
    let document: HostActionDocument = client::read(client.host_action(request).await)?;
    output.document(&document, text);
    Ok(if document.result.outcome == Outcome::Done {
        exit::OK
    } else {
        exit::FAILED
    })
}

fn text(document: &HostActionDocument) -> String {
    let result = &document.result;
    let outcome = match result.outcome {
        Outcome::Done => "done",
        Outcome::Refused => "refused",
        Outcome::Expired => "not begun in time",
        Outcome::FailedNothingChanged => "failed, nothing was changed",
        Outcome::RolledBack => "failed and taken back",
        Outcome::Inconsistent => "failed; a person must look at the host",
    };
    let mut text = format!("{}: {} {outcome}", document.name, document.action);
    if !result.message.is_empty() {
        text.push_str(&format!(": {}", result.message));
    }
    if !result.code.as_str().is_empty() {
        text.push_str(&format!(" ({})", result.code));
    }
    text
}

fn read(path: &Path) -> Result<Vec<u8>, Problem> {
    std::fs::read(path).map_err(|error| Problem::because("the file can't be read", &error).at(shown(path)))
}

fn shown(path: &Path) -> String {
    path.display().to_string()
}
