//! Why the rollout is paused. One reason stands at a time: the first, unless a more important one takes over.

use super::Kernel;
use super::groups::Tally;
use super::rows::Key;
use super::state::{GroupPhase, Pause, RolloutPhase};
use fleet_common::codes;
use fleet_common::ids::LegId;
use std::sync::Arc;

impl Kernel {
    /// Lets nothing begin any more until a person says so. False where that changes nothing.
    pub(super) fn pause(&mut self, code: &str, text: &str, hint: &str, by: &str, now_ms: u64) -> bool {
        let paused = self.rollout.phase == RolloutPhase::Paused;
        let pauses = matches!(
            self.rollout.phase,
            RolloutPhase::Running | RolloutPhase::Checking | RolloutPhase::RollingBack
        );
        let earlier = self.rollout.pause.as_ref().filter(|_| paused);
        if !pauses && !earlier.is_some_and(|earlier| outranks(code, &earlier.code)) {
            return false;
        }
        let before = earlier.and_then(|earlier| match earlier.code.as_str() {
            "operator" => Some(Box::new(earlier.clone())),
            _ => earlier.before.clone(),
        });
        let hint = format!("{hint}{}", before.as_deref().map_or_else(String::new, note));
        let since_ms = earlier.map_or(now_ms, |earlier| earlier.since_ms);
        self.rollout.pause = Some(Pause {
            code: code.to_owned(),
            text: text.to_owned(),
            hint,
            by: by.to_owned(),
            since_ms,
            remind_at_ms: now_ms + self.plan.timing.reminder_ms,
            over_since_ms: None,
            before,
        });
        if paused {
            self.dirty.insert(Key::Rollout);
            let line = format!("rollout: paused, now for another reason: {text}");
            self.event(now_ms, "rollout", "rollout_paused", line);
        } else {
            self.rollout.before_pause = Some(self.rollout.phase);
            self.set_rollout(RolloutPhase::Paused, text, now_ms);
        }
        true
    }

    /// The reason of the pause was dealt with: the rollout goes on, unless an operator had paused it before. True when it goes on.
    pub(super) fn dealt_with(&mut self, text: &str, now_ms: u64) -> bool {
        let Some(before) = self.rollout.pause.as_mut().and_then(|pause| pause.before.take()) else {
            self.go_on(text, now_ms);
            return true;
        };
        let line = format!("rollout: {text}, still paused by {}: {}", before.by, before.text);
        self.rollout.pause = Some(Pause {
            remind_at_ms: now_ms + self.plan.timing.reminder_ms,
            ..*before
        });
        self.dirty.insert(Key::Rollout);
        self.event(now_ms, "rollout", "rollout_paused", line);
        false
    }

    /// `resume` by somebody who may only know of the operator's own pause ends that one, and no more.
    pub(super) fn end_earlier_pause(&mut self, now_ms: u64) -> Option<Pause> {
        let next = now_ms + self.plan.timing.reminder_ms;
        let pause = self.rollout.pause.as_mut()?;
        let before = pause.before.take()?;
        if let Some(hint) = pause.hint.strip_suffix(&note(&before)) {
            pause.hint = hint.to_owned();
        }
        pause.remind_at_ms = next;
        self.dirty.insert(Key::Rollout);
        Some(*before)
    }

    /// `resume` accepts the failures that the pause tells of: it tells of all of them, also of those that came later.
    pub(super) fn retell_failures(&mut self, leg: &LegId, tallies: &[Tally], now_ms: u64) {
        let told = self
            .rollout
            .pause
            .as_ref()
            .filter(|pause| pause.code == "threshold");
        let Some(told) = told.filter(|_| self.rollout.phase == RolloutPhase::Paused) else {
            return;
        };
        let plan = Arc::clone(&self.plan);
        let breached = plan.groups.iter().zip(tallies).filter(|(group, _)| {
            self.group(leg, &group.name)
                .is_some_and(|row| row.phase == GroupPhase::Breached)
        });
        let mut lines: Vec<String> = breached
            .map(|(group, tally)| self.breach_text(leg, group, tally))
            .collect();
        lines.extend(self.rollout_breach_text());
        let text = lines.join("; ");
        if text.is_empty() || text == told.text {
            return;
        }
        if let Some(pause) = &mut self.rollout.pause {
            pause.text.clone_from(&text);
        }
        self.dirty.insert(Key::Rollout);
        self.event(now_ms, "rollout", "pause_cause", format!("more failed: {text}"));
    }
}

/// Who paused it before.
fn note(before: &Pause) -> String {
    format!("; {} had paused it before: {}", before.by, before.text)
}

/// Whether a reason takes over from the one that stands. An operator's own says least of what must be done, and with a server leg that is
/// stuck nothing else helps.
fn outranks(code: &str, stands: &str) -> bool {
    let stuck = |code: &str| {
        matches!(
            code,
            "server_restored" | "server_refused" | "server_needs_operator"
        )
    };
    match code {
        // An operator's own doing, a consequence of the pause, or told by itself for as long as it lasts.
        "operator" | "rollback" | "group_deadline" | codes::STORE_RESTORED => false,
        _ if stuck(code) => !stuck(stands) && stands != codes::STORE_RESTORED,
        _ => stands == "operator",
    }
}
