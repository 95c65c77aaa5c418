//! What a life follows from.

use super::faults::FaultSet;

/// Everything a life follows from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Config {
    pub seed: u64,
    pub hosts: usize,
    pub faults: FaultSet,
    /// Minutes of trouble; then all is calm and the rollout must come to its end.
    pub minutes: u64,
    /// Windows, ramps, sets, sites, soaks after canaries, offline policies, deadlines, breaches that lead back or to an abort.
    pub policies: bool,
}

impl Config {
    pub fn new(seed: u64, hosts: usize) -> Self {
        Self {
            seed,
            hosts,
            faults: FaultSet::all(),
            minutes: 20,
            policies: false,
        }
    }

    /// The command that lives this life again.
    pub fn command(&self) -> String {
        format!(
            "cargo lab sim --seed {} --hosts {} --minutes {} --faults {}{}",
            self.seed,
            self.hosts,
            self.minutes,
            self.faults,
            if self.policies { " --policies" } else { "" }
        )
    }
}
