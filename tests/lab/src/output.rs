//! The only place that prints.

#![allow(clippy::print_stdout, clippy::print_stderr)]

use std::time::{SystemTime, UNIX_EPOCH};

/// A line about what the lab does now.
pub fn step(text: &str) {
    let seconds = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |d| d.as_secs())
        % 86_400;
    eprintln!(
        "[{:02}:{:02}:{:02}] {text}",
        seconds / 3600,
        seconds / 60 % 60,
        seconds % 60
    );
}

/// A result line.
pub fn line(text: &str) {
    println!("{text}");
}

/// An error with its chain.
pub fn error(error: &anyhow::Error) {
    eprintln!("error: {error}");
    for cause in error.chain().skip(1) {
        eprintln!("  because {cause}");
    }
}
