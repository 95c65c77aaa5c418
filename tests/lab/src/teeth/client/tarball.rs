//! Traps of the tarball: `install_tarball` by hand.

use super::ground;
use super::host::{Host, Kind, sprung};
use super::prepare::AGENT_ID;
use anyhow::Result;

const OLD: &str = "/usr/local/percona/pmm2";
const NEW: &str = "/usr/local/percona/pmm";
const URL: &str = "http://repo.lab/downloads/pmm3/3.9.1/binary/tarball/pmm-client-3.9.1-x86_64.tar.gz";
/// Where the tarball is unpacked.
const UNPACKED: &str = "/root/pmm-client-3.9.1";

fn unpack(host: &Host) -> Result<()> {
    host.must(&format!("curl -sf {URL} | tar -C /root -xz")).map(drop)
}

pub fn without_u() -> Result<()> {
    let host = Host::alone("tar-without-u", Kind::Tar)?;
    host.holds(
        "there is a configuration",
        &format!("grep -q {AGENT_ID} {OLD}/config/pmm-agent.yaml"),
    )?;
    unpack(&host)?;
    host.must(&format!("PMM_DIR={OLD} {UNPACKED}/install_tarball"))?;
    host.prints(
        "without -u the configuration is emptied",
        &format!("stat -c %s {OLD}/config/pmm-agent.yaml"),
        "0",
    )?;
    host.prints(
        "and there is no copy",
        &format!("grep -rl {AGENT_ID} {OLD} {NEW} 2>/dev/null"),
        "",
    )
}

pub fn without_directory() -> Result<()> {
    let server = ground::ground()?;
    let server = server.pmm3()?;
    let host = Host::start("tar-without-dir", Kind::Tar, &server.ip)?;
    // The client as the server's own migration leaves it: known to PMM 3, every path pinned to pmm2.
    let (_, agent) = server.register("tar-without-dir")?;
    host.must(&format!("sed -i -e 's#^id: .*#id: {agent}#' -e 's#address: pmm.lab:.*#address: pmm.lab:8443#' {OLD}/config/pmm-agent.yaml"))?;
    unpack(&host)?;
    host.must(&format!("{UNPACKED}/install_tarball -u"))?;
    host.holds(
        "without PMM_DIR the new directory is filled",
        &format!("test -x {NEW}/bin/pmm-agent"),
    )?;
    host.fails(
        "without a configuration",
        &format!("test -e {NEW}/config/pmm-agent.yaml"),
        "",
    )?;
    host.must("systemctl stop pmm-agent")?;
    let start = format!("{NEW}/bin/pmm-agent --config-file={NEW}/config/pmm-agent.yaml");
    host.fails(
        "it does not start there",
        &format!("timeout 5 {start}"),
        "does not exist",
    )?;
    host.background(&format!(
        "exec runuser -u pmm-agent -- {NEW}/bin/pmm-agent --config-file={OLD}/config/pmm-agent.yaml"
    ))?;
    let running = |status: &serde_json::Value| {
        let agents = status["agents_info"].as_array().cloned().unwrap_or_default();
        status["agent_version"] == "3.9.1"
            && agents.iter().any(|a| {
                a["agent_type"] == "AGENT_TYPE_NODE_EXPORTER" && a["status"] == "AGENT_STATUS_RUNNING"
            })
    };
    let status = host.status_until("the PMM 3 client's node_exporter", 40, running)?;
    let old = status["agents_info"]
        .to_string()
        .contains(&format!("{OLD}/exporters/node_exporter"));
    sprung(
        "with the old configuration it keeps starting the exporters of PMM 2",
        old,
        &status.to_string(),
    )?;
    host.holds(
        "which are programs of 2.41.2",
        &format!("{OLD}/bin/pmm-admin --version | grep -q 'PMMVersion: 2[.]41[.]2'"),
    )
}

pub fn old_process_runs_on() -> Result<()> {
    let host = Host::alone("tar-old-process", Kind::Tar)?;
    let before = host.must("systemctl show -p MainPID pmm-agent")?;
    unpack(&host)?;
    host.must(&format!(
        "PMM_DIR={OLD} PMM_USER=pmm-agent PMM_GROUP=pmm-agent {UNPACKED}/install_tarball -u"
    ))?;
    host.holds(
        "the programs on disk are new",
        "/usr/local/bin/pmm-admin --version | grep -q 'PMMVersion: 3[.]9[.]1'",
    )?;
    let status = host.status()?;
    sprung(
        "the old process runs on",
        status["agent_version"] == "2.41.2",
        &status.to_string(),
    )?;
    host.prints(
        "it is the same process",
        "systemctl show -p MainPID pmm-agent",
        &before,
    )?;
    host.holds(
        "its program is a deleted file",
        "readlink /proc/$(systemctl show -p MainPID --value pmm-agent)/exe | grep -q deleted",
    )
}

pub fn collectors_overwritten() -> Result<()> {
    let host = Host::alone("tar-collectors", Kind::Tar)?;
    let directory = format!("{OLD}/collectors/custom-queries/mysql/medium-resolution");
    host.must(&format!("echo '# edited here' >> {directory}/queries-mysqld.yml && echo '# site queries' > {directory}/site.yml"))?;
    unpack(&host)?;
    host.must(&format!("PMM_DIR={OLD} {UNPACKED}/install_tarball -u"))?;
    host.fails(
        "an edited query file is overwritten even with -u",
        &format!("grep -r 'edited here' {OLD}"),
        "",
    )?;
    host.holds(
        "one that was added stays",
        &format!("test -e {directory}/site.yml"),
    )
}

pub fn links_and_unit_stay() -> Result<()> {
    let host = Host::alone("tar-links-and-unit", Kind::Tar)?;
    unpack(&host)?;
    host.must(&format!(
        "PMM_USER=pmm-agent PMM_GROUP=pmm-agent {UNPACKED}/install_tarball -u"
    ))?;
    host.prints(
        "the links stay on PMM 2",
        "readlink /usr/local/bin/pmm-agent",
        &format!("{OLD}/bin/pmm-agent"),
    )?;
    host.holds(
        "so does the unit",
        &format!("grep -q 'ExecStart={OLD}/bin/pmm-agent' /etc/systemd/system/pmm-agent.service"),
    )?;
    host.must("systemctl restart pmm-agent")?;
    let status = host.status_until("the client after a restart", 20, |status| !status.is_null())?;
    sprung(
        "after a restart PMM 2 runs",
        status["agent_version"] == "2.41.2",
        &status.to_string(),
    )
}

pub fn unknown_option() -> Result<()> {
    let host = Host::alone("tar-unknown-option", Kind::Tar)?;
    unpack(&host)?;
    host.fails(
        "only -u and -help are known",
        &format!("{UNPACKED}/install_tarball --update"),
        "unknown option",
    )
}
