//! Golden scenarios: operator scripts against the real kernel in virtual time, and the screens that the program prints.
//!
//! Each file in `scenarios` is one test. It begins with a comment (what to look for) and the fleet; then come commands, each line with
//! `$ ` in front, and below each what it prints. `GOLDEN=accept cargo test -p pmm-coordinator --test golden` writes what is printed now
//! into the files; the difference is then read in `git diff`. A part of a file's name as argument runs only what matches.
//!
//! The hosts here follow a timetable and know no chance, other than those of `fleet-sim`: a screen must not change because dice fall
//! another way.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout, missing_docs)]

mod check;
mod diff;
mod fleet;
mod host;
mod script;
mod server;
mod steps;
mod wish;
mod world;

use std::fmt::Write as _;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// A test: its name, and what is wrong with it.
struct Test {
    name: String,
    run: Box<dyn Fn() -> Result<(), String>>,
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let wanted: Vec<&String> = arguments.iter().filter(|text| !text.starts_with('-')).collect();
    let accept = std::env::var("GOLDEN").is_ok_and(|value| value == "accept");
    let mut tests = check::tests();
    tests.extend(scenarios().into_iter().map(|path| Test {
        name: path.file_stem().unwrap().to_string_lossy().into_owned(),
        run: Box::new(move || golden(&path, accept, script::played)),
    }));
    tests.push(Test {
        name: "explain".to_owned(),
        run: Box::new(move || golden(&directory().join("explain.txt"), accept, situations)),
    });
    tests.retain(|test| wanted.is_empty() || wanted.iter().any(|part| test.name.contains(part.as_str())));
    if arguments.iter().any(|text| text == "--list") {
        for test in &tests {
            println!("{}: test", test.name);
        }
        return ExitCode::SUCCESS;
    }
    println!("\nrunning {} tests", tests.len());
    let mut failures = String::new();
    let mut failed = 0;
    for test in &tests {
        let begun = std::time::Instant::now();
        let result = catch_unwind(AssertUnwindSafe(&test.run))
            .unwrap_or_else(|_| Err("it panicked; the message stands above".to_owned()));
        match result {
            Ok(()) => println!("test {} ... ok ({} ms)", test.name, begun.elapsed().as_millis()),
            Err(why) => {
                println!("test {} ... FAILED", test.name);
                failed += 1;
                let _ = writeln!(failures, "---- {} ----\n{why}\n", test.name);
            }
        }
    }
    println!(
        "\n{failures}test result: {} passed; {failed} failed\n",
        tests.len() - failed
    );
    if failed == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

fn directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden")
}

/// Every file of the directory; one that is no scenario is a mistake that shows when it is read.
fn scenarios() -> Vec<PathBuf> {
    let mut paths: Vec<PathBuf> = std::fs::read_dir(directory().join("scenarios"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    paths.sort();
    paths
}

/// Situations that are explained: many small scenarios in one text, to be read as one.
fn situations(text: &str) -> Result<String, String> {
    let line = format!("\n{}\n", "-".repeat(100));
    let mut all = Vec::new();
    for part in text.split(&line) {
        let title = part.lines().next().unwrap_or_default();
        let played = script::played(part).map_err(|error| format!("{title}: {error}"))?;
        check::says_everything(&played).map_err(|what| format!("{title}: {what}\n{played}"))?;
        all.push(played);
    }
    match all.len() {
        0..20 => Err(format!(
            "{} situations are explained; twenty are the least",
            all.len()
        )),
        _ => Ok(all.join(&line)),
    }
}

fn golden(path: &Path, accept: bool, play: fn(&str) -> Result<String, String>) -> Result<(), String> {
    let committed = std::fs::read_to_string(path).map_err(|error| error.to_string())?;
    let now = play(&committed)?;
    if now == committed {
        return Ok(());
    }
    if accept {
        return std::fs::write(path, now).map_err(|error| error.to_string());
    }
    Err(format!(
        "{} (- committed, + printed now)\n{}\nIf this is meant: `GOLDEN=accept cargo test -p pmm-coordinator --test golden {}`, then read `git diff`.",
        path.display(),
        diff::lines(&committed, &now),
        path.file_stem().unwrap_or_default().to_string_lossy()
    ))
}
