//! What may stand in a bundle for fault finding. Two gates: documents are made from lists of allowed keys (what is not known is dropped, not
//! passed), and every text then goes through [`scrub`], which removes known secrets, credentials in URLs and what stands behind
//! password-like words.

use crate::parse::config::{self, ClientConfig};
use serde_json::{Map, Value};

/// Stands where something was taken out.
pub const REMOVED: &str = "[removed]";
/// Shorter values are not looked for: masking every `a` of a text hides the fault and protects nothing.
const SHORTEST_SECRET: usize = 4;

const CONFIG_TOP: &[&str] = &[
    "id",
    "listen-address",
    "listen-port",
    "runner-capacity",
    "runner-max-connections-per-service",
    "log-level",
    "debug",
    "trace",
    "window-connected-time",
];
const CONFIG_SERVER: &[&str] = &["address", "insecure-tls", "without-tls"];
const CONFIG_PATHS: &[&str] = &[
    "paths_base",
    "exporters_base",
    "node_exporter",
    "mysqld_exporter",
    "mongodb_exporter",
    "postgres_exporter",
    "proxysql_exporter",
    "rds_exporter",
    "azure_exporter",
    "valkey_exporter",
    "vmagent",
    "nomad",
    "nomad_data_dir",
    "tempdir",
    "pt_summary",
    "pt_pg_summary",
    "pt_mysql_summary",
    "pt_mongodb_summary",
    "slowlog_file_prefix",
];
const CONFIG_PORTS: &[&str] = &["min", "max"];
const STATUS: &[&str] = &[
    "agent_id",
    "runs_on_node_id",
    "node_name",
    "server_info",
    "url",
    "insecure_tls",
    "connected",
    "version",
    "latency",
    "clock_drift",
    "agents_info",
    "agent_type",
    "status",
    "listen_port",
    "process_exec_path",
    "config_filepath",
    "agent_version",
    "connection_uptime",
];
/// Properties of a unit; never its environment or command lines.
pub const UNIT_PROPERTIES: &str = "Id,LoadState,ActiveState,SubState,Result,UnitFileState,FragmentPath,DropInPaths,User,Group,MainPID,\
     NRestarts,ExecMainStatus,ExecMainCode,ActiveEnterTimestamp,InactiveEnterTimestamp";
/// Words before a secret.
const SECRET_WORDS: &[&str] = &[
    "password",
    "passwd",
    "pwd",
    "secret",
    "token",
    "api_key",
    "apikey",
    "api-key",
    "access_key",
    "access-key",
    "private_key",
    "private-key",
    "authorization",
    "credential",
    "credentials",
    "cookie",
];

/// The client's configuration: allowed keys only, a line each. An opaque file gives one line that says so.
pub fn configuration(bytes: &[u8]) -> String {
    let readable = std::str::from_utf8(bytes)
        .ok()
        .filter(|_| config::parse(bytes).is_some());
    let Some(text) = readable else {
        return format!(
            "not readable (encrypted, or of another shape); {} bytes\n",
            bytes.len()
        );
    };
    let mut out = String::new();
    for entry in config::entries(text).flatten() {
        let allowed = match entry.block {
            "" => CONFIG_TOP,
            "server" => CONFIG_SERVER,
            "paths" => CONFIG_PATHS,
            "ports" => CONFIG_PORTS,
            _ => &[],
        };
        if !allowed.contains(&entry.key) {
            continue;
        }
        let name = if entry.block.is_empty() {
            entry.key.to_owned()
        } else {
            format!("{}.{}", entry.block, entry.key)
        };
        out.push_str(&format!("{name}: {}\n", entry.value.replace(['\n', '\r'], " ")));
    }
    out
}

/// An answer of `/local/Status`: allowed keys only.
pub fn status(text: &str) -> String {
    match serde_json::from_str::<Value>(text) {
        Ok(document) => serde_json::to_string_pretty(&kept(document)).unwrap_or_default() + "\n",
        Err(_) => format!("not JSON; {} bytes\n", text.len()),
    }
}

