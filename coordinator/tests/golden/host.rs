//! A host with a timetable: when it got an order it says what it does at fixed times, and keeps what it can't send.

use crate::fleet::service;
use fleet_common::codes::{self, Code};
use fleet_common::ids::{Epoch, HostId, OrderId};
use fleet_common::order::{Action, HostEvent, OrderResult, Outcome, SwitchDetail};
use fleet_common::plan_entry::PlanEntry;
use fleet_common::survey::Verdict;
use fleet_common::verification::{FleetSnapshot, PmmClient};
use fleet_common::version::PmmVersion;
use fleet_sim::fixture;
use rollout::kernel::HostOrder;
use rollout::plan::HostRecord;
use std::collections::BTreeMap;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Behaviour {
    Good,
    /// Everything takes six times as long.
    Slow,
    /// Fails before it changes anything.
    FailsBefore,
    /// The package manager fails and it goes back.
    RollsBack,
    /// It does not come back from that.
    Inconsistent,
    /// Says nothing more once it has begun.
    Silent,
    /// Never answers at all.
    Mute,
    /// Fails the preflight.
    Unready,
    /// Upgraded, but no samples come.
    NoSamples,
    /// PMM runs a database backup there.
    Backup,
}

impl Behaviour {
    pub fn parse(word: &str) -> Option<Self> {
        Some(match word {
            "good" => Self::Good,
            "slow" => Self::Slow,
            "fails-before" => Self::FailsBefore,
            "rolls-back" => Self::RollsBack,
            "inconsistent" => Self::Inconsistent,
            "silent" => Self::Silent,
            "mute" => Self::Mute,
            "unready" => Self::Unready,
            "no-samples" => Self::NoSamples,
            "backup" => Self::Backup,
            _ => return None,
        })
    }
}

/// Steps of a switch and their seconds.
const SWITCH: [(&str, u64); 7] = [
    ("check", 1),
    ("save", 2),
    ("stop", 2),
    ("install", 25),
    ("carry", 2),
    ("start", 3),
    ("verify", 10),
];
const BACK: [(&str, u64); 5] = [
    ("back-stop", 2),
    ("back-install", 15),
    ("back-restore", 2),
    ("back-start", 3),
    ("back-verify", 8),
];
/// Milliseconds from the end of a switch to the client's first sample.
const FIRST_SAMPLE: u64 = 12_000;
/// Seconds between an order and its first step.
const BEGIN: u64 = 2;

#[derive(Clone, Debug)]
enum Then {
    Say(HostEvent),
    /// The switch begins.
    Begin,
    /// What runs from here on.
    Runs(Option<PmmVersion>),
    End(Box<OrderResult>),
}

struct Active {
    order: HostOrder,
    begun: bool,
    timetable: Vec<(u64, Then)>,
}

pub struct Host {
    pub id: HostId,
    pub name: String,
    pub behaviour: Behaviour,
    pub connected: bool,
    pub switches: u32,
    epoch: Epoch,
    agent_id: String,
    node_id: String,
    version: Option<PmmVersion>,
    old: PmmVersion,
    samples: bool,
    /// Since its switch there are none before this moment.
    samples_from: u64,
    active: Option<Active>,
    journal: BTreeMap<OrderId, OrderResult>,
    outbox: Vec<(OrderId, Epoch, HostEvent)>,
}

impl Host {
    pub fn new(record: &HostRecord, behaviour: Behaviour) -> Self {
        let found = record.inventory.installation().unwrap();
        Self {
            id: record.host_id.clone(),
            name: record.inventory.hostname.clone(),
            behaviour,
            connected: true,
            switches: 0,
            epoch: Epoch::default(),
            agent_id: found.agent_id.clone(),
            node_id: found.node_id.clone(),
            version: Some(found.version),
            old: found.version,
            samples: true,
            samples_from: 0,
            active: None,
            journal: BTreeMap::new(),
            outbox: Vec::new(),
        }
    }

    pub fn add_to(&self, view: &mut FleetSnapshot, set: Option<&String>, now: u64) {
        let id = self.agent_id.replace("agent", "service");
        let set = set.map_or("", String::as_str);
        view.clients.insert(
            self.agent_id.clone(),
            PmmClient {
                node_id: self.node_id.clone(),
                node_name: self.name.clone(),
                connected: self.version.is_some(),
                version: self.version.map(|version| version.to_string()),
            },
        );
        view.services
            .insert(id.clone(), service(&self.name, &self.node_id, set));
        if self.version.is_some() && self.samples {
            let until = if now < self.samples_from {
                self.samples_from - FIRST_SAMPLE
            } else {
                now
            };
            view.node_samples_ms.insert(self.node_id.clone(), until - 500);
            view.service_samples_ms.insert(id.clone(), until - 500);
            view.qan_active.insert(id);
        }
    }

