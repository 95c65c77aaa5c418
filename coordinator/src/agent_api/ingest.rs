//! Checks one event of an agent on its way in. What can't be understood is kept as rejected and acknowledged like the rest, so that it
//! blocks neither its host nor the others.

use fleet_common::ids::{Epoch, HostId, OrderId, OutboxId};
use fleet_common::order::HostEvent;
use fleet_proto::{Event, convert};

/// An event, understood or not.
#[derive(Clone, Debug)]
pub struct IncomingEvent {
    /// Sender, from its certificate.
    pub host: HostId,
    /// Its outbox.
    pub outbox: OutboxId,
    /// Number within the outbox.
    pub sequence: u64,
    /// First event of its session: a jump in the numbers is then a store that was set back, not a protocol error.
    pub first: bool,
    /// Order it belongs to, if any.
    pub order: Option<OrderId>,
    /// Epoch of that order.
    pub epoch: Epoch,
    /// The host's clock.
    pub at_ms: u64,
    /// As sent.
    pub body: Vec<u8>,
    /// As understood, or why not.
    pub event: Result<HostEvent, String>,
}

impl IncomingEvent {
    /// Takes an event off the wire.
    pub fn new(host: HostId, first: bool, event: Event) -> Self {
        let understood = convert::host_event(&event.body).map_err(|error| fleet_common::hint::chain(&error));
        Self {
            host,
            outbox: OutboxId::new(event.outbox_id),
            sequence: event.sequence,
            first,
            order: (!event.order_id.is_empty()).then(|| OrderId::new(event.order_id)),
            epoch: event.epoch.map(Epoch::from).unwrap_or_default(),
            at_ms: event.at_ms,
            body: event.body,
            event: understood,
        }
    }
}
