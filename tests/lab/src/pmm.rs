//! The PMM Server under test: started as an operator would have years ago, read through its own API with curl.

use crate::wait::{self, Probe};
use crate::{cmd, docker, names, output};
use anyhow::{Context, Result, bail};
use base64::Engine as _;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;

/// Administrator of the PMM Server. The password holds what shells and URLs trip over.
pub const ADMIN: &str = "admin";
/// See [`ADMIN`].
pub const PASSWORD: &str = "admin";

/// Major release that answers inside the container.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Major {
    /// PMM 2: ports 80 and 443, POST everywhere, ids with prefixes.
    Two,
    /// PMM 3: ports 8080 and 8443, ids without prefixes.
    Three,
}

/// Starts PMM Server 2 with everything the migration has to keep: two ports, two networks with an alias, labels, limits, a bind mount,
/// environment, log options, extra hosts.
pub fn start(release: &str, plain_data: bool) -> Result<()> {
    output::step(&format!("starting PMM Server {release}"));
    let image = format!("{}:{release}", names::image_repository());
    let state = crate::build::run_dir()?;
    let extra = state.join("extra-ca.pem");
    fs_err::write(&extra, "# a file that the operator mounted\n")?;
    // Mounted read-only below the data, as operators do with their own scrape configuration: not even root can change its owner there.
    let scrape = state.join("prometheus.base.yml");
    fs_err::write(&scrape, "# the operator's own scrape configuration\n")?;
    let below = if plain_data {
        "/opt/site"
    } else {
        "/srv/prometheus"
    };
    let scrape = format!("{}:{below}/prometheus.base.yml:ro", scrape.display());
    docker::docker(["volume", "create", names::PMM_VOLUME])?;
    let args = [
        "run",
        "--detach",
        "--name",
        names::PMM,
        "--hostname",
        "pmm-server-1",
        "--restart",
        "always",
        "--publish",
        &format!("{}:443", names::PMM_PORT),
        "--publish",
        &format!("127.0.0.1:{}:80", names::PMM_HTTP_PORT),
        "--volume",
        &format!("{}:/srv", names::PMM_VOLUME),
        "--volume",
        &format!("{}:/opt/site/extra-ca.pem:ro", extra.display()),
        "--network",
        names::NETWORK,
        "--ip",
        names::PMM_IP,
        "--network-alias",
        names::PMM_ALIAS,
        "--group-add",
        "4242",
        "--label",
        "com.example.team=dba",
        "--label",
        "com.example.backup=daily",
        "--memory",
        "2g",
        "--ulimit",
        "nofile=8192:16384",
        "--log-opt",
        "max-size=20m",
        "--add-host",
        "ldap.lab:192.0.2.10",
        "--stop-timeout",
        "120",
        "--env",
        "DATA_RETENTION=720h",
        "--env",
        "DISABLE_TELEMETRY=true",
        "--env",
        "DISABLE_UPDATES=0",
        "--env",
        "ENABLE_RBAC=1",
        "--env",
        "PMM_DEBUG=1",
        "--env",
        "GF_SECURITY_COOKIE_SECURE=true",
        "--env",
        r#"SITE_NOTE=a "quoted" $value with \ and `ticks`"#,
        "--volume",
        &scrape,
        &image,
    ];
    cmd::must("docker", args)?;
    docker::docker([
        "network",
        "connect",
        "--alias",
        "pmm-backup",
        names::BACKUP_NETWORK,
        names::PMM,
    ])?;
    wait_ready(180)
}

/// Waits until the server answers ready.
pub fn wait_ready(seconds: u64) -> Result<()> {
    wait::until("PMM Server to be ready", seconds, || {
        let done = docker::exec(
            names::PMM,
            &[
                "curl",
                "-sk",
                "-o",
                "/dev/null",
                "-w",
                "%{http_code}",
                &url("/v1/readyz")?,
            ],
        )?;
        Ok(if done.stdout == "200" {
            Probe::Ready(())
        } else {
            Probe::NotYet(done.all())
        })
    })
}

/// The major release of the running container, told by what it exposes.
pub fn major() -> Result<Major> {
    let inspect =
        docker::inspect("container", names::PMM)?.context("the PMM Server container is not there")?;
    Ok(if inspect["Config"]["ExposedPorts"]["8443/tcp"].is_object() {
        Major::Three
    } else {
        Major::Two
    })
}

fn url(path: &str) -> Result<String> {
    Ok(match major()? {
        Major::Two => format!("https://127.0.0.1:443{path}"),
        Major::Three => format!("https://127.0.0.1:8443{path}"),
    })
}

/// One call as administrator: GET without a body, POST with one.
pub fn call(path: &str, body: Option<&Value>) -> Result<Value> {
    request(if body.is_some() { "POST" } else { "GET" }, path, body)
}

