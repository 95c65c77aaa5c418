//! Hops whose journal is open: the wait for clients that a person repeats or ends, orders that are given up, and older orders that a newer one
//! brings to an end. The engine and PMM are listeners that know only what these ways need.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use fleet_common::codes;
use fleet_common::ids::{LegId, OrderId};
use fleet_common::server::{HopOutcome, HopResult, Pmm2Update, ServerEvent, ServerOrder};
use fleet_common::verification::FleetSnapshot;
use fleet_common::version::PmmVersion;
use pmm_driver::{Deadlines, Driver, ServerConfig, Trust};
use serde_json::{Value, json};
use server_upgrade::baseline::Baseline;
use server_upgrade::journal::Line;
use server_upgrade::names::order_key;
use server_upgrade::steps::{Step, steps};
use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

/// Answers one request and closes.
async fn answer(mut stream: impl AsyncRead + AsyncWrite + Unpin, answers: impl Fn(&str) -> (u16, Value)) {
    let mut seen = Vec::new();
    let mut block = [0u8; 4096];
    while !String::from_utf8_lossy(&seen).contains("\r\n\r\n") {
        match stream.read(&mut block).await {
            Ok(0) | Err(_) => return,
            Ok(got) => seen.extend_from_slice(&block[..got]),
        }
    }
    let text = String::from_utf8_lossy(&seen).into_owned();
    let (status, body) = answers(text.split(' ').nth(1).unwrap_or_default());
    let body = body.to_string();
    let head = format!(
        "HTTP/1.1 {status} x\r\ncontent-type: application/json\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
        body.len()
    );
    let _ = stream.write_all(format!("{head}{body}").as_bytes()).await;
    let _ = stream.shutdown().await;
}

struct Bench {
    dir: tempfile::TempDir,
    driver: Driver,
    /// Whether clients deliver.
    back: Arc<AtomicBool>,
}

/// An engine without containers, and a PMM that answers for samples only.
async fn bench() -> Bench {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("docker.sock");
    let engine = UnixListener::bind(&socket).unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = engine.accept().await {
            tokio::spawn(answer(stream, |target| {
                if target.ends_with("/version") {
                    (
                        200,
                        json!({"ApiVersion": "1.43", "MinAPIVersion": "1.24", "Version": "24.0"}),
                    )
                } else {
                    (404, json!({"message": "there is no such thing"}))
                }
            }));
        }
    });
    let back = Arc::new(AtomicBool::new(false));
    let pmm = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", pmm.local_addr().unwrap());
    let delivers = Arc::clone(&back);
    tokio::spawn(async move {
        while let Ok((stream, _)) = pmm.accept().await {
            let delivers = Arc::clone(&delivers);
            tokio::spawn(answer(stream, move |target| {
                if !target.starts_with("/prometheus/api/v1/query") {
                    return (404, json!({}));
                }
                let sample = json!({"metric": {"service_id": "s1"}, "value": [2, "2"]});
                let result = if delivers.load(Ordering::SeqCst) {
                    vec![sample]
                } else {
                    Vec::new()
                };
                (
                    200,
                    json!({"status": "success", "data": {"resultType": "vector", "result": result}}),
                )
            }));
        }
    });
    let credential = dir.path().join("credential");
    std::fs::write(&credential, "admin:p").unwrap();
    std::fs::set_permissions(&credential, std::fs::Permissions::from_mode(0o600)).unwrap();
    let config = ServerConfig {
        name: "server".into(),
        url,
        helper: credential.clone(),
        credential_file: credential,
        trust: Trust::System,
        docker_endpoint: format!("unix://{}", socket.display()),
        container: "pmm-server".into(),
        image_repository: "percona/pmm-server".into(),
        deadlines: Deadlines {
            settle: Duration::from_secs(11),
            per_hundred_clients: Duration::ZERO,
            poll: Duration::from_millis(50),
            ..Deadlines::default()
        },
    };
    let driver = Driver::new(config, dir.path().join("journal")).unwrap();
    Bench { dir, driver, back }
}

