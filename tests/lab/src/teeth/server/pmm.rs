//! A PMM Server of a case, read from inside its container with curl, so that no port has to be published.

use crate::wait::{self, Probe};
use crate::{cmd, docker};
use anyhow::{Context, Result, bail};
use serde_json::Value;
use std::io::Write as _;

/// The administrator's password in the seeds.
pub const PASSWORD: &str = "teeth-Pa55";

/// Whom a request comes from.
#[derive(Clone, Copy)]
pub enum Auth<'a> {
    /// Nobody.
    Nobody,
    /// The administrator of the seeds.
    Admin,
    /// A user and a password.
    Basic(&'a str, &'a str),
    /// An API key or a token.
    Bearer(&'a str),
}

/// The administrator of a new installation.
pub const FRESH: Auth<'static> = Auth::Basic("admin", "admin");

/// An answer, whatever its status.
#[derive(Clone, Debug)]
pub struct Answer {
    /// HTTP status, 0 if nobody answered.
    pub status: u16,
    /// Body, null if it is not JSON.
    pub json: Value,
}

/// A PMM Server in a container.
#[derive(Clone)]
pub struct Pmm {
    /// The container's name.
    pub name: String,
}

impl Pmm {
    /// The server in a container.
    pub fn named(name: &str) -> Self {
        Self {
            name: name.to_owned(),
        }
    }

    /// `docker inspect`.
    pub fn inspect(&self) -> Result<Value> {
        docker::inspect("container", &self.name)?
            .with_context(|| format!("there is no container {}", self.name))
    }

    /// What the container printed.
    pub fn log(&self) -> Result<String> {
        Ok(docker::attempt(&["logs", &self.name])?.all())
    }

    /// A program's log; from a stopped container as well.
    pub fn log_of(&self, program: &str) -> Result<String> {
        self.read(&format!("/srv/logs/{program}.log"))
    }

    /// Reads a file through `docker cp`, which works whatever state the container is in.
    pub fn read(&self, path: &str) -> Result<String> {
        let done = docker::attempt(&["cp", &format!("{}:{path}", self.name), "-"])?;
        // A tar archive of one file: one block of head, then the text, then padding.
        let body = done.stdout.get(512..).unwrap_or_default();
        Ok(body.trim_end_matches('\0').to_owned())
    }

    /// Writes a file through `docker cp`, before the container's first start if need be.
    pub fn put(&self, path: &str, text: &str) -> Result<()> {
        let mut file = tempfile()?;
        file.1.write_all(text.as_bytes())?;
        let copied = docker::docker([
            "cp",
            &file.0.display().to_string(),
            &format!("{}:{path}", self.name),
        ]);
        fs_err::remove_file(&file.0)?;
        copied.map(drop)
    }

    /// Runs a program in the container as root, which must succeed.
    pub fn exec(&self, argv: &[&str]) -> Result<String> {
        let mut args = vec!["exec", "--user", "0", &self.name];
        args.extend(argv);
        cmd::must("docker", args)
    }

    /// Stops it as it needs to be stopped.
    pub fn stop(&self) -> Result<()> {
        docker::docker(["stop", "--time", "60", &self.name]).map(drop)
    }

    /// Removes it, its named volume stays.
    pub fn remove(&self) -> Result<()> {
        docker::docker(["rm", "--force", "--volumes", &self.name]).map(drop)
    }

