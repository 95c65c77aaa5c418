//! What an independent look says: package databases, `/proc`, port 7777, `docker inspect` and PMM's API, without any product code.

pub mod container;
pub mod host;
pub mod server;

use crate::fleet::{HOSTS, Host, Wishes};
use crate::report::{Findings, Report};
use crate::{build, output};
use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::PathBuf;

/// The fleet as it was before the migration.
#[derive(Serialize, Deserialize)]
pub struct Snapshot {
    /// Unix seconds.
    pub taken_at: u64,
    /// Hosts by name.
    pub hosts: BTreeMap<String, host::State>,
    /// The PMM Server's inventory and data.
    pub server: server::State,
    /// `docker inspect` of its container and of its image.
    pub container: container::State,
    /// Hosts whose client addresses the server's container itself: its address of PMM 3, inside the network.
    #[serde(default)]
    pub moves_to: BTreeMap<String, String>,
}

impl Snapshot {
    /// Looks at everything now.
    pub fn take(wishes: &Wishes) -> Result<Self> {
        let hosts = HOSTS
            .iter()
            .map(|host| Ok((host.name.to_owned(), host::look(host)?)))
            .collect::<Result<_>>()?;
        Ok(Self {
            taken_at: crate::pmm::now(),
            hosts,
            server: server::look()?,
            container: container::look()?,
            moves_to: wishes
                .direct
                .iter()
                .map(|(host, _)| ((*host).to_owned(), wishes.server_address(host, 3)))
                .collect(),
        })
    }

    /// A host as it was, but with the address of the server that its client must have once the server is PMM 3.
    pub fn host(&self, host: &Host) -> Option<host::State> {
        let mut state = self.hosts.get(host.name)?.clone();
        if let Some(address) = self.moves_to.get(host.name) {
            state.config.insert("server.address".to_owned(), address.clone());
        }
        Some(state)
    }

    /// Survey, preflight and plan only look: not one file of a host and nothing about the server's container is another one since.
    pub fn nothing_changed(&self) -> Result<()> {
        let mut findings = Findings::default();
        for host in &HOSTS {
            let now = findings.take(host.name, host::look(host));
            if let (Some(now), Some(was)) = (now, self.hosts.get(host.name)) {
                host::untouched(host, was, &now, &mut findings);
            }
        }
        if let Some(now) = findings.take("container", container::look()) {
            container::untouched(&self.container, &now, &mut findings);
        }
        findings.finish("survey, preflight or plan changed something")
    }

    /// Keeps the snapshot for `cargo lab verify`.
    pub fn save(&self) -> Result<()> {
        build::write_secret(&path()?, &serde_json::to_vec_pretty(self)?)
    }

    /// The snapshot of the last run.
    pub fn load() -> Result<Self> {
        let bytes = fs_err::read(path()?).context("no run to verify; first `cargo lab demo --keep`")?;
        Ok(serde_json::from_slice(&bytes)?)
    }
}

fn path() -> Result<PathBuf> {
    Ok(build::run_dir()?.join("before.json"))
}

/// Where the last run keeps its report.
pub fn report_path() -> Result<PathBuf> {
    Ok(build::run_dir()?.join("report.json"))
}

/// `cargo lab verify`: the fleet that `demo --keep` left, against the snapshot from before and against the product's report.
pub fn run() -> Result<()> {
    let (before, report) = (Snapshot::load()?, Report::read(&report_path()?)?);
    let mut findings = Findings::default();
    let target = report.text("/server/to");
    for host in &HOSTS {
        let row = findings
            .take(host.name, report.host(host.name))
            .unwrap_or_default();
        let wanted = row["to"].as_str().unwrap_or_default().to_owned();
        let state = findings.take(host.name, host::look(host));
        let (Some(now), Some(was)) = (state, before.host(host)) else {
            continue;
        };
        if row["outcome"] == "upgraded" {
            host::upgraded(host, &was, &now, &wanted, &mut findings);
        } else {
            host::unchanged(host, &was, &now, &mut findings);
        }
    }
    server::compare(&before.server, before.taken_at, &target, &mut findings);
    if let Some(now) = findings.take("container", container::look()) {
        container::compare(&before.container, &now, container::Hop::ToPmm3, &mut findings);
    }
    let counts = ["clients", "services"].map(|key| report.number(&format!("/verification/{key}_checked")));
    let seen = [
        before.server.clients.len() as u64,
        before.server.services.len() as u64,
    ];
    findings.equal("clients and services in the report", &counts, &seen);
    findings.finish("the fleet disagrees")?;
    output::line(
        "verify: package databases, processes, client status, configuration, container, inventory, samples and history agree with the report",
    );
    Ok(())
}
