//! Traps of the rpm packages: `dnf` and `rpm` by hand on a host with `pmm2-client`.

use super::host::{Host, Kind};
use super::prepare::AGENT_ID;
use anyhow::Result;

const ENABLE: &str = "percona-release enable pmm3-client";
const OLD: &str = "/usr/local/percona/pmm2";
const NEW: &str = "/usr/local/percona/pmm";

fn switch(host: &Host, package: &str) -> Result<()> {
    host.must(ENABLE)?;
    host.must(&format!("dnf install -y {package}"))?;
    host.fails("pmm2-client is gone", "rpm -q pmm2-client", "is not installed")
}

pub fn started_empty() -> Result<()> {
    let host = Host::alone("rpm-started-empty", Kind::Rpm)?;
    // Stopped for the upgrade, as careful people do. (The start of a running service changes nothing: there the old client goes on until
    // its own package's script stops it.)
    host.must("systemctl stop pmm-agent")?;
    let starts = "journalctl -q --no-pager -u pmm-agent -o cat | grep -c '^Started pmm-agent'";
    let before: u32 = host.must(starts)?.parse()?;
    host.must(ENABLE)?;
    // The last script of the transaction is held, so that the state between can be seen.
    host.must("mkdir -p /etc/standin && echo hold > /etc/standin/postinst-mode && touch /run/standin-hold")?;
    host.background("dnf install -y pmm-client > /run/dnf.log 2>&1; echo $? > /run/dnf.done")?;
    host.until(
        "the account to be deleted in the middle of the transaction",
        120,
        "! getent passwd pmm-agent && test ! -e /run/dnf.done",
    )?;
    host.prints(
        "the new client was started in the middle of the transaction",
        starts,
        &(before + 1).to_string(),
    )?;
    host.prints(
        "with an empty configuration",
        &format!("stat -c %s {NEW}/config/pmm-agent.yaml"),
        "0",
    )?;
    host.fails(
        "then stopped by the old package's script",
        "systemctl is-active pmm-agent",
        "inactive",
    )?;
    host.fails("and disabled", "systemctl is-enabled pmm-agent", "disabled")?;
    host.holds(
        "the old configuration was erased, only the copy of %pretrans is left",
        &format!("test ! -e {OLD}/config/pmm-agent.yaml && test -e {OLD}/config/pmm-agent.yaml.bak"),
    )?;
    host.must("rm /run/standin-hold")?;
    host.until("the transaction to end", 60, "test -s /run/dnf.done")?;
    host.prints("the transaction ends with 0", "cat /run/dnf.done", "0")?;
    host.holds(
        "the last script carries the identity",
        &format!("grep -q {AGENT_ID} {NEW}/config/pmm-agent.yaml"),
    )
}

pub fn account_recreated() -> Result<()> {
    let host = Host::alone("rpm-account-recreated", Kind::Rpm)?;
    // A database was installed after the client; its group lets the exporter read the slow log.
    host.must(
        "groupadd -r mysql && useradd -r -g mysql -s /bin/false mysql && usermod -aG mysql,adm pmm-agent",
    )?;
    host.must("install -o pmm-agent -m 0600 /dev/null /var/lib/by-uid")?;
    let before = host.must("id -u pmm-agent")?;
    switch(&host, "pmm-client")?;
    host.fails(
        "the account has another uid",
        &format!("test \"$(id -u pmm-agent)\" = {before}"),
        "",
    )?;
    host.prints("it has lost its groups", "id -nG pmm-agent", "pmm-agent")?;
    host.prints(
        "what belonged to it belongs to a number",
        "stat -c %U /var/lib/by-uid",
        "UNKNOWN",
    )
}

pub fn stray_process() -> Result<()> {
    let host = Host::alone("rpm-stray-process", Kind::Rpm)?;
    host.background("exec runuser -u pmm-agent -- sleep 900")?;
    host.until("the stray process", 10, "pgrep -u pmm-agent sleep")?;
    switch(&host, "pmm-client")?;
    host.holds("the account could not be deleted", "getent passwd pmm-agent")?;
    host.prints(
        "so the other branch deleted the links of PMM 3",
        "ls -d /usr/bin/pmm-admin /usr/bin/pmm-agent /usr/sbin/pmm-admin /usr/sbin/pmm-agent 2>/dev/null",
        "",
    )?;
    host.until(
        "the unit to find no program",
        20,
        "systemctl show -p ExecMainStatus pmm-agent | grep -x ExecMainStatus=203",
    )
    .map(drop)
}

pub fn paths_dropped() -> Result<()> {
    let host = Host::alone("rpm-paths-dropped", Kind::Rpm)?;
    host.must("mkdir -p /var/spool/pmm && chown pmm-agent /var/spool/pmm")?;
    host.must(&format!("sed -i 's#tempdir: /tmp#tempdir: /var/spool/pmm\\n    slowlog_file_prefix: /mnt/db#' {OLD}/config/pmm-agent.yaml"))?;
    switch(&host, "pmm-client")?;
    host.holds(
        "the identity is carried",
        &format!("grep -q {AGENT_ID} {NEW}/config/pmm-agent.yaml"),
    )?;
    host.prints(
        "the own paths are not",
        &format!("grep -c -e ^paths -e /var/spool/pmm -e /mnt/db {NEW}/config/pmm-agent.yaml"),
        "0",
    )?;
    host.prints(
        "they are in the copy only",
        &format!("grep -c -e /var/spool/pmm -e /mnt/db {NEW}/config/pmm-agent.yaml.bak"),
        "2",
    )
}

