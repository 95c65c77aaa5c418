//! Small pieces of text: tables, durations.

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
    fn folds_at_spaces() {
        assert_eq!(fold("  one two three", 9, 4), "  one two\n    three");
        assert_eq!(fold("unbreakable words", 4, 2), "unbreakable\n  words");
        assert_eq!(fold("all of it", 80, 2), "all of it");
    }

    #[test]
    fn cuts_by_characters() {
        assert_eq!(cut("größer", 4), "grö…");
        assert_eq!(cut("ab", 4), "ab");
    }
}
