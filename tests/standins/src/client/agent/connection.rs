//! The long connection to the server: upgrade, state in, statuses and query buckets out.

use super::jobs;
use super::shared::Shared;
use crate::client::http::{Endpoint, Stream};
use crate::client::{fault, out};
use crate::wire::{AgentStatus, CONNECT_V2, CONNECT_V3, DEAD_AFTER_S, FromClient, FromServer, UPGRADE};
use std::io::{self, ErrorKind};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

const POLL: Duration = Duration::from_millis(100);
const BACKOFF: Duration = Duration::from_secs(1);
const STATUS_EVERY: Duration = Duration::from_secs(5);
const PING_EVERY: Duration = Duration::from_secs(1);
const COMPONENT: &str = "client";

/// Keeps connecting for the life of the process.
pub fn spawn(shared: Arc<Shared>) {
    thread::spawn(move || {
        let mut told = String::new();
        loop {
            let Some(endpoint) = shared.endpoint() else {
                tell(
                    &mut told,
                    "Agent ID or server address is not provided, halting until the configuration is reloaded.",
                );
                crate::client::clock::pause(BACKOFF / 2);
                continue;
            };
            if fault::asked(&shared.release, "no-connect") {
                crate::client::clock::pause(BACKOFF);
                continue;
            }
            let outcome = session(&shared, &endpoint);
            let silent = outcome.as_ref().is_err_and(|e| e.kind() == ErrorKind::TimedOut);
            if silent && fault::asked(&shared.release, "stuck") && shared.lock().link.connected {
                // PMM-15200: after a silent drop the real agent may believe in its connection until it is restarted.
                out::log("INFO", COMPONENT, "Connection is silent.");
                loop {
                    thread::park();
                }
            }
            shared.lock().set_disconnected();
            if let Err(e) = outcome {
                tell(
                    &mut told,
                    &format!(
                        "Failed to establish or keep the connection to {}:{}: {e}",
                        endpoint.host, endpoint.port
                    ),
                );
            }
            crate::client::clock::pause(BACKOFF);
        }
    });
}

fn tell(told: &mut String, message: &str) {
    if told != message {
        out::log("ERRO", COMPONENT, message);
        *told = message.to_string();
    }
}

/// Bytes read so far, given out line by line.
struct Lines {
    stream: Box<dyn Stream>,
    buffer: Vec<u8>,
}

