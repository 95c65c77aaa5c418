//! The host's own policy. It wins over the coordinator.

use crate::facts::Mixed;
use fleet_common::inventory::Method;
use fleet_common::order::{Action, Outcome};
use fleet_common::plan_entry::PlanEntry;
use fleet_common::version::PmmVersion;
use serde::Deserialize;

/// `/etc/pmm-upgrade-agent/policy.toml`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Policy {
    /// Products that may be touched; `pmm-client` is the only one there is.
    pub products: Vec<String>,
    /// Install methods that may be switched.
    pub methods: Vec<Method>,
    /// Lowest release that may be installed.
    pub min_version: Option<PmmVersion>,
    /// Highest release that may be installed.
    pub max_version: Option<PmmVersion>,
    /// Roots below which packages and tarballs may be fetched.
    pub sources: Vec<String>,
    /// Directories below which a tarball may be replaced; `*` allows any.
    pub directories: Vec<String>,
    /// What to do with a package and a tarball on one host.
    pub mixed: MixedPolicy,
    /// Whether `keep` may write a repository file.
    pub write_repository: bool,
    /// Key that signs the apt repository.
    pub apt_keyring: String,
    /// Key that signs the RPMs.
    pub rpm_key: String,
    /// Addresses (`host:port`) of PMM Servers that a `repoint` may write although their host is another one.
    pub server_addresses: Vec<String>,
    /// Public minisign keys (base64) that may sign releases of our own agent. None: the agent is never replaced from outside.
    pub agent_keys: Vec<String>,
}

/// See [`Mixed`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MixedPolicy {
    /// Report and refuse.
    #[default]
    Refuse,
    /// The package wins.
    Package,
    /// The tarball wins.
    Tarball,
}

impl From<MixedPolicy> for Mixed {
    fn from(policy: MixedPolicy) -> Self {
        match policy {
            MixedPolicy::Refuse => Self::Refuse,
            MixedPolicy::Package => Self::Package,
            MixedPolicy::Tarball => Self::Tarball,
        }
    }
}

impl Default for Policy {
    /// Percona's own sites, the client only, any directory that detection finds, and the key files that `percona-release` installs.
    fn default() -> Self {
        Self {
            products: vec!["pmm-client".into()],
            methods: vec![Method::Deb, Method::Rpm, Method::Tarball],
            min_version: None,
            max_version: None,
            sources: [
                "http://repo.percona.com",
                "https://repo.percona.com",
                "https://downloads.percona.com/downloads",
            ]
            .map(str::to_owned)
            .to_vec(),
            directories: vec!["*".into()],
            mixed: MixedPolicy::Refuse,
            write_repository: true,
            apt_keyring: "/usr/share/keyrings/percona-keyring.gpg".into(),
            rpm_key: "/etc/pki/rpm-gpg/PERCONA-PACKAGING-KEY".into(),
            server_addresses: Vec::new(),
            agent_keys: Vec::new(),
        }
    }
}

impl Policy {
    /// Why the client may not be touched at all; `None` when it may.
    pub fn client_refusal(&self) -> Option<String> {
        let listed = self.products.iter().any(|product| product == "pmm-client");
        (!listed).then(|| "the policy does not list the product pmm-client".into())
    }

    /// Why an order is not allowed; `None` when it is.
    pub fn refusal(&self, entry: &PlanEntry) -> Option<String> {
        if let Some(reason) = self.client_refusal() {
            return Some(reason);
        }
        if !self.methods.contains(&entry.expect.method) {
            return Some(format!(
                "the policy does not allow method {}",
                entry.expect.method
            ));
        }
        if self.min_version.is_some_and(|min| entry.to < min)
            || self.max_version.is_some_and(|max| entry.to > max)
        {
            return Some(format!("the policy does not allow release {}", entry.to));
        }
        let url = match entry.expect.method {
            Method::Deb | Method::Rpm => &entry.source.repository_url,
            Method::Tarball => &entry.source.tarball_url,
        };
        if !self.sources.iter().any(|root| below(url, root)) {
            return Some(format!("the policy does not allow the source {url}"));
        }
        let dir = &entry.expect.base_dir;
        let dir_allowed = entry.expect.method != Method::Tarball
            || self
                .directories
                .iter()
                .any(|root| root == "*" || below(dir, root));
        (!dir_allowed).then(|| format!("the policy does not allow the directory {dir}"))
    }
}

