//! The journal on disk: one file per order, one JSON line per entry, on the disk before the call returns.

use crate::clock::now_ms;
use crate::error::DriverError;
use crate::record::{HopRecord, StepRecord};
use fleet_common::server::ServerOrder;
use serde::Serialize;
use serde::de::DeserializeOwned;
use server_upgrade::journal::{Line, Replay};
use server_upgrade::names::order_key;
use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// An open journal.
pub struct Journal {
    path: PathBuf,
    file: File,
    replay: Replay,
}

fn trouble(what: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> DriverError {
    let path = path.to_owned();
    move |source| DriverError::File { what, path, source }
}

/// Makes the journal directory, readable by its owner only.
pub fn prepare(dir: &Path) -> Result<(), DriverError> {
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(dir)
        .map_err(trouble("can't create", dir))
}

impl Journal {
    /// Opens the journal of an order, or begins one.
    pub fn open(dir: &Path, order: &ServerOrder) -> Result<Self, DriverError> {
        let path = dir.join(format!("{}.jsonl", order_key(order)));
        let fresh = !path.exists();
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&path)
            .map_err(trouble("can't open", &path))?;
        let (lines, whole) = read(&mut file, &path)?;
        // What follows the last whole line was being written when the process died; it never counted.
        file.set_len(whole).map_err(trouble("can't shorten", &path))?;
        file.seek(SeekFrom::Start(whole))
            .map_err(trouble("can't seek in", &path))?;
        let mut journal = Self {
            path,
            file,
            replay: Replay::of(&lines),
        };
        if journal.replay.order.is_none() {
            journal.append(Line::Opened {
                order: order.clone(),
                at_ms: now_ms(),
            })?;
        }
        if fresh {
            File::open(dir)
                .and_then(|dir| dir.sync_all())
                .map_err(trouble("can't sync", dir))?;
        }
        Ok(journal)
    }

    /// Adds a line; on the disk when this returns.
    pub fn append(&mut self, line: Line) -> Result<(), DriverError> {
        let mut text = serde_json::to_string(&line).map_err(|source| DriverError::Journal {
            path: self.path.clone(),
            line: 0,
            source,
        })?;
        text.push('\n');
        self.file
            .write_all(text.as_bytes())
            .map_err(trouble("can't write", &self.path))?;
        self.file.sync_data().map_err(trouble("can't sync", &self.path))?;
        self.replay.apply(&line);
        Ok(())
    }

    /// Keeps something for later steps.
    pub fn note<T: Serialize>(&mut self, key: &str, value: &T) -> Result<(), DriverError> {
        let value = serde_json::to_value(value).map_err(|source| DriverError::Journal {
            path: self.path.clone(),
            line: 0,
            source,
        })?;
        self.append(Line::Note {
            key: key.to_owned(),
            value,
        })
    }

    /// Something kept by an earlier step.
    pub fn get<T: DeserializeOwned>(&self, key: &str) -> Option<T> {
        serde_json::from_value(self.replay.notes.get(key)?.clone()).ok()
    }

    /// What the journal says.
    pub fn replay(&self) -> &Replay {
        &self.replay
    }
}

/// All whole lines, and the number of bytes that they take.
fn read(file: &mut File, path: &Path) -> Result<(Vec<Line>, u64), DriverError> {
    let mut text = String::new();
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)
        .map_err(trouble("can't read", path))?;
    let whole = bytes
        .iter()
        .rposition(|byte| *byte == b'\n')
        .map_or(0, |last| last + 1);
    text.push_str(&String::from_utf8_lossy(bytes.get(..whole).unwrap_or_default()));
    let mut lines = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let parsed = serde_json::from_str(line).map_err(|source| DriverError::Journal {
            path: path.to_owned(),
            line: index + 1,
            source,
        })?;
        lines.push(parsed);
    }
    Ok((lines, whole as u64))
}

