//! The coordinator: the real kernel, the real store core and the real intake, in the order of the engine: decide, persist, act.
//!
//! What is in [`Coordinator`] is memory and dies with it; the store is the disk.

use super::agent::Stored;
use super::expected;
use super::watch::Eyes;
use fleet_common::ids::{Epoch, HostId, OrderId, OutboxId};
use fleet_common::server::{ServerEvent, ServerOrder};
use fleet_common::verification::FleetSnapshot;
use fleet_common::version::PmmVersion;
use fleet_store::intake::{self, Intake, Sequence};
use fleet_store::{Core, HelloFacts, IncomingEvent, RolloutCommit, SessionDecision, StoreError};
use rollout::kernel::{Command, HostOrder, Input, Kernel, Output, Row, ViewRequest};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::{Deref, DerefMut};

/// What comes in.
#[derive(Clone, Debug)]
pub enum Message {
    Hello(Hello),
    /// The same again after the proof that its sender is still there.
    StillThere(Hello),
    /// The agent stored what Welcome gave.
    Ready {
        conn: usize,
    },
    Event {
        conn: usize,
        event: Stored,
    },
    /// A connection is gone, or so it seems.
    Gone {
        conn: usize,
    },
    Server {
        order: OrderId,
        event: ServerEvent,
    },
    View(FleetSnapshot),
    Operator {
        by: &'static str,
        command: Command,
    },
    /// A person lets a child plan take over.
    Child {
        by: &'static str,
        bytes: Vec<u8>,
    },
    /// A person adopts a store that was restored.
    Adopt,
    /// A person lifts the quarantine of a host.
    Lift {
        host: HostId,
    },
}

/// A greeting.
#[derive(Clone, Debug)]
pub struct Hello {
    pub conn: usize,
    pub host: HostId,
    pub session: u64,
    /// Highest epoch that it has seen.
    pub epoch: Epoch,
    pub outbox: String,
    /// What it no longer has.
    pub acknowledged: u64,
    pub running: Option<OrderId>,
    /// Release of its client, from the inventory that comes with it.
    pub version: Option<PmmVersion>,
}

/// What leaves.
#[derive(Clone, Debug)]
pub enum Outgoing {
    Welcome {
        conn: usize,
        session: u64,
        epoch: Epoch,
        acknowledged: u64,
    },
    /// Closes the connection; with true both sides of a fork are told.
    Goodbye {
        conn: usize,
        quarantine: bool,
    },
    /// Asks once more after a while whether a stale greeting's sender is still there.
    Prove(Hello),
    Ack {
        conn: usize,
        sequence: u64,
    },
    Order {
        conn: usize,
        order: HostOrder,
    },
    Server(ServerOrder),
    CancelServer(OrderId),
    /// PMM is asked for the whole fleet.
    Look(ViewRequest),
}

/// One input, for the watcher.
#[derive(Default)]
pub struct Given {
    pub what: Seen,
    /// The input's name.
    pub input: &'static str,
    /// What the same event would do if it were of the newest epoch.
    pub as_if_new: Option<Output>,
    /// Before what a person wants, and what would have happened at that moment without it.
    pub before: Option<Box<(Kernel, Kernel)>>,
}

/// What the watcher must know of an input.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Seen {
    #[default]
    Other,
    Tick,
    Started,
    Operator(Command),
    /// A child plan.
    Child,
    OldEvent(OrderId),
}

struct Session {
    conn: usize,
    number: u64,
}

struct Link {
    host: HostId,
    number: u64,
    outbox: OutboxId,
    first: bool,
    confirmed: bool,
}

pub struct Coordinator {
    pub kernel: Kernel,
    intake: Intake,
    sessions: BTreeMap<HostId, Session>,
    links: BTreeMap<usize, Link>,
    epoch: Epoch,
    finished: bool,
    /// The nodes that PMM is to be asked for.
    pub want_nodes: Option<ViewRequest>,
    pub answers: Vec<(&'static str, &'static str, bool)>,
    /// One in so many old events is compared.
    compare: u64,
    /// A deliberate fault: a quarantined host keeps its session.
    pub serves_forks: bool,
}

