//! Metrics under kube-apiserver's names, where the meaning is the same.
//!
//! What happens often is counted as it happens; what can be read from the state (objects, sizes, the process) is read
//! when somebody asks.

use std::fmt::Write;
use std::sync::LazyLock;
use std::time::{Duration, SystemTime};

use kontiki_storage::{DatabaseStats, Stats};
use prometheus::core::Collector;
use prometheus::{
    Encoder, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry,
    TextEncoder,
};

use crate::discovery::Resource;
use crate::request::{Query, RequestInfo, Verb};

/// Of this process.
pub static METRICS: LazyLock<Metrics> = LazyLock::new(Metrics::new);

pub struct Metrics {
    /// Others add their own.
    pub registry: Registry,
    requests: IntCounterVec,
    durations: HistogramVec,
    response_sizes: HistogramVec,
    pub inflight: IntGaugeVec,
    pub long_running: IntGaugeVec,
    pub terminations: IntCounterVec,
    pub authentication: Attempts,
    pub authorization: Attempts,
    pub handshake_errors: IntCounter,
    pub connections: IntGauge,
    watch_events: IntCounterVec,
    watch_event_sizes: HistogramVec,
}

/// What came out well and what didn't.
pub struct Attempts {
    good: IntCounter,
    bad: IntCounter,
}

impl Attempts {
    fn of(counters: IntCounterVec, good: &str, bad: &str) -> Attempts {
        let counter = |result| counters.with_label_values(&[result]);
        Attempts { good: counter(good), bad: counter(bad) }
    }

    pub fn count(&self, good: bool) {
        if good { self.good.inc() } else { self.bad.inc() }
    }
}

/// What watches of one resource are sent.
pub struct Watched {
    events: IntCounter,
    sizes: Histogram,
}

impl Watched {
    pub fn event(&self, size: usize) {
        self.events.inc();
        self.sizes.observe(size as f64);
    }
}

const WHERE: [&str; 7] = ["component", "group", "resource", "scope", "subresource", "verb", "version"];

