//! Hosts one by one: failed, in flight, waiting.

use super::paint::Paint;
use crate::cli::text::{cut, duration, folded, words};
use crate::operator_api::documents::LiveStatus;
use rollout::progress::StatusDocument;

/// Longest lists on the screen; `--json` has all.
const LIST: usize = 12;

pub fn failures(status: &StatusDocument, width: usize, paint: &Paint, all: &mut Vec<String>) {
    if status.failures.is_empty() {
        return;
    }
    all.push(String::new());
    all.push(paint.bold(&format!("failed ({})", status.failures.len())));
    for failure in status.failures.iter().take(LIST) {
        let slot = if failure.slot_held { ", holds a slot" } else { "" };
        let mut line = format!(
            "  {} ({}{slot}) {}",
            failure.name,
            failure.group,
            words(&failure.outcome)
        );
        if !failure.step.is_empty() {
            line.push_str(&format!(" in step {}", failure.step));
        }
        for part in [&failure.code, &failure.reason] {
            if !part.is_empty() {
                line.push_str(&format!(": {part}"));
            }
        }
        for (number, line) in folded(&line, width.saturating_sub(4)).iter().enumerate() {
            let indent = if number == 0 { "  " } else { "    " };
            all.push(paint.red(&format!("{indent}{line}")));
        }
        all.extend(super::hint(&failure.hint, "    ", width));
    }
    more(status.failures.len(), all);
}

pub fn in_flight(live: &LiveStatus, width: usize, paint: &Paint, all: &mut Vec<String>) {
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
        if let Some(progress) = live
            .progress
            .get(&host.host)
            .filter(|progress| progress.step == host.step)
        {
            let percent = if progress.percent > 0 {
                format!("{} % ", progress.percent)
            } else {
                String::new()
            };
            line.push_str(&format!("  {percent}{}", progress.note));
        }
        if !host.waits_for.is_empty() {
            line.push_str(&format!("  waits: {}", host.waits_for));
        }
        all.push(cut(line.trim_end(), width));
    }
    more(status.in_flight.len(), all);
}

pub fn waits(status: &StatusDocument, width: usize, paint: &Paint, all: &mut Vec<String>) {
    if status.waits.is_empty() {
        return;
    }
    all.push(String::new());
    all.push(paint.bold("waiting"));
    for wait in status.waits.iter().take(LIST) {
        let more = if usize::try_from(wait.count).unwrap_or(usize::MAX) > wait.hosts.len() {
            ", ..."
        } else {
            ""
        };
        let hosts = if wait.count == 1 { "host" } else { "hosts" };
        let line = format!(
            "  {} {hosts}: {}; turn of {}: {}{more}",
            wait.count,
            wait.text,
            words(&wait.owner),
            wait.hosts.join(", ")
        );
        all.push(cut(&line, width));
    }
    more(status.waits.len(), all);
}

fn more(count: usize, all: &mut Vec<String>) {
    if count > LIST {
        all.push(format!("  and {} more; --json lists all", count - LIST));
    }
}
