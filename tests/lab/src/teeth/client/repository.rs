//! Traps of `percona-release`.

use super::host::{Host, Kind};
use anyhow::Result;

const LIST: &str = "/etc/apt/sources.list.d/percona-pmm3-client-release.list";

pub fn enable_only() -> Result<()> {
    let host = Host::alone("enable-only", Kind::Deb)?;
    let database = "/etc/apt/sources.list.d/percona-ps-80-release.list";
    host.write(database, "# deb http://repo.lab/ps-80/apt bookworm main\n")?;
    host.must("percona-release enable-only pmm3-client")?;
    host.holds(
        "the database's repository is put aside",
        &format!("test ! -e {database} && test -e {database}.bak"),
    )?;
    host.holds(
        "so is the one of the installed client",
        "test -e /etc/apt/sources.list.d/percona-pmm2-client-release.list.bak",
    )?;
    host.holds("two are spared", "ls /etc/apt/sources.list.d/percona-prel-release.list /etc/apt/sources.list.d/percona-telemetry-release.list")
}

pub fn enable_only_rpm() -> Result<()> {
    let host = Host::alone("enable-only-rpm", Kind::Rpm)?;
    let database = "/etc/yum.repos.d/percona-ps-80-release.repo";
    host.write(
        database,
        "[ps-80]\nname=ps-80\nenabled=0\nbaseurl=http://repo.lab/ps-80\n",
    )?;
    host.must("percona-release enable-only pmm3-client")?;
    host.holds(
        "the database's repository is put aside",
        &format!("test ! -e {database} && test -e {database}.bak"),
    )
}

pub fn needs_the_network() -> Result<()> {
    let host = Host::alone("percona-release-offline", Kind::Deb)?;
    host.cut_off()?;
    let enable = "percona-release enable pmm3-client; code=$?; echo code $code; exit $code";
    host.fails(
        "offline looks like a repository that does not exist",
        enable,
        "does not exist",
    )?;
    host.fails("it ends with 2", enable, "code 2")?;
    host.fails("and nothing was written", &format!("test -e {LIST}"), "")
}

pub fn no_mirror() -> Result<()> {
    let host = Host::alone("percona-release-mirror", Kind::Deb)?;
    host.write(
        "/etc/default/percona-release",
        "URL=http://mirror.example\nHOST=mirror.example\nSCHEME=https\n",
    )?;
    host.must("percona-release enable pmm3-client")?;
    host.fails(
        "a preset mirror is ignored",
        &format!("grep mirror.example {LIST}"),
        "",
    )?;
    host.holds(
        "the site is written instead",
        &format!("grep -q 'http://repo.lab/pmm3-client/apt' {LIST}"),
    )
}

pub fn broken_neighbour() -> Result<()> {
    let host = Host::alone("percona-release-neighbour", Kind::Deb)?;
    host.write(
        "/etc/apt/sources.list.d/other.list",
        "deb http://repo.lab/no-such-thing bookworm main\n",
    )?;
    host.fails(
        "an unrelated broken repository makes it fail",
        "percona-release enable pmm3-client",
        "no-such-thing",
    )?;
    host.holds("although its own file is written", &format!("test -s {LIST}"))
}

pub fn unsupported_system() -> Result<()> {
    let host = Host::alone("unsupported-system", Kind::Deb)?;
    // Ubuntu 20.04: PMM 2 had packages for it, PMM 3 has none any more.
    host.must("printf 'NAME=Ubuntu\\nID=ubuntu\\nVERSION_ID=\"20.04\"\\nVERSION_CODENAME=focal\\nPRETTY_NAME=\"Ubuntu 20.04\"\\n' > /usr/lib/os-release")?;
    host.holds("PMM 2 has packages", "percona-release enable-silent pmm2-client")?;
    host.fails(
        "PMM 3 has none",
        "percona-release enable pmm3-client",
        "not supported for current operating system",
    )?;
    host.fails("nothing was written", &format!("test -e {LIST}"), "")
}
