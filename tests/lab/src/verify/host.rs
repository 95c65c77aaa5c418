//! One host, read through dpkg, rpm, `/proc`, systemd, port 7777 and its files.

use crate::docker;
use crate::fleet::{Host, Kind};
use crate::{names, report::Findings};
use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;

/// What was seen on a host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    /// Installed client packages: name and version; empty for tarballs.
    pub packages: BTreeMap<String, String>,
    /// Executable, user and number of every `pmm-agent` process.
    pub processes: Vec<Process>,
    /// `agent_version` on port 7777.
    pub version: String,
    /// `connected` on port 7777.
    pub connected: bool,
    /// Bare agent id on port 7777.
    pub agent_id: String,
    /// Bare node id on port 7777.
    pub node_id: String,
    /// Running exporters: type and path of the executable.
    pub exporters: BTreeMap<String, String>,
    /// The configuration in use.
    pub config_path: String,
    /// Its lines, secrets included: this file never leaves the lab.
    pub config: BTreeMap<String, String>,
    /// Mode and owner.
    pub config_mode: String,
    /// Supplementary groups of the account.
    pub groups: String,
    /// Digest over everything under the client's directories and the package site lists.
    pub files: String,
}

/// A running `pmm-agent`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Process {
    /// `/proc/PID/exe`.
    pub exe: String,
    /// Process number.
    pub pid: u32,
    /// Account.
    pub user: String,
}

/// Looks at a host.
pub fn look(host: &Host) -> Result<State> {
    let container = names::host(host.name);
    let status = local_status(&container).unwrap_or(Value::Null);
    let text = |key: &str| status[key].as_str().unwrap_or_default().to_owned();
    let config_path = text("config_filepath");
    let exporters = status["agents_info"].as_array().cloned().unwrap_or_default();
    let exporters = exporters
        .iter()
        .filter(|agent| {
            agent["status"]
                .as_str()
                .unwrap_or_default()
                .trim_start_matches("AGENT_STATUS_")
                .eq_ignore_ascii_case("running")
        })
        .map(|agent| {
            let kind = agent["agent_type"]
                .as_str()
                .unwrap_or_default()
                .trim_start_matches("AGENT_TYPE_")
                .to_ascii_lowercase();
            (
                format!(
                    "{kind} {}",
                    crate::pmm::bare(agent["agent_id"].as_str().unwrap_or_default())
                ),
                agent["process_exec_path"].as_str().unwrap_or_default().to_owned(),
            )
        })
        .collect();
    let config = docker::exec(&container, &["cat", &config_path])?.stdout;
    let account = if host.kind == Kind::TarCustom {
        "dba"
    } else {
        "pmm-agent"
    };
    Ok(State {
        packages: packages(host.kind, &container)?,
        processes: processes(&container)?,
        version: text("agent_version")
            .split('-')
            .next()
            .unwrap_or_default()
            .to_owned(),
        connected: status["server_info"]["connected"].as_bool().unwrap_or(false),
        agent_id: crate::pmm::bare(&text("agent_id")),
        node_id: crate::pmm::bare(&text("runs_on_node_id")),
        exporters,
        config_mode: docker::exec(&container, &["stat", "-c", "%a %U:%G", &config_path])?
            .stdout
            .trim()
            .to_owned(),
        config: lines(&config),
        config_path,
        groups: docker::exec(&container, &["id", "-Gn", account])?
            .stdout
            .trim()
            .to_owned(),
        files: digest(&container)?,
    })
}

fn local_status(container: &str) -> Result<Value> {
    let text = docker::exec_must(
        container,
        &[
            "curl",
            "-s",
            "--max-time",
            "5",
            "http://127.0.0.1:7777/local/Status",
        ],
    )?;
    serde_json::from_str(&text).context("port 7777 answered no JSON")
}

fn packages(kind: Kind, container: &str) -> Result<BTreeMap<String, String>> {
    let done = match kind {
        Kind::Deb => docker::exec(
            container,
            &[
                "dpkg-query",
                "-W",
                "-f",
                "${db:Status-Abbrev}|${Package}|${Version}\n",
                "pmm2-client",
                "pmm-client",
            ],
        )?,
        Kind::Rpm => docker::exec(
            container,
            &[
                "rpm",
                "-qa",
                "--qf",
                "ii|%{NAME}|%{VERSION}-%{RELEASE}\n",
                "pmm2-client",
                "pmm-client",
            ],
        )?,
        Kind::TarDefault | Kind::TarCustom => return Ok(BTreeMap::new()),
    };
    let rows = done
        .stdout
        .lines()
        .filter_map(|line| line.trim().strip_prefix("ii"));
    Ok(rows
        .filter_map(|row| row.trim().strip_prefix('|')?.split_once('|'))
        .map(|(name, version)| (name.to_owned(), version.to_owned()))
        .collect())
}

