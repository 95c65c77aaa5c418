//! `agent.toml`, written at enrolment, and where everything lies.

use fs_err as fs;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Configuration directory.
pub const CONFIG_DIR: &str = "/etc/pmm-upgrade-agent";
/// State directory, 0700.
pub const STATE_DIR: &str = "/var/lib/pmm-upgrade-agent";

/// `agent.toml`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AgentConfig {
    /// `host:port` of the coordinator's session listener.
    pub coordinator: String,
    /// Labels that groups match on.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
}

impl AgentConfig {
    /// Reads the file.
    pub fn load(paths: &Paths) -> anyhow::Result<Self> {
        let text = fs::read_to_string(paths.agent_toml())?;
        toml::from_str(&text).map_err(|error| anyhow::anyhow!("{}: {error}", paths.agent_toml().display()))
    }

    /// Host name and port of the coordinator.
    pub fn address(&self) -> anyhow::Result<(String, u16)> {
        host_port(&self.coordinator)
    }
}

/// Splits `host:port`.
pub fn host_port(text: &str) -> anyhow::Result<(String, u16)> {
    let (host, port) = text
        .rsplit_once(':')
        .ok_or_else(|| anyhow::anyhow!("`{text}` is not host:port"))?;
    let port = port
        .parse()
        .map_err(|_| anyhow::anyhow!("`{port}` in `{text}` is not a port"))?;
    Ok((host.trim_matches(['[', ']']).to_owned(), port))
}

/// Where the agent keeps what.
#[derive(Clone, Debug)]
pub struct Paths {
    config: PathBuf,
    state: PathBuf,
    saved: &'static str,
}

/// The complete saved set, the one being made, and the one that was replaced.
const SAVED: &str = "saved";
const SAVED_NEW: &str = "saved.new";
const SAVED_OLD: &str = "saved.old";

impl Paths {
    /// From the two directories.
    pub fn new(config: &Path, state: &Path) -> Self {
        Self {
            config: config.to_owned(),
            state: state.to_owned(),
            saved: SAVED,
        }
    }
    /// Configuration.
    pub fn agent_toml(&self) -> PathBuf {
        self.config.join("agent.toml")
    }
    /// Policy.
    pub fn policy_toml(&self) -> PathBuf {
        self.config.join("policy.toml")
    }
    /// State directory.
    pub fn state(&self) -> &Path {
        &self.state
    }
    /// Own private key.
    pub fn key(&self) -> PathBuf {
        self.state.join("identity/key.pem")
    }
    /// Own certificate; its presence means enrolled.
    pub fn certificate(&self) -> PathBuf {
        self.state.join("identity/certificate.pem")
    }
    /// The coordinator's CA.
    pub fn ca(&self) -> PathBuf {
        self.state.join("identity/ca.pem")
    }
    /// Own host id.
    pub fn host_id(&self) -> PathBuf {
        self.state.join("identity/host_id")
    }
    /// Session number and highest epoch.
    pub fn link(&self) -> PathBuf {
        self.state.join("link.json")
    }
    /// Event outbox.
    pub fn outbox(&self) -> PathBuf {
        self.state.join("outbox.jsonl")
    }
    /// Journal of the current order.
    pub fn journal(&self) -> PathBuf {
        self.state.join("journal.jsonl")
    }
    /// Results of finished orders.
    pub fn results(&self) -> PathBuf {
        self.state.join("results.json")
    }
    /// Last inventory, as sent.
    pub fn inventory(&self) -> PathBuf {
        self.state.join("inventory.json")
    }
    /// Local hold; the text is the reason.
    pub fn hold(&self) -> PathBuf {
        self.state.join("hold")
    }
    /// Staged packages and tarballs.
    pub fn stage(&self) -> PathBuf {
        self.state.join("stage")
    }
    /// Where tarballs are unpacked: beside the state directory, which only root may enter, because an installer runs as its tree's owner.
    pub fn unpacked(&self) -> PathBuf {
        let name = self
            .state
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        self.state.with_file_name(format!("{name}-stage"))
    }
    /// What the way back needs.
    pub fn saved(&self) -> PathBuf {
        self.state.join(self.saved)
    }
    /// The same paths with the saved set at the place where a new one is made, beside the complete one.
    pub fn saving(&self) -> Self {
        Self {
            saved: SAVED_NEW,
            ..self.clone()
        }
    }
    /// The saved set that a complete one has replaced, where two names can't be exchanged at once.
    pub fn saved_before(&self) -> PathBuf {
        self.state.join(SAVED_OLD)
    }
    /// Private package manager directories.
    pub fn packages(&self) -> PathBuf {
        self.state.join("packages")
    }
    /// A new key with its certificate, until the coordinator welcomed it; its presence means that it is tried.
    pub fn candidate(&self) -> PathBuf {
        self.state.join("identity/candidate.pem")
    }
    /// How the client was run, and its server's address, before it is repointed or restarted.
    pub fn client_change(&self) -> PathBuf {
        self.state.join("client-change.json")
    }
    /// Bundles for fault finding.
    pub fn bundles(&self) -> PathBuf {
        self.state.join("bundles")
    }
    /// Files from the coordinator, by digest.
    pub fn artifacts(&self) -> PathBuf {
        self.state.join("artifacts")
    }
    /// The update of the agent itself that is under way, or the last one.
    pub fn self_update(&self) -> PathBuf {
        self.state.join("self-update")
    }
    /// The package of the agent that runs, for the way back of its next update.
    pub fn agent_package(&self) -> PathBuf {
        self.state.join("agent-package")
    }
    /// Transactions by name.
    pub fn transactions(&self) -> PathBuf {
        self.state.join("transactions")
    }

    /// Makes the state directory.
    pub fn prepare(&self) -> std::io::Result<()> {
        use std::os::unix::fs::PermissionsExt;
        fs::create_dir_all(&self.state)?;
        fs::set_permissions(&self.state, std::fs::Permissions::from_mode(0o700))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn addresses() {
        assert_eq!(
            host_port("coordinator.lab:9443").unwrap(),
            ("coordinator.lab".to_owned(), 9443)
        );
        assert_eq!(host_port("[::1]:1").unwrap().0, "::1");
        assert!(host_port("coordinator").is_err());
    }
}
