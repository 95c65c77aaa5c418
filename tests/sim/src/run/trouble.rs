//! Troubles that come by themselves, and the end of them.

use super::agent::Nature;
use super::coordinator::Message;
use super::faults::Fault;
use super::led::Led;
use super::world::{Doom, What, World};
use fleet_common::codes::Code;
use fleet_common::ids::{HostId, OrderId};
use fleet_common::order::{HostEvent, OrderResult, Outcome};
use rollout::kernel::{Command, HostPhase, HostRow, LegPhase, RollbackTarget};

impl World {
    /// One of them; then the next.
    pub fn trouble(&mut self) {
        if self.calm {
            return;
        }
        let pause = 200 + self.rng.below(self.wildness * 2);
        self.at(self.now + pause, What::Trouble);
        let machine = self.rng.below(self.agents.len() as u64) as usize;
        if self.led == Led::Restored {
            self.maybe_restore();
        }
        const TROUBLES: [Fault; 17] = [
            Fault::Disconnect,
            Fault::Disconnect,
            Fault::HalfOpen,
            Fault::AgentCrash,
            Fault::Reboot,
            Fault::Partition,
            Fault::CrashBeforeCommit,
            Fault::CrashAfterCommit,
            Fault::CrashWhileActing,
            Fault::ClockForward,
            Fault::ClockBack,
            Fault::HoldOnHost,
            Fault::Garbage,
            Fault::Clone,
            Fault::PmmUnseen,
            Fault::StoreRestored,
            Fault::EndUnheard,
        ];
        let fault = TROUBLES[self.rng.below(TROUBLES.len() as u64) as usize];
        // The grave ones are rarer.
        let one_in = match fault {
            Fault::Partition | Fault::ClockForward | Fault::ClockBack => 4,
            Fault::CrashBeforeCommit | Fault::CrashAfterCommit | Fault::CrashWhileActing => 3,
            Fault::Clone => 12,
            Fault::PmmUnseen => 4,
            Fault::StoreRestored => return self.maybe_restore(),
            Fault::EndUnheard => return self.maybe_end(),
            _ => 1,
        };
        let liars = self.agents.iter().enumerate();
        let liars: Vec<usize> = liars
            .filter(|(_, agent)| agent.nature == Nature::MakesUp && !agent.open.is_empty())
            .map(|(at, _)| at)
            .collect();
        if !liars.is_empty() && self.rng.one_in(3) {
            let pick = self.rng.below(liars.len() as u64) as usize;
            self.make_up(liars[pick]);
        }
        if self.strikes(fault, one_in) {
            self.note(|| format!("{} (machine {machine})", fault.word()));
            self.strike(fault, machine);
        }
    }

    /// Whoever goes back, or could still begin or follow, does not hear that it is over.
    fn maybe_end(&mut self) {
        if !self.faults.has(Fault::EndUnheard) {
            return;
        }
        let deaf = |host: &HostId| {
            let conn = self.machines.get(host).and_then(|at| self.agents[*at].conn);
            conn.is_none_or(|conn| self.conns[conn].void)
        };
        let Some(coordinator) = &self.coordinator else {
            return;
        };
        let kernel = &coordinator.kernel;
        let turned = kernel.legs().iter().any(|leg| leg.phase == LegPhase::Restored);
        let concerned = |row: &HostRow, host: &HostId| match row.phase {
            HostPhase::Permitted => deaf(host),
            HostPhase::Repointing => turned,
            _ => false,
        };
        let rows = |which: &dyn Fn(&HostRow, &HostId) -> bool| {
            let legs = kernel.legs().iter();
            let mut rows = legs.flat_map(|leg| kernel.plan().hosts.iter().map(move |host| (leg, host)));
            rows.any(|(leg, host)| {
                kernel
                    .host(&leg.leg, &host.host)
                    .is_some_and(|row| which(row, &host.host))
            })
        };
        let (some, back) = (rows(&concerned), rows(&|row, _| row.rests()));
        let reason = "too late".to_owned();
        let command = if some && self.strikes(Fault::EndUnheard, 2) {
            Command::Abort {
                reason,
                force: self.rng.one_in(3),
            }
        } else if back && self.strikes(Fault::EndUnheard, 60) {
            self.part();
            Command::Rollback {
                target: RollbackTarget::Clients,
                reason,
            }
        } else {
            return;
        };
        self.tell_coordinator(Message::Operator { by: "bob", command }, 10);
    }

