//! The world around coordinator and agents: time, what is on its way, and who is up.

use super::agent::{Agent, Deed};
use super::config::Config;
use super::coordinator::{Coordinator, Message, Outgoing};
use super::draw::{self, Recipe};
use super::faults::{Fault, FaultSet};
use super::led::Led;
use super::operator::open_rows;
use super::pmm::{Hop, Listed};
use super::watch::{ENDS, Eyes, LEGAL, Watcher};
use crate::fixture::NOW;
use fleet_common::ids::{Epoch, HostId, OrderId, RolloutId};
use fleet_common::order::Action;
use fleet_common::version::PmmVersion;
use fleet_store::{AuditEntry, Core, JoinTicket, NewToken, PlanRow, RolloutCommit, RolloutRow};
use rollout::kernel::{Command, HostOrder, Input, Kernel, NODES_EVERY_MS, ViewRequest};
use std::collections::{BTreeMap, BTreeSet, VecDeque};

pub use crate::Rng;

/// The coordinator looks at what came in so often, milliseconds.
const QUANTUM: u64 = 4_000;
/// And at the time alone at least so often.
const IDLE: u64 = 15_000;
/// A life that did not end so long after the troubles were over never will.
const PATIENCE: u64 = 16 * 3_600_000;

/// A deliberate fault, in the kernel wherever a coordinator starts.
#[derive(Clone, Copy, Debug)]
pub enum Break {
    Kernel(fn(&mut Kernel)),
    /// In every agent: it does not care for epochs.
    DeafAgents,
    /// In every agent: told to keep its new release, it goes back to the old one and says nothing.
    FaithlessAgents,
    /// In the coordinator's sessions: a host that two machines claim to be is served all the same.
    ForkServed,
    /// In the store: a copy of it lacks the rollout's own row.
    TornCopy,
}

/// How a life went.
#[derive(Debug, Default)]
pub struct Life {
    pub violations: BTreeMap<&'static str, Vec<String>>,
    pub counts: BTreeMap<String, u64>,
    /// The last things that happened, when they were asked for.
    pub trace: Vec<String>,
    /// Milliseconds of virtual time.
    pub lasted: u64,
}

/// What arrives at an agent.
#[derive(Clone, Debug)]
pub enum Down {
    Welcome {
        session: u64,
        epoch: Epoch,
        acknowledged: u64,
    },
    Goodbye {
        quarantine: bool,
    },
    Ack(u64),
    Order(HostOrder),
}

/// Something that will happen.
#[derive(Clone, Debug)]
pub enum What {
    ToAgent {
        conn: usize,
        down: Down,
    },
    ToCoordinator {
        conn: Option<usize>,
        life: u32,
        message: Message,
    },
    Work {
        machine: usize,
        life: u32,
    },
    Dial {
        machine: usize,
        number: u32,
    },
    /// The agent believes in its connection no longer.
    AgentNotices {
        conn: usize,
    },
    /// Nor does the coordinator.
    CoordinatorNotices {
        conn: usize,
    },
    StartAgent {
        machine: usize,
        life: u32,
    },
    StartCoordinator,
    Hop {
        order: OrderId,
        life: u32,
    },
    Look {
        life: u32,
        request: ViewRequest,
    },
    /// At the nodes that are wished for then.
    LookAtNodes {
        life: u32,
    },
    Press,
    Help,
    Trouble,
    Heal {
        partition: u32,
    },
    KillClone {
        machine: usize,
    },
    Calm,
}

pub(super) struct Conn {
    pub machine: usize,
    /// Everything on it vanishes.
    pub void: bool,
    pub open_here: bool,
    pub open_there: bool,
    pub last_up: u64,
    pub last_down: u64,
}

/// How the coordinator dies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Doom {
    BeforeCommit,
    AfterCommit,
    WhileActing,
}

