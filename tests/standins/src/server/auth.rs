//! Who may call what: the rules that nginx asks pmm-managed for on each request, and credentials in the Authorization header.

use base64::Engine;

/// A Grafana role, in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// No credential is needed.
    None,
    /// Any valid credential of the organisation.
    Viewer,
    /// An editor.
    Editor,
    /// An administrator of the organisation.
    Admin,
}

impl Role {
    /// A role by Grafana's name for it.
    pub fn parse(text: &str) -> Self {
        match text {
            "Admin" => Self::Admin,
            "Editor" => Self::Editor,
            "Viewer" => Self::Viewer,
            _ => Self::None,
        }
    }
}

/// The rules of PMM 2 (percona/pmm v2: managed/services/grafana/auth_server.go), longest prefix first counts.
const V2: &[(&str, Role)] = &[
    ("/agent.Agent/Connect", Role::None),
    // Unknown to PMM 2: answered 404, whoever asks.
    ("/agent.v1.", Role::None),
    ("/inventory.", Role::Admin),
    ("/management.", Role::Admin),
    ("/server.", Role::Admin),
    ("/v1/inventory/", Role::Admin),
    ("/v1/management/", Role::Admin),
    ("/v1/management/Jobs", Role::Viewer),
    ("/v1/Settings/", Role::Admin),
    ("/v1/Updates/Check", Role::Viewer),
    ("/v1/Updates/Start", Role::Admin),
    ("/v1/Updates/Status", Role::None),
    ("/v1/version", Role::Viewer),
    ("/v1/readyz", Role::None),
    ("/v1/AWSInstanceCheck", Role::None),
    ("/v1/leaderHealthCheck", Role::None),
    ("/ping", Role::None),
    ("/v0/qan/", Role::Viewer),
    ("/prometheus", Role::Admin),
    ("/victoriametrics/", Role::Admin),
    ("/victoriametrics/api/v1/write", Role::Viewer),
    ("/alertmanager", Role::Admin),
    ("/logs.zip", Role::Admin),
    ("/graph", Role::None),
    ("/", Role::Admin),
];

/// The rules of PMM 3: the clients' connection needs an administrator as well.
const V3: &[(&str, Role)] = &[
    ("/agent.Agent/Connect", Role::Admin),
    ("/agent.v1.AgentService/Connect", Role::Admin),
    ("/v1/inventory", Role::Admin),
    ("/v1/management", Role::Admin),
    ("/v1/backups", Role::Admin),
    ("/v1/server/settings", Role::Admin),
    ("/v1/server/settings/readonly", Role::Viewer),
    ("/v1/server/version", Role::Viewer),
    ("/v1/server/updates", Role::Viewer),
    ("/v1/server/updates:start", Role::Admin),
    ("/v1/server/updates:getStatus", Role::None),
    ("/v1/server/readyz", Role::None),
    ("/v1/server/leaderHealthCheck", Role::None),
    ("/v1/server/logs.zip", Role::Admin),
    ("/v1/readyz", Role::None),
    ("/v1/version", Role::Viewer),
    ("/ping", Role::None),
    ("/v1/qan", Role::Viewer),
    ("/prometheus", Role::Admin),
    ("/victoriametrics/", Role::Admin),
    ("/logs.zip", Role::Admin),
    ("/graph", Role::None),
    ("/", Role::Admin),
];

/// The role that a path needs.
pub fn needed(path: &str, v3: bool) -> Role {
    let rules = if v3 { V3 } else { V2 };
    rules
        .iter()
        .filter(|(prefix, _)| path.starts_with(prefix))
        .max_by_key(|(prefix, _)| prefix.len())
        .map_or(Role::Admin, |(_, role)| *role)
}

/// What a request proves its caller with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Credential {
    /// A user and a password.
    Basic(String, String),
    /// An API key or the token of a service account.
    Token(String),
}

impl Credential {
    /// Reads an Authorization header. A key may come as the password of `api_key` or `service_token`.
    pub fn parse(header: &str) -> Option<Self> {
        if let Some(token) = header.strip_prefix("Bearer ") {
            return Some(Self::Token(token.trim().to_owned()));
        }
        let text = header.strip_prefix("Basic ")?;
        let bytes = base64::engine::general_purpose::STANDARD
            .decode(text.trim())
            .ok()?;
        let text = String::from_utf8(bytes).ok()?;
        let (user, password) = text.split_once(':')?;
        Some(match user {
            "api_key" | "service_token" => Self::Token(password.to_owned()),
            _ => Self::Basic(user.to_owned(), password.to_owned()),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pmm_3_demands_an_administrator_for_the_clients_connection() {
        assert_eq!(needed("/agent.Agent/Connect", false), Role::None);
        assert_eq!(needed("/agent.Agent/Connect", true), Role::Admin);
        assert_eq!(needed("/agent.v1.AgentService/Connect", true), Role::Admin);
    }

    #[test]
    fn the_longest_prefix_counts() {
        assert_eq!(needed("/v1/Updates/Status", false), Role::None);
        assert_eq!(needed("/v1/inventory/Services/List", false), Role::Admin);
        assert_eq!(needed("/v1/server/settings/readonly", true), Role::Viewer);
        assert_eq!(needed("/v1/server/settings", true), Role::Admin);
        assert_eq!(needed("/whatever", true), Role::Admin);
    }

    #[test]
    fn keys_come_in_three_forms() {
        let basic = |text: &str| format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(text));
        assert_eq!(
            Credential::parse("Bearer k"),
            Some(Credential::Token("k".to_owned()))
        );
        assert_eq!(
            Credential::parse(&basic("api_key:k")),
            Some(Credential::Token("k".to_owned()))
        );
        assert_eq!(
            Credential::parse(&basic("admin:a:b")),
            Some(Credential::Basic("admin".to_owned(), "a:b".to_owned()))
        );
        assert_eq!(Credential::parse("nonsense"), None);
    }
}
