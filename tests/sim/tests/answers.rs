//! What a person is told, and whether what is offered does what it says.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use fleet_common::server::HopOutcome;
use fleet_sim::fixture::{self, GroupSpec, NOW};
use fleet_sim::hosts::Behaviour;
use fleet_sim::steps::{group, host, leaves, paused, planned, resume, retry};
use fleet_sim::{Faults, World, until};
use rollout::explain::{ExplainDocument, explain};
use rollout::kernel::{Command, GroupPhase, HostPhase, Input, RollbackTarget, RolloutPhase};
use rollout::plan::Plan;
use rollout::policy::Window;
use std::collections::BTreeMap;

const MINUTE: u64 = 60_000;
/// Of the fleet files in here.
const REMINDER: u64 = 10 * MINUTE;

/// Under a server that takes PMM 2 clients still.
fn world(groups: &[GroupSpec<'_>], behaviours: &[(usize, Behaviour)], edit: &dyn Fn(&mut Plan)) -> World {
    planned(groups, behaviours, &|plan| {
        fixture::way_back(plan, true);
        edit(plan);
    })
}

fn started(groups: &[GroupSpec<'_>], behaviours: &[(usize, Behaviour)]) -> World {
    let mut world = world(groups, behaviours, &|_| {});
    world.start();
    world
}

fn in_flight(world: &World, hosts: usize) -> usize {
    (0..hosts).filter(|number| host(world, *number).slot).count()
}

fn pause(world: &mut World, reason: &str) {
    let reason = reason.to_owned();
    world.command(Command::Pause { reason }).unwrap();
}

fn steps(world: &mut World, number: usize) {
    for _ in 0..number {
        world.step();
    }
}

fn told(world: &World, subject: &str) -> ExplainDocument {
    explain(&world.kernel, subject, world.now).unwrap()
}

fn offers(document: &ExplainDocument, command: &str) -> bool {
    document.you_can.iter().any(|choice| choice.command == command)
}

/// Reminders since an event.
fn reminders(world: &World, from: usize) -> Vec<String> {
    let new = world.events[from..].iter();
    new.filter(|event| event.code == "reminder")
        .map(|event| event.text.clone())
        .collect()
}

#[test]
fn the_end_of_an_operators_pause_accepts_no_failure() {
    let groups = [(
        "one",
        6,
        "canaries = 0\nmax_unavailable = 2\nfailure_threshold = 0",
    )];
    let mut world = started(
        &groups,
        &[0, 1, 2, 3, 4, 5].map(|number| (number, Behaviour::RollsBack)),
    );
    until(&mut world, |world| in_flight(world, 6) == 2);
    pause(&mut world, "lunch");
    let before = world.events.len();
    until(&mut world, |world| in_flight(world, 6) == 0);
    steps(&mut world, 5);
    // Whoever looks sees what happened meanwhile, and who paused before; and it is told without a look.
    assert_eq!(paused(&world), "threshold: group one: 2 failed, 0 tolerated");
    assert!(
        world
            .kernel
            .rollout()
            .pause
            .as_ref()
            .unwrap()
            .hint
            .contains("ann had paused it before: lunch")
    );
    let news = world.events[before..].iter();
    assert_eq!(news.filter(|event| event.code == "rollout_paused").count(), 1);
    resume(&mut world).unwrap();
    steps(&mut world, 30);
    assert_eq!(in_flight(&world, 6), 0, "{}", paused(&world));
    assert!(group(&world, "one").forgiven.is_empty());
    assert_eq!(paused(&world), "threshold: group one: 2 failed, 0 tolerated");
    // Now that is what is resumed from.
    resume(&mut world).unwrap();
    assert_eq!(group(&world, "one").forgiven.len(), 2);
    until(&mut world, |world| in_flight(world, 6) == 2);
}

#[test]
fn resuming_from_something_else_accepts_no_failure() {
    let groups = [
        (
            "one",
            4,
            "canaries = 0\nmax_unavailable = 4\nfailure_threshold = 0",
        ),
        ("two", 1, ""),
    ];
    let mut world = started(&groups, &[(0, Behaviour::RollsBack)]);
    until(&mut world, |world| in_flight(world, 4) == 4);
    let target = RollbackTarget::Host("h1".to_owned());
    world
        .command(Command::Rollback {
            target,
            reason: "not this one".to_owned(),
        })
        .unwrap();
    assert!(paused(&world).starts_with("rollback"), "{}", paused(&world));
    until(&mut world, |world| in_flight(world, 4) == 0);
    resume(&mut world).unwrap();
    steps(&mut world, 30);
    assert_eq!(paused(&world), "threshold: group one: 1 failed, 0 tolerated");
    assert!(group(&world, "one").forgiven.is_empty());
}

#[test]
fn retrying_what_failed_does_not_end_an_operators_pause() {
    let groups = [(
        "one",
        4,
        "canaries = 0\nmax_unavailable = 1\nfailure_threshold = 0",
    )];
    let mut world = started(
        &groups,
        &[0, 1, 2, 3].map(|number| (number, Behaviour::RollsBack)),
    );
    until(&mut world, |world| in_flight(world, 4) == 1);
    pause(&mut world, "lunch");
    until(&mut world, |world| in_flight(world, 4) == 0);
    steps(&mut world, 2);
    assert!(paused(&world).starts_with("threshold"), "{}", paused(&world));
    assert!(retry(&mut world, &[]).unwrap().contains("still paused"));
    assert_eq!(paused(&world), "operator: lunch");
    steps(&mut world, 60);
    assert_eq!(in_flight(&world, 4), 0);
    world
        .hosts
        .values_mut()
        .for_each(|host| host.behaviour = Behaviour::Good);
    resume(&mut world).unwrap();
    until(&mut world, |world| {
        (0..4).all(|number| host(world, number).upgraded())
    });
}

#[test]
fn a_hop_that_fails_during_an_operators_pause_is_what_is_told() {
    let mut world = world(&[("one", 2, "")], &[], &|_| {});
    world.fail_hop = Some((1, HopOutcome::Restored));
    world.start();
    until(&mut world, |world| world.open_hop().is_some());
    pause(&mut world, "lunch");
    until(&mut world, |world| world.open_hop().is_none());
    steps(&mut world, 3);
    assert!(told(&world, "server").waits_for[0].contains("the server is back on"));
    for subject in ["server", "rollout", "one", "h1"] {
        let document = told(&world, subject);
        assert!(
            offers(&document, "retry --server") && !offers(&document, "resume"),
            "{document:#?}"
        );
    }
    world.fail_hop = None;
    world
        .command(Command::Retry {
            hosts: Vec::new(),
            server: true,
        })
        .unwrap();
    assert_eq!(paused(&world), "operator: lunch");
    resume(&mut world).unwrap();
    until(&mut world, |world| world.kernel.is_final());
    assert_eq!(world.kernel.phase(), RolloutPhase::Succeeded);
}

#[test]
fn retry_takes_the_hosts_that_an_operator_took_back() {
    let groups = [
        ("one", 4, "canaries = 0\nmax_unavailable = 4"),
        ("two", 1, "approval = true"),
    ];
    let mut world = started(&groups, &[]);
    until(&mut world, |world| {
        (0..4).all(|number| host(world, number).rests())
    });
    let target = RollbackTarget::Group("one".to_owned());
    world
        .command(Command::Rollback {
            target,
            reason: "bad".to_owned(),
        })
        .unwrap();
    until(&mut world, |world| {
        (0..4).all(|number| host(world, number).phase.is_final())
    });
    assert!(offers(&told(&world, "rollout"), "retry"));
    assert_eq!(retry(&mut world, &[]).unwrap(), "a new attempt for 4 hosts");
    until(&mut world, |world| {
        (0..4).all(|number| host(world, number).upgraded())
    });
}

#[test]
fn slots_that_a_lost_host_holds_offer_what_helps() {
    let groups = [(
        "one",
        4,
        "canaries = 0\nmax_unavailable = 1\nfailure_threshold = 3",
    )];
    let mut world = started(&groups, &[]);
    until(&mut world, |world| in_flight(world, 4) == 1);
    let number = (0..4).find(|number| host(&world, *number).slot).unwrap();
    leaves(&mut world, number);
    until(&mut world, |world| world.kernel.phase() == RolloutPhase::Paused);
    let document = told(&world, "one");
    assert!(!offers(&document, "retry"), "{document:#?}");
    let first = &document.you_can[0].does;
    assert!(first.contains(&format!("bring node-{number} ")), "{first}");
    assert!(
        document
            .you_can
            .iter()
            .any(|choice| choice.command.starts_with("host free-slot"))
    );
}

#[test]
fn an_end_with_skipped_hosts_only_offers_their_names() {
    let mut world = started(&[("one", 2, "")], &[]);
    until(&mut world, |world| world.open_hop().is_some());
    world
        .command(Command::Skip {
            host: "h1".to_owned(),
            reason: "mine".to_owned(),
        })
        .unwrap();
    until(&mut world, |world| world.kernel.is_final());
    let document = told(&world, "rollout");
    assert!(
        !offers(&document, "retry") && offers(&document, "retry node-1"),
        "{document:#?}"
    );
    let hosts = vec!["h1".to_owned()];
    world.command(Command::Retry { hosts, server: false }).unwrap();
    until(&mut world, |world| world.kernel.is_final());
    assert_eq!(world.kernel.phase(), RolloutPhase::Succeeded);
}

#[test]
fn an_abort_that_waits_for_a_verdict_reminds_and_offers_it() {
    let mut world = started(&[("one", 2, "canaries = 0\nmax_unavailable = 2")], &[]);
    until(&mut world, |world| host(world, 1).phase == HostPhase::Verifying);
    world.faults.view_lost = 1;
    let reason = "stop".to_owned();
    world.command(Command::Abort { reason, force: false }).unwrap();
    let before = world.events.len();
    steps(&mut world, 7_200);
    assert_eq!(world.kernel.phase(), RolloutPhase::Aborting);
    let told_of = reminders(&world, before);
    assert!((9..=12).contains(&told_of.len()), "{told_of:?}");
    assert!(
        told_of[0].contains("node-1") && told_of[0].contains("accept"),
        "{told_of:?}"
    );
    for subject in ["rollout", "h1"] {
        let document = told(&world, subject);
        assert_eq!(document.owner, "operator", "{document:#?}");
        assert!(
            offers(&document, "accept node-1") && offers(&document, "abort --force"),
            "{document:#?}"
        );
        assert!(document.reminder_ms.is_some_and(|at| at <= world.now + REMINDER));
    }
    for host in ["h0", "h1"] {
        let (host, reason) = (host.to_owned(), "seen".to_owned());
        let _ = world.command(Command::Accept { host, reason });
    }
    until(&mut world, |world| world.kernel.is_final());
    assert_eq!(world.kernel.phase(), RolloutPhase::Aborted);
}

#[test]
fn a_plan_that_waits_for_its_start_reminds_when_it_says() {
    let mut world = world(&[("one", 2, "")], &[], &|_| {});
    steps(&mut world, 5);
    let at = told(&world, "rollout").reminder_ms.unwrap();
    let before = world.events.len();
    while world.now + 1_000 < at {
        world.step();
    }
    assert_eq!(reminders(&world, before), Vec::<String>::new());
    steps(&mut world, 2);
    let told_of = reminders(&world, before);
    assert!(
        told_of.len() == 1 && told_of[0].contains("`start`"),
        "{told_of:?}"
    );
    assert_eq!(told(&world, "rollout").reminder_ms, Some(at + REMINDER));
}

#[test]
fn a_blocked_plan_does_not_wait_for_its_start() {
    let world = world(&[("one", 2, "")], &[], &|plan| {
        let text = r#"{"check":"disk_space","verdict":"fail","message":"no room","hint":"make some"}"#;
        plan.blockers.push(serde_json::from_str(text).unwrap());
    });
    let document = told(&world, "rollout");
    let waits = &document.waits_for[0];
    assert!(
        waits.contains("disk_space") && !waits.contains("`start`"),
        "{waits}"
    );
    assert!(!document.then.contains("`start`"), "{}", document.then);
}

#[test]
fn held_hosts_are_reminded_of_together() {
    let opens = (NOW / MINUTE + 600) * MINUTE;
    let mut world = world(&[("one", 4, "canaries = 0")], &[], &|plan| {
        plan.groups[0].windows = vec![window(opens)];
    });
    world.start();
    until(&mut world, |world| host(world, 0).phase == HostPhase::Ready);
    for host in ["h1", "h2"] {
        let (host, reason) = (host.to_owned(), "mine".to_owned());
        world.command(Command::Hold { host, reason }).unwrap();
    }
    let document = told(&world, "h1");
    assert!(
        document
            .then
            .contains("left out when the other hosts of its leg have ended"),
        "{}",
        document.then
    );
    let at = document.reminder_ms.unwrap();
    let before = world.events.len();
    while world.now + 1_000 < at {
        world.step();
    }
    assert_eq!(reminders(&world, before), Vec::<String>::new());
    steps(&mut world, 2);
    let told_of = reminders(&world, before);
    assert!(
        told_of.len() == 1 && told_of[0].contains("node-1") && told_of[0].contains("node-2"),
        "{told_of:?}"
    );
    for host in ["h1", "h2"] {
        world
            .command(Command::Unhold {
                host: host.to_owned(),
            })
            .unwrap();
    }
    let before = world.events.len();
    steps(&mut world, 1_300);
    assert_eq!(reminders(&world, before), Vec::<String>::new());
}

/// Each day for an hour from this minute.
fn window(at_ms: u64) -> Window {
    Window {
        days: Vec::new(),
        from_minute: u16::try_from(at_ms / MINUTE % 1_440).unwrap(),
        for_ms: 60 * MINUTE,
        zone: "UTC".to_owned(),
    }
}

#[test]
fn a_group_that_was_taken_back_hides_no_approval() {
    let groups = [
        ("one", 2, "canaries = 0\nmax_unavailable = 4"),
        ("two", 1, "approval = true"),
        ("three", 1, ""),
    ];
    let mut world = started(&groups, &[]);
    until(&mut world, |world| group(world, "two").phase == GroupPhase::Gated);
    let target = RollbackTarget::Group("one".to_owned());
    world
        .command(Command::Rollback {
            target,
            reason: "bad".to_owned(),
        })
        .unwrap();
    until(&mut world, |world| {
        (0..2).all(|number| host(world, number).phase.is_final())
    });
    resume(&mut world).unwrap();
    steps(&mut world, 5);
    let duty = world.kernel.rollout_duty(world.now).unwrap();
    assert_eq!(
        (duty.code, duty.text.as_str()),
        ("approval", "group two: approval (`approve two`)")
    );
    world
        .command(Command::Approve {
            group: "two".to_owned(),
        })
        .unwrap();
    world.step();
    let document = told(&world, "three");
    assert_eq!(document.waits_for, ["group two is not done"]);
}

#[test]
fn an_absent_host_that_a_group_waits_for_has_a_name_and_can_be_skipped() {
    let groups = [("one", 2, "canaries = 0\noffline = \"wait\""), ("two", 1, "")];
    let mut world = started(&groups, &[]);
    until(&mut world, |world| world.open_hop().is_some());
    leaves(&mut world, 1);
    until(&mut world, |world| {
        group(world, "one").offline_until_ms.is_some() && host(world, 0).upgraded()
    });
    let document = told(&world, "one");
    assert!(document.waits_for[0].contains("node-1"), "{document:#?}");
    assert!(offers(&document, "skip node-1"), "{document:#?}");
}

#[test]
fn a_breach_names_who_failed_and_why() {
    let mut world = started(
        &[("one", 3, "canaries = 0\nfailure_threshold = 0")],
        &[(0, Behaviour::RollsBack)],
    );
    until(&mut world, |world| world.kernel.phase() == RolloutPhase::Paused);
    let why = host(&world, 0).reason.clone();
    for subject in ["one", "rollout"] {
        let document = told(&world, subject);
        let named = |rule: &String| rule.contains("node-0") && rule.contains(&why);
        assert!(document.rules.iter().any(named), "{document:#?}");
    }
}

#[test]
fn a_host_without_a_verdict_waits_for_the_person_who_was_asked() {
    let mut world = started(&[("one", 2, "canaries = 0")], &[]);
    until(&mut world, |world| {
        (0..2).any(|number| host(world, number).phase == HostPhase::Verifying)
    });
    world.faults.view_lost = 1;
    until(&mut world, |world| world.kernel.phase() == RolloutPhase::Paused);
    let number = (0..2).find(|number| host(&world, *number).inconclusive).unwrap();
    let document = told(&world, &format!("h{number}"));
    assert_eq!(document.owner, "operator");
    assert!(
        document.waits_for[0].contains("the PMM Server can't be asked"),
        "{document:#?}"
    );
    assert!(document.deadline_ms.is_none() && document.reminder_ms.is_some());
    assert!(!document.then.contains("is asked"), "{}", document.then);
}

#[test]
fn while_the_store_is_in_doubt_nobody_is_said_to_be_given_up() {
    let mut world = started(&[("one", 2, "canaries = 0")], &[]);
    until(&mut world, |world| in_flight(world, 2) >= 1);
    let text = "this store is older than what 1 host saw".to_owned();
    world.give(Input::StoreRestored { text });
    let reason = "stop".to_owned();
    world.command(Command::Abort { reason, force: false }).unwrap();
    let number = (0..2)
        .find(|number| host(&world, *number).phase.in_flight())
        .unwrap();
    for subject in ["rollout".to_owned(), "one".to_owned(), format!("h{number}")] {
        let document = told(&world, &subject);
        assert!(offers(&document, "doctor --adopt-epoch"), "{document:#?}");
        assert!(
            document.deadline_ms.is_none() && document.then.contains("nobody is given up"),
            "{document:#?}"
        );
        assert!(!offers(&document, "watch"), "{document:#?}");
    }
}

/// A choice as the coordinator gets it; `None` for what is no command to a rollout.
fn command(text: &str) -> Option<Command> {
    let words: Vec<String> = text.split_whitespace().map(str::to_owned).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let reason = "because".to_owned();
    let name = |name: &&str| (*name).to_owned();
    Some(match &words[..] {
        ["start", ..] => Command::Start {
            accept_unmatched: Vec::new(),
        },
        ["pause"] => Command::Pause { reason },
        ["resume", rest @ ..] => Command::Resume {
            reason,
            accept_server: rest.contains(&"--accept-server"),
        },
        ["abort", rest @ ..] => Command::Abort {
            reason,
            force: rest.contains(&"--force"),
        },
        ["retry", rest @ ..] => Command::Retry {
            hosts: rest
                .iter()
                .filter(|word| !word.starts_with("--"))
                .map(name)
                .collect(),
            server: rest.contains(&"--server"),
        },
        ["approve", group] => Command::Approve { group: name(group) },
        ["skip", host] => Command::Skip {
            host: name(host),
            reason,
        },
        ["accept", host] => Command::Accept {
            host: name(host),
            reason,
        },
        ["host", "hold", host] => Command::Hold {
            host: name(host),
            reason,
        },
        ["host", "unhold", host] => Command::Unhold { host: name(host) },
        ["host", "free-slot", host, ..] => Command::FreeSlot {
            host: name(host),
            reason,
        },
        ["rollback", "host", host, ..] => Command::Rollback {
            target: RollbackTarget::Host(name(host)),
            reason,
        },
        ["rollback", "group", group, ..] => Command::Rollback {
            target: RollbackTarget::Group(name(group)),
            reason,
        },
        _ => return None,
    })
}

/// Whatever is offered must be taken; what was tried often in such a state is not tried again.
fn look_at_choices(world: &World, tried: &mut BTreeMap<String, u32>) {
    let plan = world.kernel.plan();
    let groups = plan.groups.iter().map(|group| group.name.to_string());
    let hosts = plan.hosts.iter().map(|host| host.host.to_string());
    let subjects = ["rollout".to_owned(), "server".to_owned()]
        .into_iter()
        .chain(groups)
        .chain(hosts);
    for subject in subjects {
        let Some(document) = explain(&world.kernel, &subject, world.now) else {
            continue;
        };
        for choice in &document.you_can {
            let Some(command) = command(&choice.command) else {
                continue;
            };
            let verb: Vec<&str> = choice.command.split_whitespace().take(2).collect();
            let pause = world
                .kernel
                .rollout()
                .pause
                .as_ref()
                .map(|pause| pause.code.clone());
            let doubt = world.kernel.is_doubted();
            let state = (
                &document.state,
                &document.code,
                pause,
                doubt,
                world.kernel.phase(),
            );
            let times = tried.entry(format!("{verb:?} {state:?}")).or_default();
            *times += 1;
            if *times > 20 {
                continue;
            }
            let mut copy = world.kernel.clone();
            let by = "ann".to_owned();
            let answer = copy
                .handle(Input::Operator { by, command }, world.now)
                .answer
                .unwrap();
            assert!(
                answer.is_ok(),
                "{} {subject}: {}: {answer:?}\n{document:#?}",
                paused(world),
                choice.command
            );
        }
    }
}

#[test]
fn every_choice_that_is_offered_is_taken() {
    let groups = [
        (
            "one",
            3,
            "canaries = 1\nmax_unavailable = 1\nfailure_threshold = 1",
        ),
        (
            "two",
            4,
            "canaries = 0\nmax_unavailable = 2\nfailure_threshold = 0\napproval = true",
        ),
    ];
    let mut tried = BTreeMap::new();
    for seed in 0..40 {
        let mut world = World::new(seed, &groups, fixture::ACCEPT, Faults::ALL);
        look_at_choices(&world, &mut tried);
        world.start();
        for second in 0..3_000_u64 {
            world.step();
            if second.is_multiple_of(7) {
                look_at_choices(&world, &mut tried);
            }
            if seed % 5 == 4 && second == 400 + 100 * seed {
                let text = "this store is older than what 1 host saw".to_owned();
                world.give(Input::StoreRestored { text });
            }
            if world.kernel.is_final() {
                look_at_choices(&world, &mut tried);
                break;
            }
        }
    }
    assert!(
        tried.len() > 150,
        "only {} kinds of choices were met",
        tried.len()
    );
}