impl Metrics {
    fn new() -> Metrics {
        let registry = Registry::new();
        fn add<C: Collector + Clone + 'static>(registry: &Registry, made: prometheus::Result<C>) -> C {
            // Fails for a name or label that isn't one, or is there twice: the tests make all.
            let collector = made.expect("a well-formed metric");
            registry.register(Box::new(collector.clone())).expect("a metric of its own");
            collector
        }
        let counter = |name, help, labels: &[&str]| add(&registry, IntCounterVec::new(Opts::new(name, help), labels));
        let gauge = |name, help, labels: &[&str]| add(&registry, IntGaugeVec::new(Opts::new(name, help), labels));
        let histogram = |name, help, buckets: Vec<f64>, labels: &[&str]| {
            add(&registry, HistogramVec::new(HistogramOpts::new(name, help).buckets(buckets), labels))
        };
        let powers = |first: f64, factor: f64, count: i32| (0..count).map(|n| first * factor.powi(n)).collect();
        let dry = [WHERE.as_slice(), &["dry_run"]].concat();
        let coded = [WHERE.as_slice(), &["code"]].concat();
        Metrics {
            requests: counter(
                "apiserver_request_total",
                "Counter of apiserver requests broken out for each verb, dry run value, group, version, resource, \
                 scope, component, and HTTP response code.",
                &[dry.as_slice(), &["code"]].concat(),
            ),
            durations: histogram(
                "apiserver_request_duration_seconds",
                "Response latency distribution in seconds for each verb, dry run value, group, version, resource, \
                 subresource, scope and component.",
                vec![
                    0.005, 0.025, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0, 1.25, 1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0,
                    15.0, 20.0, 30.0, 45.0, 60.0,
                ],
                &dry,
            ),
            response_sizes: histogram(
                "apiserver_response_sizes",
                "Response size distribution in bytes for each group, version, verb, resource, subresource, scope and \
                 component.",
                powers(1000.0, 10.0, 7),
                &WHERE,
            ),
            inflight: gauge(
                "apiserver_current_inflight_requests",
                "Number of requests of each kind that are being served, long-running ones apart.",
                &["request_kind"],
            ),
            long_running: gauge(
                "apiserver_longrunning_requests",
                "Gauge of all active long-running apiserver requests broken out by verb, group, version, resource, \
                 scope and component.",
                &WHERE,
            ),
            terminations: counter(
                "apiserver_request_terminations_total",
                "Number of requests which apiserver terminated in self-defense.",
                &coded,
            ),
            authentication: Attempts::of(
                counter("authentication_attempts", "Counter of authenticated attempts.", &["result"]),
                "success",
                "failure",
            ),
            authorization: Attempts::of(
                counter(
                    "authorization_attempts_total",
                    "Counter of authorization attempts broken down by result.",
                    &["result"],
                ),
                "allowed",
                "denied",
            ),
            handshake_errors: add(
                &registry,
                IntCounter::new(
                    "apiserver_tls_handshake_errors_total",
                    "Number of requests dropped with 'TLS handshake error from' error",
                ),
            ),
            connections: add(
                &registry,
                IntGauge::new("kontiki_connections", "Connections of clients that are open, or being made."),
            ),
            watch_events: counter(
                "apiserver_watch_events_total",
                "Number of events sent in watch clients",
                &["group", "version", "resource"],
            ),
            watch_event_sizes: histogram(
                "apiserver_watch_events_sizes",
                "Watch event size distribution in bytes",
                powers(1024.0, 2.0, 8),
                &["group", "version", "resource"],
            ),
            registry,
        }
    }

    /// A request was answered; for lists and gets with how many bytes.
    pub fn request(&self, request: &Labels<'_>, code: u16, took: Duration, size: Option<u64>) {
        let mut digits = itoa::Buffer::new();
        let [component, group, resource, scope, subresource, verb, version] = request.place;
        let dry = [component, group, resource, scope, subresource, verb, version, request.dry_run];
        let coded =
            [component, group, resource, scope, subresource, verb, version, request.dry_run, digits.format(code)];
        self.requests.with_label_values(&coded).inc();
        self.durations.with_label_values(&dry).observe(took.as_secs_f64());
        if let Some(size) = size {
            self.response_sizes.with_label_values(&request.place).observe(size as f64);
        }
    }

    /// For one watch of a resource.
    pub fn watched(&self, resource: &Resource) -> Watched {
        let labels: [&str; 3] = [&resource.group, &resource.version, &resource.plural];
        Watched {
            events: self.watch_events.with_label_values(&labels),
            sizes: self.watch_event_sizes.with_label_values(&labels),
        }
    }

    /// All metrics as text.
    pub fn render(&self, store: &Stats, log: &DatabaseStats) -> String {
        let mut out = Vec::new();
        // Writing into memory can't fail, and there are no families without a name.
        let _ = TextEncoder::new().encode(&self.registry.gather(), &mut out);
        let mut text = String::from_utf8(out).unwrap_or_default();
        // Neither can writing to a string.
        let _ = store_metrics(&mut text, store)
            .and_then(|()| database_metrics(&mut text, &[("state", &store.database), ("log", log)]))
            .and_then(|()| process_metrics(&mut text));
        text
    }
}

/// What all metrics of requests are labelled with.
pub struct Labels<'a> {
    /// In the order of [`WHERE`].
    pub place: [&'a str; 7],
    pub dry_run: &'a str,
}

