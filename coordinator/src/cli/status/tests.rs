//! Screens of a simulated rollout, at 80 and 200 columns.
#![allow(clippy::unwrap_used)]
use super::*;

fn screen(fixture: &str, width: usize) -> Vec<String> {
    let live: LiveStatus = serde_json::from_str(fixture).unwrap();
    lines(&live, width, Lists::Folded, &Paint { colors: false })
}

const HOP: &str = include_str!("../fixtures/hop.json");
const GROUP: &str = include_str!("../fixtures/group.json");
const PAUSED: &str = include_str!("../fixtures/paused.json");
const END: &str = include_str!("../fixtures/end.json");

#[test]
fn no_line_is_wider_than_the_screen() {
    for fixture in [HOP, GROUP, PAUSED, END] {
        for width in [80, 200] {
            for line in screen(fixture, width) {
                assert!(line.chars().count() <= width, "{width}: {line}");
            }
        }
    }
}

#[test]
fn the_screen_shows_what_matters() {
    let has = |fixture: &str, text: &str| {
        let lines = screen(fixture, 80);
        assert!(
            lines.iter().any(|line| line.contains(text)),
            "no `{text}` in:\n{}",
            lines.join("\n")
        );
    };
    has(HOP, "2. 2.44.1  -> 3.7.1    running");
    has(HOP, "step 1/3 inspect");
    has(
        HOP,
        "4 hosts: leg server-1 is not settled; turn of coordinator: db-0",
    );
    has(GROUP, "about 2s left");
    has(GROUP, "canary  [################]    1/1   done");
    has(GROUP, "db-2 (rest)  verifying");
    has(PAUSED, "paused by coordinator");
    has(PAUSED, "hint: `retry`");
    has(
        PAUSED,
        "db-0 (canary) rolled back in step install: install_failed",
    );
    has(END, "succeeded");
}

#[test]
fn colors_only_where_they_are_welcome() {
    let live: LiveStatus = serde_json::from_str(PAUSED).unwrap();
    assert!(
        lines(&live, 80, Lists::Folded, &Paint { colors: true })
            .iter()
            .any(|line| line.contains("\u{1b}[31m"))
    );
    assert!(!screen(PAUSED, 80).iter().any(|line| line.contains('\u{1b}')));
}

#[test]
fn bars_are_full_only_at_the_end() {
    assert_eq!(bar(0, 0, 4), "[----]");
    assert_eq!(bar(2, 3, 4), "[##--]");
    assert_eq!(bar(3, 3, 4), "[####]");
    assert_eq!(bar(9, 3, 4), "[####]");
}