pub struct World {
    pub now: u64,
    pub rng: Rng,
    pub faults: FaultSet,
    pub(super) led: Led,
    pub(super) number_of_life: u64,
    pub calm: bool,
    queue: BTreeMap<(u64, u64), Box<What>>,
    number: u64,
    pub(super) coordinator: Option<Coordinator>,
    /// The memory of a coordinator that died after a commit: what the next one reads from the same store must be that.
    pub(super) dead: Option<Kernel>,
    pub coordinator_life: u32,
    /// The coordinator's wall clock minus true time.
    pub skew: i64,
    /// The most that it was behind so far.
    pub behind_ms: u64,
    pub(super) core: Core,
    pub(super) backup: Option<Core>,
    /// In a life that is led there: the host that was checked when the backup was taken.
    pub(super) checked: Option<HostId>,
    /// The store was replaced by an older one, and nobody adopted it yet.
    pub(super) doubted: bool,
    adopted_at: u64,
    inbox: Vec<Message>,
    started: Option<u64>,
    next_batch: u64,
    pub doom: Option<Doom>,
    pub(super) highest: Epoch,
    pub(super) looking: bool,
    pub(super) last_look: u64,
    /// Views that were taken.
    pub looks: u64,
    /// Until then the PMM Server can't be asked.
    pub unseen_until: u64,
    pub agents: Vec<Agent>,
    pub(super) conns: Vec<Conn>,
    pub machines: BTreeMap<HostId, usize>,
    pub listed: Vec<Listed>,
    /// Where the client of a node is in that list.
    pub(super) places: BTreeMap<String, usize>,
    pub recipe: Recipe,
    pub partitioned: BTreeMap<usize, u32>,
    pub partitions: u32,
    pub quarantined: BTreeSet<HostId>,
    /// The same as far as the store knows: a backup may be older than that.
    pub(super) closed: BTreeSet<HostId>,
    pub hops: BTreeMap<OrderId, Hop>,
    pub server: PmmVersion,
    pub pmm_up: bool,
    pub watcher: Watcher,
    pub restless: u64,
    pub wildness: u64,
    pub paused_since: Option<u64>,
    pub helped: u64,
    ended_at: Option<u64>,
    calm_at: u64,
    batches: u64,
    pub(super) breaks: Option<Break>,
    pub(super) trace: Option<VecDeque<String>>,
}

/// Lives a life.
pub fn live(config: &Config, breaks: Option<Break>, traced: bool) -> Life {
    match World::new(config, breaks, traced).and_then(World::run) {
        Ok(life) => life,
        // A store that refuses is a broken rule as well.
        Err(error) => Life {
            violations: [("the store takes every commit", vec![error])].into(),
            ..Life::default()
        },
    }
}

impl World {
    fn new(config: &Config, breaks: Option<Break>, traced: bool) -> Result<Self, String> {
        let mut rng = Rng(config.seed);
        let led = Led::of(config.seed, config.policies);
        let mut fleet_rng = Rng(rng.draw());
        let (plan, recipe) = draw::plan(&mut fleet_rng, config.hosts.max(1), config.policies, led);
        let id = RolloutId::new("r1");
        let epoch = Epoch { term: 1, counter: 0 };
        let mut kernel = Kernel::new(id.clone(), &plan, epoch, NOW).map_err(|error| error.to_string())?;
        if let Some(Break::Kernel(breaks)) = breaks {
            breaks(&mut kernel);
        }
        let (mut agents, listed, natures) = draw::machines(&mut rng, kernel.plan(), config.faults);
        led.machines(&mut agents, config.faults);
        let deaf = matches!(breaks, Some(Break::DeafAgents));
        let faithless = matches!(breaks, Some(Break::FaithlessAgents));
        agents
            .iter_mut()
            .for_each(|agent| (agent.deaf, agent.faithless) = (deaf, faithless));
        let machines = agents.iter().enumerate();
        let machines = machines.map(|(at, agent)| (agent.host.clone(), at)).collect();
        let nodes = listed.iter().enumerate();
        let places = nodes.map(|(at, listed)| (listed.node_id.clone(), at)).collect();
        let core = Core::in_memory().map_err(|error| error.to_string())?;
        let mut world = Self {
            now: NOW,
            faults: config.faults,
            led,
            number_of_life: config.seed,
            calm: false,
            queue: BTreeMap::new(),
            number: 0,
            coordinator: None,
            dead: None,
            coordinator_life: 0,
            skew: 0,
            behind_ms: 0,
            core,
            backup: None,
            checked: None,
            doubted: false,
            adopted_at: 0,
            inbox: Vec::new(),
            started: None,
            next_batch: NOW,
            doom: None,
            highest: epoch,
            looking: false,
            last_look: 0,
            looks: 0,
            unseen_until: 0,
            agents,
            conns: Vec::new(),
            machines,
            listed,
            places,
            recipe,
            partitioned: BTreeMap::new(),
            partitions: 0,
            quarantined: BTreeSet::new(),
            closed: BTreeSet::new(),
            hops: BTreeMap::new(),
            server: PmmVersion::new(2, 41, 2),
            pmm_up: true,
            watcher: Watcher::new(&kernel),
            restless: [30_000, 120_000, 600_000][rng.below(3) as usize],
            wildness: [4_000, 15_000, 60_000, 300_000][rng.below(4) as usize],
            paused_since: None,
            helped: 0,
            ended_at: None,
            calm_at: NOW + config.trouble_ms(&mut rng),
            batches: 0,
            breaks,
            trace: traced.then(VecDeque::new),
            rng,
        };
        world
            .enrol(&plan, kernel, &id)
            .map_err(|error| error.to_string())?;
        world.count("button Start accepted");
        for fault in natures {
            world.count(format!("fault {}", fault.word()));
        }
        world.set_out();
        Ok(world)
    }

