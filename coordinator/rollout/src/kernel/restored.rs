//! A store that is older than what hosts saw. Whatever it says may have gone on without it, so nothing begins and nobody is given up until a
//! person takes it as the truth. From then on what hosts say counts: open orders are answered from their journals, and a host that was
//! upgraded after the backup is already current.

use super::commands::{Answer, refused};
use super::rows::Key;
use super::state::{HostPhase, RestoredStore, RolloutPhase};
use super::{Command, Kernel};
use crate::plan::LegKind;
use fleet_common::codes;
use fleet_common::ids::{HostId, LegId};
use fleet_common::version::PmmVersion;

/// What to do about it.
const HINT: &str =
    "if a newer store exists, stop this coordinator and start that one; else `doctor --adopt-epoch`";

impl Kernel {
    /// What hosts showed, while nobody adopted the store.
    pub(crate) fn doubt(&self) -> Option<&RestoredStore> {
        self.rollout
            .restored
            .as_ref()
            .filter(|found| found.adopted_at_ms.is_none())
    }

    /// Whether the store was restored and nobody adopted it.
    pub fn is_doubted(&self) -> bool {
        self.doubt().is_some()
    }

    pub(super) fn store_restored(&mut self, text: String, now_ms: u64) {
        let remind_at_ms = now_ms + self.plan.timing.reminder_ms;
        let event = match self
            .rollout
            .restored
            .as_mut()
            .filter(|found| found.adopted_at_ms.is_none())
        {
            Some(known) if known.text == text => return,
            Some(known) => {
                known.text = text;
                None
            }
            None => {
                let line = format!("{text}; nothing begins: {HINT}");
                self.rollout.restored = Some(RestoredStore {
                    text,
                    since_ms: now_ms,
                    remind_at_ms,
                    adopted_at_ms: None,
                });
                Some(line)
            }
        };
        self.dirty.insert(Key::Rollout);
        if let Some(line) = event {
            self.event(now_ms, "rollout", codes::STORE_RESTORED, line);
        }
    }

    /// The only decisions while the store is in doubt: pause, remind, and an abort's cancelling of what did not begin. Silence of hosts says
    /// nothing: they are not let in.
    pub(super) fn hold_back(&mut self, now_ms: u64) {
        let Some(doubt) = self.doubt().cloned() else {
            return;
        };
        self.pause(codes::STORE_RESTORED, &doubt.text, HINT, "coordinator", now_ms);
        if let Some(pause) = self
            .rollout
            .pause
            .as_mut()
            .filter(|pause| pause.code == codes::STORE_RESTORED && pause.text != doubt.text)
        {
            pause.text.clone_from(&doubt.text);
            self.dirty.insert(Key::Rollout);
        }
        if self.rollout.phase == RolloutPhase::Aborting {
            self.drive_abort(now_ms);
        }
        if doubt.remind_at_ms <= now_ms {
            let next = now_ms + self.plan.timing.reminder_ms.max(1);
            if let Some(found) = &mut self.rollout.restored {
                found.remind_at_ms = next;
            }
            // One reminder is enough for both.
            if let Some(pause) = &mut self.rollout.pause {
                pause.remind_at_ms = next;
            }
            self.dirty.insert(Key::Rollout);
            let text = format!("still nothing begins: {}; {HINT}", doubt.text);
            self.event(now_ms, "rollout", "reminder", text);
        }
    }

    /// Only what lets less happen is taken.
    pub(super) fn refuses_while_doubted(&self, command: &Command) -> bool {
        let reduces = matches!(
            command,
            Command::Pause { .. } | Command::Abort { .. } | Command::Hold { .. } | Command::Skip { .. }
        );
        self.is_doubted() && !reduces
    }

    pub(super) fn not_adopted(&self) -> Answer {
        let text = self.doubt().map_or("", |doubt| doubt.text.as_str());
        refused(codes::STORE_RESTORED, text, HINT)
    }

    /// Open orders go on under the new term, and everybody gets the time that hosts have after a start.
    pub(super) fn store_adopted(&mut self, term: u64, now_ms: u64) {
        let Some(found) = self
            .rollout
            .restored
            .as_mut()
            .filter(|found| found.adopted_at_ms.is_none())
        else {
            return;
        };
        found.adopted_at_ms = Some(now_ms);
        if let Some(pause) = self
            .rollout
            .pause
            .as_mut()
            .filter(|pause| pause.code == codes::STORE_RESTORED)
        {
            pause.text = format!(
                "the restored store was adopted with term {term}; hosts come back and say how they are"
            );
            "`resume` when they are back, or `abort`".clone_into(&mut pause.hint);
        }
        self.dirty.insert(Key::Rollout);
        let text = format!("the restored store was adopted with term {term}");
        self.event(now_ms, "rollout", "store_adopted", text);
        if term > self.rollout.epoch.term {
            self.coordinator_started(term, now_ms);
        }
    }

    /// A host that this store believes untouched and that runs the release of a leg was upgraded after the backup. Without a restored store
    /// this stays a matter of the permit: whoever is upgraded answers that it is done.
    pub(super) fn host_runs(&mut self, host: &HostId, version: PmmVersion, now_ms: u64) {
        if self.rollout.restored.is_none() || self.is_final() {
            return;
        }
        let done = |leg: &crate::plan::Leg| match &leg.kind {
            LegKind::Clients { .. } => {
                let reached = self
                    .plan
                    .entry(&leg.id, host)
                    .is_some_and(|entry| version >= entry.to);
                reached && self.host(&leg.id, host).is_some_and(untouched)
            }
            LegKind::Survey | LegKind::Server { .. } => false,
        };
        let legs: Vec<LegId> = self
            .plan
            .legs
            .iter()
            .filter(|leg| done(leg))
            .map(|leg| leg.id.clone())
            .collect();
        for leg in legs {
            self.enter(&leg, host, HostPhase::AlreadyCurrent, now_ms, |row| {
                row.running = Some(version.to_string());
                row.reason = format!(
                    "it runs {version}: it was upgraded after the backup that the store was restored from"
                );
            });
        }
    }
}

/// Nothing was ever let through here, as far as the store knows.
fn untouched(row: &super::HostRow) -> bool {
    row.phase.before_permit() && row.attempt == 1 && !row.slot && row.permitted_at_ms.is_none()
}
