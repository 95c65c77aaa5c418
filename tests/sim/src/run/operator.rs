//! Two operators: one presses every button at random, one is patient and brings things to an end.

use super::coordinator::Message;
use super::faults::Fault;
use super::led::Led;
use super::world::{What, World};
use rollout::kernel::{
    Command, GroupPhase, GroupRow, HostPhase, HostRow, Kernel, LegPhase, RollbackTarget, RolloutPhase,
};
use std::collections::BTreeSet;

impl World {
    /// The restless one.
    pub fn press(&mut self) {
        // The short phases are the ones in which a button is easily forgotten.
        let coordinator = self.coordinator.as_ref();
        let brief = coordinator.is_some_and(|coordinator| is_brief(&coordinator.kernel));
        let (least, slow) = match self.led {
            Led::Again => (1_000, 5_000),
            _ if brief => (3_000, 10_000),
            _ => (3_000, self.restless * 2),
        };
        let pause = least + self.rng.below(slow);
        self.at(self.now + pause, What::Press);
        if self.calm || !self.faults.has(Fault::Operator) || self.coordinator.is_none() {
            return;
        }
        self.count("fault operator");
        if let Some(message) = self.again().or_else(|| self.button()) {
            self.tell_coordinator(message, 10);
        }
    }

    fn button(&mut self) -> Option<Message> {
        let pick = self.rng.below(self.listed.len() as u64) as usize;
        let host = self.agents[pick].host.to_string();
        let reason = "because".to_owned();
        let group = self.some_group()?;
        let kernel = &self.coordinator.as_ref()?.kernel;
        let (over, brief) = (kernel.is_final(), is_brief(kernel));
        let again = self.some_host(|row| row.phase == HostPhase::Lost || row.taken_back);
        let back = self.some_host(|row| row.rests() || row.phase == HostPhase::Verifying);
        let pressed = match self.rng.below(5) {
            // What suits the moment.
            0 if over => 12 + self.rng.below(5),
            0 if back.is_some() => 43 + self.rng.below(6),
            2 if brief && !over => [0, 5, 12, 56, 57][self.rng.below(5) as usize],
            1 if back.is_some() && self.rng.one_in(6) => 56,
            _ => self.rng.below(60),
        };
        let command = match pressed {
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
                hosts: vec![again.unwrap_or(host)],
                server: self.rng.one_in(4),
            },
            19..=22 => Command::Hold { host, reason },
            23..=26 => Command::Unhold { host },
            27..=30 => Command::FreeSlot { host, reason },
            31..=34 => Command::Skip { host, reason },
            35..=38 => Command::Approve { group },
            39..=42 => Command::Limit {
                group,
                max_unavailable: self.rng.one_in(2).then(|| self.rng.below(9) as u32),
                failure_threshold: self.rng.one_in(3).then(|| self.rng.below(5) as u32),
                reason,
            },
            43..=46 => Command::Rollback {
                target: RollbackTarget::Host(back.unwrap_or(host)),
                reason,
            },
            47 | 48 => Command::Rollback {
                target: RollbackTarget::Group(back.and_then(|host| self.group_of(&host)).unwrap_or(group)),
                reason,
            },
            49..=51 => Command::Accept {
                host: self.some_host(|row| row.inconclusive).unwrap_or(host),
                reason,
            },
            52..=55 => return self.child(),
            56 => Command::Rollback {
                target: RollbackTarget::Clients,
                reason,
            },
            57 if brief || self.rng.one_in(2) => Command::Abort {
                reason,
                force: self.rng.one_in(2),
            },
            _ => Command::Start {
                accept_unmatched: Vec::new(),
            },
        };
        Some(Message::Operator { by: "bob", command })
    }

    fn some_group(&mut self) -> Option<String> {
        let groups = &self.coordinator.as_ref()?.kernel.plan().groups;
        let pick = self.rng.below(groups.len().max(1) as u64) as usize;
        groups.get(pick).map(|group| group.name.to_string())
    }

    fn group_of(&self, host: &str) -> Option<String> {
        let plan = self.coordinator.as_ref()?.kernel.plan();
        plan.find_host(host).map(|host| host.group.to_string())
    }

    /// The first group of which this is so in a leg.
    pub fn some_group_that(&self, which: impl Fn(&GroupRow) -> bool) -> Option<String> {
        let kernel = &self.coordinator.as_ref()?.kernel;
        let legs = kernel.legs().iter();
        let mut both = legs.flat_map(|leg| kernel.plan().groups.iter().map(move |group| (leg, group)));
        both.find(|(leg, group)| kernel.group(&leg.leg, &group.name).is_some_and(&which))
            .map(|(_, group)| group.name.to_string())
    }

    /// One of the hosts of which this is so.
    pub(super) fn some_host(&mut self, which: impl Fn(&HostRow) -> bool) -> Option<String> {
        let found = hosts_that(&self.coordinator.as_ref()?.kernel, which);
        let pick = self.rng.below(found.len().max(1) as u64) as usize;
        found.get(pick).cloned()
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
                row.is_some_and(|row| row.phase == GroupPhase::Gated)
            })
            .map(|(_, group)| group.name.to_string())
            .collect();
        let code = kernel.rollout().pause.as_ref().map(|pause| pause.code.clone());
        let wanted = code.as_deref().is_some_and(|code| code.ends_with("_exhausted"));
        let stuck = if wanted {
            hosts_that(kernel, |row| row.slot && row.phase.is_final())
        } else {
            Vec::new()
        };
        let undecided = if paused {
            hosts_that(kernel, |row| row.inconclusive)
        } else {
            Vec::new()
        };
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
        for host in undecided {
            let reason = "looked at".to_owned();
            match self.rng.below(3) {
                0 => self.order(Command::Accept { host, reason }),
                1 => self.order(Command::Rollback {
                    target: RollbackTarget::Host(host),
                    reason,
                }),
                _ => {}
            }
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

fn is_brief(kernel: &Kernel) -> bool {
    !matches!(kernel.phase(), RolloutPhase::Running | RolloutPhase::Paused)
}

fn hosts_that(kernel: &Kernel, which: impl Fn(&HostRow) -> bool) -> Vec<String> {
    let legs = kernel.legs().iter();
    legs.flat_map(|leg| kernel.plan().hosts.iter().map(move |host| (leg, host)))
        .filter(|(leg, host)| kernel.host(&leg.leg, &host.host).is_some_and(&which))
        .map(|(_, host)| host.host.to_string())
        .collect()
}

/// What did not end, for people.
pub fn open_rows(kernel: &Kernel) -> Vec<String> {
    let legs = kernel.legs().iter();
    legs.flat_map(|leg| kernel.plan().hosts.iter().map(move |host| (leg, host)))
        .filter_map(|(leg, host)| Some((leg, host, kernel.host(&leg.leg, &host.host)?)))
        .filter(|(_, _, row)| !row.phase.is_through() || row.slot)
        .map(|(leg, host, row)| format!("{} in {}: {:?}, slot {}", host.name, leg.leg, row.phase, row.slot))
        .collect()
}
