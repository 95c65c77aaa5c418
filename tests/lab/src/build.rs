//! Builds the programs under test and the stand-ins, and strips copies for the hosts.

use crate::cmd;
use crate::output;
use anyhow::{Context, Result, bail};
use std::path::{Path, PathBuf};

/// glibc of the hosts' base image (Debian 12). Programs built against a newer one would not start there.
const HOSTS_GLIBC: (u32, u32) = (2, 36);

/// The programs, ready to be copied.
pub struct Programs {
    /// `pmm-coordinator`.
    pub coordinator: PathBuf,
    /// `volume-helper`, static.
    pub volume_helper: PathBuf,
    /// `pmm-upgrade-agent`, stripped.
    pub agent: PathBuf,
    /// `standin-server`, stripped.
    pub standin_server: PathBuf,
    /// `standin-client`, stripped.
    pub standin_client: PathBuf,
}

/// Root of the workspace.
pub fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .ancestors()
        .nth(2)
        .map_or_else(PathBuf::new, Path::to_path_buf)
}

/// Where the lab keeps its state; ignored by git.
pub fn state_dir() -> Result<PathBuf> {
    let directory = workspace().join(".lab");
    fs_err::create_dir_all(&directory)?;
    Ok(directory)
}

/// Where the state of the running fleet is kept: the snapshot with the clients' passwords, credentials, the coordinator's data, logs. `down`
/// removes it, so it holds nothing that is costly to make.
pub fn run_dir() -> Result<PathBuf> {
    let directory = state_dir()?.join("run");
    if !directory.exists() {
        fs_err::create_dir(&directory)?;
        only_owner(&directory, 0o700)?;
    }
    Ok(directory)
}

/// Removes what [`run_dir`] holds; the logs of a run that failed may stay for whoever looks into it.
pub fn forget_run(keep_logs: bool) -> Result<()> {
    forget(&state_dir()?.join("run"), keep_logs)
}

fn forget(directory: &Path, keep_logs: bool) -> Result<()> {
    if !directory.exists() {
        return Ok(());
    }
    if !keep_logs {
        return Ok(fs_err::remove_dir_all(directory)?);
    }
    for entry in fs_err::read_dir(directory)? {
        let path = entry?.path();
        if path.is_dir() {
            fs_err::remove_dir_all(&path)?;
        } else if path.extension().is_none_or(|kind| kind != "log") {
            fs_err::remove_file(&path)?;
        }
    }
    Ok(())
}

/// Writes a file that only its owner may read, at no moment anybody else.
pub fn write_secret(path: &Path, bytes: &[u8]) -> Result<()> {
    use fs_err::os::unix::fs::OpenOptionsExt as _;
    use std::io::Write as _;
    let mut options = fs_err::OpenOptions::new();
    options.write(true).create(true).truncate(true).mode(0o600);
    let mut file = options.open(path)?;
    // The mode above counts only for a new file.
    only_owner(path, 0o600)?;
    Ok(file.write_all(bytes)?)
}

fn only_owner(path: &Path, mode: u32) -> Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    let permissions = std::fs::Permissions::from_mode(mode);
    Ok(fs_err::set_permissions(path, permissions)?)
}

/// Builds everything; cheap when nothing changed.
pub fn programs() -> Result<Programs> {
    output::step("building the programs and the stand-ins");
    let built = cargo_build(&["pmm-coordinator", "pmm-upgrade-agent", "standins"])?;
    let stripped = stripped_dir()?;
    let agent = strip(&built, &stripped, "pmm-upgrade-agent")?;
    let volume_helper = volume_helper()?;
    Ok(Programs {
        agent,
        volume_helper,
        ..standins_in(&built, &stripped)?
    })
}

/// The program that works inside a helper container, whatever C library is in there: linked statically.
fn volume_helper() -> Result<PathBuf> {
    let triple = "x86_64-unknown-linux-gnu";
    let manifest = workspace().join("Cargo.toml").display().to_string();
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".into());
    let build = [
        "build",
        "--quiet",
        "--locked",
        "--release",
        "--package",
        "volume-helper",
        "--target",
        triple,
        "--manifest-path",
        &manifest,
    ];
    let mut args = vec!["RUSTFLAGS=-C target-feature=+crt-static", cargo.as_str()];
    args.extend(build);
    cmd::must("env", &args).context("building the volume helper")?;
    Ok(target_dir().join(triple).join("release/volume-helper"))
}

