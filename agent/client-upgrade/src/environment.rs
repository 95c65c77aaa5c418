//! The `PMM_AGENT_*` variables of a client. They win over its configuration file (percona/pmm agent/config/config.go: every flag has one, and
//! kingpin takes an empty one for unset), so they decide identity, server, credentials and the port of the local API. Some hold secrets:
//! values are never shown, only names.

use crate::carry::rebase_text;
use crate::parse::config::ClientConfig;
use fleet_common::ids::without_pmm_prefix;
use std::collections::BTreeMap;

/// What all of them begin with.
pub const PREFIX: &str = "PMM_AGENT_";
/// Names the configuration file; the argument `--config-file` wins over it.
pub const CONFIG_FILE: &str = "PMM_AGENT_CONFIG_FILE";

/// The variables of one process, unit or file. `Debug` shows names only.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Variables(BTreeMap<String, String>);

impl std::fmt::Debug for Variables {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

impl Variables {
    /// From `key=value` pairs, such as those of `/proc/<pid>/environ`; others than the client's are left out, the last of a name wins.
    pub fn of_pairs<S: AsRef<str>>(pairs: impl IntoIterator<Item = S>) -> Self {
        let pairs = pairs.into_iter().filter_map(|pair| {
            let (key, value) = pair.as_ref().split_once('=')?;
            let ours = key.starts_with(PREFIX) && !value.is_empty();
            ours.then(|| (key.to_owned(), value.to_owned()))
        });
        Self(pairs.collect())
    }

    /// From the `Environment` property of `systemctl show` or the value of an `Environment=` line: words, quoted where needed.
    pub fn of_words(text: &str) -> Self {
        Self::of_pairs(words(text, true))
    }

    /// From the `Environment=` lines of a unit file or drop-in; an empty one forgets those before it (systemd.exec).
    pub fn of_unit_file(text: &str) -> Self {
        let mut found = Self::default();
        for line in logical_lines(text) {
            match line.trim().strip_prefix("Environment=").map(str::trim) {
                Some("") => found = Self::default(),
                Some(value) => found = found.with(Self::of_words(value)),
                None => {}
            }
        }
        found
    }

    /// From a file that `EnvironmentFile=` names.
    pub fn of_file(text: &str) -> Self {
        let pairs = logical_lines(text).into_iter().filter_map(|line| {
            let (key, value) = line.split_once('=')?;
            let value = words(value.trim(), false).concat();
            Some(format!("{}={value}", key.trim()))
        });
        Self::of_pairs(pairs)
    }

