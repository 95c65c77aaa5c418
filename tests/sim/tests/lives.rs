//! Whole fleets in virtual time with everything that can go wrong. `LIVES=2000` looks at so many.

#![allow(clippy::unwrap_used, clippy::print_stdout)]

use fleet_sim::run::{Config, live, many};

/// Every rule holds, and everything that is expected was gone through.
#[test]
fn every_rule_holds_in_every_life() {
    let lives = std::env::var("LIVES")
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(800);
    let mut told = String::new();
    let mut say = |text: &str| {
        println!("{text}");
        told.push_str(text);
        told.push('\n');
    };
    assert!(many::report(&Config::new(0, 200), 0..lives, &mut say), "{told}");
}

/// The same with all that a policy can say. What must have happened is asked of the lives above; here the rules are.
#[test]
fn every_rule_holds_under_every_policy() {
    for seed in 0..120 {
        let config = Config {
            policies: true,
            ..Config::new(seed, 100)
        };
        let life = live(&config, None, false);
        assert!(
            life.violations.is_empty(),
            "{}: {:?}",
            config.command(),
            life.violations
        );
    }
}

/// A seed is one life: the same steps each time.
#[test]
fn a_seed_replays_exactly() {
    for seed in [3, 11] {
        let config = Config::new(seed, 40);
        let (first, second) = (live(&config, None, true), live(&config, None, true));
        assert!(first.trace.len() > 10);
        assert_eq!(first.trace, second.trace);
        assert_eq!(first.counts, second.counts);
    }
}
