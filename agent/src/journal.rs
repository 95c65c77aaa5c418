//! The journal of the current order on disk, and the results of finished ones. One line per record, synced before the act it announces.

use crate::config::Paths;
use crate::host::files;
use client_upgrade::journal::{Folded, JournalOrder, Record, fold};
use fleet_common::order::OrderResult;
use fs_err as fs;
use std::io::{self, Write};
use std::path::PathBuf;

/// Results kept: a host sees a handful of orders per rollout.
const MOST_RESULTS: usize = 200;

/// The journal file.
#[derive(Debug)]
pub struct Journal {
    path: PathBuf,
    records: Vec<Record>,
}

impl Journal {
    /// Reads what is there. A half-written last line is a record that was never relied upon, and is dropped.
    pub fn open(paths: &Paths) -> io::Result<Self> {
        let path = paths.journal();
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
            Err(error) => return Err(error),
        };
        let mut records = Vec::new();
        for line in text.lines() {
            match serde_json::from_str(line) {
                Ok(record) => records.push(record),
                Err(_) => break,
            }
        }
        let journal = Self { path, records };
        if !text.is_empty() {
            journal.rewrite()?;
        }
        Ok(journal)
    }

    /// The journal folded, without touching the file; for `status` beside a running agent.
    pub fn read(paths: &Paths) -> io::Result<Folded> {
        let text = match fs::read_to_string(paths.journal()) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
            other => other?,
        };
        let records: Vec<Record> = text
            .lines()
            .map_while(|line| serde_json::from_str(line).ok())
            .collect();
        Ok(fold(&records))
    }

    fn rewrite(&self) -> io::Result<()> {
        let mut text = Vec::new();
        for record in &self.records {
            serde_json::to_writer(&mut text, record)?;
            text.push(b'\n');
        }
        files::replace(&self.path, &text, files::PRIVATE)
    }

    /// Begins the journal of an order; the one before is over.
    pub fn begin(&mut self, order: JournalOrder) -> io::Result<()> {
        self.records = vec![Record::Accepted(order)];
        self.rewrite()
    }

    /// Adds a record and syncs it.
    pub fn add(&mut self, record: Record) -> io::Result<()> {
        let mut line = serde_json::to_vec(&record)?;
        line.push(b'\n');
        let mut file = fs::OpenOptions::new().append(true).open(&self.path)?;
        file.write_all(&line)?;
        file.sync_data()?;
        self.records.push(record);
        Ok(())
    }

    /// The records folded.
    pub fn state(&self) -> Folded {
        fold(&self.records)
    }
}

/// Results of finished orders, newest last.
#[derive(Debug)]
pub struct Results {
    path: PathBuf,
    list: Vec<(String, OrderResult)>,
}

impl Results {
    /// Reads what is there.
    pub fn open(paths: &Paths) -> Self {
        let path = paths.results();
        let list = files::read_json(&path).unwrap_or_default();
        Self { path, list }
    }

    /// The result of an order.
    pub fn get(&self, order_id: &str) -> Option<&OrderResult> {
        self.list
            .iter()
            .rev()
            .find(|(id, _)| id == order_id)
            .map(|(_, result)| result)
    }

    /// Stores a result.
    pub fn put(&mut self, order_id: &str, result: &OrderResult) -> io::Result<()> {
        self.list.retain(|(id, _)| id != order_id);
        self.list.push((order_id.to_owned(), result.clone()));
        let surplus = self.list.len().saturating_sub(MOST_RESULTS);
        self.list.drain(..surplus);
        files::write_json(&self.path, &self.list)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
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
}
