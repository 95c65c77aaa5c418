//! A fleet in virtual time around the real kernel: hosts and a server driver with journals, an unreliable network, a store that
//! survives the coordinator, and an operator. Everything follows from one seed.

#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used)]

pub mod cases;
pub mod fixture;
pub mod gates;
pub mod hosts;
pub mod permits;
pub mod proof;
pub mod rules;
pub mod run;
pub mod steps;
pub mod told;
pub mod turns;

pub use steps::until;

use fixture::{GroupSpec, NOW};
use fleet_common::codes::Code;
use fleet_common::ids::{Epoch, HostId, OrderId};
use fleet_common::server::{HopOutcome, HopResult, ServerEvent, ServerOrder};
use fleet_common::verification::FleetSnapshot;
use fleet_common::version::PmmVersion;
use hosts::{Behaviour, SimHost};
use rollout::kernel::{Command, Input, Kernel, Looks, NODES_EVERY_MS, Output, RollbackTarget, Row};
use rules::Watcher;
use std::collections::{BTreeMap, BTreeSet};

/// Of every program that this is linked into, which are programs of ours for tests alone. A life allocates all the time.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Splitmix64: small, and the same everywhere.
#[derive(Clone, Debug)]
pub struct Rng(pub u64);

impl Rng {
    pub fn draw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }
    pub fn below(&mut self, bound: u64) -> u64 {
        self.draw() % bound.max(1)
    }
    /// One time in `n`.
    pub fn one_in(&mut self, n: u64) -> bool {
        n > 0 && self.below(n) == 0
    }
}

/// How often things go wrong: once in so many seconds; 0 is never.
#[derive(Clone, Copy, Debug, Default)]
pub struct Faults {
    pub disconnect: u64,
    pub crash: u64,
    pub operator: u64,
    pub duplicate: u64,
    pub view_lost: u64,
    pub bad_hop: u64,
    /// Share of hosts in percent that do not simply work.
    pub bad_hosts: u64,
}

impl Faults {
    pub const NONE: Self = Self {
        disconnect: 0,
        crash: 0,
        operator: 0,
        duplicate: 0,
        view_lost: 0,
        bad_hop: 0,
        bad_hosts: 0,
    };
    pub const ALL: Self = Self {
        disconnect: 60,
        crash: 90,
        operator: 120,
        duplicate: 5,
        view_lost: 4,
        bad_hop: 6,
        bad_hosts: 40,
    };
}

#[derive(Clone, Debug)]
struct Hop {
    order: ServerOrder,
    step: u32,
    next_at: u64,
    outcome: HopOutcome,
    done: Option<HopResult>,
    /// Looks for clients that find nobody, and whether a person is asked now.
    nobody: u32,
    asked: bool,
}

pub struct World {
    pub now: u64,
    pub rng: Rng,
    pub faults: Faults,
    pub bytes: Vec<u8>,
    pub kernel: Kernel,
    pub store: BTreeMap<String, String>,
    pub hosts: BTreeMap<HostId, SimHost>,
    pub server_version: PmmVersion,
    pub watcher: Watcher,
    /// Whether a patient operator resumes and approves.
    pub helpful: bool,
    pub last: Output,
    answer: Option<Result<rollout::kernel::Accepted, rollout::kernel::Refusal>>,
    pub events: Vec<rollout::kernel::FleetEvent>,
    /// The hop of this number ends so.
    pub fail_hop: Option<(u32, HopOutcome)>,
    /// So many looks of the last hop of a leg find no client.
    pub nobody_back: u32,
    /// A hop that fails does so after its publication.
    pub fail_published: bool,
    /// Hosts whose client PMM does not list.
    pub unlisted: BTreeSet<HostId>,
    hops: BTreeMap<OrderId, Hop>,
    /// Each step of the server takes this much longer, in milliseconds.
    pub hop_pause: u64,
    term: u64,
    /// Looks at PMM that the last tick wished for.
    looks: Looks,
    nodes_seen_at: u64,
    paused_since: Option<u64>,
    /// The rule that every kernel of this world breaks on purpose.
    #[cfg(feature = "mutants")]
    mutant: Option<rollout::kernel::Mutant>,
}

