//! Two operators: one presses every button at random, one is patient and brings things to an end.

use super::coordinator::Message;
use super::faults::Fault;
use super::world::{What, World};
use rollout::kernel::{Command, LegPhase, RolloutPhase};
use std::collections::BTreeSet;

impl World {
    /// The restless one.
    pub fn press(&mut self) {
        let pause = 5_000 + self.rng.below(self.restless * 2);
        self.at(self.now + pause, What::Press);
        if self.calm || !self.faults.has(Fault::Operator) || self.coordinator.is_none() {
            return;
        }
        let command = self.button();
        self.count("fault operator");
        self.tell_coordinator(Message::Operator { by: "bob", command }, 10);
    }

    fn button(&mut self) -> Command {
        let pick = self.rng.below(self.listed.len() as u64) as usize;
        let host = self.agents[pick].host.to_string();
        let reason = "because".to_owned();
        let groups = self.groups.len().max(1) as u64;
        let group = self.rng.below(groups) as usize;
        match self.rng.below(40) {
            0..=4 => Command::Pause { reason },
            5..=11 => Command::Resume {
                reason,
                accept_server: self.rng.one_in(4),
            },
            12..=15 => Command::Retry {
                hosts: Vec::new(),
                server: false,
            },
            16..=18 => Command::Retry {
                hosts: vec![host],
                server: self.rng.one_in(4),
            },
            19..=22 => Command::Hold { host, reason },
            23..=26 => Command::Unhold { host },
            27..=30 => Command::FreeSlot { host, reason },
            31..=34 => Command::Skip { host, reason },
            35..=38 => Command::Approve {
                group: self.groups.get(group).cloned().unwrap_or_default(),
            },
            _ if self.rng.one_in(3) => Command::Abort {
                reason,
                force: self.rng.one_in(2),
            },
            _ => Command::Start {
                accept_unmatched: Vec::new(),
            },
        }
    }

    /// The patient one.
    pub fn help(&mut self) {
        self.at(self.now + 30_000, What::Help);
        let Some(coordinator) = &self.coordinator else {
            return;
        };
        let kernel = &coordinator.kernel;
        let paused = kernel.phase() == RolloutPhase::Paused;
        let gated: Vec<String> = kernel
            .legs()
            .iter()
            .flat_map(|leg| kernel.plan().groups.iter().map(move |group| (leg, group)))
            .filter(|(leg, group)| {
                let row = kernel.group(&leg.leg, &group.name);
                row.is_some_and(|row| row.phase == rollout::kernel::GroupPhase::Gated)
            })
            .map(|(_, group)| group.name.to_string())
            .collect();
        let code = kernel.rollout().pause.as_ref().map(|pause| pause.code.clone());
        let wanted = code.as_deref() == Some("slots_exhausted");
        let stuck: Vec<String> = kernel
            .legs()
            .iter()
            .filter(|_| wanted)
            .flat_map(|leg| kernel.plan().hosts.iter().map(move |host| (leg, host)))
            .filter(|(leg, host)| {
                let row = kernel.host(&leg.leg, &host.host);
                row.is_some_and(|row| row.slot && row.phase.is_final())
            })
            .map(|(_, host)| host.host.to_string())
            .collect();
        // What waits for a person only because of the other operator ends with the troubles; it is dear to find.
        let held: Vec<String> = if self.calm && (self.now / 30_000).is_multiple_of(4) {
            let running = kernel.legs().iter().filter(|leg| leg.phase == LegPhase::Running);
            running
                .flat_map(|leg| kernel.host_duties(&leg.leg, self.wall()))
                .filter(|(_, duty)| duty.as_ref().is_some_and(|duty| duty.code == "held"))
                .map(|(host, _)| host.to_string())
                .collect()
        } else {
            Vec::new()
        };
        let forked = if self.calm {
            self.quarantined.clone()
        } else {
            BTreeSet::new()
        };
        for host in forked {
            self.lift(host);
        }
        for host in held {
            self.order(Command::Unhold { host });
        }
        for group in gated {
            self.order(Command::Approve { group });
        }
        if !paused {
            self.paused_since = None;
            return;
        }
        let since = *self.paused_since.get_or_insert(self.now);
        if since + 60_000 > self.now {
            return;
        }
        self.paused_since = None;
        let reason = "go on".to_owned();
        for host in stuck {
            let reason = "looked at".to_owned();
            self.order(Command::FreeSlot { host, reason });
        }
        // The one that does not fit is refused.
        match self.helped % 3 {
            0 => self.order(Command::Resume {
                reason,
                accept_server: false,
            }),
            1 => self.order(Command::Retry {
                hosts: Vec::new(),
                server: true,
            }),
            _ => self.order(Command::Resume {
                reason,
                accept_server: true,
            }),
        }
        self.helped += 1;
        // A server that never settles is no reason to try for ever.
        if self.helped > 60 {
            let reason = "enough".to_owned();
            self.order(Command::Abort { reason, force: false });
        }
    }

    fn order(&mut self, command: Command) {
        self.tell_coordinator(Message::Operator { by: "ann", command }, 10);
    }
}
