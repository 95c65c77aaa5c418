//! The survey's checks: what the switch depends on, weeks ahead. Nothing that runs is changed.

use super::engine::Run;
use super::environment;
use super::error::StepResult;
use super::save::{administrators_units, state_bytes};
use super::stage::{deb, rpm, tarball};
use super::{backup, kept};
use crate::detect::Looked;
use crate::host::command::Tool;
use crate::host::reserve::bytes_for;
use crate::host::{accounts, files, http, os, processes};
use client_upgrade::carry::target_base;
use client_upgrade::parse::config::ClientConfig;
use client_upgrade::source::package;
use client_upgrade::survey::{
    Credentials, credentials, disk, fail, groups, overrides, pass, server_address, strays, warn,
};
use fleet_common::inventory::{Installation, Method, RunKind};
use fleet_common::survey::{Finding, HostSurvey};
use fs_err as fs;
use serde_json::Value;
use std::path::{Path, PathBuf};

/// Unpacked and packed client of either major with room to spare (facts: several hundred MB).
const STAGE_BYTES: u64 = 300 * 1024 * 1024;
/// The program tree of the new release.
const TREE_BYTES: u64 = 300 * 1024 * 1024;

/// Runs every check.
pub fn survey(run: &Run<'_>) -> StepResult<Value> {
    let looked = run.look();
    let installation = run.installation(&looked)?;
    let config = client_upgrade::detect::client_config(&looked.facts, &installation);
    let mut findings = vec![credentials_finding(&installation, config.as_ref())];
    let mut survey = HostSurvey {
        findings: Vec::new(),
        candidate: None,
        kept: None,
    };
    if installation.version == run.entry.to {
        survey.kept = kept::name(&run.shared.paths, run.entry, &installation, false, "");
        findings.push(pass(
            "candidate",
            format!("release {} is already here", run.entry.to),
        ));
        if installation
            .running_version
            .is_some_and(|running| running != run.entry.to)
        {
            findings.push(warn(
                "way_back",
                "the new release is on the disk, an older process still runs: the switch only restarts it, and nothing of the old release is kept",
                "if the restart fails the host needs a person",
            ));
        }
    } else {
        packages(run, &installation, &mut findings, &mut survey);
    }
    findings.extend(space(&needs(run, &looked, &installation)));
    findings.extend(server_address(&installation.server_address));
    findings.push(overrides(&named_overrides(run, &looked, &installation)));
    findings.push(environment::finding(run.entry, &looked, &installation));
    findings.push(strays(stray_count(&looked)));
    findings.push(backup::finding(&looked, &installation.base_dir));
    if let Some(account) = accounts::find(&installation.user) {
        findings.push(groups(&account.name, &account.groups));
    }
    if installation.run == RunKind::Stopped {
        findings.push(warn(
            "running",
            "the client does not run; it will be upgraded and stay stopped",
            "start it if it should report",
        ));
    } else if installation.connected == Some(false) && installation.configured {
        findings.push(warn(
            "running",
            "the client says it is not connected to the PMM Server",
            "look at its log before the switch",
        ));
    }
    survey.findings = findings;
    Ok(serde_json::to_value(survey).unwrap_or(Value::Null))
}

/// What staging, saving, the switch and the way back need, and where. The way back writes the saved files beside those they replace, and its
/// package or tree goes where the new one was.
fn needs(run: &Run<'_>, looked: &Looked, installation: &Installation) -> Vec<(PathBuf, u64)> {
    let base = Path::new(&installation.base_dir);
    let size = |path: &Path| fs::metadata(path).map_or(0, |meta| meta.len());
    let collectors = base.join("collectors");
    let small: Vec<u64> = files::walk(&collectors)
        .iter()
        .map(|path| size(&collectors.join(path)))
        .chain(administrators_units(looked).iter().map(|path| size(path)))
        .chain([size(Path::new(&installation.config_file))])
        .collect();
    let paths = &run.shared.paths;
    let reserve = bytes_for(small.iter().copied(), state_bytes(paths));
    let copies: u64 = small.iter().sum();
    vec![
        (
            paths.state().to_owned(),
            STAGE_BYTES + tree_bytes(installation) + copies + reserve,
        ),
        (base.to_owned(), TREE_BYTES + copies),
    ]
}

/// One finding per file system: two places on one share its room.
fn space(needs: &[(PathBuf, u64)]) -> Vec<Finding> {
    let mut disks: Vec<(Option<u64>, Vec<&Path>, u64)> = Vec::new();
    for (place, bytes) in needs {
        let device = os::device(place);
        match disks.iter_mut().find(|disk| disk.0 == device) {
            Some((_, places, needed)) => {
                places.push(place);
                *needed = needed.saturating_add(*bytes);
            }
            None => disks.push((device, vec![place], *bytes)),
        }
    }
    disks
        .into_iter()
        .map(|(_, places, needed)| {
            let names: Vec<String> = places.iter().map(|place| place.display().to_string()).collect();
            let names = names.join(" and ");
            match places.first().and_then(|place| os::free_bytes(place)) {
                Some(free) => disk(&names, free, needed),
                None => fail("disk", format!("the free space at {names} can't be read"), ""),
            }
        })
        .collect()
}

