//! `status`: the rollout on one screen. The renderer is given only the document and a width; `watch` redraws the same lines.

use super::Ended;
use super::client::{self, Client};
use super::output::Output;
use super::text::{cut, duration, words};
use crate::clock;
use crate::operator_api::documents::LiveStatus;
use fleet_common::codes::exit;
use rollout::kernel::{GroupPhase, LegPhase};
use rollout::progress::{Counts, GroupView, HopView, ServerView, StatusDocument};

/// Longest lists on the screen; `--json` has all.
const LIST: usize = 12;

pub async fn run(client: &mut Client, output: &Output) -> Ended {
    let document: LiveStatus = client::read(client.status(client::empty()).await)?;
    let paint = Paint { colors: output.colors() };
    output.document(&document, |document| lines(document, output.width(), &paint).join("\n"));
    Ok(exit::OK)
}

/// Colors, where they are welcome.
pub struct Paint {
    pub colors: bool,
}

impl Paint {
    fn with(&self, code: &str, text: &str) -> String {
        if self.colors { format!("\u{1b}[{code}m{text}\u{1b}[0m") } else { text.to_owned() }
    }
    fn bold(&self, text: &str) -> String { self.with("1", text) }
    fn red(&self, text: &str) -> String { self.with("31", text) }
    fn yellow(&self, text: &str) -> String { self.with("33", text) }
    fn green(&self, text: &str) -> String { self.with("32", text) }
}

/// The whole screen. No line is wider than `width` characters.
pub fn lines(live: &LiveStatus, width: usize, paint: &Paint) -> Vec<String> {
    let mut all = Vec::new();
    let status = &live.status;
    head(status, width, paint, &mut all);
    for server in &status.server {
        server_lines(server, status.now_ms, width, paint, &mut all);
    }
    groups(status, width, paint, &mut all);
    failures(status, width, paint, &mut all);
    in_flight(live, width, paint, &mut all);
    waits(status, width, paint, &mut all);
    all
}

fn head(status: &StatusDocument, width: usize, paint: &Paint, all: &mut Vec<String>) {
    let state = words(&status.state);
    let since = status.started_at_ms.map(|start| status.ended_at_ms.unwrap_or(status.now_ms).saturating_sub(start));
    let mut line = format!("{}  {state}", status.rollout);
    if let Some(since) = since {
        line.push_str(&format!("  {}", duration(since)));
    }
    if status.total > 0 {
        line.push_str(&format!("  {}/{} hosts", status.done, status.total));
    }
    if let Some(estimate) = &status.estimate {
        line.push_str(&format!("  about {} left", duration(estimate.remaining_ms)));
    }
    all.push(paint.bold(&cut(&line, width)));
    if !status.headline.is_empty() {
        all.push(cut(&status.headline, width));
    }
    if let Some(pause) = &status.paused {
        let line = format!("paused by {} for {}: {}", pause.by, duration(status.now_ms.saturating_sub(pause.since_ms)), pause.text);
        all.push(paint.yellow(&cut(&line, width)));
        if !pause.hint.is_empty() {
            all.push(cut(&format!("  hint: {}", pause.hint), width));
        }
    }
    let legs: Vec<String> = status
        .legs
        .iter()
        .map(|leg| {
            let parts = if leg.total > 0 { format!(" {}/{}", leg.done, leg.total) } else { String::new() };
            format!("{} {}{parts}", leg.leg, words(&leg.state))
        })
        .collect();
    all.push(cut(&legs.join(" > "), width));
}

fn server_lines(server: &ServerView, now_ms: u64, width: usize, paint: &Paint, all: &mut Vec<String>) {
    all.push(String::new());
    let title = format!("{}  {}  {} -> {}  {}", server.leg, server.name, server.from, server.to, words(&server.state));
    all.push(paint.bold(&cut(&title, width)));
    for hop in &server.hops {
        hop_lines(hop, now_ms, width, paint, all);
    }
    if server.hops.is_empty() && server.state == LegPhase::Settled {
        all.push("  nothing to do".to_owned());
    }
}

