//! The kernel, its store, hosts and server in virtual time.

use crate::fleet::Setup;
use crate::host::Host;
use crate::server::Server;
use fleet_common::ids::{Epoch, HostId, OrderId, PlanId, RolloutId};
use fleet_common::order::HostEvent;
use pmm_coordinator::operator_api::documents::NumberedEvent;
use pmm_coordinator::store::{AuditEntry, Core, PlanRow, RolloutCommit, RolloutRow};
use rollout::kernel::{Command, HostOrder, Input, Kernel, Looks, NODES_EVERY_MS, Output, Refusal, Row};
use rollout::plan::{Plan, PlanDraft};
use std::collections::BTreeMap;

/// Milliseconds of a step while something works, and while everything only waits.
const STEP: u64 = 1_000;
const LONG_STEP: u64 = 10_000;

pub struct World {
    pub setup: Setup,
    pub now: u64,
    pub kernel: Kernel,
    pub hosts: BTreeMap<HostId, Host>,
    pub server: Server,
    pub events: Vec<NumberedEvent>,
    /// Whether PMM answers the coordinator.
    pub sight: bool,
    /// Plans and rollouts, as the coordinator keeps them.
    pub core: Core,
    /// Hosts whose orders are on their way for long.
    slow: BTreeMap<HostId, Vec<HostOrder>>,
    bytes: Vec<u8>,
    store: BTreeMap<String, String>,
    /// How many rollouts began.
    rollouts: u32,
    finished: bool,
    /// What the last tick wants to see of PMM.
    looks: Looks,
    nodes_seen_at: u64,
    term: u64,
}

impl World {
    /// A plan of the setup, not started.
    pub fn new(setup: Setup) -> Result<Self, String> {
        let hosts = setup.hosts();
        let draft = setup
            .draft(&hosts, setup.server, setup.now, None)
            .map_err(|errors| format!("{errors:?}"))?;
        let core = Core::in_memory().map_err(|error| error.to_string())?;
        let row = plan_row(draft, &setup)?;
        core.save_plan(row.clone(), audit("ann", "plan", &row.plan, setup.now))
            .map_err(|error| error.to_string())?;
        let bytes = row.document;
        let epoch = Epoch { term: 1, counter: 0 };
        let kernel = Kernel::new(RolloutId::new("rollout-1"), &bytes, epoch, setup.now)
            .map_err(|error| error.to_string())?;
        let mut world = Self {
            now: setup.now,
            kernel,
            hosts,
            server: Server::new(setup.server),
            events: Vec::new(),
            sight: true,
            core,
            slow: BTreeMap::new(),
            bytes,
            store: BTreeMap::new(),
            rollouts: 0,
            finished: false,
            looks: Looks::default(),
            nodes_seen_at: 0,
            term: 1,
            setup,
        };
        world.meet_all();
        Ok(world)
    }

    fn meet_all(&mut self) {
        for host in self.hosts.keys().cloned().collect::<Vec<_>>() {
            self.give(Input::Connected {
                host,
                running_order: None,
            });
        }
        self.give(Input::Tick);
    }

    /// A plan of the fleet as it is, to be kept. While a rollout runs it follows that one's plan, as the coordinator makes it.
    pub fn plan_now(&self) -> Result<PlanRow, String> {
        let running = self.is_started() && !self.kernel.is_final();
        let draft = self.draft_of(&self.setup.fleet_text(), running)?;
        let newest = self.core.newest_plan().map_err(|error| error.to_string())?;
        let parent = if running {
            Some(self.kernel.plan_id().clone())
        } else {
            newest.map(|row| row.plan)
        };
        plan_row(draft.with_parent(parent), &self.setup).map(|row| PlanRow {
            created_at_ms: self.now,
            ..row
        })
    }

    /// What would be planned now of a fleet file, for a rollout that runs or for a new one.
    pub fn draft_of(&self, file: &str, running: bool) -> Result<PlanDraft, String> {
        let running = running.then(|| self.kernel.running());
        self.setup
            .draft_of(file, &self.hosts, self.server.version, self.now, running.as_ref())
            .map_err(|errors| format!("{errors:?}"))
    }

    pub fn is_started(&self) -> bool {
        self.kernel.rollout().started_at_ms.is_some()
    }

