//! kill -9 of an agent while the new package's post-install script is held open.

use super::run::Road;
use super::{Sabotage, expect, kill_coordinator};
use crate::fleet::HOSTS;
use crate::report::{Findings, Report};
use crate::verify::Snapshot;
use crate::wait::{self, Probe};
use crate::{docker, hosts, names, output};
use anyhow::{Context, Result};

const TARGET: &str = "deb-a";

/// Holds the script open, kills the agent, lets the script go on.
pub fn drive(road: &mut Road, sabotage: Option<Sabotage>) -> Result<i32> {
    let host = HOSTS
        .iter()
        .find(|host| host.name == TARGET)
        .context("the host of this scenario")?;
    let container = names::host(TARGET);
    hosts::script_mode(host, "hold")?;
    road.start()?;
    let mut seen = Ok(false);
    road.until("the held post-install script", 900, |_| {
        seen = hosts::script_is_held(host);
        !matches!(seen, Ok(false))
    })?;
    seen?;
    if sabotage != Some(Sabotage::NoKill) {
        let pid = docker::exec_must(&container, &["pgrep", "-x", "-o", "pmm-upgrade-age"])?;
        docker::exec_must(&container, &["kill", "-9", pid.trim()])?;
        output::step("killed the agent of deb-a with SIGKILL while the script runs");
        wait::until("systemd to start the agent again", 60, || {
            let now = docker::exec(&container, &["pgrep", "-x", "-o", "pmm-upgrade-age"])?.stdout;
            Ok(if now.trim().is_empty() || now.trim() == pid.trim() {
                Probe::NotYet(now)
            } else {
                Probe::Ready(())
            })
        })?;
    }
    hosts::release_script(host)?;
    road.watch()
}

/// Completed; the disturbance is named; one package transaction.
pub fn check(report: &Report, exit: i32, before: &Snapshot) -> Result<()> {
    expect::migrated(report, exit, &["2.44.1", "3.7.1", "3.9.1"], before)?;
    let mut findings = Findings::default();
    let hits = report.disturbances();
    let named = hits
        .iter()
        .any(|(target, step)| target.contains(TARGET) && step.contains("install"));
    findings.expect(
        named,
        format!("the report does not name the kill of {TARGET} in its install step: {hits:?}"),
    );
    kill_coordinator::lasting_effects(report, &mut findings)?;
    findings.finish("kill-agent")
}
