//! `pmm-coordinator`: sequences the migration of one PMM Server and all of its clients.
//!
//! One binary is both the daemon (`serve`) and the operator's command line, which talks to the daemon over a unix socket in the data
//! directory.

mod agent_api;
mod artifacts;
mod cli;
mod clock;
mod config;
mod engine;
mod operator_api;
mod pki;
mod pmm;
mod problem;
mod sessions;
mod store;
mod telemetry;

fn main() -> std::process::ExitCode {
    cli::run()
}
