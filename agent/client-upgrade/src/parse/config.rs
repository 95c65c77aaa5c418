//! `pmm-agent.yaml` (percona/pmm agent/config/config.go): the few keys we need, read line by line. The file is one level of scalars and a
//! few blocks of scalars; anything else makes it opaque. From PMM 3.7 it may be encrypted, which is opaque too: then only bytes are copied.

use fleet_common::ids::without_pmm_prefix;
use std::collections::BTreeMap;

/// The keys we use. Holds the secret for the credential check; never printed (`Debug` hides it).
#[derive(Clone, Default, PartialEq, Eq)]
pub struct ClientConfig {
    /// `id` without prefix; empty when the client was never set up.
    pub id: String,
    /// `listen-address`.
    pub listen_address: String,
    /// `listen-port`.
    pub listen_port: u16,
    /// `server.address`.
    pub server_address: String,
    /// `server.username`.
    pub username: String,
    /// `server.password`.
    pub password: String,
    /// `server.insecure-tls`.
    pub insecure_tls: bool,
    /// `server.without-tls`.
    pub without_tls: bool,
    /// The `paths` block.
    pub paths: BTreeMap<String, String>,
}

impl std::fmt::Debug for ClientConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ClientConfig")
            .field("id", &self.id)
            .field("server_address", &self.server_address)
            .field("credential", &self.credential())
            .field("paths", &self.paths)
            .finish_non_exhaustive()
    }
}

impl ClientConfig {
    /// Whether it names an identity and a server.
    pub fn configured(&self) -> bool {
        !self.id.is_empty() && !self.server_address.is_empty()
    }

    /// `api_key`, `service_token`, `password` or `none`.
    pub fn credential(&self) -> &'static str {
        match self.username.as_str() {
            "api_key" => "api_key",
            "service_token" => "service_token",
            "" if self.password.is_empty() => "none",
            _ => "password",
        }
    }

    /// Whether the secret is a bearer token rather than a password.
    pub fn is_token(&self) -> bool {
        matches!(self.credential(), "api_key" | "service_token")
    }

    /// Address and port of the local API.
    pub fn local_api(&self) -> (String, u16) {
        let address = if self.listen_address.is_empty() {
            "127.0.0.1"
        } else {
            &self.listen_address
        };
        let address = if address == "0.0.0.0" {
            "127.0.0.1"
        } else {
            address
        };
        (
            address.to_owned(),
            if self.listen_port == 0 {
                7777
            } else {
                self.listen_port
            },
        )
    }
}

/// Reads the file. `None` means opaque.
pub fn parse(bytes: &[u8]) -> Option<ClientConfig> {
    let text = std::str::from_utf8(bytes).ok()?;
    let mut config = ClientConfig::default();
    for entry in entries(text) {
        let entry = entry?;
        match (entry.block, entry.key) {
            ("", "id") => config.id = without_pmm_prefix(&entry.value).to_owned(),
            ("", "listen-address") => config.listen_address = entry.value,
            ("", "listen-port") => config.listen_port = entry.value.parse().ok()?,
            ("server", "address") => config.server_address = entry.value,
            ("server", "username") => config.username = entry.value,
            ("server", "password") => config.password = entry.value,
            ("server", "insecure-tls") => config.insecure_tls = entry.value == "true",
            ("server", "without-tls") => config.without_tls = entry.value == "true",
            ("paths", key) => {
                config.paths.insert(key.to_owned(), entry.value);
            }
            _ => {}
        }
    }
    Some(config)
}

/// One `key: value` of the file.
pub(crate) struct Entry<'a> {
    /// Top-level key it stands below; empty at the top.
    pub block: &'a str,
    /// Key.
    pub key: &'a str,
    /// Value without quotes.
    pub value: String,
}

/// All scalar entries; `None` stands for a line that is not of the known shape.
pub(crate) fn entries(text: &str) -> impl Iterator<Item = Option<Entry<'_>>> {
    let mut block = "";
    text.lines().filter_map(move |line| {
        let bare = line.trim();
        if bare.is_empty() || bare.starts_with('#') || bare == "---" || bare == "..." || bare == "{}" {
            return None;
        }
        let indented = line.starts_with(' ');
        let Some((key, raw)) = split(bare) else {
            return Some(None);
        };
        if indented && block.is_empty() {
            return Some(None);
        }
        if !indented && raw.is_empty() {
            block = key;
            return None;
        }
        if !indented {
            block = "";
        }
        Some(scalar(raw).map(|value| Entry {
            block: if indented { block } else { "" },
            key,
            value,
        }))
    })
}

