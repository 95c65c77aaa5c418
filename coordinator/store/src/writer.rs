//! The writer thread. Each message gets a savepoint, so that a refused one does not take its neighbours with it; one commit with full
//! sync then covers all of them, and only after it do the senders hear back. SQLite may end the transaction by itself, on a full disk for
//! example: then nothing of the group holds, and the rest of it is not run.

use super::{Core, StoreError};
use std::sync::mpsc;
use std::thread;
use tokio::sync::oneshot;

/// Messages in one commit at most: with a 5 ms sync this is about 50,000 messages a second.
const GROUP: usize = 256;

type Notify = Box<dyn FnOnce(Result<(), String>) + Send>;
/// Gets the store within a transaction, or why there is none.
type Job = Box<dyn FnOnce(Result<&Core, String>) -> Notify + Send>;

/// Sends work to the writer thread; the thread ends when the last handle is gone.
pub struct Writer {
    queue: mpsc::Sender<Job>,
}

impl Writer {
    pub fn start(core: Core) -> Result<Self, StoreError> {
        let (queue, jobs) = mpsc::channel::<Job>();
        thread::Builder::new()
            .name("store-writer".to_owned())
            .spawn(move || serve(&core, &jobs))?;
        Ok(Self { queue })
    }

    pub async fn run<T, F>(&self, work: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&Core) -> Result<T, StoreError> + Send + 'static,
    {
        let (answer, wait) = oneshot::channel();
        let job: Job = Box::new(move |core| {
            let result = match core {
                Ok(core) => in_savepoint(core, work),
                Err(reason) => Err(StoreError::Commit(reason)),
            };
            Box::new(move |commit: Result<(), String>| {
                let result = match commit {
                    Ok(()) => result,
                    Err(reason) => result.and(Err(StoreError::Commit(reason))),
                };
                // A sender that went away no longer needs the answer.
                let _ = answer.send(result);
            })
        });
        self.queue.send(job).map_err(|_| StoreError::Closed)?;
        wait.await.map_err(|_| StoreError::Closed)?
    }
}

fn in_savepoint<T>(core: &Core, work: impl FnOnce(&Core) -> Result<T, StoreError>) -> Result<T, StoreError> {
    let connection = &core.connection;
    connection.execute_batch("SAVEPOINT message")?;
    let result = work(core);
    if result.is_err() {
        if connection.is_autocommit() {
            // The savepoint went with the transaction; the reason is worth more than that.
            return result;
        }
        connection.execute_batch("ROLLBACK TO message")?;
    }
    connection.execute_batch("RELEASE message")?;
    result
}

fn serve(core: &Core, jobs: &mpsc::Receiver<Job>) {
    while let Ok(first) = jobs.recv() {
        let mut notifications = Vec::new();
        let mut group = core.begin().map_err(|error| error.to_string());
        let mut next = Some(first);
        while let Some(job) = next.take() {
            // Without a transaction the savepoints would commit one by one: nothing is run, only answered.
            notifications.push(job(group.as_ref().map(|()| core).map_err(Clone::clone)));
            if group.is_ok() && core.connection.is_autocommit() {
                group = Err("SQLite ended the transaction by itself; is the disk full?".to_owned());
            }
            if notifications.len() < GROUP {
                next = jobs.try_recv().ok();
            }
        }
        if let Err(reason) = group {
            tracing::error!(%reason, "the store has no transaction; nothing of the group was stored");
            notifications
                .into_iter()
                .for_each(|notify| notify(Err(reason.clone())));
            continue;
        }
        let committed = core.end().map_err(|error| error.to_string());
        if let Err(reason) = &committed {
            tracing::error!(%reason, "the store could not commit");
            if let Err(error) = core.undo() {
                tracing::debug!(%error, "nothing to roll back");
            }
        }
        for notify in notifications {
            notify(committed.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use rusqlite::Connection;

    fn core() -> Core {
        let connection = Connection::open_in_memory().unwrap();
        connection
            .execute_batch("CREATE TABLE t(n INTEGER PRIMARY KEY) STRICT")
            .unwrap();
        Core { connection }
    }

    #[tokio::test]
    async fn a_full_disk_takes_the_whole_group_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let core = Core::open(&dir.path().join("store.sqlite")).unwrap();
        core.connection
            .execute_batch(
                "CREATE TABLE t(n INTEGER PRIMARY KEY, data BLOB) STRICT; INSERT INTO t VALUES(0, NULL)",
            )
            .unwrap();
        let pages: i64 = core
            .connection
            .query_row("PRAGMA page_count", [], |row| row.get(0))
            .unwrap();
        core.connection
            .pragma_update(None, "max_page_count", pages + 4)
            .unwrap();
        let writer = Writer::start(core).unwrap();
        let insert = |n: i64, bytes: usize| {
            writer.run(move |core| {
                core.connection.execute(
                    "INSERT INTO t VALUES(?1, ?2)",
                    rusqlite::params![n, vec![0u8; bytes]],
                )?;
                Ok(())
            })
        };
        // Holds the writer until all of them wait, so that they are one group.
        let (go, gate) = mpsc::channel::<()>();
        let hold = writer.run(move |_| {
            // Ends when the sender is dropped.
            gate.recv().unwrap_or_default();
            Ok(())
        });
        let release = async { drop(go) };
        let (held, before, full, after, ()) =
            tokio::join!(hold, insert(1, 1), insert(2, 1 << 20), insert(3, 1), release);
        assert!(matches!(full, Err(StoreError::Sqlite(_))), "{full:?}");
        for one in [held, before, after] {
            assert!(matches!(one, Err(StoreError::Commit(_))), "{one:?}");
        }
        // What failed was not stored in part, and the store goes on.
        insert(4, 1).await.unwrap();
        let rows: Vec<i64> = writer
            .run(|core| {
                let mut statement = core.connection.prepare("SELECT n FROM t ORDER BY n")?;
                Ok(statement
                    .query_map([], |row| row.get(0))?
                    .collect::<Result<_, _>>()?)
            })
            .await
            .unwrap();
        assert_eq!(rows, [0, 4]);
    }

    #[tokio::test]
    async fn a_refused_message_leaves_its_neighbours_alone() {
        let writer = Writer::start(core()).unwrap();
        let insert = |n: i64, fail: bool| {
            writer.run(move |core| {
                core.connection.execute("INSERT INTO t VALUES(?1)", [n])?;
                if fail { Err(StoreError::Closed) } else { Ok(()) }
            })
        };
        let (a, b, c) = tokio::join!(insert(1, false), insert(2, true), insert(3, false));
        assert!(a.is_ok() && b.is_err() && c.is_ok());
        let rows: Vec<i64> = writer
            .run(|core| {
                let mut statement = core.connection.prepare("SELECT n FROM t ORDER BY n")?;
                Ok(statement
                    .query_map([], |row| row.get(0))?
                    .collect::<Result<_, _>>()?)
            })
            .await
            .unwrap();
        assert_eq!(rows, [1, 3]);
    }
}
