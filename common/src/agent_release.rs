//! A release of our own agent, offered to hosts by `self_update`.

use crate::inventory::Method;
use crate::version::PmmVersion;
use serde::{Deserialize, Serialize};

/// Largest file of a release: eight times the size that the agent may have.
pub const MOST_BYTES: u64 = 64 * 1024 * 1024;

/// One file of a release of the agent, as an order names it. The file travels by digest; it is installed only when its signature is made with
/// a key that the host's own policy lists, so that a coordinator in wrong hands can't bring its own program.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AgentRelease {
    /// Release of the agent, such as `0.2.0`.
    pub version: String,
    /// File name, such as `pmm-upgrade-agent_0.2.0_amd64.deb`.
    pub file: String,
    /// SHA-256 of the file, lower case hex.
    pub sha256: String,
    /// Length of the file, bytes.
    pub length: u64,
    /// The text of its minisign signature file.
    pub signature: String,
}

/// Why a release can't be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReleaseError {
    /// Not a name that `deploy/package/build.sh` makes.
    #[error("`{0}` is not the name of a deb, rpm or tarball of pmm-upgrade-agent with its release in it")]
    File(String),
    /// Name and release contradict each other.
    #[error("the file is of release {file}, the order names {order}")]
    Version {
        /// In the file's name.
        file: String,
        /// In the order.
        order: String,
    },
    /// Not 64 lower-case hex digits.
    #[error("`{0}` is not a SHA-256 in lower-case hex")]
    Digest(String),
    /// Nothing, or more than an agent can be.
    #[error("{0} bytes is no length of an agent's package")]
    Length(u64),
}

impl AgentRelease {
    /// How the file is installed, and its release by its name. The name is signed (it stands in the trusted comment), the order is not.
    pub fn kind(&self) -> Result<(Method, PmmVersion), ReleaseError> {
        let bad = || ReleaseError::File(self.file.clone());
        let plain = self.file.len() <= 200
            && self
                .file
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_' | b'+' | b'~'));
        let rest = self
            .file
            .strip_prefix("pmm-upgrade-agent")
            .filter(|_| plain)
            .ok_or_else(bad)?;
        let (method, rest) = if let Some(rest) = rest.strip_suffix(".deb") {
            (Method::Deb, rest)
        } else if let Some(rest) = rest.strip_suffix(".rpm") {
            (Method::Rpm, rest)
        } else {
            (Method::Tarball, rest.strip_suffix(".tar.gz").ok_or_else(bad)?)
        };
        let number = rest
            .strip_prefix(['_', '-'])
            .and_then(|rest| rest.split(['_', '-']).next())
            .ok_or_else(bad)?;
        Ok((method, number.parse().map_err(|_| bad())?))
    }

    /// Whether everything in it fits together.
    pub fn check(&self) -> Result<(Method, PmmVersion), ReleaseError> {
        let (method, version) = self.kind()?;
        if version.to_string() != self.version {
            return Err(ReleaseError::Version {
                file: version.to_string(),
                order: self.version.clone(),
            });
        }
        let hex = self.sha256.len() == 64
            && self
                .sha256
                .bytes()
                .all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte));
        if !hex {
            return Err(ReleaseError::Digest(self.sha256.clone()));
        }
        if self.length == 0 || self.length > MOST_BYTES {
            return Err(ReleaseError::Length(self.length));
        }
        Ok((method, version))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn release(file: &str) -> AgentRelease {
        AgentRelease {
            version: "0.2.0".into(),
            file: file.into(),
            sha256: "ab".repeat(32),
            length: 1,
            signature: String::new(),
        }
    }

    #[test]
    fn names_say_method_and_release() {
        let version = PmmVersion::new(0, 2, 0);
        for (file, method) in [
            ("pmm-upgrade-agent_0.2.0_amd64.deb", Method::Deb),
            ("pmm-upgrade-agent-0.2.0-1.x86_64.rpm", Method::Rpm),
            ("pmm-upgrade-agent-0.2.0-x86_64.tar.gz", Method::Tarball),
        ] {
            assert_eq!(release(file).check().unwrap(), (method, version));
        }
        for bad in [
            "",
            "pmm-upgrade-agent.deb",
            "other_0.2.0_amd64.deb",
            "../pmm-upgrade-agent_0.2.0.deb",
            "pmm-upgrade-agent_0.2.0/x.deb",
            "pmm-upgrade-agent_0.2_amd64.deb",
            "pmm-upgrade-agent_0.2.0_amd64.zip",
        ] {
            assert!(
                matches!(release(bad).check(), Err(ReleaseError::File(_))),
                "{bad}"
            );
        }
        assert!(matches!(
            release("pmm-upgrade-agent_0.3.0_amd64.deb").check(),
            Err(ReleaseError::Version { .. })
        ));
    }
}
