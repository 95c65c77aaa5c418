//! Hosts: an agent with a journal and an outbox, and the truth about its client.

use super::Rng;
use super::proof::Shown;
use super::rules::Watcher;
use fleet_common::codes::{self, Code};
use fleet_common::ids::{Epoch, HostId, OrderId};
use fleet_common::order::{Action, HostEvent, OrderResult, Outcome, SwitchDetail};
use fleet_common::verification::{FleetSnapshot, PmmClient, PmmService};
use fleet_common::version::PmmVersion;
use rollout::kernel::HostOrder;
use rollout::plan::PlanHost;
use std::collections::BTreeMap;

/// A live client delivers a sample each so often, which is less than looks come.
pub const RESOLUTION_MS: u64 = 5_000;
/// So long PMM shows the last one when no further comes.
pub const KEPT_MS: u64 = 300_000;

/// The newest sample of a client that delivers.
pub fn sample_at(now: u64) -> u64 {
    now - now % RESOLUTION_MS
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Behaviour {
    Good,
    Slow,
    FailsBefore,
    RollsBack,
    Inconsistent,
    /// Says done and is not.
    Lies,
    /// Never answers a switch.
    Silent,
    /// Fails the preflight.
    Unready,
    /// Upgraded, but no samples come.
    NoSamples,
    /// Its client stays at the old address.
    StaysBehind,
    /// Upgraded, but its samples come and go.
    Flaps,
    /// PMM runs a database backup there until this moment.
    Backup(u64),
    /// Connected, and never answers anything.
    Mute,
}

impl Behaviour {
    pub fn choose(rng: &mut Rng, bad_percent: u64) -> Self {
        if rng.below(100) >= bad_percent {
            return Self::Good;
        }
        let all = [
            Self::Slow,
            Self::FailsBefore,
            Self::RollsBack,
            Self::Inconsistent,
            Self::Lies,
            Self::Silent,
            Self::Unready,
            Self::NoSamples,
            Self::StaysBehind,
            Self::Backup(super::fixture::NOW + 600_000),
        ];
        all[rng.below(all.len() as u64) as usize]
    }
}

#[derive(Clone, Debug)]
struct Active {
    order: HostOrder,
    received: u64,
    begin_at: u64,
    end_at: u64,
    begun: bool,
}

#[derive(Clone, Debug)]
pub struct SimHost {
    pub id: HostId,
    pub behaviour: Behaviour,
    pub connected: bool,
    /// Never comes back by itself.
    pub gone: bool,
    pub epoch: Epoch,
    pub inbox: Vec<(u64, HostOrder)>,
    pub outbox: Vec<(OrderId, Epoch, HostEvent)>,
    /// What runs; `None` when no client works.
    pub version: Option<PmmVersion>,
    pub old: PmmVersion,
    /// Whether a switch has changed something that is not back or final.
    pub changed: bool,
    pub samples: bool,
    /// The last sample that it delivered; PMM shows that one for a while longer.
    sampled_ms: u64,
    pub switches: u32,
    /// Whether its client addresses the server's container, and whether it uses PMM 3's port there.
    pub direct: bool,
    pub follows: bool,
    pub repoints: u32,
    /// A broken agent: it takes orders of any epoch.
    pub deaf_to_epochs: bool,
    pub shown: Shown,
    agent_id: String,
    node_id: String,
    name: String,
    journal: BTreeMap<OrderId, OrderResult>,
    active: Option<Active>,
}

impl SimHost {
    pub fn new(planned: &PlanHost, behaviour: Behaviour) -> Self {
        let old = planned.from.unwrap();
        Self {
            id: planned.host.clone(),
            behaviour,
            connected: false,
            gone: false,
            epoch: Epoch::default(),
            inbox: Vec::new(),
            outbox: Vec::new(),
            version: Some(old),
            old,
            changed: false,
            samples: true,
            sampled_ms: 0,
            switches: 0,
            direct: planned.repoint.is_some(),
            follows: false,
            repoints: 0,
            deaf_to_epochs: false,
            shown: Shown::default(),
            agent_id: planned.agent_id.clone(),
            node_id: planned.node_id.clone(),
            name: planned.name.clone(),
            journal: BTreeMap::new(),
            active: None,
        }
    }

    pub fn running(&self) -> Option<OrderId> {
        self.active.as_ref().map(|active| active.order.order.clone())
    }

    /// Whether its client reaches a server of this release.
    pub fn reaches(&self, server: PmmVersion) -> bool {
        !self.direct || self.follows == (server.major >= 3)
    }

    pub fn add_to(&self, view: &mut FleetSnapshot, now: u64, server: PmmVersion) {
        let service = self.agent_id.replace("agent", "service");
        let client = PmmClient {
            node_id: self.node_id.clone(),
            node_name: self.name.clone(),
            connected: self.version.is_some() && self.reaches(server),
            version: self.version.map(|version| version.to_string()),
        };
        view.clients.insert(self.agent_id.clone(), client);
        let described = PmmService {
            name: format!("mysql-{}", self.node_id),
            service_type: "mysql".to_owned(),
            node_id: self.node_id.clone(),
            environment: String::new(),
            cluster: String::new(),
            replication_set: String::new(),
            address: String::new(),
            custom_labels: BTreeMap::new(),
        };
        view.services.insert(service.clone(), described);
        let gone = self.behaviour == Behaviour::Flaps && self.changed && now.is_multiple_of(2_000);
        let delivers = self.version.is_some() && self.samples && self.reaches(server) && !gone;
        let newest = if delivers { sample_at(now) } else { self.sampled_ms };
        // What does not come any more is shown for a while yet.
        if !gone && now < newest + KEPT_MS {
            view.node_samples_ms.insert(self.node_id.clone(), newest);
            view.service_samples_ms.insert(service.clone(), newest);
        }
        if delivers {
            view.qan_active.insert(service);
        }
    }

    /// The coordinator sees this of PMM.
    pub fn was_shown(&mut self, view: &FleetSnapshot) {
        self.shown
            .in_view(view, &self.agent_id, &self.node_id, self.version, 0);
    }

    pub fn step(&mut self, now: u64, rng: &mut Rng, watcher: &mut Watcher, server: PmmVersion) {
        let (due, later): (Vec<_>, Vec<_>) = std::mem::take(&mut self.inbox)
            .into_iter()
            .partition(|(at, _)| *at <= now);
        self.inbox = later;
        for (_, order) in due {
            self.take(order, now, rng);
        }
        self.work(now, watcher, server);
    }

    fn say(&mut self, order: &HostOrder, event: HostEvent) {
        self.outbox.push((order.order.clone(), order.epoch, event));
    }

    fn answer(&mut self, order: &HostOrder, outcome: Outcome, code: &str, detail: serde_json::Value) {
        let result = OrderResult {
            outcome,
            step: if outcome == Outcome::Done {
                String::new()
            } else {
                "install".to_owned()
            },
            code: Code::new(code),
            message: code.to_owned(),
            took_ms: 1,
            detail,
        };
        self.journal.insert(order.order.clone(), result.clone());
        self.say(order, HostEvent::Finished(result));
        self.active = None;
    }

    fn take(&mut self, order: HostOrder, now: u64, rng: &mut Rng) {
        if self.behaviour == Behaviour::Mute {
            return;
        }
        if let Some(result) = self.journal.get(&order.order).cloned() {
            return self.say(&order, HostEvent::Finished(result));
        }
        if self.running().as_ref() == Some(&order.order) {
            let active = self.active.as_mut().unwrap();
            active.order.epoch = active.order.epoch.max(order.epoch);
            self.epoch = self.epoch.max(order.epoch);
            return;
        }
        if order.epoch < self.epoch && !self.deaf_to_epochs {
            return self.answer(
                &order,
                Outcome::Refused,
                codes::STALE_EPOCH,
                serde_json::Value::Null,
            );
        }
        self.epoch = self.epoch.max(order.epoch);
        if order.action == Action::Probe {
            if self
                .active
                .as_ref()
                .is_some_and(|active| !active.begun && active.order.action == Action::Switch)
                && !self.deaf_to_epochs
            {
                let held = self.active.take().unwrap();
                self.answer(
                    &held.order,
                    Outcome::Refused,
                    codes::STALE_EPOCH,
                    serde_json::Value::Null,
                );
            }
            return;
        }
        if order.action == Action::Switch && order.start_within_ms == 0 {
            return self.answer(
                &order,
                Outcome::Expired,
                codes::PERMIT_EXPIRED,
                serde_json::Value::Null,
            );
        }
        if order.action.changes_host() && matches!(self.behaviour, Behaviour::Backup(until) if now < until) {
            return self.answer(
                &order,
                Outcome::Refused,
                codes::BACKUP_RUNNING,
                serde_json::Value::Null,
            );
        }
        if self
            .active
            .as_ref()
            .is_some_and(|active| active.begun && active.order.action.changes_host())
        {
            return;
        }
        self.say(&order, HostEvent::Accepted);
        let slow = if self.behaviour == Behaviour::Slow {
            40_000
        } else {
            4_000
        };
        let begin_at = now + rng.below(slow);
        let end_at = begin_at + 1_000 + rng.below(slow);
        self.active = Some(Active {
            order,
            received: now,
            begin_at,
            end_at,
            begun: false,
        });
    }

    fn work(&mut self, now: u64, watcher: &mut Watcher, server: PmmVersion) {
        let Some(active) = self.active.clone() else { return };
        let order = active.order.clone();
        if !active.begun && active.begin_at <= now {
            if order.epoch < self.epoch && order.action == Action::Switch && !self.deaf_to_epochs {
                return self.answer(
                    &order,
                    Outcome::Refused,
                    codes::STALE_EPOCH,
                    serde_json::Value::Null,
                );
            }
            let late = order.action == Action::Switch && now > active.received + order.start_within_ms;
            if late {
                return self.answer(
                    &order,
                    Outcome::Expired,
                    codes::PERMIT_EXPIRED,
                    serde_json::Value::Null,
                );
            }
            self.active.as_mut().unwrap().begun = true;
            if order.action == Action::Switch {
                self.switches += 1;
                watcher.switch_began(&self.id, &order, self.epoch, now);
                if self.behaviour != Behaviour::FailsBefore {
                    self.changed = true;
                }
            }
            if order.action == Action::Repoint {
                watcher.repoint_began(&self.id, &order, server);
            }
            let step = HostEvent::StepStarted {
                step: "install".to_owned(),
                index: 3,
                of: 7,
                deadline_for_ms: 60_000,
            };
            return self.say(&order, step);
        }
        if active.begun && active.end_at <= now {
            self.end(&order, now);
        }
    }

    fn end(&mut self, order: &HostOrder, now: u64) {
        let entry = serde_json::from_slice::<fleet_common::plan_entry::PlanEntry>(&order.entry).unwrap();
        let to: PmmVersion = entry.to;
        let null = serde_json::Value::Null;
        let detail = |to: PmmVersion| {
            serde_json::to_value(SwitchDetail {
                to: to.to_string(),
                ..SwitchDetail::default()
            })
            .unwrap()
        };
        if matches!(order.action, Action::Switch | Action::Rollback) {
            self.shown = Shown::nothing_since(now);
            // The client that is replaced delivered to its end.
            if self.version.is_some() && self.samples {
                self.sampled_ms = sample_at(now);
            }
        }
        match (order.action, self.behaviour) {
            (Action::Preflight, behaviour) => {
                let verdict = if behaviour == Behaviour::Unready {
                    fleet_common::survey::Verdict::Fail
                } else {
                    fleet_common::survey::Verdict::Pass
                };
                let survey = super::fixture::survey(verdict);
                self.answer(order, Outcome::Done, "", serde_json::to_value(survey).unwrap());
            }
            (Action::Repoint, Behaviour::StaysBehind) => {
                self.answer(order, Outcome::RolledBack, codes::VERIFY_FAILED, null)
            }
            (Action::Repoint, _) => {
                let wanted = entry.repoint.unwrap();
                self.repoints += u32::from(self.follows != wanted.to.ends_with(":8443"));
                self.follows = wanted.to.ends_with(":8443");
                self.answer(order, Outcome::Done, "", null);
            }
            (Action::Switch, Behaviour::FailsBefore) => {
                self.answer(order, Outcome::FailedNothingChanged, codes::STAGE_FAILED, null)
            }
            (Action::Switch, Behaviour::RollsBack) => {
                self.changed = false;
                self.answer(
                    order,
                    Outcome::RolledBack,
                    codes::INSTALL_FAILED,
                    detail(self.old),
                );
            }
            (Action::Switch, Behaviour::Inconsistent) => {
                self.version = None;
                self.answer(order, Outcome::Inconsistent, codes::INSTALL_FAILED, null);
            }
            (Action::Switch, Behaviour::Silent) => {}
            (Action::Switch, Behaviour::Lies) => self.answer(order, Outcome::Done, "", detail(to)),
            (Action::Switch, behaviour) => {
                self.version = Some(to);
                self.samples = behaviour != Behaviour::NoSamples;
                self.answer(order, Outcome::Done, "", detail(to));
            }
            (Action::Rollback, _) if !self.changed => {
                self.answer(order, Outcome::Refused, codes::TOO_LATE, null)
            }
            (Action::Rollback, _) => {
                self.version = Some(self.old);
                self.samples = true;
                self.changed = false;
                self.answer(order, Outcome::RolledBack, "", detail(self.old));
            }
            (Action::Keep, _) => {
                self.changed = false;
                self.old = to;
                self.answer(order, Outcome::Done, "", null);
            }
            _ => self.answer(order, Outcome::Done, "", null),
        }
    }
}
