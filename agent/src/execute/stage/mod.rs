//! Staging: the new package or tarball, verified by the native signature checks or a pinned digest, and the package of the installed release
//! for the way back. Nothing that runs is changed, and the host's own repositories stay as they are: package managers get private directories.

pub mod deb;
pub mod rpm;
pub mod tarball;

use super::engine::Run;
use super::error::{StepError, StepResult};
use crate::config::Paths;
use crate::host::files;
use fleet_common::codes;
use fleet_common::digest::sha256_hex;
use fleet_common::inventory::{Installation, Method};
use fleet_common::plan_entry::PlanEntry;
use fs_err as fs;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// What is staged.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Staged {
    /// What it was staged for; another release, source or installed version is staged anew.
    pub purpose: String,
    /// Full version of the new package or the tarball's name.
    pub candidate: String,
    /// The new package, or the directory of the unpacked tarball.
    pub new: PathBuf,
    /// Digest of the new package or tarball.
    pub digest: String,
    /// The package of the installed release; `None` for tarballs, whose tree is copied.
    pub kept: Option<PathBuf>,
}

impl Staged {
    /// What is staged for this very change of this installation.
    pub fn load_for(paths: &Paths, entry: &PlanEntry, installation: &Installation) -> Option<Self> {
        Self::load(paths).filter(|staged| staged.purpose == purpose(entry, installation))
    }

    /// Whether the new package is what was checked when it was staged; a tarball is a directory by now.
    fn intact(&self) -> bool {
        !self.new.is_file() || fleet_artifacts::file_sha256_hex(&self.new).is_ok_and(|now| now == self.digest)
    }

    /// Reads it, if it is complete.
    pub fn load(paths: &Paths) -> Option<Self> {
        let staged: Self = files::read_json(&paths.stage().join("stage.json"))?;
        let there = staged.new.exists() && staged.kept.as_ref().is_none_or(|kept| kept.exists());
        there.then_some(staged)
    }
}

/// What something is staged for.
pub fn purpose(entry: &PlanEntry, installation: &Installation) -> String {
    let document = serde_json::json!({
        "to": entry.to,
        "source": entry.source,
        "installed": installation.package_version,
        "from": installation.version,
    });
    sha256_hex(document.to_string().as_bytes())
}

/// Stages, unless exactly this is staged.
pub fn stage(run: &Run<'_>, limit: Duration) -> StepResult<()> {
    let looked = run.look();
    let installation = run.installation(&looked)?;
    // A host that is already there needs nothing.
    if installation.version == run.entry.to {
        return Ok(());
    }
    let paths = &run.shared.paths;
    let purpose = purpose(run.entry, &installation);
    // A power cut can leave the name of a package without its bytes.
    if Staged::load_for(paths, run.entry, &installation).is_some_and(|staged| staged.intact()) {
        return Ok(());
    }
    let dir = paths.stage();
    files::remove(&dir)?;
    fs::create_dir_all(&dir)?;
    let staged = match installation.method {
        Method::Deb => deb::stage(run, &installation, limit)?,
        Method::Rpm => rpm::stage(run, &installation, limit)?,
        Method::Tarball => tarball::stage(run, limit)?,
    };
    files::write_json(&dir.join("stage.json"), &Staged { purpose, ..staged })?;
    Ok(())
}

/// The one file that a download left in a directory.
fn downloaded(dir: &Path, prefix: &str, suffix: &str) -> StepResult<PathBuf> {
    let found = fs::read_dir(dir)?
        .flatten()
        .map(|entry| entry.path())
        .find(|path| {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            name.starts_with(prefix) && name.ends_with(suffix)
        });
    found.ok_or_else(|| {
        StepError::new(
            codes::STAGE_FAILED,
            format!("the download left no {prefix}*{suffix}"),
        )
    })
}

fn failed(message: impl Into<String>) -> StepError {
    StepError::new(codes::STAGE_FAILED, message)
}

/// Tries again what a download site's inconsistent mirrors break: three attempts, as Percona's own jobs do.
fn retried<T>(mut attempt: impl FnMut() -> StepResult<T>) -> StepResult<T> {
    let mut last = attempt();
    for pause_s in [2, 10] {
        if last.is_ok() {
            break;
        }
        crate::host::clock::pause(Duration::from_secs(pause_s));
        last = attempt();
    }
    last
}
