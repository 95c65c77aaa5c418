//! ClickHouse: keeps the query buckets of Query Analytics under `/srv/clickhouse` and the schema version of qan-api2.

use std::{
    io::{self, Write},
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
pub const PORT: u16 = 9000;
/// The data directory.
pub const DATA: &str = "/srv/clickhouse";

struct Store {
    dir: PathBuf,
    rows: Vec<Value>,
    /// How many of the rows are on disk.
    flushed: usize,
}

impl Store {
    fn metrics(&self) -> PathBuf {
        self.dir.join("data/pmm/metrics/all_1_1_0.jsonl")
    }

    fn open(dir: &Path) -> io::Result<Self> {
        std::fs::create_dir_all(dir.join("data/pmm/metrics"))?;
        let mut store = Self {
            dir: dir.to_owned(),
            rows: Vec::new(),
            flushed: 0,
        };
        let text = match std::fs::read_to_string(store.metrics()) {
            Ok(text) => text,
            Err(e) if e.kind() == io::ErrorKind::NotFound => String::new(),
            Err(e) => return Err(role::named(&store.metrics(), e)),
        };
        for (number, line) in text.lines().enumerate() {
            match serde_json::from_str(line) {
                Ok(row) => store.rows.push(row),
                Err(_) => log::line(format!(
                    "<Error> metrics: part all_1_1_0 is broken at row {number}, skipped"
                )),
            }
        }
        store.flushed = store.rows.len();
        Ok(store)
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.flushed == self.rows.len() {
            return Ok(());
        }
        let mut text = String::new();
        for row in &self.rows[self.flushed..] {
            text.push_str(&row.to_string());
            text.push('\n');
        }
        let mut file = std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.metrics())?;
        file.write_all(text.as_bytes())?;
        file.sync_data()?;
        self.flushed = self.rows.len();
        Ok(())
    }

    fn truncate(&mut self) -> io::Result<()> {
        self.rows.clear();
        self.flushed = 0;
        role::write_atomic(&self.metrics(), b"")
    }
}

async fn answer(store: Arc<Mutex<Store>>, req: Req) -> Resp {
    let mut store = store.lock().unwrap_or_else(PoisonError::into_inner);
    let migrations = store.dir.join("data/pmm/schema_migrations.json");
    let result = match (req.method.as_str(), req.path.as_str()) {
        ("GET", "/ping") => Ok(Resp::new(200, "text/plain", "Ok.\n")),
        ("POST", "/insert") => req.json().map(|rows| {
            store.rows.extend(rows.as_array().cloned().unwrap_or_default());
            Resp::empty(200)
        }),
        ("POST", "/truncate") => Ok(store.truncate().map_or_else(
            |e| Resp::new(500, "text/plain", e.to_string()),
            |()| Resp::empty(200),
        )),
        ("GET", "/select") => {
            let from = req.param("from").parse().unwrap_or(0);
            let to = req.param("to").parse().unwrap_or(u64::MAX);
            let rows: Vec<&Value> = store
                .rows
                .iter()
                .filter(|r| r["period_start"].as_u64().is_some_and(|t| t >= from && t < to))
                .collect();
            Ok(Resp::json(200, &json!(rows)))
        }
        ("GET", "/schema_migrations") => Ok(match std::fs::read(&migrations) {
            Ok(text) => Resp::new(200, "application/json", text),
            Err(_) => Resp::json(200, &json!({"version": 0, "dirty": false})),
        }),
        ("PUT", "/schema_migrations") => Ok(role::write_atomic(&migrations, &req.body).map_or_else(
            |e| Resp::new(500, "text/plain", e.to_string()),
            |()| Resp::empty(200),
        )),
        _ => Ok(Resp::empty(404)),
    };
    result.unwrap_or_else(|resp| resp)
}

/// The server.
pub async fn run() -> io::Result<()> {
    let dir = Path::new(DATA);
    role::claim(dir)?;
    let marker = Marker::take(&dir.join("status"))?;
    if marker.unclean {
        log::line(
            "<Warning> StatusFile: Status file /srv/clickhouse/status already exists - unclean restart.",
        );
    }
    let store = Arc::new(Mutex::new(Store::open(dir)?));
    let listener = role::listen(PORT).await?;
    log::line("<Information> Application: Ready for connections.");
    tokio::spawn(http::serve(
        listener,
        None,
        http::handler(Arc::clone(&store), answer),
    ));
    let mut stop = std::pin::pin!(role::stop_signal());
    loop {
        tokio::select! {
            signal = &mut stop => { signal?; break }
            () = role::sleep(2.0) => store.lock().unwrap_or_else(PoisonError::into_inner).flush()?,
        }
    }
    log::line("<Information> Application: Received termination signal (Terminated)");
    role::sleep(Switches::now().slow_stop_seconds).await;
    store.lock().unwrap_or_else(PoisonError::into_inner).flush()?;
    marker.release();
    log::line("<Information> Application: shutting down");
    Ok(())
}
