//! Metrics under kube-apiserver's names, where the meaning is the same, with its labels and buckets: dashboards and alerts
//! that were made for it go on working.
//!
//! What happens often is counted as it happens (`requests` for what every request touches); what can be read from the
//! state (objects, sizes, the process) is read when somebody asks (`state`).

mod requests;
mod state;

use std::net::IpAddr;
use std::sync::LazyLock;
use std::time::Duration;

use ipnet::IpNet;
use prometheus::core::Collector;
use prometheus::{
    Encoder, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry,
    TextEncoder,
};

use crate::discovery::Resource;
use requests::Cache;

pub use requests::{Labels, scope, verb};
pub use state::State;

/// Of this process.
pub static METRICS: LazyLock<Metrics> = LazyLock::new(Metrics::new);

pub struct Metrics {
    /// Others add their own.
    pub registry: Registry,
    requests: requests::Requests,
    pub inflight: IntGaugeVec,
    pub long_running: IntGaugeVec,
    terminations: IntCounterVec,
    aborts: IntCounterVec,
    deprecated: IntGaugeVec,
    pub authentication: Attempts,
    pub authorization: Attempts,
    users: Users,
    /// What is left of the life of the certificates that clients show.
    pub certificates: Histogram,
    pub handshake_errors: IntCounter,
    pub connections: IntGauge,
    pub waiting_for_start: IntGauge,
    lists: [IntCounterVec; 4],
    listed: Cache<[IntCounter; 4]>,
    watch_lists: HistogramVec,
    watch_events: IntCounterVec,
    watch_event_sizes: HistogramVec,
    addresses: IntCounterVec,
    ports: IntCounterVec,
}

/// What came out well and what didn't, and how long it took.
pub struct Attempts {
    good: (IntCounter, Histogram),
    bad: (IntCounter, Histogram),
}

impl Attempts {
    fn of(counters: &IntCounterVec, durations: &HistogramVec, good: &str, bad: &str) -> Attempts {
        let both = |result| (counters.with_label_values(&[result]), durations.with_label_values(&[result]));
        Attempts { good: both(good), bad: both(bad) }
    }

    pub fn count(&self, good: bool, took: Duration) {
        let (counter, durations) = if good { &self.good } else { &self.bad };
        counter.inc();
        durations.observe(took.as_secs_f64());
    }
}

/// Users that upstream tells apart; there are too many of the others.
const KNOWN_USERS: [&str; 5] =
    ["admin", "client", "kube_proxy", "kubelet", "system:serviceaccount:kube-system:default"];

