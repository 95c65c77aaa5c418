//! The one place that prints: a line to standard output, which supervisord sends to the program's file under `/srv/logs`.
#![allow(clippy::print_stdout)]

use std::io::Write;

/// Prints one line with the time in front.
pub fn line(text: impl AsRef<str>) {
    let now = jiff::Timestamp::now();
    say(format!("{now:.3} {}", text.as_ref()));
}

/// Prints one line as it is.
pub fn say(text: impl AsRef<str>) {
    let mut out = std::io::stdout().lock();
    // Nobody can be told when standard output is gone.
    let _ = writeln!(out, "{}", text.as_ref()).and_then(|()| out.flush());
}