fn kept(value: Value) -> Value {
    match value {
        Value::Object(map) => Value::Object(
            map.into_iter()
                .filter(|(key, _)| STATUS.contains(&key.as_str()))
                .map(|(key, value)| (key, kept(value)))
                .collect::<Map<_, _>>(),
        ),
        Value::Array(list) => Value::Array(list.into_iter().map(kept).collect()),
        other => other,
    }
}

/// Values that must not come through, wherever they stand: the client's secret and what its environment names like one.
pub fn secrets(config: Option<&ClientConfig>, environment: &[String]) -> Vec<String> {
    let from_environment = environment
        .iter()
        .filter_map(|pair| pair.split_once('='))
        .filter(|(key, _)| {
            let key = key.to_ascii_lowercase();
            SECRET_WORDS.iter().any(|word| key.contains(word)) || key.ends_with("key")
        })
        .map(|(_, value)| value.to_owned());
    let mut found: Vec<String> = config
        .map(|config| config.password.clone())
        .into_iter()
        .chain(from_environment)
        .filter(|value| value.len() >= SHORTEST_SECRET)
        .collect();
    // The longest first: a secret may be a part of another.
    found.sort_by(|a, b| b.len().cmp(&a.len()).then_with(|| a.cmp(b)));
    found.dedup();
    found
}

/// The last gate of every text.
pub fn scrub(text: &str, secrets: &[String]) -> String {
    let mut text = text.to_owned();
    for secret in secrets {
        text = text.replace(secret.as_str(), REMOVED);
        // JSON writes quotes and backslashes differently.
        if let Ok(quoted) = serde_json::to_string(secret) {
            text = text.replace(quoted.trim_matches('"'), REMOVED);
        }
    }
    let mut out = String::with_capacity(text.len());
    for line in text.split_inclusive('\n') {
        let (body, end) = line.strip_suffix('\n').map_or((line, ""), |body| (body, "\n"));
        out.push_str(&after_word(&userinfo(body)));
        out.push_str(end);
    }
    out
}

/// Removes what stands before the last `@` of a URL.
fn userinfo(line: &str) -> String {
    let mut out = String::with_capacity(line.len());
    let mut rest = line;
    while let Some(at) = rest.find("://") {
        let (before, after) = rest.split_at(at + 3);
        out.push_str(before);
        let end = after
            .find(|next: char| next.is_whitespace() || matches!(next, '"' | '\'' | '<' | '>'))
            .unwrap_or(after.len());
        let (url, following) = after.split_at(end);
        match url.rfind('@') {
            Some(sign) => {
                out.push_str(REMOVED);
                out.push_str(&url[sign..]);
            }
            None => out.push_str(url),
        }
        rest = following;
    }
    out.push_str(rest);
    out
}

/// Cuts a line after a word that announces a secret.
fn after_word(line: &str) -> String {
    let lower = line.to_ascii_lowercase();
    let mut cut: Option<usize> = None;
    for word in SECRET_WORDS {
        let mut from = 0;
        while let Some(at) = lower[from..].find(word) {
            let end = from + at + word.len();
            if announces(&lower, from + at, end) {
                cut = Some(cut.map_or(end, |cut| cut.min(end)));
                break;
            }
            from = end;
        }
    }
    match cut {
        Some(end) => {
            let sign = lower[end..]
                .find(|next: char| matches!(next, '=' | ':') || next.is_whitespace())
                .map_or(line.len(), |sign| end + sign + 1);
            format!("{} {REMOVED}", &line[..sign])
        }
        None => line.to_owned(),
    }
}

