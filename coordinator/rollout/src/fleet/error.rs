//! One finding about a fleet file.

use fleet_common::hint::Hint;
use serde::Serialize;
use std::fmt;

/// Why a fleet file, or a plan made from it, is refused.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct FleetError {
    /// The file as the operator typed it.
    pub file: String,
    /// Line from 1, where there is one.
    pub line: Option<usize>,
    /// What is wrong.
    pub reason: String,
    /// What to do next; may be empty.
    pub hint: String,
}

impl fmt::Display for FleetError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            Some(line) => write!(f, "{}:{line}: {}", self.file, self.reason),
            None => write!(f, "{}: {}", self.file, self.reason),
        }
    }
}

impl std::error::Error for FleetError {}

impl Hint for FleetError {
    fn hints(&self) -> Vec<String> {
        if self.hint.is_empty() {
            Vec::new()
        } else {
            vec![self.hint.clone()]
        }
    }
}

/// Collects findings while a file is read, so that one run names all of them.
#[derive(Debug)]
pub(crate) struct Findings<'a> {
    file: &'a str,
    text: &'a str,
    errors: Vec<FleetError>,
}

impl<'a> Findings<'a> {
    pub(crate) fn new(file: &'a str, text: &'a str) -> Self {
        Self {
            file,
            text,
            errors: Vec::new(),
        }
    }

    /// Line from 1 of a byte offset.
    pub(crate) fn line(&self, offset: usize) -> usize {
        let end = offset.min(self.text.len());
        1 + self.text.as_bytes()[..end]
            .iter()
            .filter(|byte| **byte == b'\n')
            .count()
    }

    pub(crate) fn add(&mut self, offset: Option<usize>, reason: impl Into<String>, hint: impl Into<String>) {
        let line = offset.map(|offset| self.line(offset));
        self.errors.push(FleetError {
            file: self.file.to_owned(),
            line,
            reason: reason.into(),
            hint: hint.into(),
        });
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.errors.is_empty()
    }

    pub(crate) fn into_errors(mut self) -> Vec<FleetError> {
        self.errors.sort_by_key(|error| error.line);
        self.errors
    }
}