fn hop_lines(hop: &HopView, now_ms: u64, width: usize, paint: &Paint, all: &mut Vec<String>) {
    let mut line = format!("  {}. {:<7} -> {:<7}  {:<10}", hop.number, hop.from, hop.to, words(&hop.state));
    if let Some(start) = hop.started_at_ms {
        line.push_str(&format!("  {}", duration(hop.ended_at_ms.unwrap_or(now_ms).saturating_sub(start))));
    }
    if hop.attempt > 1 {
        line.push_str(&format!("  attempt {}", hop.attempt));
    }
    let line = cut(line.trim_end(), width);
    all.push(match hop.state.as_str() {
        "settled" => paint.green(&line),
        "restored" | "needs_operator" | "refused" => paint.red(&line),
        _ => line,
    });
    if !hop.reason.is_empty() {
        all.push(cut(&format!("     {}", hop.reason), width));
    }
    if hop.state != "running" {
        return;
    }
    if let Some(step) = hop.steps.last() {
        let done = if step.state == "running" { step.index.saturating_sub(1) } else { step.index };
        let time = duration(step.took_ms.unwrap_or_else(|| now_ms.saturating_sub(step.since_ms)));
        let mut line = format!("     {} step {}/{} {}  {time}", bar(done, step.of, 20), step.index, step.of, step.step);
        if !step.waits_for.is_empty() {
            line.push_str(&format!("  waits: {}", step.waits_for));
        }
        if step.took_ms.is_none() && step.deadline_ms > now_ms {
            line.push_str(&format!("  given up in {}", duration(step.deadline_ms - now_ms)));
        }
        all.push(cut(&line, width));
    }
}

fn groups(status: &StatusDocument, width: usize, paint: &Paint, all: &mut Vec<String>) {
    let name_width = status.groups.iter().map(|group| group.name.chars().count()).max().unwrap_or(0).clamp(5, 24);
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
            GroupPhase::Breached => paint.red(&line),
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
        all.push(cut(&format!("    slots held by {}", group.slot_holders.join(", ")), width));
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
    named.iter().filter(|(n, _)| *n > 0).map(|(n, word)| format!("{n} {word}")).collect::<Vec<_>>().join(", ")
}

fn failures(status: &StatusDocument, width: usize, paint: &Paint, all: &mut Vec<String>) {
    if status.failures.is_empty() {
        return;
    }
    all.push(String::new());
    all.push(paint.bold(&format!("failed ({})", status.failures.len())));
    for failure in status.failures.iter().take(LIST) {
        let slot = if failure.slot_held { ", holds a slot" } else { "" };
        let mut line = format!("  {} ({}{slot}) {}", failure.name, failure.group, words(&failure.outcome));
        if !failure.step.is_empty() {
            line.push_str(&format!(" in step {}", failure.step));
        }
        for part in [&failure.code, &failure.reason] {
            if !part.is_empty() {
                line.push_str(&format!(": {part}"));
            }
        }
        all.push(paint.red(&cut(&line, width)));
        if !failure.hint.is_empty() {
            all.push(cut(&format!("    hint: {}", failure.hint), width));
        }
    }
    more(status.failures.len(), all);
}

fn in_flight(live: &LiveStatus, width: usize, paint: &Paint, all: &mut Vec<String>) {
    let status = &live.status;
    if status.in_flight.is_empty() {
        return;
    }
    all.push(String::new());
    all.push(paint.bold(&format!("in flight ({})", status.in_flight.len())));
    for host in status.in_flight.iter().take(LIST) {
        let step = if host.step.is_empty() {
            String::new()
        } else if host.of > 0 {
            format!("  step {}/{} {}", host.index, host.of, host.step)
        } else {
            format!("  step {}", host.step)
        };
        let mut line = format!(
            "  {} ({})  {}{step}  {}",
            host.name,
            host.group,
            words(&host.state),
            duration(status.now_ms.saturating_sub(host.since_ms))
        );
        if !host.connected {
            line.push_str("  NOT CONNECTED");
        }
        if host.attempt > 1 {
            line.push_str(&format!("  attempt {}", host.attempt));
        }
        if let Some(progress) = live.progress.get(&host.host).filter(|progress| progress.step == host.step) {
            let percent = if progress.percent > 0 { format!("{} % ", progress.percent) } else { String::new() };
            line.push_str(&format!("  {percent}{}", progress.note));
        }
        if !host.waits_for.is_empty() {
            line.push_str(&format!("  waits: {}", host.waits_for));
        }
        all.push(cut(line.trim_end(), width));
    }
    more(status.in_flight.len(), all);
}

