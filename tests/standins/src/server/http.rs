//! A small HTTP/1.1 layer over hyper: whole bodies, one handler, and upgraded connections handed over as streams.

use std::{
    collections::BTreeMap, convert::Infallible, future::Future, io, pin::Pin, sync::Arc, time::Duration,
};

use http_body_util::{BodyExt, Full, Limited};
use hyper::{
    HeaderMap, Request, Response, StatusCode,
    body::{Bytes, Incoming},
    header::{HeaderName, HeaderValue},
    service::service_fn,
    upgrade::OnUpgrade,
};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
};
use tokio_rustls::TlsAcceptor;

/// No request of a client or an operator is larger.
const BODY_LIMIT: usize = 64 << 20;

/// A request with its whole body.
pub struct Req {
    /// GET, POST and so on.
    pub method: String,
    /// The decoded path.
    pub path: String,
    /// The query and, for forms, the body's fields.
    pub query: BTreeMap<String, String>,
    /// The path and query as they were sent.
    pub target: String,
    /// The headers.
    pub headers: HeaderMap,
    /// The body.
    pub body: Bytes,
    /// The connection itself, if the request asked for an upgrade.
    pub upgrade: Option<OnUpgrade>,
}

impl Req {
    /// A header as text, empty if it is absent or not text.
    pub fn header(&self, name: &str) -> &str {
        self.headers
            .get(name)
            .and_then(|v| v.to_str().ok())
            .unwrap_or_default()
    }

    /// The body as JSON; an empty body is an empty object.
    pub fn json(&self) -> Result<Value, Resp> {
        if self.body.is_empty() {
            return Ok(json!({}));
        }
        serde_json::from_slice(&self.body)
            .map_err(|e| Resp::grpc(400, 3, &format!("invalid character in request: {e}")))
    }

    /// One value of the query.
    pub fn param(&self, name: &str) -> &str {
        self.query.get(name).map(String::as_str).unwrap_or_default()
    }
}

/// An answer.
pub struct Resp {
    /// The status.
    pub status: u16,
    /// The headers.
    pub headers: Box<HeaderMap>,
    /// The body.
    pub body: Bytes,
    /// The upgraded connection of a 101 answer that was received.
    pub upgrade: Option<OnUpgrade>,
}

impl Resp {
    /// An answer with a content type.
    pub fn new(status: u16, kind: &str, body: impl Into<Bytes>) -> Self {
        let mut headers = HeaderMap::new();
        if let Ok(value) = HeaderValue::from_str(kind) {
            headers.insert("content-type", value);
        }
        Self {
            status,
            headers: Box::new(headers),
            body: body.into(),
            upgrade: None,
        }
    }

    /// A JSON answer.
    pub fn json(status: u16, value: &Value) -> Self {
        Self::new(status, "application/json", value.to_string())
    }

    /// An answer without a body.
    pub fn empty(status: u16) -> Self {
        Self::new(status, "text/plain", Bytes::new())
    }

    /// An error in the form of the gRPC gateway.
    pub fn grpc(status: u16, code: u8, message: &str) -> Self {
        Self::json(
            status,
            &json!({"code": code, "error": message, "message": message, "details": []}),
        )
    }

    /// Whether the status is in the two hundreds.
    pub fn ok(&self) -> bool {
        (200..300).contains(&self.status)
    }

    /// The body as JSON, null if it is none.
    pub fn value(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or(Value::Null)
    }

    fn into_hyper(self) -> Response<Full<Bytes>> {
        let mut answer = Response::new(Full::new(self.body));
        *answer.status_mut() = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        *answer.headers_mut() = *self.headers;
        answer
    }
}

/// A future that a handler returns.
pub type Answer = Pin<Box<dyn Future<Output = Resp> + Send>>;
/// What answers requests.
pub type Handler = Arc<dyn Fn(Req) -> Answer + Send + Sync>;

/// Makes a handler of an async function over shared state.
pub fn handler<S, F, Fut>(state: Arc<S>, f: F) -> Handler
where
    S: Send + Sync + 'static,
    F: Fn(Arc<S>, Req) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Resp> + Send + 'static,
{
    Arc::new(move |req| Box::pin(f(Arc::clone(&state), req)))
}

/// Accepts connections for ever.
pub async fn serve(listener: TcpListener, tls: Option<TlsAcceptor>, handler: Handler) {
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            tokio::time::sleep(Duration::from_millis(50)).await;
            continue;
        };
        let handler = Arc::clone(&handler);
        let tls = tls.clone();
        tokio::spawn(async move {
            let _ = stream.set_nodelay(true);
            match tls {
                Some(acceptor) => {
                    if let Ok(Ok(stream)) =
                        tokio::time::timeout(Duration::from_secs(10), acceptor.accept(stream)).await
                    {
                        connection(stream, handler).await;
                    }
                }
                None => connection(stream, handler).await,
            }
        });
    }
}

