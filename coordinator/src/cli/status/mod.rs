//! `status`: the rollout on one screen. The renderer is given only the document and a width; `watch` redraws the same lines.

mod groups;
mod lists;
mod paint;

pub use groups::{counts, state};
pub use paint::{Paint, bar, stamp};

use super::Ended;
use super::client::{self, Client};
use super::output::{Lists, Output};
use super::text::{cut, duration, folded, words};
use crate::operator_api::documents::LiveStatus;
use fleet_common::codes::{self, exit};
use rollout::kernel::LegPhase;
use rollout::progress::{Estimate, HopView, ServerView, StatusDocument};

#[derive(clap::Args)]
pub struct Arguments {
    /// List every host with an order and every failure, also on a terminal
    #[arg(long)]
    all: bool,
}

pub async fn run(arguments: Arguments, client: &mut Client, output: &Output) -> Ended {
    let document: LiveStatus = client::read(client.status(client::empty()).await)?;
    let paint = Paint {
        colors: output.colors(),
    };
    output.document(&document, |document| {
        let lists = output.lists(arguments.all);
        lines(document, output.width(), lists, &paint).join("\n")
    });
    Ok(exit::OK)
}

/// The whole screen. No line is wider than `width` characters.
pub fn lines(live: &LiveStatus, width: usize, lists: Lists, paint: &Paint) -> Vec<String> {
    let mut all = Vec::new();
    let status = &live.status;
    // A pause with this reason says it already.
    let said = status
        .paused
        .as_ref()
        .is_some_and(|pause| pause.code == codes::STORE_RESTORED);
    if let Some(text) = live.store_restored.as_ref().filter(|_| !said) {
        all.push(paint.red(&cut(text, width)));
        all.push(cut(&format!("  hint: {}", crate::store::ADOPT_HINT), width));
    }
    head(live, width, paint, &mut all);
    for server in &status.server {
        server_lines(server, status.now_ms, width, paint, &mut all);
    }
    groups::groups(status, width, paint, &mut all);
    let screen = lists::Screen { width, lists, paint };
    screen.failures(status, &mut all);
    screen.in_flight(live, &mut all);
    screen.preparing(live, &mut all);
    screen.waits(status, &mut all);
    all
}

fn head(live: &LiveStatus, width: usize, paint: &Paint, all: &mut Vec<String>) {
    let status = &live.status;
    let state = words(&status.state);
    let since = status
        .started_at_ms
        .map(|start| status.ended_at_ms.unwrap_or(status.now_ms).saturating_sub(start));
    let mut line = format!("{}  {state}", status.rollout);
    if let Some(since) = since {
        line.push_str(&format!("  {}", duration(since)));
    }
    if status.total > 0 {
        let ended = if status.done == status.upgraded {
            ""
        } else {
            " ended"
        };
        line.push_str(&format!("  {}/{} hosts{ended}", status.done, status.total));
    }
    if let Some(estimate) = &status.estimate {
        line.push_str(&format!("  {}", left(estimate)));
    }
    all.push(paint.bold(&cut(&line, width)));
    if !status.headline.is_empty() {
        all.push(cut(&status.headline, width));
    }
    if let Some(pause) = &status.paused {
        let line = format!(
            "paused by {} for {}: {}",
            pause.by,
            duration(status.now_ms.saturating_sub(pause.since_ms)),
            pause.text
        );
        let lines = folded(&line, width.saturating_sub(2));
        all.extend(lines.iter().enumerate().map(|(number, line)| {
            let indent = if number == 0 { "" } else { "  " };
            paint.yellow(&format!("{indent}{line}"))
        }));
        match pause.over_since_ms {
            Some(over) => {
                let since = duration(status.now_ms.saturating_sub(over));
                let text =
                    format!("  its cause has been gone for {since}; a pause lasts until a person resumes");
                all.push(paint.yellow(&cut(&text, width)));
                all.extend(hint("`resume`: hosts begin again", "  ", width));
            }
            None => all.extend(hint(&pause.hint, "  ", width)),
        }
    }
    let legs: Vec<String> = status
        .legs
        .iter()
        .map(|leg| {
            let parts = if leg.total > 0 {
                format!(" {}/{}", leg.done, leg.total)
            } else {
                String::new()
            };
            format!("{} {}{parts}", leg.leg, words(&leg.state))
        })
        .collect();
    if let Some(waiting) = &live.waiting_plan {
        let text = format!(
            "{} waits for `adopt`; it follows the plan that runs",
            waiting.plan
        );
        let mut lines = folded(&text, width);
        lines.extend(to_type(
            "what it changes:",
            "pmm-coordinator plan show",
            &waiting.plan,
            width,
        ));
        lines.extend(to_type(
            "to let it do so:",
            "pmm-coordinator adopt",
            &waiting.plan,
            width,
        ));
        all.extend(lines.iter().map(|line| paint.yellow(line)));
    }
    all.push(cut(&legs.join(" > "), width));
}

