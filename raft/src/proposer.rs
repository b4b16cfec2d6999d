//! Proposals on their way into the log. While one batch is under way the next gathers, so that many writers share a log
//! entry, a message and a sync; a lone writer waits for nobody. Each proposal carries the client id of this run and a
//! sequence number, under which the state machine remembers its outcome: that makes trying again safe.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use kontiki_storage::{Command, Outcome, Proposal, Write};
use parking_lot::Mutex;
use rand::Rng;
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout_at};

use crate::config::Limits;
use crate::host;
use crate::metrics::Metrics;
use crate::route::{Answer, Delivery, Route};
use crate::types::Batch;

/// Batches under way at a time. A second one overlaps its encoding and its way to the log with the first one's sync.
const FLIGHTS: usize = 2;

/// Why a proposal has no outcome. Only after `Unknown` may it have been applied, or may it still be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ProposeError {
    #[error("the outcome is not known: the proposal may have been applied, or may be yet")]
    Unknown,
    #[error("no leader took the proposal in time; it was not applied")]
    NotTaken,
    #[error("no quorum of the replicas answers; the proposal was not applied")]
    NoQuorum,
    #[error("too many proposals are waiting; this one was not applied")]
    Overloaded,
    #[error("no space is left on the disks of the replicas; the proposal was not applied")]
    NoSpace,
    #[error("the proposal has {bytes} bytes, and {limit} is the limit")]
    TooLarge { bytes: usize, limit: usize },
    #[error("the cluster is at feature level {has}, and this needs {needed}: a replica is older; it was not applied")]
    Unsupported { needed: u32, has: u32 },
    #[error("the replica is shutting down; the proposal was not applied")]
    ShuttingDown,
}

impl ProposeError {
    fn reason(&self) -> &'static str {
        match self {
            ProposeError::Unknown => "unknown",
            ProposeError::NotTaken => "not_taken",
            ProposeError::NoQuorum => "no_quorum",
            ProposeError::Overloaded => "overloaded",
            ProposeError::NoSpace => "no_space",
            ProposeError::TooLarge { .. } => "too_large",
            ProposeError::Unsupported { .. } => "unsupported",
            ProposeError::ShuttingDown => "shutting_down",
        }
    }
}

#[derive(Clone)]
pub(crate) struct Proposer(Arc<Shared>);

struct Shared {
    route: Route,
    limits: Limits,
    metrics: Metrics,
    queue: Mutex<Queue>,
}

struct Queue {
    waiting: VecDeque<Waiting>,
    /// Of all without an outcome, waiting or under way.
    pending: usize,
    pending_bytes: usize,
    /// The client and the first sequence of each batch under way.
    flights: Vec<(u64, u64)>,
    client: u64,
    next: u64,
    closed: bool,
}

struct Waiting {
    command: Command,
    bytes: usize,
    deadline: Instant,
    state: Arc<AtomicU8>,
    reply: oneshot::Sender<Result<Outcome, ProposeError>>,
}

/// States of a proposal.
const WAITING: u8 = 0;
const UNDER_WAY: u8 = 1;
const GIVEN_UP: u8 = 2;

struct Flight {
    client: u64,
    first: u64,
    commands: Vec<Waiting>,
    acknowledged: u64,
}

impl Proposer {
    pub(crate) fn new(route: Route, limits: Limits, metrics: Metrics) -> Proposer {
        let queue = Queue {
            waiting: VecDeque::new(),
            pending: 0,
            pending_bytes: 0,
            flights: Vec::new(),
            client: new_client(),
            next: 1,
            closed: false,
        };
        Proposer(Arc::new(Shared { route, limits, metrics, queue: Mutex::new(queue) }))
    }

    pub(crate) async fn propose(&self, command: Command, deadline: Instant) -> Result<Outcome, ProposeError> {
        let result = self.submit(command, deadline).await;
        if let Err(error) = &result {
            self.0.metrics.proposals_failed.with_label_values(&[error.reason()]).inc();
        }
        result
    }

    async fn submit(&self, command: Command, deadline: Instant) -> Result<Outcome, ProposeError> {
        let limits = &self.0.limits;
        let bytes = size(&command);
        if bytes > limits.proposal_bytes {
            return Err(ProposeError::TooLarge { bytes, limit: limits.proposal_bytes });
        }
        let (reply, outcome) = oneshot::channel();
        let state = Arc::new(AtomicU8::new(WAITING));
        let flight = {
            let mut queue = self.0.queue.lock();
            if queue.closed {
                return Err(ProposeError::ShuttingDown);
            }
            if queue.pending >= limits.pending || queue.pending_bytes + bytes > limits.pending_bytes {
                return Err(ProposeError::Overloaded);
            }
            queue.pending += 1;
            queue.pending_bytes += bytes;
            queue.waiting.push_back(Waiting { command, bytes, deadline, state: state.clone(), reply });
            self.0.take_off(&mut queue)
        };
        if let Some(flight) = flight {
            self.0.clone().fly(flight);
        }
        match timeout_at(deadline, outcome).await {
            Ok(Ok(result)) => result,
            Ok(Err(_)) => Err(ProposeError::Unknown),
            Err(_) => match state.swap(GIVEN_UP, Ordering::AcqRel) {
                WAITING => Err(ProposeError::NotTaken),
                _ => Err(ProposeError::Unknown),
            },
        }
    }

    pub(crate) fn pending(&self) -> usize {
        self.0.queue.lock().pending
    }

    pub(crate) fn pending_bytes(&self) -> usize {
        self.0.queue.lock().pending_bytes
    }

