//! Traps of the deb packages: `apt` by hand on a host with `pmm2-client`.

use super::host::{Host, Kind, sprung};
use super::prepare::AGENT_ID;
use anyhow::Result;

const ENABLE: &str = "percona-release enable pmm3-client";
const INSTALL: &str = "apt-get install -y pmm-client";
const OLD: &str = "/usr/local/percona/pmm2";
const NEW: &str = "/usr/local/percona/pmm";

/// What the upgrade page says: enable the repository, install the package.
fn switch(host: &Host) -> Result<()> {
    host.must(ENABLE)?;
    host.must(INSTALL)?;
    host.prints(
        "apt installs PMM 3",
        "dpkg-query -W -f '${db:Status-Abbrev} ${Version}' pmm-client",
        "ii  3.9.1-1.bookworm",
    )
}

pub fn empty_config() -> Result<()> {
    let host = Host::alone("deb-empty-config", Kind::Deb)?;
    let before = host.must(&format!("sha256sum < {OLD}/config/pmm-agent.yaml"))?;
    host.status_until("the prepared identity", 20, |status| {
        status["agent_id"] == AGENT_ID
    })?;
    switch(&host)?;
    host.prints(
        "no script makes the .bak",
        "find /usr/local/percona -name '*.bak' -o -name '*.new'",
        "",
    )?;
    host.prints(
        "PMM 3 starts with an empty configuration",
        &format!("stat -c %s {NEW}/config/pmm-agent.yaml"),
        "0",
    )?;
    host.prints(
        "the old configuration stays behind",
        &format!("sha256sum < {OLD}/config/pmm-agent.yaml"),
        &before,
    )?;
    let status = host.status_until("the PMM 3 client", 20, |status| {
        status["agent_version"] == "3.9.1"
    })?;
    sprung(
        "the new client has no identity",
        status["agent_id"] == "" && status["server_info"].is_null(),
        &status.to_string(),
    )?;
    host.fails(
        "pmm-admin sees a client that is not set up",
        "pmm-admin status --json",
        "",
    )
}

pub fn bak_by_hand() -> Result<()> {
    let host = Host::alone("deb-bak-drops-paths", Kind::Deb)?;
    host.must(&format!(
        "sed -i 's#tempdir: /tmp#tempdir: /var/spool/pmm#' {OLD}/config/pmm-agent.yaml"
    ))?;
    host.must(&format!(
        "cp -a {OLD}/config/pmm-agent.yaml {OLD}/config/pmm-agent.yaml.bak"
    ))?;
    switch(&host)?;
    host.holds(
        "with a .bak the identity is carried",
        &format!("grep -q {AGENT_ID} {NEW}/config/pmm-agent.yaml"),
    )?;
    host.prints(
        "and the own paths are dropped",
        &format!("grep -c -e ^paths -e /var/spool/pmm {NEW}/config/pmm-agent.yaml"),
        "0",
    )?;
    host.holds(
        "they are in the copy only",
        &format!("grep -q /var/spool/pmm {NEW}/config/pmm-agent.yaml.bak"),
    )
}

pub fn rc_state() -> Result<()> {
    let host = Host::alone("deb-rc-state", Kind::Deb)?;
    switch(&host)?;
    host.prints(
        "pmm2-client is removed, not purged",
        "dpkg-query -W -f '${db:Status-Abbrev}' pmm2-client",
        "rc",
    )?;
    host.holds(
        "its purge script waits",
        "grep -q 'userdel pmm-agent' /var/lib/dpkg/info/pmm2-client.postrm",
    )
}

pub fn purge_deletes_account() -> Result<()> {
    let host = Host::alone("deb-purge-account", Kind::Deb)?;
    switch(&host)?;
    // Cleaning up in the maintenance window, with the service stopped.
    host.must("systemctl stop pmm-agent && apt-get purge -y pmm2-client")?;
    host.fails(
        "purging the left-over deletes the account of the PMM 3 service",
        "getent passwd pmm-agent",
        "",
    )?;
    host.prints(
        "the files of PMM 3 belong to nobody",
        &format!("stat -c %U {NEW}/config/pmm-agent.yaml"),
        "UNKNOWN",
    )?;
    host.fails(
        "the service's enablement is dropped",
        "systemctl is-enabled pmm-agent",
        "disabled",
    )?;
    host.sh("systemctl start pmm-agent")?;
    host.until(
        "the unit to fail for want of its user",
        20,
        "systemctl show -p ExecMainStatus pmm-agent | grep -x ExecMainStatus=217",
    )
    .map(drop)
}

pub fn purge_deletes_links() -> Result<()> {
    let host = Host::alone("deb-purge-links", Kind::Deb)?;
    switch(&host)?;
    host.prints(
        "the link is PMM 3's",
        "dpkg -S /usr/sbin/pmm-agent",
        "pmm-client: /usr/sbin/pmm-agent",
    )?;
    // "Purge everything in state rc", as housekeeping scripts do.
    host.must("dpkg --purge $(dpkg-query -W -f '${db:Status-Abbrev} ${Package}\\n' | awk '$1 == \"rc\" { print $2 }')")?;
    host.fails(
        "housekeeping deletes the link that PMM 3 owns by now",
        "test -e /usr/sbin/pmm-agent",
        "",
    )?;
    host.sh("systemctl restart pmm-agent")?;
    host.until(
        "the unit to find no program",
        20,
        "systemctl show -p ExecMainStatus pmm-agent | grep -x ExecMainStatus=203",
    )
    .map(drop)
}

pub fn edited_collectors() -> Result<()> {
    let host = Host::alone("deb-edited-collectors", Kind::Deb)?;
    let directory = format!("{OLD}/collectors/custom-queries/mysql/medium-resolution");
    host.must(&format!("echo '# edited here' >> {directory}/queries-mysqld.yml && echo '# site queries' > {directory}/site.yml"))?;
    switch(&host)?;
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

pub fn upgrade_never_moves() -> Result<()> {
    let host = Host::alone("deb-upgrade-stays", Kind::Deb)?;
    host.must(ENABLE)?;
    host.must("apt-get upgrade -y && apt-get dist-upgrade -y")?;
    host.holds(
        "a plain upgrade stays on PMM 2",
        "dpkg-query -W -f '${db:Status-Abbrev} ${Version}' pmm2-client | grep '^ii  2[.]'",
    )?;
    host.prints(
        "and never installs PMM 3",
        "dpkg-query -W -f '${db:Status-Status}' pmm-client",
        "not-installed",
    )
}

pub fn held_package() -> Result<()> {
    let host = Host::alone("deb-held", Kind::Deb)?;
    host.must("apt-mark hold pmm2-client")?;
    host.must(ENABLE)?;
    host.fails("apt refuses a held pmm2-client", INSTALL, "held packages")?;
    host.prints(
        "nothing has changed",
        "dpkg-query -W -f '${Version}' pmm2-client",
        "2.41.2-6.bookworm",
    )
}

pub fn version_needs_build() -> Result<()> {
    let host = Host::alone("deb-version-needs-build", Kind::Deb)?;
    host.must(ENABLE)?;
    host.fails(
        "a version without its build number is not found",
        "apt-get install -y pmm-client=3.7.1",
        "was not found",
    )?;
    let builds = "apt-cache madison pmm-client | cut -d'|' -f2 | sed 's/.*-//; s/[.].*//' | sort -u | wc -l";
    host.prints("the build number is not the same for all versions", builds, "3")
}
