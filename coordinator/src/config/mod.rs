//! Where things lie, and every constant with its arithmetic.

use std::path::{Path, PathBuf};
use std::time::Duration;

pub mod permissions;

/// Default data directory.
pub const DEFAULT_DATA: &str = "/var/lib/pmm-coordinator";

/// The coordinator's data directory: mode 0700, everything the coordinator knows is in it.
#[derive(Clone, Debug)]
pub struct DataDir(PathBuf);

impl DataDir {
    /// Wraps a path without looking at it.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self(path.into())
    }
    /// The directory itself.
    pub fn path(&self) -> &Path {
        &self.0
    }
    /// The SQLite store.
    pub fn store(&self) -> PathBuf {
        self.0.join("store.sqlite")
    }
    /// Held by the one running `serve`.
    pub fn lock(&self) -> PathBuf {
        self.0.join("lock")
    }
    /// The operator socket.
    pub fn socket(&self) -> PathBuf {
        self.0.join("operator.sock")
    }
    /// Directory of keys and certificates.
    pub fn pki(&self) -> PathBuf {
        self.0.join("pki")
    }
    /// CA certificate, PEM.
    pub fn ca_certificate(&self) -> PathBuf {
        self.pki().join("ca.pem")
    }
    /// CA key, PEM, 0600.
    pub fn ca_key(&self) -> PathBuf {
        self.pki().join("ca.key")
    }
    /// Server chain (leaf, CA), PEM.
    pub fn server_chain(&self) -> PathBuf {
        self.pki().join("server.pem")
    }
    /// Server key, PEM, 0600.
    pub fn server_key(&self) -> PathBuf {
        self.pki().join("server.key")
    }
    /// Names in the server certificate, one a line; `serve` renews the certificate from them.
    pub fn server_names(&self) -> PathBuf {
        self.pki().join("names")
    }
    /// Files that agents may fetch by digest.
    pub fn artifacts(&self) -> PathBuf {
        self.0.join("artifacts")
    }
    /// Journal of the server driver.
    pub fn server_journal(&self) -> PathBuf {
        self.0.join("server")
    }
}

/// A handshake that takes longer is dropped.
pub const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// Handshakes under way at once. About 0.5 ms of CPU each, so 48 are at most 24 ms of queue on one core; the limit bounds memory, not rate.
pub const HANDSHAKES_AT_ONCE: usize = 48;
/// The same for strangers on the enrolment listener, so that they never compete with the fleet.
pub const ENROL_HANDSHAKES_AT_ONCE: usize = 8;
/// Connections that wait in the kernel. A restart brings the whole fleet back at once.
pub const BACKLOG: i32 = 4096;
/// HTTP/2 credit of one stream and of one connection. Set explicitly: the defaults are 1 MiB, which ten thousand stuck agents could
/// make us buffer.
pub const STREAM_WINDOW: u32 = 64 * 1024;
/// See [`STREAM_WINDOW`].
pub const CONNECTION_WINDOW: u32 = 128 * 1024;
/// One session stream and a few short calls.
pub const STREAMS_PER_CONNECTION: u32 = 8;
/// Largest HTTP/2 frame we take.
pub const FRAME_SIZE: u32 = 16 * 1024;
/// Largest header list we take.
pub const HEADER_LIST: u32 = 8 * 1024;
/// Largest message we take from an agent: an inventory with a few hundred exporters is about 60 KB.
pub const MESSAGE_LIMIT: usize = 256 * 1024;
/// Liveness of idle sessions: a dead peer is noticed after at most 30 + 20 s.
pub const KEEPALIVE: Duration = Duration::from_secs(30);
/// See [`KEEPALIVE`].
pub const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(20);
/// The first message of a session must come within this time.
pub const HELLO_TIMEOUT: Duration = Duration::from_secs(10);
/// Messages that wait for one slow agent before its session is dropped; the store holds the state anyway.
pub const OUTBOX: usize = 32;
/// Messages from all agents and operators that wait for the engine; senders wait when it is full.
pub const ENGINE_QUEUE: usize = 4096;
/// Inputs the engine decides on before it commits once.
pub const ENGINE_BATCH: usize = 256;
/// Longest wait of an agent between two attempts, up to 10,000 hosts.
pub const RECONNECT_CAP_MS: u64 = 20_000;
/// Spread of the first attempt after a clean close: 10,000 hosts in 5 s are 2,000 handshakes/s, about one core.
pub const RECONNECT_SPREAD_MS: u64 = 5_000;
/// One message of a download; what the contract allows.
pub const ARTIFACT_CHUNK: usize = 64 * 1024;
/// Downloads at once: eight with four chunks each are 2 MiB, and eight readers keep any disk and network busy.
pub const DOWNLOADS_AT_ONCE: usize = 8;
/// A peer that takes no chunk within this time gives its place to others.
pub const ARTIFACT_CHUNK_TIMEOUT: Duration = Duration::from_secs(30);
/// Unknown digests make us look at the directory at most this often.
pub const ARTIFACTS_LOOK: Duration = Duration::from_secs(2);
/// Largest file: what an agent takes, see `fleet_common::agent_release::MOST_BYTES`.
pub const ARTIFACT_LIMIT: u64 = fleet_common::agent_release::MOST_BYTES;
/// A stale Hello whose sender is still connected after this time is a second machine. A machine that gave up on a connection has closed
/// it, and the close follows the Hello on the same wire: at most a few retransmissions later.
pub const FORK_PROOF: Duration = Duration::from_secs(3);
/// How often the files of the server certificate are looked at; three `stat` calls.
pub const TLS_LOOK: Duration = Duration::from_secs(2);
/// How often it is asked whether the server certificate is due: a third of its time is left then, so an hour more or less is nothing.
pub const TLS_RENEWAL_LOOK: Duration = Duration::from_secs(3600);
/// How long a refused machine stays away.
pub const REFUSED_RETRY_MS: u64 = 60_000;
/// How long an agent stays away that a restored store can't let in: as long as between two of its own attempts, so that the fleet is back
/// within the time that the kernel waits for it after the adoption.
pub const RESTORED_RETRY_MS: u64 = RECONNECT_CAP_MS;
/// The engine looks at its timers this often.
pub const TICK: Duration = Duration::from_millis(500);
/// At most five frames a second for each viewer.
pub const WATCH_INTERVAL: Duration = Duration::from_millis(200);
