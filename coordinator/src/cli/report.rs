//! `report`: every host once, the server, the three checks.

use super::Ended;
use super::client::{self, Client};
use super::output::Output;
use super::text::{duration, table, words};
use crate::problem::Problem;
use rollout::report::ReportDocument;
use std::fmt::Write as _;
use std::path::PathBuf;

#[derive(clap::Args)]
pub struct Arguments {
    /// Also write the JSON document to this file
    #[arg(long, value_name = "FILE")]
    file: Option<PathBuf>,
}

pub async fn run(arguments: Arguments, client: &mut Client, output: &Output) -> Ended {
    let document: ReportDocument = client::read(client.report(client::empty()).await)?;
    if let Some(file) = &arguments.file {
        let json = serde_json::to_vec_pretty(&document)
            .map_err(|error| Problem::because("the report can't be written as JSON", &error))?;
        fs_err::write(file, json).map_err(|error| Problem::because("the report can't be written", &error))?;
    }
    output.document(&document, text);
    Ok(document.exit_code())
}

/// The report as it is printed.
pub fn text(report: &ReportDocument) -> String {
    let mut text = String::new();
    let _ = writeln!(text, "{}: {}", report.rollout, words(&report.outcome));
    if !report.reason.is_empty() {
        let _ = writeln!(text, "  {}", report.reason);
    }
    if let (Some(start), Some(end)) = (report.started_at_ms, report.ended_at_ms) {
        let _ = writeln!(text, "  took {}", duration(end.saturating_sub(start)));
    }
    let server = &report.server;
    let _ = writeln!(
        text,
        "\nserver {}: {} -> {}, {} (hops {}; {} s without service)",
        server.name,
        server.from,
        server.to,
        words(&server.outcome),
        if server.hops.is_empty() {
            "none".to_owned()
        } else {
            server.hops.join(", ")
        },
        server.downtime_s
    );
    if !server.reason.is_empty() {
        let _ = writeln!(text, "  {}: {}", server.reason, server.message);
    }
    for left in &server.leftovers {
        let _ = writeln!(text, "  left undone: {left}");
    }
    if !server.restore_points.is_empty() {
        let _ = writeln!(text, "  restore points: {}", server.restore_points.join(", "));
    }
    let rows: Vec<Vec<String>> = report
        .hosts
        .iter()
        .map(|host| {
            let took: u64 = host.legs.iter().map(|leg| leg.took_s).sum();
            vec![
                format!("  {}", host.name),
                host.group.clone(),
                host.method.clone(),
                host.from.clone(),
                host.to.clone(),
                words(&host.outcome),
                duration(took * 1000),
                host.reason.clone(),
            ]
        })
        .collect();
    let _ = writeln!(text);
    text.push_str(&table(
        &[
            "  HOST", "GROUP", "METHOD", "FROM", "TO", "OUTCOME", "TOOK", "REASON",
        ],
        &rows,
    ));
    let moved: Vec<String> = report
        .hosts
        .iter()
        .filter_map(|host| Some((host, host.repoint.as_ref()?)))
        .map(|(host, found)| {
            format!(
                "  {}: {} -> {} {} {}",
                host.name,
                found.from,
                found.to,
                words(&found.outcome),
                found.reason
            )
        })
        .collect();
    if !moved.is_empty() {
        let _ = writeln!(
            text,
            "\nclients that follow the server's port:\n{}",
            moved.join("\n")
        );
    }
    checks(report, &mut text);
    if !report.disturbances.is_empty() {
        let _ = writeln!(text, "\ndisturbances:");
        for disturbance in &report.disturbances {
            let at = crate::clock::rfc3339(disturbance.at);
            let _ = writeln!(
                text,
                "  {at}  {} in step {}",
                disturbance.target, disturbance.step
            );
        }
    }
    text
}

fn checks(report: &ReportDocument, text: &mut String) {
    let verification = &report.verification;
    let mark = |bad: &[String]| {
        if bad.is_empty() {
            "ok  ".to_owned()
        } else {
            "FAIL".to_owned()
        }
    };
    let names = |bad: &[String]| {
        if bad.is_empty() {
            String::new()
        } else {
            format!(": {}", bad.join(", "))
        }
    };
    let _ = writeln!(text, "\nchecks:");
    let mut line = |what: &str, checked: u32, problem: &str, bad: &[String]| {
        // Nothing looked at is nothing proved.
        let mark = if checked == 0 && bad.is_empty() {
            "-   ".to_owned()
        } else {
            mark(bad)
        };
        let _ = writeln!(
            text,
            "  {mark} {what:<28} {checked} checked, {} {problem}{}",
            bad.len(),
            names(bad)
        );
    };
    line(
        "clients on the target",
        verification.clients_checked,
        "not current",
        &verification.clients_not_current,
    );
    line(
        "services still there",
        verification.services_checked,
        "missing",
        &verification.services_missing,
    );
    line(
        "metrics arriving",
        verification.metrics_checked,
        "stale",
        &verification.metrics_stale,
    );
    line(
        "Query Analytics arriving",
        verification.qan_checked,
        "stale",
        &verification.qan_stale,
    );
    if !verification.qan_idle.is_empty() {
        let _ = writeln!(
            text,
            "       idle in the hour before, so not checked: {}",
            verification.qan_idle.join(", ")
        );
    }
}