/// A tarball's tree is copied whole for the way back.
fn tree_bytes(installation: &Installation) -> u64 {
    if installation.method != Method::Tarball {
        return 0;
    }
    let root = Path::new(&installation.base_dir);
    files::walk(root)
        .iter()
        .filter_map(|path| fs::metadata(root.join(path)).ok())
        .map(|meta| meta.len())
        .sum()
}

fn named_overrides(run: &Run<'_>, looked: &Looked, installation: &Installation) -> Vec<String> {
    let base = &installation.base_dir;
    if target_base(installation.method, base, run.entry.to.major) == *base {
        return Vec::new();
    }
    administrators_units(looked)
        .into_iter()
        .filter(|path| fs::read_to_string(path).is_ok_and(|text| text.contains(base.as_str())))
        .map(|path| path.display().to_string())
        .collect()
}

fn stray_count(looked: &Looked) -> usize {
    let main = looked.main_process().map(|process| process.pid);
    looked
        .clients
        .iter()
        .filter(|process| processes::of_host(process) && Some(process.pid) != main)
        .count()
}

fn credentials_finding(installation: &Installation, config: Option<&ClientConfig>) -> Finding {
    let seen = match config {
        None => Credentials::Opaque,
        Some(config) if !config.configured() => Credentials::NotConfigured,
        Some(config) => http::block_on(ask(config))
            .unwrap_or_else(|error| Credentials::Unreachable(fleet_common::hint::chain(&error))),
    };
    credentials(&seen, &installation.credential)
}

/// Asks an endpoint that demands the admin role: `Services/List` on PMM 2, `/v1/inventory/services` on PMM 3.
async fn ask(config: &ClientConfig) -> Result<Credentials, http::HttpError> {
    let scheme = if config.without_tls { "http" } else { "https" };
    let root = format!("{scheme}://{}", config.server_address);
    let client = http::client(config.insecure_tls)?;
    let signed = |request: reqwest::RequestBuilder| {
        if config.is_token() {
            request.bearer_auth(&config.password)
        } else {
            request.basic_auth(&config.username, Some(&config.password))
        }
    };
    let mut last = 0;
    // Three attempts: PMM answers 5xx for moments while its own authentication is slow.
    for _ in 0..3 {
        let old = client
            .post(format!("{root}/v1/inventory/Services/List"))
            .header("content-type", "application/json")
            .body("{}");
        last = http::status(signed(old)).await?;
        if matches!(last, 404 | 405 | 501) {
            last = http::status(signed(client.get(format!("{root}/v1/inventory/services")))).await?;
        }
        match last {
            200 => return Ok(Credentials::Accepted),
            401 | 403 => {
                let known = http::status(signed(client.get(format!("{root}/v1/version")))).await? == 200;
                return Ok(Credentials::Refused { status: last, known });
            }
            _ => tokio::time::sleep(std::time::Duration::from_secs(1)).await,
        }
    }
    Ok(Credentials::Unreachable(format!("it answers HTTP {last}")))
}

fn packages(
    run: &Run<'_>,
    installation: &Installation,
    findings: &mut Vec<Finding>,
    survey: &mut HostSurvey,
) {
    let kept = |offered, arch: &str| kept::name(&run.shared.paths, run.entry, installation, offered, arch);
    match installation.method {
        Method::Deb => {
            findings.push(dpkg_health());
            findings.push(held(installation));
            let offered = resolved(findings, survey, deb_candidate(run, installation), run);
            survey.kept = kept(offered, &deb::deb_arch());
        }
        Method::Rpm => {
            findings.push(rpm_health());
            findings.push(version_lock());
            let offered = resolved(findings, survey, rpm_candidate(run, installation), run);
            survey.kept = kept(offered, &os::arch());
        }
        Method::Tarball => {
            match tarball::available(run.entry) {
                Ok(name) => {
                    findings.push(pass(
                        "candidate",
                        format!("{name} can be fetched and its digest is pinned"),
                    ));
                    survey.candidate = Some(name);
                }
                Err(why) => findings.push(fail(
                    "candidate",
                    why,
                    "pin the digest in the fleet file and check the source",
                )),
            }
            findings.push(pass("way_back", "the installed tree is copied before the switch"));
            survey.kept = kept(false, "");
        }
    }
}

/// Candidate version and whether the installed one can be had too.
struct Offer {
    candidate: Option<String>,
    installed: bool,
}

/// Returns whether the installed package is on offer.
fn resolved(
    findings: &mut Vec<Finding>,
    survey: &mut HostSurvey,
    offer: StepResult<Offer>,
    run: &Run<'_>,
) -> bool {
    let name = package(run.entry.to.major);
    match offer {
        Err(error) => {
            findings.push(fail(
                "candidate",
                format!("the repository can't be read: {error}"),
                "check repository URL, key and proxy",
            ));
            false
        }
        Ok(offer) => {
            findings.push(match &offer.candidate {
                Some(version) => pass("candidate", format!("{name} {version}")),
                None => fail(
                    "candidate",
                    format!("{name} {} is not in the repository for this system", run.entry.to),
                    "choose another target or use the tarball",
                ),
            });
            findings.push(if offer.installed {
                pass(
                    "way_back",
                    "the package of the installed release can be had and will be kept",
                )
            } else {
                fail(
                    "way_back",
                    "the package of the installed release is not in the repository",
                    "provide it in the repository",
                )
            });
            survey.candidate = offer.candidate;
            offer.installed
        }
    }
}

