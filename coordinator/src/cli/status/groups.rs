//! Groups with their bars and counts.

use super::paint::{Paint, bar};
use crate::cli::text::{cut, folded, words};
use rollout::kernel::GroupPhase;
use rollout::progress::{Counts, GroupView, StatusDocument};

/// Most hosts that are named as holders of slots.
const HOLDERS: usize = 8;

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
        let mut line = format!(
            "  {name:<name_width$}  {}  {ended:>3}/{:<3} {:<11}",
            bar(ended, group.total, bar_width),
            group.total,
            state(group),
        );
        let numbers = format!(
            "{}; slots {}/{}, failures {}/{}",
            counts(&group.counts),
            group.slots_used,
            group.slots_max,
            group.failures,
            group.failure_threshold,
        );
        // A line of its own rather than numbers that are cut off.
        let fits = line.chars().count() + 1 + numbers.chars().count() <= width;
        if fits {
            line = format!("{line} {numbers}");
        }
        let line = cut(line.trim_end(), width);
        all.push(match group.state {
            GroupPhase::Breached | GroupPhase::RolledBack => paint.red(&line),
            GroupPhase::Done => paint.green(&line),
            _ => line,
        });
        if !fits {
            indented(&numbers, width, all);
        }
        remark(status, group, width, all);
    }
}

/// Its state in a word or two.
pub fn state(group: &GroupView) -> String {
    match group.state {
        GroupPhase::RolledBack if group.going_back > 0 => "rolling back".to_owned(),
        state => words(&state),
    }
}

fn remark(status: &StatusDocument, group: &GroupView, width: usize, all: &mut Vec<String>) {
    if !group.waits_for.is_empty() && group.state != GroupPhase::Done {
        let text = super::said_once(status, &group.waits_for);
        indented(&format!("waits: {text}"), width, all);
    }
    if !group.slot_holders.is_empty() {
        let shown = group.slot_holders.len().min(HOLDERS);
        let more = match group.slot_holders.len() - shown {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        let names = group.slot_holders[..shown].join(", ");
        indented(&format!("slots held by {names}{more}"), width, all);
    }
}

fn indented(text: &str, width: usize, all: &mut Vec<String>) {
    let lines = folded(text, width.saturating_sub(6));
    all.extend(lines.iter().enumerate().map(|(number, line)| {
        let indent = if number == 0 { "    " } else { "      " };
        format!("{indent}{line}")
    }));
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
