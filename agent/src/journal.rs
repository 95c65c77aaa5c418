//! The journal of the current order on disk, and the results of finished ones. One line per record, synced before the act it announces.

use crate::config::Paths;
use crate::host::files;
use crate::host::reserve::Reserve;
use client_upgrade::journal::{Folded, JournalOrder, Record, fold};
use fleet_common::order::OrderResult;
use fs_err as fs;
use std::io;
use std::path::{Path, PathBuf};

/// Results kept: a host sees a handful of orders per rollout.
const MOST_RESULTS: usize = 200;

/// The journal file.
#[derive(Debug)]
pub struct Journal {
    path: PathBuf,
    reserve: Reserve,
    records: Vec<Record>,
    /// Length of the records on disk.
    length: u64,
    /// Lines that count but could not be written yet.
    unwritten: Vec<u8>,
}

impl Journal {
    /// Reads what is there, without writing: the agent must come up on a full disk. A half-written last line is a record that was never
    /// relied upon, and is dropped.
    pub fn open(paths: &Paths) -> io::Result<Self> {
        let path = paths.journal();
        let (records, length) = read(&path)?;
        Ok(Self {
            path,
            reserve: Reserve::of(paths),
            records,
            length,
            unwritten: Vec::new(),
        })
    }

    /// The journal folded, without touching the file; for `status` beside a running agent.
    pub fn read(paths: &Paths) -> io::Result<Folded> {
        Ok(fold(&read(&paths.journal())?.0))
    }

    /// Begins the journal of an order; the one before is over. When it fails the one before stays.
    pub fn begin(&mut self, order: JournalOrder) -> io::Result<()> {
        let records = vec![Record::Accepted(order)];
        self.length = rewrite(&self.path, &records)?;
        self.records = records;
        self.unwritten.clear();
        Ok(())
    }

    /// Adds a record and syncs it. When it fails the record does not count.
    pub fn add(&mut self, record: Record) -> io::Result<()> {
        self.flush()?;
        let line = line(&record)?;
        self.write(&line)?;
        self.records.push(record);
        Ok(())
    }

    /// Adds a record that counts in any case: after the first change the order goes on even if the disk is full. What can't be written is
    /// written with the next record that can.
    pub fn add_anyway(&mut self, record: Record) -> io::Result<()> {
        self.unwritten.extend(line(&record)?);
        self.records.push(record);
        self.flush()
    }

    /// Writes what could not be written before.
    pub fn flush(&mut self) -> io::Result<()> {
        if self.unwritten.is_empty() {
            return Ok(());
        }
        let lines = std::mem::take(&mut self.unwritten);
        let written = self.write(&lines);
        if written.is_err() {
            self.unwritten = lines;
        }
        written
    }

    /// Whether every record that counts is on disk.
    pub fn complete(&self) -> bool {
        self.unwritten.is_empty()
    }

    fn write(&mut self, lines: &[u8]) -> io::Result<()> {
        self.length = self
            .reserve
            .retry(|| files::append(&self.path, self.length, lines))?;
        Ok(())
    }

    /// The records folded.
    pub fn state(&self) -> Folded {
        fold(&self.records)
    }
}

fn read(path: &Path) -> io::Result<(Vec<Record>, u64)> {
    let bytes = match fs::read(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
        other => other?,
    };
    let mut records = Vec::new();
    let mut length = 0;
    for line in files::whole_lines(&bytes) {
        let Ok(record) = serde_json::from_slice(line) else {
            break;
        };
        records.push(record);
        length += line.len() as u64;
    }
    Ok((records, length))
}

fn line(record: &Record) -> io::Result<Vec<u8>> {
    let mut line = serde_json::to_vec(record)?;
    line.push(b'\n');
    Ok(line)
}

fn rewrite(path: &Path, records: &[Record]) -> io::Result<u64> {
    let mut bytes = Vec::new();
    for record in records {
        bytes.extend(line(record)?);
    }
    files::replace(path, &bytes, files::PRIVATE)?;
    Ok(bytes.len() as u64)
}

/// Results of finished orders, newest last.
#[derive(Debug)]
pub struct Results {
    path: PathBuf,
    reserve: Reserve,
    list: Vec<(String, OrderResult)>,
    stored: bool,
}

impl Results {
    /// Reads what is there.
    pub fn open(paths: &Paths) -> Self {
        let path = paths.results();
        let list = files::read_json(&path).unwrap_or_default();
        Self {
            path,
            reserve: Reserve::of(paths),
            list,
            stored: true,
        }
    }

