//! Each rule is really looked at: a kernel (or, for the one rule that agents keep, an agent) that breaks it on purpose is caught by that very
//! rule within 200 lives.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout)]

use fleet_sim::cases::{Kind, live};
use fleet_sim::{World, gates, permits, proof, rules, run, told, turns};
use rollout::kernel::Mutant;

/// Lives that a mutant may survive.
const LIVES: u64 = 200;
/// Virtual seconds of each.
const SECONDS: u64 = 1_200;

/// Runs lives until the rule catches the fault.
fn caught(name: &str, rule: &str, kind: Kind, prepare: &dyn Fn(&mut World)) {
    for seed in 0..LIVES {
        if live(kind, seed, SECONDS, prepare)
            .watcher
            .violations
            .contains_key(rule)
        {
            println!("{name}: caught in life {} by: {rule}", seed + 1);
            return;
        }
    }
    panic!("{name} broke \"{rule}\" and was not caught in {LIVES} lives");
}

macro_rules! mutants {
    ($($test:ident: $mutant:ident, $rule:expr, $life:ident;)*) => {
        $(#[test]
        fn $test() {
            caught(stringify!($mutant), $rule, Kind::$life, &|world| world.break_rule(Mutant::$mutant));
        })*
    };
}

mutants! {
    a_state_without_a_reason: NoReason, rules::DUTY, Wild;
    a_deadline_that_is_not_kept: DeafToDeadlines, rules::SILENCE, Failing;
    a_permit_without_a_slot: GrantWithoutSlot, rules::SLOT_WITH_GRANT, Wild;
    a_slot_freed_by_loss: LostFreesSlot, rules::SLOT_FREED, Failing;
    a_width_that_is_ignored: TooWide, rules::SLOT_MAX, Wild;
    a_slot_before_the_permit: SlotBeforePermit, rules::GRANTED, Wild;
    exhausted_slots_that_stop_nobody: ExhaustedGoesOn, rules::EXHAUSTED, Stuck;
    failures_that_are_forgotten: FailuresForgotten, rules::COUNTS, Failing;
    a_threshold_off_by_one: ThresholdOffByOne, rules::THRESHOLD, Failing;
    a_threshold_that_is_too_strict: ThresholdTooStrict, proof::TOLERATED, Failing;
    a_host_verified_without_a_sample: VerifiedUnseen, proof::VERIFIED, Failing;
    a_host_lost_before_its_permit: LostBeforePermit, rules::LOST, Wild;
    a_group_out_of_turn: OutOfTurn, rules::TURN, Wild;
    a_pause_that_grants: PauseGrants, rules::PAUSE, Paused;
    a_pause_that_touches_work: PauseTouchesWork, rules::RUNNING_WORK, Paused;
    old_events_that_are_dropped: OldEventsDropped, rules::OLD_EVENTS, Wild;
    an_abort_that_keeps_permits: AbortKeepsPermits, rules::ABORT, Aborted;
    an_order_without_a_plan_entry: NoPlanEntry, rules::PLAN_ONLY, Aborted;
    clients_that_follow_too_early: FollowsTooEarly, rules::FOLLOW, Wild;
    no_point_of_no_return: NoPointOfNoReturn, rules::NO_RETURN, Wild;
    a_report_that_forgets: ReportForgets, rules::REPORT, Wild;
    a_row_that_is_not_stored: RowNotStored, rules::RESTORE, Wild;
    a_window_that_is_ignored: WindowIgnored, gates::WINDOW, Windows;
    a_begin_after_the_close: WindowIgnored, gates::CLOSE, Windows;
    members_of_a_set_together: SetsTogether, gates::SET, Sets;
    a_site_that_is_ignored: SitesIgnored, gates::SITE, Sites;
    a_ramp_that_is_ignored: RampIgnored, gates::RAMP, Ramps;
    a_rollout_threshold_that_is_ignored: RolloutThresholdIgnored, gates::ROLLOUT_THRESHOLD, Together;
    retries_without_end: RetriesWithoutEnd, gates::ATTEMPTS, Retried;
    a_look_at_the_fleet_that_is_not_stored: FleetLookForgotten, rules::FLEET_LOOKS, Wild;
    a_limit_that_is_raised: LimitRaises, run::LIMIT, Changed;
    a_plan_that_touches_what_began: AdoptTouchesWork, run::ADOPTED, Changed;
    looks_at_hosts_that_do_not_verify: LooksAtEverybody, rules::NODE_LOOKS, Wild;
    others_beside_the_canaries: CanariesForgotten, turns::CANARY, Wild;
    others_before_the_end_of_the_wait_after_the_canaries: CanarySoakForgotten, turns::CANARY_SOAK, Watched;
    absence_right_after_a_start: AbsenceAtOnce, turns::ORDER, Wild;
    a_retry_that_holds_nobody: RetriesBehind, turns::ORDER, Wild;
    a_sample_that_counts_twice: OldSamplesCount, rules::SAMPLES, Viewed;
    a_host_that_returns_without_a_slot: ReturnsWithoutSlot, rules::RETURNED, Wild;
    a_blackout_that_is_ignored: BlackoutsIgnored, gates::WINDOW, Windows;
    a_begin_in_a_blackout: BlackoutsIgnored, gates::CLOSE, Windows;
    a_sample_from_before_that_proves: StaleSamplesProve, proof::VERIFIED, Failing;
    a_sample_of_the_switch_that_proves: SamplesOfTheSwitchProve, proof::VERIFIED, Failing;
    a_permit_that_is_whole_again: ResentPermitsWhole, permits::LEFT, Wild;
    a_start_that_gives_no_time: StartGivesNoTime, permits::HEARD, Wild;
    a_slot_freed_under_way: FreesSlotUnderWay, told::HOLDS, Wild;
    a_hold_that_is_ignored: HoldIgnored, told::HELD, Wild;
    an_abort_that_keeps_the_epoch: AbortKeepsEpoch, told::RAISED, Aborted;
    refusals_that_do_not_count: RefusalsForgotten, rules::COUNTS, Wild;
    silence_that_counts: SilenceCounts, told::SILENT, Mute;
    who_is_accepted_without_having_failed: ForgivesAll, rules::THRESHOLD, Failing;
    failures_accepted_at_any_pause: ForgivesAtAnyPause, rules::THRESHOLD, Wild;
}

/// Agents refuse what is older than what they saw; a kernel can't break that for them.
#[test]
fn an_agent_that_takes_old_orders() {
    caught("an agent deaf to epochs", rules::EPOCH, Kind::Aborted, &|world| {
        world
            .hosts
            .values_mut()
            .for_each(|host| host.deaf_to_epochs = true);
    });
}

/// Without a fault no rule is broken in these very lives.
#[test]
fn nothing_is_caught_without_a_fault() {
    let kinds = [
        Kind::Wild,
        Kind::Aborted,
        Kind::Paused,
        Kind::Stuck,
        Kind::Failing,
        Kind::Changed,
        Kind::Windows,
        Kind::Ramps,
        Kind::Sites,
        Kind::Sets,
        Kind::Together,
        Kind::Retried,
        Kind::Watched,
        Kind::Viewed,
        Kind::Mute,
    ];
    for seed in 0..8 {
        for kind in kinds {
            let watcher = live(kind, seed, SECONDS, &|_| {}).watcher;
            assert!(
                watcher.violations.is_empty(),
                "{kind:?} {seed}: {:?}",
                watcher.violations
            );
        }
    }
}
