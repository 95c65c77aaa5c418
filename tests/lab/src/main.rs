//! `cargo lab`: brings up a fleet of real containers around the real programs, runs the migration and checks it from outside.
//!
//! Two things are stand-ins (the PMM Server image and the PMM client programs, see `tests/standins`); everything else is real. Nothing
//! here uses product code: the lab runs the programs as a person would and reads what Docker, dpkg, rpm, systemd, `/proc` and PMM say.
//! Only `cargo lab sim` has none of that: it is the command line of the simulator in `tests/sim`.

mod agent_package;
mod backups;
mod build;
mod cli;
mod cmd;
mod disks;
mod docker;
mod fleet;
mod hosts;
mod images;
mod lock;
mod maintenance;
mod names;
mod output;
mod pmm;
mod product;
mod proxy;
mod report;
mod rollout_real;
mod scenario;
mod sim;
mod site;
mod suite;
mod teeth;
mod verify;
mod wait;

use std::process::ExitCode;

fn main() -> ExitCode {
    match cli::run() {
        Ok(code) => code,
        Err(error) => {
            output::error(&error);
            ExitCode::from(1)
        }
    }
}
