//! Whole fleets in virtual time with everything that can go wrong. `LIVES=20000` looks at so many of each kind.

#![allow(clippy::unwrap_used, clippy::print_stdout)]

use fleet_sim::run::{Config, live, many};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Lives take every core: one test at a time, so that the time that is printed is that of its own lives.
static CORES: Mutex<()> = Mutex::new(());

fn alone() -> MutexGuard<'static, ()> {
    CORES.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Every rule holds, and everything that is expected was gone through.
#[test]
fn every_rule_holds_in_every_life() {
    holds(&Config::new(0, 200), 0..lives(2_000));
}

fn lives(otherwise: u64) -> u64 {
    let asked = std::env::var("LIVES").ok();
    asked.and_then(|text| text.parse().ok()).unwrap_or(otherwise)
}

fn holds(config: &Config, seeds: std::ops::Range<u64>) {
    let _alone = alone();
    let mut told = String::new();
    let mut say = |text: &str| {
        println!("{text}");
        told.push_str(text);
        told.push('\n');
    };
    assert!(many::report(config, seeds, &mut say), "{told}");
}

/// The same with all that a policy can say and all that an operator can do, in smaller fleets; here every move between states is expected,
/// and none that is not in the list.
#[test]
fn every_rule_holds_under_every_policy() {
    let config = Config {
        policies: true,
        ..Config::new(0, 30)
    };
    holds(&config, 0..lives(1_300));
}

/// A seed is one life: the same steps each time.
#[test]
fn a_seed_replays_exactly() {
    let _alone = alone();
    for seed in [3, 11] {
        let config = Config::new(seed, 40);
        let (first, second) = (live(&config, None, true), live(&config, None, true));
        assert!(first.trace.len() > 10);
        assert_eq!(first.trace, second.trace);
        assert_eq!(first.counts, second.counts);
    }
}
