//! `kontiki serve`: the flags. Names, meanings and defaults are kube-apiserver's where it has the flag.

use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use clap::{ArgAction, Args, ValueEnum};
use ipnet::IpNet;
use tracing_subscriber::EnvFilter;

use super::duration;
use crate::config::Config;
use crate::join::Token;
use crate::quantity::Quantity;

#[derive(Args)]
#[command(after_help = "Examples:\n  \
    kontiki serve --data-dir ./data --secure-port 6443\n\n  \
    kontiki serve --name n1 --data-dir ./n1 --secure-port 6443 --pki-dir ./pki \\\n      \
    --peer-address 127.0.0.1:7001 \\\n      \
    --initial-cluster n1=127.0.0.1:7001,n2=127.0.0.1:7002,n3=127.0.0.1:7003\n\n  \
    # A further replica; `kontiki token create` prints the line\n  \
    kontiki serve --name n4 --data-dir ./n4 --peer-address 10.0.0.4:7001 \\\n      \
    --join https://10.0.0.1:6443 --token …")]
pub struct ServeFlags {
    /// Where this replica keeps its state: log, objects, certificates
    #[arg(long, value_name = "dir", help_heading = REPLICA)]
    pub data_dir: PathBuf,
    /// The name of this replica, unique in the cluster
    #[arg(long, value_name = "string", default_value = "kontiki", help_heading = REPLICA)]
    pub name: String,
    /// Where the other replicas reach this one. With replicas on one machine every one needs its own port
    #[arg(long, value_name = "host:port", help_heading = REPLICA)]
    pub peer_address: Option<String>,
    /// Where to listen for the other replicas, if they reach this one by another way (a proxy, a forwarded port)
    #[arg(long, value_name = "ip:port", requires = "peer_address", help_heading = REPLICA)]
    pub peer_bind_address: Option<SocketAddr>,
    /// All replicas of a new cluster, this one included: name=host:port,… Later starts go by what the data directory says
    #[arg(long, value_name = "name=host:port,...", value_delimiter = ',', help_heading = REPLICA)]
    pub initial_cluster: Vec<String>,
    /// The certificates and keys that `kontiki pki init` made for all replicas. A replica alone makes its own
    #[arg(long, value_name = "dir", help_heading = REPLICA)]
    pub pki_dir: Option<PathBuf>,
    /// The API of a replica of the cluster to join, as in https://10.0.0.1:6443. Counts on an empty data directory
    #[arg(long, value_name = "url", requires = "token", conflicts_with = "initial_cluster", help_heading = REPLICA)]
    pub join: Option<String>,
    /// What `kontiki token create` has printed, for --join
    #[arg(long, value_name = "string", requires = "join", help_heading = REPLICA)]
    pub token: Option<Token>,
    /// Stay a learner after joining: serve reads and watches, but don't vote
    #[arg(long, requires = "join", help_heading = REPLICA)]
    pub learner: bool,

    /// What the database may use for its caches and write buffers. The objects and their history, which are all in
    /// memory, come on top
    #[arg(long, value_name = "bytes", default_value = "48Mi", value_parser = bytes, help_heading = REPLICA)]
    pub storage_memory_budget: usize,
    /// A leader answers reads on the strength of its last heartbeats instead of asking a quorum each time. Only where
    /// machines are never suspended and their clocks run alike: see ARCHITECTURE.md
    #[arg(long, help_heading = REPLICA)]
    pub leader_lease_reads: bool,

    /// The address on which to listen for --secure-port; 0.0.0.0 and :: are all interfaces
    #[arg(long, value_name = "ip", default_value = "0.0.0.0", help_heading = SECURE)]
    pub bind_address: IpAddr,
    /// The port on which to serve HTTPS
    #[arg(long, value_name = "int", default_value_t = 6443, help_heading = SECURE)]
    pub secure_port: u16,
    /// File with the certificate for HTTPS, followed by its issuers. Without it one is made and kept in --data-dir
    #[arg(long, value_name = "file", requires = "tls_private_key_file", help_heading = SECURE)]
    pub tls_cert_file: Option<PathBuf>,
    /// File with the private key of --tls-cert-file
    #[arg(long, value_name = "file", requires = "tls_cert_file", help_heading = SECURE)]
    pub tls_private_key_file: Option<PathBuf>,
    /// Minimum TLS version
    #[arg(long, value_name = "string", default_value = "VersionTLS12", help_heading = SECURE)]
    pub tls_min_version: TlsVersion,
    /// The cipher suites of TLS 1.2 to speak, by default all that are strong. Those of TLS 1.3 are always spoken, weak
    /// ones never
    #[arg(long, value_name = "strings", value_delimiter = ',', help_heading = SECURE)]
    pub tls_cipher_suites: Vec<String>,
    /// How many requests one HTTP/2 connection may have at a time
    #[arg(long, value_name = "int", default_value_t = 250, help_heading = SECURE)]
    pub http2_max_streams_per_connection: u32,

