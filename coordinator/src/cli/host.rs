//! `host`: machines that have enrolled.

use super::Ended;
use super::client::{self, Client};
use super::host_action;
use super::output::Output;
use super::text::{table, table_within};
use crate::operator_api::documents::{DoneDocument, HostDocument, HostsDocument};
use fleet_common::codes::exit;
use fleet_proto::{Action, HoldRequest, HostRequest};
use std::fmt::Write as _;

#[derive(clap::Subcommand)]
pub enum Command {
    /// All hosts
    List,
    /// One host with its inventory and survey
    Show {
        /// Id, name or unique beginning of either
        host: String,
    },
    /// Keep a host out of rollouts
    Hold {
        /// Id, name or unique beginning of either
        host: String,
        /// Why
        #[arg(long, default_value = "")]
        reason: String,
    },
    /// Let a host take part again; lifts a quarantine, too
    Unhold {
        /// Id, name or unique beginning of either
        host: String,
        /// Why
        #[arg(long, default_value = "")]
        reason: String,
    },
    /// Accept a host's certificate no longer, and end its session now
    Revoke {
        /// Id, name or unique beginning of either
        host: String,
        /// Why
        #[arg(long, default_value = "")]
        reason: String,
    },
    /// Restart the client as it is run, and see that it is connected again
    RestartClient(host_action::Arguments),
    /// Have the agent write what a person needs to find a fault into a file on the host, without secrets
    CollectBundle(host_action::Arguments),
    /// Replace the certificate and key of the agent
    Renew(host_action::Arguments),
    /// Replace the agent itself by a release that is signed with a key of the host's policy
    #[command(disable_version_flag = true)]
    SelfUpdate(host_action::UpdateArguments),
    /// Give back the slot that a failed or lost host occupies in its group
    FreeSlot {
        /// Id, name or unique beginning of either
        host: String,
        /// Why it is safe to go on
        #[arg(long)]
        reason: String,
    },
}

pub async fn run(command: Command, client: &mut Client, output: &Output) -> Ended {
    match command {
        Command::List => {
            let document: HostsDocument = client::read(client.list_hosts(client::empty()).await)?;
            output.document(&document, |document| list_text(document, output.width()));
        }
        Command::Show { host } => {
            let request = HostRequest {
                host,
                reason: String::new(),
            };
            let document: HostDocument = client::read(client.show_host(request).await)?;
            output.document(&document, |document| show_text(document, output.width()));
        }
        Command::Hold { host, reason } => done(
            client
                .hold_host(HoldRequest {
                    host,
                    reason,
                    hold: true,
                })
                .await,
            output,
        )?,
        Command::Unhold { host, reason } => {
            done(
                client
                    .hold_host(HoldRequest {
                        host,
                        reason,
                        hold: false,
                    })
                    .await,
                output,
            )?;
        }
        Command::Revoke { host, reason } => {
            done(client.revoke_host(HostRequest { host, reason }).await, output)?
        }
        Command::RestartClient(arguments) => {
            return host_action::run(arguments, Action::RestartClient, client, output).await;
        }
        Command::CollectBundle(arguments) => {
            return host_action::run(arguments, Action::CollectBundle, client, output).await;
        }
        Command::Renew(arguments) => {
            return host_action::run(arguments, Action::Renew, client, output).await;
        }
        Command::SelfUpdate(arguments) => return host_action::update(arguments, client, output).await,
        Command::FreeSlot { host, reason } => {
            done(client.free_slot(HostRequest { host, reason }).await, output)?
        }
    }
    Ok(exit::OK)
}

fn done(
    answer: Result<tonic::Response<fleet_proto::Document>, tonic::Status>,
    output: &Output,
) -> Result<(), crate::problem::Problems> {
    let document: DoneDocument = client::read(answer)?;
    output.document(&document, |document| document.done.clone());
    Ok(())
}

/// All hosts. Where the screen is too narrow, first the ids go, which `host show` and `--json` have.
fn list_text(document: &HostsDocument, width: usize) -> String {
    if document.hosts.is_empty() {
        return "no host has enrolled yet; `pmm-coordinator token create` makes a join token".to_owned();
    }
    let mut head = vec![
        "NAME",
        "CONNECTED",
        "STATE",
        "METHOD",
        "CLIENT",
        "RUN",
        "SURVEY",
        "LABELS",
        "ID",
    ];
    let mut rows: Vec<Vec<String>> = document
        .hosts
        .iter()
        .map(|host| {
            vec![
                host.name.clone(),
                if host.connected { "yes" } else { "no" }.to_owned(),
                host.state.clone(),
                host.method.clone(),
                host.client_version.clone(),
                host.run.clone(),
                host.survey.clone(),
                labels(host),
                host.host.clone(),
            ]
        })
        .collect();
    let whole = table(&head, &rows);
    if whole.lines().all(|line| line.chars().count() <= width) {
        return whole;
    }
    head.pop();
    rows.iter_mut().for_each(|row| drop(row.pop()));
    table_within(&head, &rows, width)
}

fn labels(host: &HostDocument) -> String {
    host.labels
        .iter()
        .map(|(key, value)| format!("{key}={value}"))
        .collect::<Vec<_>>()
        .join(",")
}

fn show_text(host: &HostDocument, width: usize) -> String {
    let mut text = String::new();
    let mut line = |name: &str, value: &str| {
        if !value.is_empty() {
            let _ = writeln!(text, "{name:<12} {value}");
        }
    };
    line("host", &host.name);
    line("id", &host.host);
    line("state", &host.state);
    line("reason", host.reason.as_deref().unwrap_or_default());
    line("connected", if host.connected { "yes" } else { "no" });
    line("last seen", &host.last_seen);
    line("enrolled", &host.enrolled_at);
    line("agent", &host.agent_version);
    line("labels", &labels(host));
    line("method", &host.method);
    line("client", &host.client_version);
    line("run", &host.run);
    if let Some(installation) = host
        .inventory
        .as_ref()
        .and_then(|inventory| inventory.installation())
    {
        line("base dir", &installation.base_dir);
        line("config", &installation.config_file);
        line("pmm agent", &installation.agent_id);
        line("pmm server", &installation.server_address);
        line("credential", &installation.credential);
    }
    line("survey", &host.survey);
    line("surveyed", &host.surveyed_at);
    super::survey::findings_text(&mut text, &host.findings, width);
    text
}
