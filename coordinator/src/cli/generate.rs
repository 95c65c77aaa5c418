//! What is made from the definition of the command line itself: completions and manual pages.

use super::Ended;
use super::output::Output;
use crate::problem::Problem;
use fleet_common::codes::exit;
use std::path::PathBuf;

#[derive(clap::Args)]
pub struct CompletionsArguments {
    /// The shell
    shell: clap_complete::Shell,
}

#[derive(clap::Args)]
pub struct ManArguments {
    /// Existing directory that the pages are written to
    directory: PathBuf,
}

pub fn completions(arguments: &CompletionsArguments, mut command: clap::Command, output: &Output) -> Ended {
    let name = command.get_name().to_owned();
    let mut script = Vec::new();
    clap_complete::generate(arguments.shell, &mut command, name, &mut script);
    output.raw(&String::from_utf8_lossy(&script));
    Ok(exit::OK)
}

pub fn man(arguments: &ManArguments, command: clap::Command, output: &Output) -> Ended {
    clap_mangen::generate_to(command, &arguments.directory).map_err(|error| {
        let shown = arguments.directory.display();
        Problem::because(format!("the manual pages can't be written to {shown}"), &error)
            .hint("name a directory that exists and that you may write to")
    })?;
    output.note(&format!(
        "the manual pages are in {}",
        arguments.directory.display()
    ));
    Ok(exit::OK)
}
