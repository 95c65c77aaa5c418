//! Releases of our own agent, signed in the lab: a newer one, one with a foreign signature, one that does not run.

use super::Held;
use crate::agent_package::{self, Packages};
use crate::fleet;
use crate::report::Findings;
use crate::verify::host;
use crate::{build, docker, hosts, images, names, output};
use anyhow::{Context, Result, bail, ensure};
use minisign::KeyPair;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

/// One host per way of installing the agent.
const HOSTS: [&str; 3] = ["deb-a", "rpm-a", "tar-a"];
const NEWER: &str = "0.2.0";
const BROKEN: &str = "0.3.0";

/// The key that the hosts' policies list.
fn key() -> Result<&'static KeyPair> {
    static KEY: OnceLock<Option<KeyPair>> = OnceLock::new();
    KEY.get_or_init(|| KeyPair::generate_unencrypted_keypair().ok())
        .as_ref()
        .context("a signing key")
}

/// What the administrators of the hosts wrote into their policies.
fn trust(key: &KeyPair) -> Result<()> {
    let policy = format!(
        "{}agent_keys = [\"{}\"]\n",
        agent_package::POLICY,
        key.pk.to_base64()
    );
    for name in HOSTS {
        docker::write_file(
            &names::host(name),
            "/etc/pmm-upgrade-agent/policy.toml",
            "644",
            policy.as_bytes(),
        )?;
    }
    Ok(())
}

/// A signature file beside the package, as `minisign` writes it.
fn sign(key: &KeyPair, file: &Path) -> Result<PathBuf> {
    let name = file
        .file_name()
        .context("a package has a name")?
        .to_string_lossy();
    let comment = format!("timestamp:1790000000\tfile:{name}\thashed");
    let signature = minisign::sign(
        Some(&key.pk),
        &key.sk,
        fs_err::File::open(file)?,
        Some(&comment),
        Some("signature from the lab"),
    )?;
    let path = PathBuf::from(format!("{}.minisig", file.display()));
    fs_err::write(&path, signature.to_string())?;
    Ok(path)
}

/// Our agent of another release: the same sources with another number, built beside the workspace.
fn newer() -> Result<Packages> {
    let program = build::agent_of(NEWER)?;
    packages(NEWER, &program)
}

/// A program that ends at once, packaged as a release of the agent.
fn broken() -> Result<Packages> {
    let program = build::state_dir()?.join("broken-agent");
    fs_err::write(
        &program,
        "#!/bin/sh\necho 'this release does not run' >&2\nexit 1\n",
    )?;
    packages(BROKEN, &program)
}

fn packages(version: &str, program: &Path) -> Result<Packages> {
    let tools = images::tools(&build::standins()?)?;
    agent_package::build_release(&tools, program, version)
}

fn update_arguments(packages: &Packages, name: &str, key: &KeyPair) -> Result<(String, String)> {
    let file = packages.of(fleet::host(name)?.kind);
    let signature = sign(key, file)?;
    Ok((file.display().to_string(), signature.display().to_string()))
}

pub fn foreign() -> Result<()> {
    let held = Held::take()?;
    trust(key()?)?;
    let stranger = KeyPair::generate_unencrypted_keypair()?;
    let packages = newer()?;
    let before = held.connected(HOSTS[0])?;
    let (file, signature) = update_arguments(&packages, HOSTS[0], &stranger)?;
    let more = ["--file", &file, "--signature", &signature, "--version", NEWER];
    let (document, done) = held.ask("self-update", HOSTS[0], &more)?;
    ensure!(
        !done.ok() && document["outcome"] == "refused" && document["code"] == "policy",
        "a foreign signature: {}",
        done.all()
    );
    ensure!(
        held.connected(HOSTS[0])? == before,
        "the agent was replaced all the same"
    );
    Ok(())
}

pub fn update() -> Result<()> {
    let held = Held::take()?;
    trust(key()?)?;
    let packages = newer()?;
    let mut findings = Findings::default();
    for name in HOSTS {
        let spec = fleet::host(name)?;
        let was = host::look(spec)?;
        let before = held.connected(name)?;
        ensure!(before != NEWER, "{name} has release {NEWER} already");
        let (file, signature) = update_arguments(&packages, name, key()?)?;
        held.must(
            "self-update",
            name,
            &["--file", &file, "--signature", &signature, "--version", NEWER],
        )?;
        findings.equal(
            &format!("{name}: release that is connected"),
            &held.connected(name)?,
            &NEWER.to_owned(),
        );
        runs(name, NEWER, &mut findings)?;
        let now = host::look(spec)?;
        findings.equal(
            &format!("{name}: processes of the client"),
            &now.processes,
            &was.processes,
        );
        output::step(&format!("{name}: {before} -> {NEWER}"));
    }
    findings.finish("self-update")
}

pub fn taken_back() -> Result<()> {
    let held = Held::take()?;
    trust(key()?)?;
    let packages = broken()?;
    let mut findings = Findings::default();
    for name in HOSTS {
        let before = held.connected(name)?;
        let (file, signature) = update_arguments(&packages, name, key()?)?;
        let more = ["--file", &file, "--signature", &signature, "--version", BROKEN];
        let (document, done) = held.ask("self-update", name, &more)?;
        if done.ok() {
            bail!("{name}: a release that does not run was kept: {}", done.all());
        }
        findings.equal(
            &format!("{name}: outcome"),
            &document["outcome"].as_str().unwrap_or_default(),
            &"rolled_back",
        );
        findings.equal(
            &format!("{name}: release afterwards"),
            &held.connected(name)?,
            &before,
        );
        runs(name, &before, &mut findings)?;
        let tried = docker::exec(
            &names::host(name),
            &[
                "sh",
                "-c",
                "journalctl -q --no-pager -o cat -u pmm-upgrade-agent | grep -q 'this release does not run'",
            ],
        )?;
        findings.expect(
            tried.ok(),
            format!("{name}: the broken release was never started"),
        );
    }
    findings.finish("broken-release")
}

/// What runs is what is installed, and it is this release.
fn runs(name: &str, version: &str, findings: &mut Findings) -> Result<()> {
    let container = names::host(name);
    let spec = fleet::host(name)?;
    let said = docker::exec_must(&container, &["/usr/bin/pmm-upgrade-agent", "--version"])?;
    findings.expect(
        said.contains(version),
        format!("{name}: the program says {said}, expected {version}"),
    );
    let running = hosts::pids(spec, "pmm-upgrade-age")?;
    findings.equal(&format!("{name}: agents that run"), &running.len(), &1);
    for pid in running {
        let exe = docker::exec_must(&container, &["readlink", &format!("/proc/{pid}/exe")])?;
        findings.equal(
            &format!("{name}: program that runs"),
            &exe,
            &"/usr/bin/pmm-upgrade-agent".to_owned(),
        );
    }
    let packaged = match spec.kind {
        fleet::Kind::Deb => Some(docker::exec_must(
            &container,
            &[
                "dpkg-query",
                "-W",
                "-f",
                "${db:Status-Abbrev}${Version}",
                "pmm-upgrade-agent",
            ],
        )?),
        fleet::Kind::Rpm => Some(docker::exec_must(
            &container,
            &["rpm", "-q", "--qf", "ii %{VERSION}", "pmm-upgrade-agent"],
        )?),
        fleet::Kind::TarDefault | fleet::Kind::TarCustom => None,
    };
    if let Some(packaged) = packaged {
        findings.expect(
            packaged.starts_with("ii ") && packaged.contains(version),
            format!("{name}: the package is `{packaged}`, expected {version}"),
        );
    }
    Ok(())
}
