//! The rules of the rollout as properties over random fleets, networks, crashes and operators.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use fleet_sim as world;

use fleet_sim::rules::{self, Watcher};
use proptest::prelude::*;
use proptest::test_runner::RngSeed;
use rollout::kernel::RolloutPhase;
use std::collections::BTreeMap;
use world::{Faults, World, fixture};

const GROUPS: &[fixture::GroupSpec<'static>] = &[
    ("one", 3, "canaries = 1\nfailure_threshold = 1"),
    (
        "two",
        5,
        "canaries = 1\nmax_unavailable = 2\nfailure_threshold = 2\napproval = true\nsoak = \"20s\"",
    ),
];
/// Hosts whose client addresses the server's container.
const DIRECT: &[usize] = &[1, 4, 6];
const BRIDGE: &str = "[server.pmm2_clients]\nbridge = \"3.2.0\"";

/// The same seeds each time, so that a build does not fail by chance; `RULES_CASES=500` looks at that many new ones per rule.
fn config() -> ProptestConfig {
    let wide: Option<u32> = std::env::var("RULES_CASES")
        .ok()
        .and_then(|text| text.parse().ok());
    ProptestConfig {
        cases: wide.unwrap_or(8),
        rng_seed: if wide.is_some() {
            RngSeed::Random
        } else {
            RngSeed::Fixed(20)
        },
        max_shrink_iters: 8,
        failure_persistence: None,
        ..ProptestConfig::default()
    }
}

/// One life of a fleet, from a seed.
fn live(seed: u64, faults: Faults, seconds: u64) -> World {
    let decision = if seed.is_multiple_of(3) {
        BRIDGE
    } else {
        fixture::ACCEPT
    };
    let mut draft = fixture::draft_with(GROUPS, decision, DIRECT);
    // In every second life the server takes PMM 2 clients still, so that hosts can be taken back.
    for leg in &mut draft.plan.legs {
        if let rollout::plan::LegKind::Clients {
            no_way_back_to_pmm2, ..
        } = &mut leg.kind
        {
            *no_way_back_to_pmm2 &= seed % 2 == 1;
        }
    }
    let mut world = World::of_plan(seed, draft, faults);
    world.start();
    world.run(seconds);
    world
}

fn check(watcher: &Watcher, rule: &'static str) -> Result<(), TestCaseError> {
    let found = watcher.violations.get(rule);
    prop_assert!(
        found.is_none(),
        "{rule}: {:?}",
        found.map(|found| &found[..found.len().min(3)])
    );
    Ok(())
}

macro_rules! rule {
    ($($name:ident: $rule:ident;)*) => {
        proptest! {
            #![proptest_config(config())]
            $(#[test]
            fn $name(seed in any::<u64>()) { check(&live(seed, Faults::ALL, 1_200).watcher, rules::$rule)?; })*
        }
    };
}

rule! {
    every_open_state_has_an_owner_a_reason_and_a_deadline_or_reminder: DUTY;
    silence_past_a_deadline_ends_in_a_named_state: SILENCE;
    a_slot_is_taken_in_the_commit_that_grants_the_permit: SLOT_WITH_GRANT;
    a_slot_is_freed_by_proof_or_by_the_operator: SLOT_FREED;
    no_grant_raises_the_slots_above_the_maximum: SLOT_MAX;
    hosts_that_were_never_granted_hold_no_slot: GRANTED;
    slots_that_are_all_held_by_settled_failures_pause_the_rollout: EXHAUSTED;
    what_counts_for_the_threshold_follows_from_how_a_host_ended: COUNTS;
    one_failure_more_than_tolerated_stops_the_rollout: THRESHOLD;
    silent_before_its_permit_is_never_lost: LOST;
    no_host_switches_before_its_turn: TURN;
    a_pause_stops_permits_and_hops_at_once: PAUSE;
    a_pause_leaves_running_work_alone: RUNNING_WORK;
    events_of_older_epochs_are_accepted_like_new_ones: OLD_EVENTS;
    after_an_abort_no_host_begins_later_than_its_permit: ABORT;
    no_order_of_an_older_epoch_takes_effect: EPOCH;
    operators_only_reduce_what_the_plan_allows: PLAN_ONLY;
    clients_follow_the_server_after_its_publication_and_before_their_wave: FOLLOW;
    the_point_of_no_return_is_the_commit_of_the_first_permit: NO_RETURN;
    every_host_is_in_the_report_exactly_once: REPORT;
    the_stored_rows_are_the_whole_state: RESTORE;
    the_fleet_is_asked_at_most_once_a_minute_whatever_happens: FLEET_LOOKS;
    a_host_is_asked_for_only_while_it_verifies_or_is_missing_in_the_checks: NODE_LOOKS;
}