/// Builds our agent from these sources under another release number, in a copy of the workspace beside it.
pub fn agent_of(version: &str) -> Result<PathBuf> {
    output::step(&format!("building our agent as release {version}"));
    check_glibc()?;
    let copy = state_dir()?.join("other-release");
    let sources = copy.join("workspace");
    if sources.exists() {
        fs_err::remove_dir_all(&sources)?;
    }
    fs_err::create_dir_all(&sources)?;
    for part in [
        "Cargo.toml",
        "Cargo.lock",
        ".cargo",
        "proto",
        "common",
        "coordinator",
        "agent",
        "tests",
        "deploy",
    ] {
        let from = workspace().join(part);
        // `-p`: what did not change is not compiled again.
        cmd::must(
            "cp",
            ["-rp", &from.display().to_string(), &sources.display().to_string()],
        )?;
    }
    let manifest = sources.join("Cargo.toml");
    let text = fs_err::read_to_string(&manifest)?;
    let number = format!("version = \"{}\"", env!("CARGO_PKG_VERSION"));
    if text.lines().filter(|line| *line == number).count() != 1 {
        bail!("{} does not hold the line `{number}` once", manifest.display());
    }
    fs_err::write(
        &manifest,
        text.replacen(&number, &format!("version = \"{version}\""), 1),
    )?;
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".into());
    let target = copy.join("target");
    let args = [
        "build",
        "--quiet",
        "--offline",
        "--package",
        "pmm-upgrade-agent",
        "--manifest-path",
        &manifest.display().to_string(),
        "--target-dir",
        &target.display().to_string(),
    ];
    cmd::must(&cargo, args).context("building our agent under another release number")?;
    strip(&target.join("debug"), &copy, "pmm-upgrade-agent")
}

/// Builds the stand-ins alone; the paths of the product's programs are given, but nothing may be there.
pub fn standins() -> Result<Programs> {
    output::step("building the stand-ins");
    let built = cargo_build(&["standins"])?;
    standins_in(&built, &stripped_dir()?)
}

fn standins_in(built: &Path, stripped: &Path) -> Result<Programs> {
    Ok(Programs {
        coordinator: built.join("pmm-coordinator"),
        volume_helper: PathBuf::new(),
        agent: stripped.join("pmm-upgrade-agent"),
        standin_server: strip(built, stripped, "standin-server")?,
        standin_client: strip(built, stripped, "standin-client")?,
    })
}

fn stripped_dir() -> Result<PathBuf> {
    let stripped = state_dir()?.join("bin");
    fs_err::create_dir_all(&stripped)?;
    Ok(stripped)
}

fn cargo_build(packages: &[&str]) -> Result<PathBuf> {
    check_glibc()?;
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut args = vec!["build".to_owned(), "--quiet".to_owned(), "--locked".to_owned()];
    args.extend(
        packages
            .iter()
            .flat_map(|name| ["--package".to_owned(), (*name).to_owned()]),
    );
    args.extend([
        "--manifest-path".to_owned(),
        workspace().join("Cargo.toml").display().to_string(),
    ]);
    cmd::must(&cargo.to_string_lossy(), &args).context("building the workspace")?;
    Ok(target_dir().join("debug"))
}

/// Cargo's target directory.
pub fn target_dir() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| workspace().join("target"), PathBuf::from)
}

/// The file is replaced only when it differs, and at once: another lab run may be copying it.
fn strip(from: &Path, to: &Path, name: &str) -> Result<PathBuf> {
    let target = to.join(name);
    let source = from.join(name);
    let fresh = to.join(format!("{name}.{}", std::process::id()));
    cmd::must(
        "strip",
        ["-o", &fresh.display().to_string(), &source.display().to_string()],
    )
    .with_context(|| {
        format!("stripping {name}; `strip` is part of binutils, which the Rust linker needs too")
    })?;
    if fs_err::read(&target).is_ok_and(|old| fs_err::read(&fresh).is_ok_and(|new| new == old)) {
        fs_err::remove_file(&fresh)?;
    } else {
        fs_err::rename(&fresh, &target)?;
    }
    Ok(target)
}

fn check_glibc() -> Result<()> {
    let text = cmd::must("ldd", ["--version"])
        .context("`ldd --version` tells the C library; is this Linux with glibc?")?;
    let first = text.lines().next().unwrap_or_default();
    let version = first.rsplit(' ').next().unwrap_or_default();
    let numbers: Vec<u32> = version.split('.').filter_map(|part| part.parse().ok()).collect();
    match numbers[..] {
        [major, minor, ..] if (major, minor) <= HOSTS_GLIBC => Ok(()),
        _ => bail!(
            "this machine's C library ({first}) is newer than the lab hosts' (glibc 2.36): programs built here would not start there. \
             Run the lab on Debian 12 or something as old"
        ),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn down_leaves_no_state_and_a_failed_run_only_logs() {
        use std::os::unix::fs::PermissionsExt as _;
        let root = std::env::temp_dir().join(format!("fleetlab-run-{}", std::process::id()));
        let names = || -> Vec<String> {
            let rows = fs_err::read_dir(&root).unwrap();
            rows.map(|row| row.unwrap().file_name().to_string_lossy().into_owned())
                .collect()
        };
        fs_err::create_dir_all(root.join("coordinator")).unwrap();
        fs_err::write(root.join("coordinator/ca.key"), "key").unwrap();
        fs_err::write(root.join("coordinator.log"), "log").unwrap();
        fs_err::write(root.join("before.json"), "old").unwrap();
        write_secret(&root.join("before.json"), b"{}").unwrap();
        let mode = fs_err::metadata(root.join("before.json"))
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600);
        forget(&root, true).unwrap();
        assert_eq!(names(), ["coordinator.log"]);
        forget(&root, false).unwrap();
        assert!(!root.exists());
        forget(&root, false).unwrap();
    }
}
