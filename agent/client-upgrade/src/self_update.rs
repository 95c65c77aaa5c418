//! Replacing our own agent: whether a release may be installed here, and what the guardian does next. The guardian is a copy of the old
//! program in a unit of its own; it installs the new release, waits until that was welcomed by the coordinator, and else puts the old one
//! back.

use crate::policy::Policy;
use fleet_common::agent_release::AgentRelease;
use fleet_common::inventory::Method;
use fleet_common::version::PmmVersion;
use serde::{Deserialize, Serialize};

/// Five minutes of waiting for another package manager's lock, then the transaction itself.
pub const INSTALL_MS: u64 = 600_000;
/// The new agent is restarted, looks at the host (20 s a tool) and connects (at most 20 s between attempts).
pub const HEALTHY_MS: u64 = 180_000;

/// Why a release is not installed. All of it is the host's own say.
pub fn refusal(
    release: &AgentRelease,
    policy: &Policy,
    running: &str,
    installed_by: Method,
) -> Option<String> {
    if policy.agent_keys.is_empty() {
        return Some(
            "the policy lists no `agent_keys`, so no release of the agent may come from outside".into(),
        );
    }
    let (method, version) = match release.check() {
        Ok(found) => found,
        Err(error) => return Some(error.to_string()),
    };
    if method != installed_by {
        return Some(format!(
            "the agent on this host was installed by {installed_by}, the release is a {method}"
        ));
    }
    let Ok(running) = running.parse::<PmmVersion>() else {
        return Some(format!("the running release `{running}` can't be compared"));
    };
    (version <= running).then(|| format!("release {version} is not newer than {running}, which runs"))
}

/// Whether the signed comment is of this very file. A signature says only that somebody once signed these bytes: the name in the comment,
/// which is signed too, says which release they are.
pub fn comment_names(comment: &str, file: &str) -> bool {
    comment
        .split_whitespace()
        .any(|word| word.strip_prefix("file:").unwrap_or(word) == file)
}

/// Where the guardian is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// The old release is kept; nothing was changed.
    Prepared,
    /// The new release is being installed.
    Installing,
    /// Waiting for the new release to be welcomed.
    Waiting,
    /// The old release is being put back.
    GoingBack,
    /// Waiting for the old release to be welcomed again.
    WaitingBack,
    /// The new release stays.
    Kept,
    /// The old release is back and was welcomed.
    Back,
    /// Neither was welcomed.
    Failed,
}

impl Phase {
    /// Whether the guardian has ended.
    pub fn is_final(self) -> bool {
        matches!(self, Self::Kept | Self::Back | Self::Failed)
    }
}

/// What the guardian saw in its present phase.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seen {
    /// What the phase does has not ended yet, or was interrupted.
    Nothing,
    /// The act of the phase was done.
    Done,
    /// The act of the phase failed.
    Failed,
    /// An agent of the new release was welcomed.
    NewWelcomed,
    /// An agent of the old release was welcomed.
    OldWelcomed,
    /// The time of the phase is over.
    TimeOver,
}

/// The phase after what was seen. Persisted before anything is done in it; each phase may be begun again.
pub fn next(phase: Phase, seen: Seen) -> Phase {
    match (phase, seen) {
        (Phase::Prepared, _) => Phase::Installing,
        (Phase::Installing, Seen::Done) => Phase::Waiting,
        (Phase::Installing, Seen::Failed | Seen::TimeOver) => Phase::GoingBack,
        (Phase::Waiting, Seen::NewWelcomed) => Phase::Kept,
        (Phase::Waiting, Seen::TimeOver | Seen::Failed) => Phase::GoingBack,
        (Phase::GoingBack, Seen::Done) => Phase::WaitingBack,
        (Phase::GoingBack, Seen::Failed | Seen::TimeOver) => Phase::Failed,
        (Phase::WaitingBack, Seen::OldWelcomed) => Phase::Back,
        (Phase::WaitingBack, Seen::TimeOver | Seen::Failed) => Phase::Failed,
        (same, _) => same,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    fn release(version: &str) -> AgentRelease {
        AgentRelease {
            version: version.into(),
            file: format!("pmm-upgrade-agent_{version}_amd64.deb"),
            sha256: "ab".repeat(32),
            length: 1,
            signature: String::new(),
        }
    }

    #[test]
    fn only_a_newer_release_by_the_same_way_and_with_keys() {
        let policy = Policy {
            agent_keys: vec!["k".into()],
            ..Policy::default()
        };
        assert_eq!(refusal(&release("0.2.0"), &policy, "0.1.0", Method::Deb), None);
        let refused = |release: &AgentRelease, policy: &Policy, method| {
            refusal(release, policy, "0.1.0", method).unwrap()
        };
        assert!(refused(&release("0.2.0"), &Policy::default(), Method::Deb).contains("agent_keys"));
        assert!(refused(&release("0.1.0"), &policy, Method::Deb).contains("not newer"));
        assert!(refused(&release("0.0.9"), &policy, Method::Deb).contains("not newer"));
        assert!(refused(&release("0.2.0"), &policy, Method::Rpm).contains("installed by rpm"));
        let lying = AgentRelease {
            version: "0.3.0".into(),
            ..release("0.2.0")
        };
        assert!(refused(&lying, &policy, Method::Deb).contains("0.2.0"));
    }

    #[test]
    fn the_signed_comment_names_the_file() {
        let file = "pmm-upgrade-agent_0.2.0_amd64.deb";
        let usual = format!("timestamp:1700000000\tfile:{file}\thashed");
        assert!(comment_names(&usual, file));
        assert!(!comment_names(
            "timestamp:1\tfile:pmm-upgrade-agent_0.1.0_amd64.deb\thashed",
            file
        ));
        assert!(!comment_names("", file));
    }

    fn seen() -> impl Strategy<Value = Seen> {
        proptest::sample::select(vec![
            Seen::Nothing,
            Seen::Done,
            Seen::Failed,
            Seen::NewWelcomed,
            Seen::OldWelcomed,
            Seen::TimeOver,
        ])
    }

    proptest! {
        /// The new release stays only when it was welcomed while it was waited for, and every run of deadlines comes to an end.
        #[test]
        fn kept_means_welcomed(list in proptest::collection::vec(seen(), 0..30)) {
            let mut phase = Phase::Prepared;
            for seen in list {
                let following = next(phase, seen);
                if following == Phase::Kept && phase != Phase::Kept {
                    prop_assert_eq!((phase, seen), (Phase::Waiting, Seen::NewWelcomed));
                }
                if phase.is_final() {
                    prop_assert_eq!(following, phase);
                }
                phase = following;
            }
            for _ in 0..6 {
                phase = next(phase, Seen::TimeOver);
            }
            prop_assert!(phase.is_final());
        }
    }
}
