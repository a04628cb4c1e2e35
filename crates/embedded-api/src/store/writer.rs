//! The one thread that writes: decisions in, one commit for those that wait, answers out.

use std::path::Path;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Instant;

use rusqlite::Connection;
use tokio::sync::{mpsc, oneshot};

use super::compaction::{Keep, Schedule};
use super::file::Opened;
use super::hub::Hub;
use super::query::{self, Position};
use super::transaction::Transaction;
use super::{Error, error};
use crate::Status;

/// How many decisions share a commit; as many wait, and who comes then waits outside.
const BATCH: usize = 256;

/// The handle to the thread; dropping it waits until the file is closed.
#[derive(Debug)]
pub(super) struct Writer {
    queue: Option<mpsc::Sender<Box<dyn Work>>>,
    thread: Option<JoinHandle<()>>,
}

/// A decision, without the type of its answer.
trait Work: Send {
    /// Decides, and returns whether its writes stay.
    fn decide(&mut self, transaction: &mut Transaction<'_>) -> bool;
    /// Answers, if the commit went well.
    fn answer(self: Box<Self>, commit: Result<(), Status>);
}

struct Decision<T, F> {
    decide: Option<F>,
    result: Option<Result<T, Status>>,
    reply: oneshot::Sender<Result<T, Status>>,
}

impl<T, F> Work for Decision<T, F>
where
    T: Send,
    F: FnOnce(&mut Transaction<'_>) -> Result<T, Status> + Send,
{
    fn decide(&mut self, transaction: &mut Transaction<'_>) -> bool {
        self.result = self.decide.take().map(|decide| decide(transaction));
        if transaction.failed && matches!(self.result, Some(Ok(_))) {
            self.result = Some(Err(failed()));
        }
        matches!(self.result, Some(Ok(_)))
    }

    fn answer(self: Box<Self>, commit: Result<(), Status>) {
        let result = match (commit, self.result) {
            (Ok(()), Some(result)) => result,
            (Ok(()), None) => Err(error::internal("the decision was not taken")),
            (Err(failure), _) => Err(failure),
        };
        // Who asked may be gone.
        let _gone = self.reply.send(result);
    }
}

impl Writer {
    pub(super) fn start(
        path: &Path,
        file: Opened,
        keep: Keep,
        hub: Arc<Hub>,
    ) -> Result<Self, Error> {
        let (queue, waiting) = mpsc::channel(BATCH);
        let position = hub.position();
        let schedule = Schedule::new(keep, position.head, Instant::now());
        let thread = thread::Builder::new()
            .name("store".to_owned())
            .spawn(move || Thread { file, hub, position, schedule }.run(waiting))
            .map_err(|e| Error::io(path, e))?;
        Ok(Self { queue: Some(queue), thread: Some(thread) })
    }

    pub(super) async fn write<T: Send + 'static>(
        &self,
        decide: impl FnOnce(&mut Transaction<'_>) -> Result<T, Status> + Send + 'static,
    ) -> Result<T, Status> {
        let closed = || error::unavailable("the datastore is closed");
        let (reply, answer) = oneshot::channel();
        let work = Decision { decide: Some(decide), result: None, reply };
        let queue = self.queue.as_ref().ok_or_else(closed)?;
        queue.send(Box::new(work)).await.map_err(|_| closed())?;
        answer.await.unwrap_or_else(|_| Err(closed()))
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.queue = None;
        if let Some(thread) = self.thread.take() {
            // A panic of the thread was reported by the thread.
            let _ended = thread.join();
        }
    }
}

struct Thread {
    file: Opened,
    hub: Arc<Hub>,
    position: Position,
    schedule: Schedule,
}

impl Thread {
    fn run(mut self, mut waiting: mpsc::Receiver<Box<dyn Work>>) {
        while let Some(first) = waiting.blocking_recv() {
            let mut batch = vec![first];
            let result = self.commit(&mut batch, &mut waiting);
            if result.is_err() {
                self.recover();
            }
            for work in batch {
                work.answer(result.clone());
            }
        }
        let Opened { connection, lock } = self.file;
        if let Err((_, error)) = connection.close() {
            tracing::error!(%error, "the datastore's file cannot be closed");
        }
        drop(lock);
        self.hub.close();
    }

    /// Takes the decisions that wait, commits them, and tells the watchers.
    fn commit(
        &mut self,
        batch: &mut Vec<Box<dyn Work>>,
        waiting: &mut mpsc::Receiver<Box<dyn Work>>,
    ) -> Result<(), Status> {
        let connection = &self.file.connection;
        sql(connection, "BEGIN IMMEDIATE")?;
        let (position, events) = (self.position, Vec::new());
        let mut transaction = Transaction { connection, position, events, failed: false };
        if let Some(first) = batch.first_mut() {
            decide(&mut transaction, |transaction| first.decide(transaction))?;
        }
        while batch.len() < BATCH
            && let Ok(mut work) = waiting.try_recv()
        {
            let decided = decide(&mut transaction, |transaction| work.decide(transaction));
            batch.push(work);
            decided?;
        }
        let Position { head, compacted } = transaction.position;
        let bytes = transaction.events.iter().map(|event| event.entry.json.len() as u64).sum();
        let goal = self.schedule.committed(head, bytes, Instant::now());
        if goal > compacted {
            decide(&mut transaction, |transaction| transaction.compact(goal).is_ok())?;
        }
        let Transaction { position, events, .. } = transaction;
        sql(connection, "COMMIT")?;
        self.position = position;
        self.hub.publish(events, position.compacted);
        Ok(())
    }

    /// Makes the connection ready for the next commit, after one that failed.
    fn recover(&mut self) {
        let connection = &self.file.connection;
        if !connection.is_autocommit()
            && let Err(error) = connection.execute_batch("ROLLBACK")
        {
            tracing::error!(%error, "the datastore's last writes cannot be taken back");
        }
        match query::position(connection) {
            Ok(position) => self.position = position,
            Err(error) => tracing::error!(%error, "the datastore's file cannot be read"),
        }
    }
}

/// Takes a decision; if it fails, it leaves nothing. SQLite may take back everything
/// when the disk fails: then nothing of the commit is left.
fn decide(
    transaction: &mut Transaction<'_>,
    decide: impl FnOnce(&mut Transaction<'_>) -> bool,
) -> Result<(), Status> {
    let connection = transaction.connection;
    let (position, events) = (transaction.position, transaction.events.len());
    sql(connection, "SAVEPOINT decision")?;
    if !decide(transaction) {
        transaction.position = position;
        transaction.events.truncate(events);
        if connection.is_autocommit() {
            return Err(failed());
        }
        transaction.failed = false;
        sql(connection, "ROLLBACK TO decision")?;
    }
    sql(connection, "RELEASE decision")
}

pub(super) fn failed() -> Status {
    error::unavailable("the datastore's disk failed; nothing was written; see the server's log")
}

fn sql(connection: &Connection, sql: &str) -> Result<(), Status> {
    let run = |sql| connection.prepare_cached(sql)?.execute([]);
    run(sql).map(|_| ()).map_err(|e| error::failure(&e))
}
