//! A disk that fills up in the middle of a switch, with the real program, a real client process and a real small disk: the client runs again,
//! and the result arrives once there is room.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use common::{Ca, Session};
use fleet_common::order::{HostEvent, OrderResult, Outcome};
use fleet_proto::{Action, Epoch, Order, Welcome, agent_message, coordinator_message};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

/// One host has one client: the tests take turns.
static HOST: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

const SECRET: &str = "secret";
const PATIENCE: Duration = Duration::from_secs(120);
/// The reserve and the small files of one order; the tree of this test is tiny.
const DISK_KILOBYTES: u32 = 16 * 1024;

/// A directory with a small disk at `small`.
struct Place(tempfile::TempDir);

impl Place {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        // The agent works as root below it, the client's tree is anybody's to read.
        std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
        let small = dir.path().join("small");
        std::fs::create_dir(&small).unwrap();
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &format!("size={DISK_KILOBYTES}k"), "tmpfs"])
            .arg(&small)
            .output()
            .unwrap();
        assert!(
            mounted.status.success(),
            "a small tmpfs can't be mounted ({}); run the tests as root with CAP_SYS_ADMIN, in Docker with --privileged",
            String::from_utf8_lossy(&mounted.stderr).trim()
        );
        Self(dir)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn state(&self) -> PathBuf {
        self.path("small/state")
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        for pid in clients(&self.path("client")) {
            let _ = Command::new("kill").args(["-9", &pid.to_string()]).status();
        }
        let _ = Command::new("umount").arg("-l").arg(self.path("small")).status();
    }
}

struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Processes that run from a client's tree.
fn clients(base: &Path) -> Vec<u32> {
    let agent = base.join("bin/pmm-agent");
    std::fs::read_dir("/proc")
        .unwrap()
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok())
        .filter(|pid| std::fs::read_link(format!("/proc/{pid}/exe")).is_ok_and(|exe| exe == agent))
        .collect()
}

fn script(path: &Path, text: &str) {
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, text).unwrap();
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).unwrap();
}

/// A tarball client of release 2.44.1: a program that runs for long, and one that tells the release.
fn client(place: &Place) -> Child {
    let base = place.path("client");
    script(
        &base.join("bin/pmm-admin"),
        "#!/bin/sh\necho 'ProjectName: pmm-admin'\necho 'Version: 2.44.1'\necho 'PMMVersion: 2.44.1'\n",
    );
    std::fs::copy("/bin/sleep", base.join("bin/pmm-agent")).unwrap();
    std::fs::create_dir_all(base.join("config")).unwrap();
    std::fs::write(
        base.join("config/pmm-agent.yaml"),
        "id: /agent_id/a\nlisten-port: 1\nserver:\n  address: localhost:1\n",
    )
    .unwrap();
    for dir in ["exporters", "tools", "collectors"] {
        std::fs::create_dir_all(base.join(dir)).unwrap();
    }
    // Of nobody's group, as a client that was started by hand long ago.
    Command::new(base.join("bin/pmm-agent"))
        .arg("600000")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .process_group(0)
        .spawn()
        .unwrap()
}

/// A tarball whose installer runs a script and fails.
fn tarball(place: &Place, installer: &str) -> (String, String) {
    let arch = String::from_utf8(Command::new("uname").arg("-m").output().unwrap().stdout).unwrap();
    let name = format!("pmm-client-3.9.1-{}.tar.gz", arch.trim());
    let top = place.path("build/pmm-client-3.9.1");
    script(&top.join("install_tarball"), installer);
    std::fs::write(top.join("VERSION"), "3.9.1\n").unwrap();
    let dir = place.path("download/pmm3/3.9.1/binary/tarball");
    std::fs::create_dir_all(&dir).unwrap();
    let packed = Command::new("tar")
        .args(["--create", "--gzip", "--file"])
        .arg(dir.join(&name))
        .arg("--directory")
        .arg(place.path("build"))
        .arg("pmm-client-3.9.1")
        .status()
        .unwrap();
    assert!(packed.success());
    let digest = fleet_common::digest::sha256_hex(&std::fs::read(dir.join(&name)).unwrap());
    (name, digest)
}

