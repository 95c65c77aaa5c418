//! What a host says about itself. Travels as JSON bytes; the agent sends the whole only when its digest is new.

use crate::version::PmmVersion;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// How a PMM client came onto a host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Method {
    /// Debian package `pmm2-client` or `pmm-client`.
    Deb,
    /// RPM package `pmm2-client` or `pmm-client`.
    Rpm,
    /// Binary tarball with `install_tarball`.
    Tarball,
}

impl Method {
    /// The word used on screens and in reports.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Deb => "deb",
            Self::Rpm => "rpm",
            Self::Tarball => "tarball",
        }
    }
}

impl std::fmt::Display for Method {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.as_str())
    }
}

/// A host as its agent sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Inventory {
    /// `hostname`.
    pub hostname: String,
    /// `ID` of os-release, such as `debian`.
    pub os_id: String,
    /// `VERSION_ID` of os-release.
    pub os_version: String,
    /// `VERSION_CODENAME` of os-release, empty where there is none.
    pub os_codename: String,
    /// Machine architecture, such as `x86_64`.
    pub arch: String,
    /// What shows that a PMM Server runs on this host, in a container or otherwise; `None` where nothing does. Its host is in no client wave.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pmm_server: Option<String>,
    /// Release of our agent.
    pub agent_version: String,
    /// Labels from the agent's own configuration; groups match on them.
    pub labels: BTreeMap<String, String>,
    /// Local hold and its reason.
    pub held: Option<String>,
    /// The PMM client on this host.
    pub client: Detection,
}

/// What detection concluded. Detection is evidence, not a guess: every variant carries what it rests on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "detection", rename_all = "snake_case")]
pub enum Detection {
    /// One installation that we can upgrade.
    Installed(Box<Installation>),
    /// No sign of a PMM client.
    NotInstalled,
    /// Something is there that we don't touch, with the reason.
    Refused {
        /// One of [`crate::codes`].
        code: String,
        /// What was found and why it is refused.
        message: String,
        /// The single observations.
        evidence: Vec<String>,
    },
}

/// How the client is run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum RunKind {
    /// By systemd.
    Systemd {
        /// Unit name, such as `pmm-agent.service`.
        unit: String,
        /// Whether the unit is enabled.
        enabled: bool,
    },
    /// Started by hand (nohup and the like).
    ByHand {
        /// The account it runs as.
        user: String,
    },
    /// Installed but not running.
    Stopped,
}

/// One PMM client installation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Installation {
    /// How it was installed.
    pub method: Method,
    /// Package name; `None` for tarballs.
    pub package: Option<String>,
    /// Full package version such as `2.41.2-6.bookworm`; `None` for tarballs.
    pub package_version: Option<String>,
    /// PMM release of the files on disk.
    pub version: PmmVersion,
    /// PMM release of the running process, `None` when it is not running.
    pub running_version: Option<PmmVersion>,
    /// Base directory such as `/usr/local/percona/pmm2`.
    pub base_dir: String,
    /// The configuration file that is in use.
    pub config_file: String,
    /// Whether the configuration holds an identity.
    pub configured: bool,
    /// How it is run.
    pub run: RunKind,
    /// Account of the running process or of the files.
    pub user: String,
    /// PMM agent id without prefix; empty when not configured.
    pub agent_id: String,
    /// PMM node id without prefix, as the client reports it; may be empty.
    pub node_id: String,
    /// Host and port of the PMM Server in the client's configuration, without credentials.
    pub server_address: String,
    /// What the host of `server_address` resolves to on this machine, sorted; empty when that is not known.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub server_ips: Vec<std::net::IpAddr>,
    /// What the client says of its connection; a hint, not proof.
    pub connected: Option<bool>,
    /// `api_key`, `service_token`, `password` or `none`. Never the secret itself.
    pub credential: String,
    /// Exporters by agent id (prefix removed): type and status.
    pub exporters: BTreeMap<String, ExporterState>,
    /// The single observations.
    pub evidence: Vec<String>,
}

/// What PMM calls an agent other than `pmm-agent`: a child of the client that gathers metrics or queries.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExporterState {
    /// Lower-case type without prefix, such as `mysqld_exporter`.
    pub exporter_type: String,
    /// Lower-case status without prefix, such as `running`.
    pub status: String,
}

impl Inventory {
    /// The installation, if there is one that we can upgrade.
    pub fn installation(&self) -> Option<&Installation> {
        match &self.client {
            Detection::Installed(installation) => Some(installation),
            Detection::NotInstalled | Detection::Refused { .. } => None,
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn an_older_agent_does_not_tell_of_a_pmm_server() {
        let text = r#"{"hostname": "h", "os_id": "debian", "os_version": "12", "os_codename": "", "arch": "x86_64",
            "agent_version": "0", "labels": {}, "held": null, "client": {"detection": "not_installed"}}"#;
        let mut inventory: Inventory = serde_json::from_str(text).unwrap();
        assert_eq!(inventory.pmm_server, None);
        assert!(!serde_json::to_string(&inventory).unwrap().contains("pmm_server"));
        inventory.pmm_server = Some("pmm-managed runs in a container".to_owned());
        let text = serde_json::to_string(&inventory).unwrap();
        assert_eq!(serde_json::from_str::<Inventory>(&text).unwrap(), inventory);
    }

    #[test]
    fn every_kind_of_run_survives_the_wire() {
        let kinds = [
            RunKind::Systemd {
                unit: "pmm-agent.service".into(),
                enabled: true,
            },
            RunKind::ByHand { user: "dba".into() },
            RunKind::Stopped,
        ];
        for run in kinds {
            let installation = Installation {
                method: Method::Tarball,
                package: None,
                package_version: None,
                version: PmmVersion::new(2, 41, 2),
                running_version: None,
                base_dir: "/home/dba/pmm2".into(),
                config_file: "/home/dba/pmm2/config/pmm-agent.yaml".into(),
                configured: true,
                run,
                user: "dba".into(),
                agent_id: "a".into(),
                node_id: "n".into(),
                server_address: "pmm:443".into(),
                server_ips: vec![std::net::IpAddr::from([172, 18, 0, 2])],
                connected: Some(true),
                credential: "password".into(),
                exporters: BTreeMap::new(),
                evidence: Vec::new(),
            };
            let detection = Detection::Installed(Box::new(installation));
            let text = serde_json::to_string(&detection).unwrap();
            assert_eq!(
                serde_json::from_str::<Detection>(&text).unwrap(),
                detection,
                "{text}"
            );
        }
    }
}
