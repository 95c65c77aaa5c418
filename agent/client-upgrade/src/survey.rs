//! Observations to findings. Unknown is a failure: a check that could not be done does not pass.

use fleet_common::survey::{Finding, Verdict};

/// How the PMM Server answered the client's own credentials.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Credentials {
    /// An endpoint that demands the admin role answered.
    Accepted,
    /// 401 or 403 there.
    Refused {
        /// HTTP status.
        status: u16,
        /// Whether a viewer's endpoint accepts them: then they are known, but their role is too small.
        known: bool,
    },
    /// No usable answer.
    Unreachable(String),
    /// The configuration can't be read, so nothing could be asked.
    Opaque,
    /// The client was never set up.
    NotConfigured,
}

/// A finding that passed.
pub fn pass(check: &str, message: impl Into<String>) -> Finding {
    finding(check, Verdict::Pass, message, "")
}
/// A finding worth reading.
pub fn warn(check: &str, message: impl Into<String>, hint: &str) -> Finding {
    finding(check, Verdict::Warn, message, hint)
}
/// A finding that stops the host.
pub fn fail(check: &str, message: impl Into<String>, hint: &str) -> Finding {
    finding(check, Verdict::Fail, message, hint)
}

fn finding(check: &str, verdict: Verdict, message: impl Into<String>, hint: &str) -> Finding {
    Finding {
        check: check.to_owned(),
        verdict,
        message: message.into(),
        hint: hint.to_owned(),
    }
}

/// The credential check. PMM 2 asks old clients for no credential when they connect, PMM 3 demands one with the admin role: a client with a
/// stale password works today and stays out after the server's migration (percona/pmm managed/services/grafana/auth_server.go).
pub fn credentials(seen: &Credentials, kind: &str) -> Finding {
    const CHECK: &str = "credentials";
    match seen {
        Credentials::Accepted => pass(
            CHECK,
            format!("the PMM Server accepts the client's {kind} for admin endpoints"),
        ),
        Credentials::Refused { status, known: true } => fail(
            CHECK,
            format!("the client's {kind} is known to the PMM Server but has no admin role (HTTP {status})"),
            "give the account or key the Admin role; PMM 3 demands it when clients connect",
        ),
        Credentials::Refused { status, known: false } => fail(
            CHECK,
            format!("the PMM Server refuses the client's {kind} (HTTP {status})"),
            "store working credentials in the client's configuration; PMM 3 checks them when clients connect, PMM 2 does not",
        ),
        Credentials::Unreachable(why) => fail(
            CHECK,
            format!("the PMM Server could not be asked: {why}"),
            "check name resolution, firewall and certificate on this host",
        ),
        Credentials::Opaque => warn(
            CHECK,
            "the client's configuration can't be read (encrypted?), its credentials were not checked",
            "",
        ),
        Credentials::NotConfigured => warn(
            CHECK,
            "the client was never set up, there are no credentials to check",
            "",
        ),
    }
}

/// Disk space: what is there and what is needed at one place.
pub fn disk(place: &str, free: u64, needed: u64) -> Finding {
    let mb = |bytes: u64| bytes / (1024 * 1024);
    if free >= needed {
        return pass(
            "disk",
            format!("{place}: {} MB free, {} MB needed", mb(free), mb(needed)),
        );
    }
    fail(
        "disk",
        format!("{place}: {} MB free, {} MB needed", mb(free), mb(needed)),
        "free some space there",
    )
}

/// A server address that only works inside the server's container network: PMM 3 listens on 8443 there instead of 443.
pub fn server_address(address: &str) -> Option<Finding> {
    let (host, port) = address.rsplit_once(':').unwrap_or((address, "443"));
    let bare = !host.contains('.') && !host.contains(':') && host != "localhost";
    (bare && port == "443").then(|| {
        warn(
            "server_address",
            format!("{address} looks like the PMM Server's container addressed directly; PMM 3 listens on 8443 there"),
            "let the client use the published port, or plan to repoint it",
        )
    })
}

/// Units in `/etc/systemd` that name the old directory; they are corrected during the switch.
pub fn overrides(paths: &[String]) -> Finding {
    if paths.is_empty() {
        return pass(
            "unit_override",
            "no unit file of the administrator names the old directory",
        );
    }
    warn(
        "unit_override",
        format!("names the directory of PMM 2: {}", paths.join(", ")),
        "the switch corrects the paths and keeps a copy",
    )
}

/// `PMM_AGENT_*` variables: those that name the old directory where the switch can't correct it, and all there are. Names only.
pub fn environment(out_of_reach: &[String], all: &[&str]) -> Finding {
    const CHECK: &str = "environment";
    if !out_of_reach.is_empty() {
        return fail(
            CHECK,
            format!(
                "{} names the directory of PMM 2 and is set where the switch can't correct it",
                out_of_reach.join(", ")
            ),
            "remove the variable, or set it in a drop-in or an EnvironmentFile of the unit below /etc",
        );
    }
    if all.is_empty() {
        return pass(CHECK, "no variable overrides the client's configuration");
    }
    pass(
        CHECK,
        format!(
            "{} override the client's configuration and were used for the checks",
            all.join(", ")
        ),
    )
}

/// Copies of the client beside the service; they hold its port and are stopped during the switch.
pub fn strays(count: usize) -> Finding {
    match count {
        0 => pass("strays", "no second client runs"),
        _ => warn(
            "strays",
            format!("{count} more pmm-agent process(es) run beside the service"),
            "the switch stops them",
        ),
    }
}

/// Extra groups of the client's account; package scripts can delete and re-create the account without them.
pub fn groups(user: &str, groups: &[String]) -> Finding {
    if groups.is_empty() {
        return pass("groups", format!("account {user} has no supplementary groups"));
    }
    pass(
        "groups",
        format!(
            "account {user} is also in {}; the switch keeps that",
            groups.join(", ")
        ),
    )
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_viewer_is_told_apart_from_a_stale_password() {
        let viewer = credentials(
            &Credentials::Refused {
                status: 401,
                known: true,
            },
            "api_key",
        );
        let stale = credentials(
            &Credentials::Refused {
                status: 401,
                known: false,
            },
            "password",
        );
        assert_eq!((viewer.verdict, stale.verdict), (Verdict::Fail, Verdict::Fail));
        assert!(viewer.message.contains("role") && !stale.message.contains("role"));
        assert_eq!(
            credentials(&Credentials::Unreachable("x".into()), "password").verdict,
            Verdict::Fail
        );
    }

    #[test]
    fn addresses_inside_the_container_network_are_named() {
        assert!(server_address("pmm-server:443").is_some());
        assert!(server_address("pmm-server").is_some());
        assert!(server_address("pmm-server:8443").is_none());
        assert!(server_address("pmm.example.com:443").is_none());
        assert!(server_address("10.0.0.1:443").is_none());
    }

    #[test]
    fn disk_is_compared() {
        assert_eq!(disk("/var", 10, 10).verdict, Verdict::Pass);
        assert_eq!(disk("/var", 9, 10).verdict, Verdict::Fail);
    }
}
