//! Traps of the client's container image, run as its manual says.

use super::ground::{self, Ground, NETWORK};
use super::host::sprung;
use super::server::Server;
use crate::wait::{self, Probe};
use crate::{docker, images, names};
use anyhow::{Context, Result};
use serde_json::Value;

/// The image of a client release, made from the site's tarball.
fn image(ground: &Ground, release: &str) -> Result<String> {
    let (name, major, tree) = if release.starts_with("2.") {
        (format!("pmm2-client-{release}"), "pmm2", "pmm2")
    } else {
        (format!("pmm-client-{release}"), "pmm3", "pmm")
    };
    let tarball = ground.www.join(format!(
        "downloads/{major}/{release}/binary/tarball/{name}-x86_64.tar.gz"
    ));
    let base = images::base()?;
    let args = [("BASE", base.as_str()), ("NAME", name.as_str()), ("TREE", tree)];
    images::build(
        &format!("client-container-{release}"),
        &images::images_dir().join("client-container"),
        &[&tarball],
        &args,
    )
}

/// A client container; removed when the value is dropped.
struct Client {
    name: String,
    arguments: Vec<String>,
}

impl Client {
    /// A client after the manual: set up at every start, buffers on a volume, the configuration in the container.
    fn new(
        ground: &Ground,
        case: &str,
        release: &str,
        server: &Server,
        port: u16,
        more: &[&str],
    ) -> Result<Self> {
        let name = format!("{}-{case}", names::TEETH);
        let tmp = if release.starts_with("2.") {
            "/srv"
        } else {
            "/usr/local/percona/pmm/tmp"
        };
        let mut arguments: Vec<String> = [
            "run",
            "--detach",
            "--name",
            &name,
            "--hostname",
            case,
            "--network",
            NETWORK,
        ]
        .map(str::to_owned)
        .to_vec();
        arguments.extend([
            "--add-host".to_owned(),
            format!("pmm.lab:{}", server.ip),
            "--volume".to_owned(),
            format!("{name}-data:{tmp}"),
        ]);
        let variables = [
            "PMM_AGENT_CONFIG_FILE=config/pmm-agent.yaml",
            &format!("PMM_AGENT_SERVER_ADDRESS=pmm.lab:{port}"),
            "PMM_AGENT_SERVER_USERNAME=admin",
            "PMM_AGENT_SERVER_PASSWORD=admin",
            "PMM_AGENT_SERVER_INSECURE_TLS=1",
            "PMM_AGENT_SETUP=1",
            &format!("PMM_AGENT_SETUP_NODE_NAME={case}"),
            "PMM_AGENT_SETUP_NODE_TYPE=container",
        ];
        // A later setting of a name wins.
        for variable in variables.iter().chain(more) {
            arguments.extend(["--env".to_owned(), (*variable).to_owned()]);
        }
        arguments.push(image(ground, release)?);
        let client = Self { name, arguments };
        client.remove();
        Ok(client)
    }

    fn run(&self) -> Result<()> {
        docker::docker_list(&self.arguments).map(drop)
    }

    /// Removes the container; its volume stays.
    fn remove(&self) {
        drop(docker::attempt(&["rm", "--force", "--volumes", &self.name]));
    }

    fn logs(&self) -> Result<String> {
        Ok(docker::attempt(&["logs", "--tail", "40", &self.name])?.all())
    }

    fn connected(&self) -> Result<Value> {
        wait::until("the client container to be connected", 30, || {
            let done = docker::exec(&self.name, &["pmm-admin", "status", "--json"])?;
            let status: Value = serde_json::from_str(&done.stdout).unwrap_or_default();
            let status = status["pmm_agent_status"].clone();
            if status["connected"] == true {
                Ok(Probe::Ready(status))
            } else {
                Ok(Probe::NotYet(format!("{}{}", done.all(), self.logs()?)))
            }
        })
    }

    /// Waits until the container has ended, and checks that it said certain words.
    fn ends(&self, trap: &str, words: &str) -> Result<()> {
        let code = wait::until(&format!("the container to end ({trap})"), 30, || {
            let state =
                docker::inspect("container", &self.name)?.context("the client container")?["State"].clone();
            let code = state["ExitCode"].as_i64().unwrap_or(0);
            if state["Running"] == false {
                Ok(Probe::Ready(code))
            } else {
                Ok(Probe::NotYet(self.logs()?))
            }
        })?;
        let logs = self.logs()?;
        sprung(
            trap,
            code == 1 && logs.contains(words),
            &format!("exit code {code}: {logs}"),
        )
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        self.remove();
        drop(docker::attempt(&[
            "volume",
            "rm",
            "--force",
            &format!("{}-data", self.name),
        ]));
    }
}

