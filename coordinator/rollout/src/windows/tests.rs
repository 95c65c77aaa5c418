use super::*;
use proptest::prelude::*;
use std::collections::BTreeSet;

const HOUR_MS: u64 = 3_600_000;
const MINUTE_MS: u64 = 60_000;
const ZONE_NAMES: [&str; 4] = ["Europe/Madrid", "America/New_York", "Australia/Lord_Howe", "UTC"];

fn at(text: &str) -> u64 {
    let at: Timestamp = text.parse().unwrap();
    u64::try_from(at.as_millisecond()).unwrap()
}

fn window(zone: &str, days: &[u8], from: (u16, u16), for_ms: u64) -> Window {
    Window {
        days: days.to_vec(),
        from_minute: from.0 * 60 + from.1,
        for_ms,
        zone: zone.to_owned(),
    }
}

fn blackout(from: &str, until: &str) -> Blackout {
    Blackout {
        from_ms: at(from),
        until_ms: at(until),
        reason: "release week".to_owned(),
    }
}

fn closed_until(text: &str) -> Opening {
    Opening::Closed {
        opens_ms: Some(at(text)),
        why: Shut::Window,
    }
}

fn open_until(text: &str) -> Opening {
    Opening::Open {
        until_ms: Some(at(text)),
    }
}

/// Zone, opening time, a moment of the night before, first opening after it, end of that opening with a length of four hours.
#[test]
fn openings_over_changes_of_the_clocks() {
    let table = [
        // Spring: 02:00 becomes 03:00 in Madrid on 2026-03-29.
        ("Europe/Madrid", (1, 0), "2026-03-28T22:00Z", "2026-03-29T00:00Z"),
        ("Europe/Madrid", (2, 0), "2026-03-28T22:00Z", "2026-03-29T01:00Z"),
        ("Europe/Madrid", (2, 30), "2026-03-28T22:00Z", "2026-03-29T01:00Z"),
        ("Europe/Madrid", (3, 0), "2026-03-28T22:00Z", "2026-03-29T01:00Z"),
        ("Europe/Madrid", (3, 30), "2026-03-28T22:00Z", "2026-03-29T01:30Z"),
        // Autumn: 03:00 becomes 02:00 on 2026-10-25, so 02:30 comes twice.
        ("Europe/Madrid", (1, 0), "2026-10-24T22:00Z", "2026-10-24T23:00Z"),
        ("Europe/Madrid", (2, 30), "2026-10-24T22:00Z", "2026-10-25T00:30Z"),
        ("Europe/Madrid", (3, 30), "2026-10-24T22:00Z", "2026-10-25T02:30Z"),
        // New York changes on 2026-03-08 and 2026-11-01.
        (
            "America/New_York",
            (2, 30),
            "2026-03-08T03:00Z",
            "2026-03-08T07:00Z",
        ),
        (
            "America/New_York",
            (2, 30),
            "2026-03-29T03:00Z",
            "2026-03-29T06:30Z",
        ),
        (
            "America/New_York",
            (1, 30),
            "2026-11-01T03:00Z",
            "2026-11-01T05:30Z",
        ),
        // Lord Howe moves by half an hour: back on 2026-04-05 from 02:00 to 01:30, forward on 2026-10-04 from 02:00 to 02:30.
        (
            "Australia/Lord_Howe",
            (1, 45),
            "2026-04-04T10:00Z",
            "2026-04-04T14:45Z",
        ),
        (
            "Australia/Lord_Howe",
            (2, 15),
            "2026-10-03T10:00Z",
            "2026-10-03T15:30Z",
        ),
        (
            "Australia/Lord_Howe",
            (1, 0),
            "2026-10-24T10:00Z",
            "2026-10-24T14:00Z",
        ),
        ("UTC", (2, 30), "2026-03-28T22:00Z", "2026-03-29T02:30Z"),
        ("UTC", (2, 30), "2026-10-24T22:00Z", "2026-10-25T02:30Z"),
    ];
    for (zone, from, before, start) in table {
        let windows = [window(zone, &[], from, 4 * HOUR_MS)];
        let case = format!("{zone} {from:?} after {before}");
        assert_eq!(opening(&windows, &[], at(before)), closed_until(start), "{case}");
        let end = at(start) + 4 * HOUR_MS;
        for inside in [at(start), at(start) + HOUR_MS, end - 1] {
            let open = Opening::Open { until_ms: Some(end) };
            assert_eq!(opening(&windows, &[], inside), open, "{case}");
        }
        assert!(!opening(&windows, &[], end).is_open(), "{case}");
    }
}