const STEPS: [&str; 4] = ["inspect", "ownership", "migrate", "publish"];

/// What the driver answers when no client came back: its journal stays open.
fn nobody_is_back(order: &ServerOrder) -> HopResult {
    HopResult {
        outcome: HopOutcome::NeedsOperator,
        from: order.from,
        running: Some(order.to),
        code: Code::new(fleet_common::codes::DEADLINE),
        step: "settle".to_owned(),
        message: "3 of 3 services have no fresh samples yet".to_owned(),
        hints: vec!["check the network".to_owned()],
        restore_point: Some(format!("restore-{}", order.hop)),
        downtime_ms: 1_500,
        open: true,
        leftovers: Vec::new(),
    }
}

impl World {
    pub fn new(seed: u64, groups: &[GroupSpec<'_>], decision: &str, faults: Faults) -> Self {
        Self::with_direct(seed, groups, decision, faults, &[])
    }

    /// A fleet in which the clients of some hosts address the server's container.
    pub fn with_direct(
        seed: u64,
        groups: &[GroupSpec<'_>],
        decision: &str,
        faults: Faults,
        direct: &[usize],
    ) -> Self {
        Self::with_plan(seed, groups, decision, faults, direct, &|_| {})
    }

    /// A fleet whose plan was changed before it was stored.
    pub fn with_plan(
        seed: u64,
        groups: &[GroupSpec<'_>],
        decision: &str,
        faults: Faults,
        direct: &[usize],
        edit: fixture::Edit<'_>,
    ) -> Self {
        let mut draft = fixture::draft_with(groups, decision, direct);
        edit(&mut draft.plan);
        Self::of_plan(seed, draft, faults)
    }

    /// A fleet with a plan that the fleet file can't say.
    pub fn of_plan(seed: u64, draft: rollout::plan::PlanDraft, faults: Faults) -> Self {
        let (_, bytes) = draft.into_bytes().expect("a plan");
        let kernel = Kernel::new("r1".into(), &bytes, Epoch { term: 1, counter: 0 }, NOW).expect("a kernel");
        let mut rng = Rng(seed);
        let hosts = kernel
            .plan()
            .hosts
            .iter()
            .map(|planned| {
                let behaviour = Behaviour::choose(&mut rng, faults.bad_hosts);
                (planned.host.clone(), SimHost::new(planned, behaviour))
            })
            .collect();
        let mut world = Self {
            now: NOW,
            rng,
            faults,
            bytes,
            store: BTreeMap::new(),
            hosts,
            server_version: PmmVersion::new(2, 41, 2),
            watcher: Watcher::new(&kernel),
            kernel,
            helpful: true,
            last: Output::default(),
            answer: None,
            events: Vec::new(),
            fail_hop: None,
            nobody_back: 0,
            fail_published: false,
            unlisted: BTreeSet::new(),
            hops: BTreeMap::new(),
            hop_pause: 0,
            term: 1,
            looks: Looks::default(),
            nodes_seen_at: 0,
            paused_since: None,
            #[cfg(feature = "mutants")]
            mutant: None,
        };
        for host in world.hosts.keys().cloned().collect::<Vec<_>>() {
            world.connect(&host);
        }
        world.give(Input::Tick);
        world
    }

    /// From now on the kernel, also the one of a later coordinator, breaks a rule.
    #[cfg(feature = "mutants")]
    pub fn break_rule(&mut self, mutant: rollout::kernel::Mutant) {
        self.mutant = Some(mutant);
        self.kernel.break_rule(mutant);
    }

    pub fn start(&mut self) {
        self.command(Command::Start {
            accept_unmatched: Vec::new(),
        })
        .expect("starts");
    }

    pub fn command(&mut self, command: Command) -> Result<String, String> {
        self.give(Input::Operator {
            by: "ann".to_owned(),
            command,
        });
        self.answer
            .take()
            .expect("commands are answered")
            .map(|done| done.text)
            .map_err(|refusal| refusal.code)
    }

    /// Lets a child plan take over; hosts that came late connect. Ok is what was said, Err the code of the refusal.
    pub fn adopt(&mut self, draft: rollout::plan::PlanDraft) -> Result<String, String> {
        let (_, bytes) = draft.into_bytes().expect("a plan");
        let planned = rollout::plan::Plan::parse(&bytes).expect("reads").hosts;
        let by = "ann".to_owned();
        self.give(Input::Adopt { by, bytes });
        let answer = self.answer.take().expect("is answered");
        let text = answer.map(|done| done.text).map_err(|refusal| refusal.code)?;
        for planned in planned {
            if !self.hosts.contains_key(&planned.host) {
                let host = SimHost::new(&planned, Behaviour::Good);
                self.hosts.insert(planned.host.clone(), host);
                self.connect(&planned.host);
            }
        }
        Ok(text)
    }

    /// One input: handle, commit, act. Sometimes the coordinator dies after the commit and before acting.
    pub fn give(&mut self, input: Input) {
        let tick = matches!(input, Input::Tick);
        let command = match &input {
            Input::Operator { command, .. } => Some(command),
            _ => None,
        };
        let given = rules::Given {
            tick,
            freed: matches!(command, Some(Command::FreeSlot { .. })),
            accepted: matches!(command, Some(Command::Accept { .. })),
            started: matches!(input, Input::CoordinatorStarted { .. }),
        };
        let wish = command.cloned();
        let asked = wish.is_some() || matches!(input, Input::Adopt { .. });
        let before = asked.then(|| self.kernel.clone());
        let older = self.as_if_new(&input);
        let adopting = match &input {
            Input::Adopt { bytes, .. } => Some(bytes.clone()),
            _ => None,
        };
        self.watcher.turns.hears(&input, self.now);
        self.watcher.told.hears(&self.kernel, &input);
        if let Input::ServerView(view) = &input {
            self.watcher.samples.shown(&self.kernel, view);
        }
        let output = self.kernel.handle(input, self.now);
        if let (Some(before), Some(answer)) = (before, &output.answer) {
            let well = answer.is_ok();
            self.watcher
                .asked(wish.as_ref(), well, &before, &self.kernel, self.now);
        }
        if let Some((order, new)) = older {
            self.watcher.old_event(&output, &new, &order);
        }
        self.store
            .extend(output.rows.iter().map(|row| (row.key.clone(), row.json.clone())));
        if output.plan.is_some() {
            self.bytes = adopting.unwrap_or_default();
            self.watcher.adopted(&self.kernel);
        }
        self.events.extend(output.events.iter().cloned());
        self.watcher
            .look(&self.kernel, &output, &self.hosts, self.now, given);
        if output.answer.is_some() {
            self.answer.clone_from(&output.answer);
        }
        self.last = output.clone();
        if self.rng.one_in(self.faults.crash * 8) {
            return self.crash();
        }
        if let Some(looks) = output.looks {
            self.looks.fleet = looks.fleet.or(self.looks.fleet.take());
            self.looks.nodes = looks.nodes;
        }
        for order in output.orders {
            let delay = self.rng.below(3) * 1_000;
            if let Some(host) = self.hosts.get_mut(&order.host).filter(|host| host.connected) {
                host.inbox.push((self.now + delay, order));
            }
        }
        for order in output.cancel_server {
            if let Some(hop) = self.hops.get_mut(&order).filter(|hop| hop.done.is_none()) {
                hop.outcome = HopOutcome::Restored;
            }
        }
        for order in output.server {
            let outcome = match self.rng.below(3) {
                _ if !self.rng.one_in(self.faults.bad_hop) => HopOutcome::Settled,
                0 => HopOutcome::Restored,
                1 => HopOutcome::Refused,
                _ => HopOutcome::NeedsOperator,
            };
            let outcome = self
                .fail_hop
                .filter(|(number, _)| *number == order.hop)
                .map_or(outcome, |(_, outcome)| outcome);
            let next_at = self.now + 1_000;
            let nobody = self
                .nobody_back
                .max(u32::from(self.rng.one_in(self.faults.bad_hop * 2)));
            let hop = self.hops.entry(order.order.clone()).or_insert(Hop {
                order: order.clone(),
                step: 0,
                next_at,
                outcome,
                done: None,
                nobody: if order.last_of_leg { nobody } else { 0 },
                asked: false,
            });
            (hop.next_at, hop.order, hop.asked) = (next_at, order, false);
        }
    }

    /// What an event of an older epoch would do if it were of the newest.
    fn as_if_new(&self, input: &Input) -> Option<(OrderId, Output)> {
        let Input::Host {
            host,
            order_id,
            epoch,
            event,
        } = input
        else {
            return None;
        };
        let newest = self.kernel.epoch();
        (*epoch < newest).then(|| {
            let input = Input::Host {
                host: host.clone(),
                order_id: order_id.clone(),
                epoch: newest,
                event: event.clone(),
            };
            (order_id.clone(), self.kernel.clone().handle(input, self.now))
        })
    }

    /// The coordinator and with it the server driver die; another one takes over from the store.
    pub fn crash(&mut self) {
        let rows: Vec<Row> = self
            .store
            .iter()
            .map(|(key, json)| Row {
                key: key.clone(),
                json: json.clone(),
            })
            .collect();
        self.kernel = Kernel::restore(&self.bytes, &rows).expect("restores");
        #[cfg(feature = "mutants")]
        if let Some(mutant) = self.mutant {
            self.kernel.break_rule(mutant);
        }
        self.watcher.restored(&self.kernel);
        self.looks = Looks::default();
        self.term += 1;
        for host in self.hosts.values_mut() {
            host.connected = false;
            host.inbox.clear();
        }
        let hit: Vec<(OrderId, String)> = self
            .hops
            .iter()
            .filter(|(_, hop)| hop.done.is_none() && !hop.asked)
            .map(|(id, hop)| (id.clone(), STEPS[(hop.step as usize).min(3)].to_owned()))
            .collect();
        self.give(Input::CoordinatorStarted { term: self.term });
        for (order, step) in hit {
            let published = self
                .hops
                .get(&order)
                .is_some_and(|hop| hop.step > 4 && self.published(hop));
            let event = ServerEvent::Resumed { step };
            self.give(Input::Server {
                order: order.clone(),
                event,
            });
            if published {
                let event = ServerEvent::Published;
                self.give(Input::Server { order, event });
            }
        }
    }

    fn published(&self, hop: &Hop) -> bool {
        hop.outcome == HopOutcome::Settled || self.fail_published
    }

    /// The server order that the driver works at.
    pub fn open_hop(&self) -> Option<&ServerOrder> {
        let hop = self.hops.values().find(|hop| hop.done.is_none() && hop.step > 1);
        hop.map(|hop| &hop.order)
    }

    pub fn connect(&mut self, id: &HostId) {
        let epoch: Epoch = self.kernel.epoch();
        let host = self.hosts.get_mut(id).unwrap();
        host.connected = true;
        host.inbox.clear();
        host.epoch = host.epoch.max(epoch);
        let running_order = host.running();
        self.give(Input::Connected {
            host: id.clone(),
            running_order,
        });
    }

    pub fn disconnect(&mut self, id: &HostId) {
        let host = self.hosts.get_mut(id).unwrap();
        host.connected = false;
        host.inbox.clear();
        self.give(Input::Disconnected { host: id.clone() });
    }

    /// PMM's inventory as it is.
    pub fn view(&self) -> FleetSnapshot {
        let records = fixture::records(&[]);
        let mut view = fixture::snapshot(&records, self.now);
        for host in self
            .hosts
            .values()
            .filter(|host| !self.unlisted.contains(&host.id))
        {
            host.add_to(&mut view, self.now, self.server_version);
        }
        view.server_version = Some(self.server_version);
        view
    }

    /// One second.
    pub fn step(&mut self) {
        self.now += 1_000;
        for id in self.hosts.keys().cloned().collect::<Vec<_>>() {
            if self.hosts[&id].connected && self.rng.one_in(self.faults.disconnect * 4) {
                self.disconnect(&id);
            } else if !self.hosts[&id].connected && !self.hosts[&id].gone && self.rng.one_in(15) {
                self.connect(&id);
            }
            let (now, permit, server) = (self.now, &mut self.watcher, self.server_version);
            self.hosts
                .get_mut(&id)
                .unwrap()
                .step(now, &mut self.rng, permit, server);
            self.deliver(&id);
        }
        self.step_server();
        if self.rng.one_in(self.faults.crash * 4) {
            self.crash();
        }
        self.look();
        self.operate();
        self.give(Input::Tick);
    }

    /// What the coordinator asks PMM for; an answer may get lost.
    fn look(&mut self) {
        let mut due: Vec<_> = self.looks.fleet.take().into_iter().collect();
        if self.nodes_seen_at + NODES_EVERY_MS <= self.now
            && let Some(nodes) = &self.looks.nodes
        {
            self.nodes_seen_at = self.now;
            due.push(nodes.clone());
        }
        for request in due {
            if !self.rng.one_in(self.faults.view_lost) {
                let view = request.answer_from(self.view());
                for host in self.hosts.values_mut() {
                    host.was_shown(&view);
                }
                self.give(Input::ServerView(view));
            }
        }
    }

    /// Events leave the outbox in order; one whose acknowledgement is lost is sent again.
    fn deliver(&mut self, id: &HostId) {
        while let Some((order_id, epoch, event)) = self
            .hosts
            .get(id)
            .filter(|host| host.connected)
            .and_then(|host| host.outbox.first().cloned())
        {
            self.give(Input::Host {
                host: id.clone(),
                order_id,
                epoch,
                event,
            });
            if self.rng.one_in(self.faults.duplicate) {
                break;
            }
            self.hosts.get_mut(id).unwrap().outbox.remove(0);
        }
    }

    fn step_server(&mut self) {
        let due: Vec<OrderId> = self
            .hops
            .iter()
            .filter(|(_, hop)| hop.done.is_none() && !hop.asked && hop.next_at <= self.now)
            .map(|(id, _)| id.clone())
            .collect();
        for id in due {
            let pause = 2_000 + self.rng.below(8) * 1_000 + self.hop_pause;
            let published = self.published(&self.hops[&id]);
            let hop = self.hops.get_mut(&id).unwrap();
            hop.next_at = self.now + pause;
            let event = if let Some(step) = STEPS.get(hop.step as usize) {
                let index = hop.step + 1;
                hop.step += 1;
                ServerEvent::StepStarted {
                    step: (*step).to_owned(),
                    index,
                    of: 4,
                    waits_for: String::new(),
                    deadline_for_ms: 60_000,
                }
            } else if hop.step == 4 && published {
                hop.step += 1;
                self.server_version = hop.order.to;
                ServerEvent::Published
            } else {
                let settled = hop.outcome == HopOutcome::Settled;
                if settled && hop.nobody > 0 && !hop.order.accept_unsettled {
                    hop.nobody -= 1;
                    hop.asked = true;
                    let event = ServerEvent::Finished(nobody_is_back(&hop.order));
                    self.give(Input::Server { order: id, event });
                    continue;
                }
                if hop.outcome == HopOutcome::Restored {
                    self.server_version = hop.order.from;
                }
                let result = HopResult {
                    outcome: hop.outcome,
                    from: hop.order.from,
                    running: Some(if settled { hop.order.to } else { hop.order.from }),
                    code: Code::new(if settled { "" } else { "fresh_instance" }),
                    step: if settled {
                        String::new()
                    } else {
                        "migrate".to_owned()
                    },
                    message: "as it went".to_owned(),
                    hints: Vec::new(),
                    restore_point: Some(format!("restore-{}", hop.order.hop)),
                    downtime_ms: 1_500,
                    open: false,
                    leftovers: Vec::new(),
                };
                hop.done = Some(result.clone());
                ServerEvent::Finished(result)
            };
            self.give(Input::Server { order: id, event });
        }
        // An answer that was lost in a crash is given again when the order is.
        let lost: Vec<(OrderId, HopResult)> = self
            .last
            .server
            .iter()
            .filter_map(|order| Some((order.order.clone(), self.hops.get(&order.order)?.done.clone()?)))
            .collect();
        for (order, result) in lost {
            self.give(Input::Server {
                order,
                event: ServerEvent::Finished(result),
            });
        }
    }

    fn operate(&mut self) {
        if self.rng.one_in(self.faults.operator) {
            let hosts: Vec<HostId> = self.hosts.keys().cloned().collect();
            let pick = self.rng.below(hosts.len() as u64) as usize;
            let host = hosts[pick].to_string();
            let reason = "because".to_owned();
            let command = match self.rng.below(31) {
                0..=3 => Command::Pause { reason },
                4..=7 => Command::Resume {
                    reason,
                    accept_server: false,
                },
                8..=10 => Command::Retry {
                    hosts: Vec::new(),
                    server: false,
                },
                11 => Command::Retry {
                    hosts: vec![host],
                    server: false,
                },
                12..=14 => Command::Hold { host, reason },
                15..=17 => Command::Unhold { host },
                18..=20 => Command::FreeSlot { host, reason },
                21 => Command::Skip { host, reason },
                22 => Command::Approve {
                    group: "two".to_owned(),
                },
                23 => Command::Accept { host, reason },
                24 => Command::Rollback {
                    target: RollbackTarget::Host(host),
                    reason,
                },
                25 => Command::Rollback {
                    target: RollbackTarget::Group("one".to_owned()),
                    reason,
                },
                26 => Command::Rollback {
                    target: RollbackTarget::Clients,
                    reason,
                },
                27 | 28 => cases::limit(&mut self.rng, &self.kernel.plan().groups),
                29 => {
                    let draft = cases::child(&mut self.rng, &self.kernel);
                    let _ = self.adopt(draft);
                    return;
                }
                _ => Command::Abort {
                    reason,
                    force: self.rng.one_in(2),
                },
            };
            let _ = self.command(command);
        }
        if !self.helpful {
            return;
        }
        let paused = self.kernel.phase() == rollout::kernel::RolloutPhase::Paused;
        self.paused_since = if paused {
            self.paused_since.or(Some(self.now))
        } else {
            None
        };
        if self.paused_since.is_some_and(|since| since + 60_000 <= self.now) {
            self.paused_since = None;
            let reason = "go on".to_owned();
            if self
                .command(Command::Resume {
                    reason: reason.clone(),
                    accept_server: false,
                })
                .is_err()
                && self
                    .command(Command::Retry {
                        hosts: Vec::new(),
                        server: true,
                    })
                    .is_err()
            {
                let _ = self.command(Command::Abort { reason, force: false });
            }
            for host in self.hosts.keys().cloned().collect::<Vec<_>>() {
                let _ = self.command(Command::FreeSlot {
                    host: host.to_string(),
                    reason: "looked at".to_owned(),
                });
            }
        }
        if self.now.is_multiple_of(60_000) {
            let _ = self.command(Command::Approve {
                group: "two".to_owned(),
            });
        }
    }

    /// Runs until nothing more follows, or for so many seconds.
    pub fn run(&mut self, seconds: u64) {
        for _ in 0..seconds {
            if self.kernel.is_final() {
                break;
            }
            self.step();
        }
    }
}