fn deb_candidate(run: &Run<'_>, installation: &Installation) -> StepResult<Offer> {
    let apt = deb::Apt::prepare(
        &run.shared.paths,
        run.policy,
        run.entry,
        &deb::majors(installation, run.entry),
    )?;
    apt.update()?;
    let candidate = deb::candidate(&apt, run.entry)?;
    let installed = installation.package_version.clone().unwrap_or_default();
    let name = installation.package.as_deref().unwrap_or_default();
    let offered = apt.offered(name)?;
    if let Some(version) = &candidate {
        let new = package(run.entry.to.major);
        let would = apt.simulate(&format!("{new}={version}"))?;
        if !would.is_exchange(name, new) {
            let message = format!(
                "installing {new} would do more: install {:?}, remove {:?}",
                would.install, would.remove
            );
            return Err(super::error::StepError::new(
                fleet_common::codes::PREFLIGHT,
                message,
            ));
        }
    }
    Ok(Offer {
        candidate,
        installed: offered.contains(&installed) || deb::cached(name, &installed).is_file(),
    })
}

fn rpm_candidate(run: &Run<'_>, installation: &Installation) -> StepResult<Offer> {
    let dnf = rpm::Dnf::prepare(
        &run.shared.paths,
        run.policy,
        run.entry,
        &deb::majors(installation, run.entry),
    )?;
    let candidate = rpm::candidate(&dnf, run.entry)?;
    let installed = installation.package_version.clone().unwrap_or_default();
    Ok(Offer {
        candidate,
        installed: dnf.offered(installation.version.major)?.contains(&installed),
    })
}

fn dpkg_health() -> Finding {
    match Tool::new("dpkg").arg("--audit").run() {
        Ok(output) if output.ok() && output.stdout.trim().is_empty() => {
            pass("package_manager", "dpkg has no unfinished business")
        }
        Ok(output) => fail(
            "package_manager",
            format!("dpkg --audit: {}", output.tail()),
            "finish it, for example with dpkg --configure -a",
        ),
        Err(error) => fail("package_manager", fleet_common::hint::chain(&error), ""),
    }
}

fn held(installation: &Installation) -> Finding {
    let holds = Tool::new("apt-mark")
        .arg("showhold")
        .run()
        .map(|output| output.stdout)
        .unwrap_or_default();
    let name = installation.package.as_deref().unwrap_or_default();
    let ours = holds
        .lines()
        .map(str::trim)
        .find(|line| *line == name || *line == "pmm-client");
    match ours {
        Some(package) => fail(
            "held_package",
            format!("{package} is held"),
            "release it with apt-mark unhold, or exclude this host",
        ),
        None => pass("held_package", "no client package is held"),
    }
}

fn rpm_health() -> Finding {
    match Tool::new("rpm").args(["-qa", "--qf", "%{NAME}\n"]).run() {
        Ok(output) if output.ok() && output.stderr.trim().is_empty() => {
            pass("package_manager", "the RPM database can be read")
        }
        Ok(output) => fail(
            "package_manager",
            format!("rpm -qa: {}", output.tail()),
            "repair the RPM database",
        ),
        Err(error) => fail("package_manager", fleet_common::hint::chain(&error), ""),
    }
}

fn version_lock() -> Finding {
    let list = fs::read_to_string("/etc/dnf/plugins/versionlock.list").unwrap_or_default();
    let locked = list
        .lines()
        .map(str::trim)
        .find(|line| !line.starts_with('#') && (line.contains("pmm2-client") || line.contains("pmm-client")));
    match locked {
        Some(line) => fail(
            "held_package",
            format!("dnf versionlock holds {line}"),
            "remove the lock, or exclude this host",
        ),
        None => pass("held_package", "no client package is locked"),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::host::reserve::small_disk::SmallDisk;
    use fleet_common::survey::Verdict;

    #[test]
    fn needs_of_one_file_system_are_added_up() {
        let disk = SmallDisk::new(1024);
        let [a, b] = ["a", "b"].map(|name| disk.path().join(name));
        let verdicts = |a_needs, b_needs| -> Vec<Verdict> {
            space(&[(a.clone(), a_needs), (b.clone(), b_needs)])
                .iter()
                .map(|finding| finding.verdict)
                .collect()
        };
        let half = 600 * 1024;
        assert_eq!(verdicts(half, 0), [Verdict::Pass]);
        assert_eq!(verdicts(half, half), [Verdict::Fail]);
        let elsewhere = tempfile::tempdir().unwrap();
        let apart = space(&[(a.clone(), half), (elsewhere.path().to_owned(), half)]);
        assert_eq!(apart.len(), 2);
        assert!(apart.iter().all(|finding| finding.verdict == Verdict::Pass));
    }
}
