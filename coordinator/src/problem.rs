//! What an operator reads when something did not work: what happened, where, why, and what to do next. It travels over the operator
//! socket as a document, so that the daemon's hints reach the terminal.

use fleet_common::codes::exit;
use fleet_common::hint::Hint;
use serde::{Deserialize, Serialize};
use std::error::Error;
use std::fmt;

/// One refusal or failure.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// What happened.
    pub message: String,
    /// `file` or `file:line` where there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at: Option<String>,
    /// The causes, outermost first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub because: Vec<String>,
    /// What to do next.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub hints: Vec<String>,
}

impl Problem {
    /// A problem without causes.
    pub fn new(message: impl Into<String>) -> Self {
        Self {
            message: message.into(),
            at: None,
            because: Vec::new(),
            hints: Vec::new(),
        }
    }

    /// A problem with the chain of an error as its causes.
    pub fn because(message: impl Into<String>, error: &dyn Error) -> Self {
        let mut because = vec![error.to_string()];
        let mut source = error.source();
        while let Some(cause) = source {
            because.push(cause.to_string());
            source = cause.source();
        }
        Self {
            because,
            ..Self::new(message)
        }
    }

    /// Takes over an error that knows what to do next.
    pub fn hinted(error: &impl Hint) -> Self {
        let mut problem = Self::new(error.to_string());
        let mut source = error.source();
        while let Some(cause) = source {
            problem.because.push(cause.to_string());
            source = cause.source();
        }
        problem.hints = error.hints();
        problem
    }

    /// Adds advice.
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hints.push(hint.into());
        self
    }

    /// Adds the place.
    pub fn at(mut self, place: impl Into<String>) -> Self {
        self.at = Some(place.into());
        self
    }

    /// The same form as `fleet_common::hint::render`.
    pub fn render(&self) -> String {
        let mut text = match &self.at {
            Some(at) => format!("error: {at}: {}", self.message),
            None => format!("error: {}", self.message),
        };
        for cause in &self.because {
            text.push_str("\n  because ");
            text.push_str(cause);
        }
        for hint in &self.hints {
            text.push_str("\n  hint: ");
            text.push_str(hint);
        }
        text
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(at) = &self.at {
            write!(f, "{at}: ")?;
        }
        f.write_str(&self.message)?;
        for cause in &self.because {
            write!(f, ": {cause}")?;
        }
        Ok(())
    }
}

impl Error for Problem {}

/// Everything that was wrong at once, and the exit status it means.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problems {
    /// At least one.
    pub errors: Vec<Problem>,
    /// One of `fleet_common::codes::exit`.
    pub exit: i32,
}

impl Problems {
    /// Several problems of an ordinary refusal.
    pub fn new(errors: Vec<Problem>) -> Self {
        Self {
            errors,
            exit: exit::FAILED,
        }
    }

    /// Sets the exit status.
    pub fn exit(mut self, status: i32) -> Self {
        self.exit = status;
        self
    }

    /// As a status of the operator API: the document rides in the details.
    pub fn into_status(self) -> tonic::Status {
        let text = self
            .errors
            .iter()
            .map(ToString::to_string)
            .collect::<Vec<_>>()
            .join("; ");
        let details = serde_json::to_vec(&self).unwrap_or_default();
        tonic::Status::with_details(tonic::Code::FailedPrecondition, text, details.into())
    }

    /// Reads what [`Self::into_status`] wrote; any other status becomes one problem.
    pub fn from_status(status: &tonic::Status) -> Self {
        match serde_json::from_slice(status.details()) {
            Ok(problems) => problems,
            Err(_) => Self::new(vec![Problem::new(format!(
                "the coordinator answered {}: {}",
                status.code(),
                status.message()
            ))]),
        }
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.errors.iter().enumerate() {
            if index > 0 {
                f.write_str("; ")?;
            }
            write!(f, "{problem}")?;
        }
        Ok(())
    }
}

impl Error for Problems {}

impl From<Problem> for Problems {
    fn from(problem: Problem) -> Self {
        Self::new(vec![problem])
    }
}

impl From<crate::store::StoreError> for Problem {
    fn from(error: crate::store::StoreError) -> Self {
        Self::because("the coordinator's store refused", &error)
            .hint("run `pmm-coordinator doctor`; a full disk is the usual cause")
    }
}

impl From<crate::store::StoreError> for Problems {
    fn from(error: crate::store::StoreError) -> Self {
        Problem::from(error).into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn problems_survive_the_wire() {
        let problems =
            Problems::new(vec![Problem::new("no").at("fleet.toml:3").hint("yes")]).exit(exit::PAUSED);
        let status = problems.clone().into_status();
        assert_eq!(Problems::from_status(&status), problems);
    }

    #[test]
    fn rendering_names_place_cause_and_hint() {
        let problem = Problem {
            because: vec!["why".into()],
            ..Problem::new("what").at("f:1").hint("next")
        };
        assert_eq!(problem.render(), "error: f:1: what\n  because why\n  hint: next");
    }
}
