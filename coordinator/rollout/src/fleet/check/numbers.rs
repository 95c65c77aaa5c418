//! Numbers, limits, durations and words of the policy, each with its fault.

use super::super::error::Findings;
use super::super::raw::{self, Spanned};
use super::super::units::{Limit, duration_ms};

const DURATION: &str = "write it like \"90s\", \"15m\" or \"2h\"";
/// Whoever writes more than a year meant something else, and its end would be no time that a clock can show.
const LONGER_MS: u64 = 366 * 86_400_000 + 1;

/// Which limit is read: they allow different numbers.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Which {
    Canaries,
    /// `max_unavailable` and the steps of a ramp.
    Width,
    Threshold,
}

pub(super) fn limit(
    value: &Spanned<raw::Number>,
    key: &str,
    which: Which,
    found: &mut Findings<'_>,
) -> Limit {
    let at = Some(value.at());
    let example = "write a whole number, or a percentage such as \"10%\"";
    let limit = match value.get_ref() {
        raw::Number::Int(count) => match u32::try_from(*count) {
            Ok(count) => Limit::Count(count),
            Err(_) => {
                found.add(at, format!("{key} = {count} is out of range"), example);
                return Limit::Count(1);
            }
        },
        raw::Number::Text(text) => match Limit::read(text) {
            Ok(limit) => limit,
            Err(reason) => {
                found.add(at, format!("bad percentage: {key} = {reason}"), example);
                return Limit::Count(1);
            }
        },
    };
    match (which, limit) {
        (Which::Width, Limit::Count(0) | Limit::Percent(0)) => {
            found.add(
                at,
                format!("{key} = {limit} would never let a host begin"),
                "allow at least one host",
            );
        }
        (Which::Threshold, Limit::Percent(100)) => {
            found.add(at, format!("{key} = 100% can never be reached: a threshold of N tolerates N failures and is breached by the next"), "tolerate fewer than all hosts");
        }
        _ => {}
    }
    limit
}

/// A whole number within bounds; the lower bound if it is not.
pub(super) fn whole(
    value: &Spanned<i64>,
    key: &str,
    (low, high): (u32, u32),
    found: &mut Findings<'_>,
) -> u32 {
    let number = u32::try_from(*value.get_ref()).ok();
    if let Some(number) = number.filter(|number| (low..=high).contains(number)) {
        return number;
    }
    let hint = if high == u32::MAX {
        format!("write a whole number from {low} on")
    } else {
        format!("write a whole number from {low} to {high}")
    };
    found.add(
        Some(value.at()),
        format!("{key} = {} is out of range", value.get_ref()),
        hint,
    );
    low
}

/// A duration. `zero` says whether none is a meaning too.
pub(super) fn duration(
    text: &Spanned<String>,
    key: &str,
    zero: bool,
    found: &mut Findings<'_>,
) -> Option<u64> {
    let ms = duration_ms(text.get_ref());
    let given = format!("{key} = \"{}\"", text.get_ref());
    let (reason, hint) = match ms {
        None => (format!("{given} is not a duration"), DURATION),
        Some(0) if !zero => (format!("{given} is no time at all"), DURATION),
        Some(LONGER_MS..) => (
            format!("{given} is longer than a year"),
            "write a year at most, such as \"365d\"",
        ),
        Some(_) => return ms,
    };
    found.add(Some(text.at()), reason, hint);
    None
}

/// One of a set of words.
pub(super) fn word<T: Copy>(
    value: &raw::Text,
    key: &str,
    known: &[(&str, T)],
    found: &mut Findings<'_>,
) -> Option<T> {
    let text = value.as_ref()?;
    let meant = known.iter().find(|(name, _)| *name == text.get_ref().as_str());
    if meant.is_none() {
        let names: Vec<String> = known.iter().map(|(name, _)| format!("\"{name}\"")).collect();
        found.add(
            Some(text.at()),
            format!("{key} = \"{}\" is not known", text.get_ref()),
            format!("write {}", names.join(" or ")),
        );
    }
    meant.map(|(_, meaning)| *meaning)
}
