//! A host container of one case, and the small questions that cases ask it.

use super::ground::{self, NETWORK};
use super::prepare;
use crate::cmd::{self, Done};
use crate::wait::{self, Probe};
use crate::{docker, hosts, names};
use anyhow::{Result, bail};
use serde_json::Value;

/// What is installed on a host when a case begins. The client is 2.41.2, configured and running.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `pmm2-client` from apt.
    Deb,
    /// `pmm2-client` from dnf.
    Rpm,
    /// Tarball in the default directory, with the administrator's own unit.
    Tar,
}

/// A running host; removed when the value is dropped.
pub struct Host {
    container: String,
}

impl Host {
    /// A host whose client finds no PMM Server.
    pub fn alone(case: &str, kind: Kind) -> Result<Self> {
        Self::start(case, kind, "127.0.0.1")
    }

    /// A host that finds a PMM Server under `pmm.lab`.
    pub fn start(case: &str, kind: Kind, pmm: &str) -> Result<Self> {
        let image = prepare::image(kind)?;
        let host = Self {
            container: format!("{}-{case}", names::TEETH),
        };
        boot(&host.container, case, &image, pmm)?;
        prepare::install(&host.container, kind)?;
        Ok(host)
    }

    /// Name of its container.
    pub fn container(&self) -> &str {
        &self.container
    }

    /// Runs a line of shell, as an administrator types it.
    pub fn sh(&self, script: &str) -> Result<Done> {
        docker::exec_as(
            &self.container,
            "0",
            &["DEBIAN_FRONTEND=noninteractive", "LC_ALL=C"],
            &["sh", "-c", script],
            None,
        )
    }

    /// The same, and it must end with 0.
    pub fn must(&self, script: &str) -> Result<String> {
        let done = self.sh(script)?;
        if !done.ok() {
            bail!(
                "`{script}` ended with {}:\n{}",
                done.code,
                cmd::tail(&done.all(), 30)
            );
        }
        Ok(done.stdout.trim_end().to_owned())
    }

    /// Starts a line of shell that goes on in the background.
    pub fn background(&self, script: &str) -> Result<()> {
        docker::docker([
            "exec",
            "--detach",
            "--env",
            "DEBIAN_FRONTEND=noninteractive",
            &self.container,
            "sh",
            "-c",
            script,
        ])
        .map(drop)
    }

    /// The trap: a line ends with 0.
    pub fn holds(&self, trap: &str, script: &str) -> Result<()> {
        let done = self.sh(script)?;
        sprung(
            trap,
            done.ok(),
            &format!(
                "`{script}` ended with {}: {}",
                done.code,
                cmd::tail(&done.all(), 12)
            ),
        )
    }

    /// The trap: a line fails, and says so with certain words.
    pub fn fails(&self, trap: &str, script: &str, words: &str) -> Result<()> {
        let done = self.sh(script)?;
        let seen = format!(
            "`{script}` ended with {}: {}",
            done.code,
            cmd::tail(&done.all(), 12)
        );
        sprung(trap, !done.ok() && done.all().contains(words), &seen)
    }

    /// The trap: a line prints exactly this.
    pub fn prints(&self, trap: &str, script: &str, text: &str) -> Result<()> {
        let done = self.sh(script)?;
        sprung(
            trap,
            done.stdout.trim() == text,
            &format!(
                "`{script}` printed {:?} {}",
                done.stdout.trim(),
                cmd::tail(&done.stderr, 5)
            ),
        )
    }

    /// Waits until a line ends with 0; returns what it printed.
    pub fn until(&self, what: &str, seconds: u64, script: &str) -> Result<String> {
        wait::until(what, seconds, || {
            let done = self.sh(script)?;
            Ok(if done.ok() {
                Probe::Ready(done.stdout.trim().to_owned())
            } else {
                Probe::NotYet(cmd::tail(&done.all(), 8))
            })
        })
    }

    /// What the local agent says of itself; null when nobody answers.
    pub fn status(&self) -> Result<Value> {
        let done = self.sh("curl -s --max-time 3 http://127.0.0.1:7777/local/Status")?;
        Ok(serde_json::from_str(&done.stdout).unwrap_or_default())
    }

    /// Waits until the local agent says something; fails with what it said last.
    pub fn status_until(&self, what: &str, seconds: u64, holds: impl Fn(&Value) -> bool) -> Result<Value> {
        wait::until(what, seconds, || {
            let status = self.status()?;
            Ok(if holds(&status) {
                Probe::Ready(status)
            } else {
                Probe::NotYet(status.to_string())
            })
        })
    }

    /// Registers the client as its administrator once did.
    pub fn connect(&self, port: u16, node: &str) -> Result<Value> {
        self.must(&format!(
            "/opt/lab/connect-client https://admin:admin@pmm.lab:{port} {node}"
        ))?;
        self.status_until("the client to be connected", 30, |status| {
            status["server_info"]["connected"] == true
        })
    }

    /// Cuts the host off from its network.
    pub fn cut_off(&self) -> Result<()> {
        docker::docker(["network", "disconnect", "--force", NETWORK, &self.container]).map(drop)
    }

    /// Writes a file.
    pub fn write(&self, path: &str, text: &str) -> Result<()> {
        docker::write_file(&self.container, path, "644", text.as_bytes())
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        drop(docker::attempt(&["rm", "--force", "--volumes", &self.container]));
    }
}

/// Starts a host container with systemd and waits until it is up.
pub fn boot(container: &str, hostname: &str, image: &str, pmm: &str) -> Result<()> {
    let ground = ground::ground()?;
    drop(docker::attempt(&["rm", "--force", "--volumes", container]));
    let hostname = &hostname[..hostname.len().min(40)];
    let mut args: Vec<String> = [
        "run",
        "--detach",
        "--name",
        container,
        "--hostname",
        hostname,
        "--network",
        NETWORK,
    ]
    .map(str::to_owned)
    .to_vec();
    args.extend([
        "--add-host".to_owned(),
        format!("repo.lab:{}", ground.repo_ip),
        "--add-host".to_owned(),
        format!("pmm.lab:{pmm}"),
    ]);
    args.extend(hosts::systemd_arguments()?);
    args.push(image.to_owned());
    docker::docker_list(&args)?;
    wait::until("systemd to be up", 60, || {
        let done = docker::exec(container, &["systemctl", "is-system-running"])?;
        let up = matches!(done.stdout.trim(), "running" | "degraded");
        Ok(if up {
            Probe::Ready(())
        } else {
            Probe::NotYet(done.all())
        })
    })
}

/// A trap must have been sprung; otherwise the lab has lost a tooth.
pub fn sprung(trap: &str, holds: bool, seen: &str) -> Result<()> {
    if holds {
        Ok(())
    } else {
        bail!("nobody fell into the trap \"{trap}\"; seen: {seen}")
    }
}
