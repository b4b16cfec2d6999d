//! A strand: tasks that hand their work to each other, as one task of the runtime. Raft's own are such. An entry goes from one
//! of them to the next five times, and between tasks of the runtime each time may wake a thread, which takes longer than
//! what is done there. In a strand it is a bit that is set.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::future::poll_fn;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::task::{Context, Poll, Wake, Waker, ready};
use std::thread;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use futures_util::task::AtomicWaker;
use parking_lot::Mutex;
use tokio::sync::oneshot;
use tokio::task::coop;

thread_local! {
    /// What is spawned while a strand is being made.
    static MADE: RefCell<Option<Vec<BoxFuture<'static, ()>>>> = const { RefCell::new(None) };
    static UNDISTURBED: Cell<bool> = const { Cell::new(false) };
}

/// Everything that `start` spawns here is one task of the runtime. What those spawn later are tasks of their own.
pub(crate) fn make<T>(start: impl FnOnce() -> T) -> (T, Strand) {
    let before = MADE.replace(Some(Vec::new()));
    let started = start();
    let parts = MADE.replace(before).unwrap_or_default();
    let strand = Arc::new(Shared::new(parts));
    let handle = Strand(Arc::downgrade(&strand));
    tokio::spawn(Whole(strand));
    (started, handle)
}

pub(crate) fn spawn<T>(future: T) -> JoinHandle<T::Output>
where
    T: Future<Output: Send> + Send + 'static,
{
    let (sender, ended) = oneshot::channel();
    let part = async move {
        let output = AssertUnwindSafe(future).catch_unwind().await;
        // Nobody waits for it.
        let _ = sender.send(output);
    };
    let alone = MADE.with_borrow_mut(|made| match made {
        Some(made) if made.len() < PARTS => {
            made.push(part.boxed());
            None
        }
        _ => Some(part),
    });
    if let Some(part) = alone {
        tokio::spawn(part);
    }
    JoinHandle(ended)
}

/// Ends when what was spawned has.
pub(crate) struct JoinHandle<T>(oneshot::Receiver<thread::Result<T>>);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum JoinError {
    Panic,
    /// The runtime has ended.
    Cancelled,
}

impl fmt::Display for JoinError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            JoinError::Panic => "the task panicked",
            JoinError::Cancelled => "the task was cancelled",
        })
    }
}

impl<T> Future for JoinHandle<T> {
    type Output = Result<T, JoinError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        Poll::Ready(match ready!(self.0.poll_unpin(context)) {
            Ok(Ok(output)) => Ok(output),
            Ok(Err(_)) => Err(JoinError::Panic),
            Err(_) => Err(JoinError::Cancelled),
        })
    }
}

/// Bits of `Woken`: one for each part that was woken, and this while somebody polls them.
const TAKEN: u64 = 1 << 63;
/// There are none any more.
const ENDED: u64 = 1 << 62;
const PARTS: usize = 62;
/// So often the parts have their turns before the runtime's other tasks have theirs.
const ROUNDS: usize = 64;
/// The same on a caller's task: what one entry takes, and not much of what others have brought meanwhile.
const ALONE: usize = 8;

/// A handle; clones are the same. The runtime's task has the parts.
#[derive(Clone)]
pub(crate) struct Strand(Weak<Shared>);

struct Shared {
    woken: Arc<Woken>,
    parts: Mutex<Parts>,
}

struct Parts {
    all: Vec<Option<BoxFuture<'static, ()>>>,
    wakers: Vec<Waker>,
    live: usize,
}

struct Woken {
    bits: AtomicU64,
    task: AtomicWaker,
}

struct PartWaker {
    bit: u64,
    woken: Arc<Woken>,
}

impl Wake for PartWaker {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if self.woken.bits.fetch_or(self.bit, Ordering::AcqRel) == 0 {
            self.woken.task.wake();
        }
    }
}

impl Strand {
    /// `future`, which has the parts do something for it. If they have nothing else to do, they do it here and now, on the
    /// caller's task: no other needs to be woken.
    pub(crate) async fn with<F: Future + Unpin>(&self, mut future: F) -> F::Output {
        let mut begun = false;
        poll_fn(|context| {
            let strand = if std::mem::replace(&mut begun, true) { None } else { self.0.upgrade() };
            let turn = strand.as_ref().and_then(|strand| strand.turn(|bits| bits == 0));
            match (future.poll_unpin(context), turn) {
                (Poll::Pending, Some(turn)) => {
                    UNDISTURBED.set(true);
                    turn.poll(ALONE);
                    UNDISTURBED.set(false);
                    future.poll_unpin(context)
                }
                (polled, _) => polled,
            }
        })
        .await
    }
}

/// Whether parts are polled here for one caller, and have done nothing yet: all that this task of the runtime has done so far
/// was for the same caller. So nobody else minds if they block this thread for a moment. True once only: what is done next
/// may be others'.
pub(crate) fn take_undisturbed() -> bool {
    UNDISTURBED.take()
}

impl Shared {
    fn new(all: Vec<BoxFuture<'static, ()>>) -> Shared {
        let bits = (0..all.len()).fold(0, |bits, part| bits | 1 << part);
        let woken = Arc::new(Woken { bits: AtomicU64::new(bits), task: AtomicWaker::new() });
        let waker = |part: usize| Waker::from(Arc::new(PartWaker { bit: 1 << part, woken: woken.clone() }));
        let wakers = (0..all.len()).map(waker).collect();
        let live = all.len();
        Shared { woken, parts: Mutex::new(Parts { all: all.into_iter().map(Some).collect(), wakers, live }) }
    }