/// The result of one batch.
#[derive(Default)]
pub struct Batch {
    pub out: Vec<Outgoing>,
    pub quarantined: Vec<HostId>,
    pub duplicates: u64,
    pub gaps: u64,
    pub stale: u64,
    pub rejected: u64,
    pub restored: bool,
    pub lifted: Vec<HostId>,
    commit: RolloutCommit,
    orders: Vec<HostOrder>,
    server: Vec<Outgoing>,
    restart: BTreeSet<HostId>,
}

/// A batch on its way through the kernel.
pub struct Taking<'a> {
    batch: Batch,
    /// Who looks at each output. Nobody, when the batch will be lost: what was never stored has not happened.
    eyes: Option<Eyes<'a>>,
}

impl Deref for Taking<'_> {
    type Target = Batch;
    fn deref(&self) -> &Batch {
        &self.batch
    }
}

impl DerefMut for Taking<'_> {
    fn deref_mut(&mut self) -> &mut Batch {
        &mut self.batch
    }
}

impl Coordinator {
    /// The first start of a rollout.
    pub fn begin(core: &Core, kernel: Kernel) -> Result<Self, StoreError> {
        Ok(Self {
            epoch: kernel.epoch(),
            intake: Intake::new(core.cursors()?),
            kernel,
            sessions: BTreeMap::new(),
            links: BTreeMap::new(),
            finished: false,
            want_nodes: None,
            answers: Vec::new(),
            compare: 0,
            serves_forks: false,
        })
    }

    /// Takes the store over after a crash.
    pub fn restore(core: &Core) -> Result<Option<(Self, u64)>, String> {
        let text = |error: StoreError| error.to_string();
        let term = core.take_over().map_err(text)?;
        let Some(row) = core.newest_rollout().map_err(text)? else {
            return Ok(None);
        };
        let plan = core.plan(&row.plan).map_err(text)?.ok_or("the plan is gone")?;
        let rows = stored_rows(core, &row.rollout).map_err(text)?;
        let kernel = Kernel::restore(&plan.document, &rows).map_err(|error| error.to_string())?;
        let term = term.max(kernel.epoch().term + 1);
        let mut new = Self::begin(core, kernel).map_err(text)?;
        new.epoch = Epoch { term, counter: 0 };
        new.finished = row.finished_at_ms.is_some();
        Ok(Some((new, term)))
    }

    /// Works off a batch inside an open transaction, without acting.
    pub fn take(
        &mut self,
        core: &Core,
        eyes: Option<Eyes<'_>>,
        messages: Vec<Message>,
        started: Option<u64>,
        wall_ms: u64,
    ) -> Result<Batch, StoreError> {
        let batch = Batch::default();
        let mut taking = Taking { batch, eyes };
        if let Some(term) = started {
            self.feed(
                &mut taking,
                Input::CoordinatorStarted { term },
                Seen::Started,
                wall_ms,
            );
        }
        for message in messages {
            self.message(core, &mut taking, message, wall_ms)?;
        }
        self.feed(&mut taking, Input::Tick, Seen::Tick, wall_ms);
        core.commit(&taking.commit)?;
        Ok(taking.batch)
    }

    /// What may leave after the commit.
    pub fn act(&mut self, batch: &mut Batch) {
        self.epoch = self.epoch.max(self.kernel.epoch());
        for out in &mut batch.out {
            if let Outgoing::Welcome { epoch, .. } = out {
                *epoch = self.epoch;
            }
        }
        for ((host, outbox), sequence) in self.intake.take_due() {
            if let Some(session) = self.sessions.get(&host)
                && self
                    .links
                    .get(&session.conn)
                    .is_some_and(|link| link.outbox == outbox)
            {
                let conn = session.conn;
                batch.out.push(Outgoing::Ack { conn, sequence });
            }
        }
        for host in std::mem::take(&mut batch.restart) {
            if let Some(session) = self.sessions.remove(&host) {
                let conn = session.conn;
                batch.out.push(Outgoing::Goodbye {
                    conn,
                    quarantine: false,
                });
            }
        }
        for order in std::mem::take(&mut batch.orders) {
            if let Some(session) = self.sessions.get(&order.host) {
                let conn = session.conn;
                batch.out.push(Outgoing::Order { conn, order });
            }
        }
        batch.out.append(&mut batch.server);
    }

