//! A real coordinator process on its own data directory and ports, and a minimal agent that talks to it over real TLS sockets.
#![allow(dead_code, unused_imports, clippy::unwrap_used, clippy::expect_used)]

pub mod fake_pmm;

#[allow(unused_imports)]
pub use fake_agent as agent;
pub use fake_agent::{PATIENCE, Token};

use std::io::Write as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

/// The program under test.
pub const PROGRAM: &str = env!("CARGO_BIN_EXE_pmm-coordinator");

/// A data directory with a coordinator that runs or not.
pub struct Coordinator {
    dir: tempfile::TempDir,
    child: Option<Child>,
    pub agents: SocketAddr,
    pub enrolment: SocketAddr,
}

impl Coordinator {
    /// Initialised and serving.
    pub fn start() -> Self {
        let nowhere: SocketAddr = "127.0.0.1:0".parse().unwrap();
        let mut coordinator = Self {
            dir: tempfile::tempdir().unwrap(),
            child: None,
            agents: nowhere,
            enrolment: nowhere,
        };
        let init = coordinator.command(&["init", "--name", "localhost"]);
        assert!(
            init.status.success(),
            "init: {}",
            String::from_utf8_lossy(&init.stderr)
        );
        coordinator.serve();
        coordinator
    }

    pub fn data(&self) -> PathBuf {
        self.dir.path().join("data")
    }
    pub fn scratch(&self) -> &Path {
        self.dir.path()
    }

    /// Starts `serve`; the ports are chosen by the kernel at first and kept afterwards.
    pub fn serve(&mut self) {
        let log = std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.log_path())
            .unwrap();
        let before = self.log().len();
        let child = Command::new(PROGRAM)
            .arg("--data")
            .arg(self.data())
            .args([
                "serve",
                "--listen",
                &self.agents.to_string(),
                "--enrol-listen",
                &self.enrolment.to_string(),
            ])
            .env("NO_COLOR", "1")
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        self.child = Some(child);
        let line = self.wait_for_log(before, "coordinator serves");
        let address = |key: &str| -> SocketAddr {
            let rest = line.split(&format!(" {key}=")).nth(1).unwrap();
            rest.split_whitespace().next().unwrap().parse().unwrap()
        };
        self.agents = address("agents");
        self.enrolment = address("enrolment");
        // The socket appears a moment later.
        until("the operator socket", || {
            self.command(&["host", "list"]).status.success()
        });
    }

    /// `kill -9`.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    /// SIGHUP.
    pub fn hang_up(&self) {
        let id = self.child.as_ref().unwrap().id();
        let pid = rustix::process::Pid::from_raw(i32::try_from(id).unwrap()).unwrap();
        rustix::process::kill_process(pid, rustix::process::Signal::HUP).unwrap();
    }

    fn log_path(&self) -> PathBuf {
        self.dir.path().join("log")
    }

    /// Everything the coordinator logged so far.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.log_path()).unwrap_or_default()
    }

    /// Waits for a line with this text after an offset.
    pub fn wait_for_log(&self, after: usize, text: &str) -> String {
        let mut found = None;
        until(&format!("`{text}` in the log"), || {
            let log = self.log();
            found = log
                .get(after..)
                .and_then(|new| new.lines().find(|line| line.contains(text)).map(str::to_owned));
            found.is_some()
        });
        found.unwrap()
    }

    /// Runs a command to its end.
    pub fn command(&self, arguments: &[&str]) -> Output {
        run_with(&self.data(), arguments)
    }

    /// Runs a command and takes its JSON.
    pub fn json(&self, arguments: &[&str]) -> serde_json::Value {
        let mut all = vec!["--json"];
        all.extend(arguments);
        let output = self.command(&all);
        assert!(
            output.status.success(),
            "{arguments:?}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        serde_json::from_slice(&output.stdout).unwrap()
    }

    /// A join token.
    pub fn token(&self, uses: u32, ttl: &str) -> Token {
        let uses = uses.to_string();
        let document = self.json(&[
            "token", "create", "--group", "test", "--uses", &uses, "--ttl", ttl,
        ]);
        Token::parse(document["token"].as_str().unwrap())
    }

    /// Writes a file into the scratch directory.
    pub fn file(&self, name: &str, mode: u32, text: &str) -> PathBuf {
        use std::os::unix::fs::OpenOptionsExt as _;
        let path = self.dir.path().join(name);
        let mut file = std::fs::OpenOptions::new()
            .create(true)
            .truncate(true)
            .write(true)
            .mode(mode)
            .open(&path)
            .unwrap();
        file.write_all(text.as_bytes()).unwrap();
        path
    }
}

impl Drop for Coordinator {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Runs a command on a data directory.
pub fn run_with(data: &Path, arguments: &[&str]) -> Output {
    Command::new(PROGRAM)
        .arg("--data")
        .arg(data)
        .args(arguments)
        .env("NO_COLOR", "1")
        .output()
        .unwrap()
}

/// Polls until it holds.
pub fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < PATIENCE, "gave up waiting for {what}");
        #[allow(clippy::disallowed_methods)] // This is the wait for a condition with a deadline.
        std::thread::sleep(Duration::from_millis(20));
    }
}
