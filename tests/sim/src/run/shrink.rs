//! A failing life made small: fewer kinds of trouble, fewer hosts, a shorter time, as long as the same rule breaks.

use super::config::Config;
use super::world::{Break, Life, live};

/// The smallest life found that breaks this rule, and how it went.
pub fn shrink(config: &Config, rule: &'static str, breaks: Option<Break>) -> (Config, Life) {
    let breaks_it = |config: &Config| {
        let life = live(config, breaks, false);
        life.violations.contains_key(rule)
    };
    let mut best = *config;
    let mut tries = 0;
    loop {
        let before = best;
        let mut candidates = Vec::new();
        for hosts in [
            best.hosts / 4,
            best.hosts / 2,
            best.hosts * 3 / 4,
            best.hosts.saturating_sub(1),
        ] {
            if hosts >= 1 && hosts < best.hosts {
                candidates.push(Config { hosts, ..best });
            }
        }
        for minutes in [best.minutes / 4, best.minutes / 2, best.minutes * 3 / 4] {
            if minutes < best.minutes {
                candidates.push(Config { minutes, ..best });
            }
        }
        for fault in best.faults.iter() {
            candidates.push(Config {
                faults: best.faults.without(fault),
                ..best
            });
        }
        for candidate in candidates {
            tries += 1;
            if tries > 400 {
                break;
            }
            // Later candidates of one round build on what was won before.
            let merged = Config {
                hosts: candidate.hosts.min(best.hosts),
                minutes: candidate.minutes.min(best.minutes),
                faults: candidate.faults.both(best.faults),
                ..best
            };
            if merged != best && breaks_it(&merged) {
                best = merged;
            }
        }
        if best == before || tries > 400 {
            return (best, live(&best, breaks, true));
        }
    }
}
