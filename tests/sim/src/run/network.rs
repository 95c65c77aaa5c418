//! Connections: what is sent arrives in order, late, twice, or never.

use super::agent::Nature;
use super::coordinator::{Hello, Message};
use super::faults::Fault;
use super::world::{Conn, Down, What, World};
use fleet_common::order::Action;

/// Longest pause between two tries of an agent, as the coordinator tells it.
const RECONNECT_MS: u64 = 20_000;
/// When an agent gives up waiting for its Welcome.
const WELCOME_MS: u64 = 30_000;

impl World {
    /// The agent tries to connect after so long.
    pub fn dial(&mut self, machine: usize, after: u64) {
        let agent = &mut self.agents[machine];
        agent.dials += 1;
        let number = agent.dials;
        self.at(self.now + after, What::Dial { machine, number });
    }

    pub fn try_dial(&mut self, machine: usize, number: u32) {
        let agent = &self.agents[machine];
        if !agent.up || agent.gone || agent.conn.is_some() || agent.dials != number {
            return;
        }
        if self.coordinator.is_none() || self.partitioned.contains_key(&machine) {
            let wait = 500 + self.rng.below(RECONNECT_MS);
            return self.dial(machine, wait);
        }
        let conn = self.conns.len();
        self.conns.push(Conn {
            machine,
            void: false,
            open_here: true,
            open_there: true,
            last_up: 0,
            last_down: 0,
        });
        let agent = &mut self.agents[machine];
        agent.conn = Some(conn);
        agent.live = None;
        let hello = Hello {
            conn,
            host: agent.host.clone(),
            session: agent.session,
            epoch: agent.epoch,
            outbox: agent.outbox.clone(),
            acknowledged: agent
                .kept
                .front()
                .map_or(agent.last_sequence, |event| event.sequence - 1),
            running: agent.running.as_ref().map(|running| running.order.order.clone()),
            version: agent.version,
        };
        self.send_up(conn, Message::Hello(hello));
        self.at(self.now + WELCOME_MS, What::AgentNotices { conn });
    }

    /// Sends what the coordinator has not got over this session yet.
    pub fn flush(&mut self, machine: usize) {
        let agent = &mut self.agents[machine];
        let (Some(conn), Some(_)) = (agent.conn, agent.live) else {
            return;
        };
        let sent = agent.sent;
        let fresh: Vec<_> = agent
            .kept
            .iter()
            .filter(|event| event.sequence > sent)
            .cloned()
            .collect();
        for event in fresh {
            self.agents[machine].sent = event.sequence;
            self.send_up(conn, Message::Event { conn, event });
        }
    }

    fn send_up(&mut self, conn: usize, message: Message) {
        let twice = matches!(message, Message::Event { .. }) && self.strikes(Fault::Duplicate, 80);
        for _ in 0..=u64::from(twice) {
            let at = self.arrival(self.conns[conn].last_up);
            self.conns[conn].last_up = self.conns[conn].last_up.max(at);
            let what = What::ToCoordinator {
                conn: Some(conn),
                life: self.coordinator_life,
                message: message.clone(),
            };
            self.at(at, what);
        }
    }

    pub(super) fn send_down(&mut self, conn: usize, down: Down) {
        if !self.conns[conn].open_here {
            return;
        }
        let twice = matches!(down, Down::Order(_)) && self.strikes(Fault::Duplicate, 40);
        for _ in 0..=u64::from(twice) {
            let at = self.arrival(self.conns[conn].last_down);
            self.conns[conn].last_down = self.conns[conn].last_down.max(at);
            let down = down.clone();
            self.at(at, What::ToAgent { conn, down });
        }
    }

    /// When something arrives that is sent now: after what was sent before, unless it overtakes that.
    fn arrival(&mut self, last: u64) -> u64 {
        let mut at = self.now + 5 + self.rng.below(150);
        if self.strikes(Fault::Delay, 120) {
            at += self.rng.below(20_000);
        }
        if last > at && self.strikes(Fault::Reorder, 4) {
            return at;
        }
        at.max(last)
    }

    pub fn arrive_up(&mut self, conn: Option<usize>, life: u32, message: Message) {
        if life != self.coordinator_life {
            return;
        }
        if let Some(conn) = conn {
            let open = &self.conns[conn];
            if open.void || !open.open_here {
                return;
            }
            if matches!(message, Message::StillThere(_)) && !open.open_there {
                return;
            }
        }
        self.inbox(message);
    }

    pub fn arrive_down(&mut self, conn: usize, down: Down) {
        let Conn { machine, void, .. } = self.conns[conn];
        let agent = &mut self.agents[machine];
        if void || !agent.up || agent.conn != Some(conn) {
            return;
        }
        match down {
            Down::Welcome {
                session,
                epoch,
                acknowledged,
            } => {
                agent.session = session;
                agent.epoch = agent.epoch.max(epoch);
                agent.quarantined = false;
                agent.kept.retain(|event| event.sequence > acknowledged);
                agent.sent = acknowledged;
                agent.live = Some(session);
                self.send_up(conn, Message::Ready { conn });
                self.flush(machine);
            }
            Down::Goodbye { quarantine } => {
                agent.quarantined |= quarantine;
                self.leave(conn);
                let wait = if quarantine {
                    60_000
                } else {
                    100 + self.rng.below(5_000)
                };
                self.dial(machine, wait);
            }
            Down::Ack(sequence) => agent.kept.retain(|event| event.sequence > sequence),
            Down::Order(order) => {
                let Some(session) = agent.live else { return };
                let lies = agent.nature == Nature::MakesUp && order.action == Action::Switch;
                if let Some(deed) = agent.take(order, session, self.now) {
                    self.done(machine, deed);
                }
                if lies && !self.calm && self.rng.one_in(3) {
                    self.make_up(machine);
                }
                self.flush(machine);
            }
        }
    }

    /// The agent closes its end; the other end notices if anything still comes through.
    fn leave(&mut self, conn: usize) {
        let machine = self.conns[conn].machine;
        self.conns[conn].open_there = false;
        if self.agents[machine].conn == Some(conn) {
            self.agents[machine].conn = None;
            self.agents[machine].live = None;
        }
        if self.conns[conn].open_here {
            let after = if self.conns[conn].void {
                50_000
            } else {
                self.rng.below(500)
            };
            self.at(self.now + after, What::CoordinatorNotices { conn });
        }
    }

    pub fn agent_notices(&mut self, conn: usize) {
        let machine = self.conns[conn].machine;
        if self.agents[machine].conn != Some(conn) {
            return;
        }
        // The look for a Welcome that came in time.
        let fine =
            self.conns[conn].open_here && !self.conns[conn].void && self.agents[machine].live.is_some();
        if fine {
            return;
        }
        self.leave(conn);
        let wait = 200 + self.rng.below(RECONNECT_MS);
        self.dial(machine, wait);
    }

    /// Breaks a connection for both ends.
    pub fn cut(&mut self, conn: usize) {
        self.conns[conn].void = true;
        let (here, there) = (self.rng.below(1_000), self.rng.below(1_000));
        self.at(self.now + here, What::CoordinatorNotices { conn });
        self.at(self.now + there, What::AgentNotices { conn });
    }

    /// Nothing comes through any more, and both ends take their time to see it.
    pub fn hollow(&mut self, conn: usize) {
        self.conns[conn].void = true;
        let (here, there) = (5_000 + self.rng.below(45_000), 1_000 + self.rng.below(49_000));
        self.at(self.now + here, What::CoordinatorNotices { conn });
        self.at(self.now + there, What::AgentNotices { conn });
    }
}
