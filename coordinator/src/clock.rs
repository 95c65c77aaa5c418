//! The wall clock, read in one place.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Unix milliseconds.
pub fn now_ms() -> u64 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or(Duration::ZERO);
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// `2026-11-23T03:05:28Z`, for people and logs.
pub fn rfc3339(ms: u64) -> String {
    let ms = i64::try_from(ms).unwrap_or(i64::MAX);
    match jiff::Timestamp::from_millisecond(ms) {
        Ok(time) => time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
        Err(_) => format!("{ms} ms"),
    }
}

/// `2026-11-23`, above times of one day.
pub fn day(ms: u64) -> String {
    let text = rfc3339(ms);
    text.get(..10).unwrap_or(&text).to_owned()
}

/// `03:05:28`, for narrow screens.
pub fn time_of_day(ms: u64) -> String {
    let text = rfc3339(ms);
    text.get(11..19).unwrap_or(&text).to_owned()
}
