//! Starts, watches and stops the children that the server asks for.

use super::qan;
use super::shared::{AgentInfo, Shared, endpoint};
use crate::client::config::Config;
use crate::client::out;
use crate::client::vmagent::{Scrape, Target};
use crate::wire::AgentSpec;
use std::collections::BTreeMap;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const COMPONENT: &str = "agent-process";

/// One child and when it may be started again.
struct Slot {
    spec: AgentSpec,
    child: Option<Child>,
    port: u16,
    path: String,
    failures: u32,
    not_before: Instant,
    up_since: Instant,
}

/// Runs on the main thread for the life of the process: children end together with the thread that started them.
pub fn run(shared: &Shared) -> u8 {
    let mut slots: BTreeMap<String, Slot> = BTreeMap::new();
    let mut generation = 0;
    let mut scraped = String::new();
    loop {
        let (config, desired, current) = {
            let inner = shared.lock();
            (inner.config.clone(), inner.desired.clone(), inner.generation)
        };
        if current != generation {
            generation = current;
            for (_, slot) in std::mem::take(&mut slots) {
                stop(slot);
            }
        }
        if let Some(desired) = desired {
            reconcile(&mut slots, &desired);
        }
        let taken: Vec<u16> = slots
            .values()
            .filter(|s| s.child.is_some())
            .map(|s| s.port)
            .collect();
        let mut ports = Ports {
            config: &config,
            taken,
        };
        for slot in slots.values_mut() {
            drive(slot, &mut ports, shared);
        }
        publish(shared, &slots, &config);
        write_scrape(shared, &slots, &config, &mut scraped);
        crate::client::clock::pause(Duration::from_millis(150));
    }
}

fn reconcile(slots: &mut BTreeMap<String, Slot>, desired: &[AgentSpec]) {
    let gone: Vec<String> = slots
        .keys()
        .filter(|id| !desired.iter().any(|d| &d.agent_id == *id))
        .cloned()
        .collect();
    for id in gone {
        if let Some(slot) = slots.remove(&id) {
            stop(slot);
        }
    }
    for spec in desired {
        if spec.agent_type == "pmm_agent" || spec.agent_type.starts_with("external") {
            continue;
        }
        let now = Instant::now();
        let slot = slots.entry(spec.agent_id.clone()).or_insert_with(|| Slot {
            spec: spec.clone(),
            child: None,
            port: 0,
            path: String::new(),
            failures: 0,
            not_before: now,
            up_since: now,
        });
        slot.spec = spec.clone();
    }
}

fn stop(mut slot: Slot) {
    if let Some(child) = slot.child.as_mut() {
        let _ = child.kill();
        let _ = child.wait();
    }
}

/// The port range and what is given out of it already, whether or not a child listens there yet.
struct Ports<'a> {
    config: &'a Config,
    taken: Vec<u16>,
}

impl Ports<'_> {
    /// The first port that nobody has.
    fn next(&mut self) -> Option<u16> {
        let port = (self.config.port_min..=self.config.port_max)
            .find(|port| !self.taken.contains(port) && TcpListener::bind(("127.0.0.1", *port)).is_ok())?;
        self.taken.push(port);
        Some(port)
    }
}

fn drive(slot: &mut Slot, ports: &mut Ports<'_>, shared: &Shared) {
    if qan::is_builtin(&slot.spec.agent_type) {
        return;
    }
    if let Some(child) = slot.child.as_mut() {
        match child.try_wait() {
            Ok(None) => {
                if slot.up_since.elapsed() > Duration::from_secs(10) {
                    slot.failures = 0;
                }
                return;
            }
            ended => {
                out::log(
                    "WARN",
                    COMPONENT,
                    &format!("{} {} ended: {ended:?}", slot.spec.agent_type, slot.spec.agent_id),
                );
                slot.child = None;
                postpone(slot);
            }
        }
    }
    if Instant::now() < slot.not_before {
        return;
    }
    let Some(port) = ports.next() else {
        out::log("ERRO", COMPONENT, "no free port in the configured range");
        postpone(slot);
        return;
    };
    match start(slot, ports.config, shared, port) {
        Ok(child) => {
            out::log(
                "INFO",
                COMPONENT,
                &format!(
                    "Started {} {} as PID {} from {}.",
                    slot.spec.agent_type,
                    slot.spec.agent_id,
                    child.id(),
                    slot.path
                ),
            );
            slot.child = Some(child);
            slot.port = port;
            slot.up_since = Instant::now();
        }
        Err(e) => {
            out::log(
                "ERRO",
                COMPONENT,
                &format!("cannot start {} from {:?}: {e}", slot.spec.agent_type, slot.path),
            );
            postpone(slot);
        }
    }
}

fn postpone(slot: &mut Slot) {
    slot.failures += 1;
    slot.not_before = Instant::now() + Duration::from_secs(u64::from(slot.failures.min(10)));
}

fn path_key(agent_type: &str) -> &str {
    match agent_type {
        "azure_database_exporter" => "azure_exporter",
        "nomad_agent" => "nomad",
        "vm_agent" => "vmagent",
        other => other,
    }
}

