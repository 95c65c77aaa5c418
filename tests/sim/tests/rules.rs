//! The rules of the rollout as properties over random fleets, networks, crashes and operators. Each can fail: `is_noticed` shows that one of
//! its very cases notices the kernel that breaks it.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use fleet_sim as world;

use fleet_sim::cases::{self, Kind};
use fleet_sim::rules::{self, Watcher};
use fleet_sim::{gates, permits, proof, run, told};
use proptest::prelude::*;
use proptest::test_runner::{RngSeed, TestError, TestRunner};
use rollout::kernel::{Mutant, RolloutPhase};
use std::collections::BTreeMap;
use world::{Faults, World, fixture};

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
    let mut world = cases::wild(seed, faults);
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

/// Virtual seconds of a life in which a rule is tried.
const SECONDS: u64 = 1_200;

/// The rule holds in a life that is made for it, and in one in which everything goes wrong.
fn holds(rule: &'static str, kind: Kind, seed: u64) -> Result<(), TestCaseError> {
    if kind != Kind::Wild {
        check(&cases::live(Kind::Wild, seed, SECONDS, &|_| {}).watcher, rule)?;
    }
    check(&cases::live(kind, seed, SECONDS, &|_| {}).watcher, rule)
}

/// The cases in which the rule holds are cases in which it can break: with this fault one of them does.
fn noticed(rule: &'static str, kind: Kind, fault: &dyn Fn(&mut World)) {
    let config = ProptestConfig {
        max_shrink_iters: 0,
        ..config()
    };
    let result = TestRunner::new(config).run(&any::<u64>(), |seed| {
        check(&cases::live(kind, seed, SECONDS, fault).watcher, rule)
    });
    assert!(
        matches!(result, Err(TestError::Fail(..))),
        "no case notices what breaks: {rule}"
    );
}

fn kernel(mutant: Mutant) -> impl Fn(&mut World) {
    move |world| world.break_rule(mutant)
}

/// Agents refuse what is older than what they saw; a kernel can't break that for them.
fn deaf_agents() -> impl Fn(&mut World) {
    let deafen = |host: &mut fleet_sim::hosts::SimHost| host.deaf_to_epochs = true;
    move |world| world.hosts.values_mut().for_each(deafen)
}

/// A property of each rule, and under the same name the proof that it can fail.
macro_rules! rule {
    ($($name:ident: $rule:expr, $kind:ident, $fault:expr;)*) => {
        proptest! {
            #![proptest_config(config())]
            $(#[test]
            fn $name(seed in any::<u64>()) { holds($rule, Kind::$kind, seed)?; })*
        }

        mod is_noticed {
            use super::*;
            $(#[test]
            fn $name() { noticed($rule, Kind::$kind, &$fault); })*
        }
    };
}

