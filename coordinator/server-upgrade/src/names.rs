//! Names and labels of everything that we create in Docker. Both are functions of the order, so that an object is found again after a
//! crash between its creation and the journal line about it.

use fleet_common::digest::sha256_hex;
use fleet_common::server::ServerOrder;
use std::collections::BTreeMap;

/// On every object of ours.
pub const LABEL_MANAGED: &str = "io.pmm-fleet.managed";
/// The order that an object belongs to.
pub const LABEL_ORDER: &str = "io.pmm-fleet.order";
/// The key of the hop, see [`Names::key`].
pub const LABEL_KEY: &str = "io.pmm-fleet.key";
/// What an object is for: `server`, `helper`, `keeper`, `restore-point`, `dark-network`.
pub const LABEL_ROLE: &str = "io.pmm-fleet.role";
/// The attempt at the leg, from 1.
pub const LABEL_ATTEMPT: &str = "io.pmm-fleet.attempt";
/// Digest that the image was pulled by.
pub const LABEL_IMAGE_DIGEST: &str = "io.pmm-fleet.image-digest";
/// All labels of ours start with this.
pub const LABEL_PREFIX: &str = "io.pmm-fleet.";

/// The two parts that a hop can have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// The container is first re-created on the image of the release that wrote the data.
    Rehome,
    /// The hop itself.
    Main,
}

impl Phase {
    /// What stands before the names of this phase's steps.
    pub fn prefix(self) -> &'static str {
        match self {
            Self::Rehome => "rehome/",
            Self::Main => "",
        }
    }
}

/// Names for one phase of one hop.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Names {
    container: String,
    key: String,
    order: String,
    attempt: u32,
}

/// The key of an order: short, unique per order id, fit for file and object names.
pub fn order_key(order: &ServerOrder) -> String {
    let digest = sha256_hex(order.order.as_str().as_bytes());
    format!("hop{}-{}", order.hop, digest.get(..10).unwrap_or(&digest))
}

impl Names {
    /// Names for this order and phase.
    pub fn new(container: &str, order: &ServerOrder, phase: Phase) -> Self {
        let mut key = order_key(order);
        if phase == Phase::Rehome {
            key.push_str("-rehome");
        }
        Self {
            container: container.to_owned(),
            key,
            order: order.order.to_string(),
            attempt: order.attempt,
        }
    }

    /// The part that differs between hops and attempts.
    pub fn key(&self) -> &str {
        &self.key
    }
    /// The name that the PMM Server's container has outside of hops.
    pub fn container(&self) -> &str {
        &self.container
    }
    /// The new container until it is published.
    pub fn dark_container(&self) -> String {
        format!("{}-dark-{}", self.container, self.key)
    }
    /// The old container once it is stopped.
    pub fn retired(&self) -> String {
        format!("{}-before-{}", self.container, self.key)
    }
    /// The backup volume.
    pub fn restore_point(&self) -> String {
        format!("{}-restore-{}", self.container, self.key)
    }
    /// The stopped container that holds the backup volume, so that a prune of volumes spares it.
    pub fn keeper(&self) -> String {
        format!("{}-keeper-{}", self.container, self.key)
    }
    /// The network of the dark start.
    pub fn dark_network(&self) -> String {
        format!("pmm-fleet-dark-{}", self.key)
    }
    /// The helper container of a piece of volume work.
    pub fn helper(&self, work: &str) -> String {
        format!("{}-helper-{}-{work}", self.container, self.key)
    }

    /// Labels of an object with this role.
    pub fn labels(&self, role: &str) -> BTreeMap<String, String> {
        [
            (LABEL_MANAGED, "true"),
            (LABEL_ORDER, self.order.as_str()),
            (LABEL_KEY, self.key.as_str()),
            (LABEL_ATTEMPT, &self.attempt.to_string()),
            (LABEL_ROLE, role),
        ]
        .into_iter()
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect()
    }
}