    /// The result of an order.
    pub fn get(&self, order_id: &str) -> Option<&OrderResult> {
        self.list
            .iter()
            .rev()
            .find(|(id, _)| id == order_id)
            .map(|(_, result)| result)
    }

    /// Stores a result. It is known in any case; when it can't be stored, [`Self::flush`] tries again.
    pub fn put(&mut self, order_id: &str, result: &OrderResult) -> io::Result<()> {
        self.list.retain(|(id, _)| id != order_id);
        self.list.push((order_id.to_owned(), result.clone()));
        let surplus = self.list.len().saturating_sub(MOST_RESULTS);
        self.list.drain(..surplus);
        self.stored = false;
        self.flush()
    }

    /// Stores what is known, if it is not stored yet.
    pub fn flush(&mut self) -> io::Result<()> {
        if !self.stored {
            self.reserve.retry(|| files::write_json(&self.path, &self.list))?;
            self.stored = true;
        }
        Ok(())
    }

    /// Whether everything known is on disk.
    pub fn complete(&self) -> bool {
        self.stored
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::host::reserve::small_disk::SmallDisk;
    use client_upgrade::procedure::StepId;
    use fleet_common::ids::Epoch;
    use fleet_common::order::Action;

    fn order() -> JournalOrder {
        JournalOrder {
            order_id: "o".into(),
            epoch: Epoch::default(),
            plan_id: "p".into(),
            action: Action::Switch,
            entry: "{}".into(),
            boot_id: "b".into(),
            at_ms: 1,
            boot_ms: 1,
            deadline_for_ms: 1,
            release: String::new(),
        }
    }

    #[test]
    fn a_torn_last_line_is_dropped() {
        let dir = tempfile::tempdir().unwrap();
        let paths = Paths::new(dir.path(), dir.path());
        let mut journal = Journal::open(&paths).unwrap();
        journal.begin(order()).unwrap();
        journal
            .add(Record::Intent {
                step: StepId::Stop,
                at_ms: 2,
                spent_ms: 0,
            })
            .unwrap();
        let mut text = fs::read_to_string(paths.journal()).unwrap();
        text.push_str("{\"record\":\"res");
        fs::write(paths.journal(), text).unwrap();
        let mut again = Journal::open(&paths).unwrap();
        assert_eq!(again.state().open, Some(StepId::Stop));
        again
            .add(Record::Result {
                step: StepId::Stop,
                ok: true,
                at_ms: 3,
                spent_ms: 0,
            })
            .unwrap();
        assert_eq!(
            Journal::open(&paths).unwrap().state().last,
            Some((StepId::Stop, true))
        );
    }

    fn intent(step: StepId) -> Record {
        Record::Intent {
            step,
            at_ms: 2,
            spent_ms: 0,
        }
    }

    #[test]
    fn a_full_disk_leaves_no_torn_line_and_loses_no_record_that_counts() {
        let disk = SmallDisk::new(512);
        let paths = Paths::new(disk.path(), disk.path());
        let mut journal = Journal::open(&paths).unwrap();
        journal.begin(order()).unwrap();
        Reserve::of(&paths).make(64 * 1024).unwrap();
        disk.fill();
        // The page of the journal has room for some lines; the reserve is needed after that.
        for _ in 0..200 {
            journal.add(intent(StepId::Stop)).unwrap();
        }
        assert!(!Reserve::of(&paths).release(), "the reserve was needed");
        disk.fill();
        while journal.add(intent(StepId::Install)).is_ok() {}
        let before = journal.state();
        assert!(journal.add_anyway(intent(StepId::BackStop)).is_err());
        assert_eq!(journal.state().open, Some(StepId::BackStop));
        assert!(!journal.complete());
        let on_disk = Journal::open(&paths).unwrap();
        assert_eq!(on_disk.state(), before);
        disk.free();
        journal.flush().unwrap();
        journal.add(intent(StepId::BackInstall)).unwrap();
        assert_eq!(Journal::open(&paths).unwrap().state(), journal.state());
    }

    #[test]
    fn a_result_on_a_full_disk_is_known_and_stored_later() {
        let disk = SmallDisk::new(256);
        let paths = Paths::new(disk.path(), disk.path());
        disk.fill();
        let mut results = Results::open(&paths);
        let result = crate::execute::orders::refusal("x", "y");
        assert!(results.put("o", &result).is_err());
        assert_eq!(results.get("o"), Some(&result));
        assert!(results.flush().is_err() && !results.complete());
        disk.free();
        results.flush().unwrap();
        assert!(results.complete());
        assert_eq!(Results::open(&paths).get("o"), Some(&result));
    }
}
