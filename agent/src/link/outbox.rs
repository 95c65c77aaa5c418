//! Events wait here until the coordinator has committed them. The outbox has an id made with its file; its sequence never resets.

use crate::config::Paths;
use crate::host::reserve::Reserve;
use crate::host::{clock, files};
use fleet_common::ids::Epoch;
use fleet_common::order::HostEvent;
use fs_err as fs;
use serde::{Deserialize, Serialize};
use std::collections::VecDeque;
use std::io;
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};
use tokio::sync::Notify;

/// A stored event.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stored {
    /// Position, from 1, without gaps.
    pub sequence: u64,
    /// Its order; empty when it belongs to none.
    pub order_id: String,
    /// Epoch of the order.
    pub epoch: Epoch,
    /// Unix milliseconds.
    pub at_ms: u64,
    /// The event as JSON text.
    pub body: String,
}

/// First line of the file.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Head {
    outbox_id: String,
    /// Highest sequence that is acknowledged.
    acknowledged: u64,
}

struct Inner {
    head: Head,
    waiting: VecDeque<Stored>,
    /// Acknowledged events still in the file.
    dead: u64,
    /// Length of the file as far as it counts.
    length: u64,
    /// Events that could not be written yet. They have no number: what was never on disk is not sent.
    unwritten: VecDeque<Unwritten>,
}

/// An event on its way to the disk.
struct Unwritten {
    order_id: String,
    epoch: Epoch,
    at_ms: u64,
    body: String,
}

impl Unwritten {
    fn new(order_id: &str, epoch: Epoch, event: &HostEvent) -> Self {
        Self {
            order_id: order_id.to_owned(),
            epoch,
            at_ms: clock::now_ms(),
            body: String::from_utf8_lossy(&fleet_proto::convert::event_body(event)).into_owned(),
        }
    }

    fn is_end_of(&self, order_id: &str) -> bool {
        is_end_of(&self.order_id, &self.body, order_id)
    }
}

fn is_end_of(event_order: &str, body: &str, order_id: &str) -> bool {
    event_order == order_id && body.contains("\"event\":\"finished\"")
}

/// The outbox.
pub struct Outbox {
    path: PathBuf,
    reserve: Reserve,
    inner: Mutex<Inner>,
    /// Told when an event was added.
    pub added: Notify,
}

/// The file is written anew after this many acknowledged events.
const COMPACT_AFTER: u64 = 64;