impl<'a> Labels<'a> {
    /// `known` says whether the path is one that is served: labels of others would be without number.
    pub fn of(info: &'a RequestInfo, query: &'a Query, known: bool) -> Labels<'a> {
        let verb = match info.verb {
            Verb::Get => "GET",
            Verb::List => "LIST",
            Verb::Watch => "WATCH",
            Verb::Create => "POST",
            Verb::Update => "PUT",
            Verb::Patch => "PATCH",
            Verb::Delete => "DELETE",
            Verb::DeleteCollection => "DELETECOLLECTION",
            Verb::Other if info.verb_name == "get" => "GET",
            Verb::Other => "other",
        };
        let place = match (info.is_resource && known, known) {
            (true, _) => {
                let scope = match (&*info.name, &*info.namespace, info.verb) {
                    ("", "", Verb::Create) | ("", _, Verb::Create) => "resource",
                    ("", "", _) => "cluster",
                    ("", ..) => "namespace",
                    _ => "resource",
                };
                ["apiserver", &*info.group, &info.resource, scope, &info.subresource, verb, &info.version]
            }
            (false, true) => ["", "", "", "", &*info.path, verb, ""],
            (false, false) => ["", "", "", "", "", verb, ""],
        };
        let dry_run = if query.get("dryRun").is_some_and(|dry| dry == "All") { "All" } else { "" };
        Labels { place, dry_run }
    }
}

fn store_metrics(text: &mut String, stats: &Stats) -> std::fmt::Result {
    writeln!(
        text,
        "# HELP apiserver_resource_objects Number of stored objects at the time of last check split by kind.\n\
         # TYPE apiserver_resource_objects gauge"
    )?;
    for table in &stats.tables {
        let (resource, group) = table.name.as_str().split_once('.').unwrap_or((table.name.as_str(), ""));
        writeln!(text, "apiserver_resource_objects{{group=\"{group}\",resource=\"{resource}\"}} {}", table.keys)?;
    }
    writeln!(
        text,
        "# HELP apiserver_storage_objects Number of stored objects at the time of last check split by kind.\n\
         # TYPE apiserver_storage_objects gauge"
    )?;
    for table in &stats.tables {
        writeln!(text, "apiserver_storage_objects{{resource=\"{}\"}} {}", table.name, table.keys)?;
    }
    for (name, help, value) in [
        (
            "apiserver_storage_size_bytes{storage_cluster_id=\"kontiki\"}",
            "Size of the storage database file physically allocated in bytes.",
            stats.database.sst_bytes,
        ),
        ("kontiki_store_revision", "The newest revision that has been applied.", stats.revision),
        ("kontiki_store_compacted_revision", "The oldest revision that can be read.", stats.compacted),
        ("kontiki_store_history_events", "Events that are retained for watches.", stats.history_events),
        ("kontiki_store_history_bytes", "What the retained history weighs.", stats.history_bytes),
        ("kontiki_store_dedup_clients", "Proposers whose outcomes are remembered.", stats.dedup_clients),
    ] {
        gauge(text, name, help, value)?;
    }
    Ok(())
}