    fn message(
        &mut self,
        core: &Core,
        batch: &mut Taking<'_>,
        message: Message,
        wall_ms: u64,
    ) -> Result<(), StoreError> {
        match message {
            Message::Hello(hello) => self.hello(core, batch, hello, false, wall_ms)?,
            Message::StillThere(hello) => self.hello(core, batch, hello, true, wall_ms)?,
            Message::Ready { conn } => self.confirm(core, conn)?,
            Message::Event { conn, event } => {
                self.confirm(core, conn)?;
                self.event(batch, conn, event, wall_ms);
            }
            Message::Gone { conn } => self.gone(batch, conn, wall_ms),
            Message::Server { order, event } => {
                self.feed(batch, Input::Server { order, event }, Seen::Other, wall_ms)
            }
            Message::View(view) => self.feed(batch, Input::ServerView(view), Seen::Other, wall_ms),
            Message::Operator { by, command } => self.operator(batch, by, command, wall_ms),
            Message::Child { by, bytes } => self.child(core, batch, by, bytes, wall_ms)?,
            Message::Adopt => {
                if let Some(term) = core.adopt("uid 0", wall_ms)? {
                    self.feed(batch, Input::StoreAdopted { term }, Seen::Started, wall_ms);
                }
            }
            Message::Lift { host } => {
                let audit = fleet_store::AuditEntry {
                    at_ms: wall_ms,
                    who: "uid 0".to_owned(),
                    what: "unhold".to_owned(),
                    detail: host.to_string(),
                };
                core.hold(&host, None, audit)?;
                // It may have knocked in vain earlier in this batch.
                batch.quarantined.retain(|other| *other != host);
                batch.lifted.push(host);
            }
        }
        Ok(())
    }

    fn hello(
        &mut self,
        core: &Core,
        batch: &mut Taking<'_>,
        hello: Hello,
        still_there: bool,
        wall_ms: u64,
    ) -> Result<(), StoreError> {
        let conn = hello.conn;
        let facts = HelloFacts {
            session_number: hello.session,
            key_sha256: hello.host.to_string(),
            boot_id: String::new(),
            agent_version: "0.1.0".to_owned(),
            outbox: OutboxId::new(hello.outbox.clone()),
            inventory_sha256: String::new(),
            acknowledged_seen: hello.acknowledged,
            epoch_seen: hello.epoch,
            epoch_given: self.epoch,
            still_there,
            now_ms: wall_ms,
        };
        match core.open_session(&hello.host, facts)? {
            SessionDecision::Open(opened) => {
                let session = Session {
                    conn,
                    number: opened.session_number,
                };
                if let Some(older) = self.sessions.insert(hello.host.clone(), session) {
                    self.links.remove(&older.conn);
                    batch.out.push(Outgoing::Goodbye {
                        conn: older.conn,
                        quarantine: false,
                    });
                }
                let link = Link {
                    host: hello.host.clone(),
                    number: opened.session_number,
                    outbox: OutboxId::new(hello.outbox),
                    first: true,
                    confirmed: false,
                };
                self.links.insert(conn, link);
                batch.out.push(Outgoing::Welcome {
                    conn,
                    session: opened.session_number,
                    epoch: self.epoch,
                    acknowledged: opened.acknowledged,
                });
                let host = hello.host.clone();
                let input = Input::Connected {
                    host: hello.host,
                    running_order: hello.running,
                };
                self.feed(batch, input, Seen::Other, wall_ms);
                if let Some(version) = hello.version {
                    self.feed(batch, Input::HostRuns { host, version }, Seen::Other, wall_ms);
                }
            }
            SessionDecision::Stale if !still_there => {
                batch.stale += 1;
                batch.out.push(Outgoing::Prove(hello));
            }
            SessionDecision::Quarantined(_) if self.serves_forks => {
                batch.quarantined.push(hello.host.clone());
                batch.out.push(Outgoing::Goodbye {
                    conn,
                    quarantine: false,
                });
            }
            SessionDecision::Quarantined(_) => {
                batch.quarantined.push(hello.host.clone());
                if let Some(other) = self.sessions.remove(&hello.host) {
                    self.links.remove(&other.conn);
                    batch.out.push(Outgoing::Goodbye {
                        conn: other.conn,
                        quarantine: true,
                    });
                    let host = hello.host;
                    self.feed(batch, Input::Disconnected { host }, Seen::Other, wall_ms);
                }
                batch.out.push(Outgoing::Goodbye {
                    conn,
                    quarantine: true,
                });
            }
            SessionDecision::Restored(text) => {
                batch.out.push(Outgoing::Goodbye {
                    conn,
                    quarantine: false,
                });
                batch.restored = true;
                self.feed(batch, Input::StoreRestored { text }, Seen::Other, wall_ms);
            }
            SessionDecision::Stale | SessionDecision::Unknown => {
                batch.out.push(Outgoing::Goodbye {
                    conn,
                    quarantine: false,
                });
            }
        }
        Ok(())
    }

