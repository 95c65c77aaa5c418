//! The writer thread. Each message gets a savepoint, so that a refused one does not take its neighbours with it; one commit with full
//! sync then covers all of them, and only after it do the senders hear back.

use super::StoreError;
use rusqlite::Connection;
use std::sync::mpsc;
use std::thread;
use tokio::sync::oneshot;

/// Messages in one commit at most: with a 5 ms sync this is about 50,000 messages a second.
const GROUP: usize = 256;

type Notify = Box<dyn FnOnce(Result<(), String>) + Send>;
/// Gets the connection within a transaction, or why there is none.
type Job = Box<dyn FnOnce(Result<&Connection, String>) -> Notify + Send>;

/// Sends work to the writer thread; the thread ends when the last handle is gone.
pub struct Writer {
    queue: mpsc::Sender<Job>,
}

impl Writer {
    pub fn start(connection: Connection) -> Result<Self, StoreError> {
        let (queue, jobs) = mpsc::channel::<Job>();
        thread::Builder::new()
            .name("store-writer".to_owned())
            .spawn(move || serve(connection, &jobs))?;
        Ok(Self { queue })
    }

    pub async fn run<T, F>(&self, work: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> Result<T, StoreError> + Send + 'static,
    {
        let (answer, wait) = oneshot::channel();
        let job: Job = Box::new(move |connection| {
            let result = match connection {
                Ok(connection) => in_savepoint(connection, work),
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

fn in_savepoint<T>(
    connection: &Connection,
    work: impl FnOnce(&Connection) -> Result<T, StoreError>,
) -> Result<T, StoreError> {
    connection.execute_batch("SAVEPOINT message")?;
    let result = work(connection);
    if result.is_err() {
        connection.execute_batch("ROLLBACK TO message")?;
    }
    connection.execute_batch("RELEASE message")?;
    result
}

fn serve(connection: Connection, jobs: &mpsc::Receiver<Job>) {
    while let Ok(first) = jobs.recv() {
        let mut notifications = Vec::new();
        let begun = connection
            .execute_batch("BEGIN IMMEDIATE")
            .map_err(|error| error.to_string());
        let mut next = Some(first);
        while let Some(job) = next.take() {
            // Without a transaction the savepoints would commit one by one: nothing is run, only answered.
            notifications.push(job(begun.as_ref().map(|()| &connection).map_err(Clone::clone)));
            if notifications.len() < GROUP {
                next = jobs.try_recv().ok();
            }
        }
        if let Err(reason) = begun {
            tracing::error!(%reason, "the store can't begin a transaction");
            notifications
                .into_iter()
                .for_each(|notify| notify(Err(reason.clone())));
            continue;
        }
        let committed = connection
            .execute_batch("COMMIT")
            .map_err(|error| error.to_string());
        if let Err(reason) = &committed {
            tracing::error!(%reason, "the store could not commit");
            if let Err(error) = connection.execute_batch("ROLLBACK") {
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

    fn connection() -> Connection {
        let connection = Connection::open_in_memory().unwrap();
        connection
            .execute_batch("CREATE TABLE t(n INTEGER PRIMARY KEY) STRICT")
            .unwrap();
        connection
    }

    #[tokio::test]
    async fn a_refused_message_leaves_its_neighbours_alone() {
        let writer = Writer::start(connection()).unwrap();
        let insert = |n: i64, fail: bool| {
            writer.run(move |c| {
                c.execute("INSERT INTO t VALUES(?1)", [n])?;
                if fail { Err(StoreError::Closed) } else { Ok(()) }
            })
        };
        let (a, b, c) = tokio::join!(insert(1, false), insert(2, true), insert(3, false));
        assert!(a.is_ok() && b.is_err() && c.is_ok());
        let rows: Vec<i64> = writer
            .run(|c| {
                let mut statement = c.prepare("SELECT n FROM t ORDER BY n")?;
                Ok(statement
                    .query_map([], |row| row.get(0))?
                    .collect::<Result<_, _>>()?)
            })
            .await
            .unwrap();
        assert_eq!(rows, [1, 3]);
    }
}
