//! Lives that are led to what chance meets too rarely to be asked of it: drivers whose words get lost or that answer late, windows that
//! shut right after a group's turn, backups that begin with the permit, failed hosts that are repaired and tried again all the time.
//!
//! Whether a life is led follows from its seed's number alone and draws nothing: every other life is as it would be without this file.

use super::agent::{Agent, Nature};
use super::coordinator::Message;
use super::faults::{Fault, FaultSet};
use super::pmm::{Hop, ended, nobody_is_back};
use super::world::{What, World};
use fleet_common::ids::{HostId, OrderId};
use fleet_common::server::{HopOutcome, ServerEvent};
use rollout::kernel::{Command, GroupPhase, HostPhase};
use rollout::plan::LegKind;

/// Where a life is led.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Led {
    Nowhere,
    /// Each hop takes one of the [`COURSES`].
    Hops,
    /// With policies: groups without canaries, slow hosts, and windows that are shut every second minute.
    Windows,
    /// With policies: PMM begins a backup on some hosts when their permit arrives.
    Backups,
    /// With policies: many hosts fail, and are tried again at any time, also in groups that the rollout is past. Some are repaired before,
    /// who hangs is not.
    Again,
    /// With policies: a backup is taken while a host is checked at its turn, and takes the place of the store when that host is upgraded.
    Restored,
}

/// What stands in the policies of [`Led::Again`].
const AGAIN: &str = "canary_soak = \"40s\"\nsoak = \"4m\"\n";

impl Led {
    pub fn of(seed: u64, policies: bool) -> Self {
        match seed % 8 {
            1 if policies => Self::Again,
            3 => Self::Hops,
            5 if policies => Self::Windows,
            6 if policies => Self::Restored,
            7 if policies => Self::Backups,
            _ => Self::Nowhere,
        }
    }

    /// What a group's policy says in such a life.
    pub fn policy(self, text: String) -> String {
        let own: &[&str] = match self {
            Self::Windows => &["canaries", "ramp", "canary_soak", "windows", "approval"],
            Self::Again => &[
                "canaries",
                "canary_soak",
                "soak",
                "failure_threshold",
                "on_breach",
            ],
            _ => return text,
        };
        let other = |line: &&str| !own.iter().any(|key| line.starts_with(key));
        let mut text: String = text.lines().filter(other).flat_map(|line| [line, "\n"]).collect();
        if self == Self::Again {
            return text + AGAIN;
        }
        let minutes = (0..60)
            .step_by(2)
            .map(|minute| (22 + (14 + minute) / 60, (14 + minute) % 60));
        let windows: Vec<String> = minutes
            .map(|(hour, minute)| {
                format!("{{ from = \"{hour}:{minute:02}\", for = \"1m\", zone = \"UTC\" }}")
            })
            .collect();
        let rest = "{ from = \"23:14\", for = \"23h\", zone = \"UTC\" }";
        text.push_str(&format!(
            "canaries = 0\nwindows = [{}, {rest}]\n",
            windows.join(", ")
        ));
        text
    }

    /// How its machines take it.
    pub fn machines(self, agents: &mut [Agent], faults: FaultSet) {
        match self {
            Self::Windows if faults.has(Fault::SlowHost) => {
                agents.iter_mut().for_each(|agent| agent.nature = Nature::Slow);
            }
            Self::Backups if faults.has(Fault::BackupRuns) => {
                agents.iter_mut().step_by(3).for_each(|agent| agent.dumps = true);
            }
            Self::Again if faults.has(Fault::FailingHost) && faults.has(Fault::SilentHost) => {
                for (at, agent) in agents.iter_mut().enumerate() {
                    match at % 6 {
                        0 | 3 => agent.nature = Nature::RollsBack,
                        5 => agent.nature = Nature::Silent,
                        _ => {}
                    }
                }
            }
            _ => {}
        }
    }
}

/// How a hop goes whose driver is led.
#[derive(Clone, Copy, Debug)]
pub struct Course {
    /// Its steps are heard of.
    steps: bool,
    /// It publishes, and that is heard of.
    published: Option<bool>,
    /// It answers only after it was given up.
    late: bool,
    end: End,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Settled,
    Restored,
    Refused,
    /// The driver could not go on, and says no more.
    Stuck,
    /// Nobody came back.
    Open,
}

/// Words are lost when the coordinator dies between them and its commit, and a driver knows less than the store when that was restored.
/// Here both come without the other consequences, so that each answer meets each state of a hop.
const COURSES: [Course; 14] = [
    course(false, Some(true), false, End::Settled),
    course(false, Some(false), false, End::Settled),
    course(false, None, false, End::Restored),
    course(false, Some(false), false, End::Open),
    course(true, Some(false), false, End::Settled),
    course(true, Some(false), false, End::Open),
    course(true, Some(false), true, End::Settled),
    course(true, None, true, End::Restored),
    course(true, None, true, End::Refused),
    course(true, None, true, End::Stuck),
    course(true, Some(false), true, End::Open),
    course(true, Some(true), true, End::Settled),
    course(true, Some(true), false, End::Stuck),
    course(true, Some(true), false, End::Refused),
];

const fn course(steps: bool, published: Option<bool>, late: bool, end: End) -> Course {
    Course {
        steps,
        published,
        late,
        end,
    }
}

