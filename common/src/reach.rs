//! How clients may reach a PMM Server in a container: by a published port, or past it, by the container's own names and addresses.

use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::net::IpAddr;

/// A container's own names, addresses and ports. Empty where nothing is known.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ContainerReach {
    /// Names that Docker's resolver answers for it inside of its networks: its name, its host name, its aliases.
    pub names: BTreeSet<String>,
    /// Its addresses in its networks.
    pub addresses: BTreeSet<IpAddr>,
    /// Those of them that it was given by the operator and keeps when it is created anew.
    pub fixed: BTreeSet<IpAddr>,
    /// The networks themselves as `address/prefix`.
    pub subnets: BTreeSet<String>,
    /// Ports of the Docker host that lead to it.
    pub published: BTreeSet<u16>,
    /// Ports that it exposes inside of its networks.
    pub exposed: BTreeSet<u16>,
}

impl ContainerReach {
    /// Whether Docker's resolver takes this name for the container.
    pub fn is_named(&self, host: &str) -> bool {
        self.names.iter().any(|name| name.eq_ignore_ascii_case(host))
    }

    /// Whether an address is in one of the container's networks.
    pub fn is_neighbour(&self, address: IpAddr) -> bool {
        self.subnets.iter().any(|subnet| contains(subnet, address))
    }
}

fn contains(subnet: &str, address: IpAddr) -> bool {
    let Some((base, prefix)) = subnet.split_once('/') else {
        return false;
    };
    let (Ok(base), Ok(prefix)) = (base.parse::<IpAddr>(), prefix.parse::<u32>()) else {
        return false;
    };
    let (base, address, width) = match (base, address) {
        (IpAddr::V4(base), IpAddr::V4(address)) => {
            (u128::from(base.to_bits()), u128::from(address.to_bits()), 32)
        }
        (IpAddr::V6(base), IpAddr::V6(address)) => (base.to_bits(), address.to_bits(), 128),
        _ => return false,
    };
    // A prefix of nothing is no network that says anything.
    prefix > 0 && prefix <= width && (base ^ address) >> (width - prefix) == 0
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn neighbours_are_in_the_subnet_and_of_the_same_family() {
        let reach = ContainerReach {
            subnets: [
                "172.18.0.2/16".to_owned(),
                "fd00::2/64".to_owned(),
                "x".to_owned(),
                "10.0.0.1/0".to_owned(),
            ]
            .into(),
            ..ContainerReach::default()
        };
        for (address, is) in [
            ("172.18.9.9", true),
            ("172.19.0.1", false),
            ("fd00::9", true),
            ("fd01::9", false),
            ("10.0.0.2", false),
        ] {
            assert_eq!(reach.is_neighbour(address.parse().unwrap()), is, "{address}");
        }
    }

    #[test]
    fn a_stored_document_from_before_reads_as_unknown() {
        assert_eq!(
            serde_json::from_str::<ContainerReach>("{}").unwrap(),
            ContainerReach::default()
        );
    }
}
