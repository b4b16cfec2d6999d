//! What is read from the state when somebody asks for metrics: objects, sizes, what services may be given, the process.

use std::fmt::{self, Write};
use std::time::SystemTime;

use ipnet::IpNet;
use kontiki_storage::{DatabaseStats, Stats, View};
use serde_json::Value;

use crate::discovery::documents;
use crate::object::Fields;
use crate::server::Settings;
use crate::verbs::services::{allocated_addresses, allocated_ports};

/// Where it is read.
pub struct State<'a> {
    pub store: &'a Stats,
    pub log: &'a DatabaseStats,
    pub view: &'a View,
    pub settings: &'a Settings,
}

impl State<'_> {
    pub(super) fn write(&self, text: &mut String) -> fmt::Result {
        self.objects(text)?;
        self.allocators(text)?;
        self.api_services(text)?;
        database_metrics(text, &[("state", &self.store.database), ("log", self.log)])?;
        process_metrics(text)?;
        build_info(text)
    }

    fn objects(&self, text: &mut String) -> fmt::Result {
        let stats = self.store;
        // Others are the server's own.
        let tables = || stats.tables.iter().filter(|table| !table.name.as_str().starts_with('_'));
        family(text, "apiserver_resource_objects", "gauge", "Objects that are stored, by resource.")?;
        for table in tables() {
            let (resource, group) = table.name.as_str().split_once('.').unwrap_or((table.name.as_str(), ""));
            writeln!(text, "apiserver_resource_objects{{group=\"{group}\",resource=\"{resource}\"}} {}", table.keys)?;
        }
        family(text, "apiserver_storage_objects", "gauge", "Objects that are stored, by resource.")?;
        for table in tables() {
            writeln!(text, "apiserver_storage_objects{{resource=\"{}\"}} {}", table.name, table.keys)?;
        }
        // Files of both databases. What the log's write buffers hold stands in its write-ahead log too; the state has none.
        let size = stats.database.sst_bytes + self.log.sst_bytes + self.log.memtable_bytes;
        let name = "apiserver_storage_size_bytes{storage_cluster_id=\"kontiki\"}";
        gauge(text, name, "Bytes that the databases take on the disk.", size)?;
        for (name, help, value) in [
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

    /// What services have been given of what there is.
    fn allocators(&self, text: &mut String) -> fmt::Result {
        let taken: Vec<(&IpNet, u128)> = self
            .settings
            .service_ranges
            .iter()
            .map(|range| (range, allocated_addresses(self.view).filter(|ip| range.contains(ip)).count() as u128))
            .collect();
        let name = "kube_apiserver_clusterip_allocator_allocated_ips";
        family(text, name, "gauge", "Cluster addresses that services have, by range.")?;
        for (range, taken) in &taken {
            writeln!(text, "{name}{{cidr=\"{range}\"}} {taken}")?;
        }
        let name = "kube_apiserver_clusterip_allocator_available_ips";
        family(text, name, "gauge", "Cluster addresses that are free, by range.")?;
        for (range, taken) in &taken {
            writeln!(text, "{name}{{cidr=\"{range}\"}} {}", usable(range).saturating_sub(*taken))?;
        }
        let taken = allocated_ports(self.view);
        let there = self.settings.node_ports.len();
        let name = "kube_apiserver_nodeport_allocator_allocated_ports";
        gauge(text, name, "Node ports that services have.", taken)?;
        let name = "kube_apiserver_nodeport_allocator_available_ports";
        gauge(text, name, "Node ports that are free.", there.saturating_sub(taken))
    }

    /// APIs that another server is to serve can't be had: requests for them aren't handed on yet.
    fn api_services(&self, text: &mut String) -> fmt::Result {
        let name = "aggregator_unavailable_apiservice";
        family(text, name, "gauge", "1 for APIs that can't be had, by the name of their APIService.")?;
        for record in self.view.range("apiservices.apiregistration.k8s.io/", std::ops::Bound::Unbounded) {
            let Ok(object) = serde_json::from_slice::<Value>(&record.value) else { continue };
            let elsewhere = object.at(&["spec", "service"]).is_some();
            let service = object.text_at(&["metadata", "name"]);
            writeln!(text, "{name}{{name=\"{service}\"}} {}", u8::from(elsewhere))?;
        }
        Ok(())
    }
}

/// How many addresses of a range services may have: not that of the network, nor IPv4's of broadcast.
fn usable(range: &IpNet) -> u128 {
    let bits = u32::from(range.max_prefix_len() - range.prefix_len());
    let all = 1_u128.checked_shl(bits).unwrap_or(u128::MAX);
    all.saturating_sub(if matches!(range, IpNet::V4(_)) { 2 } else { 1 })
}

fn family(text: &mut String, name: &str, kind: &str, help: &str) -> fmt::Result {
    writeln!(text, "# HELP {name} {help}\n# TYPE {name} {kind}")
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

fn database_metrics(text: &mut String, databases: &[(&str, &DatabaseStats)]) -> fmt::Result {
    for (name, kind, help, value) in DATABASE {
        family(text, &format!("kontiki_rocksdb_{name}"), kind, help)?;
        for (database, stats) in databases {
            writeln!(text, "kontiki_rocksdb_{name}{{database=\"{database}\"}} {}", value(stats))?;
        }
    }
    Ok(())
}

fn gauge(text: &mut String, name: &str, help: &str, value: impl fmt::Display) -> fmt::Result {
    let family = name.split('{').next().unwrap_or(name);
    self::family(text, family, "gauge", help)?;
    writeln!(text, "{name} {value}")
}

/// From /proc, which has no other way in without unsafe code or another library.
fn process_metrics(text: &mut String) -> fmt::Result {
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
    gauge(text, "process_max_fds", "Maximum number of open file descriptors.", limit.unwrap_or("0"))
}

/// What `/version` says.
fn build_info(text: &mut String) -> fmt::Result {
    let version = documents::version();
    let labels = [
        ("build_date", "buildDate"),
        ("compiler", "compiler"),
        ("git_commit", "gitCommit"),
        ("git_tree_state", "gitTreeState"),
        ("git_version", "gitVersion"),
        ("go_version", "goVersion"),
        ("major", "major"),
        ("minor", "minor"),
        ("platform", "platform"),
    ];
    let labels = labels.map(|(label, field)| format!("{label}=\"{}\"", version.text_at(&[field])));
    let name = format!("kubernetes_build_info{{{}}}", labels.join(","));
    gauge(text, &name, "1, labelled with the version that is served.", 1)
}
