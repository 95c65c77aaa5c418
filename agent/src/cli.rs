//! The command line.

use crate::config::{CONFIG_DIR, Paths, STATE_DIR};
use crate::execute::{start, worker};
use crate::host::files;
use crate::host::transaction;
use crate::link::enrol::{self, Enrolment};
use crate::{output, policy, service};
use anyhow::Context;
use clap::{Parser, Subcommand};
use client_upgrade::journal::Folded;
use fleet_common::inventory::{Detection, Inventory, RunKind};
use fs_err as fs;
use std::collections::BTreeMap;
use std::io::Read;
use std::path::PathBuf;

/// Upgrades this host's PMM client under the coordinator's orders.
#[derive(Debug, Parser)]
#[command(name = "pmm-upgrade-agent", version, about)]
pub struct Cli {
    /// Configuration directory.
    #[arg(long, global = true, default_value = CONFIG_DIR)]
    config_dir: PathBuf,
    /// State directory.
    #[arg(long, global = true, default_value = STATE_DIR)]
    state_dir: PathBuf,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Join a coordinator with a token.
    Enrol {
        /// `https://host:port` of the coordinator's enrolment listener.
        #[arg(long)]
        coordinator: String,
        /// File with the join token, `-` for standard input.
        #[arg(long)]
        token_file: String,
        /// `host:port` of the session listener, if it is not the same host's port 9443.
        #[arg(long)]
        session: Option<String>,
        /// Label that groups can match on, `key=value`; may be repeated.
        #[arg(long = "label", value_parser = label)]
        labels: Vec<(String, String)>,
    },
    /// Keep the session to the coordinator and carry out its orders.
    Run,
    /// Show what is installed here and what that rests on.
    Detect {
        /// As a document.
        #[arg(long)]
        json: bool,
    },
    /// Show enrolment, hold and the current order.
    Status {
        /// As a document.
        #[arg(long)]
        json: bool,
    },
    /// Refuse every order that would change this host, except an ordered way back of a switch that was made before the hold.
    Hold {
        /// Why.
        reason: String,
    },
    /// Lift the hold.
    Unhold,
    /// Inside of a transient unit.
    #[command(hide = true)]
    Transaction {
        /// Its directory.
        dir: PathBuf,
    },
    /// Inside of a transient unit: replaces the agent itself.
    #[command(hide = true)]
    Guardian {
        /// Its directory.
        dir: PathBuf,
    },
    /// Inside of a scope: becomes what standard input says.
    #[command(hide = true)]
    Launch,
}

fn label(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("a label is key=value")?;
    Ok((key.to_owned(), value.to_owned()))
}

/// Carries the command out.
pub fn run(cli: Cli) -> anyhow::Result<()> {
    let paths = Paths::new(&cli.config_dir, &cli.state_dir);
    match cli.command {
        Command::Enrol {
            coordinator,
            token_file,
            session,
            labels,
        } => {
            let token = token(&token_file)?;
            let wish = Enrolment {
                coordinator,
                session,
                labels: labels.into_iter().collect::<BTreeMap<_, _>>(),
            };
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()?;
            let host_id = runtime.block_on(enrol::enrol(&paths, &wish, &token))?;
            output::line(&format!(
                "enrolled as {host_id}; start it with `systemctl start pmm-upgrade-agent`"
            ));
            Ok(())
        }
        Command::Run => service::run(&paths),
        Command::Detect { json } => detect(&paths, json),
        Command::Status { json } => status(&paths, json),
        Command::Hold { reason } => {
            paths.prepare()?;
            files::replace(&paths.hold(), reason.as_bytes(), files::PRIVATE)?;
            output::line("held: orders that would change this host are refused");
            Ok(())
        }
        Command::Unhold => {
            files::remove(&paths.hold())?;
            output::line("not held");
            Ok(())
        }
        Command::Transaction { dir } => {
            transaction::carry_out(&dir).with_context(|| format!("transaction {}", dir.display()))
        }
        Command::Guardian { dir } => {
            crate::guardian::run(&dir).with_context(|| format!("guardian {}", dir.display()))
        }
        Command::Launch => start::launch(std::io::stdin()).context("launch"),
    }
}

