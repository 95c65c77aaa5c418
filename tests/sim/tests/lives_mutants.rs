//! Each rule is looked at in whole fleets, too: a kernel that breaks it on purpose (for some rules the agents, the sessions or the
//! store) is caught by that very rule within 200 lives.

#![allow(clippy::unwrap_used, clippy::print_stdout)]

use fleet_sim::run::{Break, Config, Fault, FaultSet, live};
use fleet_sim::{gates, permits, proof, rules, run, told, turns};
use rollout::kernel::{Kernel, Mutant};

/// Lives that a mutant may survive.
const LIVES: u64 = 200;

/// Which lives bring a fault to light soonest.
#[derive(Clone, Copy)]
enum Life {
    Plain,
    Policies,
    /// Nothing happens but what leads to aborts that some hosts do not hear.
    Unheard,
    /// Hosts join late, and operators take them in.
    Late,
    /// With policies: orders are late, doubled and overtaken.
    Overtaken,
    /// With policies: hosts vanish and return.
    Vanishing,
}

fn config(kind: Life, seed: u64) -> Config {
    let only = |faults: &[Fault]| Config {
        faults: faults.iter().fold(FaultSet::NONE, |set, fault| set.with(*fault)),
        ..Config::new(seed, 24)
    };
    match kind {
        Life::Plain => Config::new(seed, 24),
        Life::Policies => Config {
            policies: true,
            ..Config::new(seed, 24)
        },
        Life::Unheard => only(&[
            Fault::EndUnheard,
            Fault::Disconnect,
            Fault::HalfOpen,
            Fault::Partition,
            Fault::Delay,
        ]),
        Life::Late => only(&[Fault::LateHost, Fault::Operator]),
        Life::Overtaken => Config {
            policies: true,
            ..only(&[
                Fault::Operator,
                Fault::Delay,
                Fault::Duplicate,
                Fault::Reorder,
                Fault::CrashWhileActing,
                Fault::HalfOpen,
            ])
        },
        Life::Vanishing => Config {
            policies: true,
            ..only(&[
                Fault::Partition,
                Fault::HalfOpen,
                Fault::SilentHost,
                Fault::AgentCrash,
                Fault::Reboot,
            ])
        },
    }
}

fn caught(name: &str, rule: &str, kind: Life, breaks: Break) {
    let mut others = Vec::new();
    for seed in 0..LIVES {
        let life = live(&config(kind, seed), Some(breaks), false);
        if life.violations.contains_key(rule) {
            println!("{name}: caught in life {} by: {rule}", seed + 1);
            return;
        }
        others.extend(life.violations.into_keys());
    }
    panic!("{name} broke \"{rule}\" and was not caught in {LIVES} lives; caught was {others:?}");
}

macro_rules! mutants {
    ($($test:ident: $mutant:ident, $rule:expr, $life:ident;)*) => {
        $(#[test]
        fn $test() {
            let breaks = Break::Kernel(|kernel: &mut Kernel| kernel.break_rule(Mutant::$mutant));
            caught(stringify!($mutant), $rule, Life::$life, breaks);
        })*

        /// A mutant that is in no line above does not compile. Agents of whole fleets answer as long as they are connected: one that never
        /// does is in the lives of `mutants.rs` alone.
        const _: fn(Mutant) = |mutant| match mutant { $(Mutant::$mutant => {})* Mutant::SilenceCounts => {} };
    };
}