pub fn setup_at_every_start() -> Result<()> {
    let ground = ground::ground()?;
    let server = ground.pmm2()?;
    let client = Client::new(&ground, "container-setup", "2.41.2", server, 443, &[])?;
    client.run()?;
    client.connected()?;
    docker::docker(["restart", "--time", "5", &client.name])?;
    client.ends("a restart runs setup again and conflicts", "already exists")
}

pub fn recreated_loses_identity() -> Result<()> {
    let ground = ground::ground()?;
    let server = ground.pmm2()?;
    let client = Client::new(&ground, "container-recreate", "2.41.2", server, 443, &[])?;
    client.run()?;
    let before = client.connected()?;
    client.remove();
    let mut again = Client::new(
        &ground,
        "container-recreate",
        "2.41.2",
        server,
        443,
        &["PMM_AGENT_SETUP=0"],
    )?;
    again.run()?;
    let answer = wait::until("the re-created client to answer", 20, || {
        let done = docker::exec(&again.name, &["pmm-admin", "status", "--json"])?;
        Ok(if done.all().contains("set up") {
            Probe::Ready(done)
        } else {
            Probe::NotYet(done.all())
        })
    })?;
    sprung(
        "the identity was in the container's layer and is gone",
        !answer.ok(),
        &answer.all(),
    )?;
    again.remove();
    again.arguments = Client::new(
        &ground,
        "container-recreate",
        "2.41.2",
        server,
        443,
        &["PMM_AGENT_SETUP_FORCE=1"],
    )?
    .arguments
    .clone();
    again.run()?;
    let after = again.connected()?;
    let other = after["agent_id"] != before["agent_id"] && after["node_id"] != before["node_id"];
    sprung("it comes back as another client", other, &after.to_string())
}

pub fn force_deletes_services() -> Result<()> {
    let ground = ground::ground()?;
    let server = ground.pmm3()?;
    // The manual of 3.x pairs the two.
    let client = Client::new(
        &ground,
        "container-force",
        "3.9.1",
        server,
        8443,
        &["PMM_AGENT_SETUP_FORCE=1"],
    )?;
    client.run()?;
    client.connected()?;
    let node = server.node("container-force")?.context("the container's node")?;
    server.add_mysql(&node, &server.client(&node)?, "mysql-in-container")?;
    sprung(
        "there is a service",
        server.services(&node)? == ["mysql-in-container"],
        "another list",
    )?;
    docker::docker(["restart", "--time", "5", &client.name])?;
    let now = wait::until("the restarted container to register anew", 30, || {
        let now = server.node("container-force")?.unwrap_or_default();
        Ok(if now != node && !now.is_empty() {
            Probe::Ready(now)
        } else {
            Probe::NotYet("the same node".to_owned())
        })
    })?;
    client.connected()?;
    let left = [server.services(&node)?, server.services(&now)?].concat();
    sprung(
        "a mere restart has deleted its services",
        left.is_empty(),
        &left.join(", "),
    )
}

pub fn old_path_in_new_image() -> Result<()> {
    let ground = ground::ground()?;
    let server = ground.pmm3()?;
    let path = "PMM_AGENT_CONFIG_FILE=/usr/local/percona/pmm2/config/pmm-agent.yaml";
    let client = Client::new(&ground, "container-old-path", "3.9.1", server, 8443, &[path])?;
    client.run()?;
    client.ends(
        "the path of 2.x does not exist in the image of 3.x",
        "/usr/local/percona/pmm2/config/pmm-agent.yaml",
    )
}

pub fn old_port_in_network() -> Result<()> {
    let ground = ground::ground()?;
    let server = ground.pmm3()?;
    let client = Client::new(&ground, "container-old-port", "3.9.1", server, 443, &[])?;
    client.run()?;
    client.ends(
        "inside the network PMM 3 does not listen on 443",
        "Failed to register",
    )?;
    let moved = Client::new(&ground, "container-old-port", "3.9.1", server, 8443, &[])?;
    moved.run()?;
    moved.connected().map(drop)
}

pub fn takes_no_arguments() -> Result<()> {
    let ground = ground::ground()?;
    let server = ground.pmm3()?;
    let mut client = Client::new(&ground, "container-arguments", "3.9.1", server, 8443, &[])?;
    client.arguments.push("setup".to_owned());
    client.run()?;
    client.ends("the entrypoint takes no arguments", "no arguments")
}