struct Users {
    known: [IntCounter; KNOWN_USERS.len()],
    email: IntCounter,
    other: IntCounter,
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

/// The labels of where a request goes, in the order of the alphabet.
const WHERE: [&str; 7] = ["component", "group", "resource", "scope", "subresource", "verb", "version"];

const HOUR: f64 = 3600.0;
const DAY: f64 = 24.0 * HOUR;

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
        let latencies = || {
            vec![
                0.005, 0.025, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0, 1.25, 1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0, 15.0,
                20.0, 30.0, 45.0, 60.0,
            ]
        };
        let dry = [WHERE.as_slice(), &["dry_run"]].concat();
        let list = |name, help| counter(name, help, &["group", "resource"]);
        let users = counter(
            "authenticated_user_requests",
            "Requests whose user is known, by user as far as there are few of them.",
            &["username"],
        );
        let user = |name| users.with_label_values(&[name]);
        Metrics {
            requests: requests::Requests::new(
                counter(
                    "apiserver_request_total",
                    "Requests that were answered, by verb, dry run, where they went and the code of the response.",
                    &[dry.as_slice(), &["code"]].concat(),
                ),
                histogram(
                    "apiserver_request_duration_seconds",
                    "How long requests took in seconds, by verb, dry run and where they went.",
                    latencies(),
                    &dry,
                ),
                histogram(
                    "apiserver_request_sli_duration_seconds",
                    "How long requests took in seconds, what others took apart (webhooks, of which there are none yet), by \
                     verb and where they went.",
                    latencies(),
                    &WHERE,
                ),
                histogram(
                    "apiserver_response_sizes",
                    "Bytes of responses to reads, by where they went.",
                    powers(1000.0, 10.0, 7),
                    &WHERE,
                ),
            ),
            inflight: gauge(
                "apiserver_current_inflight_requests",
                "Number of requests of each kind that are being served, long-running ones apart.",
                &["request_kind"],
            ),
            long_running: gauge(
                "apiserver_longrunning_requests",
                "Long-running requests that are under way, by verb and where they went.",
                &WHERE,
            ),
            terminations: counter(
                "apiserver_request_terminations_total",
                "Requests that were refused or ended in self-defense: too many at a time, or out of time.",
                &[WHERE.as_slice(), &["code"]].concat(),
            ),
            aborts: counter(
                "apiserver_request_aborts_total",
                "Requests that ended before there was an answer, as when the client has gone.",
                &WHERE[1..],
            ),
            deprecated: gauge(
                "apiserver_requested_deprecated_apis",
                "1 for deprecated APIs that somebody has used, with the release that is to do without.",
                &["group", "version", "resource", "subresource", "removed_release"],
            ),
            authentication: Attempts::of(
                &counter("authentication_attempts", "Attempts to find out who asks, by result.", &["result"]),
                &histogram(
                    "authentication_duration_seconds",
                    "How long it took to find out who asks in seconds, by result.",
                    powers(0.001, 2.0, 15),
                    &["result"],
                ),
                "success",
                "failure",
            ),
            // Nobody ever says no: a request that nobody allows is denied in the end.
            authorization: Attempts::of(
                &counter(
                    "authorization_attempts_total",
                    "Attempts to find out whether a user may do something, by result: allowed or no-opinion.",
                    &["result"],
                ),
                &histogram(
                    "authorization_duration_seconds",
                    "How long it took to find out whether a user may do something in seconds, by result.",
                    powers(0.001, 2.0, 15),
                    &["result"],
                ),
                "allowed",
                "no-opinion",
            ),
            users: Users { known: KNOWN_USERS.map(user), email: user("email_id"), other: user("other") },
            certificates: add(
                &registry,
                Histogram::with_opts(
                    HistogramOpts::new(
                        "apiserver_client_certificate_expiration_seconds",
                        "Seconds that are left of the certificates with which clients were authenticated.",
                    )
                    .buckets(vec![
                        0.0,
                        0.5 * HOUR,
                        HOUR,
                        2.0 * HOUR,
                        6.0 * HOUR,
                        12.0 * HOUR,
                        DAY,
                        2.0 * DAY,
                        4.0 * DAY,
                        7.0 * DAY,
                        30.0 * DAY,
                        90.0 * DAY,
                        180.0 * DAY,
                        360.0 * DAY,
                    ]),
                ),
            ),
            handshake_errors: add(
                &registry,
                IntCounter::new(
                    "apiserver_tls_handshake_errors_total",
                    "Connections that ended in an error before TLS had begun.",
                ),
            ),
            connections: add(
                &registry,
                IntGauge::new("kontiki_connections", "Connections of clients that are open, or being made."),
            ),
            waiting_for_start: add(
                &registry,
                IntGauge::new(
                    "kontiki_requests_waiting_for_start",
                    "Requests that wait because this replica has been started and has not caught up with the others yet.",
                ),
            ),
            lists: [
                list("apiserver_storage_list_total", "Lists that were read from the state."),
                list("apiserver_storage_list_fetched_objects_total", "Objects that were read for lists."),
                list("apiserver_storage_list_evaluated_objects_total", "Objects that were looked at for lists."),
                list("apiserver_storage_list_returned_objects_total", "Objects that lists were answered with."),
            ],
            listed: Cache::default(),
            watch_lists: histogram(
                "apiserver_watch_list_duration_seconds",
                "How long it took in seconds until a watch had told of all objects that were there before.",
                vec![0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0, 2.0, 4.0, 6.0, 8.0, 10.0, 15.0, 20.0, 30.0, 45.0, 60.0],
                &["group", "version", "resource", "scope"],
            ),
            watch_events: counter(
                "apiserver_watch_events_total",
                "Events that watches were sent.",
                &["group", "version", "resource"],
            ),
            watch_event_sizes: histogram(
                "apiserver_watch_events_sizes",
                "Bytes of the events that watches were sent.",
                powers(1024.0, 2.0, 8),
                &["group", "version", "resource"],
            ),
            addresses: counter(
                "kube_apiserver_clusterip_allocator_allocation_total",
                "Cluster addresses that services were given, by range, and by whether the client chose (static).",
                &["cidr", "scope"],
            ),
            ports: counter(
                "kube_apiserver_nodeport_allocator_allocation_total",
                "Node ports that services were given, by whether the client chose (static).",
                &["scope"],
            ),
            registry,
        }
    }

    /// A request was answered; for lists and gets with how many bytes.
    pub fn request(&self, labels: &Labels<'_>, code: u16, took: Duration, size: Option<u64>) {
        self.requests.count(labels, code, took, size);
    }

    /// A request was refused or ended in self-defense.
    pub fn terminated(&self, labels: &Labels<'_>, code: u16) {
        let [component, group, resource, scope, subresource, verb, version] = labels.place;
        let code = code.to_string();
        let values = [component, group, resource, scope, subresource, verb, version, &code];
        self.terminations.with_label_values(&values).inc();
    }

    /// A request ended without an answer.
    pub fn aborted(&self, labels: &Labels<'_>) {
        self.aborts.with_label_values(&labels.place[1..]).inc();
    }

    /// It was found out who asks.
    pub fn user(&self, name: &str) {
        let counter = match KNOWN_USERS.iter().position(|known| *known == name) {
            Some(known) => &self.users.known[known],
            None if name.contains('@') => &self.users.email,
            None => &self.users.other,
        };
        counter.inc();
    }

    /// Somebody has used an API that is deprecated. None of those has a release yet that is to do without.
    pub fn deprecated(&self, resource: &Resource, subresource: &str) {
        let labels = [&*resource.group, &*resource.version, &*resource.plural, subresource, ""];
        self.deprecated.with_label_values(&labels).set(1);
    }

    /// A list was read: so many objects, of which so many are its answer.
    pub fn listed(&self, resource: &Resource, read: usize, returned: usize) {
        let labels: [&str; 2] = [&resource.group, &resource.plural];
        let counters = self.listed.get(&labels, || self.lists.each_ref().map(|list| list.with_label_values(&labels)));
        let [lists, fetched, evaluated, answered] = &**counters;
        lists.inc();
        fetched.inc_by(read as u64);
        evaluated.inc_by(read as u64);
        answered.inc_by(returned as u64);
    }

    /// A watch has told of all objects that were there before.
    pub fn watch_listed(&self, resource: &Resource, scope: &str, took: Duration) {
        let labels = [&*resource.group, &*resource.version, &*resource.plural, scope];
        self.watch_lists.with_label_values(&labels).observe(took.as_secs_f64());
    }

    /// For one watch of a resource.
    pub fn watched(&self, resource: &Resource) -> Watched {
        let labels: [&str; 3] = [&resource.group, &resource.version, &resource.plural];
        Watched {
            events: self.watch_events.with_label_values(&labels),
            sizes: self.watch_event_sizes.with_label_values(&labels),
        }
    }

    /// A service is given an address of one of the ranges.
    pub fn address_allocated(&self, address: IpAddr, ranges: &[IpNet], chosen: bool) {
        if let Some(range) = ranges.iter().find(|range| range.contains(&address)) {
            self.addresses.with_label_values(&[&*range.to_string(), chooser(chosen)]).inc();
        }
    }

    /// A service is given a node port.
    pub fn port_allocated(&self, chosen: bool) {
        self.ports.with_label_values(&[chooser(chosen)]).inc();
    }

    /// All metrics as text.
    pub fn render(&self, state: &State<'_>) -> String {
        let mut out = Vec::new();
        // Writing into memory can't fail, and there are no families without a name.
        let _ = TextEncoder::new().encode(&self.registry.gather(), &mut out);
        let mut text = String::from_utf8(out).unwrap_or_default();
        // Neither can writing to a string.
        let _ = state.write(&mut text);
        text
    }
}