/// Name, type, what it is, and where it is read.
type DatabaseMetric = (&'static str, &'static str, &'static str, fn(&DatabaseStats) -> f64);

/// Of RocksDB, for each of the two databases of a replica.
const DATABASE: [DatabaseMetric; 12] = [
    ("sst_bytes", "gauge", "Files with rows.", |db| db.sst_bytes as f64),
    ("live_sst_bytes", "gauge", "Files with rows that aren't superseded.", |db| db.live_sst_bytes as f64),
    ("memtable_bytes", "gauge", "Write buffers.", |db| db.memtable_bytes as f64),
    ("block_cache_bytes", "gauge", "Block cache.", |db| db.block_cache_bytes as f64),
    ("pending_compaction_bytes", "gauge", "What compaction has before it.", |db| db.pending_compaction_bytes as f64),
    ("wal_bytes_total", "counter", "Written to the write-ahead log.", |db| db.wal_bytes as f64),
    ("flushed_bytes_total", "counter", "Written from write buffers to files.", |db| db.flushed_bytes as f64),
    ("compacted_bytes_total", "counter", "Written from files to files.", |db| db.compacted_bytes as f64),
    ("stall_seconds_total", "counter", "How long writers were held up.", |db| db.stalled_micros as f64 / 1e6),
    ("writes_stopped", "gauge", "1 where writes wait until it has caught up.", |db| u8::from(db.writes_stopped).into()),
    ("write_rate", "gauge", "Bytes a second to which writes are slowed; 0: they aren't.", |db| db.write_rate as f64),
    ("background_errors", "gauge", "Errors of background work.", |db| db.background_errors as f64),
];

fn database_metrics(text: &mut String, databases: &[(&str, &DatabaseStats)]) -> std::fmt::Result {
    for (name, kind, help, value) in DATABASE {
        writeln!(text, "# HELP kontiki_rocksdb_{name} {help}\n# TYPE kontiki_rocksdb_{name} {kind}")?;
        for (database, stats) in databases {
            writeln!(text, "kontiki_rocksdb_{name}{{database=\"{database}\"}} {}", value(stats))?;
        }
    }
    Ok(())
}

fn gauge(text: &mut String, name: &str, help: &str, value: impl std::fmt::Display) -> std::fmt::Result {
    let family = name.split('{').next().unwrap_or(name);
    writeln!(text, "# HELP {family} {help}\n# TYPE {family} gauge\n{name} {value}")
}

/// From /proc, which has no other way in without unsafe code or another library.
fn process_metrics(text: &mut String) -> std::fmt::Result {
    // The kernel's clock ticks (USER_HZ) are 100 a second and pages are 4 KiB on all platforms that we build for.
    const TICKS: f64 = 100.0;
    const PAGE: u64 = 4096;
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    // What follows the command, which may hold spaces, begins with the third field.
    let fields: Vec<&str> = stat.rsplit_once(')').map_or(Vec::new(), |(_, rest)| rest.split_whitespace().collect());
    let field = |number: usize| fields.get(number - 3).and_then(|f| f.parse::<u64>().ok()).unwrap_or_default();
    let cpu = (field(14) + field(15)) as f64 / TICKS;
    writeln!(
        text,
        "# HELP process_cpu_seconds_total Total user and system CPU time spent in seconds.\n\
         # TYPE process_cpu_seconds_total counter\nprocess_cpu_seconds_total {cpu}"
    )?;
    let uptime = std::fs::read_to_string("/proc/uptime").unwrap_or_default();
    let uptime: f64 = uptime.split(' ').next().and_then(|seconds| seconds.parse().ok()).unwrap_or_default();
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64());
    let started = now - uptime + field(22) as f64 / TICKS;
    let files = std::fs::read_dir("/proc/self/fd").map_or(0, Iterator::count);
    let limits = std::fs::read_to_string("/proc/self/limits").unwrap_or_default();
    let limit = limits.lines().find_map(|line| line.strip_prefix("Max open files")?.split_whitespace().next());
    gauge(text, "process_resident_memory_bytes", "Resident memory size in bytes.", field(24) * PAGE)?;
    gauge(text, "process_virtual_memory_bytes", "Virtual memory size in bytes.", field(23))?;
    gauge(text, "process_start_time_seconds", "Start time of the process since unix epoch in seconds.", started)?;
    gauge(text, "process_open_fds", "Number of open file descriptors.", files)?;
    gauge(text, "process_max_fds", "Maximum number of open file descriptors.", limit.unwrap_or("0"))?;
    gauge(
        text,
        &format!(
            "kubernetes_build_info{{major=\"{}\",minor=\"{}\",git_version=\"{}\"}}",
            crate::version::MAJOR,
            crate::version::MINOR,
            crate::version::GIT
        ),
        "A metric with a constant '1' value labeled by the served version.",
        1,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_told_apart() {
        let query = Query::read(Some("dryRun=All"));
        let info = RequestInfo::read(&http::Method::POST, "/api/v1/namespaces/x/pods", &query);
        METRICS.request(&Labels::of(&info, &query, true), 201, Duration::from_millis(3), None);
        let text = METRICS.render(&Stats::default(), &DatabaseStats::default());
        let line = "apiserver_request_total{code=\"201\",component=\"apiserver\",dry_run=\"All\",group=\"\",\
                    resource=\"pods\",scope=\"resource\",subresource=\"\",verb=\"POST\",version=\"v1\"} 1";
        assert!(text.contains(line), "{text}");
        assert!(text.lines().all(|line| line.starts_with('#') || line.rsplit_once(' ').is_some()));
    }
}