    /// Backups are taken often; one rarely takes the place of the store.
    fn maybe_restore(&mut self) {
        let now = match self.restores() {
            Some(now) => now,
            None => {
                self.faults.has(Fault::StoreRestored)
                    && self.rng.one_in(if self.backup.is_some() { 12 } else { 2 })
            }
        };
        if !now {
            return;
        }
        match self.backup_or_restore() {
            Ok(true) => {
                self.count(format!("fault {}", Fault::StoreRestored.word()));
                self.note(|| "the store is replaced by an older copy".to_owned());
            }
            Ok(false) => {}
            Err(error) => self.watcher.broken(super::RESTORABLE, error),
        }
    }

    fn strike(&mut self, fault: Fault, machine: usize) {
        match fault {
            Fault::Disconnect => {
                if let Some(conn) = self.agents[machine].conn {
                    self.cut(conn);
                }
            }
            Fault::HalfOpen => {
                if let Some(conn) = self.agents[machine].conn {
                    self.hollow(conn);
                }
            }
            Fault::AgentCrash => {
                let down = 500 + self.rng.below(20_000);
                self.kill_agent(machine, down, false);
            }
            Fault::Reboot => {
                let down = 20_000 + self.rng.below(300_000);
                self.kill_agent(machine, down, true);
            }
            Fault::Partition => self.part(),
            Fault::CrashBeforeCommit => self.doom = Some(Doom::BeforeCommit),
            Fault::CrashAfterCommit if self.rng.one_in(4) => self.kill_idle(),
            Fault::CrashAfterCommit => self.doom = Some(Doom::AfterCommit),
            Fault::CrashWhileActing => self.doom = Some(Doom::WhileActing),
            Fault::ClockForward => {
                let jump = self.jump();
                self.skew += jump;
                self.watcher.clock_set();
            }
            Fault::ClockBack => {
                let jump = self.jump();
                self.skew -= jump;
                if self.skew < 0 {
                    self.behind_ms = self.behind_ms.max(self.skew.unsigned_abs());
                }
                self.watcher.clock_set();
            }
            Fault::HoldOnHost => {
                let held = match self.agents[machine].held {
                    Some(_) => None,
                    None => Some("maintenance".to_owned()),
                };
                self.agents[machine].held.clone_from(&held);
                self.agents[machine].mutter(OrderId::new(""), Some(HostEvent::HoldChanged { held }));
                self.flush(machine);
            }
            Fault::Garbage => {
                self.agents[machine].mutter(OrderId::new(""), None);
                self.flush(machine);
            }
            Fault::Clone => self.clone_machine(machine),
            Fault::PmmUnseen => self.unseen_until = self.now + 20_000 + self.rng.below(900_000),
            _ => {}
        }
    }

    /// Seconds mostly, hours sometimes.
    fn jump(&mut self) -> i64 {
        let most = [30_000, 300_000, 7_200_000][self.rng.below(3) as usize];
        i64::try_from(self.rng.below(most)).unwrap_or(0)
    }

    fn kill_agent(&mut self, machine: usize, down: u64, reboot: bool) {
        if !self.agents[machine].up {
            return;
        }
        let conn = self.agents[machine].conn;
        self.agents[machine].die();
        if let Some(conn) = conn {
            self.conns[conn].open_there = false;
            // A process that dies closes its connection, a machine without power does not.
            let after = if reboot {
                5_000 + self.rng.below(45_000)
            } else {
                self.rng.below(500)
            };
            self.conns[conn].void = true;
            self.at(self.now + after, What::CoordinatorNotices { conn });
        }
        let life = self.agents[machine].life;
        self.at(self.now + down, What::StartAgent { machine, life });
    }