impl Outbox {
    /// Opens or makes it. A file that can't be read is set aside: a lost outbox is a new outbox. One that is there is not written: the agent
    /// must come up on a full disk.
    pub fn open(paths: &Paths) -> io::Result<Self> {
        let path = paths.outbox();
        let found = match fs::read(&path) {
            Ok(bytes) => read(&bytes),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(error),
        };
        let new = found.is_none();
        if new && path.exists() {
            fs::rename(&path, path.with_extension("unreadable"))?;
        }
        let outbox = Self {
            path,
            reserve: Reserve::of(paths),
            inner: Mutex::new(found.unwrap_or_else(fresh)),
            added: Notify::new(),
        };
        if new {
            outbox.compact(&mut outbox.lock())?;
        }
        Ok(outbox)
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Identity of this outbox.
    pub fn id(&self) -> String {
        self.lock().head.outbox_id.clone()
    }

    /// Highest sequence that is acknowledged.
    pub fn acknowledged(&self) -> u64 {
        self.lock().head.acknowledged
    }

    /// Last sequence given.
    pub fn last_sequence(&self) -> u64 {
        let inner = self.lock();
        inner
            .waiting
            .back()
            .map_or(inner.head.acknowledged, |event| event.sequence)
    }

    /// Adds an event; it is on disk when this returns.
    pub fn add(&self, order_id: &str, epoch: Epoch, event: &HostEvent) -> io::Result<u64> {
        let mut inner = self.lock();
        self.write_waiting(&mut inner)?;
        let sequence = self.write(&mut inner, &Unwritten::new(order_id, epoch, event))?;
        drop(inner);
        self.added.notify_one();
        Ok(sequence)
    }

    /// Adds an event that must not get lost though the disk is full: it waits in memory, in order, until [`Self::flush`] can write it.
    pub fn keep(&self, order_id: &str, epoch: Epoch, event: &HostEvent) -> io::Result<()> {
        self.lock()
            .unwritten
            .push_back(Unwritten::new(order_id, epoch, event));
        self.flush()
    }

    /// Writes what could not be written before.
    pub fn flush(&self) -> io::Result<()> {
        let written = self.write_waiting(&mut self.lock());
        self.added.notify_one();
        written
    }

    /// Whether every event is on disk.
    pub fn complete(&self) -> bool {
        self.lock().unwritten.is_empty()
    }

    fn write_waiting(&self, inner: &mut Inner) -> io::Result<()> {
        while let Some(event) = inner.unwritten.pop_front() {
            if let Err(error) = self.write(inner, &event) {
                inner.unwritten.push_front(event);
                return Err(error);
            }
        }
        Ok(())
    }

    fn write(&self, inner: &mut Inner, event: &Unwritten) -> io::Result<u64> {
        let sequence = inner
            .waiting
            .back()
            .map_or(inner.head.acknowledged, |event| event.sequence)
            + 1;
        let stored = Stored {
            sequence,
            order_id: event.order_id.clone(),
            epoch: event.epoch,
            at_ms: event.at_ms,
            body: event.body.clone(),
        };
        let mut line = serde_json::to_vec(&stored)?;
        line.push(b'\n');
        inner.length = self
            .reserve
            .retry(|| files::append(&self.path, inner.length, &line))?;
        inner.waiting.push_back(stored);
        Ok(sequence)
    }

    /// The coordinator committed everything up to here.
    pub fn acknowledge(&self, sequence: u64) {
        let mut inner = self.lock();
        while inner
            .waiting
            .front()
            .is_some_and(|event| event.sequence <= sequence)
        {
            if let Some(event) = inner.waiting.pop_front() {
                inner.head.acknowledged = event.sequence;
                inner.dead += 1;
            }
        }
        if inner.dead >= COMPACT_AFTER
            && let Err(error) = self.compact(&mut inner)
        {
            // Only tidiness: the file says a little less than is known.
            tracing::warn!(%error, "the outbox can't be written anew");
        }
    }

    /// Some events after a sequence.
    pub fn after(&self, sequence: u64, most: usize) -> Vec<Stored> {
        self.lock()
            .waiting
            .iter()
            .filter(|event| event.sequence > sequence)
            .take(most)
            .cloned()
            .collect()
    }

    /// Whether an order's end is still waiting to be sent.
    pub fn holds_end_of(&self, order_id: &str) -> bool {
        let inner = self.lock();
        let mut waiting = inner.waiting.iter();
        waiting.any(|event| is_end_of(&event.order_id, &event.body, order_id))
            || inner.unwritten.iter().any(|event| event.is_end_of(order_id))
    }

    fn compact(&self, inner: &mut Inner) -> io::Result<()> {
        let mut bytes = serde_json::to_vec(&inner.head)?;
        bytes.push(b'\n');
        for event in &inner.waiting {
            serde_json::to_writer(&mut bytes, event)?;
            bytes.push(b'\n');
        }
        files::replace(&self.path, &bytes, files::PRIVATE)?;
        inner.dead = 0;
        inner.length = bytes.len() as u64;
        Ok(())
    }
}

fn fresh() -> Inner {
    let head = Head {
        outbox_id: uuid::Uuid::new_v4().to_string(),
        acknowledged: 0,
    };
    Inner {
        head,
        waiting: VecDeque::new(),
        dead: 0,
        length: 0,
        unwritten: VecDeque::new(),
    }
}

fn read(bytes: &[u8]) -> Option<Inner> {
    let mut lines = files::whole_lines(bytes);
    let first = lines.next()?;
    let head: Head = serde_json::from_slice(first).ok()?;
    let mut length = first.len() as u64;
    let mut waiting = VecDeque::new();
    let mut last = head.acknowledged;
    for line in lines {
        // A torn last line was never reported as stored.
        let Ok(event) = serde_json::from_slice::<Stored>(line) else {
            break;
        };
        length += line.len() as u64;
        if event.sequence != last + 1 {
            return None;
        }
        last = event.sequence;
        waiting.push_back(event);
    }
    Some(Inner {
        head,
        waiting,
        dead: 0,
        length,
        unwritten: VecDeque::new(),
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::host::reserve::small_disk::SmallDisk;

    #[test]
    fn the_sequence_survives_acknowledgement_and_restart() {
        let dir = tempfile::tempdir().unwrap();
        let paths = Paths::new(dir.path(), dir.path());
        let outbox = Outbox::open(&paths).unwrap();
        for _ in 0..100 {
            outbox.add("o", Epoch::default(), &HostEvent::Accepted).unwrap();
        }
        outbox.acknowledge(70);
        assert_eq!(outbox.after(0, 1000).len(), 30);
        let id = outbox.id();
        drop(outbox);
        let text = fs::read_to_string(paths.outbox()).unwrap();
        fs::write(paths.outbox(), format!("{text}{{\"sequence\":10")).unwrap();
        let again = Outbox::open(&paths).unwrap();
        assert_eq!((again.id(), again.last_sequence()), (id, 100));
        again.acknowledge(100);
        assert_eq!(
            again.add("o", Epoch::default(), &HostEvent::Accepted).unwrap(),
            101
        );
        assert_eq!(Outbox::open(&paths).unwrap().after(100, 10).len(), 1);
    }

    #[test]
    fn a_lost_file_is_a_new_outbox() {
        let dir = tempfile::tempdir().unwrap();
        let paths = Paths::new(dir.path(), dir.path());
        let first = Outbox::open(&paths).unwrap().id();
        fs::write(paths.outbox(), "nonsense\n").unwrap();
        assert_ne!(Outbox::open(&paths).unwrap().id(), first);
    }

    #[test]
    fn on_a_full_disk_events_wait_in_order_and_are_numbered_when_written() {
        let disk = SmallDisk::new(256);
        let paths = Paths::new(disk.path(), disk.path());
        let outbox = Outbox::open(&paths).unwrap();
        disk.fill();
        while outbox.add("o", Epoch::default(), &HostEvent::Accepted).is_ok() {}
        let last = outbox.last_sequence();
        let step = |name: &str| HostEvent::StepFinished {
            step: name.into(),
            ok: true,
            took_ms: 0,
        };
        for name in ["a", "b"] {
            assert!(outbox.keep("o", Epoch::default(), &step(name)).is_err());
        }
        assert!(!outbox.complete());
        assert_eq!(outbox.last_sequence(), last, "what is not on disk has no number");
        assert_eq!(Outbox::open(&paths).unwrap().last_sequence(), last);
        // Acknowledging needs no room.
        outbox.acknowledge(last);
        disk.free();
        outbox.flush().unwrap();
        let told: Vec<String> = outbox
            .after(last, 10)
            .into_iter()
            .map(|event| event.body)
            .collect();
        assert!(
            told.len() == 2 && told[0].contains("\"a\"") && told[1].contains("\"b\""),
            "{told:?}"
        );
        assert_eq!(Outbox::open(&paths).unwrap().last_sequence(), last + 2);
    }
}
