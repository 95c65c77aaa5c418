//! `status`: the rollout on one screen. The renderer is given only the document and a width; `watch` redraws the same lines.

mod groups;
mod lists;
mod paint;

pub use groups::counts;
pub use paint::{Paint, bar, stamp};

use super::Ended;
use super::client::{self, Client};
use super::output::Output;
use super::text::{cut, duration, words};
use crate::operator_api::documents::LiveStatus;
use fleet_common::codes::{self, exit};
use rollout::kernel::LegPhase;
use rollout::progress::{HopView, ServerView, StatusDocument};

pub async fn run(client: &mut Client, output: &Output) -> Ended {
    let document: LiveStatus = client::read(client.status(client::empty()).await)?;
    let paint = Paint {
        colors: output.colors(),
    };
    output.document(&document, |document| {
        lines(document, output.width(), &paint).join("\n")
    });
    Ok(exit::OK)
}

/// The whole screen. No line is wider than `width` characters.
pub fn lines(live: &LiveStatus, width: usize, paint: &Paint) -> Vec<String> {
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
    head(status, width, paint, &mut all);
    for server in &status.server {
        server_lines(server, status.now_ms, width, paint, &mut all);
    }
    groups::groups(status, width, paint, &mut all);
    lists::failures(status, width, paint, &mut all);
    lists::in_flight(live, width, paint, &mut all);
    lists::waits(status, width, paint, &mut all);
    all
}

fn head(status: &StatusDocument, width: usize, paint: &Paint, all: &mut Vec<String>) {
    let state = words(&status.state);
    let since = status
        .started_at_ms
        .map(|start| status.ended_at_ms.unwrap_or(status.now_ms).saturating_sub(start));
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
        let line = format!(
            "paused by {} for {}: {}",
            pause.by,
            duration(status.now_ms.saturating_sub(pause.since_ms)),
            pause.text
        );
        all.push(paint.yellow(&cut(&line, width)));
        if !pause.hint.is_empty() {
            all.push(cut(&format!("  hint: {}", pause.hint), width));
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
    all.push(cut(&legs.join(" > "), width));
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
        all.push(cut(&format!("     {}", hop.reason), width));
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
        let mut line = format!(
            "     {} step {}/{} {}  {time}",
            bar(done, step.of, 20),
            step.index,
            step.of,
            step.step
        );
        if !step.waits_for.is_empty() {
            line.push_str(&format!("  waits: {}", step.waits_for));
        }
        if step.took_ms.is_none() && step.deadline_ms > now_ms {
            line.push_str(&format!("  given up in {}", duration(step.deadline_ms - now_ms)));
        }
        all.push(cut(&line, width));
    }
}

#[cfg(test)]
mod tests;
