//! Writes the log: takes everything that waits, writes it as one batch with one sync, then answers all. A thread does so, or,
//! where nobody else waits for it, whoever brings an entry.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use kontiki_storage::codec;
use openraft::storage::IOFlushed;
use parking_lot::{Condvar, Mutex};
use rocksdb::{DB, WriteBatch};
use tokio::runtime::{Handle, RuntimeFlavor};
use tokio::sync::oneshot;

use super::ahead::Ahead;
use super::{COMMITTED, ENTRY, PURGED, row_key, write_options};
use crate::format::EntryForm;
use crate::metrics::Metrics;
#[cfg(test)]
use crate::simulation::{self, Mistake};
use crate::types::{Entry, LogId, TypeConfig, position};
use crate::watch;

pub(super) enum Job {
    Append { entries: Vec<Entry>, done: Done },
    Put { key: Vec<u8>, row: Vec<u8>, done: Done },
    Truncate { next: u64, done: Done },
    Purge { next: u64, row: Vec<u8> },
}

pub(super) enum Done {
    Flushed(IOFlushed<TypeConfig>),
    Reply(oneshot::Sender<io::Result<()>>),
}

impl Done {
    pub(super) fn reply() -> (Done, oneshot::Receiver<io::Result<()>>) {
        let (reply, wait) = oneshot::channel();
        (Done::Reply(reply), wait)
    }

    fn tell(self, result: io::Result<()>) {
        match self {
            Done::Flushed(callback) => callback.io_completed(result),
            // Nobody waits any more: nobody needs to know.
            Done::Reply(reply) => drop(reply.send(result)),
        }
    }
}

pub(super) fn stopped() -> io::Error {
    io::Error::other("the log has been closed")
}

pub(super) struct Writer {
    shared: Arc<Shared>,
    known: Arc<Known>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

struct Shared {
    queue: Mutex<Queue>,
    wake: Condvar,
    /// Whoever has it takes all jobs that wait.
    run: Mutex<Run>,
    /// If it has other threads that go on while one of them waits for the disk.
    runtime: Option<Handle>,
}

/// What others want to know of the writing.
struct Known {
    committed: Mutex<Option<LogId>>,
    /// One more than the index of the last entry that was synced.
    durable: AtomicU64,
    /// Why nothing is written any more.
    failure: watch::Sender<Option<String>>,
}

/// A disk that takes longer over a batch deserves a look: every write waits for it.
const SLOW: Duration = Duration::from_millis(100);
/// Before that is said again.
const AGAIN: Duration = Duration::from_secs(10);
/// Where the last batch took longer, the way to the thread and back is little beside the next.
const QUICK: Duration = Duration::from_micros(500);

/// A write on a thread of the runtime that takes longer is noticed, and another thread woken.
const LONG: Duration = Duration::from_millis(10);

#[derive(Default)]
struct Queue {
    jobs: Vec<Job>,
    stop: bool,
    /// How many jobs were done on threads of the runtime.
    here: u64,
    /// The log's thread looks whether one of these takes long.
    watched: bool,
}

impl Writer {
    pub(super) fn start(db: Arc<DB>, dir: &Path, committed: Option<LogId>, metrics: Metrics) -> io::Result<Writer> {
        let known = Arc::new(Known {
            committed: Mutex::new(committed),
            durable: AtomicU64::new(0),
            failure: watch::Sender::new(None),
        });
        let run = Run {
            db,
            ahead: Ahead::new(dir.to_owned()),
            known: known.clone(),
            metrics,
            saved: committed,
            failed: None,
            took: Duration::MAX,
            told: None,
        };
        let several = |runtime: &Handle| {
            runtime.runtime_flavor() == RuntimeFlavor::MultiThread && runtime.metrics().num_workers() > 1
        };
        let runtime = Handle::try_current().ok().filter(several);
        let shared = Arc::new(Shared { queue: Mutex::default(), wake: Condvar::new(), run: Mutex::new(run), runtime });
        #[cfg(test)]
        if let Some(host) = simulation::Host::current() {
            tokio::spawn(shared.clone().run_on(host));
            return Ok(Writer { shared, known, thread: Mutex::default() });
        }
        let running = shared.clone();
        let thread = std::thread::Builder::new().name("raft-log".into()).spawn(move || running.run())?;
        Ok(Writer { shared, known, thread: Mutex::new(Some(thread)) })
    }

