//! A stand-in PMM Server for the cases, read through its own API with the image's curl.

use super::ground::{self, NETWORK};
use crate::build::Programs;
use crate::wait::{self, Probe};
use crate::{cmd, docker, images};
use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

/// One PMM Server container.
pub struct Server {
    name: String,
    /// Whether it is PMM 3.
    pub v3: bool,
    /// Its address on the cases' network.
    pub ip: String,
}

impl Server {
    /// Starts one on an empty volume and waits until it is ready.
    pub fn start(name: &str, release: &str, programs: &Programs) -> Result<Self> {
        Self::run(name, release, &[], programs)
    }

    /// The same with more arguments for `docker run`.
    pub fn run(name: &str, release: &str, more: &[&str], programs: &Programs) -> Result<Self> {
        let images = images::servers(programs)?;
        let at = images::SERVER_RELEASES
            .iter()
            .position(|known| *known == release)
            .context("a release that the lab builds")?;
        let mut args = vec!["run", "--detach", "--name", name, "--network", NETWORK];
        args.extend(more);
        args.push(&images[at]);
        cmd::must("docker", args)?;
        let server = Self {
            name: name.to_owned(),
            v3: !release.starts_with("2."),
            ip: ground::address(name)?,
        };
        wait::until("the stand-in PMM Server to be ready", 120, || {
            let (code, answer) = server.call("GET", "/v1/readyz", None)?;
            Ok(if code == 200 {
                Probe::Ready(())
            } else {
                Probe::NotYet(format!("{code} {answer}"))
            })
        })?;
        Ok(server)
    }

    /// The HTTPS port inside the network: it is another one in PMM 3.
    pub fn port(&self) -> u16 {
        if self.v3 { 8443 } else { 443 }
    }

    /// Status and answer of a call as administrator.
    pub fn call(&self, method: &str, path: &str, body: Option<&Value>) -> Result<(u16, Value)> {
        let url = format!("https://127.0.0.1:{}{path}", self.port());
        let text = body.map(ToString::to_string);
        let mut argv = vec![
            "curl",
            "-sk",
            "--max-time",
            "20",
            "-u",
            "admin:admin",
            "-X",
            method,
            "-w",
            "\n%{http_code}",
            &url,
        ];
        if let Some(text) = &text {
            argv.extend(["-H", "Content-Type: application/json", "-d", text]);
        }
        let done = docker::exec(&self.name, &argv)?;
        let (answer, code) = done
            .stdout
            .trim_end()
            .rsplit_once('\n')
            .unwrap_or(("", done.stdout.trim()));
        Ok((
            code.parse().unwrap_or(0),
            serde_json::from_str(answer).unwrap_or_default(),
        ))
    }

    fn must(&self, method: &str, path: &str, body: Option<&Value>) -> Result<Value> {
        let (code, answer) = self.call(method, path, body)?;
        if code != 200 {
            bail!("{method} {path} answered {code}: {answer}");
        }
        Ok(answer)
    }

    /// All entries of an inventory list, whatever their kind.
    fn list(&self, what: &str) -> Result<Vec<Value>> {
        let answer = if self.v3 {
            self.must(
                "GET",
                &format!("/v1/inventory/{}", what.to_ascii_lowercase()),
                None,
            )?
        } else {
            self.must("POST", &format!("/v1/inventory/{what}/List"), Some(&json!({})))?
        };
        Ok(answer
            .as_object()
            .into_iter()
            .flatten()
            .flat_map(|(_, list)| list.as_array().cloned().unwrap_or_default())
            .collect())
    }

    /// Id of a node by its name.
    pub fn node(&self, name: &str) -> Result<Option<String>> {
        let nodes = self.list("Nodes")?;
        Ok(nodes
            .iter()
            .find(|node| node["node_name"] == name)
            .and_then(|node| node["node_id"].as_str())
            .map(str::to_owned))
    }

    /// Names of the services of a node, in order.
    pub fn services(&self, node: &str) -> Result<Vec<String>> {
        let services = self.list("Services")?;
        let own = services.iter().filter(|service| service["node_id"] == node);
        let mut names: Vec<String> = own
            .filter_map(|service| service["service_name"].as_str())
            .map(str::to_owned)
            .collect();
        names.sort();
        Ok(names)
    }

    /// Id of a service by its name.
    pub fn service(&self, name: &str) -> Result<String> {
        let services = self.list("Services")?;
        let found = services.iter().find(|service| service["service_name"] == name);
        Ok(found
            .and_then(|service| service["service_id"].as_str())
            .context("the service")?
            .to_owned())
    }

    /// Id of a client by its node's id.
    pub fn client(&self, node: &str) -> Result<String> {
        let agents = self.list("Agents")?;
        let own = agents.iter().find(|agent| agent["runs_on_node_id"] == node);
        Ok(own
            .and_then(|agent| agent["agent_id"].as_str())
            .context("a client of the node")?
            .to_owned())
    }

    /// Whether the server calls a client connected.
    pub fn connected(&self, agent: &str) -> Result<bool> {
        Ok(self
            .list("Agents")?
            .iter()
            .any(|row| row["agent_id"] == agent && row["connected"] == true))
    }

    /// Registers a node by the API, as a client of this major would; returns node and client ids.
    pub fn register(&self, node: &str) -> Result<(String, String)> {
        let (path, kind) = if self.v3 {
            ("/v1/management/nodes", "NODE_TYPE_GENERIC_NODE")
        } else {
            ("/v1/management/Node/Register", "GENERIC_NODE")
        };
        let body =
            json!({"node_name": node, "node_type": kind, "address": "127.0.0.1", "metrics_mode": "AUTO"});
        let answer = self.must("POST", path, Some(&body))?;
        let agent = &answer["pmm_agent"];
        let text = |key: &str| {
            agent[key]
                .as_str()
                .map(str::to_owned)
                .context("ids in the answer of a registration")
        };
        Ok((text("runs_on_node_id")?, text("agent_id")?))
    }

    /// Adds a MySQL service to a client by the API.
    pub fn add_mysql(&self, node: &str, agent: &str, name: &str) -> Result<()> {
        let body = json!({
            "node_id": node, "pmm_agent_id": agent, "service_name": name, "address": "127.0.0.1", "port": 3306,
            "username": "pmm", "password": "pmm", "qan_mysql_slowlog": true, "skip_connection_check": true,
        });
        if self.v3 {
            self.must("POST", "/v1/management/services", Some(&json!({"mysql": body})))
                .map(drop)
        } else {
            self.must("POST", "/v1/management/MySQL/Add", Some(&body))
                .map(drop)
        }
    }
}