#[test]
fn days_are_those_on_which_it_opens_and_midnight_does_not_end_it() {
    // 2026-11-28 is a Saturday; Madrid is one hour ahead.
    let windows = [window("Europe/Madrid", &[6], (23, 0), 4 * HOUR_MS)];
    let look = |moment: &str| opening(&windows, &[], at(moment));
    assert_eq!(look("2026-11-27T22:30Z"), closed_until("2026-11-28T22:00Z"));
    assert_eq!(look("2026-11-28T22:00Z"), open_until("2026-11-29T02:00Z"));
    assert_eq!(look("2026-11-29T01:59Z"), open_until("2026-11-29T02:00Z"));
    assert_eq!(look("2026-11-29T02:00Z"), closed_until("2026-12-05T22:00Z"));
}

#[test]
fn windows_that_touch_or_overlap_are_one() {
    let windows = [
        window("UTC", &[], (1, 0), 2 * HOUR_MS),
        window("UTC", &[], (2, 0), 2 * HOUR_MS),
        window("UTC", &[], (4, 0), HOUR_MS),
        window("UTC", &[], (6, 0), HOUR_MS),
    ];
    let look = |moment: &str| opening(&windows, &[], at(moment));
    assert_eq!(look("2026-01-05T01:30Z"), open_until("2026-01-05T05:00Z"));
    assert_eq!(look("2026-01-05T05:00Z"), closed_until("2026-01-05T06:00Z"));
}

#[test]
fn a_window_of_a_whole_day_leaves_the_repeated_hour_out() {
    let windows = [window("Europe/Madrid", &[], (0, 0), DAY_MS)];
    assert_eq!(
        opening(&windows, &[], at("2026-10-20T12:00Z")),
        open_until("2026-10-25T22:00Z")
    );
    let always = [window("UTC", &[], (0, 0), DAY_MS)];
    assert_eq!(
        opening(&always, &[], at("2026-10-20T12:00Z")),
        Opening::Open { until_ms: None }
    );
}

#[test]
fn blackouts_cut_windows() {
    let windows = [window("UTC", &[], (1, 0), 4 * HOUR_MS)];
    let cuts = [
        blackout("2026-01-05T02:00Z", "2026-01-05T03:00Z"),
        blackout("2026-01-05T02:30Z", "2026-01-06T02:00Z"),
    ];
    let look = |moment: &str| opening(&windows, &cuts, at(moment));
    assert_eq!(look("2026-01-05T01:30Z"), open_until("2026-01-05T02:00Z"));
    let dark = Opening::Closed {
        opens_ms: Some(at("2026-01-06T02:00Z")),
        why: Shut::Blackout("release week".to_owned()),
    };
    assert_eq!(look("2026-01-05T02:00Z"), dark);
    assert_eq!(look("2026-01-06T02:00Z"), open_until("2026-01-06T05:00Z"));
}

#[test]
fn blackouts_count_without_windows() {
    let cuts = [blackout("2026-01-05T00:00Z", "2026-01-06T00:00Z")];
    assert_eq!(opening(&[], &[], 0), Opening::Open { until_ms: None });
    assert_eq!(
        opening(&[], &cuts, at("2026-01-04T00:00Z")),
        open_until("2026-01-05T00:00Z")
    );
    assert!(!opening(&[], &cuts, at("2026-01-05T00:00Z")).is_open());
    assert_eq!(
        opening(&[], &cuts, at("2026-01-06T00:00Z")),
        Opening::Open { until_ms: None }
    );
}

#[test]
fn what_is_not_known_never_opens() {
    let bad = [
        window("Mars/Olympus", &[], (1, 0), HOUR_MS),
        window("UTC", &[9], (1, 0), HOUR_MS),
        window("UTC", &[], (24, 0), HOUR_MS),
        window("UTC", &[], (1, 0), 0),
    ];
    for windows in bad.iter().map(std::slice::from_ref).chain([&bad[..]]) {
        let never = Opening::Closed {
            opens_ms: None,
            why: Shut::Unknown,
        };
        assert_eq!(opening(windows, &[], at("2026-01-05T01:30Z")), never);
    }
}