/// Whether the client chose what it was given.
fn chooser(chosen: bool) -> &'static str {
    if chosen { "static" } else { "dynamic" }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::request::{Query, RequestInfo};

    #[test]
    fn requests_are_told_apart() {
        let query = Query::read(Some("dryRun=All"));
        let info = RequestInfo::read(&http::Method::POST, "/api/v1/namespaces/x/pods", &query);
        for code in [201, 201, 418] {
            METRICS.request(&Labels::of(&info, "POST", &query, true), code, Duration::from_millis(3), None);
        }
        let mut out = Vec::new();
        TextEncoder::new().encode(&METRICS.registry.gather(), &mut out).unwrap();
        let text = String::from_utf8(out).unwrap();
        let place = "component=\"apiserver\",dry_run=\"All\",group=\"\",resource=\"pods\",scope=\"resource\",\
                     subresource=\"\",verb=\"POST\",version=\"v1\"}";
        for line in [
            format!("apiserver_request_total{{code=\"201\",{place} 2"),
            format!("apiserver_request_total{{code=\"418\",{place} 1"),
            format!("apiserver_request_duration_seconds_count{{{place} 3"),
            format!("apiserver_request_sli_duration_seconds_count{{{} 3", place.replace("dry_run=\"All\",", "")),
        ] {
            assert!(text.contains(&line), "{line}\n{text}");
        }
    }
}