fn split(line: &str) -> Option<(&str, &str)> {
    let (key, value) = match line.find(": ") {
        Some(at) => (&line[..at], line[at + 1..].trim()),
        None => (line.strip_suffix(':')?, ""),
    };
    let plain = !key.is_empty()
        && key
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'));
    plain.then_some((key, value))
}

/// A YAML scalar on one line. Block scalars, flow collections, anchors, tags and aliases are not of the known shape.
fn scalar(raw: &str) -> Option<String> {
    match raw.chars().next() {
        None => Some(String::new()),
        Some('\'') => single_quoted(&raw[1..]),
        Some('"') => double_quoted(&raw[1..]),
        Some('|' | '>' | '{' | '[' | '&' | '*' | '!' | '%' | '@' | '`') => None,
        Some(_) => {
            let value = raw.split(" #").next().unwrap_or(raw).trim_end();
            Some(if matches!(value, "~" | "null") {
                String::new()
            } else {
                value.to_owned()
            })
        }
    }
}

fn single_quoted(rest: &str) -> Option<String> {
    let mut value = String::new();
    let mut chars = rest.chars().peekable();
    loop {
        match chars.next()? {
            '\'' if chars.peek() == Some(&'\'') => {
                chars.next();
                value.push('\'');
            }
            '\'' => return Some(value),
            other => value.push(other),
        }
    }
}

fn double_quoted(rest: &str) -> Option<String> {
    let mut value = String::new();
    let mut chars = rest.chars();
    loop {
        match chars.next()? {
            '"' => return Some(value),
            '\\' => match chars.next()? {
                'n' => value.push('\n'),
                't' => value.push('\t'),
                'r' => value.push('\r'),
                '0' => value.push('\0'),
                'x' => value.push(hex(&mut chars, 2)?),
                'u' => value.push(hex(&mut chars, 4)?),
                'U' => value.push(hex(&mut chars, 8)?),
                other @ ('"' | '\\' | '/' | ' ') => value.push(other),
                _ => return None,
            },
            other => value.push(other),
        }
    }
}

fn hex(chars: &mut std::str::Chars<'_>, digits: usize) -> Option<char> {
    let text: String = chars.take(digits).collect();
    (text.len() == digits)
        .then(|| u32::from_str_radix(&text, 16).ok())
        .flatten()
        .and_then(char::from_u32)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    pub(crate) const SAMPLE: &str = "# Updated by `pmm-agent setup`.\n---\nid: /agent_id/4d5e\nlisten-address: 127.0.0.1\nlisten-port: 7777\n\
        server:\n    address: pmm.example:443\n    username: admin\n    password: 'it''s: #1'\n    insecure-tls: true\n\
        paths:\n    paths_base: /usr/local/percona/pmm2\n    tempdir: /tmp\nports:\n    min: 42000\n    max: 51999\nlog-level: warn\n";

    #[test]
    fn the_known_shape_is_read() {
        let config = parse(SAMPLE.as_bytes()).unwrap();
        assert!(config.configured() && config.insecure_tls && !config.without_tls);
        assert_eq!(
            (config.id.as_str(), config.password.as_str()),
            ("4d5e", "it's: #1")
        );
        assert_eq!(config.paths["paths_base"], "/usr/local/percona/pmm2");
        assert_eq!(config.local_api(), ("127.0.0.1".to_owned(), 7777));
        assert!(!format!("{config:?}").contains("#1"));
    }

    #[test]
    fn an_empty_file_is_a_client_that_was_never_set_up() {
        assert!(!parse(b"").unwrap().configured());
    }

    #[test]
    fn other_shapes_are_opaque() {
        for text in [
            "\u{0}\u{1}binary",
            "server: {address: x}\n",
            "id: |\n  x\n",
            "- a\n",
            "  id: x\n",
        ] {
            assert!(parse(text.as_bytes()).is_none(), "{text}");
        }
        assert!(parse(&[0xff, 0xfe, 0x00]).is_none());
    }

    proptest! {
        #[test]
        fn any_quoted_password_is_read_back(password in "[ -~]{0,40}") {
            let single = format!("server:\n  password: '{}'\n", password.replace('\'', "''"));
            prop_assert_eq!(&parse(single.as_bytes()).unwrap().password, &password);
            let double = format!("server:\n  password: \"{}\"\n", password.replace('\\', "\\\\").replace('"', "\\\""));
            prop_assert_eq!(&parse(double.as_bytes()).unwrap().password, &password);
        }

        #[test]
        fn nothing_makes_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = parse(&bytes);
        }
    }
}