fn entry(place: &Place, tarball: &(String, String), padding: usize) -> serde_json::Value {
    serde_json::json!({
        "host": "h", "name": "x".repeat(padding), "group": "g", "leg": "l",
        "expect": {
            "method": "tarball", "from_min": "2.0.0", "from_max": "2.44.1",
            "base_dir": place.path("client"), "agent_id": "a",
        },
        "to": "3.9.1",
        "source": {
            "repository_url": "http://localhost:1/", "component": "release",
            "tarball_url": format!("file://{}", place.path("download").display()),
            "tarball_sha256": { &tarball.0: &tarball.1 },
        },
        "verify_for_ms": 1_500,
        "repoint": null,
    })
}

fn agent(place: &Place) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pmm-upgrade-agent"));
    command.arg("--state-dir").arg(place.state());
    command.arg("--config-dir").arg(place.path("config"));
    command
}

async fn soon<T>(what: &str, work: impl Future<Output = T>) -> T {
    match tokio::time::timeout(PATIENCE, work).await {
        Ok(done) => done,
        Err(_) => panic!("{what} did not come"),
    }
}

async fn meet(sessions: &mut tokio::sync::mpsc::Receiver<Session>) -> Session {
    let mut session = soon("the session", sessions.recv()).await.unwrap();
    assert!(matches!(
        soon("the hello", session.next()).await,
        Some(agent_message::Body::Hello(_))
    ));
    let welcome = Welcome {
        protocol: 1,
        session_number: 1,
        epoch: Some(Epoch { term: 1, counter: 1 }),
        acknowledged: 0,
        reconnect_cap_ms: 200,
        reconnect_spread_ms: 1,
    };
    session.send(coordinator_message::Body::Welcome(welcome)).await;
    session
}

async fn end_of(session: &mut Session) -> OrderResult {
    loop {
        let message = soon("the end of the order", session.next())
            .await
            .expect("the session is up");
        if let agent_message::Body::Event(event) = message
            && let Ok(HostEvent::Finished(result)) = fleet_proto::convert::host_event(&event.body)
        {
            return result;
        }
    }
}

async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    soon(what, async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    })
    .await;
}

/// Orders a switch whose installer does something to the disk and fails.
async fn switch(place: &Place, installer: &str, padding: usize) -> (Running, Session, u32) {
    let ca = Arc::new(Ca::new());
    let enrol_port = common::enrolment(ca.clone(), "localhost", "127.0.0.1:0", SECRET).await;
    let (session_port, mut sessions) = common::sessions(&ca, "localhost", "127.0.0.1:0").await;
    std::fs::write(place.path("token"), format!("id.{SECRET}.{}", ca.spki)).unwrap();
    let mut enrol = agent(place);
    enrol.args([
        "enrol",
        "--coordinator",
        &format!("https://localhost:{enrol_port}"),
    ]);
    enrol.args(["--session", &format!("localhost:{session_port}"), "--token-file"]);
    enrol.arg(place.path("token"));
    let output = tokio::task::spawn_blocking(move || enrol.output().unwrap())
        .await
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    let tarball = tarball(place, installer);
    std::fs::write(
        place.path("config/policy.toml"),
        format!(
            "sources = [\"file://{0}\", \"http://localhost:1/\"]\n",
            place.path("download").display()
        ),
    )
    .unwrap();

    let old = client(place);
    let pid = old.id();
    // Whoever started it waits for it; a zombie would look like a client that does not end.
    std::thread::spawn(move || {
        let mut old = old;
        old.wait()
    });
    let log = std::fs::File::create(place.path("log")).unwrap();
    let running = Running(agent(place).arg("run").stderr(log).spawn().unwrap());
    let session = meet(&mut sessions).await;
    let order = Order {
        order_id: "switch".to_owned(),
        epoch: Some(Epoch { term: 1, counter: 2 }),
        action: Action::Switch as i32,
        plan_id: "p".to_owned(),
        plan_entry: entry(place, &tarball, padding).to_string().into_bytes(),
        deadline_for_ms: 600_000,
        start_within_ms: 60_000,
        ..Order::default()
    };
    session.send(coordinator_message::Body::Order(order)).await;
    // Sessions that are not taken any more would be refused; this test has one.
    std::mem::forget(sessions);
    (running, session, pid)
}

