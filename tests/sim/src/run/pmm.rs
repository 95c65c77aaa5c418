//! The PMM Server: the driver of its hops with a journal, and what it knows of the fleet.

use super::agent::{Agent, Nature};
use super::coordinator::Message;
use super::faults::Fault;
use super::led::Course;
use super::world::{What, World};
use crate::hosts::{KEPT_MS, sample_at};
use fleet_common::codes::{self, Code};
use fleet_common::ids::OrderId;
use fleet_common::server::{HopOutcome, HopResult, ServerEvent, ServerOrder};
use fleet_common::verification::{FleetSnapshot, PmmClient, PmmService};
use fleet_common::version::PmmVersion;
use rollout::kernel::{NODES_EVERY_MS, ViewRequest};
use std::collections::{BTreeMap, BTreeSet};

const STEPS: [&str; 4] = ["inspect", "ownership", "migrate", "publish"];

/// The driver's journal of a hop.
#[derive(Clone, Debug)]
pub struct Hop {
    pub(super) order: ServerOrder,
    pub(super) step: usize,
    pub(super) outcome: HopOutcome,
    /// A failed hop fails after its publication.
    late: bool,
    pub(super) published: bool,
    /// Looks for clients that find nobody.
    nobody: u32,
    /// At this step it says nothing more until it is asked again.
    silent: Option<usize>,
    /// It fails before its first step.
    early: bool,
    pub(super) waits: bool,
    pub(super) done: Option<HopResult>,
    /// What it is led to first.
    pub(super) course: Option<Course>,
}

impl Hop {
    pub(super) const STEPS: usize = STEPS.len();
}

/// What the server knows of one client, prepared once.
#[derive(Clone, Debug)]
pub struct Listed {
    /// It is `h<number>`.
    pub number: usize,
    pub agent_id: String,
    pub node_id: String,
    pub node_name: String,
    pub service_id: String,
    pub service_name: String,
    pub direct: bool,
    /// Its client is set up; until then nobody has heard of it.
    pub joined: bool,
    /// What its label says.
    pub group: String,
}

impl World {
    pub fn server_order(&mut self, order: ServerOrder) {
        let id = order.order.clone();
        let life = self.coordinator_life;
        if let Some(hop) = self.hops.get_mut(&id) {
            (hop.order, hop.silent, hop.waits) = (order, None, false);
            let at = self.now + 1_000;
            if let Some(result) = hop.done.clone() {
                return self.tell_coordinator(
                    Message::Server {
                        order: id,
                        event: ServerEvent::Finished(result),
                    },
                    500,
                );
            }
            let (step, published) = (STEPS[hop.step.min(3)].to_owned(), hop.published);
            self.tell_coordinator(
                Message::Server {
                    order: id.clone(),
                    event: ServerEvent::Resumed { step },
                },
                300,
            );
            if published {
                self.tell_coordinator(
                    Message::Server {
                        order: id.clone(),
                        event: ServerEvent::Published,
                    },
                    301,
                );
            }
            return self.at(at, What::Hop { order: id, life });
        }
        let drawn = self.rng.below(3);
        let mut outcome = HopOutcome::Settled;
        for (fault, bad) in [
            (Fault::HopRestored, HopOutcome::Restored),
            (Fault::HopRefused, HopOutcome::Refused),
            (Fault::HopStuck, HopOutcome::NeedsOperator),
        ] {
            if self.strikes(fault, 8) {
                outcome = bad;
            }
        }
        let nobody = if order.last_of_leg && self.strikes(Fault::NobodyBack, 8) {
            1
        } else {
            0
        };
        let silent = self.strikes(Fault::HopSilent, 10);
        let silent = silent.then(|| [0, 2, 5][self.rng.below(3) as usize]);
        let early = self.rng.one_in(3);
        let course = self.course(order.last_of_leg);
        let hop = Hop {
            order,
            step: 0,
            outcome,
            late: drawn == 0,
            published: false,
            nobody,
            silent,
            early,
            waits: false,
            done: None,
            course,
        };
        self.hops.insert(id.clone(), hop);
        self.at(self.now + 1_000, What::Hop { order: id, life });
    }

    pub fn cancel_hop(&mut self, order: &OrderId) {
        if let Some(hop) = self.hops.get_mut(order).filter(|hop| hop.done.is_none()) {
            hop.outcome = HopOutcome::Restored;
        }
    }