/// One call with any method.
pub fn request(method: &str, path: &str, body: Option<&Value>) -> Result<Value> {
    let target = url(path)?;
    let user = format!("{ADMIN}:{PASSWORD}");
    let text = body.map(ToString::to_string);
    let mut argv = vec![
        "curl",
        "-sk",
        "--max-time",
        "20",
        "-u",
        &user,
        "-X",
        method,
        "-w",
        "\n%{http_code}",
        &target,
    ];
    if let Some(text) = &text {
        argv.extend(["-H", "Content-Type: application/json", "-d", text]);
    }
    let done = docker::exec(names::PMM, &argv)?;
    let (answer, status) = done
        .stdout
        .trim_end()
        .rsplit_once('\n')
        .unwrap_or(("", &done.stdout));
    if !status.starts_with('2') {
        bail!("{method} {path} answered {status}: {}", cmd::tail(answer, 5));
    }
    serde_json::from_str(if answer.trim().is_empty() { "{}" } else { answer })
        .with_context(|| format!("{path} answered no JSON"))
}

/// The release the API reports.
pub fn version() -> Result<String> {
    let answer = call("/v1/version", None)?;
    Ok(answer["version"]
        .as_str()
        .unwrap_or_default()
        .split('-')
        .next()
        .unwrap_or_default()
        .to_owned())
}

/// SHA-256 of the served certificate.
pub fn fingerprint() -> Result<String> {
    let pem = docker::exec_must(names::PMM, &["cat", "/srv/nginx/certificate.crt"])?;
    let body: String = pem
        .lines()
        .skip_while(|line| !line.starts_with("-----BEGIN"))
        .skip(1)
        .take_while(|line| !line.starts_with("-----"))
        .collect();
    let der = base64::engine::general_purpose::STANDARD
        .decode(body)
        .context("the server's certificate is not PEM")?;
    Ok(hex::encode(Sha256::digest(der)))
}

/// An API key (PMM 2) with the administrator's role.
pub fn api_key(name: &str) -> Result<String> {
    let answer = call(
        "/graph/api/auth/keys",
        Some(&json!({"name": name, "role": "Admin"})),
    )?;
    answer["key"]
        .as_str()
        .map(str::to_owned)
        .context("no key in the answer")
}

/// API keys by name, and their role.
pub fn api_keys() -> Result<BTreeMap<String, String>> {
    let answer = call("/graph/api/auth/keys", None)?;
    let rows = answer.as_array().context("the list of API keys is no list")?;
    let text = |row: &Value, key: &str| row[key].as_str().unwrap_or_default().to_owned();
    Ok(rows
        .iter()
        .map(|row| (text(row, "name"), text(row, "role")))
        .collect())
}

/// A service account as Grafana lists it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceAccount {
    /// Its name.
    pub name: String,
    /// Its role.
    pub role: String,
    /// How many tokens it has.
    pub tokens: u64,
}

impl ServiceAccount {
    /// The name of the API key it was made of: Grafana may put a prefix of its own before it.
    pub fn key_name(&self) -> &str {
        self.name.strip_prefix("sa-autogen-").unwrap_or(&self.name)
    }
}

/// All service accounts.
pub fn service_accounts() -> Result<Vec<ServiceAccount>> {
    let answer = call("/graph/api/serviceaccounts/search?perpage=1000", None)?;
    let rows = answer["serviceAccounts"]
        .as_array()
        .context("the list of service accounts is no list")?;
    let text = |row: &Value, key: &str| row[key].as_str().unwrap_or_default().to_owned();
    Ok(rows
        .iter()
        .map(|row| ServiceAccount {
            name: text(row, "name"),
            role: text(row, "role"),
            tokens: row["tokens"].as_u64().unwrap_or(0),
        })
        .collect())
}

/// Metric resolutions in seconds, by PMM's own settings.
pub fn set_resolutions(seconds: u32) -> Result<()> {
    let text = format!("{seconds}s");
    call(
        "/v1/Settings/Change",
        Some(&json!({"metrics_resolutions": {"hr": text, "mr": text, "lr": text}})),
    )
    .map(drop)
}

/// A PMM id without the prefix of PMM 2.
pub fn bare(id: &str) -> String {
    id.rsplit('/').next().unwrap_or(id).to_owned()
}

/// A service as the inventory lists it.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Service {
    /// Bare id.
    pub id: String,
    /// Unique name.
    pub name: String,
    /// Bare node id.
    pub node: String,
    /// `mysql` and the like.
    pub kind: String,
    /// Operator's labels.
    pub labels: BTreeMap<String, String>,
}

