//! Our own agent as deb, rpm and tarball, built from `deploy/` and installed on the hosts the way an administrator would.

use crate::build::{self, Programs, workspace};
use crate::fleet::{Host, Kind};
use crate::images::{self, Images};
use crate::{docker, names, output};
use anyhow::{Context, Result};
use std::path::{Path, PathBuf};

/// The built packages.
pub struct Packages {
    deb: PathBuf,
    rpm: PathBuf,
    tarball: PathBuf,
}

impl Packages {
    /// The package for a kind of host.
    pub fn of(&self, kind: Kind) -> &Path {
        match kind {
            Kind::Deb => &self.deb,
            Kind::Rpm => &self.rpm,
            Kind::TarDefault | Kind::TarCustom => &self.tarball,
        }
    }
}

/// Builds the packages unless they are there for this content.
pub fn build(tools: &Images, programs: &Programs) -> Result<Packages> {
    make(tools, &programs.agent, "agent-packages", None)
}

/// Builds the packages of another release from its program.
pub fn build_release(tools: &Images, program: &Path, version: &str) -> Result<Packages> {
    make(
        tools,
        program,
        &format!("agent-packages-{version}"),
        Some(version),
    )
}

fn make(tools: &Images, program: &Path, directory: &str, version: Option<&str>) -> Result<Packages> {
    let deploy = workspace().join("deploy");
    let hash = images::content_hash(&[&deploy, program], &[&tools.builder])?;
    let out = build::state_dir()?.join(directory);
    let stamp = out.join("stamp");
    if fs_err::read_to_string(&stamp).unwrap_or_default() != hash {
        output::step("building our agent's deb, rpm and tarball");
        if out.exists() {
            fs_err::remove_dir_all(&out)?;
        }
        fs_err::create_dir_all(&out)?;
        let input = build::state_dir()?.join("agent-in");
        fs_err::create_dir_all(&input)?;
        fs_err::copy(program, input.join("pmm-upgrade-agent"))?;
        let mut args = vec!["run".to_owned(), "--rm".to_owned()];
        if let Some(version) = version {
            args.extend(["--env".to_owned(), format!("VERSION={version}")]);
        }
        for (path, inside) in [(&deploy, "/deploy:ro"), (&input, "/in:ro"), (&out, "/out")] {
            args.extend(["--volume".to_owned(), format!("{}:{inside}", path.display())]);
        }
        args.extend([&tools.builder, "sh", "/deploy/package/build.sh"].map(str::to_owned));
        docker::docker_list(&args)?;
        fs_err::write(&stamp, &hash)?;
    }
    Ok(Packages {
        deb: one(&out, ".deb")?,
        rpm: one(&out, ".rpm")?,
        tarball: one(&out, ".tar.gz")?,
    })
}

fn one(directory: &Path, suffix: &str) -> Result<PathBuf> {
    for entry in fs_err::read_dir(directory)? {
        let path = entry?.path();
        if path.to_string_lossy().ends_with(suffix) {
            return Ok(path);
        }
    }
    anyhow::bail!(
        "deploy/package/build.sh made no {suffix} in {}",
        directory.display()
    )
}

/// Installs the agent on a host by the host's own means.
pub fn install(host: &Host, packages: &Packages) -> Result<()> {
    let container = names::host(host.name);
    let file = packages.of(host.kind);
    let argv = match host.kind {
        Kind::Deb => words(&["dpkg", "--install"]),
        Kind::Rpm => words(&["rpm", "--upgrade"]),
        Kind::TarDefault | Kind::TarCustom => words(&["tar", "-C", "/", "-xzf"]),
    };
    let name = file
        .file_name()
        .context("a package file has a name")?
        .to_string_lossy()
        .into_owned();
    // `docker cp` cannot write below a tmpfs such as /tmp.
    let inside = format!("/opt/{name}");
    docker::docker([
        "cp",
        &file.display().to_string(),
        &format!("{container}:{inside}"),
    ])?;
    let mut command: Vec<&str> = argv.iter().map(String::as_str).collect();
    command.push(&inside);
    docker::exec_must(&container, &command)?;
    docker::write_file(
        &container,
        "/etc/pmm-upgrade-agent/policy.toml",
        "644",
        POLICY.as_bytes(),
    )?;
    docker::exec_must(&container, &["systemctl", "daemon-reload"])?;
    docker::exec_must(&container, &["systemctl", "enable", "pmm-upgrade-agent"]).map(drop)
}

/// The administrator of the hosts allows the lab's own package site and nothing else.
pub const POLICY: &str = "sources = [\"http://repo.lab\"]\n";

fn words(list: &[&str]) -> Vec<String> {
    list.iter().map(|word| (*word).to_owned()).collect()
}
