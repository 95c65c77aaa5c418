//! A small blocking HTTP/1.1 client, and the reading half of a small server.

use base64::Engine;
use std::collections::BTreeMap;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::time::Duration;

/// A byte stream to the server, with or without TLS.
pub trait Stream: Read + Write + Send {}
impl<T: Read + Write + Send> Stream for T {}

/// Where and as whom to talk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// Host name or address.
    pub host: String,
    /// TCP port.
    pub port: u16,
    /// False for plain HTTP.
    pub tls: bool,
    /// No certificate check.
    pub insecure: bool,
    /// Value of the `Authorization` header, if any.
    pub authorization: Option<String>,
}

/// A complete answer.
#[derive(Debug, Clone)]
pub struct Answer {
    /// Status code.
    pub status: u16,
    /// Body bytes.
    pub body: Vec<u8>,
}

impl Answer {
    /// The body as JSON, `null` if it is none.
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }
}

/// The `Authorization` header for a user and a password. PMM 2 programs know only the user name `api_key` as a token's,
/// PMM 3 programs `service_token` too.
pub fn authorization(username: &str, password: &str, v3: bool) -> Option<String> {
    if username.is_empty() && password.is_empty() {
        return None;
    }
    if username == "api_key" || (v3 && username == "service_token") {
        return Some(format!("Bearer {password}"));
    }
    let pair = base64::engine::general_purpose::STANDARD.encode(format!("{username}:{password}"));
    Some(format!("Basic {pair}"))
}

impl Endpoint {
    /// Opens a connection; reads give up after `read_timeout`, writes after five seconds.
    pub fn connect(&self, read_timeout: Duration) -> io::Result<Box<dyn Stream>> {
        let mut last = io::Error::new(
            io::ErrorKind::NotFound,
            format!("lookup {}: no such host", self.host),
        );
        for address in (self.host.as_str(), self.port).to_socket_addrs()? {
            match TcpStream::connect_timeout(&address, Duration::from_secs(5)) {
                Ok(tcp) => return self.wrap(tcp, read_timeout),
                Err(e) => last = e,
            }
        }
        Err(last)
    }

    fn wrap(&self, tcp: TcpStream, read_timeout: Duration) -> io::Result<Box<dyn Stream>> {
        tcp.set_nodelay(true)?;
        tcp.set_write_timeout(Some(Duration::from_secs(5)))?;
        tcp.set_read_timeout(Some(Duration::from_secs(5)))?;
        if !self.tls {
            tcp.set_read_timeout(Some(read_timeout))?;
            return Ok(Box::new(tcp));
        }
        let config = super::tls::client_config(self.insecure).map_err(io::Error::other)?;
        let name = rustls_pki_types::ServerName::try_from(self.host.clone()).map_err(io::Error::other)?;
        let session = rustls::ClientConnection::new(config, name).map_err(io::Error::other)?;
        let mut stream = rustls::StreamOwned::new(session, tcp);
        while stream.conn.is_handshaking() {
            stream.conn.complete_io(&mut stream.sock)?;
        }
        stream.sock.set_read_timeout(Some(read_timeout))?;
        Ok(Box::new(stream))
    }

    /// Text of a request head.
    pub fn head(&self, method: &str, path: &str, extra: &str, length: Option<usize>) -> String {
        let auth = self
            .authorization
            .as_ref()
            .map(|a| format!("Authorization: {a}\r\n"))
            .unwrap_or_default();
        let length = length
            .map(|n| format!("Content-Length: {n}\r\n"))
            .unwrap_or_default();
        format!(
            "{method} {path} HTTP/1.1\r\nHost: {}:{}\r\nUser-Agent: pmm-client\r\n{auth}{length}{extra}\r\n",
            self.host, self.port
        )
    }

    /// Sends one request on its own connection and reads the whole answer.
    pub fn request(&self, method: &str, path: &str, content_type: &str, body: &[u8]) -> io::Result<Answer> {
        let mut stream = self.connect(Duration::from_secs(10))?;
        let extra = format!("Connection: close\r\nContent-Type: {content_type}\r\n");
        stream.write_all(self.head(method, path, &extra, Some(body.len())).as_bytes())?;
        stream.write_all(body)?;
        stream.flush()?;
        read_answer(stream)
    }

    /// Sends and reads JSON.
    pub fn json(&self, method: &str, path: &str, body: &serde_json::Value) -> io::Result<Answer> {
        self.request(method, path, "application/json", body.to_string().as_bytes())
    }
}

fn read_answer(stream: Box<dyn Stream>) -> io::Result<Answer> {
    let mut reader = BufReader::new(stream);
    let (first, headers) = read_head(&mut reader)?;
    let status = first
        .split(' ')
        .nth(1)
        .and_then(|s| s.parse().ok())
        .ok_or_else(|| io::Error::other("malformed HTTP status line"))?;
    let body = if headers
        .get("transfer-encoding")
        .is_some_and(|v| v.contains("chunked"))
    {
        read_chunked(&mut reader)?
    } else if let Some(length) = headers.get("content-length").and_then(|v| v.parse().ok()) {
        let mut body = Vec::new();
        reader.take(length).read_to_end(&mut body)?;
        body
    } else {
        let mut body = Vec::new();
        match reader.read_to_end(&mut body) {
            Err(e) if e.kind() != io::ErrorKind::UnexpectedEof => return Err(e),
            _ => body,
        }
    };
    Ok(Answer { status, body })
}

