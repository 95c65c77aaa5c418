//! What the stand-in server and the stand-in client say to each other on the long connection: one JSON object per line.
//!
//! The genuine programs speak gRPC here. Nothing of the product sees this connection, so its form is free; what matters is kept:
//! one connection per client id, state pushed by the server at every change, statuses reported by the client, query buckets that
//! live in memory only.

use serde::{Deserialize, Serialize};

/// The value of the `Upgrade` header of a client's long connection.
pub const UPGRADE: &str = "pmm-agent";
/// Where a PMM 2 client connects.
pub const CONNECT_V2: &str = "/agent.Agent/Connect";
/// Where a PMM 3 client connects.
pub const CONNECT_V3: &str = "/agent.v1.AgentService/Connect";
/// Silence after which either side takes the connection for dead.
pub const DEAD_AFTER_S: u64 = 5;

/// A line from the client.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "t", rename_all = "lowercase")]
pub enum FromClient {
    /// The first line.
    Hello {
        /// The client's id as its configuration has it.
        agent_id: String,
        /// The client's version.
        version: String,
        /// The path of node_exporter in the client's configuration.
        #[serde(default)]
        node_exporter_path: String,
        /// Jobs that this very process runs.
        #[serde(default)]
        jobs: Vec<String>,
    },
    /// A job has ended.
    Job {
        /// The job.
        job_id: String,
        /// Why it failed; empty when it did not.
        error: String,
    },
    /// What the client's children do.
    Status {
        /// One entry per child.
        agents: Vec<AgentStatus>,
    },
    /// Sent each second.
    Ping {},
    /// Query buckets, once per medium resolution.
    Qan {
        /// One entry per query and service.
        buckets: Vec<Bucket>,
    },
}

/// The state of one child of the client.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct AgentStatus {
    /// The child's id.
    pub agent_id: String,
    /// The bare word: `RUNNING`, `WAITING`, `DONE` and so on.
    pub status: String,
    /// The port it listens on, 0 if none.
    #[serde(default)]
    pub listen_port: u32,
    /// The program it was started from.
    #[serde(default)]
    pub process_exec_path: String,
}

/// The queries of one fingerprint of one service in one period.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Bucket {
    /// The query agent that collected it.
    pub agent_id: String,
    /// The service it was collected from.
    #[serde(default)]
    pub service_id: String,
    /// The query's id.
    pub queryid: String,
    /// The query without its literals.
    #[serde(default)]
    pub fingerprint: String,
    /// How often it ran.
    pub num_queries: f64,
    /// How long it ran, in seconds, summed.
    #[serde(default)]
    pub query_time: f64,
    /// When the period began: seconds since the epoch.
    pub period_start: u64,
}

/// A line from the server.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "t", rename_all = "lowercase")]
pub enum FromServer {
    /// What the client shall run; sent at once and at every change.
    State {
        /// The node the client runs on.
        node_id: String,
        /// Its name.
        node_name: String,
        /// The server's version.
        server_version: String,
        /// The metric resolutions in seconds.
        resolution_s: Resolutions,
        /// The children to run.
        agents: Vec<AgentSpec>,
    },
    /// A job to start; sent once.
    Job {
        /// The job.
        job: JobSpec,
    },
    /// The answer to a ping.
    Pong {},
    /// A second connection with the same id has arrived.
    Kicked {},
}

/// A MySQL backup to an S3 bucket (percona/pmm agent/runner/jobs/mysql_backup_job.go).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobSpec {
    /// The job's id.
    pub job_id: String,
    /// Where in the bucket the backup goes: folder and name of the artifact.
    pub artifact: String,
    /// The service's address.
    pub address: String,
    /// Its port.
    pub port: u64,
    /// Its user.
    pub user: String,
    /// That user's password.
    pub password: String,
    /// The bucket's endpoint.
    pub endpoint: String,
    /// The bucket's key.
    pub access_key: String,
    /// That key's secret.
    pub secret_key: String,
    /// The bucket.
    pub bucket: String,
}

/// Metric resolutions in seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resolutions {
    /// High.
    pub hr: u64,
    /// Medium.
    pub mr: u64,
    /// Low.
    pub lr: u64,
}

/// One child that the client shall run.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct AgentSpec {
    /// The child's id.
    pub agent_id: String,
    /// Its type, lower snake: `mysqld_exporter`, `vmagent`, `qan_mysql_slowlog_agent`.
    pub agent_type: String,
    /// The service it watches, empty for node agents.
    #[serde(default)]
    pub service_id: String,
    /// That service's name.
    #[serde(default)]
    pub service_name: String,
    /// That service's custom labels: `standin_idle` means that nobody ever queries it.
    #[serde(default)]
    pub custom_labels: std::collections::BTreeMap<String, String>,
}
