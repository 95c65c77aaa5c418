//! `vmagent`: scrapes the exporters, sends samples to the server, keeps them on disk while it is away.

use super::http::{Endpoint, parse_server_url};
use super::release::Release;
use super::{clock, die_with_parent, exporter::value, fault, out};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

/// Bytes of a batch on disk after which a new one is begun.
const BATCH_BYTES: usize = 1 << 20;

/// What to scrape, written by `pmm-agent`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Scrape {
    /// Node of every sample.
    pub node_id: String,
    /// Its name.
    pub node_name: String,
    /// High resolution in seconds.
    pub hr: u64,
    /// Medium resolution in seconds.
    pub mr: u64,
    /// Low resolution in seconds.
    pub lr: u64,
    /// The exporters.
    pub targets: Vec<Target>,
}

/// One exporter.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Target {
    /// Agent id.
    pub agent_id: String,
    /// Lower snake type.
    pub agent_type: String,
    /// Service, empty for the node's own.
    pub service_id: String,
    /// Its name.
    pub service_name: String,
    /// Port on loopback.
    pub port: u16,
}

/// Runs until stopped.
pub fn main(release: &Release, args: &[String]) -> u8 {
    if args.iter().any(|a| a.trim_start_matches('-') == "version") {
        out::line(&format!("vmagent-{}", release.version));
        return 0;
    }
    die_with_parent();
    let Some((endpoint, path)) = endpoint(args) else {
        out::error("vmagent: -remoteWrite.url is missing or malformed");
        return 1;
    };
    let queue = PathBuf::from(
        value(args, "remoteWrite.tmpDataPath").unwrap_or_else(|| "vmagent-remotewrite-data".into()),
    );
    let limit = value(args, "remoteWrite.maxDiskUsagePerURL")
        .and_then(|v| v.parse().ok())
        .unwrap_or(1 << 30);
    if let Err(e) = std::fs::create_dir_all(&queue) {
        out::error(&format!("vmagent: cannot create {}: {e}", queue.display()));
        return 1;
    }
    let config = PathBuf::from(value(args, "promscrape.config").unwrap_or_default());
    let listen = value(args, "httpListenAddr").unwrap_or_default();
    thread::spawn(move || own_metrics(&listen));
    let release = release.clone();
    let sender = Sender {
        release,
        endpoint,
        path,
        queue: queue.clone(),
        limit,
    };
    thread::spawn(move || sender.run());
    scrape_loop(&config, &queue)
}

fn endpoint(args: &[String]) -> Option<(Endpoint, String)> {
    let url = value(args, "remoteWrite.url")?;
    let (address, _, _, tls) = parse_server_url(&url).ok()?;
    let (host, port) = address.rsplit_once(':')?;
    let insecure = value(args, "remoteWrite.tlsInsecureSkipVerify").is_some_and(|v| v == "true");
    let authorization = std::env::var("remoteWrite_authorization")
        .ok()
        .filter(|a| !a.is_empty());
    let path = format!("/{}", url.splitn(4, '/').nth(3).unwrap_or_default());
    Some((
        Endpoint {
            host: host.into(),
            port: port.parse().ok()?,
            tls,
            insecure,
            authorization,
        },
        path,
    ))
}

fn own_metrics(listen: &str) {
    if let Ok(listener) = std::net::TcpListener::bind(listen) {
        for tcp in listener.incoming().flatten() {
            if super::http::read_request(&tcp).is_ok() {
                let _ = super::http::respond(&tcp, "200 OK", "text/plain", b"vmagent_up 1\n");
            }
        }
    }
}

