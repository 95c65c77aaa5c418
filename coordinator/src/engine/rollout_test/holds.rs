//! Whoever is held while no kernel listens does not begin.

use super::{Command, Fake, Life, agents, begin, during, plan, resume, testing};
use crate::store::testing::enrolled_as;
use crate::store::{AuditEntry, Store};

const HOST: &str = "id-db-0";

fn hold() -> Command {
    Command::Hold {
        host: HOST.to_owned(),
        reason: "its disk is being replaced".to_owned(),
    }
}

fn unhold() -> Command {
    Command::Unhold {
        host: HOST.to_owned(),
    }
}

async fn ended(life: &Life) {
    life.until("the end", |status| status.ended_at_ms.is_some()).await;
}

/// How often its client was switched.
fn switches(fake: &Fake) -> u64 {
    let world = fake.0.lock().unwrap();
    world.switches.get("db-0").map_or(0, |times| u64::from(*times))
}

async fn outcome(life: &Life) -> String {
    let report = life
        .engine
        .ask(|kernel, now| rollout::report::report(kernel.unwrap(), now));
    let report = report.await.unwrap();
    let mut hosts = report.hosts.into_iter();
    hosts.find(|host| host.name == "db-0").unwrap().outcome
}

/// What `host hold` does first.
async fn in_store(store: &Store, reason: &str) {
    let audit = AuditEntry {
        at_ms: 1,
        who: "ann".into(),
        what: "hold".into(),
        detail: String::new(),
    };
    store
        .hold(&HOST.into(), Some(reason.to_owned()), audit)
        .await
        .unwrap();
}

#[tokio::test]
async fn between_plan_and_start() {
    let (_dir, store) = testing::store();
    let fake = Fake::new(4);
    let plan = plan(&store, &fake).await;
    let life = Life::begin(&store, &fake).await;
    during(&life, agents(&fake), &fake, async |life| {
        let told = life.engine.tell("ann".into(), hold()).await.unwrap();
        assert_eq!(told, "", "there is no rollout yet");
        begin(life, plan, &fake).await;
        ended(life).await;
        assert_eq!(outcome(life).await, "skipped");
    })
    .await;
    assert_eq!(switches(&fake), 0);
}

#[tokio::test]
async fn and_released_again_before_the_start() {
    let (_dir, store) = testing::store();
    let fake = Fake::new(4);
    let plan = plan(&store, &fake).await;
    let life = Life::begin(&store, &fake).await;
    during(&life, agents(&fake), &fake, async |life| {
        for command in [hold(), unhold()] {
            life.engine.tell("ann".into(), command).await.unwrap();
        }
        begin(life, plan, &fake).await;
        ended(life).await;
    })
    .await;
    assert_eq!(switches(&fake), 1);
}

#[tokio::test]
async fn after_the_end_and_before_it_is_tried_again() {
    let (_dir, store) = testing::store();
    let fake = Fake::new(4);
    fake.0.lock().unwrap().broken.insert("db-0".to_owned());
    let plan = plan(&store, &fake).await;
    let life = Life::begin(&store, &fake).await;
    during(&life, agents(&fake), &fake, async |life| {
        begin(life, plan, &fake).await;
        life.until("the pause", |status| status.paused.is_some()).await;
        life.engine.command("ann".into(), resume()).await.unwrap();
        ended(life).await;
        fake.0.lock().unwrap().broken.clear();
        let told = life.engine.tell("ann".into(), hold()).await.unwrap();
        assert!(!told.is_empty(), "an ended rollout is told, too");
        let retry = |hosts| Command::Retry { hosts, server: false };
        life.engine
            .command("bob".into(), retry(Vec::new()))
            .await
            .unwrap();
        ended(life).await;
        assert_eq!(switches(&fake), 1, "it is held");
        life.engine.tell("ann".into(), unhold()).await.unwrap();
        let named = vec!["db-0".to_owned()];
        life.engine.command("bob".into(), retry(named)).await.unwrap();
        life.until("its second attempt", |_| switches(&fake) == 2).await;
    })
    .await;
}

/// The coordinator dies between the store's commit of the hold and the kernel's.
#[tokio::test]
async fn in_the_store_only() {
    let (_dir, store) = testing::store();
    let fake = Fake::new(4);
    enrolled_as(&store, HOST).await;
    let plan = plan(&store, &fake).await;
    let life = Life::begin(&store, &fake).await;
    let agents = during(&life, agents(&fake), &fake, async |life| {
        begin(life, plan, &fake).await;
        in_store(&store, "its disk is being replaced").await;
    })
    .await;
    assert_eq!(switches(&fake), 0, "the server is first");
    let life = Life::begin(&store, &fake).await;
    during(&life, agents, &fake, async |life| {
        ended(life).await;
        assert_eq!(outcome(life).await, "skipped");
    })
    .await;
    assert_eq!(switches(&fake), 0);
}