    /// Release of its client; none while that is being replaced.
    pub fn version(&self) -> Option<PmmVersion> {
        self.version
    }

    pub fn running(&self) -> Option<OrderId> {
        self.active.as_ref().map(|active| active.order.order.clone())
    }

    /// Whether time passes here.
    pub fn is_busy(&self) -> bool {
        self.active.is_some() || !self.outbox.is_empty()
    }

    /// What it has to say, if it can be heard.
    pub fn said(&mut self) -> Vec<(OrderId, Epoch, HostEvent)> {
        if self.connected {
            std::mem::take(&mut self.outbox)
        } else {
            Vec::new()
        }
    }

    pub fn meet(&mut self, epoch: Epoch) {
        self.epoch = self.epoch.max(epoch);
    }

    /// An order came in.
    pub fn take(&mut self, order: HostOrder, now: u64) {
        if self.behaviour == Behaviour::Mute || !self.connected {
            return;
        }
        if let Some(result) = self.journal.get(&order.order).cloned() {
            return self.say(&order, HostEvent::Finished(result));
        }
        if self.running().as_ref() == Some(&order.order) {
            self.epoch = self.epoch.max(order.epoch);
            let active = self.active.as_mut().unwrap();
            active.order.epoch = active.order.epoch.max(order.epoch);
            return;
        }
        if order.epoch < self.epoch {
            return self.end(
                &order,
                result(Outcome::Refused, codes::STALE_EPOCH, "an order of an older epoch"),
            );
        }
        self.epoch = order.epoch;
        if order.action == Action::Probe {
            let held = self
                .active
                .take_if(|active| !active.begun && active.order.action == Action::Switch);
            if let Some(held) = held {
                self.end(
                    &held.order,
                    result(Outcome::Refused, codes::STALE_EPOCH, "a newer epoch came"),
                );
            }
            return;
        }
        if order.action == Action::Switch && order.start_within_ms == 0 {
            return self.end(
                &order,
                result(
                    Outcome::Expired,
                    codes::PERMIT_EXPIRED,
                    "the time to begin is over",
                ),
            );
        }
        if order.action.changes_host() && self.behaviour == Behaviour::Backup {
            let text = "a MySQL backup or restore runs under pmm-agent: xtrabackup, process 4711; the client is not stopped before it ended";
            return self.end(&order, result(Outcome::Refused, codes::BACKUP_RUNNING, text));
        }
        self.say(&order, HostEvent::Accepted);
        let timetable = self.timetable(&order, now);
        self.active = Some(Active {
            order,
            begun: false,
            timetable,
        });
    }

    /// Does what is due.
    pub fn step(&mut self, now: u64) {
        while let Some(active) = self
            .active
            .as_mut()
            .filter(|active| active.timetable.first().is_some_and(|(at, _)| *at <= now))
        {
            let (at, then) = active.timetable.remove(0);
            let order = active.order.clone();
            match then {
                Then::Begin => {
                    active.begun = true;
                    self.switches += 1;
                }
                Then::Say(event) => self.say(&order, event),
                Then::Runs(version) => self.version = version,
                Then::End(result) => {
                    self.active = None;
                    if order.action == Action::Switch && result.outcome == Outcome::Done {
                        self.samples_from = at + FIRST_SAMPLE;
                    }
                    self.end(&order, *result);
                }
            }
        }
    }

    fn say(&mut self, order: &HostOrder, event: HostEvent) {
        self.outbox.push((order.order.clone(), order.epoch, event));
    }

    fn end(&mut self, order: &HostOrder, result: OrderResult) {
        if order.action == Action::Switch && result.outcome == Outcome::Done {
            self.samples = self.behaviour != Behaviour::NoSamples;
        }
        if order.action == Action::Rollback {
            self.samples = true;
        }
        if order.action == Action::Keep {
            self.old = self.version.unwrap_or(self.old);
        }
        self.journal.insert(order.order.clone(), result.clone());
        self.say(order, HostEvent::Finished(result));
    }

