//! The environment as PMM Server reads it: known names are checked, unknown ones are only warned about
//! (percona/pmm: managed/utils/envvars/parser.go, managed/cmd/pmm-managed-init).

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::log;

/// What the environment says.
#[derive(Debug, Default)]
pub struct Overrides {
    /// Setting (`updates_enabled`, `metrics_resolutions.hr`) to value.
    pub values: BTreeMap<String, Value>,
    /// What is ignored.
    pub warnings: Vec<String>,
    /// What keeps the server from starting.
    pub errors: Vec<String>,
}

enum Rule {
    Bool(&'static str),
    InvertedBool(&'static str),
    /// A duration that becomes a setting.
    Duration(&'static str),
    /// A duration of whole days.
    Days(&'static str),
    /// A flag without a setting.
    Flag,
    /// A duration without a setting.
    Time,
    /// Any text.
    Text(&'static str),
    Free,
}

fn rule(name: &str, v3: bool) -> Option<Rule> {
    let plain = if v3 {
        name.strip_prefix("PMM_").unwrap_or("")
    } else {
        name
    };
    let common = match plain {
        "DATA_RETENTION" => Some(Rule::Days("data_retention")),
        "METRICS_RESOLUTION" | "METRICS_RESOLUTION_HR" => Some(Rule::Duration("metrics_resolutions.hr")),
        "METRICS_RESOLUTION_MR" => Some(Rule::Duration("metrics_resolutions.mr")),
        "METRICS_RESOLUTION_LR" => Some(Rule::Duration("metrics_resolutions.lr")),
        "ENABLE_VM_CACHE" => Some(Rule::Flag),
        _ => None,
    };
    if common.is_some() {
        return common;
    }
    Some(match (name, v3) {
        ("PMM_DEBUG" | "PMM_TRACE", _) => Rule::Flag,
        ("PMM_PUBLIC_ADDRESS", _) => Rule::Text("pmm_public_address"),
        ("DISABLE_UPDATES", false) => Rule::InvertedBool("updates_enabled"),
        ("DISABLE_TELEMETRY", false) => Rule::InvertedBool("telemetry_enabled"),
        ("DISABLE_ALERTING", false) => Rule::InvertedBool("alerting_enabled"),
        ("DISABLE_BACKUP_MANAGEMENT", false) => Rule::InvertedBool("backup_management_enabled"),
        ("ENABLE_AZUREDISCOVER", false) | ("PMM_ENABLE_AZURE_DISCOVER", true) => {
            Rule::Bool("azurediscover_enabled")
        }
        ("ENABLE_RBAC", false) | ("PMM_ENABLE_ACCESS_CONTROL", true) => Rule::Bool("enable_access_control"),
        ("ENABLE_ALERTING" | "ENABLE_BACKUP_MANAGEMENT" | "ENABLE_DBAAS" | "LESS_LOG_NOISE", false) => {
            Rule::Flag
        }
        (
            "PERCONA_TEST_PMM_DISABLE_BUILTIN_CLICKHOUSE" | "PERCONA_TEST_PMM_DISABLE_BUILTIN_POSTGRES",
            false,
        ) => Rule::Flag,
        ("PMM_ENABLE_UPDATES", true) => Rule::Bool("updates_enabled"),
        ("PMM_ENABLE_TELEMETRY", true) => Rule::Bool("telemetry_enabled"),
        ("PMM_ENABLE_ALERTING", true) => Rule::Bool("alerting_enabled"),
        ("PMM_ENABLE_BACKUP_MANAGEMENT", true) => Rule::Bool("backup_management_enabled"),
        (
            "PMM_ENABLE_NOMAD"
            | "PMM_HA_ENABLE"
            | "PMM_DISABLE_BUILTIN_CLICKHOUSE"
            | "PMM_DISABLE_BUILTIN_POSTGRES",
            true,
        ) => Rule::Flag,
        ("PMM_DEV_PERCONA_PLATFORM_API_TIMEOUT", true) | ("PERCONA_PLATFORM_API_TIMEOUT", false) => {
            Rule::Time
        }
        (
            "PMM_ENCRYPTION_KEY_PATH"
            | "PMM_WATCHTOWER_HOST"
            | "PMM_WATCHTOWER_TOKEN"
            | "PMM_VM_URL"
            | "PMM_CLICKHOUSE_CONFIG"
            | "PMM_INTERFACE_TO_BIND"
            | "PMM_PERCONA_PLATFORM_ADDRESS"
            | "PMM_INSTALL_METHOD"
            | "PMM_DISTRIBUTION_METHOD",
            true,
        ) => Rule::Free,
        (name, true) if name.starts_with("PMM_POSTGRES_") || name.starts_with("PMM_CLICKHOUSE_") => {
            Rule::Free
        }
        (name, false)
            if name.starts_with("PERCONA_TEST_")
                || name.starts_with("OAUTH_PMM_")
                || name.starts_with("PMM_TEST_") =>
        {
            Rule::Free
        }
        _ => return None,
    })
}

/// Names that say nothing to PMM and are not worth a warning.
fn silent(name: &str) -> bool {
    const PREFIXES: &[&str] = &[
        "GF_",
        "VM_",
        "VMAGENT_",
        "SUPERVISOR_",
        "KUBERNETES_",
        "MONITORING_",
        "PMM_DEV_",
        "LC_",
    ];
    const NAMES: &[&str] = &[
        "PATH",
        "HOME",
        "HOSTNAME",
        "TERM",
        "USER",
        "PWD",
        "SHLVL",
        "LANG",
        "PS1",
        "_",
        "CONTAINER",
        "OLDPWD",
        "LOGNAME",
        "SHELL",
        "MAIL",
        "NO_PROXY",
        "HTTP_PROXY",
        "HTTPS_PROXY",
        "SUDO_USER",
    ];
    NAMES.contains(&name) || PREFIXES.iter().any(|p| name.starts_with(p))
}

/// Reads an environment.
pub fn parse(vars: impl IntoIterator<Item = (String, String)>, v3: bool) -> Overrides {
    let mut out = Overrides::default();
    let vars: BTreeMap<String, String> = vars.into_iter().map(|(n, v)| (n.to_uppercase(), v)).collect();
    for (name, raw) in vars {
        let value = raw.to_lowercase();
        let Some(rule) = rule(&name, v3) else {
            if silent(&name) {
            } else if v3 && name.starts_with("PERCONA_") {
                out.warnings.push(format!("PERCONA_* env variables are NOT SUPPORTED, please use PMM_* env variables, for details please check our documentation: {name}"));
            } else {
                out.warnings
                    .push(format!("unknown environment variable {name:?}"));
            }
            continue;
        };
        let flag = |errors: &mut Vec<String>| {
            let parsed = parse_bool(&value);
            if parsed.is_none() {
                errors.push(format!("invalid value {raw:?} for environment variable {name:?}"));
            }
            parsed
        };
        let time = |errors: &mut Vec<String>| {
            let parsed = parse_duration(&value);
            if parsed.is_none() {
                errors.push(format!(
                    "environment variable {name:?} has invalid duration {raw}"
                ));
            }
            parsed
        };
        match rule {
            Rule::Bool(setting) => {
                if let Some(b) = flag(&mut out.errors) {
                    out.values.insert(setting.to_owned(), json!(b));
                }
            }
            Rule::InvertedBool(setting) => {
                if let Some(b) = flag(&mut out.errors) {
                    out.values.insert(setting.to_owned(), json!(!b));
                }
            }
            Rule::Flag => {
                flag(&mut out.errors);
            }
            Rule::Time => {
                time(&mut out.errors);
            }
            Rule::Duration(setting) => {
                if let Some(s) = time(&mut out.errors) {
                    if s < 1.0 || s.fract() != 0.0 {
                        out.errors.push(format!("{name}: minimal resolution is 1s and resolution should be a natural number of seconds"));
                    } else {
                        out.values.insert(setting.to_owned(), json!(format!("{s}s")));
                    }
                }
            }
            Rule::Days(setting) => {
                if let Some(s) = time(&mut out.errors) {
                    if s < 86_400.0 || s % 86_400.0 != 0.0 {
                        out.errors
                            .push(format!("{name}: should be a natural number of days"));
                    } else {
                        out.values.insert(setting.to_owned(), json!(format!("{s}s")));
                    }
                }
            }
            Rule::Text(setting) => {
                if !raw.is_empty() {
                    out.values.insert(setting.to_owned(), json!(raw));
                }
            }
            Rule::Free => {}
        }
    }
    out
}

/// Go's words for true and false.
fn parse_bool(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "true" => Some(true),
        "0" | "f" | "false" => Some(false),
        _ => None,
    }
}

/// Go's durations, in seconds: no unit above the hour.
fn parse_duration(text: &str) -> Option<f64> {
    if text == "0" {
        return Some(0.0);
    }
    let mut rest = text;
    let mut total = 0.0;
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !(c.is_ascii_digit() || c == '.'))?;
        let n: f64 = rest[..digits].parse().ok()?;
        rest = &rest[digits..];
        let unit_len = rest
            .find(|c: char| c.is_ascii_digit() || c == '.')
            .unwrap_or(rest.len());
        total += n * match &rest[..unit_len] {
            "ns" => 1e-9,
            "us" | "µs" => 1e-6,
            "ms" => 1e-3,
            "s" => 1.0,
            "m" => 60.0,
            "h" => 3600.0,
            _ => return None,
        };
        rest = &rest[unit_len..];
    }
    Some(total)
}

/// The overrides of this process' environment.
pub fn current(v3: bool) -> Overrides {
    parse(std::env::vars(), v3)
}

/// pmm-managed-init: checks the environment; the exit code is 1 if it is wrong.
pub fn init(v3: bool) -> i32 {
    let found = current(v3);
    for warning in &found.warnings {
        log::line(format!("level=warning msg=\"Configuration warning: {warning}.\""));
    }
    for error in &found.errors {
        log::line(format!("level=error msg=\"Configuration error: {error}.\""));
    }
    i32::from(!found.errors.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(vars: &[(&str, &str)], v3: bool) -> Overrides {
        parse(vars.iter().map(|(a, b)| ((*a).to_owned(), (*b).to_owned())), v3)
    }

    #[test]
    fn a_bad_value_of_a_known_name_is_an_error() {
        assert_eq!(check(&[("PMM_ENABLE_UPDATES", "maybe")], true).errors.len(), 1);
        assert_eq!(check(&[("PMM_DATA_RETENTION", "30d")], true).errors.len(), 1);
        assert_eq!(check(&[("PMM_DATA_RETENTION", "25h")], true).errors.len(), 1);
        assert_eq!(check(&[("DISABLE_UPDATES", "perhaps")], false).errors.len(), 1);
    }

    #[test]
    fn an_old_name_is_lost_with_a_warning() {
        let found = check(
            &[
                ("DISABLE_UPDATES", "true"),
                ("DATA_RETENTION", "720h"),
                ("PERCONA_TEST_X", "1"),
            ],
            true,
        );
        assert!(found.errors.is_empty() && found.values.is_empty());
        assert_eq!(found.warnings.len(), 3);
    }

    #[test]
    fn good_values_become_settings() {
        let found = check(
            &[
                ("PMM_ENABLE_UPDATES", "False"),
                ("PMM_DATA_RETENTION", "720h"),
                ("PMM_METRICS_RESOLUTION_HR", "2s"),
                ("GF_X", "y"),
            ],
            true,
        );
        assert!(found.warnings.is_empty() && found.errors.is_empty());
        assert_eq!(found.values["updates_enabled"], json!(false));
        assert_eq!(found.values["data_retention"], json!("2592000s"));
        assert_eq!(found.values["metrics_resolutions.hr"], json!("2s"));
        assert_eq!(
            check(&[("DISABLE_UPDATES", "1")], false).values["updates_enabled"],
            json!(false)
        );
    }
}
