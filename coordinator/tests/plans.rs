//! Plans against the real program: which may begin when several operators want one, which takes over, and what may be reduced meanwhile.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

use fleet_common::ids::PlanId;
use fleet_sim::fixture::{self, ACCEPT};
use pmm_coordinator::store::{AuditEntry, PlanRow, Store};
use rollout::plan::PlanDraft;
use serde_json::Value;
use std::process::Output;
use support::fake_pmm::FakePmm;
use support::{Coordinator, run_with};

/// A coordinator that has plans in its store; its PMM Server answers as much as a survey needs.
struct Scene {
    coordinator: Coordinator,
    _pmm: FakePmm,
    plans: Vec<PlanId>,
}

impl Scene {
    /// The coordinator with a first plan of three hosts.
    async fn new() -> Self {
        let mut coordinator = Coordinator::start();
        let pmm = FakePmm::start(coordinator.scratch(), "2.41.2");
        let credential = coordinator.file("pmm-admin", 0o600, "admin:secret\n");
        let fleet = format!(
            "[server]\nurl = \"{}\"\ncredential_file = \"{}\"\nfingerprint = \"sha256:{}\"\n\
             docker = {{ endpoint = \"unix://{}\", container = \"pmm-server\" }}\ntarget = \"3.9.1\"\n{ACCEPT}\n\
             [[group]]\nname = \"one\"\nmatch = {{ labels = {{ group = \"one\" }} }}\n",
            pmm.url,
            credential.display(),
            pmm.fingerprint,
            pmm.docker.display()
        );
        coordinator.file("fleet.toml", 0o600, &fleet);
        coordinator.kill();
        let mut scene = Self {
            coordinator,
            _pmm: pmm,
            plans: Vec::new(),
        };
        scene
            .keep(
                fixture::draft(&[("one", 3, "failure_threshold = 2")], ACCEPT),
                None,
            )
            .await;
        scene.coordinator.serve();
        scene
    }

    /// Keeps a plan as `plan -f` does.
    async fn keep(&mut self, draft: PlanDraft, parent: Option<&PlanId>) {
        let (plan, document) = draft.with_parent(parent.cloned()).into_bytes().unwrap();
        let store = Store::open(&self.coordinator.data().join("store.sqlite")).unwrap();
        let path = self.coordinator.scratch().join("fleet.toml");
        let at_ms = 1_000 * (self.plans.len() as u64 + 1);
        let row = PlanRow {
            plan: plan.clone(),
            parent: parent.cloned(),
            created_at_ms: at_ms,
            document,
            fleet_path: path.display().to_string(),
            fleet_text: std::fs::read(&path).unwrap(),
        };
        let audit = AuditEntry {
            at_ms,
            who: "bob".to_owned(),
            what: "plan".to_owned(),
            detail: plan.to_string(),
        };
        let newest = self.plans.last().cloned();
        assert!(store.save_plan_after(row, newest, audit).await.unwrap());
        self.plans.push(plan);
    }

    fn id(&self, number: usize) -> &str {
        self.plans[number].as_str()
    }

    /// Several operators type at the same moment.
    async fn at_once(&self, commands: &[&[&str]]) -> Vec<Output> {
        let typed = commands.iter().map(|command| {
            let data = self.coordinator.data();
            let words: Vec<String> = command.iter().map(|word| (*word).to_owned()).collect();
            tokio::task::spawn_blocking(move || {
                let words: Vec<&str> = words.iter().map(String::as_str).collect();
                run_with(&data, &words)
            })
        });
        let typed: Vec<_> = typed.collect();
        let mut all = Vec::new();
        for one in typed {
            all.push(one.await.unwrap());
        }
        all
    }

    fn audit(&self, what: &str) -> Vec<String> {
        let store = rusqlite::Connection::open(self.coordinator.data().join("store.sqlite")).unwrap();
        let mut statement = store
            .prepare("SELECT detail FROM audit WHERE what = ?1 ORDER BY id")
            .unwrap();
        let rows = statement.query_map([what], |row| row.get(0)).unwrap();
        rows.map(Result::unwrap).collect()
    }

    fn refused(&self, arguments: &[&str], says: &[&str]) {
        said(&self.coordinator.command(arguments), says);
    }

    fn group(&self) -> Value {
        self.coordinator.json(&["status"])["groups"][0].clone()
    }
}

