//! The difference of two plans: whatever makes them do something else is told.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use fleet_common::ids::HostId;
use fleet_common::plan_entry::{PlanEntry, Repoint};
use fleet_common::server::Pmm2Update;
use fleet_sim::fixture::{self, ACCEPT};
use rollout::plan::{LeftOut, LegKind, Plan, Stranded, diff};

fn plan() -> Plan {
    fixture::draft(&[("one", 2, ""), ("two", 3, "")], ACCEPT).plan
}

/// What is told of a plan that was changed, as `subject what`.
fn told(change: impl FnOnce(&mut Plan)) -> Vec<String> {
    let old = plan();
    let mut new = old.clone();
    change(&mut new);
    assert_ne!(old, new, "nothing was changed");
    let changes = diff(&old, &new).changes;
    for change in &changes {
        assert_ne!(change.from, change.to, "{change:?}");
    }
    changes
        .into_iter()
        .map(|change| {
            format!("{} {}", change.subject, change.what)
                .trim_end()
                .to_owned()
        })
        .collect()
}

fn entries(plan: &mut Plan, change: impl Fn(&mut PlanEntry)) {
    for leg in &mut plan.legs {
        if let LegKind::Clients { entries, .. } = &mut leg.kind {
            for text in entries.values_mut() {
                let mut entry: PlanEntry = serde_json::from_str(text).unwrap();
                change(&mut entry);
                *text = serde_json::to_string(&entry).unwrap();
            }
        }
    }
}

fn left_out() -> LeftOut {
    LeftOut {
        host: HostId::new("elsewhere"),
        name: "elsewhere".to_owned(),
        reason: "its client reports to another server".to_owned(),
    }
}

#[test]
fn a_plan_does_the_same_as_itself_on_another_day() {
    assert!(diff(&plan(), &plan()).changes.is_empty());
    let told = told(|plan| {
        plan.made_at_ms += 86_400_000;
        plan.warnings.clear();
        plan.forecast = None;
        plan.fleet_file.push_str("\n# a comment\n");
    });
    assert!(told.is_empty(), "{told:?}");
}

#[test]
fn where_the_packages_come_from_is_told_once_and_not_for_each_host() {
    assert_eq!(
        told(|plan| entries(plan, |entry| entry.source.component = "experimental".to_owned())),
        ["leg:clients-1 source component"]
    );
    assert_eq!(
        told(|plan| entries(plan, |entry| {
            let digests = &mut entry.source.tarball_sha256;
            digests.insert("pmm-client-3.9.1.tar.gz".to_owned(), "f".repeat(64));
        })),
        ["leg:clients-1 source digests"]
    );
    assert_eq!(
        told(|plan| entries(plan, |entry| {
            entry.source.repository_url = "http://mirror".to_owned();
            entry.source.tarball_url = "file:///srv/tarballs".to_owned();
        })),
        ["leg:clients-1 source repository", "leg:clients-1 source tarballs"]
    );
}

#[test]
fn what_an_order_expects_is_told_with_the_host() {
    let told = told(|plan| entries(plan, |entry| entry.expect.base_dir = "/opt/pmm".to_owned()));
    assert_eq!(told.len(), 5, "{told:?}");
    assert!(told.iter().all(|text| text.ends_with(" base_dir")), "{told:?}");
}

#[test]
fn how_the_server_is_updated_and_whether_clients_could_go_back_is_told() {
    assert_eq!(
        told(|plan| {
            for leg in &mut plan.legs {
                if let LegKind::Server { hops, .. } = &mut leg.kind {
                    hops[0].pmm2_update = Pmm2Update::Api;
                }
            }
        }),
        ["leg:server-1"]
    );
    assert_eq!(
        told(|plan| {
            for leg in &mut plan.legs {
                if let LegKind::Clients {
                    no_way_back_to_pmm2, ..
                } = &mut leg.kind
                {
                    *no_way_back_to_pmm2 = !*no_way_back_to_pmm2;
                }
            }
        }),
        ["leg:clients-1 no_way_back_to_pmm2"]
    );
}

#[test]
fn everybody_who_is_left_out_is_told() {
    let stranded = Stranded {
        name: "beside".to_owned(),
        address: "pmm-server:443".to_owned(),
        reason: "it is not moved".to_owned(),
    };
    assert_eq!(told(|plan| plan.stranded.push(stranded)), ["rollout stranded"]);
    assert_eq!(
        told(|plan| plan.other_server.push(left_out())),
        ["rollout other_server"]
    );
    assert_eq!(
        told(|plan| plan.without_node.push(left_out())),
        ["rollout without_node"]
    );
    assert_eq!(
        told(|plan| plan.without_client.push(left_out())),
        ["rollout without_client"]
    );
    assert_eq!(
        told(|plan| plan.ungrouped.push(left_out())),
        ["rollout ungrouped"]
    );
}

#[test]
fn what_decides_who_goes_with_whom_is_told() {
    let name = plan().hosts[0].name.clone();
    assert_eq!(
        told(|plan| {
            plan.hosts[0].sets.insert("set/rs0".to_owned());
            plan.hosts[0].site = Some("madrid".to_owned());
        }),
        [format!("host:{name} sets"), format!("host:{name} site")]
    );
    assert_eq!(
        told(|plan| {
            plan.hosts[0].backups = true;
            plan.hosts[0].held_on_host = Some("a migration runs".to_owned());
            plan.hosts[0].repoint = Some(Repoint {
                from: "pmm-server:443".to_owned(),
                to: "pmm-server:8443".to_owned(),
            });
        }),
        [
            format!("host:{name} held on the host"),
            format!("host:{name} scheduled backups"),
            format!("host:{name} server address"),
        ]
    );
    assert_eq!(
        told(|plan| plan.groups[1].hosts.reverse()),
        ["group:two order of hosts"],
        "the first ones are its canaries"
    );
}

#[test]
fn hosts_that_change_places_are_told_by_name() {
    let old = plan();
    let mut new = old.clone();
    new.groups[1].hosts.swap(0, 2);
    let changes = diff(&old, &new).changes;
    let name = |at: usize| {
        let host = &old.groups[1].hosts[at];
        let found = old.hosts.iter().find(|planned| planned.host == *host);
        Some(format!("{} earlier", found.unwrap().name))
    };
    assert_ne!(name(0), Some(format!("{} earlier", old.groups[1].hosts[0])));
    assert_eq!((&changes[0].from, &changes[0].to), (&name(0), &name(2)));
}
