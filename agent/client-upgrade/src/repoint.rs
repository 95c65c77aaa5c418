//! The PMM Server's address in a client's configuration: whether it may be changed, and the smallest change of the file that does it. With
//! `from` and `to` exchanged it is its own inverse.

use crate::parse::config::{self, ClientConfig};
use crate::policy::Policy;
use fleet_common::plan_entry::Repoint;

/// What is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// Write the new address.
    Rewrite,
    /// It is there already.
    AlreadyDone,
}

/// Why the address is not changed. Nothing was touched.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// Not the order's fault: the host does not want it.
    #[error(
        "the policy does not list the address {0}, and it is another host than before; add it to `server_addresses` on the host"
    )]
    Policy(String),
    /// Neither the old nor the new address is in the file.
    #[error("the configuration names the server {found}, the order expects {from}")]
    Another {
        /// In the file.
        found: String,
        /// In the order.
        from: String,
    },
    /// Encrypted, or of a shape that we don't edit.
    #[error(
        "the client's configuration can't be read (encrypted, or not as `pmm-agent setup` writes it); change the address by the client's own means"
    )]
    Opaque,
    /// Something that is no address.
    #[error("`{0}` is not host:port")]
    Address(String),
    /// Another place wins over the file.
    #[error("{0} sets the server's address and wins over the configuration file; change it there")]
    Overridden(String),
}

/// Decides. `config` is `None` where the file is opaque.
pub fn decide(config: Option<&ClientConfig>, repoint: &Repoint, policy: &Policy) -> Result<Wanted, Refused> {
    let from = split(&repoint.from).ok_or_else(|| Refused::Address(repoint.from.clone()))?;
    let to = split(&repoint.to).ok_or_else(|| Refused::Address(repoint.to.clone()))?;
    let config = config.ok_or(Refused::Opaque)?;
    if config.server_address == repoint.to {
        return Ok(Wanted::AlreadyDone);
    }
    let listed = policy.server_addresses.contains(&repoint.to);
    if !from.0.eq_ignore_ascii_case(to.0) && !listed {
        return Err(Refused::Policy(repoint.to.clone()));
    }
    if config.server_address != repoint.from {
        return Err(Refused::Another {
            found: config.server_address.clone(),
            from: repoint.from.clone(),
        });
    }
    Ok(Wanted::Rewrite)
}

/// The place that overrides the file: an argument or a variable of the running client.
pub fn overridden(argv: &[String], environment: &[String]) -> Option<Refused> {
    const FLAG: &str = "--server-address";
    const VARIABLE: &str = "PMM_AGENT_SERVER_ADDRESS";
    let by_flag = argv.iter().any(|argument| {
        argument == FLAG
            || argument
                .strip_prefix(FLAG)
                .is_some_and(|rest| rest.starts_with('='))
    });
    let by_variable = environment
        .iter()
        .filter_map(|pair| pair.split_once('='))
        .any(|(key, value)| key == VARIABLE && !value.is_empty());
    if by_flag {
        return Some(Refused::Overridden(format!("the argument {FLAG}")));
    }
    by_variable.then(|| Refused::Overridden(format!("the environment variable {VARIABLE}")))
}

/// The file with the other address: only the bytes of that one value differ. `None` when the value is not there exactly once, or the result
/// would not read back as meant.
pub fn rewrite(bytes: &[u8], from: &str, to: &str) -> Option<Vec<u8>> {
    split(to)?;
    let text = std::str::from_utf8(bytes).ok()?;
    let before = config::parse(bytes)?;
    if before.server_address != from {
        return None;
    }
    let mut out = String::with_capacity(text.len() + to.len());
    let mut in_server = false;
    let mut changed = 0;
    for line in text.split_inclusive('\n') {
        let top = !line.starts_with([' ', '#', '\n', '\r']);
        if top {
            in_server = line.trim_end() == "server:";
        }
        match in_server.then(|| value(line, from)).flatten() {
            Some((start, end)) => {
                changed += 1;
                out.push_str(&line[..start]);
                out.push_str(to);
                out.push_str(&line[end..]);
            }
            None => out.push_str(line),
        }
    }
    let after = config::parse(out.as_bytes())?;
    let meant = ClientConfig {
        server_address: to.to_owned(),
        ..before
    };
    (changed == 1 && after == meant).then(|| out.into_bytes())
}

/// Where the address stands in a line `address: <from>`, quotes not included.
fn value(line: &str, from: &str) -> Option<(usize, usize)> {
    let key = line.len() - line.trim_start_matches(' ').len();
    let rest = line[key..].strip_prefix("address:")?;
    let gap = rest.len() - rest.trim_start_matches([' ', '\t']).len();
    if key == 0 || gap == 0 {
        return None;
    }
    let mut start = key + "address:".len() + gap;
    let quote = line[start..]
        .chars()
        .next()
        .filter(|first| matches!(first, '\'' | '"'));
    start += quote.map_or(0, char::len_utf8);
    let end = start + from.len();
    if line.get(start..end)? != from {
        return None;
    }
    let after = &line[end..];
    let closed = match quote {
        Some(quote) => after.starts_with(quote),
        None => after.trim_end().is_empty() || after.starts_with(" #"),
    };
    closed.then_some((start, end))
}

