//! What becomes of each PMM 2 variable in PMM 3. Data: correct a fact here and nowhere else.
//!
//! Sources: `MIG` is the table in PMM docs, pmm-upgrade/migrating_from_pmm_2.md; `PARSER` is percona/pmm `managed/utils/envvars/parser.go`
//! of both majors; `REL` the release notes of 3.0.0; `GPMM` the script get-pmm.sh.

/// What happens to a variable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rule {
    /// New name, same text.
    Rename(&'static str),
    /// New name, a truth value that keeps its meaning.
    Bool(&'static str),
    /// New name, the opposite truth value.
    Invert(&'static str),
    /// New name; a Go duration. Days, which PMM's documentation shows and Go does not know, become hours.
    Duration(&'static str),
    /// As `Duration`, and a multiple of 24 hours.
    Days(&'static str),
    /// PMM 3 has no use for it.
    Drop(&'static str),
    /// Several old names with one new one, of which one is enough.
    First(&'static str),
}

/// One row.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    /// Name in PMM 2.
    pub name: &'static str,
    /// What happens to it.
    pub rule: Rule,
    /// Where this is written.
    pub source: &'static str,
}

const fn row(name: &'static str, rule: Rule, source: &'static str) -> Row {
    Row { name, rule, source }
}

/// Exact names.
pub const ROWS: &[Row] = &[
    row("DATA_RETENTION", Rule::Days("PMM_DATA_RETENTION"), "MIG, PARSER"),
    row("DISABLE_ALERTING", Rule::Invert("PMM_ENABLE_ALERTING"), "MIG"),
    row("DISABLE_UPDATES", Rule::Invert("PMM_ENABLE_UPDATES"), "MIG"),
    row("DISABLE_TELEMETRY", Rule::Invert("PMM_ENABLE_TELEMETRY"), "MIG"),
    row(
        "DISABLE_BACKUP_MANAGEMENT",
        Rule::Invert("PMM_ENABLE_BACKUP_MANAGEMENT"),
        "MIG",
    ),
    row(
        "ENABLE_ALERTING",
        Rule::Bool("PMM_ENABLE_ALERTING"),
        "PARSER of PMM 2 (legacy name); missing in MIG",
    ),
    row(
        "ENABLE_BACKUP_MANAGEMENT",
        Rule::Bool("PMM_ENABLE_BACKUP_MANAGEMENT"),
        "PARSER of PMM 2 (legacy name); missing in MIG",
    ),
    row(
        "ENABLE_AZUREDISCOVER",
        Rule::Bool("PMM_ENABLE_AZURE_DISCOVER"),
        "MIG",
    ),
    row("ENABLE_RBAC", Rule::Bool("PMM_ENABLE_ACCESS_CONTROL"), "MIG"),
    row(
        "ENABLE_VM_CACHE",
        Rule::Bool("PMM_ENABLE_VM_CACHE"),
        "PARSER; missing in MIG and GPMM",
    ),
    row(
        "METRICS_RESOLUTION",
        Rule::Duration("PMM_METRICS_RESOLUTION"),
        "MIG",
    ),
    row(
        "METRICS_RESOLUTION_HR",
        Rule::Duration("PMM_METRICS_RESOLUTION_HR"),
        "MIG",
    ),
    row(
        "METRICS_RESOLUTION_MR",
        Rule::Duration("PMM_METRICS_RESOLUTION_MR"),
        "MIG",
    ),
    row(
        "METRICS_RESOLUTION_LR",
        Rule::Duration("PMM_METRICS_RESOLUTION_LR"),
        "MIG",
    ),
    row(
        "PERCONA_PLATFORM_API_TIMEOUT",
        Rule::Duration("PMM_DEV_PERCONA_PLATFORM_API_TIMEOUT"),
        "MIG",
    ),
    row(
        "PERCONA_TEST_PMM_CLICKHOUSE_ADDR",
        Rule::Rename("PMM_CLICKHOUSE_ADDR"),
        "MIG",
    ),
    row(
        "PERCONA_TEST_PMM_CLICKHOUSE_DATABASE",
        Rule::Rename("PMM_CLICKHOUSE_DATABASE"),
        "MIG",
    ),
    row(
        "PERCONA_TEST_PMM_CLICKHOUSE_DATASOURCE",
        Rule::Rename("PMM_CLICKHOUSE_DATASOURCE"),
        "MIG",
    ),
    row(
        "PERCONA_TEST_PMM_CLICKHOUSE_HOST",
        Rule::Rename("PMM_CLICKHOUSE_HOST"),
        "MIG",
    ),
    row(
        "PERCONA_TEST_PMM_CLICKHOUSE_PORT",
        Rule::Rename("PMM_CLICKHOUSE_PORT"),
        "MIG",
    ),
    row(
        "PERCONA_TEST_PMM_DISABLE_BUILTIN_CLICKHOUSE",
        Rule::Bool("PMM_DISABLE_BUILTIN_CLICKHOUSE"),
        "MIG",
    ),
    row(
        "PERCONA_TEST_PMM_DISABLE_BUILTIN_POSTGRES",
        Rule::Bool("PMM_DISABLE_BUILTIN_POSTGRES"),
        "MIG",
    ),
    row(
        "PERCONA_TEST_POSTGRES_ADDR",
        Rule::Rename("PMM_POSTGRES_ADDR"),
        "MIG",
    ),
    row(
        "PERCONA_TEST_POSTGRES_DBNAME",
        Rule::Rename("PMM_POSTGRES_DBNAME"),
        "MIG",
    ),
    row(
        "PERCONA_TEST_POSTGRES_USERNAME",
        Rule::Rename("PMM_POSTGRES_USERNAME"),
        "MIG",
    ),
    row(
        "PERCONA_TEST_POSTGRES_DBPASSWORD",
        Rule::Rename("PMM_POSTGRES_DBPASSWORD"),
        "MIG",
    ),
    row(
        "PERCONA_TEST_POSTGRES_SSL_MODE",
        Rule::Rename("PMM_POSTGRES_SSL_MODE"),
        "MIG",
    ),
    row(
        "PERCONA_TEST_POSTGRES_SSL_CA_PATH",
        Rule::Rename("PMM_POSTGRES_SSL_CA_PATH"),
        "MIG",
    ),
    row(
        "PERCONA_TEST_POSTGRES_SSL_CERT_PATH",
        Rule::Rename("PMM_POSTGRES_SSL_CERT_PATH"),
        "MIG",
    ),
    row(
        "PERCONA_TEST_POSTGRES_SSL_KEY_PATH",
        Rule::Rename("PMM_POSTGRES_SSL_KEY_PATH"),
        "MIG",
    ),
    row(
        "PERCONA_TEST_INTERFACE_TO_BIND",
        Rule::Rename("PMM_INTERFACE_TO_BIND"),
        "MIG",
    ),
    row(
        "PERCONA_TEST_PLATFORM_ADDRESS",
        Rule::First("PMM_PERCONA_PLATFORM_ADDRESS"),
        "MIG; without effect since 3.7.0",
    ),
    row(
        "PERCONA_TEST_SAAS_HOST",
        Rule::First("PMM_PERCONA_PLATFORM_ADDRESS"),
        "MIG; without effect since 3.7.0",
    ),
    row(
        "PERCONA_TEST_AUTH_HOST",
        Rule::First("PMM_PERCONA_PLATFORM_ADDRESS"),
        "MIG; without effect since 3.7.0",
    ),
    row(
        "PERCONA_TEST_CHECKS_HOST",
        Rule::First("PMM_PERCONA_PLATFORM_ADDRESS"),
        "MIG; without effect since 3.7.0",
    ),
    row(
        "PERCONA_TEST_PLATFORM_INSECURE",
        Rule::Bool("PMM_DEV_PERCONA_PLATFORM_INSECURE"),
        "MIG",
    ),
    row(
        "PERCONA_TEST_PLATFORM_PUBLIC_KEY",
        Rule::First("PMM_DEV_PERCONA_PLATFORM_PUBLIC_KEY"),
        "MIG",
    ),
    row(
        "PERCONA_TEST_CHECKS_PUBLIC_KEY",
        Rule::First("PMM_DEV_PERCONA_PLATFORM_PUBLIC_KEY"),
        "MIG",
    ),
    row(
        "PERCONA_TEST_CHECKS_FILE",
        Rule::Rename("PMM_DEV_ADVISOR_CHECKS_FILE"),
        "MIG",
    ),
    row(
        "PERCONA_TEST_STARLARK_ALLOW_RECURSION",
        Rule::Bool("PMM_DEV_ADVISOR_STARLARK_ALLOW_RECURSION"),
        "MIG",
    ),
    row(
        "PERCONA_TEST_TELEMETRY_HOST",
        Rule::Rename("PMM_DEV_TELEMETRY_HOST"),
        "MIG",
    ),
    row(
        "PERCONA_TEST_TELEMETRY_INTERVAL",
        Rule::Duration("PMM_DEV_TELEMETRY_INTERVAL"),
        "MIG",
    ),
    row(
        "PERCONA_TEST_TELEMETRY_RETRY_BACKOFF",
        Rule::Duration("PMM_DEV_TELEMETRY_RETRY_BACKOFF"),
        "MIG",
    ),
    row(
        "PERCONA_TEST_TELEMETRY_DISABLE_START_DELAY",
        Rule::Bool("PMM_DEV_TELEMETRY_DISABLE_START_DELAY"),
        "MIG",
    ),
    row(
        "PMM_TEST_TELEMETRY_FILE",
        Rule::Rename("PMM_DEV_TELEMETRY_FILE"),
        "MIG",
    ),
    row(
        "PMM_TEST_TELEMETRY_DISABLE_SEND",
        Rule::Bool("PMM_DEV_TELEMETRY_DISABLE_SEND"),
        "MIG",
    ),
    row(
        "PERCONA_TEST_VERSION_SERVICE_URL",
        Rule::Rename("PMM_DEV_VERSION_SERVICE_URL"),
        "MIG; GPMM disagrees",
    ),
    row(
        "OAUTH_PMM_CLIENT_ID",
        Rule::Drop("sign-in through the Percona account is gone"),
        "MIG, release notes 3.7.0",
    ),
    row(
        "OAUTH_PMM_CLIENT_SECRET",
        Rule::Drop("sign-in through the Percona account is gone"),
        "MIG, release notes 3.7.0",
    ),
    row("LESS_LOG_NOISE", Rule::Drop("removed"), "MIG"),
    row("PERCONA_TEST_CHECKS_INTERVAL", Rule::Drop("removed"), "MIG"),
    row("PERCONA_TEST_NICER_API", Rule::Drop("removed"), "MIG"),
    row(
        "PERCONA_TEST_PMM_CLICKHOUSE_BLOCK_SIZE",
        Rule::Drop("removed"),
        "MIG",
    ),
    row(
        "PERCONA_TEST_PMM_CLICKHOUSE_POOL_SIZE",
        Rule::Drop("removed"),
        "MIG",
    ),
    row(
        "ENABLE_DBAAS",
        Rule::Drop("DBaaS is gone; unregister its clusters before"),
        "REL",
    ),
];

/// Namespaces of PMM 2 in which a name without a row means a setting that PMM 3 would silently lose.
pub const OWN_PREFIXES: &[&str] = &["PERCONA_", "PMM_TEST_", "DISABLE_", "ENABLE_", "OAUTH_PMM_"];

/// The row of a name; PMM compares names in upper case (PARSER).
pub fn find(name: &str) -> Option<&'static Row> {
    let upper = name.to_ascii_uppercase();
    ROWS.iter().find(|row| row.name == upper)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn names_are_unique_and_sourced() {
        assert_eq!(
            ROWS.iter().map(|row| row.name).collect::<BTreeSet<_>>().len(),
            ROWS.len()
        );
        assert!(ROWS.iter().all(|row| !row.source.is_empty()));
    }
}
