//! Whole rollouts in one process: the real engine, kernel and store, with a server driver and agents that only pretend to work. The engine
//! is also stopped in the middle without a word, as a kill does it.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod agent;
mod holds;
mod world;

use super::{Begin, Deps, EngineHandle, start};
use crate::sessions::Sessions;
use crate::store::testing;
use crate::store::testing::{enrolled, hello};
use crate::store::{HelloFacts, PlanRow, SessionDecision, Store};
use agent::Agent;
use fleet_common::codes;
use fleet_common::ids::Epoch;
use rollout::kernel::{Command, FLEET_EVERY_MS};
use rollout::progress::StatusDocument;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;
use world::{Fake, plan};

/// One life of the coordinator.
struct Life {
    engine: EngineHandle,
    sessions: Sessions,
    stop: CancellationToken,
}

impl Life {
    async fn begin(store: &Store, fake: &Fake) -> Self {
        let sessions = Sessions::default();
        let stop = CancellationToken::new();
        let deps = Deps {
            store: store.clone(),
            sessions: sessions.clone(),
            drivers: Arc::new(fake.clone()),
            term: store.take_over().await.unwrap(),
            stop: stop.clone(),
        };
        let (engine, _) = start(deps).await.unwrap();
        Self {
            engine,
            sessions,
            stop,
        }
    }

    async fn status(&self) -> StatusDocument {
        self.engine
            .ask(|kernel, now| kernel.map(|kernel| rollout::progress::view(kernel, now)))
            .await
            .unwrap()
            .unwrap()
    }