    /// Has the thread do it, in its turn.
    pub(super) fn submit(&self, job: Job) {
        let mut queue = self.shared.queue.lock();
        if !queue.stop {
            queue.jobs.push(job);
            self.shared.wake.notify_one();
        }
    }

    /// The same, done when it returns unless the disk is slow or at work already. The caller's thread waits for as long as the
    /// disk takes, which may be for ever; when that is long, another looks after what this one would have done.
    pub(super) fn submit_here(&self, job: Job) {
        let run = self.shared.run.try_lock().filter(|run| self.shared.runtime.is_some() && run.took < QUICK);
        let Some(mut run) = run else { return self.submit(job) };
        let jobs = {
            let mut queue = self.shared.queue.lock();
            if queue.stop {
                return;
            }
            queue.jobs.push(job);
            queue.here += 1;
            if !std::mem::replace(&mut queue.watched, true) {
                self.shared.wake.notify_one();
            }
            std::mem::take(&mut queue.jobs)
        };
        run.work(jobs);
    }

    pub(super) fn set_committed(&self, committed: Option<LogId>) {
        *self.known.committed.lock() = committed;
    }

    pub(super) fn committed(&self) -> Option<LogId> {
        *self.known.committed.lock()
    }

    pub(super) fn durable(&self) -> Option<u64> {
        self.known.durable.load(Ordering::Acquire).checked_sub(1)
    }

    pub(super) fn failure(&self) -> watch::Receiver<Option<String>> {
        self.known.failure.subscribe()
    }

    pub(super) fn waiting(&self) -> usize {
        self.shared.queue.lock().jobs.len()
    }

    pub(super) fn stop(&self) {
        self.shared.queue.lock().stop = true;
        self.shared.wake.notify_one();
        if let Some(thread) = self.thread.lock().take() {
            // It ends by a panic only where a callback panics; then too there is nothing left to wait for.
            let _ = thread.join();
        }
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.stop();
    }
}

struct Run {
    db: Arc<DB>,
    ahead: Ahead,
    known: Arc<Known>,
    metrics: Metrics,
    saved: Option<LogId>,
    /// The first failure. What a failed sync left on disk is unknown, so nothing is written after it.
    failed: Option<(io::ErrorKind, String)>,
    /// What the disk took for the last batch.
    took: Duration,
    /// When the disk was last called slow.
    told: Option<Instant>,
}

/// What is written with one sync, and who waits for it.
struct Round {
    batch: WriteBatch,
    waiting: Vec<Done>,
    durable: u64,
    entries: usize,
    result: io::Result<()>,
}

impl Shared {
    fn run(&self) {
        loop {
            self.wait();
            let mut run = self.run.try_lock_for(LONG).unwrap_or_else(|| {
                self.hand_over();
                self.run.lock()
            });
            let (jobs, stop) = self.take();
            if !jobs.is_empty() {
                run.work(jobs);
            } else if stop {
                let mut batch = WriteBatch::default();
                // Nobody is left to hear of a failure, and it costs the next start some work only.
                let _ = run.add_committed(&mut batch).and_then(|()| run.write(batch, true));
                return;
            }
        }
    }

    /// Until there is something to do here. Meanwhile it watches over what is done elsewhere.
    fn wait(&self) {
        let mut queue = self.queue.lock();
        let mut seen = 0;
        while queue.jobs.is_empty() && !queue.stop {
            if !queue.watched {
                self.wake.wait(&mut queue);
            } else if self.wake.wait_for(&mut queue, LONG).timed_out()
                && std::mem::replace(&mut seen, queue.here) == seen
            {
                // None has begun since the last look.
                if self.run.is_locked() {
                    self.hand_over();
                }
                queue.watched = self.run.is_locked();
            }
        }
    }

    /// A thread of the runtime is blocked: another looks after what waits there, and after sockets and timers. Tokio wakes
    /// one for a new task if all are idle; the others are awake anyway.
    fn hand_over(&self) {
        if let Some(runtime) = &self.runtime {
            runtime.spawn(async {});
        }
    }