    /// What was in the store before the rollout, and the rollout's first commit.
    fn enrol(
        &mut self,
        plan: &[u8],
        mut kernel: Kernel,
        id: &RolloutId,
    ) -> Result<(), fleet_store::StoreError> {
        let audit = || AuditEntry {
            at_ms: NOW,
            who: "uid 0".to_owned(),
            what: "start".to_owned(),
            detail: String::new(),
        };
        let core = &self.core;
        core.begin()?;
        core.take_over()?;
        let token = NewToken {
            token_id: "t".to_owned(),
            secret_sha256: "s".to_owned(),
            group_label: String::new(),
            uses: self.agents.len() as u64,
            created_at_ms: NOW,
            expires_at_ms: NOW + 1,
        };
        core.create_token(token, audit())?;
        for agent in &self.agents {
            let ticket = JoinTicket {
                token_id: "t".to_owned(),
                secret_sha256: "s".to_owned(),
                key_sha256: agent.host.to_string(),
                hostname: agent.host.to_string(),
                new_host: agent.host.clone(),
                now_ms: NOW,
            };
            let _ = core.enrol(ticket)?;
        }
        let plan_id = kernel.plan_id().clone();
        let row = PlanRow {
            plan: plan_id.clone(),
            parent: None,
            created_at_ms: NOW,
            document: plan.to_vec(),
            fleet_path: String::new(),
            fleet_text: Vec::new(),
        };
        core.save_plan(row, audit())?;
        let command = Command::Start {
            accept_unmatched: Vec::new(),
        };
        let by = "ann".to_owned();
        let output = kernel.handle(Input::Operator { by, command }, NOW);
        let (machines, agents) = (&self.machines, &self.agents);
        let mut eyes = Eyes {
            watcher: &mut self.watcher,
            machines,
            agents,
            now: NOW,
        };
        eyes.look(&kernel, &super::coordinator::Given::default(), &output, NOW);
        let commit = RolloutCommit {
            begin: Some(RolloutRow {
                rollout: id.clone(),
                plan: plan_id,
                started_at_ms: NOW,
                finished_at_ms: None,
            }),
            rollout: Some(id.clone()),
            rows: output.rows.into_iter().map(|row| (row.key, row.json)).collect(),
            ..RolloutCommit::default()
        };
        core.commit(&commit)?;
        core.end()?;
        let mut coordinator = Coordinator::begin(core, kernel)?;
        coordinator.serves_forks = matches!(self.breaks, Some(Break::ForkServed));
        self.coordinator = Some(coordinator);
        Ok(())
    }

    fn set_out(&mut self) {
        for machine in (0..self.agents.len())
            .filter(|at| self.listed[*at].joined)
            .collect::<Vec<_>>()
        {
            let away = self.strikes(Fault::AwayHost, 25);
            if away {
                let gone = self.rng.one_in(3);
                self.agents[machine].gone = gone;
                let later = 60_000 + self.rng.below(3_600_000);
                self.dial(machine, later);
            } else {
                let spread = self.rng.below(5_000);
                self.dial(machine, spread);
            }
            if self.strikes(Fault::BackupRuns, 30) {
                let until = self.now + self.rng.below(7_200_000);
                self.agents[machine].backup_until = until;
            }
        }
        self.at(self.now + 10_000, What::Press);
        self.at(self.now + 20_000, What::Help);
        self.at(self.now + 15_000, What::Trouble);
        self.at(self.calm_at, What::Calm);
    }

    pub fn at(&mut self, when: u64, what: What) {
        self.number += 1;
        self.queue.insert((when, self.number), Box::new(what));
    }

    pub fn wall(&self) -> u64 {
        self.now.saturating_add_signed(self.skew)
    }

