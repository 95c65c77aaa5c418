//! Carrying a configuration over: the file's bytes stay as they are, only paths below the old base directory move to the new one. `setup` is
//! never run: up to 3.9 each run registers the node anew, and with `--force` the server deletes the node with all its services (PMM-14989).

use crate::parse::config;
use fleet_common::inventory::Method;

/// Base directory of PMM 2 packages.
pub const PMM2_BASE: &str = "/usr/local/percona/pmm2";
/// Base directory of PMM 3 packages.
pub const PMM3_BASE: &str = "/usr/local/percona/pmm";

/// Base directory of the packaged client of a major release.
pub fn package_base(major: u32) -> &'static str {
    if major < 3 { PMM2_BASE } else { PMM3_BASE }
}

/// Where the client lives after the switch. A tarball is replaced in place: its configuration and `paths` stay valid, and the files that
/// PMM 3 adds are looked up below `paths_base` (percona/pmm install_tarball; QA upgrades custom paths this way).
pub fn target_base(method: Method, base: &str, major: u32) -> String {
    match method {
        Method::Deb | Method::Rpm => package_base(major).to_owned(),
        Method::Tarball => base.to_owned(),
    }
}

/// Where the client that runs has its files. A package that was exchanged under the running client already changed the directory, but its
/// configuration may still be where the old one read it.
pub fn source_base<'a>(method: Method, base: &'a str, config_file: &str) -> &'a str {
    let old = config_file
        .strip_prefix(PMM2_BASE)
        .is_some_and(|rest| rest.starts_with('/'));
    match method {
        Method::Deb | Method::Rpm if old => PMM2_BASE,
        _ => base,
    }
}

/// The configuration file after the switch.
pub fn target_config(config_file: &str, from: &str, to: &str) -> String {
    rebase(config_file, from, to)
}

/// Moves a path from one base directory to another; other paths stay.
pub fn rebase(path: &str, from: &str, to: &str) -> String {
    match path.strip_prefix(from) {
        Some(rest) if rest.is_empty() || rest.starts_with('/') => format!("{to}{rest}"),
        _ => path.to_owned(),
    }
}

/// Moves every mention of a base directory in a text (a unit override, a link target, a configuration) to another. A directory that only
/// begins with the same letters, as `pmm2` does with `pmm`, is not a mention.
pub fn rebase_text(text: &str, from: &str, to: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find(from) {
        let (before, found) = rest.split_at(at);
        let after = &found[from.len()..];
        let ends = after
            .chars()
            .next()
            .is_none_or(|next| !(next.is_alphanumeric() || matches!(next, '-' | '_' | '.')));
        let begins = before
            .chars()
            .next_back()
            .is_none_or(|last| !(last.is_alphanumeric() || matches!(last, '-' | '_' | '.' | '/')));
        out.push_str(before);
        out.push_str(if ends && begins { to } else { from });
        rest = after;
    }
    out.push_str(rest);
    out
}

/// What was done to a configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Carried {
    /// The bytes to write.
    pub bytes: Vec<u8>,
    /// Whether the file could be read; an opaque one is carried byte by byte.
    pub understood: bool,
}