    /// All that waits, and whether it is the last.
    fn take(&self) -> (Vec<Job>, bool) {
        let mut queue = self.queue.lock();
        (std::mem::take(&mut queue.jobs), queue.stop)
    }
}

impl Run {
    fn work(&mut self, jobs: Vec<Job>) {
        let mut round = self.gather(jobs);
        round.result = round.result.and_then(|()| self.write(std::mem::take(&mut round.batch), true));
        self.settle(round);
    }

    fn gather(&mut self, jobs: Vec<Job>) -> Round {
        let mut batch = WriteBatch::default();
        let mut waiting = Vec::with_capacity(jobs.len());
        let mut durable = self.known.durable.load(Ordering::Acquire);
        let mut entries = 0;
        let mut result = self.check();
        for job in jobs {
            let (added, done) = match job {
                Job::Append { entries: new, done } => {
                    entries += new.len();
                    durable = new.last().map_or(durable, |entry| entry.log_id.index + 1);
                    (new.iter().try_for_each(|entry| put_entry(&mut batch, entry)), Some(done))
                }
                Job::Put { key, row, done } => {
                    batch.put(key, row);
                    (Ok(()), Some(done))
                }
                Job::Truncate { next, done } => {
                    batch.delete_range(&row_key(next)[..], &[ENTRY + 1][..]);
                    durable = durable.min(next);
                    (Ok(()), Some(done))
                }
                Job::Purge { next, row } => {
                    batch.delete_range(&row_key(0)[..], &row_key(next)[..]);
                    batch.put(PURGED, row);
                    (Ok(()), None)
                }
            };
            result = result.and(added);
            waiting.extend(done);
        }
        result = result.and_then(|()| self.add_committed(&mut batch));
        Round { batch, waiting, durable, entries, result }
    }

    fn settle(&mut self, round: Round) {
        match &round.result {
            Ok(()) => {
                self.known.durable.store(round.durable, Ordering::Release);
                self.metrics.append_entries.observe(round.entries as f64);
            }
            Err(error) if self.failed.is_none() => {
                tracing::error!(%error, "the log can't be written: this replica stops");
                self.failed = Some((error.kind(), error.to_string()));
                self.known.failure.set(Some(error.to_string()));
            }
            Err(_) => {}
        }
        for done in round.waiting {
            done.tell(match &round.result {
                Ok(()) => Ok(()),
                Err(error) => Err(io::Error::new(error.kind(), error.to_string())),
            });
        }
    }

    fn check(&self) -> io::Result<()> {
        match &self.failed {
            None => Ok(()),
            Some((kind, text)) => Err(io::Error::new(*kind, text.clone())),
        }
    }

    fn add_committed(&mut self, batch: &mut WriteBatch) -> io::Result<()> {
        let committed = *self.known.committed.lock();
        if let Some(id) = committed.filter(|_| committed != self.saved) {
            batch.put(COMMITTED, codec::seal(COMMITTED, &position(&id)).map_err(io::Error::other)?);
            self.saved = committed;
        }
        Ok(())
    }

