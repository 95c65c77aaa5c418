//! `pmm-upgrade-agent`: upgrades the PMM client of one host under the coordinator's orders.
//!
//! ```text
//! link (session, outbox) ── orders ──> execute (journaled steps) ──> host (programs, files, units)
//!        ^                                  │        detect, verify
//!        └───────────── events ─────────────┘
//! ```
//!
//! What to do is decided in the pure crate `client-upgrade`; this program looks, acts, and remembers.

mod cli;
mod config;
mod detect;
mod execute;
mod guardian;
mod host;
mod journal;
mod link;
mod output;
mod policy;
mod service;
mod verify;

use clap::Parser;
use fleet_common::codes::exit;
use std::process::ExitCode;
use tracing_subscriber::EnvFilter;

fn main() -> ExitCode {
    // Modes are set where they matter; what package tools and directories get must not depend on who started us.
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o022));
    let filter = EnvFilter::try_from_env("PMM_UPGRADE_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(false)
        .init();
    match cli::run(cli::Cli::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            output::error(&error);
            ExitCode::from(u8::try_from(exit::FAILED).unwrap_or(1))
        }
    }
}
