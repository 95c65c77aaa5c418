//! Checks one event of an agent on its way in. What can't be understood is kept as rejected and acknowledged like the rest, so that it
//! blocks neither its host nor the others.

use crate::store::IncomingEvent;
use fleet_common::ids::{Epoch, HostId, OrderId, OutboxId};
use fleet_proto::{Event, convert};

/// Takes an event off the wire.
pub fn incoming(host: HostId, first: bool, event: Event) -> IncomingEvent {
    let understood = convert::host_event(&event.body).map_err(|error| fleet_common::hint::chain(&error));
    IncomingEvent {
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
