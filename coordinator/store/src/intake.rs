//! Which events of an outbox are new, and what is acknowledged after the commit.

use crate::{Cursor, NewEvent};
use fleet_common::ids::{Epoch, HostId, OrderId, OutboxId};
use fleet_common::order::HostEvent;
use std::collections::BTreeMap;

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

/// What to do with one event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sequence {
    /// Store it and act on it.
    New,
    /// Known; acknowledge again and do nothing.
    Duplicate,
    /// A number is missing within a session: the session must start over.
    Gap,
}

/// Cursors of all outboxes and the acknowledgements that are due.
pub struct Intake {
    cursors: Cursor,
    due: BTreeMap<(HostId, OutboxId), u64>,
}

impl Intake {
    /// From the cursors of the store.
    pub fn new(cursors: Cursor) -> Self {
        Self {
            cursors,
            due: BTreeMap::new(),
        }
    }

    /// Classifies an event and moves the cursor if it is new.
    pub fn classify(&mut self, event: &IncomingEvent) -> Sequence {
        let key = (event.host.clone(), event.outbox.clone());
        let known = self.cursors.get(&key).copied().unwrap_or(0);
        let result = if event.sequence <= known {
            Sequence::Duplicate
        } else if event.sequence == known + 1 || event.first {
            self.cursors.insert(key.clone(), event.sequence);
            Sequence::New
        } else {
            return Sequence::Gap;
        };
        let acknowledged = known.max(event.sequence);
        self.due.insert(key, acknowledged);
        result
    }

    /// Acknowledgements of the batch, to be sent after its commit.
    pub fn take_due(&mut self) -> BTreeMap<(HostId, OutboxId), u64> {
        std::mem::take(&mut self.due)
    }
}

/// The row of an event.
pub fn row(event: &IncomingEvent, received_at_ms: u64) -> NewEvent {
    NewEvent {
        host: event.host.clone(),
        outbox: event.outbox.clone(),
        sequence: event.sequence,
        order_id: event.order.as_ref().map(ToString::to_string).unwrap_or_default(),
        at_ms: event.at_ms,
        received_at_ms,
        body: event.body.clone(),
        rejected: event.event.as_ref().err().cloned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(sequence: u64, first: bool) -> IncomingEvent {
        IncomingEvent {
            host: HostId::new("h"),
            outbox: OutboxId::new("o"),
            sequence,
            first,
            order: None,
            epoch: Epoch::default(),
            at_ms: 0,
            body: b"{}".to_vec(),
            event: Ok(HostEvent::Accepted),
        }
    }

    #[test]
    fn duplicates_are_no_ops_and_gaps_start_over() {
        let mut intake = Intake::new(Cursor::new());
        assert_eq!(intake.classify(&event(1, true)), Sequence::New);
        assert_eq!(intake.classify(&event(1, false)), Sequence::Duplicate);
        assert_eq!(intake.classify(&event(2, false)), Sequence::New);
        assert_eq!(intake.classify(&event(4, false)), Sequence::Gap);
        let due = intake.take_due();
        assert_eq!(
            due.values().copied().collect::<Vec<_>>(),
            [2],
            "never beyond what is contiguous"
        );
        assert!(intake.take_due().is_empty());
    }

    #[test]
    fn a_store_that_was_set_back_does_not_block_a_host() {
        let mut intake = Intake::new(Cursor::new());
        assert_eq!(intake.classify(&event(11, true)), Sequence::New);
        assert_eq!(intake.classify(&event(12, false)), Sequence::New);
    }
}