fn scrape_loop(config: &Path, queue: &Path) -> u8 {
    let mut due: BTreeMap<(String, &'static str), u64> = BTreeMap::new();
    loop {
        let scrape: Scrape = std::fs::read(config)
            .ok()
            .and_then(|b| serde_json::from_slice(&b).ok())
            .unwrap_or_default();
        let now = clock::unix_ms();
        let mut text = String::new();
        for target in &scrape.targets {
            for (resolution, seconds) in [("hr", scrape.hr), ("mr", scrape.mr), ("lr", scrape.lr)] {
                let next = due.entry((target.agent_id.clone(), resolution)).or_insert(0);
                if now < *next {
                    continue;
                }
                *next = now + seconds.max(1) * 1000;
                sample(&scrape, target, resolution, now, &mut text);
            }
        }
        if !text.is_empty()
            && let Err(e) = store(queue, now, &text)
        {
            out::log("ERRO", "vmagent", &format!("cannot keep samples: {e}"));
        }
        clock::pause(Duration::from_millis(200));
    }
}

fn sample(scrape: &Scrape, target: &Target, resolution: &str, now: u64, text: &mut String) {
    let endpoint = Endpoint {
        host: "127.0.0.1".into(),
        port: target.port,
        tls: false,
        insecure: false,
        authorization: None,
    };
    let page = endpoint
        .request(
            "GET",
            &format!("/metrics?resolution={resolution}"),
            "text/plain",
            b"",
        )
        .ok()
        .filter(|a| a.status == 200);
    let labels = labels(scrape, target, resolution);
    text.push_str(&format!("up{{{labels}}} {} {now}\n", u8::from(page.is_some())));
    let body = page
        .map(|p| String::from_utf8_lossy(&p.body).into_owned())
        .unwrap_or_default();
    for line in body.lines() {
        if let Some(line) = relabel(line, &labels, now) {
            text.push_str(&line);
            text.push('\n');
        }
    }
}

fn labels(scrape: &Scrape, target: &Target, resolution: &str) -> String {
    let slug = target.agent_id.trim_start_matches('/').replace('/', "_");
    let mut pairs = vec![
        ("node_id", scrape.node_id.clone()),
        ("node_name", scrape.node_name.clone()),
        ("agent_id", target.agent_id.clone()),
        ("agent_type", target.agent_type.clone()),
        ("instance", target.agent_id.clone()),
        ("job", format!("{}_{slug}_{resolution}", target.agent_type)),
    ];
    if !target.service_id.is_empty() {
        pairs.push(("service_id", target.service_id.clone()));
        pairs.push(("service_name", target.service_name.clone()));
    }
    let quoted: Vec<String> = pairs
        .iter()
        .map(|(k, v)| format!("{k}=\"{}\"", v.replace('\\', "\\\\").replace('"', "\\\"")))
        .collect();
    quoted.join(",")
}

/// Adds labels and a time to `name{own="x"} value`.
fn relabel(line: &str, labels: &str, now: u64) -> Option<String> {
    if line.is_empty() || line.starts_with('#') {
        return None;
    }
    let (series, number) = line.rsplit_once(' ')?;
    number.parse::<f64>().ok()?;
    Some(match series.split_once('{') {
        Some((name, rest)) => format!("{name}{{{},{labels}}} {number} {now}", rest.trim_end_matches('}')),
        None => format!("{series}{{{labels}}} {number} {now}"),
    })
}

/// Appends to the newest batch on disk, or begins a new one. A batch becomes visible to the sender only complete.
fn store(queue: &Path, now: u64, text: &str) -> std::io::Result<()> {
    let temporary = queue.join("batch.new");
    std::fs::write(&temporary, text)?;
    std::fs::rename(temporary, queue.join(format!("{now:016}.batch")))
}

/// Sends batches, oldest first.
struct Sender {
    release: Release,
    endpoint: Endpoint,
    path: String,
    queue: PathBuf,
    limit: u64,
}

impl Sender {
    fn run(&self) {
        let mut pause = 200;
        loop {
            let batches = self.batches();
            let limit = if fault::asked(&self.release, "no-samples") {
                0
            } else {
                self.limit
            };
            trim(&batches, limit);
            let batches = self.batches();
            match self.send(&batches) {
                Ok(()) => pause = 200,
                Err(e) => {
                    out::log(
                        "WARN",
                        "vmagent",
                        &format!(
                            "couldn't send samples to {}:{}: {e}; they are kept",
                            self.endpoint.host, self.endpoint.port
                        ),
                    );
                    pause = (pause * 2).min(2000);
                }
            }
            clock::pause(Duration::from_millis(pause));
        }
    }

    fn batches(&self) -> Vec<PathBuf> {
        let mut found: Vec<PathBuf> = std::fs::read_dir(&self.queue)
            .into_iter()
            .flatten()
            .flatten()
            .map(|e| e.path())
            .filter(|p| p.extension().is_some_and(|x| x == "batch"))
            .collect();
        found.sort();
        found
    }

    fn send(&self, batches: &[PathBuf]) -> Result<(), String> {
        let mut from = 0;
        while from < batches.len() {
            let mut body = Vec::new();
            let mut to = from;
            while to < batches.len() && (to == from || body.len() < BATCH_BYTES) {
                body.extend(std::fs::read(&batches[to]).unwrap_or_default());
                to += 1;
            }
            let answer = self
                .endpoint
                .request("POST", &self.path, "text/plain", &body)
                .map_err(|e| e.to_string())?;
            if !matches!(answer.status, 200 | 204) {
                return Err(format!("unexpected status code {}", answer.status));
            }
            for batch in &batches[from..to] {
                let _ = std::fs::remove_file(batch);
            }
            from = to;
        }
        Ok(())
    }
}

/// Drops the oldest batches once the buffer is full.
fn trim(batches: &[PathBuf], limit: u64) {
    let size = |p: &PathBuf| std::fs::metadata(p).map_or(0, |m| m.len());
    let mut total: u64 = batches.iter().map(size).sum();
    for batch in batches {
        if total <= limit {
            break;
        }
        total -= size(batch);
        let _ = std::fs::remove_file(batch);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn labels_are_added_to_both_forms() {
        assert_eq!(relabel("a 1", "x=\"y\"", 5).unwrap(), "a{x=\"y\"} 1 5");
        assert_eq!(
            relabel("a{b=\"c\"} 1.5", "x=\"y\"", 5).unwrap(),
            "a{b=\"c\",x=\"y\"} 1.5 5"
        );
        assert_eq!(relabel("# HELP", "", 5), None);
        assert_eq!(relabel("a b", "", 5), None);
    }

    #[test]
    fn the_job_ends_with_the_resolution() {
        let target = Target {
            agent_id: "/agent_id/1".into(),
            agent_type: "mysqld_exporter".into(),
            ..Target::default()
        };
        assert!(labels(&Scrape::default(), &target, "mr").contains("job=\"mysqld_exporter_agent_id_1_mr\""));
    }
}
