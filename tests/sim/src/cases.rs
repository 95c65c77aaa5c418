//! Lives in which a rule can break. The properties try each rule in them, and the same lives must notice the kernel that breaks it: a property
//! whose lives never meet the rule's case could not fail.

use crate::fixture::{self, GroupSpec};
use crate::hosts::Behaviour;
use crate::{Faults, Rng, World};
use fleet_common::ids::HostId;
use rollout::kernel::{Command, HostPhase, HostRow, Kernel};
use rollout::plan::{LegKind, Plan, PlanDraft, PlanGroup};
use rollout::policy::{Blackout, FailureClass, HealthGate, Retries, Window};

/// What a life is made for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Everything goes wrong at random.
    Wild,
    /// The same, and the canaries of its groups are watched before the others begin.
    Watched,
    /// It is aborted while hosts have a permit that they did not use, and some of them do not hear it.
    Aborted,
    /// A person pauses it whenever hosts are under way.
    Paused,
    /// Whoever goes first ends without a client, and keeps its slot.
    Stuck,
    /// Hosts fail, each in its own way.
    Failing,
    /// A person reduces numbers, and other plans take over.
    Changed,
    /// Generated plans in which this binds.
    Windows,
    Ramps,
    Sites,
    Sets,
    /// A threshold over all groups.
    Together,
    /// Trying again by itself.
    Retried,
    /// Several good views in a row are asked for.
    Viewed,
    /// Some say nothing from the beginning.
    Mute,
}

