//! Traps around the running service: stray agents, and units of the administrator's own.

use super::host::{Host, Kind, sprung};
use super::prepare::AGENT_ID;
use anyhow::Result;

const CONFIG: &str = "/usr/local/percona/pmm2/config/pmm-agent.yaml";
const SWITCH: &str = "percona-release enable pmm3-client && apt-get install -y pmm-client";

pub fn stray_agent() -> Result<()> {
    let host = Host::alone("stray-agent", Kind::Deb)?;
    // Started by hand long ago, beside the unit that was stopped for it.
    host.must("systemctl stop pmm-agent")?;
    host.background(&format!(
        "exec runuser -u pmm-agent -- /usr/local/percona/pmm2/bin/pmm-agent --config-file={CONFIG}"
    ))?;
    host.status_until("the stray client", 20, |status| status["agent_id"] == AGENT_ID)?;
    host.must(SWITCH)?;
    host.until(
        "the new unit to crash again and again",
        40,
        "test $(systemctl show -p NRestarts --value pmm-agent) -ge 2",
    )?;
    host.holds(
        "because the port is taken",
        "journalctl -q --no-pager -u pmm-agent -o cat | grep -q 'listen tcp 127.0.0.1:7777: bind'",
    )?;
    let status = host.status()?;
    sprung(
        "the old client answers",
        status["agent_version"] == "2.41.2",
        &status.to_string(),
    )?;
    let seen = host.must("pmm-admin status --json | tr -d ' \\n'")?;
    let deceived =
        seen.contains(r#""agent_version":"2.41.2""#) && seen.contains(r#""pmm_admin_version":"3.9.1""#);
    sprung("the new pmm-admin is pleased with it", deceived, &seen)
}

pub fn override_breaks() -> Result<()> {
    let host = Host::alone("unit-override-breaks", Kind::Deb)?;
    // A unit of one's own, made after the manual of 2.x, with the full path.
    host.must(&format!(
        "sed 's#^ExecStart=.*#ExecStart=/usr/local/percona/pmm2/bin/pmm-agent --config-file={CONFIG}#' /lib/systemd/system/pmm-agent.service \
         > /etc/systemd/system/pmm-agent.service && systemctl daemon-reload && systemctl restart pmm-agent"
    ))?;
    host.status_until("the client under the own unit", 20, |status| {
        status["agent_id"] == AGENT_ID
    })?;
    host.must(SWITCH)?;
    host.until(
        "the own unit to find no program",
        30,
        "systemctl show -p ExecMainStatus pmm-agent | grep -x ExecMainStatus=203",
    )?;
    let status = host.status()?;
    sprung("nobody answers", status.is_null(), &status.to_string())
}

pub fn override_keeps_old_config() -> Result<()> {
    let host = Host::alone("unit-override-old-config", Kind::Deb)?;
    host.must("cp /lib/systemd/system/pmm-agent.service /etc/systemd/system/ && systemctl daemon-reload && systemctl restart pmm-agent")?;
    host.must(SWITCH)?;
    let status = host.status_until("the PMM 3 client", 30, |status| {
        status["agent_version"] == "3.9.1"
    })?;
    let old = status["config_filepath"] == CONFIG;
    sprung(
        "the own unit silently keeps PMM 3 on the configuration of PMM 2",
        old,
        &status.to_string(),
    )
}