    /// The right to poll the parts, if nobody has it and the bits are right.
    fn turn(&self, right: impl Fn(u64) -> bool) -> Option<Turn<'_>> {
        let take = |bits: u64| (bits & TAKEN == 0 && right(bits)).then_some(bits | TAKEN);
        self.woken.bits.fetch_update(Ordering::AcqRel, Ordering::Acquire, take).ok()?;
        Some(Turn(self))
    }
}

struct Turn<'a>(&'a Shared);

impl Turn<'_> {
    /// Until none of the parts has anything to do, but not longer than these rounds.
    fn poll(self, rounds: usize) {
        let bits = &self.0.woken.bits;
        let mut parts = self.0.parts.lock();
        let Parts { all, wakers, live } = &mut *parts;
        for _ in 0..rounds {
            // Without it Tokio's channels seem empty.
            if !coop::has_budget_remaining() {
                break;
            }
            let mut woken = bits.swap(TAKEN, Ordering::AcqRel) & !(TAKEN | ENDED);
            while woken != 0 {
                let at = woken.trailing_zeros() as usize;
                woken &= woken - 1;
                let mut context = Context::from_waker(&wakers[at]);
                if all[at].as_mut().is_some_and(|part| part.as_mut().poll(&mut context).is_ready()) {
                    all[at] = None;
                    *live -= 1;
                }
            }
            if *live == 0 {
                bits.fetch_or(ENDED, Ordering::AcqRel);
            }
            if *live == 0 || bits.load(Ordering::Acquire) == TAKEN {
                break;
            }
        }
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        if self.0.woken.bits.fetch_and(!TAKEN, Ordering::AcqRel) != TAKEN {
            self.0.woken.task.wake();
        }
    }
}

/// What the runtime has for a task.
struct Whole(Arc<Shared>);

impl Future for Whole {
    type Output = ();

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        self.0.woken.task.register(context.waker());
        if let Some(turn) = self.0.turn(|_| true) {
            turn.poll(ROUNDS);
        }
        // Whoever else has a turn wakes this if it leaves anything, or nothing at all.
        match self.0.parts.try_lock().is_some_and(|parts| parts.live == 0) {
            true => Poll::Ready(()),
            false => Poll::Pending,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::sync::mpsc;
    use tokio::time::timeout;

    use super::*;

    type Question = (u32, oneshot::Sender<(u32, bool)>);

    /// Two parts: one passes questions on, the other answers them with twice the number, and whether it was undisturbed.
    fn relay() -> (mpsc::Sender<Question>, Vec<JoinHandle<()>>) {
        let (ask, mut asked) = mpsc::channel::<Question>(8);
        let (pass, mut passed) = mpsc::channel::<Question>(8);
        // Woken first and polled last.
        let answers = spawn(async move {
            while let Some((number, reply)) = passed.recv().await {
                let _ = reply.send((2 * number, take_undisturbed()));
            }
        });
        let passes = spawn(async move {
            while let Some(question) = asked.recv().await {
                pass.send(question).await.unwrap();
            }
        });
        (ask, vec![answers, passes])
    }

    async fn ask(to: mpsc::Sender<Question>, number: u32) -> (u32, bool) {
        let (reply, answer) = oneshot::channel();
        to.send((number, reply)).await.unwrap();
        answer.await.unwrap()
    }

    #[tokio::test]
    async fn parts_that_are_idle_do_their_work_on_the_callers_task() {
        let ((questions, parts), strand) = make(relay);
        // Nobody has polled them yet: that is the runtime's task's to do.
        assert!(strand.with(Box::pin(ask(questions.clone(), 1))).now_or_never().is_none());
        tokio::task::yield_now().await;
        assert_eq!(strand.with(Box::pin(ask(questions.clone(), 2))).now_or_never(), Some((4, true)));
        assert!(!take_undisturbed());
        assert_eq!(ask(questions.clone(), 3).await, (6, false));
        drop(questions);
        for part in parts {
            timeout(Duration::from_secs(10), part).await.unwrap().unwrap();
        }
        tokio::task::yield_now().await;
        assert!(strand.0.upgrade().is_none(), "the runtime's task goes on");
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    async fn no_wake_is_lost_between_threads() {
        let ((questions, _parts), strand) = make(relay);
        let callers = (0..8).map(|caller: u32| {
            let (questions, strand) = (questions.clone(), strand.clone());
            tokio::spawn(async move {
                for n in 0..2_000 {
                    let number = 2_000 * caller + n;
                    let answer = match n % 3 {
                        0 => ask(questions.clone(), number).await,
                        _ => strand.with(Box::pin(ask(questions.clone(), number))).await,
                    };
                    assert_eq!(answer.0, 2 * number);
                }
            })
        });
        for caller in callers.collect::<Vec<_>>() {
            timeout(Duration::from_secs(60), caller).await.unwrap().unwrap();
        }
    }

    #[tokio::test]
    async fn a_part_that_panics_takes_no_other_with_it() {
        let (((questions, _parts), bad), _strand) = make(|| (relay(), spawn(async { panic!("on purpose") })));
        assert_eq!(bad.await.map(|never: ()| never), Err(JoinError::Panic));
        assert_eq!(ask(questions, 1).await.0, 2);
    }

    #[tokio::test]
    async fn a_part_that_never_rests_leaves_the_others_their_turns() {
        let ((), _strand) = make(|| {
            drop(spawn(poll_fn(|context| {
                context.waker().wake_by_ref();
                Poll::<()>::Pending
            })));
        });
        timeout(Duration::from_secs(10), tokio::spawn(tokio::task::yield_now())).await.unwrap().unwrap();
    }
}
