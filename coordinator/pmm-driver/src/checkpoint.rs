//! Kill checkpoints for tests, behind the build feature `checkpoints`. Without it this is nothing.

/// Dies by SIGKILL if the test wants it here: `FLEET_KILL_AT=<n>` (the n-th checkpoint of this process) or `FLEET_KILL_AT=<step>:<point>`.
#[cfg(feature = "checkpoints")]
pub fn reached(step: &str, point: &str) {
    use std::sync::atomic::{AtomicU64, Ordering};
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let count = COUNT.fetch_add(1, Ordering::SeqCst) + 1;
    let Ok(wanted) = std::env::var("FLEET_KILL_AT") else {
        return;
    };
    if wanted == count.to_string() || wanted == format!("{step}:{point}") {
        tracing::error!(step, point, count, "killed by a checkpoint");
        let _ = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
        loop {
            std::thread::park();
        }
    }
}

/// Nothing.
#[cfg(not(feature = "checkpoints"))]
pub fn reached(_step: &str, _point: &str) {}