    /// Polls until it holds.
    async fn until(&self, what: &str, holds: impl Fn(&StatusDocument) -> bool) -> StatusDocument {
        let begun = Instant::now();
        loop {
            let status = self.status().await;
            if holds(&status) {
                return status;
            }
            assert!(
                begun.elapsed() < Duration::from_secs(60),
                "gave up waiting for {what}: {status:#?}"
            );
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

fn resume() -> Command {
    Command::Resume {
        reason: String::new(),
        accept_server: false,
    }
}

fn agents(fake: &Fake) -> Vec<Agent> {
    fake.0
        .lock()
        .unwrap()
        .clients
        .keys()
        .map(|name| Agent::new(name))
        .collect()
}

/// Runs the agents during one life; the closure decides when the life ends.
async fn during(life: &Life, agents: Vec<Agent>, fake: &Fake, work: impl AsyncFnOnce(&Life)) -> Vec<Agent> {
    let tasks: Vec<_> = agents
        .into_iter()
        .map(|agent| {
            tokio::spawn(agent.live(
                life.engine.clone(),
                life.sessions.clone(),
                fake.clone(),
                life.stop.clone(),
            ))
        })
        .collect();
    work(life).await;
    life.stop.cancel();
    let mut back = Vec::new();
    for task in tasks {
        back.push(task.await.unwrap());
    }
    back
}

async fn begin(life: &Life, plan: PlanRow, fake: &Fake) {
    let begin = Begin {
        by: "test".into(),
        plan,
        driver: Arc::new(fake.clone()),
        accept_unmatched: Vec::new(),
    };
    life.engine.begin(begin).await.unwrap();
}

#[tokio::test]
async fn a_rollout_over_three_hops_and_two_groups() {
    let (_dir, store) = testing::store();
    let fake = Fake::new(4);
    let plan = plan(&store, &fake).await;
    let life = Life::begin(&store, &fake).await;
    during(&life, agents(&fake), &fake, async |life| {
        begin(life, plan, &fake).await;
        let status = life.until("the end", |status| status.at_rest).await;
        assert_eq!(status.exit_code, 0, "{status:#?}");
        let report = life
            .engine
            .ask(|kernel, now| rollout::report::report(kernel.unwrap(), now))
            .await
            .unwrap();
        assert_eq!(report.server.hops, ["2.44.1", "3.7.1", "3.9.1"]);
        assert!(
            report.hosts.iter().all(|host| host.outcome == "upgraded"),
            "{:#?}",
            report.hosts
        );
        assert_eq!(report.verification.clients_checked, 4);
        assert!(report.verification.holds());
    })
    .await;
    let row = store.newest_rollout().await.unwrap().unwrap();
    assert!(row.finished_at_ms.is_some(), "the end is in the store");
    let world = fake.0.lock().unwrap();
    assert!(
        world
            .hops_done
            .values()
            .chain(world.switches.values())
            .all(|times| *times == 1)
    );
}

#[tokio::test]
async fn the_coordinator_dies_in_a_hop_and_in_a_group() {
    let (_dir, store) = testing::store();
    let fake = Fake::new(4);
    let plan = plan(&store, &fake).await;
    let life = Life::begin(&store, &fake).await;
    let agents = during(&life, agents(&fake), &fake, async |life| {
        begin(life, plan, &fake).await;
        life.until("the first hop", |status| {
            status
                .server
                .iter()
                .any(|server| !server.hops[0].steps.is_empty())
        })
        .await;
    })
    .await;
    let life = Life::begin(&store, &fake).await;
    let agents = during(&life, agents, &fake, async |life| {
        life.until("the first group", |status| {
            status.groups.iter().any(|group| group.counts.upgraded > 0)
        })
        .await;
    })
    .await;
    let life = Life::begin(&store, &fake).await;
    during(&life, agents, &fake, async |life| {
        let status = life.until("the end", |status| status.at_rest).await;
        assert_eq!(status.exit_code, 0, "{status:#?}");
        assert_eq!(status.disturbances.len(), 2, "{:#?}", status.disturbances);
    })
    .await;
    let world = fake.0.lock().unwrap();
    assert!(
        world
            .hops_done
            .values()
            .chain(world.switches.values())
            .all(|times| *times == 1),
        "each effect once"
    );
    let soon = |pair: &[Instant]| pair[1] - pair[0] < Duration::from_millis(FLEET_EVERY_MS - 1_000);
    let asked = &world.fleet_looks;
    assert!(!asked.is_empty() && !asked.windows(2).any(soon), "{asked:?}");
    assert_eq!(world.nodes_looked_at.len(), 4, "each host while it verified");
}

#[tokio::test]
async fn a_host_that_goes_back_pauses_its_group() {
    let (_dir, store) = testing::store();
    let fake = Fake::new(4);
    fake.0.lock().unwrap().broken.insert("db-0".to_owned());
    let plan = plan(&store, &fake).await;
    let life = Life::begin(&store, &fake).await;
    during(&life, agents(&fake), &fake, async |life| {
        begin(life, plan, &fake).await;
        let status = life.until("the pause", |status| status.at_rest).await;
        assert_eq!(status.exit_code, fleet_common::codes::exit::PAUSED, "{status:#?}");
        assert_eq!(status.failures.len(), 1);
        assert!(status.failures[0].name == "db-0" && status.paused.is_some());
    })
    .await;
    assert_eq!(
        fake.0.lock().unwrap().switches.len(),
        1,
        "no host of a later group was touched"
    );
}

#[tokio::test]
async fn a_store_that_cannot_write_for_a_while_costs_only_time() {
    let (dir, store) = testing::store();
    let fake = Fake::new(4);
    let plan = plan(&store, &fake).await;
    let life = Life::begin(&store, &fake).await;
    during(&life, agents(&fake), &fake, async |life| {
        begin(life, plan, &fake).await;
        life.until("the first group", |status| {
            status.groups.iter().any(|group| group.counts.in_flight > 0)
        })
        .await;
        let blocker = rusqlite::Connection::open(dir.path().join("store.sqlite")).unwrap();
        blocker.execute_batch("BEGIN IMMEDIATE").unwrap();
        // A decision was lost when the engine read its memory back and went on under a new term.
        life.until("the lost decision", |status| status.epoch.starts_with("2."))
            .await;
        blocker.execute_batch("ROLLBACK").unwrap();
        let status = life.until("the end", |status| status.at_rest).await;
        assert_eq!(status.exit_code, 0, "{status:#?}");
        assert!(!status.disturbances.is_empty(), "the loss must be told");
    })
    .await;
    let world = fake.0.lock().unwrap();
    assert!(
        world.switches.values().all(|times| *times == 1),
        "each effect once"
    );
}

#[tokio::test]
async fn a_restored_store_holds_the_rollout_over_restarts_until_it_is_adopted() {
    let (_dir, store) = testing::store();
    let fake = Fake::new(4);
    let plan = plan(&store, &fake).await;
    let stranger = enrolled(&store).await;
    let life = Life::begin(&store, &fake).await;
    let agents = during(&life, agents(&fake), &fake, async |life| {
        begin(life, plan, &fake).await;
        life.until("the first group", |status| {
            status.groups.iter().any(|group| group.counts.upgraded > 0)
        })
        .await;
        let ahead = HelloFacts {
            epoch_seen: Epoch { term: 40, counter: 1 },
            ..hello(0)
        };
        let decision = store.open_session(&stranger, ahead).await.unwrap();
        assert!(matches!(decision, SessionDecision::Restored(_)));
        life.engine.store_restored().await;
        let status = life.until("the pause", |status| status.paused.is_some()).await;
        assert_eq!(status.paused.unwrap().code, codes::STORE_RESTORED);
    })
    .await;
    let life = Life::begin(&store, &fake).await;
    during(&life, agents, &fake, async |life| {
        let refused = life.engine.command("test".into(), resume()).await.unwrap_err();
        assert!(
            refused.errors[0].hints[0].contains("--adopt-epoch"),
            "{refused:?}"
        );
        life.engine.adopt("test".into()).await.unwrap();
        assert!(life.sessions.epoch().term > 40, "above what was seen");
        assert!(life.engine.adopt("test".into()).await.is_err(), "once is enough");
        life.engine.command("test".into(), resume()).await.unwrap();
        let status = life.until("the end", |status| status.at_rest).await;
        assert_eq!(status.exit_code, 0, "{status:#?}");
    })
    .await;
    let world = fake.0.lock().unwrap();
    assert!(
        world.switches.len() == 4 && world.switches.values().all(|times| *times == 1),
        "each effect once"
    );
}

#[tokio::test]
async fn an_adopted_plan_is_stored_with_its_rows_and_read_after_a_crash() {
    let (_dir, store) = testing::store();
    let fake = Fake::new(4);
    let first = plan(&store, &fake).await;
    let mut document = rollout::plan::Plan::parse(&first.document).unwrap();
    document.parent = Some(first.plan.clone());
    let (id, bytes) = rollout::plan::PlanDraft { plan: document }.into_bytes().unwrap();
    let child = PlanRow {
        plan: id.clone(),
        parent: Some(first.plan.clone()),
        document: bytes,
        created_at_ms: first.created_at_ms + 1,
        ..first.clone()
    };
    let audit = crate::store::AuditEntry {
        at_ms: 0,
        who: "test".into(),
        what: "plan".into(),
        detail: String::new(),
    };
    assert!(store.save_plan(child.clone(), audit).await.unwrap());
    let life = Life::begin(&store, &fake).await;
    let none = life.engine.adopt_plan("ann".into(), child.clone()).await;
    assert!(none.unwrap_err().to_string().contains("no rollout is under way"));
    begin(&life, first.clone(), &fake).await;
    let second = Begin {
        by: "bob".into(),
        plan: child.clone(),
        driver: Arc::new(fake.clone()),
        accept_unmatched: Vec::new(),
    };
    let refused = life.engine.begin(second).await.unwrap_err().to_string();
    assert!(refused.contains(first.plan.as_str()), "{refused}");
    life.engine.adopt_plan("ann".into(), child.clone()).await.unwrap();
    let row = store.newest_rollout().await.unwrap().unwrap();
    assert_eq!(row.plan, id);
    let again = life.engine.adopt_plan("bob".into(), child).await;
    assert!(again.unwrap_err().to_string().contains("already"));
    life.stop.cancel();
    let life = Life::begin(&store, &fake).await;
    let read = life
        .engine
        .ask(|kernel, _| kernel.map(|kernel| kernel.plan_id().clone()));
    assert_eq!(read.await.unwrap(), Some(id));
    life.stop.cancel();
}
