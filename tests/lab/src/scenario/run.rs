//! The road of every scenario: fleet up, coordinator up, agents enrolled, the snapshot, survey and plan, which may change nothing; then start,
//! watch, report.

use crate::fleet::{self, FileOptions, HOSTS, Host, Wishes};
use crate::product::{Coordinator, EventLog};
use crate::proxy::Proxy;
use crate::report::Report;
use crate::verify::Snapshot;
use crate::wait::{self, Probe};
use crate::{backups, build, hosts, output, pmm, verify};
use anyhow::{Context, Result, bail};
use serde_json::Value;
use std::path::{Path, PathBuf};

/// Everything that a scenario drives.
pub struct Road {
    /// The coordinator.
    pub coordinator: Coordinator,
    /// The lab's proxy on the Docker socket, which the coordinator uses.
    pub proxy: Proxy,
    /// What survey, preflight and plan said.
    pub foretold: String,
    /// Docker's own account of what was created.
    _events: EventLog,
}

/// The coordinator's data directory.
pub fn data_dir() -> Result<PathBuf> {
    Ok(build::run_dir()?.join("coordinator"))
}

/// The fleet file.
pub fn fleet_path() -> Result<PathBuf> {
    Ok(build::run_dir()?.join("fleet.toml"))
}

/// How the server gets to the target.
#[derive(Clone, Copy, Default)]
pub struct Way {
    /// Over a release that still takes PMM 2 clients.
    pub bridge: Option<&'static str>,
    /// PMM 2 reaches its last release by its own update.
    pub by_api: bool,
}

impl Road {
    /// Up to and including the plan.
    pub fn prepare(wishes: &Wishes, way: Way) -> Result<Self> {
        hosts::down()?;
        let programs = build::programs()?;
        let fleet = hosts::up(&programs, "2.41.2", wishes)?;
        let state = build::run_dir()?;
        let proxy = Proxy::start(&state.join("docker.sock"))?;
        let mut coordinator = Coordinator::init(&programs, &data_dir()?)?;
        coordinator.serve()?;
        let in_time: Vec<&Host> = HOSTS
            .iter()
            .filter(|host| wishes.late != Some(host.name))
            .collect();
        join(&coordinator, &in_time)?;
        let credential_file = state.join("pmm-admin");
        build::write_secret(
            &credential_file,
            format!("{}:{}\n", pmm::ADMIN, pmm::PASSWORD).as_bytes(),
        )?;
        let file = fleet::fleet_file(&FileOptions {
            docker_socket: proxy.socket.display().to_string(),
            fingerprint: pmm::fingerprint()?,
            credential_file: credential_file.display().to_string(),
            target: "3.9.1",
            bridge: way.bridge,
            pmm2_update: if way.by_api { "api" } else { "image" },
            failure_threshold: 1,
            tarballs: fleet.tarballs.clone(),
            timing: wishes.timing,
        });
        let path = fleet_path()?;
        fs_err::write(&path, file)?;
        let path = path.display().to_string();
        if wishes.backup.is_some() {
            backups::start(backups::host(wishes.backup)?)?;
        }
        let before = Snapshot::take(wishes)?;
        before.save()?;
        let mut foretold = String::new();
        for args in [
            vec!["survey", "-f", &path],
            vec!["server", "preflight", "-f", &path],
            vec!["plan", "-f", &path],
        ] {
            let done = coordinator.show(&args)?;
            foretold.push_str(&done.all());
            if !done.ok() {
                bail!(
                    "`pmm-coordinator {}` ended with {}; its log: {}",
                    args.join(" "),
                    done.code,
                    coordinator.log().display()
                );
            }
        }
        before.nothing_changed()?;
        Ok(Self {
            coordinator,
            proxy,
            foretold,
            _events: EventLog::start()?,
        })
    }

    /// `start`, then `watch` on this terminal until the rollout ends or pauses; returns the exit status of `watch`.
    pub fn start_and_watch(&mut self) -> Result<i32> {
        self.start()?;
        self.watch()
    }

    /// `start`.
    pub fn start(&mut self) -> Result<()> {
        let done = self.coordinator.show(&["start"])?;
        if !done.ok() {
            bail!("`pmm-coordinator start` ended with {}", done.code)
        }
        Ok(())
    }

    /// `watch` until the rollout ends or pauses.
    pub fn watch(&mut self) -> Result<i32> {
        let mut watching = self.coordinator.spawn_shown(&["watch"])?;
        let end = std::time::Instant::now() + std::time::Duration::from_secs(1500);
        loop {
            if let Some(status) = watching.try_wait()? {
                return status.code().context("`watch` was killed by a signal");
            }
            if std::time::Instant::now() > end {
                watching.kill()?;
                bail!(
                    "the rollout did not end within 25 minutes; log: {}",
                    self.coordinator.log().display()
                );
            }
            wait::pause(std::time::Duration::from_millis(200));
        }
    }

    /// Waits for a condition on the status document; a rollout that comes to rest before has missed it.
    pub fn until(&self, what: &str, seconds: u64, mut holds: impl FnMut(&Value) -> bool) -> Result<()> {
        wait::until(what, seconds, || {
            let status = self.coordinator.json(&["status"])?;
            if holds(&status) {
                return Ok(Probe::Ready(()));
            }
            if status["at_rest"] == true {
                bail!("the rollout came to rest before {what}: {}", short(&status));
            }
            Ok(Probe::NotYet(short(&status)))
        })
    }

    /// `report`, shown as text and kept as JSON.
    pub fn report(&mut self, to: Option<&Path>) -> Result<Report> {
        self.coordinator.show(&["report"])?;
        let done = self.coordinator.run(&["report", "--json"])?;
        let value: Value = serde_json::from_str(&done.stdout)
            .with_context(|| format!("the report is no JSON: {}", done.all()))?;
        let text = serde_json::to_vec_pretty(&value)?;
        fs_err::write(verify::report_path()?, &text)?;
        if let Some(path) = to {
            fs_err::write(path, &text)?;
        }
        Ok(Report(value))
    }
}

fn short(status: &Value) -> String {
    status.to_string().chars().take(600).collect()
}

/// Lets the agents of these hosts enrol, and waits until each is connected with its inventory.
pub fn join(coordinator: &Coordinator, hosts: &[&'static Host]) -> Result<()> {
    output::step("enrolling the agents");
    let uses = hosts.len().to_string();
    let token = coordinator.json(&["token", "create", "--uses", &uses, "--ttl", "1h"])?;
    let token = token["token"]
        .as_str()
        .context("`token create --json` printed no token")?
        .to_owned();
    for host in hosts {
        hosts::enrol(host, &token)?;
    }
    wait::until("the agents to be connected with their inventory", 60, || {
        let list = coordinator.json(&["host", "list"])?;
        let rows = list["hosts"].as_array().cloned().unwrap_or_default();
        let there = |host: &&Host| {
            rows.iter().any(|row| {
                row["name"] == host.name
                    && row["connected"] == true
                    && row["client_version"]
                        .as_str()
                        .is_some_and(|text| !text.is_empty())
            })
        };
        Ok(if hosts.iter().copied().all(|host| there(&host)) {
            Probe::Ready(())
        } else {
            Probe::NotYet(list.to_string())
        })
    })
}