impl Lines {
    /// The next complete line, or `None` if there is none within the poll time.
    fn next(&mut self) -> io::Result<Option<String>> {
        loop {
            if let Some(end) = self.buffer.iter().position(|b| *b == b'\n') {
                let line: Vec<u8> = self.buffer.drain(..=end).collect();
                return Ok(Some(String::from_utf8_lossy(&line).trim_end().to_string()));
            }
            let mut chunk = [0_u8; 8192];
            match self.stream.read(&mut chunk) {
                Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
                Ok(n) => self.buffer.extend_from_slice(&chunk[..n]),
                Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => return Ok(None),
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
    }

    fn send(&mut self, message: &FromClient) -> io::Result<()> {
        let mut line = serde_json::to_vec(message).map_err(io::Error::other)?;
        line.push(b'\n');
        self.stream.write_all(&line)?;
        self.stream.flush()
    }
}

fn session(shared: &Arc<Shared>, endpoint: &Endpoint) -> io::Result<()> {
    let (generation, agent_id, exporter, jobs) = {
        let inner = shared.lock();
        // A job that ended unseen is told as ended, so it counts as ours until then.
        let ended = inner.ended_jobs.iter().map(|(id, _)| id.clone());
        (
            inner.generation,
            inner.config.id.clone(),
            inner.config.path("node_exporter").to_string(),
            inner.jobs.iter().cloned().chain(ended).collect(),
        )
    };
    let mut lines = open(shared, endpoint, &agent_id)?;
    lines.send(&FromClient::Hello {
        agent_id,
        version: shared.release.version.clone(),
        node_exporter_path: exporter,
        jobs,
    })?;
    let mut heard = Instant::now();
    let mut pinged = Instant::now();
    let mut reported = Instant::now();
    let mut last_statuses = None;
    loop {
        if shared.lock().generation != generation {
            return Ok(());
        }
        if let Some(line) = lines.next()? {
            heard = Instant::now();
            match serde_json::from_str(&line) {
                Ok(FromServer::State {
                    node_id,
                    node_name,
                    server_version,
                    resolution_s,
                    agents,
                }) => {
                    let mut inner = shared.lock();
                    if !inner.link.connected {
                        out::log(
                            "INFO",
                            COMPONENT,
                            &format!(
                                "Connected to {}:{}, server version {server_version}.",
                                endpoint.host, endpoint.port
                            ),
                        );
                    }
                    inner.set_connected();
                    inner.node = (node_id.clone(), node_name.clone());
                    inner.link.node_id = node_id;
                    inner.link.node_name = node_name;
                    inner.link.server_version = server_version;
                    inner.resolutions = resolution_s;
                    inner.desired = Some(agents);
                }
                Ok(FromServer::Job { job }) => jobs::start(shared, job),
                Ok(FromServer::Pong {}) => {
                    shared.lock().link.latency_ns =
                        u64::try_from(pinged.elapsed().as_nanos()).unwrap_or(u64::MAX);
                }
                Ok(FromServer::Kicked {}) => {
                    return Err(io::Error::other(
                        "another connection with the same agent id has replaced this one",
                    ));
                }
                Err(e) => out::log(
                    "WARN",
                    COMPONENT,
                    &format!("unknown message from the server: {e}"),
                ),
            }
        }
        if heard.elapsed() > Duration::from_secs(DEAD_AFTER_S) {
            let silence = "no word from the server, closing the connection";
            return Err(io::Error::new(ErrorKind::TimedOut, silence));
        }
        if pinged.elapsed() >= PING_EVERY {
            pinged = Instant::now();
            lines.send(&FromClient::Ping {})?;
        }
        let statuses = statuses(shared);
        let changed = last_statuses.as_ref() != Some(&statuses);
        if changed || reported.elapsed() >= STATUS_EVERY {
            reported = Instant::now();
            let agents = statuses
                .iter()
                .map(|(agent_id, status, port, path)| AgentStatus {
                    agent_id: agent_id.clone(),
                    status: status.clone(),
                    listen_port: u32::from(*port),
                    process_exec_path: path.clone(),
                })
                .collect();
            lines.send(&FromClient::Status { agents })?;
            last_statuses = Some(statuses);
        }
        send_buckets(shared, &mut lines)?;
        send_results(shared, &mut lines)?;
    }
}

/// Tells how jobs ended.
fn send_results(shared: &Shared, lines: &mut Lines) -> io::Result<()> {
    loop {
        let next = shared.lock().ended_jobs.first().cloned();
        let Some((job_id, error)) = next else {
            return Ok(());
        };
        lines.send(&FromClient::Job { job_id, error })?;
        shared.lock().ended_jobs.remove(0);
    }
}

/// Sends what waits; what could not be sent keeps waiting.
fn send_buckets(shared: &Shared, lines: &mut Lines) -> io::Result<()> {
    let buckets = {
        let mut inner = shared.lock();
        if !inner.link.connected || inner.buckets.is_empty() {
            return Ok(());
        }
        std::mem::take(&mut inner.buckets)
    };
    if let Err(e) = lines.send(&FromClient::Qan {
        buckets: buckets.clone(),
    }) {
        let mut inner = shared.lock();
        let newer = std::mem::replace(&mut inner.buckets, buckets);
        inner.buckets.extend(newer);
        return Err(e);
    }
    Ok(())
}

type Status = (String, String, u16, String);

fn statuses(shared: &Shared) -> Vec<Status> {
    let inner = shared.lock();
    inner
        .agents
        .values()
        .map(|a| (a.agent_id.clone(), a.status.clone(), a.port, a.exec_path.clone()))
        .collect()
}

fn open(shared: &Shared, endpoint: &Endpoint, agent_id: &str) -> io::Result<Lines> {
    let mut stream = endpoint.connect(POLL)?;
    let path = if shared.release.is_v3() {
        CONNECT_V3
    } else {
        CONNECT_V2
    };
    let extra = format!(
        "Connection: Upgrade\r\nUpgrade: {UPGRADE}\r\nPmm-Agent-Id: {agent_id}\r\nPmm-Agent-Version: {}\r\n",
        shared.release.version
    );
    stream.write_all(endpoint.head("POST", path, &extra, Some(0)).as_bytes())?;
    stream.flush()?;
    let mut lines = Lines {
        stream,
        buffer: Vec::new(),
    };
    let deadline = Instant::now() + Duration::from_secs(10);
    let mut status = None;
    while Instant::now() < deadline {
        match lines.next()? {
            None => {}
            Some(line) if line.is_empty() => {
                return match status {
                    Some(101) => Ok(lines),
                    Some(code) => Err(io::Error::other(format!("server answered {code}"))),
                    None => Err(io::Error::other("malformed answer")),
                };
            }
            Some(line) if status.is_none() => {
                status = line.split(' ').nth(1).and_then(|s| s.parse::<u16>().ok())
            }
            Some(_) => {}
        }
    }
    Err(io::Error::other("timeout while waiting for the server's answer"))
}
