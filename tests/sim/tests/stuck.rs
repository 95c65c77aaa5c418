//! Hosts that keep others from beginning: a person is told, and nobody begins beyond what is allowed.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use fleet_sim::hosts::Behaviour;
use fleet_sim::steps::{group, host, id, leaves, retry, returns, started};
use fleet_sim::until;
use rollout::kernel::{GroupPhase, HostPhase, LegPhase};

#[test]
fn a_group_that_ended_without_a_permit_waits_for_an_earlier_one_that_opened_again() {
    let groups = [("one", 3, "canaries = 1\nfailure_threshold = 1"), ("two", 1, "")];
    let mut world = started(&groups, &[(2, Behaviour::RollsBack)], &|plan| {
        plan.timing.offline_for_ms = 3_600_000;
    });
    until(&mut world, |world| {
        world.kernel.legs()[1].phase == LegPhase::Running
    });
    leaves(&mut world, 3);
    until(&mut world, |world| group(world, "two").phase == GroupPhase::Done);
    world.hosts.get_mut(&id(2)).unwrap().behaviour = Behaviour::Slow;
    retry(&mut world, &[2]).unwrap();
    returns(&mut world, 3);
    until(&mut world, |world| host(world, 3).phase == HostPhase::Ready);
    for _ in 0..3 {
        world.step();
    }
    let duty = world.kernel.host_duty(&"clients-1".into(), &id(3), world.now);
    let duty = duty.unwrap();
    assert_eq!(
        (duty.code, duty.text.as_str()),
        ("earlier_group", "the turn of group two")
    );
    until(&mut world, |world| host(world, 3).phase == HostPhase::Permitted);
    assert_eq!(group(&world, "one").phase, GroupPhase::Done);
    assert!(
        world.watcher.violations.is_empty(),
        "{:?}",
        world.watcher.violations
    );
}