/// Whether a value follows: `word=`, `word:`, `"word":`, `--some-word value`.
fn announces(line: &str, start: usize, end: usize) -> bool {
    let after = line[end..].trim_start_matches(['"', '\'', '\\']);
    if after.trim_start().starts_with(['=', ':']) {
        return true;
    }
    let flag = line[..start]
        .rsplit(|sign: char| sign.is_whitespace())
        .next()
        .is_some_and(|head| head.trim_start_matches(['"', '\'']).starts_with('-'));
    flag && after.starts_with(|next: char| next.is_whitespace())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn unknown_keys_are_dropped() {
        let text = "id: a\nserver:\n  address: pmm:443\n  username: admin\n  password: hunter22\n  new-token: zzz\npaths:\n  paths_base: /opt\n  x: /secret\nother: y\n";
        assert_eq!(
            configuration(text.as_bytes()),
            "id: a\nserver.address: pmm:443\npaths.paths_base: /opt\n"
        );
        assert!(configuration(&[1, 2, 255]).starts_with("not readable"));
        let said = status(
            r#"{"agent_id":"a","server_info":{"url":"https://u:p@h","password":"x"},"env":{"A":"b"}}"#,
        );
        assert!(said.contains("agent_id") && !said.contains("password") && !said.contains("env"));
    }

    #[test]
    fn ordinary_lines_stay() {
        for line in [
            "order taken order=switch-1 action=\"switch\"",
            "token_invalid: the join token is unknown",
            "ActiveState=active",
            "GET http://repo.percona.com/x: HTTP status 404",
            "the password is not shown",
        ] {
            assert_eq!(scrub(line, &[]), line);
        }
    }

    /// A secret that no other text holds by chance.
    fn secret() -> impl Strategy<Value = String> {
        "Zq9[A-Za-z0-9!#$%&*+,./;<=>?^_|~-]{5,30}"
    }

    fn word() -> impl Strategy<Value = &'static str> {
        proptest::sample::select(SECRET_WORDS)
    }

    proptest! {
        #[test]
        fn no_key_of_the_configuration_lets_a_secret_through(secret in secret(), key in "[a-z][a-z-]{0,12}", block in "[a-z]{3,10}") {
            prop_assume!(!CONFIG_TOP.contains(&key.as_str()) && !CONFIG_SERVER.contains(&key.as_str()) && !CONFIG_PORTS.contains(&key.as_str()));
            let text = format!("id: a\n{key}: '{secret}'\nserver:\n  address: h:1\n  password: '{secret}'\n  {key}: '{secret}'\n{block}:\n  {key}: '{secret}'\n");
            prop_assert!(!configuration(text.as_bytes()).contains(&secret));
        }

        #[test]
        fn password_like_words_hide_what_follows(secret in secret(), word in word(), prefix in "[a-z-]{0,6}", form in 0usize..6) {
            let line = match form {
                0 => format!("x {prefix}{word}={secret}"),
                1 => format!("x {prefix}{word}: {secret} y"),
                2 => format!("{{\"{prefix}{word}\":\"{secret}\"}}"),
                3 => format!("pmm-agent --{prefix}{word}={secret} z"),
                4 => format!("pmm-agent --{prefix}{word} {secret}"),
                _ => format!("{} = '{secret}'", format!("{prefix}{word}").to_uppercase()),
            };
            let said = scrub(&format!("before\n{line}\nafter\n"), &[]);
            prop_assert!(!said.contains(&secret), "{}", said);
            prop_assert!(said.starts_with("before\n") && said.ends_with("after\n"));
        }

        #[test]
        fn credentials_in_urls_are_removed(secret in "Zq9[A-Za-z0-9!$&*+,;=:%/@-]{5,30}", scheme in "(https?|mongodb|postgres)") {
            let said = scrub(&format!("connect to {scheme}://user:{secret}@host:1/x now"), &[]);
            prop_assert!(!said.contains(&secret) && said.contains("now"), "{}", said);
        }

        #[test]
        fn known_secrets_are_removed_wherever_they_stand(secret in "Zq9[ -~]{5,30}", around in "[ -~]{0,20}") {
            prop_assume!(!around.contains("Zq9"));
            let config = ClientConfig { password: secret.clone(), ..ClientConfig::default() };
            let environment = vec![format!("MY_TOKEN={secret}"), "PATH=/bin".to_owned()];
            let known = secrets(Some(&config), &environment);
            prop_assert_eq!(&known, &vec![secret.clone()]);
            let plain = scrub(&format!("{around}{secret}{around}"), &known);
            prop_assert!(!plain.contains(&secret));
            let json = serde_json::to_string(&format!("{around}{secret}")).unwrap();
            let escaped = serde_json::to_string(&secret).unwrap();
            prop_assert!(!scrub(&json, &known).contains(escaped.trim_matches('"')));
        }

        #[test]
        fn nothing_makes_it_panic(text in "\\PC{0,200}", bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = (scrub(&text, &["abcd".to_owned()]), status(&text), configuration(&bytes));
        }
    }
}
