//! Windows and moments as people write them.

use super::duration_text;
use crate::policy::{Blackout, Window};
use jiff::Timestamp;
use jiff::tz::{TimeZone, TimeZoneDatabase};

const DAYS: [&str; 7] = ["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"];

/// `Sat, Sun 01:00 for 4h (Europe/Madrid)`.
pub fn window_text(window: &Window) -> String {
    let days: Vec<&str> = window
        .days
        .iter()
        .filter_map(|day| DAYS.get(usize::from(*day).checked_sub(1)?).copied())
        .collect();
    let days = if days.is_empty() {
        "daily".to_owned()
    } else {
        days.join(", ")
    };
    format!(
        "{days} {:02}:{:02} for {} ({})",
        window.from_minute / 60,
        window.from_minute % 60,
        duration_text(window.for_ms),
        window.zone
    )
}

/// `2026-12-20 00:00 to 2027-01-07 06:00 (Europe/Madrid): freeze`.
pub fn blackout_text(blackout: &Blackout, zone: &str) -> String {
    let reason = if blackout.reason.is_empty() {
        String::new()
    } else {
        format!(": {}", blackout.reason)
    };
    format!(
        "{} to {} ({}){reason}",
        civil(blackout.from_ms, zone, "%Y-%m-%d %H:%M"),
        civil(blackout.until_ms, zone, "%Y-%m-%d %H:%M"),
        known(zone).1
    )
}

/// `Sat 2026-11-28 01:00 (Europe/Madrid)`; in UTC where the zone is not known. A time that the clocks show twice has its offset beside it.
pub fn moment_text(at_ms: u64, zone: &str) -> String {
    format!("{} ({})", civil(at_ms, zone, "%a %Y-%m-%d %H:%M"), known(zone).1)
}

fn civil(at_ms: u64, zone: &str, form: &str) -> String {
    let at = i64::try_from(at_ms)
        .ok()
        .and_then(|ms| Timestamp::from_millisecond(ms).ok());
    at.map_or_else(
        || "never".to_owned(),
        |at| {
            let at = at.to_zoned(known(zone).0);
            let shown_twice = at
                .time_zone()
                .to_ambiguous_timestamp(at.datetime())
                .is_ambiguous();
            let offset = if shown_twice { " %:z" } else { "" };
            at.strftime(&format!("{form}{offset}")).to_string()
        },
    )
}

fn known(zone: &str) -> (TimeZone, &str) {
    match TimeZoneDatabase::bundled().get(zone) {
        Ok(found) => (found, zone),
        Err(_) => (TimeZone::UTC, "UTC"),
    }
}
