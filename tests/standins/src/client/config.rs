//! `pmm-agent.yaml`: schema, defaults of both majors, precedence of flags over environment over file.

use super::release::Release;
use super::yaml::{self, Node};
use std::collections::BTreeMap;
use std::path::Path;

/// Keys of the `paths` block in the order in which setup writes them, with the place of each under the base directory.
/// (percona/pmm agent/config/config.go)
const PATH_KEYS: [(&str, &str, u32); 17] = [
    ("node_exporter", "exporters/node_exporter", 2),
    ("mysqld_exporter", "exporters/mysqld_exporter", 2),
    ("mongodb_exporter", "exporters/mongodb_exporter", 2),
    ("postgres_exporter", "exporters/postgres_exporter", 2),
    ("proxysql_exporter", "exporters/proxysql_exporter", 2),
    ("rds_exporter", "exporters/rds_exporter", 2),
    ("azure_exporter", "exporters/azure_exporter", 2),
    ("valkey_exporter", "exporters/valkey_exporter", 3),
    ("vmagent", "exporters/vmagent", 2),
    ("nomad", "tools/nomad", 3),
    ("tempdir", "tmp", 2),
    ("pt_summary", "tools/pt-summary", 2),
    ("pt_pg_summary", "tools/pt-pg-summary", 2),
    ("pt_mysql_summary", "tools/pt-mysql-summary", 2),
    ("pt_mongodb_summary", "tools/pt-mongodb-summary", 2),
    ("nomad_data_dir", "data/nomad", 3),
    ("slowlog_file_prefix", "", 2),
];

/// The settings of one client.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Config {
    /// Identity given by the server, empty before setup.
    pub id: String,
    /// Address of the local API.
    pub listen_address: String,
    /// Port of the local API.
    pub listen_port: u16,
    /// `host:port` of the server.
    pub server_address: String,
    /// User name, or `api_key` / `service_token`.
    pub server_username: String,
    /// Password or token.
    pub server_password: String,
    /// No certificate check.
    pub insecure_tls: bool,
    /// Plain HTTP to the server.
    pub without_tls: bool,
    /// The `paths` block, complete after [`Config::fill`].
    pub paths: BTreeMap<String, String>,
    /// First port of the children.
    pub port_min: u16,
    /// Last port of the children.
    pub port_max: u16,
    /// Log level as written.
    pub log_level: String,
    /// Things worth a warning that were found while loading.
    pub warnings: Vec<String>,
}

