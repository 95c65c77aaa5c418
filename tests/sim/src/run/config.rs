//! What a life follows from.

use super::faults::FaultSet;
use super::world::Rng;

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

    /// With policies some lives have long troubles: what comes late in a rollout must have its share of them.
    pub(super) fn trouble_ms(&self, rng: &mut Rng) -> u64 {
        let times = if self.policies {
            [1, 1, 4][rng.below(3) as usize]
        } else {
            1
        };
        self.minutes * 60_000 * times
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
