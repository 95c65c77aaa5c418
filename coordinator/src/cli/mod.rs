//! The command line: one file per noun. Results go to stdout, logs and errors to stderr, the exit status is one of
//! `fleet_common::codes::exit`.

mod client;
mod host;
mod init;
mod output;
mod serve;
mod survey;
mod text;
mod token;

use crate::config::{DEFAULT_DATA, DataDir};
use crate::problem::Problems;
use clap::{Parser, Subcommand};
use fleet_common::codes::exit;
use output::Output;
use std::path::PathBuf;
use std::process::ExitCode;

#[derive(Parser)]
#[command(name = "pmm-coordinator", version, about = "Brings a PMM 2 installation to PMM 3: the server, then every client", propagate_version = true)]
struct Arguments {
    /// Data directory of the coordinator
    #[arg(long, global = true, env = "PMM_COORDINATOR_DATA", default_value = DEFAULT_DATA)]
    data: PathBuf,
    /// Print results as JSON
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Make the data directory: CA, server certificate, store
    Init(init::Arguments),
    /// Run the coordinator
    Serve(serve::Arguments),
    /// Join tokens for hosts
    #[command(subcommand)]
    Token(token::Command),
    /// Hosts that have enrolled
    #[command(subcommand)]
    Host(host::Command),
}

/// How a command ended: the exit status, or what to say.
type Ended = Result<i32, Problems>;

/// Runs the command line of this process.
pub fn run() -> ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => {
            let usage = error.use_stderr();
            // Nobody reads the help any more: no reason to complain.
            let _ = error.print();
            return code(if usage { exit::USAGE } else { exit::OK });
        }
    };
    fleet_tls::install_default();
    let output = Output::new(arguments.json);
    let data = DataDir::new(arguments.data);
    let status = match dispatch(arguments.command, &data, &output) {
        Ok(status) => status,
        Err(problems) => {
            output.problems(&problems);
            problems.exit
        }
    };
    code(status)
}

fn code(status: i32) -> ExitCode { ExitCode::from(u8::try_from(status).unwrap_or(1)) }

fn dispatch(command: Command, data: &DataDir, output: &Output) -> Ended {
    match command {
        Command::Init(arguments) => init::run(&arguments, data, output),
        Command::Serve(arguments) => serve::run(&arguments, data),
        Command::Token(command) => client::with(data, async |client| token::run(command, client, output).await),
        Command::Host(command) => client::with(data, async |client| host::run(command, client, output).await),
    }
}
