//! Making an upgrade final.

use super::engine::Run;
use super::error::StepResult;
use crate::host::reserve::Reserve;
use crate::host::{files, os};
use client_upgrade::source::{apt_file, yum_file};
use fleet_common::inventory::Method;
use fs_err as fs;
use std::path::Path;

/// Writes the repository file as `percona-release enable` would, so that the host keeps current. `enable-only` is never imitated: it would
/// switch the databases' own repositories off. Only now, not before the switch: with the repository enabled `dnf upgrade` replaces a PMM 2 client.
pub fn repository(run: &Run<'_>) -> StepResult<()> {
    if !run.policy.write_repository {
        return Ok(());
    }
    let (entry, release) = (run.entry, os::release());
    let major = entry.to.major;
    let public = files::Ownership {
        mode: 0o644,
        ..files::PRIVATE
    };
    let (dir, (name, text)) = match entry.expect.method {
        Method::Deb => (
            "/etc/apt/sources.list.d",
            apt_file(&entry.source, major, &release.codename, &run.policy.apt_keyring),
        ),
        Method::Rpm => {
            let releasever = if release.id == "amzn" {
                release.version.clone()
            } else {
                "$releasever".to_owned()
            };
            (
                "/etc/yum.repos.d",
                yum_file(
                    &entry.source,
                    major,
                    &os::arch(),
                    &releasever,
                    &run.policy.rpm_key,
                ),
            )
        }
        Method::Tarball => return Ok(()),
    };
    let path = Path::new(dir).join(name);
    // An administrator's file of that name wins.
    if !path.exists() {
        fs::create_dir_all(dir)?;
        files::replace(&path, text.as_bytes(), public)?;
    }
    Ok(())
}

/// Removes what was saved and staged.
pub fn discard(run: &Run<'_>) -> StepResult<()> {
    let paths = &run.shared.paths;
    for dir in [
        paths.saved(),
        paths.saving().saved(),
        paths.saved_before(),
        paths.stage(),
        paths.unpacked(),
        paths.transactions(),
        paths.packages(),
    ] {
        files::remove(&dir)?;
    }
    Reserve::of(paths).release();
    Ok(())
}