rule! {
    every_open_state_has_an_owner_a_reason_and_a_deadline_or_reminder: rules::DUTY, Wild, kernel(Mutant::NoReason);
    silence_past_a_deadline_ends_in_a_named_state: rules::SILENCE, Failing, kernel(Mutant::DeafToDeadlines);
    a_slot_is_taken_in_the_commit_that_grants_the_permit: rules::SLOT_WITH_GRANT, Wild, kernel(Mutant::GrantWithoutSlot);
    a_slot_is_freed_by_proof_or_by_the_operator: rules::SLOT_FREED, Failing, kernel(Mutant::LostFreesSlot);
    no_grant_raises_the_slots_above_the_maximum: rules::SLOT_MAX, Changed, kernel(Mutant::TooWide);
    hosts_that_were_never_granted_hold_no_slot: rules::GRANTED, Wild, kernel(Mutant::SlotBeforePermit);
    slots_that_are_all_held_by_settled_failures_pause_the_rollout: rules::EXHAUSTED, Stuck, kernel(Mutant::ExhaustedGoesOn);
    what_counts_for_the_threshold_follows_from_how_a_host_ended: rules::COUNTS, Failing, kernel(Mutant::FailuresForgotten);
    one_failure_more_than_tolerated_stops_the_rollout: rules::THRESHOLD, Failing, kernel(Mutant::ThresholdOffByOne);
    failures_that_are_tolerated_stop_nothing: proof::TOLERATED, Failing, kernel(Mutant::ThresholdTooStrict);
    who_is_verified_delivers_with_the_new_release: proof::VERIFIED, Failing, kernel(Mutant::VerifiedUnseen);
    silent_before_its_permit_is_never_lost: rules::LOST, Wild, kernel(Mutant::LostBeforePermit);
    no_host_switches_before_its_turn: rules::TURN, Wild, kernel(Mutant::OutOfTurn);
    a_pause_stops_permits_and_hops_at_once: rules::PAUSE, Paused, kernel(Mutant::PauseGrants);
    a_pause_leaves_running_work_alone: rules::RUNNING_WORK, Paused, kernel(Mutant::PauseTouchesWork);
    events_of_older_epochs_are_accepted_like_new_ones: rules::OLD_EVENTS, Wild, kernel(Mutant::OldEventsDropped);
    after_an_abort_no_host_begins_later_than_its_permit: rules::ABORT, Aborted, kernel(Mutant::AbortKeepsPermits);
    no_order_of_an_older_epoch_takes_effect: rules::EPOCH, Aborted, deaf_agents();
    only_hosts_and_legs_of_the_plan_are_ordered: rules::PLAN_ONLY, Aborted, kernel(Mutant::NoPlanEntry);
    operators_only_reduce_what_the_plan_allows: run::LIMIT, Changed, kernel(Mutant::LimitRaises);
    another_plan_leaves_alone_what_began: run::ADOPTED, Changed, kernel(Mutant::AdoptTouchesWork);
    clients_follow_the_server_after_its_publication_and_before_their_wave: rules::FOLLOW, Wild, kernel(Mutant::FollowsTooEarly);
    the_point_of_no_return_is_the_commit_of_the_first_permit: rules::NO_RETURN, Wild, kernel(Mutant::NoPointOfNoReturn);
    every_host_is_in_the_report_exactly_once: rules::REPORT, Wild, kernel(Mutant::ReportForgets);
    the_stored_rows_are_the_whole_state: rules::RESTORE, Wild, kernel(Mutant::RowNotStored);
    the_fleet_is_asked_at_most_once_a_minute_whatever_happens: rules::FLEET_LOOKS, Wild, kernel(Mutant::FleetLookForgotten);
    a_host_is_asked_for_only_while_it_verifies_or_is_missing_in_the_checks: rules::NODE_LOOKS, Wild, kernel(Mutant::LooksAtEverybody);
    no_permit_is_given_outside_of_a_window_or_reaches_past_it: gates::WINDOW, Windows, kernel(Mutant::WindowIgnored);
    no_host_begins_after_its_window_closed: gates::CLOSE, Windows, kernel(Mutant::WindowIgnored);
    members_of_a_set_go_one_after_the_other: gates::SET, Sets, kernel(Mutant::SetsTogether);
    no_site_is_busier_than_its_limit: gates::SITE, Sites, kernel(Mutant::SitesIgnored);
    no_grant_is_wider_than_the_ramp: gates::RAMP, Ramps, kernel(Mutant::RampIgnored);
    failures_over_all_groups_stop_the_rollout: gates::ROLLOUT_THRESHOLD, Together, kernel(Mutant::RolloutThresholdIgnored);
    nobody_is_tried_again_by_itself_more_often_than_the_policy_says: gates::ATTEMPTS, Retried, kernel(Mutant::RetriesWithoutEnd);
    no_permit_is_given_in_a_blackout_or_reaches_into_one: gates::WINDOW, Windows, kernel(Mutant::BlackoutsIgnored);
    a_sample_from_before_the_switch_proves_nothing: proof::VERIFIED, Failing, kernel(Mutant::StaleSamplesProve);
    a_sample_from_before_the_end_of_the_switch_proves_nothing: proof::VERIFIED, Failing, kernel(Mutant::SamplesOfTheSwitchProve);
    a_permit_that_is_sent_again_gives_no_more_than_what_is_left: permits::LEFT, Wild, kernel(Mutant::ResentPermitsWhole);
    a_start_of_the_coordinator_gives_agents_time_to_connect: permits::HEARD, Failing, kernel(Mutant::StartGivesNoTime);
    whoever_is_under_way_holds_a_slot: told::HOLDS, Wild, kernel(Mutant::FreesSlotUnderWay);
    start_resume_and_abort_raise_the_epoch: told::RAISED, Aborted, kernel(Mutant::AbortKeepsEpoch);
    a_refusal_at_its_turn_counts: rules::COUNTS, Wild, kernel(Mutant::RefusalsForgotten);
    silence_before_its_permit_is_no_failure: told::SILENT, Mute, kernel(Mutant::SilenceCounts);
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
