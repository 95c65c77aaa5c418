//! How clients may reach the container, read from `docker inspect`.

use fleet_common::reach::ContainerReach;
use serde_json::Value;
use std::net::IpAddr;

/// PMM's own ports inside of the container, of both majors.
const PMM_PORTS: &[&str] = &["80/tcp", "443/tcp", "8080/tcp", "8443/tcp"];

/// Names, addresses and ports of a container that runs.
pub fn reach(container: &Value) -> ContainerReach {
    let mut reach = ContainerReach::default();
    let id = container["Id"].as_str().unwrap_or_default();
    // A name made of the id goes away with the container.
    let lasting = |name: &str| !(name.is_empty() || name.len() >= 12 && id.starts_with(name));
    let mut names = vec![
        container["Name"]
            .as_str()
            .unwrap_or_default()
            .trim_start_matches('/')
            .to_owned(),
        container["Config"]["Hostname"]
            .as_str()
            .unwrap_or_default()
            .to_owned(),
    ];
    let networks = container["NetworkSettings"]["Networks"].as_object();
    for endpoint in networks.into_iter().flat_map(|map| map.values()) {
        names.extend(
            ["Aliases", "DNSNames"]
                .iter()
                .flat_map(|member| words(&endpoint[*member])),
        );
        for (address, prefix) in [
            ("IPAddress", "IPPrefixLen"),
            ("GlobalIPv6Address", "GlobalIPv6PrefixLen"),
        ] {
            if let Some(found) = ip(&endpoint[address]) {
                reach.addresses.insert(found);
                if let Some(length) = endpoint[prefix].as_u64().filter(|length| *length > 0) {
                    reach.subnets.insert(format!("{found}/{length}"));
                }
            }
        }
        for member in ["IPv4Address", "IPv6Address"] {
            reach.fixed.extend(ip(&endpoint["IPAMConfig"][member]));
        }
    }
    names.retain(|name| lasting(name));
    // Docker's resolver answers `name.network`, too.
    let qualified: Vec<String> = networks
        .into_iter()
        .flat_map(|map| map.keys())
        .flat_map(|network| names.iter().map(move |name| format!("{name}.{network}")))
        .collect();
    reach.names.extend(names.into_iter().chain(qualified));
    for port in PMM_PORTS {
        let bound = container["NetworkSettings"]["Ports"][*port]
            .as_array()
            .into_iter()
            .flatten();
        reach
            .published
            .extend(bound.filter_map(|one| one["HostPort"].as_str()?.parse::<u16>().ok()));
    }
    let exposed = container["Config"]["ExposedPorts"].as_object();
    reach.exposed.extend(
        exposed
            .into_iter()
            .flat_map(|map| map.keys())
            .filter_map(|port| port.split('/').next()?.parse::<u16>().ok()),
    );
    reach
}

fn words(list: &Value) -> Vec<String> {
    let texts = list.as_array().into_iter().flatten().filter_map(Value::as_str);
    texts.map(str::to_owned).collect()
}

fn ip(text: &Value) -> Option<IpAddr> {
    text.as_str()?.parse().ok()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use serde_json::json;

    #[test]
    fn names_addresses_and_ports_are_read_and_the_id_is_no_name() {
        let container = json!({
            "Id": "0123456789abcdef", "Name": "/pmm-server",
            "Config": {"Hostname": "0123456789ab", "ExposedPorts": {"443/tcp": {}, "80/tcp": {}}},
            "NetworkSettings": {
                "Ports": {"443/tcp": [{"HostIp": "0.0.0.0", "HostPort": "8000"}], "80/tcp": null, "9000/tcp": [{"HostPort": "9"}]},
                "Networks": {
                    "pmm-net": {"Aliases": ["pmm", "0123456789ab"], "DNSNames": ["pmm-server"], "IPAddress": "172.18.0.2", "IPPrefixLen": 16,
                                "GlobalIPv6Address": "", "IPAMConfig": {"IPv4Address": "172.18.0.2"}},
                    "bridge": {"Aliases": null, "IPAddress": "172.17.0.3", "IPPrefixLen": 16, "IPAMConfig": null}
                }
            }
        });
        let found = reach(&container);
        for name in ["pmm-server", "pmm", "pmm.pmm-net"] {
            assert!(found.is_named(name), "{name}");
        }
        assert!(!found.is_named("0123456789ab"));
        assert_eq!(found.addresses.len(), 2);
        assert_eq!(
            found.fixed.iter().map(ToString::to_string).collect::<Vec<_>>(),
            ["172.18.0.2"]
        );
        assert!(found.is_neighbour("172.18.5.5".parse().unwrap()));
        assert_eq!(found.published.iter().copied().collect::<Vec<_>>(), [8000]);
        assert_eq!(found.exposed.iter().copied().collect::<Vec<_>>(), [80, 443]);
        assert_eq!(reach(&json!({})), ContainerReach::default());
    }
}
