//! A proxy on the Docker socket that belongs to the lab: it can put another volume under a new container and hold an answer back, so that
//! a fault happens at an exact request without any hook in the product.

use anyhow::{Context, Result};
use serde_json::Value;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

const ENGINE: &str = "/var/run/docker.sock";

/// What the proxy does to matching requests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Rule {
    /// Containers created from one of these images, on a volume named `wanted` at `/srv`, get the volume `given` instead.
    SwapVolume {
        /// Image ids and references.
        images: Vec<String>,
        /// The volume the request names.
        wanted: String,
        /// The volume the container gets.
        given: String,
    },
    /// The start of the container that was created with this text in its name is passed on, but its answer never arrives.
    HoldStart {
        /// Text in the container's name.
        text: String,
    },
}

/// A running proxy.
pub struct Proxy {
    /// Its socket.
    pub socket: PathBuf,
    shared: Arc<Shared>,
}

struct Shared {
    rule: Mutex<Option<Rule>>,
    hit: Mutex<u32>,
    armed: AtomicBool,
}

impl Proxy {
    /// Listens on a socket; lives as long as the process.
    pub fn start(socket: &Path) -> Result<Self> {
        let _ = fs_err::remove_file(socket);
        let listener =
            UnixListener::bind(socket).with_context(|| format!("listening on {}", socket.display()))?;
        let shared = Arc::new(Shared {
            rule: Mutex::new(None),
            hit: Mutex::new(0),
            armed: AtomicBool::new(false),
        });
        let accepting = Arc::clone(&shared);
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let shared = Arc::clone(&accepting);
                std::thread::spawn(move || drop(serve(&client, &shared)));
            }
        });
        Ok(Self {
            socket: socket.to_owned(),
            shared,
        })
    }

    /// Sets the rule and forgets earlier hits.
    pub fn set(&self, rule: Option<Rule>) {
        *lock(&self.shared.hit) = 0;
        *lock(&self.shared.rule) = rule;
    }

    /// How often the rule applied.
    pub fn hits(&self) -> u32 {
        *lock(&self.shared.hit)
    }
}

