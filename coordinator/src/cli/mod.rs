//! The command line: one file per noun. Results go to stdout, logs and errors to stderr, the exit status is one of
//! `fleet_common::codes::exit`.

mod adopt;
mod client;
mod doctor;
mod explain;
mod fleet;
mod fleet_file;
mod generate;
mod host;
mod host_action;
mod init;
mod output;
mod plan;
mod plan_check;
mod plan_text;
mod report;
mod rollout;
pub mod screens;
mod serve;
mod server;
mod status;
mod survey;
mod text;
mod token;
mod watch;

use crate::config::{DEFAULT_DATA, DataDir};
use crate::problem::Problems;
use clap::{CommandFactory as _, Parser, Subcommand};
use fleet_common::codes::exit;
use output::Output;
use std::path::PathBuf;
use std::process::ExitCode;

#[derive(Parser)]
#[command(
    name = "pmm-coordinator",
    version,
    about = "Brings a PMM 2 installation to PMM 3: the server, then every client",
    propagate_version = true
)]
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
    /// Check the coordinator itself: files, store, certificates, sockets, clock
    Doctor(doctor::Arguments),
    /// Join tokens for hosts
    #[command(subcommand)]
    Token(token::Command),
    /// Hosts that have enrolled
    #[command(subcommand)]
    Host(host::Command),
    /// Readiness of server and fleet by finding; changes nothing that runs
    Survey(survey::Arguments),
    /// The PMM Server
    #[command(subcommand)]
    Server(server::Command),
    /// The fleet file: its schema, and a first one from PMM's inventory
    #[command(subcommand)]
    Fleet(fleet::Command),
    /// Make a plan from a fleet file, check the file alone, show a plan or compare two
    Plan(plan::Arguments),
    /// Start the rollout of a plan
    Start(rollout::StartArguments),
    /// Let a plan made while the rollout runs take over
    Adopt(rollout::AdoptArguments),
    /// Let no further host or hop begin
    Pause(rollout::ReasonArguments),
    /// Go on after a pause; failures so far are accepted
    Resume(rollout::ResumeArguments),
    /// End the rollout; what is under way finishes
    Abort(rollout::AbortArguments),
    /// Try again what failed
    Retry(rollout::RetryArguments),
    /// Let a group begin that needs approval
    Approve(rollout::ApproveArguments),
    /// Reduce numbers of a group; only a new plan raises them
    Limit(rollout::LimitArguments),
    /// Leave out a host that did not begin
    Skip(rollout::SkipArguments),
    /// Let a host pass whose verification came to no verdict
    Accept(rollout::SkipArguments),
    /// Take back hosts that were upgraded and whose way back is kept
    #[command(subcommand)]
    Rollback(rollout::RollbackCommand),
    /// The rollout at this moment
    Status(status::Arguments),
    /// Follow the rollout until it ends or is paused with nothing under way; an approval or a window is waited out
    Watch,
    /// Why something is where it is, and what happens next
    Explain(explain::ExplainArguments),
    /// What happened so far
    Events(explain::EventsArguments),
    /// Every host once, the server, and the three checks
    Report(report::Arguments),
    /// Print the completions for a shell
    Completions(generate::CompletionsArguments),
    /// Write the manual pages, one for each command
    Man(generate::ManArguments),
}

/// Whether the command line takes these arguments; nothing is run.
pub fn takes(arguments: &[String]) -> Result<(), String> {
    let program = "pmm-coordinator".to_owned();
    Arguments::try_parse_from(std::iter::once(&program).chain(arguments))
        .map(drop)
        .map_err(|error| error.to_string())
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

fn code(status: i32) -> ExitCode {
    ExitCode::from(u8::try_from(status).unwrap_or(1))
}

fn dispatch(command: Command, data: &DataDir, output: &Output) -> Ended {
    match command {
        Command::Init(arguments) => init::run(&arguments, data, output),
        Command::Serve(arguments) => serve::run(&arguments, data),
        Command::Doctor(arguments) => doctor::run(&arguments, data, output),
        Command::Token(command) => {
            client::with(data, async |client| token::run(command, client, output).await)
        }
        Command::Host(command) => client::with(data, async |client| host::run(command, client, output).await),
        Command::Survey(arguments) => {
            fleet_file::request(arguments.file())?;
            client::with(data, async |client| survey::run(arguments, client, output).await)
        }
        Command::Server(command) => {
            fleet_file::request(command.file())?;
            client::with(data, async |client| server::run(command, client, output).await)
        }
        Command::Fleet(command) => fleet::run(command, output),
        Command::Plan(arguments) => {
            if let Some(file) = arguments.file_to_check() {
                return plan_check::run(file, output);
            }
            if let Some(file) = arguments.file() {
                fleet_file::request(file)?;
            }
            client::with(data, async |client| plan::run(arguments, client, output).await)
        }
        Command::Start(arguments) => client::with(data, async |client| {
            rollout::start(arguments, client, output).await
        }),
        Command::Adopt(arguments) => client::with(data, async |client| {
            rollout::adopt(arguments, client, output).await
        }),
        Command::Pause(arguments) => client::with(data, async |client| {
            rollout::pause(arguments, client, output).await
        }),
        Command::Resume(arguments) => client::with(data, async |client| {
            rollout::resume(arguments, client, output).await
        }),
        Command::Abort(arguments) => client::with(data, async |client| {
            rollout::abort(arguments, client, output).await
        }),
        Command::Retry(arguments) => client::with(data, async |client| {
            rollout::retry(arguments, client, output).await
        }),
        Command::Approve(arguments) => client::with(data, async |client| {
            rollout::approve(arguments, client, output).await
        }),
        Command::Limit(arguments) => client::with(data, async |client| {
            rollout::limit(arguments, client, output).await
        }),
        Command::Skip(arguments) => client::with(data, async |client| {
            rollout::skip(arguments, client, output).await
        }),
        Command::Accept(arguments) => client::with(data, async |client| {
            rollout::accept(arguments, client, output).await
        }),
        Command::Rollback(command) => client::with(data, async |client| {
            rollout::rollback(command, client, output).await
        }),
        Command::Status(arguments) => {
            client::with(data, async |client| status::run(arguments, client, output).await)
        }
        Command::Watch => client::with(data, async |client| watch::run(client, data, output).await),
        Command::Explain(arguments) => client::with(data, async |client| {
            explain::explain(arguments, client, output).await
        }),
        Command::Events(arguments) => client::with(data, async |client| {
            explain::events(arguments, client, output).await
        }),
        Command::Report(arguments) => {
            client::with(data, async |client| report::run(arguments, client, output).await)
        }
        Command::Completions(arguments) => generate::completions(&arguments, Arguments::command(), output),
        Command::Man(arguments) => generate::man(&arguments, Arguments::command(), output),
    }
}
