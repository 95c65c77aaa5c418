//! A life that breaks a rule is made smaller, and what is printed of it lives it again.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use fleet_sim::run::many::story;
use fleet_sim::run::shrink::shrink;
use fleet_sim::run::{Break, Config, FaultSet, live};
use fleet_sim::{gates, rules};
use rollout::kernel::Mutant;

/// What the printed command says.
fn printed(text: &str) -> Config {
    let line = text.lines().find_map(|line| line.strip_prefix("again: "));
    let mut words = line.expect("a command").split_whitespace().skip(3);
    let mut config = Config {
        faults: FaultSet::NONE,
        ..Config::new(0, 0)
    };
    while let Some(word) = words.next() {
        let mut value = || words.next().expect("a value");
        match word {
            "--seed" => config.seed = value().parse().unwrap(),
            "--hosts" => config.hosts = value().parse().unwrap(),
            "--minutes" => config.minutes = value().parse().unwrap(),
            "--faults" => config.faults = value().parse().unwrap(),
            "--policies" => config.policies = true,
            _ => panic!("{word} is no option of `cargo lab sim`"),
        }
    }
    config
}

/// The first life that breaks this rule, and the smallest that was found from there.
fn smaller(rule: &'static str, policies: bool, breaks: Break) -> (Config, Config) {
    let of = |seed| Config {
        policies,
        ..Config::new(seed, 24)
    };
    let broken = |config: &Config| live(config, Some(breaks), false).violations.contains_key(rule);
    let first = (0..200)
        .map(of)
        .find(|config| broken(config))
        .expect("a life that breaks it");
    let (small, life) = shrink(&first, rule, Some(breaks));
    // The life that is told is the small one's own, and the printed words lead to the same life, word for word.
    let again = printed(&story(&small, &life));
    assert_eq!(again, small);
    let lived = live(&again, Some(breaks), true);
    assert_eq!(lived.violations, life.violations);
    assert_eq!(lived.trace, life.trace);
    assert!(lived.violations.contains_key(rule), "{:?}", lived.violations);
    // Without the fault nothing is wrong there.
    assert_eq!(live(&again, None, false).violations, Default::default());
    (first, small)
}

#[test]
fn a_broken_life_becomes_small_and_can_be_lived_again() {
    let breaks = Break::Kernel(|kernel| kernel.break_rule(Mutant::GrantWithoutSlot));
    let (first, small) = smaller(rules::SLOT_WITH_GRANT, false, breaks);
    // Any host will do, in any life that lasts until its permit.
    assert_eq!((first.seed, first.hosts), (small.seed, 24));
    assert_eq!((small.hosts, small.faults), (1, FaultSet::NONE));
    assert!(small.minutes < first.minutes, "{small:?}");
}

#[test]
fn what_the_rule_needs_is_left() {
    let breaks = Break::Kernel(|kernel| kernel.break_rule(Mutant::SetsTogether));
    let (first, small) = smaller(gates::SET, true, breaks);
    assert!(small.hosts < first.hosts, "{small:?}");
    // One host alone breaks nothing, and without policies there are no sets.
    assert!(small.hosts >= 2 && small.policies, "{small:?}");
}
