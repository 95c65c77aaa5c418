//! What the PMM Server's address means on this machine: the plan must know whether a client addresses the server's container directly.

use fleet_common::inventory::Detection;
use std::net::{IpAddr, ToSocketAddrs};
use std::sync::mpsc;
use std::time::Duration;

/// A resolver that does not answer says nothing, and must not hold the agent.
const PATIENCE: Duration = Duration::from_secs(3);

/// The same with what the server's host resolves to.
pub fn resolved(detection: Detection) -> Detection {
    let Detection::Installed(mut installation) = detection else {
        return detection;
    };
    installation.server_ips = lookup(&installation.server_address);
    Detection::Installed(installation)
}

fn lookup(address: &str) -> Vec<IpAddr> {
    if address.is_empty() {
        return Vec::new();
    }
    // The port plays no part.
    let host = address.rsplit_once(':').map_or(address, |(host, _)| host);
    let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
    let (answer, answers) = mpsc::channel();
    std::thread::spawn(move || {
        let found = (host.as_str(), 0u16)
            .to_socket_addrs()
            .map(|found| found.map(|one| one.ip()).collect::<Vec<_>>());
        // Nobody waits any more when it took too long.
        let _ = answer.send(found.unwrap_or_default());
    });
    let mut found = answers.recv_timeout(PATIENCE).unwrap_or_default();
    found.sort_unstable();
    found.dedup();
    found
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn literal_addresses_mean_themselves_and_nothing_means_nothing() {
        assert_eq!(
            lookup("172.18.0.2:443"),
            ["172.18.0.2".parse::<IpAddr>().unwrap()]
        );
        assert_eq!(lookup("[::1]:443"), ["::1".parse::<IpAddr>().unwrap()]);
        assert!(lookup("").is_empty());
    }
}