/// Host and port. Only what can stand in YAML without any quoting rule.
fn split(address: &str) -> Option<(&str, u16)> {
    let (host, port) = address.rsplit_once(':')?;
    let plain = !host.is_empty()
        && host.len() <= 253
        && host
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_'));
    let digits = !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit());
    let port = port.parse().ok().filter(|port| *port != 0)?;
    (plain && digits).then_some((host, port))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    const SAMPLE: &str = "# Updated by `pmm-agent setup`.\n---\nid: /agent_id/4d5e\nserver:\n    address: pmm:443\n    username: admin\n    \
        password: 'pmm:443'\n    insecure-tls: true\npaths:\n    paths_base: /usr/local/percona/pmm2\nlog-level: warn\n";

    fn repoint(from: &str, to: &str) -> Repoint {
        Repoint {
            from: from.into(),
            to: to.into(),
        }
    }

    #[test]
    fn only_that_value_changes_and_the_exchange_undoes_it() {
        for quote in ["", "'", "\""] {
            let old = SAMPLE.replace("address: pmm:443", &format!("address: {quote}pmm:443{quote}"));
            let new = rewrite(old.as_bytes(), "pmm:443", "pmm:8443").unwrap();
            let want = old.replace(
                &format!("address: {quote}pmm:443"),
                &format!("address: {quote}pmm:8443"),
            );
            assert_eq!(String::from_utf8(new.clone()).unwrap(), want);
            assert_eq!(rewrite(&new, "pmm:8443", "pmm:443").unwrap(), old.as_bytes());
        }
    }

    #[test]
    fn comments_line_ends_and_a_missing_last_newline_stay() {
        let old = "server:\r\n  address: pmm:443 # the container\r\n  password: x\r\n";
        let new = rewrite(old.as_bytes(), "pmm:443", "pmm:8443");
        // A carriage return is no shape that we know: refused rather than guessed.
        assert!(new.is_none_or(|new| new == old.replace("pmm:443", "pmm:8443").into_bytes()));
        let old = "server:\n  address: pmm:443 # the container";
        let new = rewrite(old.as_bytes(), "pmm:443", "pmm:8443").unwrap();
        assert_eq!(new, b"server:\n  address: pmm:8443 # the container");
    }

    #[test]
    fn what_is_not_exactly_once_is_refused() {
        let twice = "server:\n  address: pmm:443\n  address: pmm:443\n";
        assert_eq!(rewrite(twice.as_bytes(), "pmm:443", "pmm:8443"), None);
        assert_eq!(
            rewrite(b"server: {address: pmm:443}\n", "pmm:443", "pmm:8443"),
            None
        );
        assert_eq!(rewrite(&[0, 1, 255], "pmm:443", "pmm:8443"), None);
        assert_eq!(rewrite(SAMPLE.as_bytes(), "pmm:443", "x\n  password: y:1"), None);
    }

    #[test]
    fn another_host_needs_the_policy() {
        let config = config::parse(SAMPLE.as_bytes());
        let policy = Policy::default();
        let ask = |repoint: &Repoint, policy: &Policy| decide(config.as_ref(), repoint, policy);
        assert_eq!(ask(&repoint("pmm:443", "pmm:8443"), &policy), Ok(Wanted::Rewrite));
        assert_eq!(
            ask(&repoint("pmm:80", "pmm:443"), &policy),
            Ok(Wanted::AlreadyDone)
        );
        assert!(matches!(
            ask(&repoint("pmm:443", "evil:443"), &policy),
            Err(Refused::Policy(_))
        ));
        let listed = Policy {
            server_addresses: vec!["other:8443".into()],
            ..Policy::default()
        };
        assert_eq!(
            ask(&repoint("pmm:443", "other:8443"), &listed),
            Ok(Wanted::Rewrite)
        );
        assert!(matches!(
            ask(&repoint("pmm:444", "pmm:8443"), &policy),
            Err(Refused::Another { .. })
        ));
        assert_eq!(
            decide(None, &repoint("pmm:443", "pmm:8443"), &policy),
            Err(Refused::Opaque)
        );
        for bad in ["pmm", "pmm:", "pmm:0", "pmm:99999", "p mm:1", "[::1]:1", "'x':1"] {
            assert!(matches!(
                ask(&repoint("pmm:443", bad), &listed),
                Err(Refused::Address(_))
            ));
        }
    }

    #[test]
    fn arguments_and_variables_win_over_the_file() {
        let list = |items: &[&str]| items.iter().map(|item| (*item).to_owned()).collect::<Vec<_>>();
        assert!(overridden(&list(&["pmm-agent", "--server-address=x:1"]), &[]).is_some());
        assert!(overridden(&[], &list(&["PMM_AGENT_SERVER_ADDRESS=x:1"])).is_some());
        let harmless = overridden(
            &list(&["pmm-agent", "--config-file=/x", "--server-address-x"]),
            &list(&["PMM_AGENT_SERVER_ADDRESS="]),
        );
        assert_eq!(harmless, None);
    }

    proptest! {
        #[test]
        fn everything_else_stays_byte_for_byte(host in "[a-z][a-z0-9-]{0,20}", port in 1u16..65535, to in 1u16..65535,
            password in "[ -~]{0,30}", tail in "[a-z]{1,8}") {
            let from = format!("{host}:{port}");
            let to = format!("{host}:{to}");
            let old = format!("id: x\nserver:\n    address: {from}\n    password: '{}'\n    {tail}: '{from}'\nlog-level: warn\n", password.replace('\'', "''"));
            if let Some(new) = rewrite(old.as_bytes(), &from, &to) {
                let want = old.replacen(&format!("address: {from}"), &format!("address: {to}"), 1);
                prop_assert_eq!(String::from_utf8(new.clone()).unwrap(), want);
                prop_assert_eq!(rewrite(&new, &to, &from).unwrap(), old.into_bytes());
            } else {
                prop_assert!(tail == "address" || tail == "username" || tail == "password");
            }
        }

        #[test]
        fn nothing_makes_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200), from in ".{0,12}", to in ".{0,12}") {
            let _ = rewrite(&bytes, &from, &to);
        }
    }
}