mutants! {
    a_state_without_a_reason: NoReason, rules::DUTY, Plain;
    a_deadline_that_is_not_kept: DeafToDeadlines, rules::SILENCE, Plain;
    a_permit_without_a_slot: GrantWithoutSlot, rules::SLOT_WITH_GRANT, Policies;
    a_slot_freed_by_loss: LostFreesSlot, rules::SLOT_FREED, Plain;
    a_width_that_is_ignored: TooWide, rules::SLOT_MAX, Policies;
    a_slot_before_the_permit: SlotBeforePermit, rules::GRANTED, Policies;
    exhausted_slots_that_stop_nobody: ExhaustedGoesOn, rules::EXHAUSTED, Plain;
    failures_that_are_forgotten: FailuresForgotten, rules::COUNTS, Plain;
    a_threshold_off_by_one: ThresholdOffByOne, rules::THRESHOLD, Policies;
    a_threshold_that_is_too_strict: ThresholdTooStrict, proof::TOLERATED, Policies;
    a_host_verified_without_a_sample: VerifiedUnseen, proof::VERIFIED, Policies;
    a_host_lost_before_its_permit: LostBeforePermit, rules::LOST, Policies;
    a_group_out_of_turn: OutOfTurn, rules::TURN, Policies;
    a_pause_that_grants: PauseGrants, rules::PAUSE, Policies;
    a_pause_that_touches_work: PauseTouchesWork, rules::RUNNING_WORK, Policies;
    old_events_that_are_dropped: OldEventsDropped, rules::OLD_EVENTS, Policies;
    an_abort_that_keeps_permits: AbortKeepsPermits, rules::ABORT, Unheard;
    an_order_without_a_plan_entry: NoPlanEntry, rules::PLAN_ONLY, Unheard;
    clients_that_follow_too_early: FollowsTooEarly, rules::FOLLOW, Plain;
    no_point_of_no_return: NoPointOfNoReturn, rules::NO_RETURN, Plain;
    a_report_that_forgets: ReportForgets, rules::REPORT, Plain;
    a_row_that_is_not_stored: RowNotStored, rules::RESTORE, Policies;
    a_window_that_is_ignored: WindowIgnored, gates::WINDOW, Policies;
    members_of_a_set_together: SetsTogether, gates::SET, Policies;
    a_site_that_is_ignored: SitesIgnored, gates::SITE, Policies;
    a_ramp_that_is_ignored: RampIgnored, gates::RAMP, Policies;
    a_rollout_threshold_that_is_ignored: RolloutThresholdIgnored, gates::ROLLOUT_THRESHOLD, Policies;
    retries_without_end: RetriesWithoutEnd, gates::ATTEMPTS, Policies;
    a_limit_that_is_raised: LimitRaises, run::LIMIT, Policies;
    a_plan_that_touches_what_began: AdoptTouchesWork, run::ADOPTED, Policies;
    a_way_back_without_a_slot: BackWithoutSlot, run::BACK, Policies;
    a_host_taken_back_that_begins_again: TakenBackBegins, run::CLOSED, Policies;
    a_host_wanted_back_that_stays: BackForgotten, run::WORD, Policies;
    anybody_that_is_accepted: AcceptsAnybody, run::ACCEPT, Policies;
    honest_words_that_count_as_nonsense: HonestyIllegal, run::LEGAL, Plain;
    an_approval_that_is_forgotten: ApprovalForgotten, run::ENDS, Plain;
    looks_that_are_not_stored: FleetLookForgotten, rules::FLEET_LOOKS, Plain;
    looks_at_hosts_without_a_reason: LooksAtEverybody, rules::NODE_LOOKS, Plain;
    others_beside_the_canaries: CanariesForgotten, turns::CANARY, Policies;
    others_before_the_end_of_the_wait_after_the_canaries: CanarySoakForgotten, turns::CANARY_SOAK, Policies;
    absence_right_after_a_start: AbsenceAtOnce, turns::ORDER, Policies;
    a_retry_that_holds_nobody: RetriesBehind, turns::ORDER, Policies;
    a_late_host_that_nothing_is_known_of: PermitWithoutBaseline, rules::BASELINE, Late;
    a_sample_that_counts_twice: OldSamplesCount, rules::SAMPLES, Policies;
    hosts_that_return_without_a_slot: ReturnsWithoutSlot, rules::RETURNED, Policies;
    slots_of_an_earlier_leg_that_are_forgotten: EarlierSlotsForgotten, rules::SLOT_MAX, Policies;
    a_hop_past_hosts_that_are_late: HopPastLateHosts, rules::LATE, Vanishing;
    a_blackout_that_is_ignored: BlackoutsIgnored, gates::WINDOW, Policies;
    a_sample_from_before_that_proves: StaleSamplesProve, proof::VERIFIED, Policies;
    a_sample_of_the_switch_that_proves: SamplesOfTheSwitchProve, proof::VERIFIED, Policies;
    a_permit_that_is_whole_again: ResentPermitsWhole, permits::LEFT, Plain;
    a_start_that_gives_no_time: StartGivesNoTime, permits::HEARD, Plain;
    a_slot_freed_under_way: FreesSlotUnderWay, told::HOLDS, Policies;
    a_hold_that_is_ignored: HoldIgnored, told::HELD, Policies;
    an_abort_that_keeps_the_epoch: AbortKeepsEpoch, told::RAISED, Plain;
    refusals_that_do_not_count: RefusalsForgotten, rules::COUNTS, Policies;
    who_is_accepted_without_having_failed: ForgivesAll, rules::THRESHOLD, Policies;
    failures_accepted_at_any_pause: ForgivesAtAnyPause, rules::THRESHOLD, Policies;
}

/// Agents refuse what is older than what they saw; a kernel can't break that for them.
#[test]
fn agents_that_take_old_orders() {
    caught(
        "agents deaf to epochs",
        rules::EPOCH,
        Life::Overtaken,
        Break::DeafAgents,
    );
}

/// What runs on the machines is compared with what the rollout says of them.
#[test]
fn agents_that_go_back_in_secret() {
    caught(
        "agents without faith",
        run::TRUTH,
        Life::Plain,
        Break::FaithlessAgents,
    );
}

#[test]
fn sessions_that_serve_a_fork() {
    caught("a served fork", run::FORK, Life::Policies, Break::ForkServed);
}

#[test]
fn a_copy_of_the_store_that_is_torn() {
    caught("a torn copy", run::RESTORABLE, Life::Plain, Break::TornCopy);
}
