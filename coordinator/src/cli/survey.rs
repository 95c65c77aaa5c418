//! `survey`: readiness of server and fleet by finding.

use super::Ended;
use super::client::{self, Client};
use super::fleet_file;
use super::output::Output;
use super::text::{duration_ms, table, words};
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
}

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
    output.document(&document, text);
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

fn text(document: &SurveyDocument) -> String {
    let mut text = String::new();
    let release = document.server_version.as_deref().unwrap_or("not reachable");
    let _ = writeln!(text, "server: {release}");
    findings_text(&mut text, &document.server);
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
        let _ = writeln!(
            text,
            "  {mark} {:<16} {} hosts: {}",
            group.check,
            group.hosts.len(),
            group.hosts.join(", ")
        );
        let _ = writeln!(text, "       such as: {}", group.example);
        if !group.hint.is_empty() {
            let _ = writeln!(text, "       hint: {}", group.hint);
        }
    }
    let rows: Vec<Vec<String>> = document
        .hosts
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
    text.push_str(&table(&["  HOST", "STATE", "METHOD", "CLIENT"], &rows));
    text
}

/// Findings, one a line, with their hints.
pub fn findings_text(text: &mut String, findings: &[Finding]) {
    for finding in findings {
        let mark = match finding.verdict {
            Verdict::Pass => "ok  ",
            Verdict::Warn => "warn",
            Verdict::Fail => "FAIL",
        };
        let _ = writeln!(text, "  {mark} {:<16} {}", finding.check, finding.message);
        if !finding.hint.is_empty() && finding.verdict != Verdict::Pass {
            let _ = writeln!(text, "       hint: {}", finding.hint);
        }
    }
}