/// What all journals of a directory say, oldest first.
pub fn all(dir: &Path) -> Result<Vec<Replay>, DriverError> {
    let mut out = Vec::new();
    let entries = match std::fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(out),
        Err(error) => return Err(trouble("can't list", dir)(error)),
    };
    for entry in entries {
        let path = entry.map_err(trouble("can't list", dir))?.path();
        if path.extension().is_some_and(|extension| extension == "jsonl") {
            let mut file = File::open(&path).map_err(trouble("can't open", &path))?;
            let (lines, _) = read(&mut file, &path)?;
            let replay = Replay::of(&lines);
            if replay.order.is_some() {
                out.push(replay);
            }
        }
    }
    out.sort_by_key(|replay| replay.opened_at_ms);
    Ok(out)
}

/// A journal as a record for reports.
pub fn record(replay: &Replay) -> Option<HopRecord> {
    let steps = replay.begun.iter().map(|step| StepRecord {
        step: step.clone(),
        attempts: replay.attempts.get(step).copied().unwrap_or_default(),
        took_ms: replay.done.get(step).copied(),
    });
    let text = |key: &str| {
        replay
            .notes
            .get(key)
            .and_then(|value| value.as_str())
            .map(str::to_owned)
    };
    Some(HopRecord {
        order: replay.order.clone()?,
        started_at_ms: replay.opened_at_ms,
        steps: steps.collect(),
        restore_point: text("restore_point"),
        image: text("image"),
        disturbances: replay.resumed.clone(),
        result: replay.finished.clone(),
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use fleet_common::ids::{LegId, OrderId};
    use fleet_common::server::Pmm2Update;
    use fleet_common::version::PmmVersion;
    use std::os::unix::fs::PermissionsExt;

    fn order() -> ServerOrder {
        ServerOrder {
            order: OrderId::new("r/server-1/server/1/hop1"),
            leg: LegId::new("server-1"),
            attempt: 1,
            hop: 1,
            from: PmmVersion::new(2, 41, 2),
            to: PmmVersion::new(2, 44, 1),
            pmm2_update: Pmm2Update::Image,
            last_of_leg: false,
            accept_unsettled: false,
        }
    }

    #[test]
    fn a_torn_line_never_counted_and_the_rest_survives() {
        let dir = tempfile::tempdir().unwrap();
        let mut journal = Journal::open(dir.path(), &order()).unwrap();
        journal
            .append(Line::Intent {
                step: "inspect".to_owned(),
                at_ms: 1,
            })
            .unwrap();
        journal.note("k", &7).unwrap();
        let path = journal.path.clone();
        drop(journal);
        assert_eq!(
            std::fs::metadata(&path).unwrap().permissions().mode() & 0o777,
            0o600
        );
        let mut torn = std::fs::read(&path).unwrap();
        torn.extend_from_slice(b"{\"line\":\"done\",\"step\":\"insp");
        std::fs::write(&path, torn).unwrap();
        let mut journal = Journal::open(dir.path(), &order()).unwrap();
        assert_eq!(journal.replay().open.as_deref(), Some("inspect"));
        assert_eq!(journal.get::<u32>("k"), Some(7));
        journal
            .append(Line::Done {
                step: "inspect".to_owned(),
                at_ms: 2,
                took_ms: 1,
            })
            .unwrap();
        let found = all(dir.path()).unwrap();
        assert_eq!(found.len(), 1);
        assert_eq!(
            record(found.first().unwrap())
                .unwrap()
                .steps
                .first()
                .unwrap()
                .took_ms,
            Some(1)
        );
    }

    #[test]
    fn a_damaged_line_in_the_middle_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let path = Journal::open(dir.path(), &order()).unwrap().path;
        let text = std::fs::read_to_string(&path).unwrap();
        std::fs::write(&path, format!("{text}garbage\n{text}")).unwrap();
        assert!(matches!(
            Journal::open(dir.path(), &order()),
            Err(DriverError::Journal { line: 2, .. })
        ));
    }
}
