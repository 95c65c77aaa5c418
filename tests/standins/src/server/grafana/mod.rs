//! Grafana: users, API keys, service accounts, dashboards, folders, alert rules. Its database is in PostgreSQL, its plugins on `/srv/grafana`.

mod accounts;
mod content;

pub use accounts::push;

use std::{
    io,
    path::Path,
    sync::{Arc, Mutex, PoisonError},
};

use serde_json::{Value, json};

use super::{
    auth::{Credential, Role},
    http::{self, Req, Resp},
    log, pg, role,
    switches::Switches,
    version::Version,
};

/// The port.
pub const PORT: u16 = 3000;
/// The data directory.
pub const DATA: &str = "/srv/grafana";

/// Grafana's state.
pub struct Grafana {
    version: Version,
    doc: Mutex<Value>,
    /// Held over change and store, so that the stored documents keep their order.
    gate: tokio::sync::Mutex<()>,
}

impl Grafana {
    fn read<T>(&self, f: impl FnOnce(&Value) -> T) -> T {
        f(&self.doc.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Changes the document and stores it.
    async fn change(&self, f: impl FnOnce(&mut Value) -> Resp) -> Resp {
        let _gate = self.gate.lock().await;
        let (answer, doc) = {
            let mut doc = self.doc.lock().unwrap_or_else(PoisonError::into_inner);
            let answer = f(&mut doc);
            (answer, doc.clone())
        };
        match pg::store("grafana", &doc).await {
            Ok(()) => answer,
            Err(e) => Resp::json(500, &json!({"message": format!("database: {e}")})),
        }
    }
}

/// Grafana's answer to a mistake.
fn message(status: u16, text: &str) -> Resp {
    Resp::json(status, &json!({"message": text}))
}

fn fresh() -> Value {
    let password = std::env::var("GF_SECURITY_ADMIN_PASSWORD").unwrap_or_else(|_| "admin".to_owned());
    json!({
        "next_id": 10,
        "grafana_version": "",
        "users": [{"id": Switches::now().admin_id, "login": "admin", "email": "admin@localhost", "name": "admin", "password": password, "role": "Admin", "isGrafanaAdmin": true}],
        "api_keys": [],
        "service_accounts": [],
        "folders": [],
        "dashboards": [],
        "rules": {},
        "contact_points": [{"uid": "", "name": "grafana-default-email", "type": "email", "settings": {"addresses": "<example@email.com>"}}],
        "datasources": [{"id": 1, "uid": "PA58DA793C7250F1B", "name": "Metrics", "type": "prometheus", "isDefault": true, "url": "http://127.0.0.1:9090/prometheus/"}],
    })
}

/// The next id of anything.
fn next_id(doc: &mut Value) -> u64 {
    let id = doc["next_id"].as_u64().unwrap_or(10);
    doc["next_id"] = json!(id + 1);
    id
}

/// Replaces the dashboards that come with the image; what users changed in them is lost, their own dashboards stay.
fn provision(doc: &mut Value, version: Version) {
    let Some(dashboards) = doc["dashboards"].as_array_mut() else {
        return;
    };
    dashboards.retain(|d| d["provisioned"] != true);
    for (uid, title, folder) in [
        ("pmm-home", "Home Dashboard", "Insight"),
        ("node-instance-overview", "Nodes Overview", "OS"),
        ("mysql-instance-summary", "MySQL Instance Summary", "MySQL"),
        (
            "postgresql-instance-summary",
            "PostgreSQL Instance Summary",
            "PostgreSQL",
        ),
        ("mongodb-instance-summary", "MongoDB Instance Summary", "MongoDB"),
    ] {
        dashboards.push(json!({"uid": uid, "title": title, "folderTitle": folder, "provisioned": true, "version": 1, "of": version.to_string()}));
    }
}

/// From 3.2.0 on Grafana does not find an external database by its URL alone (PMM docs: external_postgres_pmm_upgrade.md).
fn database_is_split(version: Version, has: impl Fn(&str) -> bool) -> bool {
    version < Version::new(3, 2, 0) || !has("GF_DATABASE_URL") || has("GF_DATABASE_HOST")
}

async fn open(version: Version) -> io::Result<Value> {
    if !database_is_split(version, |name| std::env::var_os(name).is_some()) {
        return Err(io::Error::other(
            "failed to connect to database: dial tcp: GF_DATABASE_URL without GF_DATABASE_HOST",
        ));
    }
    let mut tries = 0;
    let loaded = loop {
        match pg::load("grafana").await {
            Ok(doc) => break doc,
            Err(e) if tries > 60 => {
                return Err(io::Error::other(format!("failed to connect to database: {e}")));
            }
            Err(_) => {
                tries += 1;
                role::sleep(0.5).await;
            }
        }
    };
    let new = loaded.is_none();
    let mut doc = loaded.unwrap_or_else(fresh);
    let have = doc["grafana_version"].as_str().unwrap_or_default().to_owned();
    if have != version.grafana() {
        if !new && Switches::fails("grafana_db") {
            return Err(io::Error::other(
                "migration failed (id = alter table): pq: column \"uid\" contains null values",
            ));
        }
        log::line(format!(
            "logger=migrator level=info msg=\"Starting DB migrations\" from={have:?} to={:?}",
            version.grafana()
        ));
        doc["grafana_version"] = json!(version.grafana());
    }
    if version.is_v3()
        && !new
        && doc["dashboards"]
            .as_array()
            .is_some_and(|d| d.iter().any(|d| d["angular"] == true))
    {
        log::line("logger=plugins level=warn msg=\"Angular panels are not supported any more\"");
    }
    provision(&mut doc, version);
    pg::store("grafana", &doc).await?;
    Ok(doc)
}

/// The server.
pub async fn run() -> io::Result<()> {
    let version = Version::of_image();
    role::claim(Path::new(DATA))?;
    let doc = open(version).await?;
    // Loading plugins takes its time; until then readiness is answered with 500.
    role::sleep(1.0).await;
    let state = Arc::new(Grafana {
        version,
        doc: Mutex::new(doc),
        gate: tokio::sync::Mutex::default(),
    });
    let listener = role::listen(PORT).await?;
    log::line(format!(
        "logger=http.server level=info msg=\"HTTP Server Listen\" address=127.0.0.1:3000 version={}",
        version.grafana()
    ));
    tokio::spawn(http::serve(listener, None, http::handler(state, answer)));
    role::stop_signal().await.map(|_| ())
}

/// Who the caller is.
#[derive(Debug, Clone)]
pub struct Caller {
    /// The role in the organisation.
    pub role: Role,
    /// The login of a user, empty for keys.
    pub login: String,
    /// The user's id, 0 for keys.
    pub id: u64,
}

async fn answer(state: Arc<Grafana>, req: Req) -> Resp {
    let path = req.path.strip_prefix("/graph").unwrap_or(&req.path).to_owned();
    if path == "/api/health" {
        return Resp::json(
            200,
            &json!({"commit": "", "database": "ok", "version": state.version.grafana()}),
        );
    }
    let caller = Credential::parse(req.header("authorization"))
        .and_then(|c| state.read(|doc| accounts::whoami(doc, &c)));
    if path == "/internal/whoami" {
        return match caller {
            Some(caller) => Resp::json(
                200,
                &json!({"role": format!("{:?}", caller.role), "login": caller.login}),
            ),
            None => message(401, "Unauthorized"),
        };
    }
    if !path.starts_with("/api/") {
        return Resp::new(
            200,
            "text/html",
            "<!DOCTYPE html><title>Percona Monitoring and Management</title>",
        );
    }
    let Some(caller) = caller else {
        return message(401, "Unauthorized");
    };
    if let Some(rest) = path.strip_prefix("/api/datasources/proxy/1/") {
        let target = format!(
            "/prometheus/{rest}{}",
            req.target.find('?').map_or("", |at| &req.target[at..])
        );
        return http::call(super::vm::PORT, &req.method, &target, &req.headers, req.body)
            .await
            .unwrap_or_else(|e| message(502, &e.to_string()));
    }
    if let Some(answer) = accounts::route(&state, &req, &path, &caller).await {
        return answer;
    }
    if let Some(answer) = content::route(&state, &req, &path, &caller).await {
        return answer;
    }
    message(404, "Not found")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_url_alone_is_enough_only_before_3_2() {
        let only_url = |name: &str| name == "GF_DATABASE_URL";
        assert!(database_is_split(Version::new(2, 44, 1), only_url));
        assert!(!database_is_split(Version::new(3, 7, 1), only_url));
        assert!(database_is_split(Version::new(3, 7, 1), |name| name.starts_with("GF_DATABASE_")));
        assert!(database_is_split(Version::new(3, 7, 1), |_| false));
    }
}