    fn base(&self) -> Result<&'static str> {
        let exposed = &self.inspect()?["Config"]["ExposedPorts"];
        Ok(if exposed["8443/tcp"].is_object() {
            "https://127.0.0.1:8443"
        } else {
            "https://127.0.0.1:443"
        })
    }

    /// One request with everything open.
    pub fn ask(&self, method: &str, path: &str, body: Option<&str>, auth: Auth<'_>) -> Result<Answer> {
        let url = format!("{}{path}", self.base()?);
        let mut argv = vec![
            "curl",
            "-sk",
            "--http1.1",
            "--max-time",
            "10",
            "-X",
            method,
            "-w",
            "\n%{http_code}",
            &url,
        ];
        let secret = match auth {
            Auth::Nobody => None,
            Auth::Admin => Some(("-u", format!("admin:{PASSWORD}"))),
            Auth::Basic(user, password) => Some(("-u", format!("{user}:{password}"))),
            Auth::Bearer(key) => Some(("-H", format!("Authorization: Bearer {key}"))),
        };
        if let Some((option, value)) = &secret {
            argv.extend([*option, value]);
        }
        if let Some(body) = body {
            argv.extend(["-H", "Content-Type: application/json", "-d", body]);
        }
        let done = docker::exec(&self.name, &argv)?;
        let (text, status) = done
            .stdout
            .trim_end()
            .rsplit_once('\n')
            .unwrap_or(("", done.stdout.trim_end()));
        Ok(Answer {
            status: status.parse().unwrap_or(0),
            json: serde_json::from_str(text).unwrap_or_default(),
        })
    }

    /// GET as administrator, which must succeed.
    pub fn get(&self, path: &str) -> Result<Value> {
        self.must("GET", path, None)
    }

    /// POST as administrator, which must succeed.
    pub fn post(&self, path: &str, body: &Value) -> Result<Value> {
        self.must("POST", path, Some(body))
    }

    /// Any method as administrator, which must succeed.
    pub fn must(&self, method: &str, path: &str, body: Option<&Value>) -> Result<Value> {
        let answer = self.ask(
            method,
            path,
            body.map(ToString::to_string).as_deref(),
            Auth::Admin,
        )?;
        if !(200..300).contains(&answer.status) {
            bail!(
                "{}: {method} {path} answered {}: {}",
                self.name,
                answer.status,
                answer.json
            );
        }
        Ok(answer.json)
    }

    /// Status of a client's attempt to connect.
    pub fn connect(&self, path: &str, id: &str, auth: Auth<'_>) -> Result<u16> {
        let url = format!("{}{path}", self.base()?);
        let id = format!("Pmm-Agent-Id: {id}");
        let mut argv = vec![
            "curl",
            "-ski",
            "--http1.1",
            "--max-time",
            "2",
            "-X",
            "POST",
            "-H",
            "Connection: Upgrade",
        ];
        argv.extend(["-H", "Upgrade: pmm-agent", "-H", &id, &url]);
        let secret = match auth {
            Auth::Admin => Some(("-u", format!("admin:{PASSWORD}"))),
            Auth::Basic(user, password) => Some(("-u", format!("{user}:{password}"))),
            Auth::Bearer(key) => Some(("-H", format!("Authorization: Bearer {key}"))),
            Auth::Nobody => None,
        };
        if let Some((option, value)) = &secret {
            argv.extend([*option, value]);
        }
        let done = docker::exec(&self.name, &argv)?;
        let status = done
            .stdout
            .split_whitespace()
            .nth(1)
            .and_then(|word| word.parse().ok());
        status.with_context(|| format!("no answer to the connection: {}", done.all()))
    }

    /// Status of the readiness probe, through nginx.
    pub fn readiness(&self) -> Result<u16> {
        Ok(self.ask("GET", "/v1/readyz", None, Auth::Nobody)?.status)
    }

    /// Waits until it is ready and its start is over: the last thing that the start does is to restart Grafana.
    pub fn wait_ready(&self, seconds: u64) -> Result<()> {
        let waited = wait::until(&format!("{} to be ready", self.name), seconds, || {
            let status = self.readiness()?;
            if status != 200 {
                return Ok(Probe::NotYet(format!("status {status}")));
            }
            let programs = docker::exec(&self.name, &["supervisorctl", "status"])?.stdout;
            let busy = programs
                .lines()
                .any(|line| line.contains("init") && line.contains("RUNNING"));
            Ok(if busy || self.readiness()? != 200 {
                Probe::NotYet(programs)
            } else {
                Probe::Ready(())
            })
        });
        waited.with_context(|| {
            format!(
                "its log ends with:\n{}",
                cmd::tail(&self.log().unwrap_or_default(), 15)
            )
        })
    }

    /// Waits until a program's log has a text at least so many times.
    pub fn wait_log(&self, program: &str, text: &str, times: usize, seconds: u64) -> Result<()> {
        wait::until(
            &format!("{times} × \"{text}\" in {program}.log of {}", self.name),
            seconds,
            || {
                let log = self.log_of(program)?;
                Ok(if log.matches(text).count() >= times {
                    Probe::Ready(())
                } else {
                    Probe::NotYet(cmd::tail(&log, 5))
                })
            },
        )
    }

    /// Waits until Docker has restarted it at least so many times.
    pub fn wait_restarts(&self, times: u64, seconds: u64) -> Result<()> {
        wait::until(
            &format!("{} to be restarted {times} times", self.name),
            seconds,
            || {
                let seen = self.inspect()?["RestartCount"].as_u64().unwrap_or(0);
                Ok(if seen >= times {
                    Probe::Ready(())
                } else {
                    Probe::NotYet(format!("{seen} restarts"))
                })
            },
        )
    }

    /// Waits for a state of the container's health check.
    pub fn wait_health(&self, wanted: &str, seconds: u64) -> Result<()> {
        wait::until(&format!("{} to be {wanted}", self.name), seconds, || {
            let seen = self.health()?;
            Ok(if seen == wanted {
                Probe::Ready(())
            } else {
                Probe::NotYet(seen)
            })
        })
    }

    /// The container's health.
    pub fn health(&self) -> Result<String> {
        Ok(self.inspect()?["State"]["Health"]["Status"]
            .as_str()
            .unwrap_or_default()
            .to_owned())
    }

    /// The release that the API reports.
    pub fn version(&self) -> Result<String> {
        Ok(self.get("/v1/version")?["version"]
            .as_str()
            .unwrap_or_default()
            .to_owned())
    }

    /// Names of the services in the inventory, the server's own left out.
    pub fn services(&self, auth: Auth<'_>) -> Result<Vec<String>> {
        let v3 = self.base()?.ends_with("8443");
        let (method, path, body) = if v3 {
            ("GET", "/v1/inventory/services", None)
        } else {
            ("POST", "/v1/inventory/Services/List", Some("{}"))
        };
        let answer = self.ask(method, path, body, auth)?;
        if answer.status != 200 {
            bail!("{path} answered {}", answer.status);
        }
        let lists = answer.json.as_object().cloned().unwrap_or_default();
        let all = lists.values().filter_map(Value::as_array).flatten();
        let mut names: Vec<String> = all
            .filter_map(|service| service["service_name"].as_str().map(str::to_owned))
            .collect();
        names.retain(|name| !name.starts_with("pmm-server"));
        names.sort();
        Ok(names)
    }
}

fn tempfile() -> Result<(std::path::PathBuf, fs_err::File)> {
    use std::sync::atomic::{AtomicU32, Ordering};
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let name = format!(
        "fleetlab-teeth-{}-{}",
        std::process::id(),
        NEXT.fetch_add(1, Ordering::Relaxed)
    );
    let path = std::env::temp_dir().join(name);
    Ok((path.clone(), fs_err::File::create(path)?))
}
