//! The only place of the client programs that prints.
#![allow(clippy::print_stdout, clippy::print_stderr)]

use std::io::Write;

/// Prints a line to standard output; a closed pipe is not an error worth dying for.
pub fn line(text: &str) {
    let _ = writeln!(std::io::stdout(), "{text}");
}

/// Prints a plain line to standard error.
pub fn error(text: &str) {
    let _ = writeln!(std::io::stderr(), "{text}");
}

/// Logs in the shape of the real programs: level, time, message, component.
pub fn log(level: &str, component: &str, message: &str) {
    let now = super::clock::unix_ms();
    let _ = writeln!(
        std::io::stderr(),
        "{level}[{}] {message}  component={component}",
        super::clock::rfc3339(now)
    );
}
