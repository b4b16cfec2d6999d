//! What a replica takes from the process that it runs in: chance, and threads for work that blocks. Where it is simulated these
//! are the simulator's, so that a run can be repeated.

use std::io;
use std::time::Duration;

use openraft::rt::{AsyncRuntime, OptionalSend};
use openraft_rt_tokio::{TokioMpsc, TokioMutex, TokioOneshot, TokioRuntime};

#[cfg(not(test))]
use self::process::{ThreadRng, thread_rng};
#[cfg(not(test))]
pub(crate) use self::process::{blocking, rng};
#[cfg(test)]
use crate::simulation::host::{ThreadRng, thread_rng};
#[cfg(test)]
pub(crate) use crate::simulation::host::{blocking, rng};
use crate::strand;
use crate::watch::InOrder;

#[cfg(not(test))]
mod process {
    pub(crate) use rand_of_openraft::rngs::ThreadRng;

    use rand::Rng;
    use tokio::task::JoinError;

    pub(crate) fn rng() -> impl Rng {
        rand::rng()
    }

    pub(crate) fn thread_rng() -> ThreadRng {
        rand_of_openraft::rng()
    }

    /// Runs what blocks where it is in nobody's way.
    pub(crate) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, JoinError> {
        tokio::task::spawn_blocking(work).await
    }
}

/// Tokio's runtime, with chance and channels as above, and strands.
#[derive(Debug)]
pub(crate) struct Runtime(TokioRuntime);

impl AsyncRuntime for Runtime {
    type JoinError = strand::JoinError;
    type JoinHandle<T: OptionalSend + 'static> = strand::JoinHandle<T>;
    type Sleep = tokio::time::Sleep;
    type Instant = <TokioRuntime as AsyncRuntime>::Instant;
    type TimeoutError = tokio::time::error::Elapsed;
    type Timeout<R, T: Future<Output = R> + OptionalSend> = tokio::time::Timeout<T>;
    type ThreadLocalRng = ThreadRng;
    type Mpsc = TokioMpsc;
    type Watch = InOrder;
    type Oneshot = TokioOneshot;
    type Mutex<T: OptionalSend + 'static> = TokioMutex<T>;

    fn spawn<T>(future: T) -> Self::JoinHandle<T::Output>
    where
        T: Future + OptionalSend + 'static,
        T::Output: OptionalSend + 'static,
    {
        strand::spawn(future)
    }

    fn sleep(duration: Duration) -> Self::Sleep {
        TokioRuntime::sleep(duration)
    }

    fn sleep_until(deadline: Self::Instant) -> Self::Sleep {
        TokioRuntime::sleep_until(deadline)
    }

    fn timeout<R, F: Future<Output = R> + OptionalSend>(duration: Duration, future: F) -> Self::Timeout<R, F> {
        TokioRuntime::timeout(duration, future)
    }

    fn timeout_at<R, F: Future<Output = R> + OptionalSend>(deadline: Self::Instant, future: F) -> Self::Timeout<R, F> {
        TokioRuntime::timeout_at(deadline, future)
    }

    fn is_panic(error: &strand::JoinError) -> bool {
        *error == strand::JoinError::Panic
    }

    fn thread_rng() -> Self::ThreadLocalRng {
        thread_rng()
    }

    fn new(threads: usize) -> Runtime {
        Runtime(TokioRuntime::new(threads))
    }

    fn block_on<F: Future<Output = T>, T>(&mut self, future: F) -> T {
        self.0.block_on(future)
    }

    async fn spawn_blocking<F, T>(work: F) -> Result<T, io::Error>
    where
        F: FnOnce() -> T + Send + 'static,
        T: Send + 'static,
    {
        Ok(blocking(work).await?)
    }
}

#[cfg(test)]
mod tests {
    use openraft::rt::testing::Suite;

    use super::Runtime;

    #[test]
    fn it_is_what_openraft_expects_of_a_runtime() {
        Suite::<Runtime>::test_all();
    }
}
