//! The only place that prints.
#![allow(clippy::print_stdout)]

use crate::error::HelperError;
use std::error::Error as _;
use std::process::ExitCode;

/// The answer on one line.
pub fn answer(value: &serde_json::Value) -> ExitCode {
    println!("{value}");
    ExitCode::SUCCESS
}

/// The error and its causes on one line.
pub fn failure(error: &HelperError) -> ExitCode {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    println!("{}", serde_json::json!({ "error": text }));
    ExitCode::FAILURE
}
