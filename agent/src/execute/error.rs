//! Why a step did not do what it should.

use crate::host::command::ToolError;
use crate::host::http::HttpError;
use fleet_common::codes;
use fleet_common::hint::chain;
use fleet_common::order::Outcome;

/// A failed step. The message is for people and never holds secrets.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct StepError {
    /// Stable code.
    pub code: &'static str,
    /// What happened.
    pub message: String,
    /// The outcome, where the step knows it better than its position does.
    pub outcome: Option<Outcome>,
}

/// What steps return.
pub type StepResult<T> = Result<T, StepError>;

impl StepError {
    /// With a code.
    pub fn new(code: &'static str, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
            outcome: None,
        }
    }

    /// A refusal: nothing was begun.
    pub fn refused(code: &'static str, message: impl Into<String>) -> Self {
        Self {
            outcome: Some(Outcome::Refused),
            ..Self::new(code, message)
        }
    }

    /// The same under a code, unless it already has one of its own.
    pub fn or_code(self, code: &'static str) -> Self {
        if self.code == codes::INTERNAL {
            Self { code, ..self }
        } else {
            self
        }
    }
}

impl From<std::io::Error> for StepError {
    fn from(error: std::io::Error) -> Self {
        Self::new(codes::INTERNAL, chain(&error))
    }
}

impl From<ToolError> for StepError {
    fn from(error: ToolError) -> Self {
        Self::new(codes::INTERNAL, chain(&error))
    }
}

impl From<HttpError> for StepError {
    fn from(error: HttpError) -> Self {
        Self::new(codes::INTERNAL, chain(&error))
    }
}