fn read_chunked(reader: &mut impl BufRead) -> io::Result<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        let size = u64::from_str_radix(line.trim().split(';').next().unwrap_or("0"), 16)
            .map_err(io::Error::other)?;
        reader.by_ref().take(size).read_to_end(&mut body)?;
        let mut end = String::new();
        reader.read_line(&mut end)?;
        if size == 0 {
            return Ok(body);
        }
    }
}

/// Reads the first line and the headers (names in lower case) of a request or an answer.
pub fn read_head(reader: &mut impl BufRead) -> io::Result<(String, BTreeMap<String, String>)> {
    let mut first = String::new();
    if reader.read_line(&mut first)? == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    let mut headers = BTreeMap::new();
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line)? == 0 || line.trim().is_empty() {
            return Ok((first.trim_end().to_string(), headers));
        }
        if let Some((name, value)) = line.split_once(':') {
            headers.insert(name.trim().to_ascii_lowercase(), value.trim().to_string());
        }
    }
}

/// Reads a request of a small server: method, path with its query, body.
pub fn read_request(tcp: &TcpStream) -> io::Result<(String, String, Vec<u8>)> {
    let mut reader = BufReader::new(tcp);
    let (first, headers) = read_head(&mut reader)?;
    let mut parts = first.split(' ');
    let method = parts.next().unwrap_or_default().to_string();
    let path = parts.next().unwrap_or_default().to_string();
    let length = headers
        .get("content-length")
        .and_then(|v| v.parse::<u64>().ok())
        .unwrap_or(0)
        .min(1 << 20);
    let mut body = Vec::new();
    reader.take(length).read_to_end(&mut body)?;
    Ok((method, path, body))
}

/// Answers a request of a small server and closes.
pub fn respond(mut tcp: &TcpStream, status: &str, content_type: &str, body: &[u8]) -> io::Result<()> {
    let head = format!(
        "HTTP/1.1 {status}\r\nContent-Type: {content_type}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        body.len()
    );
    tcp.write_all(head.as_bytes())?;
    tcp.write_all(body)
}

/// Splits `https://user:password@host:port/` into an endpoint and its credentials, which may be percent-encoded.
pub fn parse_server_url(url: &str) -> Result<(String, String, String, bool), String> {
    let (scheme, rest) = url
        .split_once("://")
        .ok_or_else(|| format!("cannot parse server URL {url:?}"))?;
    let tls = match scheme {
        "https" => true,
        "http" => false,
        _ => return Err("scheme of the server URL is neither https nor http".into()),
    };
    let rest = rest.split('/').next().unwrap_or(rest);
    let (user, address) = rest.rsplit_once('@').map_or(("", rest), |(u, a)| (u, a));
    let (name, password) = user.split_once(':').unwrap_or((user, ""));
    let address = if address.contains(':') {
        address.to_string()
    } else {
        format!("{address}:{}", if tls { 443 } else { 80 })
    };
    Ok((address, decode(name), decode(password), tls))
}

fn decode(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = Vec::new();
    let mut at = 0;
    while at < bytes.len() {
        let hex = (bytes[at] == b'%')
            .then(|| bytes.get(at + 1..at + 3))
            .flatten()
            .and_then(|h| std::str::from_utf8(h).ok());
        if let Some(value) = hex.and_then(|h| u8::from_str_radix(h, 16).ok()) {
            out.push(value);
            at += 3;
        } else {
            out.push(bytes[at]);
            at += 1;
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

/// Percent-encodes user information of a URL.
pub fn encode(text: &str) -> String {
    text.bytes()
        .map(|b| {
            if b.is_ascii_alphanumeric() || b"-._~".contains(&b) {
                char::from(b).to_string()
            } else {
                format!("%{b:02X}")
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn urls_give_up_their_credentials() {
        let (address, user, password, tls) = parse_server_url("https://admin:p%40ss@pmm.lab:8443/").unwrap();
        assert_eq!(
            (address.as_str(), user.as_str(), password.as_str(), tls),
            ("pmm.lab:8443", "admin", "p@ss", true)
        );
        assert_eq!(parse_server_url("https://pmm.lab").unwrap().0, "pmm.lab:443");
        assert!(parse_server_url("pmm.lab").is_err());
        assert_eq!(decode(&encode("a:b@c/d %é")), "a:b@c/d %é");
    }

    #[test]
    fn only_pmm3_takes_service_tokens_as_bearer() {
        assert_eq!(authorization("api_key", "k", false), Some("Bearer k".into()));
        assert_eq!(authorization("service_token", "k", true), Some("Bearer k".into()));
        assert!(
            authorization("service_token", "k", false)
                .unwrap()
                .starts_with("Basic ")
        );
        assert_eq!(authorization("", "", true), None);
    }
}
