//! An agent that keeps the protocol and only pretends to switch its client.

use crate::figures::draw;
use crate::fleet::{Member, Pmm};
use fake_agent::{Identity, Session};
use fleet_common::codes::{self, Code};
use fleet_common::ids::{Epoch, HostId};
use fleet_common::order::{HostEvent, OrderResult, Outcome};
use fleet_common::plan_entry::PlanEntry;
use fleet_proto as wire;
use fleet_proto::coordinator_message::Body as Down;
use pmm_coordinator::clock::now_ms;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, watch};

/// How long things take on the hosts; each host draws its own.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// Mean of a switch; a host takes 90 to 110 % of it.
    pub step_ms: u64,
    /// Longest time between receipt of a permit and the first change.
    pub checks_ms: u64,
}

/// A switch that an agent began.
#[derive(Clone, Copy, Debug)]
pub struct Begun {
    pub at: Instant,
}

/// What all agents write down.
pub struct Notes {
    pub pmm: Pmm,
    pub seed: u64,
    pub pace: Mutex<Pace>,
    /// When a permit arrived, Unix milliseconds, by host.
    pub received_ms: Mutex<BTreeMap<HostId, u64>>,
    pub begun: Mutex<Vec<Begun>>,
    /// When the order arrived that makes earlier permits void.
    pub called_back: Mutex<Vec<Instant>>,
    /// Permits that arrived and were not used, by code.
    pub unused: Mutex<BTreeMap<String, u64>>,
    /// How long each host worked on its switch, milliseconds.
    pub worked_ms: Mutex<BTreeMap<HostId, u64>>,
    /// When the ping to a host left.
    pub pinged: Mutex<BTreeMap<HostId, Instant>>,
    pub pongs_ms: Mutex<Vec<f64>>,
}

pub fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Notes {
    pub fn new(pmm: Pmm, seed: u64, pace: Pace) -> Self {
        Self {
            pmm,
            seed,
            pace: Mutex::new(pace),
            received_ms: Mutex::default(),
            begun: Mutex::default(),
            called_back: Mutex::default(),
            unused: Mutex::default(),
            worked_ms: Mutex::default(),
            pinged: Mutex::default(),
            pongs_ms: Mutex::default(),
        }
    }

    /// Before a rollout.
    pub fn clear(&self, pace: Pace) {
        *lock(&self.pace) = pace;
        lock(&self.received_ms).clear();
        lock(&self.begun).clear();
        lock(&self.called_back).clear();
        lock(&self.unused).clear();
        lock(&self.worked_ms).clear();
    }
}

/// One agent; ends with its session.
pub struct Agent {
    pub number: u64,
    pub member: Member,
    pub notes: Arc<Notes>,
    highest: watch::Sender<Epoch>,
    sequence: u64,
}

impl Agent {
    pub fn new(number: u64, member: Member, notes: Arc<Notes>) -> Self {
        Self {
            number,
            member,
            notes,
            highest: watch::channel(Epoch::default()).0,
            sequence: 0,
        }
    }

    /// Connects and works. Sends one message once it is welcomed.
    pub async fn run(
        mut self,
        identity: Identity,
        coordinator: SocketAddr,
        up: mpsc::Sender<()>,
    ) -> anyhow::Result<()> {
        let mut session = Session::open(coordinator, identity.tls(), identity.hello(0)).await?;
        let welcome = session.welcome().await;
        self.see(welcome.epoch.unwrap_or_default().into());
        session.ready().await;
        up.send(()).await?;
        let (tell, mut told) = mpsc::unbounded_channel::<(String, HostEvent)>();
        loop {
            tokio::select! {
                message = session.message() => match message {
                    Some(Down::Order(order)) => self.order(order, &tell),
                    Some(Down::InventoryWanted(_)) => self.pong(),
                    Some(Down::Goodbye(told)) => anyhow::bail!("{}: told to leave: {}", self.member.name, told.message),
                    Some(_) => {}
                    None => return Ok(()),
                },
                Some((order, event)) = told.recv() => {
                    self.sequence += 1;
                    session.event(self.sequence, &order, &wire::convert::event_body(&event)).await;
                }
            }
        }
    }

    fn see(&self, epoch: Epoch) {
        self.highest.send_modify(|highest| *highest = epoch.max(*highest));
    }

    fn pong(&self) {
        if let Some(left) = lock(&self.notes.pinged).remove(&self.member.host) {
            lock(&self.notes.pongs_ms).push(left.elapsed().as_secs_f64() * 1000.0);
        }
    }