    /// The driver does its next step.
    pub fn drive_hop(&mut self, id: OrderId) {
        let pause = 2_000 + self.rng.below(20_000);
        let Some(hop) = self
            .hops
            .get_mut(&id)
            .filter(|hop| hop.done.is_none() && !hop.waits)
        else {
            return;
        };
        if let Some(course) = hop.course {
            return self.lead_hop(&id, course);
        }
        let place = hop.step + usize::from(hop.published);
        if hop.silent == Some(place) {
            return;
        }
        let refused = match hop.outcome {
            HopOutcome::Refused => hop.early || hop.step >= 1,
            HopOutcome::NeedsOperator => hop.early && hop.step == usize::from(hop.late),
            HopOutcome::Settled | HopOutcome::Restored => false,
        };
        let last = hop
            .step
            .checked_sub(1)
            .and_then(|last| STEPS.get(last))
            .filter(|_| !hop.published);
        let event = if let Some(step) = STEPS.get(hop.step).filter(|_| !refused) {
            hop.step += 1;
            if hop.step > 1 {
                self.pmm_up = false;
            }
            ServerEvent::StepStarted {
                step: (*step).to_owned(),
                index: hop.step as u32,
                of: 4,
                waits_for: String::new(),
                deadline_for_ms: 60_000,
            }
        } else if !hop.published && !refused && (hop.outcome == HopOutcome::Settled || hop.late) {
            hop.published = true;
            (self.pmm_up, self.server) = (true, hop.order.to);
            ServerEvent::Published
        } else {
            let settled = hop.outcome == HopOutcome::Settled;
            let result = if settled && hop.nobody > 0 && !hop.order.accept_unsettled {
                hop.nobody -= 1;
                hop.waits = true;
                nobody_is_back(&hop.order)
            } else {
                let mut result = ended(&hop.order, hop.outcome);
                // An answer that names no step is not the journal's: the same order continues.
                if refused && hop.outcome == HopOutcome::NeedsOperator {
                    result.step.clear();
                    hop.outcome = HopOutcome::Settled;
                }
                self.server = result.running.unwrap_or(hop.order.from);
                if result.step.is_empty() && result.outcome == HopOutcome::NeedsOperator {
                    hop.waits = true;
                } else {
                    hop.done = Some(result.clone());
                }
                result
            };
            self.pmm_up = true;
            ServerEvent::Finished(result)
        };
        let life = self.coordinator_life;
        self.at(
            self.now + pause,
            What::Hop {
                order: id.clone(),
                life,
            },
        );
        if let Some(step) = last {
            let event = ServerEvent::StepFinished {
                step: (*step).to_owned(),
                took_ms: 1_000,
            };
            self.tell_coordinator(
                Message::Server {
                    order: id.clone(),
                    event,
                },
                9,
            );
        }
        self.tell_coordinator(Message::Server { order: id, event }, 10);
    }

    /// The coordinator asks PMM. False when there will be no answer.
    pub(super) fn look(&mut self, request: &ViewRequest) -> bool {
        if !self.pmm_up || self.now < self.unseen_until || self.strikes(Fault::ViewLost, 5) {
            return false;
        }
        self.looks += 1;
        let view = self.snapshot(self.wall(), request);
        for at in self.looked_at(request) {
            let (listed, agent) = (&self.listed[at], &mut self.agents[at]);
            let version = agent.version;
            agent
                .shown
                .in_view(&view, &listed.agent_id, &listed.node_id, version, self.behind_ms);
        }
        let late = self.strikes(Fault::ViewLate, 10);
        let after = if late {
            self.rng.below(90_000)
        } else {
            200 + self.rng.below(1_000)
        };
        self.tell_coordinator(Message::View(view), after);
        true
    }

    pub(super) fn look_at_nodes(&mut self) {
        self.looking = false;
        let wish = self
            .coordinator
            .as_ref()
            .and_then(|found| found.want_nodes.clone());
        let Some(request) = wish else { return };
        self.last_look = self.now;
        self.count("look at nodes");
        if !self.look(&request) {
            self.look_at_nodes_at(self.now + NODES_EVERY_MS);
        }
    }