    /// The address that the cluster is told to reach this replica at (the endpoints of the `kubernetes` service).
    /// By default --bind-address, or the address of the default interface where that is all interfaces
    #[arg(long, value_name = "ip", help_heading = GENERIC)]
    pub advertise_address: Option<IpAddr>,
    /// A host name under which clients reach the API, as that of a load balancer: the certificate is good for it
    #[arg(long, value_name = "string", help_heading = GENERIC)]
    pub external_hostname: Option<String>,
    /// The most requests that read and run at the same time, long-running ones apart. Zero: no limit
    #[arg(long, value_name = "int", default_value_t = 400, help_heading = GENERIC)]
    pub max_requests_inflight: usize,
    /// The most requests that write and run at the same time. Zero: no limit
    #[arg(long, value_name = "int", default_value_t = 200, help_heading = GENERIC)]
    pub max_mutating_requests_inflight: usize,
    /// The most that a request may take, long-running ones apart
    #[arg(long, value_name = "duration", default_value = "1m0s", value_parser = duration, help_heading = GENERIC)]
    pub request_timeout: Duration,
    /// Watches that name no timeout get one drawn between this many seconds and twice as many
    #[arg(long, value_name = "int", default_value_t = 1800, help_heading = GENERIC)]
    pub min_request_timeout: u64,
    /// How long to go on serving after SIGTERM with a failing /readyz, so that load balancers look elsewhere
    #[arg(long, value_name = "duration", default_value = "0s", value_parser = duration, help_heading = GENERIC)]
    pub shutdown_delay_duration: Duration,

    /// Whether requests without credentials are let in as system:anonymous
    #[arg(long, value_name = "bool", default_value = "true", action = ArgAction::Set, num_args = 0..=1,
          require_equals = true, default_missing_value = "true", help_heading = AUTHENTICATION)]
    pub anonymous_auth: bool,
    /// File with more authorities whose client certificates are let in, with the common name as user and the
    /// organizations as groups
    #[arg(long, value_name = "file", help_heading = AUTHENTICATION)]
    pub client_ca_file: Option<PathBuf>,
    /// File with bearer tokens, a line each: token,user,uid[,"group1,group2"]
    #[arg(long, value_name = "file", help_heading = AUTHENTICATION)]
    pub token_auth_file: Option<PathBuf>,
    /// Whether tokens that secrets of type bootstrap.kubernetes.io/token in kube-system tell of are let in
    #[arg(long, value_name = "bool", default_value = "false", action = ArgAction::Set, num_args = 0..=1,
          require_equals = true, default_missing_value = "true", help_heading = AUTHENTICATION)]
    pub enable_bootstrap_token_auth: bool,
    /// Identifier of the issuer of service account tokens. The first is put into new tokens; all are accepted
    #[arg(long, value_name = "string", default_value = "https://kubernetes.default.svc", help_heading = AUTHENTICATION)]
    pub service_account_issuer: Vec<String>,
    /// File with keys to verify service account tokens with; may be repeated. By default the key that signs
    #[arg(long, value_name = "file", help_heading = AUTHENTICATION)]
    pub service_account_key_file: Vec<PathBuf>,
    /// File with the key that signs service account tokens. By default the cluster's own (sa.key)
    #[arg(long, value_name = "file", help_heading = AUTHENTICATION)]
    pub service_account_signing_key_file: Option<PathBuf>,
    /// The longest that a service account token may live. Zero: as long as is asked for
    #[arg(long, value_name = "duration", default_value = "0s", value_parser = duration, help_heading = AUTHENTICATION)]
    pub service_account_max_token_expiration: Duration,
    /// Audiences that service account tokens must name one of. By default the issuers
    #[arg(long, value_name = "strings", value_delimiter = ',', help_heading = AUTHENTICATION)]
    pub api_audiences: Vec<String>,

    /// Who decides what a user may, in this order. kube-apiserver allows everything by default; Kontiki doesn't
    #[arg(long, value_name = "strings", value_delimiter = ',', default_value = "RBAC",
          help_heading = AUTHORIZATION)]
    pub authorization_mode: Vec<AuthorizationMode>,

    /// The ranges that cluster IPs come from: one, or one of each family
    #[arg(long, value_name = "string", value_delimiter = ',', default_value = "10.0.0.0/24", help_heading = MISC)]
    pub service_cluster_ip_range: Vec<IpNet>,
    /// The ports for services of type NodePort: first-last or first+count
    #[arg(long, value_name = "portRange", default_value = "30000-32767", value_parser = port_range,
          help_heading = MISC)]
    pub service_node_port_range: RangeInclusive<u16>,
    /// How long events are kept
    #[arg(long, value_name = "duration", default_value = "1h0m0s", value_parser = duration, help_heading = MISC)]
    pub event_ttl: Duration,

    /// Log level: 3 logs every request, 6 what goes on inside
    #[arg(short, long = "v", value_name = "Level", default_value_t = 0, help_heading = LOGS)]
    pub v: u8,
    /// Log format
    #[arg(long, value_name = "string", default_value = "text", help_heading = LOGS)]
    pub logging_format: LogFormat,
}

