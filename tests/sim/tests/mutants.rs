//! Each rule is really looked at: a kernel (or, for the one rule that agents keep, an agent) that breaks it on purpose is caught by that very
//! rule within 200 lives.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout)]

use fleet_common::ids::HostId;
use fleet_sim::rules::{self, Watcher};
use fleet_sim::{Faults, World, fixture, gates};
use rollout::kernel::{Command, HostPhase, Mutant};
use rollout::plan::Plan;
use rollout::policy::{FailureClass, HealthGate, Retries, Window};

/// Lives that a mutant may survive.
const LIVES: u64 = 200;

/// Which kind of life brings a fault to light.
#[derive(Clone, Copy)]
enum Life {
    /// Everything goes wrong at random.
    Wild,
    /// Windows, sets, sites, a ramp and retries in the plan.
    Gated,
    /// It is aborted while a host has a permit that it did not use; in every second life the host is away then.
    Aborted,
}

fn life(kind: Life, seed: u64, prepare: &dyn Fn(&mut World)) -> Watcher {
    let groups: &[fixture::GroupSpec<'_>] = match kind {
        Life::Wild | Life::Aborted => &[
            ("one", 3, "canaries = 1\nfailure_threshold = 1"),
            (
                "two",
                5,
                "canaries = 1\nmax_unavailable = 2\nfailure_threshold = 2\nsoak = \"20s\"",
            ),
        ],
        Life::Gated => &[(
            "one",
            8,
            "canaries = 0\nmax_unavailable = 4\nfailure_threshold = 7",
        )],
    };
    let mut draft = fixture::draft_with(groups, fixture::ACCEPT, &[1, 4, 6]);
    if matches!(kind, Life::Gated) {
        gate(&mut draft.plan, seed);
    }
    let mut world = World::of_plan(seed, draft, Faults::ALL);
    prepare(&mut world);
    world.start();
    match kind {
        Life::Wild | Life::Gated => world.run(1_800),
        Life::Aborted => {
            world.helpful = false;
            world.faults.operator = 0;
            let permitted = |world: &World| -> Vec<HostId> {
                let leg = "clients-1".into();
                let unused = |host: &&HostId| {
                    let row = world.kernel.host(&leg, host);
                    row.is_some_and(|row| row.phase == HostPhase::Permitted)
                };
                world.hosts.keys().filter(unused).cloned().collect()
            };
            for _ in 0..600 {
                world.step();
                if !permitted(&world).is_empty() {
                    break;
                }
            }
            // In every second life the permit is lost on its way and repeated when the host is back, perhaps long after the abort.
            for host in permitted(&world).into_iter().filter(|_| seed.is_multiple_of(2)) {
                world.disconnect(&host);
            }
            let reason = "because".to_owned();
            // It may have paused or ended before; then this life shows nothing.
            let _ = world.command(Command::Abort { reason, force: false });
            world.run(300);
        }
    }
    world.watcher
}

/// A plan in which everything that keeps hosts from beginning binds.
fn gate(plan: &mut Plan, seed: u64) {
    let group = &mut plan.groups[0];
    match seed % 4 {
        // The turn comes about two minutes after 22:13:20.
        0 => {
            group.windows = [22 * 60 + 15, 22 * 60 + 18, 22 * 60 + 22]
                .map(|from_minute| Window {
                    days: Vec::new(),
                    from_minute,
                    for_ms: 50_000,
                    zone: "UTC".to_owned(),
                })
                .to_vec();
        }
        1 => group.ramp = vec![1, 2],
        2 => group.per_site = Some(2),
        _ => {}
    }
    let retries = Retries {
        times: 1,
        backoff_ms: vec![5_000],
    };
    group.retry = [
        (FailureClass::Install, retries.clone()),
        (FailureClass::Transient, retries),
    ]
    .into();
    plan.groups[0].health = (seed % 2 == 1).then_some(HealthGate {
        good_views: 3,
        patience_ms: 120_000,
    });
    plan.failure_threshold = Some(2);
    for (number, host) in plan.hosts.iter_mut().enumerate() {
        if seed % 4 == 2 {
            host.site = Some("one".to_owned());
        }
        if seed % 4 == 3 {
            host.sets = [format!("set/{}", number / 2)].into();
        }
    }
}