fn waits(status: &StatusDocument, width: usize, paint: &Paint, all: &mut Vec<String>) {
    if status.waits.is_empty() {
        return;
    }
    all.push(String::new());
    all.push(paint.bold("waiting"));
    for wait in status.waits.iter().take(LIST) {
        let more = if usize::try_from(wait.count).unwrap_or(usize::MAX) > wait.hosts.len() { ", ..." } else { "" };
        let hosts = if wait.count == 1 { "host" } else { "hosts" };
        let line =
            format!("  {} {hosts}: {}; turn of {}: {}{more}", wait.count, wait.text, words(&wait.owner), wait.hosts.join(", "));
        all.push(cut(&line, width));
    }
    more(status.waits.len(), all);
}

fn more(count: usize, all: &mut Vec<String>) {
    if count > LIST {
        all.push(format!("  and {} more; --json lists all", count - LIST));
    }
}

/// `[######----]`. Full only when everything is done.
pub fn bar(done: u32, total: u32, width: usize) -> String {
    let total = usize::try_from(total).unwrap_or(usize::MAX);
    let done = usize::try_from(done).unwrap_or(usize::MAX).min(total);
    let filled = done.saturating_mul(width).checked_div(total).unwrap_or(0);
    format!("[{}{}]", "#".repeat(filled), "-".repeat(width.saturating_sub(filled)))
}

/// `03:05:28`, for lines.
pub fn stamp(ms: u64) -> String { clock::time_of_day(ms) }

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn screen(fixture: &str, width: usize) -> Vec<String> {
        let live: LiveStatus = serde_json::from_str(fixture).unwrap();
        lines(&live, width, &Paint { colors: false })
    }

    const HOP: &str = include_str!("fixtures/hop.json");
    const GROUP: &str = include_str!("fixtures/group.json");
    const PAUSED: &str = include_str!("fixtures/paused.json");
    const END: &str = include_str!("fixtures/end.json");

    #[test]
    fn no_line_is_wider_than_the_screen() {
        for fixture in [HOP, GROUP, PAUSED, END] {
            for width in [80, 200] {
                for line in screen(fixture, width) {
                    assert!(line.chars().count() <= width, "{width}: {line}");
                }
            }
        }
    }

    #[test]
    fn the_screen_shows_what_matters() {
        let has = |fixture: &str, text: &str| {
            let lines = screen(fixture, 80);
            assert!(lines.iter().any(|line| line.contains(text)), "no `{text}` in:\n{}", lines.join("\n"));
        };
        has(HOP, "2. 2.44.1  -> 3.7.1    running");
        has(HOP, "step 1/3 inspect");
        has(HOP, "4 hosts: leg server-1 is not settled; turn of coordinator: db-0");
        has(GROUP, "about 2s left");
        has(GROUP, "canary  [################]    1/1   done");
        has(GROUP, "db-2 (rest)  verifying");
        has(PAUSED, "paused by coordinator");
        has(PAUSED, "hint: `retry`");
        has(PAUSED, "db-0 (canary) rolled back in step install: install_failed");
        has(END, "succeeded");
    }

    #[test]
    fn colors_only_where_they_are_welcome() {
        let live: LiveStatus = serde_json::from_str(PAUSED).unwrap();
        assert!(lines(&live, 80, &Paint { colors: true }).iter().any(|line| line.contains("\u{1b}[31m")));
        assert!(!screen(PAUSED, 80).iter().any(|line| line.contains('\u{1b}')));
    }

    #[test]
    fn bars_are_full_only_at_the_end() {
        assert_eq!(bar(0, 0, 4), "[----]");
        assert_eq!(bar(2, 3, 4), "[##--]");
        assert_eq!(bar(3, 3, 4), "[####]");
        assert_eq!(bar(9, 3, 4), "[####]");
    }
}
