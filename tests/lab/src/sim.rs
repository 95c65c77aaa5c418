//! `cargo lab sim`: one life of a fleet, or thousands.

use crate::output;
use anyhow::Result;
use fleet_sim::run::{Config, FaultSet, many};
use std::process::ExitCode;

/// What to live.
#[derive(clap::Args)]
pub struct Args {
    /// One life, by its seed: the same each time.
    #[arg(long, conflicts_with = "seeds")]
    seed: Option<u64>,
    /// So many lives, from seed 0 on, with a table of what they went through. What never happened is a failure.
    #[arg(long, default_value_t = 2_000)]
    seeds: u64,
    /// Hosts of a fleet.
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u64).range(1..=20_000))]
    hosts: u64,
    /// Minutes of trouble, before all is calm and the rollout must come to its end.
    #[arg(long, default_value_t = 20)]
    minutes: u64,
    /// What may go wrong: `all`, `none`, or names with commas between.
    #[arg(long, default_value = "all")]
    faults: FaultSet,
    /// Give groups windows, ramps, sets, sites and the like.
    #[arg(long)]
    policies: bool,
    /// With `--seed`: look for the smallest life that breaks the same rule.
    #[arg(long, requires = "seed")]
    shrink: bool,
}

/// Lives and tells.
pub fn run(args: &Args) -> Result<ExitCode> {
    let config = Config {
        seed: args.seed.unwrap_or(0),
        hosts: usize::try_from(args.hosts)?,
        faults: args.faults,
        minutes: args.minutes,
        policies: args.policies,
    };
    let mut say = |text: &str| output::line(text);
    let well = match args.seed {
        Some(_) => many::replay(&config, args.shrink, &mut say),
        None => many::report(&config, 0..args.seeds, &mut say),
    };
    Ok(if well {
        ExitCode::SUCCESS
    } else {
        ExitCode::from(1)
    })
}
