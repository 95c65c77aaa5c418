//! Windows and blackouts: civil times in a zone of the compiled-in data, never of the machine's.

use super::super::error::Findings;
use super::super::raw::{self, Spanned};
use super::numbers::duration;
use crate::policy::{Blackout, Window};
use jiff::civil::DateTime;
use jiff::tz::{TimeZone, TimeZoneDatabase};

const DAYS: [&str; 7] = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"];
/// A window opens at most once a day and at least once a week; longer than that it would never close.
const LONGEST_MS: u64 = 7 * 24 * 3_600_000;
/// A permit needs some seconds until it is used; near its end a window gives none.
const SHORTEST_MS: u64 = 60_000;

pub(super) fn window(raw: &Spanned<raw::Window>, key: &str, found: &mut Findings<'_>) -> Option<Window> {
    let at = raw.at();
    let raw = raw.get_ref();
    let mut days: Vec<u8> = Vec::new();
    for day in &raw.days {
        match DAYS.iter().zip(1..).find(|(name, _)| *name == day.get_ref()) {
            Some((_, number)) => days.push(number),
            None => found.add(
                Some(day.at()),
                format!("{key}: \"{}\" is not a day", day.get_ref()),
                format!("write {}", DAYS.join(", ")),
            ),
        }
    }
    days.sort_unstable();
    days.dedup();
    let from = needed(&raw.from, key, "from", "\"01:00\"", at, found);
    let from = from.and_then(|text| {
        let minute = minute_of_day(text.get_ref());
        if minute.is_none() {
            found.add(
                Some(text.at()),
                format!("{key}: from = \"{}\" is not a time of the day", text.get_ref()),
                "write it like \"01:00\", from 00:00 to 23:59",
            );
        }
        minute
    });
    let length = needed(&raw.length, key, "for", "\"4h\"", at, found);
    let length = length.and_then(|text| {
        let ms = duration(text, &format!("{key}: for"), false, found)?;
        if ms > LONGEST_MS {
            found.add(
                Some(text.at()),
                format!("{key}: for = \"{}\" is longer than a week", text.get_ref()),
                "leave the window out if hosts may begin at any time",
            );
        }
        if ms < SHORTEST_MS {
            found.add(
                Some(text.at()),
                format!(
                    "{key}: for = \"{}\" is too short for a host to begin in it",
                    text.get_ref()
                ),
                "a window lasts a minute at least; hosts that are under way at its end finish",
            );
        }
        Some(ms)
    });
    let zone = zone(&raw.zone, key, at, found);
    Some(Window {
        days,
        from_minute: from?,
        for_ms: length?,
        zone: zone?.0,
    })
}

pub(super) fn blackout(raw: &Spanned<raw::Blackout>, found: &mut Findings<'_>) -> Option<Blackout> {
    let at = raw.at();
    let raw = raw.get_ref();
    let from = moment(&raw.from, "from", at, found);
    let until = moment(&raw.until, "until", at, found);
    let (_, zone) = zone(&raw.zone, "blackout", at, found)?;
    // Where the clocks show a time twice or not at all, the longer blackout is meant.
    let from = zone.to_ambiguous_timestamp(from?).earlier();
    let until = zone.to_ambiguous_timestamp(until?).later();
    let ms = |moment: Result<jiff::Timestamp, jiff::Error>| {
        let moment = moment.ok()?.as_millisecond();
        u64::try_from(moment).ok()
    };
    let (Some(from_ms), Some(until_ms)) = (ms(from), ms(until)) else {
        found.add(
            Some(at),
            "blackout: its times are out of range",
            "write years from 1971 on",
        );
        return None;
    };
    if until_ms <= from_ms {
        found.add(
            Some(at),
            "blackout: it ends before it begins",
            "write the later time as until",
        );
    }
    Some(Blackout {
        from_ms,
        until_ms,
        reason: raw.reason.clone().unwrap_or_default(),
    })
}

