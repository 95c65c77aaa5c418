//! Between generated messages and the model of `fleet-common`. Inwards everything is validated, outwards everything is total.

use fleet_common::ids;
use fleet_common::order::{Action, HostEvent};

/// A message that does not say what it must.
#[derive(Debug, thiserror::Error)]
pub enum Invalid {
    /// A field that must be set is not.
    #[error("field `{0}` is missing")]
    Missing(&'static str),
    /// An enum number that this version does not know.
    #[error("action number {0} is not known")]
    UnknownAction(i32),
    /// A document that is not the JSON it should be.
    #[error("field `{field}` is not a valid document")]
    Document {
        /// Field name.
        field: &'static str,
        /// What the parser said.
        #[source]
        source: serde_json::Error,
    },
}

impl From<ids::Epoch> for crate::Epoch {
    fn from(epoch: ids::Epoch) -> Self {
        Self {
            term: epoch.term,
            counter: epoch.counter,
        }
    }
}

impl From<crate::Epoch> for ids::Epoch {
    fn from(epoch: crate::Epoch) -> Self {
        Self {
            term: epoch.term,
            counter: epoch.counter,
        }
    }
}

impl From<Action> for crate::Action {
    fn from(action: Action) -> Self {
        match action {
            Action::Probe => Self::Probe,
            Action::Preflight => Self::Preflight,
            Action::Stage => Self::Stage,
            Action::Switch => Self::Switch,
            Action::Verify => Self::Verify,
            Action::Keep => Self::Keep,
            Action::Rollback => Self::Rollback,
            Action::Repoint => Self::Repoint,
            Action::RestartClient => Self::RestartClient,
            Action::CollectBundle => Self::CollectBundle,
            Action::Renew => Self::Renew,
            Action::SelfUpdate => Self::SelfUpdate,
        }
    }
}

/// The action of an order, or that this version does not know it.
pub fn action(number: i32) -> Result<Action, Invalid> {
    match crate::Action::try_from(number) {
        Ok(crate::Action::Probe) => Ok(Action::Probe),
        Ok(crate::Action::Preflight) => Ok(Action::Preflight),
        Ok(crate::Action::Stage) => Ok(Action::Stage),
        Ok(crate::Action::Switch) => Ok(Action::Switch),
        Ok(crate::Action::Verify) => Ok(Action::Verify),
        Ok(crate::Action::Keep) => Ok(Action::Keep),
        Ok(crate::Action::Rollback) => Ok(Action::Rollback),
        Ok(crate::Action::Repoint) => Ok(Action::Repoint),
        Ok(crate::Action::RestartClient) => Ok(Action::RestartClient),
        Ok(crate::Action::CollectBundle) => Ok(Action::CollectBundle),
        Ok(crate::Action::Renew) => Ok(Action::Renew),
        Ok(crate::Action::SelfUpdate) => Ok(Action::SelfUpdate),
        Ok(crate::Action::Unspecified) | Err(_) => Err(Invalid::UnknownAction(number)),
    }
}

/// Reads the body of an event.
pub fn host_event(body: &[u8]) -> Result<HostEvent, Invalid> {
    serde_json::from_slice(body).map_err(|source| Invalid::Document {
        field: "body",
        source,
    })
}

/// Writes the body of an event. A `HostEvent` has no map keys or numbers that JSON can't hold, so this never fails.
pub fn event_body(event: &HostEvent) -> Vec<u8> {
    serde_json::to_vec(event).unwrap_or_default()
}
