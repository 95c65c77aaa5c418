//! Volume work of the PMM Server leg, run as root in a helper container without network. Static, so that it runs in any PMM image.
//!
//! ```text
//! volume-helper sync    --from /srv --to /backup/data --manifest /backup/manifest [--live]   copy; again: only what changed
//! volume-helper own     --root /srv --uid 1000 --gid 0 --record /backup/owners               change owners, keep the old ones
//! volume-helper restore --from /backup/data --to /srv                                        bring the copy back
//! volume-helper compare --from /backup/data --to /srv                                        contents, owners, modes, times
//! volume-helper look    --root /srv [--space /] [--count] [--uid 1000 --gid 0]               markers, sizes, free space
//! ```
//!
//! All but `compare` take `--leave /srv/nginx`, as often as needed: what the operator mounts read-only is left alone. The two that write
//! leave alone whatever is mounted read-only, named or not.
//!
//! The answer is one JSON object on the last line of stdout; the exit status is 0 only when all was done. Every command can be killed
//! and run again.

mod args;
mod compare;
mod entry;
mod error;
mod file;
mod look;
mod manifest;
mod mounts;
mod out;
mod own;
mod restore;
mod sync;
#[cfg(test)]
mod tests;

use error::HelperError;
use std::process::ExitCode;

fn main() -> ExitCode {
    match run() {
        Ok(answer) => out::answer(&answer),
        Err(error) => out::failure(&error),
    }
}

fn run() -> Result<serde_json::Value, HelperError> {
    let args = args::Args::parse(std::env::args().skip(1))?;
    let report = match args.command.as_str() {
        "sync" => serde_json::to_value(sync::run(
            args.path("from")?,
            args.path("to")?,
            args.path("manifest")?,
            args.live,
            &args.leave,
        )?),
        "own" => serde_json::to_value(own::run(
            args.path("root")?,
            args.number("uid")?,
            args.number("gid")?,
            args.path("record")?,
            &args.leave,
        )?),
        "restore" => serde_json::to_value(restore::run(args.path("from")?, args.path("to")?, &args.leave)?),
        "compare" => serde_json::to_value(compare::run(args.path("from")?, args.path("to")?)?),
        "look" => serde_json::to_value(look::run(
            args.path("root")?,
            args.path("space").ok(),
            args.count,
            &args.leave,
            args.number("uid").ok().zip(args.number("gid").ok()),
        )?),
        other => return Err(HelperError::Usage(format!("unknown command `{other}`"))),
    };
    report.map_err(HelperError::Json)
}
