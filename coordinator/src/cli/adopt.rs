//! `doctor --adopt-epoch`: goes on with a store that was restored. Through the coordinator where one runs; else on the data directory, under
//! the lock that keeps a coordinator out.

use super::Ended;
use super::client;
use super::output::Output;
use super::serve;
use crate::clock;
use crate::config::DataDir;
use crate::engine::nothing_to_adopt;
use crate::operator_api::documents::DoneDocument;
use crate::problem::{Problem, Problems};
use crate::store::{ADOPT_HINT, Restored, Store};
use fleet_common::codes::exit;
use std::io::{self, IsTerminal as _};
use std::os::unix::net::UnixStream;

/// What the operator must type.
const WORD: &str = "adopt";

pub fn run(data: &DataDir, yes: bool, output: &Output) -> Ended {
    let restored = Store::restored_in(&data.store())?.ok_or_else(nothing_to_adopt)?;
    if !yes {
        confirm(&restored, output)?;
    }
    let document = if UnixStream::connect(data.socket()).is_ok() {
        let mut done = None;
        client::with(data, async |client| {
            done = Some(client::read::<DoneDocument>(
                client.adopt_epoch(client::empty()).await,
            )?);
            Ok(exit::OK)
        })?;
        done.ok_or_else(|| Problem::new("the coordinator did not answer"))?
    } else {
        offline(data)?
    };
    output.document(&document, |document| document.done.clone());
    Ok(exit::OK)
}

fn meaning(restored: &Restored) -> String {
    format!(
        "{}.\n\n\
         To adopt the store means:\n\
         - what happened after the backup is not in it, and is lost here for good: events, audit lines, hosts that enrolled, certificates that\n  \
           were renewed. Such hosts must enrol again;\n\
         - the term rises above {}, so that every order of the newer store loses its effect. If another coordinator still runs on the newer\n  \
           store, stop this one instead and go on with that one;\n\
         - each host may come back once with a session number that the store does not know. Two machines with one identity are still found;\n\
         - a rollout under way stays paused until `resume`. Hosts that were upgraded meanwhile say so; nothing is done twice.",
        restored.text(),
        restored.highest
    )
}

/// No prompt without a terminal.
fn confirm(restored: &Restored, output: &Output) -> Result<(), Problems> {
    let text = meaning(restored);
    if output.is_json() || !io::stdin().is_terminal() {
        return Err(Problem::new(text)
            .hint("give the command again with --yes if this is meant")
            .into());
    }
    output.note(&format!("{text}\n\nType `{WORD}` to go on:"));
    let mut line = String::new();
    io::stdin()
        .read_line(&mut line)
        .map_err(|error| Problem::because("no answer could be read", &error))?;
    if line.trim() == WORD {
        Ok(())
    } else {
        Err(Problem::new("not adopted; nothing was changed")
            .hint(ADOPT_HINT)
            .into())
    }
}

/// No coordinator runs, and none can start meanwhile.
fn offline(data: &DataDir) -> Result<DoneDocument, Problems> {
    let _lock = serve::lock(data)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Problem::because("no runtime for the store", &error))?;
    let who = format!("uid {}", rustix::process::geteuid().as_raw());
    let term = runtime
        .block_on(async { Store::open(&data.store())?.adopt(who, clock::now_ms()).await })?
        .ok_or_else(nothing_to_adopt)?;
    Ok(DoneDocument {
        done: format!(
            "the store is adopted with term {term}; start `pmm-coordinator serve`, agents are let in when they come next"
        ),
    })
}