/// A command on lines of its own and never cut, so that it can be copied.
fn to_type(what: &str, command: &str, plan: &str, width: usize) -> Vec<String> {
    let fits = |line: &String| line.chars().count() <= width;
    let line = format!("  {what}   {command} {plan}");
    if fits(&line) {
        return vec![line];
    }
    let whole = format!("    {command} {plan}");
    let mut lines = vec![format!("  {what}")];
    if fits(&whole) {
        lines.push(whole);
    } else {
        lines.extend([format!("    {command} \\"), format!("      {plan}")]);
    }
    lines
}

/// How long it may take, or how long until a person is waited for.
pub fn left(estimate: &Estimate) -> String {
    let about = duration(estimate.remaining_ms);
    match &estimate.until {
        Some(until) => format!("about {about} until {until}"),
        None => format!("about {about} left"),
    }
}

/// A plan that could take over, with the command to type.
pub fn waiting_plan(live: &LiveStatus) -> Option<String> {
    let waiting = live.waiting_plan.as_ref()?;
    Some(format!(
        "{plan} follows {} and waits for `pmm-coordinator adopt {plan}`",
        waiting.follows,
        plan = waiting.plan
    ))
}

/// A wait for the end of the pause, without the pause's reason, which stands above.
fn said_once<'a>(status: &StatusDocument, text: &'a str) -> &'a str {
    let reason = status.paused.as_ref().map_or("", |pause| &pause.text);
    text.strip_suffix(reason)
        .and_then(|text| text.strip_suffix(": "))
        .filter(|_| !reason.is_empty())
        .unwrap_or(text)
}

/// What to do next, whole: it is what the reader looks for.
fn hint(text: &str, indent: &str, width: usize) -> Vec<String> {
    let left = width.saturating_sub(indent.len() + 6);
    folded(text, left)
        .iter()
        .enumerate()
        .map(|(number, line)| {
            let name = if number == 0 { "hint: " } else { "      " };
            format!("{indent}{name}{line}")
        })
        .collect()
}

/// Waiting clients that are named on the screen; `--json` has all.
const REPOINTS: usize = 5;

fn server_lines(server: &ServerView, now_ms: u64, width: usize, paint: &Paint, all: &mut Vec<String>) {
    all.push(String::new());
    let title = format!(
        "{}  {}  {} -> {}  {}",
        server.leg,
        server.name,
        server.from,
        server.to,
        words(&server.state)
    );
    all.push(paint.bold(&cut(&title, width)));
    for hop in &server.hops {
        hop_lines(hop, now_ms, width, paint, all);
    }
    if let Some(repoint) = &server.repoint {
        let line = format!(
            "  clients that follow its port: {} of {}, {} under way",
            repoint.done,
            repoint.total,
            repoint.under_way.len()
        );
        all.push(cut(&line, width));
        for waiting in repoint.waiting.iter().take(REPOINTS) {
            all.push(cut(&format!("    {waiting}"), width));
        }
        for failed in &repoint.failed {
            all.push(paint.red(&cut(&format!("    {failed}"), width)));
        }
    }
    if server.hops.is_empty() && server.state == LegPhase::Settled {
        all.push("  nothing to do".to_owned());
    }
}

fn hop_lines(hop: &HopView, now_ms: u64, width: usize, paint: &Paint, all: &mut Vec<String>) {
    let mut line = format!(
        "  {}. {:<7} -> {:<7}  {:<10}",
        hop.number,
        hop.from,
        hop.to,
        words(&hop.state)
    );
    if let Some(start) = hop.started_at_ms {
        line.push_str(&format!(
            "  {}",
            duration(hop.ended_at_ms.unwrap_or(now_ms).saturating_sub(start))
        ));
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
        let lines = folded(&hop.reason, width.saturating_sub(5));
        all.extend(lines.iter().map(|line| format!("     {line}")));
    }
    for left in &hop.leftovers {
        all.push(paint.yellow(&cut(&format!("     left undone: {left}"), width)));
    }
    if hop.state != "running" {
        return;
    }
    if let Some(step) = hop.steps.last() {
        let done = if step.state == "running" {
            step.index.saturating_sub(1)
        } else {
            step.index
        };
        let time = duration(
            step.took_ms
                .unwrap_or_else(|| now_ms.saturating_sub(step.since_ms)),
        );
        let line = format!(
            "     {} step {}/{} {}  {time}",
            bar(done, step.of, 20),
            step.index,
            step.of,
            step.step
        );
        let mut parts = Vec::new();
        if !step.waits_for.is_empty() {
            parts.push(format!("waits: {}", step.waits_for));
        }
        if step.took_ms.is_none() && step.deadline_ms > now_ms {
            parts.push(format!("given up in {}", duration(step.deadline_ms - now_ms)));
        }
        let whole = format!("{line}  {}", parts.join("  "));
        if whole.trim_end().chars().count() <= width {
            all.push(whole.trim_end().to_owned());
        } else {
            all.push(cut(&line, width));
            let rest = folded(&parts.join("; "), width.saturating_sub(7));
            all.extend(rest.iter().map(|line| format!("       {line}")));
        }
    }
}

#[cfg(test)]
mod tests;
