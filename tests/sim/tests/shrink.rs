//! A failing life made small is still the same failure, and the command that is printed with it lives it again.

#![allow(clippy::unwrap_used)]

use fleet_sim::rules;
use fleet_sim::run::shrink::shrink;
use fleet_sim::run::{Break, Config, live};
use rollout::kernel::{Kernel, Mutant};

/// The command as it is printed, read as a person would type it.
fn typed(command: &str) -> Config {
    let words: Vec<&str> = command.split(' ').collect();
    assert_eq!(words[..3], ["cargo", "lab", "sim"]);
    let after = |flag: &str| {
        let at = words.iter().position(|word| *word == flag).unwrap();
        words[at + 1]
    };
    Config {
        faults: after("--faults").parse().unwrap(),
        minutes: after("--minutes").parse().unwrap(),
        policies: words.contains(&"--policies"),
        ..Config::new(
            after("--seed").parse().unwrap(),
            after("--hosts").parse().unwrap(),
        )
    }
}

#[test]
fn a_failing_life_shrinks_to_a_small_one_that_breaks_the_same_rule() {
    let breaks = Some(Break::Kernel(|kernel: &mut Kernel| {
        kernel.break_rule(Mutant::SlotBeforePermit);
    }));
    let rule = rules::GRANTED;
    let fails = |config: &Config| live(config, breaks, false).violations.contains_key(rule);
    let whole = (0..200)
        .map(|seed| Config {
            policies: true,
            ..Config::new(seed, 24)
        })
        .find(fails)
        .unwrap();
    let (small, life) = shrink(&whole, rule, breaks);
    assert!(life.violations.contains_key(rule), "{:?}", life.violations);
    assert!(!life.trace.is_empty(), "it is told with its story");
    assert_eq!((small.seed, small.policies), (whole.seed, whole.policies));
    assert!(small.hosts < whole.hosts, "{small:?}");
    assert!(small.minutes < whole.minutes, "{small:?}");
    assert!(
        small.faults.iter().count() < whole.faults.iter().count(),
        "{small:?}"
    );

    let again = typed(&small.command());
    assert_eq!(again, small);
    let again = live(&again, breaks, true);
    assert_eq!(again.violations, life.violations);
    assert_eq!(again.trace, life.trace);
    // It is the kernel that fails, not the small life.
    assert!(!live(&small, None, false).violations.contains_key(rule));
}