/// Exit status 1, nothing on stdout, and all of this on stderr.
fn said(output: &Output, says: &[&str]) {
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(output.stdout.is_empty(), "{output:?}");
    for part in says {
        assert!(text.contains(part), "no `{part}` in:\n{text}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_two_operators_with_different_plans_the_newest_begins_and_the_other_is_told() {
    let mut scene = Scene::new().await;
    let first = scene.plans[0].clone();
    scene
        .keep(
            fixture::draft(&[("one", 3, "soak = \"1m\"")], ACCEPT),
            Some(&first),
        )
        .await;
    let outputs = scene
        .at_once(&[&["start", scene.id(0)], &["start", scene.id(1)]])
        .await;
    let replaced = format!(
        "{} was replaced by {}, which was made by bob at",
        scene.id(0),
        scene.id(1)
    );
    said(
        &outputs[0],
        &[&replaced, "hint: only the newest plan can be started"],
    );
    assert!(outputs[1].status.success(), "{:?}", outputs[1]);
    assert_eq!(scene.coordinator.json(&["status"])["plan"], scene.id(1));
    assert_eq!(scene.audit("start").len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_plan_that_four_operators_start_at_once_begins_once() {
    let scene = Scene::new().await;
    let start: &[&str] = &["start"];
    let outputs = scene.at_once(&[start; 4]).await;
    let (began, late): (Vec<_>, Vec<_>) = outputs.iter().partition(|output| output.status.success());
    assert_eq!((began.len(), scene.audit("start").len()), (1, 1), "{outputs:?}");
    for output in late {
        let text = String::from_utf8_lossy(&output.stderr);
        // Whoever looked before the first commit reads the one, whoever looked after it the other.
        let said = ["is under way already", "was started before by uid "];
        assert!(said.iter().any(|part| text.contains(part)), "{text}");
        assert_eq!(output.status.code(), Some(1));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_plan_that_follows_the_running_one_is_shown_until_it_is_adopted() {
    let mut scene = Scene::new().await;
    assert!(scene.coordinator.command(&["start"]).status.success());
    assert!(scene.coordinator.json(&["status"])["waiting_plan"].is_null());
    let first = scene.plans[0].clone();
    scene
        .keep(fixture::draft(&[("one", 4, "")], ACCEPT), Some(&first))
        .await;
    let adopt = format!("pmm-coordinator adopt {}", scene.id(1));
    assert_eq!(
        scene.coordinator.json(&["status"])["waiting_plan"]["plan"],
        scene.id(1)
    );
    for command in [vec!["status"], vec!["explain", "rollout"], vec!["plan", "show"]] {
        let output = scene.coordinator.command(&command);
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(text.contains(&adopt), "no `{adopt}` in {command:?}:\n{text}");
    }
    scene.refused(
        &["start"],
        &["is under way; only one can be", &adopt, "see `status`"],
    );
    let adopted = scene.coordinator.command(&["adopt"]);
    assert!(adopted.status.success(), "{adopted:?}");
    assert_eq!(scene.audit("adopt"), [scene.id(1)]);
    let status = scene.coordinator.json(&["status"]);
    assert_eq!(status["plan"], scene.id(1));
    assert!(status["waiting_plan"].is_null(), "{status}");
    assert_eq!(scene.group()["total"], 4);
    // The plan that it began with is still known as started, and so is the adopted one.
    for plan in [scene.id(0), scene.id(1)] {
        assert_eq!(scene.coordinator.json(&["plan", "show", plan])["started"], true);
        scene.refused(
            &["start", plan],
            &[
                &format!("{plan} was started before by uid "),
                "`pmm-coordinator status` shows",
            ],
        );
    }
    scene.coordinator.kill();
    scene.coordinator.serve();
    assert_eq!(scene.coordinator.json(&["status"])["plan"], scene.id(1));
    scene.refused(
        &["adopt", scene.id(1)],
        &["is the rollout's plan already", "see `status`"],
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn numbers_of_a_group_are_reduced_for_good_and_on_the_record() {
    let mut scene = Scene::new().await;
    scene.refused(
        &["limit", "one", "--max-unavailable", "1"],
        &["no rollout is under way", "`start`"],
    );
    assert!(scene.coordinator.command(&["start"]).status.success());
    assert_eq!(scene.group()["slots_max"], 2);
    let limit = [
        "limit",
        "one",
        "--max-unavailable",
        "1",
        "--failure-threshold",
        "0",
        "--reason",
        "the storage is slow",
    ];
    let done = scene.coordinator.json(&limit);
    let text = done["done"].as_str().unwrap();
    assert!(text.contains("one") && text.contains('1'), "{text}");
    let as_reduced = |scene: &Scene| {
        let group = scene.group();
        (group["slots_max"].clone(), group["failure_threshold"].clone())
    };
    assert_eq!(as_reduced(&scene), (1.into(), 0.into()));
    let typed = "limit one --max-unavailable 1 --failure-threshold 0 (the storage is slow)";
    assert_eq!(scene.audit("command"), [typed]);
    let events = scene.coordinator.json(&["events"]);
    let told = events["events"].as_array().unwrap().iter();
    let mut told = told.filter_map(|event| event["text"].as_str());
    assert!(told.any(|text| text.contains(typed)), "{events}");
    scene.refused(&["limit", "one", "--max-unavailable", "2"], &["hint: "]);
    scene.refused(
        &["limit", "nobody", "--max-unavailable", "1"],
        &["nobody", "hint: "],
    );
    let usage = scene.coordinator.command(&["limit", "one"]);
    assert_eq!(usage.status.code(), Some(2), "{usage:?}");
    scene.coordinator.kill();
    scene.coordinator.serve();
    assert_eq!(as_reduced(&scene), (1.into(), 0.into()));
    assert_eq!(
        scene.audit("command"),
        [typed],
        "what was refused changed nothing"
    );
}
