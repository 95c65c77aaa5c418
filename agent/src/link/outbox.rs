//! Events wait here until the coordinator has committed them. The outbox has an id made with its file; its sequence never resets.

use crate::config::Paths;
use crate::host::{clock, files};
use fleet_common::ids::Epoch;
use fleet_common::order::HostEvent;
use fs_err as fs;
use serde::{Deserialize, Serialize};
use std::collections::VecDeque;
use std::io::{self, Write};
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
}

/// The outbox.
pub struct Outbox {
    path: PathBuf,
    inner: Mutex<Inner>,
    /// Told when an event was added.
    pub added: Notify,
}

/// The file is written anew after this many acknowledged events.
const COMPACT_AFTER: u64 = 64;

impl Outbox {
    /// Opens or makes it. A file that can't be read is set aside: a lost outbox is a new outbox.
    pub fn open(paths: &Paths) -> io::Result<Self> {
        let path = paths.outbox();
        let inner = match fs::read_to_string(&path) {
            Ok(text) => match read(&text) {
                Some(inner) => inner,
                None => {
                    fs::rename(&path, path.with_extension("unreadable"))?;
                    fresh()
                }
            },
            Err(error) if error.kind() == io::ErrorKind::NotFound => fresh(),
            Err(error) => return Err(error),
        };
        let outbox = Self {
            path,
            inner: Mutex::new(inner),
            added: Notify::new(),
        };
        outbox.compact(&mut outbox.lock())?;
        Ok(outbox)
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Identity of this outbox.
    pub fn id(&self) -> String {
        self.lock().head.outbox_id.clone()
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
        let sequence = inner
            .waiting
            .back()
            .map_or(inner.head.acknowledged, |event| event.sequence)
            + 1;
        let stored = Stored {
            sequence,
            order_id: order_id.to_owned(),
            epoch,
            at_ms: clock::now_ms(),
            body: String::from_utf8_lossy(&fleet_proto::convert::event_body(event)).into_owned(),
        };
        let mut line = serde_json::to_vec(&stored)?;
        line.push(b'\n');
        let mut file = fs::OpenOptions::new().append(true).open(&self.path)?;
        file.write_all(&line)?;
        file.sync_data()?;
        inner.waiting.push_back(stored);
        drop(inner);
        self.added.notify_one();
        Ok(sequence)
    }

    /// The coordinator committed everything up to here.
    pub fn acknowledge(&self, sequence: u64) -> io::Result<()> {
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
        if inner.dead >= COMPACT_AFTER {
            self.compact(&mut inner)
        } else {
            Ok(())
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
        self.lock()
            .waiting
            .iter()
            .any(|event| event.order_id == order_id && event.body.contains("\"event\":\"finished\""))
    }

    fn compact(&self, inner: &mut Inner) -> io::Result<()> {
        let mut bytes = serde_json::to_vec(&inner.head)?;
        bytes.push(b'\n');
        for event in &inner.waiting {
            serde_json::to_writer(&mut bytes, event)?;
            bytes.push(b'\n');
        }
        inner.dead = 0;
        files::replace(&self.path, &bytes, files::PRIVATE)
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
    }
}

fn read(text: &str) -> Option<Inner> {
    let mut lines = text.lines();
    let head: Head = serde_json::from_str(lines.next()?).ok()?;
    let mut waiting = VecDeque::new();
    let mut last = head.acknowledged;
    for line in lines {
        // A torn last line was never reported as stored.
        let Ok(event) = serde_json::from_str::<Stored>(line) else {
            break;
        };
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
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_sequence_survives_acknowledgement_and_restart() {
        let dir = tempfile::tempdir().unwrap();
        let paths = Paths::new(dir.path(), dir.path());
        let outbox = Outbox::open(&paths).unwrap();
        for _ in 0..100 {
            outbox.add("o", Epoch::default(), &HostEvent::Accepted).unwrap();
        }
        outbox.acknowledge(70).unwrap();
        assert_eq!(outbox.after(0, 1000).len(), 30);
        let id = outbox.id();
        drop(outbox);
        let text = fs::read_to_string(paths.outbox()).unwrap();
        fs::write(paths.outbox(), format!("{text}{{\"sequence\":10")).unwrap();
        let again = Outbox::open(&paths).unwrap();
        assert_eq!((again.id(), again.last_sequence()), (id, 100));
        again.acknowledge(100).unwrap();
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
}
