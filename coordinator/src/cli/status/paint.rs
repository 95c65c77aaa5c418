//! Colors and bars.

use crate::clock;

/// Colors, where they are welcome.
pub struct Paint {
    pub colors: bool,
}

impl Paint {
    fn with(&self, code: &str, text: &str) -> String {
        if self.colors {
            format!("\u{1b}[{code}m{text}\u{1b}[0m")
        } else {
            text.to_owned()
        }
    }
    pub fn bold(&self, text: &str) -> String {
        self.with("1", text)
    }
    pub fn red(&self, text: &str) -> String {
        self.with("31", text)
    }
    pub fn yellow(&self, text: &str) -> String {
        self.with("33", text)
    }
    pub fn green(&self, text: &str) -> String {
        self.with("32", text)
    }
}

/// `[######----]`. Full only when everything is done.
pub fn bar(done: u32, total: u32, width: usize) -> String {
    let total = usize::try_from(total).unwrap_or(usize::MAX);
    let done = usize::try_from(done).unwrap_or(usize::MAX).min(total);
    let filled = done.saturating_mul(width).checked_div(total).unwrap_or(0);
    format!(
        "[{}{}]",
        "#".repeat(filled),
        "-".repeat(width.saturating_sub(filled))
    )
}

/// `03:05:28`, for lines.
pub fn stamp(ms: u64) -> String {
    clock::time_of_day(ms)
}
