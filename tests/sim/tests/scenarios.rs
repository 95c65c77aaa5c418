//! Single situations, told step by step.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use fleet_sim as world;
use fleet_sim::until;

use fleet_common::codes::{Code, exit};
use fleet_common::ids::{HostId, RolloutId};
use fleet_common::order::HostEvent;
use fleet_common::server::{HopOutcome, HopResult, ServerEvent};
use fleet_sim::fixture::{ACCEPT, GroupSpec};
use fleet_sim::hosts::Behaviour;
use rollout::kernel::{Command, HostPhase, Input, RolloutPhase};
use rollout::{explain, progress, report};
use world::{Faults, World};

fn world(groups: &[GroupSpec<'_>], behaviours: &[(usize, Behaviour)]) -> World {
    World::calm(groups, ACCEPT, behaviours)
}

/// Runs until `watch` would end.
fn rest(world: &mut World) {
    world.rest();
}

fn phase(world: &World, host: usize) -> HostPhase {
    world
        .kernel
        .host(&"clients-1".into(), &HostId::new(format!("h{host}")))
        .unwrap()
        .phase
}

const TWO: &[GroupSpec<'static>] = &[("one", 1, ""), ("two", 3, ""), ("three", 2, "")];

#[test]
fn the_main_road_succeeds_and_reports_what_the_issue_names() {
    let mut world = world(TWO, &[]);
    rest(&mut world);
    let report = report::report(&world.kernel, world.now);
    assert_eq!(
        (report.outcome.as_str(), report.exit_code()),
        ("succeeded", exit::OK)
    );
    let json = serde_json::to_value(&report).unwrap();
    assert_eq!(json["server"]["from"], "2.41.2");
    assert_eq!(json["server"]["to"], "3.9.1");
    assert_eq!(
        json["server"]["hops"],
        serde_json::json!(["2.44.1", "3.7.1", "3.9.1"])
    );
    assert_eq!(
        json["server"]["restore_points"],
        serde_json::json!(["restore-1", "restore-2", "restore-3"])
    );
    assert_eq!(
        (&json["server"]["outcome"], &json["server"]["reason"]),
        (&"upgraded".into(), &"".into())
    );
    assert_eq!(json["server"]["downtime_s"], 5);
    for host in json["hosts"].as_array().unwrap() {
        assert_eq!(
            (&host["from"], &host["to"], &host["outcome"]),
            (&"2.41.2".into(), &"3.9.1".into(), &"upgraded".into())
        );
        assert!(host["took_s"].as_u64().unwrap() > 0 && !host["legs"].as_array().unwrap().is_empty());
    }
    let checked = &json["verification"];
    for field in [
        "clients_checked",
        "services_checked",
        "metrics_checked",
        "qan_checked",
    ] {
        assert_eq!(checked[field], 6, "{field}");
    }
    for field in [
        "qan_idle",
        "clients_not_current",
        "services_missing",
        "metrics_stale",
        "qan_stale",
    ] {
        assert_eq!(checked[field], serde_json::json!([]), "{field}");
    }
    assert_eq!(json["disturbances"], serde_json::json!([]));
    let order: Vec<u64> = (0..6)
        .map(|host| {
            world
                .kernel
                .host(&"clients-1".into(), &format!("h{host}").as_str().into())
                .unwrap()
                .permitted_at_ms
                .unwrap()
        })
        .collect();
    assert!(
        order[0] < order[1..].iter().copied().min().unwrap(),
        "the first group goes first"
    );
    assert!(order[1] < order[2].min(order[3]), "the canary goes first");
}

#[test]
fn n_failures_are_tolerated() {
    let groups = [("one", 4, "failure_threshold = 2"), ("two", 1, "")];
    let mut world = world(&groups, &[(1, Behaviour::RollsBack), (2, Behaviour::FailsBefore)]);
    rest(&mut world);
    assert_eq!(world.kernel.phase(), RolloutPhase::FinishedWithExceptions);
    assert_eq!(world.outcome(4), "upgraded");
    assert_eq!(
        report::report(&world.kernel, world.now).exit_code(),
        exit::EXCEPTIONS
    );
}

#[test]
fn one_more_failure_pauses_and_touches_no_later_host() {
    let groups = [
        ("one", 5, "failure_threshold = 1\nmax_unavailable = 1"),
        ("two", 1, ""),
    ];
    let mut world = world(&groups, &[(1, Behaviour::RollsBack), (2, Behaviour::RollsBack)]);
    rest(&mut world);
    let report = report::report(&world.kernel, world.now);
    assert_eq!(
        (report.outcome.as_str(), report.exit_code()),
        ("paused", exit::PAUSED)
    );
    assert!(
        report.reason.contains("2 failed, 1 tolerated"),
        "{}",
        report.reason
    );
    for host in 3..6 {
        assert_eq!(world.outcome(host), "not_started");
        assert_eq!(world.hosts[&HostId::new(format!("h{host}"))].switches, 0);
    }
    assert_eq!(
        (report.hosts[1].outcome.as_str(), report.hosts[1].to.as_str()),
        ("rolled_back", "2.41.2")
    );
    let view = progress::view(&world.kernel, world.now);
    assert_eq!(view.failures.len(), 2);
    assert!(
        view.failures
            .iter()
            .all(|failure| !failure.slot_held && !failure.hint.is_empty())
    );

    // Repaired and tried again, the rest follows.
    for host in [1, 2] {
        world
            .hosts
            .get_mut(&HostId::new(format!("h{host}")))
            .unwrap()
            .behaviour = Behaviour::Good;
    }
    world
        .command(Command::Retry {
            hosts: Vec::new(),
            server: false,
        })
        .unwrap();
    rest(&mut world);
    assert_eq!(world.kernel.phase(), RolloutPhase::Succeeded);
    assert_eq!(
        report::report(&world.kernel, world.now).hosts[1].legs[0].attempts,
        2
    );
}

#[test]
fn a_failed_canary_is_replaced_before_the_group_opens() {
    let mut world = world(
        &[(
            "one",
            6,
            "canaries = 1\nfailure_threshold = 2\nmax_unavailable = 4",
        )],
        &[(0, Behaviour::RollsBack)],
    );
    until(&mut world, |world| {
        phase(world, 0).is_final() && phase(world, 1).in_flight()
    });
    assert_eq!((2..6).filter(|host| phase(&world, *host).in_flight()).count(), 0);
    rest(&mut world);
    assert_eq!(world.outcome(5), "upgraded");
}

#[test]
fn exhausted_slots_pause_until_one_is_freed() {
    let groups = [(
        "one",
        4,
        "canaries = 0\nfailure_threshold = 3\nmax_unavailable = 2",
    )];
    let mut world = world(
        &groups,
        &[(0, Behaviour::Inconsistent), (1, Behaviour::Inconsistent)],
    );
    rest(&mut world);
    let view = progress::view(&world.kernel, world.now);
    assert_eq!(view.paused.unwrap().code, "slots_exhausted");
    assert_eq!(view.groups[0].slot_holders, ["node-0", "node-1"]);
    assert_eq!(
        world
            .command(Command::FreeSlot {
                host: "node-2".into(),
                reason: String::new()
            })
            .unwrap_err(),
        "no_slot"
    );
    world
        .command(Command::FreeSlot {
            host: "node-0".into(),
            reason: "reinstalled".into(),
        })
        .unwrap();
    world
        .command(Command::Resume {
            reason: String::new(),
            accept_server: false,
        })
        .unwrap();
    rest(&mut world);
    assert_eq!(
        (world.outcome(2), world.outcome(3)),
        ("upgraded".into(), "upgraded".into())
    );
    assert_eq!(world.kernel.phase(), RolloutPhase::FinishedWithExceptions);
}

#[test]
fn a_lying_host_is_found_out_by_the_server_and_goes_back() {
    let mut world = world(
        &[("one", 3, "failure_threshold = 2")],
        &[(1, Behaviour::Lies), (2, Behaviour::NoSamples)],
    );
    rest(&mut world);
    assert_eq!(
        (world.outcome(1), world.outcome(2)),
        ("rolled_back".into(), "rolled_back".into())
    );
    let report = report::report(&world.kernel, world.now);
    assert!(
        report.hosts[1]
            .reason
            .contains("PMM sees client 2.41.2, not 3.9.1"),
        "{:?}",
        report.hosts[1]
    );
    assert!(
        report.hosts[2].reason.contains("no fresh sample"),
        "{:?}",
        report.hosts[2]
    );
}

#[test]
fn a_host_that_vanishes_after_its_permit_is_lost_and_goes_on_when_it_returns() {
    let mut world = world(&[("one", 2, "failure_threshold = 1")], &[]);
    until(&mut world, |world| phase(world, 0) == HostPhase::Switching);
    world.hosts.get_mut(&"h0".into()).unwrap().gone = true;
    world.disconnect(&"h0".into());
    rest(&mut world);
    assert_eq!(world.kernel.phase(), RolloutPhase::FinishedWithLost);
    assert_eq!(
        (world.outcome(0), world.outcome(1)),
        ("lost".into(), "upgraded".into())
    );
    assert!(
        explain::explain(&world.kernel, "node-0", world.now)
            .unwrap()
            .then
            .contains("returns")
    );
    world.connect(&"h0".into());
    rest(&mut world);
    assert_eq!(world.kernel.phase(), RolloutPhase::Succeeded);
    let hits = report::report(&world.kernel, world.now).disturbances;
    assert!(
        hits.iter()
            .any(|hit| hit.target == "node-0" && hit.step.contains("lost and came back")),
        "{hits:?}"
    );
}

#[test]
fn a_permit_that_ran_out_unused_is_no_attempt_in_the_report() {
    let mut world = world(&[("one", 2, "failure_threshold = 1")], &[]);
    until(&mut world, |world| phase(world, 0) == HostPhase::Permitted);
    world.hosts.get_mut(&"h0".into()).unwrap().gone = true;
    world.disconnect(&"h0".into());
    let permit_s = world.kernel.plan().timing.permit_ms.div_ceil(1_000);
    world.run(permit_s + 1);
    assert_eq!(phase(&world, 0), HostPhase::Permitted, "not lost yet");
    world.hosts.get_mut(&"h0".into()).unwrap().gone = false;
    world.connect(&"h0".into());
    rest(&mut world);
    assert_eq!(world.kernel.phase(), RolloutPhase::Succeeded);
    let events: Vec<_> = world.events.iter().map(|event| event.text.clone()).collect();
    assert!(
        events
            .iter()
            .any(|text| text.contains("did not begin within its permit")),
        "{events:#?}"
    );
    let report = report::report(&world.kernel, world.now);
    assert_eq!(report.hosts[0].legs[0].attempts, 1);
}

#[test]
fn an_offline_host_is_waited_for_and_then_skipped() {
    let mut world = World::new(7, TWO, ACCEPT, Faults::NONE);
    world.hosts.get_mut(&"h2".into()).unwrap().gone = true;
    world.disconnect(&"h2".into());
    world.start();
    world.helpful = false;
    // It was not surveyed: the server is not upgraded before a person says so.
    rest(&mut world);
    let pause = world.kernel.rollout().pause.clone().unwrap();
    assert!(
        pause.text.starts_with("1 host was not surveyed: node-2"),
        "{pause:?}"
    );
    world
        .command(Command::Resume {
            reason: String::new(),
            accept_server: false,
        })
        .unwrap();
    rest(&mut world);
    assert_eq!(
        (world.outcome(2), world.kernel.phase()),
        ("skipped".into(), RolloutPhase::FinishedWithExceptions)
    );
    world.connect(&"h2".into());
    world
        .command(Command::Retry {
            hosts: vec!["node-2".into()],
            server: false,
        })
        .unwrap();
    rest(&mut world);
    assert_eq!(world.kernel.phase(), RolloutPhase::Succeeded);
}

#[test]
fn a_failed_survey_stops_before_the_server_is_touched() {
    let mut world = world(TWO, &[(3, Behaviour::Unready)]);
    rest(&mut world);
    let view = progress::view(&world.kernel, world.now);
    assert_eq!(view.paused.unwrap().code, "survey");
    assert!(view.server[0].hops.iter().all(|hop| hop.attempt == 0));
    assert_eq!(
        report::report(&world.kernel, world.now).server.outcome,
        "not_started"
    );
    world
        .command(Command::Resume {
            reason: "without it".into(),
            accept_server: false,
        })
        .unwrap();
    rest(&mut world);
    assert_eq!(
        (world.outcome(3), world.outcome(2)),
        ("refused".into(), "upgraded".into())
    );
}

#[test]
fn a_restored_server_ends_the_watch_and_no_client_is_touched() {
    let mut world = world(TWO, &[]);
    world.fail_hop = Some((2, HopOutcome::Restored));
    rest(&mut world);
    let report = report::report(&world.kernel, world.now);
    assert_eq!(
        (report.outcome.as_str(), report.exit_code()),
        ("server_restored", exit::SERVER_NOT_UPGRADED)
    );
    assert_eq!(
        (report.server.outcome.as_str(), report.server.reason.as_str()),
        ("restored", "fresh_instance")
    );
    assert_eq!(
        (report.server.to.as_str(), report.server.hops),
        ("2.44.1", vec!["2.44.1".to_owned()])
    );
    assert!(world.hosts.values().all(|host| host.switches == 0));
    assert_eq!(
        world
            .command(Command::Resume {
                accept_server: false,
                reason: String::new()
            })
            .unwrap_err(),
        "server_not_settled"
    );
    world.fail_hop = None;
    world
        .command(Command::Retry {
            hosts: Vec::new(),
            server: true,
        })
        .unwrap();
    rest(&mut world);
    let report = report::report(&world.kernel, world.now);
    assert_eq!(
        (report.outcome.as_str(), report.server.restore_points.len()),
        ("succeeded", 4)
    );
}

#[test]
fn a_hop_that_the_driver_could_not_decide_goes_on_under_the_same_order() {
    let mut world = world(TWO, &[]);
    until(&mut world, |world| world.open_hop().is_some());
    let hop = world.open_hop().cloned().unwrap();
    let id = hop.order.clone();
    let nothing = HopResult {
        outcome: HopOutcome::NeedsOperator,
        from: hop.from,
        running: None,
        code: Code::new("docker"),
        step: String::new(),
        message: "Docker: no answer".to_owned(),
        hints: Vec::new(),
        restore_point: None,
        downtime_ms: 0,
        open: false,
        leftovers: Vec::new(),
    };
    let event = ServerEvent::Finished(nothing);
    world.give(Input::Server {
        order: id.clone(),
        event,
    });
    let paused = progress::view(&world.kernel, world.now).paused.unwrap();
    assert!(paused.text.contains("could not go on"), "{}", paused.text);
    world
        .command(Command::Retry {
            hosts: Vec::new(),
            server: true,
        })
        .unwrap();
    assert_eq!(
        world
            .last
            .server
            .iter()
            .map(|order| &order.order)
            .collect::<Vec<_>>(),
        [&id]
    );
    rest(&mut world);
    assert_eq!(report::report(&world.kernel, world.now).outcome, "succeeded");
}

#[test]
fn a_killed_coordinator_is_named_with_the_step_that_was_hit() {
    let mut world = world(TWO, &[]);
    for step in ["ownership", "migrate"] {
        until(&mut world, |world| {
            progress::view(&world.kernel, world.now).server[0]
                .hops
                .iter()
                .any(|hop| {
                    hop.steps.last().is_some_and(|last| {
                        last.step == step && last.took_ms.is_none() && hop.state == "running"
                    })
                })
        });
        world.crash();
    }
    until(&mut world, |world| phase(world, 2) == HostPhase::Switching);
    world.crash();
    rest(&mut world);
    let report = report::report(&world.kernel, world.now);
    assert_eq!(report.outcome, "succeeded");
    assert_eq!(report.disturbances.len(), 3, "{:?}", report.disturbances);
    assert!(
        report
            .disturbances
            .iter()
            .all(|disturbance| disturbance.target == "coordinator" && disturbance.at > 0)
    );
    assert!(
        report.disturbances[2].step.contains("install"),
        "{:?}",
        report.disturbances
    );
    assert!(world.hosts.values().all(|host| host.switches == 1));
}

#[test]
fn a_soft_abort_lets_work_finish_and_a_forced_one_takes_it_back() {
    for force in [false, true] {
        let mut world = world(&[("one", 9, "canaries = 0")], &[]);
        until(&mut world, |world| phase(world, 0) == HostPhase::Verifying);
        world
            .command(Command::Abort {
                reason: "enough".into(),
                force,
            })
            .unwrap();
        rest(&mut world);
        let report = report::report(&world.kernel, world.now);
        assert_eq!(
            (report.outcome.as_str(), report.exit_code()),
            ("aborted", exit::ABORTED)
        );
        assert_eq!(world.outcome(0), if force { "rolled_back" } else { "upgraded" });
        assert_eq!(world.outcome(8), "cancelled");
        assert_eq!(
            world
                .command(Command::Retry {
                    hosts: Vec::new(),
                    server: false
                })
                .unwrap_err(),
            "not_running"
        );
    }
}

#[test]
fn a_held_host_is_skipped_and_a_pause_holds_everything() {
    let mut world = world(TWO, &[]);
    world
        .command(Command::Hold {
            host: "node-2".into(),
            reason: "backup".into(),
        })
        .unwrap();
    until(&mut world, |world| phase(world, 0) == HostPhase::Verifying);
    world
        .command(Command::Pause {
            reason: "lunch".into(),
        })
        .unwrap();
    for _ in 0..600 {
        world.step();
    }
    assert_eq!(phase(&world, 0), HostPhase::Settling, "what is under way goes on");
    assert!((1..6).all(|host| world.hosts[&HostId::new(format!("h{host}"))].switches == 0));
    assert!(progress::view(&world.kernel, world.now).at_rest);
    assert_eq!(
        explain::explain(&world.kernel, "node-2", world.now)
            .unwrap()
            .you_can[0]
            .command,
        "host unhold node-2"
    );
    world
        .command(Command::Resume {
            reason: String::new(),
            accept_server: false,
        })
        .unwrap();
    rest(&mut world);
    assert_eq!(
        (world.outcome(2), world.outcome(3)),
        ("skipped".into(), "upgraded".into())
    );
}

#[test]
fn events_of_older_epochs_are_accepted() {
    let mut world = world(&[("one", 2, "canaries = 0")], &[]);
    until(&mut world, |world| phase(world, 0) == HostPhase::Switching);
    let before = world.kernel.epoch();
    world
        .command(Command::Pause {
            reason: String::new(),
        })
        .unwrap();
    world
        .command(Command::Resume {
            reason: String::new(),
            accept_server: false,
        })
        .unwrap();
    assert!(world.kernel.epoch() > before);
    rest(&mut world);
    assert_eq!(world.kernel.phase(), RolloutPhase::Succeeded);
    assert_eq!(world.hosts[&HostId::new("h0")].switches, 1);
}

#[test]
fn every_subject_can_be_explained_at_every_moment() {
    let mut world = world(
        &[
            ("one", 2, "approval = true\nfailure_threshold = 1"),
            ("two", 2, "soak = \"10s\""),
        ],
        &[(1, Behaviour::RollsBack)],
    );
    for second in 0..400 {
        world.step();
        for subject in [
            "rollout", "server", "one", "two", "node-0", "h1", "node-2", "node-3",
        ] {
            let answer = explain::explain(&world.kernel, subject, world.now).unwrap();
            let done = answer.waits_for.is_empty();
            assert!(
                done || answer.deadline_ms.is_some() || answer.reminder_ms.is_some(),
                "{subject} after {second} s: {answer:#?}"
            );
            assert!(
                !answer.state.is_empty() && !answer.reason.is_empty(),
                "{subject} after {second} s: {answer:#?}"
            );
        }
        if second == 200 {
            assert_eq!(
                explain::explain(&world.kernel, "one", world.now).unwrap().you_can[0].command,
                "approve one"
            );
            world.command(Command::Approve { group: "one".into() }).unwrap();
        }
    }
    assert!(explain::explain(&world.kernel, "nobody", world.now).is_none());
}

#[test]
fn unmatched_clients_and_blockers_stop_the_start() {
    let mut draft = fleet_sim::fixture::draft(&[("one", 1, "")], ACCEPT);
    draft.plan.unmatched.push(rollout::plan::UnmatchedClient {
        name: "old-box".into(),
        agent_id: "x".into(),
        version: None,
        beside_server: false,
    });
    let (_, bytes) = draft.into_bytes().unwrap();
    let mut kernel =
        rollout::kernel::Kernel::new(RolloutId::new("r"), &bytes, Default::default(), 1).unwrap();
    let mut start = |accept: &[&str]| {
        let accept_unmatched = accept.iter().map(|name| (*name).to_owned()).collect();
        let command = Command::Start { accept_unmatched };
        kernel
            .handle(
                rollout::kernel::Input::Operator {
                    by: "ann".into(),
                    command,
                },
                2,
            )
            .answer
            .unwrap()
            .map_err(|refusal| refusal.code)
    };
    assert_eq!(start(&[]).unwrap_err(), "unmatched");
    assert_eq!(start(&["old-box", "other"]).unwrap_err(), "unknown_client");
    assert!(start(&["old-box"]).is_ok());
    assert_eq!(start(&["old-box"]).unwrap_err(), "already_started");
}

#[test]
fn the_operator_does_not_lift_a_hold_that_was_set_on_the_host() {
    let mut world = world(&[("one", 2, "")], &[]);
    let event = |held: Option<&str>| Input::Host {
        host: "h1".into(),
        order_id: "".into(),
        epoch: Default::default(),
        event: HostEvent::HoldChanged {
            held: held.map(str::to_owned),
        },
    };
    world.give(event(Some("backup")));
    world
        .command(Command::Hold {
            host: "h1".into(),
            reason: "wait".into(),
        })
        .unwrap();
    let unhold = || Command::Unhold { host: "h1".into() };
    let lifted = world.command(unhold()).unwrap();
    assert!(
        lifted.contains("it is still held on the host itself: backup"),
        "{lifted}"
    );
    assert_eq!(world.command(unhold()).unwrap_err(), "held_on_host");
    world.crash();
    until(&mut world, |world| phase(world, 0) == HostPhase::Switching);
    world.give(event(None));
    rest(&mut world);
    assert_eq!(world.outcome(1), "upgraded");
}