const REPLICA: &str = "Replica flags";
const GENERIC: &str = "Generic flags";
const SECURE: &str = "Secure serving flags";
const AUTHENTICATION: &str = "Authentication flags";
const AUTHORIZATION: &str = "Authorization flags";
const MISC: &str = "Misc flags";
const LOGS: &str = "Logs flags";

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum AuthorizationMode {
    #[value(name = "AlwaysAllow")]
    AlwaysAllow,
    #[value(name = "AlwaysDeny")]
    AlwaysDeny,
    #[value(name = "Node")]
    Node,
    #[value(name = "RBAC")]
    Rbac,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum TlsVersion {
    #[value(name = "VersionTLS12")]
    Tls12,
    #[value(name = "VersionTLS13")]
    Tls13,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    Text,
    Json,
}

fn bytes(text: &str) -> Result<usize, String> {
    let bytes = Quantity::parse(text).ok().and_then(|quantity| usize::try_from(quantity.value()).ok());
    bytes
        .filter(|bytes| *bytes >= 8 << 20)
        .ok_or_else(|| "an amount of memory is written like 48Mi, and is 8Mi or more".to_owned())
}

fn port_range(text: &str) -> Result<RangeInclusive<u16>, String> {
    let wrong = || "a port range is written like 30000-32767 or 30000+100".to_owned();
    let (first, last) = match (text.split_once('-'), text.split_once('+')) {
        (Some((first, last)), _) => (first.parse().map_err(|_| wrong())?, last.parse().map_err(|_| wrong())?),
        (None, Some((first, count))) => {
            let (first, count): (u16, u16) = (first.parse().map_err(|_| wrong())?, count.parse().map_err(|_| wrong())?);
            (first, first.checked_add(count).ok_or_else(wrong)?)
        }
        (None, None) => text.parse().map(|port| (port, port)).map_err(|_| wrong())?,
    };
    if first == 0 || first > last { Err(wrong()) } else { Ok(first..=last) }
}

pub fn run(flags: ServeFlags, ignored: &[String]) -> anyhow::Result<()> {
    start_logging(&flags);
    for what in ignored {
        tracing::warn!("{what}");
    }
    let config = Config::from_flags(flags)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(crate::serve::run(config))
}

/// To stderr. `RUST_LOG` goes before `-v`.
fn start_logging(flags: &ServeFlags) {
    // What reaches Raft after it has been stopped is no error.
    let level = match flags.v {
        0..3 => "info,openraft=error,openraft::raft=off",
        3..6 => "info,openraft=error,openraft::raft=off,kontiki::http=debug",
        6..8 => "info,kontiki=debug,kontiki_raft=debug,kontiki_storage=debug",
        _ => "debug,kontiki=trace,kontiki_raft=trace,kontiki_storage=trace",
    };
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(level));
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    match flags.logging_format {
        LogFormat::Text => builder.with_ansi(false).init(),
        LogFormat::Json => builder.json().init(),
    }
}
