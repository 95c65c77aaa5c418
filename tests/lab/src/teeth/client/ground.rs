//! What the cases share while the suite runs: the package site, a network, and one stand-in PMM Server of each major.

use super::server::Server;
use crate::images::{HostImages, Images};
use crate::{build, docker, images, lock, names, output, site};
use anyhow::{Context, Result};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

/// Network of the cases.
pub const NETWORK: &str = "fleetlab-teeth-net";
const SUBNET: &str = "172.31.79.0/24";
const REPO: &str = "fleetlab-teeth-repo";

/// The shared ground; removed by [`clear`].
pub struct Ground {
    /// Images of the plain hosts.
    pub hosts: HostImages,
    /// Image of the package site.
    pub tools: Images,
    /// What the package site serves.
    pub www: PathBuf,
    /// Address of the package site.
    pub repo_ip: String,
    /// The stand-in server's program, for its images.
    pub programs: build::Programs,
    two: OnceLock<Server>,
    three: OnceLock<Server>,
    making: Mutex<()>,
    // Released last: two runs would share names.
    _lock: fs_err::File,
}

static GROUND: Mutex<Option<Arc<Ground>>> = Mutex::new(None);

/// The ground, made by the first case that needs it.
pub fn ground() -> Result<Arc<Ground>> {
    let mut slot = GROUND.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(ground) = slot.as_ref() {
        return Ok(Arc::clone(ground));
    }
    let ground = Arc::new(make()?);
    *slot = Some(Arc::clone(&ground));
    Ok(ground)
}

/// Removes what the cases shared.
pub fn clear() {
    drop(GROUND.lock().unwrap_or_else(PoisonError::into_inner).take());
}

fn make() -> Result<Ground> {
    let lock = lock::hold("teeth-client")?;
    let programs = build::standins()?;
    let tools = images::tools(&programs)?;
    let site = site::build(&tools, &programs)?;
    let hosts = images::hosts()?;
    output::step("starting the package site of the teeth");
    sweep();
    docker::docker(["network", "create", "--subnet", SUBNET, NETWORK])?;
    let volume = format!("{}:/srv/www:ro", site.www.display());
    docker::docker([
        "run",
        "--detach",
        "--name",
        REPO,
        "--network",
        NETWORK,
        "--volume",
        &volume,
        &tools.repo,
    ])?;
    let repo_ip = address(REPO)?;
    Ok(Ground {
        hosts,
        tools,
        www: site.www,
        repo_ip,
        programs,
        two: OnceLock::new(),
        three: OnceLock::new(),
        making: Mutex::new(()),
        _lock: lock,
    })
}

/// Leftovers of a run that was killed, and everything at the end.
fn sweep() {
    for name in [REPO, "fleetlab-teeth-pmm2", "fleetlab-teeth-pmm3"] {
        drop(docker::attempt(&["rm", "--force", "--volumes", name]));
    }
    drop(docker::attempt(&["network", "rm", NETWORK]));
}

impl Ground {
    /// The PMM Server of release 2.44.1 that the cases share. Each case registers nodes with names of its own.
    pub fn pmm2(&self) -> Result<&Server> {
        self.shared(&self.two, "pmm2", "2.44.1")
    }

    /// The PMM Server of release 3.9.1 that the cases share.
    pub fn pmm3(&self) -> Result<&Server> {
        self.shared(&self.three, "pmm3", "3.9.1")
    }

    fn shared<'a>(&self, slot: &'a OnceLock<Server>, name: &str, release: &str) -> Result<&'a Server> {
        let _making = self.making.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(server) = slot.get() {
            return Ok(server);
        }
        let server = Server::start(&format!("{}-{name}", names::TEETH), release, &self.programs)?;
        Ok(slot.get_or_init(|| server))
    }
}

impl Drop for Ground {
    fn drop(&mut self) {
        sweep();
    }
}

/// Address of a container on the cases' network.
pub fn address(container: &str) -> Result<String> {
    let inspect = docker::inspect("container", container)?.context("a container that was just started")?;
    let address = inspect["NetworkSettings"]["Networks"][NETWORK]["IPAddress"]
        .as_str()
        .unwrap_or_default();
    anyhow::ensure!(!address.is_empty(), "{container} has no address on {NETWORK}");
    Ok(address.to_owned())
}