    fn order(&self, order: wire::Order, tell: &mpsc::UnboundedSender<(String, HostEvent)>) {
        let (received, epoch) = (Instant::now(), order.epoch.unwrap_or_default().into());
        let tell = tell.clone();
        let id = order.order_id.clone();
        // The other end of the channel ends with the session.
        let say = move |event| drop(tell.send((id.clone(), event)));
        if epoch < *self.highest.borrow() {
            return say(HostEvent::Finished(refused(Outcome::Refused, codes::STALE_EPOCH)));
        }
        if epoch > *self.highest.borrow() && order.action() == wire::Action::Probe {
            lock(&self.notes.called_back).push(received);
        }
        self.see(epoch);
        say(HostEvent::Accepted);
        match order.action() {
            wire::Action::Switch => {
                lock(&self.notes.received_ms).insert(self.member.host.clone(), now_ms());
                let permit = Permit {
                    received,
                    within: Duration::from_millis(order.start_within_ms),
                    epoch,
                    highest: self.highest.subscribe(),
                };
                let entry: PlanEntry = serde_json::from_slice(&order.plan_entry).expect("an entry");
                let (member, notes) = (self.member.clone(), self.notes.clone());
                let switch = switch(self.number, member, notes, entry, permit);
                tokio::spawn(async move {
                    let begins = say.clone();
                    let result = switch_with(switch, begins).await;
                    say(HostEvent::Finished(result));
                });
            }
            wire::Action::Preflight => {
                let detail = serde_json::json!({"findings": [], "candidate": null, "kept": null});
                say(HostEvent::Finished(done(detail, 1)));
            }
            _ => say(HostEvent::Finished(done(serde_json::Value::Null, 1))),
        }
    }
}

struct Permit {
    received: Instant,
    within: Duration,
    epoch: Epoch,
    highest: watch::Receiver<Epoch>,
}

impl Permit {
    /// What an agent looks at right before the first change.
    fn refusal(&self) -> Option<OrderResult> {
        if self.received.elapsed() > self.within {
            return Some(refused(Outcome::Expired, codes::PERMIT_EXPIRED));
        }
        (*self.highest.borrow() > self.epoch).then(|| refused(Outcome::Refused, codes::STALE_EPOCH))
    }
}

struct Switch {
    checks: Duration,
    step: Duration,
    member: Member,
    notes: Arc<Notes>,
    entry: PlanEntry,
    permit: Permit,
}

fn switch(number: u64, member: Member, notes: Arc<Notes>, entry: PlanEntry, permit: Permit) -> Switch {
    let pace = *lock(&notes.pace);
    let share = 900 + draw(notes.seed, number, 201);
    Switch {
        checks: Duration::from_millis(draw(notes.seed ^ 0xC0FFEE, number, pace.checks_ms + 1)),
        step: Duration::from_millis(pace.step_ms * share / 1000),
        member,
        notes,
        entry,
        permit,
    }
}

async fn switch_with(switch: Switch, say: impl Fn(HostEvent)) -> OrderResult {
    let begun = Instant::now();
    tokio::time::sleep(switch.checks).await;
    if let Some(refused) = switch.permit.refusal() {
        *lock(&switch.notes.unused)
            .entry(refused.code.0.clone())
            .or_default() += 1;
        return refused;
    }
    lock(&switch.notes.begun).push(Begun { at: Instant::now() });
    say(HostEvent::StepStarted {
        step: "install".to_owned(),
        index: 1,
        of: 1,
        deadline_for_ms: 600_000,
    });
    tokio::time::sleep(switch.step).await;
    let from = crate::fleet::OLD.to_string();
    switch.notes.pmm.set(&switch.member.name, switch.entry.to);
    let took = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX);
    lock(&switch.notes.worked_ms).insert(switch.member.host, took);
    let detail = serde_json::json!({"from": from, "to": switch.entry.to.to_string(), "client_gap_ms": took, "transaction_ms": took});
    done(detail, took)
}

fn done(detail: serde_json::Value, took_ms: u64) -> OrderResult {
    OrderResult {
        outcome: Outcome::Done,
        step: String::new(),
        code: Code::new(""),
        message: String::new(),
        took_ms,
        detail,
    }
}

fn refused(outcome: Outcome, code: &str) -> OrderResult {
    OrderResult {
        outcome,
        step: "check".to_owned(),
        code: Code::new(code),
        message: code.to_owned(),
        took_ms: 1,
        detail: serde_json::Value::Null,
    }
}