pub fn early_release() -> Result<()> {
    let host = Host::alone("rpm-early-release", Kind::Rpm)?;
    switch(&host, "pmm-client-3.2.0")?;
    host.fails(
        "early 3.x leaves the account deleted",
        "getent passwd pmm-agent",
        "",
    )?;
    host.fails(
        "the service disabled",
        "systemctl is-enabled pmm-agent",
        "disabled",
    )?;
    host.fails("and stopped", "systemctl is-active pmm-agent", "inactive")
}

pub fn edited_unit() -> Result<()> {
    let host = Host::alone("rpm-edited-unit", Kind::Rpm)?;
    let unit = "/usr/lib/systemd/system/pmm-agent.service";
    host.must(&format!("sed -i 's/^Restart=.*/Restart=always\\nEnvironment=PMM_AGENT_LOG_LEVEL=debug/' {unit} && systemctl daemon-reload"))?;
    switch(&host, "pmm-client")?;
    host.holds(
        "the edited unit is put aside",
        &format!("grep -q PMM_AGENT_LOG_LEVEL {unit}.rpmsave"),
    )?;
    host.fails(
        "and the packaged one runs",
        &format!("grep PMM_AGENT_LOG_LEVEL {unit}"),
        "",
    )
}

pub fn edited_collectors() -> Result<()> {
    let host = Host::alone("rpm-edited-collectors", Kind::Rpm)?;
    let directory = format!("{OLD}/collectors/custom-queries/mysql/medium-resolution");
    host.must(&format!("echo '# edited here' >> {directory}/queries-mysqld.yml && echo '# site queries' > {directory}/site.yml"))?;
    switch(&host, "pmm-client")?;
    host.fails(
        "an edited packaged query file is lost without a copy",
        "grep -r 'edited here' /usr/local/percona",
        "",
    )?;
    host.holds(
        "a file that was added stays in the old tree",
        &format!("test -e {directory}/site.yml"),
    )?;
    host.fails(
        "and is not in the new one",
        &format!("test -e {NEW}/collectors/custom-queries/mysql/medium-resolution/site.yml"),
        "",
    )
}

pub fn disabled_becomes_enabled() -> Result<()> {
    let host = Host::alone("rpm-disabled-enabled", Kind::Rpm)?;
    host.must("systemctl disable --now pmm-agent")?;
    switch(&host, "pmm-client")?;
    host.prints(
        "a service that was switched off is enabled",
        "systemctl is-enabled pmm-agent",
        "enabled",
    )?;
    host.until("it runs, too", 20, "systemctl is-active pmm-agent")
        .map(drop)
}

pub fn self_conflict() -> Result<()> {
    let host = Host::alone("rpm-self-conflict", Kind::Rpm)?;
    switch(&host, "pmm-client-3.2.0")?;
    let file = "/root/pmm-client-3.7.1-8.el9.x86_64.rpm";
    let url = "http://repo.lab/pmm3-client/yum/release/9/RPMS/x86_64/pmm-client-3.7.1-8.el9.x86_64.rpm";
    host.must(&format!("curl -sf -o {file} {url}"))?;
    host.fails(
        "rpm -i of a newer release conflicts with itself",
        &format!("rpm -i {file}"),
        "conflicts with",
    )?;
    host.prints(
        "nothing has changed",
        "rpm -q --qf '%{VERSION}' pmm-client",
        "3.2.0",
    )?;
    host.holds("rpm -U does it", &format!("rpm -U {file}"))
}

pub fn rpm_i_refuses() -> Result<()> {
    let host = Host::alone("rpm-i-refuses", Kind::Rpm)?;
    let file = "/root/pmm-client-3.9.1-1.el9.x86_64.rpm";
    let url = "http://repo.lab/pmm3-client/yum/release/9/RPMS/x86_64/pmm-client-3.9.1-1.el9.x86_64.rpm";
    host.must(&format!("curl -sf -o {file} {url}"))?;
    host.fails(
        "rpm -i refuses beside pmm2-client",
        &format!("rpm -i {file}"),
        "pmm2-client",
    )?;
    host.holds(
        "the old client is untouched",
        "rpm -q pmm2-client && systemctl is-active pmm-agent",
    )
}

pub fn dnf_upgrade_replaces() -> Result<()> {
    let host = Host::alone("rpm-dnf-upgrade", Kind::Rpm)?;
    host.must(ENABLE)?;
    // Nobody asked for PMM 3: a nightly upgrade of everything is enough once the repository is enabled.
    host.must("dnf upgrade -y")?;
    host.prints(
        "dnf upgrade replaces pmm2-client by itself",
        "rpm -q --qf '%{VERSION}' pmm-client",
        "3.9.1",
    )?;
    host.fails("pmm2-client is gone", "rpm -q pmm2-client", "is not installed")
}
