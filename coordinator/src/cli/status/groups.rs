//! Groups with their bars and counts.

use super::paint::{Paint, bar};
use crate::cli::text::{cut, words};
use rollout::kernel::GroupPhase;
use rollout::progress::{Counts, GroupView, StatusDocument};

pub fn groups(status: &StatusDocument, width: usize, paint: &Paint, all: &mut Vec<String>) {
    let name_width = status
        .groups
        .iter()
        .map(|group| group.name.chars().count())
        .max()
        .unwrap_or(0)
        .clamp(5, 24);
    let bar_width = if width >= 120 { 40 } else { 16 };
    let mut leg = "";
    for group in &status.groups {
        if group.leg != leg {
            leg = &group.leg;
            all.push(String::new());
            all.push(paint.bold(leg));
        }
        let ended = ended(&group.counts);
        let name = cut(&group.name, name_width);
        let line = format!(
            "  {name:<name_width$}  {}  {ended:>3}/{:<3} {:<9} {}; slots {}/{}, failures {}/{}",
            bar(ended, group.total, bar_width),
            group.total,
            words(&group.state),
            counts(&group.counts),
            group.slots_used,
            group.slots_max,
            group.failures,
            group.failure_threshold,
        );
        let line = cut(line.trim_end(), width);
        all.push(match group.state {
            GroupPhase::Breached | GroupPhase::RolledBack => paint.red(&line),
            GroupPhase::Done => paint.green(&line),
            _ => line,
        });
        remark(group, width, all);
    }
}

fn remark(group: &GroupView, width: usize, all: &mut Vec<String>) {
    if !group.waits_for.is_empty() && group.state != GroupPhase::Done {
        all.push(cut(&format!("    waits: {}", group.waits_for), width));
    }
    if !group.slot_holders.is_empty() {
        all.push(cut(
            &format!("    slots held by {}", group.slot_holders.join(", ")),
            width,
        ));
    }
}

fn ended(counts: &Counts) -> u32 {
    counts.upgraded
        + counts.already_current
        + counts.rolled_back
        + counts.failed
        + counts.inconsistent
        + counts.lost
        + counts.refused
        + counts.skipped
        + counts.cancelled
}

/// `2 upgraded, 1 rolled back`, without zeros.
pub fn counts(counts: &Counts) -> String {
    let named = [
        (counts.upgraded, "upgraded"),
        (counts.already_current, "current before"),
        (counts.in_flight, "in flight"),
        (counts.ready, "ready"),
        (counts.preparing, "preparing"),
        (counts.waiting, "waiting"),
        (counts.rolled_back, "rolled back"),
        (counts.failed, "failed"),
        (counts.inconsistent, "inconsistent"),
        (counts.lost, "lost"),
        (counts.refused, "refused"),
        (counts.skipped, "skipped"),
        (counts.cancelled, "cancelled"),
    ];
    named
        .iter()
        .filter(|(n, _)| *n > 0)
        .map(|(n, word)| format!("{n} {word}"))
        .collect::<Vec<_>>()
        .join(", ")
}