const WILD: &[GroupSpec<'static>] = &[
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
/// Who is away when it is aborted comes back after so many seconds: its permit is not over, and too old to begin much later.
const DEAF_S: u64 = 50;

/// A life from its seed; `prepare` comes before its start.
pub fn live(kind: Kind, seed: u64, seconds: u64, prepare: &dyn Fn(&mut World)) -> World {
    let mut world = match kind {
        Kind::Wild => wild(seed, Faults::ALL),
        Kind::Watched => watched(seed),
        _ => made_for(kind, seed),
    };
    prepare(&mut world);
    world.start();
    match kind {
        Kind::Aborted => abort(&mut world, seed),
        Kind::Paused => pause_often(&mut world, seconds),
        Kind::Changed => change_often(&mut world, seed, seconds),
        _ => world.run(seconds),
    }
    world
}

/// Two groups, a server leg or two, and these troubles.
pub fn wild(seed: u64, faults: Faults) -> World {
    World::of_plan(seed, wild_draft(seed), faults)
}

fn watched(seed: u64) -> World {
    let mut draft = wild_draft(seed);
    let groups = draft.plan.groups.iter_mut();
    groups.for_each(|group| group.canary_soak_ms = 40_000);
    World::of_plan(seed, draft, Faults::ALL)
}

fn wild_draft(seed: u64) -> PlanDraft {
    let decision = if seed.is_multiple_of(3) {
        BRIDGE
    } else {
        fixture::ACCEPT
    };
    let mut draft = fixture::draft_with(WILD, decision, DIRECT);
    // In every second life the server takes PMM 2 clients still, so that hosts can be taken back.
    for leg in &mut draft.plan.legs {
        if let LegKind::Clients {
            no_way_back_to_pmm2, ..
        } = &mut leg.kind
        {
            *no_way_back_to_pmm2 &= seed % 2 == 1;
        }
    }
    draft
}

/// A plan of one or two groups whose numbers follow from the seed, and the troubles that suit it.
fn made_for(kind: Kind, seed: u64) -> World {
    let mut rng = Rng(seed ^ 0x5EED);
    let size = 4 + rng.below(6) as usize;
    let policy = "canaries = 0\nfailure_threshold = 0";
    let mut draft = fixture::draft(&[("one", size, policy), ("two", 2, policy)], fixture::ACCEPT);
    for group in &mut draft.plan.groups {
        group.retry.clear();
    }
    let hosts = u32::try_from(size).unwrap();
    let group = &mut draft.plan.groups[0];
    group.max_unavailable = 2 + rng.below(3) as u32;
    group.failure_threshold = hosts - 1;
    let (faults, bad) = shape(kind, &mut draft.plan, &mut rng);
    let mut world = World::of_plan(seed, draft, faults);
    for host in world.hosts.values_mut() {
        let odd = rng.below(100) < bad;
        host.behaviour = behaviour(kind, odd, &mut rng);
    }
    if kind == Kind::Mute {
        let mute = world.hosts.values_mut().step_by(3);
        mute.for_each(|host| host.behaviour = Behaviour::Mute);
    }
    if kind == Kind::Stuck {
        let first = world.kernel.plan().groups[0].clone();
        let most = first.max_unavailable as usize;
        for host in first.hosts.iter().take(most) {
            world.hosts.get_mut(host).unwrap().behaviour = Behaviour::Inconsistent;
        }
    }
    world
}

/// Edits the plan; what goes wrong, and the share of hosts in percent that do not simply work.
fn shape(kind: Kind, plan: &mut Plan, rng: &mut Rng) -> (Faults, u64) {
    let some = Faults {
        disconnect: 120,
        crash: 120,
        duplicate: 5,
        view_lost: 6,
        ..Faults::NONE
    };
    let group = &mut plan.groups[0];
    match kind {
        Kind::Windows => {
            // The turn comes about two minutes after 22:13:20.
            let last = 50_000 + rng.below(10) * 1_000;
            group.windows = windows(22 * 60 + 15, 20, last);
            // Shuts in the middle of an opening and opens in the middle of another.
            let (from_ms, until_ms) = (fixture::NOW + 245_000, fixture::NOW + 355_000);
            let reason = "release week".to_owned();
            group.blackouts = vec![Blackout {
                from_ms,
                until_ms,
                reason,
            }];
            group.max_unavailable = 1;
            return (some, 30);
        }
        Kind::Ramps => {
            group.max_unavailable = 4;
            group.ramp = vec![1, 1 + rng.below(2) as u32];
        }
        Kind::Sites => {
            group.per_site = Some(1 + rng.below(2) as u32);
            group.max_unavailable = 4;
            plan.hosts
                .iter_mut()
                .for_each(|host| host.site = Some("one".to_owned()));
        }
        Kind::Sets => {
            group.max_unavailable = 4;
            let members = 2 + rng.below(2) as usize;
            for (number, host) in plan.hosts.iter_mut().enumerate() {
                host.sets = [format!("set/{}", number / members)].into();
            }
        }
        Kind::Together => {
            plan.failure_threshold = Some(rng.below(2) as u32);
            return (some, 70);
        }
        Kind::Retried => {
            let retries = Retries {
                times: 1 + rng.below(2) as u32,
                backoff_ms: vec![5_000],
            };
            for group in &mut plan.groups {
                group.retry = [
                    (FailureClass::Install, retries.clone()),
                    (FailureClass::Transient, retries.clone()),
                ]
                .into();
            }
            return (some, 70);
        }
        Kind::Viewed => {
            let patience_ms = 180_000;
            let good_views = 2 + rng.below(3) as u32;
            group.health = Some(HealthGate {
                good_views,
                patience_ms,
            });
        }
        Kind::Failing => {
            group.failure_threshold = rng.below(3) as u32;
            return (some, 60);
        }
        Kind::Aborted => return (Faults::NONE, 100),
        Kind::Paused | Kind::Stuck | Kind::Changed | Kind::Wild | Kind::Watched | Kind::Mute => {}
    }
    (some, 0)
}

/// So many openings of this length, one in every second minute.
fn windows(from: u16, count: u16, for_ms: u64) -> Vec<Window> {
    (from..from + 2 * count)
        .step_by(2)
        .map(|from_minute| Window {
            days: Vec::new(),
            from_minute,
            for_ms,
            zone: "UTC".to_owned(),
        })
        .collect()
}

fn behaviour(kind: Kind, odd: bool, rng: &mut Rng) -> Behaviour {
    let all: &[Behaviour] = match kind {
        Kind::Aborted | Kind::Windows => &[Behaviour::Slow],
        Kind::Together | Kind::Retried => &[Behaviour::RollsBack, Behaviour::FailsBefore],
        _ => &[
            Behaviour::RollsBack,
            Behaviour::FailsBefore,
            Behaviour::Inconsistent,
            Behaviour::NoSamples,
            Behaviour::Silent,
        ],
    };
    if odd {
        all[rng.below(all.len() as u64) as usize]
    } else {
        Behaviour::Good
    }
}

/// Hosts of which this is so in the first client leg.
fn hosts_that(kernel: &Kernel, which: impl Fn(&HostRow) -> bool) -> Vec<HostId> {
    let leg = "clients-1".into();
    let hosts = kernel.plan().hosts.iter().map(|planned| &planned.host);
    let found = hosts.filter(|host| kernel.host(&leg, host).is_some_and(&which));
    found.cloned().collect()
}

fn abort(world: &mut World, seed: u64) {
    world.helpful = false;
    let permitted = |world: &World| hosts_that(&world.kernel, |row| row.phase == HostPhase::Permitted);
    for _ in 0..900 {
        world.step();
        if !permitted(world).is_empty() {
            break;
        }
    }
    // A second more or less, so that it finds the permit on its way, accepted, or not yet used.
    world.run(seed % 4);
    let there = permitted(world).into_iter().enumerate();
    let away: Vec<HostId> = there
        .filter(|(at, _)| (*at as u64 + seed).is_multiple_of(2))
        .map(|(_, host)| host)
        .collect();
    for host in &away {
        world.disconnect(host);
        world.hosts.get_mut(host).unwrap().gone = true;
    }
    // It may have paused or ended before; then this life shows nothing.
    let reason = "because".to_owned();
    let _ = world.command(Command::Abort { reason, force: false });
    world.run(DEAF_S);
    for host in &away {
        world.hosts.get_mut(host).unwrap().gone = false;
        world.connect(host);
    }
    world.run(300);
}

fn pause_often(world: &mut World, seconds: u64) {
    for second in 0..seconds {
        world.step();
        let busy = !hosts_that(&world.kernel, HostRow::in_flight).is_empty();
        let reason = || "because".to_owned();
        if busy && second.is_multiple_of(7) {
            let _ = world.command(Command::Pause { reason: reason() });
        } else if second.is_multiple_of(5) {
            let _ = world.command(Command::Resume {
                reason: reason(),
                accept_server: false,
            });
        }
        if world.kernel.is_final() {
            break;
        }
    }
}

fn change_often(world: &mut World, seed: u64, seconds: u64) {
    let mut rng = Rng(seed ^ 0xC4A9);
    for second in 1..=seconds {
        world.step();
        if second.is_multiple_of(11) {
            let command = limit(&mut rng, &world.kernel.plan().groups);
            let _ = world.command(command);
        }
        if second.is_multiple_of(13) {
            let draft = child(&mut rng, &world.kernel);
            let _ = world.adopt(draft);
        }
        if world.kernel.is_final() {
            break;
        }
    }
}

/// A person reduces a group's numbers, or tries to raise them.
pub fn limit(rng: &mut Rng, groups: &[PlanGroup]) -> Command {
    let group = &groups[rng.below(groups.len() as u64) as usize];
    Command::Limit {
        group: group.name.to_string(),
        max_unavailable: (!rng.one_in(3)).then(|| rng.below(6) as u32),
        failure_threshold: rng.one_in(2).then(|| rng.below(4) as u32),
        reason: "because".to_owned(),
    }
}

/// The running plan with other numbers; now and then one that follows another plan.
pub fn child(rng: &mut Rng, kernel: &Kernel) -> PlanDraft {
    let mut plan = kernel.plan().clone();
    plan.parent = (!rng.one_in(6)).then(|| kernel.plan_id().clone());
    for group in &mut plan.groups {
        let hosts = u32::try_from(group.hosts.len()).unwrap().max(1);
        group.max_unavailable = 1 + rng.below(u64::from(hosts)) as u32;
        group.failure_threshold = rng.below(u64::from(hosts)) as u32;
    }
    PlanDraft { plan }
}
