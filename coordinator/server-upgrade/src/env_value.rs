//! Values of PMM variables: truth words, Go durations, Grafana's database URL.

/// A truth word as Go's `ParseBool` takes it; PMM lowers the text first (percona/pmm `managed/utils/envvars/parser.go`).
pub fn parse_bool(text: &str) -> Option<bool> {
    match text.to_ascii_lowercase().as_str() {
        "1" | "t" | "true" => Some(true),
        "0" | "f" | "false" => Some(false),
        _ => None,
    }
}

/// A duration in nanoseconds as Go's `ParseDuration` takes it, and days. `None` for anything else, negative ones included.
pub fn parse_duration(text: &str) -> Option<u128> {
    let text = text.to_ascii_lowercase();
    let mut rest = text.strip_prefix('+').unwrap_or(&text);
    if rest == "0" {
        return Some(0);
    }
    let mut total = 0u128;
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, after) = rest.split_at(end);
        let unit_end = after
            .find(|c: char| c.is_ascii_digit() || c == '.')
            .unwrap_or(after.len());
        let (unit, next) = after.split_at(unit_end);
        total = total.checked_add(part(number, unit_nanoseconds(unit)?)?)?;
        rest = next;
    }
    Some(total)
}

fn part(number: &str, unit: u128) -> Option<u128> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if (whole.is_empty() && fraction.is_empty()) || fraction.contains('.') || fraction.len() > 18 {
        return None;
    }
    let whole: u128 = if whole.is_empty() { 0 } else { whole.parse().ok()? };
    let mut value = whole.checked_mul(unit)?;
    if !fraction.is_empty() {
        let scale = 10u128.checked_pow(u32::try_from(fraction.len()).ok()?)?;
        value = value.checked_add(fraction.parse::<u128>().ok()?.checked_mul(unit)? / scale)?;
    }
    Some(value)
}

fn unit_nanoseconds(unit: &str) -> Option<u128> {
    Some(match unit {
        "ns" => 1,
        "us" | "\u{b5}s" | "\u{3bc}s" => 1_000,
        "ms" => 1_000_000,
        "s" => 1_000_000_000,
        "m" => 60_000_000_000,
        "h" => 3_600_000_000_000,
        "d" => 86_400_000_000_000,
        _ => return None,
    })
}

/// The text that PMM 3 takes for this duration: unchanged unless it has days, which become hours.
pub fn go_duration(text: &str) -> Option<String> {
    let nanoseconds = parse_duration(text)?;
    if !text.to_ascii_lowercase().contains('d') {
        return Some(text.to_owned());
    }
    let seconds = nanoseconds / 1_000_000_000;
    Some(if seconds.is_multiple_of(3600) {
        format!("{}h", seconds / 3600)
    } else {
        format!("{seconds}s")
    })
}

/// Whether a duration is a whole number of days, and at least one.
pub fn whole_days(text: &str) -> bool {
    parse_duration(text).is_some_and(|value| value > 0 && value.is_multiple_of(86_400_000_000_000))
}

/// The parts of `postgres://user:password@host:port/name?sslmode=...`, percent signs decoded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DatabaseUrl {
    /// `postgres` or `mysql`.
    pub kind: String,
    /// User; may be empty.
    pub user: String,
    /// Password; may be empty.
    pub password: String,
    /// `host:port`.
    pub host: String,
    /// Database.
    pub name: String,
    /// `sslmode`, if given.
    pub ssl_mode: Option<String>,
}