    /// Begins a rollout of a plan that nothing stands against.
    pub fn start(
        &mut self,
        by: &str,
        row: &PlanRow,
        accept_unmatched: Vec<String>,
    ) -> Result<String, Refusal> {
        if row.plan != *self.kernel.plan_id() {
            let epoch = self.kernel.epoch();
            let next = self.rollouts + 1;
            self.kernel = Kernel::new(
                RolloutId::new(format!("rollout-{next}")),
                &row.document,
                epoch,
                self.now,
            )
            .expect("the plan is one");
            self.bytes.clone_from(&row.document);
            self.store.clear();
            self.meet_all();
        }
        let done = self.command(by, Command::Start { accept_unmatched })?;
        self.rollouts += 1;
        let rollout = self.kernel.rollout_id().clone();
        self.commit(RolloutCommit {
            begin: Some(RolloutRow {
                rollout: rollout.clone(),
                plan: row.plan.clone(),
                started_at_ms: self.now,
                finished_at_ms: None,
            }),
            rollout: Some(rollout),
            audit: vec![audit(by, "start", &row.plan, self.now)],
            ..RolloutCommit::default()
        });
        Ok(done)
    }

    fn commit(&self, commit: RolloutCommit) {
        self.core.commit(&commit).expect("the store takes it");
    }

    /// A person lets a stored plan take over.
    pub fn adopt_plan(&mut self, by: &str, row: PlanRow) -> Result<String, Refusal> {
        let output = self.give(Input::Adopt {
            by: by.to_owned(),
            bytes: row.document.clone(),
        });
        if output.plan.is_some() {
            self.bytes = row.document;
        }
        output.answer.expect("it is answered").map(|done| done.text)
    }

    /// Orders to this host are on their way from now on, over a connection that both sides still take for good.
    pub fn slow(&mut self, id: &HostId) {
        self.slow.entry(id.clone()).or_default();
    }

    /// It connects anew, and what was on its way over the old connection comes in after that.
    pub fn late(&mut self, id: &HostId) {
        let held = self.slow.remove(id).unwrap_or_default();
        self.online(id);
        let host = self.hosts.get_mut(id).unwrap();
        for order in held {
            host.take(order, self.now);
        }
    }

    /// A person's command.
    pub fn command(&mut self, by: &str, command: Command) -> Result<String, Refusal> {
        let output = self.give(Input::Operator {
            by: by.to_owned(),
            command,
        });
        output
            .answer
            .expect("commands are answered")
            .map(|done| done.text)
    }

    /// Handle, commit, act.
    pub fn give(&mut self, input: Input) -> Output {
        let output = self.kernel.handle(input, self.now);
        for row in &output.rows {
            self.store.insert(row.key.clone(), row.json.clone());
        }
        for event in &output.events {
            self.events.push(NumberedEvent {
                sequence: self.events.len() as u64 + 1,
                event: event.clone(),
            });
        }
        for order in &output.orders {
            if let Some(held) = self.slow.get_mut(&order.host) {
                held.push(order.clone());
            } else if let Some(host) = self.hosts.get_mut(&order.host) {
                host.take(order.clone(), self.now);
            }
        }
        for order in &output.cancel_server {
            self.server.cancel(order);
        }
        for order in &output.server {
            self.server.take(order.clone(), self.now);
        }
        if let Some(looks) = &output.looks {
            let fleet = looks.fleet.clone().or(self.looks.fleet.take());
            self.looks = Looks {
                fleet,
                ..looks.clone()
            };
        }
        if self.rollouts > 0 {
            let rollout = Some(self.kernel.rollout_id().clone());
            let finished = self.kernel.is_final();
            if output.plan.is_some() || finished != self.finished {
                self.finished = finished;
                self.commit(RolloutCommit {
                    rollout,
                    plan: output.plan.clone(),
                    finished: finished.then(|| (self.now, Vec::new())),
                    reopened: !finished,
                    ..RolloutCommit::default()
                });
            }
        }
        output
    }

    pub fn busy(&self) -> bool {
        let looking = self.looks.fleet.is_some() || self.looks.nodes.is_some();
        looking || self.server.is_busy() || self.hosts.values().any(Host::is_busy)
    }

