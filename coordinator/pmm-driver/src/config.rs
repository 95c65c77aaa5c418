//! What the driver is told about one PMM Server.

use std::path::PathBuf;
use std::time::Duration;

/// One PMM Server.
#[derive(Clone, Debug)]
pub struct ServerConfig {
    /// Name on screens; `server` unless the fleet file names it.
    pub name: String,
    /// Where clients and we reach it, such as `https://pmm.example.com`.
    pub url: String,
    /// File with `user:password` or a token, mode 0600.
    pub credential_file: PathBuf,
    /// How its certificate is checked.
    pub trust: Trust,
    /// Docker endpoint, `unix:///var/run/docker.sock`.
    pub docker_endpoint: String,
    /// Name of its container.
    pub container: String,
    /// Repository of the PMM Server images without tag, such as `percona/pmm-server`.
    pub image_repository: String,
    /// Our static volume helper on this machine's disk.
    pub helper: PathBuf,
    /// Longest waits.
    pub deadlines: Deadlines,
}

/// How the PMM Server's certificate is checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Trust {
    /// Signed by a CA in this PEM file.
    CaFile(PathBuf),
    /// The certificate with this SHA-256, hex, `sha256:` in front allowed.
    Fingerprint(String),
    /// Signed by a CA that this machine trusts.
    System,
}

/// Longest waits of the hop. Every wait has one; none is ever infinite.
#[derive(Clone, Debug)]
pub struct Deadlines {
    /// Steps that only ask or rename.
    pub quick: Duration,
    /// Stopping the services and the container. PMM's supervisor gives PostgreSQL and ClickHouse 300 s each (percona/pmm, `pmm.ini`).
    pub stop: Duration,
    /// Pulling an image of about 2.6 GB.
    pub pull: Duration,
    /// Copying, changing owners and restoring, on top of `per_gib` for each GiB of data.
    pub volume: Duration,
    /// Added to `volume` and `migration` for each GiB of data.
    pub per_gib: Duration,
    /// Waiting for PMM's migration, on top of `per_gib`. Health is red from about 20 s into a migration, so nothing shorter makes sense.
    pub migration: Duration,
    /// Following PMM 2's update API.
    pub api_update: Duration,
    /// Clients that come back after the publication, on top of `per_hundred_clients`. Hundreds at once can exhaust PMM's database
    /// connections (percona/pmm PR #5338).
    pub settle: Duration,
    /// Added to `settle` for each hundred clients.
    pub per_hundred_clients: Duration,
    /// Pause between two looks.
    pub poll: Duration,
}

impl Default for Deadlines {
    fn default() -> Self {
        Self {
            quick: Duration::from_secs(120),
            stop: Duration::from_secs(900),
            pull: Duration::from_secs(3600),
            volume: Duration::from_secs(1800),
            per_gib: Duration::from_secs(60),
            migration: Duration::from_secs(1800),
            api_update: Duration::from_secs(2700),
            settle: Duration::from_secs(300),
            per_hundred_clients: Duration::from_secs(60),
            poll: Duration::from_millis(500),
        }
    }
}

impl Deadlines {
    /// The volume deadline for this much data.
    pub fn volume_for(&self, bytes: u64) -> Duration {
        self.volume + self.scaled(bytes)
    }
    /// The migration deadline for this much data.
    pub fn migration_for(&self, bytes: u64) -> Duration {
        self.migration + self.scaled(bytes)
    }
    /// The settle deadline for this many clients.
    pub fn settle_for(&self, clients: usize) -> Duration {
        let hundreds = u32::try_from(clients.div_ceil(100)).unwrap_or(u32::MAX);
        self.settle
            .saturating_add(self.per_hundred_clients.saturating_mul(hundreds))
    }

    fn scaled(&self, bytes: u64) -> Duration {
        let gib = u32::try_from(bytes >> 30).unwrap_or(u32::MAX);
        self.per_gib.saturating_mul(gib)
    }
}