/// Reads Grafana's `GF_DATABASE_URL`.
pub fn parse_database_url(text: &str) -> Option<DatabaseUrl> {
    let (scheme, rest) = text.split_once("://")?;
    let kind = match scheme {
        "postgres" | "postgresql" => "postgres",
        "mysql" => "mysql",
        _ => return None,
    };
    let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
    let (authority, name) = rest.split_once('/')?;
    let (account, host) = authority.rsplit_once('@').unwrap_or(("", authority));
    let (user, password) = account.split_once(':').unwrap_or((account, ""));
    if host.is_empty() || name.is_empty() || name.contains('/') {
        return None;
    }
    let mut ssl_mode = None;
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        match pair.split_once('=') {
            Some(("sslmode", value)) => ssl_mode = Some(decode(value)?),
            // A parameter that has no variable of its own can't be carried over.
            _ => return None,
        }
    }
    let has_port = host
        .rsplit_once(':')
        .is_some_and(|(_, port)| port.bytes().all(|b| b.is_ascii_digit()) && !port.is_empty());
    let default_port = if kind == "mysql" { 3306 } else { 5432 };
    Some(DatabaseUrl {
        kind: kind.to_owned(),
        user: decode(user)?,
        password: decode(password)?,
        host: if has_port {
            host.to_owned()
        } else {
            format!("{host}:{default_port}")
        },
        name: decode(name)?,
        ssl_mode,
    })
}

fn decode(text: &str) -> Option<String> {
    let mut bytes = text.bytes();
    let mut out = Vec::new();
    while let Some(byte) = bytes.next() {
        if byte == b'%' {
            let pair = [bytes.next()?, bytes.next()?];
            out.push(u8::from_str_radix(std::str::from_utf8(&pair).ok()?, 16).ok()?);
        } else {
            out.push(byte);
        }
    }
    String::from_utf8(out).ok()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn truth_words() {
        for (text, want) in [
            ("1", true),
            ("T", true),
            ("TRUE", true),
            ("0", false),
            ("False", false),
            ("f", false),
        ] {
            assert_eq!(parse_bool(text), Some(want), "{text}");
        }
        for text in ["", "yes", "on", "2", " true"] {
            assert_eq!(parse_bool(text), None, "{text}");
        }
    }

    #[test]
    fn days_become_hours_and_the_rest_stays() {
        for (text, want) in [
            ("30d", "720h"),
            ("1d12h", "36h"),
            ("1.5d", "36h"),
            ("720h", "720h"),
            ("5s", "5s"),
            ("1m30s", "1m30s"),
        ] {
            assert_eq!(go_duration(text).as_deref(), Some(want), "{text}");
        }
        for text in ["", "30", "d", "1w", "-1h", "1..5h", "h1"] {
            assert_eq!(go_duration(text), None, "{text}");
        }
        assert!(whole_days("720h") && whole_days("30d") && !whole_days("36h") && !whole_days("0"));
    }

    #[test]
    fn database_urls() {
        let url =
            parse_database_url("postgres://grafana:p%40ss%3Aw@pg.lan:5433/graf?sslmode=require").unwrap();
        assert_eq!(
            (url.user.as_str(), url.password.as_str(), url.host.as_str()),
            ("grafana", "p@ss:w", "pg.lan:5433")
        );
        assert_eq!(
            (url.name.as_str(), url.ssl_mode.as_deref()),
            ("graf", Some("require"))
        );
        assert_eq!(parse_database_url("postgresql://h/db").unwrap().host, "h:5432");
        for bad in [
            "",
            "sqlite:///x",
            "postgres://h",
            "postgres://h/db?pool=3",
            "postgres://u:%zz@h/db",
        ] {
            assert_eq!(parse_database_url(bad), None, "{bad}");
        }
    }

    proptest! {
        #[test]
        fn hours_keep_their_length(days in 0u64..10_000) {
            let hours = go_duration(&format!("{days}d")).unwrap();
            prop_assert_eq!(parse_duration(&hours), parse_duration(&format!("{}h", days * 24)));
            prop_assert!(!hours.contains('d'));
        }

        #[test]
        fn odd_texts_never_panic(text in ".{0,40}") {
            let _ = (parse_bool(&text), go_duration(&text), parse_database_url(&text), whole_days(&text));
        }
    }
}
