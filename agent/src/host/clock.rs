//! Wall clock for stamps, boot id for permits.

use std::time::{SystemTime, UNIX_EPOCH};

/// Milliseconds since the Unix epoch; informational only, never compared for a decision.
pub fn now_ms() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |past| u64::try_from(past.as_millis()).unwrap_or(u64::MAX))
}

/// Changes with every boot.
pub fn boot_id() -> String {
    fs_err::read_to_string("/proc/sys/kernel/random/boot_id")
        .map_or_else(|_| String::new(), |text| text.trim().to_owned())
}

/// The gap between two looks at something that is waited for with a deadline.
#[allow(
    clippy::disallowed_methods,
    reason = "the one place that sleeps; every caller looks again and has a deadline"
)]
pub fn pause(gap: std::time::Duration) {
    std::thread::sleep(gap);
}
