//! Raft's own metrics. What counts events is counted where they happen; what describes a state is read when scraped.

use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;
use prometheus::{
    Counter, Gauge, Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts,
    exponential_buckets,
};

macro_rules! metrics {
    ($($(#[$doc:meta])* $field:ident: $type:ident = $make:expr;)*) => {
        /// A handle; clones count together.
        #[derive(Clone)]
        pub(crate) struct Metrics {
            $($(#[$doc])* pub(crate) $field: $type,)*
        }

        impl Metrics {
            pub(crate) fn new() -> Result<Metrics, prometheus::Error> {
                Ok(Metrics { $($field: $make?,)* })
            }

            fn all(&self) -> Vec<&dyn Collector> {
                vec![$(&self.$field,)*]
            }
        }
    };
}

metrics! {
    term: IntGauge = gauge("term", "The current term.");
    feature_level: IntGauge = gauge("feature_level", "What every member can apply, by this replica's state.");
    is_leader: IntGauge = gauge("is_leader", "1 where this replica leads.");
    has_leader: IntGauge = gauge("has_leader", "1 where this replica knows a leader.");
    has_quorum: IntGauge = gauge("has_quorum", "1 where a quorum of the replicas answers, as far as this one knows.");
    leader_changes: IntCounter = counter("leader_changes_total", "Leaders seen, by this replica, since its start.");
    last_log_index: IntGauge = gauge("last_log_index", "The index of the last log entry.");
    committed_index: IntGauge = gauge("committed_index", "The index of the last entry known to be committed.");
    applied_index: IntGauge = gauge("applied_index", "The index of the last entry that the state machine has applied.");
    purged_index: IntGauge = gauge("purged_index", "The index of the last entry that was cut from the log.");
    log_bytes: IntGauge = gauge("log_bytes", "The bytes of the entries in the log.");
    match_index: IntGaugeVec = gauges("match_index", "On the leader: the last entry that a peer is known to have.", &["peer"]);
    append_seconds: Histogram = histogram("append_duration_seconds", "Writing and syncing what waits for the log.", 5e-5, 18);
    append_entries: Histogram = histogram("append_entries", "Entries written with one sync.", 1.0, 10);
    append_bytes: IntCounter = counter("append_bytes_total", "Bytes given to the log to write.");
    batch_proposals: Histogram = histogram("batch_proposals", "Proposals in one log entry.", 1.0, 10);
    proposals_pending: IntGauge = gauge("proposals_pending", "Proposals that wait for their outcome.");
    proposals_pending_bytes: IntGauge = gauge("proposals_pending_bytes", "Their bytes.");
    proposals_failed: IntCounterVec = counters("proposals_failed_total", "Proposals without an outcome, by reason.", &["reason"]);
    proposal_retries: IntCounter = counter("proposal_retries_total", "Batches proposed again after a leader was lost.");
    applied_proposals: IntCounter = counter("applied_proposals_total", "Proposals that the state machine has applied.");
    read_rounds: IntCounter = counter("read_barrier_rounds_total", "Rounds that confirmed a read index.");
    read_barriers: IntCounter = counter("read_barriers_total", "Reads that waited for one.");
    reads_waiting: IntGauge = gauge("read_barriers_waiting", "Reads that wait for the next round.");
    writes_waiting: IntGauge = gauge("log_writes_waiting", "Appends and notes that wait for the log's next sync.");
    snapshots_sent: IntCounter = counter("snapshots_sent_total", "Snapshots that a peer has taken.");
    snapshot_sends_failed: IntCounter = counter("snapshot_sends_failed_total", "Snapshots that were broken off.");
    snapshots_installed: IntCounter = counter("snapshots_installed_total", "Snapshots that became this replica's state.");
    peer_connected: IntGaugeVec = gauges("peer_connected", "1 where this replica has a connection to the peer.", &["peer"]);
    peer_seconds: Histogram = histogram("peer_round_trip_seconds", "Small requests to peers, from send to answer.", 5e-5, 18);
    peer_requests_rejected: IntCounter = counter("peer_requests_rejected_total", "Peer requests over the limit of those at once.");
    state_comparisons: IntCounter = counter("state_comparisons_total", "Comparisons of the state's hash with other replicas.");
    state_mismatches: IntCounter = counter("state_mismatches_total", "Comparisons that found a difference. Any is an alarm.");
    state_diverged: IntGauge = gauge("state_diverged", "1 where most replicas contradict this one's state: it serves nothing.");
    disk_low: IntGauge = gauge("disk_low", "1 where the disk has less space than the reserve: this replica writes nothing.");
    disk_available: Gauge = real("disk_available_bytes", "Free space on the disk of the data directory.");
    checkpoint_seconds: Counter = seconds("checkpoint_seconds_total", "Time spent on making the state durable.");
}

fn opts(name: &str, help: &str) -> Opts {
    Opts::new(name, help).namespace("kontiki").subsystem("raft")
}

fn gauge(name: &str, help: &str) -> Result<IntGauge, prometheus::Error> {
    IntGauge::with_opts(opts(name, help))
}

fn gauges(name: &str, help: &str, labels: &[&str]) -> Result<IntGaugeVec, prometheus::Error> {
    IntGaugeVec::new(opts(name, help), labels)
}

fn real(name: &str, help: &str) -> Result<Gauge, prometheus::Error> {
    Gauge::with_opts(opts(name, help))
}

fn seconds(name: &str, help: &str) -> Result<Counter, prometheus::Error> {
    Counter::with_opts(opts(name, help))
}

fn counter(name: &str, help: &str) -> Result<IntCounter, prometheus::Error> {
    IntCounter::with_opts(opts(name, help))
}

fn counters(name: &str, help: &str, labels: &[&str]) -> Result<IntCounterVec, prometheus::Error> {
    IntCounterVec::new(opts(name, help), labels)
}

/// Buckets that double from `start`.
fn histogram(name: &str, help: &str, start: f64, buckets: usize) -> Result<Histogram, prometheus::Error> {
    let opts = HistogramOpts { common_opts: opts(name, help), buckets: exponential_buckets(start, 2.0, buckets)? };
    Histogram::with_opts(opts)
}

/// Registers as one collector what `refresh` brings up to date before each scrape.
pub(crate) struct Scrape<F> {
    pub(crate) metrics: Metrics,
    pub(crate) refresh: F,
}

impl<F: Fn(&Metrics) + Send + Sync> Collector for Scrape<F> {
    fn desc(&self) -> Vec<&Desc> {
        self.metrics.all().into_iter().flat_map(Collector::desc).collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        (self.refresh)(&self.metrics);
        self.metrics.all().into_iter().flat_map(Collector::collect).collect()
    }
}
