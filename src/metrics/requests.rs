//! What every request touches: found by its labels without making any, and then a few additions.

use std::hash::{BuildHasher, Hash, Hasher};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use arc_swap::ArcSwap;
use hashbrown::{DefaultHashBuilder, HashTable};
use http::HeaderMap;
use http::header::CONTENT_TYPE;
use prometheus::{Histogram, HistogramVec, IntCounter, IntCounterVec};

use crate::request::{Query, RequestInfo, Verb};

/// What all metrics of requests are labelled with.
#[derive(Clone, Copy)]
pub struct Labels<'a> {
    /// In the order of [`super::WHERE`].
    pub place: [&'a str; 7],
    pub dry_run: &'a str,
}

impl<'a> Labels<'a> {
    /// `known` says whether the path is one that is served: labels of others would be without number.
    pub fn of(info: &'a RequestInfo, verb: &'a str, query: &Query, known: bool) -> Labels<'a> {
        let place = match (info.is_resource && known, known) {
            (true, _) => {
                ["apiserver", &*info.group, &info.resource, scope(info), &info.subresource, verb, &info.version]
            }
            (false, true) => ["", "", "", "", info.path.trim_end_matches('/'), verb, ""],
            (false, false) => ["", "", "", "", "", verb, ""],
        };
        let dry_run = if query.get("dryRun").is_some_and(|dry| dry == "All") { "All" } else { "" };
        Labels { place, dry_run }
    }
}

/// How much a request is about.
pub fn scope(info: &RequestInfo) -> &'static str {
    match (&*info.name, &*info.namespace, info.verb) {
        ("", _, Verb::Create) => "resource",
        ("", "", _) => "cluster",
        ("", ..) => "namespace",
        _ => "resource",
    }
}

/// What metrics call the verb of a request: its method as a rule.
pub fn verb(info: &RequestInfo, headers: &HeaderMap) -> &'static str {
    let connects = || matches!(&*info.subresource, "attach" | "exec" | "portforward" | "proxy");
    let applies = || headers.get(CONTENT_TYPE).is_some_and(|value| value == "application/apply-patch+yaml");
    match info.verb {
        Verb::Watch => "WATCH",
        _ if info.is_resource && connects() => "CONNECT",
        Verb::Get => "GET",
        Verb::List => "LIST",
        Verb::Create => "POST",
        Verb::Update => "PUT",
        Verb::Patch if applies() => "APPLY",
        Verb::Patch => "PATCH",
        Verb::Delete => "DELETE",
        Verb::DeleteCollection => "DELETECOLLECTION",
        Verb::Other => match &*info.verb_name {
            "get" | "head" => "GET",
            "post" => "POST",
            "put" => "PUT",
            "patch" => "PATCH",
            "delete" => "DELETE",
            _ => "other",
        },
    }
}

/// Metrics of all answered requests.
pub(super) struct Requests {
    counters: IntCounterVec,
    durations: HistogramVec,
    sli_durations: HistogramVec,
    sizes: HistogramVec,
    series: Cache<Series>,
}

/// Metrics of the requests with the same labels.
struct Series {
    durations: Histogram,
    sli_durations: Histogram,
    sizes: OnceLock<Histogram>,
    /// One for each of [`CODES`].
    counters: [OnceLock<IntCounter>; CODES.len()],
}

/// The codes that are answered; any other takes a little longer.
const CODES: [u16; 20] =
    [200, 201, 404, 409, 403, 204, 202, 304, 301, 400, 401, 405, 406, 410, 413, 415, 422, 429, 500, 503];

impl Requests {
    pub(super) fn new(
        counters: IntCounterVec,
        durations: HistogramVec,
        sli_durations: HistogramVec,
        sizes: HistogramVec,
    ) -> Requests {
        Requests { counters, durations, sli_durations, sizes, series: Cache::default() }
    }