fn order(id: &str) -> ServerOrder {
    ServerOrder {
        order: OrderId::new(id),
        leg: LegId::new("server-1"),
        attempt: 1,
        hop: 3,
        from: PmmVersion::new(3, 7, 1),
        to: PmmVersion::new(3, 9, 1),
        pmm2_update: Pmm2Update::Image,
        last_of_leg: true,
        accept_unsettled: false,
    }
}

impl Bench {
    /// The journal that an earlier life left, which died in `at`.
    fn left_in(&self, order: &ServerOrder, at: Step) {
        let mut fleet = FleetSnapshot::default();
        fleet.service_samples_ms.insert("s1".into(), 1);
        let baseline = Baseline {
            fleet,
            ..Baseline::default()
        };
        let note = |key: &str, value: Value| Line::Note {
            key: key.into(),
            value,
        };
        let mut lines = vec![
            Line::Opened {
                order: order.clone(),
                at_ms: 1,
            },
            note("rehome", json!(false)),
            note("baseline", serde_json::to_value(&baseline).unwrap()),
            note("clients", json!(1)),
            note("up_at_ms", json!(1_000)),
        ];
        for step in steps(order, false) {
            let name = step.name();
            lines.push(Line::Intent {
                step: name.clone(),
                at_ms: 1,
            });
            if step.step == at {
                break;
            }
            lines.push(Line::Done {
                step: name,
                at_ms: 1,
                took_ms: 1,
            });
        }
        let text: String = lines
            .iter()
            .map(|line| serde_json::to_string(line).unwrap() + "\n")
            .collect();
        let path = self
            .dir
            .path()
            .join("journal")
            .join(format!("{}.jsonl", order_key(order)));
        std::fs::write(path, text).unwrap();
    }

    async fn run(&self, order: &ServerOrder) -> (HopResult, Vec<ServerEvent>) {
        let (events, mut told) = mpsc::channel(256);
        let result = self
            .driver
            .run_hop(order, events, CancellationToken::new())
            .await
            .unwrap();
        let mut all = Vec::new();
        while let Some(event) = told.recv().await {
            all.push(event);
        }
        let ends = all
            .iter()
            .filter(|event| matches!(event, ServerEvent::Finished(_)))
            .count();
        assert_eq!(
            (ends, all.last()),
            (1, Some(&ServerEvent::Finished(result.clone())))
        );
        (result, all)
    }

    fn ended(&self, order: &ServerOrder) -> Option<HopResult> {
        let hops = self.driver.hops().unwrap();
        hops.into_iter()
            .find(|hop| hop.order.order == order.order)?
            .result
    }
}

fn resumed(events: &[ServerEvent]) -> bool {
    events
        .iter()
        .any(|event| matches!(event, ServerEvent::Resumed { .. }))
}

#[tokio::test]
async fn nobody_back_asks_a_person_and_the_same_order_only_looks_again() {
    let bench = bench().await;
    let order = order("r/server-1/server/1/hop-3");
    bench.left_in(&order, Step::Settle);
    let (result, events) = bench.run(&order).await;
    assert_eq!(
        (result.outcome, result.open, result.step.as_str()),
        (HopOutcome::NeedsOperator, true, "settle")
    );
    assert_eq!(
        (result.running, result.code.as_str()),
        (Some(order.to), codes::DEADLINE)
    );
    assert!(resumed(&events) && events.contains(&ServerEvent::Published));
    assert!(bench.ended(&order).is_none(), "its journal is open");

    bench.back.store(true, Ordering::SeqCst);
    let (result, events) = bench.run(&order).await;
    assert_eq!(result.outcome, HopOutcome::Settled, "{result:?}");
    assert!(!resumed(&events), "a person who asks again is no disturbance");
    let begun: Vec<&str> = events
        .iter()
        .filter_map(|event| match event {
            ServerEvent::StepStarted { step, .. } => Some(step.as_str()),
            _ => None,
        })
        .collect();
    assert_eq!(begun, ["settle"], "nothing is done again but the wait");
    assert_eq!(bench.ended(&order), Some(result));
}

