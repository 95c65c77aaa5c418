//! dnf with private repository and cache directories. Signatures are checked against the key in a key ring of our own, so that the host's RPM
//! database is only read.

use super::{Staged, downloaded, failed, retried};
use crate::config::Paths;
use crate::execute::engine::Run;
use crate::execute::error::StepResult;
use crate::host::command::Tool;
use crate::host::{files, os};
use client_upgrade::policy::Policy;
use client_upgrade::source::{package, resolve, yum_file, yum_section};
use fleet_common::inventory::Installation;
use fleet_common::native_version::compare_rpm;
use fleet_common::plan_entry::PlanEntry;
use fs_err as fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// dnf in a directory of its own.
pub struct Dnf<'a> {
    root: PathBuf,
    entry: &'a PlanEntry,
    key: String,
}

impl<'a> Dnf<'a> {
    /// With the repositories of the given majors.
    pub fn prepare(paths: &Paths, policy: &Policy, entry: &'a PlanEntry, majors: &[u32]) -> StepResult<Self> {
        let root = paths.packages().join("dnf");
        for dir in ["repos", "cache", "persist", "log"] {
            fs::create_dir_all(root.join(dir))?;
        }
        let release = os::release();
        let releasever = if release.id == "amzn" {
            release.version.clone()
        } else {
            release.major().to_owned()
        };
        for major in majors {
            let (name, text) = yum_file(&entry.source, *major, &os::arch(), &releasever, &policy.rpm_key);
            fs::write(root.join("repos").join(name), text)?;
        }
        Ok(Self {
            root,
            entry,
            key: policy.rpm_key.clone(),
        })
    }

    fn tool(&self, major: u32) -> Tool {
        let root = self.root.display();
        Tool::new("dnf")
            .args(["--quiet", "--assumeyes"])
            .arg(format!("--setopt=reposdir={root}/repos"))
            .arg(format!("--setopt=cachedir={root}/cache"))
            .arg(format!("--setopt=persistdir={root}/persist"))
            .arg(format!("--setopt=logdir={root}/log"))
            .arg("--setopt=metadata_expire=0")
            .arg("--disablerepo=*")
            .arg(format!(
                "--enablerepo={}",
                yum_section(&self.entry.source, major, &os::arch())
            ))
    }

    /// Versions on offer.
    pub fn offered(&self, major: u32) -> StepResult<Vec<String>> {
        let query = || {
            self.tool(major)
                .args([
                    "repoquery",
                    "--showduplicates",
                    "--qf",
                    "%{version}-%{release}\n",
                    package(major),
                ])
                .timeout(Duration::from_secs(240))
        };
        let output = retried(|| query().check().map_err(Into::into))?;
        Ok(output
            .stdout
            .lines()
            .map(str::trim)
            .filter(|line| !line.is_empty())
            .map(str::to_owned)
            .collect())
    }

    /// Downloads into a directory and checks the signature.
    fn download(
        &self,
        major: u32,
        verb: &str,
        name_version: &str,
        to: &Path,
        limit: Duration,
    ) -> StepResult<PathBuf> {
        fs::create_dir_all(to)?;
        let dir = format!("--downloaddir={}", to.display());
        retried(|| {
            let tool = self
                .tool(major)
                .args(["--downloadonly", &dir, verb, name_version])
                .timeout(limit);
            tool.check().map(drop).map_err(Into::into)
        })?;
        let file = downloaded(to, name_version, ".rpm")?;
        self.check_signature(&file)?;
        Ok(file)
    }

    /// An unsigned package also passes `rpmkeys --checksig`; the word "signatures" must be there.
    fn check_signature(&self, file: &Path) -> StepResult<()> {
        let ring = self.root.join("keys");
        files::remove(&ring)?;
        fs::create_dir_all(&ring)?;
        let keys = || Tool::new("rpmkeys").arg(format!("--dbpath={}", ring.display()));
        keys().arg("--import").arg(&self.key).check()?;
        let said = keys().arg("--checksig").arg(file).check()?.stdout;
        if said.contains("signatures OK") {
            return Ok(());
        }
        Err(failed(format!(
            "{} is not signed with {}",
            file.display(),
            self.key
        )))
    }
}

/// The full version of the target, the latest build of it.
pub fn candidate(dnf: &Dnf<'_>, entry: &PlanEntry) -> StepResult<Option<String>> {
    let offered = dnf.offered(entry.to.major)?;
    Ok(resolve(&offered, entry.to, |a, b| compare_rpm(a, b).is_gt()).cloned())
}

/// Stages both packages.
pub fn stage(run: &Run<'_>, installation: &Installation, limit: Duration) -> StepResult<Staged> {
    let paths = &run.shared.paths;
    let dnf = Dnf::prepare(
        paths,
        run.policy,
        run.entry,
        &super::deb::majors(installation, run.entry),
    )?;
    let name = package(run.entry.to.major);
    let version = candidate(&dnf, run.entry)?
        .ok_or_else(|| failed(format!("{name} {} is not in the repository", run.entry.to)))?;
    let new = dnf.download(
        run.entry.to.major,
        "install",
        &format!("{name}-{version}"),
        &paths.stage().join("new"),
        limit,
    )?;
    let old = format!(
        "{}-{}",
        installation.package.clone().unwrap_or_default(),
        installation.package_version.clone().unwrap_or_default()
    );
    let kept = dnf
        .download(
            installation.version.major,
            "reinstall",
            &old,
            &paths.stage().join("kept"),
            limit,
        )
        .map_err(|error| failed(format!("{old} can't be kept for the way back: {error}")))?;
    Tool::new("rpm")
        .args(["--upgrade", "--test"])
        .arg(&new)
        .timeout(Duration::from_secs(60))
        .check()?;
    let digest = fleet_artifacts::file_sha256_hex(&new).map_err(|error| failed(error.to_string()))?;
    Ok(Staged {
        purpose: String::new(),
        candidate: version,
        new,
        digest,
        kept: Some(kept),
    })
}
