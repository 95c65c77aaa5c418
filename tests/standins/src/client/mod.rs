//! The PMM client programs, and the backup tools that `pmm-agent` runs: one executable, copied under every program's name.
//!
//! Which PMM release a copy plays is written behind its last byte (see [`release`]), so a running process keeps playing the release it
//! was started from while its file on disk is replaced.

pub mod admin;
pub mod agent;
pub mod backup_tools;
pub mod clock;
pub mod config;
pub mod entrypoint;
pub mod exporter;
pub mod fault;
pub mod flags;
pub mod http;
pub mod out;
pub mod release;
pub mod tls;
pub mod vmagent;
pub mod yaml;

use std::path::Path;
use std::process::ExitCode;

/// Runs the program named by `argv[0]`, or by `argv[1]` when started as `standin-client`.
pub fn main(mut args: Vec<String>) -> ExitCode {
    if args.is_empty() {
        return ExitCode::from(2);
    }
    let mut program = base_name(&args[0]);
    args.remove(0);
    if program == "standin-client" {
        if args.is_empty() {
            out::error("usage: standin-client PROGRAM [ARGUMENTS]");
            return ExitCode::from(2);
        }
        program = base_name(&args.remove(0));
    }
    let release = release::Release::current();
    let code = match program.as_str() {
        "pmm-agent" => agent::main(&release, &args),
        "pmm-admin" => admin::main(&release, &args),
        "pmm-agent-entrypoint" => entrypoint::main(&args),
        "vmagent" => vmagent::main(&release, &args),
        name if name.ends_with("_exporter") || name == "nomad" => exporter::main(&release, name, &args),
        other => backup_tools::main(other, &args).unwrap_or_else(|| {
            out::error(&format!("standin-client plays no program named {other}"));
            2
        }),
    };
    ExitCode::from(code)
}

fn base_name(path: &str) -> String {
    Path::new(path)
        .file_name()
        .map_or_else(|| path.to_string(), |n| n.to_string_lossy().into_owned())
}

/// Ends a child together with the `pmm-agent` that started it, as the real one arranges for its exporters.
pub(crate) fn die_with_parent() {
    let _ = rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL));
    let expected = std::env::var("STANDIN_PARENT_PID")
        .ok()
        .and_then(|v| v.parse::<i32>().ok());
    let actual = rustix::process::getppid().map(|p| p.as_raw_nonzero().get());
    if let (Some(expected), Some(actual)) = (expected, actual)
        && expected != actual
    {
        std::process::exit(1);
    }
}
