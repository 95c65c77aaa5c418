//! How errors reach a person: one message per link of the chain, then what to do next.
//!
//! Rule for every error type: a message never repeats its source, because the printer walks the chain.

use std::error::Error;
use std::fmt::Write as _;

/// Errors that know what the reader should do next.
pub trait Hint: Error {
    /// Lines of advice, most useful first; empty when there is nothing to add.
    fn hints(&self) -> Vec<String>;
}

/// The chain as text: `error: <message>`, `  because <source>` per link, and `  hint: <line>` at the end.
pub fn render(error: &dyn Error, hints: &[String]) -> String {
    let mut text = format!("error: {error}");
    let mut source = error.source();
    while let Some(cause) = source {
        let _ = write!(text, "\n  because {cause}");
        source = cause.source();
    }
    for hint in hints {
        let _ = write!(text, "\n  hint: {hint}");
    }
    text
}

/// The chain in one line, for logs and events.
pub fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let _ = write!(text, ": {cause}");
        source = cause.source();
    }
    text
}