/// Services by name, the server's own left out.
pub fn services() -> Result<BTreeMap<String, Service>> {
    let answer = match major()? {
        Major::Two => call("/v1/inventory/Services/List", Some(&json!({})))?,
        Major::Three => call("/v1/inventory/services", None)?,
    };
    let mut found = BTreeMap::new();
    for (kind, list) in answer.as_object().into_iter().flatten() {
        for service in list.as_array().into_iter().flatten() {
            let text = |key: &str| service[key].as_str().unwrap_or_default().to_owned();
            let name = text("service_name");
            if name.starts_with("pmm-server") {
                continue;
            }
            let labels = serde_json::from_value(service["custom_labels"].clone()).unwrap_or_default();
            let entry = Service {
                id: bare(&text("service_id")),
                name: name.clone(),
                node: bare(&text("node_id")),
                kind: kind.clone(),
                labels,
            };
            found.insert(name, entry);
        }
    }
    Ok(found)
}

/// Clients (`pmm-agent`s) by bare id: bare node id and whether they are connected; the server's own left out.
pub fn clients() -> Result<BTreeMap<String, (String, bool)>> {
    let answer = match major()? {
        Major::Two => call("/v1/inventory/Agents/List", Some(&json!({})))?,
        Major::Three => call("/v1/inventory/agents", None)?,
    };
    let list = answer["pmm_agent"].as_array().cloned().unwrap_or_default();
    Ok(list
        .iter()
        .map(|agent| {
            let text = |key: &str| bare(agent[key].as_str().unwrap_or_default());
            (
                text("agent_id"),
                (
                    text("runs_on_node_id"),
                    agent["connected"].as_bool().unwrap_or(false),
                ),
            )
        })
        .filter(|(id, _)| id != "pmm-server")
        .collect())
}

/// Result rows of an instant query: labels and (time, value).
pub fn query(expression: &str, at: Option<u64>) -> Result<Vec<(BTreeMap<String, String>, f64)>> {
    let mut path = format!("/prometheus/api/v1/query?query={}", percent(expression));
    if let Some(seconds) = at {
        path = format!("{path}&time={seconds}");
    }
    let answer = call(&path, None)?;
    let rows = answer["data"]["result"].as_array().cloned().unwrap_or_default();
    Ok(rows
        .iter()
        .map(|row| {
            let labels = serde_json::from_value(row["metric"].clone()).unwrap_or_default();
            let value = row["value"][1]
                .as_str()
                .and_then(|text| text.parse().ok())
                .unwrap_or(f64::NAN);
            (labels, value)
        })
        .collect())
}

/// Number of queries that Query Analytics holds for a service between two moments (Unix seconds).
pub fn qan_queries(service: &str, from: u64, to: u64) -> Result<f64> {
    let body = json!({
        "period_start_from": rfc3339(from), "period_start_to": rfc3339(to), "group_by": "queryid",
        "labels": [{"key": "service_name", "value": [service]}],
        "columns": ["load", "num_queries", "query_time"], "order_by": "-query_time", "offset": 0, "limit": 10, "main_metric": "load",
    });
    let path = match major()? {
        Major::Two => "/v0/qan/GetReport",
        Major::Three => "/v1/qan/metrics:getReport",
    };
    let answer = call(path, Some(&body))?;
    let rows = answer["rows"].as_array().cloned().unwrap_or_default();
    Ok(rows.iter().skip(1).map(|row| number(&row["num_queries"])).sum())
}

fn number(value: &Value) -> f64 {
    value
        .as_f64()
        .or_else(|| value.as_str().and_then(|text| text.parse().ok()))
        .unwrap_or(0.0)
}

fn percent(text: &str) -> String {
    text.bytes()
        .map(|byte| {
            if byte.is_ascii_alphanumeric() {
                char::from(byte).to_string()
            } else {
                format!("%{byte:02X}")
            }
        })
        .collect()
}

/// Unix seconds now.
pub fn now() -> u64 {
    std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .map_or(0, |elapsed| elapsed.as_secs())
}

/// RFC 3339 in UTC, from Unix seconds (days to civil date by the usual era arithmetic).
pub fn rfc3339(seconds: u64) -> String {
    let days = i64::try_from(seconds / 86_400).unwrap_or(0) + 719_468;
    let era = days.div_euclid(146_097);
    let day_of_era = days.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 {
        shifted_month + 3
    } else {
        shifted_month - 9
    };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    let rest = seconds % 86_400;
    format!(
        "{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}Z",
        rest / 3600,
        rest / 60 % 60,
        rest % 60
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_right() {
        assert_eq!(rfc3339(0), "1970-01-01T00:00:00Z");
        assert_eq!(rfc3339(1_709_208_000), "2024-02-29T12:00:00Z");
        assert_eq!(rfc3339(1_795_305_599), "2026-11-21T23:59:59Z");
    }
}