impl Shared {
    /// Keeps the lie of a swapped volume in the answers, so that only what is inside the volume can give it away. Both names have the same
    /// length, so nothing else in the answer moves.
    fn lie(&self, answer: &mut [u8]) {
        let Some(Rule::SwapVolume { wanted, given, .. }) = &*lock(&self.rule) else {
            return;
        };
        let (wanted, given) = (wanted.as_bytes(), given.as_bytes());
        if wanted.len() != given.len() || given.len() > answer.len() {
            return;
        }
        for start in 0..=answer.len() - given.len() {
            if &answer[start..start + given.len()] == given {
                answer[start..start + given.len()].copy_from_slice(wanted);
            }
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

fn serve(client: &UnixStream, shared: &Arc<Shared>) -> Result<()> {
    let engine = UnixStream::connect(ENGINE)?;
    let held = Arc::new(AtomicBool::new(false));
    let answers = std::thread::spawn({
        let (mut from, mut to, held) = (engine.try_clone()?, client.try_clone()?, Arc::clone(&held));
        let shared = Arc::clone(shared);
        move || {
            let mut buffer = [0_u8; 64 * 1024];
            while let Ok(count) = from.read(&mut buffer) {
                let mut answer = buffer[..count].to_vec();
                shared.lie(&mut answer);
                if count == 0 || held.load(Ordering::SeqCst) || to.write_all(&answer).is_err() {
                    break;
                }
            }
            if !held.load(Ordering::SeqCst) {
                let _ = to.shutdown(std::net::Shutdown::Write);
            }
        }
    });
    let mut requests = BufReader::new(client.try_clone()?);
    let mut to = engine.try_clone()?;
    while let Some(mut request) = Request::read(&mut requests)? {
        apply(&mut request, shared, &held);
        request.write(&mut to)?;
        if request.upgraded {
            std::io::copy(&mut requests, &mut to)?;
            break;
        }
    }
    let _ = engine.shutdown(std::net::Shutdown::Write);
    let _ = answers.join();
    Ok(())
}

fn apply(request: &mut Request, shared: &Shared, held: &AtomicBool) {
    let hit = match &*lock(&shared.rule) {
        Some(Rule::SwapVolume {
            images,
            wanted,
            given,
        }) => request.swap_volume(images, wanted, given),
        Some(Rule::HoldStart { text }) => {
            if request.posts("/containers/create") && request.posts(text) {
                shared.armed.store(true, Ordering::SeqCst);
            }
            let hold = request.posts("/start") && shared.armed.swap(false, Ordering::SeqCst);
            if hold {
                held.store(true, Ordering::SeqCst);
            }
            hold
        }
        None => false,
    };
    if hit {
        *lock(&shared.hit) += 1;
    }
}

/// One HTTP/1.1 request, as much of it as the proxy needs.
struct Request {
    head: Vec<String>,
    body: Vec<u8>,
    upgraded: bool,
}

impl Request {
    fn read(from: &mut impl BufRead) -> Result<Option<Self>> {
        let mut head = Vec::new();
        loop {
            let mut line = String::new();
            if from.read_line(&mut line)? == 0 {
                return Ok(None);
            }
            let line = line.trim_end().to_owned();
            if line.is_empty() {
                break;
            }
            head.push(line);
        }
        let mut request = Self {
            head,
            body: Vec::new(),
            upgraded: false,
        };
        request.upgraded = request.header("upgrade").is_some();
        if let Some(length) = request
            .header("content-length")
            .and_then(|text| text.parse().ok())
        {
            request.body = vec![0; length];
            from.read_exact(&mut request.body)?;
        } else if request.header("transfer-encoding").is_some() {
            request.body = read_chunks(from)?;
            request
                .head
                .retain(|line| !line.to_ascii_lowercase().starts_with("transfer-encoding:"));
            request
                .head
                .push(format!("content-length: {}", request.body.len()));
        }
        Ok(Some(request))
    }

    fn write(&self, to: &mut impl Write) -> Result<()> {
        let mut bytes = self.head.join("\r\n").into_bytes();
        bytes.extend_from_slice(b"\r\n\r\n");
        bytes.extend_from_slice(&self.body);
        Ok(to.write_all(&bytes)?)
    }

    fn header(&self, name: &str) -> Option<String> {
        self.head.iter().skip(1).find_map(|line| {
            let (key, value) = line.split_once(':')?;
            key.eq_ignore_ascii_case(name).then(|| value.trim().to_owned())
        })
    }

    fn posts(&self, text: &str) -> bool {
        self.head
            .first()
            .is_some_and(|line| line.starts_with("POST") && line.contains(text))
    }

    fn swap_volume(&mut self, images: &[String], wanted: &str, given: &str) -> bool {
        let creates = self
            .head
            .first()
            .is_some_and(|line| line.contains("/containers/create"));
        let Ok(mut body) = serde_json::from_slice::<Value>(&self.body) else {
            return false;
        };
        let image = body["Image"].as_str().unwrap_or_default().to_owned();
        if !creates || !images.contains(&image) || !swap(&mut body["HostConfig"], wanted, given) {
            return false;
        }
        self.body = body.to_string().into_bytes();
        self.head
            .retain(|line| !line.to_ascii_lowercase().starts_with("content-length:"));
        self.head.push(format!("content-length: {}", self.body.len()));
        true
    }
}

fn swap(host: &mut Value, wanted: &str, given: &str) -> bool {
    let mut swapped = false;
    for bind in host["Binds"].as_array_mut().into_iter().flatten() {
        if bind
            .as_str()
            .is_some_and(|text| text.starts_with(&format!("{wanted}:/srv")))
        {
            *bind = Value::from(bind.as_str().unwrap_or_default().replacen(wanted, given, 1));
            swapped = true;
        }
    }
    for mount in host["Mounts"].as_array_mut().into_iter().flatten() {
        if mount["Source"] == *wanted && mount["Target"] == "/srv" {
            mount["Source"] = Value::from(given);
            swapped = true;
        }
    }
    swapped
}

fn read_chunks(from: &mut impl BufRead) -> Result<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let mut line = String::new();
        from.read_line(&mut line)?;
        let size = usize::from_str_radix(line.trim().split(';').next().unwrap_or_default(), 16)
            .context("chunk size")?;
        let start = body.len();
        body.resize(start + size, 0);
        from.read_exact(&mut body[start..])?;
        let mut end = String::new();
        from.read_line(&mut end)?;
        if size == 0 {
            return Ok(body);
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn only_the_named_container_gets_the_other_volume() {
        let body = r#"{"Image":"img:3","HostConfig":{"Mounts":[{"Source":"data","Target":"/srv"},{"Source":"data","Target":"/x"}]}}"#;
        let text = format!(
            "POST /v1.41/containers/create?name=a HTTP/1.1\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        let mut request = Request::read(&mut text.as_bytes()).unwrap().unwrap();
        assert!(!request.swap_volume(&["other".into()], "data", "empty"));
        assert!(request.swap_volume(&["img:3".into()], "data", "empty"));
        let sent: Value = serde_json::from_slice(&request.body).unwrap();
        assert_eq!(sent["HostConfig"]["Mounts"][0]["Source"], "empty");
        assert_eq!(sent["HostConfig"]["Mounts"][1]["Source"], "data");
        assert_eq!(
            request.header("content-length").unwrap(),
            request.body.len().to_string()
        );
    }

    #[test]
    fn chunked_bodies_are_passed_on_whole() {
        let text = "PUT /x HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nabcd\r\n2\r\nef\r\n0\r\n\r\n";
        let request = Request::read(&mut text.as_bytes()).unwrap().unwrap();
        assert_eq!(request.body, b"abcdef");
        assert_eq!(request.header("content-length").unwrap(), "6");
    }
}