fn needed<'a>(
    value: &'a raw::Text,
    what: &str,
    key: &str,
    example: &str,
    at: usize,
    found: &mut Findings<'_>,
) -> Option<&'a Spanned<String>> {
    if value.is_none() {
        found.add(
            Some(at),
            format!("{what}: {key} is missing"),
            format!("for example {key} = {example}"),
        );
    }
    value.as_ref()
}

fn minute_of_day(text: &str) -> Option<u16> {
    let (hours, minutes) = text.trim().split_once(':')?;
    let digits = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
    if !digits(hours) || !digits(minutes) || minutes.len() != 2 {
        return None;
    }
    let (hours, minutes): (u16, u16) = (hours.parse().ok()?, minutes.parse().ok()?);
    (hours < 24 && minutes < 60).then_some(hours * 60 + minutes)
}

/// A date and a time in the blackout's own zone. One with an offset or a zone of its own would contradict it.
fn moment(value: &raw::Text, key: &str, at: usize, found: &mut Findings<'_>) -> Option<DateTime> {
    let text = needed(value, "blackout", key, "\"2026-12-20T00:00\"", at, found)?;
    let civil = text
        .get_ref()
        .trim()
        .bytes()
        .all(|byte| byte.is_ascii_digit() || b"-:T ".contains(&byte));
    let time = text.get_ref().split_once(['T', ' ']).map_or("", |(_, time)| time);
    let read = text.get_ref().trim().parse::<DateTime>().ok();
    let read = read.filter(|_| civil && !time.contains('-'));
    if read.is_none() {
        found.add(
            Some(text.at()),
            format!(
                "blackout: {key} = \"{}\" is not a date and a time",
                text.get_ref()
            ),
            "write it like \"2026-12-20T00:00\"; its zone stands in zone",
        );
    }
    read
}

fn zone(value: &raw::Text, what: &str, at: usize, found: &mut Findings<'_>) -> Option<(String, TimeZone)> {
    let text = needed(value, what, "zone", "\"Europe/Madrid\"", at, found)?;
    let name = text.get_ref().trim();
    let database = TimeZoneDatabase::bundled();
    if let Ok(zone) = database.get(name) {
        return Some((zone.iana_name().unwrap_or(name).to_owned(), zone));
    }
    let similar = similar(&database, name);
    let hint = match similar {
        Some(similar) => format!("did you mean \"{similar}\"?"),
        None => "write an IANA name such as \"Europe/Madrid\" or \"UTC\"".to_owned(),
    };
    found.add(
        Some(text.at()),
        format!("{what}: zone = \"{name}\" is not known"),
        hint,
    );
    None
}

/// The zone that a slip of the pen is nearest to: the whole name, or the city alone.
fn similar(database: &TimeZoneDatabase, name: &str) -> Option<String> {
    let wanted = name.to_ascii_lowercase().replace(' ', "_");
    let city = |name: &str| name.rsplit('/').next().unwrap_or(name).to_owned();
    let wanted_city = city(&wanted);
    let mut names: Vec<String> = database
        .available()
        .map(|name| name.as_str().to_owned())
        .collect();
    names.sort_unstable();
    let distances = names.into_iter().map(|name| {
        let lower = name.to_ascii_lowercase();
        let cities = distance(&city(&lower), &wanted_city);
        (distance(&lower, &wanted).min(cities + 1), name)
    });
    distances
        .min()
        .filter(|(distance, _)| *distance <= 2)
        .map(|(_, name)| name)
}

/// Letters to add, remove or change between two words.
fn distance(one: &str, other: &str) -> usize {
    let other = other.as_bytes();
    let mut row: Vec<usize> = (0..=other.len()).collect();
    for (line, letter) in one.bytes().enumerate() {
        let mut diagonal = row.first().copied().unwrap_or(0);
        if let Some(first) = row.first_mut() {
            *first = line + 1;
        }
        let mut left = line + 1;
        for (column, wanted) in other.iter().enumerate() {
            let Some(cell) = row.get_mut(column + 1) else {
                break;
            };
            let changed = diagonal + usize::from(letter != *wanted);
            diagonal = *cell;
            *cell = changed.min(*cell + 1).min(left + 1);
            left = *cell;
        }
    }
    row.last().copied().unwrap_or(0)
}