    fn confirm(&mut self, core: &Core, conn: usize) -> Result<(), StoreError> {
        if let Some(link) = self.links.get_mut(&conn).filter(|link| !link.confirmed) {
            link.confirmed = true;
            core.confirm_session(&link.host, link.number)?;
        }
        Ok(())
    }

    fn event(&mut self, batch: &mut Taking<'_>, conn: usize, stored: Stored, wall_ms: u64) {
        let Some(link) = self.links.get_mut(&conn) else {
            return;
        };
        let body = match &stored.event {
            Some(event) => serde_json::to_vec(event).unwrap_or_default(),
            None => b"{\"event\":\"nobody knows\"}".to_vec(),
        };
        let incoming = IncomingEvent {
            host: link.host.clone(),
            outbox: link.outbox.clone(),
            sequence: stored.sequence,
            first: std::mem::take(&mut link.first),
            order: (!stored.order.as_str().is_empty()).then(|| stored.order.clone()),
            epoch: stored.epoch,
            at_ms: 0,
            body,
            event: stored.event.ok_or_else(|| "not understood".to_owned()),
        };
        match self.intake.classify(&incoming) {
            Sequence::Duplicate => return batch.duplicates += 1,
            Sequence::Gap => {
                batch.gaps += 1;
                batch.restart.insert(incoming.host);
                return;
            }
            Sequence::New => {}
        }
        batch.commit.events.push(intake::row(&incoming, wall_ms));
        let Ok(event) = incoming.event else {
            return batch.rejected += 1;
        };
        let (host, order_id, epoch) = (incoming.host, stored.order, incoming.epoch);
        let mut given = Given::default();
        if epoch < self.kernel.epoch() {
            self.compare += 1;
            if self.compare.is_multiple_of(16) {
                let input = Input::Host {
                    host: host.clone(),
                    order_id: order_id.clone(),
                    epoch: self.kernel.epoch(),
                    event: event.clone(),
                };
                given.as_if_new = Some(self.kernel.clone().handle(input, wall_ms));
                given.what = Seen::OldEvent(order_id.clone());
            }
        }
        let input = Input::Host {
            host,
            order_id,
            epoch,
            event,
        };
        self.give(batch, input, given, wall_ms);
    }

    fn gone(&mut self, batch: &mut Taking<'_>, conn: usize, wall_ms: u64) {
        let Some(link) = self.links.remove(&conn) else {
            return;
        };
        if self
            .sessions
            .get(&link.host)
            .is_some_and(|session| session.number == link.number)
        {
            self.sessions.remove(&link.host);
            let host = link.host;
            self.feed(batch, Input::Disconnected { host }, Seen::Other, wall_ms);
        }
    }

    fn operator(&mut self, batch: &mut Taking<'_>, by: &'static str, command: Command, wall_ms: u64) {
        let compares = matches!(
            command,
            Command::Pause { .. } | Command::Accept { .. } | Command::Rollback { .. }
        );
        let before = compares.then(|| self.with_and_without(wall_ms));
        let input = Input::Operator {
            by: by.to_owned(),
            command: command.clone(),
        };
        let given = Given {
            what: Seen::Operator(command.clone()),
            before,
            ..Given::default()
        };
        if let Some(answer) = self.give(batch, input, given, wall_ms) {
            self.answers.push((by, expected::button(&command), answer));
        }
    }

