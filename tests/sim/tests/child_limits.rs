//! The numbers of a child plan are for the whole group as the rollout sees it, and what a person decided stays decided.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use fleet_common::ids::GroupName;
use fleet_common::inventory::Detection;
use fleet_sim::fixture::{self, ACCEPT, GroupSpec};
use fleet_sim::hosts::Behaviour;
use fleet_sim::steps::{group, host, id, paused, resume, started, until};
use fleet_sim::{Faults, World};
use rollout::fleet::FleetError;
use rollout::kernel::{Command, HostPhase, HostRow, LegPhase};
use rollout::plan::{HostRecord, Plan, PlanDraft, Stranded, diff};

/// What a plan that is made now would find: hosts that made it are on the target.
fn as_now(world: &World, groups: &[GroupSpec<'_>]) -> Vec<HostRecord> {
    let mut records = fixture::records(groups);
    for (number, record) in records.iter_mut().enumerate() {
        let made_it = world
            .kernel
            .host(&"clients-1".into(), &id(number))
            .is_some_and(HostRow::made_it);
        if let (true, Detection::Installed(found)) = (made_it, &mut record.inventory.client) {
            found.version = "3.9.1".parse().unwrap();
            found.running_version = Some(found.version);
        }
    }
    records
}

/// The plan that would be made now, of a fleet file with these groups.
fn planned_now(world: &World, groups: &[GroupSpec<'_>]) -> Result<PlanDraft, Vec<FleetError>> {
    let draft = fixture::plan_of(
        groups,
        ACCEPT,
        &as_now(world, groups),
        world.server_version,
        Some(&world.kernel.running()),
        world.now,
    )?;
    Ok(draft.with_parent(Some(world.kernel.plan_id().clone())))
}

fn made_it(world: &World, hosts: usize) -> usize {
    (0..hosts).filter(|number| host(world, *number).made_it()).count()
}

/// Width and threshold of the only group.
fn numbers(plan: &Plan) -> (u32, u32) {
    (plan.groups[0].max_unavailable, plan.groups[0].failure_threshold)
}

fn limit(world: &mut World, max_unavailable: Option<u32>, failure_threshold: Option<u32>) {
    let command = Command::Limit {
        group: "one".to_owned(),
        max_unavailable,
        failure_threshold,
        reason: "slow".to_owned(),
    };
    world.command(command).unwrap();
}

#[test]
fn a_late_joiner_is_planned_with_the_fleet_file_that_the_rollout_began_with() {
    let policy = "failure_threshold = 2";
    let mut world = started(&[("one", 4, policy)], &[], &|_| {});
    until(&mut world, |world| made_it(world, 4) == 4);
    let child = planned_now(&world, &[("one", 5, policy)]).unwrap();
    assert_eq!(child.plan.groups[0].failure_threshold, 2);
    assert!(
        child
            .plan
            .warnings
            .iter()
            .all(|warning| warning.code != "threshold_capped")
    );
    let late = child.plan.hosts.iter().find(|host| host.host == id(4)).unwrap();
    assert!(late.wave > 1, "the canary went long ago: {late:?}");
    world.adopt(child).unwrap();
    world.rest();
    assert_eq!(world.outcome(4), "upgraded");
}

#[test]
fn a_group_that_shrank_in_the_rollout_is_warned_of_and_a_new_one_is_refused() {
    let policy = "failure_threshold = 2";
    let world = started(&[("one", 4, policy)], &[], &|_| {});
    // Nobody has begun, and two hosts were taken down for good.
    let child = planned_now(&world, &[("one", 2, policy)]).unwrap().plan;
    assert_eq!(child.groups[0].failure_threshold, 1);
    let capped = child
        .warnings
        .iter()
        .find(|warning| warning.code == "threshold_capped");
    let message = &capped.expect("it is told").message;
    assert!(
        message.starts_with("the failure_threshold of 2 could never be reached with 2 hosts"),
        "{message}"
    );
    let errors = planned_now(&world, &[("one", 4, policy), ("two", 2, policy)]).unwrap_err();
    assert!(
        errors[0].to_string().contains("can't be reached in group `two`"),
        "{errors:?}"
    );
}

#[test]
fn a_child_plan_for_a_late_joiner_does_not_breach_what_was_tolerated() {
    let policy = "canaries = 0\nfailure_threshold = \"20%\"\nmax_unavailable = 2";
    let fails = [(0, Behaviour::RollsBack), (1, Behaviour::RollsBack)];
    let mut world = started(&[("one", 10, policy)], &fails, &|_| {});
    until(&mut world, |world| made_it(world, 10) >= 4);
    let child = planned_now(&world, &[("one", 11, policy)]).unwrap();
    assert_eq!(numbers(&child.plan), (2, 2), "of 11 hosts");
    assert_eq!(child.plan.groups[0].rule.as_ref().unwrap().hosts, 11);
    world.adopt(child).unwrap();
    for _ in 0..5 {
        world.step();
    }
    assert_eq!(paused(&world), "");
}

#[test]
fn the_threshold_of_the_rollout_is_for_all_hosts_too() {
    let decision = format!("{ACCEPT}\n[rollout]\nfailure_threshold = \"20%\"");
    let groups = [("one", 10, "canaries = 0"), ("two", 5, "approval = true")];
    let mut world = World::of_plan(7, fixture::draft(&groups, &decision), Faults::NONE);
    world.helpful = false;
    world.start();
    until(&mut world, |world| made_it(world, 10) == 10);
    let records = as_now(&world, &[groups[0], ("two", 6, "")]);
    let running = world.kernel.running();
    let child = fixture::plan_of(
        &groups,
        &decision,
        &records,
        world.server_version,
        Some(&running),
        world.now,
    );
    assert_eq!(world.kernel.plan().failure_threshold, Some(3));
    assert_eq!(child.unwrap().plan.failure_threshold, Some(3));
}

#[test]
fn a_host_that_began_counts_once_and_where_it_began() {
    let (one, two) = (
        "canaries = 0\nmax_unavailable = \"50%\"",
        "canaries = 0\nmax_unavailable = \"50%\"\napproval = true",
    );
    let mut world = started(
        &[("one", 4, one), ("two", 4, two)],
        &[(0, Behaviour::RollsBack)],
        &|plan| {
            plan.groups[0].failure_threshold = 1;
        },
    );
    until(&mut world, |world| {
        host(world, 0).phase == HostPhase::RolledBack && made_it(world, 4) == 3
    });
    // All hosts of the first group are in the other one now; two that did not begin are gone, and so are some that did.
    let mut records = as_now(&world, &[("two", 6, "")]);
    records.remove(2);
    let groups: [GroupSpec<'_>; 2] = [("one", 0, one), ("two", 0, two)];
    let running = world.kernel.running();
    let child = fixture::plan_of(
        &groups,
        ACCEPT,
        &records,
        world.server_version,
        Some(&running),
        world.now,
    );
    let child = child.unwrap().plan;
    let sizes: Vec<(u32, u32)> = child
        .groups
        .iter()
        .map(|group| group.rule.as_ref().map(|rule| (rule.hosts, rule.begun)).unwrap())
        .collect();
    assert_eq!(sizes, [(4, 4), (2, 0)]);
    world
        .adopt(PlanDraft { plan: child }.with_parent(Some(world.kernel.plan_id().clone())))
        .unwrap();
    for (name, hosts) in [("one", 4), ("two", 4)] {
        assert_eq!(
            world
                .kernel
                .plan()
                .group(&GroupName::new(name))
                .unwrap()
                .hosts
                .len(),
            hosts
        );
    }
}

#[test]
fn what_a_person_reduced_stays_reduced_when_nobody_asked_for_more() {
    let policy = "canaries = 0\nmax_unavailable = \"50%\"\nfailure_threshold = \"20%\"\nramp = []";
    let mut world = started(&[("one", 20, policy)], &[], &|_| {});
    until(&mut world, |world| {
        world.kernel.legs()[2].phase == LegPhase::Running
    });
    limit(&mut world, Some(2), Some(1));
    until(&mut world, |world| made_it(world, 20) >= 12);
    for (hosts, wanted) in [(21, (10, 4)), (28, (14, 5)), (28, (14, 5))] {
        let mut child = planned_now(&world, &[("one", hosts, policy)]).unwrap();
        assert_eq!(numbers(&child.plan), wanted);
        child.plan.timing.reminder_ms += hosts as u64;
        let told = world.adopt(child).unwrap();
        assert!(told.contains("what was reduced stays: group one"), "{told}");
        let limits = group(&world, "one").limits;
        assert_eq!(
            (limits.max_unavailable, limits.failure_threshold),
            (Some(2), Some(1))
        );
    }
    // Now somebody does.
    let wider = policy.replace("50%", "60%");
    let child = planned_now(&world, &[("one", 28, &wider)]).unwrap();
    let told = world.adopt(child).unwrap();
    assert!(told.contains("counts no more: group one"), "{told}");
    let limits = group(&world, "one").limits;
    assert_eq!(
        (limits.max_unavailable, limits.failure_threshold),
        (None, Some(1))
    );
}

#[test]
fn a_plan_that_does_not_say_what_its_numbers_come_from_lifts_nothing() {
    let policy = "canaries = 0\nmax_unavailable = 3";
    let mut world = started(&[("one", 9, policy)], &[], &|plan| plan.groups[0].rule = None);
    limit(&mut world, Some(1), None);
    let wider = [("one", 9, "canaries = 0\nmax_unavailable = 5")];
    let child = planned_now(&world, &wider).unwrap();
    world.adopt(child).unwrap();
    assert_eq!(group(&world, "one").limits.max_unavailable, Some(1));
    // From here on both are known.
    let child = planned_now(&world, &[("one", 9, "canaries = 0\nmax_unavailable = 6")]).unwrap();
    world.adopt(child).unwrap();
    assert_eq!(group(&world, "one").limits.max_unavailable, None);
}

#[test]
fn the_difference_names_the_share_that_a_number_is() {
    let policy = "canaries = 0\nmax_unavailable = \"50%\"";
    let world = started(&[("one", 20, policy)], &[], &|_| {});
    let told = |hosts: usize| -> Vec<(String, String)> {
        let child = planned_now(&world, &[("one", hosts, policy)]).unwrap().plan;
        let changes = diff(world.kernel.plan(), &child).changes;
        let width = changes
            .into_iter()
            .filter(|change| change.what == "max_unavailable");
        width.filter_map(|change| change.from.zip(change.to)).collect()
    };
    assert_eq!(told(21), []);
    assert_eq!(
        told(22),
        [("10 (50% of 20)".to_owned(), "11 (50% of 22)".to_owned())]
    );
}

/// The plan that runs with another time, so that it is another one.
fn like_now(world: &World, groups: &[GroupSpec<'_>]) -> PlanDraft {
    let mut draft = fixture::draft(groups, ACCEPT).with_parent(Some(world.kernel.plan_id().clone()));
    draft.plan.timing.reminder_ms = world.kernel.plan().timing.reminder_ms + 1;
    draft
}

#[test]
fn a_child_plan_takes_a_host_back_that_failed_the_survey_and_was_repaired() {
    let groups = [("one", 3, "canaries = 0\nmax_unavailable = 3")];
    let mut world = started(&groups, &[(0, Behaviour::Unready)], &|_| {});
    until(&mut world, |world| paused(world).starts_with("survey"));
    resume(&mut world).unwrap();
    until(&mut world, |world| world.open_hop().is_some());
    world.hosts.get_mut(&id(0)).unwrap().behaviour = Behaviour::Good;
    let child = like_now(&world, &groups);
    let told = world.adopt(child).unwrap();
    assert!(told.contains("asked again"), "{told}");
    world.crash();
    world.rest();
    assert_eq!(world.outcome(0), "upgraded");
}

#[test]
fn a_host_that_the_child_refuses_stays_left_out() {
    let groups = [("one", 3, "canaries = 0\nmax_unavailable = 3")];
    let mut world = started(&groups, &[(0, Behaviour::Unready)], &|_| {});
    until(&mut world, |world| paused(world).starts_with("survey"));
    resume(&mut world).unwrap();
    until(&mut world, |world| world.open_hop().is_some());
    let mut child = like_now(&world, &groups);
    let left = &mut child.plan;
    left.hosts[0].action = rollout::plan::HostAction::Refuse {
        code: "preflight".to_owned(),
        reason: "disk".to_owned(),
        hint: "make room".to_owned(),
    };
    for leg in &mut left.legs {
        if let rollout::plan::LegKind::Clients { entries, .. } = &mut leg.kind {
            entries.remove(&id(0));
        }
    }
    let told = world.adopt(child).unwrap();
    assert!(!told.contains("asked again"), "{told}");
    world.rest();
    assert_eq!(host(&world, 0).phase, HostPhase::Refused);
}

fn strand(draft: &mut PlanDraft, name: &str) {
    draft.plan.stranded.push(Stranded {
        name: name.to_owned(),
        address: "pmm-server:443".to_owned(),
        reason: "no group matches its host".to_owned(),
    });
}

#[test]
fn clients_that_a_child_plan_strands_are_asked_about_before_the_server_leg() {
    let groups = [("one", 2, "canaries = 0")];
    let mut world = started(&groups, &[], &|_| {});
    assert_eq!(world.kernel.legs()[1].phase, LegPhase::Waiting);
    let mut child = like_now(&world, &groups);
    strand(&mut child, "late");
    let told = world.adopt(child).unwrap();
    assert!(
        told.contains(
            "with server-1, PMM clients that address the server's container itself would lose it: late"
        ),
        "{told}"
    );
    until(&mut world, |world| paused(world).starts_with("stranded"));
    world.crash();
    assert!(paused(&world).ends_with("lose it: late"), "{}", paused(&world));
    assert_eq!(
        world.kernel.legs()[1].phase,
        LegPhase::Waiting,
        "a repaired plan may still change it"
    );
    // Another plan strands one more, and the pause tells of both before somebody accepts them.
    let mut child = like_now(&world, &groups);
    strand(&mut child, "late");
    strand(&mut child, "later");
    child.plan.unmatched.push(rollout::plan::UnmatchedClient {
        name: "new".to_owned(),
        agent_id: "agent-new".to_owned(),
        version: None,
        beside_server: false,
    });
    world.adopt(child).unwrap();
    let text = paused(&world);
    assert!(text.contains("would stay behind: new; "), "{text}");
    assert!(text.ends_with("would lose it: late, later"), "{text}");
    resume(&mut world).unwrap();
    until(&mut world, |world| world.open_hop().is_some());
    assert_eq!(paused(&world), "");
    let accepted = &world.kernel.rollout().accepted_unmatched;
    assert_eq!(accepted.iter().collect::<Vec<_>>(), ["late", "later", "new"]);
    world.rest();
    assert!(world.kernel.is_final());
}

#[test]
fn a_plan_that_strands_nobody_any_more_ends_the_cause_of_the_pause() {
    let groups = [("one", 2, "canaries = 0")];
    let mut world = started(&groups, &[], &|_| {});
    let mut child = like_now(&world, &groups);
    strand(&mut child, "late");
    world.adopt(child).unwrap();
    until(&mut world, |world| paused(world).starts_with("stranded"));
    let child = like_now(&world, &groups);
    let told = world.adopt(child).unwrap();
    assert!(!told.contains("would lose"), "{told}");
    world.step();
    let pause = world.kernel.rollout().pause.as_ref().unwrap();
    assert!(pause.over_since_ms.is_some(), "{pause:?}");
    resume(&mut world).unwrap();
    until(&mut world, |world| world.open_hop().is_some());
    assert!(world.kernel.rollout().accepted_unmatched.is_empty());
}