    pub(super) fn look_at_nodes_at(&mut self, when: u64) {
        self.looking = true;
        let life = self.coordinator_life;
        self.at(when, What::LookAtNodes { life });
    }

    /// Whom it asks for, in the order of the ids of their nodes.
    fn looked_at(&self, request: &ViewRequest) -> Vec<usize> {
        match &request.nodes {
            None => self.places.values().copied().collect(),
            Some(nodes) => nodes
                .iter()
                .filter_map(|node| self.places.get(node))
                .copied()
                .collect(),
        }
    }

    /// PMM's inventory as it is, as far as it is asked for; `wall_ms` is the coordinator's clock, samples carry the server's.
    pub fn snapshot(&self, wall_ms: u64, request: &ViewRequest) -> FleetSnapshot {
        let mut view = FleetSnapshot {
            scope: request.nodes.clone(),
            taken_at_ms: wall_ms,
            server_version: Some(self.server),
            qan_from_ms: request.qan_from_ms,
            ..FleetSnapshot::default()
        };
        let (mut clients, mut services) = (Vec::new(), Vec::new());
        let (mut nodes, mut samples, mut active) = (Vec::new(), Vec::new(), Vec::new());
        let places = self.looked_at(request).into_iter();
        let all = places.map(|at| (&self.listed[at], &self.agents[at]));
        for (listed, agent) in all.filter(|(listed, _)| listed.joined) {
            let flickers =
                agent.nature == Nature::Flaky && agent.changed && !self.calm && self.looks % 2 == 1;
            let reaches = reaches(listed, agent, self.server) && !flickers;
            clients.push((
                listed.agent_id.clone(),
                PmmClient {
                    node_id: listed.node_id.clone(),
                    node_name: listed.node_name.clone(),
                    connected: agent.version.is_some() && reaches,
                    version: agent.version.map(|version| version.to_string()),
                },
            ));
            services.push((
                listed.service_id.clone(),
                PmmService {
                    name: listed.service_name.clone(),
                    service_type: "mysql".to_owned(),
                    node_id: listed.node_id.clone(),
                    environment: String::new(),
                    cluster: String::new(),
                    replication_set: String::new(),
                    address: String::new(),
                    custom_labels: BTreeMap::new(),
                },
            ));
            let delivers = agent.version.is_some() && agent.samples && reaches;
            let newest = if delivers {
                sample_at(self.now)
            } else {
                agent.sampled_ms
            };
            // What does not come any more is shown for a while yet.
            if !flickers && self.now < newest + KEPT_MS {
                nodes.push((listed.node_id.clone(), newest));
                samples.push((listed.service_id.clone(), newest));
            }
            if delivers && request.qan_from_ms > 0 {
                active.push(listed.service_id.clone());
            }
        }
        view.clients = clients.into_iter().collect();
        view.services = services.into_iter().collect();
        view.node_samples_ms = nodes.into_iter().collect();
        view.service_samples_ms = samples.into_iter().collect();
        view.qan_active = active.into_iter().collect::<BTreeSet<_>>();
        view
    }
}

fn reaches(listed: &Listed, agent: &Agent, server: PmmVersion) -> bool {
    !listed.direct || agent.follows == (server.major >= 3)
}

/// What the driver answers when no client came back: its journal stays open.
pub(super) fn nobody_is_back(order: &ServerOrder) -> HopResult {
    HopResult {
        outcome: HopOutcome::NeedsOperator,
        code: Code::new(codes::DEADLINE),
        step: "settle".to_owned(),
        message: "3 of 3 services have no fresh samples yet".to_owned(),
        open: true,
        ..ended(order, HopOutcome::Settled)
    }
}

pub(super) fn ended(order: &ServerOrder, outcome: HopOutcome) -> HopResult {
    let settled = outcome == HopOutcome::Settled;
    HopResult {
        outcome,
        from: order.from,
        running: Some(if settled { order.to } else { order.from }),
        code: Code::new(if settled { "" } else { "fresh_instance" }),
        step: if settled { "" } else { "migrate" }.to_owned(),
        message: "as it went".to_owned(),
        hints: Vec::new(),
        restore_point: Some(format!("restore-{}", order.hop)),
        downtime_ms: 1_500,
        open: false,
        leftovers: Vec::new(),
    }
}
