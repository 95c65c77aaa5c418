//! What many lives must have gone through. A zero means that no rule was tried there.

use super::faults::Fault;

/// Names as they are counted.
pub fn all() -> Vec<String> {
    let faults = Fault::ALL.iter().map(|fault| format!("fault {}", fault.word()));
    faults.collect()
}