impl Config {
    /// Reads the file's content; what it does not name stays empty.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, String> {
        let doc = yaml::parse(bytes)?;
        let top = |key: &str| doc.get(key).and_then(Node::text).unwrap_or_default().to_string();
        let sub = |block: &str, key: &str| {
            doc.get(block)
                .and_then(|b| b.get(key))
                .and_then(Node::text)
                .unwrap_or_default()
                .to_string()
        };
        let mut paths = BTreeMap::new();
        if let Some(Node::Map(entries)) = doc.get("paths") {
            for (key, value) in entries {
                paths.insert(key.clone(), value.text().unwrap_or_default().to_string());
            }
        }
        Ok(Self {
            id: top("id"),
            listen_address: top("listen-address"),
            listen_port: number(&top("listen-port"))?,
            server_address: sub("server", "address"),
            server_username: sub("server", "username"),
            server_password: sub("server", "password"),
            insecure_tls: sub("server", "insecure-tls") == "true",
            without_tls: sub("server", "without-tls") == "true",
            paths,
            port_min: number(&sub("ports", "min"))?,
            port_max: number(&sub("ports", "max"))?,
            log_level: top("log-level"),
            warnings: Vec::new(),
        })
    }

    /// Lets `PMM_AGENT_*` variables and then flags win over the file. `get` answers for a name such as `server-address`.
    pub fn override_with(&mut self, get: &dyn Fn(&str) -> Option<String>) -> Result<(), String> {
        let set = |slot: &mut String, name: &str| {
            if let Some(value) = get(name) {
                *slot = value;
            }
        };
        set(&mut self.id, "id");
        set(&mut self.listen_address, "listen-address");
        set(&mut self.server_address, "server-address");
        set(&mut self.server_username, "server-username");
        set(&mut self.server_password, "server-password");
        set(&mut self.log_level, "log-level");
        for (slot, name) in [
            (&mut self.listen_port, "listen-port"),
            (&mut self.port_min, "ports-min"),
            (&mut self.port_max, "ports-max"),
        ] {
            if let Some(value) = get(name) {
                *slot = number(&value)?;
            }
        }
        for (slot, name) in [
            (&mut self.insecure_tls, "server-insecure-tls"),
            (&mut self.without_tls, "server-without-tls"),
        ] {
            if let Some(value) = get(name) {
                *slot = ["1", "true", "t", "yes"].contains(&value.to_ascii_lowercase().as_str());
            }
        }
        let names = PATH_KEYS
            .iter()
            .map(|(key, _, _)| *key)
            .chain(["paths_base", "exporters_base"]);
        for key in names {
            let flag = if key == "paths_base" {
                "paths-base".into()
            } else {
                format!("paths-{}", key.replace('_', "-"))
            };
            if let Some(value) = get(&flag) {
                self.paths.insert(key.into(), value);
            }
        }
        Ok(())
    }

    /// Completes the defaults of a release. PMM 3 strips the id prefix of PMM 2; PMM 2 keeps its buffers in the system's temporary directory.
    pub fn fill(&mut self, release: &Release) {
        if release.is_v3() && self.id.starts_with("/agent_id/") {
            self.warnings
                .push("PMM 2 agent id prefix '/agent_id/' found in the configuration and removed".into());
            self.id = self.id.trim_start_matches("/agent_id/").to_string();
        }
        default(&mut self.listen_address, "127.0.0.1");
        if self.listen_port == 0 {
            self.listen_port = 7777;
        }
        if self.port_min == 0 {
            self.port_min = 42000;
        }
        if self.port_max == 0 {
            self.port_max = 51999;
        }
        if !self.server_address.is_empty() && !self.server_address.contains(':') {
            self.server_address.push_str(":443");
        }
        let base = self
            .paths
            .get("paths_base")
            .filter(|b| !b.is_empty())
            .cloned()
            .unwrap_or_else(|| release.default_base().into());
        self.paths.insert("paths_base".into(), base.clone());
        let exporters = self
            .paths
            .get("exporters_base")
            .filter(|b| !b.is_empty())
            .cloned()
            .unwrap_or_else(|| format!("{base}/exporters"));
        self.paths.insert("exporters_base".into(), exporters.clone());
        for (key, place, since) in PATH_KEYS {
            if since > release.major()
                || place.is_empty()
                || (key == "valkey_exporter" && release.numbers() < (3, 5))
            {
                continue;
            }
            let system_temp = key == "tempdir" && !release.is_v3();
            let fallback = match place.strip_prefix("exporters/") {
                Some(name) => format!("{exporters}/{name}"),
                None if system_temp => "/tmp".into(),
                None => format!("{base}/{place}"),
            };
            let slot = self.paths.entry(key.into()).or_default();
            if slot.is_empty() {
                *slot = fallback;
            } else if !slot.starts_with('/') {
                *slot = format!(
                    "{}/{slot}",
                    if place.starts_with("exporters/") {
                        &exporters
                    } else {
                        &base
                    }
                );
            }
        }
    }

    /// A path of the `paths` block.
    pub fn path(&self, key: &str) -> &str {
        self.paths.get(key).map_or("", String::as_str)
    }

    /// True once the client has an identity and a server.
    pub fn is_set_up(&self) -> bool {
        !self.id.is_empty() && !self.server_address.is_empty()
    }

    /// The file as setup writes it: every path in full.
    pub fn to_yaml(&self) -> String {
        let mut out = String::from("# Updated by `pmm-agent setup`.\n---\n");
        let line = |key: &str, value: &str| format!("{key}: {}\n", yaml::scalar(value));
        out.push_str(&line("id", &self.id));
        out.push_str(&line("listen-address", &self.listen_address));
        out.push_str(&format!("listen-port: {}\nserver:\n", self.listen_port));
        out.push_str(&format!("    {}", line("address", &self.server_address)));
        out.push_str(&format!("    {}", line("username", &self.server_username)));
        out.push_str(&format!("    {}", line("password", &self.server_password)));
        if self.insecure_tls {
            out.push_str("    insecure-tls: true\n");
        }
        if self.without_tls {
            out.push_str("    without-tls: true\n");
        }
        out.push_str("paths:\n");
        let order = ["paths_base", "exporters_base"]
            .into_iter()
            .chain(PATH_KEYS.iter().map(|(key, _, _)| *key));
        for key in order {
            if let Some(value) = self.paths.get(key).filter(|v| !v.is_empty()) {
                out.push_str(&format!("    {}", line(key, value)));
            }
        }
        out.push_str(&format!(
            "ports:\n    min: {}\n    max: {}\n",
            self.port_min, self.port_max
        ));
        if !self.log_level.is_empty() {
            out.push_str(&line("log-level", &self.log_level));
        }
        out.push_str("debug: false\ntrace: false\nloglinescount: 1024\nwindow-connected-time: 1h0m0s\n");
        out
    }

    /// Writes the file, keeping the mode of one that exists.
    pub fn save(&self, path: &Path) -> Result<(), String> {
        use std::os::unix::fs::OpenOptionsExt;
        let mut file = std::fs::OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o640)
            .open(path)
            .map_err(|e| format!("open {}: {e}", path.display()))?;
        std::io::Write::write_all(&mut file, self.to_yaml().as_bytes())
            .map_err(|e| format!("write {}: {e}", path.display()))
    }
}

