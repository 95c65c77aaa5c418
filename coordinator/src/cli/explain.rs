//! `explain` and `events`.

use super::Ended;
use super::client::{self, Client};
use super::output::Output;
use super::text::{duration, folded, moment, push_folded, words};
use crate::clock;
use crate::operator_api::documents::{EventsDocument, ExplainedDocument};
use fleet_common::codes::exit;
use fleet_proto::{EventsRequest, ExplainRequest};
use std::fmt::Write as _;

#[derive(clap::Args)]
pub struct ExplainArguments {
    /// `rollout`, `server`, a group's name, or a host's name or id
    #[arg(default_value = "rollout")]
    subject: String,
}

#[derive(clap::Args)]
pub struct EventsArguments {
    /// Only events with a higher number
    #[arg(long, default_value_t = 0)]
    after: u64,
    /// At most this many; 0 for all
    #[arg(long, default_value_t = 0)]
    limit: u32,
}

pub async fn explain(arguments: ExplainArguments, client: &mut Client, output: &Output) -> Ended {
    let request = ExplainRequest {
        subject: arguments.subject,
    };
    let document: ExplainedDocument = client::read(client.explain(request).await)?;
    output.document(&document, |document| explain_text(document, output.width()));
    Ok(exit::OK)
}

pub async fn events(arguments: EventsArguments, client: &mut Client, output: &Output) -> Ended {
    let request = EventsRequest {
        after: arguments.after,
        limit: arguments.limit,
    };
    let document: EventsDocument = client::read(client.events(request).await)?;
    output.document(&document, |document| events_text(document, output.width()));
    Ok(exit::OK)
}

/// Narrowest screen on which an event has its code and its date in its line.
const WIDE: usize = 120;

/// The events, a line each; on a narrow screen without codes, and with the date only where a day begins.
pub fn events_text(document: &EventsDocument, width: usize) -> String {
    let mut text = String::new();
    let mut day = String::new();
    for numbered in &document.events {
        let event = &numbered.event;
        let at = clock::rfc3339(event.at_ms);
        let head = if width >= WIDE {
            format!("{:>5}  {at}  {:<20} ", numbered.sequence, event.code)
        } else {
            let (date, _) = at.split_once('T').unwrap_or((&at, ""));
            if date != day {
                let _ = writeln!(text, "{date} UTC");
                date.clone_into(&mut day);
            }
            format!("{:>5}  {}  ", numbered.sequence, clock::time_of_day(event.at_ms))
        };
        push_folded(&mut text, &head, &event.text, width);
    }
    text
}

/// Width of the names in front.
const NAMES: usize = 10;

/// The explanation: what, why, since when, until when, what to do. Lines are folded at the width.
pub fn explain_text(document: &ExplainedDocument, width: usize) -> String {
    let explained = &document.explained;
    let now_ms = explained.now_ms;
    let mut text = String::new();
    let kind = match explained.subject.split_once(':') {
        Some((kind, _)) => kind,
        None => &explained.subject,
    };
    let name = format!("{kind} {}", explained.name);
    let _ = writeln!(text, "{name}: {}", words(&explained.state));
    let since = format!(
        "{} ({})",
        moment(explained.since_ms, now_ms),
        duration(now_ms.saturating_sub(explained.since_ms))
    );
    entry(&mut text, width, "since", &since);
    entry(&mut text, width, "why", &explained.reason);
    let wait = explained.waits_for.join("; ");
    if !wait.is_empty() {
        let wait = format!("{}: {wait}", who(&explained.owner));
        entry(&mut text, width, "waits for", &wait);
    }
    let ahead = |at: u64| {
        format!(
            "{} (in {})",
            moment(at, now_ms),
            duration(at.saturating_sub(now_ms))
        )
    };
    let mut then = explained.then.as_str();
    if let Some(deadline) = explained.deadline_ms {
        let by = ahead(deadline);
        entry(&mut text, width, "until", &format!("{by} at the latest; {then}"));
        then = "";
    }
    if let Some(reminder) = explained.reminder_ms {
        entry(
            &mut text,
            width,
            "reminder",
            &format!("{}; {then}", ahead(reminder)),
        );
        then = "";
    }
    entry(&mut text, width, "then", then);
    for rule in &explained.rules {
        entry(&mut text, width, "rule", rule);
    }
    for choice in &explained.you_can {
        if choice.command.is_empty() {
            entry(&mut text, width, "you can", &choice.does);
        } else {
            let command = format!("pmm-coordinator {}", choice.command);
            entry(&mut text, usize::MAX, "you can", &command);
            entry(&mut text, width, "", &format!("  {}", choice.does));
        }
    }
    for numbered in &document.events {
        let event = &numbered.event;
        let line = format!("{}  {}", moment(event.at_ms, now_ms), event.text);
        entry(&mut text, width, "event", &line);
    }
    text
}

/// Who must act, as a person says it.
fn who(owner: &str) -> String {
    match owner {
        "operator" => "you".to_owned(),
        "agent" => "the host's agent".to_owned(),
        "pmm_server" => "the PMM Server".to_owned(),
        other => format!("the {}", words(&other)),
    }
}

/// A name and its value; nothing where there is no value.
fn entry(text: &mut String, width: usize, name: &str, value: &str) {
    if value.trim().is_empty() {
        return;
    }
    let indent = value.len() - value.trim_start().len();
    let left = width.saturating_sub(NAMES + 3 + indent).max(20);
    for (number, line) in folded(value.trim_start(), left).iter().enumerate() {
        let name = if number == 0 { name } else { "" };
        let _ = writeln!(text, "  {name:<NAMES$} {:indent$}{line}", "");
    }
}