fn token(file: &str) -> anyhow::Result<String> {
    if file != "-" {
        return Ok(fs::read_to_string(file)?);
    }
    let mut text = String::new();
    std::io::stdin().read_to_string(&mut text)?;
    Ok(text)
}

fn detect(paths: &Paths, json: bool) -> anyhow::Result<()> {
    let config = crate::config::AgentConfig::load(paths).unwrap_or_default();
    let inventory = worker::inventory(paths, &config, &policy::load(paths)?);
    if json {
        output::line(&serde_json::to_string_pretty(&inventory)?);
    } else {
        output::line(&described(&inventory));
    }
    Ok(())
}

fn described(inventory: &Inventory) -> String {
    let mut lines: Vec<String> = inventory.pmm_server.iter().cloned().collect();
    match &inventory.client {
        Detection::NotInstalled => lines.push("no PMM client on this host".to_owned()),
        Detection::Refused {
            code,
            message,
            evidence,
        } => {
            lines.push(format!("not touched ({code}): {message}"));
            lines.extend(evidence.iter().map(|line| format!("  {line}")));
        }
        Detection::Installed(found) => {
            let run = match &found.run {
                RunKind::Systemd { unit, enabled } => {
                    format!("{unit}{}", if *enabled { "" } else { " (not enabled)" })
                }
                RunKind::ByHand { user } => format!("started by hand as {user}"),
                RunKind::Stopped => "not running".to_owned(),
            };
            lines.push(format!(
                "PMM client {} by {} in {}, {run}",
                found.version, found.method, found.base_dir
            ));
            lines.push(format!(
                "  agent id {}, server {}",
                found.agent_id, found.server_address
            ));
            lines.extend(found.evidence.iter().map(|line| format!("  {line}")));
        }
    }
    lines.join("\n")
}

fn status(paths: &Paths, json: bool) -> anyhow::Result<()> {
    let config = crate::config::AgentConfig::load(paths).unwrap_or_default();
    let host_id = fs::read_to_string(paths.host_id())
        .ok()
        .map(|text| text.trim().to_owned());
    let journal: Folded = crate::journal::Journal::read(paths)?;
    let running = journal.order.as_ref().filter(|_| journal.finished.is_none());
    let held = worker::held(paths);
    let link: crate::link::state::Persisted = files::read_json(&paths.link()).unwrap_or_default();
    if json {
        let document = serde_json::json!({
            "host_id": host_id,
            "coordinator": config.coordinator,
            "labels": config.labels,
            "held": held,
            "session_number": link.session_number,
            "highest_epoch": link.highest_epoch,
            "quarantined": link.quarantined,
            "running_order": running.map(|order| &order.order_id),
            "step": journal.open,
            "last_result": journal.finished,
        });
        output::line(&serde_json::to_string_pretty(&document)?);
        return Ok(());
    }
    output::line(&match &host_id {
        Some(id) => format!("enrolled as {id} with {}", config.coordinator),
        None => "not enrolled".to_owned(),
    });
    if let Some(reason) = held {
        output::line(&format!("held: {reason}"));
    }
    if link.quarantined {
        output::line("quarantined: two machines use this identity");
    }
    match (running, &journal.finished) {
        (Some(order), _) => {
            let step = journal.open.map_or("", client_upgrade::procedure::StepId::as_str);
            output::line(&format!(
                "order {} ({}) runs, step {step}",
                order.order_id,
                order.action.as_str()
            ));
        }
        (None, Some(result)) => output::line(&format!("last order: {:?} {}", result.outcome, result.message)),
        (None, None) => output::line("no order so far"),
    }
    Ok(())
}
