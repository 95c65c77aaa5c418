//! Identifiers. All of them are opaque strings outside; each has its own type so that they can't be mixed up.
//!
//! A copy shares its text: the kernel names a host in every row, order and event, and a fleet has tens of thousands of hosts. Copies of one
//! are known as equal without a look at the text.

use serde::{Deserialize, Serialize};
use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

macro_rules! id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Debug, Eq, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(Arc<str>);

        impl $name {
            /// Wraps a string without looking at it.
            pub fn new(value: impl AsRef<str>) -> Self { Self(value.as_ref().into()) }
            /// The text as it is stored and sent.
            #[inline]
            pub fn as_str(&self) -> &str { &self.0 }
        }
        impl PartialEq for $name {
            #[inline]
            fn eq(&self, other: &Self) -> bool {
                Arc::ptr_eq(&self.0, &other.0) || self.0 == other.0
            }
        }
        impl Hash for $name {
            #[inline]
            fn hash<H: Hasher>(&self, state: &mut H) { self.0.hash(state); }
        }
        impl PartialOrd for $name {
            #[inline]
            fn partial_cmp(&self, other: &Self) -> Option<Ordering> { Some(self.cmp(other)) }
        }
        impl Ord for $name {
            #[inline]
            fn cmp(&self, other: &Self) -> Ordering {
                if Arc::ptr_eq(&self.0, &other.0) { Ordering::Equal } else { self.0.cmp(&other.0) }
            }
        }
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result { f.write_str(&self.0) }
        }
        impl From<&str> for $name {
            fn from(value: &str) -> Self { Self(value.into()) }
        }
        impl From<$name> for String {
            fn from(id: $name) -> Self { id.as_str().to_owned() }
        }
    };
}

id!(/// A host that has enrolled: made by the coordinator at enrolment, kept in the host's certificate (SAN `fleet://host/<id>`).
    HostId);
id!(/// A group's name in the fleet file.
    GroupName);
id!(/// A plan: `plan-` and the first 16 hex digits of the SHA-256 over its stored bytes.
    PlanId);
id!(/// One execution of a plan.
    RolloutId);
id!(/// One order to one host or to the server driver.
    OrderId);
id!(/// An agent's event outbox; made with the outbox file, so a lost file is a new outbox.
    OutboxId);
id!(/// A leg of a plan: `survey`, `server-1`, `clients-1`, `server-2`, ...
    LegId);

/// (term, counter): the term rises when a coordinator takes over a store, the counter on every start, resume and abort.
/// Agents keep the highest they saw and refuse older orders.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Epoch {
    /// Rises with each coordinator that takes over.
    pub term: u64,
    /// Rises within a term.
    pub counter: u64,
}

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.term, self.counter)
    }
}

/// A PMM identifier without the `/agent_id/`-like prefix that PMM 2 puts before it and PMM 3's schema step 105 strips.
/// Ids of the two majors are compared in this form only.
pub fn without_pmm_prefix(id: &str) -> &str {
    id.rsplit('/').next().unwrap_or(id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pmm_prefixes_are_removed() {
        assert_eq!(without_pmm_prefix("/agent_id/4d5e"), "4d5e");
        assert_eq!(without_pmm_prefix("4d5e"), "4d5e");
        assert_eq!(without_pmm_prefix("pmm-server"), "pmm-server");
    }

    #[test]
    fn ids_are_what_their_text_is_whether_they_share_it_or_not() {
        let of = |id: &HostId| {
            std::hash::BuildHasher::hash_one(
                &std::hash::BuildHasherDefault::<std::hash::DefaultHasher>::new(),
                id,
            )
        };
        let (first, other, later) = (HostId::new("h1"), HostId::new("h1"), HostId::new("h2"));
        for same in [&first.clone(), &other] {
            assert!(first == *same && first.cmp(same) == Ordering::Equal && of(&first) == of(same));
        }
        assert!(first < later && later > other && first != later && of(&first) != of(&later));
        assert_eq!(first.as_str().cmp(later.as_str()), first.cmp(&later));
    }

    #[test]
    fn epochs_order_by_term_first() {
        assert!(Epoch { term: 2, counter: 0 } > Epoch { term: 1, counter: 9 });
    }
}
