//! Taking orders: each order id is carried out once. A repeat of a finished order is answered with the stored result, one of a running order
//! changes nothing.

use crate::config::Paths;
use crate::host::clock;
use crate::journal::Results;
use crate::link::outbox::Outbox;
use crate::link::state::LinkState;
use fleet_common::codes::{self, Code};
use fleet_common::ids::Epoch;
use fleet_common::order::{Action, HostEvent, OrderResult, Outcome};
use std::collections::BTreeSet;
use std::io;
use std::sync::{Mutex, MutexGuard, PoisonError, mpsc};
use std::time::Duration;
use tokio::sync::{Notify, oneshot, watch};

/// What the executor does next.
#[derive(Debug)]
pub enum Work {
    /// An order.
    Order(Box<Taken>),
    /// Detect again.
    Refresh,
    /// Replace the agent's certificate because of its age; tells why it could not.
    Renew(oneshot::Sender<Result<(), String>>),
    /// End the thread.
    Stop,
}

/// An order that was taken.
#[derive(Debug, Clone)]
pub struct Taken {
    /// Id.
    pub order_id: String,
    /// Epoch.
    pub epoch: Epoch,
    /// Plan.
    pub plan_id: String,
    /// What to do.
    pub action: Action,
    /// The plan entry's stored bytes.
    pub entry: Vec<u8>,
    /// Time for the whole order.
    pub deadline: Duration,
    /// When and how long it may start.
    pub permit: Permit,
    /// For `self_update` the release's bytes.
    pub release: Vec<u8>,
}

/// The right to start changing: within a time on the monotonic clock, over the session that brought it.
#[derive(Debug, Clone, Copy)]
pub struct Permit {
    /// When the order arrived, in milliseconds since boot: a host that was suspended meanwhile must not start late.
    pub received_boot_ms: u64,
    /// Time to start.
    pub start_within: Duration,
    /// The session that brought it.
    pub session: u64,
}

impl Permit {
    /// Whether the time to start is over.
    pub fn over(&self) -> bool {
        let since = clock::boot_ms().saturating_sub(self.received_boot_ms);
        Duration::from_millis(since) > self.start_within
    }
}

/// Shown while an order runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Note {
    /// The order.
    pub order_id: String,
    /// Step.
    pub step: String,
    /// What it waits for.
    pub note: String,
}

/// What link and executor share.
pub struct Shared {
    /// Paths.
    pub paths: Paths,
    /// Events to the coordinator.
    pub outbox: Outbox,
    /// Session state.
    pub link: LinkState,
    /// Told when the inventory is new.
    pub inventory_changed: Notify,
    /// Told when the session must start over, so that a new certificate is used.
    pub reconnect: Notify,
    /// Latest progress.
    pub progress: watch::Sender<Option<Note>>,
    inventory: Mutex<(Vec<u8>, String)>,
    results: Mutex<Results>,
    open: Mutex<BTreeSet<String>>,
    running: Mutex<String>,
    queue: Mutex<mpsc::Sender<Work>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    /// Opens what is on disk.
    pub fn open(paths: &Paths, queue: mpsc::Sender<Work>) -> io::Result<Self> {
        let bytes = fs_err::read(paths.inventory()).unwrap_or_default();
        let digest = fleet_common::digest::sha256_hex(&bytes);
        Ok(Self {
            paths: paths.clone(),
            outbox: Outbox::open(paths)?,
            link: LinkState::open(paths),
            inventory_changed: Notify::new(),
            reconnect: Notify::new(),
            progress: watch::channel(None).0,
            inventory: Mutex::new((bytes, digest)),
            results: Mutex::new(Results::open(paths)),
            open: Mutex::new(BTreeSet::new()),
            running: Mutex::new(String::new()),
            queue: Mutex::new(queue),
        })
    }

    /// The inventory's bytes and digest.
    pub fn inventory(&self) -> (Vec<u8>, String) {
        lock(&self.inventory).clone()
    }

    /// Stores a new inventory. Returns whether it is another one.
    pub fn set_inventory(&self, bytes: Vec<u8>) -> io::Result<bool> {
        let digest = fleet_common::digest::sha256_hex(&bytes);
        if lock(&self.inventory).1 == digest {
            return Ok(false);
        }
        crate::host::files::replace(&self.paths.inventory(), &bytes, crate::host::files::PRIVATE)?;
        *lock(&self.inventory) = (bytes, digest.clone());
        self.inventory_changed.notify_one();
        self.outbox.keep(
            "",
            self.link.get().highest_epoch,
            &HostEvent::InventoryChanged { digest },
        )?;
        Ok(true)
    }

    /// The order in the executor's hands.
    pub fn running_order(&self) -> String {
        lock(&self.running).clone()
    }

    /// The executor begins an order.
    pub fn begin(&self, order_id: &str) {
        lock(&self.open).insert(order_id.to_owned());
        *lock(&self.running) = order_id.to_owned();
    }

    /// An order ended: the result is stored, then told. On a full disk both wait in memory; then this is an error, and [`Self::settle`] tries
    /// again.
    pub fn end(&self, order_id: &str, epoch: Epoch, result: &OrderResult) -> io::Result<()> {
        let stored = lock(&self.results).put(order_id, result);
        let told = self
            .outbox
            .keep(order_id, epoch, &HostEvent::Finished(result.clone()));
        lock(&self.open).remove(order_id);
        lock(&self.running).clear();
        self.progress.send_replace(None);
        stored.and(told)
    }

