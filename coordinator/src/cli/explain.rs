//! `explain` and `events`.

use super::Ended;
use super::client::{self, Client};
use super::output::Output;
use super::text::{duration, words};
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
    output.document(&document, explain_text);
    Ok(exit::OK)
}

pub async fn events(arguments: EventsArguments, client: &mut Client, output: &Output) -> Ended {
    let request = EventsRequest {
        after: arguments.after,
        limit: arguments.limit,
    };
    let document: EventsDocument = client::read(client.events(request).await)?;
    output.document(&document, |document| {
        document
            .events
            .iter()
            .map(|numbered| {
                let event = &numbered.event;
                format!(
                    "{:>5}  {}  {:<20} {}\n",
                    numbered.sequence,
                    clock::rfc3339(event.at_ms),
                    event.code,
                    event.text
                )
            })
            .collect()
    });
    Ok(exit::OK)
}

fn explain_text(document: &ExplainedDocument) -> String {
    let explained = &document.explained;
    let now_ms = clock::now_ms();
    let mut text = String::new();
    let since = duration(now_ms.saturating_sub(explained.since_ms));
    let _ = writeln!(
        text,
        "{} is {} since {since}",
        explained.name,
        words(&explained.state)
    );
    let mut line = |name: &str, value: &str| {
        if !value.is_empty() {
            let _ = writeln!(text, "  {name:<10} {value}");
        }
    };
    line("why", &explained.reason);
    line("turn of", &words(&explained.owner));
    for wait in &explained.waits_for {
        line("waits for", wait);
    }
    for rule in &explained.rules {
        line("rule", rule);
    }
    if let Some(deadline) = explained.deadline_ms {
        line("until", &clock::rfc3339(deadline));
    }
    if let Some(reminder) = explained.reminder_ms {
        line("reminder", &clock::rfc3339(reminder));
    }
    line("then", &explained.then);
    for option in &explained.you_can {
        line("you can", option);
    }
    for numbered in &document.events {
        line(
            "event",
            &format!(
                "{}  {}",
                clock::rfc3339(numbered.event.at_ms),
                numbered.event.text
            ),
        );
    }
    text
}
