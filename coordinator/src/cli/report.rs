//! `report`: every host once, the server, the three checks.

use super::Ended;
use super::client::{self, Client};
use super::output::{Lists, Output};
use super::text::{duration, fold, folded, table_within, words};
use crate::problem::Problem;
use rollout::report::{HostReport, ReportDocument};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::PathBuf;

#[derive(clap::Args)]
pub struct Arguments {
    /// Also write the JSON document to this file
    #[arg(long, value_name = "FILE")]
    file: Option<PathBuf>,
    /// List every host, also on a terminal
    #[arg(long)]
    all: bool,
}

/// Most rows of hosts on a screen, and most names in a line.
const ROWS: usize = 40;
const NAMES: usize = 10;
/// Column at which what a check found begins.
const CHECK: usize = 36;

pub async fn run(arguments: Arguments, client: &mut Client, output: &Output) -> Ended {
    let document: ReportDocument = client::read(client.report(client::empty()).await)?;
    if let Some(file) = &arguments.file {
        let json = serde_json::to_vec_pretty(&document)
            .map_err(|error| Problem::because("the report can't be written as JSON", &error))?;
        fs_err::write(file, json).map_err(|error| Problem::because("the report can't be written", &error))?;
    }
    output.document(&document, |document| {
        text(document, output.width(), output.lists(arguments.all))
    });
    Ok(document.exit_code())
}

/// The report as it is printed.
pub fn text(report: &ReportDocument, width: usize, lists: Lists) -> String {
    let mut text = String::new();
    let _ = writeln!(text, "{}: {}", report.rollout, words(&report.outcome));
    if !report.reason.is_empty() {
        let _ = writeln!(text, "{}", fold(&format!("  {}", report.reason), width, 4));
    }
    if let (Some(start), Some(end)) = (report.started_at_ms, report.ended_at_ms) {
        let _ = writeln!(text, "  took {}", duration(end.saturating_sub(start)));
    }
    let server = &report.server;
    let hops = if server.hops.is_empty() {
        "none".to_owned()
    } else {
        server.hops.join(", ")
    };
    let line = format!(
        "server {}: {} -> {}, {} (hops {hops}; {} s without service)",
        server.name,
        server.from,
        server.to,
        words(&server.outcome),
        server.downtime_s
    );
    let _ = writeln!(text, "\n{}", fold(&line, width, 2));
    if !server.reason.is_empty() {
        let line = format!("  {}: {}", server.reason, server.message);
        let _ = writeln!(text, "{}", fold(&line, width, 4));
    }
    for left in &server.leftovers {
        let _ = writeln!(text, "{}", fold(&format!("  left undone: {left}"), width, 4));
    }
    if !server.restore_points.is_empty() {
        let line = format!("  restore points: {}", server.restore_points.join(", "));
        let _ = writeln!(text, "{}", fold(&line, width, 4));
    }
    let (told, others) = told(&report.hosts, lists);
    let rows: Vec<Vec<String>> = told
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
    if !rows.is_empty() {
        text.push_str(&table_within(
            &[
                "  HOST", "GROUP", "METHOD", "FROM", "TO", "OUTCOME", "TOOK", "REASON",
            ],
            &rows,
            width,
        ));
    }
    for (outcome, count) in &others {
        let _ = writeln!(text, "  {count} more: {}", outcome.replace('_', " "));
    }
    if !others.is_empty() {
        text.push_str("  `report --all` lists every host\n");
    }
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
    if !report.accepted_unmatched.is_empty() {
        let line = format!(
            "left behind, as an operator accepted: {}",
            report.accepted_unmatched.join(", ")
        );
        let _ = writeln!(text, "\n{}", fold(&line, width, 2));
    }
    checks(report, width, lists, &mut text);
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

/// The hosts that are listed, and how many others there are by their outcome. Whoever is on the target needs no look.
fn told(hosts: &[HostReport], lists: Lists) -> (Vec<&HostReport>, BTreeMap<&str, usize>) {
    let whole = lists.shown(hosts.len(), ROWS) == hosts.len();
    let matters =
        |host: &&HostReport| whole || !matches!(host.outcome.as_str(), "upgraded" | "already_current");
    let mut told: Vec<&HostReport> = hosts.iter().filter(matters).collect();
    let mut others: BTreeMap<&str, usize> = BTreeMap::new();
    let beyond = told.split_off(lists.shown(told.len(), ROWS));
    for host in hosts.iter().filter(|host| !matters(host)).chain(beyond) {
        *others.entry(&host.outcome).or_default() += 1;
    }
    (told, others)
}

fn checks(report: &ReportDocument, width: usize, lists: Lists, text: &mut String) {
    let verification = &report.verification;
    let mark = |bad: &[String]| {
        if bad.is_empty() {
            "ok  ".to_owned()
        } else {
            "FAIL".to_owned()
        }
    };
    let names = |bad: &[String]| {
        let shown = lists.shown(bad.len(), NAMES);
        match (bad.len(), bad.len() - shown) {
            (0, _) => String::new(),
            (_, 0) => format!(": {}", bad.join(", ")),
            (_, more) => format!(": {} and {more} more", bad[..shown].join(", ")),
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
        let found = format!("{checked} checked, {} {problem}{}", bad.len(), names(bad));
        let lines = folded(&found, width.saturating_sub(CHECK).max(20));
        for (number, line) in lines.iter().enumerate() {
            let _ = if number == 0 {
                writeln!(text, "  {mark} {what:<28} {line}")
            } else {
                writeln!(text, "{:CHECK$}{line}", "")
            };
        }
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
        let idle = format!(
            "       idle in the hour before, so not checked{}",
            names(&verification.qan_idle)
        );
        let _ = writeln!(text, "{}", fold(&idle, width, 9));
    }
}
