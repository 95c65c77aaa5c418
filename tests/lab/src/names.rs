//! Names and ports of everything the lab creates. All of them carry the prefix, so that `down` finds them.

/// Prefix of containers, volumes and the network.
pub const PREFIX: &str = "fleetlab-";
/// Prefix of what the suite `teeth` creates.
pub const TEETH: &str = "fleetlab-teeth";
/// Prefix of images the lab builds; they stay as a cache until `down --images`.
pub const IMAGES: &str = "fleetlab/";
/// The network of the hosts, the repository and the PMM Server.
pub const NETWORK: &str = "fleetlab-net";
/// A second network of the PMM Server: it must survive the re-creation.
pub const BACKUP_NETWORK: &str = "fleetlab-backup-net";
/// The PMM Server's container.
pub const PMM: &str = "fleetlab-pmm-server";
/// The PMM Server's volume.
pub const PMM_VOLUME: &str = "fleetlab-pmm-data";
/// A volume that the bad-volume scenario slips under the new container; as long as the real one's name, so that the proxy can keep the lie.
pub const EMPTY_VOLUME: &str = "fleetlab-pmm-void";
/// Another name of the PMM Server's container on the hosts' network.
pub const PMM_ALIAS: &str = "pmm-server";
/// The registry's container.
pub const REGISTRY: &str = "fleetlab-registry";
/// The repository's container: apt, dnf, tarballs; also the place to run curl from.
pub const REPO: &str = "fleetlab-repo";
/// Registry port on loopback.
pub const REGISTRY_PORT: u16 = 5055;
/// Published HTTPS port of the PMM Server.
pub const PMM_PORT: u16 = 28443;
/// Published HTTP port of the PMM Server.
pub const PMM_HTTP_PORT: u16 = 28080;
/// Session port of the coordinator.
pub const SESSION_PORT: u16 = 29443;
/// Enrolment port of the coordinator.
pub const ENROL_PORT: u16 = 29444;

/// Image repository that the coordinator pulls the PMM Server from.
pub fn image_repository() -> String {
    format!("127.0.0.1:{REGISTRY_PORT}/percona/pmm-server")
}

/// Container name of a host.
pub fn host(name: &str) -> String {
    format!("{PREFIX}{name}")
}

/// First three numbers of the hosts' network.
pub const SUBNET: &str = "172.31.78";
/// This machine as the hosts see it: PMM's published port and the coordinator.
pub const GATEWAY: &str = "172.31.78.1";
/// Static address of the PMM Server; far from those that Docker gives by itself.
pub const PMM_IP: &str = "172.31.78.200";
/// Address of the repository.
pub const REPO_IP: &str = "172.31.78.10";