impl World {
    /// Whether a led life takes its backup, or puts it in place, now; `None` where chance decides.
    pub(super) fn restores(&mut self) -> Option<bool> {
        if self.led != Led::Restored || !self.faults.has(Fault::StoreRestored) {
            return None;
        }
        let kernel = &self.coordinator.as_ref()?.kernel;
        let client_legs = kernel
            .plan()
            .legs
            .iter()
            .filter(|leg| matches!(leg.kind, LegKind::Clients { .. }));
        let in_phase = |phase: HostPhase| {
            let mut both = client_legs
                .clone()
                .flat_map(|leg| self.agents.iter().map(move |agent| (leg, &agent.host)));
            both.find(|(leg, host)| kernel.host(&leg.id, host).is_some_and(|row| row.phase == phase))
                .map(|(_, host)| host.clone())
        };
        match (&self.checked, &self.backup) {
            (None, None) => {
                self.checked = in_phase(HostPhase::Preparing);
                Some(self.checked.is_some())
            }
            // It was put in place, or chance was faster.
            (Some(_), None) | (None, Some(_)) => None,
            (Some(host), Some(_)) => {
                let upgraded = client_legs
                    .clone()
                    .any(|leg| kernel.host(&leg.id, host).is_some_and(|row| row.upgraded()));
                Some(upgraded)
            }
        }
    }

    /// Whether a group has its turn and gave nobody a permit: only then it waits again when an earlier one opens.
    fn is_early(&self) -> bool {
        self.some_group_that(|row| {
            matches!(row.phase, GroupPhase::Canary | GroupPhase::Ramping) && row.first_permit_ms.is_none()
        })
        .is_some()
    }

    /// Somebody repairs a host that failed and has it tried again.
    pub(super) fn again(&mut self) -> Option<Message> {
        if self.led != Led::Again || !self.is_early() && self.rng.one_in(3) {
            return None;
        }
        let host = self.some_host(|row| row.counts && !row.taken_back)?;
        let machine = *self.machines.get(&HostId::new(host.clone()))?;
        if self.agents[machine].nature == Nature::RollsBack && self.rng.one_in(3) {
            self.agents[machine].nature = Nature::Good;
        }
        let command = Command::Retry {
            hosts: vec![host],
            server: false,
        };
        Some(Message::Operator { by: "cy", command })
    }

    /// What a new hop is led to.
    pub(super) fn course(&self, last_of_leg: bool) -> Option<Course> {
        if self.led != Led::Hops || !self.faults.has(Fault::HopSilent) {
            return None;
        }
        let number = (self.number_of_life / 8 + self.hops.len() as u64) % COURSES.len() as u64;
        let course = COURSES[usize::try_from(number).unwrap_or(0)];
        // Only the last hop of a leg waits for clients.
        (course.end != End::Open || last_of_leg).then_some(course)
    }

    /// The next step of a hop that is led; then the answer, once.
    pub(super) fn lead_hop(&mut self, id: &OrderId, course: Course) {
        let steps = ["inspect", "ownership", "migrate"];
        let waits = course.late && !self.is_given_up(id);
        let Some(hop) = self.hops.get_mut(id) else { return };
        let event = if let Some(step) = steps.get(hop.step) {
            hop.step += 1;
            let index = hop.step as u32;
            course.steps.then(|| ServerEvent::StepStarted {
                step: (*step).to_owned(),
                index,
                of: 4,
                waits_for: String::new(),
                deadline_for_ms: 60_000,
            })
        } else if waits {
            None
        } else if let Some(heard) = course.published.filter(|_| !hop.published) {
            hop.published = true;
            self.server = hop.order.to;
            heard.then_some(ServerEvent::Published)
        } else {
            return self.end_led_hop(id, course.end);
        };
        if let Some(event) = event {
            let order = id.clone();
            self.tell_coordinator(Message::Server { order, event }, 10);
        }
        let (order, life) = (id.clone(), self.coordinator_life);
        self.at(self.now + 5_000, What::Hop { order, life });
    }

    /// Whether the coordinator waits no longer for this hop's driver.
    fn is_given_up(&self, id: &OrderId) -> bool {
        let legs = self.coordinator.iter().flat_map(|found| found.kernel.legs());
        let mut hops = legs.flat_map(|leg| &leg.hops);
        hops.any(|hop| hop.order.as_ref() == Some(id) && hop.deadline_ms.is_none())
    }

    fn end_led_hop(&mut self, id: &OrderId, end: End) {
        let Some(hop) = self.hops.get_mut(id) else { return };
        hop.course = None;
        let outcome = match end {
            End::Settled | End::Open => HopOutcome::Settled,
            End::Restored => HopOutcome::Restored,
            End::Refused => HopOutcome::Refused,
            End::Stuck => HopOutcome::NeedsOperator,
        };
        let mut result = ended(&hop.order, outcome);
        if hop.published {
            result.running = Some(hop.order.to);
        }
        match end {
            End::Open => {
                result = nobody_is_back(&hop.order);
                (hop.waits, hop.outcome) = (true, HopOutcome::Settled);
            }
            // An answer that names no step is not the journal's: the same order continues.
            End::Stuck => {
                result.step.clear();
                (hop.waits, hop.outcome) = (true, HopOutcome::Settled);
            }
            End::Settled | End::Restored | End::Refused => hop.done = Some(result.clone()),
        }
        hop.step = Hop::STEPS;
        self.server = result.running.unwrap_or(hop.order.from);
        self.pmm_up = true;
        let order = id.clone();
        let event = ServerEvent::Finished(result);
        self.tell_coordinator(Message::Server { order, event }, 10);
    }
}