/// Whether a URL or path is a root or below it; `..` is never below anything.
fn below(text: &str, root: &str) -> bool {
    let root = root.trim_end_matches('/');
    let inside = text
        .strip_prefix(root)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
    inside && !root.is_empty() && !text.split('/').any(|part| part == "..")
}

/// Whether a hold on the host stops an action. A hold keeps the host as it is, so it stops what changes it. The ordered rollback of a switch
/// that this agent made goes on: the hold was set on a host half-way between two releases, and the way back belongs to the switch. `switch` is
/// how the switch ended whose files are saved; one that changed nothing, or that nobody remembers, has no way back to finish.
pub fn stopped_by_hold(action: Action, switch: Option<Outcome>) -> bool {
    let changed = matches!(
        switch,
        Some(Outcome::Done | Outcome::RolledBack | Outcome::Inconsistent)
    );
    action.changes_host() && !(action == Action::Rollback && changed)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use fleet_common::plan_entry::{ClientSource, Expect};
    use std::collections::BTreeMap;

    pub(crate) fn entry(method: Method, url: &str, dir: &str) -> PlanEntry {
        PlanEntry {
            host: "h".into(),
            name: "h".into(),
            group: "g".into(),
            leg: "clients-1".into(),
            expect: Expect {
                method,
                from_min: PmmVersion::new(2, 0, 0),
                from_max: PmmVersion::new(2, 44, 1),
                base_dir: dir.into(),
                agent_id: "a".into(),
            },
            to: PmmVersion::new(3, 9, 1),
            source: ClientSource {
                repository_url: url.into(),
                component: "release".into(),
                tarball_url: url.into(),
                tarball_sha256: BTreeMap::new(),
            },
            verify_for_ms: 1,
            repoint: None,
        }
    }

    #[test]
    fn sources_and_directories_are_prefixes_of_whole_parts() {
        let policy = Policy {
            directories: vec!["/opt".into()],
            ..Policy::default()
        };
        assert_eq!(
            policy.refusal(&entry(Method::Deb, "http://repo.percona.com", "/x")),
            None
        );
        assert!(
            policy
                .refusal(&entry(Method::Deb, "http://repo.percona.com.evil.example", "/x"))
                .is_some()
        );
        assert!(
            policy
                .refusal(&entry(Method::Deb, "http://repo.percona.com/../x", "/x"))
                .is_some()
        );
        assert!(
            policy
                .refusal(&entry(
                    Method::Tarball,
                    "https://downloads.percona.com/downloads",
                    "/home/x"
                ))
                .is_some()
        );
        assert_eq!(
            policy.refusal(&entry(
                Method::Tarball,
                "https://downloads.percona.com/downloads",
                "/opt/pmm2"
            )),
            None
        );
    }

    #[test]
    fn versions_and_methods() {
        let policy = Policy {
            max_version: Some(PmmVersion::new(3, 8, 0)),
            ..Policy::default()
        };
        assert!(
            policy
                .refusal(&entry(Method::Deb, "http://repo.percona.com", "/x"))
                .unwrap()
                .contains("3.9.1")
        );
        let policy = Policy {
            methods: vec![Method::Rpm],
            ..Policy::default()
        };
        assert!(
            policy
                .refusal(&entry(Method::Deb, "http://repo.percona.com", "/x"))
                .unwrap()
                .contains("deb")
        );
    }

    #[test]
    fn a_hold_does_not_keep_a_switch_from_being_undone() {
        let done = Some(Outcome::Done);
        assert!(!stopped_by_hold(Action::Rollback, done));
        assert!(!stopped_by_hold(Action::Rollback, Some(Outcome::Inconsistent)));
        for nothing in [
            None,
            Some(Outcome::Refused),
            Some(Outcome::Expired),
            Some(Outcome::FailedNothingChanged),
        ] {
            assert!(stopped_by_hold(Action::Rollback, nothing));
        }
        assert!(stopped_by_hold(Action::Switch, done) && stopped_by_hold(Action::Repoint, done));
        assert!(!stopped_by_hold(Action::Preflight, None));
    }
}