fn start(slot: &mut Slot, config: &Config, shared: &Shared, port: u16) -> Result<Child, String> {
    let key = path_key(&slot.spec.agent_type).to_string();
    slot.path = config.path(&key).to_string();
    if slot.path.is_empty() {
        return Err(format!("this pmm-agent does not know {}", slot.spec.agent_type));
    }
    let dir = agent_dir(config, &slot.spec);
    std::fs::create_dir_all(&dir).map_err(|e| format!("mkdir {}: {e}", dir.display()))?;
    let mut command = Command::new(&slot.path);
    command
        .env_clear()
        .env("STANDIN_PARENT_PID", std::process::id().to_string())
        .stdin(Stdio::null());
    if key == "vmagent" {
        vmagent_arguments(&mut command, config, shared, port, &dir)?;
    } else {
        let base = config.path("paths_base");
        command.arg(format!("--web.listen-address=127.0.0.1:{port}"));
        if key == "node_exporter" {
            for (short, long) in [("hr", "high"), ("mr", "medium"), ("lr", "low")] {
                command.arg(format!("--collector.textfile.directory.{short}={base}/collectors/textfile-collector/{long}-resolution"));
            }
        }
        for database in ["mysql", "postgresql"] {
            if key
                == if database == "mysql" {
                    "mysqld_exporter"
                } else {
                    "postgres_exporter"
                }
            {
                for (short, long) in [("hr", "high"), ("mr", "medium"), ("lr", "low")] {
                    command.arg(format!("--collect.custom_query.{short}.directory={base}/collectors/custom-queries/{database}/{long}-resolution"));
                }
            }
        }
    }
    command.spawn().map_err(|e| e.to_string())
}

fn agent_dir(config: &Config, spec: &AgentSpec) -> PathBuf {
    let id = spec.agent_id.trim_start_matches("/agent_id/").replace('/', "_");
    Path::new(config.path("tempdir")).join(&spec.agent_type).join(id)
}

fn vmagent_arguments(
    command: &mut Command,
    config: &Config,
    shared: &Shared,
    port: u16,
    dir: &Path,
) -> Result<(), String> {
    let endpoint = endpoint(config, shared.release.is_v3()).ok_or("no server is configured")?;
    let scheme = if endpoint.tls { "https" } else { "http" };
    command
        .arg(format!(
            "-remoteWrite.url={scheme}://{}:{}/victoriametrics/api/v1/write",
            endpoint.host, endpoint.port
        ))
        .arg(format!(
            "-remoteWrite.tlsInsecureSkipVerify={}",
            endpoint.insecure
        ))
        .arg(format!(
            "-remoteWrite.tmpDataPath={}/vmagent-temp-dir",
            config.path("tempdir")
        ))
        .arg("-remoteWrite.maxDiskUsagePerURL=1073741824")
        .arg(format!("-promscrape.config={}/vmagentscrapecfg", dir.display()))
        .arg(format!("-httpListenAddr=127.0.0.1:{port}"))
        .env(
            "remoteWrite_authorization",
            endpoint.authorization.unwrap_or_default(),
        );
    Ok(())
}

fn publish(shared: &Shared, slots: &BTreeMap<String, Slot>, config: &Config) {
    let infos = slots.values().map(|slot| {
        let builtin = qan::is_builtin(&slot.spec.agent_type);
        let status = match &slot.child {
            _ if builtin => qan::status(&slot.spec, config.path("slowlog_file_prefix")),
            Some(_) if slot.up_since.elapsed() < Duration::from_millis(400) => "STARTING",
            Some(_) => "RUNNING",
            None => "WAITING",
        };
        let info = AgentInfo {
            agent_id: slot.spec.agent_id.clone(),
            agent_type: slot.spec.agent_type.clone(),
            status: status.into(),
            port: if slot.child.is_some() { slot.port } else { 0 },
            exec_path: slot.path.clone(),
        };
        (info.agent_id.clone(), info)
    });
    shared.lock().agents = infos.collect();
}

/// Tells vmagent what to scrape; the file is replaced only when it changes.
fn write_scrape(shared: &Shared, slots: &BTreeMap<String, Slot>, config: &Config, last: &mut String) {
    let Some(vmagent) = slots
        .values()
        .find(|s| path_key(&s.spec.agent_type) == "vmagent" && s.child.is_some())
    else {
        return;
    };
    let (node, resolutions) = {
        let inner = shared.lock();
        (inner.node.clone(), inner.resolutions)
    };
    let targets = slots
        .values()
        .filter(|s| s.child.is_some() && !qan::is_builtin(&s.spec.agent_type))
        .map(|s| Target {
            agent_id: s.spec.agent_id.clone(),
            agent_type: s.spec.agent_type.clone(),
            service_id: s.spec.service_id.clone(),
            service_name: s.spec.service_name.clone(),
            port: s.port,
        });
    let scrape = Scrape {
        node_id: node.0,
        node_name: node.1,
        hr: resolutions.hr,
        mr: resolutions.mr,
        lr: resolutions.lr,
        targets: targets.collect(),
    };
    let Ok(text) = serde_json::to_string_pretty(&scrape) else {
        return;
    };
    let path = agent_dir(config, &vmagent.spec).join("vmagentscrapecfg");
    if *last == text && path.exists() {
        return;
    }
    let temporary = path.with_extension("new");
    if std::fs::write(&temporary, &text)
        .and_then(|()| std::fs::rename(&temporary, &path))
        .is_ok()
    {
        *last = text;
    }
}
