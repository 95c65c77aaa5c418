//! As much of a PMM Server in a container as is needed to learn which release runs: its version over HTTPS, and an engine's socket that
//! knows the container and its image and refuses everything else.

use serde_json::{Value, json};
use std::io::{Read, Write};
use std::net::TcpListener;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

/// What was asked for, as `METHOD /path`.
type Requests = Arc<Mutex<Vec<String>>>;

/// Serves until the test ends.
pub struct FakePmm {
    pub url: String,
    /// Of the certificate, hex.
    pub fingerprint: String,
    /// The engine's socket.
    pub docker: PathBuf,
    requests: Requests,
}

impl FakePmm {
    pub fn start(scratch: &Path, version: &'static str) -> Self {
        let requests = Requests::default();
        let docker = scratch.join(format!("docker-{version}.sock"));
        let engine = UnixListener::bind(&docker).unwrap();
        let seen = requests.clone();
        std::thread::spawn(move || {
            for stream in engine.incoming() {
                let seen = seen.clone();
                std::thread::spawn(move || {
                    answer(stream.unwrap(), &seen, |path| docker_knows(path, version))
                });
            }
        });
        let (tls, fingerprint) = identity();
        let pmm = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("https://{}", pmm.local_addr().unwrap());
        let seen = requests.clone();
        std::thread::spawn(move || {
            for stream in pmm.incoming() {
                let (seen, tls) = (seen.clone(), tls.clone());
                std::thread::spawn(move || {
                    let connection = rustls::ServerConnection::new(tls).unwrap();
                    let stream = rustls::StreamOwned::new(connection, stream.unwrap());
                    answer(stream, &seen, |path| match path {
                        "/v1/version" => Some(json!({"version": version, "distribution_method": "DOCKER"})),
                        _ => inventory(path),
                    });
                });
            }
        });
        Self {
            url,
            fingerprint,
            docker,
            requests,
        }
    }

    /// Everything that was asked for so far.
    pub fn requests(&self) -> Vec<String> {
        self.requests.lock().unwrap().clone()
    }
}

fn identity() -> (Arc<rustls::ServerConfig>, String) {
    fleet_tls::install_default();
    let made = rcgen::generate_simple_self_signed(vec!["127.0.0.1".to_owned()]).unwrap();
    let leaf = made.cert.der().clone();
    let fingerprint = fleet_tls::identity::fingerprint_hex(&leaf);
    let key = rustls::pki_types::PrivatePkcs8KeyDer::from(made.signing_key.serialize_der());
    let config = rustls::ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(vec![leaf], key.into())
        .unwrap();
    (Arc::new(config), fingerprint)
}

/// One request of a connection: 200 with the document, or 404. A peer that goes away early is its own affair.
fn answer(mut stream: impl Read + Write, seen: &Requests, known: impl Fn(&str) -> Option<Value>) {
    let mut bytes = Vec::new();
    let mut part = [0u8; 4096];
    let head = loop {
        match stream.read(&mut part) {
            Ok(0) | Err(_) => return,
            Ok(length) => bytes.extend_from_slice(&part[..length]),
        }
        if let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
            break end;
        }
    };
    let text = String::from_utf8_lossy(&bytes[..head]).into_owned();
    let length: usize = text
        .lines()
        .filter_map(|line| line.split_once(':'))
        .find(|(name, _)| name.eq_ignore_ascii_case("content-length"))
        .map_or(0, |(_, length)| length.trim().parse().unwrap());
    while bytes.len() < head + 4 + length {
        match stream.read(&mut part) {
            Ok(0) | Err(_) => return,
            Ok(length) => bytes.extend_from_slice(&part[..length]),
        }
    }
    let mut words = text.split_whitespace();
    let (method, path) = (words.next().unwrap(), words.next().unwrap());
    seen.lock().unwrap().push(format!("{method} {path}"));
    let (status, document) = match known(path) {
        // PMM 2 lists by POST.
        Some(document) if method == "GET" || path.ends_with("/List") => ("200 OK", document),
        _ => ("404 Not Found", json!({"message": "there is no such thing here"})),
    };
    let body = document.to_string();
    let _ = write!(
        stream,
        "HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
        body.len()
    );
    let _ = stream.flush();
}

/// Three clients of PMM 2: two of production in one cluster, one of staging.
fn inventory(path: &str) -> Option<Value> {
    let hosts = [
        ("db1", "prod", "orders"),
        ("db2", "prod", "orders"),
        ("db3", "staging", ""),
    ];
    match path {
        "/v1/inventory/Nodes/List" => {
            let nodes: Vec<Value> = hosts
                .iter()
                .map(|(name, _, _)| {
                    json!({"node_id": format!("/node_id/{name}"), "node_name": name, "address": "10.0.0.1"})
                })
                .collect();
            Some(json!({ "generic": nodes }))
        }
        "/v1/inventory/Services/List" => {
            let services: Vec<Value> = hosts
                .iter()
                .map(|(name, environment, cluster)| {
                    json!({
                        "service_id": format!("/service_id/{name}"), "service_name": format!("mysql-{name}"),
                        "node_id": format!("/node_id/{name}"), "address": "127.0.0.1", "port": 3306,
                        "environment": environment, "cluster": cluster,
                    })
                })
                .collect();
            Some(json!({ "mysql": services }))
        }
        "/v1/inventory/Agents/List" => {
            let agents: Vec<Value> = hosts
                .iter()
                .map(|(name, _, _)| {
                    json!({
                        "agent_id": format!("/agent_id/{name}"),
                        "runs_on_node_id": format!("/node_id/{name}"), "connected": true,
                    })
                })
                .collect();
            Some(json!({ "pmm_agent": agents }))
        }
        _ => None,
    }
}

fn docker_knows(path: &str, version: &str) -> Option<Value> {
    let path = path.split('?').next().unwrap_or(path);
    if path.ends_with("/version") {
        return Some(json!({"Version": "27.5.1", "ApiVersion": "1.47", "MinAPIVersion": "1.24"}));
    }
    if path.ends_with("/containers/pmm-server/json") {
        return Some(json!({
            "Id": "c0ffee", "Name": "/pmm-server", "Image": "sha256:1111",
            "State": {"Running": true, "StartedAt": "2026-01-01T00:00:00Z"},
            "Config": {"Image": format!("percona/pmm-server:{version}"), "Env": []},
            "HostConfig": {"RestartPolicy": {"Name": "always"}},
            "Mounts": [{"Type": "volume", "Name": "pmm-data", "Destination": "/srv", "RW": true}],
            "NetworkSettings": {"Ports": {}, "Networks": {"bridge": {}}},
        }));
    }
    path.ends_with("/images/sha256:1111/json").then(|| {
        json!({
            "Id": "sha256:1111", "RepoDigests": [],
            "Config": {"Env": [], "Labels": {"org.opencontainers.image.version": version}},
        })
    })
}