async fn connection<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(stream: S, handler: Handler) {
    let service = service_fn(move |req| {
        let handler = Arc::clone(&handler);
        async move { Ok::<_, Infallible>(answer(req, &handler).await) }
    });
    // A peer that goes away in the middle is its own affair.
    let _ = hyper::server::conn::http1::Builder::new()
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades()
        .await;
}

async fn answer(mut req: Request<Incoming>, handler: &Handler) -> Response<Full<Bytes>> {
    let upgrade = req
        .headers()
        .contains_key("upgrade")
        .then(|| hyper::upgrade::on(&mut req));
    let (parts, body) = req.into_parts();
    let body = match Limited::new(body, BODY_LIMIT).collect().await {
        Ok(body) => body.to_bytes(),
        Err(_) => return Resp::empty(413).into_hyper(),
    };
    let mut query = form(parts.uri.query().unwrap_or_default());
    let kind = parts
        .headers
        .get("content-type")
        .and_then(|v| v.to_str().ok())
        .unwrap_or_default();
    if kind.starts_with("application/x-www-form-urlencoded") && body.first() != Some(&b'{') {
        query.extend(form(&String::from_utf8_lossy(&body)));
    }
    let target = parts
        .uri
        .path_and_query()
        .map_or_else(|| "/".to_owned(), ToString::to_string);
    let req = Req {
        method: parts.method.to_string(),
        path: decode(parts.uri.path()),
        query,
        target,
        headers: parts.headers,
        body,
        upgrade,
    };
    handler(req).await.into_hyper()
}

/// Decodes `a=b&c=d`; of repeated names the last one counts.
pub fn form(text: &str) -> BTreeMap<String, String> {
    text.split('&')
        .filter(|pair| !pair.is_empty())
        .map(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            (decode(&name.replace('+', " ")), decode(&value.replace('+', " ")))
        })
        .collect()
}

fn decode(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let hex = (bytes[at] == b'%')
            .then(|| {
                text.get(at + 1..at + 3)
                    .and_then(|h| u8::from_str_radix(h, 16).ok())
            })
            .flatten();
        match hex {
            Some(byte) => {
                out.push(byte);
                at += 3;
            }
            None => {
                out.push(bytes[at]);
                at += 1;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

/// Sends one request on a connection of its own.
///
/// Headers that belong to one hop are left out, except `connection` and `upgrade` when `upgrade` asks for them.
pub async fn call(
    port: u16,
    method: &str,
    target: &str,
    headers: &HeaderMap,
    body: Bytes,
) -> io::Result<Resp> {
    let stream = TcpStream::connect(("127.0.0.1", port)).await?;
    let _ = stream.set_nodelay(true);
    let (mut sender, conn) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .map_err(io::Error::other)?;
    tokio::spawn(conn.with_upgrades());
    let upgrading = headers.contains_key("upgrade");
    let mut request = Request::builder()
        .method(method)
        .uri(target)
        .body(Full::new(body))
        .map_err(io::Error::other)?;
    for (name, value) in headers {
        if !hop(name) || (upgrading && (name == "upgrade" || name == "connection")) {
            request.headers_mut().append(name, value.clone());
        }
    }
    request
        .headers_mut()
        .insert("host", HeaderValue::from_static("127.0.0.1"));
    let mut answer = sender.send_request(request).await.map_err(io::Error::other)?;
    if answer.status() == StatusCode::SWITCHING_PROTOCOLS {
        let upgrade = hyper::upgrade::on(&mut answer);
        return Ok(Resp {
            status: 101,
            headers: Box::new(answer.headers().clone()),
            body: Bytes::new(),
            upgrade: Some(upgrade),
        });
    }
    let (parts, body) = answer.into_parts();
    let body = body.collect().await.map_err(io::Error::other)?.to_bytes();
    let mut headers = parts.headers;
    for name in ["connection", "transfer-encoding", "content-length"] {
        headers.remove(name);
    }
    Ok(Resp {
        status: parts.status.as_u16(),
        headers: Box::new(headers),
        body,
        upgrade: None,
    })
}

/// `call` with JSON and a limit of time.
pub async fn call_json(port: u16, method: &str, target: &str, body: Option<&Value>) -> io::Result<Resp> {
    let mut headers = HeaderMap::new();
    headers.insert("content-type", HeaderValue::from_static("application/json"));
    let body = body.map(|b| Bytes::from(b.to_string())).unwrap_or_default();
    match tokio::time::timeout(
        Duration::from_secs(10),
        call(port, method, target, &headers, body),
    )
    .await
    {
        Ok(answer) => answer,
        Err(_) => Err(io::Error::from(io::ErrorKind::TimedOut)),
    }
}

fn hop(name: &HeaderName) -> bool {
    matches!(
        name.as_str(),
        "connection"
            | "upgrade"
            | "transfer-encoding"
            | "content-length"
            | "host"
            | "keep-alive"
            | "te"
            | "proxy-connection"
    )
}