/// The configuration for the new release. Only lines of the `paths` block change, everything else stays byte for byte: comments, order,
/// quoting, keys that we don't know.
pub fn configuration(old: &[u8], from: &str, to: &str) -> Carried {
    let (Ok(text), Some(_)) = (std::str::from_utf8(old), config::parse(old)) else {
        return Carried {
            bytes: old.to_vec(),
            understood: false,
        };
    };
    let mut out = String::with_capacity(text.len());
    let mut in_paths = false;
    for line in text.split_inclusive('\n') {
        let top = !line.starts_with([' ', '#', '\n', '\r']);
        if top {
            in_paths = line.trim_end() == "paths:";
        }
        if in_paths && !top {
            out.push_str(&rebase_text(line, from, to))
        } else {
            out.push_str(line)
        }
    }
    Carried {
        bytes: out.into_bytes(),
        understood: true,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    const OLD: &str = "# c\n---\nid: /agent_id/1\nserver:\n    address: x:443\n    password: '/usr/local/percona/pmm2'\npaths:\n    paths_base: /usr/local/percona/pmm2\n    \
        node_exporter: \"/usr/local/percona/pmm2/exporters/node_exporter\"\n    tempdir: /tmp\n    slowlog_file_prefix: /data/usr/local/percona/pmm2x\nlog-level: warn\n";

    #[test]
    fn only_the_paths_block_moves() {
        let carried = configuration(OLD.as_bytes(), PMM2_BASE, PMM3_BASE);
        let text = String::from_utf8(carried.bytes).unwrap();
        assert!(carried.understood);
        assert!(text.contains("password: '/usr/local/percona/pmm2'\n"));
        assert!(text.contains("paths_base: /usr/local/percona/pmm\n"));
        assert!(text.contains("\"/usr/local/percona/pmm/exporters/node_exporter\""));
        assert!(text.contains("tempdir: /tmp\n") && text.contains("pmm2x\n"));
    }

    #[test]
    fn opaque_files_are_copied() {
        let carried = configuration(&[1, 2, 255], PMM2_BASE, PMM3_BASE);
        assert_eq!((carried.bytes, carried.understood), (vec![1, 2, 255], false));
    }

    #[test]
    fn a_package_exchanged_under_its_client_is_carried_from_where_it_runs() {
        let old = format!("{PMM2_BASE}/config/pmm-agent.yaml");
        assert_eq!(source_base(Method::Deb, PMM3_BASE, &old), PMM2_BASE);
        assert_eq!(source_base(Method::Deb, PMM3_BASE, "/etc/pmm.yaml"), PMM3_BASE);
        assert_eq!(source_base(Method::Deb, PMM2_BASE, &old), PMM2_BASE);
        assert_eq!(source_base(Method::Tarball, "/opt/pmm", &old), "/opt/pmm");
    }

    #[test]
    fn in_place_changes_nothing() {
        assert_eq!(
            configuration(OLD.as_bytes(), "/opt/pmm", "/opt/pmm").bytes,
            OLD.as_bytes()
        );
        assert_eq!(target_base(Method::Tarball, "/opt/pmm2", 3), "/opt/pmm2");
        assert_eq!(
            rebase("/usr/local/percona/pmm2x/a", PMM2_BASE, PMM3_BASE),
            "/usr/local/percona/pmm2x/a"
        );
    }

    #[test]
    fn units_are_rebased() {
        let unit = "ExecStart=/usr/local/percona/pmm2/bin/pmm-agent --config-file=/usr/local/percona/pmm2/config/pmm-agent.yaml\n";
        let want = "ExecStart=/usr/local/percona/pmm/bin/pmm-agent --config-file=/usr/local/percona/pmm/config/pmm-agent.yaml\n";
        assert_eq!(rebase_text(unit, PMM2_BASE, PMM3_BASE), want);
        assert_eq!(rebase_text(want, PMM2_BASE, PMM3_BASE), want);
    }

    proptest! {
        #[test]
        fn there_and_back_is_the_same(tail in "(/[a-z0-9_]{1,8}){0,3}") {
            let there = rebase(&format!("{PMM2_BASE}{tail}"), PMM2_BASE, PMM3_BASE);
            prop_assert_eq!(rebase(&there, PMM3_BASE, PMM2_BASE), format!("{PMM2_BASE}{tail}"));
        }

        #[test]
        fn the_identity_and_the_credentials_survive(id in "[a-f0-9-]{1,36}", secret in "[!-~]{1,30}") {
            let old = format!("id: /agent_id/{id}\nserver:\n  address: h:443\n  password: '{}'\npaths:\n  paths_base: {PMM2_BASE}\n", secret.replace('\'', "''"));
            let new = configuration(old.as_bytes(), PMM2_BASE, PMM3_BASE);
            let parsed = config::parse(&new.bytes).unwrap();
            prop_assert_eq!((parsed.id, parsed.password), (id, secret));
        }
    }
}
