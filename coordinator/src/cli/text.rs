//! Small pieces of text: tables, durations.

use crate::clock;

/// Reads `90s`, `15m`, `24h`, `7d` as milliseconds.
pub fn duration_ms(text: &str) -> Result<u64, String> {
    let bad = || format!("`{text}` is not a duration such as 90s, 15m, 24h or 7d");
    let (number, unit) = text
        .split_at_checked(text.len().saturating_sub(1))
        .ok_or_else(bad)?;
    let number: u64 = number.parse().map_err(|_| bad())?;
    let unit_ms: u64 = match unit {
        "s" => 1000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return Err(bad()),
    };
    number.checked_mul(unit_ms).filter(|ms| *ms > 0).ok_or_else(bad)
}

/// `7s`, `3m 07s`, `2h 05m`, `4d 03h`.
pub fn duration(ms: u64) -> String {
    let seconds = ms / 1000;
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3600 => format!("{}m {:02}s", seconds / 60, seconds % 60),
        3600..86_400 => format!("{}h {:02}m", seconds / 3600, seconds % 3600 / 60),
        _ => format!("{}d {:02}h", seconds / 86_400, seconds % 86_400 / 3600),
    }
}

/// Columns as wide as their widest cell, two spaces apart; the last one is not padded.
pub fn table(head: &[&str], rows: &[Vec<String>]) -> String {
    let mut widths: Vec<usize> = head.iter().map(|cell| cell.chars().count()).collect();
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let mut text = String::new();
    let head: Vec<String> = head.iter().map(|cell| (*cell).to_owned()).collect();
    for row in std::iter::once(&head).chain(rows) {
        let mut line = String::new();
        for (index, (cell, width)) in row.iter().zip(&widths).enumerate() {
            if index > 0 {
                line.push_str("  ");
            }
            line.push_str(&format!("{cell:<width$}"));
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

/// Narrowest last column that is still folded beside the others.
const BESIDE: usize = 24;
/// Narrowest column that another one is cut for.
const NARROW: usize = 8;

/// The same on a screen of some width: the last column is folded below its head, or below its row where too little is left beside the
/// others; these are cut only where they alone are too wide.
pub fn table_within(head: &[&str], rows: &[Vec<String>], width: usize) -> String {
    let plain = table(head, rows);
    if plain.lines().all(|line| line.chars().count() <= width) || head.len() < 2 {
        return plain;
    }
    let last = head.len() - 1;
    let mut widths = vec![0; last];
    let texts = rows.iter().map(|row| row.iter().map(String::as_str).collect());
    let all: Vec<Vec<&str>> = std::iter::once(head.to_vec()).chain(texts).collect();
    for row in &all {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let used = |widths: &[usize]| widths.iter().map(|width| width + 2).sum::<usize>();
    while used(&widths) > width + 2 {
        match widths.iter_mut().max().filter(|width| **width > NARROW) {
            Some(widest) => *widest -= 1,
            None => break,
        }
    }
    let beside = width.saturating_sub(used(&widths)) >= BESIDE;
    let indent = if beside { used(&widths) } else { 6 };
    let mut text = String::new();
    for row in &all {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(&widths) {
            line.push_str(&format!("{:<width$}  ", cut(cell, *width)));
        }
        let cell = row.get(last).copied().unwrap_or_default();
        for (number, part) in folded(cell, width.saturating_sub(indent)).iter().enumerate() {
            if number > 0 || !beside {
                text.push_str(line.trim_end());
                text.push('\n');
                line = " ".repeat(indent);
            }
            line.push_str(part);
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

/// Cuts a text to a width, with an ellipsis where something is gone.
pub fn cut(text: &str, width: usize) -> String {
    if text.chars().count() <= width {
        return text.to_owned();
    }
    let mut short: String = text.chars().take(width.saturating_sub(1)).collect();
    short.push('…');
    short
}

/// Breaks a text at spaces so that no line is wider, unless one word alone is; later lines are indented by `indent`.
pub fn fold(text: &str, width: usize, indent: usize) -> String {
    let mut folded = String::new();
    let mut column = 0;
    let leading = text.len() - text.trim_start().len();
    for (at, word) in text.split_whitespace().enumerate() {
        let length = word.chars().count();
        if at == 0 {
            folded.push_str(&" ".repeat(leading));
            column = leading;
        } else if column + 1 + length > width {
            folded.push('\n');
            folded.push_str(&" ".repeat(indent));
            column = indent;
        } else {
            folded.push(' ');
            column += 1;
        }
        folded.push_str(word);
        column += length;
    }
    folded
}

/// Adds a line that begins with `head` and is folded below the end of that; below a small indent where the head is long.
pub fn push_folded(text: &mut String, head: &str, value: &str, width: usize) {
    let at = head.chars().count();
    let indent = if at <= 26 { at } else { 6 };
    for (number, line) in folded(value, width.saturating_sub(at).max(20)).iter().enumerate() {
        if number == 0 {
            text.push_str(head);
        } else {
            text.push_str(&" ".repeat(indent));
        }
        text.push_str(line);
        text.push('\n');
    }
    if value.trim().is_empty() {
        text.push_str(head.trim_end());
        text.push('\n');
    }
}

/// The lines of [`fold`] without any indent.
pub fn folded(text: &str, width: usize) -> Vec<String> {
    fold(text.trim(), width, 0).lines().map(str::to_owned).collect()
}

/// A moment beside another: `22:17:40 UTC` on the same day, else with its date.
pub fn moment(ms: u64, now_ms: u64) -> String {
    let (then, now) = (clock::rfc3339(ms), clock::rfc3339(now_ms));
    match (then.split_once('T'), now.split_once('T')) {
        (Some((day, time)), Some((today, _))) => {
            let time = time.trim_end_matches('Z');
            if day == today {
                format!("{time} UTC")
            } else {
                format!("{day} {time} UTC")
            }
        }
        _ => then,
    }
}

/// The word of an enum or a code as it stands in documents, with spaces: `needs operator`.
pub fn words<T: serde::Serialize>(value: &T) -> String {
    match serde_json::to_value(value) {
        Ok(serde_json::Value::String(word)) => word.replace('_', " "),
        _ => String::new(),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn durations_both_ways() {
        assert_eq!(duration_ms("15m").unwrap(), 900_000);
        for bad in ["", "m", "15", "-1m", "1.5h", "0s", "99999999999999999999d", "é"] {
            assert!(duration_ms(bad).is_err(), "{bad}");
        }
        assert_eq!(duration(7_400), "7s");
        assert_eq!(duration(187_000), "3m 07s");
        assert_eq!(duration(7_500_000), "2h 05m");
    }

    #[test]
    fn tables_line_up() {
        let text = table(&["A", "LONG"], &[vec!["xyz".into(), "1".into()]]);
        assert_eq!(text, "A    LONG\nxyz  1\n");
    }

    #[test]
    fn a_table_stays_within_its_screen() {
        let rows = [
            vec![
                "db01".into(),
                "failed".into(),
                "dpkg ended with 100 and so on".into(),
            ],
            vec!["db02".into(), "upgraded".into(), String::new()],
        ];
        let head = ["HOST", "OUTCOME", "REASON"];
        assert_eq!(table_within(&head, &rows, 80), table(&head, &rows));
        assert_eq!(
            table_within(&head, &rows, 42),
            "HOST  OUTCOME   REASON\n\
             db01  failed    dpkg ended with 100 and so\n                on\n\
             db02  upgraded\n"
        );
        assert_eq!(
            table_within(&head, &rows, 30),
            "HOST  OUTCOME\n      REASON\n\
             db01  failed\n      dpkg ended with 100 and\n      so on\n\
             db02  upgraded\n"
        );
        let wide = table_within(
            &["A", "B", "C"],
            &[vec!["x".repeat(50), "y".into(), "z".into()]],
            40,
        );
        assert!(wide.lines().all(|line| line.chars().count() <= 40), "{wide}");
    }

    #[test]
    fn folds_at_spaces() {
        assert_eq!(fold("  one two three", 9, 4), "  one two\n    three");
        assert_eq!(fold("unbreakable words", 4, 2), "unbreakable\n  words");
        assert_eq!(fold("all of it", 80, 2), "all of it");
    }

    #[test]
    fn moments_name_the_day_only_when_it_is_another() {
        let day = 86_400_000;
        assert_eq!(moment(day + 61_000, day), "00:01:01 UTC");
        assert_eq!(moment(2 * day, day), "1970-01-03 00:00:00 UTC");
    }

    #[test]
    fn cuts_by_characters() {
        assert_eq!(cut("größer", 4), "grö…");
        assert_eq!(cut("ab", 4), "ab");
    }
}