#[tokio::test]
async fn a_person_may_go_on_without_the_clients() {
    let bench = bench().await;
    let mut order = order("r/server-1/server/1/hop-3");
    bench.left_in(&order, Step::Settle);
    assert!(bench.run(&order).await.0.open);
    order.accept_unsettled = true;
    let (result, _) = bench.run(&order).await;
    assert_eq!(result.outcome, HopOutcome::Settled);
    assert!(
        result.message.contains("1 of 1 services have no fresh samples"),
        "{}",
        result.message
    );
    assert_eq!(bench.ended(&order), Some(result));
}

#[tokio::test]
async fn a_newer_order_brings_an_older_open_one_to_an_end() {
    // What is past its publication stays, what nothing was changed for is refused.
    for (at, outcome) in [
        (Step::Settle, HopOutcome::Settled),
        (Step::ServiceAccounts, HopOutcome::Settled),
        (Step::Inspect, HopOutcome::Refused),
        (Step::Pull, HopOutcome::Refused),
    ] {
        let bench = bench().await;
        let (older, newer) = (
            order("r1/server-1/server/1/hop-3"),
            order("r2/server-1/server/1/hop-3"),
        );
        bench.left_in(&older, at);
        let (result, events) = bench.run(&newer).await;
        assert_eq!(
            result.outcome,
            HopOutcome::Refused,
            "this engine has no container for it: {result:?}"
        );
        assert!(
            !events.contains(&ServerEvent::Published),
            "the older hop's publication is not the newer's"
        );
        let ended = bench.ended(&older).expect("the older one is over");
        assert_eq!(ended.outcome, outcome, "{at:?}");
        assert!(
            format!("{}{}", ended.message, ended.code).contains(if outcome == HopOutcome::Refused {
                codes::GIVEN_UP
            } else {
                newer.order.as_str()
            })
        );
        assert!(bench.driver.open_order().unwrap().is_none(), "{at:?}");
        assert_eq!(bench.run(&newer).await.0, result, "and the newer answers again");
    }
}

#[tokio::test]
async fn an_older_order_that_cannot_go_back_is_told_and_blocks_nobody_for_ever() {
    let bench = bench().await;
    let (older, newer) = (
        order("r1/server-1/server/1/hop-3"),
        order("r2/server-1/server/1/hop-3"),
    );
    // Its container is gone from this engine, so the way back fails.
    bench.left_in(&older, Step::DarkStart);
    let (events, _told) = mpsc::channel(256);
    let error = bench
        .driver
        .run_hop(&newer, events, CancellationToken::new())
        .await
        .unwrap_err();
    assert_eq!(error.code().as_str(), codes::GIVEN_UP);
    assert_eq!(bench.ended(&older).unwrap().outcome, HopOutcome::NeedsOperator);
    assert_eq!(
        bench.run(&newer).await.0.outcome,
        HopOutcome::Refused,
        "the next try looks at what is there"
    );
}

#[tokio::test]
async fn an_order_that_is_given_up_goes_back_unless_its_release_serves() {
    let bench = bench().await;
    let early = order("r1/server-1/server/1/hop-3");
    bench.left_in(&early, Step::Pull);
    bench.driver.give_up(&early.order);
    let (result, _) = bench.run(&early).await;
    assert_eq!(
        (result.outcome, result.code.as_str()),
        (HopOutcome::Refused, codes::GIVEN_UP)
    );

    let late = order("r2/server-1/server/1/hop-3");
    bench.left_in(&late, Step::Settle);
    bench.back.store(true, Ordering::SeqCst);
    bench.driver.give_up(&late.order);
    assert_eq!(bench.run(&late).await.0.outcome, HopOutcome::Settled);
}

#[tokio::test]
async fn a_container_that_is_not_there_is_named_with_its_engine_and_where_it_is_set() {
    use fleet_common::hint::Hint as _;
    let bench = bench().await;
    let error = bench.driver.inspect().await.expect_err("there is none");
    let endpoint = format!("unix://{}", bench.dir.path().join("docker.sock").display());
    assert_eq!(
        error.to_string(),
        format!("there is no container `pmm-server` at {endpoint}")
    );
    let hints = error.hints();
    assert!(
        hints[0].contains(&format!("docker --host {endpoint} ps --all")),
        "{hints:?}"
    );
    assert!(hints[1].contains("[server] of the fleet file"), "{hints:?}");
}