    pub fn count(&mut self, what: impl Into<String>) {
        self.watcher.count(what);
    }

    /// Whether a fault strikes now: one time in so many, while it is allowed and all is not calm.
    pub fn strikes(&mut self, fault: Fault, one_in: u64) -> bool {
        let strikes = !self.calm && self.faults.has(fault) && self.rng.one_in(one_in);
        if strikes {
            self.count(format!("fault {}", fault.word()));
        }
        strikes
    }

    pub fn note(&mut self, text: impl FnOnce() -> String) {
        let now = self.now - NOW;
        if let Some(trace) = &mut self.trace {
            if trace.len() >= 400 {
                trace.pop_front();
            }
            trace.push_back(format!("{:>9}.{:03} {}", now / 1_000, now % 1_000, text()));
        }
    }

    /// Something for the coordinator that comes over no connection of an agent.
    pub(super) fn tell_coordinator(&mut self, message: Message, after: u64) {
        let life = self.coordinator_life;
        let what = What::ToCoordinator {
            conn: None,
            life,
            message,
        };
        self.at(self.now + after, what);
    }

    fn run(mut self) -> Result<Life, String> {
        let limit = self.calm_at + PATIENCE;
        loop {
            let next = self.queue.first_key_value().map_or(u64::MAX, |((at, _), _)| *at);
            if self.coordinator.is_some() && self.next_batch < next {
                self.now = self.now.max(self.next_batch);
                self.batch()?;
            } else if let Some(((at, _), what)) = self.queue.pop_first() {
                self.now = self.now.max(at);
                self.happen(*what)?;
            }
            if !self.watcher.violations.is_empty() || self.is_over() {
                break;
            }
            if self.now > limit {
                let waits = self.coordinator.as_ref().map(|coordinator| {
                    let view = rollout::progress::view(&coordinator.kernel, self.wall());
                    format!(
                        "{:?}: {:?}, {:?}",
                        coordinator.kernel.phase(),
                        view.waits,
                        open_rows(&coordinator.kernel)
                    )
                });
                self.watcher.broken(ENDS, waits.unwrap_or_default());
                break;
            }
        }
        self.finish()
    }

    fn is_over(&mut self) -> bool {
        let Some(coordinator) = &self.coordinator else {
            return false;
        };
        if !coordinator.kernel.is_final() || self.started.is_some() {
            self.ended_at = None;
            return false;
        }
        let since = *self.ended_at.get_or_insert(self.now);
        // Lost hosts may come back, and late answers arrive.
        if self.calm {
            since + 180_000 < self.now
        } else {
            if since + 300_000 < self.now {
                self.begin_calm();
            }
            false
        }
    }

    fn finish(mut self) -> Result<Life, String> {
        if self.watcher.violations.is_empty()
            && let Some(coordinator) = &self.coordinator
        {
            let wall = self.now.saturating_add_signed(self.skew);
            let read = self.read_back(&coordinator.kernel)?;
            self.watcher.compare(&coordinator.kernel, &read);
            self.watcher.look_at_all_duties(&coordinator.kernel, wall);
            self.watcher.look_at_report(&coordinator.kernel, wall);
            let (machines, agents) = (&self.machines, &self.agents);
            let truth = |host: &HostId| machines.get(host).and_then(|at| agents.get(*at));
            self.watcher.ended(&coordinator.kernel, &truth);
            let phase = format!("ended {:?}", coordinator.kernel.phase());
            if coordinator.kernel.rollout().illegal > 0 && !self.watcher.liars {
                let text = format!("{} times", coordinator.kernel.rollout().illegal);
                self.watcher.broken(LEGAL, text);
            }
            self.watcher.count(phase);
        }
        Ok(Life {
            violations: self.watcher.violations,
            counts: self.watcher.counts,
            trace: self.trace.unwrap_or_default().into(),
            lasted: self.now - NOW,
        })
    }

