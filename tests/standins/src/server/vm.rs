//! VictoriaMetrics: samples in memory and, as text, under `/srv/victoriametrics`; the Prometheus query API over them.

use std::{
    io,
    path::Path,
    sync::{Arc, Mutex, PoisonError},
};

use serde_json::json;

use super::{
    http::{self, Req, Resp},
    log,
    promql::{self, Labels},
    role::{self, Marker},
    tsdb::Tsdb,
};

/// The port of VictoriaMetrics.
pub const PORT: u16 = 9090;
/// The data directory.
pub const DATA: &str = "/srv/victoriametrics";
/// What PMM adds to the scrape configuration.
const BASE: &str = "/srv/prometheus/prometheus.base.yml";

async fn answer(db: Arc<Mutex<Tsdb>>, req: Req) -> Resp {
    let mut db = db.lock().unwrap_or_else(PoisonError::into_inner);
    let path = req.path.strip_prefix("/prometheus").unwrap_or(&req.path);
    match path {
        "/health" | "/-/healthy" | "/-/ready" => Resp::new(200, "text/plain", "OK"),
        "/api/v1/write" | "/api/v1/import/prometheus" => {
            let broken = db.ingest(&String::from_utf8_lossy(&req.body));
            if broken > 0 {
                Resp::new(400, "text/plain", format!("cannot parse {broken} lines"))
            } else {
                Resp::empty(204)
            }
        }
        "/api/v1/query" | "/api/v1/query_range" => promql::http(&*db, path.ends_with("range"), &req.query),
        "/api/v1/series" => {
            let end = jiff::Timestamp::now().as_millisecond();
            let all: Vec<&Labels> = db
                .all()
                .filter(|s| s.samples.iter().any(|(t, _)| *t <= end))
                .map(|s| &s.labels)
                .collect();
            Resp::json(200, &json!({"status": "success", "data": all}))
        }
        "/internal/truncate" => Resp::empty(db.truncate().map_or(500, |()| 200)),
        _ => Resp::json(
            404,
            &json!({"status": "error", "errorType": "404", "error": format!("unsupported path requested: {path:?}")}),
        ),
    }
}

/// Finds the plainest mistakes in a YAML file: a tab, or a line that is neither key, item nor comment.
pub fn check_base(text: &str) -> Result<(), String> {
    for (number, line) in text.lines().enumerate() {
        let body = line.trim();
        if line.contains('\t') {
            return Err(format!(
                "yaml: line {}: found character that cannot start any token",
                number + 1
            ));
        }
        if !(body.is_empty()
            || body.starts_with('#')
            || body.starts_with("- ")
            || body == "---"
            || body.contains(':'))
        {
            return Err(format!("yaml: line {}: could not find expected ':'", number + 1));
        }
    }
    Ok(())
}

/// VictoriaMetrics.
pub async fn run() -> io::Result<()> {
    let dir = Path::new(DATA);
    role::claim(dir)?;
    match std::fs::read_to_string(BASE) {
        Ok(text) => check_base(&text).map_err(|e| io::Error::other(format!("cannot parse {BASE:?}: {e}")))?,
        Err(e) if e.kind() == io::ErrorKind::NotFound => {}
        Err(e) => return Err(role::named(Path::new(BASE), e)),
    }
    let marker = Marker::take(&dir.join("flock.lock"))?;
    if marker.unclean {
        log::line("warn: storage was not closed cleanly; in-memory samples of the last seconds are lost");
    }
    let db = Arc::new(Mutex::new(Tsdb::open(dir)?));
    let listener = role::listen(PORT).await?;
    log::line("info: started server at http://127.0.0.1:9090/prometheus/");
    tokio::spawn(http::serve(
        listener,
        None,
        http::handler(Arc::clone(&db), answer),
    ));
    let mut stop = std::pin::pin!(role::stop_signal());
    loop {
        tokio::select! {
            signal = &mut stop => { signal?; break }
            () = role::sleep(2.0) => db.lock().unwrap_or_else(PoisonError::into_inner).flush()?,
        }
    }
    log::line("info: received signal; gracefully closing the storage");
    db.lock().unwrap_or_else(PoisonError::into_inner).flush()?;
    marker.release();
    Ok(())
}

/// vmproxy: hands requests on to VictoriaMetrics.
pub async fn proxy() -> io::Result<()> {
    let listener = role::listen(8430).await?;
    let handler = http::handler(Arc::new(()), |_, req: Req| forward(req));
    tokio::spawn(http::serve(listener, None, handler));
    role::stop_signal().await.map(|_| ())
}

async fn forward(req: Req) -> Resp {
    http::call(PORT, &req.method, &req.target, &req.headers, req.body)
        .await
        .unwrap_or_else(|e| Resp::json(502, &json!({"status": "error", "error": e.to_string()})))
}

/// Writes samples; for the server's own client.
pub async fn write(text: String) -> io::Result<()> {
    let headers = hyper::HeaderMap::new();
    http::call(PORT, "POST", "/prometheus/api/v1/write", &headers, text.into())
        .await
        .map(|_| ())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_broken_base_file_is_found() {
        assert!(check_base("scrape_configs:\n  - job_name: x\n").is_ok());
        assert!(check_base("scrape_configs\n\tfoo").is_err());
        assert!(check_base("this is not yaml").is_err());
    }
}
