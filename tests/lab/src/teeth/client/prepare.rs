//! Hosts on which everything slow is done already, kept as images; and the installation of the PMM 2 client that each case starts with.
//!
//! The client itself is not part of the image: some storage drivers bring a file of an image back when it was replaced and then deleted in
//! the container, and several traps are about deleted files.

use super::ground;
use super::host::{self, Kind};
use crate::{docker, fleet, images, lock, names, output};
use anyhow::Result;

/// The id in the configuration. No server knows it until a case registers the client anew.
pub const AGENT_ID: &str = "/agent_id/6c1f5a5e-0000-4000-8000-00000000cafe";

const PREPARE_DEB: &str = "set -e
curl -sSf --retry 5 --retry-connrefused -o /root/percona-release.deb http://repo.lab/apt/percona-release_latest.generic_all.deb
dpkg -i /root/percona-release.deb
percona-release enable pmm2-client
cd /root && apt-get download pmm2-client=2.41.2-6.bookworm && mv pmm2-client_*.deb pmm2-client.deb";

const PREPARE_RPM: &str = "set -e
curl -sSf --retry 5 --retry-connrefused -o /root/percona-release.rpm http://repo.lab/yum/percona-release-latest.noarch.rpm
rpm --import http://repo.lab/PERCONA-PACKAGING-KEY
rpm -U /root/percona-release.rpm
percona-release enable pmm2-client
dnf makecache
curl -sSf -o /root/pmm2-client.rpm http://repo.lab/pmm2-client/yum/release/9/RPMS/x86_64/pmm2-client-2.41.2-6.el9.x86_64.rpm";

const PREPARE_TAR: &str = "exit 0";

// What every image gets at the end: the identity of the machine is left to each copy.
const FINISH: &str = ": > /etc/machine-id; rm -rf /var/lib/dbus/machine-id /var/log/journal";

// Setup writes the configuration in its full form, without a server.
const SET_UP: &str = "export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
until curl -s -o /dev/null http://127.0.0.1:7777/local/Status; do sleep 0.1; done
exec pmm-agent setup --config-file=/usr/local/percona/pmm2/config/pmm-agent.yaml --id=\"$1\" --server-address=pmm.lab:443 \
    --server-username=admin --server-password=admin --server-insecure-tls --skip-registration";

/// Image of a host on which a client can be installed at once; made once per content.
pub fn image(kind: Kind) -> Result<String> {
    let ground = ground::ground()?;
    let (name, plain, script) = match kind {
        Kind::Deb => ("teeth-deb", ground.hosts.of(fleet::Kind::Deb), PREPARE_DEB),
        Kind::Rpm => ("teeth-rpm", ground.hosts.of(fleet::Kind::Rpm), PREPARE_RPM),
        Kind::Tar => ("teeth-tar", ground.hosts.of(fleet::Kind::TarDefault), PREPARE_TAR),
    };
    // The key too: an image that trusts another one could not use the site.
    let inputs = [
        &images::packages_dir(),
        &ground.programs.standin_client,
        &ground.www.join("PERCONA-PACKAGING-KEY"),
    ];
    let hash = images::content_hash(
        &inputs.map(std::path::PathBuf::as_path),
        &[plain, &ground.tools.builder, script, FINISH],
    )?;
    let image = format!("{}{name}:{hash}", names::IMAGES);
    let _lock = lock::hold(&format!("image-{name}"))?;
    if !images::exists(&image)? {
        output::step(&format!("preparing {image}"));
        let container = format!("{}-prepare-{name}", names::TEETH);
        let made = make(&container, plain, script, &image);
        drop(docker::attempt(&["rm", "--force", "--volumes", &container]));
        made?;
    }
    Ok(image)
}

fn make(container: &str, plain: &str, script: &str, image: &str) -> Result<()> {
    host::boot(container, "teeth", plain, "127.0.0.1")?;
    docker::exec_must(container, &["sh", "-c", script])?;
    docker::exec_must(container, &["sh", "-c", FINISH])?;
    docker::docker(["commit", container, image]).map(drop)
}

/// Installs PMM client 2.41.2 and sets it up.
pub fn install(container: &str, kind: Kind) -> Result<()> {
    match kind {
        Kind::Deb => docker::exec_must(container, &["dpkg", "--install", "/root/pmm2-client.deb"])?,
        Kind::Rpm => docker::exec_must(container, &["rpm", "--upgrade", "/root/pmm2-client.rpm"])?,
        Kind::Tar => docker::exec_must(container, &["/opt/lab/install-client", "2.41.2"])?,
    };
    docker::exec_must(container, &["sh", "-c", SET_UP, "sh", AGENT_ID]).map(drop)
}
