//! apt with private sources, lists and cache. The host's package database is only read, its proxy settings hold.

use super::{Staged, downloaded, failed, retried};
use crate::config::Paths;
use crate::execute::engine::Run;
use crate::execute::error::StepResult;
use crate::host::command::Tool;
use crate::host::os;
use client_upgrade::parse::dpkg::{madison, simulation};
use client_upgrade::policy::Policy;
use client_upgrade::source::{apt_line, package, package_file, resolve};
use fleet_common::inventory::{Installation, Method};
use fleet_common::native_version::compare_deb;
use fleet_common::plan_entry::PlanEntry;
use fs_err as fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// apt in a directory of its own.
pub struct Apt {
    root: PathBuf,
}

impl Apt {
    /// With the repositories of the given majors.
    pub fn prepare(paths: &Paths, policy: &Policy, entry: &PlanEntry, majors: &[u32]) -> StepResult<Self> {
        let root = paths.packages().join("apt");
        for dir in ["lists/partial", "cache/archives/partial", "state", "parts"] {
            fs::create_dir_all(root.join(dir))?;
        }
        let codename = os::release().codename;
        let lines: Vec<String> = majors
            .iter()
            .map(|major| apt_line(&entry.source, *major, &codename, &policy.apt_keyring))
            .collect();
        fs::write(root.join("sources.list"), format!("{}\n", lines.join("\n")))?;
        Ok(Self { root })
    }

    fn tool(&self, program: &str) -> Tool {
        let root = self.root.display();
        let options = [
            format!("Dir::Etc::SourceList={root}/sources.list"),
            format!("Dir::Etc::SourceParts={root}/parts"),
            format!("Dir::State={root}/state"),
            "Dir::State::status=/var/lib/dpkg/status".to_owned(),
            format!("Dir::State::Lists={root}/lists"),
            format!("Dir::Cache={root}/cache"),
            "APT::Sandbox::User=root".to_owned(),
            "Acquire::Languages=none".to_owned(),
            "Acquire::Retries=2".to_owned(),
            "APT::Get::List-Cleanup=1".to_owned(),
        ];
        options
            .iter()
            .fold(Tool::new(program), |tool, option| tool.arg("-o").arg(option))
    }

    /// Fetches the lists. A repository that fails is an error, not a warning.
    pub fn update(&self) -> StepResult<()> {
        let tool = || {
            self.tool("apt-get")
                .args(["-o", "APT::Update::Error-Mode=any", "update"])
                .timeout(Duration::from_secs(240))
        };
        retried(|| tool().check().map(drop).map_err(Into::into))
    }

    /// Versions on offer.
    pub fn offered(&self, name: &str) -> StepResult<Vec<String>> {
        Ok(madison(
            &self.tool("apt-cache").args(["madison", name]).check()?.stdout,
        ))
    }

    /// What installing would do, by apt's own simulation.
    pub fn simulate(&self, what: &str) -> StepResult<client_upgrade::parse::dpkg::Simulation> {
        let tool = self.tool("apt-get").args([
            "--simulate",
            "-o",
            "Debug::NoLocking=1",
            "--no-install-recommends",
            "install",
            what,
        ]);
        Ok(simulation(&tool.timeout(Duration::from_secs(60)).check()?.stdout))
    }

    /// Downloads into a directory; apt checks the hash against the signed lists.
    pub fn download(
        &self,
        name: &str,
        version: &str,
        to: &std::path::Path,
        limit: Duration,
    ) -> StepResult<PathBuf> {
        fs::create_dir_all(to)?;
        retried(|| {
            self.tool("apt-get")
                .args(["download", &format!("{name}={version}")])
                .dir(to)
                .timeout(limit)
                .check()
                .map(drop)
                .map_err(Into::into)
        })?;
        downloaded(to, &format!("{name}_"), ".deb")
    }
}

/// The full version of the target, the latest build of it.
pub fn candidate(apt: &Apt, entry: &PlanEntry) -> StepResult<Option<String>> {
    let offered = apt.offered(package(entry.to.major))?;
    Ok(resolve(&offered, entry.to, |a, b| {
        compare_deb(a, b).is_some_and(std::cmp::Ordering::is_gt)
    })
    .cloned())
}

/// Stages both packages.
pub fn stage(run: &Run<'_>, installation: &Installation, limit: Duration) -> StepResult<Staged> {
    let paths = &run.shared.paths;
    let apt = Apt::prepare(paths, run.policy, run.entry, &majors(installation, run.entry))?;
    apt.update()?;
    let name = package(run.entry.to.major);
    let version = candidate(&apt, run.entry)?
        .ok_or_else(|| failed(format!("{name} {} is not in the repository", run.entry.to)))?;
    let new = apt.download(name, &version, &paths.stage().join("new"), limit)?;
    let old_name = installation.package.clone().unwrap_or_default();
    let kept = keep(run, &apt, &old_name, installation, limit)?;
    let would = apt.simulate(&new.display().to_string())?;
    if !would.is_exchange(&old_name, name) {
        return Err(failed(format!(
            "installing {name} would do more: install {:?}, remove {:?}",
            would.install, would.remove
        )));
    }
    let digest = fleet_artifacts::file_sha256_hex(&new).map_err(|error| failed(error.to_string()))?;
    Ok(Staged {
        purpose: String::new(),
        candidate: version,
        new,
        digest,
        kept: Some(kept),
    })
}

/// Majors whose repositories are needed.
pub fn majors(installation: &Installation, entry: &PlanEntry) -> Vec<u32> {
    let mut majors = vec![entry.to.major, installation.version.major];
    majors.dedup();
    majors
}

/// The installed package, from the repository or from apt's own cache.
fn keep(
    run: &Run<'_>,
    apt: &Apt,
    name: &str,
    installation: &Installation,
    limit: Duration,
) -> StepResult<PathBuf> {
    let version = installation.package_version.clone().unwrap_or_default();
    let dir = run.shared.paths.stage().join("kept");
    apt.download(name, &version, &dir, limit).or_else(|error| {
        let cached = cached(name, &version);
        let to = dir.join(cached.file_name().unwrap_or_default());
        fs::copy(&cached, &to).map(|_| to).map_err(|_| {
            failed(format!(
                "{name} {version} can't be kept for the way back: {error}"
            ))
        })
    })
}

/// Where apt keeps a package that it downloaded once: the survey looks there too.
pub fn cached(name: &str, version: &str) -> PathBuf {
    let file = package_file(Method::Deb, name, version, &deb_arch()).unwrap_or_default();
    Path::new("/var/cache/apt/archives").join(file)
}

/// Architecture in the words of dpkg.
pub fn deb_arch() -> String {
    Tool::new("dpkg")
        .arg("--print-architecture")
        .run()
        .map(|output| output.stdout.trim().to_owned())
        .unwrap_or_default()
}