    /// These with others over them.
    #[must_use]
    pub fn with(mut self, over: Self) -> Self {
        self.0.extend(over.0);
        self
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The value of one.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    /// Their names.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }

    /// The configuration as the client sees it: the file with these over it.
    pub fn applied(&self, file: &ClientConfig) -> ClientConfig {
        let text = |name: &str, file: &str| self.get(name).unwrap_or(file).to_owned();
        let flag = |name: &str, file: bool| self.get(name).and_then(truth).unwrap_or(file);
        ClientConfig {
            id: without_pmm_prefix(&text("PMM_AGENT_ID", &file.id)).to_owned(),
            listen_address: text("PMM_AGENT_LISTEN_ADDRESS", &file.listen_address),
            listen_port: self
                .get("PMM_AGENT_LISTEN_PORT")
                .and_then(|port| port.parse().ok())
                .unwrap_or(file.listen_port),
            server_address: text("PMM_AGENT_SERVER_ADDRESS", &file.server_address),
            username: text("PMM_AGENT_SERVER_USERNAME", &file.username),
            password: text("PMM_AGENT_SERVER_PASSWORD", &file.password),
            insecure_tls: flag("PMM_AGENT_SERVER_INSECURE_TLS", file.insecure_tls),
            without_tls: flag("PMM_AGENT_SERVER_WITHOUT_TLS", file.without_tls),
            paths: file.paths.clone(),
        }
    }

    /// Names of those whose value mentions a directory.
    pub fn naming<'a>(&'a self, dir: &'a str) -> impl Iterator<Item = &'a str> {
        self.0
            .iter()
            .filter(move |(_, value)| mentions(value, dir))
            .map(|(name, _)| name.as_str())
    }
}

/// Those that name the old directory where the switch can't correct it. `seen` is what the client has or would be started with, `owned` the
/// files that the switch saves and rewrites, `others` files that it leaves alone; a variable that is set in none of them comes from somewhere
/// unknown.
pub fn out_of_reach(seen: &Variables, dir: &str, owned: &[Variables], others: &[Variables]) -> Vec<String> {
    let set_in = |files: &[Variables], name: &str| {
        files
            .iter()
            .any(|file| file.naming(dir).any(|other| other == name))
    };
    seen.naming(dir)
        .filter(|name| set_in(others, name) || !set_in(owned, name))
        .map(str::to_owned)
        .collect()
}

/// The environment of a client that was started by hand, for the new directory. Only the client's own variables change.
pub fn rebased(pairs: &[String], from: &str, to: &str) -> Vec<String> {
    pairs
        .iter()
        .map(|pair| match pair.split_once('=') {
            Some((key, value)) if key.starts_with(PREFIX) && key != "PMM_AGENT_SERVER_PASSWORD" => {
                format!("{key}={}", rebase_text(value, from, to))
            }
            _ => pair.clone(),
        })
        .collect()
}

fn mentions(value: &str, dir: &str) -> bool {
    rebase_text(value, dir, "") != value
}

/// Go's `strconv.ParseBool`.
fn truth(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
        _ => None,
    }
}

/// Lines without comments, those that end with a backslash joined with the next.
fn logical_lines(text: &str) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    let mut open = false;
    for line in text.lines() {
        let comment = line.trim_start().starts_with(['#', ';']);
        if comment {
            continue;
        }
        let (line, continues) = match line.strip_suffix('\\') {
            Some(line) => (line, true),
            None => (line, false),
        };
        match lines.last_mut().filter(|_| open) {
            Some(last) => last.push_str(line),
            None => lines.push(line.to_owned()),
        }
        open = continues;
    }
    lines
}

/// Words in systemd's quoting, also as `systemctl show` writes it (`$'...'`); with `split` off blanks belong to the one word.
fn words(text: &str, split: bool) -> Vec<String> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quote: Option<char> = None;
    let mut chars = text.chars().peekable();
    while let Some(char) = chars.next() {
        match (char, quote) {
            (char, Some(open)) if char == open => quote = None,
            ('\\', _) => word.get_or_insert_default().extend(chars.next().map(unescaped)),
            ('$', None) if chars.peek() == Some(&'\'') => {}
            ('\'' | '"', None) => {
                word.get_or_insert_default();
                quote = Some(char);
            }
            (char, None) if split && char.is_whitespace() => words.extend(word.take()),
            (char, _) => word.get_or_insert_default().push(char),
        }
    }
    words.extend(word);
    words
}

