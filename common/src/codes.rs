//! Stable codes. They stand on the wire, in events, reports and exit statuses; a code's meaning never changes.

use serde::{Deserialize, Serialize};

/// Exit status of both programs.
pub mod exit {
    /// Everything asked for was done.
    pub const OK: i32 = 0;
    /// It was refused or failed; stderr says what, where, why and what to do next.
    pub const FAILED: i32 = 1;
    /// The command line was wrong.
    pub const USAGE: i32 = 2;
    /// The rollout ended, but not every host is upgraded.
    pub const EXCEPTIONS: i32 = 3;
    /// The rollout is paused and waits for a person.
    pub const PAUSED: i32 = 4;
    /// The rollout was aborted.
    pub const ABORTED: i32 = 5;
    /// The PMM Server was restored to the release it started from, or waits for a person.
    pub const SERVER_NOT_UPGRADED: i32 = 6;
    /// The coordinator could not be reached.
    pub const UNREACHABLE: i32 = 7;
    /// The rollout's clients were taken back.
    pub const ROLLED_BACK: i32 = 8;
}

/// Why an order, a survey check, an enrolment or a server hop did not end well. Snake case on the wire.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Code(pub String);

impl Code {
    /// Wraps one of the constants below.
    pub fn new(text: &str) -> Self {
        Self(text.to_owned())
    }
    /// The text on the wire.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Display for Code {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

macro_rules! codes {
    ($($(#[$doc:meta])* $name:ident = $text:literal;)*) => {
        $($(#[$doc])* pub const $name: &str = $text;)*
        /// Every code of this module, for documentation and tests.
        pub const ALL: &[&str] = &[$($text),*];
    };
}

codes! {
    /// The server after the hop holds none of the data from before: PMM 3 initialised an empty volume.
    FRESH_INSTANCE = "fresh_instance";
    /// The comparison with the baseline found differences that no rule explains.
    BASELINE_MISMATCH = "baseline_mismatch";
    /// PMM's database migration failed.
    MIGRATION_FAILED = "migration_failed";
    /// A step did not end before its deadline.
    DEADLINE = "deadline";
    /// Docker refused or failed.
    DOCKER = "docker";
    /// The PMM API refused or failed.
    PMM_API = "pmm_api";
    /// A preflight check failed.
    PREFLIGHT = "preflight";
    /// The host's policy file does not allow it.
    POLICY = "policy";
    /// The host is held locally.
    HELD = "held";
    /// What was found differs from what the order expects.
    UNEXPECTED_STATE = "unexpected_state";
    /// The order belongs to an older epoch.
    STALE_EPOCH = "stale_epoch";
    /// The permit's time to start was over.
    PERMIT_EXPIRED = "permit_expired";
    /// The agent does not know the action.
    UNSUPPORTED = "unsupported";
    /// The package manager failed.
    INSTALL_FAILED = "install_failed";
    /// The new client did not pass verification.
    VERIFY_FAILED = "verify_failed";
    /// The download failed or had the wrong digest or signature.
    STAGE_FAILED = "stage_failed";
    /// More than one installation, or evidence that contradicts itself.
    MIXED_INSTALLATION = "mixed_installation";
    /// No PMM client on this host.
    NOT_INSTALLED = "not_installed";
    /// A client whose kind we report but don't touch (container, Kubernetes, PMM 1, the PMM Server itself).
    NOT_APPLICABLE = "not_applicable";
    /// The client's credentials are refused by the PMM Server or have too small a role for PMM 3.
    CREDENTIALS = "credentials";
    /// The join token is unknown or wrong.
    TOKEN_INVALID = "token_invalid";
    /// The join token is past its time.
    TOKEN_EXPIRED = "token_expired";
    /// The join token has no uses left.
    TOKEN_USED_UP = "token_used_up";
    /// The CA that answered is not the one named in the join token.
    CA_MISMATCH = "ca_mismatch";
    /// The host's certificate was revoked or the host is not known.
    HOST_UNKNOWN = "host_unknown";
    /// PMM runs a database backup or restore on the host. Nothing was begun; asking again later is worth while.
    BACKUP_RUNNING = "backup_running";
    /// The coordinator's store is older than what its hosts saw.
    STORE_RESTORED = "store_restored";
    /// Two machines use one identity.
    FORK = "fork";
    /// The client's configuration can't be changed as the order wants.
    REPOINT = "repoint";
    /// The agent's certificate could not be replaced.
    RENEW_FAILED = "renew_failed";
    /// The agent's certificate is past its end.
    CERTIFICATE_EXPIRED = "certificate_expired";
    /// The agent's new release could not be fetched, checked or started.
    UPDATE_FAILED = "update_failed";
    /// A person or a newer order ended the work before it was done.
    GIVEN_UP = "given_up";
    /// It can't be taken back or stopped any more: what was saved for the way back is gone, or the work had begun. Nothing was changed.
    TOO_LATE = "too_late";
    /// Something went wrong inside our own program.
    INTERNAL = "internal";
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn codes_are_unique() {
        assert_eq!(ALL.iter().collect::<BTreeSet<_>>().len(), ALL.len());
    }
}
