//! What the threads of `pmm-agent` know together.

use crate::client::config::Config;
use crate::client::flags::Flags;
use crate::client::http::{Endpoint, authorization};
use crate::client::release::Release;
use crate::client::{clock, out};
use crate::wire::{AgentSpec, Bucket, Resolutions};
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// State of one child or built-in agent.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AgentInfo {
    /// What the server asked for.
    pub agent_id: String,
    /// Lower snake type.
    pub agent_type: String,
    /// `RUNNING`, `WAITING` and so on.
    pub status: String,
    /// Port, 0 for none.
    pub port: u16,
    /// Program that runs, empty for built-in agents.
    pub exec_path: String,
}

/// The state of the connection to the server.
#[derive(Debug, Clone, Default)]
pub struct Link {
    /// True between the first state message and the loss of the connection.
    pub connected: bool,
    /// Node that the server says this is.
    pub node_id: String,
    /// Its name.
    pub node_name: String,
    /// Version of the server.
    pub server_version: String,
    /// Round trip of the last ping in nanoseconds.
    pub latency_ns: u64,
}

/// Everything that changes.
#[derive(Debug)]
pub struct Inner {
    /// Settings in force.
    pub config: Config,
    /// Rises at each reload.
    pub generation: u64,
    /// Connection state.
    pub link: Link,
    /// What the server wants to run; `None` before the first word from it.
    pub desired: Option<Vec<AgentSpec>>,
    /// Node of the last state message; survives the loss of the connection, for labels.
    pub node: (String, String),
    /// Metric resolutions.
    pub resolutions: Resolutions,
    /// What runs.
    pub agents: BTreeMap<String, AgentInfo>,
    /// Query buckets that wait for the connection; in memory only.
    pub buckets: Vec<Bucket>,
    /// Jobs that run.
    pub jobs: BTreeSet<String>,
    /// Jobs that ended, and why if they failed; wait for the connection.
    pub ended_jobs: Vec<(String, String)>,
    started_ms: u64,
    connected_since: Option<u64>,
    connected_ms: u64,
}

/// The shared state and the constants of the process.
#[derive(Debug)]
pub struct Shared {
    /// Release this process plays.
    pub release: Release,
    /// Command line, for reloads.
    pub flags: Flags,
    /// Configuration file, if any.
    pub file: Option<PathBuf>,
    inner: Mutex<Inner>,
}

impl Shared {
    /// A process that has just started.
    pub fn new(release: Release, flags: Flags, file: Option<PathBuf>, config: Config) -> Self {
        for warning in &config.warnings {
            out::log("WARN", "main", warning);
        }
        let inner = Inner {
            config,
            generation: 0,
            link: Link::default(),
            desired: None,
            node: Default::default(),
            resolutions: Resolutions {
                hr: 5,
                mr: 10,
                lr: 60,
            },
            agents: BTreeMap::new(),
            buckets: Vec::new(),
            jobs: BTreeSet::new(),
            ended_jobs: Vec::new(),
            started_ms: clock::unix_ms(),
            connected_since: None,
            connected_ms: 0,
        };
        Self {
            release,
            flags,
            file,
            inner: Mutex::new(inner),
        }
    }

    /// Locks the state.
    pub fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads the configuration again; everything that runs is stopped and started anew.
    pub fn reload(&self) -> Result<(), String> {
        let (config, _) = super::load(&self.release, &self.flags)?;
        if !config.is_set_up() {
            return Err("pmm-agent is not set up".into());
        }
        for warning in &config.warnings {
            out::log("WARN", "main", warning);
        }
        let mut inner = self.lock();
        inner.config = config;
        inner.generation += 1;
        inner.desired = None;
        inner.set_disconnected();
        Ok(())
    }

    /// Server address and credentials of the settings in force.
    pub fn endpoint(&self) -> Option<Endpoint> {
        let inner = self.lock();
        endpoint(&inner.config, self.release.is_v3())
    }
}

/// Where a configuration points.
pub fn endpoint(config: &Config, v3: bool) -> Option<Endpoint> {
    if !config.is_set_up() {
        return None;
    }
    let (host, port) = config.server_address.rsplit_once(':')?;
    Some(Endpoint {
        host: host.to_string(),
        port: port.parse().ok()?,
        tls: !config.without_tls,
        insecure: config.insecure_tls,
        authorization: authorization(&config.server_username, &config.server_password, v3),
    })
}

impl Inner {
    /// Notes that the server talks to us.
    pub fn set_connected(&mut self) {
        if !self.link.connected {
            self.link.connected = true;
            self.connected_since = Some(clock::unix_ms());
        }
    }

    /// Notes that it no longer does. What runs keeps running.
    pub fn set_disconnected(&mut self) {
        if let Some(since) = self.connected_since.take() {
            self.connected_ms += clock::unix_ms().saturating_sub(since);
        }
        self.link = Link::default();
    }

    /// Percentage of the process's life during which it was connected.
    #[allow(clippy::cast_precision_loss)]
    pub fn uptime_percent(&self) -> f64 {
        let now = clock::unix_ms();
        let connected = self.connected_ms + self.connected_since.map_or(0, |since| now.saturating_sub(since));
        let whole = now.saturating_sub(self.started_ms).max(1);
        ((connected as f64 / whole as f64) * 10_000.0)
            .round()
            .clamp(0.0, 10_000.0)
            / 100.0
    }
}
