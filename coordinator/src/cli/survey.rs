//! `survey`: readiness of server and fleet by finding.

use super::Ended;
use super::client::{self, Client};
use super::fleet_file;
use super::output::{Lists, Output};
use super::text::{duration_ms, push_folded, table, words};
use fleet_common::codes::exit;
use fleet_common::survey::{Finding, Verdict};
use fleet_proto::SurveyRequest;
use rollout::survey::SurveyDocument;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

#[derive(clap::Args)]
pub struct Arguments {
    /// The fleet file
    #[arg(short, long, value_name = "FLEET.TOML")]
    file: PathBuf,
    /// Longest wait for all hosts: 90s, 10m
    #[arg(long, default_value = "10m", value_parser = duration_ms)]
    wait: u64,
    /// List every host, also on a terminal
    #[arg(long)]
    all: bool,
}

/// Most rows of hosts on a screen, and most names in a line.
const ROWS: usize = 40;
const NAMES: usize = 10;

impl Arguments {
    /// The fleet file.
    pub fn file(&self) -> &Path {
        &self.file
    }
}

pub async fn run(arguments: Arguments, client: &mut Client, output: &Output) -> Ended {
    let fleet = fleet_file::request(&arguments.file)?;
    let request = SurveyRequest {
        path: fleet.path,
        text: fleet.text,
        wait_for_ms: arguments.wait,
    };
    let document: SurveyDocument = client::read(client.survey(request).await)?;
    output.document(&document, |document| {
        text(document, output.width(), output.lists(arguments.all))
    });
    let server_ready = document
        .server
        .iter()
        .all(|finding| finding.verdict != Verdict::Fail);
    Ok(
        if server_ready && document.hosts_not_ready == 0 && document.hosts_unanswered == 0 {
            exit::OK
        } else {
            exit::EXCEPTIONS
        },
    )
}

fn text(document: &SurveyDocument, width: usize, lists: Lists) -> String {
    let mut text = String::new();
    let release = document.server_version.as_deref().unwrap_or("not reachable");
    let _ = writeln!(text, "server: {release}");
    findings_text(&mut text, &document.server, width);
    let _ = writeln!(
        text,
        "\nfleet: {} ready, {} not ready, {} without an answer",
        document.hosts_ready, document.hosts_not_ready, document.hosts_unanswered
    );
    for group in document
        .findings
        .iter()
        .filter(|group| group.verdict != Verdict::Pass)
    {
        let mark = if group.verdict == Verdict::Fail {
            "FAIL"
        } else {
            "warn"
        };
        let shown = lists.shown(group.hosts.len(), NAMES);
        let more = match group.hosts.len() - shown {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        let head = format!("  {mark} {:<16} ", group.check);
        let hosts = format!(
            "{} hosts: {}{more}",
            group.hosts.len(),
            group.hosts[..shown].join(", ")
        );
        push_folded(&mut text, &head, &hosts, width);
        push_folded(&mut text, "       such as: ", &group.example, width);
        if !group.hint.is_empty() {
            push_folded(&mut text, "       hint: ", &group.hint, width);
        }
    }
    let whole = lists.shown(document.hosts.len(), ROWS) == document.hosts.len();
    let mut told: Vec<_> = document.hosts.iter().collect();
    told.retain(|host| whole || host.state != "ready");
    told.truncate(lists.shown(told.len(), ROWS));
    let rows: Vec<Vec<String>> = told
        .iter()
        .map(|host| {
            vec![
                format!("  {}", host.name),
                words(&host.state),
                host.method.clone(),
                host.version.clone(),
            ]
        })
        .collect();
    let _ = writeln!(text);
    if !rows.is_empty() {
        text.push_str(&table(&["  HOST", "STATE", "METHOD", "CLIENT"], &rows));
    }
    if rows.len() < document.hosts.len() {
        let more = document.hosts.len() - rows.len();
        let _ = writeln!(text, "  {more} more hosts; --all lists them");
    }
    text
}

/// Findings, one a line, with their hints.
pub fn findings_text(text: &mut String, findings: &[Finding], width: usize) {
    for finding in findings {
        let mark = match finding.verdict {
            Verdict::Pass => "ok  ",
            Verdict::Warn => "warn",
            Verdict::Fail => "FAIL",
        };
        let line = format!("  {mark} {:<16} ", finding.check);
        push_folded(text, &line, &finding.message, width);
        if !finding.hint.is_empty() && finding.verdict != Verdict::Pass {
            push_folded(text, "       hint: ", &finding.hint, width);
        }
    }
}