    pub fn start_agent(&mut self, machine: usize, life: u32) {
        if self.agents[machine].up || self.agents[machine].life != life {
            return;
        }
        self.agents[machine].start();
        let digest = format!("inventory {life}");
        self.agents[machine].mutter(OrderId::new(""), Some(HostEvent::InventoryChanged { digest }));
        self.at(self.now + 500, What::Work { machine, life });
        let wait = self.rng.below(3_000);
        self.dial(machine, wait);
    }

    /// A part of the fleet is cut off for a while.
    fn part(&mut self) {
        self.partitions += 1;
        let partition = self.partitions;
        let share = 1 + self.rng.below(8);
        for machine in 0..self.agents.len() {
            if self.rng.below(10) < share {
                self.partitioned.insert(machine, partition);
                if let Some(conn) = self.agents[machine].conn {
                    self.hollow(conn);
                }
            }
        }
        let until = self.now + 5_000 + self.rng.below(600_000);
        self.at(until, What::Heal { partition });
    }

    /// Tells the end of an order: of the one under way, or of one that was never given.
    pub fn make_up(&mut self, machine: usize) {
        self.watcher.liars = true;
        let agent = &self.agents[machine];
        let order = agent
            .open
            .iter()
            .next()
            .cloned()
            .unwrap_or_else(|| OrderId::new("r1/clients-1/nobody/1/switch"));
        let outcomes = [
            Outcome::Done,
            Outcome::Refused,
            Outcome::Expired,
            Outcome::FailedNothingChanged,
            Outcome::RolledBack,
            Outcome::Inconsistent,
        ];
        let outcome = outcomes[self.rng.below(6) as usize];
        let detail =
            serde_json::json!({"from": "2.41.2", "to": "3.9.1", "client_gap_ms": 1, "transaction_ms": 1});
        let codes = [
            fleet_common::codes::INSTALL_FAILED,
            fleet_common::codes::BACKUP_RUNNING,
        ];
        let result = OrderResult {
            outcome,
            step: "install".to_owned(),
            code: Code::new(codes[self.rng.below(2) as usize]),
            message: "made up".to_owned(),
            took_ms: 1,
            detail,
        };
        self.agents[machine].tainted = true;
        self.agents[machine].mutter(order, Some(HostEvent::Finished(result)));
        self.flush(machine);
    }

    /// A machine is copied as it stands, and both live.
    fn clone_machine(&mut self, machine: usize) {
        if machine >= self.listed.len() || self.agents[machine].session == 0 {
            return;
        }
        self.agents[machine].tainted = true;
        let mut copy = self.agents[machine].clone();
        copy.die();
        copy.held = None;
        let at = self.agents.len();
        let life = copy.life;
        self.agents.push(copy);
        self.at(self.now + 1_000, What::StartAgent { machine: at, life });
        let until = self.now + 60_000 + self.rng.below(600_000);
        self.at(until, What::KillClone { machine: at });
    }

    /// Somebody found the copy, and lets the original back in.
    pub fn kill_clone(&mut self, machine: usize) {
        let conn = self.agents[machine].conn;
        self.agents[machine].die();
        self.agents[machine].gone = true;
        if let Some(conn) = conn {
            self.cut(conn);
        }
        let host = self.agents[machine].host.clone();
        self.lift(host);
    }

    pub fn lift(&mut self, host: fleet_common::ids::HostId) {
        self.tell_coordinator(Message::Lift { host }, 1_000);
    }

    /// All troubles are over, and what they left is repaired.
    pub fn begin_calm(&mut self) {
        if std::mem::replace(&mut self.calm, true) {
            return;
        }
        self.note(|| "all is calm".to_owned());
        self.partitioned.clear();
        self.doom = None;
        self.unseen_until = self.now;
        for machine in 0..self.agents.len() {
            if machine >= self.listed.len() {
                self.kill_clone(machine);
                continue;
            }
            if self.agents[machine].held.take().is_some() {
                let event = HostEvent::HoldChanged { held: None };
                self.agents[machine].mutter(OrderId::new(""), Some(event));
                self.flush(machine);
            }
        }
        for host in self.quarantined.clone() {
            self.lift(host);
        }
    }
}
