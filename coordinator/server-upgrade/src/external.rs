//! Databases outside of the data volume: a copy of the volume is no way back for them.

use crate::env_value::parse_bool;

/// Variables with the address of a database, in the forms of both majors (PMM docs: `migrating_from_pmm_2.md`; percona/pmm
/// `managed/utils/envvars/parser.go`; Grafana's `GF_DATABASE_*`).
const ADDRESSES: &[&str] = &[
    "GF_DATABASE_URL",
    "GF_DATABASE_HOST",
    "PERCONA_TEST_PMM_CLICKHOUSE_ADDR",
    "PERCONA_TEST_PMM_CLICKHOUSE_HOST",
    "PERCONA_TEST_PMM_CLICKHOUSE_DATASOURCE",
    "PERCONA_TEST_POSTGRES_ADDR",
    "PMM_CLICKHOUSE_ADDR",
    "PMM_CLICKHOUSE_HOST",
    "PMM_CLICKHOUSE_DATASOURCE",
    "PMM_POSTGRES_ADDR",
    "PMM_VM_URL",
];

/// Variables that switch a database of the volume off.
const SWITCHES: &[&str] = &["DISABLE_BUILTIN_CLICKHOUSE", "DISABLE_BUILTIN_POSTGRES"];

/// Names of the operator's variables that move data out of the volume. What can't be understood counts as outside.
pub fn databases(operator: &[(String, String)]) -> Vec<String> {
    operator
        .iter()
        .filter(|(name, value)| is_external(&name.to_ascii_uppercase(), value.trim()))
        .map(|(name, _)| name.clone())
        .collect()
}

fn is_external(name: &str, value: &str) -> bool {
    if SWITCHES.iter().any(|switch| name.ends_with(switch)) {
        return !value.is_empty() && parse_bool(value) != Some(false);
    }
    ADDRESSES.contains(&name) && !value.is_empty() && !hosts(value).all(is_loopback)
}

/// The hosts of `scheme://account@host:port,host:port/path?query`, every part but the host optional.
fn hosts(value: &str) -> impl Iterator<Item = &str> {
    let rest = value.split_once("://").map_or(value, |(_, rest)| rest);
    // A path is a socket in the container.
    let end = if rest.starts_with('/') {
        rest.len()
    } else {
        rest.find(['/', '?', '#']).unwrap_or(rest.len())
    };
    let authority = rest.get(..end).unwrap_or(rest);
    let list = authority.rsplit_once('@').map_or(authority, |(_, list)| list);
    list.split(',').map(|one| without_port(one.trim()))
}

fn without_port(address: &str) -> &str {
    if let Some(inner) = address.strip_prefix('[') {
        return inner.split_once(']').map_or(address, |(host, _)| host);
    }
    match address.split_once(':') {
        Some((host, port)) if !port.contains(':') => host,
        _ => address,
    }
}

fn is_loopback(host: &str) -> bool {
    host.starts_with('/')
        || host.eq_ignore_ascii_case("localhost")
        || host
            .parse::<std::net::IpAddr>()
            .is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outside(name: &str, value: &str) -> bool {
        !databases(&[(name.to_owned(), value.to_owned())]).is_empty()
    }

    #[test]
    fn whatever_points_away_from_loopback_is_outside() {
        for (name, value) in [
            ("GF_DATABASE_URL", "postgres://u:p@db.example.com:5432/grafana"),
            ("GF_DATABASE_URL", "postgres://u:p@127.0.0.1:x@10.0.0.9/grafana"),
            ("GF_DATABASE_URL", "sqlite3:"),
            ("GF_DATABASE_HOST", "10.1.2.3:5432"),
            ("PERCONA_TEST_PMM_CLICKHOUSE_ADDR", "ch:9000"),
            ("PERCONA_TEST_PMM_CLICKHOUSE_HOST", "ch"),
            ("PERCONA_TEST_POSTGRES_ADDR", "pg:5432"),
            ("PMM_CLICKHOUSE_ADDR", "127.0.0.1:9000,ch2:9000"),
            ("PMM_POSTGRES_ADDR", "[2001:db8::1]:5432"),
            ("PMM_VM_URL", "http://vm.example.com:8428/"),
            ("pmm_vm_url", "http://localhost.example.com/"),
            ("PERCONA_TEST_PMM_DISABLE_BUILTIN_POSTGRES", "1"),
            ("PMM_DISABLE_BUILTIN_CLICKHOUSE", "maybe"),
        ] {
            assert!(outside(name, value), "{name}={value}");
        }
    }

    #[test]
    fn loopback_sockets_and_switches_that_are_off_are_inside() {
        for (name, value) in [
            ("GF_DATABASE_URL", "postgres://u:p@127.0.0.1:5432/grafana"),
            ("GF_DATABASE_HOST", "/run/postgresql"),
            ("PMM_CLICKHOUSE_ADDR", "127.0.0.1:9000"),
            ("PMM_POSTGRES_ADDR", "[::1]:5432"),
            ("PMM_POSTGRES_ADDR", "::1"),
            ("PMM_VM_URL", "http://localhost:9090/prometheus/"),
            (
                "PERCONA_TEST_PMM_CLICKHOUSE_DATASOURCE",
                "tcp://127.0.0.1:9000?database=pmm",
            ),
            ("PMM_DISABLE_BUILTIN_POSTGRES", "0"),
            ("PMM_DISABLE_BUILTIN_POSTGRES", "False"),
            ("PMM_POSTGRES_USERNAME", "pmm"),
            ("PMM_VM_URL", ""),
        ] {
            assert!(!outside(name, value), "{name}={value}");
        }
    }
}
