//! The trap of clients that address the PMM Server's container itself: its inner port moves with PMM 3.

use super::ground::{self, NETWORK};
use super::host::{Host, Kind, sprung};
use super::server::Server;
use crate::wait;
use crate::{docker, images, names};
use anyhow::{Context, Result};

const CONFIG: &str = "/usr/local/percona/pmm2/config/pmm-agent.yaml";

/// A server on a volume of its own; both go with the value.
struct OnVolume(String);

impl OnVolume {
    fn new(what: &str) -> Result<Self> {
        let this = Self(format!("{}-{what}-pmm", names::TEETH));
        this.remove();
        docker::docker(["volume", "create", &this.0])?;
        Ok(this)
    }

    /// As the guide has it: the same name, network and volume, another image.
    fn start(&self, release: &str) -> Result<Server> {
        let ground = ground::ground()?;
        Server::run(
            &self.0,
            release,
            &["--volume", &format!("{}:/srv", self.0)],
            &ground.programs,
        )
    }

    fn stop(&self) -> Result<()> {
        docker::docker(["stop", "--time", "60", &self.0])?;
        docker::docker(["rm", &self.0]).map(drop)
    }

    fn remove(&self) {
        drop(docker::attempt(&["rm", "--force", "--volumes", &self.0]));
        drop(docker::attempt(&["volume", "rm", "--force", &self.0]));
    }
}

impl Drop for OnVolume {
    fn drop(&mut self) {
        self.remove();
    }
}

/// PMM 3 is ready, has the client in its inventory, and never hears of it again; the port in the client's configuration was all there was to it.
pub fn goes_blind() -> Result<()> {
    let ground = ground::ground()?;
    let pmm = OnVolume::new("direct")?;
    let two = pmm.start("2.44.1")?;
    let host = Host::alone("direct-address", Kind::Deb)?;
    host.must(&format!(
        "/opt/lab/connect-client https://admin:admin@{}:443 direct-address",
        pmm.0
    ))?;
    host.status_until("the client to be connected", 30, |status| {
        status["server_info"]["connected"] == true
    })?;
    let node = two.node("direct-address")?.context("the registered node")?;
    pmm.stop()?;
    let image = images::servers(&ground.programs)?
        .into_iter()
        .zip(images::SERVER_RELEASES)
        .find(|(_, release)| *release == "3.7.1")
        .context("an image")?
        .0;
    let mount = format!("{}:/srv", pmm.0);
    docker::docker([
        "run",
        "--rm",
        "--user",
        "0:0",
        "--network",
        NETWORK,
        "--volume",
        &mount,
        "--entrypoint",
        "chown",
        &image,
        "-R",
        "1000:0",
        "/srv",
    ])?;
    let three = pmm.start("3.7.1")?;
    let now = three.node("direct-address")?.context("the migrated node")?;
    sprung("the client is in PMM 3's inventory", node.ends_with(&now), &now)?;
    let agent = three.client(&now)?;
    // Not even a restart helps.
    host.must("systemctl restart pmm-agent")?;
    let own_log = "journalctl -q --no-pager -o cat _SYSTEMD_INVOCATION_ID=$(systemctl show -p InvocationID --value pmm-agent)";
    host.until(
        "the client to be refused at its old port, with PMM 3 ready",
        40,
        &format!("{own_log} | grep -q 'connection to {}:443: .*refused'", pmm.0),
    )?;
    sprung(
        "the client is blind",
        !three.connected(&agent)? && host.status()?["server_info"]["connected"] != true,
        &host.status()?.to_string(),
    )?;
    // What Percona's own migration job does with sed (facts client 3).
    host.must(&format!(
        "sed -i 's#{0}:443#{0}:8443#' {CONFIG} && systemctl restart pmm-agent",
        pmm.0
    ))?;
    wait::until("the moved client to be connected", 40, || {
        wait::check(three.connected(&agent)?, host.status()?.to_string())
    })
}
