//! Samples in memory and on disk: a line per new series, then its number, value and time per sample.

use std::{
    collections::BTreeMap,
    io::{self, Write},
    path::{Path, PathBuf},
};

use super::{
    log,
    promql::{self, Labels, Series},
    role,
};

/// The samples.
#[derive(Default)]
pub struct Tsdb {
    dir: PathBuf,
    series: Vec<Series>,
    /// Labels in their canonical form to the place of the series.
    by_labels: BTreeMap<Labels, usize>,
    /// Labels as they were sent to the place of the series, so that each form is read once.
    by_text: BTreeMap<String, usize>,
    /// How many of the series the file knows.
    declared: usize,
    pending: String,
}

impl Tsdb {
    fn part(&self) -> PathBuf {
        self.dir.join("data/small/samples.txt")
    }

    /// Opens the data directory.
    pub fn open(dir: &Path) -> io::Result<Self> {
        let mut db = Self {
            dir: dir.to_owned(),
            ..Self::default()
        };
        std::fs::create_dir_all(db.part().parent().unwrap_or(dir))?;
        match std::fs::read_to_string(db.part()) {
            Ok(text) => db.load(&text),
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            Err(e) => return Err(role::named(&db.part(), e)),
        }
        Ok(db)
    }

    fn load(&mut self, text: &str) {
        let mut broken = 0;
        for line in text.lines() {
            let done = match line.strip_prefix('@') {
                Some(name) => self.place(name).is_some(),
                None => self.load_sample(line).is_some(),
            };
            broken += u32::from(!done);
        }
        self.declared = self.series.len();
        if !text.is_empty() && !text.ends_with('\n') {
            // A killed server left half a line.
            self.pending.push('\n');
        }
        if broken > 0 {
            log::line(format!(
                "warn: {broken} broken lines in {}",
                self.part().display()
            ));
        }
    }

    fn load_sample(&mut self, line: &str) -> Option<()> {
        let mut words = line.split(' ');
        let series = self.series.get_mut(words.next()?.parse::<usize>().ok()?)?;
        let value = words.next()?.parse().ok()?;
        series.push(words.next()?.parse().ok()?, value);
        Some(())
    }

    /// The place of the series with these labels, made if it is new.
    fn place(&mut self, name: &str) -> Option<usize> {
        if let Some(place) = self.by_text.get(name) {
            return Some(*place);
        }
        let mut labels = promql::parse_series(name)?;
        // An empty label is as good as none.
        labels.retain(|_, value| !value.is_empty());
        let next = self.series.len();
        let place = *self.by_labels.entry(labels.clone()).or_insert(next);
        if place == next {
            self.series.push(Series {
                labels,
                samples: Vec::new(),
            });
        }
        self.by_text.insert(name.to_owned(), place);
        Some(place)
    }

    /// Takes samples in the text form; the number of lines that could not be read is returned.
    pub fn ingest(&mut self, text: &str) -> usize {
        let now = jiff::Timestamp::now().as_millisecond();
        let lines = text
            .lines()
            .map(str::trim)
            .filter(|l| !l.is_empty() && !l.starts_with('#'));
        lines.filter(|line| self.ingest_line(line, now).is_none()).count()
    }

    fn ingest_line(&mut self, line: &str, now: i64) -> Option<()> {
        let (name, rest) = split_name(line)?;
        let mut words = rest.split_whitespace();
        let value: f64 = words.next()?.parse().ok()?;
        let at = words.next().map_or(Some(now), |word| word.parse().ok())?;
        let place = self.place(name)?;
        if place >= self.declared {
            // Series get their places in the order in which they are declared.
            self.pending.push_str(&format!("@{name}\n"));
            self.declared = place + 1;
        }
        self.pending.push_str(&format!("{place} {value} {at}\n"));
        self.series.get_mut(place)?.push(at, value);
        Some(())
    }

    /// Writes what is not on disk yet.
    pub fn flush(&mut self) -> io::Result<()> {
        if self.pending.is_empty() {
            return Ok(());
        }
        let mut file = std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.part())?;
        file.write_all(self.pending.as_bytes())?;
        file.sync_data()?;
        self.pending.clear();
        Ok(())
    }

    /// Forgets everything.
    pub fn truncate(&mut self) -> io::Result<()> {
        *self = Self {
            dir: std::mem::take(&mut self.dir),
            ..Self::default()
        };
        role::write_atomic(&self.part(), b"")
    }

    /// All series, for evaluation.
    pub fn all(&self) -> impl Iterator<Item = &Series> {
        self.series.iter()
    }
}

/// Splits `name{labels} value ms` behind the labels.
fn split_name(line: &str) -> Option<(&str, &str)> {
    let (mut quoted, mut escaped) = (false, false);
    let end = line.char_indices().find(|(_, c)| {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => quoted = !quoted,
            _ => {}
        }
        !quoted && c.is_whitespace()
    })?;
    Some(line.split_at(end.0))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn text_lines_become_series() {
        let mut db = Tsdb::default();
        let text = "up{node_name=\"a b\",job=\"x_hr\"} 1 1000\nup{job=\"x_hr\",node_name=\"a b\",empty=\"\"} 0 2000\nbroken\n";
        assert_eq!(db.ingest(text), 1);
        assert_eq!(
            db.all().map(|s| s.samples.clone()).collect::<Vec<_>>(),
            [[(1000, 1.0), (2000, 0.0)]]
        );
    }

    #[test]
    fn what_was_written_is_read_again() {
        let dir = std::env::temp_dir().join(format!("standin-tsdb-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&dir);
        let mut db = Tsdb::open(&dir).unwrap();
        db.ingest("up{a=\"1\"} 1 1000\nup{a=\"2\"} 1 1000\n");
        db.flush().unwrap();
        let mut db = Tsdb::open(&dir).unwrap();
        db.ingest("up{a=\"3\"} 1 1000\nup{a=\"1\"} 0 2000\n");
        db.flush().unwrap();
        let db = Tsdb::open(&dir).unwrap();
        let mut all: Vec<_> = db
            .all()
            .map(|s| (s.labels["a"].clone(), s.samples.len()))
            .collect();
        all.sort();
        assert_eq!(
            all,
            [("1".to_owned(), 2), ("2".to_owned(), 1), ("3".to_owned(), 1)]
        );
        std::fs::remove_dir_all(dir).unwrap();
    }
}
