//! When hosts may begin: recurring windows in a time zone, cut by blackouts.
//!
//! ```text
//! window      Sat 01:00 for 4h, Europe/Madrid     [====]          [====]
//! blackout    a release week                              [=========]
//! opening                                         [====]            [==]
//! ```
//!
//! The time at which a window opens is one of the wall clock; its length is elapsed time. An opening that the clocks skip is at the end of
//! the skipped time, one that they repeat is at the first. The zone data are those that are compiled in; neither a clock nor the
//! system's zone files are read. A zone that these data don't know never opens.

use crate::policy::{Blackout, Window};
use jiff::Timestamp;
use jiff::civil::{Date, Time};
use jiff::tz::{AmbiguousOffset, TimeZone, TimeZoneDatabase};
use std::sync::LazyLock;

const DAY_MS: u64 = 86_400_000;
/// A window opens at least once a week, so one that still counts opened within a week, a change of the clocks and the day around it.
const BACK_DAYS: u64 = 9;
/// An opening that lasts longer than this counts as open without an end; a later look finds the end.
const HORIZON_MS: u64 = 60 * DAY_MS;

/// What opens later than in ten years never does: that is how an end of time is written.
const NEVER_MS: u64 = 3_653 * DAY_MS;

static ZONES: LazyLock<TimeZoneDatabase> = LazyLock::new(TimeZoneDatabase::bundled);

/// Whether hosts may begin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Opening {
    /// They may.
    Open {
        /// From this moment they may not any more, Unix milliseconds; `None` if nothing closes within the next 60 days.
        until_ms: Option<u64>,
    },
    /// They may not.
    Closed {
        /// From this moment they may, Unix milliseconds; `None` if that never comes, or not within ten years.
        opens_ms: Option<u64>,
        /// What keeps them.
        why: Shut,
    },
}

/// What keeps hosts from beginning.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Shut {
    /// No window is open.
    Window,
    /// A blackout; its reason may be empty.
    Blackout(String),
    /// No window has a zone and a time that are known.
    Unknown,
}

impl std::fmt::Display for Shut {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Window => f.write_str("outside of its windows"),
            Self::Blackout(reason) if reason.is_empty() => f.write_str("a blackout"),
            Self::Blackout(reason) => write!(f, "a blackout: {reason}"),
            Self::Unknown => f.write_str("its windows never open: no zone and time in them is known"),
        }
    }
}

impl Opening {
    /// Whether hosts may begin.
    pub fn is_open(&self) -> bool {
        matches!(self, Self::Open { .. })
    }
}

/// Whether hosts may begin at `now_ms`, and when that changes. Without windows they may at any time outside of the blackouts.
pub fn opening(windows: &[Window], blackouts: &[Blackout], now_ms: u64) -> Opening {
    let known: Vec<Known<'_>> = windows.iter().filter_map(Known::of).collect();
    if known.is_empty() && !windows.is_empty() {
        return Opening::Closed {
            opens_ms: None,
            why: Shut::Unknown,
        };
    }
    let inside = if windows.is_empty() || known.iter().any(|window| window.end_at(now_ms).is_some()) {
        None
    } else {
        Some(Shut::Window)
    };
    let black = covering(blackouts, now_ms).map(|blackout| Shut::Blackout(blackout.reason.clone()));
    match black.or(inside) {
        Some(why) => Opening::Closed {
            opens_ms: next_open(&known, windows.is_empty(), blackouts, now_ms)
                .filter(|opens| opens.saturating_sub(now_ms) <= NEVER_MS),
            why,
        },
        None => Opening::Open {
            until_ms: close(&known, windows.is_empty(), blackouts, now_ms),
        },
    }
}