    /// One step of time.
    pub fn step(&mut self) {
        self.now += if self.busy() { STEP } else { LONG_STEP };
        let now = self.now;
        for id in self.hosts.keys().cloned().collect::<Vec<_>>() {
            let host = self.hosts.get_mut(&id).unwrap();
            host.step(now);
            for (order_id, epoch, event) in host.said() {
                self.give(Input::Host {
                    host: id.clone(),
                    order_id,
                    epoch,
                    event,
                });
            }
        }
        while let Some((order, event)) = self.server.step(now) {
            self.give(Input::Server { order, event });
        }
        let mut due: Vec<_> = self.looks.fleet.take().into_iter().collect();
        if self.nodes_seen_at + NODES_EVERY_MS <= now {
            self.nodes_seen_at = now;
            due.extend(self.looks.nodes.clone());
        }
        due.retain(|_| self.sight);
        for request in due {
            let whole = self.setup.snapshot(&self.hosts, self.server.version, now);
            self.give(Input::ServerView(request.answer_from(whole)));
        }
        self.give(Input::Tick);
    }

    /// Cuts a host off; what it does goes on.
    pub fn offline(&mut self, id: &HostId) {
        self.hosts.get_mut(id).unwrap().connected = false;
        self.give(Input::Disconnected { host: id.clone() });
        self.give(Input::Tick);
    }

    pub fn online(&mut self, id: &HostId) {
        let epoch = self.kernel.epoch();
        let host = self.hosts.get_mut(id).unwrap();
        host.connected = true;
        host.meet(epoch);
        let running_order = host.running();
        self.give(Input::Connected {
            host: id.clone(),
            running_order,
        });
        self.give(Input::Tick);
    }

    /// A host joins after the plan was made: it is in no row of the rollout.
    pub fn join(&mut self, name: &str, group: &str) {
        let record = self.setup.join_later(name, group, self.now);
        let host = self.setup.host(&record);
        self.hosts.insert(record.host_id.clone(), host);
        self.give(Input::Connected {
            host: record.host_id,
            running_order: None,
        });
    }

    /// A person takes the store as the truth.
    pub fn adopt(&mut self) {
        self.term += 1;
        self.give(Input::StoreAdopted { term: self.term });
        self.come_back();
    }

    /// A person on the host holds it.
    pub fn hold_there(&mut self, id: &HostId, reason: &str) {
        self.give(Input::Host {
            host: id.clone(),
            order_id: OrderId::new(""),
            epoch: self.kernel.epoch(),
            event: HostEvent::HoldChanged {
                held: Some(reason.to_owned()),
            },
        });
    }

    /// The coordinator dies and another one takes over from the store.
    pub fn crash(&mut self) {
        let rows: Vec<Row> = self
            .store
            .iter()
            .map(|(key, json)| Row {
                key: key.clone(),
                json: json.clone(),
            })
            .collect();
        self.kernel = Kernel::restore(&self.bytes, &rows).expect("the rows are a rollout");
        self.looks = Looks::default();
        self.term += 1;
        self.give(Input::CoordinatorStarted { term: self.term });
        self.come_back();
    }

    /// Every host that is there connects again.
    fn come_back(&mut self) {
        let there: Vec<HostId> = self
            .hosts
            .values()
            .filter(|host| host.connected)
            .map(|host| host.id.clone())
            .collect();
        for id in there {
            self.online(&id);
        }
    }
}

/// A plan as it is kept.
fn plan_row(draft: PlanDraft, setup: &Setup) -> Result<PlanRow, String> {
    let (plan, document) = draft.into_bytes().map_err(|error| error.to_string())?;
    let parent = Plan::parse(&document).map_err(|error| error.to_string())?.parent;
    Ok(PlanRow {
        plan,
        parent,
        created_at_ms: setup.now,
        document,
        fleet_path: "fleet.toml".to_owned(),
        fleet_text: setup.fleet_text().into_bytes(),
    })
}

/// A line of the audit, as the coordinator writes it.
pub fn audit(by: &str, what: &str, plan: &PlanId, at_ms: u64) -> AuditEntry {
    AuditEntry {
        at_ms,
        who: by.to_owned(),
        what: what.to_owned(),
        detail: plan.to_string(),
    }
}
