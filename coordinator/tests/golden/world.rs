//! The kernel, its store, hosts and server in virtual time.

use crate::fleet::Setup;
use crate::host::Host;
use crate::server::Server;
use fleet_common::ids::{Epoch, HostId, OrderId, RolloutId};
use fleet_common::order::HostEvent;
use pmm_coordinator::operator_api::documents::NumberedEvent;
use rollout::kernel::{Command, Input, Kernel, Looks, NODES_EVERY_MS, Output, Refusal, Row};
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
    bytes: Vec<u8>,
    store: BTreeMap<String, String>,
    /// What the last tick wants to see of PMM.
    looks: Looks,
    nodes_seen_at: u64,
    term: u64,
}

impl World {
    /// A plan of the setup, not started.
    pub fn new(setup: Setup) -> Result<(Self, rollout::plan::Plan), String> {
        let hosts = setup.hosts();
        let draft = setup
            .draft(&hosts, setup.server, setup.now)
            .map_err(|errors| format!("{errors:?}"))?;
        let plan = draft.plan.clone();
        let (_, bytes) = draft.into_bytes().map_err(|error| error.to_string())?;
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
            bytes,
            store: BTreeMap::new(),
            looks: Looks::default(),
            nodes_seen_at: 0,
            term: 1,
            setup,
        };
        for host in world.hosts.keys().cloned().collect::<Vec<_>>() {
            world.give(Input::Connected {
                host,
                running_order: None,
            });
        }
        world.give(Input::Tick);
        Ok((world, plan))
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
            if let Some(host) = self.hosts.get_mut(&order.host) {
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
        output
    }

    fn busy(&self) -> bool {
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