fn default(slot: &mut String, value: &str) {
    if slot.is_empty() {
        *slot = value.into();
    }
}

fn number(text: &str) -> Result<u16, String> {
    if text.is_empty() {
        Ok(0)
    } else {
        text.parse()
            .map_err(|_| format!("cannot read {text:?} as a port"))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn release(version: &str) -> Release {
        Release::plain(version)
    }

    #[test]
    fn setup_pins_every_path_to_the_release_that_wrote_it() {
        let mut old = Config {
            id: "/agent_id/a".into(),
            server_address: "pmm.lab".into(),
            ..Config::default()
        };
        old.fill(&release("2.41.2"));
        assert_eq!(old.server_address, "pmm.lab:443");
        assert_eq!((old.path("tempdir"), old.path("nomad")), ("/tmp", ""));
        let mut new = Config::from_bytes(old.to_yaml().as_bytes()).unwrap();
        new.fill(&release("3.9.1"));
        assert_eq!(new.id, "a");
        assert_eq!(new.warnings.len(), 1);
        assert_eq!(
            new.path("node_exporter"),
            "/usr/local/percona/pmm2/exporters/node_exporter"
        );
        assert_eq!(new.path("nomad"), "/usr/local/percona/pmm2/tools/nomad");
        assert_eq!(new.path("tempdir"), "/tmp");
    }

    #[test]
    fn without_paths_the_release_decides() {
        let mut config = Config::from_bytes(b"id: a\nserver:\n    address: h:443\n").unwrap();
        config.fill(&release("3.9.1"));
        assert_eq!(config.path("vmagent"), "/usr/local/percona/pmm/exporters/vmagent");
        assert_eq!(config.path("tempdir"), "/usr/local/percona/pmm/tmp");
        let mut early = Config::default();
        early.fill(&release("3.2.0"));
        assert_eq!(early.path("valkey_exporter"), "");
        assert!(!early.is_set_up());
    }

    #[test]
    fn environment_wins_over_the_file() {
        let mut config = Config::from_bytes(b"id: a\nlisten-port: 7777\n").unwrap();
        config
            .override_with(&|name| (name == "listen-port").then(|| "7778".to_string()))
            .unwrap();
        assert_eq!(config.listen_port, 7778);
    }
}