fn processes(container: &str) -> Result<Vec<Process>> {
    let listed = docker::exec(container, &["pgrep", "-x", "pmm-agent"])?.stdout;
    let mut found = Vec::new();
    for pid in listed.split_whitespace() {
        let exe = docker::exec(container, &["readlink", &format!("/proc/{pid}/exe")])?
            .stdout
            .trim()
            .to_owned();
        let user = docker::exec(container, &["stat", "-c", "%U", &format!("/proc/{pid}")])?
            .stdout
            .trim()
            .to_owned();
        found.push(Process {
            exe,
            pid: pid.parse().unwrap_or(0),
            user,
        });
    }
    Ok(found)
}

fn lines(config: &str) -> BTreeMap<String, String> {
    let mut section = String::new();
    let mut found = BTreeMap::new();
    for line in config
        .lines()
        .filter(|line| !line.trim_start().starts_with('#') && line.contains(':'))
    {
        let (key, value) = line.split_once(':').unwrap_or((line, ""));
        if !key.starts_with(' ') {
            section = key.trim().to_owned();
        }
        let name = if key.starts_with(' ') {
            format!("{section}.{}", key.trim())
        } else {
            section.clone()
        };
        found.insert(name, value.trim().trim_matches('"').to_owned());
    }
    found
}

fn digest(container: &str) -> Result<String> {
    let places = [
        "/usr/local/percona",
        "/home/dba",
        "/etc/apt/sources.list.d",
        "/etc/yum.repos.d",
        "/etc/systemd/system",
        "/usr/sbin",
        "/usr/bin",
    ];
    let mut argv = vec!["find"];
    argv.extend(places);
    // The metrics buffer and the logs of the running client change by themselves.
    argv.extend([
        "-type",
        "f",
        "-not",
        "-path",
        "*/tmp/*",
        "-not",
        "-name",
        "*.log",
        "-not",
        "-name",
        "pmm-upgrade-agent",
        "-exec",
        "sha256sum",
        "{}",
        "+",
    ]);
    let mut rows: Vec<String> = docker::exec(container, &argv)?
        .stdout
        .lines()
        .map(str::to_owned)
        .collect();
    rows.sort();
    Ok(crate::images::text_hash(&rows.join("\n")))
}

/// Expectations on a host that the report calls upgraded.
pub fn upgraded(host: &Host, was: &State, now: &State, target: &str, findings: &mut Findings) {
    let name = host.name;
    findings.equal(
        &format!("{name}: client release on port 7777"),
        &now.version,
        &target.to_owned(),
    );
    findings.expect(
        now.connected,
        format!("{name}: the client says that it is not connected"),
    );
    findings.equal(&format!("{name}: agent id"), &now.agent_id, &was.agent_id);
    findings.equal(&format!("{name}: node id"), &now.node_id, &was.node_id);
    findings.equal(
        &format!("{name}: number of pmm-agent processes"),
        &now.processes.len(),
        &1,
    );
    for process in &now.processes {
        let base = if host.kind == Kind::TarCustom {
            host.kind.base_v2().to_owned()
        } else {
            base_of(&now.config_path)
        };
        findings.expect(
            process.exe.starts_with(&base),
            format!("{name}: {} does not run from {base}", process.exe),
        );
        findings.expect(
            !process.exe.contains("(deleted)"),
            format!("{name}: a deleted executable still runs"),
        );
        findings.expect(
            was.processes.iter().all(|old| old.pid != process.pid),
            format!("{name}: the process was not replaced"),
        );
        findings.equal(
            &format!("{name}: account of the process"),
            &Some(&process.user),
            &was.processes.first().map(|old| &old.user),
        );
    }
    if matches!(host.kind, Kind::Deb | Kind::Rpm) {
        let version = now.packages.get("pmm-client").cloned().unwrap_or_default();
        findings.expect(
            version.starts_with(target),
            format!("{name}: package pmm-client is `{version}`, expected {target}"),
        );
        findings.expect(
            !now.packages.contains_key("pmm2-client"),
            format!("{name}: pmm2-client is still installed"),
        );
    }
    let kinds = |state: &State| state.exporters.keys().cloned().collect::<Vec<_>>();
    findings.expect(
        kinds(was).iter().all(|kind| now.exporters.contains_key(kind)),
        format!("{name}: exporters {:?}, before {:?}", kinds(now), kinds(was)),
    );
    same_config(name, was, now, findings);
    findings.equal(
        &format!("{name}: groups of the account"),
        &sorted(&now.groups),
        &sorted(&was.groups),
    );
}