proptest! {
    #![proptest_config(config())]

    /// Whatever happens, it comes to an end with a patient operator.
    #[test]
    fn every_rollout_ends(seed in any::<u64>()) {
        let mut world = live(seed, Faults { operator: 0, ..Faults::ALL }, 3_600);
        world.faults = Faults::NONE;
        world.run(7_200);
        prop_assert!(world.kernel.is_final(), "{:#?}", rollout::progress::view(&world.kernel, world.now).waits);
    }

    /// A fleet in which everything works ends well, whatever the network and the coordinator do.
    #[test]
    fn crashes_and_a_bad_network_do_not_change_the_outcome(seed in any::<u64>()) {
        let calm = live(seed, Faults::NONE, 7_200);
        prop_assert_eq!(calm.kernel.phase(), RolloutPhase::Succeeded, "{:?} {:?}", calm.kernel.verification(), calm.phases());
        let faults = Faults { bad_hosts: 0, bad_hop: 0, operator: 0, ..Faults::ALL };
        let mut wild = live(seed, faults, 7_200);
        wild.faults = Faults::NONE;
        wild.run(3_600);
        prop_assert_eq!(wild.phases(), calm.phases());
        let verification = wild.kernel.verification().cloned();
        prop_assert_eq!(wild.kernel.phase(), RolloutPhase::Succeeded, "{:?}", verification);
        let (a, b) = (rollout::report::report(&calm.kernel, 0), rollout::report::report(&wild.kernel, 0));
        prop_assert_eq!(a.server.hops, b.server.hops);
        prop_assert_eq!(a.verification, b.verification);
        for host in wild.hosts.values() {
            prop_assert!(host.switches >= 1);
        }
    }

    /// After a crash anywhere each host ends as it would have without.
    #[test]
    fn after_a_crash_anywhere_the_same_final_state_is_reached(seed in any::<u64>()) {
        let groups = [("one", 6, "canaries = 0\nmax_unavailable = 6\nfailure_threshold = 5")];
        let run = |faults: Faults| {
            let mut world = World::new(seed, &groups, fixture::ACCEPT, Faults { bad_hosts: 40, ..faults });
            world.start();
            world.run(5_400);
            world.faults = Faults::NONE;
            world.run(3_600);
            world
        };
        let (calm, crashed) = (run(Faults::NONE), run(Faults { crash: 40, ..Faults::NONE }));
        prop_assert_eq!(calm.phases(), crashed.phases());
    }

    /// Nonsense from outside is counted or ignored, never a panic.
    #[test]
    fn illegal_transitions_are_values(seed in any::<u64>()) {
        let mut world = live(seed, Faults::ALL, 60 + seed % 300);
        let orders: Vec<_> = world.hosts.values().filter_map(|host| host.running().map(|order| (host.id.clone(), order))).collect();
        for (host, order) in orders {
            for outcome in [fleet_common::order::Outcome::Done, fleet_common::order::Outcome::Expired, fleet_common::order::Outcome::Inconsistent] {
                let result = fleet_common::order::OrderResult { outcome, step: String::new(), code: fleet_common::codes::Code::new(""), message: String::new(), took_ms: 0, detail: serde_json::Value::Null };
                let event = fleet_common::order::HostEvent::Finished(result);
                world.kernel.handle(rollout::kernel::Input::Host { host: host.clone(), order_id: order.clone(), epoch: Default::default(), event }, world.now);
            }
        }
        world.kernel.handle(rollout::kernel::Input::Host { host: "nobody".into(), order_id: "x/y/z".into(), epoch: Default::default(), event: fleet_common::order::HostEvent::Accepted }, world.now);
        world.kernel.handle(rollout::kernel::Input::CoordinatorStarted { term: 0 }, world.now);
        prop_assert!(world.kernel.rollout().illegal > 0);
    }
}

/// Lives that once broke a rule.
#[test]
fn seeds_that_failed_once_hold() {
    const SEEDS: &[u64] = &[17_655_782_214_307_114_004];
    for seed in SEEDS.iter().copied() {
        let world = live(seed, Faults::ALL, 1_200);
        assert!(
            world.watcher.violations.is_empty(),
            "{seed}: {:?}",
            world.watcher.violations.keys()
        );
    }
}

/// A state that no run reaches is a state that no rule was tried on.
#[test]
fn every_state_is_exercised() {
    let mut seen: BTreeMap<String, u64> = BTreeMap::new();
    for seed in 0..60 {
        for (state, count) in live(seed, Faults::ALL, 1_800).watcher.seen {
            *seen.entry(state).or_default() += count;
        }
        for (state, count) in live(
            seed,
            Faults {
                bad_hosts: 20,
                ..Faults::NONE
            },
            1_800,
        )
        .watcher
        .seen
        {
            *seen.entry(state).or_default() += count;
        }
    }
    let wanted = [
        (
            "rollout",
            "planned running paused checking aborting succeeded finished_with_exceptions finished_with_lost aborted rolling_back rolled_back",
        ),
        (
            "leg",
            "waiting running settled restored refused needs_operator cancelled",
        ),
        (
            "group",
            "pending gated canary ramping draining soaking done breached cancelled rolled_back",
        ),
        (
            "host",
            "waiting preparing ready permitted switching verifying settling rolling_back repointing repointed surveyed upgraded rolled_back failed inconsistent \
             refused skipped cancelled lost",
        ),
    ];
    let missing: Vec<String> = wanted
        .iter()
        .flat_map(|(kind, states)| {
            states
                .split_whitespace()
                .map(move |state| format!("{kind} {state}"))
        })
        .filter(|state| !seen.contains_key(state))
        .collect();
    assert!(missing.is_empty(), "never seen: {missing:?} of {seen:#?}");
}
