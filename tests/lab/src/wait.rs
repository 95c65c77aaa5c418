//! Waiting for conditions, never for time.

use anyhow::{Result, bail};
use std::time::{Duration, Instant};

/// Asks until the answer is `Some`, at most for `seconds`; then fails with what was waited for and the last thing seen.
pub fn until<T>(what: &str, seconds: u64, mut probe: impl FnMut() -> Result<Probe<T>>) -> Result<T> {
    let end = Instant::now() + Duration::from_secs(seconds);
    let mut seen;
    loop {
        match probe()? {
            Probe::Ready(value) => return Ok(value),
            Probe::NotYet(why) => seen = why,
        }
        if Instant::now() >= end {
            bail!("waited {seconds} s for {what}; last seen: {seen}");
        }
        pause(Duration::from_millis(100));
    }
}

/// The gap between two looks at something.
pub fn pause(gap: Duration) {
    std::thread::park_timeout(gap);
}

/// One look at something that is waited for.
pub enum Probe<T> {
    /// It is there.
    Ready(T),
    /// Not yet, and what was seen instead.
    NotYet(String),
}

/// A probe from a condition.
pub fn check(holds: bool, seen: impl Into<String>) -> Result<Probe<()>> {
    Ok(if holds {
        Probe::Ready(())
    } else {
        Probe::NotYet(seen.into())
    })
}