/// Expectations on a host that must be as it was.
pub fn unchanged(host: &Host, was: &State, now: &State, findings: &mut Findings) {
    let name = host.name;
    findings.equal(&format!("{name}: client release"), &now.version, &was.version);
    findings.equal(&format!("{name}: packages"), &now.packages, &was.packages);
    findings.equal(&format!("{name}: agent id"), &now.agent_id, &was.agent_id);
    findings.expect(
        now.connected,
        format!("{name}: the client says that it is not connected"),
    );
    findings.equal(&format!("{name}: configuration"), &now.config, &was.config);
    findings.equal(
        &format!("{name}: configuration's mode and owner"),
        &now.config_mode,
        &was.config_mode,
    );
    findings.equal(
        &format!("{name}: groups of the account"),
        &sorted(&now.groups),
        &sorted(&was.groups),
    );
    let programs = |state: &State| {
        let list = state
            .processes
            .iter()
            .map(|process| (process.exe.clone(), process.user.clone()));
        list.collect::<Vec<_>>()
    };
    findings.equal(
        &format!("{name}: pmm-agent processes and their accounts"),
        &programs(now),
        &programs(was),
    );
    findings.expect(
        was.exporters.keys().all(|kind| now.exporters.contains_key(kind)),
        format!(
            "{name}: exporters {:?}, before {:?}",
            now.exporters.keys(),
            was.exporters.keys()
        ),
    );
}

/// Expectations on a host after a disturbance: the package manager has nothing half done, and nothing of ours still runs beside the agent.
pub fn whole(host: &Host, findings: &mut Findings) {
    let (name, container) = (host.name, names::host(host.name));
    let mut silent = |what: &str, argv: &[&str]| {
        if let Some(done) = findings.take(name, docker::exec(&container, argv)) {
            findings.expect(
                done.all().trim().is_empty(),
                format!("{name}: {what}: {}", done.all().trim()),
            );
        }
    };
    match host.kind {
        Kind::Deb => {
            silent("dpkg has something half done", &["dpkg", "--audit"]);
            silent(
                "dpkg has updates that were not taken in",
                &["find", "/var/lib/dpkg/updates", "-type", "f"],
            );
            silent(
                "files of a broken unpacking are left",
                &[
                    "find",
                    "/usr/local/percona",
                    "-name",
                    "*.dpkg-new",
                    "-o",
                    "-name",
                    "*.dpkg-tmp",
                ],
            );
        }
        Kind::Rpm => {
            silent(
                "rpm has files of a broken transaction",
                &["find", "/usr/local/percona", "-name", "*;????????"],
            );
        }
        Kind::TarDefault | Kind::TarCustom => {}
    }
    silent(
        "a unit of ours is left",
        &[
            "systemctl",
            "list-units",
            "--no-legend",
            "--plain",
            "--state=active,activating,failed",
            "pmm-upgrade-[!a]*",
        ],
    );
}

/// How often the package manager installed the PMM 3 client, by its own log; `None` where there is no such log.
pub fn installations(host: &Host) -> Result<Option<usize>> {
    let container = names::host(host.name);
    Ok(match host.kind {
        Kind::Deb => {
            let log = docker::exec_must(&container, &["cat", "/var/log/dpkg.log"])?;
            Some(log.matches(" install pmm-client:").count())
        }
        Kind::Rpm => {
            let script = "cat /var/log/dnf.rpm.log /var/log/dnf.log 2>/dev/null || true";
            let log = docker::exec(&container, &["sh", "-c", script])?.stdout;
            let installed =
                |line: &&str| line.contains("SUBDEBUG") && line.contains("Installed: pmm-client-");
            Some(log.lines().filter(installed).count())
        }
        Kind::TarDefault | Kind::TarCustom => None,
    })
}

/// Expectations on a host that nobody may have touched: not one file changed and the same process runs.
pub fn untouched(host: &Host, was: &State, now: &State, findings: &mut Findings) {
    unchanged(host, was, now, findings);
    findings.equal(&format!("{}: files", host.name), &now.files, &was.files);
    findings.equal(
        &format!("{}: processes", host.name),
        &now.processes,
        &was.processes,
    );
}

fn same_config(name: &str, was: &State, now: &State, findings: &mut Findings) {
    for (key, value) in was.config.iter().filter(|(key, _)| !key.starts_with("paths")) {
        let seen = now.config.get(key).cloned().unwrap_or_default();
        let same = if key == "id" {
            crate::pmm::bare(&seen) == crate::pmm::bare(value)
        } else {
            seen == *value
        };
        // An address is no secret and tells what went wrong; everything else stays unsaid.
        let told = if key == "server.address" {
            format!(": `{seen}`, expected `{value}`")
        } else {
            String::new()
        };
        findings.expect(
            same,
            format!("{name}: `{key}` in the configuration is not as it should be{told}"),
        );
    }
    findings.equal(
        &format!("{name}: configuration's mode and owner"),
        &now.config_mode,
        &was.config_mode,
    );
}

fn base_of(config: &str) -> String {
    config.split("/config/").next().unwrap_or(config).to_owned()
}

fn sorted(groups: &str) -> Vec<String> {
    let mut names: Vec<String> = groups.split_whitespace().map(str::to_owned).collect();
    names.sort();
    names
}
