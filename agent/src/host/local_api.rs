//! The client's local API: plain HTTP on loopback, no authentication.

use client_upgrade::parse::status::{ClientStatus, local};
use std::io::{Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::time::Duration;

/// An answer takes milliseconds; a client that hangs is not waited for.
const TIMEOUT: Duration = Duration::from_secs(3);
/// Status of a client with a thousand exporters is below a megabyte.
const MOST: u64 = 4 * 1024 * 1024;

/// `GET /local/Status`; `None` when nobody answers.
pub fn status(address: &str, port: u16) -> Option<ClientStatus> {
    local(&get(address, port, "/local/Status").ok()?)
}

/// The same as it was said, for people.
pub fn status_text(address: &str, port: u16) -> Option<String> {
    get(address, port, "/local/Status").ok()
}

fn get(address: &str, port: u16, path: &str) -> std::io::Result<String> {
    let target = (address, port)
        .to_socket_addrs()?
        .next()
        .ok_or(std::io::ErrorKind::AddrNotAvailable)?;
    let mut stream = TcpStream::connect_timeout(&target, TIMEOUT)?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    stream.set_write_timeout(Some(TIMEOUT))?;
    // HTTP/1.0: the answer is neither chunked nor kept open.
    write!(
        stream,
        "GET {path} HTTP/1.0\r\nHost: {address}\r\nAccept: application/json\r\n\r\n"
    )?;
    let mut bytes = Vec::new();
    stream.take(MOST).read_to_end(&mut bytes)?;
    let text = String::from_utf8_lossy(&bytes);
    let (head, body) = text
        .split_once("\r\n\r\n")
        .ok_or(std::io::ErrorKind::InvalidData)?;
    let ok = head.split_whitespace().nth(1) == Some("200");
    if ok {
        Ok(body.to_owned())
    } else {
        Err(std::io::ErrorKind::InvalidData.into())
    }
}
