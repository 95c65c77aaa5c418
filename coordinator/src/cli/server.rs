//! `server`: the PMM Server as it is, and whether it is ready.

use super::Ended;
use super::client::{self, Client};
use super::output::Output;
use super::{fleet_file, survey};
use fleet_common::codes::exit;
use server_upgrade::facts::{PreflightReport, ServerFacts};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

#[derive(clap::Subcommand)]
pub enum Command {
    /// What runs
    Inspect {
        /// The fleet file
        #[arg(short, long, value_name = "FLEET.TOML")]
        file: PathBuf,
    },
    /// Check everything that the upgrade depends on; changes nothing that runs
    Preflight {
        /// The fleet file
        #[arg(short, long, value_name = "FLEET.TOML")]
        file: PathBuf,
    },
}

impl Command {
    /// The fleet file.
    pub fn file(&self) -> &Path {
        match self {
            Self::Inspect { file } | Self::Preflight { file } => file,
        }
    }
}

pub async fn run(command: Command, client: &mut Client, output: &Output) -> Ended {
    match command {
        Command::Inspect { file } => {
            let facts: ServerFacts = client::read(client.inspect_server(fleet_file::request(&file)?).await)?;
            output.document(&facts, facts_text);
            Ok(exit::OK)
        }
        Command::Preflight { file } => {
            let report: PreflightReport =
                client::read(client.preflight_server(fleet_file::request(&file)?).await)?;
            output.document(&report, |report| {
                let mut text = facts_text(&report.facts);
                let width = output.width();
                let mib = |bytes: u64| bytes / (1024 * 1024);
                let _ = writeln!(
                    text,
                    "data           {} MiB in {} files, {} MiB free for restore points\nfindings",
                    mib(report.data_bytes),
                    report.data_files,
                    mib(report.free_bytes)
                );
                survey::findings_text(&mut text, &report.findings, width);
                text
            });
            Ok(if report.ready() { exit::OK } else { exit::FAILED })
        }
    }
}

fn facts_text(facts: &ServerFacts) -> String {
    let mut text = String::new();
    let mut line = |name: &str, value: &str| {
        let _ = writeln!(text, "{name:<14} {}", if value.is_empty() { "-" } else { value });
    };
    let release = |version: Option<fleet_common::version::PmmVersion>| {
        version.map_or_else(|| "unknown".to_owned(), |version| version.to_string())
    };
    line("release", &facts.version.to_string());
    line("volume says", &release(facts.marker));
    line("image says", &release(facts.image_version));
    line("image", &facts.image);
    line(
        "container",
        &format!(
            "{} ({})",
            facts.container,
            facts.container_id.get(..12).unwrap_or(&facts.container_id)
        ),
    );
    line(
        "data",
        facts.data.as_ref().map(|data| data.source()).unwrap_or_default(),
    );
    line("ports", &facts.ports.join(", "));
    line("networks", &facts.networks.join(", "));
    line("restart", &facts.restart_policy);
    line("environment", &facts.operator_env.join(", "));
    line("engine", &format!("{} (API {})", facts.engine, facts.engine_api));
    text
}
