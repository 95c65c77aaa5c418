//! `pmm-agent`: the long-running client.

pub mod connection;
pub mod jobs;
pub mod local_api;
pub mod qan;
pub mod setup;
pub mod shared;
pub mod supervisor;

use super::config::Config;
use super::fault;
use super::flags::Flags;
use super::out;
use super::release::Release;
use shared::Shared;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::sync::Arc;

pub(crate) const SWITCHES: [&str; 10] = [
    "json",
    "version",
    "help",
    "debug",
    "trace",
    "server-insecure-tls",
    "server-without-tls",
    "force",
    "skip-registration",
    "expose-exporter",
];
pub(crate) const VALUES: [&str; 42] = [
    "config-file",
    "config-file-key-file",
    "config-file-key-password",
    "id",
    "listen-address",
    "listen-port",
    "runner-capacity",
    "runner-max-connections-per-service",
    "server-address",
    "server-username",
    "server-password",
    "paths-base",
    "paths-exporters-base",
    "paths-node-exporter",
    "paths-mysqld-exporter",
    "paths-mongodb-exporter",
    "paths-postgres-exporter",
    "paths-proxysql-exporter",
    "paths-rds-exporter",
    "paths-azure-exporter",
    "paths-valkey-exporter",
    "paths-vmagent",
    "paths-nomad",
    "paths-nomad-data-dir",
    "paths-tempdir",
    "paths-pt-summary",
    "paths-pt-pg-summary",
    "paths-pt-mysql-summary",
    "paths-pt-mongodb-summary",
    "paths-slowlog-file-prefix",
    "ports-min",
    "ports-max",
    "log-level",
    "log-lines-count",
    "window-connected-time",
    "metrics-mode",
    "custom-labels",
    "region",
    "az",
    "node-model",
    "agent-password",
    "disable-collectors",
];
const SETUP_VALUES: [&str; 4] = ["machine-id", "distro", "container-id", "container-name"];

/// Runs `pmm-agent [run|setup] [flags]`.
pub fn main(release: &Release, args: &[String]) -> u8 {
    if let Some(text) = version_text(release, "pmm-agent", args) {
        out::line(&text);
        return 0;
    }
    let known: Vec<&str> = VALUES.iter().chain(SETUP_VALUES.iter()).copied().collect();
    let mut flags = match Flags::parse(args, &SWITCHES, &known) {
        Ok(flags) => flags,
        Err(e) => {
            out::error(&format!("pmm-agent: error: {e}, try --help"));
            return 1;
        }
    };
    let command = if flags.words.is_empty() {
        "run".to_string()
    } else {
        flags.words.remove(0)
    };
    match command.as_str() {
        "run" => run(release, flags),
        "setup" => setup::main(release, &flags),
        other => {
            out::error(&format!("pmm-agent: error: unexpected {other}, try --help"));
            1
        }
    }
}

/// Text for `--version`. The program prints as soon as it meets the flag, so `--json` counts only before it.
fn version_text(release: &Release, project: &str, args: &[String]) -> Option<String> {
    let at = args.iter().position(|a| a == "--version")?;
    let json = args[..at].iter().any(|a| a == "--json");
    Some(if json {
        release.json(project)
    } else {
        release.text(project)
    })
}

/// Finds a setting by flag, then by `PMM_AGENT_*` variable.
pub(crate) fn lookup(flags: &Flags, name: &str) -> Option<String> {
    flags.get(name).or_else(|| {
        std::env::var(format!(
            "PMM_AGENT_{}",
            name.replace('-', "_").to_ascii_uppercase()
        ))
        .ok()
    })
}

/// Loads the file named by the flags (or none) and applies precedence and defaults.
pub(crate) fn load(release: &Release, flags: &Flags) -> Result<(Config, Option<PathBuf>), String> {
    let file = lookup(flags, "config-file").map(|f| absolute(Path::new(&f)));
    let mut config = match &file {
        None => Config::default(),
        Some(path) => {
            let bytes = std::fs::read(path).map_err(|e| match e.kind() {
                std::io::ErrorKind::NotFound => {
                    format!("configuration file {} does not exist", path.display())
                }
                _ => format!("open {}: {e}", path.display()),
            })?;
            Config::from_bytes(&bytes)
                .map_err(|e| format!("failed to load configuration from {}: {e}", path.display()))?
        }
    };
    config.override_with(&|name| lookup(flags, name))?;
    config.fill(release);
    Ok((config, file))
}

fn absolute(path: &Path) -> PathBuf {
    if path.is_absolute() {
        path.into()
    } else {
        std::env::current_dir().unwrap_or_default().join(path)
    }
}

fn run(release: &Release, flags: Flags) -> u8 {
    if fault::asked(release, "crash") {
        out::log("FATA", "main", "cannot start");
        return 1;
    }
    let (config, file) = match load(release, &flags) {
        Ok(loaded) => loaded,
        Err(e) => {
            out::log("FATA", "main", &e);
            return 1;
        }
    };
    match &file {
        Some(path) => out::log(
            "INFO",
            "main",
            &format!("Loaded configuration from {}.", path.display()),
        ),
        None => out::log(
            "INFO",
            "main",
            "No configuration file is given; flags and environment only.",
        ),
    }
    let address = format!("{}:{}", config.listen_address, config.listen_port);
    let listener = match TcpListener::bind(&address) {
        Ok(listener) => listener,
        Err(e) => {
            out::log(
                "FATA",
                "local-server",
                &format!("listen tcp {address}: bind: {e}"),
            );
            return 1;
        }
    };
    let shared = Arc::new(Shared::new(release.clone(), flags, file, config));
    local_api::spawn(Arc::clone(&shared), listener);
    connection::spawn(Arc::clone(&shared));
    qan::spawn(Arc::clone(&shared));
    supervisor::run(&shared)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn json_counts_only_before_version() {
        let release = Release::plain("2.41.2");
        let args = |list: &[&str]| list.iter().map(ToString::to_string).collect::<Vec<_>>();
        assert!(
            version_text(&release, "pmm-agent", &args(&["--json", "--version"]))
                .unwrap()
                .starts_with('{')
        );
        assert!(
            version_text(&release, "pmm-agent", &args(&["--version", "--json"]))
                .unwrap()
                .starts_with("ProjectName")
        );
        assert_eq!(version_text(&release, "pmm-agent", &args(&["run"])), None);
    }
}
