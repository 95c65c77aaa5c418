//! `fleet`: the fleet file's schema, and a first file from PMM's inventory.

use super::Ended;
use super::output::Output;
use crate::pmm;
use crate::problem::{Problem, Problems};
use ::rollout::fleet::{FirstFile, first_file, json_schema};
use fleet_common::codes::exit;
use fleet_common::verification::FleetSnapshot;
use pmm_driver::{Driver, ServerConfig, Trust};
use std::io::Write as _;
use std::path::{Path, PathBuf};

#[derive(clap::Subcommand)]
pub enum Command {
    /// Print the JSON Schema of the fleet file
    Schema,
    /// Write a first fleet file from PMM's inventory, to be read and changed
    Init(InitArguments),
}

#[derive(clap::Args)]
pub struct InitArguments {
    /// Base URL of the PMM Server, beginning with https:
    #[arg(long)]
    url: String,
    /// File of mode 0600 with user:password of a Grafana administrator, or a token
    #[arg(long, value_name = "FILE")]
    credential_file: PathBuf,
    /// CA of the PMM Server's certificate; the system's if neither this nor --fingerprint is given
    #[arg(long, value_name = "FILE", conflicts_with = "fingerprint")]
    ca_file: Option<PathBuf>,
    /// SHA-256 of the PMM Server's certificate
    #[arg(long, value_name = "sha256:HEX")]
    fingerprint: Option<String>,
    /// Name of the PMM Server's container
    #[arg(long, default_value = "pmm-server")]
    container: String,
    /// Release to reach
    #[arg(long, default_value = "3.9.1")]
    target: String,
    /// Where to write it; stdout if not given. A file that is there is never overwritten
    #[arg(short, long, value_name = "FLEET.TOML")]
    output: Option<PathBuf>,
}

pub fn run(command: Command, output: &Output) -> Ended {
    match command {
        Command::Schema => {
            output.document(&json_schema(), |schema| {
                serde_json::to_string_pretty(schema).unwrap_or_default()
            });
            Ok(exit::OK)
        }
        Command::Init(arguments) => init(&arguments, output),
    }
}

fn init(arguments: &InitArguments, output: &Output) -> Ended {
    if let Some(path) = arguments.output.as_deref().filter(|path| path.exists()) {
        return Err(taken(path).into());
    }
    let credential_file = whole(&arguments.credential_file)?;
    let ca_file = arguments.ca_file.as_deref().map(whole).transpose()?;
    let settings = FirstFile {
        url: arguments.url.clone(),
        credential_file: credential_file.display().to_string(),
        ca_file: ca_file.as_ref().map(|file| file.display().to_string()),
        fingerprint: arguments.fingerprint.clone(),
        container: arguments.container.clone(),
        target: arguments.target.clone(),
    };
    // What the flags say is checked as part of a file before anybody is asked.
    let shown = arguments
        .output
        .as_ref()
        .map_or_else(|| "the fleet file".to_owned(), |path| path.display().to_string());
    let check = |pmm: &FleetSnapshot| {
        let text = first_file(&settings, pmm);
        match ::rollout::fleet::parse(&text, &shown) {
            Ok(_) => Ok(text),
            Err(errors) => Err(pmm::problems(errors)),
        }
    };
    check(&FleetSnapshot::default())?;
    let config = ServerConfig {
        name: "pmm".to_owned(),
        url: arguments.url.trim_end_matches('/').to_owned(),
        credential_file,
        trust: match (ca_file, &arguments.fingerprint) {
            (Some(file), _) => Trust::CaFile(file),
            (None, Some(fingerprint)) => Trust::Fingerprint(fingerprint.clone()),
            (None, None) => Trust::System,
        },
        docker_endpoint: String::new(),
        container: arguments.container.clone(),
        image_repository: String::new(),
        helper: PathBuf::new(),
        deadlines: pmm_driver::Deadlines::default(),
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Problem::because("no runtime for the connection", &error))?;
    let snapshot = runtime
        .block_on(Driver::list(&config))
        .map_err(|error| Problems::from(pmm::driver_problem(&error)))?;
    let text = check(&snapshot)?;
    match &arguments.output {
        None => output.raw(&text),
        Some(path) => {
            write(path, &text)?;
            output.note(&format!(
                "{} is written; next: `pmm-coordinator plan --check -f {}`",
                path.display(),
                path.display()
            ));
        }
    }
    Ok(exit::OK)
}

/// The coordinator reads the files from another directory.
fn whole(path: &Path) -> Result<PathBuf, Problem> {
    std::path::absolute(path)
        .map_err(|error| Problem::because(format!("{} is no path", path.display()), &error))
}

/// Makes the file; one that came into being meanwhile stays.
fn write(path: &Path, text: &str) -> Result<(), Problem> {
    let mut options = fs_err::OpenOptions::new();
    let mut file = options
        .write(true)
        .create_new(true)
        .open(path)
        .map_err(|error| match error.kind() {
            std::io::ErrorKind::AlreadyExists => taken(path),
            _ => Problem::because("the fleet file can't be written", &error).at(path.display().to_string()),
        })?;
    file.write_all(text.as_bytes())
        .and_then(|()| file.sync_all())
        .map_err(|error| {
            Problem::because("the fleet file can't be written", &error).at(path.display().to_string())
        })
}

fn taken(path: &Path) -> Problem {
    Problem::new("there is a file already, and it is not overwritten")
        .at(path.display().to_string())
        .hint("name another file, or move this one away")
}