fn unescaped(char: char) -> char {
    match char {
        'n' => '\n',
        't' => '\t',
        other => other,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::carry::{PMM2_BASE, PMM3_BASE};
    use proptest::prelude::*;

    #[test]
    fn variables_win_over_the_file_and_are_never_shown() {
        let file = crate::parse::config::parse(
            b"id: /agent_id/1\nlisten-port: 7777\nserver:\n  address: old:443\n  username: admin\n  password: stale\n",
        )
        .unwrap();
        let variables = Variables::of_pairs([
            "PMM_AGENT_ID=/agent_id/2",
            "PMM_AGENT_SERVER_ADDRESS=new:443",
            "PMM_AGENT_SERVER_USERNAME=service_token",
            "PMM_AGENT_SERVER_PASSWORD=glsa=x",
            "PMM_AGENT_SERVER_INSECURE_TLS=1",
            "PMM_AGENT_LISTEN_PORT=7778",
            "PMM_AGENT_LISTEN_ADDRESS=",
            "HOME=/root",
        ]);
        let seen = variables.applied(&file);
        assert_eq!((seen.id.as_str(), seen.server_address.as_str()), ("2", "new:443"));
        assert_eq!(
            (seen.credential(), seen.password.as_str()),
            ("service_token", "glsa=x")
        );
        assert!(seen.insecure_tls && !seen.without_tls);
        assert_eq!(seen.local_api(), ("127.0.0.1".to_owned(), 7778));
        assert_eq!(Variables::default().applied(&file), file);
        let shown = format!("{variables:?}");
        assert!(shown.contains("PMM_AGENT_SERVER_PASSWORD") && !shown.contains("glsa"));
    }

    #[test]
    fn units_and_files_are_read_as_systemd_reads_them() {
        let shown =
            Variables::of_words("PMM_AGENT_ID=1 \"PMM_AGENT_LOG_LEVEL=a b\" LANG=C $'PMM_AGENT_DEBUG=\\'x'");
        assert_eq!(shown.get("PMM_AGENT_LOG_LEVEL"), Some("a b"));
        assert_eq!(shown.get("PMM_AGENT_DEBUG"), Some("'x"));
        assert_eq!(shown.names().count(), 3);
        let unit = "[Service]\nEnvironment=PMM_AGENT_ID=0\nEnvironment=\n#Environment=PMM_AGENT_DEBUG=1\n\
                    Environment=\"PMM_AGENT_PATHS_BASE=/a b\" \\\n  PMM_AGENT_LISTEN_PORT=1\n";
        let unit = Variables::of_unit_file(unit);
        assert_eq!(unit.get("PMM_AGENT_PATHS_BASE"), Some("/a b"));
        assert_eq!(unit.names().count(), 2);
        let file = "# c\n; c\nPMM_AGENT_SERVER_PASSWORD='a \"#b'\nPMM_AGENT_PATHS_TEMPDIR = /x y \nPMM_AGENT_ID=\nno line\n";
        let file = Variables::of_file(file);
        assert_eq!(file.get("PMM_AGENT_SERVER_PASSWORD"), Some("a \"#b"));
        assert_eq!(file.get("PMM_AGENT_PATHS_TEMPDIR"), Some("/x y"));
        assert_eq!(file.names().count(), 2);
    }

    #[test]
    fn what_the_switch_does_not_write_is_out_of_its_reach() {
        let old = |name: &str| Variables::of_pairs([format!("{name}={PMM2_BASE}/x")]);
        let seen = old("PMM_AGENT_CONFIG_FILE").with(old("PMM_AGENT_PATHS_BASE"));
        let owned = [old("PMM_AGENT_CONFIG_FILE"), old("PMM_AGENT_PATHS_BASE")];
        let none: Vec<String> = Vec::new();
        assert_eq!(out_of_reach(&seen, PMM2_BASE, &owned, &[]), none);
        assert_eq!(
            out_of_reach(&seen, PMM2_BASE, &owned[..1], &[]),
            ["PMM_AGENT_PATHS_BASE"]
        );
        // A file that is not ours may be read after ours.
        assert_eq!(
            out_of_reach(&seen, PMM2_BASE, &owned, &owned[..1]),
            ["PMM_AGENT_CONFIG_FILE"]
        );
        assert_eq!(out_of_reach(&seen, PMM3_BASE, &[], &[]), none);
    }

    #[test]
    fn only_the_clients_own_variables_move() {
        let pairs = [
            format!("PMM_AGENT_PATHS_BASE={PMM2_BASE}"),
            format!("PMM_AGENT_SERVER_PASSWORD={PMM2_BASE}"),
            format!("BACKUP={PMM2_BASE}"),
        ];
        let moved = rebased(&pairs, PMM2_BASE, PMM3_BASE);
        assert_eq!(moved[0], format!("PMM_AGENT_PATHS_BASE={PMM3_BASE}"));
        assert_eq!(moved[1..], pairs[1..]);
    }

    proptest! {
        #[test]
        fn any_quoted_value_is_read_back(value in "[ -~]{1,30}") {
            let quoted = format!("\"{}\"", value.replace('\\', "\\\\").replace('"', "\\\""));
            let file = Variables::of_file(&format!("PMM_AGENT_ID={quoted}\n"));
            prop_assert_eq!(file.get("PMM_AGENT_ID"), Some(value.as_str()));
            let shown = Variables::of_words(&format!("A=b \"PMM_AGENT_ID={}", &quoted[1..]));
            prop_assert_eq!(shown.get("PMM_AGENT_ID"), Some(value.as_str()));
        }

        #[test]
        fn nothing_makes_it_panic(text in "\\PC{0,80}") {
            let _ = (Variables::of_words(&text), Variables::of_unit_file(&text), Variables::of_file(&text));
        }
    }
}