    /// As `coordinator/src/engine/commands.rs` does it: the plan is kept, and its adoption is in the batch's commit.
    fn child(
        &mut self,
        core: &Core,
        batch: &mut Taking<'_>,
        by: &'static str,
        bytes: Vec<u8>,
        wall_ms: u64,
    ) -> Result<(), StoreError> {
        let audit = fleet_store::AuditEntry {
            at_ms: wall_ms,
            who: by.to_owned(),
            what: "plan".to_owned(),
            detail: String::new(),
        };
        let row = fleet_store::PlanRow {
            plan: rollout::plan::plan_id(&bytes),
            parent: Some(self.kernel.plan_id().clone()),
            created_at_ms: wall_ms,
            document: bytes.clone(),
            fleet_path: String::new(),
            fleet_text: Vec::new(),
        };
        let newest = core.newest_plan()?.map(|newest| newest.plan);
        core.save_plan_after(row, newest, audit)?;
        let given = Given {
            what: Seen::Child,
            before: Some(self.with_and_without(wall_ms)),
            ..Given::default()
        };
        let (name, by) = (by, by.to_owned());
        if let Some(answer) = self.give(batch, Input::Adopt { by, bytes }, given, wall_ms) {
            self.answers.push((name, "Adopt", answer));
            // Hosts that came late are connected already.
            let hosts: Vec<HostId> = self.sessions.keys().filter(|_| answer).cloned().collect();
            for host in hosts {
                let input = Input::Connected {
                    host,
                    running_order: None,
                };
                self.feed(batch, input, Seen::Other, wall_ms);
            }
        }
        Ok(())
    }

    /// As it is, and as the next moment alone would leave it.
    fn with_and_without(&self, wall_ms: u64) -> Box<(Kernel, Kernel)> {
        let mut ticked = self.kernel.clone();
        ticked.handle(Input::Tick, wall_ms);
        Box::new((self.kernel.clone(), ticked))
    }

    fn feed(&mut self, batch: &mut Taking<'_>, input: Input, what: Seen, wall_ms: u64) {
        let given = Given {
            what,
            ..Given::default()
        };
        self.give(batch, input, given, wall_ms);
    }

    /// One input, as `coordinator/src/engine/active.rs` gives it. Says whether a command was accepted.
    fn give(&mut self, batch: &mut Taking<'_>, input: Input, mut given: Given, wall_ms: u64) -> Option<bool> {
        given.input = expected::input(&input);
        if let Some(eyes) = &mut batch.eyes {
            eyes.watcher.turns.hears(&input, wall_ms);
            eyes.watcher.told.hears(&self.kernel, &input);
            if let Input::ServerView(view) = &input {
                eyes.watcher.samples.shown(&self.kernel, view);
            }
        }
        let output = self.kernel.handle(input, wall_ms);
        if let Some(eyes) = &mut batch.eyes {
            eyes.look(&self.kernel, &given, &output, wall_ms);
        }
        let batch = &mut batch.batch;
        if let Some(looks) = output.looks {
            self.want_nodes = looks.nodes;
            batch.server.extend(looks.fleet.map(Outgoing::Look));
        }
        let commit = &mut batch.commit;
        commit.rollout = Some(self.kernel.rollout_id().clone());
        if output.plan.is_some() {
            commit.plan.clone_from(&output.plan);
        }
        let lines = output
            .events
            .iter()
            .filter_map(|event| serde_json::to_string(event).ok());
        commit.log.extend(lines);
        commit
            .rows
            .extend(output.rows.into_iter().map(|row| (row.key, row.json)));
        batch.orders.extend(output.orders);
        let cancels = output.cancel_server.into_iter().map(Outgoing::CancelServer);
        let orders = output.server.into_iter().map(Outgoing::Server);
        batch.server.extend(cancels.chain(orders));
        if self.finished && !self.kernel.is_final() {
            self.finished = false;
            commit.reopened = true;
            commit.finished = None;
        }
        if self.kernel.is_final() && !self.finished {
            self.finished = true;
            let report = rollout::report::report(&self.kernel, wall_ms);
            commit.finished = Some((wall_ms, serde_json::to_vec(&report).unwrap_or_default()));
        }
        output.answer.map(|answer| answer.is_ok())
    }
}

/// Damages a store as a copy that was cut short would be.
pub fn tear(core: &Core, rollout: &fleet_common::ids::RolloutId) -> Result<(), StoreError> {
    core.begin()?;
    core.commit(&RolloutCommit {
        rollout: Some(rollout.clone()),
        rows: [("rollout".to_owned(), "{}".to_owned())].into(),
        ..RolloutCommit::default()
    })?;
    core.end()
}

/// The rows of a rollout as the kernel takes them.
pub fn stored_rows(core: &Core, rollout: &fleet_common::ids::RolloutId) -> Result<Vec<Row>, StoreError> {
    let rows = core.rollout_rows(rollout)?.into_iter();
    Ok(rows.map(|(key, json)| Row { key, json }).collect())
}