    pub(super) fn count(&self, labels: &Labels<'_>, code: u16, took: Duration, size: Option<u64>) {
        let [component, group, resource, scope, subresource, verb, version] = labels.place;
        let dry = [component, group, resource, scope, subresource, verb, version, labels.dry_run];
        let series = self.series.get(&dry, || Series {
            durations: self.durations.with_label_values(&dry),
            sli_durations: self.sli_durations.with_label_values(&labels.place),
            sizes: OnceLock::new(),
            counters: Default::default(),
        });
        let counter = || {
            let mut digits = itoa::Buffer::new();
            let [component, group, resource, scope, subresource, verb, version, dry_run] = dry;
            let code = digits.format(code);
            let coded = [component, group, resource, scope, subresource, verb, version, dry_run, code];
            self.counters.with_label_values(&coded)
        };
        match CODES.iter().position(|known| *known == code) {
            Some(at) => series.counters[at].get_or_init(counter).inc(),
            None => counter().inc(),
        }
        let seconds = took.as_secs_f64();
        series.durations.observe(seconds);
        series.sli_durations.observe(seconds);
        if let Some(size) = size {
            series.sizes.get_or_init(|| self.sizes.with_label_values(&labels.place)).observe(size as f64);
        }
    }
}

/// Values by labels, which are looked up without a lock or a copy. New ones are rare, and there are only so many.
pub(super) struct Cache<T> {
    entries: ArcSwap<HashTable<Arc<Entry<T>>>>,
    hasher: DefaultHashBuilder,
}

pub(super) struct Entry<T> {
    labels: Box<[Box<str>]>,
    value: T,
}

impl<T> std::ops::Deref for Entry<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.value
    }
}

impl<T> Default for Cache<T> {
    fn default() -> Cache<T> {
        Cache { entries: ArcSwap::from_pointee(HashTable::new()), hasher: DefaultHashBuilder::default() }
    }
}

impl<T> Cache<T> {
    pub(super) fn get(&self, labels: &[&str], make: impl FnOnce() -> T) -> Arc<Entry<T>> {
        let hash = self.hash(labels.iter().copied());
        let same = |entry: &Arc<Entry<T>>| entry.labels.iter().map(|label| &**label).eq(labels.iter().copied());
        if let Some(entry) = self.entries.load().find(hash, same) {
            return entry.clone();
        }
        let labels = labels.iter().map(|label| Box::from(*label)).collect();
        let entry = Arc::new(Entry { labels, value: make() });
        self.entries.rcu(|entries| {
            let mut entries = HashTable::clone(entries);
            // Who was quicker has made another handle of the same metric; either will do.
            if entries.find(hash, same).is_none() {
                let hash_of = |entry: &Arc<Entry<T>>| self.hash(entry.labels.iter().map(|label| &**label));
                entries.insert_unique(hash, entry.clone(), hash_of);
            }
            entries
        });
        entry
    }

    fn hash<'l>(&self, labels: impl Iterator<Item = &'l str>) -> u64 {
        let mut hasher = self.hasher.build_hasher();
        labels.for_each(|label| label.hash(&mut hasher));
        hasher.finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_found_by_all_their_labels() {
        let cache: Cache<u32> = Cache::default();
        for round in 0..2 {
            for n in 0..100 {
                let text = (n / 10).to_string();
                let entry = cache.get(&[&text, &(n % 10).to_string()], || if round == 0 { n } else { 1000 });
                assert_eq!(**entry, n);
            }
        }
        assert_eq!(cache.entries.load().len(), 100);
    }

    #[test]
    fn verbs_are_told_apart() {
        let verb_of = |method: http::Method, uri: &str, content_type: &'static str| {
            let (path, query) = uri.split_once('?').map_or((uri, None), |(path, query)| (path, Some(query)));
            let headers = HeaderMap::from_iter([(CONTENT_TYPE, http::HeaderValue::from_static(content_type))]);
            verb(&RequestInfo::read(&method, path, &Query::read(query)), &headers)
        };
        let pod = "/api/v1/namespaces/x/pods/p";
        assert_eq!(verb_of(http::Method::PATCH, pod, "application/apply-patch+yaml"), "APPLY");
        assert_eq!(verb_of(http::Method::PATCH, pod, "application/merge-patch+json"), "PATCH");
        assert_eq!(verb_of(http::Method::GET, &format!("{pod}/exec"), ""), "CONNECT");
        assert_eq!(verb_of(http::Method::POST, "/api/v1/nodes/n/proxy/x", ""), "CONNECT");
        assert_eq!(verb_of(http::Method::GET, &format!("{pod}/log"), ""), "GET");
        assert_eq!(verb_of(http::Method::GET, "/api/v1/pods?watch=1", ""), "WATCH");
        assert_eq!(verb_of(http::Method::HEAD, "/livez", ""), "GET");
        assert_eq!(verb_of(http::Method::OPTIONS, "/livez", ""), "other");
    }
}
