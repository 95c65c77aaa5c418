//! `pmm-admin`: the command line of the client.

pub mod config;
pub mod list;
pub mod services;
pub mod status;
pub mod summary;

use super::flags::Flags;
use super::http::{Answer, Endpoint, authorization, parse_server_url};
use super::out;
use super::release::Release;
use serde_json::{Value, json};

const SWITCHES: [&str; 14] = [
    "json",
    "version",
    "help",
    "debug",
    "trace",
    "server-insecure-tls",
    "force",
    "skip-server",
    "pprof",
    "skip-connection-check",
    "disable-queryexamples",
    "tls",
    "tls-skip-verify",
    "expose-exporter",
];
const VALUES: [&str; 29] = [
    "server-url",
    "pmm-agent-listen-port",
    "wait",
    "filename",
    "metrics-mode",
    "custom-labels",
    "region",
    "az",
    "node-model",
    "agent-password",
    "disable-collectors",
    "username",
    "password",
    "host",
    "port",
    "socket",
    "service-name",
    "node-id",
    "service-id",
    "pmm-agent-id",
    "environment",
    "cluster",
    "replication-set",
    "query-source",
    "size-slow-logs",
    "database",
    "authentication-database",
    "paths-base",
    "service-type",
];

/// What every command needs.
pub struct Context {
    /// Release this program plays.
    pub release: Release,
    /// Parsed command line.
    pub flags: Flags,
}

/// What a command prints on success, as text and as JSON.
pub struct Printed {
    /// For people.
    pub text: String,
    /// For `--json`.
    pub json: Value,
}

/// Runs one command: 0, or 1 on any error; `config` passes the code of setup on.
pub fn main(release: &Release, args: &[String]) -> u8 {
    let json = args.iter().any(|a| a == "--json");
    if args.iter().any(|a| a == "--version") {
        out::line(&if json {
            release.json("pmm-admin")
        } else {
            release.text("pmm-admin")
        });
        return 0;
    }
    let mut flags = match Flags::parse(args, &SWITCHES, &VALUES) {
        Ok(flags) => flags,
        Err(e) => {
            out::error(&format!("pmm-admin: error: {e}"));
            return 1;
        }
    };
    let command = if flags.words.is_empty() {
        "help".to_string()
    } else {
        flags.words.remove(0)
    };
    let context = Context {
        release: release.clone(),
        flags,
    };
    let outcome = match command.as_str() {
        "status" => status::run(&context),
        "list" => list::run(&context),
        "config" => return config::run(&context),
        "add" => services::add(&context),
        "remove" => services::remove(&context),
        "unregister" => config::unregister(&context),
        "summary" => summary::run(&context),
        "help" => {
            out::line(
                "usage: pmm-admin [flags] status | list | config | add | remove | unregister | summary",
            );
            return 0;
        }
        other => Err(format!("unexpected argument {other}")),
    };
    match outcome {
        Ok(printed) => {
            out::line(&if json {
                printed.json.to_string()
            } else {
                printed.text
            });
            0
        }
        Err(e) => {
            if json {
                out::line(&json!({"error": e}).to_string());
            } else {
                out::error(&e);
            }
            1
        }
    }
}

impl Context {
    /// True for PMM 3.
    pub fn v3(&self) -> bool {
        self.release.is_v3()
    }

    /// The local API.
    pub fn local(&self) -> Endpoint {
        let port = self
            .flags
            .get("pmm-agent-listen-port")
            .and_then(|p| p.parse().ok())
            .unwrap_or(7777);
        super::agent::setup::local_endpoint("127.0.0.1", port)
    }

    /// What the running agent says of itself.
    pub fn local_status(&self, network: bool) -> Result<Value, String> {
        let answer = self
            .local()
            .json("POST", "/local/Status", &json!({"get_network_info": network}))
            .map_err(|e| format!("Failed to get PMM Agent status from local pmm-agent: {e}.\nPlease check that pmm-agent is running."))?;
        if answer.status == 200 {
            Ok(answer.json())
        } else {
            Err(format!(
                "Failed to get PMM Agent status from local pmm-agent: status {}.",
                answer.status
            ))
        }
    }

    /// The status of an agent that is set up.
    pub fn set_up_status(&self, network: bool) -> Result<Value, String> {
        let status = self.local_status(network)?;
        if status["server_info"].is_null() || status["agent_id"].as_str().unwrap_or_default().is_empty() {
            return Err("Failed to get PMM Agent status from local pmm-agent: pmm-agent is running, but not set up.\nPlease run `pmm-admin config` with --server-url flag.".into());
        }
        Ok(status)
    }

    /// The server, from `--server-url` or from the running agent.
    pub fn server(&self) -> Result<Endpoint, String> {
        let (url, insecure) = match self.flags.get("server-url") {
            Some(url) => (url, self.flags.on("server-insecure-tls")),
            None => {
                let status = self.set_up_status(false)?;
                let info = &status["server_info"];
                (
                    info["url"].as_str().unwrap_or_default().to_string(),
                    info["insecure_tls"].as_bool().unwrap_or(false),
                )
            }
        };
        let (address, user, password, tls) = parse_server_url(&url)?;
        let (host, port) = address.rsplit_once(':').ok_or("server address has no port")?;
        let port = port
            .parse()
            .map_err(|_| "port of the server address is not a number".to_string())?;
        Ok(Endpoint {
            host: host.into(),
            port,
            tls,
            insecure,
            authorization: authorization(&user, &password, self.v3()),
        })
    }

    /// Calls the server; every answer but 200 is an error.
    pub fn call(&self, server: &Endpoint, method: &str, path: &str, body: &Value) -> Result<Value, String> {
        let answer = server
            .json(method, path, body)
            .map_err(|e| format!("{method} {path}: {e}"))?;
        if answer.status == 200 {
            Ok(answer.json())
        } else {
            Err(failure(&answer, path))
        }
    }
}

/// The text of a refused call.
fn failure(answer: &Answer, path: &str) -> String {
    let json = answer.json();
    let detail = json
        .get("message")
        .or_else(|| json.get("error"))
        .and_then(Value::as_str)
        .unwrap_or_default();
    match answer.status {
        401 => "Unauthorized. Please check username and password.".into(),
        404 if detail.is_empty() => format!("unknown endpoint {path} (status 404)"),
        code => format!("{detail} (status {code})"),
    }
}