/// The first moment from `now_ms` on at which hosts may begin. Each round leaves at least one blackout behind for good.
fn next_open(known: &[Known<'_>], always: bool, blackouts: &[Blackout], now_ms: u64) -> Option<u64> {
    let mut at = now_ms;
    for _ in 0..=blackouts.len() {
        if !always && !known.iter().any(|window| window.end_at(at).is_some()) {
            at = known.iter().filter_map(|window| window.next_start(at)).min()?;
        }
        match covering(blackouts, at) {
            Some(blackout) => at = blackout.until_ms,
            None => return Some(at),
        }
    }
    None
}

/// The end of the opening around `now_ms`: windows that touch or overlap are one.
fn close(known: &[Known<'_>], always: bool, blackouts: &[Blackout], now_ms: u64) -> Option<u64> {
    let horizon = now_ms.saturating_add(HORIZON_MS);
    let black = blackouts
        .iter()
        .filter(|blackout| blackout.from_ms > now_ms && blackout.from_ms < blackout.until_ms)
        .map(|blackout| blackout.from_ms)
        .filter(|from| *from <= horizon)
        .min();
    let bound = black.unwrap_or(horizon);
    let mut end = if always { bound } else { now_ms };
    while end < bound {
        match known.iter().filter_map(|window| window.end_at(end)).max() {
            Some(later) => end = later,
            None => return Some(end),
        }
    }
    black
}

fn covering(blackouts: &[Blackout], at_ms: u64) -> Option<&Blackout> {
    blackouts
        .iter()
        .filter(|blackout| blackout.from_ms <= at_ms && at_ms < blackout.until_ms)
        .max_by_key(|blackout| blackout.until_ms)
}

/// A window whose zone and time mean something.
struct Known<'a> {
    window: &'a Window,
    zone: TimeZone,
    from: Time,
}

impl<'a> Known<'a> {
    fn of(window: &'a Window) -> Option<Self> {
        let from = window.from_minute;
        let (hour, minute) = (i8::try_from(from / 60).ok()?, i8::try_from(from % 60).ok()?);
        let days = window.days.is_empty() || window.days.iter().any(|day| (1..=7).contains(day));
        if window.for_ms == 0 || !days {
            return None;
        }
        Some(Self {
            window,
            zone: ZONES.get(&window.zone).ok()?,
            from: Time::new(hour, minute, 0, 0).ok()?,
        })
    }

    /// The latest end among its openings that hold `at_ms`.
    fn end_at(&self, at_ms: u64) -> Option<u64> {
        let back = (self.window.for_ms / DAY_MS + 2).min(BACK_DAYS);
        let starts = self.starts(at_ms.saturating_sub(back * DAY_MS), back + 2);
        starts
            .filter(|start| *start <= at_ms)
            .map(|start| start.saturating_add(self.window.for_ms))
            .filter(|end| *end > at_ms)
            .max()
    }

    /// Its first opening after `at_ms`.
    fn next_start(&self, at_ms: u64) -> Option<u64> {
        self.starts(at_ms.saturating_sub(DAY_MS), BACK_DAYS + 2)
            .filter(|start| *start > at_ms)
            .min()
    }

    /// Its openings on so many days from the day of `from_ms` on.
    fn starts(&self, from_ms: u64, days: u64) -> impl Iterator<Item = u64> + '_ {
        let first = timestamp(from_ms).map(|at| self.zone.to_datetime(at).date());
        let mut next = first;
        let dates = std::iter::from_fn(move || {
            let date = next?;
            next = date.tomorrow().ok();
            Some(date)
        });
        let days = usize::try_from(days).unwrap_or(0);
        dates.take(days).filter_map(|date| self.start_on(date))
    }

    fn start_on(&self, date: Date) -> Option<u64> {
        let day = u8::try_from(date.weekday().to_monday_one_offset()).ok()?;
        if !self.window.days.is_empty() && !self.window.days.contains(&day) {
            return None;
        }
        let wall = self.zone.to_ambiguous_timestamp(date.to_datetime(self.from));
        let start = match wall.offset() {
            AmbiguousOffset::Gap { after, .. } => {
                // Read with the offset from after the change the skipped time lies before the change.
                let before = after.to_timestamp(wall.datetime()).ok()?;
                self.zone.following(before).next()?.timestamp()
            }
            AmbiguousOffset::Unambiguous { .. } | AmbiguousOffset::Fold { .. } => wall.earlier().ok()?,
        };
        u64::try_from(start.as_millisecond()).ok()
    }
}

fn timestamp(ms: u64) -> Option<Timestamp> {
    Timestamp::from_millisecond(i64::try_from(ms).ok()?).ok()
}

#[cfg(test)]
mod tests;
