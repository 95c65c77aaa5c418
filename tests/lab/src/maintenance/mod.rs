//! What an operator asks of single hosts outside of a rollout: restart the client, collect a bundle, renew the certificate, replace the agent.
//!
//! The cases share one fleet, whose hosts wait for a rollout that is never started.

mod certificate;
mod release;

use crate::cmd::Done;
use crate::fleet::{self, Host, Wishes};
use crate::report::Findings;
use crate::scenario::run::{Road, Way};
use crate::suite::Case;
use crate::verify::host;
use crate::wait::{self, Probe};
use crate::{docker, hosts, lock, names};
use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// The cases, in order: the later ones replace the agents of hosts.
pub const CASES: &[Case] = &[
    Case::new(
        "restart-client",
        "another process with the same identity reports, by systemd and by hand",
        restart_client,
    ),
    Case::new(
        "collect-bundle",
        "a file on the host without the secrets of the client's configuration",
        collect_bundle,
    ),
    Case::new(
        "renew",
        "another certificate is used, the old one is refused",
        certificate::renew,
    ),
    Case::new(
        "foreign-release",
        "a release of the agent with a foreign signature is refused",
        release::foreign,
    ),
    Case::new(
        "self-update",
        "deb, rpm and tarball of the agent are replaced by a newer release",
        release::update,
    ),
    Case::new(
        "broken-release",
        "an agent that ends at once is taken back",
        release::taken_back,
    ),
];

/// The fleet of the suite, with a coordinator that serves and agents that are connected.
struct Ground {
    road: Road,
    // Released last.
    _lock: fs_err::File,
}

static GROUND: Mutex<Option<Ground>> = Mutex::new(None);

/// The fleet, brought up by the first case.
struct Held(MutexGuard<'static, Option<Ground>>);

impl Held {
    fn take() -> Result<Self> {
        let mut slot = GROUND.lock().unwrap_or_else(PoisonError::into_inner);
        if slot.is_none() {
            let lock = lock::hold("fleet")?;
            *slot = Some(Ground {
                road: Road::prepare(&Wishes::NONE, Way::default())?,
                _lock: lock,
            });
        }
        Ok(Self(slot))
    }

    fn road(&self) -> Result<&Road> {
        Ok(&self.0.as_ref().context("the fleet is not up")?.road)
    }

    /// `pmm-coordinator host WHAT HOST ... --json`: its document, and how it ended.
    fn ask(&self, what: &str, host: &str, more: &[&str]) -> Result<(Value, Done)> {
        let mut args = vec!["host", what, host];
        args.extend(more);
        args.push("--json");
        let done = self.road()?.coordinator.run(&args)?;
        Ok((serde_json::from_str(&done.stdout).unwrap_or_default(), done))
    }

    /// The same, and it must be done.
    fn must(&self, what: &str, host: &str, more: &[&str]) -> Result<Value> {
        let (document, done) = self.ask(what, host, more)?;
        ensure!(
            done.ok() && document["outcome"] == "done",
            "`host {what} {host}` ended with {}: {}",
            done.code,
            done.all()
        );
        Ok(document)
    }

    /// Waits until a host's agent is connected; its release.
    fn connected(&self, host: &str) -> Result<String> {
        wait::until(&format!("the agent of {host} to be connected"), 60, || {
            let shown = self.road()?.coordinator.json(&["host", "show", host])?;
            let version = shown["agent_version"].as_str().unwrap_or_default().to_owned();
            Ok(if shown["connected"] == true && !version.is_empty() {
                Probe::Ready(version)
            } else {
                Probe::NotYet(shown.to_string().chars().take(300).collect())
            })
        })
    }
}

/// Takes the fleet down.
pub fn clear() {
    let held = GROUND.lock().unwrap_or_else(PoisonError::into_inner).take();
    if let Some(ground) = held {
        drop(ground.road);
        if let Err(error) = hosts::down() {
            crate::output::error(&error);
        }
    }
}

fn restart_client() -> Result<()> {
    let held = Held::take()?;
    let mut findings = Findings::default();
    for name in ["deb-a", "rpm-a", "tar-a", "tar-b"] {
        let spec = fleet::host(name)?;
        let was = host::look(spec)?;
        held.must("restart-client", name, &[])?;
        let now = reports(spec, &was)?;
        host::unchanged(spec, &was, &now, &mut findings);
        findings.expect(
            now.processes
                .iter()
                .all(|new| was.processes.iter().all(|old| old.pid != new.pid)),
            format!("{name}: the process was not replaced"),
        );
    }
    findings.finish("restart-client")
}

/// Waits until a client is connected with all its exporters.
fn reports(spec: &Host, was: &host::State) -> Result<host::State> {
    wait::until(&format!("{} to report", spec.name), 30, || {
        let now = host::look(spec)?;
        let back = now.connected && was.exporters.keys().all(|kind| now.exporters.contains_key(kind));
        Ok(if back {
            Probe::Ready(now)
        } else {
            Probe::NotYet("not connected, or exporters missing".to_owned())
        })
    })
}

/// The secrets are taken from the configuration and looked for in every member of the archive.
fn collect_bundle() -> Result<()> {
    let held = Held::take()?;
    for name in ["deb-a", "tar-b"] {
        let spec = fleet::host(name)?;
        ensure!(
            spec.api_key,
            "{name} has no key that could be told from other words"
        );
        let container = names::host(name);
        let secret = host::look(spec)?
            .config
            .get("server.password")
            .cloned()
            .unwrap_or_default();
        ensure!(
            secret.len() > 16,
            "{name}: no secret in the client's configuration"
        );
        let document = held.must("collect-bundle", name, &[])?;
        let path = document["detail"]["path"]
            .as_str()
            .context("the path of the bundle")?;
        let mode = docker::exec_must(&container, &["stat", "-c", "%a %U", path])?;
        ensure!(mode == "600 root", "{name}: the bundle is {mode}");
        docker::exec_must(
            &container,
            &["sh", "-c", "rm -rf /tmp/bundle && mkdir /tmp/bundle"],
        )?;
        docker::exec_must(&container, &["tar", "-C", "/tmp/bundle", "-xzf", path])?;
        let members = docker::exec_must(&container, &["find", "/tmp/bundle", "-type", "f", "-size", "+0"])?;
        ensure!(
            members.lines().count() >= 5,
            "{name}: the bundle holds too little to find a fault: {members}"
        );
        // A key that lies in the archive under another spelling is in there all the same.
        let encoded = {
            use base64::Engine as _;
            base64::engine::general_purpose::STANDARD.encode(format!("api_key:{secret}"))
        };
        for needle in [secret.as_str(), encoded.trim_end_matches('=')] {
            let found = docker::exec(&container, &["grep", "-rlF", "--", needle, "/tmp/bundle"])?;
            if found.ok() {
                bail!("{name}: the client's key is in {}", found.stdout.trim());
            }
        }
        let private = docker::exec(&container, &["grep", "-rlF", "--", "PRIVATE KEY", "/tmp/bundle"])?;
        ensure!(
            !private.ok(),
            "{name}: a private key is in {}",
            private.stdout.trim()
        );
    }
    Ok(())
}
