//! Server hops that end in a way that needs a person, and aborts at each moment of a hop.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use fleet_sim::World;
use fleet_sim::fixture::ACCEPT;
use rollout::kernel::{Command, RolloutPhase};
use rollout::{explain, report};

#[test]
fn nobody_back_is_waited_for_again_or_accepted_and_nothing_is_done_again() {
    for accept in [false, true] {
        let mut world = World::calm(&[("one", 2, "")], ACCEPT, &[]);
        world.nobody_back = 1;
        world.rest();
        assert_eq!(
            world.kernel.rollout().pause.as_ref().unwrap().code,
            "server_needs_operator"
        );
        let told = explain::explain(&world.kernel, "server", world.now).unwrap();
        assert!(
            told.waits_for[0].contains("a first client") && told.reminder_ms.is_some(),
            "{told:#?}"
        );
        assert!(
            told.you_can
                .iter()
                .any(|way| way.command.contains("--accept-server")),
            "{told:#?}"
        );
        let resume = |accept_server| Command::Resume {
            reason: String::new(),
            accept_server,
        };
        assert_eq!(world.command(resume(false)).unwrap_err(), "server_not_settled");
        let attempt = |world: &World| world.kernel.legs()[1].hops[2].attempt;
        let before = attempt(&world);
        world.crash();
        if accept {
            world.command(resume(true)).unwrap();
            assert!(world.last.server.iter().all(|order| order.accept_unsettled));
        } else {
            world
                .command(Command::Retry {
                    hosts: Vec::new(),
                    server: true,
                })
                .unwrap();
        }
        world.rest();
        assert_eq!(
            (attempt(&world), world.kernel.phase()),
            (before, RolloutPhase::Succeeded)
        );
        let report = report::report(&world.kernel, world.now);
        assert_eq!(
            report.server.restore_points,
            ["restore-1", "restore-2", "restore-3"],
            "each once"
        );
        assert_eq!(report.server.downtime_s, 5, "4.5 s, counted once");
        assert_eq!(world.command(resume(true)).unwrap_err(), "not_paused");
    }
}

/// Abort at each moment of a hop, by force or not, with a coordinator that dies before or after or not at all: it always ends, and says what
/// may follow.
#[test]
fn an_abort_at_any_moment_of_a_hop_ends_and_leaves_a_way_on() {
    let mut moments = 0;
    for force in [false, true] {
        for crash in ["never", "before", "after"] {
            for undecided in [false, true] {
                for second in (0..140).step_by(7) {
                    let mut world = World::calm(&[("one", 2, "")], ACCEPT, &[]);
                    world.nobody_back = u32::from(undecided);
                    for _ in 0..second {
                        world.step();
                    }
                    if world.kernel.is_final() {
                        continue;
                    }
                    if crash == "before" {
                        world.crash();
                    }
                    let reason = "enough".to_owned();
                    world.command(Command::Abort { reason, force }).unwrap();
                    if crash == "after" {
                        world.crash();
                    }
                    world.rest();
                    assert_eq!(
                        world.kernel.phase(),
                        RolloutPhase::Aborted,
                        "{force} {crash} {second}"
                    );
                    let again = Command::Retry {
                        hosts: Vec::new(),
                        server: true,
                    };
                    assert_eq!(world.command(again).unwrap_err(), "not_running");
                    fleet_sim::steps::sound(&world);
                    moments += 1;
                }
            }
        }
    }
    assert!(moments > 150, "{moments} moments");
}
