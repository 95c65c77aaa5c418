//! PostgreSQL: keeps one JSON document per database under `/srv/postgres14`, with a write-ahead log and checkpoints.
//!
//! A copy of the directory that was made while it ran shows it (`postmaster.pid`, `in production`); one that was torn does not start.

use std::{
    collections::BTreeMap,
    io::{self, Write},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use serde_json::{Value, json};

use super::{
    http::{self, Req, Resp},
    log,
    role::{self, Marker},
    switches::Switches,
};

/// The port.
pub const PORT: u16 = 5432;
/// The data directory.
pub const DATA: &str = "/srv/postgres14";

/// Creates an empty data directory.
pub fn initdb(dir: &Path) -> io::Result<()> {
    for sub in ["base", "global", "pg_wal"] {
        std::fs::create_dir_all(dir.join(sub))?;
    }
    std::fs::write(dir.join("PG_VERSION"), "14\n")?;
    std::fs::write(
        dir.join("postgresql.conf"),
        "max_connections = 100\nlisten_addresses = '127.0.0.1'\n",
    )?;
    std::fs::write(dir.join("pg_hba.conf"), "host all all 127.0.0.1/32 trust\n")?;
    std::fs::write(
        dir.join("global/pg_control"),
        json!({"state": "shut down", "lsn": 0, "databases": {}}).to_string(),
    )?;
    std::fs::set_permissions(dir, std::fs::Permissions::from_mode(0o700))
}

#[derive(Default)]
struct Cluster {
    dir: PathBuf,
    lsn: u64,
    /// Database name to (log number of the last change, document).
    databases: BTreeMap<String, (u64, Value)>,
    dirty: bool,
}

impl Cluster {
    /// Opens the directory, recovers what a killed server left, refuses what does not fit together.
    fn open(dir: &Path) -> io::Result<(Self, bool)> {
        let version = std::fs::read_to_string(dir.join("PG_VERSION"))
            .map_err(|e| role::named(&dir.join("PG_VERSION"), e))?;
        if version.trim() != "14" {
            return Err(io::Error::other(format!(
                "database files are incompatible with server: PG_VERSION {}",
                version.trim()
            )));
        }
        let control: Value = serde_json::from_slice(&std::fs::read(dir.join("global/pg_control"))?)
            .map_err(io::Error::other)?;
        let crashed = control["state"] != "shut down";
        let mut cluster = Self {
            dir: dir.to_owned(),
            lsn: control["lsn"].as_u64().unwrap_or(0),
            ..Self::default()
        };
        for entry in std::fs::read_dir(dir.join("base"))? {
            let path = entry?.path();
            let file: Value = serde_json::from_slice(&std::fs::read(path.join("data.json"))?)
                .map_err(|e| io::Error::other(format!("PANIC: invalid page in {}: {e}", path.display())))?;
            let name = path
                .file_name()
                .unwrap_or_default()
                .to_string_lossy()
                .into_owned();
            cluster
                .databases
                .insert(name, (file["lsn"].as_u64().unwrap_or(0), file["doc"].clone()));
        }
        let wal = std::fs::read_to_string(dir.join("pg_wal/000000010000000000000001")).unwrap_or_default();
        for line in wal.lines() {
            // The last line of a killed server may be incomplete; everything before it counts.
            let Ok(entry) = serde_json::from_str::<Value>(line) else {
                break;
            };
            let (lsn, name) = (
                entry["lsn"].as_u64().unwrap_or(0),
                entry["db"].as_str().unwrap_or_default().to_owned(),
            );
            cluster.lsn = cluster.lsn.max(lsn);
            if cluster.databases.get(&name).is_none_or(|(have, _)| *have < lsn) {
                cluster.databases.insert(name, (lsn, entry["doc"].clone()));
            }
        }
        for (name, wanted) in control["databases"].as_object().into_iter().flatten() {
            if cluster.databases.get(name).map(|(lsn, _)| *lsn) < wanted.as_u64() {
                return Err(io::Error::other(format!(
                    "PANIC: could not locate a valid checkpoint record for database \"{name}\""
                )));
            }
        }
        Ok((cluster, crashed))
    }

    fn put(&mut self, name: &str, doc: Value) -> io::Result<()> {
        self.lsn += 1;
        let line = json!({"lsn": self.lsn, "db": name, "doc": doc}).to_string();
        let path = self.dir.join("pg_wal/000000010000000000000001");
        let mut file = std::fs::OpenOptions::new().create(true).append(true).open(path)?;
        writeln!(file, "{line}")?;
        file.sync_data()?;
        self.databases.insert(name.to_owned(), (self.lsn, doc));
        self.dirty = true;
        Ok(())
    }

    /// Writes the documents, then the control file, then empties the log.
    fn checkpoint(&mut self, state: &str) -> io::Result<()> {
        let mut marks = serde_json::Map::new();
        for (name, (lsn, doc)) in &self.databases {
            let dir = self.dir.join("base").join(name);
            std::fs::create_dir_all(&dir)?;
            role::write_atomic(
                &dir.join("data.json"),
                json!({"lsn": lsn, "doc": doc}).to_string().as_bytes(),
            )?;
            marks.insert(name.clone(), json!(lsn));
        }
        let control = json!({"state": state, "lsn": self.lsn, "databases": marks});
        role::write_atomic(
            &self.dir.join("global/pg_control"),
            control.to_string().as_bytes(),
        )?;
        std::fs::write(self.dir.join("pg_wal/000000010000000000000001"), "")?;
        self.dirty = false;
        Ok(())
    }
}

type Shared = Mutex<Cluster>;

async fn answer(cluster: Arc<Shared>, req: Req) -> Resp {
    let mut cluster = cluster.lock().unwrap_or_else(PoisonError::into_inner);
    let Some(name) = req.path.strip_prefix("/db/") else {
        return Resp::empty(404);
    };
    match req.method.as_str() {
        "GET" => match cluster.databases.get(name) {
            Some((_, doc)) => Resp::json(200, doc),
            None => Resp::empty(404),
        },
        "PUT" => match req.json().map(|doc| cluster.put(name, doc)) {
            Ok(Ok(())) => Resp::empty(204),
            Ok(Err(e)) => Resp::new(
                500,
                "text/plain",
                format!("PANIC: could not write to the log: {e}"),
            ),
            Err(resp) => resp,
        },
        _ => Resp::empty(405),
    }
}

/// The server.
pub async fn run() -> io::Result<()> {
    let dir = Path::new(DATA);
    let mode = std::fs::metadata(dir)
        .map_err(|e| role::named(dir, e))?
        .permissions()
        .mode()
        & 0o777;
    if mode & 0o027 != 0 {
        return Err(io::Error::other(format!(
            "data directory \"{DATA}\" has invalid permissions {mode:o}: should be u=rwx (0700) or u=rwx,g=rx (0750)"
        )));
    }
    role::claim(dir)?;
    let marker = Marker::take(&dir.join("postmaster.pid"))?;
    let (mut cluster, crashed) = Cluster::open(dir)?;
    if crashed || marker.unclean {
        log::line("LOG:  database system was not properly shut down; automatic recovery in progress");
    } else {
        log::line("LOG:  database system was shut down");
    }
    cluster.checkpoint("in production")?;
    let cluster = Arc::new(Mutex::new(cluster));
    let listener = role::listen(PORT).await?;
    log::line("LOG:  database system is ready to accept connections");
    tokio::spawn(http::serve(
        listener,
        None,
        http::handler(Arc::clone(&cluster), answer),
    ));
    let mut stop = std::pin::pin!(role::stop_signal());
    let signal = loop {
        tokio::select! {
            signal = &mut stop => break signal?,
            () = role::sleep(3.0) => {
                let mut cluster = cluster.lock().unwrap_or_else(PoisonError::into_inner);
                if cluster.dirty {
                    cluster.checkpoint("in production")?;
                }
            }
        }
    };
    log::line(format!(
        "LOG:  received {} shutdown request",
        if signal == "SIGINT" { "fast" } else { "smart" }
    ));
    role::sleep(Switches::now().slow_stop_seconds).await;
    cluster
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .checkpoint("shut down")?;
    marker.release();
    log::line("LOG:  database system is shut down");
    Ok(())
}

/// Reads a database's document; `None` if it has none yet.
pub async fn load(name: &str) -> io::Result<Option<Value>> {
    let answer = http::call_json(PORT, "GET", &format!("/db/{name}"), None).await?;
    Ok(answer.ok().then(|| answer.value()))
}

/// Replaces a database's document.
pub async fn store(name: &str, doc: &Value) -> io::Result<()> {
    let answer = http::call_json(PORT, "PUT", &format!("/db/{name}"), Some(doc)).await?;
    if answer.ok() {
        Ok(())
    } else {
        Err(io::Error::other(
            String::from_utf8_lossy(&answer.body).into_owned(),
        ))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;

    fn scratch(name: &str) -> PathBuf {
        let dir = std::env::temp_dir().join(format!("standin-pg-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&dir);
        initdb(&dir).unwrap();
        dir
    }

    #[test]
    fn a_killed_server_recovers_from_its_log() {
        let dir = scratch("kill");
        let (mut cluster, crashed) = Cluster::open(&dir).unwrap();
        assert!(!crashed);
        cluster.checkpoint("in production").unwrap();
        cluster.put("pmm-managed", json!({"a": 1})).unwrap();
        drop(cluster);
        let (cluster, crashed) = Cluster::open(&dir).unwrap();
        assert!(crashed);
        assert_eq!(cluster.databases["pmm-managed"].1, json!({"a": 1}));
        std::fs::remove_dir_all(dir).unwrap();
    }

    #[test]
    fn a_torn_copy_does_not_start() {
        let dir = scratch("torn");
        let (mut cluster, _) = Cluster::open(&dir).unwrap();
        cluster.put("pmm-managed", json!({"a": 1})).unwrap();
        cluster.checkpoint("in production").unwrap();
        let old = std::fs::read(dir.join("base/pmm-managed/data.json")).unwrap();
        cluster.put("pmm-managed", json!({"a": 2})).unwrap();
        cluster.checkpoint("in production").unwrap();
        std::fs::write(dir.join("base/pmm-managed/data.json"), old).unwrap();
        assert!(Cluster::open(&dir).is_err());
        std::fs::remove_dir_all(dir).unwrap();
    }
}
