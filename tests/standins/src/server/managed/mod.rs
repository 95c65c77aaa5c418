//! pmm-managed: holds the inventory and the settings, answers the API, keeps the clients' connections.

mod backup;
mod connect;
mod inventory;
mod lists;
pub mod migrate;
pub mod model;
mod register;
mod routes;
pub mod settings;
mod updates;

use std::{
    collections::BTreeMap,
    io,
    path::Path,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use hyper::{HeaderMap, body::Bytes};
use serde_json::{Value, json};
use tokio::sync::watch;

use super::{
    auth::{self, Role},
    env::{self, Overrides},
    grafana,
    http::{self, Req, Resp},
    log, pg, role,
    switches::Switches,
    version::Version,
};

/// The port of the JSON API.
pub const PORT: u16 = 7772;
const KEY: &str = "/srv/pmm-encryption.key";

/// pmm-managed.
pub struct Managed {
    version: Version,
    v3: bool,
    doc: Mutex<Value>,
    /// Held over change and store, so that the stored documents keep their order.
    gate: tokio::sync::Mutex<()>,
    env: Overrides,
    /// Connected clients: bare id to the serial number of the connection.
    connections: Mutex<BTreeMap<String, u64>>,
    serial: AtomicU64,
    changed: watch::Sender<u64>,
    /// Authorization header to role, for three seconds, as the genuine one does.
    roles: Mutex<BTreeMap<String, (Instant, Option<Role>)>>,
    storm_until: Option<Instant>,
    requests: AtomicU64,
    update_checked: Mutex<Option<String>>,
}

impl Managed {
    fn doc(&self) -> MutexGuard<'_, Value> {
        self.doc.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn settings(&self) -> Value {
        settings::effective(&self.doc()["settings"], &self.env, self.version)
    }

    /// Changes the document, stores it, tells the connections; a refused change is not stored.
    async fn change<T>(&self, f: impl FnOnce(&mut Value) -> Result<T, Resp>) -> Result<T, Resp> {
        let _gate = self.gate.lock().await;
        let mut doc = self.doc().clone();
        let answer = f(&mut doc)?;
        pg::store("pmm-managed", &doc)
            .await
            .map_err(|e| Resp::grpc(500, 13, &format!("Internal server error: {e}")))?;
        *self.doc() = doc;
        self.changed.send_modify(|n| *n += 1);
        Ok(answer)
    }

    fn connected(&self, id: &str) -> bool {
        self.connections
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .contains_key(super::ids::bare(id))
    }
}

/// Creates or checks the key that credentials are encrypted with; the stored fingerprint tells a wrong key.
fn encryption_key(doc: &mut Value) -> io::Result<()> {
    let path = std::env::var("PMM_ENCRYPTION_KEY_PATH").unwrap_or_else(|_| KEY.to_owned());
    let path = Path::new(&path);
    if !path.exists() {
        if doc["key_fingerprint"].is_string() {
            return Err(io::Error::other(format!(
                "encryption key {} is missing, but the database is encrypted",
                path.display()
            )));
        }
        role::write_atomic(path, format!("{}\n", uuid::Uuid::new_v4().simple()).as_bytes())?;
    }
    let key = std::fs::read(path).map_err(|e| role::named(path, e))?;
    let print = hex::encode(<sha2::Sha256 as sha2::Digest>::digest(&key));
    match doc["key_fingerprint"].as_str() {
        Some(have) if have != print => Err(io::Error::other("encryption key does not fit the database")),
        Some(_) => Ok(()),
        None => {
            doc["key_fingerprint"] = json!(print);
            doc["encrypted"] = json!(true);
            Ok(())
        }
    }
}

/// Loads the document and migrates it; whether it was migrated is returned with it.
async fn setup(version: Version) -> io::Result<(Value, bool)> {
    let Some(mut doc) = pg::load("pmm-managed").await? else {
        let mut doc = model::fresh(version);
        if version.is_v3() {
            encryption_key(&mut doc)?;
        }
        pg::store("pmm-managed", &doc).await?;
        log::line("level=info msg=\"Database is set up.\"");
        return Ok((doc, false));
    };
    if let Some(why) = version.refuses(&migrate::passed(&doc)) {
        return Err(io::Error::other(why));
    }
    let pending = migrate::pending(&doc, version);
    if pending {
        log::line(format!(
            "level=info msg=\"Current database schema version: {}. Latest version: {}.\"",
            doc["schema"]["version"],
            version.schema()
        ));
        role::sleep(Switches::now().migration_seconds).await;
        if Switches::fails("migrate_db") {
            return Err(io::Error::other(
                "pq: password authentication failed for user \"pmm-managed\"",
            ));
        }
        let lost = Switches::now().lose_agents;
        let from_v2 = migrate::passed(&doc).last().is_some_and(|v| !v.is_v3()) && version.is_v3();
        if Switches::fails("fk") {
            return Err(io::Error::other(
                "pq: insert or update on table \"agents\" violates foreign key constraint \"agents_node_id_fkey\"",
            ));
        }
        migrate::migrate(&mut doc, version).map_err(io::Error::other)?;
        if !lost.is_empty() {
            register::lose(&mut doc, &lost);
        }
        if from_v2 && Switches::now().lose_metrics {
            let _ = http::call_json(super::vm::PORT, "POST", "/internal/truncate", None).await;
        }
    }
    if version.is_v3() {
        encryption_key(&mut doc)?;
    }
    pg::store("pmm-managed", &doc).await?;
    if pending {
        log::line("level=info msg=\"Migrations: done.\"");
    }
    Ok((doc, pending))
}

/// The server: tries each second until the database is migrated, and answers only then.
pub async fn run() -> io::Result<()> {
    let version = Version::of_image();
    let env = env::current(version.is_v3());
    log::line(format!("level=info msg=\"pmm-managed {version}\""));
    for warning in &env.warnings {
        log::line(format!("level=warning msg=\"Configuration warning: {warning}.\""));
    }
    let mut stop = std::pin::pin!(role::stop_signal());
    let (doc, migrated) = loop {
        tokio::select! {
            signal = &mut stop => { signal?; return Ok(()) }
            done = setup(version) => match done {
                Ok(done) => break done,
                Err(e) => log::line(format!("level=warning msg=\"Failed to migrate database: {e}\"")),
            }
        }
        tokio::select! {
            signal = &mut stop => { signal?; return Ok(()) }
            () = role::sleep(1.0) => {}
        }
    };
    let storm = Switches::now().reconnect_storm_seconds;
    let state = Arc::new(Managed {
        version,
        v3: version.is_v3(),
        doc: Mutex::new(doc),
        gate: tokio::sync::Mutex::default(),
        env,
        connections: Mutex::default(),
        serial: AtomicU64::new(0),
        changed: watch::channel(0).0,
        roles: Mutex::default(),
        storm_until: (migrated && storm > 0).then(|| Instant::now() + Duration::from_secs(storm)),
        requests: AtomicU64::new(0),
        update_checked: Mutex::default(),
    });
    let listener = role::listen(PORT).await?;
    log::line("level=info msg=\"Starting server on http://127.0.0.1:7772/ ...\"");
    tokio::spawn(http::serve(listener, None, http::handler(state, routes::answer)));
    stop.await.map(|_| ())
}

/// nginx's question whether a request may pass.
async fn auth_request(state: &Managed, req: &Req) -> Resp {
    let path = req.header("x-original-uri");
    let needed = auth::needed(path, state.v3);
    if needed == Role::None {
        return Resp::empty(200);
    }
    if state.storm_until.is_some_and(|until| Instant::now() < until) {
        // Too many clients at once: the database of Grafana has no connection left for two of three.
        match state.requests.fetch_add(1, Ordering::Relaxed) % 3 {
            0 => {}
            1 => return unauthorized(),
            _ => return Resp::grpc(500, 13, "pq: sorry, too many clients already"),
        }
    }
    let header = req.header("authorization").to_owned();
    if auth::Credential::parse(&header).is_none() {
        return unauthorized();
    }
    let cached = state
        .roles
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .get(&header)
        .copied();
    let role = match cached {
        Some((at, role)) if at.elapsed() < Duration::from_secs(3) => role,
        _ => {
            let mut headers = HeaderMap::new();
            if let Some(value) = req.headers.get("authorization") {
                headers.insert("authorization", value.clone());
            }
            let role =
                match http::call(grafana::PORT, "GET", "/internal/whoami", &headers, Bytes::new()).await {
                    Ok(answer) if answer.ok() => {
                        Some(Role::parse(answer.value()["role"].as_str().unwrap_or_default()))
                    }
                    Ok(answer) if answer.status == 401 => None,
                    _ => return Resp::grpc(500, 13, "Internal server error."),
                };
            state
                .roles
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .insert(header, (Instant::now(), role));
            role
        }
    };
    match role {
        None => unauthorized(),
        Some(role) if role >= needed => Resp::empty(200),
        Some(_) => Resp::grpc(
            if state.version >= Version::new(3, 9, 0) {
                403
            } else {
                401
            },
            7,
            "Access denied.",
        ),
    }
}

fn unauthorized() -> Resp {
    Resp::grpc(401, 16, "Unauthorized")
}

/// Readiness: Grafana, VictoriaMetrics, vmalert, and in later releases qan-api2; nothing about the data.
async fn readyz(state: &Managed) -> Resp {
    let mut probes = vec![
        (grafana::PORT, "/api/health"),
        (super::vm::PORT, "/health"),
        (super::idle::VMALERT, "/health"),
    ];
    if state.version >= Version::new(3, 9, 0) {
        probes.push((super::qan::PORT, "/health"));
    }
    for (port, path) in probes {
        let up = http::call_json(port, "GET", path, None)
            .await
            .is_ok_and(|a| a.ok());
        if !up {
            return Resp::grpc(500, 13, "PMM Server is not ready yet.");
        }
    }
    Resp::json(200, &json!({}))
}
