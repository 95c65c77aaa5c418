//! Tarballs: from a download tree or a local directory, only with a pinned digest.

use super::{Staged, failed, retried};
use crate::execute::engine::Run;
use crate::execute::error::StepResult;
use crate::host::{files, http, os};
use client_upgrade::parse::version;
use client_upgrade::source::{tarball_dir, tarball_name, tarball_url};
use fleet_artifacts::{Limits, unpack_tar_gz, verify_sha256};
use fleet_common::hint::chain;
use fs_err as fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Stages the unpacked tarball.
pub fn stage(run: &Run<'_>, limit: Duration) -> StepResult<Staged> {
    let entry = run.entry;
    let name = tarball_name(entry.to, &os::arch());
    let pinned = entry
        .source
        .tarball_sha256
        .get(&name)
        .ok_or_else(|| failed(format!("no SHA-256 is pinned for {name}")))?;
    let stage = run.shared.paths.stage();
    let archive = stage.join(&name);
    fetch(
        &tarball_url(&entry.source, entry.to, &os::arch()),
        &archive,
        limit,
    )?;
    verify_sha256(&archive, pinned).map_err(|error| failed(chain(&error)))?;
    // Outside the private state directory's 0700 an ordinary user could not read it: the installer runs as the tree's owner.
    let unpacked = public_dir(run)?;
    unpack_tar_gz(&archive, &unpacked, Limits::default()).map_err(|error| failed(chain(&error)))?;
    let top = unpacked.join(tarball_dir(entry.to));
    let says = fs::read_to_string(top.join("VERSION"))
        .ok()
        .and_then(|text| version::file(&text));
    if says != Some(entry.to) {
        return Err(failed(format!("{name} says it is release {says:?}")));
    }
    if !top.join("install_tarball").is_file() {
        return Err(failed(format!("{name} has no install_tarball")));
    }
    files::remove(&archive)?;
    Ok(Staged {
        purpose: String::new(),
        candidate: name,
        new: top,
        digest: pinned.clone(),
        kept: None,
    })
}

fn public_dir(run: &Run<'_>) -> StepResult<PathBuf> {
    use std::os::unix::fs::PermissionsExt;
    let dir = run.shared.paths.unpacked();
    files::remove(&dir)?;
    fs::create_dir_all(&dir)?;
    fs::set_permissions(&dir, std::fs::Permissions::from_mode(0o755))?;
    Ok(dir)
}

fn fetch(url: &str, to: &Path, limit: Duration) -> StepResult<()> {
    if let Some(path) = url.strip_prefix("file://") {
        fs::copy(path, to)?;
        return Ok(());
    }
    let client = http::client(false)?;
    retried(|| {
        http::block_on(http::download(&client, url, to, limit))
            .map_err(|error| failed(format!("{url}: {}", chain(&error))))
    })
}

/// Whether the tarball can be had and a digest is pinned for it.
pub fn available(entry: &fleet_common::plan_entry::PlanEntry) -> Result<String, String> {
    let name = tarball_name(entry.to, &os::arch());
    if !entry.source.tarball_sha256.contains_key(&name) {
        return Err(format!("no SHA-256 is pinned for {name}"));
    }
    let url = tarball_url(&entry.source, entry.to, &os::arch());
    if let Some(path) = url.strip_prefix("file://") {
        return if Path::new(path).is_file() {
            Ok(name)
        } else {
            Err(format!("{path} is not there"))
        };
    }
    let client = http::client(false).map_err(|error| chain(&error))?;
    http::block_on(http::exists(&client, &url))
        .map(|()| name)
        .map_err(|error| format!("{url}: {}", chain(&error)))
}