    /// Without a sync only on a simulated disk, which has its own.
    fn write(&mut self, batch: WriteBatch, sync: bool) -> io::Result<()> {
        self.check()?;
        self.metrics.append_bytes.inc_by(batch.size_in_bytes() as u64);
        let start = Instant::now();
        self.ahead.make_room(batch.size_in_bytes());
        self.db.write_opt(batch, &write_options(sync)).map_err(|error| {
            let text = error.into_string();
            let full = text.to_ascii_lowercase().contains("no space");
            io::Error::new(if full { io::ErrorKind::StorageFull } else { io::ErrorKind::Other }, text)
        })?;
        if sync {
            let took = start.elapsed();
            self.took = took;
            self.metrics.append_seconds.observe(took.as_secs_f64());
            if took > SLOW && self.told.is_none_or(|told| told.elapsed() > AGAIN) {
                self.told = Some(Instant::now());
                tracing::warn!(milliseconds = took.as_millis() as u64, "writing and syncing the log took long");
            }
        }
        Ok(())
    }
}

#[cfg(test)]
impl Shared {
    /// The same as a task, on a simulated disk: between writing and syncing there is time to crash.
    async fn run_on(self: Arc<Shared>, host: Arc<simulation::Host>) {
        let disk = &host.disk;
        loop {
            let (jobs, stop) = self.take();
            if jobs.is_empty() && stop {
                return;
            }
            if jobs.is_empty() {
                tokio::time::sleep(std::time::Duration::from_millis(1)).await;
                continue;
            }
            let skips = match host.mistake {
                Some(Mistake::AnswersBeforeSync) => true,
                Some(Mistake::VotesBeforeSync) => {
                    jobs.iter().all(|job| matches!(job, Job::Put { key, .. } if key == super::VOTE))
                }
                _ => false,
            };
            let mut round = {
                let mut run = self.run.lock();
                let mut round = run.gather(jobs);
                round.result = round.result.and_then(|()| disk.check());
                round.result = round.result.and_then(|()| run.write(std::mem::take(&mut round.batch), false));
                round
            };
            if !skips {
                disk.syncing().await;
                let sync = || self.run.lock().db.flush_wal(true).map_err(io::Error::other);
                round.result = round.result.and_then(|()| disk.check()).and_then(|()| sync());
                if round.result.is_ok() {
                    disk.synced();
                }
            }
            self.run.lock().settle(round);
        }
    }
}

fn put_entry(batch: &mut WriteBatch, entry: &Entry) -> io::Result<()> {
    let key = row_key(entry.log_id.index);
    batch.put(key, codec::seal(&key, &EntryForm::of(entry)).map_err(io::Error::other)?);
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicBool;

    use tokio::time::sleep;

    use super::*;

    fn writer(dir: &Path) -> Writer {
        let mut options = rocksdb::Options::default();
        options.create_if_missing(true);
        let db = DB::open(&options, dir).unwrap();
        Writer::start(Arc::new(db), dir, None, Metrics::new().unwrap()).unwrap()
    }

    fn put() -> (Job, oneshot::Receiver<io::Result<()>>) {
        let (done, wait) = Done::reply();
        (Job::Put { key: b"key".to_vec(), row: b"row".to_vec(), done }, wait)
    }

    /// Not at once: a disk has its moments, after which the log's thread has its turn.
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn what_need_not_wait_for_the_thread_is_done_when_it_returns() {
        let dir = tempfile::tempdir().unwrap();
        let writer = writer(dir.path());
        let end = Instant::now() + Duration::from_secs(60);
        loop {
            let (job, mut wait) = put();
            writer.submit_here(job);
            match wait.try_recv() {
                Ok(result) => break result.unwrap(),
                Err(_) => wait.await.unwrap().unwrap(),
            }
            assert!(Instant::now() < end, "every write went to the thread");
        }
        assert!(writer.shared.queue.lock().here > 0);
        // And it ceases to watch.
        while writer.shared.queue.lock().watched {
            assert!(Instant::now() < end, "the thread watches over nothing");
            sleep(LONG).await;
        }
    }

    /// As it would be in a sync that hangs. The thread that is woken by a timer is the one that looks after timers, and as
    /// long as it blocks it would be nobody.
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn while_a_thread_of_the_runtime_is_blocked_another_looks_after_timers() {
        let dir = tempfile::tempdir().unwrap();
        let writer = writer(dir.path());
        let shared = &writer.shared;
        for _ in 0..20 {
            let rang = Arc::new(AtomicBool::new(false));
            let (ring, blocked) = (rang.clone(), shared.clone());
            let timer = tokio::spawn(async move {
                sleep(Duration::from_millis(20)).await;
                ring.store(true, Ordering::Release);
            });
            let blocks = tokio::spawn(async move {
                sleep(Duration::from_millis(5)).await;
                let _run = blocked.run.lock();
                {
                    let mut queue = blocked.queue.lock();
                    (queue.here, queue.watched) = (queue.here + 1, true);
                    blocked.wake.notify_all();
                }
                let end = Instant::now() + Duration::from_secs(10);
                while !rang.load(Ordering::Acquire) && Instant::now() < end {
                    std::thread::sleep(Duration::from_millis(1));
                }
                rang.load(Ordering::Acquire)
            });
            assert!(blocks.await.unwrap(), "no timer went off meanwhile");
            timer.await.unwrap();
        }
    }
}
