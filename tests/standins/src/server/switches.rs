//! How a test makes the stand-in slow or broken: `/etc/standin/switches.toml`, put there by a derived image, by `docker cp` or by a mount.
//!
//! A file, not environment variables, because the product translates those. It is read again at each use, so that a test can flip a switch
//! in a running container.

use serde::Deserialize;

/// Where the switches are.
pub const PATH: &str = "/etc/standin/switches.toml";

/// The switches; each has the value of a well-behaved server.
#[derive(Debug, Clone, Deserialize)]
#[serde(default)]
pub struct Switches {
    /// How long the schema migration takes, in seconds.
    pub migration_seconds: f64,
    /// How long PostgreSQL and ClickHouse take to stop, in seconds.
    pub slow_stop_seconds: f64,
    /// The step that fails: `migrate_db`, `qan_dirty`, `init_crash`, `dashboards`, `grafana_db`, `fk`, `update`, `update_halfway`, `crash_loop`.
    pub fail_at: String,
    /// For how long after a migration authenticated requests are answered 401 and 500 two times out of three.
    pub reconnect_storm_seconds: u64,
    /// Clients (id, node name or `*`) that are shown as not connected although they are.
    pub connected_lie: Vec<String>,
    /// Clients (id, node name or `*`) whose connection the server silently drops and does not take again.
    pub silent_drop: Vec<String>,
    /// Clients (id or node name) that lose their rows in the migration.
    pub lose_agents: Vec<String>,
    /// Services (name) whose query history is lost in the migration.
    pub lose_qan: bool,
    /// Whether samples from before the migration are lost.
    pub lose_metrics: bool,
    /// How long a 2.x update through the API takes, in seconds.
    pub update_seconds: f64,
    /// The version that the 2.x update check calls the latest.
    pub latest_v2: String,
    /// API keys (name) that cannot become service accounts.
    pub bad_keys: Vec<String>,
    /// Id of Grafana's administrator in a new installation: not 1 in some old ones (PMM-12576).
    pub admin_id: u64,
}

impl Default for Switches {
    fn default() -> Self {
        Self {
            migration_seconds: 6.0,
            slow_stop_seconds: 1.0,
            fail_at: String::new(),
            reconnect_storm_seconds: 0,
            connected_lie: Vec::new(),
            silent_drop: Vec::new(),
            lose_agents: Vec::new(),
            lose_qan: false,
            lose_metrics: false,
            update_seconds: 6.0,
            latest_v2: "2.44.1".to_owned(),
            bad_keys: Vec::new(),
            admin_id: 1,
        }
    }
}

impl Switches {
    /// Reads the switches; without the file, or with a broken one, the server behaves well.
    pub fn now() -> Self {
        std::fs::read_to_string(PATH)
            .ok()
            .and_then(|text| toml::from_str(&text).ok())
            .unwrap_or_default()
    }

    /// Whether a step is to fail.
    pub fn fails(step: &str) -> bool {
        Self::now().fail_at.split(',').any(|s| s.trim() == step)
    }
}

/// Whether a list names one of the names, or everything.
pub fn names(list: &[String], names: &[&str]) -> bool {
    list.iter()
        .any(|entry| entry == "*" || names.iter().any(|name| !name.is_empty() && entry == name))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn unset_switches_keep_their_defaults() {
        let s: Switches = toml::from_str("migration_seconds = 30\nconnected_lie = [\"*\"]").unwrap();
        assert!((s.migration_seconds - 30.0).abs() < f64::EPSILON);
        assert_eq!(s.latest_v2, "2.44.1");
        assert!(names(&s.connected_lie, &["db1"]));
        assert!(!names(&s.silent_drop, &["db1"]));
    }
}