    /// Takes no more proposals; those that wait go on.
    pub(crate) fn close(&self) {
        self.0.queue.lock().closed = true;
    }
}

impl Shared {
    /// The next batch, if there is one and it may go now.
    fn take_off(&self, queue: &mut Queue) -> Option<Flight> {
        if queue.flights.len() >= FLIGHTS {
            return None;
        }
        let mut commands = Vec::new();
        let mut bytes = 0;
        while commands.len() < self.limits.batch
            && let Some(waiting) = queue.waiting.front()
            && (commands.is_empty() || bytes + waiting.bytes <= self.limits.batch_bytes)
        {
            let Some(waiting) = queue.waiting.pop_front() else { break };
            let wanted = !waiting.reply.is_closed()
                && waiting.state.compare_exchange(WAITING, UNDER_WAY, Ordering::AcqRel, Ordering::Acquire).is_ok();
            if wanted {
                bytes += waiting.bytes;
                commands.push(waiting);
            } else {
                queue.forget(waiting.bytes);
            }
        }
        if commands.is_empty() {
            return None;
        }
        let (client, first) = (queue.client, queue.next);
        queue.next += commands.len() as u64;
        queue.flights.push((client, first));
        let settled = queue.flights.iter().filter(|flight| flight.0 == client).map(|flight| flight.1).min();
        Some(Flight { client, first, commands, acknowledged: settled.unwrap_or(first) })
    }

    /// Delivers one batch, and has another task deliver what has gathered meanwhile: this one has woken others, and the next
    /// may block its thread.
    fn fly(self: Arc<Shared>, mut flight: Flight) {
        tokio::spawn(async move {
            let delivery = match self.encode(&mut flight) {
                Some(batch) => {
                    let until = flight.commands.iter().map(|waiting| waiting.deadline).max();
                    self.route.deliver(&batch, until.unwrap_or_else(Instant::now)).await
                }
                None => Delivery { answer: Answer::NotTaken, unclear: 0 },
            };
            if let Some(next) = self.land(flight, delivery) {
                self.fly(next);
            }
        });
    }

    fn encode(&self, flight: &mut Flight) -> Option<Batch> {
        let (client, acknowledged) = (flight.client, flight.acknowledged);
        self.metrics.batch_proposals.observe(flight.commands.len() as f64);
        let proposals = flight.commands.iter().zip(flight.first..).map(|(waiting, sequence)| Proposal {
            client,
            sequence,
            acknowledged,
            command: waiting.command.clone(),
        });
        Batch::new(proposals.collect())
            .inspect_err(|error| tracing::error!(%error, "a batch of proposals can't be encoded"))
            .ok()
    }

    fn land(&self, flight: Flight, delivery: Delivery) -> Option<Flight> {
        let mut again = Vec::new();
        let mut answers = Vec::with_capacity(flight.commands.len());
        let mut settled = (0, 0);
        let Delivery { answer, unclear } = delivery;
        let mut outcomes = match &answer {
            Answer::Outcomes(outcomes) => outcomes.iter(),
            _ => [].iter(),
        };
        for waiting in flight.commands {
            let result = match &answer {
                Answer::Outcomes(_) => match outcomes.next() {
                    // The state machine has forgotten this client. Unless an earlier attempt got through, nothing of
                    // this proposal was applied.
                    Some(Outcome::TooOld) if unclear == 0 => {
                        again.push(waiting);
                        continue;
                    }
                    None | Some(Outcome::TooOld) => Err(ProposeError::Unknown),
                    Some(outcome) => Ok(*outcome),
                },
                Answer::NotTaken => Err(ProposeError::NotTaken),
                Answer::Unclear => Err(ProposeError::Unknown),
                Answer::NoSpace if unclear > 0 => Err(ProposeError::Unknown),
                Answer::NoSpace => Err(ProposeError::NoSpace),
            };
            settled = (settled.0 + 1, settled.1 + waiting.bytes);
            answers.push((waiting.reply, result));
        }
        let next = {
            let mut queue = self.queue.lock();
            queue.flights.retain(|under_way| *under_way != (flight.client, flight.first));
            queue.pending -= settled.0;
            queue.pending_bytes -= settled.1;
            if !again.is_empty() && queue.client == flight.client {
                tracing::warn!("the cluster has forgotten this replica's proposals; going on under a new client id");
                queue.client = new_client();
                queue.next = 1;
            }
            for waiting in again.into_iter().rev() {
                let back = waiting.state.compare_exchange(UNDER_WAY, WAITING, Ordering::AcqRel, Ordering::Acquire);
                match back {
                    Ok(_) => queue.waiting.push_front(waiting),
                    Err(_) => queue.forget(waiting.bytes),
                }
            }
            self.take_off(&mut queue)
        };
        for (reply, result) in answers {
            // Nobody waits any more: the caller has gone.
            let _ = reply.send(result);
        }
        next
    }
}

impl Queue {
    fn forget(&mut self, bytes: usize) {
        self.pending -= 1;
        self.pending_bytes -= bytes;
    }
}

/// Not 0, which the state machine takes for nobody.
fn new_client() -> u64 {
    host::rng().random_range(1..=u64::MAX)
}

fn size(command: &Command) -> usize {
    let Command::Transact(transaction) = command else { return 16 };
    let writes = transaction.writes.iter().map(|write| match write {
        Write::Put { key, value, .. } => key.as_str().len() + value.len() + 32,
        Write::Delete { key } => key.as_str().len() + 16,
    });
    writes.sum::<usize>() + transaction.conditions.len() * 64
}
