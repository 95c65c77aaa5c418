//! `plan`: what a rollout would do with which host.

use super::Ended;
use super::client::{self, Client};
use super::fleet_file;
use super::output::Output;
use super::plan_text::{diff_text, text};
use crate::clock;
use crate::operator_api::documents::{PlanDiffDocument, PlanDocument};
use crate::problem::{Problem, Problems};
use fleet_common::codes::exit;
use fleet_proto::{PlanDiffRequest, PlanRequest};
use std::path::{Path, PathBuf};

#[derive(clap::Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct Arguments {
    /// The fleet file
    #[arg(short, long, value_name = "FLEET.TOML")]
    file: Option<PathBuf>,
    /// Only read the fleet file and say what it means; no coordinator is needed
    #[arg(long, requires = "file")]
    check: bool,
    /// List every host, also on a terminal
    #[arg(long)]
    all: bool,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(clap::Subcommand)]
enum Command {
    /// Print a stored plan
    Show {
        /// Plan id; the newest one if not given
        plan: Option<String>,
        /// List every host, also on a terminal
        #[arg(long)]
        all: bool,
    },
    /// What is different between two plans, or between a plan and the fleet as it is now
    Diff {
        /// Plan id
        plan: String,
        /// The other plan; `now` for one that is made anew, and not kept, of the fleet file as it was when the plan was made
        #[arg(default_value = "now")]
        other: String,
        /// List every change, also on a terminal
        #[arg(long)]
        all: bool,
    },
}

impl Arguments {
    /// The fleet file, if a plan is to be made.
    pub fn file(&self) -> Option<&Path> {
        self.file.as_deref()
    }

    /// The fleet file, if it is only to be checked.
    pub fn file_to_check(&self) -> Option<&Path> {
        self.file().filter(|_| self.check)
    }
}

pub async fn run(arguments: Arguments, client: &mut Client, output: &Output) -> Ended {
    let mut all = arguments.all;
    let answer = match (arguments.command, arguments.file) {
        (Some(Command::Diff { plan, other, all }), _) => {
            let request = PlanDiffRequest { plan_id: plan, other };
            let document: PlanDiffDocument = client::read(client.diff_plan(request).await)?;
            output.document(&document, |document| {
                diff_text(document, output.width(), output.lists(all))
            });
            return Ok(exit::OK);
        }
        (Some(Command::Show { plan, all: whole }), _) => {
            all = whole;
            client
                .show_plan(PlanRequest {
                    plan_id: plan.unwrap_or_default(),
                })
                .await
        }
        (None, Some(file)) => client.create_plan(fleet_file::request(&file)?).await,
        (None, None) => {
            return Err(Problems::from(
                Problem::new("a plan needs a fleet file")
                    .hint("`pmm-coordinator plan -f fleet.toml`, or `plan show` for the last one"),
            )
            .exit(exit::USAGE));
        }
    };
    let document: PlanDocument = client::read(answer)?;
    output.document(&document, |document| {
        text(document, clock::now_ms(), output.width(), output.lists(all))
    });
    Ok(exit::OK)
}