const FILL: &str = "dd if=/dev/zero of=\"$STATE/filler\" bs=4096 2>/dev/null\n";

fn installer(place: &Place, before: &str) -> String {
    format!(
        "#!/bin/sh\nSTATE={}\n{before}{FILL}echo full\nexit 1\n",
        place.state().display()
    )
}

/// Pages of a tmpfs.
const PAGE: usize = 4096;
/// Less than any record, more than what times differ in length from run to run.
const SPARE: usize = 60;

/// How long the journal of such an order is when its installer runs.
async fn journal_bytes_at_install() -> usize {
    let place = Place::new();
    let seen = place.path("journal-bytes");
    let script = format!(
        "#!/bin/sh\nwc -c < {}/journal.jsonl > {}\nexit 1\n",
        place.state().display(),
        seen.display()
    );
    let (_agent, mut session, _) = switch(&place, &script, 0).await;
    end_of(&mut session).await;
    std::fs::read_to_string(seen).unwrap().trim().parse().unwrap()
}

/// With the reserve the whole way back is walked and recorded.
#[tokio::test]
async fn the_reserve_carries_the_way_back() {
    let _host = HOST.lock().await;
    let place = Place::new();
    let (_agent, mut session, old) = switch(&place, &installer(&place, ""), 0).await;
    let result = end_of(&mut session).await;
    let log = std::fs::read_to_string(place.path("log")).unwrap();
    assert!(
        place.path("small/state/filler").exists(),
        "the disk was not filled: {result:?}\n{log}"
    );
    // The stand-in for the client has no status to show, so its verification fails; what counts is that it runs.
    assert_eq!(
        (result.outcome, result.step.as_str()),
        (Outcome::Inconsistent, "back-verify"),
        "{result:?}\n{log}"
    );
    assert!(
        !result.message.contains("journal could not be written"),
        "{result:?}"
    );
    assert!(
        !place.path("small/state/reserve").exists(),
        "the reserve was not needed: {log}"
    );
    let now = clients(&place.path("client"));
    assert!(now.len() == 1 && now[0] != old, "{now:?}\n{log}");
}

/// Without it the client is started all the same, and the result waits for room.
#[tokio::test]
async fn without_the_reserve_the_client_is_started_and_the_result_comes_later() {
    let _host = HOST.lock().await;
    // A page that is begun takes some more lines on a full disk: the plan's entry is made so long that the journal ends right before one.
    let size = journal_bytes_at_install().await;
    let padding = PAGE - (size + SPARE) % PAGE;
    let place = Place::new();
    let script = installer(&place, "rm \"$STATE/reserve\"\n");
    let (_agent, mut session, old) = switch(&place, &script, padding).await;
    let base = place.path("client");
    let log = || std::fs::read_to_string(place.path("log")).unwrap();
    until("the end of the order", || {
        log().contains("can't be written and is told only when it can")
    })
    .await;
    assert!(
        clients(&base).iter().any(|pid| *pid != old),
        "no client was started\n{}",
        log()
    );
    std::fs::remove_file(place.path("small/state/filler")).unwrap();
    let result = end_of(&mut session).await;
    assert_eq!(result.outcome, Outcome::Inconsistent, "{result:?}\n{}", log());
    assert!(
        result.message.contains("journal could not be written"),
        "{result:?}"
    );
    assert!(result.message.contains("was started as it is"), "{result:?}");
    let now = clients(&base);
    assert!(now.len() == 1 && now[0] != old, "{now:?}\n{}", log());
    until("the journal's end", || {
        std::fs::read_to_string(place.path("small/state/journal.jsonl"))
            .unwrap()
            .contains("\"record\":\"finished\"")
    })
    .await;
}
