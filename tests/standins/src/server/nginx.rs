//! nginx: ends TLS, shows the maintenance page, asks pmm-managed whether a request is allowed, hands it to the program that answers.

use std::{io, path::Path, sync::Arc};

use hyper::{HeaderMap, body::Bytes, header::HeaderValue};
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;

use super::{
    clickhouse, grafana,
    http::{self, Req, Resp},
    log, managed, qan, role, tls,
    version::Version,
    vm,
};

/// While this file exists everything but the update status is answered with 503.
pub const MAINTENANCE: &str = "/usr/share/pmm-server/maintenance/maintenance.html";

struct Nginx {
    version: Version,
}

/// The server.
pub async fn run() -> io::Result<()> {
    let version = Version::of_image();
    let (plain, secure) = if version.is_v3() { (8080, 8443) } else { (80, 443) };
    let acceptor =
        tls::acceptor(Path::new(tls::DIR)).map_err(|e| io::Error::other(format!("[emerg] {e}")))?;
    let bind = |port: u16| async move {
        TcpListener::bind(("0.0.0.0", port))
            .await
            .map_err(|e| io::Error::other(format!("[emerg] bind() to 0.0.0.0:{port} failed ({e})")))
    };
    let (plain, secure) = (bind(plain).await?, bind(secure).await?);
    let handler = http::handler(Arc::new(Nginx { version }), answer);
    log::line("[notice] start worker processes");
    tokio::spawn(http::serve(plain, None, Arc::clone(&handler)));
    tokio::spawn(http::serve(secure, Some(acceptor), handler));
    role::stop_signal().await.map(|_| ())
}

/// PMM 3 rewrites the paths that monitoring of PMM 2 commonly uses.
fn rewrite(path: &str, v3: bool) -> &str {
    match (path, v3) {
        ("/v1/readyz" | "/ping", true) => "/v1/server/readyz",
        ("/v1/version", true) => "/v1/server/version",
        ("/logs.zip", true) => "/v1/server/logs.zip",
        ("/ping", false) => "/v1/readyz",
        _ => path,
    }
}

async fn answer(nginx: Arc<Nginx>, req: Req) -> Resp {
    let v3 = nginx.version.is_v3();
    let path = rewrite(&req.path, v3).to_owned();
    let status_path = path == "/v1/Updates/Status" || path == "/v1/server/updates:getStatus";
    if Path::new(MAINTENANCE).exists() && !status_path {
        let page = std::fs::read(MAINTENANCE).unwrap_or_default();
        return Resp::new(503, "text/html", page);
    }
    if path.starts_with("/graph/internal") || path.starts_with("/internal") || path == "/auth_request" {
        return Resp::new(
            404,
            "text/html",
            "<html><head><title>404 Not Found</title></head></html>",
        );
    }
    if let Err(refused) = allowed(&req, &path).await {
        return refused;
    }
    let mut target = req.target.clone();
    if path != req.path {
        target = path.clone();
    }
    let (port, target) = if path.starts_with("/graph") {
        (grafana::PORT, target)
    } else if path.starts_with("/prometheus/") {
        (if v3 { 8430 } else { vm::PORT }, target)
    } else if let Some(rest) = target.strip_prefix("/victoriametrics/") {
        (vm::PORT, format!("/prometheus/{rest}"))
    } else if path.starts_with("/v0/qan/") || path.starts_with("/v1/qan") {
        (qan::PORT, target)
    } else if path == "/" {
        let mut resp = Resp::empty(302);
        resp.headers
            .insert("location", HeaderValue::from_static("/graph/"));
        return resp;
    } else {
        (managed::PORT, target)
    };
    debug_assert_ne!(
        port,
        clickhouse::PORT,
        "the database is not reachable from outside"
    );
    forward(port, &target, req).await
}

/// The sub-request that decides.
async fn allowed(req: &Req, path: &str) -> Result<(), Resp> {
    let mut headers = HeaderMap::new();
    if let Some(value) = req.headers.get("authorization") {
        headers.insert("authorization", value.clone());
    }
    if let Ok(value) = HeaderValue::from_str(path) {
        headers.insert("x-original-uri", value);
    }
    let auth = tokio::time::timeout(
        std::time::Duration::from_secs(5),
        http::call(managed::PORT, "GET", "/auth_request", &headers, Bytes::new()),
    )
    .await;
    match auth {
        Ok(Ok(answer)) if answer.ok() => Ok(()),
        Ok(Ok(answer)) if answer.status == 401 || answer.status == 403 => Err(answer),
        // Whatever else the sub-request yields is an internal error, as it is in nginx.
        _ => Err(page(500, "500 Internal Server Error")),
    }
}

fn page(status: u16, title: &str) -> Resp {
    Resp::new(
        status,
        "text/html",
        format!(
            "<html><head><title>{title}</title></head><body><center><h1>{title}</h1></center><hr><center>nginx</center></body></html>"
        ),
    )
}

async fn forward(port: u16, target: &str, mut req: Req) -> Resp {
    let upgrade = req.upgrade.take();
    if upgrade.is_none() {
        req.headers.remove("upgrade");
    }
    match http::call(port, &req.method, target, &req.headers, req.body).await {
        Ok(mut answer) if answer.status == 101 => {
            if let (Some(down), Some(up)) = (upgrade, answer.upgrade.take()) {
                tokio::spawn(async move {
                    if let (Ok(down), Ok(up)) = (down.await, up.await) {
                        let _ = tokio::io::copy_bidirectional(&mut TokioIo::new(down), &mut TokioIo::new(up))
                            .await;
                    }
                });
            }
            answer
        }
        Ok(answer) => answer,
        Err(_) => page(502, "502 Bad Gateway"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_old_probes_work_on_both_majors() {
        assert_eq!(rewrite("/v1/readyz", true), "/v1/server/readyz");
        assert_eq!(rewrite("/v1/version", true), "/v1/server/version");
        assert_eq!(rewrite("/v1/readyz", false), "/v1/readyz");
        assert_eq!(
            rewrite("/v1/inventory/Services/List", true),
            "/v1/inventory/Services/List"
        );
    }
}