    /// Writes the results and events that could not be written.
    pub fn settle(&self) -> io::Result<()> {
        let stored = lock(&self.results).flush();
        let told = self.outbox.flush();
        stored.and(told)
    }

    /// Whether every result and event is on disk.
    pub fn settled(&self) -> bool {
        lock(&self.results).complete() && self.outbox.complete()
    }

    /// The stored result of an order.
    pub fn result(&self, order_id: &str) -> Option<OrderResult> {
        lock(&self.results).get(order_id).cloned()
    }

    /// Hands work to the executor.
    pub fn hand_over(&self, work: Work) {
        // The executor lives as long as the program; a failed hand-over happens only while both end.
        let _ = lock(&self.queue).send(work);
    }
}

/// A refusal that changed nothing.
pub fn refusal(code: &str, message: impl Into<String>) -> OrderResult {
    OrderResult {
        outcome: Outcome::Refused,
        step: String::new(),
        code: Code::new(code),
        message: message.into(),
        took_ms: 0,
        detail: serde_json::Value::Null,
    }
}

/// Takes an order from the session.
pub fn take(shared: &Shared, order: fleet_proto::Order, session: u64) -> io::Result<()> {
    let epoch: Epoch = order.epoch.unwrap_or_default().into();
    let id = order.order_id;
    if lock(&shared.open).contains(&id) {
        return Ok(());
    }
    if let Some(result) = shared.result(&id) {
        if !shared.outbox.holds_end_of(&id) {
            shared.outbox.add(&id, epoch, &HostEvent::Finished(result))?;
        }
        return Ok(());
    }
    // These refusals are told but not stored: the same order under a newer epoch, or to a newer agent, is another matter.
    let refuse = |result: OrderResult| {
        shared
            .outbox
            .add(&id, epoch, &HostEvent::Finished(result))
            .map(drop)
    };
    let action = match fleet_proto::convert::action(order.action) {
        Ok(action) => action,
        Err(error) => return refuse(refusal(codes::UNSUPPORTED, error.to_string())),
    };
    if shared.link.get().quarantined {
        return refuse(refusal(
            codes::FORK,
            "this identity is used by two machines; a person must look",
        ));
    }
    if !shared.link.see_epoch(epoch)? {
        let highest = shared.link.get().highest_epoch;
        return refuse(refusal(
            codes::STALE_EPOCH,
            format!("the order is of epoch {epoch}, this host has seen {highest}"),
        ));
    }
    tracing::info!(order = %id, action = action.as_str(), at_ms = clock::now_ms(), "order taken");
    lock(&shared.open).insert(id.clone());
    shared.hand_over(Work::Order(Box::new(Taken {
        order_id: id,
        epoch,
        plan_id: order.plan_id,
        action,
        entry: order.plan_entry,
        deadline: Duration::from_millis(order.deadline_for_ms),
        permit: Permit {
            received_boot_ms: clock::boot_ms(),
            start_within: Duration::from_millis(order.start_within_ms),
            session,
        },
        release: order.release,
    })));
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn order(id: &str, counter: u64) -> fleet_proto::Order {
        fleet_proto::Order {
            order_id: id.into(),
            epoch: Some(fleet_proto::Epoch { term: 1, counter }),
            action: fleet_proto::Action::Probe as i32,
            ..fleet_proto::Order::default()
        }
    }

    fn events(shared: &Shared) -> Vec<HostEvent> {
        shared
            .outbox
            .after(0, 100)
            .iter()
            .map(|event| serde_json::from_str(&event.body).unwrap())
            .collect()
    }

    #[test]
    fn an_order_is_carried_out_once_and_answered_always() {
        let dir = tempfile::tempdir().unwrap();
        let (queue, work) = mpsc::channel();
        let shared = Shared::open(&Paths::new(dir.path(), dir.path()), queue).unwrap();
        take(&shared, order("a", 1), 1).unwrap();
        take(&shared, order("a", 1), 2).unwrap();
        assert_eq!(work.try_iter().count(), 1);
        let done = OrderResult {
            outcome: Outcome::Done,
            ..refusal("", "")
        };
        shared.end("a", Epoch { term: 1, counter: 1 }, &done).unwrap();
        take(&shared, order("a", 1), 2).unwrap();
        assert_eq!(events(&shared).len(), 1, "the end is still waiting");
        shared.outbox.acknowledge(1);
        take(&shared, order("a", 1), 2).unwrap();
        assert_eq!(events(&shared), [HostEvent::Finished(done)]);
        assert_eq!(work.try_iter().count(), 0);
    }

    #[test]
    fn older_epochs_and_unknown_actions_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let (queue, work) = mpsc::channel();
        let shared = Shared::open(&Paths::new(dir.path(), dir.path()), queue).unwrap();
        take(&shared, order("new", 2), 1).unwrap();
        take(&shared, order("old", 1), 1).unwrap();
        take(
            &shared,
            fleet_proto::Order {
                action: 99,
                ..order("odd", 2)
            },
            1,
        )
        .unwrap();
        assert_eq!(work.try_iter().count(), 1);
        let codes: Vec<_> = events(&shared)
            .into_iter()
            .map(|event| match event {
                HostEvent::Finished(result) => result.code.0,
                other => format!("{other:?}"),
            })
            .collect();
        assert_eq!(codes, [codes::STALE_EPOCH, codes::UNSUPPORTED]);
    }
}