    fn timetable(&self, order: &HostOrder, now: u64) -> Vec<(u64, Then)> {
        let times = if self.behaviour == Behaviour::Slow { 6 } else { 1 };
        let mut plan = Timetable {
            at: now + BEGIN * 1_000,
            times,
            all: Vec::new(),
        };
        match order.action {
            Action::Preflight => {
                let verdict = if self.behaviour == Behaviour::Unready {
                    Verdict::Fail
                } else {
                    Verdict::Pass
                };
                plan.wait(3);
                let detail = serde_json::to_value(fixture::survey(verdict)).unwrap();
                plan.end(OrderResult {
                    detail,
                    ..result(Outcome::Done, "", "")
                });
            }
            Action::Stage => {
                plan.wait(15);
                plan.end(result(Outcome::Done, "", ""));
            }
            Action::Switch => self.switch(order, &mut plan),
            Action::Rollback => {
                plan.steps(&BACK);
                plan.run(Some(self.old));
                plan.end(OrderResult {
                    detail: detail(self.version, self.old),
                    ..result(Outcome::RolledBack, "", "")
                });
            }
            _ => {
                plan.wait(2);
                plan.end(result(Outcome::Done, "", ""));
            }
        }
        plan.all
    }

    fn switch(&self, order: &HostOrder, plan: &mut Timetable) {
        let to = serde_json::from_slice::<PlanEntry>(&order.entry).unwrap().to;
        plan.push(Then::Begin);
        let until = |name: &str| SWITCH.iter().position(|(step, _)| *step == name).unwrap() + 1;
        match self.behaviour {
            Behaviour::FailsBefore => {
                plan.steps(&SWITCH[..1]);
                plan.end(OrderResult {
                    step: "check".to_owned(),
                    ..result(
                        Outcome::FailedNothingChanged,
                        codes::PREFLIGHT,
                        "/var has 80 MB free and the package needs 450 MB",
                    )
                });
            }
            Behaviour::Silent => plan.steps(&SWITCH[..until("stop")]),
            Behaviour::RollsBack | Behaviour::Inconsistent => {
                plan.steps(&SWITCH[..until("stop")]);
                plan.run(None);
                plan.steps(&SWITCH[until("stop")..until("install")]);
                plan.steps(&BACK);
                let dead = self.behaviour == Behaviour::Inconsistent;
                let (outcome, text) = if dead {
                    (
                        Outcome::Inconsistent,
                        "dpkg ended with 100, and the old client does not start either",
                    )
                } else {
                    (
                        Outcome::RolledBack,
                        "dpkg ended with 100: the post-installation script failed",
                    )
                };
                plan.run(if dead { None } else { Some(self.old) });
                plan.end(OrderResult {
                    step: "install".to_owned(),
                    detail: if dead {
                        serde_json::Value::Null
                    } else {
                        detail(Some(self.old), self.old)
                    },
                    ..result(outcome, codes::INSTALL_FAILED, text)
                });
            }
            _ => {
                plan.steps(&SWITCH[..until("stop")]);
                plan.run(None);
                plan.steps(&SWITCH[until("stop")..until("carry")]);
                plan.run(Some(to));
                plan.steps(&SWITCH[until("carry")..]);
                plan.end(OrderResult {
                    detail: detail(Some(self.old), to),
                    ..result(Outcome::Done, "", "")
                });
            }
        }
    }
}

struct Timetable {
    at: u64,
    times: u64,
    all: Vec<(u64, Then)>,
}

impl Timetable {
    fn push(&mut self, then: Then) {
        self.all.push((self.at, then));
    }

    fn wait(&mut self, seconds: u64) {
        self.at += seconds * 1_000 * self.times;
    }

    fn steps(&mut self, steps: &[(&str, u64)]) {
        let whole: &[(&str, u64)] = if steps.iter().any(|(step, _)| step.starts_with("back")) {
            &BACK
        } else {
            &SWITCH
        };
        for (step, seconds) in steps {
            let index = whole.iter().position(|(known, _)| known == step).unwrap() + 1;
            self.push(Then::Say(HostEvent::StepStarted {
                step: (*step).to_owned(),
                index: u32::try_from(index).unwrap(),
                of: u32::try_from(whole.len()).unwrap(),
                deadline_for_ms: 120_000,
            }));
            self.wait(*seconds);
        }
    }

    fn run(&mut self, version: Option<PmmVersion>) {
        self.push(Then::Runs(version));
    }

    fn end(&mut self, result: OrderResult) {
        self.push(Then::End(Box::new(result)));
    }
}

fn detail(from: Option<PmmVersion>, to: PmmVersion) -> serde_json::Value {
    serde_json::to_value(SwitchDetail {
        from: from.map(|version| version.to_string()).unwrap_or_default(),
        to: to.to_string(),
        client_gap_ms: 32_000,
        transaction_ms: 25_000,
    })
    .unwrap()
}

fn result(outcome: Outcome, code: &str, message: &str) -> OrderResult {
    OrderResult {
        outcome,
        step: String::new(),
        code: Code::new(code),
        message: message.to_owned(),
        took_ms: 1,
        detail: serde_json::Value::Null,
    }
}
