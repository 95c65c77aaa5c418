//! Runs the driver against a real container from the command line, for development and for tests that kill it.
//!
//! ```text
//! hop <what> key=value...     what: inspect | snapshot | preflight | run | hops
//! ```
#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::expect_used,
    clippy::unwrap_used
)]

use fleet_common::ids::{LegId, OrderId};
use fleet_common::server::{HopOutcome, Pmm2Update, ServerOrder};
use pmm_driver::{Deadlines, Driver, ServerConfig, Trust};
use std::collections::BTreeMap;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

#[tokio::main(flavor = "current_thread")]
async fn main() {
    tracing_subscriber::fmt().with_writer(std::io::stderr).init();
    let mut words = std::env::args().skip(1);
    let what = words.next().expect("what to do");
    let args: BTreeMap<String, String> = words
        .filter_map(|word| word.split_once('=').map(|(a, b)| (a.to_owned(), b.to_owned())))
        .collect();
    let get = |name: &str| {
        args.get(name)
            .cloned()
            .unwrap_or_else(|| panic!("{name}= is missing"))
    };
    let or = |name: &str, other: &str| args.get(name).cloned().unwrap_or_else(|| other.to_owned());
    let mut deadlines = Deadlines {
        settle: Duration::from_secs(60),
        ..Deadlines::default()
    };
    if let Some(seconds) = args.get("migration_s") {
        deadlines.migration = Duration::from_secs(seconds.parse().expect("seconds"));
    }
    let config = ServerConfig {
        name: "server".to_owned(),
        url: get("url"),
        credential_file: get("credential").into(),
        trust: Trust::Fingerprint(get("fingerprint")),
        docker_endpoint: or("docker", "unix:///var/run/docker.sock"),
        container: get("container"),
        image_repository: or("repository", "percona/pmm-server"),
        helper: get("helper").into(),
        deadlines,
    };
    let driver = Driver::new(config, get("journal").into()).expect("driver");
    let now = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap()
        .as_millis() as u64;
    match what.as_str() {
        "inspect" => print(&driver.inspect().await.map_err(report)),
        "snapshot" => print(&driver.snapshot(now - 3_600_000).await.map_err(report)),
        "hops" => print(&driver.hops().map_err(report)),
        "preflight" => {
            let path: Vec<_> = get("path")
                .split(',')
                .map(|one| one.parse().expect("release"))
                .collect();
            print(
                &driver
                    .preflight(&path, update(&or("update", "image")))
                    .await
                    .map_err(report),
            );
        }
        "run" => {
            let order = ServerOrder {
                order: OrderId::new(get("order")),
                leg: LegId::new("server-1"),
                attempt: or("attempt", "1").parse().expect("attempt"),
                hop: or("hop", "1").parse().expect("hop"),
                from: get("from").parse().expect("from"),
                to: get("to").parse().expect("to"),
                pmm2_update: update(&or("update", "image")),
                last_of_leg: or("last", "false") == "true",
                accept_unsettled: false,
            };
            let (events, mut receiver) = tokio::sync::mpsc::channel(64);
            let started = std::time::Instant::now();
            let printer = tokio::spawn(async move {
                while let Some(event) = receiver.recv().await {
                    println!(
                        "{:8.2} {}",
                        started.elapsed().as_secs_f64(),
                        serde_json::to_string(&event).unwrap()
                    );
                }
            });
            let result = driver.run_hop(&order, events, CancellationToken::new()).await;
            printer.await.unwrap();
            match result {
                Ok(result) => std::process::exit(i32::from(result.outcome != HopOutcome::Settled)),
                Err(error) => {
                    eprintln!("{}", report(error));
                    std::process::exit(2);
                }
            }
        }
        other => panic!("unknown: {other}"),
    }
}

fn update(word: &str) -> Pmm2Update {
    if word == "api" {
        Pmm2Update::Api
    } else {
        Pmm2Update::Image
    }
}

fn report(error: pmm_driver::DriverError) -> String {
    let hints = fleet_common::hint::Hint::hints(&error);
    fleet_common::hint::render(&error, &hints)
}

fn print<T: serde::Serialize>(value: &Result<T, String>) {
    match value {
        Ok(value) => println!("{}", serde_json::to_string_pretty(value).unwrap()),
        Err(error) => {
            eprintln!("{error}");
            std::process::exit(2);
        }
    }
}
