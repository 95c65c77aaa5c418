//! Wall clock for stamps, time since boot for everything that is compared.

use client_upgrade::order_clock::Reading;
use std::time::{SystemTime, UNIX_EPOCH};

/// Milliseconds since the Unix epoch; informational only, never compared for a decision.
pub fn now_ms() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |past| u64::try_from(past.as_millis()).unwrap_or(u64::MAX))
}

/// The clock that nobody can set: milliseconds since boot, suspended time included. Deadlines and permits are counted on it.
pub fn reading() -> Reading {
    Reading {
        boot_id: boot_id(),
        boot_ms: boot_ms(),
    }
}

/// Milliseconds since boot, suspended time included.
pub fn boot_ms() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    let seconds = u64::try_from(now.tv_sec).unwrap_or(0);
    let nanoseconds = u64::try_from(now.tv_nsec).unwrap_or(0);
    seconds
        .saturating_mul(1_000)
        .saturating_add(nanoseconds / 1_000_000)
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
