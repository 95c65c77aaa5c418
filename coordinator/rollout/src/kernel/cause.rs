//! Whether the cause of a pause is still there.
//!
//! No pause ends by itself. A host that returned may vanish again, and whoever was called at night wants to find the rollout as it was told
//! to be. So a person resumes; but the screens say that nothing stands against it any more.

use super::Kernel;
use super::rows::Key;
use super::state::LegPhase;
use super::stranded::STRANDED;
use fleet_common::ids::LegId;

impl Kernel {
    /// Keeps the moment since which the cause is gone, and tells it once.
    pub(super) fn look_at_cause(&mut self, now_ms: u64) {
        let Some(pause) = &self.rollout.pause else { return };
        let leg = self.legs.iter().find(|leg| leg.phase == LegPhase::Running);
        let lasts =
            |still: fn(&Self, &LegId, u64) -> bool| leg.is_some_and(|leg| still(self, &leg.leg, now_ms));
        let over = match pause.code.as_str() {
            "slots_exhausted" | "set_exhausted" | "site_exhausted" => {
                !lasts(Self::is_exhausted) && !self.waits_to_go_back()
            }
            "offline" => !lasts(Self::somebody_is_away),
            STRANDED => self.strands().is_none(),
            "bridge_incomplete" => !self.somebody_is_behind(),
            // What the others are about only a person can judge.
            _ => return,
        };
        if over == pause.over_since_ms.is_some() {
            return;
        }
        if let Some(pause) = &mut self.rollout.pause {
            pause.over_since_ms = over.then_some(now_ms);
        }
        self.dirty.insert(Key::Rollout);
        let text = if over {
            "the cause of the pause is gone; nothing begins before `resume`"
        } else {
            "the cause of the pause is back"
        };
        self.event(now_ms, "rollout", "pause_cause", text);
    }
}
