//! The command line of the lab.

use crate::fleet::Wishes;
use crate::scenario::{self, Scenario};
use crate::{build, hosts, lock, output, rollout_real, suite, verify};
use anyhow::{Context, Result};
use clap::{Parser, Subcommand};
use std::path::PathBuf;
use std::process::ExitCode;

/// A fleet of real containers around the real programs.
#[derive(Parser)]
#[command(name = "cargo lab", version)]
struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Bring up PMM 2.41.2 with data and six hosts, and leave them up.
    Up,
    /// Bring the fleet up, migrate it to PMM 3 with the real programs, check the result, and take everything down again.
    Demo {
        /// Leave the fleet and the coordinator's data as they are at the end.
        #[arg(long)]
        keep: bool,
        /// Write the product's report as JSON.
        #[arg(long)]
        report: Option<PathBuf>,
        /// What goes wrong, or goes another way, on the road.
        #[arg(long, value_enum, default_value_t = Scenario::Plain)]
        scenario: Scenario,
        /// Break one stand-in or one expectation on purpose; the run must then fail.
        #[arg(long, value_enum)]
        sabotage: Option<scenario::Sabotage>,
        /// How PMM 2 reaches its last release: `image` or `api`.
        #[arg(long, default_value = "image", value_parser = ["image", "api"])]
        pmm2_update: String,
    },
    /// Check the fleet that `demo --keep` left, without any product code.
    Verify,
    /// Run a suite of cases, or list them.
    Suite {
        /// Name of the suite; all cases of it must pass.
        name: Option<String>,
        /// Only cases whose name contains this.
        #[arg(long)]
        case: Option<String>,
        /// Seed of random moments; printed by each run that draws some.
        #[arg(long)]
        seed: Option<u64>,
        /// Name every suite and case.
        #[arg(long)]
        list: bool,
        /// With `--list`: as JSON.
        #[arg(long, requires = "list")]
        json: bool,
    },
    /// Live whole fleets in virtual time around the real kernel and store; see `tests/sim`.
    Sim(crate::sim::Args),
    /// Remove everything the lab created.
    Down {
        /// Also remove the images it built, which otherwise stay as a cache.
        #[arg(long)]
        images: bool,
    },
}

/// Runs the command.
pub fn run() -> Result<ExitCode> {
    let args = Args::parse();
    if let Command::Suite { list: true, json, .. } = args.command {
        output::line(&suite::list(json));
        return Ok(ExitCode::SUCCESS);
    }
    if let Command::Sim(args) = args.command {
        return crate::sim::run(&args);
    }
    // The fleet's containers and ports have fixed names. Suites that need the fleet take this lock themselves.
    let _lock = if matches!(args.command, Command::Suite { .. }) {
        None
    } else {
        Some(lock::hold("fleet")?)
    };
    match args.command {
        Command::Up => {
            hosts::down()?;
            let fleet = hosts::up(&build::programs()?, "2.41.2", &Wishes::NONE)?;
            output::line(&format!(
                "the fleet is up; PMM 2.41.2 answers on https://127.0.0.1:{} ({} hosts)",
                crate::names::PMM_PORT,
                fleet.hosts
            ));
        }
        Command::Demo {
            keep,
            report,
            scenario,
            sabotage,
            pmm2_update,
        } => {
            let options = scenario::Options {
                keep,
                report,
                scenario,
                sabotage,
                pmm2_update,
            };
            scenario::run(&options)?;
        }
        Command::Verify => verify::run()?,
        Command::Sim(_) => {}
        Command::Suite { name, case, seed, .. } => {
            if let Some(seed) = seed {
                rollout_real::choose(seed);
            }
            suite::run(
                &name.context("name a suite; `cargo lab suite --list` shows them")?,
                case.as_deref(),
            )?;
        }
        Command::Down { images } => {
            hosts::down_all()?;
            if images {
                crate::images::remove_all()?;
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}
