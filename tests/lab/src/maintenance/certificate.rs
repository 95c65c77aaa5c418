//! Renewal: a call with the old certificate is refused, with the new one it is not.

use super::Held;
use crate::wait;
use crate::{docker, names};
use anyhow::{Result, ensure};

const HOST: &str = "deb-a";
const IDENTITY: &str = "/var/lib/pmm-upgrade-agent/identity";
const OLD: &str = "/root/old-identity";

pub fn renew() -> Result<()> {
    let held = Held::take()?;
    let container = names::host(HOST);
    docker::exec_must(&container, &["cp", "-a", IDENTITY, OLD])?;
    let was = serial(&container, OLD)?;
    ensure!(
        accepted(&container, OLD)?,
        "the certificate is not accepted before it is renewed"
    );
    held.must("renew", HOST, &[])?;
    held.connected(HOST)?;
    let now = serial(&container, IDENTITY)?;
    ensure!(now != was, "the certificate is the same one: serial {was}");
    ensure!(
        accepted(&container, IDENTITY)?,
        "the new certificate is not accepted"
    );
    wait::until("the old certificate to be refused", 30, || {
        wait::check(!accepted(&container, OLD)?, "accepted")
    })
}

/// Digest of the certificate as it stands on the disk; the serial is a part of it.
fn serial(container: &str, identity: &str) -> Result<String> {
    docker::exec_must(container, &["sha256sum", &format!("{identity}/certificate.pem")])
        .map(|line| line.split_whitespace().next().unwrap_or_default().to_owned())
}

/// Asks for a file that does not exist. An agent that is let in is told so; another gets no answer, or that it is not known.
fn accepted(container: &str, identity: &str) -> Result<bool> {
    let url = format!(
        "https://coordinator.lab:{}/fleet.v1.AgentLink/Artifact",
        names::SESSION_PORT
    );
    let (certificate, key) = (
        format!("{identity}/certificate.pem"),
        format!("{identity}/key.pem"),
    );
    let mut message = vec![0x0a, 64];
    message.extend([b'0'; 64]);
    let mut frame = vec![0, 0, 0, 0, u8::try_from(message.len())?];
    frame.extend(message);
    let argv = [
        "curl",
        "-sk",
        "--http2",
        "--max-time",
        "10",
        "-o",
        "/dev/null",
        "-D",
        "-",
        "--cert",
        &certificate,
        "--key",
        &key,
        "-H",
        "content-type: application/grpc",
        "-H",
        "te: trailers",
        "--data-binary",
        "@-",
        &url,
    ];
    let done = docker::exec_as(container, "0", &[], &argv, Some(&frame))?;
    let status = done
        .stdout
        .lines()
        .find_map(|line| line.trim().strip_prefix("grpc-status:").map(str::trim));
    // UNAUTHENTICATED and PERMISSION_DENIED; without a handshake there is no status at all.
    Ok(done.ok() && status.is_some_and(|status| !matches!(status, "16" | "7")))
}
