//! What every request can reach: the replica, the resources that are served, the settings, the metrics.

use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use ipnet::IpNet;
use kontiki_raft::Replica;
use tokio_util::sync::CancellationToken;

use crate::auth::rbac::Rbac;
use crate::auth::{Authenticator, Authorizer};
use crate::discovery::Registry;
use crate::health::Health;
use crate::openapi::OpenApi;
use crate::serve::InFlight;

/// What flags decide about requests; see `kontiki serve --help` for the flags.
#[derive(Debug, Clone)]
pub struct Settings {
    /// `--service-cluster-ip-range`: the first is of the default family.
    pub service_ranges: Vec<IpNet>,
    /// `--service-node-port-range`.
    pub node_ports: RangeInclusive<u16>,
    /// `--event-ttl`.
    pub event_ttl: Duration,
    /// `--min-request-timeout`: watches that name no timeout get one drawn between this and twice this.
    pub min_request_timeout: Duration,
    /// `--request-timeout`: the most that any request but a long-running one may take.
    pub request_timeout: Duration,
    /// The largest body that a write may have.
    pub max_body: usize,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            service_ranges: Vec::new(),
            node_ports: 30000..=32767,
            event_ttl: Duration::from_secs(3600),
            min_request_timeout: Duration::from_secs(1800),
            request_timeout: Duration::from_secs(60),
            max_body: 3 << 20,
        }
    }
}

pub struct Server {
    pub replica: Replica,
    pub registry: ArcSwap<Registry>,
    /// The documents about what is built in.
    pub openapi: OpenApi,
    pub settings: Settings,
    /// Where other machines reach this replica: address and port.
    pub address: String,
    /// Where the certificates and keys are that all replicas share.
    pub shared_pki: PathBuf,
    /// Replicas join one after another.
    pub joining: tokio::sync::Mutex<()>,
    pub authenticator: Authenticator,
    pub authorizer: Authorizer,
    pub rbac: Arc<Rbac>,
    pub health: Health,
    pub inflight: InFlight,
    /// Cancelled when the server stops: watches end, connections take no more requests.
    pub stopping: CancellationToken,
    /// Cancelled then too, and when this replica's state must not be shown any more: watches and loops end.
    pub serving: CancellationToken,
}

impl Server {
    /// What keeps this replica from showing objects for good; None: nothing.
    pub fn divergence(&self) -> Option<&'static str> {
        let diverged = self.replica.divergence().borrow().is_some();
        diverged.then_some("this replica's state is not the one that most replicas have")
    }

    pub fn registry(&self) -> Arc<Registry> {
        self.registry.load_full()
    }
}