/// The model: a window opens at the first minute at which the wall clock shows its time or a later one of that day.
fn model_starts(window: &Window, from_ms: u64, until_ms: u64) -> BTreeSet<u64> {
    let zone = TimeZoneDatabase::bundled().get(&window.zone).unwrap();
    let first = zone.to_datetime(timestamp(from_ms).unwrap());
    let mut shown = first;
    let mut starts = BTreeSet::new();
    let mut date = first.date().tomorrow().unwrap();
    let time = |date: Date| {
        let minute = i8::try_from(window.from_minute % 60).unwrap();
        date.at(i8::try_from(window.from_minute / 60).unwrap(), minute, 0, 0)
    };
    for minute in (from_ms..until_ms).step_by(usize::try_from(MINUTE_MS).unwrap()) {
        shown = shown.max(zone.to_datetime(timestamp(minute).unwrap()));
        while time(date) <= shown {
            let day = u8::try_from(date.weekday().to_monday_one_offset()).unwrap();
            if window.days.is_empty() || window.days.contains(&day) {
                starts.insert(minute);
            }
            date = date.tomorrow().unwrap();
        }
    }
    starts
}

fn any_window() -> impl Strategy<Value = Window> {
    let days = proptest::collection::vec(1..=7_u8, 0..3);
    (days, 0..1440_u16, 1..3000_u64, 0..ZONE_NAMES.len()).prop_map(|(days, from_minute, minutes, zone)| {
        Window {
            days,
            from_minute,
            for_ms: minutes * MINUTE_MS,
            zone: ZONE_NAMES[zone].to_owned(),
        }
    })
}

fn any_change() -> impl Strategy<Value = u64> {
    proptest::sample::select(vec![
        "2026-03-08T00:00Z",
        "2026-03-29T00:00Z",
        "2026-04-05T00:00Z",
        "2026-07-01T00:00Z",
        "2026-10-04T00:00Z",
        "2026-10-25T00:00Z",
        "2026-11-01T00:00Z",
    ])
    .prop_map(at)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 20, ..ProptestConfig::default() })]

    /// Open and closed agree with the model at each minute, and each answer names the moment at which the next one differs.
    #[test]
    fn agrees_with_a_minute_by_minute_model(
        windows in proptest::collection::vec(any_window(), 1..4),
        cuts in proptest::collection::vec((0..6000_u64, 1..2000_u64), 0..3),
        middle in any_change(),
    ) {
        let (from, until) = (middle - 2 * DAY_MS, middle + 3 * DAY_MS);
        let cuts: Vec<Blackout> = cuts
            .into_iter()
            .map(|(start, length)| Blackout {
                from_ms: from + start * MINUTE_MS,
                until_ms: from + (start + length) * MINUTE_MS,
                reason: String::new(),
            })
            .collect();
        let model: Vec<(u64, BTreeSet<u64>)> = windows
            .iter()
            .map(|window| (window.for_ms, model_starts(window, from - 10 * DAY_MS, until)))
            .collect();
        let mut promised: Option<(u64, bool)> = None;
        for minute in (from..until).step_by(usize::try_from(7 * MINUTE_MS).unwrap()) {
            let free = !cuts.iter().any(|cut| cut.from_ms <= minute && minute < cut.until_ms);
            let inside = model.iter().any(|(length, starts)| {
                starts.range(..=minute).next_back().is_some_and(|start| minute < start + length)
            });
            let found = opening(&windows, &cuts, minute);
            prop_assert_eq!(found.is_open(), free && inside, "at {}", minute);
            if let Some((change, open)) = promised.filter(|(change, _)| minute < *change) {
                prop_assert_eq!(found.is_open(), open, "nothing changes before {}", change);
            }
            let change = match &found {
                Opening::Open { until_ms } => until_ms,
                Opening::Closed { opens_ms, .. } => opens_ms,
            };
            if let Some(change) = *change {
                prop_assert!(change > minute);
                prop_assert_eq!(opening(&windows, &cuts, change - 1).is_open(), found.is_open());
                prop_assert_eq!(opening(&windows, &cuts, change).is_open(), !found.is_open());
            }
            promised = change.map(|change| (change, found.is_open()));
        }
    }

    /// Nothing in a window or a time makes it panic.
    #[test]
    fn takes_anything(
        days in proptest::collection::vec(any::<u8>(), 0..3),
        from_minute in any::<u16>(),
        for_ms in any::<u64>(),
        now in any::<u64>(),
        cut in any::<(u64, u64)>(),
    ) {
        let windows = [Window { days, from_minute, for_ms, zone: "Europe/Madrid".to_owned() }];
        let cuts = [Blackout { from_ms: cut.0, until_ms: cut.1, reason: String::new() }];
        let _ = opening(&windows, &cuts, now);
    }
}
