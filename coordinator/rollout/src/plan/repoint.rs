//! Which clients address the PMM Server's container itself, and must follow its inner port when it becomes PMM 3.
//!
//! PMM 2 listens on 443 and 80 inside of its container, PMM 3 on 8443 and 8080 (facts server 1.3 and 5.1, "Network aliases"; client 3, "Port
//! note"). Host ports are kept, so clients that come by a published port notice nothing. What an address means is known on the host alone:
//! its own resolution decides; where there is none, unknown means no.

use fleet_common::plan_entry::Repoint;
use fleet_common::reach::ContainerReach;
use std::net::IpAddr;

/// PMM 2's inner ports and PMM 3's.
const MOVED: &[(u16, u16)] = &[(443, 8443), (80, 8080)];

/// What becomes of a client's address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Way {
    /// It comes by a published port, or another address altogether.
    Stays,
    /// It addresses the container and follows it.
    Follows(Repoint),
    /// That can't be told, or can't be followed.
    Unclear {
        /// Why.
        reason: String,
        /// What to do.
        hint: &'static str,
    },
}

/// Judges a client's configured address. `resolved` is what its host part means on the client's machine; empty when unknown.
pub(super) fn way(reach: &ContainerReach, address: &str, resolved: &[IpAddr]) -> Way {
    if address.is_empty() || *reach == ContainerReach::default() {
        return Way::Stays;
    }
    let (host, port) = split(address);
    let literal: Option<IpAddr> = host.parse().ok();
    let inside = |found: &IpAddr| reach.addresses.contains(found);
    let direct = match literal {
        Some(found) => inside(&found),
        None if !resolved.is_empty() => resolved.iter().any(inside),
        None if !reach.is_named(host) => false,
        None => {
            let known = port.unwrap_or(443);
            if reach.published.contains(&known) {
                return Way::Unclear {
                    reason: format!(
                        "`{address}` may be the container {host} or a published port of a machine of that name"
                    ),
                    hint: "see that the name resolves on the host, then plan again; or let the client use the published port under another name",
                };
            }
            true
        }
    };
    if !direct {
        return Way::Stays;
    }
    let by_dockers_name = literal.is_none() && reach.is_named(host);
    let kept = |found: &IpAddr| reach.fixed.contains(found);
    if !by_dockers_name && !literal.iter().chain(resolved).any(kept) {
        return Way::Unclear {
            reason: format!(
                "`{address}` addresses the PMM Server's container by an address that may change when the container is created anew"
            ),
            hint: "let the client use the container's name, a network alias or a published port, then plan again",
        };
    }
    let Some(port) = port else {
        return Way::Unclear {
            reason: format!("`{address}` addresses the PMM Server's container and names no port"),
            hint: "write the port into the client's configuration, restart it and plan again",
        };
    };
    match MOVED.iter().find(|(old, _)| *old == port) {
        Some((_, new)) => Way::Follows(Repoint {
            from: address.to_owned(),
            to: format!(
                "{}:{new}",
                address.rsplit_once(':').map_or(address, |(before, _)| before)
            ),
        }),
        None => Way::Unclear {
            reason: format!("`{address}` addresses the PMM Server's container on a port that is not PMM's"),
            hint: "let the client use a published port, then plan again",
        },
    }
}

/// The same repoint the other way round.
pub(super) fn back(repoint: &Repoint) -> Repoint {
    Repoint {
        from: repoint.to.clone(),
        to: repoint.from.clone(),
    }
}

/// Host and port; an address of IPv6 stands in brackets.
fn split(address: &str) -> (&str, Option<u16>) {
    if let Some(rest) = address.strip_prefix('[') {
        let (host, rest) = rest.split_once(']').unwrap_or((rest, ""));
        return (host, rest.strip_prefix(':').and_then(|port| port.parse().ok()));
    }
    match address.rsplit_once(':') {
        Some((host, port)) if !host.contains(':') => (host, port.parse().ok()),
        _ => (address, None),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn reach(published: &[u16]) -> ContainerReach {
        ContainerReach {
            names: ["pmm-server".to_owned(), "pmm".to_owned()].into(),
            addresses: ["172.18.0.2".parse().unwrap(), "172.19.0.2".parse().unwrap()].into(),
            fixed: ["172.18.0.2".parse().unwrap()].into(),
            subnets: ["172.18.0.2/16".to_owned()].into(),
            published: published.iter().copied().collect(),
            exposed: [80, 443].into(),
        }
    }

    fn follows(from: &str, to: &str) -> Way {
        Way::Follows(Repoint {
            from: from.to_owned(),
            to: to.to_owned(),
        })
    }

    #[test]
    fn the_hosts_own_resolution_decides() {
        let (inside, outside): (IpAddr, IpAddr) =
            ("172.18.0.2".parse().unwrap(), "10.0.0.7".parse().unwrap());
        let reach = reach(&[443]);
        assert_eq!(
            way(&reach, "pmm-server:443", &[inside]),
            follows("pmm-server:443", "pmm-server:8443")
        );
        assert_eq!(
            way(&reach, "pmm.example.com:443", &[inside]),
            follows("pmm.example.com:443", "pmm.example.com:8443")
        );
        assert_eq!(
            way(&reach, "pmm-server:80", &[inside]),
            follows("pmm-server:80", "pmm-server:8080")
        );
        assert_eq!(way(&reach, "pmm-server:443", &[outside]), Way::Stays);
        assert_eq!(
            way(&reach, "172.18.0.2:443", &[]),
            follows("172.18.0.2:443", "172.18.0.2:8443")
        );
        assert_eq!(way(&reach, "10.0.0.7:443", &[]), Way::Stays);
    }

    #[test]
    fn unknown_means_no() {
        let unclear = |way: Way| matches!(way, Way::Unclear { .. });
        assert!(
            unclear(way(&reach(&[443]), "pmm-server:443", &[])),
            "the machine may have the same name"
        );
        assert_eq!(
            way(&reach(&[8000]), "PMM:443", &[]),
            follows("PMM:443", "PMM:8443"),
            "no published port can be meant"
        );
        assert!(unclear(way(&reach(&[]), "pmm:9000", &[])));
        assert!(unclear(way(&reach(&[8443]), "pmm", &[])));
        assert!(
            unclear(way(&reach(&[]), "172.19.0.2:443", &[])),
            "it may be another one afterwards"
        );
        assert!(unclear(way(
            &reach(&[]),
            "pmm.hosts:443",
            &["172.19.0.2".parse().unwrap()]
        )));
        assert_eq!(way(&reach(&[443]), "pmm.example.com:443", &[]), Way::Stays);
        assert_eq!(way(&ContainerReach::default(), "pmm-server:443", &[]), Way::Stays);
    }

    #[test]
    fn the_way_back_is_the_inverse() {
        let Way::Follows(there) = way(&reach(&[]), "pmm:443", &[]) else {
            panic!("it must follow");
        };
        assert_eq!(back(&back(&there)), there);
        assert_eq!(split("[fd00::2]:443"), ("fd00::2", Some(443)));
    }
}
