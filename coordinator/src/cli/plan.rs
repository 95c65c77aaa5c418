//! `plan`: what a rollout would do with which host.

use super::Ended;
use super::client::{self, Client};
use super::output::Output;
use super::text::{duration, table};
use super::{fleet_file, survey};
use crate::operator_api::documents::PlanDocument;
use fleet_common::codes::exit;
use fleet_proto::PlanRequest;
use rollout::plan::{HostAction, LeftOut, LegKind, Plan};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

#[derive(clap::Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct Arguments {
    /// The fleet file
    #[arg(short, long, value_name = "FLEET.TOML")]
    file: Option<PathBuf>,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(clap::Subcommand)]
enum Command {
    /// Print a stored plan
    Show {
        /// Plan id; the newest one if not given
        plan: Option<String>,
    },
}

impl Arguments {
    /// The fleet file, if a plan is to be made.
    pub fn file(&self) -> Option<&Path> {
        self.file.as_deref()
    }
}

pub async fn run(arguments: Arguments, client: &mut Client, output: &Output) -> Ended {
    let answer = match (arguments.command, arguments.file) {
        (Some(Command::Show { plan }), _) => {
            client
                .show_plan(PlanRequest {
                    plan_id: plan.unwrap_or_default(),
                })
                .await
        }
        (None, Some(file)) => client.create_plan(fleet_file::request(&file)?).await,
        (None, None) => {
            return Err(crate::problem::Problems::from(
                crate::problem::Problem::new("a plan needs a fleet file")
                    .hint("`pmm-coordinator plan -f fleet.toml`, or `plan show` for the last one"),
            )
            .exit(exit::USAGE));
        }
    };
    let document: PlanDocument = client::read(answer)?;
    output.document(&document, text);
    Ok(exit::OK)
}

/// The plan as it is printed.
pub fn text(document: &PlanDocument) -> String {
    let plan = &document.plan;
    let mut text = String::new();
    let started = if document.started { " (started)" } else { "" };
    let _ = writeln!(text, "{}{started} from {}", document.plan_id, plan.fleet_file);
    let _ = writeln!(
        text,
        "server {} at {}: {} -> {}",
        plan.server.name, plan.server.url, plan.server.from, plan.server.to
    );
    legs(plan, &mut text);
    hosts(plan, &mut text);
    let unmatched: Vec<String> = plan
        .unmatched
        .iter()
        .map(|client| {
            let beside = if client.beside_server {
                ", beside the server's container"
            } else {
                ""
            };
            format!(
                "{} ({}{beside})",
                client.name,
                client.version.as_deref().unwrap_or("release unknown")
            )
        })
        .collect();
    section(
        &mut text,
        "clients in PMM without our agent (block the start unless accepted with --accept-unmatched)",
        &unmatched,
    );
    let stranded: Vec<String> = plan
        .stranded
        .iter()
        .map(|client| format!("{} at {}: {}", client.name, client.address, client.reason))
        .collect();
    section(
        &mut text,
        "clients that would lose the server (block the start unless accepted with --accept-unmatched)",
        &stranded,
    );
    left_out(
        &mut text,
        "agents whose client PMM does not know",
        &plan.without_node,
    );
    left_out(
        &mut text,
        "hosts that report to another PMM Server",
        &plan.other_server,
    );
    left_out(
        &mut text,
        "hosts that no group matches (never touched)",
        &plan.ungrouped,
    );
    left_out(&mut text, "hosts without a PMM client", &plan.without_client);
    if !plan.blockers.is_empty() {
        let _ = writeln!(text, "\nthese block the start:");
        survey::findings_text(&mut text, &plan.blockers);
    }
    let warnings: Vec<String> = plan
        .warnings
        .iter()
        .map(|warning| format!("{}: {}", warning.subject, warning.message))
        .collect();
    section(&mut text, "worth reading", &warnings);
    text
}

fn legs(plan: &Plan, text: &mut String) {
    let _ = writeln!(text, "\nlegs, in this order:");
    for leg in &plan.legs {
        let what = match &leg.kind {
            LegKind::Survey => "check and stage on server and hosts; changes nothing that runs".to_owned(),
            LegKind::Server { hops, repoint, .. } => {
                let path: Vec<String> = hops.iter().map(|hop| hop.to.to_string()).collect();
                let first = hops.first().map(|hop| hop.from.to_string()).unwrap_or_default();
                let then = match repoint.len() {
                    0 => String::new(),
                    count => format!("; then {count} clients that address the container follow its port"),
                };
                format!("{first} -> {}{then}", path.join(" -> "))
            }
            LegKind::Clients { to, entries, .. } => format!("{} hosts to {to}", entries.len()),
        };
        let _ = writeln!(text, "  {:<10} {what}", leg.id.to_string());
    }
    let _ = writeln!(text, "\ngroups, in this order:");
    let rows: Vec<Vec<String>> = plan
        .groups
        .iter()
        .map(|group| {
            vec![
                format!("  {}", group.name),
                group.hosts.len().to_string(),
                group.canaries.to_string(),
                group.max_unavailable.to_string(),
                group.failure_threshold.to_string(),
                duration(group.soak_ms),
                if group.approval { "needed" } else { "no" }.to_owned(),
            ]
        })
        .collect();
    text.push_str(&table(
        &[
            "  GROUP", "HOSTS", "CANARIES", "WIDTH", "FAILURES", "SOAK", "APPROVAL",
        ],
        &rows,
    ));
}

fn hosts(plan: &Plan, text: &mut String) {
    let rows: Vec<Vec<String>> = plan
        .hosts
        .iter()
        .map(|host| {
            let action = match &host.action {
                HostAction::Upgrade => match &host.repoint {
                    Some(repoint) => format!("repoint {} -> {}, upgrade", repoint.from, repoint.to),
                    None => "upgrade".to_owned(),
                },
                HostAction::AlreadyCurrent => "nothing to do".to_owned(),
                HostAction::Refuse { code, reason, .. } => format!("REFUSED {code}: {reason}"),
            };
            let held = host
                .held
                .as_ref()
                .map(|reason| format!(" (held: {reason})"))
                .unwrap_or_default();
            vec![
                format!("  {}", host.name),
                host.group.to_string(),
                host.wave.to_string(),
                host.method.map(|method| method.to_string()).unwrap_or_default(),
                host.from.map(|from| from.to_string()).unwrap_or_default(),
                host.to.to_string(),
                format!("{action}{held}"),
            ]
        })
        .collect();
    let _ = writeln!(text, "\nhosts:");
    text.push_str(&table(
        &["  HOST", "GROUP", "WAVE", "METHOD", "FROM", "TO", "ACTION"],
        &rows,
    ));
}

fn left_out(text: &mut String, title: &str, hosts: &[LeftOut]) {
    let lines: Vec<String> = hosts
        .iter()
        .map(|host| format!("{}: {}", host.name, host.reason))
        .collect();
    section(text, title, &lines);
}

fn section(text: &mut String, title: &str, lines: &[String]) {
    if lines.is_empty() {
        return;
    }
    let _ = writeln!(text, "\n{title}:");
    for line in lines {
        let _ = writeln!(text, "  {line}");
    }
}