    /// What came in is worked off: decide, persist, act.
    fn batch(&mut self) -> Result<(), String> {
        let Some(mut coordinator) = self.coordinator.take() else {
            return Ok(());
        };
        self.batches += 1;
        let text = |error: fleet_store::StoreError| error.to_string();
        let wall = self.wall();
        let messages = std::mem::take(&mut self.inbox);
        let started = self.started.take();
        let doom = self.doom.take();
        self.core.begin().map_err(text)?;
        let eyes = (doom != Some(Doom::BeforeCommit)).then_some(Eyes {
            watcher: &mut self.watcher,
            machines: &self.machines,
            agents: &self.agents,
            now: self.now,
        });
        let taken = coordinator.take(&self.core, eyes, messages, started, wall);
        let mut batch = taken.map_err(text)?;
        if doom == Some(Doom::BeforeCommit) {
            self.core.undo().map_err(text)?;
            self.crashed();
            return Ok(());
        }
        self.core.end().map_err(text)?;
        // Each start compares, too, and the end.
        if self.batches.is_multiple_of(997) {
            let read = self.read_back(&coordinator.kernel)?;
            self.watcher.compare(&coordinator.kernel, &read);
        }
        self.watcher.epoch(self.highest, coordinator.kernel.epoch());
        self.highest = coordinator.kernel.epoch();
        coordinator.act(&mut batch);
        for (name, count) in [
            ("intake duplicate", batch.duplicates),
            ("intake gap", batch.gaps),
            ("intake rejected", batch.rejected),
            ("session stale", batch.stale),
            ("session quarantined", batch.quarantined.len() as u64),
        ] {
            if count > 0 {
                *self.watcher.counts.entry(name.to_owned()).or_default() += count;
            }
        }
        if batch.restored && self.adopted_at < self.now {
            self.adopted_at = self.now + 60_000;
            self.tell_coordinator(Message::Adopt, 60_000);
        }
        for host in std::mem::take(&mut batch.lifted) {
            self.quarantined.remove(&host);
            self.closed.remove(&host);
        }
        self.closed.extend(batch.quarantined.iter().cloned());
        self.quarantined.extend(std::mem::take(&mut batch.quarantined));
        for (by, word, accepted) in std::mem::take(&mut coordinator.answers) {
            let answer = if accepted { "accepted" } else { "refused" };
            self.count(format!("button {word} {answer}"));
            self.note(|| format!("{by} {word}: {answer}"));
        }
        let out = std::mem::take(&mut batch.out);
        let leaves = match doom {
            None => out.len(),
            Some(Doom::WhileActing) => self.rng.below(out.len() as u64 + 1) as usize,
            Some(_) => 0,
        };
        // What is past already waits for something else.
        let next = self
            .watcher
            .next_deadline()
            .filter(|at| *at > wall)
            .map_or(IDLE, |at| at - wall);
        let idle = next.clamp(QUANTUM, IDLE);
        let looks = coordinator.want_nodes.is_some();
        self.coordinator = Some(coordinator);
        for out in out.into_iter().take(leaves) {
            self.act(out);
        }
        if doom.is_some() {
            self.crashed();
            return Ok(());
        }
        self.next_batch = self.now + idle;
        if looks && !self.looking {
            self.look_at_nodes_at((self.last_look + NODES_EVERY_MS).max(self.now));
        }
        Ok(())
    }

    fn act(&mut self, out: Outgoing) {
        match out {
            Outgoing::Welcome {
                conn,
                session,
                epoch,
                acknowledged,
            } => self.send_down(
                conn,
                Down::Welcome {
                    session,
                    epoch,
                    acknowledged,
                },
            ),
            Outgoing::Goodbye { conn, quarantine } => {
                self.send_down(conn, Down::Goodbye { quarantine });
                self.conns[conn].open_here = false;
            }
            Outgoing::Prove(hello) => {
                let message = Message::StillThere(hello.clone());
                let life = self.coordinator_life;
                let conn = Some(hello.conn);
                self.at(self.now + 3_000, What::ToCoordinator { conn, life, message });
            }
            Outgoing::Ack { conn, sequence } => {
                if !self.strikes(Fault::LostAck, 60) {
                    self.send_down(conn, Down::Ack(sequence));
                }
            }
            Outgoing::Order { conn, order } => {
                if self.closed.contains(&order.host) {
                    self.watcher.forked(&order.host, &order.order);
                }
                self.note(|| format!("order {} under {}", order.order, order.epoch));
                self.send_down(conn, Down::Order(order));
            }
            Outgoing::Server(order) => self.server_order(order),
            Outgoing::CancelServer(order) => self.cancel_hop(&order),
            Outgoing::Look(request) => {
                self.watcher.asks_for_the_fleet(self.now, self.wall());
                let life = self.coordinator_life;
                self.at(self.now, What::Look { life, request });
            }
        }
    }