/// Runs lives until the rule catches the fault.
fn caught(name: &str, rule: &str, kind: Life, prepare: &dyn Fn(&mut World)) {
    for seed in 0..LIVES {
        if life(kind, seed, prepare).violations.contains_key(rule) {
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
            caught(stringify!($mutant), $rule, Life::$life, &|world| world.break_rule(Mutant::$mutant));
        })*
    };
}

mutants! {
    a_state_without_a_reason: NoReason, rules::DUTY, Wild;
    a_deadline_that_is_not_kept: DeafToDeadlines, rules::SILENCE, Wild;
    a_permit_without_a_slot: GrantWithoutSlot, rules::SLOT_WITH_GRANT, Wild;
    a_slot_freed_by_loss: LostFreesSlot, rules::SLOT_FREED, Wild;
    a_width_that_is_ignored: TooWide, rules::SLOT_MAX, Wild;
    a_slot_before_the_permit: SlotBeforePermit, rules::GRANTED, Wild;
    exhausted_slots_that_stop_nobody: ExhaustedGoesOn, rules::EXHAUSTED, Wild;
    failures_that_are_forgotten: FailuresForgotten, rules::COUNTS, Wild;
    a_threshold_off_by_one: ThresholdOffByOne, rules::THRESHOLD, Wild;
    a_host_lost_before_its_permit: LostBeforePermit, rules::LOST, Wild;
    a_group_out_of_turn: OutOfTurn, rules::TURN, Wild;
    a_pause_that_grants: PauseGrants, rules::PAUSE, Wild;
    a_pause_that_touches_work: PauseTouchesWork, rules::RUNNING_WORK, Wild;
    old_events_that_are_dropped: OldEventsDropped, rules::OLD_EVENTS, Wild;
    an_abort_that_keeps_permits: AbortKeepsPermits, rules::ABORT, Aborted;
    an_order_without_a_plan_entry: NoPlanEntry, rules::PLAN_ONLY, Aborted;
    clients_that_follow_too_early: FollowsTooEarly, rules::FOLLOW, Wild;
    no_point_of_no_return: NoPointOfNoReturn, rules::NO_RETURN, Wild;
    a_report_that_forgets: ReportForgets, rules::REPORT, Wild;
    a_row_that_is_not_stored: RowNotStored, rules::RESTORE, Wild;
    a_window_that_is_ignored: WindowIgnored, gates::WINDOW, Gated;
    a_begin_after_the_close: WindowIgnored, gates::CLOSE, Gated;
    members_of_a_set_together: SetsTogether, gates::SET, Gated;
    a_site_that_is_ignored: SitesIgnored, gates::SITE, Gated;
    a_ramp_that_is_ignored: RampIgnored, gates::RAMP, Gated;
    a_rollout_threshold_that_is_ignored: RolloutThresholdIgnored, gates::ROLLOUT_THRESHOLD, Gated;
    retries_without_end: RetriesWithoutEnd, gates::ATTEMPTS, Gated;
    a_look_at_the_fleet_that_is_not_stored: FleetLookForgotten, rules::FLEET_LOOKS, Wild;
    looks_at_hosts_that_do_not_verify: LooksAtEverybody, rules::NODE_LOOKS, Wild;
    a_sample_that_counts_twice: OldSamplesCount, rules::SAMPLES, Gated;
    a_host_that_returns_without_a_slot: ReturnsWithoutSlot, rules::RETURNED, Wild;
}

/// Agents refuse what is older than what they saw; a kernel can't break that for them.
#[test]
fn an_agent_that_takes_old_orders() {
    caught("an agent deaf to epochs", rules::EPOCH, Life::Aborted, &|world| {
        world
            .hosts
            .values_mut()
            .for_each(|host| host.deaf_to_epochs = true);
    });
}

/// Without a fault no rule is broken in these very lives.
#[test]
fn nothing_is_caught_without_a_fault() {
    for seed in 0..24 {
        for kind in [Life::Wild, Life::Gated, Life::Aborted] {
            let watcher = life(kind, seed, &|_| {});
            assert!(watcher.violations.is_empty(), "{seed}: {:?}", watcher.violations);
        }
    }
}
