//! What a replica takes from the process that it runs in: chance, threads for work that blocks, channels that tell who
//! waits of a new value. Where it is simulated these are the simulator's, so that a run can be repeated.

#[cfg(not(test))]
pub(crate) use self::process::{Runtime, blocking, rng, watch};
#[cfg(test)]
pub(crate) use crate::simulation::host::{Runtime, blocking, rng, watch};

#[cfg(not(test))]
mod process {
    pub(crate) use openraft_rt_tokio::TokioRuntime as Runtime;
    pub(crate) use tokio::sync::watch;

    use rand::Rng;
    use tokio::task::JoinError;

    pub(crate) fn rng() -> impl Rng {
        rand::rng()
    }

    /// Runs what blocks where it is in nobody's way.
    pub(crate) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, JoinError> {
        tokio::task::spawn_blocking(work).await
    }
}