    /// The coordinator is dead. What was on its way to it is lost; the agents notice, soon or late.
    fn crashed(&mut self) {
        self.note(|| "the coordinator dies".to_owned());
        self.dead = self.coordinator.take().map(|coordinator| coordinator.kernel);
        self.coordinator_life += 1;
        self.inbox.clear();
        self.looking = false;
        for conn in 0..self.conns.len() {
            if std::mem::take(&mut self.conns[conn].open_here) && self.conns[conn].open_there {
                let after = if self.rng.one_in(8) {
                    self.rng.below(50_000)
                } else {
                    self.rng.below(1_500)
                };
                self.at(self.now + after, What::AgentNotices { conn });
            }
        }
        let down = if self.rng.one_in(5) {
            self.rng.below(600_000)
        } else {
            500 + self.rng.below(20_000)
        };
        self.at(self.now + down, What::StartCoordinator);
    }

    /// Dies without having anything in its hands.
    pub fn kill_idle(&mut self) {
        if self.coordinator.is_some() {
            self.crashed();
        }
    }

    fn start_coordinator(&mut self) -> Result<(), String> {
        let text = |error: fleet_store::StoreError| error.to_string();
        self.core.begin().map_err(text)?;
        let restored = Coordinator::restore(&self.core)?;
        self.core.end().map_err(text)?;
        if let Some((mut coordinator, term)) = restored {
            self.note(|| format!("a coordinator takes over with term {term}"));
            if let Some(dead) = self.dead.take() {
                self.watcher.compare(&dead, &coordinator.kernel);
            }
            match self.breaks {
                Some(Break::Kernel(breaks)) => breaks(&mut coordinator.kernel),
                Some(Break::ForkServed) => coordinator.serves_forks = true,
                _ => {}
            }
            if self.doubted {
                self.doubted = false;
                self.watcher.restored(&coordinator.kernel);
            }
            self.coordinator = Some(coordinator);
            self.started = Some(term);
            self.next_batch = self.now;
        }
        Ok(())
    }

    fn happen(&mut self, what: What) -> Result<(), String> {
        match what {
            What::ToAgent { conn, down } => self.arrive_down(conn, down),
            What::ToCoordinator { conn, life, message } => self.arrive_up(conn, life, message),
            What::Work { machine, life } => self.work(machine, life),
            What::Dial { machine, number } => self.try_dial(machine, number),
            What::AgentNotices { conn } => self.agent_notices(conn),
            What::CoordinatorNotices { conn } => {
                if std::mem::take(&mut self.conns[conn].open_here) {
                    self.inbox(Message::Gone { conn });
                }
            }
            What::StartAgent { machine, life } => self.start_agent(machine, life),
            What::StartCoordinator => self.start_coordinator()?,
            What::Hop { order, life } if life == self.coordinator_life => self.drive_hop(order),
            What::Look { life, request } if life == self.coordinator_life => {
                self.count("look at the fleet");
                self.look(&request);
            }
            What::LookAtNodes { life } if life == self.coordinator_life => self.look_at_nodes(),
            What::Hop { .. } | What::Look { .. } | What::LookAtNodes { .. } => {}
            What::Press => self.press(),
            What::Help => self.help(),
            What::Trouble => self.trouble(),
            What::Heal { partition } => self.partitioned.retain(|_, of| *of != partition),
            What::KillClone { machine } => self.kill_clone(machine),
            What::Calm => self.begin_calm(),
        }
        Ok(())
    }

    pub(super) fn inbox(&mut self, message: Message) {
        if self.coordinator.is_some() {
            if matches!(message, Message::Child { .. }) {
                self.dies_while_adopting();
            }
            self.inbox.push(message);
            let grid = self.now.div_ceil(QUANTUM) * QUANTUM;
            self.next_batch = self.next_batch.min(grid.max(self.now));
        }
    }

    fn work(&mut self, machine: usize, life: u32) {
        let now = self.now;
        let agent = &mut self.agents[machine];
        if !agent.up || agent.life != life {
            return;
        }
        let deeds = agent.work(now, &mut self.rng);
        for deed in deeds {
            self.done(machine, deed);
        }
    }

    pub(super) fn done(&mut self, machine: usize, deed: Deed) {
        match deed {
            Deed::Wake(after) => {
                let life = self.agents[machine].life;
                self.at(self.now + after, What::Work { machine, life });
            }
            Deed::Tell => self.flush(machine),
            Deed::Begins(order) => {
                if order.action == Action::Switch {
                    self.count("switch begun");
                }
                self.watcher.begins(&self.agents[machine], &order, self.now);
            }
        }
    }
}
