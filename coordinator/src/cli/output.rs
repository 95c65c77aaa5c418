//! The one place that prints. A reader that went away (a closed pipe) is not an error, and no success either: the command goes on
//! without words, so that its exit status says what it would have said.
#![allow(clippy::print_stdout, clippy::print_stderr)]

use crate::problem::Problems;
use serde::Serialize;
use std::io::{self, IsTerminal as _, Write as _};
use std::sync::atomic::{AtomicBool, Ordering};

/// Whether lists of hundreds are shown whole, or what matters of them with the number of the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lists {
    /// Everything.
    Whole,
    /// What matters.
    Folded,
}

impl Lists {
    /// How many of so many are shown, if a screen has room for `most`.
    pub fn shown(self, count: usize, most: usize) -> usize {
        match self {
            Self::Whole => count,
            Self::Folded => count.min(most),
        }
    }
}

/// Where results go.
pub struct Output {
    json: bool,
    /// Nobody reads the results any more.
    unread: AtomicBool,
}

impl Output {
    pub fn new(json: bool) -> Self {
        Self {
            json,
            unread: AtomicBool::new(false),
        }
    }

    /// Whether the reader of the results went away.
    pub fn is_unread(&self) -> bool {
        self.unread.load(Ordering::Relaxed)
    }

    /// Whether JSON was asked for.
    pub fn is_json(&self) -> bool {
        self.json
    }

    /// Whether stdout is a terminal and colors are welcome.
    pub fn colors(&self) -> bool {
        !self.json
            && io::stdout().is_terminal()
            && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
    }

    /// Whether stdout is a terminal.
    pub fn is_terminal(&self) -> bool {
        io::stdout().is_terminal()
    }

    /// How long lists are: whole where that was asked for and where nobody scrolls, such as in a pipe.
    pub fn lists(&self, all: bool) -> Lists {
        if all || !self.is_terminal() {
            Lists::Whole
        } else {
            Lists::Folded
        }
    }

    /// Columns of the terminal, up to 200. Nothing is cut off for a pipe.
    pub fn width(&self) -> usize {
        self.size().0
    }

    /// Columns and rows of the terminal.
    pub fn size(&self) -> (usize, usize) {
        match crossterm::terminal::size() {
            Ok((columns, rows)) if self.is_terminal() => {
                (usize::from(columns).clamp(40, 200), usize::from(rows).max(10))
            }
            _ => (10_000, usize::MAX),
        }
    }

    /// A result: the document as JSON, or its text.
    pub fn document<T: Serialize>(&self, document: &T, text: impl FnOnce(&T) -> String) {
        if self.json {
            match serde_json::to_string_pretty(document) {
                Ok(json) => self.line(&json),
                Err(error) => eprintln!("error: the answer can't be printed: {error}"),
            }
        } else {
            self.line(text(document).trim_end_matches('\n'));
        }
    }

    /// A document as one line of JSON.
    pub fn json_line<T: Serialize>(&self, document: &T) {
        if let Ok(json) = serde_json::to_string(document) {
            self.line(&json);
        }
    }

    /// A line of a result.
    pub fn line(&self, text: &str) {
        self.raw(&format!("{text}\n"));
    }

    /// Text as it is.
    pub fn raw(&self, text: &str) {
        if self.is_unread() {
            return;
        }
        let mut stdout = io::stdout().lock();
        let written = stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush());
        if let Err(error) = written {
            if error.kind() == io::ErrorKind::BrokenPipe {
                self.unread.store(true, Ordering::Relaxed);
                return;
            }
            eprintln!("error: can't write the result: {error}");
        }
    }

    /// A remark that is not a result.
    pub fn note(&self, text: &str) {
        eprintln!("{text}");
    }

    /// What went wrong.
    pub fn problems(&self, problems: &Problems) {
        if self.json {
            if let Ok(json) = serde_json::to_string_pretty(problems) {
                eprintln!("{json}");
            }
            return;
        }
        for problem in &problems.errors {
            eprintln!("{}", problem.render());
        }
    }
}
